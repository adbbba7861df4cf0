"""Files in and out, without trust: bounded reads, checked archives, one-step writes."""

from __future__ import annotations

import json
import math
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from modelhub.errors import UnreadableFile, UsageError, safe_text

__all__ = [
    "LIMITS",
    "Archive",
    "Limits",
    "atomic_write",
    "beginning",
    "head",
    "parse_json",
    "read_bytes",
    "zip_mentions",
]


@dataclass(frozen=True)
class Limits:
    """How much of a file we are willing to take in. Sizes in bytes."""

    file: int = 2 << 30
    expanded: int = 4 << 30
    members: int = 100_000
    json: int = 1 << 30
    depth: int = 200


LIMITS = Limits()


def _regular(path: Path) -> os.stat_result:
    """The status of `path`, which must be a regular file within the limits."""
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFile(f"{path}: not a regular file")
    if status.st_size > LIMITS.file:
        raise UnreadableFile(f"{path}: {status.st_size} bytes, more than the limit of {LIMITS.file}")
    return status


BEGINNING = 4096
_beginning: ContextVar[tuple[Path, bytes] | None] = ContextVar("beginning", default=None)


@contextmanager
def beginning(path: Path) -> Iterator[bytes]:
    """The first bytes of a regular file, which every `head` of `path` gets within the block, with no further look."""
    start = head(path, BEGINNING)
    token = _beginning.set((path, start))
    try:
        yield start
    finally:
        _beginning.reset(token)


def head(path: Path, count: int = 512) -> bytes:
    """The first `count` bytes of a regular file, fewer if it is shorter."""
    known = _beginning.get()
    if known is not None and known[0] is path and count <= BEGINNING:
        return known[1][:count]
    _regular(path)
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(count)
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error


def read_bytes(path: Path, limit: int = LIMITS.file) -> bytes:
    """The whole of a regular file, refused when empty or longer than `limit` bytes."""
    size = _regular(path).st_size
    if size == 0:
        raise UnreadableFile(f"{path}: the file is empty")
    if size > limit:
        raise UnreadableFile(f"{path}: {size} bytes, more than the limit of {limit}")
    try:
        with path.open("rb") as file:
            return file.read(size)  # not `limit`: read allocates what it is asked for
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error


