"""Forests of MVAUtils out of ROOT files: decisions at every cut, and each of MVAUtils's answers."""

from __future__ import annotations

import warnings
from pathlib import Path

import mvautils_writing as mva
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import tmva_writing as tmva

import modelhub
from modelhub.errors import Inconclusive, Notice, UsageError
from modelhub.graph.interface import Interface
from modelhub.plugins import detect
from modelhub.protocols import ReadOptions
from modelhub_mvautils import Importer, Runtime

TITLES = {
    "TMVA": "creator=TMVA",
    "lgbm_simple": "creator=lgbm;node_type=lgbm_simple",
    "lgbm": "creator=lgbm;node_type=lgbm",
    "xgboost": "creator=xgboost",
}


def both(path: Path, x: np.ndarray, task: str | None) -> tuple[np.ndarray, np.ndarray]:
    """What the graph gives in onnxruntime, and the evaluator."""
    options = ReadOptions(task=task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        model = Importer().read(path, options)
    interface = Interface.of(model)
    engine = Runtime().load(path, interface, "float32", options)
    (evaluated,) = engine({"inputs": x}).values()
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, {"inputs": x})[0], evaluated


@pytest.mark.parametrize("task", ["response", "classification", "gradboost", "multiclass=3"])
@pytest.mark.parametrize("flavour", TITLES)
def test_every_flavour_and_answer(flavour: str, task: str, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    trees = [mva.grown(random, 4, 5) for _ in range(30)]
    weights = random.random(30).tolist() if flavour == "TMVA" else None
    path = mva.written(tmp_path / "bdt.root", trees, TITLES[flavour], weights)
    x = tmva.events(2, 2000, 4)
    expected = mva.answer(trees, x, flavour, task, weights)
    for got in both(path, x, task):
        np.testing.assert_allclose(got, expected, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("flavour", TITLES)
def test_one_leaf_per_decision(flavour: str, tmp_path: Path) -> None:
    """A value on the cut, beside it, and NaN: whole numbers for leaves, so that a wrong side cannot hide."""
    trees = [(0, 0.1, flag, (1, -0.5, not flag, 1.0, 2.0), (1, 0.5, flag, 4.0, 8.0)) for flag in (True, False)]
    path = mva.written(tmp_path / "bdt.root", trees, TITLES[flavour], [0.0, 0.0] if flavour == "TMVA" else None)
    near = np.array([0.1, -0.5, 0.5], np.float32)
    values = np.concatenate([near, np.nextafter(near, np.float32(9)), np.nextafter(near, np.float32(-9)), [np.nan]])
    x = np.stack([a.ravel() for a in np.meshgrid(values, values)], axis=1).astype(np.float32)
    for got in both(path, x, "response"):
        assert np.array_equal(got, mva.answer(trees, x, flavour, "response"))


def test_xgboost_itself(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    random = np.random.default_rng(3)
    x = random.normal(size=(800, 4)).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    y = np.nan_to_num(x[:, 0]) > np.nan_to_num(x[:, 1])
    settings = {"objective": "binary:logistic", "base_score": 0.5, "max_depth": 4, "nthread": 1}
    booster = xgboost.train(settings, xgboost.DMatrix(x, y), 20)
    path = mva.written(tmp_path / "x.root", mva.from_xgboost(booster), TITLES["xgboost"])
    for got in both(path, x, "classification"):
        np.testing.assert_allclose(got[:, 0], booster.predict(xgboost.DMatrix(x)), rtol=1e-5)


def test_lightgbm_itself(tmp_path: Path) -> None:
    """The title says which answer is meant, and how the variables are called."""
    lightgbm = pytest.importorskip("lightgbm")
    random = np.random.default_rng(3)
    x = random.normal(size=(800, 3)).astype(np.float32)
    y = np.digitize(x[:, 0] + x[:, 1], [-0.5, 0.5])
    settings = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1, "num_leaves": 8}
    booster = lightgbm.train(settings, lightgbm.Dataset(x, y, feature_name=["pt", "eta", "m(jj)"]), 10)
    trees, infos = mva.from_lightgbm(booster)
    path = mva.written(tmp_path / "l.root", trees, f"creator=lgbm;node_type=lgbm_simple;{infos}", flags=False)
    for got in both(path, x, None):
        np.testing.assert_allclose(got, booster.predict(x), rtol=1e-5, atol=1e-7)
    features = Interface.of(Importer().read(path, ReadOptions())).inputs[0].features
    assert [f.name for f in features] == ["pt", "eta", "m(jj)"]
    assert features[1].minimum == pytest.approx(float(x[:, 1].min()))


def test_what_the_converter_makes_of_a_tmva_file(tmp_path: Path) -> None:
    """AdaBoost with purities: the evaluator of TMVA's rules answers the XML, ours of MVAUtils's rules the TTree."""
    import tmva_reference

    random = np.random.default_rng(5)
    roots, trees, weights = [], [], random.random(12).tolist()
    for _ in weights:
        tree = mva.grown(random, 3, 4)
        roots.append(_as_tmva(tree))
        trees.append(tree)
    planted = [tmva.tree(root, weight, i) for i, (root, weight) in enumerate(zip(roots, weights, strict=True))]
    text = tmva.setup(tmva.forest(planted), options={"BoostType": "AdaBoost", "UseYesNoLeaf": False})
    x = np.nan_to_num(tmva.events(6, 500, 3))
    expected = tmva_reference.Reference(tmva.written(tmp_path, text))(x)
    path = mva.written(tmp_path / "t.root", trees, "", weights, flags=False)
    for got in both(path, x, "classification"):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def _as_tmva(node: mva.Node) -> str:
    """The XML of a tree; what MVAUtils has on the left is what passes the cut, TMVA's right."""
    if not isinstance(node, tuple):
        return tmva.leaf(purity=node)
    variable, cut, _, left, right = node
    return tmva.split(variable, cut, _as_tmva(right), _as_tmva(left))


@pytest.mark.parametrize(
    ("objective", "name"),
    [("binary sigmoid:1", "classification"), ("cross_entropy", "classification"), ("regression", "response"),
     ("huber", "response")],
)  # fmt: skip
def test_the_objective_in_the_title_says_the_answer(objective: str, name: str, tmp_path: Path) -> None:
    title = f"creator=lgbm;node_type=lgbm_simple;objective={objective};max_feature_idx=5"
    path = mva.written(tmp_path / "l.root", [(1, 0.5, True, 1.0, -1.0)], title, flags=False)
    model = Importer().read(path, ReadOptions())
    interface = Interface.of(model)
    assert interface.outputs[0].labels == (name,)
    assert [f.name for f in interface.inputs[0].features] == [f"x{i}" for i in range(6)]


@pytest.mark.parametrize(
    ("title", "task", "reason"),
    [
        ("creator=xgboost", None, "does not say which answer"),
        ("creator=xgboost", "probability", "one of response"),
        ("creator=xgboost", "multiclass=1", "one of response"),
        ("creator=xgboost", "multiclass=99999999999999", "one of response"),
        ("creator=xgboost", "response=2", "one of response"),
        ("creator=xgboost", "Other:response", "holds no TTree 'Other'; those there: BDT"),
        ("creator=lgbm;node_type=lgbm;objective=poisson", None, "does not say which answer"),
        ("creator=lgbm;node_type=lgbm;objective=binary sigmoid:2", None, "no answer of its own"),
        ("creator=lgbm;node_type=lgbm;objective=multiclass num_class:3", None, "one of response"),
    ],
)
def test_an_open_answer_is_asked_for(title: str, task: str | None, reason: str, tmp_path: Path) -> None:
    path = mva.written(tmp_path / "x.root", [(1, 0.5, True, 1.0, -1.0)], title)
    with pytest.raises(UsageError, match=reason):
        Importer().read(path, ReadOptions(task=task))


def test_one_of_several_forests(tmp_path: Path) -> None:
    import uproot

    path = tmp_path / "two.root"
    with uproot.recreate(path) as file:
        for name, leaf in (("low/BDT", 1.0), ("high/BDT", 2.0)):
            mva.plant(file, name, [mva.preorder(leaf)], "creator=xgboost")
        file.mktree("events", {"pt": "float32"}).extend({"pt": np.zeros(3, np.float32)})
    with pytest.raises(UsageError, match=r"2 forests; name one with --task TREE:ANSWER: low/BDT, high/BDT"):
        Importer().read(path, ReadOptions(task="response"))
    for name, leaf in (("low/BDT", 1.0), ("high/BDT", 2.0)):
        for got in both(path, np.zeros((2, 1), np.float32), f"{name}:response"):
            assert np.array_equal(got, np.full((2, 1), leaf))


@pytest.mark.parametrize("flavour", ["TMVA", "xgboost"])
def test_convert_is_checked(flavour: str, tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    trees = [mva.grown(random, 3, 4) for _ in range(10)]
    path = mva.written(tmp_path / "bdt.root", trees, TITLES[flavour], [0.5] * 10 if flavour == "TMVA" else None)
    assert detect(path) == "mvautils"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        report = modelhub.convert(path, tmp_path / "bdt.onnx", read_options=ReadOptions(task="classification"))
    assert report is not None
    assert report.verdict == "equivalent"


def test_knows_float32_only(tmp_path: Path) -> None:
    path = mva.written(tmp_path / "x.root", [1.0], "creator=xgboost")
    model = Importer().read(path, ReadOptions(task="response"))
    with pytest.raises(Inconclusive, match="float64"):
        Runtime().load(path, Interface.of(model), "float64", ReadOptions(task="response"))
