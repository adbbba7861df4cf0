"""Forests of scikit-learn, XGBoost and LightGBM, trained here, written as TMVA weight files: leaf for leaf."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tmva_reference
from forest_rows import threshold_rows

import modelhub
from modelhub.errors import Notice
from modelhub.graph.forest_forms import forests
from modelhub.graph.interface import Feature, Input, Interface
from modelhub.protocols import ReadOptions, WriteOptions
from modelhub_tmva import Exporter, Runtime

xgboost = pytest.importorskip("xgboost")
lightgbm = pytest.importorskip("lightgbm")
skops = pytest.importorskip("skops.io")
ensemble = pytest.importorskip("sklearn.ensemble")

FEATURES = 5


def data(classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(7)
    x = random.normal(size=(1500, FEATURES)).astype(np.float32)
    x[:, 3] = random.integers(0, 6, len(x))  # ties with thresholds between whole numbers
    score = x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * x[:, 3] + random.normal(size=len(x)) * 0.3
    if classes == 0:
        return x, score
    return x, np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))


def booster(objective: str, classes: int, **more: object) -> xgboost.Booster:
    x, y = data(classes if "binary" in objective or "multi" in objective else 0)
    settings = {"objective": objective, "max_depth": 5, "eta": 0.3, "seed": 1, "nthread": 1, **more}
    return xgboost.train(settings, xgboost.DMatrix(x, y), 30)


def light(objective: str, classes: int, **more: object) -> lightgbm.Booster:
    x, y = data(classes)
    settings = {"objective": objective, "verbose": -1, "num_leaves": 12, "num_threads": 1, "seed": 1, **more}
    return lightgbm.train(settings, lightgbm.Dataset(x, y), 30)


def scikit(name: str, classes: int, **more: object) -> object:
    x, y = data(classes)
    if name in ("AdaBoostClassifier",):
        more["estimator"] = pytest.importorskip("sklearn.tree").DecisionTreeClassifier(max_depth=3)
    return getattr(ensemble, name)(random_state=0, **more).fit(x, y)


def saved(model: object, folder: Path) -> Path:
    if isinstance(model, xgboost.Booster):
        model.save_model(folder / "model.json")
        return folder / "model.json"
    if isinstance(model, lightgbm.Booster):
        model.save_model(folder / "model.txt")
        return folder / "model.txt"
    skops.dump(model, folder / "model.skops")
    return folder / "model.skops"


def leaves(model: object, x: np.ndarray) -> np.ndarray:
    """[N, trees] by the framework itself."""
    if isinstance(model, xgboost.Booster):
        return model.predict(xgboost.DMatrix(x), pred_leaf=True).reshape(len(x), -1)
    if isinstance(model, lightgbm.Booster):
        return model.predict(x, pred_leaf=True).reshape(len(x), -1)
    if hasattr(model, "apply"):
        return model.apply(x).reshape(len(x), -1)
    return np.stack([tree.apply(x) for tree in model.estimators_], axis=1)


def margins(model: object, x: np.ndarray) -> np.ndarray:
    """[N, sums] what TMVA's sums stand for, by the framework itself."""
    if isinstance(model, xgboost.Booster):
        return model.predict(xgboost.DMatrix(x), output_margin=True).reshape(len(x), -1)
    if isinstance(model, lightgbm.Booster):
        mean = model.num_trees() if model.params.get("boosting") == "rf" else 1  # raw scores of rf are plain sums
        return model.predict(x, raw_score=True).reshape(len(x), -1) / mean
    method = model.decision_function if hasattr(model, "decision_function") else model.predict
    return np.asarray(method(x)).reshape(len(x), -1)


