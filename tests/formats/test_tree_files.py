"""Every kind of tree model, from the framework's file to the ONNX file on disk: no row of 10 000 goes another way.

Half of the values stand at a threshold or at a float32 neighbour of one, NaN among them where the model takes it. The
frameworks' own predictions are the reference; leaf by leaf the matrices of each format compare. `peers.md` of the
project's notes lists which of these models every other converter gets wrong.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from forest_rows import threshold_rows

import modelhub
from modelhub.graph.forest_forms import forests
from modelhub.graph.interface import Interface

sklearn_models = pytest.importorskip("sklearn_models", exc_type=ImportError)
test_sklearn_matrix = pytest.importorskip("test_sklearn_matrix", exc_type=ImportError)
skops = pytest.importorskip("skops.io")
xgboost_kinds = pytest.importorskip("test_xgboost_matrix", exc_type=ImportError)
lightgbm_kinds = pytest.importorskip("test_lightgbm_matrix", exc_type=ImportError)

ROWS = 10_000
NO_HOLES = ("ada", "boosting", "scaled", "isotonic", "sigmoid")
TREES = {**sklearn_models.forests(), **sklearn_models.histograms()}
BEHIND = ("scaled_forest", "ada_regression", "isotonic_three", "sigmoid", "temperature_three", "components_forest")
TREES |= {name: model for name, model in sklearn_models.deciding().items() if name in BEHIND}


def written_and_run(source: Path, x: np.ndarray) -> np.ndarray:
    """What onnxruntime says of rows `x`, given the file that modelhub writes by default."""
    target = source.with_name("model.onnx")
    modelhub.write(modelhub.read(source), target)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(target, options)
    (entry,) = session.get_inputs()
    assert entry.type == "tensor(float)"
    return np.asarray(session.run(None, {entry.name: x})[0])


def rows_for(source: Path, seed: int, *, nan: float = 0.05) -> np.ndarray:
    """Rows at the thresholds of every forest in the model whose source is `source`."""
    model = modelhub.read(source)
    width = len(Interface.of(model).inputs[0].features)
    x = np.random.default_rng(seed).normal(size=(ROWS, width)).astype(np.float32)
    found = forests(model)
    for share in range(len(found)):
        part = slice(share, None, len(found))
        forest = found[share].forest
        x[part, : forest.features] = threshold_rows(forest, len(x[part]), seed, nan=nan)
    return sklearn_models.finite(x)


def wrong(given: np.ndarray, expected: np.ndarray, near: float = 1e-5) -> int:
    """Rows that are off by more than a float32 sum of trees can be: another leaf is off by a thousand times that."""
    given, expected = given.reshape(len(expected), -1), np.asarray(expected, np.float64).reshape(len(expected), -1)
    assert given.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    return int((np.abs(given - expected) > near * np.abs(expected) + 0.2 * near * scale).any(axis=1).sum())


@pytest.mark.parametrize("name", list(TREES))
def test_scikit_learn(name: str, tmp_path: Path) -> None:
    estimator, data, target = TREES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(data, target)
    path = tmp_path / "model.skops"
    skops.dump(estimator, path)
    x = rows_for(path, 21, nan=0 if name.startswith(NO_HOLES) else 0.05)
    expected = test_sklearn_matrix.own_answer(estimator, x.astype(np.float64))
    assert wrong(written_and_run(path, x), expected) == 0


@pytest.mark.parametrize("kind", list(xgboost_kinds.KINDS))
def test_xgboost(kind: str, tmp_path: Path) -> None:
    booster = xgboost_kinds.train(kind)
    path = tmp_path / "model.json"
    booster.save_model(path)
    x = rows_for(path, 22) if "linear" not in kind else xgboost_kinds.rows_of(None, 22)
    assert wrong(written_and_run(path, x), booster.predict(xgboost_kinds.matrix(booster, x))) == 0


@pytest.mark.parametrize("kind", list(lightgbm_kinds.KINDS))
def test_lightgbm(kind: str, tmp_path: Path) -> None:
    booster: Any = lightgbm_kinds.train(kind)
    path = tmp_path / "model.txt"
    booster.save_model(path)
    x = rows_for(path, 23)
    near = 1e-5
    if "linear" in kind:  # sums of products, which float32 rounds; of the largest numbers it has no sums at all
        near, x = 1e-4, np.where(np.abs(x) > 1e6, np.float32(0.5), x)
    assert wrong(written_and_run(path, x), booster.predict(x.astype(np.float64)), near) == 0
