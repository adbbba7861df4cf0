"""Recurrent layers: LSTM, GRU and simple RNN, in layers, in both directions, with or without biases.

Torch stacks its gates in other orders than ONNX: LSTM i f g o (ONNX i o f c), GRU r z n (ONNX z r h). Its GRU
applies the reset gate after the recurrent product, which is ONNX's `linear_before_reset=1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelhub_torch.call import Call
from modelhub_torch.sizes import Size, mul
from modelhub_torch.translate import Array, Operator, Result, Tensor, Translation, aten
from modelhub_torch.views import transpose


@dataclass(frozen=True)
class Kind:
    """A cell: ONNX operator, order of torch's gates in it, how many states, and fixed attributes."""

    op_type: str
    gates: tuple[int, ...]
    states: int
    attributes: tuple[tuple[str, Any], ...] = ()
    activation: str | None = None


LSTM = Kind("LSTM", (0, 3, 1, 2), 2)
GRU = Kind("GRU", (1, 0, 2), 1, (("linear_before_reset", 1),))
TANH = Kind("RNN", (0,), 1, activation="Tanh")
RELU = Kind("RNN", (0,), 1, activation="Relu")


def _ordered(c: Call, tensor: Tensor, kind: Kind) -> Array:
    """The rows of a weight or bias with the gates in ONNX's order."""
    if tensor.array is None:
        raise c.refuse("its weights are computed in the graph; only stored weights are known")
    gates = len(kind.gates)
    if tensor.array.shape[0] % gates:
        raise c.refuse("its weights do not fit the cell")
    blocks = np.split(tensor.array, gates)
    return np.concatenate([blocks[g] for g in kind.gates])


def _layer(
    t: Translation, c: Call, kind: Kind, x: Tensor, params: Sequence[Sequence[Tensor]], starts: Sequence[Tensor | None]
) -> list[Tensor]:
    """One layer over x [steps, events, in]: all states [steps, events, directions·units], then the last ones."""
    steps, events, width = x.shape
    weights = [np.stack([_ordered(c, p[k], kind) for p in params]) for k in range(len(params[0]))]
    units = weights[1].shape[2]
    directions = len(params)
    if weights[0].shape[1:] != (units * len(kind.gates), width) or weights[1].shape[1] != units * len(kind.gates):
        raise c.refuse("its weights do not fit its input")
    w, r = t.constant(weights[0], "W"), t.constant(weights[1], "R")
    b = t.constant(np.concatenate(weights[2:], axis=1), "B") if len(weights) > 2 else None
    attributes = dict(kind.attributes)
    if kind.activation:
        attributes["activations"] = [kind.activation] * directions
    last = ((directions, events, units), x.dtype)
    every = ((steps, directions, events, units), x.dtype)
    outputs = t.ops(
        kind.op_type, x, w, r, b, None, *starts, outputs=[every] + [last] * kind.states,
        hidden_size=units, direction="bidirectional" if directions == 2 else None, **attributes,
    )  # fmt: skip
    y = outputs[0]
    if directions == 1:
        y = t.op("Squeeze", y, t.b.ints(1), shape=(steps, events, units))
    else:
        turned = transpose(t, y, (0, 2, 1, 3))
        y = t.op("Reshape", turned, t.b.ints(0, 0, 2 * units), shape=(steps, events, 2 * units))
    return [y, *outputs[1:]]


def _starts(t: Translation, c: Call, given: Sequence[Tensor], events: Size) -> list[Tensor | None]:
    """Initial states [layers · directions, events, units]; None for zeros, which ONNX takes by itself."""
    result: list[Tensor | None] = []
    for state in given:
        zero = state.filled == 0 or (state.array is not None and not state.array.any())
        if state.rank != 3 or t.hint(state.shape[1]) not in (None, t.hint(events)):
            raise c.refuse("its initial state does not fit its input")
        if not zero:
            t.unify(state.shape[1], events)
        result.append(None if zero else state)
    return result


def _piece(t: Translation, state: Tensor | None, layer: int, directions: int) -> Tensor | None:
    """The initial state of one layer."""
    if state is None or state.shape[0] == directions:
        return state
    bounds = t.b.ints(layer * directions), t.b.ints((layer + 1) * directions), t.b.ints(0)
    return t.op("Slice", state, *bounds, shape=(directions, *state.shape[1:]))


def _recurrent(kind: Kind) -> Operator:
    def recurrent(t: Translation, c: Call) -> Result:
        x, params = c.tensor("input"), c.tensors("params")
        biased, layers = c.flag("has_biases"), c.integer("num_layers")
        directions = 2 if c.flag("bidirectional") else 1
        if c.flag("train") and c.number("dropout", 0.0):
            raise c.training("dropout is switched on")
        c.get("dropout")
        each = 4 if biased else 2
        if len(params) != each * layers * directions or layers < 1:
            raise c.refuse("a projection of the state (proj_size) is not known")
        if x.rank != 3:
            raise c.refuse("a sequence without a batch axis is not known")
        batch_first = c.flag("batch_first")
        if batch_first:
            x = transpose(t, x, (1, 0, 2))
        if x.value is not None and x.value.producer() is None:
            t.remarks.append(
                f"{c.node.layer or c.node.name} takes steps on the first axis of {x.value.name}, events on the second, "
                "but events should come first: build it with batch_first=True, or turn the input in forward()"
            )
        t.mixes(x.shape[0])
        given = c.tensors("hx") if kind.states > 1 else [c.tensor("hx")]
        starts = _starts(t, c, given, x.shape[1])
        if any(start is not None and start.dtype != x.dtype for start in starts):
            raise c.refuse("an initial state of another dtype is not known")
        lasts: list[list[Tensor]] = []
        for layer in range(layers):
            first = layer * directions * each
            own = [params[first + d * each : first + (d + 1) * each] for d in range(directions)]
            pieces = [_piece(t, start, layer, directions) for start in starts]
            while pieces and pieces[-1] is None:
                pieces.pop()
            x, *last = _layer(t, c, kind, x, own, pieces)
            lasts.append(last)
        y = transpose(t, x, (1, 0, 2)) if batch_first else x
        return [y, *(_joined(t, [last[k] for last in lasts]) for k in range(kind.states))]

    return recurrent


def _joined(t: Translation, states: list[Tensor]) -> Tensor:
    """The last states of all layers, [layers · directions, events, units]."""
    if len(states) == 1:
        return states[0]
    first = states[0].shape
    return t.op("Concat", *states, shape=(mul(len(states), first[0]), *first[1:]), axis=0)


aten("lstm.input")(_recurrent(LSTM))
aten("gru.input")(_recurrent(GRU))
aten("rnn_tanh.input")(_recurrent(TANH))
aten("rnn_relu.input")(_recurrent(RELU))
