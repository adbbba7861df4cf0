"""Bytes named by their SHA-256: written once, verified on every read.

A blob's key in its store (`stores.py`) is ``blobs/sha256/<hex>``. Content addressing makes a second write of a blob
harmless on every store, so no conditional PUT is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from modelhub.errors import RegistryError
from modelhub.files import LIMITS
from modelhub_registry import names
from modelhub_registry.errors import DamageError
from modelhub_registry.stores import Item, Staged, Store

__all__ = ["Blobs"]

_MEND = "put it back from a copy, or push the same file again"


class Blobs:
    """A store's blobs by digest. What does not have the digest it is named by is never handed out."""

    folder = "blobs/sha256"

    def __init__(self, store: Store) -> None:
        self.store = store

    def key(self, sha256: str) -> str:
        """Where in the store a blob lies."""
        return f"{self.folder}/{names.digest(sha256)}"

    def item(self, blob: Staged) -> Item:
        """Staged bytes and their key: what the store's `prepare` and `place` take."""
        return blob, self.key(blob.sha256)

    def has(self, sha256: str) -> bool:
        """Whether there is such a blob, sound or not."""
        return self.store.has(self.key(sha256))

    def list(self) -> Sequence[str]:
        """Digests of all blobs, sorted."""
        return self.store.list(self.folder)

    def delete(self, sha256: str) -> None:
        """Remove a blob, if it is there."""
        self.store.delete(self.key(sha256))

    def get(self, sha256: str, limit: int = LIMITS.file) -> bytes:
        """The bytes of a blob of at most `limit` bytes. Raises `RegistryError` when missing, damaged or larger."""
        return b"".join(self._verified(sha256, limit))

    def save(self, sha256: str, path: Path) -> None:
        """Write a blob to `path`, a temporary file that the caller drops when this raises `RegistryError`."""
        try:
            with path.open("wb") as file:
                for piece in self._verified(sha256, None):
                    file.write(piece)
        except OSError as error:
            raise RegistryError(f"cannot write into {path.parent}: {error.strerror or error}") from error

    def verify(self, sha256: str) -> None:
        """Read a blob to its end. Raises `RegistryError` when it is missing or damaged."""
        for _ in self._verified(sha256, None):
            pass

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """The bytes in pieces, for whoever can drop them again when the end raises `RegistryError`."""
        return self._verified(sha256, None)

    def _verified(self, sha256: str, limit: int | None) -> Iterator[bytes]:
        """The bytes in pieces; raises at the end when they are not the right ones, so no piece is to be used before."""
        hashed, size = hashlib.sha256(), 0
        try:
            for piece in self.store.read(self.key(sha256)):
                hashed.update(piece)
                size += len(piece)
                if limit is not None and size > limit:
                    raise RegistryError(
                        f"{self.store.where}: blob sha256:{sha256} is larger than the limit of {limit} bytes"
                    )
                yield piece
        except KeyError:
            raise DamageError(f"{self.store.where}: blob sha256:{sha256} is missing; {_MEND}") from None
        if hashed.hexdigest() != sha256:
            raise DamageError(
                f"{self.store.where}: blob sha256:{sha256} is damaged ({size} bytes that hash to "
                f"{hashed.hexdigest()[:16]}…); {_MEND}"
            )
