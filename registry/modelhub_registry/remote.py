"""A store on a server, over fsspec: ``root://``, ``s3://``, ``dav://``, ``davs://`` and all others it knows.

No server is trusted. What is uploaded is read back and hashed before it can get a key; what is moved is measured. A
move onto a key that is there removes it first, since servers disagree about what such a move does.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from modelhub.errors import RegistryError, safe_text
from modelhub_registry.stores import INCOMING, Item, Staged, Wait, chunks, pieces, told

__all__ = ["Remote", "without_secrets"]


def without_secrets(url: str) -> str:
    """A URL fit for messages: without password, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return safe_text(url.partition("://")[0]) + "://…"
    return safe_text(urlunsplit((parts.scheme, host, parts.path, "", "")), 300)


class Remote:
    """Any file system that fsspec speaks, by URL."""

    def __init__(self, url: str) -> None:
        self.where = without_secrets(url)
        with told(self.where, "open the store"):
            self._system, self._root = _opened(url)
        self.staging = Path(tempfile.gettempdir())

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"

    def prepare(self, items: Sequence[Item]) -> Wait:
        """Upload what is not there yet, and read it back."""
        for staged, key in items:
            if not self._sound(key, staged):
                self._upload(staged)
        return lambda: None

    def _upload(self, staged: Staged) -> None:
        key = _incoming(staged)
        path = self._path(key)
        with told(self.where, f"write {key}"):
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            try:
                self._system.put_file(staged.path, path)
            except NotImplementedError:  # XRootD
                with self._system.open(path, "wb") as file:
                    for piece in chunks(staged.path):
                        file.write(piece)
        if not self._sound(key, staged):
            self.delete(key)
            raise RegistryError(f"{self.where}: what was uploaded reads back as something else; try again")

    def _sound(self, key: str, staged: Staged) -> bool:
        """Whether `key` holds the staged bytes."""
        hashed, size = hashlib.sha256(), 0
        try:
            for piece in self.read(key):
                hashed.update(piece)
                size += len(piece)
        except KeyError:
            return False
        return size == staged.size and hashed.hexdigest() == staged.sha256

    def place(self, items: Sequence[Item], last: Item | None = None) -> None:
        """Move into place; what was there before and has been removed since `prepare` is uploaded after all."""
        for staged, key in items:
            self._move(staged, key)
        if last is not None:
            staged, key = last
            if self.has(key):
                raise RegistryError(
                    f"{self.where}/{key} is there already: another index writes to this registry; use one for all"
                )
            self._upload(staged)
            self._move(staged, key)

    def _move(self, staged: Staged, key: str) -> None:
        incoming, path = _incoming(staged), self._path(key)
        there = self.has(key)
        if not self.has(incoming):
            if there:  # it was found sound when it was prepared
                return
            self._upload(staged)
        elif there and self._sound(key, staged):
            self.delete(incoming)  # another writer was quicker with the same bytes; they are not to vanish for a moment
            return
        with told(self.where, f"write {key}"):
            if there:
                self._system.rm_file(path)
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            try:
                self._rename(self._path(incoming), path)
            except Exception:
                if not self._sound(key, staged):
                    raise
                self.delete(incoming)  # quicker still
                return
            self._system.invalidate_cache()
            if (size := self._system.size(path)) != staged.size:
                raise RegistryError(f"{self.where}: {key} arrived with {size} of {staged.size} bytes; try again")

    def _rename(self, old: str, new: str) -> None:
        """Move on the server; where it cannot (S3), copy and delete: one by one, since not all delete in bulk."""
        from fsspec import AbstractFileSystem

        if type(self._system).mv is not AbstractFileSystem.mv:
            self._system.mv(old, new)
        else:
            self._system.cp_file(old, new)
            self._system.rm_file(old)

    def read(self, key: str) -> Iterator[bytes]:
        """The object's bytes."""
        with told(self.where, f"read {key}"):
            try:
                self._system.invalidate_cache()  # a listing from before a file came says that there is none
                with self._system.open(self._path(key), "rb") as file:
                    yield from pieces(file)
            except Exception as error:
                if self._absent(key, error):
                    raise KeyError(key) from None
                raise

    def has(self, key: str) -> bool:
        """Whether the object is there, asked afresh."""
        with told(self.where, f"look for {key}"):
            self._system.invalidate_cache()
            return bool(self._system.exists(self._path(key)))

    def list(self, folder: str) -> Sequence[str]:
        """Last parts of the objects' paths."""
        with told(self.where, f"list {folder}"):
            self._system.invalidate_cache()
            try:
                found = self._system.ls(self._path(folder), detail=False)
            except Exception as error:
                if self._absent(folder, error):
                    return []
                raise
        return sorted({path.rstrip("/").rpartition("/")[2] for path in found} - {"", folder.rpartition("/")[2]})

    def delete(self, key: str) -> None:
        """Remove the object."""
        with told(self.where, f"delete {key}"):
            try:
                self._system.rm_file(self._path(key))
            except Exception as error:
                if not self._absent(key, error):
                    raise

    def _absent(self, key: str, error: Exception) -> bool:
        """Whether `error` means that there is no `key`; XRootD has no error of its own for that."""
        return isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and not self.has(key))

    def leftovers(self, grace: float) -> Sequence[str]:
        """Uploads older than `grace` seconds by the server's word; without its word, none."""
        keys = [f"{INCOMING}/{name}" for name in self.list(INCOMING)]
        return [key for key in keys if (born := self._born(key)) is not None and time.time() - born >= grace]

    def _born(self, key: str) -> float | None:
        """When an object was last written, in seconds since 1970."""
        with told(self.where, f"look for {key}"):
            try:
                when = self._system.modified(self._path(key))
            except NotImplementedError:
                return None
            except Exception as error:
                if self._absent(key, error):
                    return None
                raise
        if isinstance(when, datetime):
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        return float(when) if isinstance(when, int | float) else None


def _opened(url: str) -> tuple[Any, str]:
    """The file system and the path on it that a URL names.

    ``dav`` is WebDAV over http, ``davs`` over https. A token is looked for in $BEARER_TOKEN, as WLCG's tools do.
    """
    import fsspec

    parts = urlsplit(url)
    if parts.scheme in ("root", "roots"):  # XRootD alone would look for a server that is not there for ten minutes
        os.environ.setdefault("XRD_CONNECTIONWINDOW", "15")
        os.environ.setdefault("XRD_CONNECTIONRETRY", "2")
    if parts.scheme not in ("dav", "davs"):
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    token = os.environ.get("BEARER_TOKEN")
    headers = {"Authorization": f"Bearer {token.strip()}"} if token else {}
    base = urlunsplit(("https" if parts.scheme == "davs" else "http", parts.netloc, "", "", ""))
    return fsspec.filesystem("webdav", base_url=base, headers=headers), parts.path.strip("/")


def _incoming(staged: Staged) -> str:
    return f"{INCOMING}/{staged.path.rpartition('/')[2]}"
