"""XGBoost's and LightGBM's estimators, alone, in pipelines, in other estimators: file, live object, runtime agree."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forest_rows import run, written

from modelhub.errors import Inconclusive, UnreadableFile, Unsupported
from modelhub.graph.canonical import canonical
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_sklearn import Importer, Runtime, from_estimator

sklearn = pytest.importorskip("sklearn")
skops = pytest.importorskip("skops.io")
xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")

ROWS = 10_000
RANDOM = np.random.default_rng(12)
X = RANDOM.normal(size=(500, 5)).astype(np.float32).astype(np.float64)
SCORE = X[:, 0] - X[:, 1] * X[:, 2] + 0.3 * RANDOM.normal(size=500)
TWO, THREE = (SCORE > 0).astype(int), np.digitize(SCORE, [-0.6, 0.6])
BOTH = np.stack([SCORE, X[:, 3]], 1)
HOLES = np.where(RANDOM.random(X.shape) < 0.1, np.nan, X)
MARKED = np.where(np.isnan(HOLES), -999, HOLES)

SMALL = {"n_estimators": 8, "max_depth": 4, "random_state": 1, "n_jobs": 1}
LEAVES = {"n_estimators": 8, "num_leaves": 12, "min_child_samples": 5, "random_state": 1, "n_jobs": 1, "verbosity": -1}


def models() -> dict[str, tuple[Any, np.ndarray, np.ndarray, dict[str, Any]]]:
    """Estimator, rows, targets, what `fit` is told beside."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import BaggingRegressor, StackingClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, g = xgboost, lightgbm
    held = {"eval_set": [(X[:100], TWO[:100])], "verbose": False}
    texts = np.where(TWO, "signal", "background")
    both = [("x", x.XGBClassifier(**SMALL)), ("g", g.LGBMClassifier(**LEAVES))]
    return {
        "xgb_two": (x.XGBClassifier(**SMALL), HOLES, TWO, {}),
        "xgb_three": (x.XGBClassifier(**SMALL), HOLES, THREE, {}),
        "xgb_softmax": (x.XGBClassifier(**SMALL, objective="multi:softmax"), X, THREE, {}),
        "xgb_hinge": (x.XGBClassifier(**SMALL, objective="binary:hinge"), X, TWO, {}),
        "xgb_dart": (x.XGBClassifier(**SMALL, booster="dart", rate_drop=0.3), X, TWO, {}),
        "xgb_line": (x.XGBClassifier(booster="gblinear", n_estimators=8), X, TWO, {}),
        "xgb_forest": (x.XGBRFClassifier(**SMALL), X, TWO, {}),
        "xgb_missing": (x.XGBClassifier(**SMALL, missing=-999.0), MARKED, TWO, {}),
        "xgb_stopped": (
            x.XGBClassifier(**SMALL | {"n_estimators": 60}, learning_rate=0.9, early_stopping_rounds=3),
            X[100:],
            TWO[100:],
            held,
        ),
        "xgb_regression": (x.XGBRegressor(**SMALL), HOLES, SCORE, {}),
        "xgb_rank": (x.XGBRanker(**SMALL), X, THREE, {"group": [100] * 5}),
        "xgb_targets": (x.XGBRegressor(**SMALL, multi_strategy="multi_output_tree"), X, BOTH, {}),
        "lgbm_two": (g.LGBMClassifier(**LEAVES), HOLES, TWO, {}),
        "lgbm_texts": (g.LGBMClassifier(**LEAVES), HOLES, texts, {}),
        "lgbm_three": (g.LGBMClassifier(**LEAVES), HOLES, THREE * 10, {}),
        "lgbm_one_against_rest": (g.LGBMClassifier(**LEAVES, objective="multiclassova"), X, THREE, {}),
        "lgbm_forest": (
            g.LGBMClassifier(**LEAVES, boosting_type="rf", subsample=0.6, subsample_freq=1),
            X,
            TWO,
            {},
        ),
        "lgbm_lines": (g.LGBMRegressor(**LEAVES, linear_tree=True), X, SCORE, {}),
        "lgbm_zero": (g.LGBMClassifier(**LEAVES, zero_as_missing=True), np.round(X), TWO, {}),
        "lgbm_stopped": (
            g.LGBMClassifier(**LEAVES | {"n_estimators": 80}, learning_rate=0.9),
            X[100:],
            TWO[100:],
            {"eval_set": [(X[:100], TWO[:100])], "callbacks": [g.early_stopping(3, verbose=False)]},
        ),
        "lgbm_rank": (g.LGBMRanker(**LEAVES), X, THREE, {"group": [100] * 5}),
        "pipeline_xgb": (make_pipeline(StandardScaler(), x.XGBClassifier(**SMALL)), X, TWO, {}),
        "pipeline_lgbm": (make_pipeline(StandardScaler(), g.LGBMClassifier(**LEAVES)), X, THREE, {}),
        "voting": (VotingClassifier(both, voting="soft"), X, THREE, {}),
        "hard": (VotingClassifier(both), X, THREE, {}),
        "stacking": (StackingClassifier(both, LogisticRegression(), cv=2), X, TWO, {}),
        "isotonic": (CalibratedClassifierCV(g.LGBMClassifier(**LEAVES), method="isotonic", cv=2), X, TWO, {}),
        "bagging": (BaggingRegressor(g.LGBMRegressor(**LEAVES), 3, random_state=1), X, SCORE, {}),
        "search": (GridSearchCV(g.LGBMClassifier(**LEAVES), {"num_leaves": [4, 8]}, cv=2), X, TWO, {}),
    }  # fmt: skip


