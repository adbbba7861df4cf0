"""XGBoost models of every kind, trained here: the leaves XGBoost reaches, in numpy and in onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forest_rows import FORMS, reached, rounding_bound, run, threshold_rows, written

from modelhub.errors import Notice
from modelhub.graph import forest_eval
from modelhub.graph.forest import Forest
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_xgboost import Importer, Runtime
from modelhub_xgboost.forest import forest as forest_of
from modelhub_xgboost.reader import load, objective_of

xgboost = pytest.importorskip("xgboost")

ROWS, FEATURES = 10_000, 6
RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(600, FEATURES)).astype(np.float32)
X[RANDOM.random(X.shape) < 0.1] = np.nan
Y = np.nan_to_num(X[:, 0]) - np.nan_to_num(X[:, 1]) * np.nan_to_num(X[:, 2]) + RANDOM.normal(size=600) * 0.3
POSITIVE = np.exp(Y / 2).astype(np.float32)
CATEGORIES = X.copy()
CATEGORIES[:, 2], CATEGORIES[:, 5] = RANDOM.integers(0, 40, 600), RANDOM.integers(0, 3, 600)
CATEGORIES[::9, 2] = np.nan

BASE: dict[str, Any] = {"max_depth": 4, "eta": 0.3, "nthread": 1, "seed": 1, "max_bin": 64}

KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "logistic": ({"objective": "binary:logistic"}, Y > 0),
    "logitraw": ({"objective": "binary:logitraw"}, Y > 0),
    "hinge": ({"objective": "binary:hinge"}, Y > 0),
    "reg_logistic": ({"objective": "reg:logistic"}, 1 / (1 + np.exp(-Y))),
    "squared": ({"objective": "reg:squarederror"}, Y),
    "base_score": ({"objective": "binary:logistic", "base_score": 0.125}, Y > 0),
    "squared_log": ({"objective": "reg:squaredlogerror"}, POSITIVE),
    "pseudo_huber": ({"objective": "reg:pseudohubererror"}, Y),
    "absolute": ({"objective": "reg:absoluteerror"}, Y),
    "quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, Y),
    "gamma": ({"objective": "reg:gamma"}, POSITIVE),
    "tweedie": ({"objective": "reg:tweedie"}, POSITIVE),
    "poisson": ({"objective": "count:poisson"}, np.floor(POSITIVE)),
    "cox": ({"objective": "survival:cox"}, POSITIVE),
    "aft": ({"objective": "survival:aft"}, "aft"),
    "softprob": ({"objective": "multi:softprob", "num_class": 3}, np.digitize(Y, [-0.5, 0.5])),
    "softmax": ({"objective": "multi:softmax", "num_class": 3}, np.digitize(Y, [-0.5, 0.5])),
    "rank_ndcg": ({"objective": "rank:ndcg"}, "rank"),
    "rank_pairwise": ({"objective": "rank:pairwise"}, "rank"),
    "rank_map": ({"objective": "rank:map"}, "rank"),
    "random_forest": ({"num_parallel_tree": 5, "subsample": 0.7, "colsample_bynode": 0.6}, Y),
    "exact_pruned": ({"tree_method": "exact", "gamma": 3.0}, Y),
    "approx": ({"tree_method": "approx"}, Y),
    "lossguide": ({"grow_policy": "lossguide", "max_leaves": 12, "max_depth": 0}, Y),
    "stumps_of_one_leaf": ({"gamma": 1e9}, Y),
    "dart": ({"booster": "dart", "rate_drop": 0.4, "objective": "binary:logistic"}, Y > 0),
    "dart_multi": (
        {"booster": "dart", "rate_drop": 0.4, "objective": "multi:softprob", "num_class": 3},
        np.digitize(Y, [-0.5, 0.5]),
    ),
    "two_targets": ({"objective": "reg:squarederror"}, np.stack([Y, -2 * Y], 1)),
    "vector_leaves": (
        {"multi_strategy": "multi_output_tree", "tree_method": "hist"},
        np.stack([Y, X[:, 3] > 0, Y**2], 1),
    ),
    "vector_leaves_softprob": (
        {"multi_strategy": "multi_output_tree", "objective": "multi:softprob", "num_class": 3},
        np.digitize(Y, [-0.5, 0.5]),
    ),
    "categories": ({"max_cat_to_onehot": 1, "objective": "binary:logistic"}, "categories"),
    "categories_one_hot": ({"max_cat_to_onehot": 100}, "categories"),
    "categories_approx": ({"tree_method": "approx", "gamma": 0.5}, "categories"),
    "linear": ({"booster": "gblinear"}, Y),
    "linear_logistic": ({"booster": "gblinear", "objective": "binary:logistic"}, Y > 0),
    "linear_multi": (
        {"booster": "gblinear", "objective": "multi:softprob", "num_class": 3},
        np.digitize(Y, [-0.5, 0.5]),
    ),
}


def train(kind: str, rounds: int = 8) -> Any:
    parameters, label = KINDS[kind]
    x, options = X, {}
    if isinstance(label, str) and label == "categories":
        x, label = CATEGORIES, (np.isin(CATEGORIES[:, 2] % 7, [1, 3, 4]) ^ (CATEGORIES[:, 5] == 1)) + 0.1 * Y > 0.5
        options = {"feature_types": ["q", "q", "c", "q", "q", "c"], "enable_categorical": True}
    aft, rank = (isinstance(label, str) and label == name for name in ("aft", "rank"))
    if rank:
        label = (np.digitize(Y, [0.5]) if kind == "rank_map" else np.digitize(Y, [-0.5, 0.5])).astype(np.float32)
    data = xgboost.DMatrix(x, None if aft else np.asarray(label, np.float32), **options)
    if aft:
        data.set_float_info("label_lower_bound", POSITIVE)
        data.set_float_info("label_upper_bound", np.where(Y > 0, np.inf, POSITIVE).astype(np.float32))
    if rank:
        data.set_group([100] * 6)
    return xgboost.train(BASE | parameters, data, rounds)


def matrix(booster: Any, x: np.ndarray) -> Any:
    return xgboost.DMatrix(x, feature_types=booster.feature_types, enable_categorical=True)


def rows_of(found: Forest | None, seed: int) -> np.ndarray:
    if found is None:
        x = np.random.default_rng(seed).normal(size=(ROWS, FEATURES)).astype(np.float32)
        x[::7, 1] = np.nan
        return x
    x = threshold_rows(found, ROWS, seed)
    return np.where(np.isinf(x), np.float32(3e38), x)  # XGBoost refuses infinity


@pytest.mark.parametrize("kind", KINDS)
def test_leaves_and_outputs(kind: str, tmp_path: Path) -> None:
    booster = train(kind)
    path = tmp_path / "model.ubj"
    booster.save_model(path)
    model = load(path)
    found = None if model.trees is None else forest_of(model, objective_of(model, "model"), "model")
    x = rows_of(found, len(kind))
    data = matrix(booster, x)
    expected = booster.predict(data).reshape(ROWS, -1)
    scale = 1.0

    if found is not None:
        nodes = booster.predict(data, pred_leaf=True).reshape(ROWS, -1)
        if not _renumbered(model):
            assert (forest_eval.leaves(found, x) - found.roots != nodes).sum() == 0
        for form, given in reached(found, x):
            assert (given != forest_eval.leaves(found, x) - found.roots).sum() == 0, form
        margin = booster.predict(data, output_margin=True).reshape(ROWS, -1)
        assert np.abs(forest_eval.margins(found, x) - margin).max() <= rounding_bound(found, x)
        scale = max(1.0, float(np.abs(expected).max()))

    for form in FORMS:
        given = run(written(Importer().read(path, ReadOptions()), form), x)
        assert given.shape == expected.shape
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=2e-6 * scale, err_msg=form)


def _renumbered(model: Any) -> bool:
    """Whether nodes were deleted in training, so that ours have other numbers."""
    return bool((model.trees.feature >= model.trees.DELETED).any())


def test_pruning_leaves_deleted_nodes_behind(tmp_path: Path) -> None:
    """The kind above that has them; its outputs are compared there."""
    train("exact_pruned").save_model(tmp_path / "pruned.json")
    model = load(tmp_path / "pruned.json")
    assert _renumbered(model)
    assert model.trees is not None
    assert forest_of(model, objective_of(model, "model"), "model").nodes < model.trees.sizes.sum()


@pytest.mark.parametrize("kind", ["logistic", "dart", "categories", "vector_leaves", "linear_multi", "quantiles"])
def test_both_notations_say_the_same(kind: str, tmp_path: Path) -> None:
    booster = train(kind)
    x = rows_of(None, 3)
    answers = []
    for suffix in (".json", ".ubj"):
        path = tmp_path / f"model{suffix}"
        booster.save_model(path)
        assert Importer().recognises(path)
        answers.append(run(Importer().read(path, ReadOptions()), x))
    assert np.array_equal(*answers)


def test_names_and_types_come_along(tmp_path: Path) -> None:
    data = xgboost.DMatrix(
        X[:, :3], Y > 0, feature_names=["pt", "eta", "mass"], feature_types=["float", "float", "int"]
    )
    booster = xgboost.train(BASE | {"objective": "binary:logistic"}, data, 2)
    booster.save_model(tmp_path / "named.json")
    interface = Interface.of(Importer().read(tmp_path / "named.json", ReadOptions()))
    assert [feature.name for feature in interface.inputs[0].features] == ["pt", "eta", "mass"]
    assert interface.outputs[0].labels == ("probability",)


def test_early_stopping_counts_the_rounds_the_estimator_counts(tmp_path: Path) -> None:
    estimator = xgboost.XGBRegressor(n_estimators=60, max_depth=6, eta=0.8, early_stopping_rounds=5, n_jobs=1)
    estimator.fit(X[:300], Y[:300], eval_set=[(X[300:], Y[300:])], verbose=False)
    assert estimator.best_iteration + 1 < estimator.get_booster().num_boosted_rounds()
    path = tmp_path / "stopped.json"
    estimator.save_model(path)
    with pytest.warns(Notice, match="best"):
        model = Importer().read(path, ReadOptions())
    x = rows_of(None, 1)
    expected = estimator.predict(x)[:, np.newaxis]
    np.testing.assert_allclose(run(model, x), expected, rtol=1e-5, atol=1e-5)
    engine = Runtime().load(path, Interface.of(model), "float32", ReadOptions())
    np.testing.assert_array_equal(engine({"inputs": x})["outputs"], expected)


def test_early_stopping_counts_all_rounds_of_a_booster(tmp_path: Path) -> None:
    data, held = xgboost.DMatrix(X[:300], Y[:300]), xgboost.DMatrix(X[300:], Y[300:])
    booster = xgboost.train(
        BASE | {"eta": 0.8, "max_depth": 6},
        data,
        60,
        evals=[(held, "held")],
        early_stopping_rounds=5,
        verbose_eval=False,
    )
    path = tmp_path / "stopped.ubj"
    booster.save_model(path)
    x = rows_of(None, 2)
    with pytest.warns(Notice, match="every round counts"):
        given = run(Importer().read(path, ReadOptions()), x)
    np.testing.assert_allclose(given[:, 0], booster.predict(xgboost.DMatrix(x)), rtol=1e-5, atol=1e-5)
    sliced = booster[: booster.best_iteration + 1].predict(xgboost.DMatrix(x))
    assert np.abs(sliced - given[:, 0]).max() > 1e-3


def test_the_engine_is_xgboost_by_position(tmp_path: Path) -> None:
    booster = train("softprob")
    path = tmp_path / "model.json"
    booster.save_model(path)
    interface = Interface.of(Importer().read(path, ReadOptions()))
    renamed = replace(
        interface,
        inputs=(replace(interface.inputs[0], tensor="events"),),
        outputs=(replace(interface.outputs[0], tensor="scores"),),
    )
    engine = Runtime().load(path, renamed, "float32", ReadOptions())
    x = rows_of(None, 4)[:50]
    assert (engine.name, engine.version, engine.precision) == ("xgboost", xgboost.__version__, "float32")
    np.testing.assert_array_equal(engine({"events": x})["scores"], booster.predict(xgboost.DMatrix(x)))
