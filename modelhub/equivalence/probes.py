"""Seeded inputs that a check runs on both sides: a class of probe for each way in which models go wrong.

All numbers are exact in float32, so that an engine in float32 and one in float64 see the same input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.equivalence.padding import behind, masking, padded
from modelhub.equivalence.pairing import unaskable
from modelhub.equivalence.tree_probes import tree_probes
from modelhub.errors import Inconclusive
from modelhub.graph.interface import Feature, Input, Interface

__all__ = ["Probe", "Progress", "probes"]

Progress = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps a loop over probes or over pieces of a data file, e.g. in a progress bar."""

EVENTS = 64
"""Events per probe."""

MANY = 512
"""Events of probe "normal" where there are no sequences: rounding shows most of a small fault in few of them."""

BATCH = 500
"""Rows in a probe of class "threshold", of which there are as many as the trees need."""

LENGTHS = (0, 1, 2, 3, 7, 20)
"""Sequence lengths tried where the graph leaves them open."""

LARGE = 1024
"""Events in a burnt-in batch from which on only the essential probes are made."""

BEYOND = 16
"""Events of probe "beyond"."""

LONG = 64
"""Steps of probe "long"."""

PIECES = (1, 2, 5, 12, 29)
"""Where probe "pieces" cuts its events."""

THREADS = 4

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


@dataclass(frozen=True)
class Probe:
    """One batch of events.

    length:  the number of steps of every sequence, None without sequences.
    kind:    the class of probes it belongs to; its name, where that is not given.
    numbers: [events] what the events are called in the report; counted from 0 where not given.
    pieces:  the events that all sides but the graph get in one call, call by call; () for all in one.
    threads: how many threads an engine uses that lets itself be told.
    judged:  whether a difference is a fault, or only to be told.
    padded:  the same events with masked steps behind them: what source and target get instead, if they know masks.
    """

    name: str
    length: int | None
    arrays: dict[str, NDArray[Any]]
    kind: str = ""
    numbers: NDArray[np.int64] | None = None
    pieces: tuple[NDArray[np.int64], ...] = ()
    threads: int = 1
    judged: bool = True
    padded: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", self.name)

    @property
    def events(self) -> int:
        """How many events there are."""
        return len(next(iter(self.arrays.values())))

    @property
    def place(self) -> str:
        """Its name, and the length of its sequences."""
        return self.name if self.length is None else f"{self.name} at length {self.length}"

    @property
    def span(self) -> str:
        """How many events, and between which of a file."""
        counted = f"{self.events} event{'' if self.events == 1 else 's'}"
        if self.numbers is None or not len(self.numbers):
            return counted
        return f"{counted} from {self.numbers.min()} to {self.numbers.max()}"


@dataclass(frozen=True)
class _Manner:
    """How values are made.

    draw:    numbers as the network sees them, after offset and scale; where `raw`, before.
    share:   draws in [0, 1) stand for the declared range of a variable, where it has one.
    holes:   a third of the variables that have a default are NaN.
    padded:  events end with steps that are masked, or else of zeros.
    lengths: whether all lengths of sequences are tried, or one.
    judged:  see `Probe`.
    """

    draw: Draw
    raw: bool = False
    share: bool = False
    holes: bool = False
    padded: bool = False
    lengths: bool = False
    judged: bool = True
    least: int = 0
    """Indices are drawn from here on."""
    masks: Mapping[str, float] = field(default_factory=dict)
    """Input -> the number that masks a step, where one does (`masking`)."""


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return rng.standard_normal(shape)


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.asarray(rng.choice([-1.0, 1.0], shape))


