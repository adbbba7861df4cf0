"""The `<Transformations>` of a method as numbers: which columns, which matrices, which tables.

Applied in the order of the file, each to the float32 output of the one before. Every transformation is stored once per
class and once for all classes together; TMVA::Reader takes the last block whatever the training was told
(TransformationHandler::ReadFromXML hands out class -1), and so does this reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, safe_text
from modelhub_tmva.setup import Setup, Variable, integer, number, numbers, unsupported
from modelhub_tmva.stream import Element

__all__ = [
    "PDF_BINS",
    "PDF_FLOOR",
    "Cumulative",
    "Linear",
    "Normalize",
    "Pdf",
    "Rearrange",
    "Selection",
    "Transform",
    "chain",
]

PDF_BINS = 10_000
"""Bins a distribution is resampled on (PDF::fgNbin_PdfHist)."""

PDF_FLOOR = 1e-12
"""The least value of a distribution (PDF::fgEpsilon)."""

MAX_VARIABLES = 10_000
"""Inputs of one transformation."""


@dataclass(frozen=True, eq=False)
class Selection:
    """What a transformation takes and where it puts it; variables it does not name pass unchanged."""

    take: NDArray[np.int64]
    """[inputs] columns of the event."""
    put: NDArray[np.int64]
    """[inputs] columns of the event."""
    targets: tuple[int, ...] = ()
    """Regression targets that come after the variables."""

    @property
    def width(self) -> int:
        """How many columns of the event are taken."""
        return len(self.take)


@dataclass(frozen=True, eq=False)
class Normalize:
    """A range to [-1, 1], in float32 (VariableNormalizeTransform::Transform)."""

    selection: Selection
    low: NDArray[np.float32]
    """[inputs, then targets]"""
    high: NDArray[np.float32]
    offset: bool
    """False: only divided by the larger end of the range (ROOT 6.38 and later)."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Decorrelation and PCA: y = matrix · (x - mean), in float64."""

    selection: Selection
    matrix: NDArray[np.float64]
    """[outputs, inputs]"""
    mean: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pdf:
    """A distribution as TMVA looks it up: equal bins over [low, high]."""

    low: float
    high: float
    table: NDArray[np.float32]
    """[bins]"""
    interpolated: bool
    """Whether values between bin centres are joined by lines (Spline1), or each bin is flat (Spline0)."""


@dataclass(frozen=True, eq=False)
class Cumulative:
    """Uniform and Gauss: the integral distribution of every input, for Gauss through the inverse error function."""

    selection: Selection
    flat: bool
    pdfs: tuple[Pdf, ...]


@dataclass(frozen=True, eq=False)
class Rearrange:
    """Columns moved."""

    selection: Selection


Transform = Normalize | Linear | Cumulative | Rearrange


def chain(setup: Setup) -> list[Transform]:
    """The transformations of a method, in the order they are applied. Raises `Unsupported`, `UnreadableFile`."""
    result: list[Transform] = []
    for element in setup.transforms:
        name = element.attributes.get("Name", "")
        if name in ("Id", "None", "Identity"):
            continue
        if name not in _READERS:
            raise unsupported(setup.where, f"transformation {safe_text(name)!r} of {setup.method}::{setup.title}")
        result.append(_READERS[name](element, _selection(element, setup), setup.where))
    return result


def _selection(element: Element, setup: Setup) -> Selection:
    chosen = element.find("Selection")
    if chosen is None:  # the layout before TMVA 4.1: all variables, and for Normalize all targets
        columns = np.arange(len(setup.variables))
        return Selection(columns, columns, tuple(range(integer(element, "NTargets", setup.where, 0))))
    take, targets = _columns(chosen, "Input", "NInputs", setup)
    put, put_targets = _columns(chosen, "Output", "NOutputs", setup)
    if not len(put) and not put_targets:
        put, put_targets = take, targets
    if len(put) != len(take) or put_targets != targets:
        raise unsupported(setup.where, f"line {chosen.line}: a transformation with other outputs than inputs")
    return Selection(take, put, targets)


