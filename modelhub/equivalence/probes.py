"""Seeded inputs that a check runs on both sides: a class of probe for each way in which models go wrong.

All numbers are exact in float32, so that an engine in float32 and one in float64 see the same input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.equivalence.tree_probes import tree_probes
from modelhub.graph.interface import Feature, Input, Interface

__all__ = ["Probe", "Progress", "probes"]

Progress = Callable[[Iterable[Any]], Iterable[Any]]
"""Wraps a loop over probes or over pieces of a data file, e.g. in a progress bar."""

EVENTS = 64
"""Events per probe."""

BATCH = 500
"""Rows in a probe of class "threshold", of which there are as many as the trees need."""

LENGTHS = (0, 1, 2, 3, 7, 20)
"""Sequence lengths tried where the graph leaves them open."""

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


@dataclass(frozen=True)
class Probe:
    """One batch of events.

    length:  the number of steps of every sequence, None without sequences.
    kind:    the class of probes it belongs to; its name, where that is not given.
    numbers: [events] what the events are called in the report; counted from 0 where not given.
    """

    name: str
    length: int | None
    arrays: dict[str, NDArray[Any]]
    kind: str = ""
    numbers: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", self.name)

    @property
    def events(self) -> int:
        """How many events there are."""
        return len(next(iter(self.arrays.values())))


@dataclass(frozen=True)
class _Manner:
    """How values are made: drawn by `draw`, with holes where a default stands in, indices from `least` on."""

    draw: Draw
    holes: bool = False
    least: int = 0


def probes(model: ir.Model, seed: int, *, masks: bool = True) -> Iterator[Probe]:
    """Every probe for `model`, the same for the same seed, whatever the order they are drawn in.

    normal:   what a network sees in training: standard normal after offset and scale.
    wide:     ±10^U(-3, 3), for branches, saturation and cancellation.
    zero:     all zero after offset and scale.
    missing:  normal, with NaN in a third of the variables that have a default.
    threshold: on, just below and just above every threshold of trees (`tree_probes`).

    A network with masks gets no step that it would mask out (zeros, index 0) where `masks` is false: for a target that
    knows none and is told so (`Exporter.masks`).
    """
    interface = Interface.of(model)
    draws: dict[str, Draw] = {
        "normal": lambda rng, shape: rng.standard_normal(shape),
        "wide": lambda rng, shape: 10 ** rng.uniform(-3, 3, shape) * rng.choice([-1.0, 1.0], shape),
        "zero": lambda _, shape: np.zeros(shape),
    }
    whole = not masks and any(node.op_type == "CompactSteps" for node in model.graph)
    if whole:
        del draws["zero"]
    if any(f.default is not None for record in interface.inputs for f in record.features):
        draws["missing"] = draws["normal"]
    lengths: tuple[int | None, ...] = (None,)
    if any(record.sequence for record in interface.inputs):
        lengths = tuple(_lengths(interface))
    burnt_in = all(_fixed(v) for v, r in zip(model.graph.inputs, interface.inputs, strict=True) if r.sequence)
    for name, draw in draws.items():
        manner = _Manner(draw, name == "missing", int(whole))
        for length in lengths:
            rng = _generator(f"{seed}/{name}/{length}")
            arrays = {
                record.tensor: _fill(rng, value, record, _shape(value, record, length), manner)
                for value, record in zip(model.graph.inputs, interface.inputs, strict=True)
            }
            sizes = [a.shape[1] for a, r in zip(arrays.values(), interface.inputs, strict=True) if r.sequence]
            yield Probe(name, max(sizes, default=None) if length is not None else None, arrays)
            if length is not None and burnt_in:
                break
    yield from _thresholds(model, interface, lengths[-1], _generator(f"{seed}/threshold"))


def _generator(key: str) -> np.random.Generator:
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def _thresholds(model: ir.Model, interface: Interface, length: int | None, rng: np.random.Generator) -> Iterator[Probe]:
    """The rows of `tree_probes` in batches; other inputs are normal."""
    for trees in tree_probes(model, rng):
        for first in range(0, len(trees.rows), BATCH):
            rows = trees.rows[first : first + BATCH]
            fixed = trees.value.shape[0] if trees.value.shape is not None else None
            if isinstance(fixed, int):  # a burnt-in batch: the first rows come again at the end
                rows = np.resize(rows, (-(-len(rows) // fixed) * fixed, rows.shape[1]))
            arrays = {}
            for value, record in zip(model.graph.inputs, interface.inputs, strict=True):
                shape = (len(rows), *_shape(value, record, length)[1:])
                normal = _fill(rng, value, record, shape, _Manner(lambda r, s: r.standard_normal(s)))
                arrays[record.tensor] = rows if value is trees.value else normal
            yield Probe("threshold", length, arrays)


def _lengths(interface: Interface) -> list[int]:
    """The lengths to try: inside the declared limits, with the limits themselves."""
    sequences = [record for record in interface.inputs if record.sequence]
    low = max(record.min_length for record in sequences)
    high = min((r.max_length for r in sequences if r.max_length is not None), default=max(LENGTHS))
    return sorted({n for n in LENGTHS if low <= n <= high} | {low, high})


def _fixed(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) > 1 and isinstance(value.shape[1], int)


def _shape(value: ir.Value, record: Input, length: int | None) -> tuple[int, ...]:
    """The array's shape: burnt-in sizes as they are, a batch of `EVENTS` (or a multiple of the burnt-in batch)."""
    dims = list(value.shape or ())
    batch = dims[0] if dims and isinstance(dims[0], int) else 1
    sizes = [max(EVENTS // batch, 1) * batch]
    for axis, dim in enumerate(dims[1:], 1):
        steps = length if record.sequence and axis == 1 and length is not None else len(record.features)
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


def _raw(rng: np.random.Generator, feature: Feature, z: NDArray[np.float64], manner: _Manner) -> NDArray[np.float64]:
    if feature.categories is not None:
        x: NDArray[np.float64] = (
            rng.integers(min(manner.least, feature.categories - 1), feature.categories, z.shape)
            / (feature.scale or 1.0)
            - feature.offset
        )
        return x
    x = z / feature.scale - feature.offset if feature.scale else z
    if manner.holes and feature.default is not None:
        x = np.where(rng.random(z.shape) < 1 / 3, np.nan, x)
    return x
