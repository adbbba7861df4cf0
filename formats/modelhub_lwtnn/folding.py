"""Joins drafted steps into lwtnn's layers: bias and scale into weights, activations onto layers, scaling into inputs.

Every rule is exact algebra in float64. Only a step whose result has one user is ever joined with that user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace

import numpy as np

from modelhub.graph.interface import Feature, Output
from modelhub_lwtnn import schema
from modelhub_lwtnn.draft import LINEAR, Affine, Default, Draft, Entrance, Layer, Step, only_activation
from modelhub_lwtnn.schema import Array, Conv1d, Dense, GraphNetwork, Group, Node, Normalization, OutputNode

__all__ = ["answered", "evaluations", "finite", "fold", "join", "network"]


def join(first: Layer | None, then: Layer | None) -> Layer | None:
    """The one layer that does `first` and `then`, None where lwtnn has none."""
    if isinstance(first, Affine) and isinstance(then, Affine):
        return first.plus(then)
    if isinstance(first, Affine) and isinstance(then, Dense) and then.weights is not None and first.only_scales():
        return replace(then, weights=then.weights * first.scale)
    if not isinstance(first, Dense | Conv1d) or first.activation != LINEAR:
        return None
    activation = only_activation(then)
    if activation is not None:
        # The engine runs a convolution's softmax along the steps (Conv1dLayer::scan): it gets a node of its own.
        wrong = isinstance(first, Conv1d) and activation.function == "softmax"
        return None if wrong else replace(first, activation=activation)
    if isinstance(then, Affine) and first.weights is not None:
        scale = then.scale.reshape(-1, *[1] * (first.weights.ndim - 1))
        bias = np.zeros(len(first.weights)) if first.bias is None else first.bias
        return replace(first, weights=first.weights * scale, bias=(bias + then.offset) * then.scale + then.shift)
    return None


def fold(draft: Draft) -> Draft:
    """`draft` without dead steps and with every join made; of last steps in time only those lwtnn has."""
    return _joined(_without_last(_joined(draft)))


def _joined(draft: Draft) -> Draft:
    uses = _uses(draft)
    steps: list[Step] = []
    place: dict[int, int] = {}
    for number, step in enumerate(draft.steps):
        if not uses[number] and step.entrance is None:
            continue
        sources = tuple(place[source] for source in step.sources)
        if len(sources) == 1 and uses[step.sources[0]] == 1:
            joined = _absorb(steps[sources[0]], step)
            if joined is not None:
                steps[sources[0]] = joined
                place[number] = sources[0]
                continue
        place[number] = len(steps)
        steps.append(replace(step, sources=sources))
    return Draft(steps, [(output, place[number]) for output, number in draft.outputs])


def _without_last(draft: Draft) -> Draft:
    """`draft` with every step "last" spelt in lwtnn's words.

    A `sequence` node is its own last step wherever a vector is asked for. What works step by step works on the last
    one alone. And an input gets a convolution that changes nothing, which is a `sequence` node.
    """
    result = Draft()
    place: dict[int, int] = {}
    lasts: dict[int, int] = {}

    def last(number: int) -> int:
        chain = []
        while number not in lasts and draft.steps[number].kind == "time_distributed":
            chain.append(number)
            (number,) = draft.steps[number].sources
        if number not in lasts:
            step = draft.steps[number]
            same = Conv1d(np.eye(step.width)[:, :, None], np.zeros(step.width), "causal", 1, LINEAR)
            made = Step("sequence", (place[number],), step.width, step.origin, same, step.length)
            lasts[number] = place[number] if step.kind == "sequence" else result.add(made)
        for above in reversed(chain):
            step = replace(draft.steps[above], kind="feed_forward", sources=(lasts[number],), length=None)
            number, lasts[above] = above, result.add(step)
        return lasts[number]

    for number, step in enumerate(draft.steps):
        if step.kind == "last":
            place[number] = last(step.sources[0])
        else:
            place[number] = result.add(replace(step, sources=tuple(place[source] for source in step.sources)))
    result.outputs = [(output, place[number]) for output, number in draft.outputs]
    return result


def _uses(draft: Draft) -> Counter[int]:
    """How many live steps and outputs use each step; 0 for dead ones."""
    uses = Counter(number for _, number in draft.outputs)
    for number in reversed(range(len(draft.steps))):
        if uses[number]:
            uses.update(draft.steps[number].sources)
    return uses


def _absorb(source: Step, step: Step) -> Step | None:
    """`source` doing the work of `step`, its only user, too; None where it cannot."""
    if step.kind not in ("feed_forward", "time_distributed"):
        return None
    if source.entrance is not None:
        entrance = _enter(source.entrance, step.layer)
        return None if entrance is None else replace(source, entrance=entrance)
    layer = join(source.layer, step.layer)
    return None if layer is None else replace(source, layer=layer)


def _enter(entrance: Entrance, layer: Layer | None) -> Entrance | None:
    """`entrance` doing the work of `layer` too.

    Where the record scales, the entrance ends once its numbers are reached: what follows is the network's own.
    """
    untouched = not entrance.offset.any() and (entrance.scale == 1).all()
    if isinstance(layer, Default):
        fresh = untouched and np.isnan(entrance.default).all()
        return replace(entrance, default=layer.values) if fresh else None
    if not isinstance(layer, Affine) or (entrance.record.scaled and _reached(entrance)):
        return None
    before = Affine(entrance.offset, entrance.scale, np.zeros(len(entrance.scale)))
    parts = before.plus(layer).without_shift()
    return None if parts is None else replace(entrance, offset=parts[0], scale=parts[1])


def _features(entrance: Entrance) -> tuple[Feature, ...]:
    """The variables of an input, with the record's own doubles where the graph holds them rounded to its dtype."""

    def exact(have: float, told: float | None) -> float:
        return told if told is not None and have == float(np.asarray(told, entrance.dtype)) else have

    columns = (entrance.offset.tolist(), entrance.scale.tolist(), entrance.default.tolist())
    return tuple(
        replace(
            feature,
            offset=exact(offset, feature.offset),
            scale=exact(scale, feature.scale),
            default=None if np.isnan(default) else exact(default, feature.default),
        )
        for feature, offset, scale, default in zip(entrance.record.features, *columns, strict=True)
    )