def _columns(chosen: Element, name: str, count: str, setup: Setup) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """The variables and the targets of a selection, found by label or expression."""
    group = chosen.find(name)
    entries = group.children if group is not None else []
    announced = integer(group, count, setup.where, len(entries)) if group is not None else 0
    if announced != len(entries) or announced > MAX_VARIABLES:
        raise UnreadableFile(
            f"{setup.where}: line {chosen.line}: {announced} announced, {len(entries)} there: <{name}>"
        )
    columns: list[int] = []
    targets: list[int] = []
    for entry in entries:
        kind = entry.attributes.get("Type", "")
        if kind == "Variable" and not targets:
            columns.append(_place(entry, setup.variables, setup.where))
        elif kind == "Target":
            targets.append(_place(entry, setup.targets, setup.where))
        else:
            raise unsupported(setup.where, f"line {entry.line}: a transformation of a {safe_text(kind)}")
    return np.array(columns, np.int64), tuple(targets)


def _place(entry: Element, variables: Sequence[Variable], where: str) -> int:
    label, expression = entry.attributes.get("Label"), entry.attributes.get("Expression")
    for place, variable in enumerate(variables):
        if variable.label == label or variable.expression == expression:
            return place
    raise UnreadableFile(f"{where}: line {entry.line}: {safe_text(label or expression)!r} is none of the variables")


def _last(elements: Sequence[Element], what: str, where: str) -> Element:
    """The block of all classes together: the one of the highest ClassIndex, the last of equals."""
    if not elements:
        raise UnreadableFile(f"{where}: a transformation without <{what}>")
    return max(enumerate(elements), key=lambda pair: (integer(pair[1], "ClassIndex", where, pair[0]), pair[0]))[1]


def _normalize(element: Element, selection: Selection, where: str) -> Transform:
    how = element.attributes.get("UseOffsetOrNot", "UseOffset")
    if how not in ("UseOffset", "NoOffset"):
        raise unsupported(where, f"line {element.line}: Normalize with UseOffsetOrNot={safe_text(how)!r}")
    block = _last(element.all("Class"), "Class", where)
    ranges = block.find("Ranges")
    entries = ranges.children if ranges is not None else []
    places = [integer(entry, "Index", where, place) for place, entry in enumerate(entries)]
    if sorted(places) != list(range(selection.width + len(selection.targets))):
        raise UnreadableFile(f"{where}: line {element.line}: the ranges of Normalize do not fit its inputs")
    low, high = (
        np.array([number(entry, name, where) for entry in entries], np.float32)[np.argsort(places)]
        for name in ("Min", "Max")
    )
    return Normalize(selection, low, high, how == "UseOffset")


def _no_targets(selection: Selection, element: Element, where: str) -> None:
    if selection.targets:
        name = safe_text(element.attributes.get("Name"))
        raise unsupported(where, f"line {element.line}: {name} of regression targets; only Normalize is turned back")


def _decorrelation(element: Element, selection: Selection, where: str) -> Transform:
    _no_targets(selection, element, where)
    block = _last(element.all("Matrix"), "Matrix", where)
    width = selection.width
    if (integer(block, "Rows", where), integer(block, "Columns", where)) != (width, width):
        raise UnreadableFile(f"{where}: line {block.line}: the matrix does not fit {width} inputs")
    matrix = numbers(block, width * width, where).reshape(width, width)
    return Linear(selection, matrix, np.zeros(width))


def _pca(element: Element, selection: Selection, where: str) -> Transform:
    _no_targets(selection, element, where)
    width = selection.width
    means = _last(element.all("Statistics"), "Statistics", where)
    vectors = _last(element.all("Eigenvectors"), "Eigenvectors", where)
    shape = (integer(vectors, "NRows", where), integer(vectors, "NCols", where), integer(means, "NRows", where))
    if shape != (width, width, width):
        raise UnreadableFile(f"{where}: line {vectors.line}: the eigenvectors do not fit {width} inputs")
    matrix = numbers(vectors, width * width, where).reshape(width, width)
    return Linear(selection, matrix.T, numbers(means, width, where))


