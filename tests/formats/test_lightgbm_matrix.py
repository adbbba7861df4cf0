"""LightGBM models of every kind, trained here: the leaves LightGBM reaches, in numpy and in onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forest_rows import FORMS, interface, naming_leaves, run, threshold_rows, written

from modelhub.graph import forest_eval
from modelhub.graph.forest import Forest, tree_of
from modelhub.graph.forest_onnx import to_graph
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_lightgbm import Importer, Runtime
from modelhub_lightgbm.reader import load

lightgbm = pytest.importorskip("lightgbm")

ROWS, FEATURES = 10_000, 6
RANDOM = np.random.default_rng(6)
X = RANDOM.normal(size=(700, FEATURES))
X[:, 4] = np.round(X[:, 4], 1) * (np.abs(X[:, 4]) > 0.5)  # many zeros
MISSING = np.where(RANDOM.random(X.shape) < 0.12, np.nan, X)
CATEGORIES = MISSING.copy()
CATEGORIES[:, 2], CATEGORIES[:, 5] = RANDOM.integers(0, 90, 700), RANDOM.integers(0, 5, 700)
CATEGORIES[::9, 2] = np.nan
Y = X[:, 0] - X[:, 1] * X[:, 2] + (X[:, 4] == 0) + RANDOM.normal(size=700) * 0.3
CLASSES = np.digitize(Y, [-0.5, 0.8])
SOME = np.isin(np.nan_to_num(CATEGORIES[:, 2]) % 7, [1, 3, 4]) ^ (CATEGORIES[:, 5] == 1) ^ (CATEGORIES[:, 0] > 0.3)

BASE: dict[str, Any] = {
    "num_leaves": 14, "learning_rate": 0.3, "min_data_in_leaf": 5, "num_threads": 1, "verbosity": -1, "seed": 2,
    "deterministic": True, "max_bin": 63,
}  # fmt: skip

KINDS: dict[str, tuple[dict[str, Any], np.ndarray, np.ndarray]] = {
    "binary": ({"objective": "binary"}, MISSING, Y > 0),
    "binary_slope": ({"objective": "binary", "sigmoid": 0.7}, X, Y > 0),
    "regression": ({"objective": "regression"}, MISSING, Y),
    "root": ({"objective": "regression", "reg_sqrt": True}, X, Y * 3),
    "l1": ({"objective": "regression_l1"}, X, Y),
    "huber": ({"objective": "huber"}, X, Y),
    "fair": ({"objective": "fair"}, X, Y),
    "quantile": ({"objective": "quantile", "alpha": 0.8}, X, Y),
    "mape": ({"objective": "mape"}, X, Y),
    "poisson": ({"objective": "poisson"}, X, np.floor(np.exp(Y / 2))),
    "gamma": ({"objective": "gamma"}, X, np.exp(Y / 2)),
    "tweedie": ({"objective": "tweedie"}, X, np.exp(Y / 2)),
    "cross_entropy": ({"objective": "cross_entropy"}, X, 1 / (1 + np.exp(-Y))),
    "cross_entropy_lambda": ({"objective": "cross_entropy_lambda"}, X, 1 / (1 + np.exp(-Y))),
    "multiclass": ({"objective": "multiclass", "num_class": 3}, MISSING, CLASSES),
    "one_versus_all": ({"objective": "multiclassova", "num_class": 3, "sigmoid": 1.3}, MISSING, CLASSES),
    "lambdarank": ({"objective": "lambdarank"}, X, CLASSES),
    "xendcg": ({"objective": "rank_xendcg"}, X, CLASSES),
    "random_forest": (
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6, "objective": "binary"},
        MISSING,
        Y > 0,
    ),
    "random_forest_regression": ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}, MISSING, Y),
    "random_forest_classes": (
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6, "objective": "multiclass", "num_class": 3},
        X,
        CLASSES,
    ),
    "dart": ({"boosting": "dart", "drop_rate": 0.5, "objective": "binary"}, MISSING, Y > 0),
    "goss": ({"data_sample_strategy": "goss", "objective": "binary"}, MISSING, Y > 0),
    "zero_as_missing": ({"zero_as_missing": True, "objective": "binary"}, MISSING, Y > 0),
    "no_missing": ({"use_missing": False}, MISSING, Y),
    "categories": (
        {"objective": "binary", "max_cat_to_onehot": 2, "min_data_per_group": 2, "cat_smooth": 1},
        CATEGORIES,
        SOME,
    ),
    "categories_one_hot": ({"max_cat_to_onehot": 200, "min_data_per_group": 2}, CATEGORIES, Y),
    "categories_zero_as_missing": (
        {"zero_as_missing": True, "max_cat_to_onehot": 2, "min_data_per_group": 2, "cat_smooth": 1},
        CATEGORIES,
        SOME,
    ),
    "linear": ({"linear_tree": True}, MISSING, Y),
    "linear_classes": ({"linear_tree": True, "objective": "multiclass", "num_class": 3}, MISSING, CLASSES),
    "linear_categories": ({"linear_tree": True}, CATEGORIES, Y),
    "one_leaf": ({"min_data_in_leaf": 500}, X, Y),
    "monotone": ({"monotone_constraints": [1, 0, 0, 0, 0, 0]}, X, Y),
    "extra_trees": ({"extra_trees": True}, MISSING, Y),
}


def train(kind: str, rounds: int = 8) -> Any:
    parameters, x, y = KINDS[kind]
    options: dict[str, Any] = {"categorical_feature": [2, 5]} if x is CATEGORIES else {}
    if "rank" in kind or kind == "xendcg":
        options["group"] = [100] * 7
    data = lightgbm.Dataset(x, np.asarray(y, np.float64), **options)
    return lightgbm.train(BASE | parameters, data, rounds)


def local_leaves(found: Forest, nodes: np.ndarray) -> np.ndarray:
    """LightGBM's number of a leaf: counted within its tree, in the order of the file."""
    ends = np.flatnonzero(~found.splits)
    per_tree = np.bincount(tree_of(found)[ends], minlength=found.trees)
    return np.asarray(found.leaf[nodes] - (np.cumsum(per_tree) - per_tree))


