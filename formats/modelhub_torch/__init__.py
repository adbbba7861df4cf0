"""PyTorch: `.pt2` archives of `torch.export.save`, read as files; torch itself runs only as reference engine.

`modelhub_torch.from_module(module, example)` makes a common graph of a module in memory.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.graph.interface import Interface
    from modelhub.protocols import Engine, ReadOptions

__all__ = ["Importer", "Runtime", "from_module"]


class Importer:
    """Reads `.pt2` archives; knows other torch files well enough to say what to do with them."""

    suffixes = (".pt2", ".pt", ".pth")

    def recognises(self, path: Path) -> bool:
        """By the members of the zip archive or the magic number of older files; a broken `.pt2` by its suffix."""
        from modelhub.errors import UnreadableFile
        from modelhub.files import head, zip_mentions
        from modelhub_torch.archive import MEMBERS, kind_of

        try:
            archive = path.suffix.lower() not in self.suffixes and head(path, 2) == b"PK"
            if archive and not zip_mentions(path, *MEMBERS):
                return False
            return kind_of(path) is not None
        except UnreadableFile:
            return path.suffix.lower() in self.suffixes

    def read(self, path: Path, options: ReadOptions) -> ir.Model:
        """The model in `path`. With `options.trust`, operators we do not know are left to torch's own exporter."""
        from modelhub_torch.fallback import read

        return read(path, options)


class Runtime:
    """Runs `.pt2` archives in torch."""

    extra = "torch"
    precisions = ("float64", "float32")

    def installed(self) -> bool:
        """Whether torch can be imported."""
        return find_spec("torch") is not None

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:
        """The program in `path` run by torch; see `runtime.load`."""
        from modelhub_torch.runtime import load

        return load(path, interface, precision, options)


def from_module(module: Any, example: Any, dynamic: Any = None) -> ir.Model:
    """A `torch.nn.Module` in memory as a common graph; see `export.from_module`."""
    from modelhub_torch.export import from_module as export

    return export(module, example, dynamic)
