"""TMVA weight files (`*.weights.xml`, also gzipped), read and, for trees, written without ROOT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.graph.interface import Interface
    from modelhub.protocols import Engine, ReadOptions, WriteOptions

__all__ = ["Exporter", "Importer", "Runtime"]


class Importer:
    """Reads BDT, MLP, DNN, DL, Fisher, LD and Category weight files."""

    suffixes: Sequence[str] = (".xml", ".xml.gz")

    def recognises(self, path: Path) -> bool:
        """Whether the file begins as TMVA's XML does, or as its text files before 4.0.2, which `read` refuses."""
        from modelhub_tmva.stream import OLD_TEXT, begins

        start = begins(path)
        return (start.startswith(b"<") and b"<MethodSetup" in start) or start.startswith(OLD_TEXT)

    def read(self, path: Path, options: ReadOptions) -> ir.Model:
        """The method in `path` as a common graph; `options.tie` says what happens to values that equal a cut."""
        from modelhub_tmva import reader

        return reader.read(path, options)


class Exporter:
    """Writes forests as BDTs that TMVA::Reader reads."""

    suffix = ".xml"
    forms: Sequence[str] = ()
    masks = False

    def write(self, model: ir.Model, path: Path, options: WriteOptions) -> None:
        """Write `model` to `path`; see `modelhub_tmva.writer.write`."""
        from modelhub_tmva.writer import write

        write(model, path, options)


class Runtime:
    """Runs weight files in modelhub's own evaluator of TMVA's rules: TMVA itself comes only with ROOT."""

    extra = "tmva"
    precisions: Sequence[str] = ("float32",)

    def installed(self) -> bool:
        """Always: the evaluator needs numpy alone."""
        return True

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:
        """The method in `path`; TMVA knows one arithmetic, which is given out as float32."""
        from modelhub.errors import Inconclusive
        from modelhub_tmva import runtime

        if precision not in self.precisions:
            raise Inconclusive(f"TMVA takes float32 and knows no {precision}")
        return runtime.load(path, interface, options)
