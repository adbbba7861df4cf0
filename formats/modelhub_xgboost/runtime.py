"""XGBoost as the reference engine, in float32, the only precision it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelhub.errors import Inconclusive, safe_text
from modelhub_xgboost import reader
from modelhub_xgboost.forest import counted_trees
from modelhub_xgboost.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelhub.graph.interface import Interface
    from modelhub.protocols import Arrays, Engine

__all__ = ["check_version", "load"]


def load(path: Path, interface: Interface, precision: str) -> Engine:
    """The model in a Booster. Raises `Inconclusive` where XGBoost cannot load it (the old binary since 3.1)."""
    import xgboost

    if precision != "float32":
        raise Inconclusive(f"XGBoost computes in float32 only, not in {precision}")
    model = reader.load(path)
    check_version(model, str(path))
    booster = xgboost.Booster()
    try:
        booster.load_model(path)
        booster.set_param({"nthread": 1})
    except (xgboost.core.XGBoostError, ValueError) as error:
        text = safe_text(str(error).splitlines()[0] if str(error) else error, 160)
        raise Inconclusive(f"XGBoost {xgboost.__version__} cannot load {path}: {text}") from None
    return _Engine(booster, interface, _rounds(model), version=xgboost.__version__)


def check_version(model: Model, where: str) -> None:
    """Raise `Inconclusive` for a model of a newer XGBoost than the one installed here.

    It may load the model and leave out what it does not know: 3.2 forgets the dart weights of 3.4.
    """
    import xgboost

    here = tuple(int(part) for part in xgboost.__version__.split(".")[:2])
    if model.version[:2] > here:
        written = ".".join(map(str, model.version))
        raise Inconclusive(
            f"{where} was written by XGBoost {written}, here is {xgboost.__version__}: install a newer one"
        )


def _rounds(model: Model) -> tuple[int, int]:
    """The rounds that count, as XGBoost's `iteration_range`; (0, 0) is all."""
    if model.trees is None or counted_trees(model) == len(model.trees.sizes):
        return 0, 0
    return 0, int(model.attributes["best_iteration"]) + 1


@dataclass
class _Engine:
    booster: Any
    interface: Interface
    rounds: tuple[int, int]
    version: str
    name: str = "xgboost"
    precision: str = "float32"

    def __call__(self, arrays: Arrays) -> Arrays:
        y = self._predicted(arrays)
        return {self.interface.outputs[0].tensor: np.asarray(y, np.float32).reshape(len(y), -1)}

    def leaves(self, arrays: Arrays) -> NDArray[np.int64]:
        """The node [events, trees] each event ends in, by `pred_leaf`."""
        ends = self._predicted(arrays, pred_leaf=True)
        return ends.reshape(len(ends), -1).astype(np.int64)

    def _predicted(self, arrays: Arrays, *, pred_leaf: bool = False) -> NDArray[np.float32]:
        import xgboost

        x = self.interface.prepare(arrays, self.precision)[self.interface.inputs[0].tensor]
        try:
            matrix = xgboost.DMatrix(
                np.asarray(x, np.float32),
                feature_names=self.booster.feature_names,
                feature_types=self.booster.feature_types,
                enable_categorical=True,
                nthread=1,
            )
            return np.asarray(self.booster.predict(matrix, pred_leaf=pred_leaf, iteration_range=self.rounds))
        except (xgboost.core.XGBoostError, ValueError) as error:
            raise Inconclusive(f"XGBoost refuses the rows: {safe_text(str(error).splitlines()[0], 160)}") from None