MODELS = models()


def fitted(name: str) -> tuple[Any, np.ndarray]:
    estimator, data, target, options = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(data, target, **options), data


def thresholds(estimator: Any) -> dict[int, np.ndarray]:
    """The thresholds of every column in an estimator that is an XGBoost or LightGBM one itself."""
    if getattr(estimator, "multi_strategy", None) == "multi_output_tree":
        return {}  # XGBoost cannot list their nodes
    if hasattr(estimator, "get_booster") and estimator.booster != "gblinear":
        table = estimator.get_booster().trees_to_dataframe()
        names = estimator.get_booster().feature_names or [f"f{i}" for i in range(estimator.n_features_in_)]
        column, at = table["Feature"].map({name: i for i, name in enumerate(names)}), table["Split"]
    elif hasattr(estimator, "booster_"):
        table = estimator.booster_.trees_to_dataframe()
        column = table["split_feature"].map({name: i for i, name in enumerate(estimator.feature_name_)})
        at = table["threshold"].astype(float)
    else:
        return {}
    return {i: at[column == i].to_numpy(np.float64) for i in range(X.shape[1]) if (column == i).any()}


def rows(name: str, estimator: Any, data: np.ndarray, count: int = ROWS) -> np.ndarray:
    """Half of the values at thresholds or a float32 neighbour of one, with the holes and markers of the data."""
    random = np.random.default_rng(len(name))
    x = np.stack([random.choice(column, count) for column in data.T], axis=1).astype(np.float32)
    for column, at in thresholds(estimator).items():
        near = random.choice(at, count).astype(np.float32)
        step = random.choice(np.array([-np.inf, np.nan, np.inf], np.float32), count)
        near = np.where(np.isnan(step), near, np.nextafter(near, step))
        x[:, column] = np.where(random.random(count) < 0.5, near, x[:, column])
    holes = np.isnan(data).any() or data is MARKED
    return np.where(random.random(x.shape) < (0.05 if holes else 0), -999 if data is MARKED else np.nan, x)


def own_answer(estimator: Any, x: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(estimator, "predict_proba"):
            return np.asarray(estimator.predict_proba(x), np.float64)
        answer = np.asarray(estimator.predict(x))
    if hasattr(estimator, "classes_"):
        answer = answer[:, np.newaxis] == estimator.classes_
    return np.asarray(answer, np.float64).reshape(len(x), -1)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_form_gives_what_the_estimator_gives(name: str, tmp_path: Path) -> None:
    estimator, data = fitted(name)
    path = tmp_path / "model.skops"
    skops.dump(estimator, path)
    model = Importer().read(path, ReadOptions())
    x = rows(name, estimator, data)
    expected = own_answer(estimator, x.astype(np.float64))
    scale = max(1.0, float(np.abs(expected).max()))
    single = "xgb" in name or name in ("voting", "hard", "stacking")
    interface = Interface.of(model)
    assert len(interface.outputs[0].labels) == expected.shape[1]
    for form, graph in {
        "float64": written(canonical(model.clone()), "float64"),
        "float32": written(canonical(model.clone()), "float32"),
        "live": written(from_estimator(estimator), "float64"),
    }.items():
        given = run(graph, x)
        bound = 1e-12 if given.dtype == np.float64 and not single else 3e-6
        np.testing.assert_allclose(given, expected, rtol=0, atol=bound * scale, err_msg=form)
    precision = "float32" if single else "float64"
    engine = Runtime().load(path, interface, precision, ReadOptions())
    np.testing.assert_array_equal(engine({"inputs": x})["outputs"], expected.astype(precision))
    with pytest.raises(Inconclusive, match=f"float{'32' if single else '64'}, not in"):
        Runtime().load(path, interface, "float64" if single else "float32", ReadOptions())


@pytest.mark.parametrize("name", ["xgb_two", "lgbm_three", "pipeline_xgb"])
def test_trusted_pickles(name: str, tmp_path: Path) -> None:
    estimator, data = fitted(name)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(estimator))
    assert Importer().recognises(path)
    with pytest.raises(Unsupported, match="--trust"):
        Importer().read(path, ReadOptions())
    given = run(Importer().read(path, ReadOptions(trust=True)), x := rows(name, estimator, data, 500))
    np.testing.assert_allclose(given, own_answer(estimator, x.astype(np.float64)), atol=3e-6)