def _cumulative(element: Element, selection: Selection, where: str) -> Transform:
    _no_targets(selection, element, where)
    kind = element.attributes.get("FlatOrGauss", "")
    if kind not in ("Flat", "Gauss"):
        raise unsupported(where, f"line {element.line}: Gauss with FlatOrGauss={safe_text(kind)!r}")
    entries = element.all("Variable")
    places = [integer(entry, "VarIndex", where, place) for place, entry in enumerate(entries)]
    if sorted(places) != list(range(selection.width)):
        raise UnreadableFile(f"{where}: line {element.line}: the distributions of Gauss do not fit its inputs")
    ordered = dict(zip(places, entries, strict=True))
    return Cumulative(selection, kind == "Flat", tuple(_pdf(ordered[place], where) for place in sorted(ordered)))


def _pdf(entry: Element, where: str) -> Pdf:
    """The last distribution of a variable (PDF::ReadXML, BuildSplinePDF)."""
    blocks = [child for child in entry.children if child.name.startswith("CumulativePDF_cls")]
    pdf = blocks[-1].find("PDF") if blocks else None
    histogram = pdf.find("Histogram") if pdf is not None else None
    if pdf is None or histogram is None:
        raise UnreadableFile(f"{where}: line {entry.line}: a variable without distribution")
    method = integer(pdf, "InterpolMethod", where)
    if method not in (0, 1) or integer(pdf, "MaxNSmooth", where, 0) > 0:
        raise unsupported(where, f"line {pdf.line}: a distribution that is smoothed, or splined by method {method}")
    bins = integer(histogram, "NBins", where)
    contents = np.asarray(numbers(histogram, bins, where).astype(np.float32), np.float64)
    if integer(histogram, "HasEquidistantBins", where, 1):
        low, high = number(histogram, "XMin", where), number(histogram, "XMax", where)
        edges = np.asarray(low + np.arange(bins + 1) * ((high - low) / max(bins, 1)), np.float64)
        edges[-1:] = high
    else:
        binning = pdf.find("HistogramBinning")
        if binning is None:
            raise UnreadableFile(f"{where}: line {pdf.line}: a histogram without binning")
        edges = numbers(binning, bins + 1, where)
    sound = bins >= 2 and bool(np.isfinite(edges).all() and np.isfinite(contents).all())
    # bins of no width occur, as TMVA closes the last one at the largest value; two in a row have no line through them
    if not sound or (np.diff(edges) < 0).any() or (edges[2:] <= edges[:-2]).any():
        raise UnreadableFile(f"{where}: line {histogram.line}: a histogram of {bins} bins whose edges do not increase")
    low, high = float(edges[0]), float(edges[-1])
    if method == 0:
        if not integer(histogram, "HasEquidistantBins", where, 1):
            raise unsupported(where, f"line {pdf.line}: a histogram of unequal bins without interpolation")
        return Pdf(low, high, contents.astype(np.float32), interpolated=False)
    return Pdf(low, high, _resampled(edges, contents), interpolated=True)


def _resampled(edges: NDArray[np.float64], contents: NDArray[np.float64]) -> NDArray[np.float32]:
    """The histogram, as lines through its bin centres, on `PDF_BINS` equal bins (PDF::FillSplineToHist, TSpline1)."""
    centres = edges[:-1] + 0.5 * np.diff(edges)
    low, high = edges[0], edges[-1]
    width = (high - low) / PDF_BINS
    x = low + np.arange(PDF_BINS) * width + 0.5 * width
    at = np.maximum(np.searchsorted(centres, x, side="right") - 1, 0)
    up = ((x > centres[at]) & (at != len(centres) - 1)) | (at == 0)
    beside = np.where(up, at + 1, at - 1)
    y = contents[at] + (x - centres[at]) * (contents[at] - contents[beside]) / (centres[at] - centres[beside])
    plain = contents[np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(contents) - 1)]
    return np.asarray(np.maximum(np.where(y <= PDF_FLOOR, plain, y), PDF_FLOOR), np.float32)


def _rearrange(element: Element, selection: Selection, where: str) -> Transform:
    _no_targets(selection, element, where)
    return Rearrange(selection)


_READERS = {
    "Normalize": _normalize,
    "Decorrelation": _decorrelation,
    "PCA": _pca,
    "Gauss": _cumulative,
    "Uniform": _cumulative,
    "Rearrange": _rearrange,
}
