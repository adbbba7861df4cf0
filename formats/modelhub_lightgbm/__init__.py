"""LightGBM text models: read as files, run by LightGBM itself."""

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


class Importer:
    """Reads what `Booster.save_model` writes."""

    suffixes: Sequence[str] = (".txt", ".model", ".lgb")

    def recognises(self, path: Path) -> bool:
        """By the first two lines: `tree`, then the version."""
        lines = head(path, 32).splitlines()
        return len(lines) > 1 and lines[0] == b"tree" and lines[1].startswith((b"version=", b"num_class="))

    def read(self, path: Path, options: ReadOptions) -> ir.Model:  # noqa: ARG002
        """The model as a common graph; see `modelhub_lightgbm.reader.read`."""
        from modelhub_lightgbm.reader import read

        return read(path)

    def booster(
        self,
        state: Mapping[str, Any],
        where: str,
        *,
        estimator: bool,  # noqa: ARG002
        margin: bool = False,
    ) -> ir.Model:
        """A pickled Booster as a common graph, for whoever meets one inside of something else.

        It predicts alike alone and in its scikit-learn estimator; see `modelhub_lightgbm.pickled.booster`.
        """
        from modelhub_lightgbm.pickled import booster

        return booster(state, where, margin=margin)


class Runtime:
    """Runs the files in LightGBM, which computes in float64 whatever it is given."""

    extra = "lightgbm"
    precisions: Sequence[str] = ("float64", "float32")

    def installed(self) -> bool:
        """Whether lightgbm is there."""
        return find_spec("lightgbm") is not None

    def load(self, path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:  # noqa: ARG002
        """The model in a Booster; see `modelhub_lightgbm.runtime.load`."""
        from modelhub_lightgbm.runtime import load

        return load(path, interface, precision)
