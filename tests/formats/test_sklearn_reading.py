"""What the scikit-learn reader takes, what it calls things, and what it refuses by name."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forest_rows import run, written

from modelhub.errors import Inconclusive, Unsupported, UsageError
from modelhub.graph.builder import KEPT
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_sklearn import Importer, Runtime, from_estimator, is_pickle

sklearn_models = pytest.importorskip("sklearn_models", exc_type=ImportError)
skops = pytest.importorskip("skops.io")
joblib = pytest.importorskip("joblib")

from_sklearn = pytest.importorskip("sklearn.ensemble")


def forest():
    estimator, data, target = sklearn_models.forests()["forest_two"]
    return estimator.fit(data, target)


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(forest()))
    return path


def test_reading_imports_neither_scikit_learn_nor_skops(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.dump(forest(), path)
    code = f"""
import sys
from pathlib import Path
from modelhub.protocols import ReadOptions
import modelhub_sklearn
assert not {{"onnx", "onnx_ir", "numpy"}} & set(sys.modules), "importing the format is not cheap"
modelhub_sklearn.Importer().read(Path({str(path)!r}), ReadOptions())
assert not {{"sklearn", "skops", "scipy", "joblib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib", ".model"])
def test_a_pickle_is_refused_with_the_way_out(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    (joblib.dump if suffix == ".joblib" else lambda e, p: p.write_bytes(pickle.dumps(e)))(forest(), path)
    assert Importer().recognises(path)
    with pytest.raises(Unsupported, match=r"skops\.io\.dump.*--trust"):
        Importer().read(path, ReadOptions())


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_recognised(protocol: int) -> None:
    assert is_pickle(pickle.dumps(forest(), protocol)[:512])


@pytest.mark.parametrize(
    "start", [b"", b"TREE", b'{"learner":{', b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"cos\nsystem\n"]
)
def test_other_files_are_not_ours(start: bytes) -> None:
    assert not is_pickle(start)


def test_the_pickle_of_the_cases_is_refused_and_never_loaded(cases: Path) -> None:
    (path,) = (cases / "real" / "sklearn_pickle_DO_NOT_LOAD").glob("*/*.model")
    assert Importer().recognises(path)
    with pytest.raises(Unsupported, match="--trust"):
        Importer().read(path, ReadOptions())


def test_a_trusted_pickle_is_read_and_run(pickled: Path) -> None:
    options = ReadOptions(trust=True)
    model = Importer().read(pickled, options)
    x = sklearn_models.rows("forest", sklearn_models.X, 500, 1)
    engine = Runtime().load(pickled, Interface.of(model), "float64", options)
    expected = forest().predict_proba(x.astype(np.float64))
    np.testing.assert_allclose(run(written(model, "float64"), x), expected, atol=1e-14)
    np.testing.assert_array_equal(engine({"inputs": x})["outputs"], expected)
    with pytest.raises(Unsupported, match="--trust"):
        Runtime().load(pickled, Interface.of(model), "float64", ReadOptions())


def test_names_and_labels() -> None:
    interface = Interface.of(from_estimator(forest(), ["pt", "eta", "phi", "e"]))
    assert [feature.name for feature in interface.inputs[0].features] == ["pt", "eta", "phi", "e"]
    assert interface.outputs[0].labels == ("background", "signal")
    estimator = forest()
    estimator.feature_names_in_ = np.array(["a", "b", "c", "d"], object)
    assert [f.name for f in Interface.of(from_estimator(estimator)).inputs[0].features] == ["a", "b", "c", "d"]
    with pytest.raises(UsageError, match="2 feature names for 4 features"):
        from_estimator(estimator, ["a", "b"])


@pytest.mark.parametrize(
    ("group", "name", "labels"),
    [
        ("forests", "forest_holes", ("0", "10", "20")),
        ("forests", "forest_two_targets", ("prediction_0", "prediction_1")),
        ("forests", "isolation", ("decision_function",)),
        ("smooth", "linear", ("prediction",)),
        ("smooth", "linear_svc", ("signal",)),
        ("smooth", "components_alone", ("component_0", "component_1")),
        ("deciding", "scaled_forest", ("background", "signal")),
        ("deciding", "svc_pairs", ("0", "10", "20")),
    ],
)
def test_labels_of_outputs(group: str, name: str, labels: tuple[str, ...]) -> None:
    estimator, data, target = getattr(sklearn_models, group)()[name]
    interface = Interface.of(from_estimator(estimator.fit(data, target)))
    assert interface.outputs[0].labels == labels


def test_only_decisions_about_something_computed_keep_float64() -> None:
    kept = {}
    for group in ("forests", "histograms", "smooth", "deciding"):
        for name in ("forest_two", "hist_categories", "scaler", "scaled_forest", "isotonic"):
            if name in (models := getattr(sklearn_models, group)()):
                estimator, data, target = models[name]
                model = from_estimator(estimator.fit(data, target))
                kept[name] = any(KEPT in node.metadata_props for node in model.graph)
    assert kept == {
        "forest_two": False,
        "hist_categories": False,
        "scaler": False,
        "scaled_forest": True,
        "isotonic": True,
    }


def refused():
    from sklearn import ensemble, gaussian_process, linear_model, pipeline, preprocessing

    x, y = sklearn_models.X, sklearn_models.TWO
    text = np.where(x > 0, "a", "b").astype(object)
    logistic = linear_model.LogisticRegression()
    return {
        "class": (
            gaussian_process.GaussianProcessRegressor(),
            x[:40],
            x[:40, 0],
            "GaussianProcessRegressor.*no converter",
        ),
        "text": (pipeline.make_pipeline(preprocessing.OneHotEncoder(), logistic), text, y, "not numbers"),
        "function": (
            pipeline.make_pipeline(preprocessing.FunctionTransformer(np.nan_to_num), logistic),
            x,
            y,
            "func=.*nan_to_num is not among",
        ),
        "start": (
            ensemble.GradientBoostingClassifier(init=logistic, n_estimators=2),
            x,
            y,
            "starts from a LogisticRegression",
        ),
        "not_fitted": (ensemble.RandomForestClassifier(), None, None, "is it fitted"),
        "halves": (
            ensemble.HistGradientBoostingClassifier(categorical_features=[2], max_iter=2),
            np.column_stack([x[:, :2], np.round(x[:, 2]) / 2]),
            y,
            "not whole numbers",
        ),
    }


@pytest.mark.parametrize("name", ["class", "text", "function", "start", "halves"])
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    estimator, data, target, said = refused()[name]
    estimator.fit(data, target)
    with pytest.raises(Unsupported, match=said):
        from_estimator(estimator)


def test_an_estimator_that_is_not_fitted() -> None:
    with pytest.raises(Exception, match="is it fitted"):
        from_estimator(refused()["not_fitted"][0])
    with pytest.raises(UsageError, match="no estimator but a int"):
        from_estimator(3)


def test_the_runtime_says_why_it_cannot(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    estimator = forest()
    skops.dump(estimator, path)
    interface = Interface.of(from_estimator(estimator))
    with pytest.raises(Inconclusive, match="float64, not in float32"):
        Runtime().load(path, interface, "float32", ReadOptions())
    engine = Runtime().load(path, interface, "float64", ReadOptions())
    with pytest.raises(Inconclusive, match="refuses the rows"):
        engine({"inputs": np.full((2, 4), np.inf)})
    estimator.notes = from_sklearn.RandomForestClassifier
    estimator.strange = np.nan_to_num
    skops.dump(estimator, path)
    with pytest.raises(Inconclusive, match=r"nan_to_num.*not built from a file"):
        Runtime().load(path, interface, "float64", ReadOptions())


def test_a_model_that_finds_its_columns_by_name_is_run_on_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    columns = ColumnTransformer([("scaled", StandardScaler(), ["phi", "pt"])], remainder="passthrough")
    estimator = make_pipeline(columns, from_sklearn.RandomForestClassifier(3, random_state=1))
    table = pandas.DataFrame(sklearn_models.X, columns=["pt", "eta", "phi", "e"])
    path = tmp_path / "model.skops"
    skops.dump(estimator.fit(table, sklearn_models.TWO), path)
    model = Importer().read(path, ReadOptions())
    interface = Interface.of(model)
    assert [feature.name for feature in interface.inputs[0].features] == list(table.columns)
    engine = Runtime().load(path, interface, "float64", ReadOptions())
    expected = estimator.predict_proba(table)
    np.testing.assert_array_equal(engine({"inputs": table.to_numpy()})["outputs"], expected)
    np.testing.assert_allclose(run(model, table.to_numpy(np.float32)), expected, atol=1e-6)
