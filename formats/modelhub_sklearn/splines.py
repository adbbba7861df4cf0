"""B-splines of columns (sklearn/preprocessing/_polynomial.py, SplineTransformer; scipy.interpolate.BSpline)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, converts, side_by_side

__all__: list[str] = []

DEGREE, SPLINES = 8, 2000
"""How high a degree and how many splines a column may have."""


@dataclass(frozen=True, eq=False)
class _Pieces:
    """The splines of one column as polynomials between knots.

    knots: [pieces + 1]; coefficients: [degree + 1, pieces, splines], of powers of the distance to the knot before.
    """

    knots: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    def at(self, place: int, knot: float, derivative: int = 0) -> NDArray[np.float64]:
        """[splines] values or slopes of the polynomials of one piece at `knot`."""
        gap = knot - self.knots[place]
        powers = np.arange(len(self.coefficients))
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(powers == 0, 0, powers * gap ** np.maximum(powers - 1, 0)) if derivative else gap**powers
        return np.asarray(np.tensordot(factor, self.coefficients[:, place], axes=1))


@converts("transform", "sklearn.preprocessing._polynomial.SplineTransformer")
def spline(e: Estimator, x: Rows) -> Rows:
    """The value of every spline of every column; what lies outside of the knots as `extrapolation` says."""
    splines, kind = e.parts("bsplines_"), e.choice("extrapolation")
    if len(splines) != x.width:
        raise e.broken(f"splines of {len(splines)} columns, and there are {x.width}")
    if kind not in ("constant", "linear", "continue", "periodic"):
        raise e.refused(
            f"extrapolation={kind[:20]!r} is not supported: a graph gives no error; constant, linear, continue and "
            "periodic are"
        )
    if kind == "linear" and x.width > 1 and e.whole("degree") < 2:
        raise e.refused(
            "extrapolation='linear' with degree below 2 is not supported: scikit-learn takes other knots for every "
            "column but the first; train with degree 2 or more, or extrapolation='continue'"
        )
    parts = [_column(e, x.column(index), _pieces(e, splines[index]), kind) for index in range(x.width)]
    if not e.flag("include_bias"):
        parts = [part.take(np.arange(part.width - 1)) for part in parts]
    return side_by_side(parts)


def _column(e: Estimator, x: Rows, pieces: _Pieces, kind: str) -> Rows:
    """[N, splines] of one column; 0 for a missing value where the estimator takes one."""
    b, low, high = x.b, float(pieces.knots[0]), float(pieces.knots[-1])
    raw = x
    if kind == "periodic":
        turns = x.op("Sub", low).op("Div", high - low).op("Floor")
        x = x.op("Sub", turns.op("Mul", high - low))
    inside = x if kind == "continue" else x.op("Max", low).op("Min", high)
    y = _polynomials(inside, pieces)
    if kind == "linear":
        last = len(pieces.knots) - 2
        for place, knot, sign in ((0, low, "Less"), (last, high, "Greater")):
            value, slope = pieces.at(place, knot), pieces.at(place, knot, 1)
            line = x.op("Sub", knot).op("Mul", slope, width=y.width).op("Add", value)
            y = y.where(b.op(sign, x.value, b.constant(np.full(1, knot), "end")), line)
    if e.choice("handle_missing") == "zeros":
        y = y.where(b.op("IsNaN", raw.value), np.zeros(y.width))
    return y


def _polynomials(x: Rows, pieces: _Pieces) -> Rows:
    """By Horner's rule, with the coefficients of the piece x [N, 1] lies in; x at a knot lies in the next one."""
    b, inner = x.b, pieces.knots[1:-1]
    if len(inner):
        reached = x.number(b.op("GreaterOrEqual", x.value, b.constant(inner, "knots")), len(inner)).total()
    else:
        reached = x.number(b.op("IsInf", x.value)).op("Mul", 0.0)
    place = b.op("Squeeze", b.op("Cast", reached.value, to=7), b.ints(1))
    width = pieces.coefficients.shape[2]

    def table(array: NDArray[np.float64], name: str) -> Rows:
        value = b.op("Gather", b.constant(np.ascontiguousarray(array), name), place, axis=0)
        return Rows(b, value, array.shape[1])

    gap = x.op("Sub", table(pieces.knots[:-1, np.newaxis], "start"))
    y = table(pieces.coefficients[-1], "coefficients")
    for coefficient in pieces.coefficients[-2::-1]:
        y = y.op("Mul", gap).op("Add", table(coefficient, "coefficients"))
    return Rows(b, y.value, width)


def _pieces(e: Estimator, spline: Estimator) -> _Pieces:
    """The splines of a scipy BSpline: c [knots - degree - 1, splines] times the basis over the knots t."""
    if spline.short != "BSpline":
        raise e.broken("'bsplines_' are not splines")
    # until scipy 1.16 the arrays were called t and c
    degree, knots = spline.whole("k"), spline.array("_t" if spline.has("_t") else "t", None)
    count = len(knots) - degree - 1
    if degree > DEGREE or not 0 < count <= SPLINES or count <= degree:
        raise e.refused(f"splines of degree {degree} over {len(knots)} knots are not supported")
    mixed = spline.array("_c" if spline.has("_c") else "c", count, None)
    inner = knots[degree : len(knots) - degree]
    if (np.diff(knots) < 0).any() or (np.diff(inner) <= 0).any():
        raise e.broken("knots that do not rise")
    basis = np.stack([_basis(knots, degree, piece) for piece in range(degree, count)], axis=1)
    return _Pieces(inner, basis @ mixed)


def _basis(knots: NDArray[np.float64], degree: int, piece: int) -> NDArray[np.float64]:
    """[degree + 1, splines] what every spline is in one piece, in powers of the distance to its first knot.

    De Boor's recursion on polynomials: B_i,d = (x - t_i) / (t_i+d - t_i) B_i,d-1 + (t_i+d+1 - x) / ... B_i+1,d-1.
    """
    count, start = len(knots) - degree - 1, knots[piece]
    table = np.zeros((degree + 1, len(knots) - 1))
    table[0, piece] = 1
    for d in range(1, degree + 1):
        new = np.zeros_like(table)
        for i in range(max(piece - d, 0), min(piece + 1, len(knots) - 1 - d)):
            for other, constant, rise, span in (
                (i, start - knots[i], 1.0, knots[i + d] - knots[i]),
                (i + 1, knots[i + d + 1] - start, -1.0, knots[i + d + 1] - knots[i + 1]),
            ):
                if span > 0:
                    new[:, i] += constant / span * table[:, other]
                    new[1:, i] += rise / span * table[:-1, other]
        table = new
    return table[:, :count]
