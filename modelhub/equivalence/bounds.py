"""How far rounding may carry an answer: a tolerance that follows the model and the event, not one picked by hand.

The graph is run in float64, and again and again with every intermediate shaken by six float32 roundings (`shaking`).
The root mean square of what that does to an output is its tolerance in float32; in float64 it is 2^29 times smaller, or
what roundings of float64 do to a graph of which some is computed in float64 in every file.
Two engines that compute the same function stay within it, whatever the order of their sums; a tenth of a per mille in
one weight does not. What no combination of roundings exceeds follows from it by Cauchy and Schwarz: of M roundings
with standard deviation σ together, the sum of their absolute values is at most √M σ.

An event is undecidable where a hard decision (a comparison of computed numbers, an argmax, a threshold of a tree
behind arithmetic) is within that tolerance of falling the other way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub import plugins
from modelhub.equivalence.compare import ROUNDOFF, Allowed
from modelhub.equivalence.coverage import TreeReach
from modelhub.equivalence.pen import LAMBDA
from modelhub.equivalence.shaking import Shaken, shaken
from modelhub.errors import Inconclusive, ModelhubError
from modelhub.graph.forest_forms import from_node
from modelhub.graph.interface import Interface, Output
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    from modelhub.equivalence.probes import Probe
    from modelhub.protocols import Arrays, Engine

__all__ = ["Bound", "Compared", "Shape", "Spread", "Usual", "bound", "moved"]

DRAWS = 8
"""How often a batch is run on the shaken graph."""

WHOLE = 1024
"""Events of a batch that is shaken as a whole."""

ROUNDINGS = 5e7
"""Roundings of a batch that is shaken as a whole: a second or two."""

LEAST = 8
"""Events that are shaken of any batch."""

SAMPLE = 64
"""Events that are shaken of a larger one."""

LEARNED = (8, 128)
"""Of how many events at least, and at most, the usual tolerance of a whole file is learned."""

CAREFUL = 0.1
"""The part of a sample that is shaken less than what is taken to be usual."""

NEAR = 2.0
"""A decision is open within so many spreads of its margin: few draws know neither its middle nor its spread well."""

PIECE = 4096
"""Events shaken at once."""

CLAMP = 1e-12
"""Allowed in float64 whatever the bound: numbers that are kept in float64 even in float32 graphs are not shaken."""

FINER = ROUNDOFF["float64"] / ROUNDOFF["float32"]

CLAMPED = 2.0**-21
"""The same behind a sigmoid: lwtnn's is exactly 0 or 1 beyond |x| = 30 (src/Activations.cxx), which is off by 9.4e-14,
and shaken is it by four float32 roundings, 2.4e-7."""

Array = NDArray[Any]


Compared = tuple["Arrays", "Arrays", str]
"""The answers of two sides to one batch, and the precision they are compared at."""

Shape = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Usual:
    """What shaking does to events of one shape, as a sample shows: by output, without the axis of events.

    An event that was not shaken is taken to be moved by `absolute`, or by `relative` times its size, if that is more:
    both are exceeded by nine in ten events of the sample.
    """

    absolute: dict[str, Array]
    relative: dict[str, Array]

    @classmethod
    def of(cls, answer: Arrays, deviation: dict[str, Array]) -> Usual:
        """From a sample: its answer, and how far shaking moved it."""
        absolute, relative = {}, {}
        for name, moved in deviation.items():
            size, known = np.abs(answer[name]), np.isfinite(answer[name])
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where(size > 0, moved / size, np.inf)
            absolute[name] = _low(np.where(known, moved, np.inf))
            relative[name] = _low(np.where(known, ratio, np.inf))
        return cls(absolute, relative)

    def deviation(self, name: str, answer: Array) -> Array:
        """What it means for events that answer so."""
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = self.relative[name] * np.abs(answer)
        return np.asarray(np.maximum(self.absolute[name], np.where(np.isfinite(scaled), scaled, 0.0)))


def _low(numbers: Array) -> Array:
    """The quantile `CAREFUL` of the finite numbers along the first axis; 0 where there are none."""
    ordered = np.sort(numbers, axis=0)
    place = (CAREFUL * np.maximum(np.isfinite(ordered).sum(axis=0) - 1, 0)).astype(np.int64)
    found = np.take_along_axis(ordered, place[np.newaxis], axis=0)[0]
    return np.where(np.isfinite(found), found, 0.0)


@dataclass(frozen=True)
class Spread:
    """What shaking did to one batch, or to some of its events.

    deviation: by output, [events, ...]: root mean square distance from the answer that was not shaken.
    fine:      the same by roundings of float64; None where it is `finer` times `deviation`.
    limit:     how many times that no rounding exceeds.
    near:      by precision, [events]: a hard decision is within rounding.
    reached:   what of the model the batch reached.
    events:    which events of the batch these are; None: all, in order.
    finer:     how much less float64 is moved than float32.
    usual:     what is taken of the others.
    learned:   whether that comes from other batches.
    """

    deviation: dict[str, Array]
    limit: float
    near: dict[str, NDArray[np.bool_]]
    reached: dict[str, NDArray[np.bool_]]
    events: NDArray[np.int64] | None = None
    finer: float = FINER
    usual: Usual | None = None
    learned: bool = False
    fine: dict[str, Array] | None = None

    def allowed(self, reference: Arrays, precision: str) -> dict[str, Allowed]:
        """The tolerance of every output at a precision."""
        if self.events is None or self.usual is None:
            return {
                name: Allowed(
                    _tolerance(x, self._moved(name, precision), precision), self.limit, self.near.get(precision)
                )
                for name, x in reference.items()
            }
        result = {}
        for name, x in reference.items():
            others = self.usual.deviation(name, x) * (1.0 if precision == "float32" else self.finer)
            tolerance = _tolerance(x, others, precision)
            tolerance[self.events] = _tolerance(x[self.events], self._moved(name, precision), precision)
            known, near = np.zeros((2, len(x)), np.bool_)
            known[self.events], near[self.events] = True, self.near[precision]
            result[name] = Allowed(tolerance, self.limit, near, None if self.learned else known)
        return result

    def _moved(self, name: str, precision: str) -> Array:
        """What roundings of a precision do to an output."""
        if precision == "float32":
            return self.deviation[name]
        return self.deviation[name] * self.finer if self.fine is None else self.fine[name]

    def widened(self, other: Spread) -> Spread:
        """With what `other` allows the same events, where that is more."""
        deviation = {name: np.maximum(x, other.deviation[name]) for name, x in self.deviation.items()}
        fine = (
            None if self.fine is None else {n: np.maximum(x, other._moved(n, "float64")) for n, x in self.fine.items()}
        )
        return replace(self, deviation=deviation, fine=fine)

    def joined(self, other: Spread) -> Spread:
        """With some more events of the same batch."""
        assert self.events is not None
        assert other.events is not None
        return replace(
            self,
            deviation=_both(self.deviation, other.deviation),
            fine=None if self.fine is None or other.fine is None else _both(self.fine, other.fine),
            near={name: np.concatenate([x, other.near[name]]) for name, x in self.near.items()},
            reached={name: x | self.reached.get(name, False) for name, x in other.reached.items()},
            events=np.concatenate([self.events, other.events]),
        )


def _both(one: dict[str, Array], other: dict[str, Array]) -> dict[str, Array]:
    return {name: np.concatenate([x, other[name]]) for name, x in one.items()}


def _tolerance(reference: Array, moved: Array, precision: str) -> Array:
    """What is allowed at a precision around a reference that its roundings move so far."""
    size = np.where(np.isfinite(reference), np.abs(reference), 0.0).astype(np.float64)
    allowed = moved + LAMBDA * ROUNDOFF[precision] * size
    allowed = np.maximum(allowed, np.finfo(precision).tiny)  # below it a number may be rounded to 0
    if precision == "float64":
        allowed = np.maximum(allowed, CLAMP * np.maximum(1.0, size))
    return np.asarray(allowed)


class Bound:
    """The shaken graph in its engine; and that shaken by roundings of float64 alone, where it keeps some of it."""

    def __init__(self, engine: Engine, parts: Shaken, fine: Engine | None = None) -> None:
        self._engine = engine
        self._fine = fine
        self._burnt_in = any(
            v.shape is None or isinstance(next(iter(v.shape), None), int) for v in parts.model.graph.inputs
        )
        self._parts = parts
        self._finer = 1.0 if parts.narrows else CLAMPED if parts.clamped else FINER
        self._trees = []
        self.learned: dict[Shape, Usual] = {}
        for node, tap in parts.forests:
            try:
                self._trees.append((tap, TreeReach(from_node(node))))
            except ModelhubError:
                continue

    @property
    def blind(self) -> bool:
        """Whether there are operators that are not shaken, as nothing is known of how they round.

        Not where something is decided: what moves an input over the edge tells nothing of rounding.
        """
        parts = self._parts
        trees = any(node.op_type.startswith("TreeEnsemble") for node in parts.model.graph)
        return parts.unknown and not parts.decisions and not trees

    def spread(self, probe: Probe, answer: Arrays, legs: list[Compared]) -> Spread:
        """Shake one batch; `answer` is that of the graph in float64.

        Of a large batch a sample is shaken, and each event in which a leg differs by more than is usual in the sample:
        what agrees better than that needs no tolerance of its own. Where what is usual has been learned (`learn`),
        there is no sample.
        """
        usual = self.learned.get(_shape(probe))
        if self._burnt_in or self.blind or (probe.events <= self._whole(probe) and usual is None):
            return self.of(probe, answer)
        sample = min(SAMPLE, self._whole(probe))
        events = np.linspace(0, probe.events - 1, 0 if usual else sample).astype(np.int64)
        if usual is None:
            first = self.of(*_some(probe, answer, events))
            still = {name: answer[name][events] for name in first.deviation}
            first = replace(first, events=events, usual=Usual.of(still, first.deviation))
        else:
            none = {name: np.zeros((0, *x.shape[1:])) for name, x in answer.items()}
            near = {precision: np.zeros(0, np.bool_) for precision in ROUNDOFF}
            fine = None if self._fine is None else none
            first = Spread(none, self._limit(probe), near, {}, events, self._finer, usual, learned=True, fine=fine)
        doubtful = np.zeros(probe.events, np.bool_)
        for a, b, precision in legs:
            for name, allowed in first.allowed(a, precision).items():
                if a[name].shape != b[name].shape:
                    continue
                with np.errstate(invalid="ignore"):
                    fits = np.abs(np.subtract(a[name], b[name], dtype=np.float64)) <= allowed.tolerance
                fits |= (a[name] == b[name]) | (np.isnan(a[name]) & np.isnan(b[name]))  # infinities and NaN
                doubtful |= ~fits.reshape(probe.events, -1).all(axis=1)
        doubtful[events] = False
        more = np.flatnonzero(doubtful)
        for start in range(0, len(more), PIECE):
            piece = more[start : start + PIECE]
            first = first.joined(replace(self.of(*_some(probe, answer, piece)), events=piece))
        return first

    def _whole(self, probe: Probe) -> int:
        """How many events of such a batch are shaken as a whole: fewer of a network that rounds much in each."""
        return int(np.clip(ROUNDINGS / (self._parts.roundings * max(probe.length or 1, 1)), LEAST, WHOLE))

    def of(self, probe: Probe, answer: Arrays) -> Spread:
        """Shake every event of a batch; `answer` is that of the graph in float64."""
        draws = [self._engine(probe.arrays) for _ in range(DRAWS)]
        deviation = {name: _deviation(still, [draw[name] for draw in draws]) for name, still in answer.items()}
        near = {"float32": self._near(draws, probe.events, 1.0)}
        finely = draws if self._fine is None else [self._fine(probe.arrays) for _ in range(DRAWS)]
        near["float64"] = self._near(finely, probe.events, FINER if self._fine is None else 1.0)
        fine = None
        if self._fine is not None:
            fine = {name: _deviation(still, [draw[name] for draw in finely]) for name, still in answer.items()}
        return Spread(deviation, self._limit(probe), near, self._reached(draws[0]), finer=self._finer, fine=fine)

    def learn(self, probe: Probe, answer: Arrays) -> dict[str, NDArray[np.bool_]]:
        """Take what is usual in this batch for usual in all of its shape, and tell what was reached; `answer` as above.

        For files of events: to shake a sample of every batch would take longer than to run them.
        """
        least, most = LEARNED
        if self._burnt_in or probe.events < least or _shape(probe) in self.learned:
            return {}
        events = np.linspace(0, probe.events - 1, min(probe.events, most)).astype(np.int64)
        some, theirs = _some(probe, answer, events)
        spread = self.of(some, theirs)
        self.learned[_shape(probe)] = Usual.of(theirs, spread.deviation)
        return spread.reached

    def _limit(self, probe: Probe) -> float:
        return max(sqrt(self._parts.roundings * max(probe.length or 1, 1)) / LAMBDA, 1.0)

    def _near(self, draws: list[Arrays], events: int, finer: float) -> NDArray[np.bool_]:
        result = np.zeros(events, np.bool_)
        for name in self._parts.decisions:
            margins = np.stack([draw[name] for draw in draws])
            if margins.ndim > 1 and margins.shape[1] == events:
                middle = margins.mean(axis=0)
                wide = NEAR * np.sqrt(((margins - middle) ** 2).mean(axis=0)) * finer
                result |= ((np.abs(middle) <= wide) & (wide > 0)).reshape(events, -1).any(axis=1)
        for tap, trees in self._trees:
            rows = np.stack([draw[tap] for draw in draws]).astype(np.float64)
            if rows.shape[1] == events:
                middle = rows.mean(axis=0)
                result |= trees.near(middle, NEAR * np.sqrt(((rows - middle) ** 2).mean(axis=0)) * finer)
        return result

    def _reached(self, draw: Arrays) -> dict[str, NDArray[np.bool_]]:
        found: dict[str, NDArray[np.bool_]] = {}
        parts = self._parts
        for kind, pairs in (("ReLU units both states", parts.relus), ("saturated units, both ends", parts.sigmoids)):
            for index, (one, other) in enumerate(pairs):
                # a graph with a burnt-in batch has run several times, once for each entry of the first axis
                ways = (draw[name].reshape(-1, draw[name].shape[-1]) for name in (one, other))
                found[f"{kind}/{index}"] = np.concatenate([way.astype(np.bool_).any(axis=0) for way in ways])
        for index, (tap, trees) in enumerate(self._trees):
            found |= {f"{kind}/{index}": flags for kind, flags in trees.reached(draw[tap]).items()}
        return found


def _shape(probe: Probe) -> Shape:
    """What batches have in common that rounding treats alike: the shapes of an event's inputs."""
    return tuple((name, x.shape[1:]) for name, x in sorted(probe.arrays.items()))


