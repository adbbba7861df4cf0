"""An event file laid beside an interface record: batches of raw inputs, as the engines take them.

A file is cut into blocks of a fixed number of events, counted from its start, whoever reads which block: so a result
does not depend on how the work is shared. Within a block, events whose sequences have one length go together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelhub.data.matching import Feed, match
from modelhub.data.table import Array, Ragged, Table, regular_file
from modelhub.errors import UnreadableFile, UsageError, safe_text
from modelhub.graph.interface import Interface

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["BLOCK", "Batch", "DataSpec", "Events", "open_events"]

BLOCK = 65536
"""Events in a block: enough that most lengths of sequences come in numbers."""

ROWS = 16384
"""The most events in one batch, and with `STEPS` what bounds the memory of an engine."""

STEPS = 65536
"""The most steps of sequences in one batch."""


@dataclass(frozen=True)
class DataSpec:
    """What the user said about the data.

    path:   the file.
    tables: datasets or trees to look into; all when empty.
    chosen: input name -> table.
    columns: variable, or ``input/variable`` -> column.
    events: how many events to take, from the first; None for all.
    block:  events read at once.
    """

    path: Path
    tables: tuple[str, ...] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    events: int | None = None
    block: int = BLOCK

    def __post_init__(self) -> None:
        if self.block < 1 or (self.events is not None and self.events < 1):
            raise UsageError("a number of events is at least 1")

    @classmethod
    def parse(cls, text: str, columns: Sequence[str] = (), events: int | None = None, block: int = BLOCK) -> DataSpec:
        """``FILE``, ``FILE:dataset,dataset`` or ``FILE:input=dataset,...``; `columns` are ``variable=column``."""
        name, colon, rest = text, "", ""
        if not Path(text).exists():
            name, colon, rest = text.rpartition(":")
        if not colon:
            name, rest = text, ""
        chosen: dict[str, str] = {}
        tables: list[str] = []
        for part in filter(None, rest.split(",")):
            left, equals, right = part.partition("=")
            if equals and right:
                chosen[left] = right
            tables.append(right if equals else left)
        mapping = {}
        for pair in columns:
            variable, equals, column = pair.partition("=")
            if not (variable and equals and column):
                raise UsageError(f"--map takes VARIABLE=COLUMN, not {safe_text(pair)!r}")
            mapping[variable] = column
        return cls(Path(name), tuple(dict.fromkeys(tables)), chosen, mapping, events, block)


@dataclass(frozen=True)
class Batch:
    """Events that go through an engine in one call.

    events: the place in the file of each row; where a graph takes batches of one size, the last rows may repeat.
    length: the steps of the longest sequence, 0 if one is empty (which not every engine takes), None without sequences.
    arrays: raw inputs by tensor name, [events, features] and [events, steps, features].
    """

    events: NDArray[np.int64]
    count: int
    length: int | None
    arrays: dict[str, Array]


class Events:
    """An open event file. `left_out` counts what was cut or skipped so far, by reason."""

    def __init__(
        self,
        feeds: Sequence[Feed],
        spec: DataSpec,
        interface: Interface,
        shapes: Mapping[str, tuple[int | None, ...]],
    ) -> None:
        self.feeds, self.spec, self.interface = tuple(feeds), spec, interface
        there = feeds[0].table.events
        self.count = there if spec.events is None else min(there, spec.events)
        self.left_out: dict[str, int] = {}
        self._shapes = shapes
        fixed = {shape[0] for shape in shapes.values()}
        self._multiple = next(iter(fixed)) or 1 if len(fixed) == 1 else 1

    @property
    def blocks(self) -> int:
        """How many blocks the file is cut into."""
        return -(-self.count // self.spec.block)

    @property
    def conversions(self) -> list[str]:
        """How the file's numbers change on their way in, one line per input and pair of types."""
        return [line for feed in self.feeds for line in feed.conversions]

    def read(self, first: int = 0, last: int | None = None) -> Iterator[list[Batch]]:
        """The batches of each block from `first` up to but not including `last`."""
        last = self.blocks if last is None else last
        start, stop = first * self.spec.block, min(last * self.spec.block, self.count)
        streams = [f.table.blocks(f.columns, f.dtype, start, stop, self.spec.block) for f in self.feeds]
        for offset, parts in zip(range(start, stop, self.spec.block), zip(*streams, strict=True), strict=True):
            yield list(self._batches(offset, parts))

    def _batches(self, offset: int, parts: Sequence[Any]) -> Iterator[Batch]:
        """One block in batches: all of it, or one or more per combination of lengths."""
        ragged = [
            _Steps(feed, part, self._steps(feed))
            for feed, part in zip(self.feeds, parts, strict=True)
            if isinstance(part, Ragged)
        ]
        rows = np.arange(len(parts[0].counts if isinstance(parts[0], Ragged) else parts[0]))
        if not ragged:
            size = max(ROWS // self._multiple, 1) * self._multiple
            for at in range(0, len(rows), size):
                yield self._batch(offset, rows[at : at + size], (), parts)
            return
        for steps in ragged:
            for reason, count in steps.left_out.items():
                self.left_out[reason] = self.left_out.get(reason, 0) + count
        lengths = np.stack([steps.counts for steps in ragged], axis=1)
        rows = rows[np.all([steps.kept for steps in ragged], axis=0)]
        kinds, belongs = np.unique(lengths[rows], axis=0, return_inverse=True)
        order = np.argsort(belongs.ravel(), kind="stable")
        edges = np.searchsorted(belongs.ravel()[order], np.arange(len(kinds) + 1))
        for kind, low, high in zip(kinds, edges, edges[1:], strict=False):
            size = max(min(STEPS // max(int(kind.max()), 1), ROWS) // self._multiple, 1) * self._multiple
            for at in range(low, high, size):
                yield self._batch(offset, rows[order[at : min(at + size, high)]], tuple(map(int, kind)), parts)

    def _batch(self, offset: int, rows: NDArray[np.int64], lengths: tuple[int, ...], parts: Sequence[Any]) -> Batch:
        count = len(rows)
        if count % self._multiple:
            rows = np.resize(rows, -(-count // self._multiple) * self._multiple)
        arrays: dict[str, Array] = {}
        left = iter(lengths)
        for feed, part in zip(self.feeds, parts, strict=True):
            if isinstance(part, Ragged):
                values = _gathered(part, rows, next(left))
                if len(self._shapes[feed.record.tensor]) == 2:  # a sequence of one variable: [events, steps]
                    values = values[..., 0]
            else:
                values = part[rows]
            arrays[feed.record.tensor] = values
        length = None if not lengths else 0 if 0 in lengths else max(lengths)
        return Batch(offset + rows, count, length, arrays)

    def _steps(self, feed: Feed) -> tuple[int, int | None]:
        """The fewest and the most steps this input takes."""
        shape = self._shapes[feed.record.tensor]
        fixed = shape[1] if len(shape) > 1 else None
        return (feed.record.min_length, feed.record.max_length) if fixed is None else (fixed, fixed)


class _Steps:
    """The sequences of one input within a block: how long each is taken to be, and which events are kept."""

    def __init__(self, feed: Feed, part: Ragged, limits: tuple[int, int | None]) -> None:
        low, high = limits
        name = safe_text(feed.record.name)
        self.counts = part.counts if high is None else np.minimum(part.counts, high)
        self.kept = self.counts >= low
        cut, skipped = int((part.counts > self.counts).sum()), int((~self.kept).sum())
        self.left_out = {
            reason: count
            for reason, count in (
                (f"{name}: events cut to the first {high} steps", cut),
                (f"{name}: events left out, of fewer than {low} steps", skipped),
            )
            if count
        }


def _gathered(part: Ragged, rows: NDArray[np.int64], length: int) -> Array:
    """The first `length` steps of some events: [events, steps, features]."""
    starts = np.cumsum(part.counts) - part.counts
    result: Array = part.values[starts[rows, np.newaxis] + np.arange(length)]
    return result


def open_events(spec: DataSpec, model: ir.Model, interface: Interface) -> Events:
    """The file of `spec` as input for `model`, whose record is `interface`.

    Raises `UnreadableFile` where the file is damaged, `UsageError` where it does not hold what the model takes.
    """
    tables = _reader(spec.path)(spec.path, spec.tables)
    shapes: dict[str, tuple[int | None, ...]] = {}
    dtypes: dict[str, np.dtype[np.generic]] = {}
    for value, record in zip(model.graph.inputs, interface.inputs, strict=True):
        shapes[record.tensor] = tuple(dim if isinstance(dim, int) else None for dim in value.shape or ())
        whole = value.dtype is not None and value.dtype.is_integer()
        dtypes[record.tensor] = np.dtype(value.dtype.numpy() if whole and value.dtype is not None else np.float32)
    events = Events(match(tables, interface, dtypes, spec.chosen, spec.columns), spec, interface, shapes)
    if not events.count:
        raise UnreadableFile(f"{spec.path}: holds no events")
    return events


def _reader(path: Path) -> Callable[[Path, Sequence[str]], list[Table]]:
    """Who reads this file, by its first bytes."""
    try:
        with regular_file(path).open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error
    if start.startswith(b"\x89HDF"):
        from modelhub.data.hdf5 import tables
    elif start.startswith(b"root"):
        from modelhub.data.root import tables
    elif start.startswith(b"PAR1"):
        from modelhub.data.parquet import tables
    elif start.startswith(b"PK"):
        from modelhub.data.npz import tables
    else:
        raise UnreadableFile(f"{path}: neither HDF5, ROOT, Parquet nor npz")
    return tables
