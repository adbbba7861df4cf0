"""Functions that onnxruntime has no float64 kernel for, written in those it has: good to a few units of 1e-16.

Each says its formula. The nodes inside are quiet: a function as a whole is rounded once (`equivalence.shaking`).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import onnx_ir as ir
from numpy.polynomial import chebyshev

from modelhub.graph.scribe import Scribe, operands

__all__ = ["FUNCTIONS", "QUIET", "quiet"]

QUIET = "modelhub.quiet"
"""The metadata key of nodes inside a function, at which no float32 engine rounds."""

DEGREE = 28


@cache
def _erfc_polynomial() -> tuple[float, ...]:
    """Powers of s in log(exp(z²) erfc(z) / t), with t = 2 / (2 + z) and s = 2 t - 1 in [-1, 1], for z >= 0.

    The form is that of W. H. Press et al., Numerical Recipes (3rd ed.), 6.2.2; the coefficients are interpolated here.
    """
    nodes = np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    values = [math.log(_scaled_erfc(4 / (s + 1) - 2) * (2 / (s + 1))) for s in nodes]
    return tuple(chebyshev.cheb2poly(chebyshev.chebfit(nodes, values, DEGREE)))


def _scaled_erfc(z: float) -> float:
    """exp(z²) erfc(z) for z >= 0: from its continued fraction (Abramowitz and Stegun 7.1.14) where that converges."""
    if z < 2:
        return math.exp(z * z) * math.erfc(z)
    tail = z
    for k in range(200, 0, -1):
        tail = z + k / 2 / tail
    return 1 / (math.sqrt(math.pi) * tail)


def quiet(op: Scribe, first: int) -> None:
    """Mark what was written from node `first` on: a formula whose own roundings are not those of an engine."""
    for node in op.nodes[first:]:
        node.metadata_props[QUIET] = "yes"


def _error_function(op: Scribe, x: ir.Value) -> ir.Value:
    """sign(x) (1 - erfc(|x|))."""
    first = len(op.nodes)
    z = op("Abs", x)
    t = op("Div", op.constant(2.0), op("Add", z, op.constant(2.0)))
    s = op("Sub", op("Add", t, t), op.constant(1.0))
    *rest, total = (op.constant(c) for c in _erfc_polynomial())
    for coefficient in reversed(rest):
        total = op("Add", op("Mul", total, s), coefficient)
    erfc = op("Mul", t, op("Exp", op("Sub", total, op("Mul", z, z))))
    sign = op("Sign", x)
    quiet(op, first)
    return op("Mul", op("Sub", op.constant(1.0), erfc), sign)


def _erf(op: Scribe, node: ir.Node) -> ir.Value:
    return _error_function(op, operands(node)[0])


def _gelu(op: Scribe, node: ir.Node) -> ir.Value:
    """x/2 (1 + erf(x/√2)), or with approximate="tanh" x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    (x,) = operands(node)
    way = node.attributes.get("approximate")
    if way is not None and way.as_string() == "tanh":
        cube = op("Mul", op("Mul", op("Mul", x, x), x), op.constant(0.044715))
        inner = op("Tanh", op("Mul", op("Add", x, cube), op.constant(math.sqrt(2 / math.pi))))
    else:
        inner = _error_function(op, op("Mul", x, op.constant(math.sqrt(0.5))))
    return op("Mul", op("Mul", x, op.constant(0.5)), op("Add", inner, op.constant(1.0)))


def _arctangent(op: Scribe, x: ir.Value) -> ir.Value:
    """y + (x cos y - sin y) / (cos y + x sin y), twice: from y within 0.005, a step leaves a third of the error cubed.

    The start is x / (1 + 0.28 x²), beyond 1 the same of 1/x.
    """
    first = len(op.nodes)
    x = op("Clip", x, op.constant(-1e150), op.constant(1e150))
    square, part = op("Mul", x, x), op.constant(0.28)
    near = op("Div", x, op("Add", op("Mul", square, part), op.constant(1.0)))
    far = op("Sub", op("Mul", op("Sign", x), op.constant(math.pi / 2)), op("Div", x, op("Add", square, part)))
    y = op("Where", op("Less", square, op.constant(1.0)), near, far)
    for _ in range(2):
        sine, cosine = op("Sin", y), op("Cos", y)
        above = op("Sub", op("Mul", x, cosine), sine)
        y = op("Add", y, op("Div", above, op("Add", cosine, op("Mul", x, sine))))
    quiet(op, first)
    return op("Mul", y, op.constant(1.0))  # the one that rounds


def _atan(op: Scribe, node: ir.Node) -> ir.Value:
    return _arctangent(op, operands(node)[0])


def _arcsine(op: Scribe, x: ir.Value) -> ir.Value:
    """atan(x / √((1 - x) (1 + x)))."""
    one = op.constant(1.0)
    return _arctangent(op, op("Div", x, op("Sqrt", op("Mul", op("Sub", one, x), op("Add", one, x)))))


def _asin(op: Scribe, node: ir.Node) -> ir.Value:
    return _arcsine(op, operands(node)[0])


def _acos(op: Scribe, node: ir.Node) -> ir.Value:
    return op("Sub", op.constant(math.pi / 2), _arcsine(op, operands(node)[0]))


def _tan(op: Scribe, node: ir.Node) -> ir.Value:
    (x,) = operands(node)
    return op("Div", op("Sin", x), op("Cos", x))


def _exponentials(op: Scribe, x: ir.Value, joined: str) -> ir.Value:
    both = op(joined, op("Exp", x), op("Exp", op("Neg", x)))
    return op("Mul", both, op.constant(0.5))


def _sinh(op: Scribe, node: ir.Node) -> ir.Value:
    """(exp(x) - exp(-x)) / 2."""
    return _exponentials(op, operands(node)[0], "Sub")


def _cosh(op: Scribe, node: ir.Node) -> ir.Value:
    """(exp(x) + exp(-x)) / 2."""
    return _exponentials(op, operands(node)[0], "Add")


def _asinh(op: Scribe, node: ir.Node) -> ir.Value:
    """sign(x) log(|x| + √(x² + 1))."""
    (x,) = operands(node)
    root = op("Sqrt", op("Add", op("Mul", x, x), op.constant(1.0)))
    return op("Mul", op("Sign", x), op("Log", op("Add", op("Abs", x), root)))


def _acosh(op: Scribe, node: ir.Node) -> ir.Value:
    """log(x + √(x - 1) √(x + 1)), NaN below 1."""
    (x,) = operands(node)
    one = op.constant(1.0)
    return op("Log", op("Add", x, op("Mul", op("Sqrt", op("Sub", x, one)), op("Sqrt", op("Add", x, one)))))


def _atanh(op: Scribe, node: ir.Node) -> ir.Value:
    """log((1 + x) / (1 - x)) / 2."""
    (x,) = operands(node)
    one = op.constant(1.0)
    return op("Mul", op("Log", op("Div", op("Add", one, x), op("Sub", one, x))), op.constant(0.5))


def _mean(op: Scribe, node: ir.Node) -> ir.Value:
    """The sum over the operands, divided by their number."""
    values = operands(node)
    return op("Div", op("Sum", *values), op.constant(float(len(values))))


FUNCTIONS = {
    "Acos": _acos,
    "Acosh": _acosh,
    "Asin": _asin,
    "Asinh": _asinh,
    "Atan": _atan,
    "Atanh": _atanh,
    "Cosh": _cosh,
    "Erf": _erf,
    "Gelu": _gelu,
    "Mean": _mean,
    "Sinh": _sinh,
    "Tan": _tan,
}
"""Operator -> what writes it out."""
