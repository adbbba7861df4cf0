"""A pen for passes: nodes and float64 constants that will stand in for one node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike

__all__ = ["Scribe", "operands", "real"]


class Scribe:
    """Writes the nodes that stand in for the node called `name`; its constants go into `graph` at once."""

    def __init__(self, graph: ir.Graph, name: str) -> None:
        self.graph = graph
        self.name = name
        self.nodes: list[ir.Node] = []

    def constant(self, array: ArrayLike, dtype: str = "float64") -> ir.Value:
        """An initializer of the graph."""
        name = f"{self.name}/exact_{len(self.graph.initializers)}"
        data = np.asarray(array, dtype=dtype)
        tensor = ir.tensor(data, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(data.shape), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def ints(self, *values: int) -> ir.Value:
        """A 1-d int64 initializer."""
        return self.constant(values, "int64")

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """The output of a new node."""
        return self.many(op_type, *inputs, outputs=1, **attributes)[0]

    def many(self, op_type: str, *inputs: ir.Value, outputs: int, **attributes: Any) -> tuple[ir.Value, ...]:
        """All outputs of a new node."""
        name = f"{self.name}/{op_type}_{len(self.nodes)}"
        node = ir.node(op_type, list(inputs), attributes, num_outputs=outputs, name=name)
        for index, value in enumerate(node.outputs):
            value.name = f"{name}_out{index}"
        self.nodes.append(node)
        return tuple(node.outputs)


def real(node: ir.Node, name: str, default: float) -> float:
    """A real-valued attribute, as the double it is in memory."""
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.as_float())


def operands(node: ir.Node) -> list[ir.Value]:
    """The inputs that are there."""
    return [value for value in node.inputs if value is not None]
