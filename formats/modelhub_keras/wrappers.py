"""TimeDistributed: a layer, or a whole network, applied at every step."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from modelhub_keras.config import Layer, Network, parse_layer
from modelhub_keras.step import LAYERS, Step, Tensor, layer

__all__: list[str] = []


@layer("TimeDistributed", masks="own")
def time_distributed(step: Step, x: Tensor) -> Tensor:
    """The inner layer at every step of [N, T, ...].

    What acts on the last axis alone is written over the sequence as it is; for the rest, events and steps are
    folded into one axis and unfolded after.
    """
    inner = parse_layer(step.options.get("layer"), 0, step.walk.where, 0)
    if x.rank < 3:
        step.damaged(f"needs a step axis, but gets tensors of {x.rank} axes")
    with step.inside(inner, "layer") as part:
        if _pointwise(inner):
            result = part.walk.apply(part, [replace(x, mask=None)])
        else:
            if x.mask is not None:
                step.refuse(f"applies {inner.kind} to masked steps")
            result = [_unfold(step, x, y) for y in part.walk.apply(part, [_fold(step, x)])]
    if len(result) != 1:
        step.refuse("wraps a network of several outputs")
    return replace(result[0], mask=x.mask)


def _pointwise(inner: Layer) -> bool:
    """Whether a layer, or every layer of a network, acts on the last axis alone."""
    if inner.network is None:
        entry = LAYERS.get(inner.kind)
        wide = inner.kind == "BatchNormalization" and inner.config.get("axis", -1) in (-1, [-1])
        return wide or (entry is not None and entry.pointwise and not _with_layer(inner))
    return len(inner.network.inputs) == 1 and _all_pointwise(inner.network)


def _with_layer(inner: Layer) -> bool:
    """Whether its activation is a layer, which may look at more than the last axis."""
    return isinstance(inner.config.get("activation"), dict)


def _all_pointwise(network: Network) -> bool:
    return all(inner.kind == "InputLayer" or _pointwise(inner) for inner in network.layers.values())


def _fold(step: Step, x: Tensor) -> Tensor:
    """[N, T, ...] to [N·T, ...]."""
    rest = [step.size(dim) for dim in x.shape[2:]]
    value = step.b.op("Reshape", x.value, step.b.ints(-1, *rest))
    return Tensor(value, ("N", *rest), x.kind)


def _unfold(step: Step, x: Tensor, y: Tensor) -> Tensor:
    """[N·T, ...] to [N, T, ...], with N and T of `x`."""
    b = step.b
    rest = [step.size(dim) for dim in y.shape[1:]]
    events_and_steps: ir.Value = b.op("Shape", x.value, start=0, end=2)
    value = b.op("Reshape", y.value, b.op("Concat", events_and_steps, b.ints(*rest), axis=0))
    return Tensor(value, ("N", x.shape[1], *rest), y.kind)
