"""Tolerances as communities have agreed on them, in place of the rounding bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.equivalence.compare import Allowed

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """A fixed tolerance: ``absolute + relative |value|``.

    event, step: absolute and relative, for outputs of an event and for outputs of each step.
    lengths:     every length of sequences below is tried.
    """

    name: str
    event: tuple[float, float]
    step: tuple[float, float]
    lengths: int = 0

    def allowed(self, reference: Mapping[str, NDArray[Any]]) -> dict[str, Allowed]:
        """The tolerance of every output, [events, ...]; one with three axes has steps."""
        result = {}
        for name, x in reference.items():
            absolute, relative = self.step if x.ndim > 2 else self.event
            size = np.where(np.isfinite(x), np.abs(x), 0.0).astype(np.float64)
            result[name] = Allowed(absolute + relative * size)
        return result


PRESETS = {
    # ATLAS flavour tagging: salt compares its ONNX files with torch on 0 to 39 tracks at 1e-4 for jets and 1e-6 for
    # tracks (salt, docs/export.md and salt/onnx/check.py), Athena's answer with salt's at 1e-4 relative, 1e-6 absolute
    # (compare_models), and its documentation asks for agreement within 1e-6.
    "ftag": Preset("ftag", event=(1e-6, 1e-4), step=(1e-6, 1e-6), lengths=40),
}
