"""Nodes that keep float64 whatever precision the graph is written in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelhub.graph.builder import Builder
from modelhub.graph.canonical import canonical
from modelhub.graph.precision import to_precision


def difference() -> ir.Model:
    """(x + 1e6) - 1e6 in float64, times 3."""
    b = Builder()
    x = b.input("x", ["N", 1])
    large = b.constant(np.array([1e6]), "large")
    with b.kept():
        y = b.op("Cast", x, to=ir.DataType.DOUBLE)
        y = b.op("Sub", b.op("Add", y, large), large)
    y = b.op("Cast", y, to=ir.DataType.FLOAT)
    b.output(b.op("Mul", y, b.constant(np.array([3.0], np.float32), "three")), "y", ["N", 1])
    return b.finish()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_kept_nodes_compute_in_float64(precision: str) -> None:
    model = to_precision(canonical(difference()), precision)
    engine = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    x = np.array([[0.001], [1.5]], precision)
    (y,) = engine.run(None, {"x": x})
    assert y.dtype == precision
    np.testing.assert_allclose(y, 3 * x, rtol=1e-6)


def test_others_do_not() -> None:
    model = difference()
    for node in model.graph:
        node.metadata_props.clear()
    engine = ort.InferenceSession(ir.to_proto(to_precision(model, "float32")).SerializeToString())
    (y,) = engine.run(None, {"x": np.array([[0.001]], np.float32)})
    assert y[0, 0] == 0
