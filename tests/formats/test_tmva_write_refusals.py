"""What a TMVA weight file cannot say is refused by name; what the caller of TMVA::Reader must do is in the file."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import tmva_reference
import tmva_writing as tmva
from hypothesis import given
from hypothesis import strategies as st

import modelhub
from modelhub.errors import Notice, UnreadableFile, Unsupported, UsageError
from modelhub.graph.builder import Builder
from modelhub.graph.forest import Compare, Forest, Link, Sets
from modelhub.graph.forest_eval import evaluate
from modelhub.graph.forest_onnx import apply_link, margins, to_graph
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions, WriteOptions
from modelhub_tmva import Exporter, Importer, Runtime
from modelhub_tmva.writer import _parts


def stump(compare: Compare = Compare.LT, threshold: float = 1.0, missing: bool = False, **more: object) -> Forest:
    """Two trees of one split: on x0, and on x1 at 0.5."""
    forest = Forest(
        features=2,
        feature=np.array([0, -1, -1, 1, -1, -1], np.int32),
        compare=np.array([compare, 0, 0, Compare.LE, 0, 0], np.uint8),
        threshold=np.array([threshold, 0, 0, 0.5, 0, 0]),
        true_child=np.array([1, -1, -1, 4, -1, -1]),
        false_child=np.array([2, -1, -1, 5, -1, -1]),
        missing=np.array([missing, False, False, False, False, False]),
        leaf=np.array([-1, 0, 1, -1, 2, 3]),
        values=np.array([[0.25], [-1.5], [0.1], [2.0]]),
        roots=np.array([0, 3]),
        tree_output=np.zeros(2, np.int64),
        tree_weight=np.ones(2),
        base=np.zeros(1),
    )
    return replace(forest, **more).checked("test")


def interface(outputs: int = 1, **more: object) -> Interface:
    features = (Feature("pt", **more), Feature("abs(eta)<2"))
    return Interface((Input("jet", features),), (Output("score", tuple(f"y{i}" for i in range(outputs))),))


def write(model: ir.Model, folder: Path) -> tmva_reference.Reference:
    path = folder / "model.weights.xml"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        Exporter().write(model, path, WriteOptions())
    return tmva_reference.Reference(path)


def refusal(model: ir.Model, folder: Path) -> str:
    with pytest.raises(Unsupported) as caught:
        write(model, folder)
    assert not list(folder.iterdir())
    return str(caught.value)


EDGE = 16777217.0  # between two float32 numbers


@pytest.mark.parametrize("compare", [Compare.LE, Compare.LT, Compare.GE, Compare.GT])
@pytest.mark.parametrize("threshold", [0.0, 0.1, -0.1, 1.0, EDGE, 1e-45, -1e-45, 3.4e38, -3.4028234663852886e38])
def test_each_float32_stays_on_its_side(compare: Compare, threshold: float, tmp_path: Path) -> None:
    forest = stump(compare, threshold)
    reference = write(to_graph(forest, interface()), tmp_path)
    near = np.float32(threshold)
    side = np.array([-np.inf, np.inf], np.float32)
    with np.errstate(over="ignore"):
        x = np.array([near, *np.nextafter(near, side), *side, 0, 1e30, -1e30], np.float32)
    x = np.stack([x, np.zeros_like(x)], axis=1)
    expected = evaluate(forest, x)
    got = reference(x)
    assert np.array_equal(got < 0, expected < 0)
    np.testing.assert_allclose(got, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("compare", "threshold"), [(Compare.GE, -np.inf), (Compare.LT, -np.inf), (Compare.LE, np.inf), (Compare.GT, np.inf)]
)
def test_a_split_that_asks_nothing_vanishes(compare: Compare, threshold: float, tmp_path: Path) -> None:
    forest = stump(compare, threshold, missing=compare in (Compare.GE, Compare.LE))
    reference = write(to_graph(forest, interface()), tmp_path)
    assert [len(tree[0]) for tree in reference.trees] == [0, 2]
    x = np.array([[0, 0], [np.inf, 1], [-np.inf, 0.5]], np.float32)
    np.testing.assert_allclose(reference(x), evaluate(forest, x), atol=1e-7)


@pytest.mark.parametrize(
    ("forest", "reason"),
    [
        (stump(Compare.EQ, 3.0), r"ask for equality \(pt\)"),
        (stump(Compare.NE, 3.0), r"ask for inequality \(pt\)"),
        (stump(Compare.LT, np.inf), "pt is infinite"),
        (stump(Compare.LE, 3.4028234663852886e38), "pt is infinite"),
        (stump(Compare.LE, np.inf), r"missing values \(pt\) where no number goes"),
        (
            stump(
                Compare.MEMBER,
                sets=Sets.of(np.array([2, 0, 0, 0, 0, 0]), np.array([1.0, 4.0])),
            ),
            r"sets of categories \(pt\)",
        ),
        (stump(link=Link("exp")), "Exp.*logarithm of the target"),
        (stump(link=Link("softplus")), "follows the sum of the trees"),
        (stump(values=np.array([[1e39], [0], [0], [0]])), "too large for float32"),
        (stump(rounding=np.array([1, 0], np.uint8)), "changes the variables before the trees"),
        (stump(zero_missing=np.array([True, False]), missing=True), "changes the variables before the trees"),
    ],
)
def test_refusals(forest: Forest, reason: str, tmp_path: Path) -> None:
    assert re.search(reason, refusal(to_graph(forest, interface()), tmp_path))


def test_refuses_missing_values_that_go_both_ways(tmp_path: Path) -> None:
    forest = stump(Compare.LT, 1.0, missing=True)
    feature = forest.feature.copy()
    feature[3] = 0  # NaN goes below 1 in one tree and above 0.5 in the other: a number between does
    reference = write(to_graph(replace(forest, feature=feature), interface()), tmp_path)
    assert json.loads(reference.info["modelhub"])["missing"] == [pytest.approx(0.5), None]
    threshold = forest.threshold.copy()
    threshold[3] = 1.5
    (tmp_path / "model.weights.xml").unlink()
    text = refusal(to_graph(replace(forest, feature=feature, threshold=threshold), interface()), tmp_path)
    assert "Give these variables a default with --interface" in text


def test_refuses_two_classes_of_one_name(tmp_path: Path) -> None:
    forest = stump(base=np.zeros(2), tree_output=np.array([0, 1]), link=Link("softmax"))
    twice = Interface(interface().inputs, (Output("score", ("jet", "jet")),))
    assert "two outputs have one label" in refusal(to_graph(forest, twice), tmp_path)


@pytest.mark.parametrize("kind", ["sigmoid", "exp"])
def test_refuses_outputs_that_are_no_softmax(kind: str, tmp_path: Path) -> None:
    forest = stump(base=np.zeros(2), tree_output=np.array([0, 1]), link=Link(kind))
    assert "TMVA" in refusal(to_graph(forest, interface(2)), tmp_path)


def test_refuses_a_network(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("jet", ["N", 2])
    b.output(b.op("Relu", x), "score", ["N", 2])
    assert "holds no trees (Relu)" in refusal(b.finish(interface(2)), tmp_path)


def test_refuses_two_forests(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("jet", ["N", 2])
    y = b.op("Add", margins(b, stump(), x), margins(b, stump(), x))
    b.output(b.op("Cast", y, to=1), "score", ["N", 1])
    assert "holds 2 forests" in refusal(b.finish(interface()), tmp_path)


def test_refuses_scaling_and_names(tmp_path: Path) -> None:
    model = to_graph(stump(), interface())
    given_ = Interface((Input("jet", (Feature("pt", offset=1.0, scale=2.0), Feature("eta"))),), ())
    from modelhub.graph.naming import attach

    attach(model, given_)
    assert "changes the variables before the trees" in refusal(model, tmp_path)
    named = Interface((Input("jet", (Feature("a := b"), Feature("x\ny"))),), (Output("score", ("y",)),))
    text = refusal(to_graph(stump(), named), tmp_path)
    assert "'a := b'" in text
    assert "\\n" in text


@pytest.mark.parametrize(
    "options", [WriteOptions(form="grad"), WriteOptions(precision="float64"), WriteOptions(opset=9)]
)
def test_options_it_does_not_have(options: WriteOptions, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one form"):
        Exporter().write(to_graph(stump(), interface()), tmp_path / "a.xml", options)


@pytest.mark.parametrize(
    ("link", "outputs", "analysis"),
    [("identity", 1, "Regression"), ("sigmoid", 1, "Classification"), ("tanh", 1, "Classification"),
     ("softmax", 3, "Multiclass")],
)  # fmt: skip
def test_base_and_links(link: str, outputs: int, analysis: str, tmp_path: Path) -> None:
    """The base is exact in double; sums without trees of their own are padded."""
    base = np.array([np.pi, -1 / 3, 1e-30])[:outputs]
    forest = stump(Compare.LT, 1.0, base=base, tree_output=np.array([0, outputs - 1]), link=Link(link))
    forest = replace(forest, values=np.array([[0.25], [-1.5], [0.125], [2.0]]))
    reference = write(to_graph(forest, interface(outputs)), tmp_path)
    assert reference.info["AnalysisType"] == analysis
    x = np.array([[0, 0], [1, 0.5], [1, 0.6]], np.float32)
    expected = evaluate(forest, x)
    answer = reference(x)
    np.testing.assert_allclose((answer + 1) / 2 if link == "sigmoid" else answer, expected, rtol=1e-14, atol=1e-16)


def test_pairs(tmp_path: Path) -> None:
    """[1 - p, p] of a sigmoid; our reader gives both columns back, with their labels."""
    b = Builder()
    x = b.input("jet", ["N", 2])
    p = apply_link(b, Link("sigmoid"), margins(b, stump(), x))
    both = b.op("Concat", b.op("Add", b.op("Neg", p), b.constant(np.array(1.0), "one")), p, axis=1)
    b.output(b.op("Cast", both, to=1), "score", ["N", 2])
    write(b.finish(interface(2)), tmp_path)
    path = tmp_path / "model.weights.xml"
    with pytest.warns(Notice, match="1 - p and p, where"):
        model = Importer().read(path, ReadOptions())
    assert Interface.of(model).outputs[0].labels == ("y0", "y1")
    rows = np.array([[0, 0], [3, 1]], np.float32)
    expected = evaluate(replace(stump(), link=Link("sigmoid")), rows)
    np.testing.assert_allclose(tmva.session(model)(rows), np.hstack([1 - expected, expected]), atol=1e-7)
    engine = Runtime().load(path, Interface.of(model), "float32", ReadOptions())
    np.testing.assert_allclose(engine({"variables": rows})["response"], np.hstack([1 - expected, expected]), atol=1e-7)


@pytest.mark.parametrize("base", [0.0, 0.3])
def test_shares_are_a_mean_of_purities(base: float, tmp_path: Path) -> None:
    b = Builder()
    x = b.input("jet", ["N", 2])
    forest = stump(values=np.array([[0.1], [0.3], [0.2], [0.35]]))
    m = b.op("Add", margins(b, forest, x), b.constant(np.array([base]), "base"))
    sign, rest = np.array([[-1.0, 1.0]]), np.array([1.0, 0.0])
    both = b.op("Gemm", m, b.constant(sign, "sign"), b.constant(rest, "rest"))
    b.output(b.op("Cast", both, to=1), "score", ["N", 2])
    reference = write(b.finish(interface(2)), tmp_path)
    assert reference.options["BoostType"] == "AdaBoost"
    rows = np.array([[0, 0], [3, 0], [0, 1], [3, 1]], np.float32)
    np.testing.assert_allclose(reference(rows), evaluate(forest, rows) + base, atol=4e-8)
    with pytest.warns(Notice, match="1 - response and response"):
        model = Importer().read(tmp_path / "model.weights.xml", ReadOptions())
    p = evaluate(forest, rows) + base
    np.testing.assert_allclose(tmva.session(model)(rows), np.hstack([1 - p, p]), atol=1e-7)


def test_missing_values_are_replaced_as_the_file_says(tmp_path: Path) -> None:
    forest = stump(Compare.LT, 1.0, missing=True, link=Link("sigmoid"))
    with pytest.warns(Notice, match=r"replace NaN first \(pt: 0.0\), as TMVA answers -999"):
        Exporter().write(to_graph(forest, interface()), tmp_path / "a.xml", WriteOptions())
    with pytest.warns(Notice, match="NaN is replaced"):
        model = Importer().read(tmp_path / "a.xml", ReadOptions())
    x = np.array([[np.nan, 0], [2, 0], [0, 0]], np.float32)
    np.testing.assert_allclose(tmva.session(model)(x), evaluate(forest, x), atol=1e-7)
    engine = Runtime().load(tmp_path / "a.xml", Interface.of(model).unscaled(), "float32", ReadOptions())
    np.testing.assert_allclose(engine({"variables": x})["response"], evaluate(forest, x), atol=1e-7)
    assert engine.name == "modelhub TMVA evaluator (NaN replaced, outputs are (response + 1) / 2)"


def test_defaults_of_the_interface_count(tmp_path: Path) -> None:
    model = to_graph(stump(Compare.LE, np.inf), interface())
    from modelhub.graph.naming import attach

    attach(model, Interface((Input("jet", (Feature("pt", default=-5.0), Feature("eta"))),), ()))
    reference = write(model, tmp_path)
    assert json.loads(reference.info["modelhub"])["missing"] == [-5.0, None]


def test_written_text_is_what_tmva_reads(tmp_path: Path) -> None:
    """Attributes TMVA asks for, between double quotes, numbers that come back as the same float32."""
    write(to_graph(stump(Compare.LE, 0.1), interface()), tmp_path)
    text = (tmp_path / "model.weights.xml").read_text()
    assert text.startswith('<?xml version="1.0"?>\n<MethodSetup Method="BDT::BDT">')
    assert "='" not in text
    assert 'Expression="abs(eta)&lt;2" Label="abs(eta)&lt;2"' in text
    assert 'Internal="abs_eta__2"' in text
    cut = float(np.nextafter(np.float32(0.1), np.float32(-1)))
    cut = float(np.nextafter(np.float32(cut), np.float32(1)))  # 0.1 is below float32(0.1): the next float32 above it
    assert f'IVar="0" Cut="{cut:.16e}" cType="1"' in text
    order = ["GeneralInfo", "Options", "Variables", "Spectators", "Classes", "Targets", "Transformations", "MVAPdfs"]
    places = [text.index(f"<{name}") for name in [*order, "Weights"]]
    assert places == sorted(places)


@given(st.floats(-1e30, 1e30, allow_nan=False))
def test_parts_of_a_double(number: float) -> None:
    parts = _parts(number)
    assert len(parts) <= 3
    assert all(float(np.float32(part)) == part for part in parts)
    assert abs(sum(parts) - number) <= max(abs(number) * 2.0**-53, 1e-45)


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[]",
        '{"answer": "truth"}',
        '{"answer": "probability", "labels": ["a", "b"]}',
        '{"answer": "probability", "labels": "ab"}',
        '{"answer": "probability", "missing": [1]}',
        '{"answer": "probability", "missing": [1, true, 2]}',
        f'{{"answer": "probability", "missing": [1{"0" * 400}, 1, 1]}}',
        '{"answer": "probability", "more": 1}',
        '{"answer": ["probability"]}',
    ],
)
def test_a_broken_entry_is_one_clear_line(value: str, tmp_path: Path) -> None:
    from xml.sax.saxutils import quoteattr

    text = tmva.setup(tmva.forest([tmva.tree(tmva.leaf(0.5))], kind=1), options={"BoostType": "Grad"})
    text = text.replace("</GeneralInfo>", f'<Info name="modelhub" value={quoteattr(value)}/></GeneralInfo>')
    with pytest.raises(UnreadableFile, match="'modelhub'"):
        Importer().read(tmva.written(tmp_path, text), ReadOptions())


def test_an_entry_of_another_method_is_refused(tmp_path: Path) -> None:
    text = tmva.setup('<Weights NCoeff="1"><Coefficient Index="0" Value="1"/></Weights>', method="Fisher::F")
    entry = "<Info name='modelhub' value='{\"answer\": \"probability\"}'/>"
    text = text.replace("</GeneralInfo>", f"{entry}</GeneralInfo>")
    with pytest.raises(UnreadableFile, match="for a BDT"):
        Importer().read(tmva.written(tmp_path, text), ReadOptions())


def test_onward_from_a_weight_file(tmp_path: Path) -> None:
    """A file that was written is read and written again: the same trees."""
    rng = np.random.default_rng(3)
    trees = [tmva.tree(tmva.grown(rng, 3, 5), 0.0, i) for i in range(20)]
    text = tmva.setup(tmva.forest(trees, kind=1), options={"BoostType": "Grad"})
    path = tmva.written(tmp_path, text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        report = modelhub.convert(path, tmp_path / "again.xml", source_format="tmva")
    assert report is not None
    assert report.verdict in ("identical", "equivalent")
    x = np.nan_to_num(tmva.events(5, 400, 3))
    first, again = tmva_reference.Reference(path), tmva_reference.Reference(tmp_path / "again.xml")
    assert np.array_equal(first(x), again(x))
