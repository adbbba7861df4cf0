"""MVAUtils: the trees of ATLAS's own runtime for BDTs (Athena: Reconstruction/MVAUtils), in ROOT files.

    root.py        the TTree, by uproot, with no class made from the file (needs the extra mvautils)
    trees.py       its nodes as a `Forest`
    answers.py     which of MVAUtils's answers is meant
    reader.py      the forest as a common graph
    evaluator.py   MVAUtils's rules in numpy
    macro.py       the way out: a ROOT macro that writes the TTree

Importing this is cheap: everything is loaded when it is used.
"""

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

__all__ = ["MACRO", "Exporter", "Importer", "Runtime"]

MACRO = b"// MVAUtils forest, written by modelhub"
"""How the macros begin that the exporter writes."""


class Importer:
    """Reads the flavours of TMVA, LightGBM and XGBoost; `options.task` says which answer is meant."""

    suffixes: Sequence[str] = (".root", ".cxx")

    def recognises(self, path: Path) -> bool:
        """Whether it is a ROOT file, by its first bytes and suffix (what is in it is seen later), or our macro."""
        start = head(path, len(MACRO))
        return start == MACRO or (path.suffix.lower() == ".root" and start.startswith(b"root"))

    def read(self, path: Path, options: ReadOptions) -> ir.Model:
        """The forest in `path` as a common graph; see `modelhub_mvautils.reader.read`."""
        from modelhub_mvautils import reader

        return reader.read(path, options)


class Exporter:
    """Writes forests as ROOT macros, each of which writes the TTree: only ROOT writes what MVAUtils reads."""

    suffix = ".cxx"
    forms: Sequence[str] = ()
    masks = False

    def write(self, model: ir.Model, path: Path, options: WriteOptions) -> None:
        """Write `model` to `path`; see `modelhub_mvautils.macro`."""
        from modelhub_mvautils.macro import write

        write(model, path, options)


class Runtime:
    """Runs the files in modelhub's own evaluator of MVAUtils's rules: MVAUtils itself comes only with Athena."""

    extra = "mvautils"
    precisions: Sequence[str] = ("float32",)

    def installed(self) -> bool:
        """Whether uproot is there; the evaluator needs numpy alone."""
        return find_spec("uproot") is not None

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:
        """The forest in `path`; MVAUtils adds in float32 and knows no other arithmetic."""
        from modelhub.errors import Inconclusive
        from modelhub_mvautils import evaluator

        if precision not in self.precisions:
            raise Inconclusive(f"MVAUtils computes in float32 and knows no {precision}")
        return evaluator.load(path, interface, options)