@pytest.mark.parametrize("kind", KINDS)
def test_leaves_and_outputs(kind: str, tmp_path: Path) -> None:
    booster = train(kind)
    path = tmp_path / "model.txt"
    booster.save_model(path)
    assert Importer().recognises(path)
    found, _ = load(path)
    named = naming_leaves(found)
    assert (found.nodes == found.trees) == (kind == "one_leaf")

    for dtype in ("float64", "float32"):
        x = threshold_rows(found, ROWS, len(kind), dtype=dtype)
        x[:50, 1] = np.float32(1e-36)  # LightGBM takes this for 0
        x[50:100] = np.float32(1e-35) * np.where(np.arange(50) % 2, 1, -1)[:, np.newaxis]
        wide = x.astype(np.float64)
        expected_leaves = booster.predict(wide, pred_leaf=True).reshape(ROWS, -1)
        nodes = forest_eval.leaves(found, x)
        assert (local_leaves(found, nodes) != expected_leaves).sum() == 0
        expected = booster.predict(wide).reshape(ROWS, -1)
        np.testing.assert_allclose(forest_eval.evaluate(found, x), expected, rtol=1e-12, atol=1e-12)
        for form in FORMS if dtype == "float32" else ("float64",):
            reached = run(written(to_graph(named, interface(named)), form), x).astype(np.int64)
            assert (reached != nodes - found.roots).sum() == 0, form
            given = run(written(Importer().read(path, ReadOptions()), form), x)
            scale = max(1.0, float(np.abs(expected).max()))
            tolerance = 1e-12 if form == "float64" else 3e-5 if "linear" in kind else 2e-6
            np.testing.assert_allclose(given, expected, rtol=10 * tolerance, atol=tolerance * scale, err_msg=form)


