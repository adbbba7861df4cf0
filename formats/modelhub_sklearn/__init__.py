"""scikit-learn estimators: `.skops` read as files, pickles only when trusted, live objects in Python.

model = modelhub_sklearn.from_estimator(forest, feature_names=["pt", "eta"])
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelhub.errors import UnreadableFile
from modelhub.files import Archive, head, zip_mentions

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.graph.interface import Interface
    from modelhub.protocols import Engine, ReadOptions

__all__ = ["Importer", "Runtime", "from_estimator", "is_pickle"]

PICKLES = (".pkl", ".pickle", ".joblib")


class Importer:
    """Reads what `skops.io.dump` writes; pickles and joblib files only with `--trust`."""

    suffixes: Sequence[str] = (".skops", *PICKLES)

    def recognises(self, path: Path) -> bool:
        """A zip archive with a `schema.json`; the suffix of a pickle, or a pickle that names scikit-learn first."""
        start = head(path)
        if start.startswith(b"PK\x03\x04"):
            try:
                if not zip_mentions(path, "schema.json"):
                    return path.suffix.lower() == ".skops"
                with Archive(path) as archive:
                    return "schema.json" in archive
            except UnreadableFile:
                return path.suffix.lower() == ".skops"
        return path.suffix.lower() in self.suffixes or is_pickle(start)

    def read(self, path: Path, options: ReadOptions) -> ir.Model:
        """The model as a common graph; see `modelhub_sklearn.reader.read`."""
        from modelhub_sklearn.reader import read

        return read(path, options)


def is_pickle(start: bytes) -> bool:
    """Whether a file starts like a pickle, of any protocol, whose first object is from scikit-learn."""
    binary = start[:1] == b"\x80" and b"\x8c" in start[:16]
    return b"sklearn." in start and (binary or start[:2] in (b"\x80\x02", b"\x80\x03") or start[:1] == b"c")


def from_estimator(estimator: Any, feature_names: Sequence[str] | None = None) -> ir.Model:
    """A fitted estimator as a common graph; see `modelhub_sklearn.reader.from_estimator`."""
    from modelhub_sklearn import reader

    return reader.from_estimator(estimator, feature_names)


class Runtime:
    """Runs the files in scikit-learn, in float64, the one arithmetic it has; XGBoost in it has float32 only."""

    extra = "sklearn"
    precisions: Sequence[str] = ("float64", "float32")

    def installed(self) -> bool:
        """Whether scikit-learn is there."""
        return find_spec("sklearn") is not None

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:
        """The estimator in `path`; see `modelhub_sklearn.runtime.load`."""
        from modelhub_sklearn.runtime import load

        return load(path, interface, precision, options)
