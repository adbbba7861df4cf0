"""XGBoost models: `.json`, `.ubj` and the old binary, read as files; run by XGBoost itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelhub.files import head

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.graph.interface import Interface
    from modelhub.protocols import Engine, ReadOptions

__all__ = ["Importer", "Runtime"]

_NAMES = range(4, 64)
"""How long the name of an objective may be at the place where the old binary has it."""


class Importer:
    """Reads what `Booster.save_model` writes, and what it wrote before version 3.1."""

    suffixes: Sequence[str] = (".json", ".ubj", ".model")

    def recognises(self, path: Path) -> bool:
        """By the first bytes: an object whose first key is `learner` (or `version`, in JSON), or an old learner."""
        start = head(path, 256)
        if start[:1] == b"{":
            if start[1:2] in b"Liu":
                return b"\x07learner" in start[:24] or b"\x07version" in start[:24]
            keys = start[1:].lstrip().replace(b" ", b"")
            return keys.startswith((b'"learner":{', b'"version":['))
        return old_binary(start)

    def read(self, path: Path, options: ReadOptions) -> ir.Model:  # noqa: ARG002
        """The model as a common graph; see `modelhub_xgboost.reader.read`."""
        from modelhub_xgboost.reader import read

        return read(path)

    def booster(self, state: Mapping[str, Any], where: str, *, estimator: bool) -> ir.Model:
        """A pickled Booster as a common graph, for whoever meets one inside of something else.

        See `modelhub_xgboost.pickled.booster`.
        """
        from modelhub_xgboost.pickled import booster

        return booster(state, where, estimator=estimator)


def old_binary(start: bytes) -> bool:
    """Whether a file starts like the old binary: 136 bytes of numbers, then the length and name of the objective."""
    at = 136 + 4 * start.startswith(b"binf")
    size = int.from_bytes(start[at : at + 8], "little")
    name = start[at + 8 : at + 8 + size] if size in _NAMES else b""
    return len(name) == size and b":" in name and name.replace(b":", b"").replace(b"_", b"").isalnum()


class Runtime:
    """Runs the files in XGBoost, which computes in float32 only."""

    extra = "xgboost"
    precisions: Sequence[str] = ("float32",)

    def installed(self) -> bool:
        """Whether xgboost is there."""
        return find_spec("xgboost") is not None

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:  # noqa: ARG002
        """The model in a Booster; see `modelhub_xgboost.runtime.load`."""
        from modelhub_xgboost.runtime import load

        return load(path, interface, precision)

    def accepts(self, state: Mapping[str, Any], where: str) -> None:
        """Raise `Inconclusive` for a pickled Booster of a newer XGBoost than the one installed here."""
        from modelhub_xgboost.pickled import learner
        from modelhub_xgboost.runtime import check_version

        check_version(learner(state, where), where)
