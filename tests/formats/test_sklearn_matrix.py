"""scikit-learn models of every kind: file, live object, runtime, and onnxruntime in every form give one answer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forest_rows import run, threshold_rows, written

from modelhub.errors import Inconclusive
from modelhub.graph.canonical import canonical
from modelhub.graph.forest import Compare
from modelhub.graph.forest_forms import forests
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_sklearn import Importer, Runtime, from_estimator

sklearn_models = pytest.importorskip("sklearn_models", exc_type=ImportError)
skops = pytest.importorskip("skops.io")

GROUPS = {
    "forest": sklearn_models.forests(),
    "histogram": sklearn_models.histograms(),
    "smooth": sklearn_models.smooth(),
    "deciding": sklearn_models.deciding(),
}
NO_HOLES = ("ada", "boosting")
FLOAT32 = {"smooth": 1e-4, "forest": 3e-6, "histogram": 3e-6, "deciding": 3e-7}
"""Relative to the largest answer. Models that decide about something computed stay float64 inside."""


def own_answer(estimator: Any, x: np.ndarray) -> np.ndarray:
    for method in ("predict_proba", "decision_function", "predict", "transform"):
        if hasattr(estimator, method):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return np.asarray(getattr(estimator, method)(x)).reshape(len(x), -1)
    raise AssertionError(estimator)


def tried_rows(group: str, name: str, data: np.ndarray, model: Any) -> np.ndarray:
    x = sklearn_models.rows(name, data, 1500, 3)
    if group in ("forest", "histogram"):
        (found,) = forests(model)
        nan = 0 if name.startswith(NO_HOLES) else 0.05
        tried = sklearn_models.finite(threshold_rows(found.forest, 1500, 4, nan=nan))
        for column in range(tried.shape[1], data.shape[1]):  # columns behind the last that is asked for
            tried = np.column_stack([tried, x[:, column]])
        x = np.concatenate([x, tried])
    return x


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, models in GROUPS.items() for name in models])
def test_every_form_gives_what_the_estimator_gives(group: str, name: str, tmp_path: Path) -> None:
    estimator, data, target = GROUPS[group][name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(data, target)
    path = tmp_path / "model.skops"
    skops.dump(estimator, path)
    importer = Importer()
    assert importer.recognises(path)
    model = importer.read(path, ReadOptions())
    x = tried_rows(group, name, data, model)
    expected = own_answer(estimator, x.astype(np.float64))
    scale = max(1.0, float(np.abs(expected).max()))
    answers = {
        "common": run(model, x),
        "canonical": run(canonical(model.clone()), x),
        "float32": run(written(model.clone(), "float32"), x),
        "float64": run(written(model.clone(), "float64"), x),
        "live": run(written(from_estimator(estimator), "float64"), x),
    }
    for form, answer in answers.items():
        bound = 1e-12 if answer.dtype == np.float64 else FLOAT32[group] if form == "float32" else 3e-7
        np.testing.assert_allclose(answer, expected, rtol=0, atol=bound * scale, err_msg=form)
    interface = Interface.of(model)
    assert len(interface.outputs[0].labels) == expected.shape[1]
    if (
        name.startswith("neighbours") and estimator.algorithm != "brute"
    ):  # its search tree is followed by compiled code, and not built from a file
        with pytest.raises(Inconclusive, match="not built from a file"):
            Runtime().load(path, interface, "float64", ReadOptions())
        return
    engine = Runtime().load(path, interface, "float64", ReadOptions())
    np.testing.assert_array_equal(engine({"inputs": x})["outputs"], expected)


def test_rows_at_thresholds_behind_a_scaler() -> None:
    estimator, data, target = GROUPS["deciding"]["scaled_forest"]
    estimator.fit(data, target)
    scaler, forest = (step for _, step in estimator.steps)
    splits = np.concatenate([tree.tree_.feature for tree in forest.estimators_])
    thresholds = np.concatenate([tree.tree_.threshold for tree in forest.estimators_])
    x = np.repeat(sklearn_models.rows("scaled_forest", data, 300, 9), 2, axis=0)
    random = np.random.default_rng(10)
    for column in range(x.shape[1]):
        at = random.choice(thresholds[splits == column], len(x)) * scaler.scale_[column] + scaler.mean_[column]
        near = at.astype(np.float32)
        near = np.nextafter(near, random.choice(np.array([-np.inf, np.inf], np.float32), len(x)))
        x[:, column] = np.where(random.random(len(x)) < 0.7, random.choice([near, at.astype(np.float32)]), x[:, column])
    expected = estimator.predict_proba(x.astype(np.float64))
    model = from_estimator(estimator)
    for form in ("common", "float32", "float64"):
        answer = run(written(model.clone(), form), x)
        assert not (np.abs(answer - expected).max(axis=1) > 1e-6).any(), form


def test_isotonic_calibration_beyond_its_knots_and_at_them() -> None:
    from sklearn.isotonic import IsotonicRegression

    estimator, data, target = GROUPS["deciding"]["isotonic_line"]
    estimator.fit(data, target)
    knots = [-0.5, 0.0, 0.25, 1.0]
    for fold in estimator.calibrated_classifiers_:
        fold.calibrators = [IsotonicRegression(out_of_bounds="clip").fit(knots, [0.1, 0.2, 0.7, 0.9])]
        fold.estimator.coef_, fold.estimator.intercept_ = np.eye(1, data.shape[1]), np.zeros(1)
    x = sklearn_models.rows("isotonic", data, 200, 11)
    around = np.concatenate([np.nextafter(knots, -9), knots, np.nextafter(knots, 9)]).astype(np.float32)
    x[:, 0] = np.resize(np.concatenate([around, np.linspace(-3, 3, 50, dtype=np.float32)]), len(x))
    expected = estimator.predict_proba(x.astype(np.float64))
    np.testing.assert_allclose(run(written(from_estimator(estimator), "float32"), x), expected, atol=1e-7)


def test_rows_at_categories_and_beside_them() -> None:
    estimator, data, target = GROUPS["histogram"]["hist_categories"]
    estimator.fit(data, target)
    model = from_estimator(estimator)
    assert (forests(model)[0].forest.compare == Compare.MEMBER).any()
    known = np.unique(data[~np.isnan(data[:, 1]), 1]).astype(np.float32)
    tried = np.concatenate(
        [
            known,
            *(known + np.float32(step) for step in (0.5, -0.5, 1, -1, 64, 65)),
            np.nextafter(known, np.float32(np.inf)),
            np.nextafter(known, np.float32(-np.inf)),
            np.float32([np.nan, 3e9, -3e9, 1e30, 2**25, -1]),
        ]
    )
    x = np.repeat(sklearn_models.rows("ordinal", data, 200, 6), len(tried), axis=0)
    x[:, 1] = np.tile(tried, 200)
    expected = estimator.predict_proba(x.astype(np.float64))
    for form in ("float32", "float64"):
        answer = run(written(model.clone(), form), x)
        assert not (np.abs(answer - expected).max(axis=1) > 1e-6).any(), form


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_rows_of_next_to_nothing_are_not_normalized(norm: str) -> None:
    """scikit-learn takes a norm below 10 eps for none, and leaves the row as it is."""
    from sklearn.preprocessing import Normalizer

    x = np.array([[3e-16, 0], [1e-30, -1e-30], [0, 3e-15], [0, 0], [3, 4]], np.float32)
    estimator = Normalizer(norm).fit(x)
    expected = estimator.transform(x.astype(np.float64))
    for form in ("float32", "float64"):
        np.testing.assert_allclose(run(written(from_estimator(estimator), form), x), expected, rtol=1e-6)
