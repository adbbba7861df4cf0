"""What every request passes before a route sees it: the host it asks for, how much it sends, who it is; and the audit.

Reads are open to all unless the server is private. A write needs a token with its scope, and is put into the audit log,
refused or not: one JSON object a line, appended and synced.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request

from modelhub.errors import safe_text
from modelhub_registry.catalog import Registry
from modelhub_registry.records import Provenance, Version
from modelhub_registry.tokens import Token, Tokens

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from modelhub_registry.tables import Connection

__all__ = ["Audit", "Capped", "Options", "Secured", "Served", "acting", "allowed"]

WHO: ContextVar[str | None] = ContextVar("who", default=None)
"""The label of the token that the request at hand came with."""


@dataclass(frozen=True)
class Options:
    """How a registry is served.

    tokens:  the file of tokens. audit: the file the writes are noted in.
    private: whether reading needs a token too.
    hosts:   names a request may ask for, so that no page elsewhere can talk to a server on somebody's own machine.
    largest: bytes of one request at most.
    """

    tokens: Path
    audit: Path
    private: bool = False
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    largest: int = 4 << 30


class Served(Registry):
    """A registry that notes down the holder of the token as the one who did it."""

    def __init__(self, registry: Registry) -> None:
        self._place, self.root, self.address = registry._place, registry.root, registry.address

    def _provenance(self) -> Provenance:  # type: ignore[override]  # what the registry says, but for the name
        who = WHO.get()
        made = Registry._provenance()
        return made if who is None else replace(made, by=who)

    @contextmanager
    def looking(self) -> Iterator[Connection | None]:
        """The index, to be read; None where no registry is yet."""
        if self._place.settings() is None:
            yield None
            return
        with self._reading() as db:
            yield db

    def blob(self, sha256: str, limit: int) -> bytes:
        """The verified bytes of a file of at most `limit` bytes. Raises `DamageError`."""
        return self._blobs.get(sha256, limit)

    def save(self, sha256: str, path: Path) -> None:
        """Write a file's bytes, verified, under a path. Raises `DamageError`."""
        self._blobs.save(sha256, path)

    def expired(self, version: Version) -> Iterable[str]:
        """Which of the reports that count are too old to count at the gate, one line each."""
        return self._expired(version.judged)

    def holds(self, sha256: str) -> bool:
        """Whether there is a file with this SHA-256."""
        return self._blobs.has(sha256)

    def fetched(self, sha256: str) -> tuple[Path, Callable[[], None]]:
        """A verified copy of a file, to be sent piece by piece, and what removes it. Raises `DamageError`."""
        handle, name = mkstemp(prefix="modelhub-fetched-")
        os.close(handle)
        path = Path(name)
        try:
            self._blobs.save(sha256, path)
        except BaseException:
            path.unlink()
            raise
        return path, path.unlink


class Audit:
    """The log of all writes, also of those that were refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def note(self, request: Request, status: int, said: str) -> None:
        """Append one line."""
        token: Token | None = getattr(request.state, "token", None)
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "token": token and token.id,
            "by": token and token.label,
            "from": request.client.host if request.client else None,
            "method": request.method,
            "path": safe_text(request.url.path, 300),
            "status": status,
            "said": safe_text(said, 300),
        }
        data = (json.dumps(line) + "\n").encode()
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(handle, data)
                os.fsync(handle)
            finally:
                os.close(handle)


def allowed(scope: str, options: Options, tokens: Tokens, audit: Audit) -> Callable[[Request], Awaitable[None]]:
    """A dependency for routes that need `scope`. Answers 401 without a token, 403 where it does not reach.

    On a private server a browser may show its token as the password of HTTP Basic, to read.
    """
    challenge = 'Bearer, Basic realm="modelhub registry", charset="UTF-8"' if scope == "read" else "Bearer"

    def refusal(request: Request, status: int, said: str) -> HTTPException:
        if scope != "read":
            audit.note(request, status, said)
        return HTTPException(status, said, {"WWW-Authenticate": challenge} if status == 401 else None)

    async def check(request: Request) -> None:
        token = tokens.find(_shown(request.headers.get("authorization", ""), scope))
        request.state.token = token
        if scope == "read" and not options.private:
            return
        if token is None:
            raise refusal(request, 401, f"this needs a token with the scope {scope!r}: Authorization: Bearer mh_...")
        if not token.allows(scope, datetime.now(UTC)):
            said = f"the token {token.id} ({token.label}) does not allow to {scope}, or has ended"
            raise refusal(request, 403, said)

    return check


def _shown(header: str, scope: str) -> str:
    """The token in a request's header, "" where there is none.

    A browser asks for a name and a password: any name, and the token as the password. It sends them again by itself,
    whoever had it make the request, so by them one may read and nothing more.
    """
    kind, _, shown = header.partition(" ")
    if kind.lower() == "bearer":
        return shown.strip()
    if kind.lower() == "basic" and scope == "read":
        try:
            return base64.b64decode(shown.strip(), validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no UTF-8 in it
            return ""
    return ""


@contextmanager
def acting(request: Request) -> Iterator[None]:
    """What is done in the block is done by the holder of the request's token."""
    token: Token | None = request.state.token
    mark = WHO.set(token.label if token else None)
    try:
        yield
    finally:
        WHO.reset(mark)


class Capped:
    """Answers 413 to a request that sends more than `largest` bytes, whatever it says of its length."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self.app = app
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what comes in."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if told.isdigit() and int(told) > self.largest:
            await _refuse(send, self.largest)
            return
        seen, begun = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.largest:
                raise _TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except _TooLargeError:
            if not begun:
                await _refuse(send, self.largest)


class _TooLargeError(Exception):
    """More came in than is allowed."""


async def _refuse(send: Send, largest: int) -> None:
    body = json.dumps({"detail": f"a request may have at most {largest} bytes"}).encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})


HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Secured:
    """Headers that keep a browser from doing more with a page than it is for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add them to the answer."""

        async def dressed(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *((k, v) for k, v in HEADERS if k not in there)]
            await send(message)

        await self.app(scope, receive, dressed)  # type: ignore[arg-type]