@pytest.mark.parametrize("name", ["xgb_stopped", "lgbm_stopped"])
def test_a_pickled_booster_counts_the_rounds_it_counts_itself(name: str, tmp_path: Path) -> None:
    """LightGBM's Booster stops at the best round by itself, XGBoost's does not."""
    estimator, data = fitted(name)
    x = rows(name, estimator, data, 500)
    if name.startswith("xgb"):
        booster = estimator.get_booster()
    else:
        held = lightgbm.Dataset(X[:100], TWO[:100])
        booster = lightgbm.train(
            {"objective": "binary", "verbosity": -1, "learning_rate": 0.9, "num_threads": 1},
            lightgbm.Dataset(X[100:], TWO[100:]),
            80,
            valid_sets=[held],
            callbacks=[lightgbm.early_stopping(3, verbose=False)],
            keep_training_booster=True,
        )
    expected = booster.predict(xgboost.DMatrix(x) if name.startswith("xgb") else x.astype(np.float64))
    rounds = booster.num_boosted_rounds() if name.startswith("xgb") else booster.current_iteration()
    assert booster.best_iteration + 1 < rounds
    path = tmp_path / "booster.pkl"
    path.write_bytes(pickle.dumps(booster))
    given = run(Importer().read(path, ReadOptions(trust=True)), x)
    np.testing.assert_allclose(given[:, 0], expected, atol=3e-6)


def test_names_and_labels() -> None:
    estimator, _ = fitted("lgbm_texts")
    interface = Interface.of(from_estimator(estimator))
    assert interface.outputs[0].labels == ("background", "signal")
    estimator, _ = fitted("xgb_three")
    estimator.get_booster().feature_names = list("abcde")
    interface = Interface.of(from_estimator(estimator))
    assert [feature.name for feature in interface.inputs[0].features] == list("abcde")
    assert interface.outputs[0].labels == ("0", "1", "2")


def test_what_is_refused() -> None:
    raw = xgboost.XGBClassifier(**SMALL, objective="binary:logitraw").fit(X, TWO)
    with pytest.raises(Unsupported, match="logitraw gives no probabilities"):
        from_estimator(raw)
    own = lightgbm.LGBMClassifier(**LEAVES, objective=lambda y, p: (p - y, np.ones_like(p))).fit(X, TWO)
    with pytest.raises(Unsupported, match="an objective of one's own"):
        from_estimator(own)
    early = lightgbm.LGBMClassifier(**LEAVES, pred_early_stop=True).fit(X, TWO)
    with pytest.raises(Unsupported, match="pred_early_stop"):
        from_estimator(early)
    with pytest.raises(UnreadableFile, match="is the estimator fitted"):
        from_estimator(xgboost.XGBClassifier())


def test_a_booster_of_a_newer_version_is_not_run(tmp_path: Path) -> None:
    """XGBoost 3.2 unpickles a model of 3.4 without a word, and forgets its dart weights."""
    estimator, _ = fitted("xgb_two")
    path = tmp_path / "model.skops"
    skops.dump(estimator, path)
    interface = Interface.of(Importer().read(path, ReadOptions()))
    data = path.read_bytes()
    major = int(xgboost.__version__.split(".")[0])
    old = b"version[#L" + bytes(7) + b"\x03i" + bytes([major])
    assert data.count(old) == 2  # in Config and in Model
    import zipfile

    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content.replace(old, old[:-1] + b"\x63"))
    with pytest.raises(Inconclusive, match=r"written by XGBoost 99\."):
        Runtime().load(path, interface, "float32", ReadOptions())
