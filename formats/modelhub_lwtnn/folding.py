"""Joins drafted steps into lwtnn's layers: bias and scale into weights, activations onto layers, scaling into inputs.

Every rule is exact algebra in float64. Only a step whose result has one user is ever joined with that user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from modelhub.graph.interface import Feature
from modelhub_lwtnn import schema
from modelhub_lwtnn.draft import LINEAR, Affine, Default, Draft, Entrance, Layer, Step, only_activation
from modelhub_lwtnn.schema import Array, Conv1d, Dense, GraphNetwork, Group, Node, Normalization, OutputNode

__all__ = ["evaluations", "fold", "join", "network"]


def join(first: Layer | None, then: Layer | None) -> Layer | None:
    """The one layer that does `first` and `then`, None where lwtnn has none."""
    if isinstance(first, Affine) and isinstance(then, Affine):
        return first.plus(then)
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
    """`draft` without dead steps and with every join made."""
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
    """The folded draft as a graph file. Steps that hold the same layer share it."""
    groups: dict[str, list[Group]] = {"input": [], "input_sequence": []}
    layers: list[schema.Layer] = []
    index: dict[tuple[int, int], int] = {}
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
            key = (id(step.layer), draft.steps[step.sources[0]].width)
            if key not in index:
                index[key] = len(layers)
                layers.append(_spell(step.layer))
            number = index[key]
        nodes.append(Node(step.kind, step.sources, layer=number))
    outputs = {output.name: OutputNode(output.labels, number) for output, number in draft.outputs}
    return GraphNetwork(tuple(groups["input"]), tuple(groups["input_sequence"]), tuple(nodes), tuple(layers), outputs)


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
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, dict):
        for item in thing.values():
            yield from _arrays(item)
    elif isinstance(thing, tuple):
        for item in thing:
            yield from _arrays(item)
    elif hasattr(thing, "__dataclass_fields__"):
        for name in thing.__dataclass_fields__:
            yield from _arrays(getattr(thing, name))