def test_the_zero_that_is_none_would_be_seen() -> None:
    """LightGBM drops values up to 1e-35 before its trees see them: a threshold in between has to move."""
    from modelhub_lightgbm.forest import _around_zero

    edge = float(np.float32(1e-35))
    moved = _around_zero(np.array([-2 * edge, -edge, -1e-36, 0.0, 1e-36, edge, 1.0]))
    below = np.nextafter(-edge, -np.inf)
    assert moved.tolist() == [-2 * edge, below, below, edge, edge, edge, 1.0]


def test_names_come_along(tmp_path: Path) -> None:
    data = lightgbm.Dataset(X[:, :3], Y > 0, feature_name=["pt", "eta", "mass"])
    lightgbm.train(BASE | {"objective": "binary"}, data, 2).save_model(tmp_path / "named.txt")
    record = Interface.of(Importer().read(tmp_path / "named.txt", ReadOptions()))
    assert [feature.name for feature in record.inputs[0].features] == ["pt", "eta", "mass"]
    assert (record.inputs[0].features[0].minimum, record.inputs[0].features[0].maximum) == (
        X[:, 0].min(),
        X[:, 0].max(),
    )
    assert record.outputs[0].labels == ("probability",)


def test_training_goes_on_from_a_model(tmp_path: Path) -> None:
    first = train("binary")
    again = lightgbm.train(
        BASE | {"objective": "binary", "num_leaves": 5}, lightgbm.Dataset(MISSING, Y > 0), 3, init_model=first
    )
    path = tmp_path / "longer.txt"
    again.save_model(path)
    found, _ = load(path)
    x = threshold_rows(found, 2000, 1)
    assert found.trees == 11
    np.testing.assert_allclose(forest_eval.evaluate(found, x)[:, 0], again.predict(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_engine_is_lightgbm_by_position(precision: str, tmp_path: Path) -> None:
    booster = train("multiclass")
    path = tmp_path / "model.txt"
    booster.save_model(path)
    record = Interface.of(Importer().read(path, ReadOptions()))
    renamed = replace(
        record,
        inputs=(replace(record.inputs[0], tensor="events"),),
        outputs=(replace(record.outputs[0], tensor="scores"),),
    )
    engine = Runtime().load(path, renamed, precision, ReadOptions())
    x = X[:50].astype(precision)
    assert (engine.name, engine.version, engine.precision) == ("lightgbm", lightgbm.__version__, precision)
    scores = engine({"events": x})["scores"]
    assert scores.dtype == precision
    np.testing.assert_array_equal(scores, booster.predict(x.astype(np.float64)).astype(precision))


def edited(text: str, key: str, change: Any) -> str:
    """`text` with the list behind every `key=` changed, each word keeping its length (LightGBM counts bytes)."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.startswith(f"{key}="):
            words = line[len(key) + 1 :].split(" ")
            new = change(words)
            assert [len(word) for word in new] == [len(word) for word in words]
            lines[number] = f"{key}={' '.join(new)}"
    return "\n".join(lines)


def agrees(path: Path, seed: int) -> None:
    found, _ = load(path)
    booster = lightgbm.Booster(model_file=path)
    x = threshold_rows(found, 4000, seed, dtype="float64")
    leaves = booster.predict(x, pred_leaf=True).reshape(len(x), -1)
    assert (local_leaves(found, forest_eval.leaves(found, x)) != leaves).sum() == 0


def test_a_threshold_of_exactly_zero(tmp_path: Path) -> None:
    """Never trained, but a legal file; NaN counts as 0 where the split has no missing type."""
    path = tmp_path / "zero.txt"
    text = train("no_missing").model_to_string()
    path.write_text(
        edited(text, "threshold", lambda words: ["0." + "0" * (len(w) - 2) if len(w) > 3 else w for w in words])
    )
    assert (load(path)[0].threshold[load(path)[0].splits] == np.float32(1e-35)).any()
    agrees(path, 1)


def test_sets_of_categories_in_another_order_than_their_splits(tmp_path: Path) -> None:
    def swap(words: list[str]) -> list[str]:
        return [{"0": "1", "1": "0"}.get(word, word) for word in words]

    path = tmp_path / "swapped.txt"
    path.write_text(edited(train("categories").model_to_string(), "threshold", swap))
    agrees(path, 2)
