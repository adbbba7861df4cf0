"""Where two models part: the first node that computes something else, why, and the smallest input that shows it.

The two files are read into graphs, run side by side in float64 and followed from the inputs (`bisect`). Where the
target's format has a writer, the source is written anew in that format and read back: such a graph is built like the
target, node for node, and the two are compared number by number (`causes`). Last of all the engines of both files are
given the smallest input, so that it is seen which of them the graphs speak for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.difference.bisect import Match, first_divergence, matches, region, same
from modelhub.difference.causes import causes, layer
from modelhub.difference.layers import Layers, compared, layered, plainness
from modelhub.difference.minimise import Minimal
from modelhub.difference.smallest import Said, Sides, burnt_in, doubts, engines_say, smallest
from modelhub.difference.trace import Trace, Traced, traced
from modelhub.equivalence.check import SEED, Readings, check, readings
from modelhub.equivalence.pairing import Pairing, pairing
from modelhub.equivalence.parties import Side, knows_masks, load_side
from modelhub.equivalence.probes import Probe, Progress, probes
from modelhub.equivalence.report import Party
from modelhub.equivalence.where import parameter_differences, record_differences, written_anew
from modelhub.errors import Inconclusive, Notice
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    from modelhub.data import DataSpec
    from modelhub.equivalence.report import Report
    from modelhub.protocols import Arrays, Layered

__all__ = ["Diff", "Place", "diff"]

NOTHING = Match(0.0)

EVENTS = 2000
"""How many real events are taken."""

GROSS, SLACK = 1000.0, 16.0
"""Where an output differs by more than so many tolerances, inner values that differ by a few are not what is wrong: a
converter that folds constants in float32 rounds numbers that the other graph does not have."""


@dataclass(frozen=True)
class Place:
    """A node of the target and what it stands for in the source; empty strings where there is nothing."""

    target_layer: str
    target_node: str
    source_layer: str
    source_node: str
    match: Match
    agreeing: int
    """How many nodes of the target compute what the source computes."""
    nodes: int


@dataclass(frozen=True, eq=False)
class Diff:
    """What was found.

    precision: the rounding that is allowed: the target's own.
    probes:    how many batches both graphs took; `failing` has the names of those on which the outputs differ.
    output:    the output that differs most, and by how much.
    minimal:   the smallest input, None where nothing differs.
    answers:   what each engine says to it.
    doubts:    engines that contradict the graph of their own file.
    layers: engines that were held against the graph of their own file layer by layer.
    graphs: those that differ, or the one that differs from its file's engine: side, graph, and the smallest input.
    report:    of a whole check, where the graphs agree: then only an engine can differ from its graph.
    """

    source: str
    target: str
    precision: str
    probes: int
    failing: tuple[str, ...] = ()
    output: str = ""
    match: Match = NOTHING
    place: Place | None = None
    causes: tuple[str, ...] = ()
    record: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    minimal: Minimal | None = None
    answers: tuple[Said, ...] = ()
    doubts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    layers: tuple[Layers, ...] = ()
    graphs: tuple[tuple[str, ir.Model, dict[str, NDArray[Any]]], ...] = field(default=(), repr=False)
    report: Report | None = None

    @property
    def verdict(self) -> str:
        """different; where the graphs agree, that of the check."""
        return "different" if self.report is None else self.report.verdict


def diff(
    source: str | Path,
    target: str | Path,
    *,
    source_format: str | None = None,
    target_format: str | None = None,
    interface: str | Path | Interface | None = None,
    options: ReadOptions = ReadOptions(),
    seed: int = SEED,
    data: DataSpec | None = None,
    progress: Progress = iter,
) -> Diff:
    """Find where `target` parts from `source`; arguments as of `check`. Of `data` the first `EVENTS` are taken.

    Where the graphs agree, or cannot be laid open, what there is to say is the report of a whole check.
    """
    pair = readings(source, target, source_format, target_format, interface, options)
    found: list[Diff] = []
    for _, model in pair.models:
        try:
            with ExitStack() as stack:
                found.append(_Comparison(pair, model, seed, stack).run(data, progress))
        except Inconclusive as error:
            found.append(Diff(pair.source[0].name, pair.target[0].name, "", 0, missing=(str(error),)))
        if not found[-1].failing:
            report = check(
                source,
                target,
                source_format=source_format,
                target_format=target_format,
                interface=interface,
                options=options,
                seed=seed,
                data=data,
                progress=progress,
            )
            return replace(found[-1], report=report)
    return min(found, key=lambda d: d.match.ratio)


class _Comparison:
    """The source, read with one record, against the target."""

    def __init__(self, pair: Readings, model: ir.Model, seed: int, stack: ExitStack) -> None:
        self._pair = pair
        self._seed = seed
        self._stack = stack
        self._ours = stack.enter_context(traced(model, seed))
        self._theirs = stack.enter_context(traced(pair.theirs, seed))
        self._map = pairing(self._ours.interface, self._theirs.interface)
        double = any(value.dtype == ir.DataType.DOUBLE for value in pair.theirs.graph.outputs)
        self._precision = "float64" if double else "float32"
        self._ran, self._refusal = 0, ""

    def run(self, data: DataSpec | None, progress: Progress) -> Diff:
        """Everything about this pair."""
        model, (path, format_) = self._ours.model, self._pair.target
        every = [p for p in probes(model, self._seed, masks=knows_masks(format_)) if p.judged]
        every += [] if data is None else _real(data, model)
        result = Diff(
            self._pair.source[0].name,
            path.name,
            self._precision,
            0,
            record=tuple(record_differences(self._ours.interface, self._theirs.interface)),
        )
        failing = [item for probe in progress(every) if (item := self._failing(probe, self._map)) is not None]
        if not self._ran:
            raise Inconclusive(f"no probe can be run on both graphs: {self._refusal}")
        layers = self._layers(every)
        result = replace(result, probes=self._ran, layers=tuple(each[0] for each in layers))
        if not failing:
            parting = next((each for each in layers if each[0].parting is not None), None)
            return result if parting is None else self._against_engine(result, *parting)
        failing.sort(key=lambda item: -item[2].ratio)
        probe, output, match = failing[0]
        names = dict.fromkeys(
            f"{p.name}" + ("" if p.length is None else f" at length {p.length}") for p, _, _ in failing
        )
        result = replace(result, failing=tuple(names), output=output, match=match)
        if result.record and self._agrees_by_position([p for p, _, _ in failing]):
            kinds = [kind for kind in ("variable", "label") if any(f"{kind} " in line for line in result.record)]
            what = " and ".join(f"{kind}s" for kind in kinds) or "names"
            why = [f"{what} stand at other places: by position the two models agree"]
            result = replace(result, causes=tuple(why))
        else:
            slack = SLACK if match.ratio > GROSS else 1.0
            place, why = self._place(probe, every, [o for p, o, _ in failing if p is probe], slack)
            result = replace(result, place=place, causes=tuple(why))
            result = replace(result, parameters=parameter_differences(model, path, format_).lines)
        plainest = min((p for p, _, _ in failing), key=plainness)
        sides = Sides.graphs(self._ours, self._theirs, self._map, self._precision)
        minimal, arrays = smallest(sides, plainest, every)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            parties: list[tuple[Side, Callable[[Arrays], Arrays]]] = [
                (load_side("source", *self._pair.source[:2], self._ours.interface, self._pair.source[2]), self._ours),
                (load_side("target", path, format_, self._ours.interface, ReadOptions()), sides.other),
            ]
        answers, missing = engines_say(parties, arrays)
        graphs = (("source", model, arrays), ("target", self._theirs.model, self._map.there(arrays)))
        result = replace(result, answers=tuple(answers), doubts=tuple(doubts(answers)), missing=tuple(missing))
        return replace(result, minimal=minimal, graphs=graphs)

    def _layers(self, every: Sequence[Probe]) -> list[tuple[Layers, Layered, Sequence[Probe]]]:
        """The engines that lay their layers open against the graphs of their files, and the probes that were tried."""
        there = [replace(probe, arrays=self._map.there(probe.arrays)) for probe in every]
        files = [
            ("source", self._ours, self._pair.source, every),
            ("target", self._theirs, (*self._pair.target, ReadOptions()), there),
        ]
        result = []
        for role, trace, (path, format_, options), some in files:
            engine = layered(path, format_, trace.interface, options)
            found = None if engine is None else compared(role, trace, engine, some)
            if engine is not None and found is not None:
                result.append((found, engine, some))
        return result

    def _against_engine(self, result: Diff, found: Layers, engine: Layered, every: Sequence[Probe]) -> Diff:
        """The smallest input on which the engine of a file and its graph differ."""
        trace = self._ours if found.role == "source" else self._theirs
        assert found.parting is not None
        sides = Sides(trace, engine, engine.precision, burnt_in(trace))
        minimal, arrays = smallest(sides, found.parting.probe, every)
        side = Side(Party(found.role, "", "", ""), {engine.precision: engine})
        answers, missing = engines_say([(side, trace)], arrays)
        graphs = ((found.role, trace.model, arrays),)
        return replace(result, minimal=minimal, answers=tuple(answers), missing=tuple(missing), graphs=graphs)

    def _failing(self, probe: Probe, way: Pairing) -> tuple[Probe, str, Match] | None:
        """The output that differs most on a probe, None where none does or an engine has no answer to it."""
        try:
            a = self._ours(probe.arrays)
            b = way.back(self._theirs(way.there(probe.arrays)))
        except Inconclusive as error:
            self._refusal = str(error)
            return None
        self._ran += 1
        if all(np.array_equal(a[name], b[name], equal_nan=True) for name in a):
            return None
        inside = self._ours.inside(probe, self._precision)
        worst = max(((name, self._apart(inside, name, b[name])) for name in a), key=lambda item: item[1].ratio)
        return (probe, *worst) if worst[1].ratio > 1 else None

    def _apart(self, inside: Traced, name: str, other: NDArray[Any]) -> Match:
        if inside.values[name].shape != other.shape:
            return Match(np.inf, np.inf)
        return same(inside.values[name], other, inside.tolerances[name], inside.undecidable)

    def _agrees_by_position(self, failing: Sequence[Probe]) -> bool:
        try:
            way = pairing(self._ours.interface, self._theirs.interface, names=False)
        except Inconclusive:
            return False
        return all(self._failing(probe, way) is None for probe in failing)

    def _place(
        self, probe: Probe, every: Sequence[Probe], outputs: Sequence[str], slack: float
    ) -> tuple[Place, list[str]]:
        """The first node that diverges, and what is wrong with it."""
        ordinary = next(p for p in every if p.length != 0)
        batches = [probe] if probe is ordinary or probe.length == 0 else [probe, ordinary]
        ours = [self._ours.inside(p, self._precision) for p in batches]
        theirs = [self._seen(self._theirs, p, self._map) for p in batches]
        reference, way, seen = self._like_the_target(batches) or (self._ours, None, ours)
        straight = pairing(reference.interface, self._theirs.interface)
        ends = [(name, there) for name, there, _ in straight.outputs if way is None or way.get(name) in outputs]
        ends = [(a, b) for a, b in ends if way is not None or a in outputs]
        found = first_divergence(
            reference, self._theirs, seen, theirs, {there: here for there, here, _ in straight.inputs}, ends, slack
        )
        why = causes(found, self._theirs)
        node = found.before if found.missing else found.node
        partner = found.missing[0] if found.missing else found.partner
        own = partner
        if reference is not self._ours and partner is not None:
            own = self._source_of(partner, reference, ours, seen, found.agreed.values())
        agreeing = sum(1 for n in self._theirs.nodes if self._theirs.value[n.name or ""] in found.agreed)
        return (
            Place(
                layer(node) if node is not None else "",
                node.op_type if node is not None else "",
                layer(own) if own is not None else "",
                own.op_type if own is not None else "",
                found.match if np.isfinite(found.match.ratio) else NOTHING,
                agreeing,
                len(self._theirs.nodes),
            ),
            why,
        )

    def _seen(self, trace: Trace, probe: Probe, way: Pairing) -> Traced:
        return trace.inside(replace(probe, arrays=way.there(probe.arrays)), self._precision)

    def _like_the_target(self, batches: Sequence[Probe]) -> tuple[Trace, dict[str, str], list[Traced]] | None:
        """The source written anew in the target's format, if that computes what the source computes."""
        again = written_anew(self._ours.model, self._theirs.model, self._pair.target[1])
        if again is None:
            return None
        try:
            trace = self._stack.enter_context(traced(again, self._seed))
            way = pairing(self._ours.interface, trace.interface)
            seen = [self._seen(trace, probe, way) for probe in batches]
        except Inconclusive:
            return None
        for probe, inside in zip(batches, seen, strict=True):
            mine = self._ours.inside(probe, self._precision)
            back = way.back(inside.values)
            if any(self._apart(mine, name, back[name]).ratio > 1 for name in back):
                return None
        return trace, {there: here for here, there, _ in way.outputs}, seen

    def _source_of(
        self, node: ir.Node, reference: Trace, ours: Sequence[Traced], seen: Sequence[Traced], agreed: Iterable[str]
    ) -> ir.Node | None:
        """The node of the source behind `node` of the rewritten source: both compute the same, or the next one does.

        Of several that it stands for (a layer and what takes its last step), the first of its operator, else the first.
        """

        def equal(name: str) -> Iterator[str]:
            for mine in self._ours.value.values():
                match = matches(ours, seen, mine, name)
                if match is not None and match.ratio <= 1:
                    yield mine

        inner = set(reference.value.values())
        behind = (reference.value[n.name or ""] for n in _from(reference.nodes, node))
        end = next((mine for name in behind for mine in equal(name)), None)
        if end is None:
            return None
        known = {mine for name in agreed if name in inner for mine in equal(name)}
        nodes = region(self._ours, [end], known)
        telling = [n for n in nodes if n.op_type != "Cast"] or nodes
        return next((n for n in telling if n.op_type == node.op_type), telling[0] if telling else None)


def _real(data: DataSpec, model: ir.Model) -> list[Probe]:
    """The first real events."""
    from modelhub.data import open_events

    spec = replace(data, events=min(data.events or EVENTS, EVENTS))
    events = open_events(spec, model, Interface.of(model))
    return [Probe("data", batch.length, batch.arrays) for block in events.read() for batch in block if batch.count]


def _from(nodes: Sequence[ir.Node], node: ir.Node) -> Iterator[ir.Node]:
    """`node` and what depends on it alone in a row: each next node that reads the last."""
    yield node
    last = node
    for other in nodes[nodes.index(node) + 1 :] if node in nodes else []:
        if any(value in last.outputs for value in other.inputs if value is not None):
            yield other
            last = other
