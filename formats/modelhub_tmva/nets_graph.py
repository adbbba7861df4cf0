"""Networks and linear discriminants as ONNX operators, in float64 as in TMVA: float32 is off by up to 1e-6."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelhub.graph.builder import Builder
from modelhub_tmva.nets import Dense, Line, Net

__all__ = ["line", "net"]


def net(b: Builder, model: Net, x: ir.Value) -> ir.Value:
    """Outputs [N, outputs] float32 for events `x` [N, variables] float32."""
    with b.kept():
        y = b.op("Cast", x, to=ir.DataType.DOUBLE)
        for index, layer in enumerate(model.layers):
            with b.scope(f"layer_{index}"):
                y = _activated(b, layer.activation, _dense(b, layer, model.input, y))
    if model.output == "softmax32":
        y = b.op("Cast", y, to=ir.DataType.FLOAT)
    with b.kept():
        if model.output == "softmax32":
            y = b.op("Cast", y, to=ir.DataType.DOUBLE)
        y = b.op("Softmax", y, axis=-1) if model.output.startswith("softmax") else _activated(b, model.output, y)
    return b.op("Cast", y, to=ir.DataType.FLOAT)


def line(b: Builder, model: Line, x: ir.Value) -> ir.Value:
    """Discriminants [N, outputs] float32 of events `x` [N, variables] float32."""
    with b.kept():
        wide = b.op("Cast", x, to=ir.DataType.DOUBLE)
        if not model.single:
            y = b.op("Gemm", wide, b.constant(model.weights, "weights"), b.constant(model.offset, "offset"))
        else:
            y = _in_single_steps(b, model, wide)
    return b.op("Cast", y, to=ir.DataType.FLOAT)


def _in_single_steps(b: Builder, model: Line, x: ir.Value) -> ir.Value:
    """The sum, rounded to float32 after the offset and after each term."""
    y = b.constant(model.offset.astype(np.float32).astype(np.float64), "offset")
    for index, weight in enumerate(model.weights):
        column = b.op("Gather", x, b.ints(index), axis=1)
        term = b.op("Mul", column, b.constant(weight, f"weight_{index}"))
        y = b.op("Cast", b.op("Cast", b.op("Add", y, term), to=ir.DataType.FLOAT), to=ir.DataType.DOUBLE)
    return y


def _dense(b: Builder, layer: Dense, way: str, x: ir.Value) -> ir.Value:
    weights, bias = layer.weights, layer.bias
    if way == "sqsum":
        x, weights, bias = b.op("Mul", x, x), weights**2, bias**2
    elif way == "abssum":
        x, weights, bias = b.op("Abs", x), np.abs(weights), np.abs(bias)
    return b.op("Gemm", x, b.constant(weights, "weights"), b.constant(bias, "bias"))


def _activated(b: Builder, activation: str, x: ir.Value) -> ir.Value:
    match activation:
        case "identity":
            return x
        case "relu":
            return b.op("Relu", x)
        case "sigmoid":
            return b.op("Sigmoid", x)
        case "tanh":
            return b.op("Tanh", x)
        case "absolute":
            return b.op("Abs", x)
        case "softsign":
            return b.op("Div", x, b.op("Add", b.op("Abs", x), b.constant(np.ones(1), "one")))
        case "radial":
            return b.op("Exp", b.op("Mul", b.op("Mul", x, x), b.constant(np.full(1, -0.5), "minus_half")))
        case "gauss":
            return b.op("Exp", b.op("Neg", b.op("Mul", x, x)))
        case _:
            raise ValueError(f"no such activation: {activation}")
