"""What every event file looks like from inside: tables of named columns, one row per event, read in blocks.

A column holds one number per event, or a sequence of numbers per event (the tracks of a jet).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from modelhub.errors import ModelhubError, UnreadableFile, UsageError, safe_text

__all__ = ["Array", "Column", "Ragged", "Table", "missing_library", "reading", "regular_file", "stacked"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Column:
    """What a column holds: `type` as the file calls it; `dtype` None where those are no numbers we can use."""

    type: str
    dtype: np.dtype[Any] | None
    sequence: bool


@dataclass(frozen=True)
class Ragged:
    """Sequences of several events behind one another: `values` [all steps, features], `counts` [events]."""

    values: Array
    counts: NDArray[np.int64]


class Table(Protocol):
    """One table of an event file, open for reading."""

    where: str
    """What to call it in messages, e.g. ``"jets.h5:tracks"``."""
    name: str
    events: int
    columns: Mapping[str, Column]
    named: bool
    """Whether the columns have names of their own; otherwise they are called "0", "1", ..."""

    def blocks(self, names: Sequence[str], dtype: DTypeLike, start: int, stop: int, size: int) -> Iterator[Any]:
        """Events `start` to `stop`, `size` at a time: an array [events, columns] of `dtype`, or a `Ragged`.

        The columns asked for are all of one kind. NaN stands where the file has no value.
        """


def stacked(columns: Sequence[Array], dtype: DTypeLike, where: str) -> Array:
    """Columns side by side as [rows, columns] of `dtype`. For an index, numbers that are no whole ones are refused."""
    result: Array = np.empty((len(columns[0]), len(columns)), dtype)
    for i, column in enumerate(columns):
        if result.dtype.kind in "iu" and column.dtype.kind == "f" and not (np.floor(column) == column).all():
            odd = column[np.floor(column) != column][0]
            raise UnreadableFile(f"{where}: {odd} where the model takes an index, a whole number")
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows float32 is infinite, as in a C++ cast
            result[:, i] = column
    return result


def regular_file(path: Path) -> Path:
    """`path`, which must be a file that is there and not empty; data may be larger than any model."""
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFile(f"{path}: not a regular file")
    if not status.st_size:
        raise UnreadableFile(f"{path}: the file is empty")
    return path


def missing_library(path: Path, library: str) -> UsageError:
    """What to say when the library that reads this kind of file is not installed."""
    return UsageError(f'{safe_text(path.name)} needs {library}: pip install "modelhub-hep[data]"')


@contextmanager
def reading(where: str, kind: str) -> Iterator[None]:
    """Whatever a library raises on a damaged file becomes an `UnreadableFile` of one line."""
    try:
        yield
    except ModelhubError:
        raise
    except Exception as error:  # h5py, uproot and pyarrow raise nearly every class there is
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnreadableFile(f"{where}: not readable {kind}: {safe_text(reason, 160)}") from None
