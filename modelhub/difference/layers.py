"""Whether the graph read from a file computes, layer by layer, what the file's own engine computes.

Where it does not, the reader is at fault, no converter: no comparison of two graphs can show that. Engines that lay
their layers open (`modelhub.protocols.Layered`) are held against the values of the graph of which the reader noted
which layer's result they are. These have the axes of the source, so nothing is matched by looks; a layer whose result
is in the graph under another shape, more than once or not at all is passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from modelhub import plugins
from modelhub.difference.bisect import Match, region, same
from modelhub.difference.causes import layer
from modelhub.difference.mending import mended
from modelhub.difference.resemblance import resemblance
from modelhub.difference.smallest import burnt_in
from modelhub.equivalence.bounds import CLAMP
from modelhub.errors import Inconclusive, safe_text
from modelhub.graph.builder import LAYERS

if TYPE_CHECKING:
    from modelhub.difference.trace import Trace, Traced
    from modelhub.equivalence.probes import Probe
    from modelhub.graph.interface import Interface
    from modelhub.protocols import Arrays, Layered, ReadOptions

__all__ = ["Layers", "Parting", "compared", "layered", "plainness"]

EVENTS = 64
"""Events of a probe that are taken: every value of every layer is kept."""

MOST = 32
"""How many results are tried in the graph."""


@dataclass(frozen=True)
class Parting:
    """The first result in which engine and graph part.

    name:   of the result, as the reader calls it.
    layers: the layers of the graph's nodes between it and the results before it, which agree: mostly its own alone.
    nodes:  the operators of these nodes; none where the graph has nothing for this layer.
    match:  engine against graph.
    hints:  what the graph's numbers look like, beside the engine's.
    probe:  the events that show it.
    alone:  whether the graph answers as the engine does once it is given the engine's numbers here.
    """

    name: str
    layers: tuple[str, ...]
    nodes: tuple[str, ...]
    match: Match
    hints: tuple[str, ...]
    probe: Probe
    alone: bool

    @property
    def where(self) -> str:
        """The layer's name, with that of the result where it is another; several where it may be any of them."""
        names = ", ".join(self.layers)
        result = safe_text(self.name)
        return (
            f"one of {names}" if len(self.layers) > 1 else f"{names}, {result}" if names not in ("", result) else result
        )


@dataclass(frozen=True)
class Layers:
    """An engine against the graph of its file: how many layers were compared, and the first that parts, if any.

    agreeing: how many of them compute the same.
    """

    role: str
    engine: str
    compared: int
    agreeing: int
    parting: Parting | None = None


def layered(path: Path, format: str, interface: Interface, options: ReadOptions) -> Layered | None:
    """The file in its own engine, at the best precision, where that lays layers open."""
    runtime = plugins.runtime(format)
    for precision in runtime.precisions if runtime is not None and runtime.installed() else ():
        try:
            engine = runtime.load(path, interface, precision, options)  # type: ignore[union-attr]
        except Inconclusive:
            continue
        return cast("Layered", engine) if hasattr(engine, "layers") else None
    return None


def compared(role: str, trace: Trace, engine: Layered, every: Sequence[Probe]) -> Layers | None:
    """Hold `engine` against `trace`, both of the file that is `role`; None where the engine takes none of `every`.

    Layers are compared on the plainest of those probes on which an output differs. Where none does, one ordinary probe
    tells how many agree; a difference that reaches no output (in a step that is masked) is none.
    """
    name, known = f"{engine.name} {engine.precision}", _known(trace)
    some = [_few(probe, trace) for probe in sorted(every, key=plainness)]
    calm = None
    for probe in some:
        try:
            inside = _differ(trace, engine, probe)
            if inside is not None:
                return _laid_open(trace, engine, probe, inside, Layers(role, name, 0, 0), known)
        except Inconclusive:
            continue
        calm = probe if calm is None else calm
    if calm is None:
        return None
    try:
        inside = trace.inside(calm, engine.precision)
        found = list(_results(engine, calm, inside, known))
    except Inconclusive:
        return None
    return Layers(role, name, len(found), sum(result.match.ratio <= 1 for result in found))


def plainness(probe: Probe) -> tuple[bool, bool, bool, int]:
    """What to sort probes by: real events first, then ordinary ones; short sequences first, but for empty ones."""
    return probe.length == 0, probe.kind != "data", probe.name != "normal", probe.length or 0


