"""Constants of a graph: initializers, Constant nodes, and whatever a few operators make of these."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["Constants"]

_ARITHMETIC = {"Add", "Div", "Mul", "Neg", "Reciprocal", "Sqrt", "Sub"}
"""Operators that round: lwtnn computes in double, so their constants are computed in it too."""

_COMPUTED = {
    *("Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
    *_ARITHMETIC,
}
"""Operators that are computed ahead where all their inputs are constants: what exporters leave around weights."""

_KEEPS_ZERO = {"Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
"""Operators whose result is zero where the first input is."""


class Constants:
    """The constants of one graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._known: dict[ir.Value, NDArray[Any]] = {}
        for node in graph:
            if node.domain in ("", "ai.onnx") and (array := self._result(node)) is not None:
                self._known[node.outputs[0]] = array

    def _result(self, node: ir.Node) -> NDArray[Any] | None:
        if node.op_type == "Constant":
            return _constant(node)
        if node.op_type not in _COMPUTED or not node.inputs:
            return None
        inputs = [None if value is None else self.array(value) for value in node.inputs]
        if any(array is None and value is not None for array, value in zip(inputs, node.inputs, strict=True)):
            return None
        first = inputs[0]
        if node.op_type == "Cast" and first is not None and _among_floats(node, first):
            return first  # a number stored as a double stays one: lwtnn computes in double
        if node.op_type in _ARITHMETIC:
            inputs = [x.astype(np.float64) if x is not None and x.dtype == np.float32 else x for x in inputs]
        return _compute(node, inputs)

    def known(self, value: ir.Value) -> bool:
        """Whether `value` is a constant."""
        return self.array(value) is not None

    def array(self, value: ir.Value) -> NDArray[Any] | None:
        """The constant as it is in the graph, or None."""
        if value not in self._known and value.const_value is not None and not value.is_graph_input():
            self._known[value] = value.const_value.numpy()
        return self._known.get(value)

    def zero(self, value: ir.Value) -> bool:
        """Whether `value` is zero everywhere, though its shape may depend on data."""
        while True:
            array, node = self.array(value), value.producer()
            if array is not None:
                return not array.any()
            if node is None:
                return False
            if node.op_type == "ConstantOfShape":
                fill = node.attributes.get("value")
                return fill is None or not fill.as_tensor().numpy().any()
            first = node.inputs[0] if node.inputs else None
            if node.op_type not in _KEEPS_ZERO or first is None:
                return False
            value = first


def _among_floats(node: ir.Node, array: NDArray[Any]) -> bool:
    """Whether a Cast leads from one of float32 and float64 to one of them."""
    to = node.attributes.get("to")
    target = ir.DataType(to.as_int()) if to is not None else ir.DataType.UNDEFINED
    return array.dtype in ("float32", "float64") and target in (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _constant(node: ir.Node) -> NDArray[Any] | None:
    """The value of a Constant node, None for texts and sparse tensors."""
    for name, attribute in node.attributes.items():
        if name == "value":
            return attribute.as_tensor().numpy()
        if name in ("value_float", "value_floats"):
            return np.asarray(attribute.value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(attribute.value, dtype=np.int64)
    return None


def _compute(node: ir.Node, inputs: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    """The result of `node`, by ONNX's own reference implementation; None where it has none."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = [f"i{k}" if array is not None else "" for k, array in enumerate(inputs)]
    copy = ir.Node(
        node.domain, node.op_type, [ir.Value(name=n) if n else None for n in names], node.attributes.values()
    )
    copy.outputs[0].name = "o"
    proto = ir.to_proto(copy)
    graph = onnx.helper.make_graph(
        [proto],
        "constant",
        [onnx.helper.make_empty_tensor_value_info(name) for name in names if name],
        [onnx.helper.make_empty_tensor_value_info("o")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", node.version or 20)])
    feed = {name: array for name, array in zip(names, inputs, strict=True) if name}
    try:
        (result,) = ReferenceEvaluator(model).run(["o"], feed)
    except Exception:  # it raises anything on operators that do not fit their inputs: then there is no such constant
        return None
    return np.asarray(result)
