"""What is in a model file: its layers in order, with shapes and parameter counts, and its interface."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelhub import plugins
from modelhub.conversion import read
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Inspection", "LayerRow", "inspect", "operator_of", "shape_of", "size_of"]


@dataclass(frozen=True)
class LayerRow:
    """One node of the graph. `shape` is that of its first output, symbolic axes by name, "?" where unknown."""

    name: str
    operator: str
    shape: str
    parameters: int


@dataclass(frozen=True)
class Inspection:
    """A model at a glance."""

    file: str
    format: str
    opset: int
    parameters: int
    layers: tuple[LayerRow, ...]
    interface: Interface

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        return {
            "file": self.file,
            "format": self.format,
            "opset": self.opset,
            "parameters": self.parameters,
            "layers": [asdict(row) for row in self.layers],
            "interface": self.interface.to_json(),
        }

    def __str__(self) -> str:
        width = max((len(row.name) for row in self.layers), default=0)
        lines = [f"{self.file}: {self.format}, {self.parameters} parameters"]
        lines += [f"  {r.name:<{width}}  {r.operator:<20} {r.shape:<16} {r.parameters:>8}" for r in self.layers]
        return "\n".join(lines)


def inspect(
    path: str | Path,
    *,
    format: str | None = None,
    interface: str | Path | Interface | None = None,
    options: ReadOptions = ReadOptions(),
) -> Inspection:
    """Read the model in `path` and list what it is made of. Arguments as for `modelhub.read`."""
    path = Path(path)
    format = format or plugins.detect(path)
    model = read(path, format=format, interface=interface, options=options)
    counted: set[str] = set()
    rows = []
    for node in model.graph:
        parameters = 0
        for value in node.inputs:
            if value is not None and value.is_initializer() and value.name not in counted:
                counted.add(value.name or "")
                parameters += size_of(value)
        rows.append(LayerRow(node.name or "", operator_of(node), shape_of(node.outputs[0]), parameters))
    return Inspection(
        path.name,
        format,
        model.graph.opset_imports.get("", 0),
        sum(row.parameters for row in rows),
        tuple(rows),
        Interface.of(model),
    )


def operator_of(node: ir.Node) -> str:
    """The operator of a node, after its domain where that is not ONNX's own."""
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def size_of(value: ir.Value) -> int:
    """How many floating-point numbers an initializer holds; shapes and axes are no parameters."""
    tensor = value.const_value
    return math.prod(tensor.shape.numpy()) if tensor is not None and tensor.dtype.is_floating_point() else 0


def shape_of(value: ir.Value) -> str:
    """The shape of a value, symbolic axes by name, "?" where unknown."""
    if value.shape is None:
        return "?"
    return "×".join(str(dim) if isinstance(dim, int) else str(dim.value or "?") for dim in value.shape) or "scalar"
