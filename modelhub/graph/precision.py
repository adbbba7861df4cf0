"""A graph in another precision: float32 for what is deployed, float64 for the reference of the check.

Going up is exact: float32 numbers are doubles. But ONNX keeps attributes as float32 (onnx.proto, AttributeProto.f), so
operators with a real-valued attribute are spelled out with float64 constants instead, and the offsets and scales at the
entrance are taken from the interface record, which holds them as doubles.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from modelhub.graph.builder import KEPT
from modelhub.graph.canonical import inline_all
from modelhub.graph.forest_forms import retype as retype_trees
from modelhub.graph.interface import Interface, entrance

__all__ = ["to_precision"]

_TYPES = {"float32": ir.DataType.FLOAT, "float64": ir.DataType.DOUBLE}


def to_precision(model: ir.Model, precision: str) -> ir.Model:
    """`model` with every floating-point value in `precision` ("float32" or "float64"), in place.

    Functions are dissolved first. Integers and booleans keep their type, and so do the nodes of `Builder.kept`.
    """
    inline_all(model)
    target = _TYPES[precision]
    swap = {_TYPES["float32"]: target, _TYPES["float64"]: target}
    if precision == "float64":
        _exact_entrance(model)
        for node in list(model.graph):
            plain = node.domain == "" and KEPT not in node.metadata_props
            spell = _SPELLED_OUT.get(node.op_type) if plain else None
            if spell is not None:
                _spell_out(model.graph, node, spell)
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in swap and tensor.dtype != target and not _only_kept(value):
                value.const_value = ir.tensor(tensor.numpy().astype(target.numpy()), name=value.name)
                value.type = ir.TensorType(target)
        nodes = [node for node in graph if KEPT not in node.metadata_props]
        for value in (*graph.inputs, *(output for node in nodes for output in node.outputs)):
            if value.dtype in swap:
                value.type = ir.TensorType(target)
        for node in nodes:
            _retype(node, swap, target)
    return model


def _only_kept(value: ir.Value) -> bool:
    """Whether only nodes that keep their number format use `value`."""
    uses = value.uses()
    return bool(uses) and all(KEPT in use.node.metadata_props for use in uses)


def _retype(node: ir.Node, swap: dict[ir.DataType, ir.DataType], target: ir.DataType) -> None:
    """Change the attributes that name a floating-point type or hold a floating-point tensor."""
    if (node.domain, node.op_type) == ("ai.onnx.ml", "TreeEnsemble"):
        retype_trees(node, str(target.numpy()))
    for name in ("to", "dtype"):
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.type == ir.AttributeType.INT and attribute.as_int() in swap:
            node.attributes[name] = ir.AttrInt64(name, target.value)
    value = node.attributes.get("value")
    if value is not None and value.type == ir.AttributeType.TENSOR and value.as_tensor().dtype in swap:
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(value.as_tensor().numpy().astype(target.numpy())))


def _exact_entrance(model: ir.Model) -> None:
    """Give the constants of the entrance (`naming.attach`) the record's own doubles."""
    for record in Interface.of(model).inputs:
        for name, array in zip(("offset", "scale", "default"), entrance(record, "float64"), strict=True):
            value = model.graph.initializers.get(f"{record.tensor}/{name}")
            tensor = value.const_value if value is not None else None
            if value is None or tensor is None or tensor.shape != array.shape:
                continue
            if np.array_equal(tensor.numpy(), array.astype(tensor.numpy().dtype), equal_nan=True):
                value.const_value = ir.tensor(array, name=value.name)
                value.type = ir.TensorType(ir.DataType.DOUBLE)


class _Scribe:
    """Writes the nodes and constants that stand in for one node."""

    def __init__(self, graph: ir.Graph, name: str) -> None:
        self.graph = graph
        self.name = name
        self.nodes: list[ir.Node] = []

    def constant(self, array: np.ndarray | float) -> ir.Value:
        name = f"{self.name}/exact_{len(self.graph.initializers)}"
        array = np.asarray(array, dtype=np.float64)
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: int | float) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes, name=f"{self.name}/{op_type}_{len(self.nodes)}")
        node.outputs[0].name = f"{node.name}_out"
        self.nodes.append(node)
        return node.outputs[0]


Spell = Callable[[_Scribe, ir.Node], ir.Value | None]


def _spell_out(graph: ir.Graph, node: ir.Node, spell: Spell) -> None:
    """Put what `spell` writes in the place of `node`; None leaves the node as it is."""
    scribe = _Scribe(graph, node.name or node.op_type)
    result = spell(scribe, node)
    if result is None:
        return
    old = node.outputs[0]
    result.name, result.shape, result.type = old.name, old.shape, old.type
    graph.insert_after(node, scribe.nodes)
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _float(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.as_float())


