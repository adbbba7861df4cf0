"""ROOT event files through uproot: TTree and RNTuple, numbers and vectors of numbers per event."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from modelhub.data.table import Column, Ragged, Table, missing_library, reading, regular_file, stacked
from modelhub.data.unpacking import bound_blocks
from modelhub.errors import UnreadableFile, UsageError, safe_text
from modelhub.files import LIMITS

__all__ = ["RootTable", "tables"]

KIND = "ROOT data"
TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")
NUMBERS = {
    "bool": "?", "float": "f4", "double": "f8", "Float16_t": "f4", "Double32_t": "f8",
    "char": "i1", "int8_t": "i1", "uint8_t": "u1", "unsigned char": "u1",
    "short": "i2", "int16_t": "i2", "uint16_t": "u2", "unsigned short": "u2",
    "int": "i4", "int32_t": "i4", "uint32_t": "u4", "unsigned int": "u4",
    "int64_t": "i8", "uint64_t": "u8", "long": "i8", "unsigned long": "u8", "long long": "i8",
}  # fmt: skip
"""C++ types, as uproot calls them, and their numpy dtypes."""
VECTOR = re.compile(
    r"(?:std::)?vector<(?:std::)?([\w ]+)>|(?:ROOT::)?(?:VecOps::)?RVec<(?:std::)?([\w ]+)>|(.+)\[\d*\]"
)


def tables(path: Path, wanted: Sequence[str]) -> list[Table]:
    """The trees `wanted` (paths in the file), or all of them if none is named."""
    regular_file(path)
    try:
        import uproot
    except ImportError:
        raise missing_library(path, "uproot") from None
    bound_blocks()
    with reading(str(path), KIND):
        file = uproot.open({str(path): None})
        trees = [name for name, kind in file.classnames(recursive=True, cycle=False).items() if kind in TREES]
        listed = ", ".join(safe_text(name, 40) for name in trees[:20]) or "none"
        for name in wanted:
            if name not in trees:
                raise UsageError(f"{path} holds no tree {safe_text(name)!r}; the trees there: {listed}")
        if not trees:
            raise UnreadableFile(f"{path}: holds no tree")
        return [RootTable(file[name], name, f"{path}:{safe_text(name)}") for name in list(wanted) or trees]


class RootTable:
    """One tree (see `Table`)."""

    named = True

    def __init__(self, tree: Any, name: str, where: str) -> None:
        self.where, self.name = where, name
        self._tree = tree
        self.events = int(tree.num_entries)
        branches = dict(tree.items())
        if len(branches) > LIMITS.members:
            raise UnreadableFile(f"{where}: {len(branches)} branches, more than the limit of {LIMITS.members}")
        self.columns: Mapping[str, Column] = {key: _column(branch) for key, branch in branches.items()}

    def blocks(self, names: Sequence[str], dtype: DTypeLike, start: int, stop: int, size: int) -> Iterator[Any]:
        """See `Table`. uproot keeps the baskets that reach into the next block: none is unpacked twice."""
        chosen = set(names)
        if start >= stop:
            return
        with reading(self.where, KIND):
            steps = self._tree.iterate(
                filter_name=lambda name: name in chosen,
                entry_start=start,
                entry_stop=stop,
                step_size=size,
                library="ak",
            )
        for first in range(start, stop, size):
            with reading(self.where, KIND):
                block = next(steps, None)
            if block is None or len(block) != min(size, stop - first):
                raise UnreadableFile(
                    f"{self.where}: ends before event {min(first + size, stop)}, which it claims to hold"
                )
            with reading(self.where, KIND):
                taken = self._taken(block, names, dtype, first)
            yield taken

    def _taken(self, block: Any, names: Sequence[str], dtype: DTypeLike, first: int) -> Any:
        """The columns of an awkward array."""
        import awkward

        if not self.columns[names[0]].sequence:
            return stacked([awkward.to_numpy(block[name]) for name in names], dtype, self.where)
        counts = [awkward.to_numpy(awkward.num(block[name], axis=1)) for name in names]
        for name, other in zip(names, counts, strict=True):
            odd = np.flatnonzero(other != counts[0])
            if odd.size:
                at = int(odd[0])
                raise UnreadableFile(
                    f"{self.where}: event {first + at} has {counts[0][at]} steps in {safe_text(names[0])} "
                    f"and {other[at]} in {safe_text(name)}"
                )
        values = [awkward.to_numpy(awkward.flatten(block[name], axis=1)) for name in names]
        return Ragged(stacked(values, dtype, self.where), counts[0].astype(np.int64))


def _column(branch: Any) -> Column:
    """A column of numbers, of a vector of numbers, or of something else, by its C++ type."""
    kind = str(branch.typename)
    vector = VECTOR.fullmatch(kind)
    number = next(filter(None, vector.groups()), "") if vector else kind.removeprefix("std::")
    code = NUMBERS.get(number.removeprefix("std::"))
    return Column(safe_text(kind), None if code is None else np.dtype(code), vector is not None)
