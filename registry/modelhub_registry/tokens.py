"""Who may write through the server: tokens, kept as hashes in a file only its owner reads.

A token is ``mh_<id>_<secret>``: 8 hexadecimal digits that name it, and 256 random bits. Of the secret the file holds
the SHA-256: with so many bits there is nothing to guess, so a slow hash would protect nothing. Scopes:

    read       look up and fetch, where the server asks readers for a token (`serve --private`)
    publish    make versions, attach reports
    promote    move aliases
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkstemp

from modelhub.errors import RegistryError, UnreadableFile
from modelhub.files import parse_json, read_bytes
from modelhub_registry import names
from modelhub_registry.records import text

__all__ = ["SCOPES", "Token", "Tokens"]

SCOPES = ("read", "publish", "promote")
LIMIT = 1 << 20
_TOKEN = re.compile(r"mh_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class Token:
    """A token as the file knows it. Times are UTC, ISO 8601; `expires` None: never."""

    id: str
    label: str
    scopes: tuple[str, ...]
    sha256: str
    created: str
    expires: str | None = None
    revoked: bool = False

    def allows(self, scope: str, now: datetime) -> bool:
        """Whether it is good for `scope` now. Who may write may read."""
        if self.revoked or (self.expires is not None and now >= datetime.fromisoformat(self.expires)):
            return False
        return scope == "read" or scope in self.scopes


class Tokens:
    """The tokens in a file; it is read again whenever it has changed, so a revoked token ends at once."""

    def __init__(self, path: Path) -> None:
        self.path = names.path(path)
        self._read: tuple[tuple[int, int], dict[str, Token]] | None = None

    def create(self, label: str, scopes: Sequence[str], days: float | None = None) -> tuple[str, Token]:
        """A new token: the text to hand out, which is shown once and stored nowhere, and its record."""
        wrong = sorted({*scopes} - {*SCOPES})
        if wrong or not scopes:
            raise RegistryError(f"a token needs scopes out of {', '.join(SCOPES)}, not {', '.join(wrong) or 'none'}")
        if days is not None and not 0 < days <= 36500:
            raise RegistryError("a token expires after 1 to 36500 days, or never")
        if not label.isprintable():
            raise RegistryError(f"{names.shown(label)} cannot be a label: use characters that can be printed")
        now = datetime.now(UTC).replace(microsecond=0)
        name, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        token = Token(
            name,
            text(label, "a label", 80),
            tuple(scope for scope in SCOPES if scope in scopes),
            _hash(secret),
            now.isoformat(),
            None if days is None else (now + timedelta(days=days)).isoformat(),
        )
        self._save({**self._load(), name: token})
        return f"mh_{name}_{secret}", token

    def revoke(self, name: str) -> Token:
        """End a token for ever; its record stays, for the audit log speaks of it."""
        known = self._load()
        if name not in known:
            told = f"{self.path} knows no token {names.shown(name)}"
            raise RegistryError(f"{told}; `modelhub registry token list` shows them")
        token = replace(known[name], revoked=True)
        self._save({**known, name: token})
        return token

    def list(self) -> Sequence[Token]:
        """All tokens, oldest first."""
        return sorted(self._load().values(), key=lambda token: token.created)

    def find(self, shown: str) -> Token | None:
        """The token somebody shows; None where it is none of these. Whether it may do something, `allows` tells."""
        match = _TOKEN.fullmatch(shown)
        token = self._load().get(match[1]) if match else None
        if match is None or token is None or not hmac.compare_digest(token.sha256, _hash(match[2])):
            return None
        return token

    def _load(self) -> dict[str, Token]:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise RegistryError(f"{self.path}: cannot be read: {error.strerror}") from None
        stamp = (status.st_mtime_ns, status.st_ino)
        if self._read is None or self._read[0] != stamp:
            self._read = (stamp, self._parsed())
        return self._read[1]

    def _parsed(self) -> dict[str, Token]:
        try:
            document = parse_json(read_bytes(self.path, LIMIT), str(self.path))
            tokens = [Token(**{**entry, "scopes": tuple(entry["scopes"])}) for entry in document["tokens"]]
            return {token.id: token for token in tokens}
        except (UnreadableFile, TypeError, KeyError) as error:
            raise RegistryError(f"{self.path}: not a file of tokens: {error}; make new ones in its place") from None

    def _save(self, tokens: dict[str, Token]) -> None:
        text = json.dumps({"tokens": [asdict(t) for t in tokens.values()]}, indent=1) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(text)
        except OSError as error:
            raise RegistryError(f"{self.path}: cannot be written: {error.strerror}; it is as it was") from None
        self._read = None

    def _write(self, text: str) -> None:
        handle, temporary = mkstemp(prefix=".tokens-", dir=self.path.parent)  # of mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
