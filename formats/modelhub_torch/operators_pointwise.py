"""Element-wise operators: arithmetic, activations, comparisons, choices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from modelhub_torch.call import Call
from modelhub_torch.translate import Operator, Tensor, Translation, Value, aten

BOOL = np.dtype(np.bool_)


def _unary(op_type: str) -> Operator:
    def unary(t: Translation, c: Call) -> Tensor:
        x = t.cast(c.tensor("self"), c.result())
        return t.op(op_type, x, shape=x.shape)

    return unary


for _name, _op in {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
    "neg": "Neg", "reciprocal": "Reciprocal", "erf": "Erf", "sin": "Sin", "cos": "Cos", "tan": "Tan", "sinh": "Sinh",
    "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "atan": "Atan", "asin": "Asin",
    "acos": "Acos", "floor": "Floor", "ceil": "Ceil", "sign": "Sign",
}.items():  # fmt: skip
    aten(f"{_name}.default")(_unary(_op))


@aten("round.default")
def round_half_even(t: Translation, c: Call) -> Tensor:
    """Both round halves to even."""
    x = c.tensor("self")
    return t.op("Round", x, shape=x.shape)


@aten("log1p.default")
def log1p(t: Translation, c: Call) -> Tensor:
    """log(1 + x), exact for small x too: x · log(u)/(u-1) with u = 1 + x (Goldberg 1991, theorem 4)."""
    x = t.cast(c.tensor("self"), c.result())
    one = t.scalar(1.0, x.dtype)
    u = t.op("Add", x, one, shape=x.shape)
    near = t.op("Equal", u, one, shape=x.shape, dtype=BOOL)
    far = t.op("Or", t.op("IsInf", x, shape=x.shape, dtype=BOOL), near, shape=x.shape)
    log = t.op("Log", u, shape=x.shape)
    step = t.op("Where", far, one, t.op("Sub", u, one, shape=x.shape), shape=x.shape, dtype=x.dtype)
    exact = t.op("Div", t.op("Mul", x, log, shape=x.shape), step, shape=x.shape)
    plain = t.op("Where", near, x, log, shape=x.shape, dtype=x.dtype)
    return t.op("Where", far, plain, exact, shape=x.shape, dtype=x.dtype)


@aten("expm1.default")
def expm1(t: Translation, c: Call) -> Tensor:
    """Gives exp(x) - 1, exact for small x too: (u-1) · x / log(u), u = exp(x) (Higham 2002, section 1.14.1)."""
    x = t.cast(c.tensor("self"), c.result())
    one = t.scalar(1.0, x.dtype)
    u = t.op("Exp", x, shape=x.shape)
    less = t.op("Sub", u, one, shape=x.shape)
    near = t.op("Equal", u, one, shape=x.shape, dtype=BOOL)
    far = t.op("IsInf", t.op("Log", u, shape=x.shape), shape=x.shape, dtype=BOOL)
    log = t.op("Where", near, one, t.op("Log", u, shape=x.shape), shape=x.shape, dtype=x.dtype)
    exact = t.op("Div", t.op("Mul", less, x, shape=x.shape), log, shape=x.shape)
    exact = t.op("Where", far, less, exact, shape=x.shape, dtype=x.dtype)
    return t.op("Where", near, x, exact, shape=x.shape, dtype=x.dtype)


@aten("rsqrt.default")
def rsqrt(t: Translation, c: Call) -> Tensor:
    """1 / sqrt(x)."""
    x = t.cast(c.tensor("self"), c.result())
    return t.op("Reciprocal", t.op("Sqrt", x, shape=x.shape), shape=x.shape)


@aten("log2.default", "log10.default")
def log_base(t: Translation, c: Call) -> Tensor:
    """The logarithm to base 2 or 10."""
    x = t.cast(c.tensor("self"), c.result())
    return binary(t, "Div", t.op("Log", x, shape=x.shape), math.log(2 if "log2" in c.node.target else 10), x.dtype)


@aten("trunc.default")
def trunc(t: Translation, c: Call) -> Tensor:
    """The number without what is behind the point."""
    x = c.tensor("self")
    size = t.op("Floor", t.op("Abs", x, shape=x.shape), shape=x.shape)
    return t.op("Mul", t.op("Sign", x, shape=x.shape), size, shape=x.shape)


@aten("square.default")
def square(t: Translation, c: Call) -> Tensor:
    """Gives x · x."""
    x = c.tensor("self")
    return t.op("Mul", x, x, shape=x.shape)


# Arithmetic of two operands


def binary(
    t: Translation, op_type: str, a: Value, b: Value, dtype: np.dtype[Any], result: Any = None, **attributes: int
) -> Tensor:
    """An ONNX operator on two operands brought to `dtype`, with broadcasting."""
    left, right = t.soften(t.operand(a, dtype), t.operand(b, dtype))
    shape = t.broadcast(left.shape, right.shape)
    return t.op(op_type, left, right, shape=shape, dtype=dtype if result is None else result, **attributes)


def _scaled(t: Translation, c: Call, value: Value, dtype: np.dtype[Any]) -> Value:
    """`value` times the argument `alpha`."""
    alpha = c.get("alpha", 1)
    return value if alpha == 1 else binary(t, "Mul", value, alpha, dtype)


@aten("add.Tensor", "add.Scalar")
def add(t: Translation, c: Call) -> Tensor:
    """Gives self + alpha · other; the sum of truth values is their Or."""
    dtype = c.result()
    if dtype == BOOL:
        c.get("alpha")
        return binary(t, "Or", c.get("self"), c.get("other"), dtype)
    return binary(t, "Add", c.get("self"), _scaled(t, c, c.get("other"), dtype), dtype)


@aten("sub.Tensor", "sub.Scalar")
def sub(t: Translation, c: Call) -> Tensor:
    """Gives self - alpha · other."""
    return binary(t, "Sub", c.get("self"), _scaled(t, c, c.get("other"), c.result()), c.result())


@aten("rsub.Scalar", "rsub.Tensor")
def rsub(t: Translation, c: Call) -> Tensor:
    """Other - alpha · self."""
    return binary(t, "Sub", c.get("other"), _scaled(t, c, c.get("self"), c.result()), c.result())


@aten("mul.Tensor", "mul.Scalar")
def mul(t: Translation, c: Call) -> Tensor:
    """Gives self · other; the product of truth values is their And."""
    dtype = c.result()
    return binary(t, "And" if dtype == BOOL else "Mul", c.get("self"), c.get("other"), dtype)


@aten("div.Tensor", "div.Scalar", "true_divide.Tensor")
def div(t: Translation, c: Call) -> Tensor:
    """Gives self / other as floating-point numbers."""
    return binary(t, "Div", c.get("self"), c.get("other"), c.result())


@aten("div.Tensor_mode", "div.Scalar_mode", "floor_divide.default")
def div_rounded(t: Translation, c: Call) -> Tensor:
    """Gives self / other, then rounded down ("floor") or towards zero ("trunc")."""
    mode = c.get("rounding_mode", None if "mode" in c.node.target else "floor")
    dtype = c.result()
    if not np.issubdtype(dtype, np.floating):
        raise c.refuse("rounded division of integers is not known")
    quotient = binary(t, "Div", c.get("self"), c.get("other"), dtype)
    if mode == "floor":
        return t.op("Floor", quotient, shape=quotient.shape)
    if mode == "trunc":
        size = t.op("Floor", t.op("Abs", quotient, shape=quotient.shape), shape=quotient.shape)
        return t.op("Mul", t.op("Sign", quotient, shape=quotient.shape), size, shape=quotient.shape)
    return quotient


@aten("pow.Tensor_Scalar", "pow.Tensor_Tensor", "pow.Scalar")
def pow_(t: Translation, c: Call) -> Tensor:
    """Gives self to the power of exponent; 2 and 1/2 as ATen computes them, by product and root."""
    base, exponent, dtype = c.get("self"), c.get("exponent"), c.result()
    if exponent == 2:
        return binary(t, "Mul", base, base, dtype)
    if exponent == 0.5 and isinstance(base, Tensor):
        return t.op("Sqrt", t.cast(base, dtype), shape=base.shape)
    return binary(t, "Pow", base, exponent, dtype)


@aten("fmod.Tensor", "fmod.Scalar")
def fmod(t: Translation, c: Call) -> Tensor:
    """What is left of self after whole times other, with the sign of self."""
    return binary(t, "Mod", c.get("self"), c.get("other"), c.result(), fmod=1)


@aten("remainder.Tensor", "remainder.Scalar")
def remainder(t: Translation, c: Call) -> Tensor:
    """What is left of self after whole times other, with the sign of other."""
    a, b, dtype = c.get("self"), c.get("other"), c.result()
    if not np.issubdtype(dtype, np.floating):
        return binary(t, "Mod", a, b, dtype)
    rest, zero = binary(t, "Mod", a, b, dtype, fmod=1), t.scalar(0.0, dtype)
    signs = [binary(t, "Less", value, zero, dtype, BOOL) for value in (rest, t.operand(b, dtype))]
    foreign = t.op("Xor", *signs, shape=rest.shape)
    nonzero = t.op("Not", binary(t, "Equal", rest, zero, dtype, BOOL), shape=rest.shape)
    foreign = t.op("And", foreign, nonzero, shape=rest.shape)
    return t.op("Where", foreign, binary(t, "Add", rest, b, dtype), rest, shape=rest.shape, dtype=dtype)


@aten("atan2.default")
def atan2(t: Translation, c: Call) -> Tensor:
    """The angle of the point (other, self): atan(y / x), and half a turn from there where x is negative or -0."""
    dtype = c.result()
    y, x = t.operand(c.tensor("self"), dtype), t.operand(c.tensor("other"), dtype)
    shape, zero = t.broadcast(y.shape, x.shape), t.scalar(0.0, dtype)

    def negative(value: Tensor) -> Tensor:
        inverse = t.op("Reciprocal", value, shape=value.shape)
        below = [t.op("Less", v, zero, shape=v.shape, dtype=BOOL) for v in (value, inverse)]
        return t.op("Or", *below, shape=value.shape)

    slope = t.op("Atan", t.op("Div", y, x, shape=shape), shape=shape)
    nowhere = [t.op("Equal", value, zero, shape=value.shape, dtype=BOOL) for value in (y, x)]
    slope = t.op("Where", t.op("And", *nowhere, shape=shape), zero, slope, shape=shape, dtype=dtype)
    turn = t.op("Where", negative(y), t.scalar(-math.pi, dtype), t.scalar(math.pi, dtype), shape=y.shape, dtype=dtype)
    turned = t.op("Add", slope, turn, shape=shape)
    return t.op("Where", negative(x), turned, slope, shape=shape, dtype=dtype)


@aten("maximum.default", "max.other")
def maximum(t: Translation, c: Call) -> Tensor:
    """The greater of two."""
    return binary(t, "Max", c.get("self"), c.get("other"), c.result())


@aten("minimum.default", "min.other")
def minimum(t: Translation, c: Call) -> Tensor:
    """The lesser of two."""
    return binary(t, "Min", c.get("self"), c.get("other"), c.result())


@aten("clamp.default", "clamp.Tensor", "clamp_min.default", "clamp_max.default", "clip.default")
def clamp(t: Translation, c: Call) -> Tensor:
    """The value, but no less than min and no more than max."""
    dtype = c.result()
    x = t.cast(c.tensor("self"), dtype)
    low, high = c.get("min"), c.get("max")
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        return clip(t, x, low, high)
    if low is not None:
        x = binary(t, "Max", x, low, dtype)
    return x if high is None else binary(t, "Min", x, high, dtype)


def clip(t: Translation, x: Tensor, low: Value, high: Value) -> Tensor:
    """Clip with bounds that are numbers or None."""
    bounds = [None if bound is None else t.operand(bound, x.dtype) for bound in (low, high)]
    while bounds and bounds[-1] is None:
        bounds.pop()
    return t.op("Clip", x, *bounds, shape=x.shape) if bounds else x


# Comparisons and choices


def common(a: Value, b: Value) -> np.dtype[Any]:
    """The dtype in which torch computes with a and b.

    A tensor with axes outranks a 0-d tensor, and that a number, unless the lesser is of a higher kind
    (truth value < integer < floating-point); see "Type promotion" in torch's documentation.
    """

    def kind(dtype: np.dtype[Any]) -> int:
        return 0 if dtype == BOOL else 1 if np.issubdtype(dtype, np.integer) else 2

    ranks: list[list[np.dtype[Any]]] = [[], [], []]
    for value in (a, b):
        if isinstance(value, Tensor):
            ranks[0 if value.rank else 1].append(value.dtype)
        else:
            ranks[2].append(
                BOOL if isinstance(value, bool) else np.dtype(type(value) if isinstance(value, float) else int)
            )
    best: np.dtype[Any] | None = None
    for level, dtypes in enumerate(ranks):
        for dtype in dtypes:
            if best is None or kind(dtype) > kind(best):
                best = np.dtype(np.float32) if level == 2 and kind(dtype) == 2 else dtype
            elif dtype in ranks[level] and best in ranks[level] and kind(dtype) == kind(best):
                best = np.promote_types(best, dtype)
    assert best is not None
    return best


def _comparison(op_type: str, negate: bool = False) -> Operator:
    def compare(t: Translation, c: Call) -> Tensor:
        a, b = c.get("self"), c.get("other")
        dtype = common(a, b)
        if dtype == BOOL and op_type != "Equal":
            dtype = np.dtype(np.int32)
        answer = binary(t, op_type, a, b, dtype, BOOL)
        return t.op("Not", answer, shape=answer.shape) if negate else answer

    return compare


_COMPARISONS: dict[str, Callable[[], Operator]] = {
    "eq": lambda: _comparison("Equal"),
    "ne": lambda: _comparison("Equal", negate=True),
    "gt": lambda: _comparison("Greater"),
    "lt": lambda: _comparison("Less"),
    "ge": lambda: _comparison("GreaterOrEqual"),
    "le": lambda: _comparison("LessOrEqual"),
}
for _name, _make in _COMPARISONS.items():
    aten(f"{_name}.Tensor", f"{_name}.Scalar")(_make())


def truth(t: Translation, value: Tensor) -> Tensor:
    """Whether the entries differ from zero."""
    return value if value.dtype == BOOL else t.cast(value, BOOL)


def _logical(op_type: str, only_bool: bool) -> Operator:
    def logical(t: Translation, c: Call) -> Tensor:
        a = c.tensor("self")
        b = c.get("other")
        if only_bool and c.result() != BOOL:
            raise c.refuse("bit operations on integers are not known")
        other = b if isinstance(b, Tensor) else t.operand(bool(b), BOOL)
        return binary(t, op_type, truth(t, a), truth(t, other), BOOL)

    return logical


for _name, _op in {"and": "And", "or": "Or", "xor": "Xor"}.items():
    aten(f"logical_{_name}.default")(_logical(_op, only_bool=False))
    aten(f"bitwise_{_name}.Tensor", f"bitwise_{_name}.Scalar", f"__{_name}__.Tensor", f"__{_name}__.Scalar")(
        _logical(_op, only_bool=True)
    )


@aten("logical_not.default", "bitwise_not.default")
def not_(t: Translation, c: Call) -> Tensor:
    """The opposite truth value."""
    x = c.tensor("self")
    if "bitwise" in c.node.target and x.dtype != BOOL:
        raise c.refuse("bit operations on integers are not known")
    return t.op("Not", truth(t, x), shape=x.shape)


@aten("isnan.default")
def isnan(t: Translation, c: Call) -> Tensor:
    """Whether entries are NaN; integers never are."""
    x = c.tensor("self")
    return t.op("IsNaN", x, shape=x.shape, dtype=BOOL) if x.floating else Tensor(x.shape, BOOL, filled=False)


@aten("isinf.default")
def isinf(t: Translation, c: Call) -> Tensor:
    """Whether entries are infinite."""
    x = c.tensor("self")
    return t.op("IsInf", x, shape=x.shape, dtype=BOOL) if x.floating else Tensor(x.shape, BOOL, filled=False)


@aten("isfinite.default")
def isfinite(t: Translation, c: Call) -> Tensor:
    """Whether entries are neither NaN nor infinite."""
    x = c.tensor("self")
    odd = t.op(
        "Or", t.op("IsNaN", x, shape=x.shape, dtype=BOOL), t.op("IsInf", x, shape=x.shape, dtype=BOOL), shape=x.shape
    )
    return t.op("Not", odd, shape=x.shape)


@aten("nan_to_num.default")
def nan_to_num(t: Translation, c: Call) -> Tensor:
    """NaN replaced by 0, infinities by the largest numbers of the dtype, unless others are given."""
    x = c.tensor("self")
    largest = float(np.finfo(x.dtype).max)
    now = x
    for test, detect, name, default in (
        ("IsNaN", {}, "nan", 0.0),
        ("IsInf", {"detect_negative": 0}, "posinf", largest),
        ("IsInf", {"detect_positive": 0}, "neginf", -largest),
    ):
        value = c.number(name, None) if c.has(name) else default
        where = t.op(test, x, shape=x.shape, dtype=BOOL, **detect)
        now = t.op("Where", where, t.scalar(value, x.dtype), now, shape=x.shape, dtype=x.dtype)
    return now


@aten("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def where(t: Translation, c: Call) -> Tensor:
    """Gives self where the condition holds, else other."""
    condition, dtype = truth(t, c.tensor("condition")), c.result()
    a, b = t.operand(c.get("self"), dtype), t.operand(c.get("other"), dtype)
    return t.op("Where", condition, a, b, shape=t.broadcast(condition.shape, a.shape, b.shape), dtype=dtype)


@aten("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(t: Translation, c: Call) -> Tensor:
    """Value where the mask holds, else self."""
    x, mask = c.tensor("self"), truth(t, c.tensor("mask"))
    value = t.operand(c.get("value"), x.dtype)
    return t.op("Where", mask, value, x, shape=t.broadcast(mask.shape, x.shape), dtype=x.dtype)
