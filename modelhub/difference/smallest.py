"""One small event on which two graphs differ, and what every engine there is says to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelhub.difference.bisect import same
from modelhub.difference.minimise import Event, Minimal, Place, median_event, minimise
from modelhub.difference.trace import Trace, Traced
from modelhub.equivalence.pairing import Pairing
from modelhub.equivalence.parties import Side
from modelhub.equivalence.probes import Probe
from modelhub.errors import Inconclusive

if TYPE_CHECKING:
    from modelhub.protocols import Arrays

__all__ = ["Said", "Sides", "burnt_in", "doubts", "engines_say", "smallest"]

Said = tuple[str, str, list[float]]
"""Role and engine, output, the first numbers of the answer."""

GRAPH = "its graph, float64"
"""What the graph that modelhub reads from a file is called among the engines."""

JUMP = (100.0, 0.01)
"""How many times the tolerance the difference is just beyond an edge, and what part of that of the whole event, where a
decision turns there."""

SHOWN = 8
"""How many numbers of an answer are kept."""


@dataclass(frozen=True, eq=False)
class Sides:
    """A graph, what is held against it, and the rounding that is allowed.

    other: takes the graph's inputs by its names, and answers by its names.
    size:  how many events either must have at a time; None where it takes any number.
    """

    ours: Trace
    other: Callable[[Arrays], Arrays]
    precision: str
    size: int | None

    @classmethod
    def graphs(cls, ours: Trace, theirs: Trace, way: Pairing, precision: str) -> Sides:
        """Two graphs, of which `way` tells how their inputs and outputs belong together."""
        return cls(ours, lambda x: way.back(theirs(way.there(x))), precision, burnt_in(ours) or burnt_in(theirs))

    def ratios(self, probe: Probe) -> NDArray[np.float64]:
        """[events] how far the outputs are apart, against their tolerance; 0 where an engine has no answer."""
        try:
            inside, other = self.ours.inside(probe, self.precision), self.other(probe.arrays)
        except Inconclusive:
            return np.zeros(probe.events)
        return np.array([_ratio(inside, other, event) for event in range(probe.events)])


def _ratio(inside: Traced, other: Arrays, event: int) -> float:
    if inside.undecidable[event]:
        return 0.0
    ratios = [0.0]
    for name, y in other.items():
        x, tolerance = inside.values[name], inside.tolerances[name]
        ratios.append(same(x[event], y[event], tolerance[event]).ratio if x.shape == y.shape else np.inf)
    return max(ratios)


def smallest(sides: Sides, probe: Probe, every: Sequence[Probe]) -> tuple[Minimal, dict[str, NDArray[Any]]]:
    """The worst event of `probe` made as small as it gets, towards the median of real events or of ordinary ones.

    Returns it, and the arrays of a batch that holds nothing else.
    """
    apart = sides.ratios(probe)
    event = {name: x[int(np.argmax(apart))] for name, x in probe.arrays.items()}
    alike = {p.name: p for p in every if p.length == probe.length}
    calm = alike.get("data", alike.get("normal", probe))
    zeros = {name: np.zeros_like(x) for name, x in event.items()}
    passing = np.flatnonzero(apart <= 1)[:16]
    neutral = [median_event(calm.arrays), zeros, *({n: x[i] for n, x in probe.arrays.items()} for i in passing)]
    size = sides.size or min(64, probe.events)

    def ratios(events: list[Event]) -> NDArray[np.float64]:
        found = [np.zeros(0)]
        for first in range(0, len(events), size):
            some = events[first : first + size]
            found.append(sides.ratios(_filled(probe, some, size))[: len(some)])
        return np.concatenate(found)

    minimal = minimise(event, neutral, lambda events: ratios(events) > 1)
    if minimal.passes is None:  # it shows on any event: then on the plainest of all
        minimal = replace(minimal, fails=zeros)
    elif minimal.edges:  # where the difference grows slowly, nothing turns
        whole, *jumps = ratios([minimal.fails, *(_moved(minimal.fails, place, bad) for place, bad, _ in minimal.edges)])
        kept = [e for e, jump in zip(minimal.edges, jumps, strict=True) if jump > max(JUMP[0], JUMP[1] * whole)]
        minimal = replace(minimal, edges=tuple(kept))
    return minimal, _filled(probe, [minimal.fails], size).arrays


def burnt_in(trace: Trace) -> int | None:
    """How many events a graph takes at a time, where that is fixed."""
    sizes = (value.shape[0] for value in trace.model.graph.inputs if value.shape is not None)
    return next((size for size in sizes if isinstance(size, int)), None)


def _filled(probe: Probe, events: list[Event], size: int) -> Probe:
    """A batch of `size` events, the last of them again and again at its end."""
    some = [*events, *[events[-1]] * (size - len(events))]
    return replace(
        probe, arrays={name: np.stack([event[name] for event in some]) for name in probe.arrays}, numbers=None
    )


def _moved(event: Event, place: Place, value: float) -> Event:
    """`event` with one number replaced."""
    result = {name: x.copy() for name, x in event.items()}
    result[place[0]][place[1]] = value
    return result


def engines_say(
    parties: Sequence[tuple[Side, Callable[[Arrays], Arrays]]], arrays: Arrays
) -> tuple[list[Said], list[str]]:
    """What the engines of each side, and the graph of its file, answer to the first event, and who did not answer."""
    said: list[tuple[str, Arrays]] = []
    missing = []
    for side, graph in parties:
        for engine in side.engines.values():
            try:
                said.append((f"{side.party.role}: {engine.name} {engine.precision}", engine(arrays)))
            except Inconclusive as error:
                missing.append(f"{side.party.role}: {error}")
        missing += [side.party.missing] if side.party.missing else []
        said.append((f"{side.party.role}: {GRAPH}", graph(arrays)))
    return [
        (engine, name, np.asarray(x[0]).astype(float).ravel()[:SHOWN].tolist())
        for engine, answer in said
        for name, x in answer.items()
    ], missing


def doubts(answers: Sequence[Said]) -> list[str]:
    """Engines that do not answer what the graph of their file answers, by a tenth of what is looked for, or more.

    There the graph does not speak for the file: the reader may be at fault, not the converter.
    """
    said = {(who, output): np.array(values) for who, output, values in answers}
    found = []
    for (who, output), values in said.items():
        role = who.split(":")[0]
        graph, *others = (said.get((f"{r}: {GRAPH}", output)) for r in (role, "source", "target"))
        if who.endswith(GRAPH) or graph is None or any(other is None for other in others):
            continue
        gap = _largest(*others)  # type: ignore[arg-type]
        if values.shape != graph.shape or _largest(values, graph) > 0.1 * gap > 0:
            found.append(f"{who} does not answer for {output} what modelhub's graph of the file does: look there first")
    return found


def _largest(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest difference, infinite where one is a number and the other none."""
    if a.shape != b.shape:
        return float("inf")
    difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(difference), np.inf, difference), initial=0.0))
