"""Functions spelled out for float64 against numpy's and the C library's own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from modelhub.graph.builder import Builder
from modelhub.graph.precision import to_precision

ort = pytest.importorskip("onnxruntime")

SPAN = np.concatenate([np.linspace(-12, 12, 20001), np.logspace(-9, 2, 500), -np.logspace(-9, 2, 500), [0.0]])
UNIT = np.clip(np.linspace(-1, 1, 20001), -1, 1)
LARGE = np.concatenate([SPAN, np.logspace(2, 38, 100), -np.logspace(2, 38, 100)])


def erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(v) for v in x])


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


CASES = {
    "Erf": (erf, LARGE),
    "Gelu": (lambda x: x / 2 * (1 + erf(x / math.sqrt(2))), SPAN),
    "Atan": (np.arctan, LARGE),
    "Asin": (np.arcsin, UNIT),
    "Acos": (np.arccos, UNIT),
    "Tan": (np.tan, np.linspace(-1.5, 1.5, 20001)),
    "Sinh": (np.sinh, SPAN),
    "Cosh": (np.cosh, SPAN),
    "Asinh": (np.arcsinh, LARGE),
    "Acosh": (np.arccosh, np.linspace(1.1, 100, 20001)),
    "Atanh": (np.arctanh, np.linspace(-0.99, 0.99, 20001)),
}


def run(op: str, x: np.ndarray, folder: Path, **attributes: object) -> np.ndarray:
    b = Builder()
    value = b.input("x", ["N", 1])
    b.output(b.op(op, value, **attributes), "y", ["N", 1])
    model = to_precision(b.finish(), "float64")
    path = folder / "net.onnx"
    path.write_bytes(ir.to_proto(model).SerializeToString())
    return ort.InferenceSession(path).run(None, {"x": x[:, np.newaxis]})[0][:, 0]


@pytest.mark.parametrize("op", CASES)
def test_in_float64(op: str, tmp_path: Path) -> None:
    function, x = CASES[op]
    want = function(x)
    assert np.max(np.abs(run(op, x, tmp_path) - want) / np.maximum(np.abs(want), 1)) < 2e-15


def test_gelu_by_tanh(tmp_path: Path) -> None:
    assert np.abs(run("Gelu", SPAN, tmp_path, approximate="tanh") - gelu_tanh(SPAN)).max() < 1e-13
