"""lwtnn's layers as ONNX operators, float64 as the decimals of the file are.

Every method gives values in the layout of the common graph: vectors [N, F], sequences [N, T, F]. Initializers are
named after their place in the file, ``layers[3].weights``; a layer that several nodes share is stored once.
lwtnn's sigmoid is exactly 0 or 1 beyond ±30; ONNX's is within 1e-13 of that and is taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir

from modelhub.errors import Unsupported
from modelhub.graph import blocks
from modelhub.graph.builder import Builder
from modelhub_lwtnn.recurrent import padding
from modelhub_lwtnn.schema import (
    Activation,
    Array,
    Conv1d,
    Dense,
    Embedding,
    Gate,
    Gru,
    Highway,
    Layer,
    Lstm,
    Maxout,
    Normalization,
    SimpleRnn,
)

__all__ = ["Later", "Operators"]

Later = Callable[[], ir.Value]
"""A value whose operators are written when it is first asked for."""

RECURRENT: dict[str, tuple[str, list[float], list[float]]] = {
    "linear": ("Affine", [1.0], [0.0]),
    "rectified": ("Relu", [], []),
    "sigmoid": ("Sigmoid", [], []),
    "tanh": ("Tanh", [], []),
    "hard_sigmoid": ("HardSigmoid", [0.2], [0.5]),
}
"""ONNX's names for activations inside its RNN operators, with what they add to activation_alpha and activation_beta."""

ALPHA_TOO = {"elu": "Elu", "leakyrelu": "LeakyRelu"}
"""The same for activations that add the alpha of the file."""


