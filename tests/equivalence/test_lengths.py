"""Sequences that lie across the usual way, or that a model wants to be of some length; and rounding inside a graph."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import onnx_ir as ir
import pytest

import modelhub
from modelhub.equivalence.compare import UNDECIDED
from modelhub.equivalence.render import show
from modelhub.equivalence.report import schema
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import WriteOptions
from modelhub.reports.view import View
from modelhub_onnx import Exporter


def nearest(path: Path, k: int, weight: float = 1.0) -> Path:
    """The sum of the k largest of each channel, over steps that lie in the last axis, as in graph networks."""
    b = Builder()
    x = b.input("points", ["N", 2, "T"])
    (largest, _) = b.ops("TopK", x, b.ints(k), outputs=2, axis=2)
    total = b.op("ReduceSum", largest, b.ints(2), keepdims=0)
    b.output(b.op("Mul", total, b.constant(np.float32([weight, 1.0]), "w")), "score", ["N", 2])
    Exporter().write(b.finish(), path, WriteOptions())
    return path


def test_lengths_that_the_source_does_not_take_are_told_not_judged(tmp_path: Path) -> None:
    report = modelhub.check(nearest(tmp_path / "a.onnx", 5), nearest(tmp_path / "b.onnx", 5))
    assert report.verdict in ("identical", "equivalent")
    assert {result.length for leg in report.legs for result in leg.results} == {7, 20, 64}
    assert any("at length 3" in line for line in report.skipped)
    lengths = next(c for c in report.coverage if c.what == "sequence lengths")
    assert (lengths.reached, lengths.of) == (lengths.of, lengths.of)


def test_a_fault_is_found_at_the_lengths_that_are_left(tmp_path: Path) -> None:
    assert (
        modelhub.check(nearest(tmp_path / "a.onnx", 5), nearest(tmp_path / "b.onnx", 5, 1.001)).verdict == "different"
    )


def test_a_target_that_refuses_what_the_source_takes_is_no_proof(tmp_path: Path) -> None:
    report = modelhub.check(nearest(tmp_path / "a.onnx", 2), nearest(tmp_path / "b.onnx", 5))
    assert report.verdict in ("different", "inconclusive")


def test_a_difference_is_proven_by_the_probes_that_the_target_takes(tmp_path: Path) -> None:
    """It wants five steps, and so refuses the first lengths; where it answers, its answer is another."""
    report = modelhub.check(nearest(tmp_path / "a.onnx", 1), nearest(tmp_path / "b.onnx", 5))
    assert report.verdict == "different"
    legs = {leg.between: leg for leg in report.legs}
    for between in (("source", "target"), ("graph", "target")):
        assert legs[between].verdict == "different"
        assert "at length 1" in legs[between].missing
        assert {result.length for result in legs[between].results} == {7, 20, 64}
    assert legs["source", "graph"].verdict in ("identical", "equivalent")
    findings = {(f.verdict, f.leg) for f in View(report.to_json(), "the report").findings}
    assert {verdict for verdict, leg in findings if "target" in leg} == {"different", "inconclusive"}
    assert not [leg for _, leg in findings if "target" not in leg]


def summed(path: Path, most: int = 0, first: int = 0) -> Path:
    """The sum over steps (of the first so many), times a number from a table of so many lengths, where there is one."""
    b = Builder()
    x = b.input("points", ["N", "T", 2])
    if first:
        x = b.op("Slice", x, b.ints(0), b.ints(first), b.ints(1))
    total = b.op("ReduceSum", x, b.ints(1), keepdims=0)
    if most:
        table = b.constant(np.ones(most, "f4"), "table")
        total = b.op("Mul", total, b.op("Gather", table, b.op("Shape", x, start=1, end=2)))
    b.output(total, "score", ["N", 2])
    Exporter().write(b.finish(), path, WriteOptions())
    return path


@pytest.mark.parametrize("sizes", [("N", 2, 7), (8, 2, "T"), (8, 2, 7)])
@pytest.mark.parametrize("fixed", [0, 1])
def test_sizes_that_one_side_fixes_are_those_both_are_asked_with(
    fixed: int, sizes: tuple[str | int, ...], tmp_path: Path
) -> None:
    for weight, verdicts in ((1.0, {"identical", "equivalent"}), (1.001, {"different"})):
        paths = nearest(tmp_path / "a.onnx", 5), nearest(tmp_path / "b.onnx", 5, weight)
        model = ir.load(paths[fixed])
        model.graph.inputs[0].shape = ir.Shape(sizes)
        ir.save(model, paths[fixed])
        report = modelhub.check(*paths)
        assert report.verdict in verdicts
        results = [result for leg in report.legs for result in leg.results]
        if sizes[0] == 8:
            assert all(result.events % 8 == 0 for result in results)


def test_what_a_target_refuses_is_told_by_probe_length_and_events(tmp_path: Path) -> None:
    report = modelhub.check(summed(tmp_path / "a.onnx"), summed(tmp_path / "b.onnx", 12))
    assert report.verdict == "inconclusive"
    for leg in report.legs:
        if "target" not in leg.between:
            assert leg.verdict in ("identical", "equivalent")
            continue
        assert leg.verdict == "inconclusive"
        assert leg.missing.startswith("target: onnxruntime cannot run this model in float32")
        assert leg.missing.endswith("(probe normal at length 20, 64 events)")


LIMITED = Interface(
    (Input("points", (Feature("x"), Feature("y")), sequence=True, max_length=9),), (Output("score", ("a", "b")),)
)


def test_what_sides_do_beyond_the_declared_length_is_told_not_judged(tmp_path: Path) -> None:
    files = summed(tmp_path / "a.onnx"), summed(tmp_path / "b.onnx", first=9)
    report = modelhub.check(*files, interface=LIMITED)
    assert report.verdict in ("identical", "equivalent")
    assert report.skipped == [
        f"beyond at length {length} is not judged: graph and target differ by more than rounding does; "
        "source and target differ by more than rounding does"
        for length in (10, 18)
    ]
    assert {r.length for leg in report.legs for r in leg.results} == {0, 1, 2, 3, 7, 9}
    lengths = next(c for c in report.coverage if c.what == "sequence lengths")
    assert (lengths.reached, lengths.of) == (6, 6)
    assert modelhub.check(files[0], files[0], interface=LIMITED).skipped == []


def test_an_engine_may_refuse_what_is_longer_than_declared(tmp_path: Path) -> None:
    report = modelhub.check(summed(tmp_path / "a.onnx"), summed(tmp_path / "b.onnx", most=10), interface=LIMITED)
    assert report.verdict in ("identical", "equivalent")
    assert [line.split(": ")[:2] for line in report.skipped] == [
        ["beyond at length 10", "target"],
        ["beyond at length 18", "target"],
    ]


def squares(path: Path, bias: float) -> Path:
    """The difference of two equal numbers that are too large for float32 where energies in MeV come in."""
    b = Builder()
    x = b.input("x", ["N", 2])
    power = b.op("Pow", x, b.constant(np.float32(8), "eight"))
    b.output(b.op("Add", b.op("Div", power, power), b.constant(np.float32(bias), "b")), "y", ["N", 2])
    Exporter().write(b.finish(), path, WriteOptions())
    return path


def test_what_overflows_in_float32_is_undecidable(tmp_path: Path) -> None:
    report = modelhub.check(squares(tmp_path / "a.onnx", 1), squares(tmp_path / "b.onnx", 1))
    assert report.verdict in ("identical", "equivalent")
    assert any(r.undecidable for leg in report.legs for r in leg.results if r.kind == "raw")
    assert modelhub.check(squares(tmp_path / "a.onnx", 1), squares(tmp_path / "b.onnx", 1.001)).verdict == "different"


def larger(path: Path, bias: float) -> Path:
    """Whether a square is larger than its half: not in float32, where both are infinite."""
    b = Builder()
    x = b.input("x", ["N", 2])
    square = b.op("Mul", x, x)
    half = b.op("Mul", square, b.constant(np.float32(0.5), "half"))
    larger = b.op("Less", half, b.op("Add", square, b.constant(np.float32(1), "one")))
    b.output(b.op("Add", b.op("Cast", larger, to=1), b.constant(np.float32(bias), "b")), "y", ["N", 2])
    Exporter().write(b.finish(), path, WriteOptions())
    return path


def test_what_overflows_in_float32_on_its_way_only_is_undecidable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = modelhub.check(larger(tmp_path / "a.onnx", 1), larger(tmp_path / "b.onnx", 1))
    assert report.verdict in ("identical", "equivalent")
    document = json.loads(report.dumps())
    jsonschema.Draft202012Validator(schema()).validate(document)
    probes = [probe for leg in document["legs"] for probe in leg["probes"] if probe["undecidable"]]
    assert all(len(probe["undecided"]) == min(probe["undecidable"], UNDECIDED) for probe in probes)
    first = probes[0]["undecided"][0]
    assert (first["output"], {first["a"], first["b"]}, first["difference"]) == ("y", {1.0, 2.0}, 1.0)
    show(report)
    assert re.search(rf"event {first['event']}, y\[\d\]: [12] against [12]\n", capsys.readouterr().err)
    assert {r.kind for leg in report.legs for r in leg.results if r.undecidable} == {"odd"}
    assert modelhub.check(larger(tmp_path / "a.onnx", 1), larger(tmp_path / "b.onnx", 1.001)).verdict == "different"


@pytest.mark.parametrize("case", ["mlp_multiclass_4.2.1", "syn_bagging"])
def test_rounding_of_what_is_kept_in_double_is_bound_too(case: str, cases: Path, tmp_path: Path) -> None:
    """Small answers behind an exponential of a rounded number; sums of leaves that cancel."""
    source = cases / "tmva" / case / "model.weights.xml"
    for name in ("net.json", "net.onnx"):
        assert modelhub.convert(source, tmp_path / name).verdict in ("identical", "equivalent")


@pytest.mark.parametrize("case", ["ld_4.2.1", "fisher_4.2.0"])
def test_a_target_need_not_round_where_the_source_does(case: str, cases: Path, tmp_path: Path) -> None:
    source = cases / "tmva" / case / "model.weights.xml"
    assert modelhub.convert(source, tmp_path / "net.json").verdict in ("identical", "equivalent")
    text = (tmp_path / "net.json").read_text()
    number = max(re.findall(r"-?0\.\d{8,}", text), key=lambda n: abs(float(n)))
    (tmp_path / "net.json").write_text(text.replace(number, repr(float(number) * 1.001)))
    assert modelhub.check(source, tmp_path / "net.json").verdict == "different"
