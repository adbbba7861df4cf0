"""A graph in another precision: float32 for what is deployed, float64 for the reference of the check.

Going up is exact: float32 numbers are doubles. But ONNX keeps attributes as float32 (onnx.proto, AttributeProto.f),
and onnxruntime has no float64 kernel for some operators: both kinds are spelled out in simpler ones (`spelling`).
Offsets and scales at the entrance are taken from the interface record, which holds them as doubles.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from modelhub.graph.builder import KEPT
from modelhub.graph.canonical import infer_shapes, inline_all
from modelhub.graph.forest_forms import retype as retype_trees
from modelhub.graph.interface import Interface, entrance
from modelhub.graph.spelling import spell_out

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
        infer_shapes(model)
        _exact_entrance(model)
        for index, node in enumerate(list(model.graph)):
            node.name = node.name or f"{node.op_type}_{index}"  # what is written for it is named after it
            if KEPT not in node.metadata_props:
                spell_out(model.graph, node)
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype in swap and tensor.dtype != target and not _only_kept(value):
                value.const_value = ir.tensor(tensor.numpy().astype(target.numpy()), name=value.name)
                value.type = ir.TensorType(target)
        nodes = [node for node in graph if KEPT not in node.metadata_props]
        entries = () if KEPT in graph.metadata_props else graph.inputs  # the body of a node that is kept
        for value in (*entries, *(output for node in nodes for output in node.outputs)):
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
