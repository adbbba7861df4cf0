"""Forests written as ROOT macros for MVAUtils, and what is refused."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import mvautils_writing as mva
import numpy as np
import pytest
import tmva_writing as tmva
from test_tmva_write_refusals import interface, stump

import modelhub
from modelhub.errors import Notice, UnreadableFile, Unsupported, UsageError
from modelhub.graph.builder import Builder
from modelhub.graph.forest import Compare, Forest, Link
from modelhub.graph.forest_eval import evaluate
from modelhub.graph.forest_onnx import margins, to_graph
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.naming import attach
from modelhub.plugins import detect
from modelhub.protocols import ReadOptions, WriteOptions
from modelhub_mvautils import Exporter, Importer, Runtime
from modelhub_mvautils.root import stored


def plain(outputs: int = 1) -> Interface:
    inputs = Input("jet", (Feature("pt"), Feature("abs(eta)")))
    return Interface((inputs,), (Output("score", tuple(f"y{i}" for i in range(outputs))),))


def answered(forest: Forest, x: np.ndarray, folder: Path) -> np.ndarray:
    """Write, and let our evaluator of MVAUtils's rules answer."""
    path = folder / "bdt.cxx"
    with pytest.warns(Notice, match="run the macro where ROOT is"):
        Exporter().write(to_graph(forest, plain(forest.outputs)), path, WriteOptions())
    assert detect(path) == "mvautils"
    model = Importer().read(path, ReadOptions())
    record = Interface.of(model)
    assert [f.name for f in record.inputs[0].features] == ["pt", "abs(eta)"]
    assert record.outputs[0].labels == plain(forest.outputs).outputs[0].labels
    engine = Runtime().load(path, record, "float32", ReadOptions())
    (got,) = engine({record.inputs[0].tensor: x}).values()
    np.testing.assert_allclose(tmva.session(model)(x), got, rtol=1e-6, atol=1e-6)
    return got


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("compare", [Compare.LE, Compare.LT, Compare.GE, Compare.GT])
@pytest.mark.parametrize("threshold", [0.0, 0.1, -0.1, 16777217.0, 1e-45])
def test_each_float32_and_nan_goes_its_way(compare: Compare, threshold: float, missing: bool, tmp_path: Path) -> None:
    forest = stump(compare, threshold, missing)
    near = np.float32(threshold)
    side = np.array([-np.inf, np.inf], np.float32)
    x = np.array([near, *np.nextafter(near, side), *side, np.nan, 0, 3], np.float32)
    x = np.stack([x, np.full_like(x, 0.25)], axis=1)
    np.testing.assert_allclose(answered(forest, x, tmp_path), evaluate(forest, x), rtol=1e-6)


@pytest.mark.parametrize(("link", "outputs"), [("identity", 1), ("sigmoid", 1), ("tanh", 1), ("softmax", 3)])
def test_links_and_base(link: str, outputs: int, tmp_path: Path) -> None:
    base = np.array([0.7, -1 / 3, 0.1])[:outputs]
    forest = stump(Compare.LT, 1.0, base=base, tree_output=np.array([0, outputs - 1]), link=Link(link))
    x = np.array([[0, 0], [1, 0.5], [1, 0.6]], np.float32)
    np.testing.assert_allclose(answered(forest, x, tmp_path), evaluate(forest, x), rtol=1e-6)


