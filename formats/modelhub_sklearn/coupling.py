"""Probabilities of several classes from those of every pair, as libsvm couples them.

Source: sklearn/svm/src/libsvm/svm.cpp, sigmoid_predict and multiclass_probability; Wu, Lin and Weng, "Probability
estimates for multi-class classification by pairwise coupling", JMLR 5 (2004) 975, second method.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.builder import KEPT, Builder
from modelhub_sklearn.table import Rows, side_by_side

__all__ = ["coupled"]

SMALLEST = 1e-7
"""Probabilities of a pair are not nearer to 0 and 1."""

ROUNDS = 100


def coupled(pairs: Rows, slope: NDArray[np.float64], offset: NDArray[np.float64], count: int) -> Rows:
    """[N, count] from decisions [N, pairs]: p minimises the sum over pairs of (r_ji p_i - r_ij p_j)^2, nearly.

    libsvm goes round the classes until no component is off by 0.005 / count, and stops there: so do we, row by row.
    """
    power = pairs.op("Mul", slope).op("Add", offset)
    # 1 / (1 + exp(power)), without overflow and with all digits
    fall = power.op("Abs").op("Neg").op("Exp")
    small, large = fall.op("Div", fall.op("Add", 1.0)), fall.op("Add", 1.0).op("Reciprocal")
    b = pairs.b
    above = b.op("GreaterOrEqual", power.value, b.constant(np.zeros(1), "zero"))
    first = large.where(above, small).op("Max", SMALLEST).op("Min", 1 - SMALLEST)
    second = first.op("Neg").op("Add", 1.0)
    place = {pair: index for index, pair in enumerate(combinations(range(count), 2))}
    r = {(i, j): first.column(index) for (i, j), index in place.items()}
    r |= {(j, i): second.column(index) for (i, j), index in place.items()}
    rows = [side_by_side([_entry(r, t, j, count) for j in range(count)]) for t in range(count)]
    start = rows[0].op("Mul", 0.0).op("Add", 1.0 / count)
    return Rows(b, _loop(start, rows, count), count)


def _entry(r: dict[tuple[int, int], Rows], t: int, j: int, count: int) -> Rows:
    """Q_tj, [N, 1]: -r_jt r_tj, and on the diagonal the sum of r_it^2."""
    if t != j:
        return r[j, t].op("Mul", r[t, j]).op("Neg")
    total = None
    for i in range(count):
        if i != t:
            square = r[i, t].op("Mul", r[i, t])
            total = square if total is None else total.op("Add", square)
    assert total is not None
    return total


def _loop(start: Rows, q: list[Rows], count: int) -> ir.Value:
    """A Loop whose body is one round; it ends when no row is off any more."""
    b = start.b
    go, rounds = b.constant(np.array(True), "go"), b.constant(np.array(max(ROUNDS, count), np.int64), "rounds")
    body = Builder()  # names inside of a loop must not be those outside
    p = Rows(body, body.input("round/p", ["N", count], "float64"), count)
    with body.scope("round"):
        left, moved = _round(p, q, count)
    number, before = (
        ir.Value(name=f"round/{name}", type=ir.TensorType(kind), shape=ir.Shape([]))
        for name, kind in (("number", ir.DataType.INT64), ("go", ir.DataType.BOOL))
    )
    body.output(left, "round/left", [], "bool")
    body.output(moved.value, "round/moved", ["N", count], "float64")
    inner = body.finish().graph
    inner.inputs[:] = [number, before, *inner.inputs]
    inner.name = "round"
    for kept in (inner, *inner):
        kept.metadata_props[KEPT] = "yes"
    return b.op("Loop", rounds, go, start.value, body=ir.AttrGraph("body", inner))


def _round(p: Rows, q: list[Rows], count: int) -> tuple[ir.Value, Rows]:
    """Whether a row is still off, and p after a round: rows that are not off stay as they are."""
    b = p.b

    def over(row: Rows) -> Rows:  # a row of Q, which is computed outside of the loop
        return Rows(b, row.value, count)

    product = over(q[0]).op("Mul", p.column(0))
    for j in range(1, count):
        product = product.op("Add", over(q[j]).op("Mul", p.column(j)))
    mean = p.op("Mul", product).total()
    error = b.op("ReduceMax", product.op("Sub", mean).op("Abs").value, b.ints(1), keepdims=1)
    off = b.op("Not", b.op("Less", error, b.constant(np.full(1, 0.005 / count), "limit")))
    now = p
    for t in range(count):
        peak = over(q[t]).column(t)
        step = mean.op("Sub", product.column(t)).op("Div", peak)
        grown = step.op("Add", 1.0)
        bent = step.op("Mul", peak).op("Add", product.column(t).op("Mul", 2.0)).op("Mul", step)
        mean = mean.op("Add", bent).op("Div", grown).op("Div", grown)
        product = product.op("Add", over(q[t]).op("Mul", step)).op("Div", grown)
        now = now.op("Add", step.op("Mul", np.eye(count)[t], width=count)).op("Div", grown)
    some = b.op("ReduceSum", b.op("Cast", off, to=ir.DataType.INT64.value), keepdims=0)
    return b.op("Greater", some, b.constant(np.array(0, np.int64), "nobody")), p.where(off, now)
