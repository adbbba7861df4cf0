"""Bytes named by their SHA-256: written once, verified on every read.

Two stores hold keys such as ``blobs/sha256/<hex>`` and ``log/btag/000001.json``: `Folder`, a local folder where a
write is durable when it returns, and `Remote`, anything fsspec speaks. `Blobs` adds the digests. Content addressing
makes a second write of a blob harmless on every store, so no conditional PUT is needed, which half the servers ignore.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from modelhub.errors import RegistryError, safe_text
from modelhub.files import LIMITS
from modelhub_registry import names

__all__ = ["Blobs", "Folder", "Remote", "Staged", "Store", "chunks", "open_store", "staged"]

CHUNK = 1 << 20

_MEND = "put it back from a copy, or push the same file again"


@dataclass(frozen=True)
class Staged:
    """Bytes that lie, synced, in a temporary local file, and what they are."""

    path: Path
    sha256: str
    size: int


class Store(Protocol):
    """Keys and bytes. Every method raises `RegistryError`, and `read` of a missing key `KeyError`."""

    where: str
    """For messages: the folder or the URL."""
    staging: Path
    """A local folder for bytes on their way in."""

    def place(self, staged: Staged, key: str) -> None:
        """Give staged bytes their key, replacing what is there; durable after `settle`."""

    def settle(self) -> None:
        """Make all that was placed durable."""

    def read(self, key: str) -> Iterator[bytes]:
        """The bytes of `key` in pieces, unverified. Raises `KeyError` when there is no such key."""

    def has(self, key: str) -> bool:
        """Whether there is such a key."""

    def list(self, folder: str) -> Sequence[str]:
        """Last parts of all keys in `folder`, sorted; empty when there is no such folder."""

    def delete(self, key: str) -> None:
        """Remove `key`, if it is there."""


@contextmanager
def _told(where: str, doing: str) -> Iterator[None]:
    """Any failure of a store as one `RegistryError`; a remote store may raise what its library likes."""
    try:
        yield
    except (RegistryError, KeyError):
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else safe_text(error, 120)
        raise RegistryError(f"{where}: cannot {doing}: {reason or type(error).__name__}") from error


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece


def chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a local file in pieces."""
    with path.open("rb") as file:
        yield from _pieces(file)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Folder:
    """A local folder. A crash at any moment leaves whole files, and at worst leftovers in `incoming`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)
        self.staging = root / "incoming"
        self._mine = threading.local()

    @property
    def _touched(self) -> set[Path]:
        """Folders with entries not synced yet, of this thread: nobody relies on another's sync to have ended."""
        folders: set[Path] = self._mine.__dict__.setdefault("folders", set())
        return folders

    def place(self, staged: Staged, key: str) -> None:
        """Rename into place."""
        target = self.root / key
        with _told(self.where, f"write {key}"):
            try:
                staged.path.replace(target)
            except FileNotFoundError:
                self._make(target.parent)
                staged.path.replace(target)
        self._touched.add(target.parent)

    def _make(self, folder: Path) -> None:
        """Make `folder` and its parents, each to be synced into the one above."""
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._touched.update(f.parent for f in missing)

    def settle(self) -> None:
        """Sync the folders that got new entries."""
        with _told(self.where, "sync the folder"):
            while self._touched:
                _sync(self._touched.pop())

    def read(self, key: str) -> Iterator[bytes]:
        """The file's bytes."""
        with _told(self.where, f"read {key}"):
            try:
                yield from chunks(self.root / key)
            except FileNotFoundError:
                raise KeyError(key) from None

    def has(self, key: str) -> bool:
        """Whether the file is there."""
        with _told(self.where, f"look for {key}"):
            return (self.root / key).exists()

    def list(self, folder: str) -> Sequence[str]:
        """Names in the folder."""
        with _told(self.where, f"list {folder}"):
            try:
                return sorted(os.listdir(self.root / folder))  # noqa: PTH208 (names, not paths)
            except (FileNotFoundError, NotADirectoryError):
                return []

    def delete(self, key: str) -> None:
        """Remove the file."""
        with _told(self.where, f"delete {key}"), suppress(FileNotFoundError):
            (self.root / key).unlink()


