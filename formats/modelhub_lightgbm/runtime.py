"""LightGBM as the reference engine. It computes in float64; float32 rows are widened, outputs rounded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelhub.errors import Inconclusive, safe_text

if TYPE_CHECKING:
    from modelhub.graph.interface import Interface
    from modelhub.protocols import Arrays, Engine

__all__ = ["load"]


def load(path: Path, interface: Interface, precision: str) -> Engine:
    """The model in a Booster. Raises `Inconclusive` where LightGBM cannot load it."""
    import lightgbm

    # its remarks would go to the standard output, where our own results go
    lightgbm.register_logger(logging.getLogger("lightgbm"))
    try:
        booster = lightgbm.Booster(model_file=path)
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise Inconclusive(f"LightGBM {lightgbm.__version__} cannot load {path}: {safe_text(error, 160)}") from None
    return _Engine(booster, interface, precision, version=lightgbm.__version__)


@dataclass
class _Engine:
    booster: Any
    interface: Interface
    precision: str
    version: str
    name: str = "lightgbm"

    def __call__(self, arrays: Arrays) -> Arrays:
        import lightgbm

        x = self.interface.prepare(arrays, self.precision)[self.interface.inputs[0].tensor]
        try:
            y = self.booster.predict(np.asarray(x, np.float64), num_threads=1)
        except (lightgbm.basic.LightGBMError, ValueError) as error:
            raise Inconclusive(f"LightGBM refuses the rows: {safe_text(error, 160)}") from None
        return {self.interface.outputs[0].tensor: np.asarray(y, self.precision).reshape(len(x), -1)}
