"""Two answers to one batch of events, side by side: what differs, by how much of what is allowed.

What comes out is small, and results of batches can be merged in any order (worst kept, counts added), so that files of
any size are compared in constant memory, on any number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from modelhub.equivalence.probes import Probe

__all__ = [
    "BANDS",
    "ROUNDOFF",
    "ROWS",
    "SCATTER",
    "UNDECIDED",
    "Allowed",
    "Difference",
    "ProbeResult",
    "Row",
    "compare",
    "judge",
]

ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}
"""Unit roundoff of each precision."""

ROWS = 5
"""How many events a leg keeps whole."""

UNDECIDED = 5
"""How many of its undecidable events a probe names, on a leg."""

SCATTER = 400
"""How many (size, ratio) points a leg keeps."""

SMALL = 256
"""Numbers of an event's inputs that are kept with it."""

BANDS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 5e-2)
"""Differences of which a report counts the events that exceed them, as flavour tagging has them in its tables."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Allowed:
    """How far one output of a batch may lie from the reference.

    tolerance:   [events, ...] what rounding will not exceed (`modelhub.equivalence.bounds`).
    limit:       by how many times `tolerance` rounding may be exceeded in the worst of cases.
    undecidable: [events] whether rounding may turn a hard decision of this event; None: no event.
    known:       [events] whether the tolerance is the event's own; others are no worst case. None: all.
    """

    tolerance: Array
    limit: float = 1.0
    undecidable: NDArray[np.bool_] | None = None
    known: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Difference:
    """The difference of one output of one batch that is worst against its tolerance."""

    output: str
    largest: float
    tolerance: float
    event: int
    component: tuple[int, ...]
    a: float
    b: float
    identical: bool
    limit: float = 1.0

    @property
    def ratio(self) -> float:
        """Difference over tolerance; 0 where nothing is too far."""
        return self.largest / max(self.tolerance, 5e-324) if self.largest and self.tolerance < np.inf else 0.0

    @property
    def excessive(self) -> bool:
        """Whether it is more than rounding will explain."""
        return not self.largest <= self.tolerance

    @property
    def verdict(self) -> str:
        """identical, equivalent, suspect or different."""
        if self.excessive:
            return "suspect" if self.ratio <= self.limit else "different"
        return "identical" if self.identical else "equivalent"

    @property
    def _order(self) -> tuple[Any, ...]:
        return (-self.ratio, self.output, self.event, self.component, self.a, self.b)


@dataclass(frozen=True)
class Row:
    """One event among the worst, with its inputs where they are few."""

    probe: str
    length: int | None
    worst: Difference
    inputs: Mapping[str, Any] | None = None

    @property
    def order(self) -> tuple[Any, ...]:
        """Worst first; the same whatever the order in which rows are met."""
        return (*self.worst._order, self.probe, -1 if self.length is None else self.length)


@dataclass(frozen=True)
class ProbeResult:
    """What one kind of probe showed on one leg.

    undecidable: how many events differ by more than rounding explains, and are within it of a hard decision.
    undecided:   their differences, of those with the smallest numbers.
    ulps:        how many numbers are 0, 1, 2-3, 4-7, ... units in the last place apart, at the leg's precision.
    bands:       how many events have an output that differs by more than each of `BANDS`.
    scatter:     (rank, |value|, ratio) of a sample, the points with the smallest rank, which is a hash of their place.
    """

    probe: str
    length: int | None
    events: int
    worst: Difference
    kind: str = ""
    undecidable: int = 0
    undecided: tuple[Difference, ...] = ()
    ulps: tuple[int, ...] = ()
    bands: tuple[int, ...] = ()
    scatter: tuple[tuple[int, float, float], ...] = ()
    rows: tuple[Row, ...] = field(default=(), repr=False)

    @property
    def key(self) -> tuple[str, int]:
        """What results are merged by."""
        return self.probe, -1 if self.length is None else self.length

    def merged(self, other: ProbeResult) -> ProbeResult:
        """Both together; associative, and the same in either order."""
        worst = min(self.worst, other.worst, key=lambda d: d._order)
        return replace(
            self,
            events=self.events + other.events,
            worst=replace(worst, identical=self.worst.identical and other.worst.identical),
            undecidable=self.undecidable + other.undecidable,
            undecided=first_events((*self.undecided, *other.undecided)),
            ulps=added(self.ulps, other.ulps),
            bands=added(self.bands, other.bands),
            scatter=sample((*self.scatter, *other.scatter)),
            rows=worst_rows((*self.rows, *other.rows)),
        )


def added(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """Two histograms together."""
    size = max(len(a), len(b))
    return tuple(x + y for x, y in zip(a + (0,) * (size - len(a)), b + (0,) * (size - len(b)), strict=True))


def sample(points: Iterable[tuple[int, float, float]]) -> tuple[tuple[int, float, float], ...]:
    """The points with the smallest ranks."""
    return tuple(sorted(set(points))[:SCATTER])


def worst_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The worst rows, worst first."""
    return tuple(sorted(rows, key=lambda row: row.order)[:ROWS])


