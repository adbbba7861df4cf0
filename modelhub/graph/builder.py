"""How readers write the common graph: one operator a line, names from the source's layers.

b = Builder()
x = b.input("jets", ["N", 44])
with b.scope("dense_1"):
    y = b.op("Gemm", x, b.constant(weight, "weight"), b.constant(bias, "bias"), transB=1)
b.output(b.op("Softmax", y, axis=-1), "probabilities", ["N", 3])
model = b.finish(interface)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.interface import Interface

__all__ = ["DOMAIN", "IR_VERSION", "KEPT", "LAYERS", "ML_OPSET", "OPSET", "Builder"]

OPSET = 20
"""The ONNX operator set of the common graph (and of what is written, unless the user asks for another)."""

ML_OPSET = 5
"""The ai.onnx.ml operator set, used where the graph holds trees."""

IR_VERSION = 10

DOMAIN = "modelhub"
"""The domain of blocks that ONNX has no operator for (`modelhub.graph.blocks`)."""


KEPT = "modelhub.kept"
"""The metadata key of nodes that keep their number format whatever precision the graph is written in."""


LAYERS = "modelhub.layers"
"""The key in a value's `meta`, which is in no file: the layers of the source whose result the value is."""


class Builder:
    """Builds one `onnx_ir.Model`. Values are made unique by numbering, so any source name is welcome."""

    def __init__(self) -> None:
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._constants: dict[str, ir.Value] = {}
        self._functions: dict[ir.OperatorIdentifier, ir.Function] = {}
        self._scope: list[str] = []
        self._kept = False
        self._names: dict[str, int] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of nodes and constants made inside with `name/`: the layer's name in the source."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    @contextmanager
    def kept(self, keep: bool = True) -> Iterator[None]:
        """Nodes made inside keep float64 whatever precision the graph is written in (`modelhub.graph.precision`).

        For sources that compute in float64 between float32 ends, where less would change a decision. Only nodes whose
        floating-point results are float64 belong inside::

            x ──► [ Cast(float64) ──► ... ] ──► Cast ──► y        the last Cast stands outside

        With `keep` False they do not, although nodes around them do.
        """
        before, self._kept = self._kept, keep
        try:
            yield
        finally:
            self._kept = before

    def _name(self, wish: str, *, scoped: bool = True) -> str:
        name = "/".join([*self._scope, wish]) if scoped else wish
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return self._name(f"{wish}_{count}", scoped=scoped) if count else name

    def input(self, name: str, shape: Sequence[int | str | None], dtype: str = "float32") -> ir.Value:
        """A graph input; `shape` holds sizes, names of symbolic axes ("N", "T_tracks") or None."""
        value = ir.Value(
            name=self._name(name, scoped=False),
            type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype))),
            shape=ir.Shape(shape),
        )
        self._inputs.append(value)
        return value

    def constant(self, array: NDArray[Any], name: str) -> ir.Value:
        """An initializer holding `array` as it is: no copy, no change of dtype."""
        array = np.asarray(array)
        full = self._name(name)
        value = ir.Value(
            name=full,
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array, name=full),
        )
        self._constants[full] = value
        return value

    def ints(self, *values: int) -> ir.Value:
        """A 1-d int64 initializer: axes, shapes, split sizes."""
        return self.constant(np.array(values, dtype=np.int64), "ints")

    def op(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", name: str = "", **attributes: Any
    ) -> ir.Value:
        """The only (or first) output of a new node. Attributes that are None are left out."""
        return self.ops(op_type, *inputs, outputs=1, domain=domain, name=name, **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        outputs: int,
        domain: str = "",
        name: str = "",
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """All outputs of a new node."""
        given = {key: value for key, value in attributes.items() if value is not None}
        full = self._name(name or op_type)
        node = ir.node(op_type, list(inputs), given, domain=domain, num_outputs=outputs, name=full)
        if self._kept:
            node.metadata_props[KEPT] = "yes"
        for index, value in enumerate(node.outputs):
            value.name = f"{full}_out" if index == 0 else f"{full}_out{index}"
        self._nodes.append(node)
        return node.outputs

    def block(self, function: ir.Function, *inputs: ir.Value | None, outputs: int = 1) -> Sequence[ir.Value]:
        """A call of a model-local function (`modelhub.graph.blocks`); the function is added once."""
        self._functions[function.identifier()] = function
        return self.ops(function.name, *inputs, outputs=outputs, domain=function.domain)

    @property
    def path(self) -> str:
        """The scopes that are open, joined by `/`."""
        return "/".join(self._scope)

    def result_of(self, layer: str, value: ir.Value) -> None:
        """Note that `value` is what the source's engine computes in `layer`, axis for axis: for `modelhub diff`."""
        value.meta.setdefault(LAYERS, []).append(layer)

    def output(
        self, value: ir.Value, name: str, shape: Sequence[int | str | None] | None = None, dtype: str = "float32"
    ) -> None:
        """Make `value` a graph output called `name`."""
        if value in self._outputs or value in self._inputs or value.is_initializer():
            value = self.op("Identity", value)
        value.name = self._name(name, scoped=False)
        value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype)))
        if shape is not None:
            value.shape = ir.Shape(shape)
        self._outputs.append(value)

    def put(self, graph: ir.Graph, place: ir.Node) -> None:
        """Put what was built into `graph`, in front of `place`: with values of the graph as inputs, and no outputs."""
        for value in self._constants.values():
            graph.register_initializer(value)
        graph.insert_before(place, self._nodes)
        graph.opset_imports.setdefault("", OPSET)
        if any(node.domain == "ai.onnx.ml" for node in self._nodes):
            graph.opset_imports["ai.onnx.ml"] = ML_OPSET

    def finish(self, interface: Interface | None = None, name: str = "model") -> ir.Model:
        """The model, with `interface` (if any) in its metadata."""
        imports = {"": OPSET}
        for node in self._nodes:
            if node.domain not in imports:
                imports[node.domain] = ML_OPSET if node.domain == "ai.onnx.ml" else 1
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._nodes,
            initializers=list(self._constants.values()),
            opset_imports=imports,
            name=name,
        )
        model = ir.Model(
            graph, ir_version=IR_VERSION, producer_name="modelhub", functions=list(self._functions.values())
        )
        if interface is not None:
            interface.store(model)
        return model
