"""HDF5 without trust: only what a Keras file needs, nothing that leaves the file, nothing that grows in memory.

Refused: soft and external links, external raw storage, virtual datasets, filters other than deflate, shuffle,
fletcher32 and LZF, element types other than numbers and strings, data far larger than its place in the file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, safe_text
from modelhub.files import LIMITS, head

__all__ = ["SIGNATURE", "Hdf5"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first eight bytes of an HDF5 file (HDF5 File Format Specification, III.A; Keras writes no user block)."""

FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
ATTRIBUTE_BYTES = 256 << 20
CHUNK_BYTES = 64 << 20
MOST_DEFLATED = 1100
"""deflate cannot shrink data by more than a factor of 1032 (RFC 1951), LZF by far less."""

T = TypeVar("T")


class Hdf5:
    """One open HDF5 file. Every path is a list of names from the root, every error an `UnreadableFile`."""

    def __init__(self, source: Path | bytes, where: str) -> None:
        self.where = where
        self._left = LIMITS.expanded
        self._read: dict[str, NDArray[Any]] = {}
        if isinstance(source, Path):
            head(source, 1)
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        self._file = self._guard(lambda: h5py.File(opened, "r"), "")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Hdf5:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def names(self, path: str = "") -> list[str]:
        """Names of everything in the group at `path`, sorted; empty where there is no such group."""
        group = self._at(path)
        if not isinstance(group, h5py.Group):
            return []
        found = self._guard(lambda: len(group), path)
        if found > LIMITS.members:
            raise self._error(path, f"{found} members, more than the limit of {LIMITS.members}")
        return sorted(self._guard(lambda: list(group.keys()), path))

    def has(self, path: str) -> bool:
        """Whether there is a group or dataset at `path`."""
        return self._at(path) is not None

    def shape(self, path: str) -> tuple[int, ...]:
        """The shape of the dataset at `path`."""
        dataset = self._dataset(path)
        return tuple(int(n) for n in self._guard(lambda: dataset.shape, path))

    def texts(self, name: str, path: str = "") -> list[str] | None:
        """A text attribute as a list, None where there is none.

        A list too long for one attribute continues in `name0`, `name1`, ... (Keras: hdf5_format.py,
        save_attributes_to_hdf5_group).
        """
        group = self._at(path)
        if group is None:
            return None
        found = self._attribute(group, name, path)
        if found is not None:
            return found
        parts: list[str] = []
        for count in range(LIMITS.members):
            part = self._attribute(group, f"{name}{count}", path)
            if part is None:
                return parts if count else None
            parts += part
        raise self._error(path, f"attribute {name!r} is split into too many pieces")

    def text(self, name: str, path: str = "") -> str | None:
        """A text attribute, None where there is none."""
        found = self.texts(name, path)
        return None if found is None else "".join(found)

    def array(self, path: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """The dataset at `path`, refused unless it has `shape`; one array for all readers, so not to be changed."""
        dataset = self._dataset(path)
        have = self.shape(path)
        if have != shape:
            raise self._error(path, f"has shape {list(have)}, the architecture asks for {list(shape)}")
        if path not in self._read:
            self._check_storage(dataset, path)
            data = self._guard(lambda: np.asarray(dataset[()]), path)
            self._read[path] = data.astype(data.dtype.newbyteorder("="))
        return self._read[path]

    def _check_storage(self, dataset: h5py.Dataset, path: str) -> None:
        dtype = self._guard(lambda: dataset.dtype, path)
        if dtype.kind not in "fiu" or dtype.itemsize > 8:
            raise self._error(path, f"holds {safe_text(dtype)}, not numbers of up to 64 bits")
        layout = self._guard(lambda: dataset.id.get_create_plist(), path)
        if layout.get_external_count():
            raise self._error(path, "keeps its data in another file")
        if layout.get_layout() == h5py.h5d.VIRTUAL:
            raise self._error(path, "is a virtual dataset, a window into other files")
        filters = [layout.get_filter(index)[0] for index in range(layout.get_nfilters())]
        if not FILTERS.issuperset(filters) or len(set(filters)) != len(filters):
            raise self._error(
                path, f"uses the filters {filters}; deflate, shuffle, fletcher32 and LZF are read, once each"
            )
        size = math.prod(dataset.shape) * dtype.itemsize
        if size > self._left:
            raise self._error(
                path, f"claims {size} bytes, more than the limit of {LIMITS.expanded} for all data together"
            )
        if layout.get_layout() == h5py.h5d.CHUNKED:
            chunk = math.prod(layout.get_chunk()) * dtype.itemsize
            if chunk > max(size, CHUNK_BYTES):
                raise self._error(path, f"is stored in chunks of {chunk} bytes")
        stored = dataset.id.get_storage_size()
        most = MOST_DEFLATED if h5py.h5z.FILTER_DEFLATE in filters or h5py.h5z.FILTER_LZF in filters else 1
        if size > stored * most:
            raise self._error(path, f"claims {size} bytes, but only {stored} are in the file")
        self._left -= size

    def _attribute(self, item: Any, name: str, path: str) -> list[str] | None:
        where = f"{path}@{name}"
        if not self._guard(lambda: name in item.attrs, where):
            return None
        attribute = self._guard(lambda: h5py.h5a.open(item.id, name.encode()), where)
        kind, shape = self._guard(lambda: (attribute.dtype, attribute.shape), where)
        if not math.prod(shape):
            return []
        if math.prod(shape) > LIMITS.members or math.prod(shape) * kind.itemsize > ATTRIBUTE_BYTES:
            raise self._error(where, "is too large")
        if kind.kind != "S" and h5py.check_string_dtype(kind) is None:
            raise self._error(where, f"holds {safe_text(kind)}, not text")
        values = np.asarray(self._guard(lambda: item.attrs[name], where)).ravel()
        return self._guard(lambda: [v.decode() if isinstance(v, bytes) else str(v) for v in values], where)

    def _dataset(self, path: str) -> h5py.Dataset:
        found = self._at(path)
        if not isinstance(found, h5py.Dataset):
            raise self._error(path, "is no dataset" if found is not None else "is missing")
        return found

    def _at(self, path: str) -> h5py.Group | h5py.Dataset | None:
        """What lies at `path`, walked name by name over hard links only."""
        here: Any = self._file
        for name in [part for part in path.split("/") if part]:
            if not isinstance(here, h5py.Group):
                return None
            here = self._member(here, name, path)
        if not isinstance(here, h5py.Group | h5py.Dataset | None):
            raise self._error(path, "is neither a group nor a dataset")
        return here

    def _member(self, group: h5py.Group, name: str, path: str) -> Any:
        link = self._guard(lambda: group.get(name, getlink=True) if name in group else None, path)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise self._error(path, f"{safe_text(name)!r} is a {type(link).__name__}, which may lead out of the file")
        return self._guard(lambda: group[name], path)

    def _guard(self, action: Callable[[], T], path: str) -> T:
        """What `action` returns; whatever h5py raises on damaged files becomes an `UnreadableFile`."""
        try:
            with _no_plugins():
                return action()
        except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._error(path, f"not readable HDF5: {safe_text(error, 120)}") from None
        except MemoryError:
            raise self._error(path, "not readable HDF5: it asks for more memory than there is") from None

    def _error(self, path: str, problem: str) -> UnreadableFile:
        return UnreadableFile(f"{self.where}{f', {safe_text(path, 200)}' if path else ''}: {problem}")


@contextmanager
def _no_plugins() -> Iterator[None]:
    """Take away the folders HDF5 loads filter code from, and put them back."""
    folders = [h5py.h5pl.get(index) for index in range(h5py.h5pl.size())]
    for _ in folders:
        h5py.h5pl.remove(0)
    try:
        yield
    finally:
        for folder in folders:
            h5py.h5pl.append(folder)
