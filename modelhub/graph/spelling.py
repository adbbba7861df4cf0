"""Operators written out in simpler ones, with every constant in float64.

For two reasons: ONNX keeps real-valued attributes as float32, and onnxruntime has no float64 kernels for recurrent
layers and convolutions. Each function says the formula it writes; its source is the operator's page in the ONNX
specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.functions import FUNCTIONS, quiet
from modelhub.graph.scribe import Scribe, operands, real
from modelhub.graph.unrolling import gru, lstm, rnn

__all__ = ["spell_out"]

Spell = Callable[[Scribe, ir.Node], "ir.Value | Sequence[ir.Value] | None"]


def spell_out(graph: ir.Graph, node: ir.Node) -> None:
    """Put simpler operators in the place of `node`, in place; nothing happens where it needs none.

    Nor where more of its outputs are used than can be spelled, as those of LayerNormalization in training.
    """
    spell = _SPELLED_OUT.get(node.op_type) if node.domain == "" else None
    if spell is None:
        return
    scribe = Scribe(graph, node.name or node.op_type)
    results = spell(scribe, node)
    spelled = 1 if results is None or isinstance(results, ir.Value) else len(results)
    if results is None or any(value.uses() or value.is_graph_output() for value in node.outputs[spelled:]):
        return
    graph.insert_after(node, scribe.nodes)
    for old, new in zip(node.outputs, [results] if isinstance(results, ir.Value) else results, strict=False):
        if old.name:  # an optional output that nobody wants has none
            new.name = old.name
        new.shape, new.type = old.shape, old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _batch_normalization(op: Scribe, node: ir.Node) -> ir.Value | None:
    """(x - mean) / sqrt(var + epsilon) * gamma + beta, over axis 1 (ONNX BatchNormalization)."""
    x, gamma, beta, mean, var = operands(node)
    tensors = [value.const_value for value in (gamma, beta, mean, var)]
    if x.shape is None or any(tensor is None for tensor in tensors):
        return None
    gammas, betas, means, variances = (t.numpy().astype(np.float64) for t in tensors if t is not None)
    scale = gammas / np.sqrt(variances + real(node, "epsilon", 1e-5))
    tail = (1,) * (len(x.shape) - 2)
    centred = op("Sub", x, op.constant(means.reshape(-1, *tail)))
    return op("Add", op("Mul", centred, op.constant(scale.reshape(-1, *tail))), op.constant(betas.reshape(-1, *tail)))


def _normalized(op: Scribe, node: ir.Node, x: ir.Value, first: int) -> ir.Value:
    """(x - mean) / sqrt(var + epsilon) over the axes from `first` (counted from the end, so below 0) on."""
    axes = op.ints(*range(first, 0))
    centred = op("Sub", x, op("ReduceMean", x, axes, keepdims=1))
    variance = op("ReduceMean", op("Mul", centred, centred), axes, keepdims=1)
    return op("Div", centred, op("Sqrt", op("Add", variance, op.constant(real(node, "epsilon", 1e-5)))))


def _layer_normalization(op: Scribe, node: ir.Node) -> ir.Value | None:
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the axes from `axis` on (ONNX LayerNormalization)."""
    x, *affine = operands(node)
    axis = node.attributes.get("axis")
    first = -1 if axis is None else axis.as_int()
    if first >= 0:
        if x.shape is None:
            return None
        first -= len(x.shape)
    y = op("Mul", _normalized(op, node, x, first), affine[0])
    return op("Add", y, affine[1]) if len(affine) > 1 else y


