"""Operators that combine the entries of axes: sums, means, extremes, softmax, norms, cumulative sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelhub_torch.call import Call
from modelhub_torch.operators_pointwise import binary, truth
from modelhub_torch.sizes import Size, add, product
from modelhub_torch.translate import Operator, Tensor, Translation, aten

INT64 = np.dtype(np.int64)


def _axes(t: Translation, x: Tensor, dims: Sequence[int] | None) -> list[int]:
    """The axes to reduce, all of them for None or an empty list."""
    return sorted({t.axis(x.shape, d) for d in dims}) if dims else list(range(x.rank))


def reduce(t: Translation, op_type: str, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    """An ONNX Reduce operator over `axes`."""
    t.mixes(*(x.shape[a] for a in axes))
    if not x.rank:
        return x
    shape = tuple(1 if i in axes else s for i, s in enumerate(x.shape) if keep or i not in axes)
    return t.op(op_type, x, t.b.ints(*axes), shape=shape, dtype=x.dtype, keepdims=int(keep))


def _result(c: Call) -> np.dtype[Any]:
    """The dtype to compute in: the recorded one, which follows the argument `dtype`."""
    c.get("dtype")
    return c.result()


def _dims(c: Call) -> list[int] | None:
    return c.integers("dim") if c.has("dim") else None


def _reduction(op_type: str) -> Operator:
    def reduction(t: Translation, c: Call) -> Tensor:
        x = t.cast(c.tensor("self"), _result(c))
        return reduce(t, op_type, x, _axes(t, x, _dims(c)), c.flag("keepdim"))

    return reduction


aten("sum.default", "sum.dim_IntList")(_reduction("ReduceSum"))
aten("mean.default", "mean.dim")(_reduction("ReduceMean"))
aten("amax.default", "max.default")(_reduction("ReduceMax"))
aten("amin.default", "min.default")(_reduction("ReduceMin"))
aten("prod.default", "prod.dim_int")(_reduction("ReduceProd"))
aten("logsumexp.default")(_reduction("ReduceLogSumExp"))


def _extreme(reducer: str, finder: str) -> Operator:
    def extreme(t: Translation, c: Call) -> list[Tensor]:
        x, keep = c.tensor("self"), c.flag("keepdim")
        axis = t.axis(x.shape, c.integer("dim"))
        values = reduce(t, reducer, x, [axis], keep)
        return [values, t.op(finder, x, shape=values.shape, dtype=INT64, axis=axis, keepdims=int(keep))]

    return extreme


aten("max.dim")(_extreme("ReduceMax", "ArgMax"))
aten("min.dim")(_extreme("ReduceMin", "ArgMin"))


def _arg(op_type: str) -> Operator:
    def arg(t: Translation, c: Call) -> Tensor:
        if not c.has("dim"):
            raise c.refuse("it needs an axis")
        x, keep = c.tensor("self"), c.flag("keepdim")
        axis = t.axis(x.shape, c.integer("dim"))
        t.mixes(x.shape[axis])
        shape = tuple(1 if i == axis else s for i, s in enumerate(x.shape) if keep or i != axis)
        return t.op(op_type, x, shape=shape, dtype=INT64, axis=axis, keepdims=int(keep))

    return arg


aten("argmax.default")(_arg("ArgMax"))
aten("argmin.default")(_arg("ArgMin"))


def _truth_reduction(op_type: str) -> Operator:
    def reduction(t: Translation, c: Call) -> Tensor:
        x = t.cast(truth(t, c.tensor("self")), np.dtype(np.int32))
        return truth(t, reduce(t, op_type, x, _axes(t, x, _dims(c)), c.flag("keepdim")))

    return reduction


aten("any.default", "any.dim", "any.dims")(_truth_reduction("ReduceMax"))
aten("all.default", "all.dim", "all.dims")(_truth_reduction("ReduceMin"))


@aten("var.correction", "var.dim", "std.correction", "std.dim")
def var(t: Translation, c: Call) -> Tensor:
    """The mean squared distance from the mean, with n - correction for n; std is its root."""
    x = c.tensor("self")
    axes, keep = _axes(t, x, _dims(c)), c.flag("keepdim")
    if c.node.target.endswith(".dim"):
        correction = float(c.flag("unbiased", default=True))
    else:
        correction = c.number("correction") if c.has("correction") else 1.0
    away = binary(t, "Sub", x, reduce(t, "ReduceMean", x, axes, keep=True), x.dtype)
    total = reduce(t, "ReduceSumSquare", away, axes, keep)
    count: Size = product(x.shape[a] for a in axes)
    if correction != int(correction):
        raise c.refuse("a correction that is no integer is not known")
    result = binary(t, "Div", total, add(count, -int(correction)), x.dtype)
    return t.op("Sqrt", result, shape=result.shape) if ".std." in c.node.target else result


@aten("linalg_vector_norm.default", "norm.ScalarOpt_dim", "norm.Scalar")
def norm(t: Translation, c: Call) -> Tensor:
    """The 1-, 2- or infinity-norm over axes."""
    x = t.cast(c.tensor("self"), _result(c))
    order = c.get("p" if ".norm." in c.node.target else "ord", 2)
    if order == float("inf"):
        magnitude = t.op("Abs", x, shape=x.shape)
        return reduce(t, "ReduceMax", magnitude, _axes(t, x, _dims(c)), c.flag("keepdim"))
    if order not in (1, 2):
        raise c.refuse("only the 1-, 2- and infinity-norm are known")
    return reduce(t, "ReduceL1" if order == 1 else "ReduceL2", x, _axes(t, x, _dims(c)), c.flag("keepdim"))


def _soft(op_type: str) -> Operator:
    def soft(t: Translation, c: Call) -> Tensor:
        x = t.cast(c.tensor("self"), _result(c))
        c.get("half_to_float")
        axis = t.axis(x.shape, c.integer("dim"))
        if not x.rank:
            raise c.refuse("a softmax of a single number is not known")
        t.mixes(x.shape[axis])
        return t.op(op_type, x, shape=x.shape, axis=axis if axis < x.rank - 1 else -1)

    return soft


aten("softmax.int", "_softmax.default", "_safe_softmax.default")(_soft("Softmax"))
aten("log_softmax.int", "_log_softmax.default")(_soft("LogSoftmax"))


@aten("argsort.default", "argsort.stable")
def argsort(t: Translation, c: Call) -> Tensor:
    """Where the entries stood before they were put in order."""
    return _sorted(t, c)[1]


@aten("cosine_similarity.default")
def cosine_similarity(t: Translation, c: Call) -> Tensor:
    """The product of two vectors, each divided by its length (at least eps) first (ATen: Distance.cpp)."""
    a, b, eps = c.tensor("x1"), c.tensor("x2"), c.number("eps", 1e-8)
    shape = t.broadcast(a.shape, b.shape)
    axis = t.axis(shape, c.integer("dim", 1)) - len(shape)
    units = []
    for x in (a, b):
        length = reduce(t, "ReduceL2", x, [axis + x.rank], keep=True)
        units.append(binary(t, "Div", x, binary(t, "Max", length, eps, x.dtype), x.dtype))
    whole = binary(t, "Mul", units[0], units[1], a.dtype)
    return reduce(t, "ReduceSum", whole, [axis + whole.rank], keep=False)


@aten("cumsum.default")
def cumsum(t: Translation, c: Call) -> Tensor:
    """Sums up to each entry along an axis."""
    x = t.cast(c.tensor("self"), _result(c))
    axis = t.axis(x.shape, c.integer("dim"))
    t.mixes(x.shape[axis])
    return t.op("CumSum", x, t.constant(np.array(axis, np.int64), "axis"), shape=x.shape)


@aten("topk.default")
def topk(t: Translation, c: Call) -> list[Tensor]:
    """The k largest (or smallest) entries along an axis, and where they stood."""
    x, k = c.tensor("self"), c.integer("k")
    axis = t.axis(x.shape, c.integer("dim", -1))
    t.mixes(x.shape[axis])
    shape = tuple(k if i == axis else s for i, s in enumerate(x.shape))
    largest, ordered = int(c.flag("largest", default=True)), int(c.flag("sorted", default=True))
    return t.ops(
        "TopK", x, t.b.ints(k), outputs=[(shape, x.dtype), (shape, INT64)], axis=axis, largest=largest, sorted=ordered
    )


@aten("sort.default", "sort.stable")
def sort(t: Translation, c: Call) -> list[Tensor]:
    """All entries along an axis in order, and where they stood."""
    return _sorted(t, c)


def _sorted(t: Translation, c: Call) -> list[Tensor]:
    """TopK of all entries: among equal ones the earlier comes first."""
    c.get("stable")
    x = c.tensor("self")
    axis = t.axis(x.shape, c.integer("dim", -1))
    t.mixes(x.shape[axis])
    largest = int(c.flag("descending"))
    return t.ops(
        "TopK", x, t.size(x.shape[axis]), outputs=[(x.shape, x.dtype), (x.shape, INT64)], axis=axis, largest=largest
    )