def _operands(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


def _batch_normalization(op: _Scribe, node: ir.Node) -> ir.Value | None:
    """(x - mean) / sqrt(var + epsilon) * gamma + beta, over axis 1 (ONNX BatchNormalization)."""
    x, gamma, beta, mean, var = _operands(node)
    tensors = [value.const_value for value in (gamma, beta, mean, var)]
    if x.shape is None or any(tensor is None for tensor in tensors):
        return None
    gammas, betas, means, variances = (t.numpy().astype(np.float64) for t in tensors if t is not None)
    scale = gammas / np.sqrt(variances + _float(node, "epsilon", 1e-5))
    tail = (1,) * (len(x.shape) - 2)
    centred = op("Sub", x, op.constant(means.reshape(-1, *tail)))
    return op("Add", op("Mul", centred, op.constant(scale.reshape(-1, *tail))), op.constant(betas.reshape(-1, *tail)))


def _layer_normalization(op: _Scribe, node: ir.Node) -> ir.Value | None:
    """(x - mean) / sqrt(var + epsilon) * scale + bias over the last axis (ONNX LayerNormalization)."""
    x, *affine = _operands(node)
    axis = node.attributes.get("axis")
    rank = len(x.shape) if x.shape is not None else 0
    if rank == 0 or (-1 if axis is None else axis.as_int()) not in (-1, rank - 1):
        return None
    last = op.graph.initializers.get("modelhub/last_axis")
    if last is None:
        last = ir.Value(
            name="modelhub/last_axis",
            type=ir.TensorType(ir.DataType.INT64),
            shape=ir.Shape([1]),
            const_value=ir.tensor(np.array([-1])),
        )
        op.graph.register_initializer(last)
    centred = op("Sub", x, op("ReduceMean", x, last, keepdims=1))
    variance = op("ReduceMean", op("Mul", centred, centred), last, keepdims=1)
    y = op("Div", centred, op("Sqrt", op("Add", variance, op.constant(_float(node, "epsilon", 1e-5)))))
    y = op("Mul", y, affine[0])
    return op("Add", y, affine[1]) if len(affine) > 1 else y


def _leaky_relu(op: _Scribe, node: ir.Node) -> ir.Value:
    """X where x >= 0, else alpha x."""
    (x,) = _operands(node)
    slope = op("Mul", x, op.constant(_float(node, "alpha", 0.01)))
    return op("Where", op("Less", x, op.constant(0.0)), slope, x)


def _exponential_unit(op: _Scribe, x: ir.Value, alpha: float, gamma: float = 1.0, rate: float = 1.0) -> ir.Value:
    """Gamma x where x >= 0, else gamma alpha (exp(x / rate) - 1)."""
    capped = op("Min", x, op.constant(0.0))  # keeps exp from overflowing on the side not taken
    low = op("Sub", op("Exp", op("Mul", capped, op.constant(1.0 / rate))), op.constant(1.0))
    low = op("Mul", low, op.constant(alpha))
    y = op("Where", op("Less", x, op.constant(0.0)), low, x)
    return y if gamma == 1.0 else op("Mul", y, op.constant(gamma))


def _elu(op: _Scribe, node: ir.Node) -> ir.Value:
    return _exponential_unit(op, _operands(node)[0], _float(node, "alpha", 1.0))


def _celu(op: _Scribe, node: ir.Node) -> ir.Value:
    alpha = _float(node, "alpha", 1.0)
    return _exponential_unit(op, _operands(node)[0], alpha, rate=alpha)


# Klambauer et al., 1706.02515, as ONNX Selu's defaults.
_SELU = {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}


def _selu(op: _Scribe, node: ir.Node) -> ir.Value:
    return _exponential_unit(op, _operands(node)[0], **{k: _float(node, k, v) for k, v in _SELU.items()})


def _hard_sigmoid(op: _Scribe, node: ir.Node) -> ir.Value:
    """max(0, min(1, alpha x + beta))."""
    (x,) = _operands(node)
    line = op("Mul", x, op.constant(_float(node, "alpha", 0.2)))
    line = op("Add", line, op.constant(_float(node, "beta", 0.5)))
    return op("Clip", line, op.constant(0.0), op.constant(1.0))


_SPELLED_OUT: dict[str, Spell] = {
    "BatchNormalization": _batch_normalization,
    "Celu": _celu,
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "Selu": _selu,
}