def _reached(entrance: Entrance) -> bool:
    """Whether offset and scale are those of the record."""
    told = [(feature.offset, feature.scale) for feature in entrance.record.features]
    return [(feature.offset, feature.scale) for feature in _features(entrance)] == told


def network(draft: Draft) -> GraphNetwork:
    """The folded draft as a graph file. Steps with equal layers share one."""
    groups: dict[str, list[Group]] = {"input": [], "input_sequence": []}
    layers: list[schema.Layer] = []
    index: dict[object, int] = {}
    nodes = []
    for step in draft.steps:
        if step.entrance is not None:
            group = groups[step.kind]
            group.append(Group(step.entrance.record.name, _features(step.entrance)))
            nodes.append(Node(step.kind, (len(group) - 1,), size=step.width))
            continue
        number = None
        if step.layer is not None:
            # The engine builds a layer once, with the width of its first user: another width needs another layer.
            layer = _spell(step.layer)
            number = index.setdefault((_content(layer), draft.steps[step.sources[0]].width), len(layers))
            layers.extend([layer] if number == len(layers) else [])
        nodes.append(Node(step.kind, step.sources, layer=number))
    outputs = {output.name: OutputNode(output.labels, number) for output, number in answered(draft)}
    return GraphNetwork(tuple(groups["input"]), tuple(groups["input_sequence"]), tuple(nodes), tuple(layers), outputs)


def answered(draft: Draft) -> list[tuple[Output, int]]:
    """The outputs a file needs: without all steps of a layer whose last step is an output of the same name.

    A `sequence` node answers both under one name, which the reader tells as two, `y` and `y_steps` (wiring.answers).
    """
    vectors = {
        (f"{output.name}_steps", output.labels, number) for output, number in draft.outputs if not output.sequence
    }
    return [(o, number) for o, number in draft.outputs if not o.sequence or (o.name, o.labels, number) not in vectors]


def _spell(layer: Layer) -> schema.Layer:
    """A layer of lwtnn's own."""
    if isinstance(layer, Affine):
        parts = layer.without_shift()
        if parts is not None:
            return Normalization(weights=parts[1], bias=parts[0])
        # Where a scale is 0 a sum before it cannot stand for one after it.
        return Dense(np.diag(layer.scale), layer.offset * layer.scale + layer.shift, LINEAR)
    assert not isinstance(layer, Default), "lowering lets no default through but at an input, where it was folded"
    return layer


def evaluations(steps: Iterable[Step], outputs: Iterable[int]) -> int:
    """How many nodes the engine computes for one event: it remembers nothing, so each use computes anew."""
    steps = list(steps)
    times = Counter(outputs)
    for number in reversed(range(len(steps))):
        for source in steps[number].sources:
            times[source] += times[number]
    return sum(times.values())


def finite(layer: Layer) -> bool:
    """Whether every weight is a number JSON can hold."""
    return all(np.isfinite(array).all() for array in _arrays(layer))


def _arrays(thing: object) -> Iterable[Array]:
    """Every array in a layer."""
    if isinstance(thing, np.ndarray):
        yield thing
    for _, part in _parts(thing):
        yield from _arrays(part)


def _content(thing: object) -> object:
    """Something hashable that is equal for equal layers and only for those."""
    if isinstance(thing, np.ndarray):
        return thing.shape, thing.tobytes()
    parts = _parts(thing)
    return (type(thing), *((name, _content(part)) for name, part in parts)) if parts else thing


def _parts(thing: object) -> list[tuple[object, object]]:
    """What a layer, or a part of it, is made of, by name."""
    if isinstance(thing, Mapping):
        return list(thing.items())
    if isinstance(thing, tuple):
        return list(enumerate(thing))
    return [(field.name, getattr(thing, field.name)) for field in fields(thing)] if is_dataclass(thing) else []
