"""HTTP for the client: connections that are kept, the proxies that the environment names, forms of any size.

Certificates are checked, against those of the system and those of certifi, or against what SSL_CERT_FILE and
SSL_CERT_DIR name instead of them.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import SplitResult, unquote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from urllib3.response import BaseHTTPResponse

from modelhub.errors import RegistryError

__all__ = ["Form", "Transport"]

Json = Mapping[str, Any]
PIECE = 1 << 16
"""Bytes that are sent at once; each piece has the time `SENDING` to leave."""
QUICK = urllib3.Timeout(connect=10, read=60)
SENDING = urllib3.Timeout(connect=60, read=3600)


class Form:
    """Fields and open files as a multipart form, read while it is sent."""

    def __init__(self, fields: Mapping[str, str], files: Sequence[tuple[str, str, BinaryIO]]) -> None:
        """`files` are field, name of the file, file. None of the names may hold what needs to be escaped."""
        bound = secrets.token_hex(16)
        self.type = f"multipart/form-data; boundary={bound}"
        self._parts: list[bytes | tuple[BinaryIO, int]] = []
        head = f'--{bound}\r\nContent-Disposition: form-data; name="'
        for name, value in fields.items():
            self._parts.append(f'{head}{name}"\r\n\r\n{value}\r\n'.encode())
        for name, filename, file in files:
            about = f'{head}{name}"; filename="{filename}"\r\nContent-Type: application/octet-stream\r\n\r\n'
            self._parts += [about.encode(), (file, os.fstat(file.fileno()).st_size), b"\r\n"]
        self._parts.append(f"--{bound}--\r\n".encode())
        self.size = sum(part[1] if isinstance(part, tuple) else len(part) for part in self._parts)

    def __iter__(self) -> Iterator[bytes]:
        """The bytes of the form. Raises `RegistryError` where a file cannot be read to its end."""
        for part in self._parts:
            if isinstance(part, tuple):
                yield from _whole(*part)
            else:
                yield part


def _whole(file: BinaryIO, size: int) -> Iterator[bytes]:
    try:
        while piece := file.read(PIECE):
            size -= len(piece)
            yield piece
    except OSError as error:
        raise RegistryError(f"cannot read {file.name}: {error.strerror}") from error
    if size:
        raise RegistryError(f"{file.name} changed while it was sent")


class Transport:
    """Requests to one server. Every method raises `urllib3.exceptions.HTTPError`, and `ValueError` for a bad URL."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) > 65535:
            raise ValueError("it must be http://host or https://host")
        shown = _basic(parts) or (f"Bearer {token}" if token else "")
        self._headers = {"Accept": "application/json"} | ({"Authorization": shown} if shown else {})
        self._base = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
        self._pools = _pools(parts.scheme, parts.netloc.rpartition("@")[2])

    @contextmanager
    def stream(
        self, method: str, path: str, query: Json | None = None, body: Form | Json | None = None
    ) -> Iterator[BaseHTTPResponse]:
        """The answer, its body yet unread. A mapping is sent as JSON. No redirect is followed, nothing sent twice."""
        url = f"{self._base}/{path}" + (f"?{urlencode(query)}" if query else "")
        more: dict[str, Any] = {"headers": self._headers, "timeout": QUICK}
        if isinstance(body, Form):
            about = {"Content-Type": body.type, "Content-Length": str(body.size)}
            more = {"headers": self._headers | about, "timeout": SENDING, "body": body}
        elif body is not None:
            about = {"Content-Type": "application/json"}
            more = {"headers": self._headers | about, "timeout": QUICK, "body": json.dumps(body).encode()}
        response = self._pools.urlopen(method, url, redirect=False, retries=False, preload_content=False, **more)
        try:
            yield response
        finally:
            response.close()  # the connection with it, unless all was read

    def close(self) -> None:
        """Close the connections."""
        self._pools.clear()


def _pools(scheme: str, host: str) -> urllib3.PoolManager:
    """Connections to `host` (with its port, if any), through a proxy where the environment names one for it."""
    secured = _certificates() if scheme == "https" else None
    proxies = getproxies()
    proxy = None if proxy_bypass(host) else proxies.get(scheme) or proxies.get("all")
    if proxy is None:
        return urllib3.PoolManager(ssl_context=secured)
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    shown = _basic(parts)
    return urllib3.ProxyManager(
        parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
        proxy_headers={"Proxy-Authorization": shown} if shown else None,
        ssl_context=secured,
    )


def _basic(parts: SplitResult) -> str:
    """What shows the name and the password that stand in a URL, "" where none do."""
    if not parts.username:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def _certificates() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if "SSL_CERT_FILE" not in os.environ and "SSL_CERT_DIR" not in os.environ:
        context.load_verify_locations(certifi.where())  # some builds of Python do not find the system's
    return context
