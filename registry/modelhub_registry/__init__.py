"""Versions that cannot lie: trained models, what was made from them, and the evidence, kept together.

    from modelhub_registry import Registry
    registry = Registry()                                   # $MODELHUB_REGISTRY, else ~/.modelhub/registry
    version = registry.push("btag", ["net.pt2", "net.json"], reports=["report.json"])
    registry.alias("btag@1", "prod")
    registry.get("btag@prod", to="here")
    registry.search("epoch=2026 and auc>0.9")
    registry.load("btag@prod")(events)                      # onnxruntime, fed by the names of the variables

A registry is a folder, or a place at a URL, that explains itself:

    registry.json           what this is; which aliases are protected; where blobs and index are, if not here
    blobs/sha256/<hex>      every file and every manifest, named by its SHA-256
    log/<name>/<n>.json     what happened to a model, in order: publishes and alias moves, each naming the one before
    index.sqlite            a quick way into the above; `reindex` makes it anew from the log and the manifests.
                            With `database`, a URL, it is on a server instead (`place.py`)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelhub_registry.catalog import Registry
    from modelhub_registry.records import Artifact, Manifest, Version

__all__ = ["Artifact", "Manifest", "Registry", "Version"]

_HOME = {
    "Artifact": "modelhub_registry.records",
    "Manifest": "modelhub_registry.records",
    "Registry": "modelhub_registry.catalog",
    "Version": "modelhub_registry.records",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'modelhub_registry' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
