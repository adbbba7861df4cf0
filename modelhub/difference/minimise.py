"""The smallest input on which two models differ: as few numbers as possible away from a harmless event.

Delta debugging (Zeller, Hildebrandt 2002, "Simplifying and isolating failure-inducing input", ddmin) over the numbers
of one event, towards an event that passes; then the way between the two is halved down to adjacent floats, which shows
where a decision turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Event", "Minimal", "median_event", "minimise"]

Event = dict[str, NDArray[Any]]
"""One event: every input by tensor, without the axis of events."""

Place = tuple[str, tuple[int, ...]]
"""One number of an event: its tensor, and where in it."""

Fails = Callable[[list[Event]], NDArray[np.bool_]]
"""Which of some events of one shape show the difference."""

ROUNDS = 400
"""How often the models are asked at most, each time about many events."""

EDGES = 4
"""For how many numbers an edge is looked for."""


@dataclass(frozen=True)
class Minimal:
    """What is left of an input.

    fails:   the event that shows the difference.
    passes:  an event that does not; None where none was found.
    changed: the numbers in which the two differ, (tensor, place); without any one of them the difference is gone.
    edges:   for each of these numbers, all others being those of `fails`, the float with which it still fails and the
             adjacent one, towards that of `passes`, with which it does not; without those that are no real numbers.
    """

    fails: Event
    passes: Event | None
    changed: tuple[Place, ...] = ()
    edges: tuple[tuple[Place, float, float], ...] = ()


def minimise(event: Event, neutral: list[Event], fails: Fails) -> Minimal:
    """Bring `event`, which fails, as near as possible to the first of `neutral` that passes.

    neutral: events of the same shape, e.g. the median of the data and some that are known to pass.
    """
    ask = _Limited(fails)
    passing = next((other for other, wrong in zip(neutral, ask(neutral), strict=True) if not wrong), None)
    if passing is None:
        return Minimal(event, None)
    left = _ddmin(event, passing, ask)
    event = _with(passing, event, left)
    edges = [_edge(event, passing, place, ask) for place in left[:EDGES]]
    return Minimal(event, passing, tuple(left), tuple(edge for edge in edges if edge is not None))


class _Limited:
    """`fails`, asked no more often than `ROUNDS` times: afterwards nothing fails."""

    def __init__(self, fails: Fails) -> None:
        self._fails = fails
        self.left = ROUNDS

    def __call__(self, events: list[Event]) -> NDArray[np.bool_]:
        if not events:
            return np.zeros(0, np.bool_)
        self.left -= 1
        return self._fails(events) if self.left >= 0 else np.zeros(len(events), np.bool_)


def _ddmin(event: Event, passing: Event, ask: _Limited) -> list[Place]:
    """The numbers that must be those of `event` for the difference to show; without one of them it is gone."""
    places = [
        (name, tuple(int(i) for i in place))
        for name, x in event.items()
        for place in np.argwhere(~_equal(x, passing[name]))
    ]
    parts = 2
    while len(places) > 1:
        parts = min(parts, len(places))
        chunks = [[places[i] for i in part] for part in np.array_split(np.arange(len(places)), parts)]
        others = [[p for p in places if p not in set(chunk)] for chunk in chunks] if parts > 2 else []
        wrong = ask([_with(passing, event, kept) for kept in [*chunks, *others]])
        best = next(iter(np.flatnonzero(wrong)), None)
        if best is not None:
            places = [*chunks, *others][int(best)]
            parts = 2 if best < len(chunks) else max(parts - 1, 2)
        elif parts >= len(places):
            break
        else:
            parts *= 2
    return places


def _with(base: Event, other: Event, places: list[Place]) -> Event:
    """`base` with the numbers of `other` at `places`."""
    result = {name: x.copy() for name, x in base.items()}
    for name, place in places:
        result[name][place] = other[name][place]
    return result


def _edge(event: Event, passing: Event, place: Place, ask: _Limited) -> tuple[Place, float, float] | None:
    """The adjacent floats between which the difference begins when one number goes from failing to passing.

    Halving goes by the order of floats (as integers), so that 64 steps reach neighbours whatever their size.
    """
    name, index = place
    bad, good = event[name][index], passing[name][index]
    if _between(bad, good) is None and not _neighbours(bad, good):
        return None
    while (middle := _between(bad, good)) is not None:
        other = _with(event, event, [])
        other[name][index] = middle
        if ask.left <= 0:
            return None
        if ask([other])[0]:
            bad = middle
        else:
            good = middle
    return place, float(bad), float(good)


def _between(a: Any, b: Any) -> Any:
    """The float in the middle of two of its kind, None where they are no finite floats, or neighbours."""
    if a.dtype.kind != "f" or not (np.isfinite(a) and np.isfinite(b)) or _neighbours(a, b):
        return None
    low, high = _ordered(np.array([a, b]))
    return _float((low + high) // 2, a.dtype)


def _neighbours(a: Any, b: Any) -> bool:
    if a.dtype.kind != "f" or not (np.isfinite(a) and np.isfinite(b)):
        return False
    low, high = _ordered(np.array([a, b]))
    return abs(low - high) <= 1


def _ordered(x: NDArray[Any]) -> list[int]:
    """Integers in the order of the floats, neighbours one apart."""
    whole: type[np.signedinteger[Any]] = np.int32 if x.dtype.itemsize == 4 else np.int64
    bits, least = x.view(whole), int(np.iinfo(whole).min)
    return [int(b) if b >= 0 else least - int(b) for b in bits]


def _float(rank: int, kind: np.dtype[Any]) -> Any:
    whole: type[np.signedinteger[Any]] = np.int32 if kind.itemsize == 4 else np.int64
    least = int(np.iinfo(whole).min)
    return np.array([rank if rank >= 0 else least - rank], whole).view(kind)[0]


def _equal(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def median_event(arrays: Mapping[str, NDArray[Any]]) -> Event:
    """The median of every number over the events of a batch; of whole numbers the one below the middle."""
    return {
        name: np.nan_to_num(np.nanmedian(x, axis=0)).astype(x.dtype)
        if x.dtype.kind == "f"
        else np.sort(x, axis=0)[len(x) // 2]
        for name, x in arrays.items()
    }