def parse_json(text: bytes, where: str) -> Any:
    """JSON as the standard has it: one meaning for every reader, or an `UnreadableFile` naming `where`.

    Refused: doubled keys (readers disagree about them), NaN and Infinity, numbers that overflow a
    double, text that is not UTF-8, and nesting deeper than `LIMITS.depth`.
    """
    if len(text) > LIMITS.json:
        raise UnreadableFile(f"{where}: {len(text)} bytes of JSON, more than the limit of {LIMITS.json}")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            keys = [key for key, _ in items]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UnreadableFile(f"{where}: the key {safe_text(twice)!r} is given twice in one object")
        if not _NUMBERS.isdisjoint(map(type, result.values())) and any(map(_overflows, result.values())):
            raise UnreadableFile(f"{where}: a number overflows a double")
        return result

    def constant(name: str) -> float:
        raise UnreadableFile(f"{where}: {name} is not JSON")

    try:
        document = json.loads(text.decode("utf-8-sig"), object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError:
        raise UnreadableFile(f"{where}: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{where}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        raise UnreadableFile(f"{where}: not valid JSON: {safe_text(error, 120)}") from None
    if _overflows(document):
        raise UnreadableFile(f"{where}: a number overflows a double")
    return document


_NUMBERS = frozenset((float, list))
"""The types of a value of JSON that may hold a number beyond a double."""


def _overflows(value: Any) -> bool:
    """Whether a number in `value` became infinity. Objects inside have been looked at when they were made."""
    if isinstance(value, list):
        try:
            if math.isfinite(sum(value)):  # much quicker than a look at each: models are long lists of numbers
                return False
        except TypeError:
            if _NUMBERS.isdisjoint(map(type, value)):
                return False
        except OverflowError:
            pass  # whole numbers beyond a double are no infinity
        return any(map(_overflows, value))
    return isinstance(value, float) and math.isinf(value)


def zip_mentions(path: Path, *names: str) -> bool:
    """Whether the directory at the end of a zip archive holds one of `names` somewhere in its bytes.

    A quick look for recognising: no is certain; yes is a guess that `Archive` must confirm.
    """
    size = _regular(path).st_size
    try:
        with path.open("rb") as file:
            file.seek(max(0, size - (1 << 16) - 22))  # the end record and the longest comment behind it
            tail = file.read()
            place = tail.rfind(b"PK\x05\x06")
            length, start = struct.unpack_from("<II", tail, place + 12) if 0 <= place <= len(tail) - 22 else (0, 0)
            if not 0 < start + length <= size:
                return True  # damaged, or of the large kind that keeps its numbers elsewhere
            file.seek(start)
            directory = file.read(length)
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error
    return any(name.encode() in directory for name in names)


class Archive:
    """A zip file read in place: nothing is extracted, every member is bounded and checked.

    Refused at opening: more members than the limit, members of one name, encrypted members, symbolic
    links, compression other than stored and deflate, names that leave the archive, overlapping members.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _regular(path)
        try:
            self._zip = zipfile.ZipFile(path)
            self._members = self._checked()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError, EOFError) as error:
            raise UnreadableFile(f"{path}: not a readable zip archive: {safe_text(error, 120)}") from None
        self._left = LIMITS.expanded

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        """The members by name, after every rule of the class has been applied."""
        infos = self._zip.infolist()
        if len(infos) > LIMITS.members:
            raise UnreadableFile(f"{self.path}: {len(infos)} members, more than the limit of {LIMITS.members}")
        members: dict[str, zipfile.ZipInfo] = {}
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            name = safe_text(info.filename)
            if info.filename in members:
                raise UnreadableFile(f"{self.path}: two members are called {name!r}")
            if info.flag_bits & 0x1:
                raise UnreadableFile(f"{self.path}: member {name!r} is encrypted")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UnreadableFile(f"{self.path}: member {name!r} is a symbolic link")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UnreadableFile(f"{self.path}: member {name!r} uses compression method {info.compress_type}")
            if info.filename.startswith(("/", "\\")) or ".." in info.filename.replace("\\", "/").split("/"):
                raise UnreadableFile(f"{self.path}: member {name!r} leaves the archive")
            if info.header_offset < end:
                raise UnreadableFile(f"{self.path}: member {name!r} overlaps another")
            end = info.header_offset + 30 + len(info.filename.encode()) + info.compress_size
            members[info.filename] = info
        return members

    @property
    def names(self) -> list[str]:
        """Names of all members."""
        return list(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        """The size in bytes the archive claims for a member: a claim, checked only by `read`."""
        return self._info(name).file_size

    def _info(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._members[name]
        except KeyError:
            raise UnreadableFile(f"{self.path}: the archive has no member {safe_text(name)!r}") from None

    def read(self, name: str, limit: int = LIMITS.file) -> bytes:
        """One member, refused beyond `limit` bytes or beyond the limit for the whole archive."""
        info = self._info(name)
        room = min(limit, self._left)
        try:
            with self._zip.open(info) as member:
                data = member.read(min(room, info.file_size) + 1)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, zlib.error) as error:
            raise UnreadableFile(f"{self.path}: member {safe_text(name)!r}: {safe_text(error, 120)}") from None
        if len(data) > room:
            raise UnreadableFile(f"{self.path}: member {safe_text(name)!r} is larger than the limit of {room} bytes")
        if len(data) != info.file_size:
            raise UnreadableFile(f"{self.path}: member {safe_text(name)!r} is not as long as the archive says")
        self._left -= len(data)
        return data

    def stream(self, name: str) -> IO[bytes]:
        """One member opened for reading piece by piece, for data that no one wants to hold; closed by the caller."""
        try:
            return self._zip.open(self._info(name))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UnreadableFile(f"{self.path}: member {safe_text(name)!r}: {safe_text(error, 120)}") from None

    def json(self, name: str) -> Any:
        """One member parsed as strict JSON."""
        return parse_json(self.read(name, LIMITS.json), f"{self.path}, member {safe_text(name)}")

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and vanishes otherwise.

    Durable: file and folder are synced. The temporary file keeps `path`'s suffix, which some engines look at.
    Raises `UsageError` where no file can be written, and for a `path` that is there and no regular file.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file")
    if path.exists() and not path.is_file():  # root may replace /dev/null, and nobody would want that
        raise UsageError(f"{path} is a device, a pipe or a socket; give the name of a file")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
