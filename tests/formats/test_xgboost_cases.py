"""Real XGBoost files (versions 0.x to 3.4) against the predictions that came with them."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from forest_rows import FORMS, run, written

from modelhub.errors import Inconclusive
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_xgboost import Importer, Runtime
from modelhub_xgboost.reader import load

MISSING = ("NA", "N/A", "")
TRUTH = {"TRUE": 1.0, "FALSE": 0.0}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def encoded(model: Path, rows: list[dict[str, str]]) -> np.ndarray:
    """Rows [N, features]; texts by the categories the model file lists, at the places it lists them."""
    document = json.loads(model.read_text())["learner"]
    lists = document["gradient_booster"]["model"]["cats"]["enc"] or [{}] * len(document["feature_names"])
    columns = []
    for name, known in zip(document["feature_names"], lists, strict=True):
        values = [row[name] for row in rows]
        if known.get("offsets"):
            raw, offsets = bytes(known["values"]), known["offsets"]
            place = {raw[a:b].decode(): i for i, (a, b) in enumerate(itertools.pairwise(offsets))}
            columns.append([place.get(value, np.nan) for value in values])
        else:
            columns.append([np.nan if v in MISSING else TRUTH.get(v) if v in TRUTH else float(v) for v in values])
    return np.array(columns, np.float32).T


CASES = {
    "BinomialClassificationAudit": ("Audit", ["probability(1)"]),
    "MultiDecisionTreeAutoNA": ("AutoNA", ["_target1", "_target2"]),
    "MultinomialClassificationIrisNA": ("IrisNA", ["probability(0)", "probability(1)", "probability(2)"]),
    "PoissonRegressionVisit": ("Visit", ["_target"]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".json", ".ubj"])
@pytest.mark.parametrize("name", CASES)
def test_predictions(cases: Path, name: str, suffix: str, form: str) -> None:
    """Among them dart models of version 3.4, which puts the dart weights where no version before looks for them."""
    folder = cases / "real" / "xgboost" / f"jpmml_{name}"
    data, columns = CASES[name]
    x = encoded(folder / f"{name}.json", table(folder / f"input_{data}.csv"))
    expected = np.array([[float(row[key]) for key in columns] for row in table(folder / f"expected_{name}.csv")])
    path = folder / f"{name}{suffix}"
    assert Importer().recognises(path)
    given = run(written(Importer().read(path, ReadOptions()), form), x)
    np.testing.assert_allclose(given, expected, rtol=2e-6, atol=5e-7)


LEGACY = ("BinomialClassificationAudit", "PoissonRegressionVisit")


@pytest.mark.parametrize("name", LEGACY)
def test_old_binaries_are_read(cases: Path, name: str) -> None:
    """Their own expected values are not among the cases: the shape of what is in them is."""
    path = cases / "real" / "xgboost" / f"jpmml_{name}" / f"legacy_{name}.model"
    assert Importer().recognises(path)
    model = load(path)
    assert model.booster == "dart"
    assert model.version == (2, 1)
    assert model.drop is not None
    assert ((model.drop > 0) & (model.drop <= 1)).all()
    assert model.attributes.keys() == {"objective"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name", ["logistic", "logitraw", "softprob", "dart", "pruned", "two_targets", "linear", "linear_softprob"]
)
def test_old_binaries_predict_what_they_did(fixtures: Path, name: str, form: str) -> None:
    """Written by XGBoost 1.7.6 (fixtures/xgboost/old_binary/make.py), whose predictions stand beside them."""
    folder = fixtures / "xgboost" / "old_binary"
    path = folder / f"{name}.model"
    assert Importer().recognises(path)
    assert load(path).version == (1, 7)
    with np.load(folder / "expected.npz") as answers:
        given = run(written(Importer().read(path, ReadOptions()), form), answers["inputs"])
        np.testing.assert_allclose(given, answers[name], rtol=1e-6, atol=5e-7)


def agaricus(fixtures: Path) -> np.ndarray:
    """The rows behind the expected values: 1 or missing (fixtures/xgboost/agaricus/make.py)."""
    with np.load(fixtures / "xgboost" / "agaricus" / "rows.npz") as file:
        bits = np.unpackbits(file["bits"], axis=1, count=127)
    return np.where(bits, 1, np.nan).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["xgagaricus", "xgblin_agaricus"])
def test_old_binaries_of_trees_and_of_a_line(cases: Path, fixtures: Path, name: str, form: str) -> None:
    folder = cases / "real" / "xgboost" / f"leaves_{name}"
    path = folder / f"{name}.model"
    assert Importer().recognises(path)
    expected = np.loadtxt(folder / f"{name}_true_predictions.txt")
    given = run(written(Importer().read(path, ReadOptions()), form), agaricus(fixtures))
    np.testing.assert_allclose(given[:, 0], expected, rtol=0, atol=3e-7)


def test_no_case_is_left_out(cases: Path) -> None:
    """Every file among the cases that is a model is one of those above."""
    tried = {f"jpmml_{name}/{name}{suffix}" for name in CASES for suffix in (".json", ".ubj")}
    tried |= {f"jpmml_{name}/legacy_{name}.model" for name in LEGACY}
    tried |= {f"leaves_{name}/{name}.model" for name in ("xgagaricus", "xgblin_agaricus")}
    folder = cases / "real" / "xgboost"
    found = [path for path in folder.glob("*/*") if path.suffix not in (".csv", ".md", ".txt")]
    assert {path.relative_to(folder).as_posix() for path in found} == tried


def test_the_engine_declines_what_a_newer_xgboost_wrote(cases: Path, tmp_path: Path) -> None:
    """XGBoost 3.2 loads a dart model of 3.4 without a word, and forgets its weights."""
    xgboost = pytest.importorskip("xgboost")
    source = cases / "real" / "xgboost" / "jpmml_BinomialClassificationAudit" / "BinomialClassificationAudit.json"
    path = tmp_path / "newer.json"
    shutil.copy(source, path)
    interface = Interface.of(Importer().read(path, ReadOptions()))
    if tuple(map(int, xgboost.__version__.split(".")[:2])) < (3, 4):
        with pytest.raises(Inconclusive, match=r"written by XGBoost 3\.4\.1"):
            Runtime().load(path, interface, "float32", ReadOptions())


def test_the_engine_declines_the_old_binary(cases: Path) -> None:
    pytest.importorskip("xgboost", minversion="3.1")
    path = cases / "real" / "xgboost" / "leaves_xgagaricus" / "xgagaricus.model"
    interface = Interface.of(Importer().read(path, ReadOptions()))
    with pytest.raises(Inconclusive, match="cannot load"):
        Runtime().load(path, interface, "float32", ReadOptions())
