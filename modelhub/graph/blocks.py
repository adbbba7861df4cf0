"""Layers that ONNX has no operator for, as model-local functions of ONNX operators in domain `modelhub`.

Every engine that runs ONNX runs them; a writer may recognise them by name; an inlining pass dissolves them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import onnx_ir as ir

from modelhub.graph.builder import DOMAIN, OPSET

__all__ = ["compact_steps", "highway", "maxout", "spread_steps"]


class _Body:
    """The nodes of a function while it is being written."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def __call__(self, op_type: str, *inputs: ir.Value, outputs: int = 1, **attributes: Any) -> Any:
        node = ir.node(op_type, list(inputs), attributes, num_outputs=outputs)
        for index, value in enumerate(node.outputs):
            value.name = f"{op_type.lower()}_{len(self.nodes)}_{index}"
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else node.outputs

    def ints(self, *values: int) -> ir.Value:
        """A 1-d int64 constant."""
        result: ir.Value = self("Constant", value_ints=list(values))
        return result

    def int(self, value: int) -> ir.Value:
        """A 0-d int64 constant."""
        result: ir.Value = self("Constant", value_int=value)
        return result


def _function(name: str, inputs: Sequence[str], write: Callable[..., Sequence[ir.Value]], doc: str) -> ir.Function:
    body = _Body()
    values = [ir.Value(name=i) for i in inputs]
    outputs = write(body, *values)
    graph = ir.Graph(values, list(outputs), nodes=body.nodes, opset_imports={"": OPSET}, name=name, doc_string=doc)
    return ir.Function(DOMAIN, name, graph=graph, attributes=[])


@cache
def highway() -> ir.Function:
    """Highway(x, transform, carry) = c·transform + (1-c)·x with c = sigmoid(carry); all [..., features].

    `transform` and `carry` are dense layers of x, the first one activated (Srivastava et al., 1505.00387).
    """

    def write(op: _Body, x: ir.Value, transform: ir.Value, carry: ir.Value) -> Sequence[ir.Value]:
        gate = op("Sigmoid", carry)
        one = op("CastLike", op("Constant", value_float=1.0), x)
        return [op("Add", op("Mul", gate, transform), op("Mul", op("Sub", one, gate), x))]

    return _function("Highway", ["x", "transform", "carry"], write, "c*transform + (1-c)*x, c = sigmoid(carry)")


@cache
def maxout() -> ir.Function:
    """Maxout(x, W, b)[..., o] = max over k of (x · W[k] + b[k])[o]; W is [k, in, out], b is [k, out].

    Goodfellow et al., 1302.4389; Keras 1 `MaxoutDense`; lwtnn `MaxoutLayer`.
    """

    def write(op: _Body, x: ir.Value, weight: ir.Value, bias: ir.Value) -> Sequence[ir.Value]:
        rows = op("Unsqueeze", x, op.ints(-2, -3))  # [..., 1, 1, in]
        pieces = op("Squeeze", op("MatMul", rows, weight), op.ints(-2))  # [..., k, out]
        return [op("ReduceMax", op("Add", pieces, bias), op.ints(-2), keepdims=0)]

    return _function("Maxout", ["x", "W", "b"], write, "max over k of x*W[k] + b[k]")


@cache
def compact_steps() -> ir.Function:
    """CompactSteps(x, keep) -> y, lengths, slot: the kept steps of every sequence moved to its front, in order.

    x is [events, steps, features], keep [events, steps] bool; y is shaped like x (dropped steps follow the kept),
    lengths [events] int32 feeds `sequence_lens`, slot [events, steps] int64 is the place of the last kept step so far
    (-1: none yet). An RNN over y with lengths sees what a masking RNN sees over x, for any mask.
    """

    def write(op: _Body, x: ir.Value, keep: ir.Value) -> Sequence[ir.Value]:
        kept = op("Cast", keep, to=ir.DataType.INT64)
        lengths = op("Cast", op("ReduceSum", kept, op.ints(1), keepdims=0), to=ir.DataType.INT32)
        steps = op("Gather", op("Shape", keep), op.ints(1))
        position = op("Range", op.int(0), op("Squeeze", steps), op.int(1))
        key = op("Sub", op("Mul", kept, steps), position)  # kept steps first, each group in order
        _, order = op("TopK", key, steps, outputs=2, axis=1)
        y = op("GatherElements", x, op("Expand", op("Unsqueeze", order, op.ints(2)), op("Shape", x)), axis=1)
        slot = op("Sub", op("CumSum", kept, op.int(1)), op.int(1))
        return [y, lengths, slot]

    return _function("CompactSteps", ["x", "keep"], write, "kept steps to the front of each sequence")


@cache
def spread_steps() -> ir.Function:
    """SpreadSteps(h, slot): outputs of an RNN over compacted steps back at the steps of the original sequence.

    h is [events, steps, units], slot comes from `compact_steps`. A dropped step repeats the output before it,
    zeros where there is none (Keras: backend rnn() with a mask).
    """

    def write(op: _Body, h: ir.Value, slot: ir.Value) -> Sequence[ir.Value]:
        first = op("Slice", h, op.ints(0), op.ints(1), op.ints(1))
        padded = op("Concat", op("Sub", first, first), h, axis=1)
        place = op("Unsqueeze", op("Add", slot, op.int(1)), op.ints(2))
        width = op("Concat", op("Shape", slot), op("Shape", h, start=2), axis=0)
        return [op("GatherElements", padded, op("Expand", place, width), axis=1)]

    return _function("SpreadSteps", ["h", "slot"], write, "outputs of compacted steps at their original places")
