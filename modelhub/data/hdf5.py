"""HDF5 event files: structured arrays as ATLAS's writer makes them, and plain ones.

A structured dataset [events] is a table of numbers, one of [events, steps] a table of sequences, padded at will: the
boolean field `valid` says which steps are real (athena: H5Utils; every step is, where there is no such field). Plain
datasets [events, columns] and [events, steps, columns] have no names; their columns are counted.

Nothing is followed out of the file: no soft, external or virtual data, no filters that load code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike

from modelhub.data.table import Column, Ragged, Table, reading, regular_file, stacked
from modelhub.errors import UnreadableFile, UsageError, safe_text
from modelhub.files import LIMITS

__all__ = ["Hdf5Table", "tables"]

VALID = "valid"
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
SLAB = 64 << 20
"""Bytes read from the file at once; also the largest chunk and the largest event that are accepted."""


def tables(path: Path, wanted: Sequence[str]) -> list[Table]:
    """The datasets `wanted` (paths in the file), or all that could be tables at the root if none is named."""
    regular_file(path)
    with reading(str(path), "HDF5"):
        file = h5py.File(path, "r")
        names = list(wanted) or _at_root(file, path)
        if not names:
            raise UnreadableFile(f"{path}: no dataset at the root of the file; name one: {path.name}:group/dataset")
        return [Hdf5Table(_dataset(file, name, path), name, f"{path}:{safe_text(name)}") for name in names]


class Hdf5Table:
    """One dataset (see `Table`)."""

    def __init__(self, dataset: h5py.Dataset, name: str, where: str) -> None:
        self.where, self.name = where, name
        self._dataset = dataset
        dtype = dataset.dtype
        self.named = dtype.names is not None
        axes = dataset.ndim - (not self.named)
        if axes not in (1, 2):
            shape = list(dataset.shape or ())
            raise UnreadableFile(f"{where}: shape {shape} is neither events nor events with a sequence each")
        self._sequence = axes == 2
        self.events = int(dataset.shape[0])
        if self.named:
            fields = {field: dtype[field] for field in dtype.names}
            self._valid = VALID if self._sequence and VALID in fields else None
            self.columns: Mapping[str, Column] = {
                f: _column(t, sequence=self._sequence) for f, t in fields.items() if f != self._valid
            }
        else:
            self._valid = None
            column = _column(dtype, sequence=self._sequence)
            self.columns = {str(i): column for i in range(min(int(dataset.shape[-1]), LIMITS.members))}
        self._slab = _slab(dataset, where)

    def blocks(self, names: Sequence[str], dtype: DTypeLike, start: int, stop: int, size: int) -> Iterator[Any]:
        """See `Table`. A block is read in slabs, so that padding never fills the memory."""
        for first in range(start, stop, size):
            last = min(first + size, stop)
            parts = [self._read(names, dtype, at, min(at + self._slab, last)) for at in range(first, last, self._slab)]
            if len(parts) == 1:
                yield parts[0]
            elif self._sequence:
                yield Ragged(np.concatenate([p.values for p in parts]), np.concatenate([p.counts for p in parts]))
            else:
                yield np.concatenate(parts)

    def _read(self, names: Sequence[str], dtype: DTypeLike, start: int, stop: int) -> Any:
        """Events `start` to `stop` in one go."""
        if not self.named:
            with reading(self.where, "HDF5"):
                raw = self._dataset[start:stop]
            flat = raw.reshape(-1, raw.shape[-1]) if self._sequence else raw
            rows = stacked([flat[:, int(name)] for name in names], dtype, self.where)
            return Ragged(rows, np.full(len(raw), raw.shape[1])) if self._sequence else rows
        fields = list(dict.fromkeys([*names, *([self._valid] if self._valid else [])]))
        with reading(self.where, "HDF5"):
            raw = self._dataset.fields(fields)[start:stop]
        if not self._sequence:
            return stacked([raw[name] for name in names], dtype, self.where)
        if self._valid:
            valid = raw[self._valid].astype(bool)
            counts, steps = valid.sum(axis=1), raw[valid]
        else:
            counts, steps = np.full(len(raw), raw.shape[1]), raw.reshape(-1)
        return Ragged(stacked([steps[name] for name in names], dtype, self.where), counts.astype(np.int64))


def _column(dtype: np.dtype[Any], *, sequence: bool) -> Column:
    usable = dtype.kind in "fiub" and dtype.itemsize <= 8 and not dtype.shape
    return Column(safe_text(dtype), dtype if usable else None, sequence)


def _slab(dataset: h5py.Dataset, where: str) -> int:
    """How many events to read at once; refuses storage that leaves the file or asks for too much memory."""
    layout = dataset.id.get_create_plist()
    if layout.get_external_count() or layout.get_layout() == h5py.h5d.VIRTUAL:
        raise UnreadableFile(f"{where}: keeps its data in other files; only data in the file itself are read")
    filters = [layout.get_filter(i)[0] for i in range(layout.get_nfilters())]
    if not FILTERS.issuperset(filters):
        raise UnreadableFile(
            f"{where}: is compressed with filter {filters}; deflate and LZF are read: repack it (h5repack -f GZIP=1)"
        )
    event: int = max(math.prod(dataset.shape[1:]) * dataset.dtype.itemsize, 1)
    chunk = math.prod(layout.get_chunk()) * dataset.dtype.itemsize if layout.get_layout() == h5py.h5d.CHUNKED else 0
    if max(event, chunk) > SLAB:
        raise UnreadableFile(f"{where}: one event or chunk takes {max(event, chunk)} bytes, more than {SLAB}")
    return max(SLAB // event, 1)


def _at_root(file: h5py.File, path: Path) -> list[str]:
    """Names of the datasets at the root that could be tables."""
    if len(file) > LIMITS.members:
        raise UnreadableFile(f"{path}: {len(file)} objects at the root, more than the limit of {LIMITS.members}")
    found = [(name, file[name]) for name in file if _hard(file, name)]
    return [name for name, d in found if isinstance(d, h5py.Dataset) and d.ndim - (d.dtype.names is None) in (1, 2)]


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """The dataset `name`, walked over hard links only."""
    here: Any = file
    for part in filter(None, name.split("/")):
        if not isinstance(here, h5py.Group) or part not in here:
            there = ", ".join(safe_text(n, 40) for n in list(file)[:20])
            raise UsageError(f"{path} holds no dataset {safe_text(name)!r}; at its root: {there or 'nothing'}")
        if not _hard(here, part):
            raise UnreadableFile(f"{path}: {safe_text(name)} is a link that may lead out of the file")
        here = here[part]
    if not isinstance(here, h5py.Dataset):
        inside = ", ".join(safe_text(n, 40) for n in list(here)[:20])
        raise UsageError(f"{path}: {safe_text(name)} is a group, not a dataset; it holds: {inside or 'nothing'}")
    return here


def _hard(group: h5py.Group, name: str) -> bool:
    return isinstance(group.get(name, getlink=True), h5py.HardLink)