def _some(probe: Probe, answer: Arrays, events: NDArray[np.int64]) -> tuple[Probe, Arrays]:
    """Some events of a batch."""
    arrays = {name: x[events] for name, x in probe.arrays.items()}
    return replace(probe, arrays=arrays, numbers=None), {name: x[events] for name, x in answer.items()}


def _deviation(still: Array, draws: list[Array]) -> Array:
    """Root mean square distance; infinite where shaking takes a number out of the numbers, 0 where none was."""
    with np.errstate(invalid="ignore", over="ignore"):
        squares = sum((draw - still) ** 2 for draw in draws)
        result = np.sqrt(np.asarray(squares) / len(draws))
    finite = np.isfinite(still)
    return np.where(finite, np.where(np.isnan(result), np.inf, result), 0.0)


def moved(engine: Engine, probe: Probe, answer: Arrays) -> Spread:
    """What moving the inputs by two roundings does, sixteenfold.

    Where the graph does not run in float64, or holds operators of which it is not known how they round.
    """
    rng = np.random.default_rng(0)
    arrays = {
        name: (x * (1 + rng.choice([-1, 1], x.shape) * 2.0**-23)).astype(x.dtype) if x.dtype.kind == "f" else x
        for name, x in probe.arrays.items()
    }
    others = engine(arrays)
    deviation = {}
    for name, still in answer.items():
        step = _deviation(still, [others[name]])
        largest = np.max(step, axis=tuple(range(max(step.ndim - 1, 1))), initial=0.0, keepdims=True)
        deviation[name] = np.broadcast_to(16.0 * largest, step.shape)
    return Spread(deviation, 1.0, {}, {})


def bound(model: ir.Model, interface: Interface, folder: Path, seed: int, *, keeps: bool = True) -> Bound | None:
    """The shaken graph of `model` (`shaken`), ready to run; None where onnxruntime cannot run it."""
    runtime = plugins.runtime("onnx")
    if runtime is None or not runtime.installed():
        return None
    parts = shaken(model, seed, keeps=keeps)

    def ready(each: Shaken, name: str) -> Engine:
        path = folder / name
        path.write_bytes(ir.to_proto(each.model).SerializeToString())
        record = replace(interface, outputs=(*interface.outputs, *(Output(tap, ()) for tap in each.taps)))
        return runtime.load(path, record, "float64", ReadOptions())

    try:
        engine = ready(parts, "shaken.onnx")
        fine = ready(shaken(model, seed, "float64"), "finely.onnx") if parts.kept and not parts.narrows else None
    except Inconclusive:
        return None
    return Bound(engine, parts, fine)
