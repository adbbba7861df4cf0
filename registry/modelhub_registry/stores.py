"""Where the bytes lie: keys such as ``blobs/sha256/<hex>`` and ``log/btag/000001.json``, in a folder or on a server.

`Store` is the protocol, `Folder` a local folder, `Remote` (in `remote.py`) anything fsspec speaks. Writing has two
halves. `prepare` is the long one and needs no lock: all bytes reach the disk or the server, under a name in
``incoming/`` that no reader looks at. `place` is the short one, done while the index's write lock is held: the bytes
get their keys. So whatever has a key and is not in a log, seen while holding that lock, is an orphan for certain.

What makes a publish durable in a `Folder`, in this order (within a step side by side, where the disk is slow):

1. fsync of files and manifest in ``incoming/``: no key will ever show bytes that are not on the disk;
2. after their renames, fsync of their folder, and of the log entry, still in ``incoming/``: what the log is about to
   name cannot be lost any more;
3. after the entry's rename, fsync of its folder: from here on the version exists, also after a power cut.

The index needs no wait: what it would lose, it takes from the log again (`sqlite.py`).
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from modelhub.errors import RegistryError, safe_text

__all__ = ["INCOMING", "Folder", "Item", "Staged", "Store", "Wait", "chunks", "pieces", "staged", "told"]

CHUNK = 1 << 20
INCOMING = "incoming"
_OBJECT = re.compile(r"<.*> ?", re.DOTALL)
"""What some libraries have in their messages: `<bound method ... at 0x7f...>`."""
NEWBORN = 5.0
"""Seconds in which a staged file may not be locked yet."""


@dataclass(frozen=True)
class Staged:
    """Bytes in a temporary local file, open and locked as `handle`, and what they are."""

    path: str
    handle: int
    sha256: str
    size: int


Item = tuple[Staged, str]
"""Staged bytes and the key they are to have."""

Wait = Callable[[], None]
"""Returns when what was begun is done. Raises `RegistryError` where it failed. May be called again."""


class Store(Protocol):
    """Keys and bytes. Every method raises `RegistryError`, and `read` of a missing key `KeyError`.

    No method relies on the server to refuse a second write of a key: half of them do not.
    """

    where: str
    """For messages: the folder or the URL, without secrets."""
    staging: Path
    """A local folder for bytes on their way in."""

    def prepare(self, items: Sequence[Item]) -> Wait:
        """Begin to bring bytes to where `place` is quick. Any number of writers at once; no key changes."""

    def place(self, items: Sequence[Item], last: Item | None = None) -> None:
        """Give prepared bytes their keys, replacing what is there; durable when it returns.

        The caller has waited for `prepare`, and holds the index's write lock where a key is new to the registry. `last`
        was not prepared; it gets its key, which must be new, when all others are durable.
        """

    def read(self, key: str) -> Iterator[bytes]:
        """The bytes of `key` in pieces, unverified. Raises `KeyError` when there is no such key."""

    def has(self, key: str) -> bool:
        """Whether there is such a key."""

    def list(self, folder: str) -> Sequence[str]:
        """Last parts of all keys in `folder`, sorted; empty when there is no such folder."""

    def delete(self, key: str) -> None:
        """Remove `key`, if it is there."""

    def leftovers(self, grace: float) -> Sequence[str]:
        """Keys in `incoming` of writers that are no more: dead for certain, or older than `grace` seconds."""


@contextmanager
def told(where: str, doing: str) -> Iterator[None]:
    """Any failure of a store as one `RegistryError`; a remote store may raise what its library likes."""
    try:
        yield
    except (RegistryError, KeyError):
        raise
    except Exception as error:
        said = _OBJECT.sub("", str(error))
        reason = error.strerror if isinstance(error, OSError) and error.strerror else safe_text(said, 120)
        raise RegistryError(f"{where}: cannot {doing}: {reason or type(error).__name__}") from error


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """What an open file holds, in pieces."""
    while piece := file.read(CHUNK):
        yield piece


def chunks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The bytes of a local file in pieces. Raises `OSError` also for what is no regular file."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would keep us waiting for who writes into it
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file")
    with open(handle, "rb", buffering=0) as file:  # noqa: PTH123
        yield from pieces(file)


class _Pace:
    """Seconds the last sync took, or half of what was noted before: disks that are slow are not so each time.

    On a slow disk syncs run side by side; on a quick one a thread costs more.
    """

    seconds = 0.0
    slow = 0.002


def _sync(handles: Sequence[int], *, now: bool = False) -> Wait:
    """Begin to sync files and folders, and let the caller go on.

    Where the disk is slow all are synced at once, in threads: a journal commits them together, at little more than the
    price of one. `now` says that the caller waits at once: then one thread less is needed. On a quick disk writing is
    begun, and the wait syncs: what was written in the meantime is in the journal's first commit too.
    """
    failed: list[OSError] = []
    slow = _Pace.seconds > _Pace.slow

    def sync(some: Sequence[int]) -> None:
        start = time.perf_counter()
        try:
            for handle in some:
                os.fsync(handle)
        except OSError as error:
            failed.append(error)
        finally:
            _Pace.seconds = max(time.perf_counter() - start, _Pace.seconds / 2)

    def beside(some: Sequence[int], done: _thread.LockType) -> None:
        try:
            sync(some)
        finally:
            done.release()

    left = [handles[k::8] for k in range(min(8, len(handles)))] if slow else [handles]
    ends: list[_thread.LockType] = []
    while len(left) > now and slow:
        ends.append(_thread.allocate_lock())
        ends[-1].acquire()
        _thread.start_new_thread(beside, (left.pop(), ends[-1]))  # a fifth of the time of threading's
    if not slow and not now:
        for handle in handles:
            _begin_writing(handle)

    def wait() -> None:
        while left:
            sync(left.pop())
        for end in ends:
            with end:
                pass
        if failed:
            raise failed[0]

    return wait


def _begin_writing(handle: int) -> None:
    """Send what was written to a file to the disk, without waiting."""
    if hasattr(os, "posix_fadvise"):  # Linux begins with pages that nobody needs soon; macOS has no such call
        with suppress(OSError):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


class Folder:
    """A local folder. A crash at any moment leaves whole files, and at worst leftovers in `incoming`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)
        self.staging = root / INCOMING

    def prepare(self, items: Sequence[Item]) -> Wait:
        """Sync the files."""
        syncing = _sync([staged.handle for staged, _ in items])

        def wait() -> None:
            with told(self.where, "sync a file"):
                syncing()

        return wait

    def place(self, items: Sequence[Item], last: Item | None = None) -> None:
        """Rename into place, then sync the folders that got new entries."""
        if last is None:
            self._place(items)
            return
        if self.has(last[1]):
            raise RegistryError(
                f"{self.where}/{last[1]} is there already: another index writes to this registry; use one for all"
            )
        self._place(items, last[0].handle)
        self._place([last])

    def _place(self, items: Sequence[Item], *beside: int) -> None:
        """Rename, then sync the folders, and what is open as `beside`."""
        touched: dict[str, None] = {}
        for staged, key in items:
            target = f"{self.where}/{key}"
            folder = target.rpartition("/")[0]
            with told(self.where, f"write {key}"):
                try:
                    os.replace(staged.path, target)  # noqa: PTH105 (half the time of Path's)
                except FileNotFoundError:
                    touched.update(dict.fromkeys(self._make(Path(folder))))
                    os.replace(staged.path, target)  # noqa: PTH105
            touched[folder] = None
        handles: list[int] = []
        with told(self.where, "sync the folder"):
            try:
                handles += [os.open(folder, os.O_RDONLY) for folder in touched]
                _sync([*beside, *handles], now=True)()  # the folders' news are in the journal by then
            finally:
                for handle in handles:
                    os.close(handle)

    def _make(self, folder: Path) -> list[str]:
        """Make `folder` and its parents; the folders that got new entries by it."""
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        return [str(f.parent) for f in missing]

    def read(self, key: str) -> Iterator[bytes]:
        """The file's bytes."""
        with told(self.where, f"read {key}"):
            try:
                yield from chunks(f"{self.where}/{key}")
            except FileNotFoundError:
                raise KeyError(key) from None

    def has(self, key: str) -> bool:
        """Whether the file is there."""
        with told(self.where, f"look for {key}"):
            return os.path.exists(f"{self.where}/{key}")  # noqa: PTH110 (half the time of Path's)

    def list(self, folder: str) -> Sequence[str]:
        """Names in the folder."""
        with told(self.where, f"list {folder}"):
            try:
                return sorted(os.listdir(self.root / folder))  # noqa: PTH208 (names, not paths)
            except (FileNotFoundError, NotADirectoryError):
                return []

    def delete(self, key: str) -> None:
        """Remove the file."""
        with told(self.where, f"delete {key}"), suppress(FileNotFoundError):
            (self.root / key).unlink()

    def leftovers(self, grace: float) -> Sequence[str]:  # noqa: ARG002 (a lock knows better than a clock)
        """Staged files that no process holds a lock on any more."""
        return [f"{INCOMING}/{name}" for name in self.list(INCOMING) if not _held(self.staging / name)]


def _held(path: Path) -> bool:
    """Whether a living process holds the lock that `staged` takes, or has just made the file and will."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        return error.errno != errno.EACCES  # gone in between; a file nobody may read is no staged one of ours
    try:
        if 0 <= time.time() - os.fstat(handle).st_mtime < NEWBORN:
            return True
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def staged(store: Store, source: Iterable[bytes]) -> Iterator[Staged]:
    """`source` in a temporary file, hashed in passing; removed at the end of the block if still there.

    The file is locked until then, so that nobody takes it for a leftover.
    """
    path = f"{store.staging}/modelhub-{os.getpid()}-{secrets.token_hex(8)}"
    handle = -1
    hashed, size = hashlib.sha256(), 0
    try:
        with told(store.where, "store bytes"):
            handle = _new(path)
            fcntl.flock(handle, fcntl.LOCK_SH)
            for piece in source:
                hashed.update(piece)
                size += len(piece)
                _write(handle, piece)
        yield Staged(path, handle, hashed.hexdigest(), size)
    finally:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 (half the time of Path's)
        if handle >= 0:
            os.close(handle)


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _new(path: str) -> int:
    """A new file, read-only from birth: nobody should write to a blob. The umask takes what it wants."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, 0o444)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o444)