def test_defaults_become_the_way_of_nan(tmp_path: Path) -> None:
    forest = stump(Compare.LE, 1.0, missing=True)
    model = to_graph(forest, plain())
    attach(model, Interface((Input("jet", (Feature("pt", default=5.0), Feature("abs(eta)", default=-1.0))),), ()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        Exporter().write(model, tmp_path / "bdt.cxx", WriteOptions())
    model = Importer().read(tmp_path / "bdt.cxx", ReadOptions())
    x = np.array([[np.nan, np.nan]], np.float32)
    np.testing.assert_allclose(tmva.session(model)(x), evaluate(forest, np.array([[5.0, -1.0]], np.float32)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["binary", "multi"])
def test_convert_from_xgboost(kind: str, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    random = np.random.default_rng(3)
    x = random.normal(size=(600, 4)).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    y = np.digitize(np.nan_to_num(x[:, 0]), [0.0] if kind == "binary" else [-0.5, 0.5])
    more = {"num_class": 3} if kind == "multi" else {}
    settings = {"objective": f"{kind}:{'logistic' if kind == 'binary' else 'softprob'}", "max_depth": 4, "nthread": 1}
    booster = xgboost.train(settings | more, xgboost.DMatrix(x, y), 12)
    booster.save_model(tmp_path / "x.json")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        modelhub.convert(tmp_path / "x.json", tmp_path / "x.cxx", target_format="mvautils", check=False)
    found = stored(tmp_path / "x.cxx", "")
    grown = [tree for tree, size in enumerate(found.sizes) if size > 1]
    assert len(grown) == len([t for t in mva.from_xgboost(booster) if isinstance(t, tuple)])
    model = Importer().read(tmp_path / "x.cxx", ReadOptions())
    expected = booster.predict(xgboost.DMatrix(x)).reshape(len(x), -1)
    np.testing.assert_allclose(tmva.session(model)(x), expected, rtol=1e-5, atol=1e-6)


def refusal(model: object, folder: Path) -> str:
    with pytest.raises(Unsupported) as caught:
        Exporter().write(model, folder / "x.cxx", WriteOptions())
    assert not list(folder.iterdir())
    return str(caught.value)


@pytest.mark.parametrize(
    ("forest", "reason"),
    [
        (stump(Compare.EQ, 3.0), "ask for equality or infinity"),
        (stump(Compare.LT, np.inf), "ask for equality or infinity"),
        (stump(link=Link("exp")), "Exp"),
        (stump(values=np.array([[1e39], [0], [0], [0]])), "too large for float32"),
        (stump(base=np.zeros(2), tree_output=np.array([0, 1]), link=Link("sigmoid")), "2 sigmoid sums"),
        (replace(stump(), base=np.zeros(2), tree_output=np.array([0, 1])), "2 plain sums"),
    ],
)
def test_refusals(forest: Forest, reason: str, tmp_path: Path) -> None:
    assert reason in refusal(to_graph(forest, plain(forest.outputs)), tmp_path)


def test_refuses_names_and_variables_beyond_int8(tmp_path: Path) -> None:
    assert "'abs(eta)<2'" not in refusal_names(("pt", 'say "x"'), tmp_path)
    assert "'a,b'" in refusal_names(("a,b", "c"), tmp_path)
    forest = stump(features=200)
    feature = forest.feature.copy()
    feature[0] = 150
    wide = Interface((Input("jet", tuple(Feature(f"x{i}") for i in range(200))),), (Output("score", ("y",)),))
    assert "int8" in refusal(to_graph(replace(forest, feature=feature), wide), tmp_path)


def refusal_names(names: tuple[str, str], folder: Path) -> str:
    record = Interface((Input("jet", tuple(map(Feature, names))),), (Output("score", ("y",)),))
    return refusal(to_graph(stump(), record), folder)


def test_refuses_a_mean_and_its_rest(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("jet", ["N", 2])
    both = b.op(
        "Gemm", margins(b, stump(), x), b.constant(np.array([[-1.0, 1.0]]), "s"), b.constant(np.array([1.0, 0.0]), "r")
    )
    b.output(b.op("Cast", both, to=1), "score", ["N", 2])
    assert "2 plain sums" in refusal(b.finish(plain(2)), tmp_path)


def test_options_it_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one form"):
        Exporter().write(to_graph(stump(), interface()), tmp_path / "a.cxx", WriteOptions(precision="float64"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vars[] = {", "vars[] = { -1,"),
        ("static const int sizes", "static const int lengths"),
        ("e+00f", "e+00ff0"),
        ("TTree(", "TChain("),
        ('TNamed("varList", "', 'TNamed("varList", "\\'),
        ("vars[] = {", "vars[] = { 1e300,"),
        ("};", "}"),
    ],
)
def test_a_changed_macro_is_one_clear_line(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "bdt.cxx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        Exporter().write(to_graph(stump(), plain()), path, WriteOptions())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1) if old != "};" else text.replace(old, new))
    with pytest.raises(UnreadableFile, match="not a macro as modelhub writes it"):
        Importer().read(path, ReadOptions())