def _known(trace: Trace) -> dict[str, str]:
    """For each result of the source the value of the graph that it is, where there is one only."""
    computed = set(trace.value.values())
    pairs = [(name, v.name or "") for n in trace.model.graph for v in n.outputs for name in v.meta.get(LAYERS, [])]
    count = Counter(name for name, _ in pairs)
    return {name: value for name, value in pairs if count[name] == 1 and value in computed}


def _few(probe: Probe, trace: Trace) -> Probe:
    """Some events of a probe: all where their number is burnt in."""
    if burnt_in(trace) or probe.events <= EVENTS:
        return probe
    return replace(probe, arrays={name: x[:EVENTS] for name, x in probe.arrays.items()}, numbers=None, pieces=())


def _differ(trace: Trace, engine: Layered, probe: Probe) -> Traced | None:
    """What is inside the graph, where an output of the engine differs from it by more than rounding."""
    theirs, ours = engine(probe.arrays), trace(probe.arrays)
    if engine.precision == "float64" and all(
        ours[name].shape == y.shape and same(ours[name], y, CLAMP * np.maximum(1, np.abs(ours[name]))).ratio <= 1
        for name, y in theirs.items()
    ):
        return None
    inside = trace.inside(probe, engine.precision)
    return inside if any(_against(inside, name, y).ratio > 1 for name, y in theirs.items()) else None


def _against(inside: Traced, value: str, result: NDArray[Any]) -> Match:
    x = inside.values[value]
    if x.shape != result.shape:
        return Match(np.inf, np.inf)
    return same(x, result.astype(np.float64), inside.tolerances[value], inside.undecidable)


@dataclass(frozen=True, eq=False)
class _Result:
    """The result of a layer: its name, the value of the graph, the engine's numbers, and how the two match."""

    name: str
    value: str
    numbers: NDArray[np.float64]
    match: Match


def _results(engine: Layered, probe: Probe, inside: Traced, known: dict[str, str]) -> Iterator[_Result]:
    """The results of the layers that can be compared."""
    for name, result in engine.layers(probe.arrays, known):
        value = known[name]
        if result.dtype.kind == "f" and result.shape == inside.values[value].shape:
            yield _Result(name, value, result.astype(np.float64), _against(inside, value, result))


def _laid_open(
    trace: Trace, engine: Layered, probe: Probe, inside: Traced, found: Layers, known: dict[str, str]
) -> Layers:
    """Find the first result that parts and reaches an output; an output where every layer that is known agrees."""
    agreed: set[str] = set()
    parted: list[_Result] = []
    for result in _results(engine, probe, inside, known):
        same_here = result.match.ratio <= 1
        found = replace(found, compared=found.compared + 1, agreeing=found.agreeing + same_here)
        if same_here:
            agreed.add(result.value)
        else:
            parted.append(result)
    answer = engine(probe.arrays)
    for name, y in answer.items():
        match = _against(inside, name, y)
        if match.ratio > 1:
            parted.append(_Result(name, name, y.astype(np.float64), match))
    first, alone = _first(trace, probe, inside, answer, parted)
    nodes = [] if first.value in agreed else region(trace, [first.value], agreed)
    parting = Parting(
        first.name,
        tuple(dict.fromkeys(_own(first.name, layer(node)) for node in nodes)),
        tuple(node.op_type for node in nodes),
        first.match,
        tuple(resemblance(first.numbers, inside.values[first.value])),
        probe,
        alone,
    )
    return replace(found, parting=parting)


def _first(
    trace: Trace, probe: Probe, inside: Traced, answer: Arrays, parted: Sequence[_Result]
) -> tuple[_Result, bool]:
    """The first result that moves an output when the graph is given the engine's numbers, and whether that mends all.

    Others are no fault: engines fill masked steps as they like.
    """
    for result in parted[:MOST]:
        try:
            other = mended(trace.model, result.value, result.numbers, probe.arrays)
        except Inconclusive:
            break
        if any(_against(inside, name, y).ratio > 1 for name, y in other.items()):
            still = [
                same(answer[name].astype(np.float64), y, inside.tolerances[name], inside.undecidable)
                for name, y in other.items()
            ]
            return result, all(match.ratio <= 1 for match in still)
    return parted[0], False


def _own(name: str, part: str) -> str:
    """The part of a layer as the layer."""
    return safe_text(name) if part.startswith(f"{safe_text(name)}/") else part
