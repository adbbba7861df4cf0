"""Parquet event files through pyarrow: numbers per event, lists of numbers for sequences; null is NaN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from modelhub.data.table import Array, Column, Ragged, Table, missing_library, reading, regular_file, stacked
from modelhub.errors import UnreadableFile, UsageError, safe_text

__all__ = ["ParquetTable", "tables"]


def tables(path: Path, wanted: Sequence[str]) -> list[Table]:
    """The one table of a Parquet file."""
    regular_file(path)
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise missing_library(path, "pyarrow") from None
    if wanted:
        raise UsageError(f"{path}: a Parquet file is one table; leave out ':{safe_text(wanted[0])}'")
    with reading(str(path), "Parquet"):
        return [ParquetTable(pq.ParquetFile(path), path)]


class ParquetTable:
    """A Parquet file (see `Table`)."""

    named = True

    def __init__(self, file: Any, path: Path) -> None:
        self.where, self.name = str(path), path.stem
        self._file = file
        self.events = int(file.metadata.num_rows)
        self.columns: Mapping[str, Column] = {field.name: _column(field.type) for field in file.schema_arrow}

    def blocks(self, names: Sequence[str], dtype: DTypeLike, start: int, stop: int, size: int) -> Iterator[Any]:
        """See `Table`. Row groups before `start` are skipped, the rest streams through."""
        import pyarrow

        at, first = 0, 0
        groups: list[int] = []
        for index in range(self._file.metadata.num_row_groups):
            rows = self._file.metadata.row_group(index).num_rows
            if at + rows > start and at < stop:
                first = at if not groups else first
                groups.append(index)
            at += rows
        with reading(self.where, "Parquet"):
            pieces = self._file.iter_batches(batch_size=size, row_groups=groups, columns=list(dict.fromkeys(names)))
        waiting: list[Any] = []
        skip, have = start - first, 0
        for begin in range(start, stop, size):
            want = min(size, stop - begin)
            while have < want:
                with reading(self.where, "Parquet"):
                    piece = next(pieces, None)
                if piece is None:
                    raise UnreadableFile(f"{self.where}: ends before event {begin + want}, which it claims to hold")
                piece, skip = piece.slice(skip), max(skip - piece.num_rows, 0)
                waiting.append(piece)
                have += piece.num_rows
            whole = pyarrow.Table.from_batches(waiting)
            waiting, have = whole.slice(want).to_batches(), have - want
            with reading(self.where, "Parquet"):
                taken = self._taken(whole.slice(0, want), names, dtype, begin)
            yield taken

    def _taken(self, table: Any, names: Sequence[str], dtype: DTypeLike, first: int) -> Any:
        columns = [table.column(name).combine_chunks() for name in names]
        if not self.columns[names[0]].sequence:
            return stacked([_numbers(column) for column in columns], dtype, self.where)
        counts = [_numbers(column.value_lengths().fill_null(0)).astype(np.int64) for column in columns]
        for name, other in zip(names, counts, strict=True):
            odd = np.flatnonzero(other != counts[0])
            if odd.size:
                at = int(odd[0])
                raise UnreadableFile(
                    f"{self.where}: event {first + at} has {counts[0][at]} steps in {safe_text(names[0])} "
                    f"and {other[at]} in {safe_text(name)}"
                )
        values = [_numbers(column.flatten()) for column in columns]
        return Ragged(stacked(values, dtype, self.where), counts[0])


def _numbers(column: Any) -> Array:
    """An arrow array as numpy, NaN for null."""
    import pyarrow

    if isinstance(column, pyarrow.ChunkedArray):
        column = pyarrow.concat_arrays(column.chunks) if column.num_chunks else pyarrow.array([], column.type)
    if pyarrow.types.is_boolean(column.type):
        column = column.cast(pyarrow.uint8())
    result: Array = column.to_numpy(zero_copy_only=False)  # with nulls, as floats
    return result


def _column(kind: Any) -> Column:
    import pyarrow

    types = pyarrow.types
    sequence = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    inner = kind.value_type if sequence else kind
    usable = types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)
    return Column(safe_text(kind), np.dtype(inner.to_pandas_dtype()) if usable else None, sequence)
