"""A pen for the shaken graph: nodes behind a node, and random numbers as large as its roundings."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import onnx_ir as ir

from modelhub.equivalence.compare import ROUNDOFF

__all__ = ["LAMBDA", "Pen"]

LAMBDA = 6.0
"""How many roundings' worth each intermediate is shaken by: what stays within it is six standard deviations wide."""


class Pen:
    """Writes nodes behind a node of some graph; constants go into the model's own graph."""

    def __init__(self, main: ir.Graph, seed: int) -> None:
        self.main = main
        self.seed = seed
        self.count = 0
        self.taps = 0
        self.roundings = 0.0
        self._constants: dict[Any, ir.Value] = {}

    def at(self, graph: ir.Graph, node: ir.Node, precision: str = "float32") -> None:
        """Go on behind `node`, which is rounded to `precision`."""
        self.graph, self.node, self.roundings, self.unit = graph, node, 0.0, ROUNDOFF[precision]
        self.nodes: list[ir.Node] = []

    def put(self) -> None:
        """Put what was written into the graph."""
        self.graph.insert_after(self.node, self.nodes)

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """The output of a new node."""
        self.count += 1
        node = ir.node(op_type, list(inputs), attributes, name=f"shaken/{op_type}_{self.count}")
        node.outputs[0].name = f"shaken/{self.count}"
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, value: Any, dtype: str = "float64") -> ir.Value:
        """A number or array."""
        array = np.asarray(value, dtype)
        key = (dtype, array.shape, array.tobytes()) if array.size < 9 else None
        if key is None or key not in self._constants:
            self.count += 1
            name = f"shaken/constant_{self.count}"
            tensor = ir.tensor(array, name=name)
            made = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
            self.main.register_initializer(made)
            if key is None:
                return made
            self._constants[key] = made
        return self._constants[key]

    def random(self, like: ir.Value, size: float) -> ir.Value:
        """Uniform random numbers with standard deviation λ u `size`."""
        self.count += 1
        half = sqrt(3.0) * LAMBDA * self.unit * size
        return self(
            "RandomUniformLike", like, dtype=ir.DataType.DOUBLE.value, low=-half, high=half,
            seed=float((self.seed + self.count) % (1 << 22)),
        )  # fmt: skip
