"""Real LightGBM files (formats v2 to v4) against the predictions and leaves that came with them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from forest_rows import FORMS, run, written
from test_lightgbm_matrix import local_leaves

from modelhub.graph import forest_eval
from modelhub.protocols import ReadOptions
from modelhub_lightgbm import Importer
from modelhub_lightgbm.reader import load


@pytest.fixture
def real(cases: Path) -> Path:
    return cases / "real" / "lightgbm"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def compare(path: Path, x: np.ndarray, expected: np.ndarray) -> None:
    """Outputs in float64 to the last digits, and in every form for float32 rows."""
    assert Importer().recognises(path)
    found, _ = load(path)
    expected = expected.reshape(len(x), -1)
    np.testing.assert_allclose(forest_eval.evaluate(found, x), expected, rtol=1e-13, atol=1e-13)
    graph = written(Importer().read(path, ReadOptions()), "float64")
    np.testing.assert_allclose(run(graph, x), expected, rtol=1e-13, atol=1e-13)
    rounded = x.astype(np.float32)
    for form in FORMS:
        given = run(written(Importer().read(path, ReadOptions()), form), rounded)
        np.testing.assert_allclose(given, forest_eval.evaluate(found, rounded), rtol=2e-6, atol=1e-6, err_msg=form)


def test_leaves_of_breast_cancer(real: Path) -> None:
    folder = real / "leaves_lg_breast_cancer"
    found, _ = load(folder / "lg_breast_cancer.txt")
    x = np.loadtxt(folder / "lg_breast_cancer_data.txt")
    expected = np.loadtxt(folder / "lg_breast_cancer_data_pred_leaves.txt")
    assert (local_leaves(found, forest_eval.leaves(found, x)) != expected).sum() == 0


def test_dart(real: Path) -> None:
    folder = real / "leaves_lg_dart_breast_cancer"
    compare(
        folder / "lg_dart_breast_cancer.model",
        np.loadtxt(folder / "breast_cancer_test.tsv"),
        np.loadtxt(folder / "lg_dart_breast_cancer_true_predictions.txt"),
    )


def test_raw_scores_of_13_classes_with_categories(real: Path) -> None:
    folder = real / "leaves_lg_kddcup99"
    found, _ = load(folder / "lg_kddcup99.model")
    x = np.loadtxt(folder / "kddcup99_test.tsv")[:, -found.features :]
    expected = np.loadtxt(folder / "lg_kddcup99_true_predictions.txt")
    np.testing.assert_allclose(forest_eval.margins(found, x), expected, rtol=0, atol=1e-14)


def test_categories_in_a_file_older_than_end_of_trees(real: Path) -> None:
    folder = real / "treelite_toy_categorical"
    lines = (folder / "toy_categorical.test").read_text().splitlines()
    x = np.array([[float(word.split(":")[1]) for word in line.split()[1:]] for line in lines])
    compare(folder / "toy_categorical_model.txt", x, np.loadtxt(folder / "toy_categorical.test.pred"))


def test_random_forest_of_three_classes(real: Path) -> None:
    folder = real / "jpmml_RFClassificationIris"
    path = folder / "RFClassificationIris.txt"
    names = [feature.name for feature in load(path)[1].inputs[0].features]
    x = np.array([[float(row[name]) for name in names] for row in table(folder / "input_Iris.csv")])
    rows = table(folder / "expected_RFClassificationIris.csv")
    compare(path, x, np.array([[float(row[f"probability({i})"]) for i in range(3)] for row in rows]))


def test_missing_values_and_categories(real: Path) -> None:
    folder = real / "jpmml_ClassificationAuditNA"
    path = folder / "ClassificationAuditNA.txt"
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("pandas_categorical:")]
    lists = iter(json.loads(line.partition(":")[2]))
    found, interface = load(path)
    assert found.rounding is not None
    rows, columns = table(folder / "input_AuditNA.csv"), []
    for feature, categorical in zip(interface.inputs[0].features, found.rounding, strict=True):
        values = [row[feature.name] for row in rows]
        place = (
            {str(c).upper() if isinstance(c, bool) else c: i for i, c in enumerate(next(lists))} if categorical else {}
        )
        columns.append([place.get(v, np.nan) if categorical else np.nan if v == "N/A" else float(v) for v in values])
    expected = [float(row["probability(1)"]) for row in table(folder / "expected_ClassificationAuditNA.csv")]
    compare(path, np.array(columns).T, np.array(expected))


def test_no_case_is_left_out(real: Path) -> None:
    """Every file among the cases that LightGBM would load is read above, by its name."""
    above = Path(__file__).read_text()
    models = [path for path in real.glob("*/*") if path.suffix in (".txt", ".model") and Importer().recognises(path)]
    assert len(models) == len(list(real.iterdir()))
    assert all(f'"{path.name}"' in above for path in models)
