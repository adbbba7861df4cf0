"""Sequences that lie across the usual way, or that a model wants to be of some length; and rounding inside a graph."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import modelhub
from modelhub.graph.builder import Builder
from modelhub.protocols import WriteOptions
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


@pytest.mark.parametrize("case", ["ld_4.2.1", "fisher_4.2.0"])
def test_a_target_need_not_round_where_the_source_does(case: str, cases: Path, tmp_path: Path) -> None:
    source = cases / "tmva" / case / "model.weights.xml"
    assert modelhub.convert(source, tmp_path / "net.json").verdict in ("identical", "equivalent")
    text = (tmp_path / "net.json").read_text()
    number = max(re.findall(r"-?0\.\d{8,}", text), key=lambda n: abs(float(n)))
    (tmp_path / "net.json").write_text(text.replace(number, repr(float(number) * 1.001)))
    assert modelhub.check(source, tmp_path / "net.json").verdict == "different"
