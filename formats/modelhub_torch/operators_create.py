"""Operators that make tensors out of nothing, and the arithmetic of sizes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from modelhub_torch import sizes
from modelhub_torch.call import Call
from modelhub_torch.sizes import Expr, Size
from modelhub_torch.translate import TABLE, Operator, Result, Tensor, Translation, aten

INT64 = np.dtype(np.int64)
FLOAT64 = np.dtype(np.float64)
LONGEST = 1 << 20


def _filled(number: float | None) -> Operator:
    """A tensor full of one number, given here or by the argument `fill_value`."""

    def fill(_: Translation, c: Call) -> Tensor:
        like = c.optional("self")
        c.get("dtype")
        shape = c.sizes("size") if "size" in c.node.args else like.shape if like is not None else ()
        value = c.get("fill_value") if number is None else number
        if not isinstance(value, (int, float)):
            raise c.refuse("it must be filled with a plain number")
        dtype = c.result()
        return Tensor(shape, dtype, filled=np.array(value).astype(dtype).item() if dtype.kind in "biu" else value)

    return fill


for _name, _number in (("zeros", 0), ("ones", 1), ("full", None)):
    aten(f"{_name}.default", f"new_{_name}.default", f"{_name}_like.default")(_filled(_number))


@aten("fill.Scalar", "fill.Tensor")
def overwrite(t: Translation, c: Call) -> Tensor:
    """A tensor of the same shape, full of `value`."""
    x, value = c.tensor("self"), c.get("value")
    if isinstance(value, (int, float)):
        return Tensor(x.shape, x.dtype, filled=value)
    return t.op("Expand", t.operand(value, x.dtype), t.sizes(x.shape), shape=x.shape)


@aten("zero.default")
def zero(_: Translation, c: Call) -> Tensor:
    """A tensor of the same shape, full of zeros."""
    return Tensor(c.tensor("self").shape, c.result(), filled=0)


@aten("scalar_tensor.default")
def scalar_tensor(t: Translation, c: Call) -> Tensor:
    """A number as a 0-d tensor."""
    c.get("dtype")
    return t.operand(c.get("s"), c.result())


@aten("arange.default", "arange.start", "arange.start_step")
def arange(t: Translation, c: Call) -> Tensor:
    """start, start + step, ... below end."""
    c.get("dtype")
    dtype = c.result()
    start, end, step = c.get("start", 0), c.get("end"), c.get("step", 1)
    if isinstance(start, (int, float)) and isinstance(end, (int, float)) and isinstance(step, (int, float)):
        if not 0 <= (end - start) / (step or 1) < LONGEST:
            raise c.refuse("a range of that many numbers is not known")
        return t.constant(np.arange(start, end, step).astype(dtype), "arange")
    if not isinstance(start, int) or not isinstance(end, (int, Expr)) or step != 1:
        raise c.refuse("a dynamic range must count in ones")
    bounds = [t.operand(start, INT64), t.operand(end, INT64), t.operand(1, INT64)]
    return t.cast(t.op("Range", *bounds, shape=(sizes.add(end, -start),), dtype=INT64), dtype)


def _triangle(upper: int) -> Operator:
    def triangle(t: Translation, c: Call) -> Tensor:
        x, k = c.tensor("self"), c.integer("diagonal", 0)
        t.mixes(*x.shape[-2:])
        number = t.constant(np.array(k, np.int64), "diagonal")
        if x.dtype.kind == "b":
            whole = t.op("Trilu", t.cast(x, np.dtype(np.int32)), number, shape=x.shape, upper=upper)
            return t.cast(whole, x.dtype)
        return t.op("Trilu", x, number, shape=x.shape, upper=upper)

    return triangle


aten("tril.default")(_triangle(0))
aten("triu.default")(_triangle(1))

# Sizes


@aten("sym_size.int")
def sym_size(t: Translation, c: Call) -> Size:
    """The size of an axis."""
    x = c.tensor("self")
    return x.shape[t.axis(x.shape, c.integer("dim"))]


@aten("sym_numel.default")
def sym_numel(_: Translation, c: Call) -> Size:
    """The number of entries."""
    return sizes.product(c.tensor("self").shape)


def _on_sizes(function: Callable[[Size, Size], Size]) -> Operator:
    def compute(_: Translation, c: Call) -> Result:
        a, b = (c.get(name) for name in list(c.node.args)[:2])
        if not isinstance(a, (int, Expr)) or not isinstance(b, (int, Expr)):
            raise c.refuse("it is known for whole numbers only")
        return function(a, b)

    return compute


TABLE |= {
    "_operator.add": _on_sizes(sizes.add),
    "_operator.sub": _on_sizes(lambda a, b: sizes.add(a, sizes.mul(-1, b))),
    "_operator.mul": _on_sizes(sizes.mul),
    "_operator.floordiv": _on_sizes(sizes.floordiv),
    "_operator.mod": _on_sizes(sizes.mod),
    "torch.sym_max": _on_sizes(sizes.maximum),
    "torch.sym_min": _on_sizes(sizes.minimum),
}


def _quotient(t: Translation, c: Call) -> Result:
    """The quotient a / b of two sizes: a number that is computed when the network runs."""
    a, b = (t.operand(c.get(name), FLOAT64) for name in list(c.node.args)[:2])
    return t.op("Div", a, b, shape=())


def _to_float(t: Translation, c: Call) -> Tensor:
    return t.operand(c.get(next(iter(c.node.args))), FLOAT64)


def _root(t: Translation, c: Call) -> Tensor:
    return t.op("Sqrt", _to_float(t, c), shape=())


TABLE |= {
    "_operator.truediv": _quotient,
    "torch.sym_float": _to_float,
    "torch._sym_sqrt": _root,
    "math.sqrt": _root,
}


def _nothing(_: Translation, c: Call) -> Result:
    """An assertion about the example or the ranges of sizes: no part of the computation."""
    for name in c.node.args:
        c.get(name)
    return None


for _name in (
    "_assert_tensor_metadata.default", "_assert_scalar.default", "_assert_async.msg", "_assert_async.default",
    "sym_constrain_range.default", "sym_constrain_range_for_size.default",
):  # fmt: skip
    aten(_name)(_nothing)
TABLE |= {f"_operator.{name}": _nothing for name in ("eq", "ne", "lt", "gt", "le", "ge", "and_", "or_", "not_")}
