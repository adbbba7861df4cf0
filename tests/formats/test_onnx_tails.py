"""Small probabilities in float32 ONNX files keep their digits; nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import WriteOptions
from modelhub_onnx import Exporter

MARGINS = np.array([-80, -50, -30, -18, -16, -12, -10, -5, -1, 0, 1, 5, 12, 30, 90, 1000], np.float32)[:, np.newaxis]


def network(*, inside: bool, both: bool = False) -> ir.Model:
    """sigmoid(x), and p beside 1 - p if `both`; `inside`: a dense layer behind it."""
    b = Builder()
    y = b.op("Sigmoid", b.input("x", ["N", 1]))
    if both or inside:
        weight = np.ones((1, 2), np.float32) if inside else np.array([[-1, 1]], np.float32)
        y = b.op("Gemm", y, b.constant(weight, "weight"), b.constant(np.array([1, 0], np.float32), "bias"))
    if inside:
        y = b.op("Gemm", y, b.constant(np.eye(2, dtype=np.float32), "second"))
    width = 2 if both or inside else 1
    b.output(y, "y", ["N", width])
    record = Interface((Input("x", (Feature("m"),)),), (Output("y", tuple(f"p{i}" for i in range(width))),))
    return b.finish(record)


@pytest.mark.parametrize("both", [False, True])
def test_small_probabilities(tmp_path: Path, both: bool) -> None:
    path = tmp_path / "p.onnx"
    Exporter().write(network(inside=False, both=both), path, WriteOptions())
    (y,) = ort.InferenceSession(path).run(None, {"x": MARGINS})
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-MARGINS.astype(np.float64)))
    np.testing.assert_allclose(y[:, -1:], expected, rtol=3e-7)
    (value,) = onnx.load(path).graph.output
    assert value.name == "y"


@pytest.mark.parametrize(("inside", "precision"), [(True, "float32"), (False, "float64")])
def test_others_stay(tmp_path: Path, inside: bool, precision: str) -> None:
    path = tmp_path / "p.onnx"
    Exporter().write(network(inside=inside), path, WriteOptions(precision=precision))
    assert "Sigmoid" in [node.op_type for node in onnx.load(path).graph.node]
