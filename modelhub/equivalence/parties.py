"""The three sides of a check, each in its own engine at every precision that engine has."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelhub import plugins
from modelhub.equivalence.report import Party
from modelhub.errors import Inconclusive, Notice, notice, safe_text
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions, WriteOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.equivalence.probes import Probe
    from modelhub.protocols import Arrays, Engine

__all__ = ["Side", "graph_side", "knows_masks", "load_side"]


@dataclass
class Side:
    """A party and its engines, best first, by precision; a second one of a precision is "float64 by <its name>".

    masks: whether it leaves out masked steps; such a side gets the padded events of a probe that has some.
    """

    party: Party
    engines: dict[str, Engine] = field(default_factory=dict)
    masks: bool = False

    @property
    def best(self) -> str | None:
        """The key of the best engine."""
        return next(iter(self.engines), None)

    def takes(self, arrays: Arrays) -> bool:
        """Whether any of its engines answers; a side without engines says nothing against."""
        try:
            return not self.engines or bool(self.run(arrays, lenient=True))
        except Inconclusive:
            return False

    def settle(self, ordinary: Sequence[Arrays]) -> None:
        """Drop the engines that cannot run this model at all, as they refuse every one of some `ordinary` batches.

        Where two have the same precision, one that fails is kept: its refusal belongs in the report.
        """
        precisions = [engine.precision for engine in self.engines.values()]
        reasons = []
        for key, engine in list(self.engines.items()):
            if precisions.count(engine.precision) > 1:
                continue
            refusals = list(takewhile(bool, (_refusal(engine, arrays) for arrays in ordinary)))
            if refusals and len(refusals) == len(ordinary):
                del self.engines[key]
                reasons.append(f"{self.party.role}: {refusals[0]}")
        if not self.engines and reasons:
            self.party.missing = "; ".join(reasons)
        self.party.engines = [f"{e.name} {e.version} {e.precision}" for e in self.engines.values()]

    def answer(self, probe: Probe, *, lenient: bool) -> dict[str, Arrays]:
        """Outputs by key for a probe, given to the engines in its pieces, with its threads. Raises as `run` does."""
        if probe.padded and self.masks:
            return self.padded(probe)
        if probe.threads > 1 and any(hasattr(engine, "with_threads") for engine in self.engines.values()):
            return replace(self, engines=_threaded(self.engines, probe.threads)).run(probe.arrays, lenient=lenient)
        if not probe.pieces or self.party.role == "graph":
            return self.run(probe.arrays, lenient=lenient)
        backwards = dict(reversed(probe.arrays.items()))  # inputs are known by name, not by place
        parts = [
            self.run({name: x[events] for name, x in backwards.items()}, lenient=lenient) for events in probe.pieces
        ]
        back = np.argsort(np.concatenate(probe.pieces))
        return {
            key: {name: np.concatenate([part[key][name] for part in parts])[back] for name in outputs}
            for key, outputs in parts[0].items()
        }

    def padded(self, probe: Probe) -> dict[str, Arrays]:
        """Outputs for the padded events of a probe, without those of the steps behind. Raises as `run` does."""
        steps = next(x.shape[1] for name, x in probe.padded.items() if x.shape != probe.arrays[name].shape)
        return {
            key: {n: y[:, : probe.length] if y.ndim > 2 and y.shape[1] == steps else y for n, y in outputs.items()}
            for key, outputs in self.run(probe.padded, lenient=True).items()
        }

    def run(self, arrays: Arrays, *, lenient: bool) -> dict[str, Arrays]:
        """Outputs by key. Raises `Inconclusive` where an engine refuses this probe; if lenient, where all do."""
        results: dict[str, Arrays] = {}
        refusal = None
        for key, engine in self.engines.items():
            try:
                results[key] = _by_event(engine(arrays), arrays)
            except Inconclusive as error:
                refusal = error
        if refusal is not None and not (lenient and results):
            raise Inconclusive(f"{self.party.role}: {refusal}")
        return results


def _by_event(outputs: Arrays, arrays: Arrays) -> Arrays:
    """The outputs. Raises `Inconclusive` where one has not a row for every event."""
    events = len(next(iter(arrays.values())))
    for name, y in outputs.items():
        if not y.ndim or len(y) != events:
            raise Inconclusive(f"output {safe_text(name)} is {list(y.shape)} for {events} events: not a row for each")
    return outputs


def _refusal(engine: Engine, arrays: Arrays) -> str:
    """Why an engine will not take a batch; "" where it does."""
    try:
        _by_event(engine(arrays), arrays)
    except Inconclusive as error:
        return str(error)
    return ""


def _threaded(engines: dict[str, Engine], threads: int) -> dict[str, Engine]:
    return {
        key: engine.with_threads(threads) if hasattr(engine, "with_threads") else engine
        for key, engine in engines.items()
    }


def load_side(
    role: str,
    path: Path,
    format: str,
    interface: Interface,
    options: ReadOptions,
    name: str = "",
) -> Side:
    """The file `path` in every engine of its format that is installed; without one the side says what is missing."""
    party = Party(role, format, name or path.name, _digest(path))
    if options.weights is not None:
        party.weights = (options.weights.name, _digest(options.weights))
    side = Side(party, masks=knows_masks(format))
    runtime = plugins.runtime(format)
    further = [other for other in plugins.further_runtimes(format) if other.installed()]
    if runtime is None:
        party.missing = f"{role}: no engine is known for {format} files"
    elif not runtime.installed():
        party.missing = f'{role}: the {format} engine is not installed; pip install "modelhub-hep[{runtime.extra}]"'
    else:
        reasons = []
        for each in [*further, runtime]:
            for precision in each.precisions:
                try:
                    engine = each.load(path, interface, precision, options)
                except Inconclusive as error:
                    reasons.append(f"{role}: {error}")
                    if each is not runtime:
                        notice(reasons[-1])
                    continue
                side.engines[precision if precision not in side.engines else f"{precision} by {engine.name}"] = engine
        if not side.engines:
            party.missing = "; ".join(dict.fromkeys(reasons))
    return side


def graph_side(model: ir.Model, interface: Interface, folder: Path) -> Side:
    """The common graph in onnxruntime, written out in float64 (attributes kept as doubles) and in float32."""
    side: Side | None = None
    runtime, exporter = plugins.runtime("onnx"), plugins.exporter("onnx")
    reasons = []
    for precision in ("float64", "float32"):
        path = folder / f"graph.{precision}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)  # what is to be known of an ONNX file is not asked here
            exporter.write(model.clone(), path, WriteOptions(precision=precision))
        if side is None or precision == "float32":
            engines = side.engines if side is not None else {}
            side = Side(Party("graph", "onnx", "graph.onnx", _digest(path)), engines)
        if runtime is None:
            continue
        try:
            engine = runtime.load(path, interface, precision, ReadOptions())
            side.engines[precision] = engine
        except Inconclusive as error:
            reasons.append(f"graph: {error}")
    assert side is not None
    if not side.engines:
        side.party.missing = "; ".join(reasons) or "graph: onnxruntime is not installed"
    return side


def knows_masks(format: str) -> bool:
    """Whether files of a format can leave out masked steps of a sequence."""
    names = plugins.names(plugins.EXPORTERS)
    return format not in names or plugins.exporter(format).masks


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
