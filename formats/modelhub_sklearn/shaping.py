"""Transformers that bend columns: power, quantile, polynomial, functions (sklearn/preprocessing)."""

from __future__ import annotations

from itertools import chain, combinations, combinations_with_replacement
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import safe_text
from modelhub_sklearn.estimator import Estimator, Name
from modelhub_sklearn.normal import quantile
from modelhub_sklearn.scaling import scaler, scaler_back
from modelhub_sklearn.table import Rows, converts, side_by_side

__all__: list[str] = []

DATA = "sklearn.preprocessing._data."

TERMS = 20_000
"""Columns a polynomial may have."""


@converts("transform", f"{DATA}PowerTransformer")
def power(e: Estimator, x: Rows) -> Rows:
    """Yeo-Johnson or Box-Cox, column by column, then standardised (scipy.stats.yeojohnson, scipy.special.boxcox)."""
    exponents = e.own("lambdas_", x.width)
    method = e.text("method")
    if method not in ("yeo-johnson", "box-cox"):
        raise e.refused(f"the method {method[:20]!r} is not known")
    bend = _yeo_johnson if method == "yeo-johnson" else _box_cox
    y = side_by_side([bend(x.column(index), exponents[index]) for index in range(x.width)])
    return scaler(e.part("_scaler"), y) if e.flag("standardize") else y


def _box_cox(x: Rows, exponent: np.floating[Any]) -> Rows:
    """(x^l - 1) / l, or log x for l = 0."""
    if exponent == 0:
        return x.op("Log")
    return x.op("Pow", exponent).op("Sub", 1.0).op("Div", exponent)


def _yeo_johnson(x: Rows, exponent: np.floating[Any]) -> Rows:
    """((x+1)^l - 1) / l for x >= 0, -((1-x)^(2-l) - 1) / (2-l) below; logarithms where l is 0 or 2.

    Written as expm1(l log1p(x)) / l in scipy; both sides are computed on |x| and the right one is chosen.
    """
    size = x.op("Abs")
    log = _log1p(size)
    high = log if abs(exponent) < EPSILON else _expm1(log.op("Mul", exponent)).op("Div", exponent)
    rest = 2 - exponent
    low = log if abs(rest) <= EPSILON else _expm1(log.op("Mul", rest)).op("Div", rest)
    below = x.b.op("Less", x.value, x.b.constant(np.zeros(1), "zero"))
    return high.where(below, low.op("Neg"))


EPSILON = float(np.spacing(1.0))


def _log1p(x: Rows) -> Rows:
    """log(1 + x) to the last digits for small x >= 0: log(u) x / (u - 1), u = 1 + x (Goldberg 1991, theorem 4)."""
    u = x.op("Add", 1.0)
    rest = u.op("Sub", 1.0)
    none = x.b.op("Equal", rest.value, x.b.constant(np.zeros(1), "zero"))
    ratio = x.op("Div", rest.where(none, np.ones(1)))
    infinite = x.b.op("IsInf", u.value)
    return x.where(infinite, u).where(x.b.op("Not", x.b.op("Or", none, infinite)), u.op("Log").op("Mul", ratio))


def _expm1(x: Rows) -> Rows:
    """exp(x) - 1 to the last digits: tanh(x/2) (exp(x) + 1)."""
    return x.op("Mul", 0.5).op("Tanh").op("Mul", x.op("Exp").op("Add", 1.0))


@converts("inverse_transform", f"{DATA}PowerTransformer")
def power_back(e: Estimator, x: Rows) -> Rows:
    """The inverse of Yeo-Johnson or Box-Cox."""
    exponents = e.own("lambdas_", x.width)
    if e.flag("standardize"):
        x = scaler_back(e.part("_scaler"), x)
    method = e.text("method")
    if method not in ("yeo-johnson", "box-cox"):
        raise e.refused(f"the method {method[:20]!r} is not known")
    back = _yeo_johnson_back if method == "yeo-johnson" else _box_cox_back
    return side_by_side([back(x.column(index), exponents[index]) for index in range(x.width)])


def _box_cox_back(x: Rows, exponent: np.floating[Any]) -> Rows:
    if exponent == 0:
        return x.op("Exp")
    return x.op("Mul", exponent).op("Add", 1.0).op("Pow", 1 / exponent)


