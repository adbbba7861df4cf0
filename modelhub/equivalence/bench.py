"""The bench: source, graph and target set up side by side, to be given one batch of events after another.

with bench(model, source=(path, format, options), target=(path, format, name)) as stand:
    for probe in ...:
        report.take(stand.run(probe))

Outcomes are small, can be pickled, and may be taken in any order: a worker elsewhere sets up a bench of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from modelhub import __version__
from modelhub.equivalence.bounds import Bound, Spread, bound, moved
from modelhub.equivalence.compare import judge
from modelhub.equivalence.leaves import at_entrance, leaves_of, met
from modelhub.equivalence.parties import Side, graph_side, load_side
from modelhub.equivalence.presets import PRESETS
from modelhub.equivalence.report import Leg, Outcome, Report
from modelhub.errors import Inconclusive
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from modelhub.equivalence.bounds import Compared, Shape, Usual
    from modelhub.equivalence.compare import Allowed, ProbeResult
    from modelhub.equivalence.probes import Probe
    from modelhub.protocols import Arrays

__all__ = ["Bench", "Pair", "bench"]

UNMASKED = "padding changes the answer of the network itself, masked or not; give it sequences of their true length"

HUGE = 2.0**64
"""Its square is more than float32 holds."""


@dataclass(frozen=True)
class Pair:
    """Two sides, and the precision each is taken at; none where a side has no engine."""

    a: Side
    b: Side
    high: str = ""
    low: str = ""

    @property
    def between(self) -> tuple[str, str]:
        """The roles."""
        return self.a.party.role, self.b.party.role

    @property
    def precision(self) -> str:
        """The coarser of the two, which decides the tolerance."""
        engines = self.a.engines.get(self.high), self.b.engines.get(self.low)
        return "float64" if all(e is not None and e.precision == "float64" for e in engines) else "float32"

    @property
    def engine(self) -> str:
        """The name of b's engine where another of b's is compared at this precision; with its own, where it is one."""
        mine = self.b.engines.get(self.low)
        others = [
            engine
            for key, engine in self.b.engines.items()
            if key != self.low and replace(self, low=key).precision == self.precision
        ]
        if mine is None or not others:
            return ""
        return mine.name if all(other.name != mine.name for other in others) else f"{mine.name} in {mine.precision}"

    @property
    def missing(self) -> str:
        """Why there is nothing to compare."""
        return "" if self.high else self.a.party.missing or self.b.party.missing


class Bench:
    """Sides in their engines. `settle` it with one ordinary batch before the first `run`."""

    def __init__(
        self, sides: list[Side], shaken: Bound | None = None, preset: str = "", *, leaves: bool = False
    ) -> None:
        self.sides = sides
        self.preset = preset
        self._shaken = shaken
        self._leaves = leaves
        """Whether engines are asked for leaves."""
        self._told: list[bool] = []
        """By pair: whether both engines tell the leaves of as many trees."""
        self.pairs: list[Pair] = []
        self.foreign: set[int] = set()
        """Lengths of sequences for which the source itself has no answer."""

    def settle(self, probes: Iterable[Probe]) -> None:
        """Drop the engines that cannot run this model at all, and pair up the others.

        The probe that shows it is the first of which the source takes the length: some models need a least number of
        steps, as one that looks for the nearest nine. An engine that refuses it may still take another length, or
        single events. Empty sequences show nothing: engines differ about them.
        """
        tried = _lengths(probes)
        ordinary = next((probe for probe in tried if self.sides[0].takes(probe.arrays)), tried[0] if tried else None)
        batches = [probe.arrays for probe in sorted(tried, key=lambda probe: probe is not ordinary)]
        for side in self.sides:
            side.settle([*batches, *({name: x[:1] for name, x in arrays.items()} for arrays in batches)])
        self.pairs = [pair for a, b in combinations(self.sides, 2) for pair in _pairs(a, b)]
        ends = [] if ordinary is None else self._ends(ordinary)
        self._told = [a is not None and b is not None and a.shape == b.shape for a, b in ends]

    def report(self, seed: int, interface: Interface) -> Report:
        """A report with a leg for every pair, for outcomes to be taken into."""
        legs = [Leg(pair.between, pair.precision, missing=pair.missing, engine=pair.engine) for pair in self.pairs]
        report = Report([side.party for side in self.sides], legs, seed, interface.to_json())
        report.preset = self.preset
        threads = {e.name: e.threads for side in self.sides for e in side.engines.values() if hasattr(e, "threads")}
        report.host["threads"] = ", ".join(f"{name} {count}" for name, count in sorted(threads.items()))
        report.software = {"modelhub": __version__, "numpy": np.__version__}
        return report

    def run(self, probe: Probe) -> Outcome:
        """Give one batch to every engine, and compare the answers pair by pair."""
        return self.ask(probe)()

    def ask(self, probe: Probe, pool: Executor | None = None) -> Callable[[], Outcome]:
        """Give one batch to every engine; the comparing that is left to do may be done beside the next batch.

        In the threads of `pool`, where there is one, sides work side by side.
        """
        nothing: tuple[ProbeResult | None, ...] = (None,) * len(self.pairs)
        if not any(side.engines for side in self.sides):
            return lambda: Outcome(nothing)
        # not every engine has a meaning for an empty sequence, takes NaN, or any length that padding hides from others
        optional = probe.length == 0 or not probe.judged or bool(probe.padded)
        answers, refusals = self._answers(probe, pool, lenient=optional)
        behind: dict[str, Arrays] = {}
        if probe.padded and self._graph.engines and not refusals:
            try:
                behind = self._graph.padded(probe)
            except Inconclusive as error:
                refusals["graph"] = str(error)
        if refusals and probe.length is not None and not self.sides[0].takes(probe.arrays):
            self.foreign.add(probe.length)
            optional = True
        if refusals and optional:
            skipped = Outcome(nothing, skipped=f"{probe.place}: {next(iter(refusals.values()))}")
            return lambda: skipped
        refused = tuple(_refused(probe, pair, refusals) for pair in self.pairs) if refusals else ()
        chosen = [
            (answers[pair.a.party.role].get(pair.high), answers[pair.b.party.role].get(pair.low)) for pair in self.pairs
        ]
        legs = [
            (pair, a, _laid(b, a))
            for pair, (a, b) in zip(self.pairs, chosen, strict=True)
            if not pair.missing and a is not None and b is not None
        ]
        if refusals and not legs:
            return lambda: Outcome(nothing, refusals=refused)
        if not probe.judged and not _finite(probe):
            unjudged = Outcome(nothing, skipped=_classes(probe, legs))
            return lambda: unjudged
        spread = self._spread(probe, answers, [(a, b, pair.precision) for pair, a, b in legs])
        for key, padded in behind.items():
            still = answers["graph"].get(key, padded)
            if judge(probe, still, padded, self._allowed(spread, still, key, {}), key).worst.excessive:
                told = Outcome(nothing, skipped=f"{probe.place}: {UNMASKED}")
                return lambda: told
        overflown = _overflown(probe, answers["graph"], spread)
        ends = [] if refusals else self._ends(probe)

        def compared() -> Outcome:
            found = {
                id(pair): judge(probe, a, b, self._allowed(spread, a, pair.precision, overflown), pair.precision)
                for pair, a, b in legs
            }
            if not probe.judged:
                return Outcome(nothing, skipped=_apart(probe, self.pairs, found))
            leaves = tuple(None if a is None or b is None else met(probe, a, b) for a, b in ends)
            results = tuple(found.get(id(pair)) for pair in self.pairs)
            return Outcome(results, spread.reached, refusals=refused, leaves=leaves)

        return compared

    def _answers(
        self, probe: Probe, pool: Executor | None, *, lenient: bool
    ) -> tuple[dict[str, dict[str, Arrays]], dict[str, str]]:
        """By role what each engine answers; and why a side will not."""

        def tried(side: Side) -> tuple[dict[str, Arrays], str]:
            try:
                return side.answer(probe, lenient=lenient), ""
            except Inconclusive as error:
                return {}, str(error)

        roles = [side.party.role for side in self.sides]
        found = dict(zip(roles, (map if pool is None else pool.map)(tried, self.sides), strict=True))
        answers = {role: answer for role, (answer, _) in found.items()}
        return answers, {role: refusal for role, (_, refusal) in found.items() if refusal}

    def _ends(self, probe: Probe) -> list[tuple[NDArray[np.int64] | None, NDArray[np.int64] | None]]:
        """By pair, the leaves [events, trees] of a batch on either side; None where they cannot be compared.

        The graph is asked in its best precision only: it is written in another to see what rounding does to sums.
        """
        if not self._leaves:
            return []
        wanted = self._told or [pair.b.party.role == "target" or pair.low == pair.b.best for pair in self.pairs]
        asked: dict[int, NDArray[np.int64] | None] = {}
        found = []
        for pair, asks in zip(self.pairs, wanted, strict=True):
            engines = [pair.a.engines.get(pair.high), pair.b.engines.get(pair.low)] if asks else []
            for engine in engines:
                if id(engine) not in asked:
                    asked[id(engine)] = leaves_of(engine, probe.arrays)
            a, b = (asked[id(engine)] for engine in engines) if asks else (None, None)
            found.append((a, b))
        return found

    def _allowed(
        self, spread: Spread, reference: Arrays, precision: str, overflown: dict[str, NDArray[np.bool_]]
    ) -> dict[str, Allowed]:
        if self.preset:
            return PRESETS[self.preset].allowed(reference)
        allowed = spread.allowed(reference, precision)
        if precision == "float32":
            for name, events in overflown.items():
                before = allowed[name].undecidable
                allowed[name] = replace(allowed[name], undecidable=events if before is None else events | before)
        return allowed

    @property
    def _graph(self) -> Side:
        return next(side for side in self.sides if side.party.role == "graph")

    @property
    def learned(self) -> dict[Shape, Usual]:
        """What rounding usually does to batches of a shape; may be given to a bench of the same models."""
        return {} if self._shaken is None else self._shaken.learned

    def learn(self, probe: Probe) -> dict[str, NDArray[np.bool_]]:
        """Learn from one batch of a shape what is usual in all, and tell what of the model it reached."""
        if self._shaken is None or "float64" not in self._graph.engines:
            return {}
        try:
            return self._shaken.learn(probe, self._graph.engines["float64"](probe.arrays))
        except Inconclusive:
            return {}

    def _spread(self, probe: Probe, answers: dict[str, dict[str, Arrays]], legs: list[Compared]) -> Spread:
        """What rounding may do to this batch: by the shaken graph, else by moving the inputs of an engine there is."""
        if self._shaken is not None and "float64" in answers["graph"]:
            answer = answers["graph"]["float64"]
            try:
                spread = self._shaken.spread(probe, answer, legs)
                moves = self._shaken.blind
                return spread.widened(moved(self._graph.engines["float64"], probe, answer)) if moves else spread
            except Inconclusive:
                self._shaken = None
        side = next(side for side in self.sides if answers[side.party.role])
        precision, answer = next(iter(answers[side.party.role].items()))
        return moved(side.engines[precision], probe, answer)


def _laid(answer: Arrays, like: Arrays) -> Arrays:
    """An answer in the shapes of another, where they differ by axes of size 1: lwtnn gives [N, 1] for torch's [N]."""
    result = {}
    for name, y in answer.items():
        shape = like[name].shape if name in like else y.shape
        same = [n for n in y.shape[1:] if n != 1] == [n for n in shape[1:] if n != 1]
        result[name] = y.reshape(shape) if same and y.shape[:1] == shape[:1] else y
    return result


