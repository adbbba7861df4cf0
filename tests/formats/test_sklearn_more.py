"""Estimators of several targets and members, and rarer transformers: file, live object, runtime, onnxruntime agree."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from forest_rows import written

from modelhub.errors import Unsupported
from modelhub.graph.canonical import canonical
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_sklearn import Importer, Runtime, from_estimator

models = pytest.importorskip("sklearn_more_models", exc_type=ImportError)
skops = pytest.importorskip("skops.io")

GROUPS = {"targets": models.targets(), "members": models.members(), "shapes": models.shapes()}
ROWS = 800


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    (entry,) = session.get_inputs()
    return session.run(None, {entry.name: x.astype(np.float64 if entry.type == "tensor(double)" else np.float32)})


def own_answer(estimator: Any, x: np.ndarray) -> list[np.ndarray]:
    method = next(m for m in ("predict_proba", "decision_function", "predict", "transform") if hasattr(estimator, m))
    answer = getattr(estimator, method)(x)
    if method == "predict" and hasattr(estimator, "classes_"):
        answer = answer[:, np.newaxis] == estimator.classes_
    parts = answer if isinstance(answer, list) else [answer.toarray() if hasattr(answer, "toarray") else answer]
    return [np.asarray(part, np.float64).reshape(len(x), -1) for part in parts]


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, found in GROUPS.items() for name in found])
def test_every_form_gives_what_the_estimator_gives(group: str, name: str, tmp_path: Path) -> None:
    estimator, data, target = GROUPS[group][name]
    x = models.rows(name, data, ROWS, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(data, target)
        expected = own_answer(estimator, x.astype(np.float64))
    path = tmp_path / "model.skops"
    skops.dump(estimator, path)
    model = Importer().read(path, ReadOptions())
    interface = Interface.of(model)
    assert [len(output.labels) for output in interface.outputs] == [part.shape[1] for part in expected]
    forms = {
        "common": model.clone(),
        "float32": written(canonical(model.clone()), "float32"),
        "float64": written(canonical(model.clone()), "float64"),
        "live": written(from_estimator(estimator), "float64"),
    }
    for form, graph in forms.items():
        for answer, wanted in zip(run(graph, x), expected, strict=True):
            scale = max(1.0, float(np.abs(wanted).max()))
            exact = 1e-8 if name.startswith("far") else 1e-12
            bound = exact if answer.dtype == np.float64 else 1e-5 if form == "float32" else 3e-7
            np.testing.assert_allclose(answer, wanted, rtol=0, atol=bound * scale, err_msg=form)
    engine = Runtime().load(path, interface, "float64", ReadOptions())
    answers = engine({"inputs": x})
    for output, wanted in zip(interface.outputs, expected, strict=True):
        np.testing.assert_array_equal(answers[output.tensor], wanted)


def test_every_target_is_an_output_with_its_labels() -> None:
    estimator, data, target = GROUPS["targets"]["forest_names"]
    interface = Interface.of(from_estimator(estimator.fit(data, target)))
    assert [(output.name, output.labels) for output in interface.outputs] == [
        ("target_0", ("background", "signal")),
        ("target_1", ("down", "up")),
    ]


def test_a_vote_is_a_one_under_the_label() -> None:
    estimator, data, target = GROUPS["members"]["hard_three"]
    model = from_estimator(estimator.fit(data, target))
    assert Interface.of(model).outputs[0].labels == ("0", "10", "20")
    (answer,) = run(model, data[:50].astype(np.float32))
    assert set(np.unique(answer)) == {0.0, 1.0}
    assert np.array_equal(estimator.classes_[answer.argmax(axis=1)], estimator.predict(data[:50]))


def test_coupling_stops_where_libsvm_stops() -> None:
    """The exact solution of the coupling is another one: libsvm ends its rounds early, and so must the graph."""
    estimator, data, target = GROUPS["members"]["svc_probability_three"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(data, target)
    x = models.rows("svc", data, 300, 5)
    power = estimator._probA * -_pairs(estimator, x) + estimator._probB
    pair = np.clip(1 / (1 + np.exp(power)), 1e-7, 1 - 1e-7)
    exact = np.array([_solved(row) for row in pair])
    expected = estimator.predict_proba(x.astype(np.float64))
    assert np.abs(exact - expected).max() > 1e-5
    (answer,) = run(written(from_estimator(estimator), "float64"), x)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-13)


def _pairs(estimator: Any, x: np.ndarray) -> np.ndarray:
    shape, estimator.decision_function_shape = estimator.decision_function_shape, "ovo"
    pairs = -estimator.decision_function(x.astype(np.float64))
    estimator.decision_function_shape = shape
    return pairs


def _solved(pair: np.ndarray) -> np.ndarray:
    """The minimum of the sum of (r_ji p_i - r_ij p_j)^2 under sum p = 1, by linear algebra."""
    r = np.zeros((3, 3))
    for index, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        r[i, j], r[j, i] = pair[index], 1 - pair[index]
    q = -r * r.T + np.diag((r**2).sum(axis=0))
    system = np.block([[q, np.ones((3, 1))], [np.ones((1, 3)), np.zeros((1, 1))]])
    return np.linalg.solve(system, [0, 0, 0, 1])[:3]


def refused() -> dict[str, tuple[Any, np.ndarray, Any, str]]:
    from sklearn import ensemble, feature_selection, linear_model, model_selection, neighbors, pipeline, preprocessing

    m, logistic = models, linear_model.LogisticRegression()
    fixed = model_selection.FixedThresholdClassifier(logistic, threshold=0.3)
    importances = feature_selection.SelectFromModel(ensemble.RandomForestClassifier(3))
    return {
        "text": (preprocessing.OrdinalEncoder(), np.where(m.X > 0, "a", "b").astype(object), None, "before the model"),
        "error": (preprocessing.SplineTransformer(extrapolation="error"), m.X, None, "extrapolation='error'"),
        "linear": (
            preprocessing.SplineTransformer(extrapolation="linear", degree=1),
            m.X,
            None,
            "extrapolation='linear' with degree below 2",
        ),
        "metric": (neighbors.KNeighborsClassifier(metric="braycurtis"), m.X, m.TWO, "metric 'braycurtis'"),
        "weights": (
            neighbors.KNeighborsClassifier(metric="minkowski", metric_params={"w": np.ones(4)}),
            m.X,
            m.TWO,
            "scale the features",
        ),
        "function": (neighbors.KNeighborsClassifier(weights=np.exp), m.X, m.TWO, "'uniform' and 'distance'"),
        "importances": (pipeline.make_pipeline(importances, logistic), m.X, m.TWO, "importances of a RandomForest"),
        "threshold": (ensemble.VotingClassifier([("a", fixed)]), m.X, m.TWO, "moved threshold inside"),
    }


@pytest.mark.parametrize("name", list(refused()))
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    estimator, data, target, said = refused()[name]
    with pytest.raises(Unsupported, match=said):
        from_estimator(estimator.fit(data, target))