class Remote:
    """Any file system that fsspec speaks, by URL: ``root://``, ``s3://``, ``webdav://``, ``memory://`` ..."""

    def __init__(self, url: str) -> None:
        with _told(safe_text(url), "open the store"):
            import fsspec

            self._system, self._root = cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
        self.where = url
        self.staging = Path(tempfile.gettempdir())

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"

    def place(self, staged: Staged, key: str) -> None:
        """Upload."""
        path = self._path(key)
        with _told(self.where, f"write {key}"):
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._system.put_file(str(staged.path), path)
            if (size := self._system.size(path)) != staged.size:
                raise RegistryError(f"{self.where}: {key} arrived with {size} of {staged.size} bytes; try again")

    def settle(self) -> None:
        """Nothing to do: a server has answered for what it took."""

    def read(self, key: str) -> Iterator[bytes]:
        """The object's bytes."""
        with _told(self.where, f"read {key}"):
            try:
                with self._system.open(self._path(key), "rb") as file:
                    yield from _pieces(file)
            except FileNotFoundError:
                raise KeyError(key) from None

    def has(self, key: str) -> bool:
        """Whether the object is there, asked afresh."""
        with _told(self.where, f"look for {key}"):
            self._system.invalidate_cache()
            return bool(self._system.exists(self._path(key)))

    def list(self, folder: str) -> Sequence[str]:
        """Last parts of the objects' paths."""
        with _told(self.where, f"list {folder}"):
            self._system.invalidate_cache()
            try:
                return sorted(
                    path.rstrip("/").rpartition("/")[2] for path in self._system.ls(self._path(folder), detail=False)
                )
            except FileNotFoundError:
                return []

    def delete(self, key: str) -> None:
        """Remove the object."""
        with _told(self.where, f"delete {key}"), suppress(FileNotFoundError):
            self._system.rm_file(self._path(key))


def open_store(root: Path, url: str | None) -> Store:
    """The store of a registry: the folder `root` itself, unless a URL names another place."""
    return Folder(root) if url is None else Remote(url)


@contextmanager
def staged(store: Store, source: Iterable[bytes]) -> Iterator[Staged]:
    """`source` in a temporary file, hashed in passing and synced; removed at the end of the block if still there."""
    path = store.staging / f"modelhub-{os.getpid()}-{secrets.token_hex(8)}"
    hashed, size = hashlib.sha256(), 0
    try:
        with _told(store.where, "store bytes"), _new(path) as file:
            for piece in source:
                hashed.update(piece)
                size += len(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        yield Staged(path, hashed.hexdigest(), size)
    finally:
        with suppress(OSError):
            path.unlink()


def _new(path: Path) -> BinaryIO:
    """A new file, read-only from birth: nobody should write to a blob. The umask takes what it wants."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        handle = os.open(path, flags, 0o444)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, flags, 0o444)
    return os.fdopen(handle, "wb")


class Blobs:
    """A store's blobs by digest. What does not have the digest it is named by is never handed out."""

    folder = "blobs/sha256"

    def __init__(self, store: Store) -> None:
        self.store = store

    def _key(self, sha256: str) -> str:
        return f"{self.folder}/{names.digest(sha256)}"

    def put(self, blob: Staged) -> None:
        """Store staged bytes; durable after the store's `settle`. A damaged blob of this digest is mended by it."""
        self.store.place(blob, self._key(blob.sha256))

    def has(self, sha256: str) -> bool:
        """Whether there is such a blob, sound or not."""
        return self.store.has(self._key(sha256))

    def list(self) -> Sequence[str]:
        """Digests of all blobs, sorted."""
        return self.store.list(self.folder)

    def delete(self, sha256: str) -> None:
        """Remove a blob, if it is there."""
        self.store.delete(self._key(sha256))

    def get(self, sha256: str, limit: int = LIMITS.file) -> bytes:
        """The bytes of a blob of at most `limit` bytes. Raises `RegistryError` when missing, damaged or larger."""
        return b"".join(self._verified(sha256, limit))

    def save(self, sha256: str, path: Path) -> None:
        """Write a blob to `path`, a temporary file that the caller drops when this raises `RegistryError`."""
        with path.open("wb") as file:
            for piece in self._verified(sha256, None):
                file.write(piece)

    def verify(self, sha256: str) -> None:
        """Read a blob to its end. Raises `RegistryError` when it is missing or damaged."""
        for _ in self._verified(sha256, None):
            pass

    def _verified(self, sha256: str, limit: int | None) -> Iterator[bytes]:
        """The bytes in pieces; raises at the end when they are not the right ones, so no piece is to be used before."""
        hashed, size = hashlib.sha256(), 0
        try:
            for piece in self.store.read(self._key(sha256)):
                hashed.update(piece)
                size += len(piece)
                if limit is not None and size > limit:
                    raise RegistryError(
                        f"{self.store.where}: blob sha256:{sha256} is larger than the limit of {limit} bytes"
                    )
                yield piece
        except KeyError:
            raise RegistryError(f"{self.store.where}: blob sha256:{sha256} is missing; {_MEND}") from None
        if hashed.hexdigest() != sha256:
            raise RegistryError(
                f"{self.store.where}: blob sha256:{sha256} is damaged ({size} bytes that hash to "
                f"{hashed.hexdigest()[:16]}…); {_MEND}"
            )