def _overflown(probe: Probe, graph: dict[str, Arrays], spread: Spread) -> dict[str, NDArray[np.bool_]]:
    """[events] where the graph overflows in float32 and not in float64: whether a float32 engine does is its affair.

    It may do so on its way only, and come to another answer for inputs whose square float32 cannot hold.
    """
    if not {"float32", "float64"} <= graph.keys():
        return {}
    huge = np.zeros(probe.events, np.bool_)
    for x in probe.arrays.values():
        huge |= (np.abs(x) > HUGE).reshape(probe.events, -1).any(axis=1)
    allowed = spread.allowed(graph["float64"], "float32")
    lost: dict[str, NDArray[np.bool_]] = {}
    for name, high in graph["float64"].items():
        low = graph["float32"][name]
        if low.shape != high.shape or low.shape[:1] != huge.shape:
            continue
        with np.errstate(invalid="ignore"):
            apart = ~(np.abs(np.subtract(low, high, dtype=np.float64)) <= allowed[name].tolerance)
            apart &= (low != high) & ~(np.isnan(low) & np.isnan(high))
        over = (~np.isfinite(low) & np.isfinite(high)).reshape(len(low), -1).any(axis=1)
        over |= huge & apart.reshape(len(low), -1).any(axis=1)
        if over.any():
            lost[name] = np.asarray(over)
    return lost


