"""ONNX files: in, out, and run by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from modelhub.files import head

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.graph.interface import Interface
    from modelhub.protocols import Engine, ReadOptions, WriteOptions

__all__ = ["Exporter", "Importer", "Runtime"]


class Importer:
    """Reads `.onnx` files."""

    suffixes: Sequence[str] = (".onnx",)

    def recognises(self, path: Path) -> bool:
        """By the first field of a ModelProto: ir_version (tag 0x08), a small number; or by the suffix alone."""
        start = head(path, 2)
        return (start[:1] == b"\x08" and len(start) == 2 and 0 < start[1] < 64) or path.suffix.lower() == ".onnx"

    def read(self, path: Path, options: ReadOptions) -> ir.Model:
        """The model as a common graph; see `modelhub_onnx.reader.read`."""
        from modelhub_onnx.reader import read

        return read(path, options)


class Exporter:
    """Writes `.onnx` files."""

    suffix = ".onnx"
    forms: Sequence[str] = ("classic",)
    masks = True

    def write(self, model: ir.Model, path: Path, options: WriteOptions) -> None:
        """Write the graph; see `modelhub_onnx.writer.write`."""
        from modelhub_onnx.writer import write

        write(model, path, options)


class Runtime:
    """Runs `.onnx` files in onnxruntime."""

    extra = "onnx"
    precisions: Sequence[str] = ("float64", "float32")

    def installed(self) -> bool:
        """Whether onnxruntime is there."""
        return find_spec("onnxruntime") is not None

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:
        """The model in an onnxruntime session; see `modelhub_onnx.runtime.load`."""
        from modelhub_onnx.runtime import load

        return load(path, interface, precision, options)