def _yeo_johnson_back(x: Rows, exponent: np.floating[Any]) -> Rows:
    size = x.op("Abs")

    def undone(factor: np.floating[Any]) -> Rows:
        if abs(factor) < EPSILON:
            return _expm1(size)
        return size.op("Mul", factor).op("Add", 1.0).op("Pow", 1 / factor).op("Sub", 1.0)

    below = x.b.op("Less", x.value, x.b.constant(np.zeros(1), "zero"))
    return undone(exponent).where(below, undone(2 - exponent).op("Neg"))


@converts("transform", f"{DATA}QuantileTransformer", decides=True)
def quantiles(e: Estimator, x: Rows) -> Rows:
    """The share of training values below, on straight lines between quantiles; its normal quantile if asked for."""
    references = e.array("references_", None)
    table = e.array("quantiles_", len(references), x.width)
    if (np.diff(references) <= 0).any() or (np.diff(table, axis=0) < 0).any():
        raise e.broken("quantiles that fall")
    normal = e.text("output_distribution") == "normal"
    if not normal and e.text("output_distribution") != "uniform":
        raise e.refused("only the distributions uniform and normal are supported")
    y = side_by_side([_quantile(x.column(i), table[:, i], references, normal) for i in range(x.width)])
    return quantile(y) if normal else y


BOUND = 1e-7
"""sklearn/preprocessing/_data.py: BOUNDS_THRESHOLD."""


def _quantile(x: Rows, knots: NDArray[np.float64], values: NDArray[np.float64], normal: bool) -> Rows:
    """One column: the mean of numpy's interpolation from the left and from the right, which differ at equal knots."""
    b = x.b
    up = _interpolated(x, knots, values)
    down = _interpolated(x.op("Neg"), -knots[::-1], -values[::-1])
    y = up.op("Sub", down).op("Mul", 0.5)
    first, last = (b.constant(np.full(1, knot), "bound") for knot in (knots[0], knots[-1]))
    if normal:
        above = b.op("Greater", x.op("Add", BOUND).value, last)
        below = b.op("Less", x.op("Sub", BOUND).value, first)
    else:
        above, below = b.op("Equal", x.value, last), b.op("Equal", x.value, first)
    return y.where(above, np.ones(1)).where(below, np.zeros(1))


def _interpolated(x: Rows, knots: NDArray[np.float64], values: NDArray[np.float64]) -> Rows:
    """numpy.interp: on the line from the last knot not above x to the next; the end values outside; NaN stays.

    At a knot the value of that knot, of equal knots the last.
    """
    b = x.b
    if len(knots) == 1:
        return x.op("Mul", 0.0).op("Add", values[0])
    reached = x.number(b.op("LessOrEqual", b.constant(knots[1:], "knots"), x.value), len(knots) - 1)
    place = b.op("Cast", reached.total().value, to=7)
    gap = np.diff(knots)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slope = np.append(np.where(gap > 0, np.diff(values) / np.where(gap > 0, gap, 1), 0), 0.0)
    start, value, rise = (
        Rows(b, b.op("Gather", b.constant(array, name), place), 1)
        for array, name in ((knots, "start"), (values, "value"), (slope, "slope"))
    )
    inside = x.op("Max", float(knots[0])).op("Min", float(knots[-1]))
    return inside.op("Sub", start).op("Mul", rise).op("Add", value)


@converts("transform", "sklearn.preprocessing._polynomial.PolynomialFeatures")
def polynomial(e: Estimator, x: Rows) -> Rows:
    """Products of columns, in the order of scikit-learn: by degree, then by column."""
    low, high = e.whole("_min_degree"), e.whole("_max_degree")
    alone = e.flag("interaction_only")
    if high > 16 or comb(x.width + high, high) > TERMS:
        raise e.refused(f"a polynomial of more than {TERMS} terms")
    choose = combinations if alone else combinations_with_replacement
    terms = list(chain.from_iterable(choose(range(x.width), n) for n in range(max(1, low), high + 1)))
    parts = [_ones(x)] if e.flag("include_bias") else []
    # columns of one degree at once: the product of what the first, second, ... factors are
    for degree in range(max(1, low), high + 1):
        factors = [term for term in terms if len(term) == degree]
        if not factors:
            continue
        product = x.take([term[0] for term in factors])
        for place in range(1, degree):
            product = product.op("Mul", x.take([term[place] for term in factors]))
        parts.append(product)
    if not parts:
        raise e.refused("no column is left")
    return side_by_side(parts)


