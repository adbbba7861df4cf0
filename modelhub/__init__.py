"""modelhub: read trained models, convert them, and prove that nothing changed.

import modelhub
model = modelhub.read("net.pt2")                    # an onnx_ir.Model with an interface record
modelhub.write(model, "net.json")                   # lwtnn JSON; the suffix or to= says the format
report = modelhub.convert("net.pt2", "net.onnx")    # read, write, and check
report = modelhub.check("net.pt2", "net.json")      # source against graph against target
found = modelhub.diff("net.pt2", "net.json")        # where the two part, why, and on which input
print(modelhub.inspect("net.pt2"))                  # layers, shapes, parameters, interface
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelhub.conversion import convert, read, write
    from modelhub.difference.diff import diff
    from modelhub.equivalence.check import check
    from modelhub.inspection import inspect

__version__ = "0.1.0"

__all__ = ["check", "convert", "diff", "inspect", "read", "write"]

_HOME = {
    "check": "modelhub.equivalence.check",
    "convert": "modelhub.conversion",
    "diff": "modelhub.difference.diff",
    "inspect": "modelhub.inspection",
    "read": "modelhub.conversion",
    "write": "modelhub.conversion",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'modelhub' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