class Operators:
    """Writes layer after layer into one builder."""

    def __init__(self, builder: Builder) -> None:
        self._b = builder
        self._stored: dict[str, ir.Value] = {}

    def _store(self, name: str, array: Array) -> ir.Value:
        """The initializer `name`, made when it is first asked for."""
        if name not in self._stored:
            self._stored[name] = self._b.constant(np.ascontiguousarray(array, dtype=np.float64), name)
        return self._stored[name]

    def compute(self, place: str, layer: Layer, x: ir.Value, *, series: bool) -> ir.Value:
        """A layer over vectors; over every step of a sequence if `series`. `place` is ``layers[3]``."""
        match layer:
            case Dense():
                y = self._affine(place, layer.weights, layer.bias, x, series=series)
                return self._activate(place, layer.activation, y)
            case Normalization():
                weights, bias = self._store(f"{place}.weights", layer.weights), self._store(f"{place}.bias", layer.bias)
                with self._b.scope(place):
                    return self._b.op("Mul", self._b.op("Add", x, bias), weights)
            case Maxout():
                weights = self._store(f"{place}.sublayers.weights", layer.weights.transpose(0, 2, 1))
                bias = self._store(f"{place}.sublayers.bias", layer.bias)
                with self._b.scope(place):
                    return self._b.block(blocks.maxout(), x, weights, bias)[0]
            case Highway():
                t, c = f"{place}.components.t", f"{place}.components.carry"
                transform = self._affine(t, layer.transform_weights, layer.transform_bias, x, series=series)
                transform = self._activate(t, layer.activation, transform)
                carry = self._affine(c, layer.carry_weights, layer.carry_bias, x, series=series)
                with self._b.scope(place):
                    return self._b.block(blocks.highway(), x, transform, carry)[0]
        raise Unsupported(f"{place} ({type(layer).__name__.lower()}) does not work on vectors")

    def _affine(self, place: str, weights: Array | None, bias: Array | None, x: ir.Value, *, series: bool) -> ir.Value:
        """W x + b; Gemm takes matrices only, so a sequence goes through MatMul."""
        offset = None if bias is None else self._store(f"{place}.bias", bias)
        if weights is not None and not series:
            matrix = self._store(f"{place}.weights", weights)
            with self._b.scope(place):
                return self._b.op("Gemm", x, matrix, *(() if offset is None else (offset,)), transB=1)
        if weights is not None:
            matrix = self._store(f"{place}.weights.T", weights.T)
            with self._b.scope(place):
                x = self._b.op("MatMul", x, matrix)
        if offset is not None:
            with self._b.scope(place):
                x = self._b.op("Add", x, offset)
        return x

    def _activate(self, place: str, activation: Activation, x: ir.Value, axis: int = -1) -> ir.Value:
        """`activation` of x; softmax runs along `axis`."""
        alpha = activation.alpha
        factor = self._store(f"{place}.activation.alpha", np.array(alpha)) if _scaled_swish(activation) else None
        with self._b.scope(place):
            match activation.function:
                case "linear":
                    return x
                case "rectified":
                    return self._b.op("Relu", x)
                case "sigmoid" | "tanh" | "abs":
                    return self._b.op(activation.function.capitalize(), x)
                case "softmax":
                    return self._b.op("Softmax", x, axis=axis)
                case "hard_sigmoid":
                    return self._b.op("HardSigmoid", x, alpha=0.2, beta=0.5)
                case "elu":
                    return self._b.op("Elu", x, alpha=alpha)
                case "leakyrelu":
                    return self._b.op("LeakyRelu", x, alpha=alpha)
                case "swish":
                    argument = x if factor is None else self._b.op("Mul", x, factor)
                    return self._b.op("Mul", x, self._b.op("Sigmoid", argument))
        raise Unsupported(f"{place}: activation {activation.function} has no ONNX form")

    def scan(self, place: str, layer: Layer, x: ir.Value) -> tuple[Later, Later]:
        """A layer along a sequence: the sequence it gives, and its last step."""
        match layer:
            case Lstm():
                kinds = [layer.inner_activation, layer.activation, layer.activation]
                return self._recur(place, "LSTM", [layer.gates[g] for g in "iofc"], kinds, x)
            case Gru():
                kinds = [layer.inner_activation, layer.activation]
                return self._recur(place, "GRU", [layer.gates[g] for g in "zrh"], kinds, x)
            case SimpleRnn():
                return self._recur(place, "RNN", [layer.gate], [layer.activation], x)
            case Conv1d():
                return self._with_last(place, self._conv1d(place, layer, x))
            case Embedding():
                return self._with_last(place, self._embedding(place, layer, x))
        raise Unsupported(f"{place} ({type(layer).__name__.lower()}) does not work on sequences")

    def _with_last(self, place: str, every: ir.Value) -> tuple[Later, Later]:
        """A sequence beside its last step."""

        @cache
        def last() -> ir.Value:
            with self._b.scope(place):
                return self._b.op("Gather", every, self._b.constant(np.array(-1), "last"), axis=1)

        return lambda: every, last

    def _recur(
        self, place: str, op_type: str, gates: Sequence[Gate], kinds: Sequence[Activation], x: ir.Value
    ) -> tuple[Later, Later]:
        """An RNN operator; `gates` and `kinds` in ONNX's order. It wants steps first: [T, N, F]."""
        name = f"{place}.components"
        weights = self._store(f"{name}.weights", np.concatenate([gate.weights for gate in gates])[None])
        state = self._store(f"{name}.U", np.concatenate([gate.recurrent for gate in gates])[None])
        # ONNX has a bias for either product; lwtnn has their sum.
        offset = np.concatenate([gate.bias for gate in gates])
        bias = self._store(f"{name}.bias", np.concatenate([offset, np.zeros_like(offset)])[None])
        attributes = _recurrent_activations(f"{place} ({op_type.lower()})", kinds)
        b, units = self._b, len(gates[0].weights)
        with b.scope(place):
            steps = b.op("Transpose", x, perm=[1, 0, 2])
            y, final = b.ops(op_type, steps, weights, state, bias, outputs=2, hidden_size=units, **attributes)

        @cache
        def every() -> ir.Value:
            with b.scope(place):
                return b.op("Transpose", b.op("Squeeze", y, b.ints(1)), perm=[1, 0, 2])

        @cache
        def last() -> ir.Value:
            with b.scope(place):
                return b.op("Squeeze", final, b.ints(0))

        return every, last

    def _conv1d(self, place: str, layer: Conv1d, x: ir.Value) -> ir.Value:
        """Conv over [N, F, T] with lwtnn's own padding spelt out; its softmax runs along the steps."""
        weights = self._store(f"{place}.weights", layer.weights)
        bias = () if layer.bias is None else (self._store(f"{place}.bias", layer.bias),)
        attributes: dict[str, Any] = {
            "kernel_shape": [layer.weights.shape[2]],
            "pads": list(padding(layer)),
            "dilations": [layer.dilation],
            "strides": [1],
        }
        with self._b.scope(place):
            y = self._b.op("Conv", self._b.op("Transpose", x, perm=[0, 2, 1]), weights, *bias, **attributes)
        y = self._activate(place, layer.activation, y, axis=2)
        with self._b.scope(place):
            return self._b.op("Transpose", y, perm=[0, 2, 1])

    def _embedding(self, place: str, layer: Embedding, x: ir.Value) -> ir.Value:
        """The last variable looked up in a table, in the place of that variable."""
        b = self._b
        for index, table in enumerate(layer.tables):
            weights = self._store(f"{place}.sublayers[{index}].weights.T", table.weights.T)
            with b.scope(place):
                last = b.constant(np.array(table.index), "index")
                category = b.op("Cast", b.op("Gather", x, last, axis=2), to=ir.DataType.INT64)
                found = b.op("Gather", weights, category, axis=0)
                if table.index:
                    others = b.op("Slice", x, b.ints(0), b.ints(table.index), b.ints(2))
                    found = b.op("Concat", others, found, axis=2)
            x = found
        return x


def _scaled_swish(activation: Activation) -> bool:
    return activation.function == "swish" and activation.alpha != 1.0


def _recurrent_activations(what: str, kinds: Sequence[Activation]) -> dict[str, Any]:
    """The attributes for the activations of an RNN operator; alphas and betas go in order to those that have one."""
    names: list[str] = []
    alphas: list[float] = []
    betas: list[float] = []
    for kind in kinds:
        if kind.function in ALPHA_TOO and kind.alpha is not None:
            name, alpha, beta = ALPHA_TOO[kind.function], [kind.alpha], list[float]()
        elif kind.function in RECURRENT:
            name, alpha, beta = RECURRENT[kind.function]
        else:
            known = ", ".join([*RECURRENT, *ALPHA_TOO])
            reason = f"{what}: activation {kind.function}; inside a recurrent layer ONNX has only {known}"
            raise Unsupported("the network cannot be read into ONNX operators", [reason])
        names.append(name)
        alphas += alpha
        betas += beta
    return {"activations": names, "activation_alpha": alphas or None, "activation_beta": betas or None}