def _ones(x: Rows) -> Rows:
    """[N, 1] of ones, also where the row is not finite."""
    return x.column(0).number(x.b.op("Equal", x.column(0).value, x.column(0).value)).op("Max", 1.0)


FUNCTIONS = {
    "abs": "Abs",
    "absolute": "Abs",
    "arcsinh": "",
    "cbrt": "",
    "ceil": "Ceil",
    "cos": "Cos",
    "exp": "Exp",
    "expm1": "",
    "fabs": "Abs",
    "floor": "Floor",
    "log": "Log",
    "log10": "",
    "log1p": "",
    "log2": "",
    "negative": "Neg",
    "positive": "Identity",
    "reciprocal": "Reciprocal",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "square": "",
    "tanh": "Tanh",
}
"""numpy's name, and the operator that is the same; "" where it takes more than one."""

MODULES = (
    "numpy",
    "numpy._core._multiarray_umath",
    "numpy.core._multiarray_umath",
    "numpy._core.umath",
    "numpy.core.umath",
)


def _function(e: Estimator, key: str, x: Rows) -> Rows:
    """A numpy function of `FUNCTIONS` on every value; None changes nothing."""
    function = e.attributes.get(key)
    if function is None:
        return x
    name = function.name if isinstance(function, Name) else "an object"
    module, _, short = name.rpartition(".")
    if name in ("sklearn.preprocessing._function_transformer._identity", "sklearn.utils.validation.check_array"):
        return x
    if module not in MODULES or short not in FUNCTIONS:
        raise e.refused(
            f"{key}={safe_text(name)} is not among the functions that can be written: {', '.join(FUNCTIONS)}"
        )
    if FUNCTIONS[short]:
        return x.op(FUNCTIONS[short])
    match short:
        case "square":
            return x.op("Mul", x)
        case "log2" | "log10":
            return x.op("Log").op("Div", np.log(2.0 if short == "log2" else 10.0))
        case "cbrt":
            return x.op("Abs").op("Pow", 1 / 3).op("Mul", x.op("Sign"))
        case "arcsinh":
            return _arcsinh(x)
        case "expm1":
            return _expm1(x)
        case _:
            return _signed_log1p(x)


def _arcsinh(x: Rows) -> Rows:
    """sign(x) log(|x| + sqrt(x^2 + 1)), by log1p so that small x keep their digits, log 2|x| where squares overflow."""
    size = x.op("Abs")
    small = size.op("Min", 2.0**28)
    square = small.op("Mul", small)
    root = square.op("Add", 1.0).op("Sqrt").op("Add", 1.0)
    value = _log1p(small.op("Add", square.op("Div", root)))
    large = x.b.op("Greater", size.value, x.b.constant(np.array(2.0**28), "large"))
    return value.where(large, size.op("Log").op("Add", np.log(2.0))).op("Mul", x.op("Sign"))


def _signed_log1p(x: Rows) -> Rows:
    """log(1 + x), exact to the last digits also near 0 and below; NaN below -1."""
    u = x.op("Add", 1.0)
    rest = u.op("Sub", 1.0)
    none = x.b.op("Equal", rest.value, x.b.constant(np.zeros(1), "zero"))
    ratio = x.op("Div", rest.where(none, np.ones(1)))
    special = x.b.op("Or", x.b.op("IsInf", u.value), x.b.op("Equal", u.value, x.b.constant(np.zeros(1), "zero")))
    value = u.op("Log").op("Mul", ratio).where(special, u.op("Log"))
    return value.where(none, x)


FUNCTION = "sklearn.preprocessing._function_transformer.FunctionTransformer"


def _refuse_arguments(e: Estimator, key: str) -> None:
    if e.has(key) and not (isinstance(e.get(key), dict) and not e.get(key)):
        raise e.refused(f"a function with {key} is not supported")


@converts("transform", FUNCTION, decides=True)
def function(e: Estimator, x: Rows) -> Rows:
    """A function of numpy by name."""
    _refuse_arguments(e, "kw_args")
    return _function(e, "func", x)


@converts("inverse_transform", FUNCTION)
def function_back(e: Estimator, x: Rows) -> Rows:
    """The inverse function by name."""
    _refuse_arguments(e, "inv_kw_args")
    return _function(e, "inverse_func", x)