def softmax(m: np.ndarray) -> np.ndarray:
    e = np.exp(m - m.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def bare(interface: Interface) -> Interface:
    """The same names; NaN replaced by 0, which the user says of trees that would send it where no number goes."""
    (entry,) = interface.inputs
    features = tuple(Feature(f.name, default=0.0) for f in entry.features)
    return Interface((Input(entry.name, features),), interface.outputs)


def written(model: object, folder: Path, defaults: bool = False) -> tuple[Path, np.ndarray]:
    """The weight file, and rows at the thresholds and beside them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        source = saved(model, folder)
        graph = modelhub.read(source)
        if defaults:
            graph = modelhub.read(source, interface=bare(Interface.of(graph)))
        target = folder / "model.weights.xml"
        Exporter().write(graph.clone(), target, WriteOptions())
    (found,) = forests(graph)
    rows = threshold_rows(found.forest, 4000, 3, nan=0)
    width = len(Interface.of(graph).inputs[0].features)
    return target, np.pad(rows, ((0, 0), (0, width - rows.shape[1])))


GRAD = {
    "xgboost-logistic": lambda: booster("binary:logistic", 2),
    "xgboost-dart": lambda: booster("binary:logistic", 2, booster="dart", rate_drop=0.3),
    "xgboost-regression": lambda: booster("reg:squarederror", 0),
    "xgboost-margin": lambda: booster("binary:logitraw", 2),
    "xgboost-softprob": lambda: booster("multi:softprob", 3, num_class=3),
    "lightgbm-binary": lambda: light("binary", 2),
    "lightgbm-slope": lambda: light("binary", 2, sigmoid=0.7),
    "lightgbm-regression": lambda: light("regression", 0),
    "lightgbm-multiclass": lambda: light("multiclass", 4, num_class=4),
    "lightgbm-rf": lambda: light("binary", 2, boosting="rf", bagging_fraction=0.5, bagging_freq=1),
    "sklearn-binary": lambda: scikit("GradientBoostingClassifier", 2, n_estimators=30),
    "sklearn-exponential": lambda: scikit("GradientBoostingClassifier", 2, n_estimators=10, loss="exponential"),
    "sklearn-multiclass": lambda: scikit("GradientBoostingClassifier", 3, n_estimators=20),
    "sklearn-regression": lambda: scikit("GradientBoostingRegressor", 0, n_estimators=30),
}


@pytest.mark.parametrize("name", GRAD)
def test_boosted_trees_leaf_for_leaf(name: str, tmp_path: Path) -> None:
    model = GRAD[name]()
    path, x = written(model, tmp_path)
    reference = tmva_reference.Reference(path)
    m = margins(model, x)
    same_leaves(reference, leaves(model, x), x, m.shape[1])
    answer = reference(x)
    analysis, slope = reference.info["AnalysisType"], 0.7 if name == "lightgbm-slope" else 1.0
    slope = 2.0 if name == "sklearn-exponential" else slope
    expected = {
        "Regression": lambda: m,
        "Classification": lambda: 2 / (1 + np.exp(-slope * m.astype(np.float64))) - 1,
        "Multiclass": lambda: softmax(m.astype(np.float64)),
    }[analysis]()
    np.testing.assert_allclose(answer, expected, rtol=2e-6, atol=2e-6)


def same_leaves(reference: tmva_reference.Reference, theirs: np.ndarray, x: np.ndarray, sums: int) -> None:
    """Every tree divides the rows as the framework's own tree does, in the framework's order."""
    ours = reference.leaves(x)
    grown = [ours[:, k] for k in range(ours.shape[1]) if len(reference.trees[k][0])]
    assert all(len(tree) == 1 for tree in reference.trees)
    split = [k for k in range(theirs.shape[1]) if len(np.unique(theirs[:, k])) > 1]
    assert len(grown) >= len(split) > 0
    grown = [column for column in grown if len(np.unique(column)) > 1]
    assert len(grown) == len(split)
    for column, k in zip(grown, split, strict=True):
        pairs = np.unique(np.stack([column, theirs[:, k]]), axis=1)
        assert pairs.shape[1] == len(np.unique(column)) == len(np.unique(theirs[:, k])), f"tree {k}"


@pytest.mark.parametrize(
    ("name", "classes"),
    [("RandomForestClassifier", 2), ("ExtraTreesClassifier", 2), ("RandomForestRegressor", 0)],
)
def test_forests_are_means(name: str, classes: int, tmp_path: Path) -> None:
    model = scikit(name, classes, n_estimators=20, max_depth=6)
    path, x = written(model, tmp_path, defaults=True)
    reference = tmva_reference.Reference(path)
    same_leaves(reference, leaves(model, x), x, 1)
    if classes:
        assert reference.options["BoostType"] == "AdaBoost"
        np.testing.assert_allclose(reference(x)[:, 0], model.predict_proba(x)[:, 1], atol=3e-8)
    else:
        np.testing.assert_allclose(reference(x)[:, 0], model.predict(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_adaboost_of_scikit_learn(classes: int, tmp_path: Path) -> None:
    model = scikit("AdaBoostClassifier", classes, n_estimators=15)
    path, x = written(model, tmp_path, defaults=True)
    p = model.predict_proba(x)
    expected = 2 * p[:, 1:] - 1 if classes == 2 else p
    np.testing.assert_allclose(tmva_reference.Reference(path)(x), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["xgboost-logistic", "lightgbm-multiclass", "sklearn-binary", "sklearn-regression"])
def test_convert_is_checked(name: str, tmp_path: Path) -> None:
    source = saved(GRAD[name](), tmp_path)
    with pytest.warns(Notice, match="TMVA::Reader computes this BDT with Evaluate"):
        report = modelhub.convert(source, tmp_path / "out.weights.xml", target_format="tmva")
    assert report is not None
    assert report.verdict == "equivalent"


@pytest.mark.parametrize("name", GRAD)
def test_our_evaluator_and_reader_agree(name: str, tmp_path: Path) -> None:
    """Our runtime gives the outputs of the source's graph, and our importer the source's names."""
    path, x = written(GRAD[name](), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        source = modelhub.read(next(p for p in tmp_path.iterdir() if p != path))
        again = modelhub.read(path)
    theirs, ours = Interface.of(source), Interface.of(again)
    assert ours.outputs[0].labels == theirs.outputs[0].labels
    assert [f.name for f in ours.inputs[0].features] == [f.name for f in theirs.inputs[0].features]
    engine = Runtime().load(path, ours, "float32", ReadOptions())
    (got,) = engine({ours.inputs[0].tensor: x}).values()
    answer = tmva_reference.Reference(path)(x)
    if "(response + 1) / 2" in engine.name:
        p = (answer + 1) / 2
        answer = np.concatenate([1 - p, p], axis=1) if got.shape[1] == 2 else p
    np.testing.assert_allclose(got, answer, rtol=3e-7, atol=1e-7)


def test_real_tmva(tmp_path: Path) -> None:
    """TMVA::Reader itself, where ROOT is installed."""
    root = pytest.importorskip("ROOT", reason="ROOT is not installed: no TMVA::Reader to ask")
    from array import array

    for name in GRAD:
        folder = tmp_path / name
        folder.mkdir()
        path, x = written(GRAD[name](), folder)
        reference = tmva_reference.Reference(path)
        reader = root.TMVA.Reader("!Color:Silent")
        cells = [array("f", [0]) for _ in reference.variables]
        for variable, cell in zip(reference.variables, cells, strict=True):
            reader.AddVariable(variable, cell)
        reader.BookMVA("bdt", str(path))
        ask = {"Classification": reader.EvaluateMVA, "Regression": reader.EvaluateRegression}
        evaluate = ask.get(reference.info["AnalysisType"], reader.EvaluateMulticlass)
        expected = reference(x)
        for row, answer in zip(x[:500], expected, strict=False):
            for cell, value in zip(cells, row, strict=True):
                cell[0] = value
            np.testing.assert_allclose(np.ravel(evaluate("bdt")), answer, rtol=1e-6, atol=1e-6)
