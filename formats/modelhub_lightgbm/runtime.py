"""LightGBM as the reference engine. It computes in float64; float32 rows are widened, outputs rounded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelhub.errors import Inconclusive, safe_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        y = self._predicted(arrays)
        return {self.interface.outputs[0].tensor: y.astype(self.precision).reshape(len(y), -1)}

    def leaves(self, arrays: Arrays) -> NDArray[np.int64]:
        """The leaf [events, trees] each event ends in, by `pred_leaf`."""
        ends = self._predicted(arrays, pred_leaf=True)
        return ends.reshape(len(ends), -1).astype(np.int64)

    def _predicted(self, arrays: Arrays, *, pred_leaf: bool = False) -> NDArray[Any]:
        import lightgbm

        x = self.interface.prepare(arrays, self.precision)[self.interface.inputs[0].tensor]
        try:
            return np.asarray(self.booster.predict(np.asarray(x, np.float64), pred_leaf=pred_leaf, num_threads=1))
        except (lightgbm.basic.LightGBMError, ValueError) as error:
            raise Inconclusive(f"LightGBM refuses the rows: {safe_text(error, 160)}") from None
