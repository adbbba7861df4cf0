"""TMVA weight files (`*.weights.xml`, also gzipped), read without ROOT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.protocols import ReadOptions

__all__ = ["Importer"]


class Importer:
    """Reads BDT, MLP, DNN, DL, Fisher, LD and Category weight files."""

    suffixes: Sequence[str] = (".xml", ".xml.gz")

    def recognises(self, path: Path) -> bool:
        """Whether the file begins as TMVA's XML does."""
        from modelhub_tmva.stream import begins

        start = begins(path)
        return start.startswith(b"<") and b"<MethodSetup" in start

    def read(self, path: Path, options: ReadOptions) -> ir.Model:
        """The method in `path` as a common graph; `options.tie` says what happens to values that equal a cut."""
        from modelhub_tmva import reader

        return reader.read(path, options)
