"""What the torch tests share: a graph run by onnxruntime in float32 and float64, held against torch itself."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from modelhub.graph.precision import to_precision

EXACT = 1e-12
ROUGH = 2e-6

ort.set_default_logger_severity(3)


def session(model: ir.Model, precision: str) -> ort.InferenceSession:
    """`model` in onnxruntime at `precision`, after ONNX's own full check."""
    proto = ir.to_proto(to_precision(model.clone(), precision))
    onnx.checker.check_model(proto, full_check=precision == "float32")
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def close(got: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Equal shapes, NaN and infinities at the same places, numbers equal relative to 1 + their size."""
    assert got.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite])
    difference = np.abs(got[finite].astype("f8") - expected[finite].astype("f8")) / (1 + np.abs(expected[finite]))
    assert difference.max(initial=0) <= tolerance


def export(module: Any, example: tuple[Any, ...], path: Path, *, dynamic: bool = True, decompose: bool = False) -> Path:
    """`module` exported by torch and saved; with `dynamic`, events (and steps of three-axis inputs) are left open."""
    import torch

    auto = torch.export.Dim.AUTO
    shapes = tuple({0: auto, 1: auto} if e.ndim == 3 else {0: auto} for e in example) if dynamic else None
    program = torch.export.export(module.eval(), example, dynamic_shapes=shapes)
    if decompose:
        program = program.run_decompositions()
    torch.export.save(program, path)
    return path


def agrees(module: Any, model: ir.Model, batches: Sequence[Sequence[Any]], *, exact: bool = True) -> None:
    """Hold `model` against `module` run eagerly by torch on every batch of input tensors, in float32 and float64."""
    import torch
    from torch.utils import _pytree as pytree

    checks = [("float32", ROUGH)] + ([("float64", EXACT)] if exact else [])
    for precision, tolerance in checks:
        dtype = getattr(torch, precision)
        twin = copy.deepcopy(module).eval().to(dtype)
        engine = session(model, precision)
        for batch in batches:
            inputs = [x.to(dtype) if x.is_floating_point() else x for x in batch]
            feed = {value.name: x.numpy().copy() for value, x in zip(model.graph.inputs, inputs, strict=True)}
            got = engine.run(None, feed)
            before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)
            try:
                with torch.no_grad():
                    expected = [leaf.numpy() for leaf in pytree.tree_leaves(twin(*inputs))]
            finally:
                torch.set_default_dtype(before)
            assert len(got) == len(expected)
            for a, b in zip(got, expected, strict=True):
                close(a, b, tolerance)
