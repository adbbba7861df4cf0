"""Right conversions of forests in which float32 rounds more than at random: none of them is called different."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from forest_rows import interface
from test_tree_probes import random_forest

import modelhub
from modelhub.equivalence.bounds import Spread, bound
from modelhub.equivalence.compare import ROUNDOFF
from modelhub.equivalence.parties import graph_side
from modelhub.equivalence.probes import Probe
from modelhub.equivalence.report import Report
from modelhub.graph.builder import Builder
from modelhub.graph.forest import Forest
from modelhub.graph.forest_onnx import to_graph
from modelhub.graph.interface import Interface
from modelhub.protocols import WriteOptions

RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(500, 4)).astype(np.float32)
Y = X[:, 0] - X[:, 1] * X[:, 2] + 0.3 * RANDOM.normal(size=500)


def converted(source: Path, *, form: str | None = None) -> Report:
    target = source.with_name("target.onnx")
    modelhub.write(modelhub.read(source), target, options=WriteOptions(form=form))
    return modelhub.check(source, target)


def right(report: Report) -> bool:
    return report.verdict == "equivalent"


@pytest.mark.parametrize("rounds", [8, 60])
def test_xgboost_starts_its_sums_from_the_base_score(rounds: int, tmp_path: Path) -> None:
    """Its leaves are no larger than the roundings of a logarithm of a million, and each tree makes up for these."""
    xgboost = pytest.importorskip("xgboost")
    settings = {"objective": "count:poisson", "max_depth": 4, "nthread": 1}
    data = xgboost.DMatrix(X, np.floor(np.exp(Y / 2)) + 1e6)
    xgboost.train(settings, data, rounds).save_model(tmp_path / "model.json")
    assert right(converted(tmp_path / "model.json"))


def test_trees_that_add_one_number_again_and_again(tmp_path: Path) -> None:
    """Gradients of a Huber loss are of one size far from the target, and so are leaves."""
    lightgbm = pytest.importorskip("lightgbm")
    settings = {"objective": "huber", "learning_rate": 0.01, "num_leaves": 8, "num_threads": 1, "verbosity": -1}
    booster = lightgbm.train(settings, lightgbm.Dataset(X, 1000 * (Y + 3)), 400)
    booster.save_model(tmp_path / "model.txt")
    assert right(converted(tmp_path / "model.txt"))


def test_the_classic_form_rounds_what_the_graph_keeps_in_float64(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    skops = pytest.importorskip("skops.io")
    from sklearn import ensemble, pipeline, preprocessing

    forest = ensemble.RandomForestClassifier(5, max_depth=5, random_state=1)
    estimator = pipeline.make_pipeline(preprocessing.StandardScaler(), forest).fit(X.astype(np.float64), Y > 0)
    skops.dump(estimator, tmp_path / "model.skops")
    assert right(converted(tmp_path / "model.skops", form="classic"))
    assert right(converted(tmp_path / "model.skops"))


def test_where_float64_itself_leaves_a_decision_open(tmp_path: Path) -> None:
    """An event at 1e17 is as far from 1/4 as from 1/2, as far as a double tells; one at 0.3 is not."""
    b = Builder()
    x = b.input("x", ["N", 1])
    with b.kept():
        gap = b.op("Sub", b.op("Cast", x, to=11), b.constant(np.array([0.25, 0.5]), "places"))
        nearest = b.op("ArgMin", b.op("Mul", gap, gap), axis=1, keepdims=1)
    b.output(b.op("Cast", nearest, to=1), "y", ["N", 1])
    assert spread(b.finish(), np.array([[0.3], [1e17]], "f4"), tmp_path).near["float64"].tolist() == [False, True]


def spread(model: ir.Model, x: np.ndarray, tmp_path: Path) -> Spread:
    record = Interface.of(model)
    shaken = bound(model, record, tmp_path, 0)
    assert shaken is not None
    probe = Probe("normal", None, {record.inputs[0].tensor: x})
    return shaken.of(probe, graph_side(model, record, tmp_path).engines["float64"](probe.arrays))


def vectors(seed: int) -> Forest:
    """A forest whose leaves hold three numbers each, so that its graph looks them up in a table."""
    forest = random_forest(seed, routed=False)
    values = np.random.default_rng(seed).normal(size=(len(forest.values), 3))
    return replace(forest, values=values, base=np.zeros(3))


def test_which_leaf_it_is_is_not_rounded(tmp_path: Path) -> None:
    """The number of a leaf is moved by no rounding: else any leaf would do, and no fault in a table be seen."""
    forest = vectors(3)
    model = to_graph(forest, interface(forest))
    assert any(node.op_type == "Gather" for node in model.graph)
    (moved,) = spread(model, RANDOM.normal(size=(100, forest.features)).astype("f4"), tmp_path).deviation.values()
    assert 0 < moved.max() < 6 * 2 * ROUNDOFF["float32"] * forest.trees * np.abs(forest.values).max()
