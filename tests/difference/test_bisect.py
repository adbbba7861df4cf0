"""Nodes are paired by what they compute: graphs that are built differently, and the first node where they part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from modelhub.difference.bisect import same
from modelhub.difference.diff import Diff, diff
from modelhub.graph.builder import Builder
from modelhub.protocols import WriteOptions
from modelhub_onnx import Exporter

random = np.random.default_rng(11)
W1, W2, W3 = (random.normal(size=shape).astype("float32") for shape in [(5, 8), (8, 8), (8, 3)])
B1, B2, B3 = (random.normal(size=n).astype("float32") for n in (8, 8, 3))
GAMMA, BETA, MEAN = (random.normal(size=8).astype("float32") for _ in range(3))
VARIANCE = random.uniform(0.5, 2, size=8).astype("float32")


def as_trained(path: Path, epsilon: float = 1e-3) -> Path:
    """Dense, batch normalisation, ReLU, dense, tanh, dense: as a framework has it."""
    b = Builder()
    x = b.input("x", ["N", 5])
    with b.scope("fc1"):
        x = b.op("Gemm", x, b.constant(W1, "kernel"), b.constant(B1, "bias"))
    with b.scope("norm"):
        parts = [b.constant(v, n) for v, n in [(GAMMA, "g"), (BETA, "b"), (MEAN, "m"), (VARIANCE, "v")]]
        x = b.op("Relu", b.op("BatchNormalization", x, *parts, epsilon=epsilon))
    with b.scope("fc2"):
        x = b.op("Tanh", b.op("Gemm", x, b.constant(W2, "kernel"), b.constant(B2, "bias")))
    with b.scope("fc3"):
        x = b.op("Gemm", x, b.constant(W3, "kernel"), b.constant(B3, "bias"))
    return written(b, x, path)


def folded(path: Path, second: np.ndarray = W2, *, epsilon: float = 1e-3, turned: bool = False) -> Path:
    """The same by a converter that folds the normalisation, and computes on columns instead of rows."""
    scale = (GAMMA / np.sqrt(VARIANCE.astype(float) + epsilon)).astype("float32")
    b = Builder()
    x = b.op("Transpose", b.input("x", ["N", 5]), perm=[1, 0])

    def dense(x: ir.Value, kernel: np.ndarray, bias: np.ndarray) -> ir.Value:
        return b.op("Add", b.op("MatMul", b.constant(kernel.T.copy(), "w"), x), b.constant(bias[:, np.newaxis], "b"))

    x = b.op("Relu", dense(x, W1 * scale, (B1 - MEAN) * scale + BETA))
    x = b.op("Sigmoid" if turned else "Tanh", dense(x, second, B2))
    return written(b, b.op("Transpose", dense(x, W3, B3), perm=[1, 0]), path)


def written(b: Builder, x: ir.Value, path: Path) -> Path:
    b.output(x, "y", ["N", 3])
    Exporter().write(b.finish(), path, WriteOptions())
    return path


@pytest.fixture
def against(tmp_path):
    def run(*args, **kwargs) -> Diff:
        return diff(as_trained(tmp_path / "a.onnx"), folded(tmp_path / "b.onnx", *args, **kwargs))

    return run


def test_another_spelling_is_no_difference(against):
    found = against()
    assert found.failing == ()
    assert found.verdict in ("equivalent", "suspect")  # other numbers in the file, the same function


def test_what_comes_before_the_fault_agrees_though_it_is_built_differently(against):
    wrong = W2.copy()
    wrong[3, 4] *= 1.5
    found = against(wrong)
    assert found.place.source_layer == "fc2"
    assert found.place.target_node in ("MatMul", "Add")
    assert found.place.agreeing >= 3  # Transpose, Add and Relu; not the MatMul without its bias


def test_a_fault_inside_what_was_folded(against):
    found = against(epsilon=0.3)
    assert found.place.source_layer in ("fc1", "norm")
    assert found.place.agreeing == 1


def test_another_operator(against):
    found = against(turned=True)
    assert found.place.target_node == "Sigmoid"
    assert found.causes == ("the target computes Sigmoid where the source computes Tanh",)


def test_an_epsilon(tmp_path):
    found = diff(as_trained(tmp_path / "a.onnx"), as_trained(tmp_path / "b.onnx", epsilon=1e-1))
    assert (found.place.source_layer, found.place.target_node) == ("norm", "BatchNormalization")
    assert any(cause.startswith("epsilon is 0.1") for cause in found.causes)


def test_nan_equals_nan_and_nothing_else():
    nan, tolerance = np.array([[np.nan, 1.0]]), np.array([[1.0, 1.0]])
    assert same(nan, nan, tolerance).ratio == 0
    assert same(nan, np.array([[0.0, 1.0]]), tolerance).ratio == np.inf
    skipped = np.array([True])
    assert same(nan, np.array([[0.0, 1.0]]), tolerance, skipped).ratio == 0


def test_the_worst_element_is_told_against_its_own_tolerance():
    a, b = np.array([[0.0, 0.0, 0.0]]), np.array([[5.0, 0.3, 0.0]])
    match = same(a, b, np.array([[10.0, 0.1, 1.0]]))
    assert (match.place, match.difference, match.tolerance) == ((0, 1), 0.3, 0.1)