def _refused(probe: Probe, pair: Pair, refusals: dict[str, str]) -> str:
    """Why this pair could not be compared; "" where neither of the two refused."""
    reason = next((why for role, why in refusals.items() if role in pair.between), "")
    return f"{reason} (probe {probe.place}, {probe.span})" if reason else ""


def _lengths(probes: Iterable[Probe]) -> list[Probe]:
    """The first probe of each length, 0 left out, among those of the first kind."""
    kinds = groupby(probes, lambda probe: probe.name)
    return list({probe.length: probe for _, kind in islice(kinds, 1) for probe in kind if probe.length != 0}.values())


def _finite(probe: Probe) -> bool:
    return all(bool(np.isfinite(x).all()) for x in probe.arrays.values())


def _apart(probe: Probe, pairs: list[Pair], found: dict[int, ProbeResult]) -> str:
    """Which sides differ: told, not judged."""
    apart = {pair.between for pair in pairs if id(pair) in found and found[id(pair)].worst.excessive}
    told = "; ".join(f"{' and '.join(between)} differ by more than rounding does" for between in sorted(apart))
    return f"{probe.place} is not judged: {told}" if told else ""


def _classes(probe: Probe, legs: list[tuple[Pair, Arrays, Arrays]]) -> str:
    """Which sides make numbers of what is none for others: told, not judged."""

    def kind(x: NDArray[Any]) -> NDArray[Any]:
        return np.where(np.isfinite(x), 0, np.where(np.isnan(x), 1, 2))

    apart = {
        pair.between
        for pair, a, b in legs
        if any(a[name].shape == b[name].shape and (kind(a[name]) != kind(b[name])).any() for name in a)
    }
    told = "; ".join(f"{' and '.join(between)} disagree on what is NaN or infinite" for between in sorted(apart))
    return f"{probe.name} inputs are not judged: {told}" if told else ""


