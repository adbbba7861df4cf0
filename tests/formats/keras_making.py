"""Keras models made on the spot, and what Keras and our graph answer to the same inputs."""

from __future__ import annotations

import logging
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelhub.protocols import ReadOptions
from modelhub_keras import Importer

if "KERAS_BACKEND" not in os.environ and find_spec("tensorflow") is None:
    os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

keras = pytest.importorskip("keras")
L = keras.layers

TORCH = keras.backend.backend() == "torch"
in_double = pytest.mark.skipif(TORCH, reason="Keras on torch rounds products to float32, whatever the dtype")

Arrays = list[np.ndarray]


def randomise(model: Any, seed: int = 1) -> Any:
    """`model` with every weight drawn anew: fresh biases are all 0 and fresh averages all 0 and 1."""
    rng = np.random.default_rng(seed)
    arrays = []
    for weight in model.weights:
        shape = tuple(weight.shape)
        spread = "variance" in weight.path
        fan = np.sqrt(max(shape[0] if len(shape) > 1 else 1, 1))
        drawn = rng.uniform(0.5, 2.0, shape) if spread else rng.normal(size=shape) / fan
        arrays.append(drawn.astype("float32") if "float" in str(weight.dtype) else np.zeros(shape, "int32"))
    model.set_weights(arrays)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def read(path: Path, weights: Path | None = None) -> ir.Model:
    """The graph of a Keras file, its notices kept quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Importer().read(path, ReadOptions(weights=weights))


def run(model: ir.Model, arrays: Arrays) -> Arrays:
    """What onnxruntime computes."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    types = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64", "tensor(bool)": "bool"}
    feeds = {i.name: x.astype(types[i.type]) for i, x in zip(session.get_inputs(), arrays, strict=True)}
    return list(session.run(None, feeds))


def answer(model: Any, arrays: Arrays) -> Arrays:
    """What Keras computes."""
    outputs = model(arrays if len(arrays) > 1 else arrays[0], training=False)
    flat = keras.tree.flatten(outputs)
    return [np.asarray(keras.ops.convert_to_numpy(y)) for y in flat]


def saved(model: Any, folder: Path, kind: str) -> tuple[Path, Path | None]:
    """The model on disk as one of Keras's kinds of file, and its weights where they are in another."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    if kind in ("keras", "h5"):
        path = folder / f"model.{kind}"
        model.save(path)
        return path, None
    path = folder / "model.json"
    path.write_text(model.to_json())
    weights = folder / ("model.weights.h5" if kind == "json" else "whole.h5")
    model.save_weights(weights) if kind == "json" else model.save(weights)
    return path, weights


def drawn(model: Any, events: int = 5, seed: int = 0) -> Arrays:
    """Random inputs for `model`; open axes get 6 steps, integer inputs numbers from 0 to 4."""
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (events, *(6 if n is None else n for n in tensor.shape[1:]))
        whole = "int" in str(tensor.dtype)
        arrays.append(rng.integers(0, 5, shape).astype("int32") if whole else rng.normal(size=shape).astype("float32"))
    return arrays


def check(model: Any, folder: Path, kind: str, arrays: Arrays | None = None, tolerance: float = 2e-5) -> ir.Model:
    """Save, read, run both, compare. Returns the graph."""
    arrays = drawn(model) if arrays is None else arrays
    path, weights = saved(model, folder, kind)
    graph = read(path, weights)
    for ours, theirs, value in zip(run(graph, arrays), answer(model, arrays), graph.graph.outputs, strict=True):
        assert ours.shape == theirs.shape
        assert np.isfinite(theirs).all(), "the reference itself is not finite"
        assert np.ptp(theirs) > 0, "the reference is constant, so it shows nothing"
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        _as_declared(value, ours)
    return graph


def _as_declared(value: ir.Value, array: np.ndarray) -> None:
    """The graph's own shape and type of an output are true."""
    assert value.shape is not None
    assert value.dtype is not None
    assert value.dtype.numpy() == array.dtype
    assert len(value.shape) == array.ndim
    for declared, length in zip(value.shape, array.shape, strict=True):
        assert not isinstance(declared, int) or declared == length
