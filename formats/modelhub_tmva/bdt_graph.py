"""A BDT as ONNX operators: columns for Fisher cuts in front of the forest, the preselection or the median behind it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.builder import Builder
from modelhub.graph.forest_onnx import apply_link, margins
from modelhub_tmva.answer import Answer
from modelhub_tmva.bdt import BDT, Cut, Fisher

__all__ = ["respond"]


def respond(b: Builder, bdt: BDT, answer: Answer, x: ir.Value) -> ir.Value:
    """The response [N, outputs] float32 to events `x` [N, variables] float32, or what it stands for."""
    row = x if bdt.fisher is None else _with_fisher(b, bdt.fisher, x)
    with b.kept():  # TMVA sums in float64; a thousand trees in float32 are off by more than 1e-6
        y = margins(b, bdt.forest, row)
        y = apply_link(b, bdt.forest.link, y) if bdt.median is None else _trimmed_mean(b, y, bdt.median)
        y = answer.apply(b, y)
    y = b.op("Cast", y, to=ir.DataType.FLOAT)
    return _preselected(b, bdt.cuts, x, y) if bdt.cuts else y


def _with_fisher(b: Builder, fisher: Fisher, x: ir.Value) -> ir.Value:
    """The event and, behind it, 1 or 0 for every Fisher cut passed; decided in float64 as in TMVA."""
    with b.scope("fisher"), b.kept():
        wide = b.op("Cast", x, to=ir.DataType.DOUBLE)
        value = b.op("Gemm", wide, b.constant(fisher.weights, "weights"), b.constant(fisher.offset, "offset"))
        passed = b.op("Greater", value, b.constant(fisher.cut, "cut"))
    return b.op("Concat", x, b.op("Cast", passed, to=ir.DataType.FLOAT), axis=1)


def _preselected(b: Builder, cuts: tuple[Cut, ...], x: ir.Value, y: ir.Value) -> ir.Value:
    """`y`, but where cuts of the preselection answer, the answer of the last of them."""
    for index, cut in enumerate(cuts):
        with b.scope(f"preselection_{index}"):
            column = b.op("Gather", x, b.ints(cut.feature), axis=1)
            with b.kept():
                column = b.op("Cast", column, to=ir.DataType.DOUBLE)
                value = b.constant(np.array([cut.value], np.float64), "value")
                passed = b.op("Less" if cut.below else "Greater", column, value)
            y = b.op("Where", passed, b.constant(np.array([cut.answer], np.float32), "answer"), y)
    return y


def _trimmed_mean(b: Builder, y: ir.Value, weight: NDArray[np.float64]) -> ir.Value:
    """AdaBoostR2: the mean [N, 1] of the responses y [N, trees] near their weighted median, both float64.

    As in MethodBDT::GetRegressionValues. Sorted by response, the first `t` trees are those that bring the sum of
    weights above half of it all; the mean goes over the places from t - trees/6 - 1 up to and without t + trees/6,
    divided as integers and cut at the ends.
    """
    trees = len(weight)
    reach = trees // 6
    with b.scope("median"):
        response, order = b.ops("TopK", y, b.ints(trees), outputs=2, axis=1, largest=0, sorted=1)
        share = b.op("Gather", b.constant(weight, "weight"), order)
        above = b.op("Greater", b.op("CumSum", share, b.constant(np.array(1), "axis")), _half(b, weight))
        found = b.op("ArgMax", b.op("Cast", above, to=ir.DataType.INT32), axis=1, keepdims=1)
        place = b.constant(np.arange(trees), "place")
        low = b.op("Sub", found, b.ints(reach))  # t is found + 1, as places count from 0
        high = b.op("Add", found, b.ints(reach + 1))
        near = b.op("And", b.op("GreaterOrEqual", place, low), b.op("Less", place, high))
        near = b.op("Cast", near, to=ir.DataType.DOUBLE)
        total = b.op("ReduceSum", b.op("Mul", response, near), b.ints(1), keepdims=1)
        return b.op("Div", total, b.op("ReduceSum", near, b.ints(1), keepdims=1))


def _half(b: Builder, weight: NDArray[np.float64]) -> ir.Value:
    return b.constant(np.array([sum(weight.tolist()) / 2]), "half")