def _instance_normalization(op: Scribe, node: ir.Node) -> ir.Value | None:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, each channel by itself (ONNX InstanceNormalization)."""
    x, scale, bias = operands(node)
    if x.shape is None or len(x.shape) < 3:
        return None
    tail = op.ints(-1, *(1 for _ in x.shape[2:]))
    y = op("Mul", _normalized(op, node, x, 2 - len(x.shape)), op("Reshape", scale, tail))
    return op("Add", y, op("Reshape", bias, tail))


def _leaky_relu(op: Scribe, node: ir.Node) -> ir.Value:
    """X where x >= 0, else alpha x."""
    (x,) = operands(node)
    slope = op("Mul", x, op.constant(real(node, "alpha", 0.01)))
    return op("Where", op("Less", x, op.constant(0.0)), slope, x)


def _exponential_unit(op: Scribe, x: ir.Value, alpha: float, gamma: float = 1.0, rate: float = 1.0) -> ir.Value:
    """Gamma x where x >= 0, else gamma alpha (exp(x / rate) - 1)."""
    capped = op("Min", x, op.constant(0.0))  # keeps exp from overflowing on the side not taken
    low = op("Sub", op("Exp", op("Mul", capped, op.constant(1.0 / rate))), op.constant(1.0))
    low = op("Mul", low, op.constant(alpha))
    y = op("Where", op("Less", x, op.constant(0.0)), low, x)
    return y if gamma == 1.0 else op("Mul", y, op.constant(gamma))


def _elu(op: Scribe, node: ir.Node) -> ir.Value:
    return _exponential_unit(op, operands(node)[0], real(node, "alpha", 1.0))


def _celu(op: Scribe, node: ir.Node) -> ir.Value:
    alpha = real(node, "alpha", 1.0)
    return _exponential_unit(op, operands(node)[0], alpha, rate=alpha)


# Klambauer et al., 1706.02515, as ONNX Selu's defaults.
_SELU = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}


def _selu(op: Scribe, node: ir.Node) -> ir.Value:
    return _exponential_unit(op, operands(node)[0], **{k: real(node, k, v) for k, v in _SELU.items()})


def _hard_sigmoid(op: Scribe, node: ir.Node) -> ir.Value:
    """max(0, min(1, alpha x + beta))."""
    (x,) = operands(node)
    line = op("Mul", x, op.constant(real(node, "alpha", 0.2)))
    line = op("Add", line, op.constant(real(node, "beta", 0.5)))
    return op("Clip", line, op.constant(0.0), op.constant(1.0))


def _hard_swish(op: Scribe, node: ir.Node) -> ir.Value:
    """x max(0, min(1, x/6 + 1/2))."""
    (x,) = operands(node)
    line = op("Add", op("Div", x, op.constant(6.0)), op.constant(0.5))
    return op("Mul", x, op("Clip", line, op.constant(0.0), op.constant(1.0)))


def _prelu(op: Scribe, node: ir.Node) -> ir.Value:
    """x where x >= 0, else slope x."""
    x, slope = operands(node)
    return op("Where", op("Less", x, op.constant(0.0)), op("Mul", x, slope), x)


def _softplus(op: Scribe, node: ir.Node) -> ir.Value:
    """log(1 + exp(x)), as max(x, 0) + log(1 + z), z = exp(-|x|), which does not overflow.

    With w = 1 + z rounded, log(1 + z) is z log(w) / (w - 1), or z where w is 1: so nothing of a small z is lost
    (Goldberg 1991, "What every computer scientist should know about floating-point arithmetic", theorem 4).
    """
    (x,) = operands(node)
    one = op.constant(1.0)
    z = op("Exp", op("Neg", op("Abs", x)))
    first = len(op.nodes)
    w = op("Add", one, z)
    lost = op("Equal", w, one)
    excess = op("Where", lost, one, op("Sub", w, one))
    rest = op("Where", lost, z, op("Div", op("Mul", z, op("Log", w)), excess))
    quiet(op, first)
    return op("Add", op("Max", x, op.constant(0.0)), rest)


def _softsign(op: Scribe, node: ir.Node) -> ir.Value:
    """x / (1 + |x|)."""
    (x,) = operands(node)
    return op("Div", x, op("Add", op.constant(1.0), op("Abs", x)))


def _mish(op: Scribe, node: ir.Node) -> ir.Value:
    """x tanh(softplus(x))."""
    return op("Mul", operands(node)[0], op("Tanh", _softplus(op, node)))


def _thresholded(op: Scribe, node: ir.Node) -> ir.Value:
    """x where x > alpha, else 0."""
    (x,) = operands(node)
    return op("Where", op("Greater", x, op.constant(real(node, "alpha", 1.0))), x, op.constant(0.0))


def _pool(reduction: str) -> Spell:
    """The mean or maximum over all axes after events and channels."""

    def spell(op: Scribe, node: ir.Node) -> ir.Value | None:
        (x,) = operands(node)
        return None if x.shape is None else op(reduction, x, op.ints(*range(2, len(x.shape))), keepdims=1)

    return spell


def _convolution(op: Scribe, node: ir.Node) -> ir.Value | None:
    """The sum over kernel places k of W[:, :, k] · x shifted by k, on zero-padded x; one group only."""
    x, weight, *bias = operands(node)
    kernel = weight.const_value.numpy().astype(np.float64) if weight.const_value is not None else None
    auto = node.attributes.get("auto_pad")
    group = node.attributes.get("group")
    if kernel is None or (group is not None and group.as_int() != 1) or (auto and auto.as_string() != "NOTSET"):
        return None
    spatial = kernel.shape[2:]
    axes = range(2, kernel.ndim)
    ones = [1] * len(spatial)
    strides, dilations, pads = (
        list(node.attributes[name].as_ints()) if name in node.attributes else default
        for name, default in (("strides", ones), ("dilations", ones), ("pads", [0, 0] * len(spatial)))
    )
    begin, end = pads[: len(spatial)], pads[len(spatial) :]
    if any(pads):
        x = op("Pad", x, op.ints(0, 0, *begin, 0, 0, *end))
    total = None
    taps = kernel.reshape(*kernel.shape[:2], -1)
    for index, place in enumerate(product(*map(range, spatial))):
        starts = [k * d for k, d in zip(place, dilations, strict=True)]
        rest = [(n - 1 - k) * d for n, k, d in zip(spatial, place, dilations, strict=True)]
        ends = [-r if r else np.iinfo(np.int64).max for r in rest]
        window = op("Slice", x, op.ints(*starts), op.ints(*ends), op.ints(*axes), op.ints(*strides))
        term = _across_channels(op, taps[:, :, index], window, len(spatial))
        total = term if total is None else op("Add", total, term)
    if total is not None and bias and bias[0].const_value is not None:
        shape = (-1,) + (1,) * len(spatial)
        total = op("Add", total, op.constant(bias[0].const_value.numpy().astype(np.float64).reshape(shape)))
    return total


def _across_channels(op: Scribe, weight: NDArray[np.float64], x: ir.Value, spatial: int) -> ir.Value:
    """W [out, in] times x [events, in, ...]; onnxruntime runs an Einsum that says so several times slower."""
    if spatial == 1:
        return op("MatMul", op.constant(weight), x)
    flat = op("MatMul", op.constant(weight), op("Reshape", x, op.ints(0, 0, -1)))
    return op("Reshape", flat, op("Concat", op.ints(0, 0), op("Shape", x, start=2), axis=0))


_SPELLED_OUT: dict[str, Spell] = {
    **FUNCTIONS,
    "BatchNormalization": _batch_normalization,
    "Celu": _celu,
    "Conv": _convolution,
    "Elu": _elu,
    "GRU": gru,
    "GlobalAveragePool": _pool("ReduceMean"),
    "GlobalMaxPool": _pool("ReduceMax"),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "InstanceNormalization": _instance_normalization,
    "LSTM": lstm,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "Mish": _mish,
    "PRelu": _prelu,
    "RNN": rnn,
    "Selu": _selu,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "ThresholdedRelu": _thresholded,
}
