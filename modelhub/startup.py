"""A quick start for short commands: libraries that most of them never touch are loaded when they are touched.

`import onnx_ir` takes half a second, and most of that is sympy, which it computes with symbolic axes by. A conversion
names such axes and never computes with them. So the command line loads sympy, and some corners of onnx, late: they are
there for whoever asks for an attribute of them, and behave then as always.

Only a process that is modelhub's own is set up like this. Who imports modelhub as a library has the import system and
the garbage collector as they were.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

__all__ = ["LATE", "quick_start"]

LATE = frozenset({
    "google.protobuf.json_format", "google.protobuf.text_format", "onnx.compose", "onnx.gen_proto", "onnx.utils",
    "onnx_ir._symbolic_shapes", "sympy",
})  # fmt: skip
"""Modules that others import with `import` or `from package import module`, without touching them at once.

`onnx_ir._symbolic_shapes` makes a table of sympy's functions as it is loaded.
"""

YOUNG = 100_000
"""Objects made between two looks for garbage (Python's own: 700). Imports and JSON make many that all stay."""


def quick_start() -> None:
    """Load `LATE` late from now on, and look for garbage less often. To be called before onnx_ir is imported.

    A module is loaded by the first thread that touches it; before Python 3.11.9 and 3.12.3 a second thread may see it
    half loaded (python/cpython#114763), so servers do without.
    """
    if not any(isinstance(finder, _Late) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Late())
    gc.set_threshold(YOUNG, 50, 100)


class _Late:
    """Finds what Python's own path finder finds, and has it loaded at the first touch."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec with a lazy loader; None for all but `LATE`, and for what is not installed."""
        spec = PathFinder.find_spec(name, path, target) if name in LATE else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec
