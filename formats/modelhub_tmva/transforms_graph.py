"""The transformations as ONNX operators in front of a method: float32 [N, variables] in and out.

Each rounds where TMVA rounds: the event is float32 between two transformations, matrices and distributions work in
float64 (`Builder.kept`, as a tree behind them may hang on the last bit), normalisation in float32 throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.builder import Builder
from modelhub_tmva.transforms import PDF_FLOOR, Cumulative, Linear, Normalize, Pdf, Selection, Transform

__all__ = ["apply", "undo"]

MARGIN = 10e-10
"""How close to 0 and 1 an integral distribution may come (VariableGaussTransform::Transform)."""

REACH = 0.99999999
"""How close to -1 and 1 the argument of the inverse error function may come (there)."""

ROOT2 = 1.414213562
"""The square root of two as TMVA writes it (there)."""

# Rational functions of Wichura, Algorithm AS 241 (PPND16), Appl. Statist. 37 (1988) 477: the normal quantile to about
# 1e-16; highest power first.
CENTRE_ABOVE = (
    *(2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457),
    *(13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
)
CENTRE_BELOW = (
    *(5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867),
    *(5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)
TAIL_ABOVE = (
    *(7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258),
    *(3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
)
TAIL_BELOW = (
    *(1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459),
    *(0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)


def apply(b: Builder, transforms: Sequence[Transform], x: ir.Value, width: int) -> ir.Value:
    """`x` [N, width] float32 after all `transforms`, [N, width] float32."""
    for index, transform in enumerate(transforms):
        with b.scope(f"{type(transform).__name__.lower()}_{index}"):
            part = _take(b, transform.selection, x, width)
            match transform:
                case Normalize():
                    part = _normalize(b, transform, part)
                case Linear():
                    part = _linear(b, transform, part)
                case Cumulative():
                    part = _cumulative(b, transform, part)
            x = _put(b, transform.selection, x, part, width)
    return x


def undo(b: Builder, transforms: Sequence[Transform], y: ir.Value, targets: int) -> ir.Value:
    """Targets [N, targets] float32 as the user knows them.

    Every inverse works on the same untransformed event (TransformationHandler::InverseTransform), so of several
    transformations that name targets only the first listed counts.
    """
    first = next((t for t in transforms if t.selection.targets), None)
    if not isinstance(first, Normalize):
        return y
    with b.scope("inverse"):
        low, high, columns = _target_ranges(first, targets)
        if not first.offset:
            reach = np.where(np.abs(high) > np.abs(low), np.abs(high), np.abs(low))
            return b.op("Mul", y, b.constant(np.where(columns, reach, np.float32(1)).astype(np.float32), "reach"))
        with np.errstate(divide="ignore"):
            factor = (1.0 / (high - low).astype(np.float64)).astype(np.float32) * np.float32(2)
        one = b.constant(np.ones(1, np.float32), "one")
        back = b.op("Div", b.op("Add", y, one), b.constant(factor, "stretch"))
        back = b.op("Add", b.constant(low, "low"), back)
        return back if columns.all() else b.op("Where", b.constant(columns, "named"), back, y)


def _target_ranges(
    transform: Normalize, targets: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Low and high [targets], and which targets the transformation names."""
    low, high = np.zeros(targets, np.float32), np.ones(targets, np.float32)
    named = np.zeros(targets, np.bool_)
    for place, target in enumerate(transform.selection.targets):
        low[target] = transform.low[transform.selection.width + place]
        high[target] = transform.high[transform.selection.width + place]
        named[target] = True
    return low, high, named


def _take(b: Builder, selection: Selection, x: ir.Value, width: int) -> ir.Value:
    if np.array_equal(selection.take, np.arange(width)):
        return x
    return b.op("Gather", x, b.constant(selection.take, "take"), axis=1)


def _put(b: Builder, selection: Selection, x: ir.Value, part: ir.Value, width: int) -> ir.Value:
    """The event with the columns `part` [N, inputs] in their places."""
    if np.array_equal(selection.put, np.arange(width)):
        return part
    source = np.arange(width)
    source[selection.put] = width + np.arange(selection.width)
    return b.op("Gather", b.op("Concat", x, part, axis=1), b.constant(source, "put"), axis=1)


def _normalize(b: Builder, transform: Normalize, x: ir.Value) -> ir.Value:
    low, high = transform.low[: transform.selection.width], transform.high[: transform.selection.width]
    if not transform.offset:
        reach = np.where(np.abs(high) > np.abs(low), np.abs(high), np.abs(low))
        return b.op("Div", x, b.constant(reach, "reach"))
    with np.errstate(divide="ignore"):
        scale = (1.0 / (high - low).astype(np.float64)).astype(np.float32)
    # ((x - low) * scale) * 2 - 1: a factor of two changes no rounding
    y = b.op("Mul", b.op("Sub", x, b.constant(low, "low")), b.constant(scale * np.float32(2), "scale"))
    return b.op("Sub", y, b.constant(np.ones(1, np.float32), "one"))


def _linear(b: Builder, transform: Linear, x: ir.Value) -> ir.Value:
    with b.kept():
        y = b.op("Cast", x, to=ir.DataType.DOUBLE)
        if transform.mean.any():
            y = b.op("Sub", y, b.constant(transform.mean, "mean"))
        y = b.op("Gemm", y, b.constant(transform.matrix, "matrix"), transB=1)
    return b.op("Cast", y, to=ir.DataType.FLOAT)


def _cumulative(b: Builder, transform: Cumulative, x: ir.Value) -> ir.Value:
    with b.kept():
        y = _lookup(b, transform, b.op("Cast", x, to=ir.DataType.DOUBLE))
        y = b.op("Max", b.op("Min", y, _scalar(b, 1 - MARGIN)), _scalar(b, MARGIN))
        if not transform.flat:
            y = _gauss(b, y)
    return b.op("Cast", y, to=ir.DataType.FLOAT)


def _scalar(b: Builder, value: float) -> ir.Value:
    return b.constant(np.array([value], np.float64), "number")


def _lookup(b: Builder, transform: Cumulative, x: ir.Value) -> ir.Value:
    """Every column of x [N, inputs] float64 looked up in its distribution (PDF::GetVal)."""
    grid = _Grid(b, transform.pdfs)
    place = grid.place(x)
    here = grid.content(place)
    joined = np.array([pdf.interpolated for pdf in transform.pdfs])
    if joined.any():
        line = grid.line(x, place, here)
        here = line if joined.all() else b.op("Where", b.constant(joined, "joined"), line, here)
    floor = _scalar(b, PDF_FLOOR)
    return b.op("Where", b.op("Greater", here, floor), here, floor)


class _Grid:
    """The bins of several distributions side by side, one per column; bins are whole doubles counted from 0."""

    def __init__(self, b: Builder, pdfs: Sequence[Pdf]) -> None:
        bins = np.array([len(pdf.table) for pdf in pdfs])
        low = np.array([pdf.low for pdf in pdfs])
        high = np.array([pdf.high for pdf in pdfs])
        self.b = b
        self.low, self.high = b.constant(low, "low"), b.constant(high, "high")
        self.range, self.bins = b.constant(high - low, "range"), b.constant(bins.astype(np.float64), "bins")
        self.width = b.constant((high - low) / bins, "width")
        self.last = b.constant((bins - 1).astype(np.float64), "last")
        self.zero, self.one, self.half = _scalar(b, 0.0), _scalar(b, 1.0), _scalar(b, 0.5)
        self.table = b.constant(np.concatenate([pdf.table for pdf in pdfs]), "table")
        self.first = b.constant((np.cumsum(bins) - bins).astype(np.int64), "first")

    def place(self, x: ir.Value) -> ir.Value:
        """The bin of x; beyond the range the first or the last, for NaN the last (TAxis::FindBin and a clamp)."""
        b = self.b
        place = b.op("Div", b.op("Mul", b.op("Sub", x, self.low), self.bins), self.range)
        place = b.op("Max", b.op("Min", place, self.last), self.zero)
        return b.op("Floor", b.op("Where", b.op("Less", x, self.high), place, self.last))

    def content(self, place: ir.Value) -> ir.Value:
        """What the bin holds."""
        b = self.b
        index = b.op("Add", b.op("Cast", place, to=ir.DataType.INT64), self.first)
        return b.op("Cast", b.op("Gather", self.table, index), to=ir.DataType.DOUBLE)

    def centre(self, place: ir.Value) -> ir.Value:
        """The middle of the bin (TAxis::GetBinCenter)."""
        b = self.b
        edge = b.op("Add", self.low, b.op("Mul", place, self.width))
        return b.op("Add", edge, b.op("Mul", self.half, self.width))

    def line(self, x: ir.Value, place: ir.Value, here: ir.Value) -> ir.Value:
        """The line through the centres of the bin and of its neighbour on the side of x, going on beyond the ends."""
        b = self.b
        centre = self.centre(place)
        above = b.op("And", b.op("Greater", x, centre), b.op("Less", place, self.last))
        above = b.op("Or", above, b.op("Less", place, self.one))
        beside = b.op("Where", above, b.op("Add", place, self.one), b.op("Sub", place, self.one))
        rise = b.op("Sub", here, self.content(beside))
        run = b.op("Sub", centre, self.centre(beside))
        return b.op("Add", here, b.op("Div", b.op("Mul", b.op("Sub", x, centre), rise), run))


def _gauss(b: Builder, y: ir.Value) -> ir.Value:
    """1.414213562 · erfinv(2 y - 1), as the normal quantile by AS 241."""
    two, one, half = _scalar(b, 2.0), _scalar(b, 1.0), _scalar(b, 0.5)
    argument = b.op("Sub", b.op("Mul", two, y), one)
    argument = b.op("Max", b.op("Min", argument, _scalar(b, REACH)), _scalar(b, -REACH))
    q = b.op("Mul", half, argument)
    r = b.op("Sub", _scalar(b, 0.180625), b.op("Mul", q, q))
    centre = b.op("Mul", q, _ratio(b, r, CENTRE_ABOVE, CENTRE_BELOW))
    rest = b.op("Sub", half, b.op("Abs", q))
    r = b.op("Sub", b.op("Sqrt", b.op("Neg", b.op("Log", rest))), _scalar(b, 1.6))
    tail = b.op("Mul", b.op("Sign", q), _ratio(b, r, TAIL_ABOVE, TAIL_BELOW))
    quantile = b.op("Where", b.op("LessOrEqual", b.op("Abs", q), _scalar(b, 0.425)), centre, tail)
    return b.op("Mul", _scalar(b, ROOT2 / math.sqrt(2)), quantile)


def _ratio(b: Builder, r: ir.Value, above: Sequence[float], below: Sequence[float]) -> ir.Value:
    """One polynomial of r over another, coefficients from the highest power down."""

    def polynomial(coefficients: Sequence[float]) -> ir.Value:
        total = _scalar(b, coefficients[0])
        for coefficient in coefficients[1:]:
            total = b.op("Add", b.op("Mul", total, r), _scalar(b, coefficient))
        return total

    return b.op("Div", polynomial(above), polynomial(below))