def _pairs(a: Side, b: Side) -> list[Pair]:
    """The best of `a` against every precision of `b`."""
    if a.best is None or b.best is None:
        return [Pair(a, b)]
    return [Pair(a, b, a.best, precision) for precision in b.engines]


@contextmanager
def bench(
    model: ir.Model,
    source: tuple[Path, str, ReadOptions],
    target: tuple[Path, str, str],
    seed: int = 0,
    preset: str = "",
    *,
    leaves: bool = False,
    keeps: bool = True,
) -> Iterator[Bench]:
    """The three sides of a check; matrices are multiplied in one thread until the end of the `with` block.

    So a report does not depend on how many cores there are, and nothing waits busily on a core that others want.

    Args:
        model: the canonical graph, with the record in force.
        source: path, format and reading options of the file it was read from.
        target: path, format and the name to call it by of the file that was written.
        seed: of the shaking.
        preset: name of the tolerances (`presets.PRESETS`); "" for the rounding bound.
        leaves: whether engines that can are asked for the leaves of trees, where these stand at the entrance.
        keeps: whether the target keeps in float64 what the graph does (`pairing.keeps`).

    """
    interface = Interface.of(model)
    source_path, source_format, options = source
    target_path, target_format, target_name = target
    with tempfile.TemporaryDirectory(prefix="modelhub-") as folder, threadpool_limits(1, user_api="blas"):
        sides = [
            load_side("source", source_path, source_format, interface, options),
            graph_side(model, interface, Path(folder)),
            load_side("target", target_path, target_format, interface, ReadOptions(), target_name),
        ]
        shaken = bound(model, interface, Path(folder), seed, keeps=keeps)
        yield Bench(sides, shaken, preset, leaves=leaves and at_entrance(model.graph))
