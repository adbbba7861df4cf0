"""npz event files, streamed: a member is a table (two or three axes, or structured), one-axis members are columns.

Members are read piece by piece, compressed or not; nothing is unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

from modelhub.data.table import Array, Column, Ragged, Table, regular_file, stacked
from modelhub.errors import UnreadableFile, UsageError, safe_text
from modelhub.files import Archive

__all__ = ["NpzTable", "tables"]

SUFFIX = ".npy"
VALID = "valid"
EVENT_BYTES = 64 << 20
"""The largest event that is accepted."""


@dataclass(frozen=True)
class _Member:
    """One array of the archive: its place, shape and element type."""

    file: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def tables(path: Path, wanted: Sequence[str]) -> list[Table]:
    """The members `wanted`, or all. Members with one axis and plain numbers make up one table together."""
    regular_file(path)
    archive = Archive(path)
    members = {name.removesuffix(SUFFIX): _header(archive, name) for name in archive.names if name.endswith(SUFFIX)}
    for name in wanted:
        if name not in members:
            listed = ", ".join(safe_text(n, 40) for n in list(members)[:20]) or "none"
            raise UsageError(f"{path} holds no array {safe_text(name)!r}; the arrays there: {listed}")
    chosen = {name: member for name, member in members.items() if not wanted or name in wanted}
    flat = {n: m for n, m in chosen.items() if len(m.shape) == 1 and m.dtype.names is None}
    found: list[Table] = [
        NpzTable(archive, {name: member}, name, f"{path}:{safe_text(name)}")
        for name, member in chosen.items()
        if name not in flat and len(member.shape) - (member.dtype.names is None) in (1, 2)
    ]
    if flat:
        found.append(NpzTable(archive, flat, path.stem, str(path)))
    if not found:
        raise UnreadableFile(f"{path}: holds no array with events in it")
    return found


class NpzTable:
    """One member, or all members of one axis together (see `Table`)."""

    def __init__(self, archive: Archive, members: dict[str, _Member], name: str, where: str) -> None:
        self.where, self.name = where, name
        self._archive, self._members = archive, members
        first = next(iter(members.values()))
        self.events = first.shape[0]
        for key, member in members.items():
            if member.shape[0] != self.events:
                raise UnreadableFile(f"{where}: {safe_text(key)} has {member.shape[0]} rows, others {self.events}")
        self._apart = len(first.shape) == 1 and first.dtype.names is None
        self.named = self._apart or first.dtype.names is not None
        self._sequence = len(first.shape) == (2 if first.dtype.names else 3)
        if self._apart:
            fields = {key: member.dtype for key, member in members.items()}
        elif first.dtype.names:
            fields = {field: first.dtype[field] for field in first.dtype.names}
        else:
            fields = dict.fromkeys(map(str, range(first.shape[-1])), first.dtype)
        self._valid = VALID if self._sequence and self.named and VALID in fields else None
        self.columns: Mapping[str, Column] = {
            key: Column(safe_text(kind), kind if kind.kind in "fiub" and not kind.shape else None, self._sequence)
            for key, kind in fields.items()
            if key != self._valid
        }

    def blocks(self, names: Sequence[str], dtype: DTypeLike, start: int, stop: int, size: int) -> Iterator[Any]:
        """See `Table`."""
        read = names if self._apart else list(self._members)
        with ExitStack() as stack:
            streams = [stack.enter_context(self._archive.stream(self._members[name].file)) for name in read]
            for name, stream in zip(read, streams, strict=True):
                _start(stream, self.where)
                self._skip(stream, start * _row(self._members[name]))
            for first in range(start, stop, size):
                count = min(size, stop - first)
                raw = [self._take(stream, self._members[n], count) for n, stream in zip(read, streams, strict=True)]
                yield self._block(raw, names, dtype)

    def _block(self, raw: list[Array], names: Sequence[str], dtype: DTypeLike) -> Any:
        if self._apart:
            return stacked(raw, dtype, self.where)
        rows, steps = raw[0], raw[0].shape[1] if self._sequence else 0
        counts = np.full(len(rows), steps)
        if self._valid:
            valid = rows[self._valid].astype(bool)
            counts, rows = valid.sum(axis=1), rows[valid]
        elif self._sequence:
            rows = rows.reshape(-1, *rows.shape[2:])
        columns = [rows[name] if self.named else rows[:, int(name)] for name in names]
        values = stacked(columns, dtype, self.where)
        return Ragged(values, counts.astype(np.int64)) if self._sequence else values

    def _take(self, stream: IO[bytes], member: _Member, count: int) -> Array:
        """The next `count` rows."""
        data = _read(stream, count * _row(member), self.where)
        return np.frombuffer(data, member.dtype).reshape(count, *member.shape[1:])

    def _skip(self, stream: IO[bytes], count: int) -> None:
        while count:
            count -= len(_read(stream, min(count, 1 << 20), self.where))


def _row(member: _Member) -> int:
    return math.prod(member.shape[1:]) * member.dtype.itemsize


def _read(stream: IO[bytes], count: int, where: str) -> bytes:
    try:
        data = stream.read(count)
    except Exception as error:  # zipfile raises BadZipFile, zlib.error, EOFError, NotImplementedError
        raise UnreadableFile(f"{where}: {safe_text(error, 120)}") from None
    if len(data) != count:
        raise UnreadableFile(f"{where}: ends {count - len(data)} bytes early")
    return data


def _start(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The header of an array: shape, whether columns come first, element type; the stream stands behind it."""
    try:
        version = npy.read_magic(stream)
        if version == (1, 0):
            return npy.read_array_header_1_0(stream)
        return npy.read_array_header_2_0(stream)
    except Exception as error:  # ValueError on what is no array, and all that a damaged zip raises
        raise UnreadableFile(f"{where}: not a numpy array: {safe_text(str(error).splitlines()[0], 120)}") from None


def _header(archive: Archive, name: str) -> _Member:
    where = f"{archive.path}, member {safe_text(name)}"
    with archive.stream(name) as stream:
        shape, by_column, dtype = _start(stream, where)
    member = _Member(name, shape, dtype)
    if dtype.hasobject:
        raise UnreadableFile(f"{where}: holds Python objects, which are not loaded")
    if by_column and len(shape) > 1:
        raise UnreadableFile(f"{where}: is stored column by column; save np.ascontiguousarray of it")
    if shape and _row(member) > EVENT_BYTES:
        raise UnreadableFile(f"{where}: one event takes {_row(member)} bytes, more than {EVENT_BYTES}")
    return member