def first_events(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    """The differences of the first few events, output by output."""
    return tuple(sorted(differences, key=lambda d: (d.event, d.output, d._order))[:UNDECIDED])


def judge(
    probe: Probe, a: Mapping[str, Array], b: Mapping[str, Array], allowed: Mapping[str, Allowed], precision: str
) -> ProbeResult:
    """Compare the answers `a` and `b` of two sides; what is `allowed` for each output is meant at `precision`."""
    parts = [_compared(probe, name, (a[name], b[name]), allowed[name], precision) for name in a]
    result = parts[0][0]
    for part, *_ in parts[1:]:
        result = result.merged(replace(part, events=0))
    apart = np.zeros(max(len(each) for _, each, _ in parts))  # one event has all outputs, and is counted once
    for _, each, _ in parts:
        apart[: len(each)] = np.maximum(apart[: len(each)], each)
    open_events = reduce(np.union1d, (each for *_, each in parts))
    return replace(result, undecidable=len(open_events), bands=_bands(apart))


def compare(
    probe: Probe, output: str, pair: tuple[Array, Array], allowed: Allowed, precision: str = "float64"
) -> ProbeResult:
    """One output of two sides, [events, ...] each; NaN equals NaN, an infinity only itself."""
    return _compared(probe, output, pair, allowed, precision)[0]


def _compared(
    probe: Probe, output: str, pair: tuple[Array, Array], allowed: Allowed, precision: str
) -> tuple[ProbeResult, Array, NDArray[np.int64]]:
    """`compare`; [events] by how much each differs; and which of the batch are undecidable."""
    a, b = (x.astype(np.float64) for x in pair)
    numbers, events = probe.numbers, probe.events
    bare = ProbeResult(
        probe.name, probe.length, events, Difference(output, 0.0, 0.0, 0, (), 0.0, 0.0, True), probe.kind
    )
    if a.shape != b.shape:
        worst = Difference(output, np.inf, 0.0, 0, (), float("nan"), float("nan"), identical=False)
        return replace(bare, worst=worst), np.full(events, np.inf), np.zeros(0, np.int64)
    if a.size == 0:
        return bare, np.zeros(events), np.zeros(0, np.int64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
        difference[np.isnan(difference)] = np.inf
        ratio = np.where(
            (difference == 0) | np.isinf(allowed.tolerance), 0.0, difference / np.maximum(allowed.tolerance, 5e-324)
        )
    apart = difference.reshape(len(difference), -1).max(axis=1, initial=0.0)
    if numbers is None or len(numbers) != len(ratio):
        numbers = np.arange(len(ratio))
    tolerance, identical = np.broadcast_to(allowed.tolerance, a.shape), bool(same.all())

    def at(event: int) -> Difference:
        inner = np.unravel_index(int(np.argmax(ratio[event])), ratio.shape[1:])
        place = (event, *(int(i) for i in inner))
        return Difference(
            output,
            float(difference[place]),
            float(tolerance[place]),
            int(numbers[event]),
            place[1:],
            float(a[place]),
            float(b[place]),
            identical=identical,
            limit=allowed.limit,
        )

    open_events, undecided = np.zeros(0, np.int64), []
    if allowed.undecidable is not None and len(allowed.undecidable) == len(ratio):
        open_events = np.flatnonzero((ratio > 1).reshape(len(ratio), -1).any(axis=1) & allowed.undecidable)
        first = open_events[np.argsort(numbers[open_events], kind="stable")][:UNDECIDED]
        undecided = [at(int(event)) for event in first]
        ratio[open_events] = 0.0
        difference[open_events] = 0.0
    if allowed.known is not None:
        ratio[~allowed.known & (ratio.reshape(len(ratio), -1) <= 1).all(axis=1)] = 0.0
    worst_of = ratio.reshape(len(ratio), -1).max(axis=1, initial=0.0)
    few = np.argpartition(worst_of, -ROWS)[-ROWS:] if len(worst_of) > ROWS else np.arange(len(worst_of))
    candidates = few[np.lexsort((few, -worst_of[few]))]
    rows = [
        Row(probe.name, probe.length, at(int(event)), _inputs(probe, int(event), len(ratio)))
        for event in candidates
        if worst_of[event] > 0
    ]
    result = replace(
        bare,
        worst=at(int(candidates[0])),
        undecidable=len(open_events),
        undecided=tuple(undecided),
        ulps=_ulps(a, b, same, precision),
        bands=_bands(apart),
        scatter=_scatter(probe, output, a, ratio),
        rows=worst_rows(rows),
    )
    return result, apart, open_events


def _bands(apart: Array) -> tuple[int, ...]:
    """How many events differ by more than each of `BANDS`."""
    return tuple(int((apart > limit).sum()) for limit in BANDS)


def _ulps(a: Array, b: Array, same: Array, precision: str) -> tuple[int, ...]:
    """Histogram of distances in units in the last place of the larger number; pairs without distance are left out."""
    with np.errstate(invalid="ignore", over="ignore"):
        larger = np.maximum(np.abs(a), np.abs(b)).astype(precision)
        if precision == "float32":  # a number in double stands for the float it rounds to
            a, b = a.astype(precision).astype(np.float64), b.astype(precision).astype(np.float64)
        steps = np.where(same, 0.0, np.abs(a - b) / np.spacing(larger).astype(np.float64))
    steps = np.round(steps[np.isfinite(steps)])
    bins = np.where(steps < 1, 0, np.frexp(steps)[1]).astype(np.int64)
    return tuple(int(n) for n in np.bincount(bins.ravel()))


def _scatter(probe: Probe, output: str, a: Array, ratio: Array) -> tuple[tuple[int, float, float], ...]:
    """The points whose places hash lowest, which is a random choice that does not depend on how events are batched."""
    key = hashlib.sha256(f"{probe.name}/{probe.length}/{output}".encode()).digest()
    width = ratio[0].size
    numbers = np.arange(len(ratio)) if probe.numbers is None or len(probe.numbers) != len(ratio) else probe.numbers
    place = (numbers.astype(np.uint64)[:, np.newaxis] * np.uint64(width) + np.arange(width, dtype=np.uint64)).ravel()
    rank = _mixed(place + np.uint64(int.from_bytes(key[:8], "little")))
    chosen = np.argpartition(rank, SCATTER)[:SCATTER] if rank.size > SCATTER else np.arange(rank.size)
    chosen = chosen[np.argsort(rank[chosen])]
    sizes, ratios = np.abs(a.ravel()[chosen]), ratio.ravel()[chosen]
    finite = np.isfinite(sizes) & np.isfinite(ratios)
    columns = rank[chosen][finite].tolist(), _short(sizes[finite]), _short(ratios[finite])
    return tuple(zip(*columns, strict=True))


def _short(x: Array) -> list[float]:
    """Numbers with three digits."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        digits = 2 - np.floor(np.log10(np.where(x > 0, x, 1.0)))
        near = np.clip(digits, -300, 300)
        short = np.round(x * 10.0**near) / 10.0**near
    return list(np.where(np.isfinite(short), short, x).tolist())


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection that looks random."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _inputs(probe: Probe, event: int, events: int) -> dict[str, Any] | None:
    """The inputs of one event, None where they are many."""
    mine = {name: x[event] for name, x in probe.arrays.items() if len(x) == events}
    if len(mine) != len(probe.arrays) or sum(np.size(x) for x in mine.values()) > SMALL:
        return None
    return {name: x.tolist() for name, x in mine.items()}