def _odd(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Zeros of either sign, numbers that float32 can only just hold, tiny and huge ones among normal ones."""
    odd = _signs(rng, shape) * rng.choice([0.0, 1e-45, 1e-40, 1.2e-38, 1e-30, 1e15, 1e30], shape)
    return np.where(rng.random(shape) < 0.3, odd, rng.standard_normal(shape))


def _nonfinite(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    few = rng.random(shape) < 0.5 / max(shape[-1], 1)
    return np.where(few, rng.choice([np.nan, np.inf, -np.inf], shape), rng.standard_normal(shape))


CLASSES: dict[str, _Manner] = {
    "normal": _Manner(_normal, lengths=True),
    "wide": _Manner(lambda rng, shape: 10 ** rng.uniform(-3, 3, shape) * _signs(rng, shape), lengths=True),
    "zero": _Manner(lambda _, shape: np.zeros(shape), lengths=True),
    "missing": _Manner(_normal, holes=True, lengths=True),
    "padded": _Manner(_normal, padded=True),
    "uniform": _Manner(lambda rng, shape: rng.random(shape), share=True),
    "corners": _Manner(lambda rng, shape: rng.integers(0, 2, shape).astype(np.float64), share=True),
    "raw": _Manner(lambda rng, shape: 10 ** rng.uniform(-3, 6, shape), raw=True),
    "odd": _Manner(_odd, raw=True),
    "nonfinite": _Manner(_nonfinite, judged=False),
}
"""How the numbers of each class are made."""

RANGE = 3.0
"""Where a variable has no declared range, it is taken from minus to plus this after offset and scale."""


def probes(
    model: ir.Model, seed: int, *, masks: bool = True, lengths: int = 0, ranges: Interface | None = None
) -> Iterator[Probe]:
    """Every probe for `model`, the same for the same seed, whatever the order they are drawn in.

    Their classes are told in `kinds.KINDS`. Probe "uniform" keeps to `ranges`, "every" tries each length below
    `lengths`, "threshold" is made by `tree_probes`.

    A network with masks gets no step that it would mask out (zeros, index 0) where `masks` is false: for a target that
    knows none and is told so (`Exporter.masks`).

    Raises `Inconclusive` for a model that takes no events (`unaskable`).
    """
    if reason := unaskable(model):
        raise Inconclusive(reason)
    interface = Interface.of(model) if ranges is None else ranges
    key = f"{seed}/{_digest(model)}"
    whole = not masks and any(node.op_type == "CompactSteps" for node in model.graph)
    defaults = any(f.default is not None for record in interface.inputs for f in record.features)
    sequences = any(record.sequence for record in interface.inputs)
    left_out = {"zero", "padded"} if whole else set()
    left_out |= (set() if defaults else {"missing"}) | (set() if sequences else {"padded"})
    batches = [v.shape[0] for v in model.graph.inputs if v.shape is not None and isinstance(v.shape[0], int)]
    large = max(batches, default=0) > LARGE  # a whole data set burnt in: what is essential takes long enough
    left_out |= {name for name, manner in CLASSES.items() if not manner.lengths} if large else set()
    tried: tuple[int | None, ...] = tuple(_lengths(interface)) if sequences else (None,)
    burnt_in = all(_fixed(v) for v, r in zip(model.graph.inputs, interface.inputs, strict=True) if r.sequence)
    middle = tried[max(len(tried) - 2, 0)]  # long enough for models that need a least number of steps

    def drawn(name: str, manner: _Manner, length: int | None, events: int = EVENTS) -> Probe:
        rng = _generator(f"{key}/{name}/{length}")
        arrays = {
            record.tensor: _fill(rng, value, record, _shape(value, record, length, events), manner)
            for value, record in zip(model.graph.inputs, interface.inputs, strict=True)
        }
        sizes = [
            a.shape[_step_axis(value)]
            for a, r, value in zip(arrays.values(), interface.inputs, model.graph.inputs, strict=True)
            if r.sequence
        ]
        steps = max(sizes, default=None) if length is not None else None
        return Probe(name, steps, arrays, judged=manner.judged)

    masked = masking(model)
    for name, each in CLASSES.items():
        if name in left_out:
            continue
        manner = replace(each, least=int(whole), masks=masked)
        for length in tried if manner.lengths else (middle,):
            yield drawn(name, manner, length, MANY if name == "normal" and not sequences else EVENTS)
            if length is not None and burnt_in:
                break
    if large:
        return
    normal = replace(CLASSES["normal"], least=int(whole))
    if sequences and not burnt_in and all(r.max_length is None for r in interface.inputs if r.sequence):
        yield drawn("long", normal, LONG, 8)
    if sequences and not burnt_in:
        for length in range(lengths):
            yield drawn("every", normal, length, 10)
        yield from _beyond(interface, lambda length: drawn("beyond", normal, length, BEYOND))
        if masked:
            kept = replace(normal, least=1)
            yield from _padding(model, interface, masked, tried[-1] or 0, lambda length: drawn("padding", kept, length))
    for name in ("pieces", "order", "threads"):
        probe = drawn(name, normal, middle)
        events = np.arange(probe.events)
        if name == "pieces" and not batches and all(v.shape is not None for v in model.graph.inputs):
            yield replace(probe, pieces=tuple(np.split(events, [n for n in PIECES if n < probe.events])))
        elif name == "order":
            yield replace(probe, pieces=(_generator(f"{key}/order").permutation(events),))
        elif name == "threads":
            yield replace(probe, threads=THREADS)
    yield from _thresholds(model, interface, tried[-1], _generator(f"{key}/threshold"))


def _beyond(interface: Interface, draw: Callable[[int], Probe]) -> Iterator[Probe]:
    """One step more than the interface declares, and twice as many."""
    longest = min((r.max_length for r in interface.inputs if r.sequence and r.max_length is not None), default=0)
    for length in sorted({longest + 1, 2 * longest} if longest else ()):
        yield replace(draw(length), judged=False)


def _padding(
    model: ir.Model, interface: Interface, masked: Mapping[str, float], longest: int, draw: Callable[[int], Probe]
) -> Iterator[Probe]:
    """Events of one step and of half as many as there may be, and the same with masked steps up to that."""
    for length in sorted({1, longest // 2} - {0, longest}):
        probe = draw(length)
        arrays = dict(probe.arrays)
        for value, record in zip(model.graph.inputs, interface.inputs, strict=True):
            if record.sequence and value.name in masked and _step_axis(value) == 1:
                arrays[record.tensor] = padded(arrays[record.tensor], record, masked[value.name or ""], longest)
        yield replace(probe, padded=arrays)


def _digest(model: ir.Model) -> str:
    """SHA-256 of the operators and numbers of a graph."""
    digest = hashlib.sha256()
    for node in model.graph:
        digest.update(f"{node.domain}.{node.op_type}".encode())
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            digest.update(value.const_value.tobytes())
    return digest.hexdigest()


def _generator(key: str) -> np.random.Generator:
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def _thresholds(model: ir.Model, interface: Interface, length: int | None, rng: np.random.Generator) -> Iterator[Probe]:
    """The rows of `tree_probes` in batches, numbered through; other inputs are normal."""
    number = 0
    for trees in tree_probes(model, rng):
        for first in range(0, len(trees.rows), BATCH):
            rows = trees.rows[first : first + BATCH]
            fixed = trees.value.shape[0] if trees.value.shape is not None else None
            if isinstance(fixed, int):  # a burnt-in batch: the first rows come again at the end
                rows = np.resize(rows, (-(-len(rows) // fixed) * fixed, rows.shape[1]))
            arrays = {}
            for value, record in zip(model.graph.inputs, interface.inputs, strict=True):
                shape = (len(rows), *_shape(value, record, length)[1:])
                normal = _fill(rng, value, record, shape, _Manner(_normal))
                arrays[record.tensor] = rows if value is trees.value else normal
            yield Probe("threshold", length, arrays, numbers=np.arange(number, number + len(rows)))
            number += len(rows)


def _lengths(interface: Interface) -> list[int]:
    """The lengths to try: inside the declared limits, with the limits themselves."""
    sequences = [record for record in interface.inputs if record.sequence]
    low = max(record.min_length for record in sequences)
    high = min((r.max_length for r in sequences if r.max_length is not None), default=max(LENGTHS))
    return sorted({n for n in LENGTHS if low <= n <= high} | {low, high})


def _step_axis(value: ir.Value) -> int:
    """The axis of a sequence's steps: 1, or where that is burnt in, the first that is open ([N, C, T])."""
    dims = list(value.shape or ())
    return next((axis for axis, dim in enumerate(dims) if axis > 0 and not isinstance(dim, int)), 1)


def _fixed(value: ir.Value) -> bool:
    dims = list(value.shape or ())
    return len(dims) > 1 and isinstance(dims[_step_axis(value)], int)


def _shape(value: ir.Value, record: Input, length: int | None, events: int = EVENTS) -> tuple[int, ...]:
    """The array's shape: burnt-in sizes as they are, a batch of `events` (or a multiple of the burnt-in batch)."""
    dims = list(value.shape or ())
    batch = dims[0] if dims and isinstance(dims[0], int) else 1
    sizes = [max(events // batch, 1) * batch]
    at = _step_axis(value)
    for axis, dim in enumerate(dims[1:], 1):
        steps = length if record.sequence and axis == at and length is not None else len(record.features)
        sizes.append(dim if isinstance(dim, int) else steps)
    return tuple(sizes[: len(dims)])


def _fill(
    rng: np.random.Generator, value: ir.Value, record: Input, shape: tuple[int, ...], manner: _Manner
) -> NDArray[Any]:
    """Raw values of one input: drawn after scaling, brought back before it, then rounded to float32."""
    z: NDArray[Any] = manner.draw(rng, shape)
    whole = value.dtype is not None and value.dtype.is_integer()
    if len(record.features) == 1 and len(shape) == 2 and (rows := _table(value)) is not None:
        z = rng.integers(manner.least, rows, shape).astype(np.float64)
    elif whole:
        z = rng.integers(manner.least, record.features[0].categories or 2 if record.features else 2, shape)
    elif len(shape) > 1 and shape[-1] == len(record.features) > 0:
        z = np.stack([_raw(rng, feature, z[..., i], manner) for i, feature in enumerate(record.features)], axis=-1)
    elif manner.share:
        z = RANGE * (2 * z - 1)
    if manner.padded and record.sequence and len(shape) > 2 and not whole and _step_axis(value) == 1:
        _pad(rng, z, record, manner.masks.get(value.name or "", 0.0))
    with np.errstate(over="ignore"):
        result: NDArray[Any] = z.astype(value.dtype.numpy() if whole and value.dtype is not None else np.float32)
    return result


def _table(value: ir.Value) -> int | None:
    """How many rows the table has in which `value` is looked up; None where it is no index."""
    todo = [value]
    while todo:
        current = todo.pop()
        for node, index in current.uses():
            data = node.inputs[0]
            if node.op_type == "Gather" and index == 1 and data is not None and data.const_value is not None:
                rows = data.const_value.shape[0]
                return rows if isinstance(rows, int) else None
            if node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze") and index == 0:
                todo.append(node.outputs[0])
    return None


def _pad(rng: np.random.Generator, x: NDArray[np.float64], record: Input, number: float) -> None:
    """`number` after offset and scale in the last steps of each event."""
    step = behind(record, number, x)
    for event, steps in enumerate(rng.integers(0, x.shape[1] + 1, len(x))):
        x[event, steps:] = step


def _raw(rng: np.random.Generator, feature: Feature, z: NDArray[np.float64], manner: _Manner) -> NDArray[np.float64]:
    if feature.categories is not None:
        x: NDArray[np.float64] = (
            rng.integers(min(manner.least, feature.categories - 1), feature.categories, z.shape)
            / (feature.scale or 1.0)
            - feature.offset
        )
        return x
    if manner.share and feature.minimum is not None and feature.maximum is not None:
        return np.asarray(feature.minimum + (feature.maximum - feature.minimum) * z)
    if manner.share:
        z = RANGE * (2 * z - 1)
    x = z / feature.scale - feature.offset if feature.scale and not manner.raw else z
    if manner.holes and feature.default is not None:
        x = np.where(rng.random(z.shape) < 1 / 3, np.nan, x)
    return x
