"""A registry behind a server: the verbs of `Registry`, over HTTP.

    with Client("https://models.example.org", token=os.environ["MODELHUB_TOKEN"]) as registry:
        registry.load("btag@prod")

Nothing the server says is taken on trust where it can be checked: a manifest must have its digest, a file its SHA-256.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, NoReturn
from urllib.parse import quote

from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from modelhub.errors import RegistryError, safe_text
from modelhub_registry import intake, names, wire
from modelhub_registry.blobs import Blobs
from modelhub_registry.comparing import Comparing
from modelhub_registry.errors import AbsentError
from modelhub_registry.index import Found, Summary
from modelhub_registry.lookup import Details, Lineage
from modelhub_registry.records import Version
from modelhub_registry.remote import without_secrets
from modelhub_registry.stores import CHUNK
from modelhub_registry.transport import Form, Transport

__all__ = ["Client"]

LARGEST = 1 << 30
"""Bytes of an answer that is no file."""


class _Files:
    """The server's files as a store for `Blobs`, which checks each against its SHA-256."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.where = client.address

    def has(self, key: str) -> bool:
        """Whether there is such a file."""
        return bool(self._client.answer("GET", f"which/{key.rpartition('/')[2]}"))

    def read(self, key: str) -> Iterator[bytes]:
        """The file's bytes. Raises `KeyError` when there is none."""
        with self._client.stream("GET", f"blobs/{key.rpartition('/')[2]}") as response:
            if response.status == 404:
                raise KeyError(key)
            self._client.sound(response)
            yield from response.stream(CHUNK, decode_content=False)


class Client(Comparing):
    """The registry that a server at `url` serves. Writing needs a token, by default $MODELHUB_TOKEN.

    Every method raises `RegistryError`, as `Registry`'s do. What looks after the store itself (verify, gc, reindex,
    export) is done where the registry is.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.root = None
        self.address = without_secrets(url)
        shown = os.environ.get("MODELHUB_TOKEN") if token is None else token
        try:
            self._http = Transport(f"{url.rstrip('/')}/api/v1", shown)
        except (HTTPError, ValueError) as error:
            raise RegistryError(f"{self.address} cannot be the address of a server: {safe_text(error, 120)}") from None
        self._blobs = Blobs(_Files(self))  # type: ignore[arg-type]  # reading is all that is done with it

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __getattr__(self, verb: str) -> NoReturn:
        """What only the registry itself can do."""
        from modelhub_registry.catalog import Registry

        if not verb.startswith("_") and hasattr(Registry, verb):
            raise RegistryError(f"{self.address}: do {verb!r} where the registry is, not over HTTP")
        raise AttributeError(verb)

    # Talking

    @contextmanager
    def stream(self, method: str, path: str, **more: Any) -> Iterator[BaseHTTPResponse]:
        """An answer whose body has not been read yet. A server that cannot be reached is a `RegistryError`."""
        try:
            with self._http.stream(method, path, **more) as response:
                yield response
        except HTTPError as error:
            reason = safe_text(error, 160) or type(error).__name__
            raise RegistryError(f"{self.address}: the server does not answer as it should: {reason}") from error

    def sound(self, response: BaseHTTPResponse) -> None:
        """Raise what the server refused."""
        if response.status < 400:
            return
        try:
            said = str(json.loads(self._body(response))["detail"])
        except (ValueError, KeyError, TypeError):
            said = f"HTTP {response.status}"
        said = "\n".join(safe_text(line, 500) for line in said.splitlines()[:50])
        raise (AbsentError if response.status == 404 else RegistryError)(f"{self.address}: {said}")

    def answer(self, method: str, path: str, **more: Any) -> Any:
        """The JSON a route answers."""
        with self.stream(method, path, **more) as response:
            self.sound(response)
            body = self._body(response)
        try:
            return json.loads(body)
        except ValueError:
            self._odd("something that is no JSON")

    def _body(self, response: BaseHTTPResponse) -> bytes:
        body = bytearray()
        for piece in response.stream(CHUNK, decode_content=True):
            body += piece
            if len(body) > LARGEST:
                self._odd("more than a gigabyte")
        return bytes(body)

    def _odd(self, what: str) -> NoReturn:
        raise RegistryError(f"{self.address}: the server answered with {what}; is it a modelhub registry?")

    @contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError):
            self._odd("something else than was asked for; it may run another modelhub")

    # Looking up

    def version(self, ref: str) -> Version:
        """The version a reference names, its manifest checked against its digest."""
        with self._read():
            return wire.version_of(self.answer("GET", f"versions/{_ref(ref)}/version"))

    def show(self, ref: str) -> Details:
        """A version with the aliases that point to it now and every alias move it was part of."""
        with self._read():
            return wire.details_of(self.answer("GET", f"versions/{_ref(ref)}"))

    def list(self, name: str | None = None) -> Sequence[Summary]:
        """All versions, or those of one model, which must be there."""
        return self._versions({} if name is None else {"name": names.name(name)})

    def search(self, question: str, limit: int | None = None) -> Sequence[Summary]:
        """The versions a question is true of."""
        return self._versions({"where": question} | ({} if limit is None else {"limit": limit}))

    def _versions(self, parameters: dict[str, Any]) -> Sequence[Summary]:
        with self._read():
            return [wire.summary_of(line) for line in self.answer("GET", "versions", query=parameters)]

    def lineage(self, ref: str) -> Lineage:
        """Source, graph and exports of a version, what proves each step, and where else the same files are."""
        with self._read():
            return wire.lineage_of(self.answer("GET", f"versions/{_ref(ref)}/lineage"))

    def sharing(self, ref: str) -> Sequence[Found]:
        """Other versions that hold a file of this one."""
        return self.lineage(ref).shared

    def aliases(self, name: str) -> dict[str, int]:
        """The aliases of a model and the version numbers they point to."""
        with self._read():
            return dict(self.answer("GET", f"models/{names.name(name)}/aliases"))

    def _holding(self, sha256: str) -> Sequence[Found]:
        with self._read():
            return [wire.found_of(hit) for hit in self.answer("GET", f"which/{sha256}")]

    # Writing

    def push(
        self,
        name: str,
        artifacts: Iterable[intake.Given],
        reports: Iterable[str | os.PathLike[str]] = (),
        *,
        metadata: Mapping[str, Any] | None = None,
        interface: Mapping[str, Any] | None = None,
        again: bool = False,
    ) -> Version:
        """Publish files as the next version of `name`, as `Registry.push` does."""
        fields = {"again": json.dumps(again)}
        fields |= {"metadata": json.dumps(metadata)} if metadata else {}
        fields |= {"interface": json.dumps(interface)} if interface is not None else {}
        pairs = [(f":{names.role(one[0])}", one[1]) if isinstance(one, tuple) else ("", one) for one in artifacts]
        files = [*((f"file{role}", path) for role, path in pairs), *(("report", path) for path in reports)]
        sent = self._send(f"models/{names.name(name)}/versions", files, fields)
        with self._read():
            return wire.version_of(sent)

    def attach(self, ref: str, reports: Iterable[str | os.PathLike[str]]) -> Version:
        """Add reports of `modelhub check` to a published version."""
        sent = self._send(f"versions/{_ref(ref)}/reports", [("report", report) for report in reports], {})
        with self._read():
            return wire.version_of(sent)

    def _send(self, path: str, files: Sequence[tuple[str, str | os.PathLike[str]]], fields: dict[str, str]) -> Any:
        with ExitStack() as stack:
            form: list[tuple[str, str, BinaryIO]] = []
            for key, file in files:
                local = names.path(file)
                try:
                    form.append((key, names.filename(local.name), stack.enter_context(local.open("rb"))))
                except OSError as error:
                    raise RegistryError(f"cannot read {local}: {error.strerror}") from error
            return self.answer("POST", path, body=Form(fields, form))

    def alias(self, ref: str, alias: str, *, force: bool = False, reason: str | None = None) -> Version:
        """Let `alias` point to the version `ref`; the server keeps the gate."""
        body = {"ref": ref, "force": force, "reason": reason}
        path = f"models/{names.reference(ref).name}/aliases/{names.alias(alias)}"
        with self._read():
            return wire.version_of(self.answer("PUT", path, body=body))

    def unalias(self, name: str, alias: str, *, reason: str | None = None) -> int:
        """Remove an alias; the log keeps that it was there. Returns the number it pointed to."""
        path = f"models/{names.name(name)}/aliases/{names.alias(alias)}"
        with self._read():
            return int(self.answer("DELETE", path, query={"reason": reason} if reason else {})["was"])


def _ref(ref: str) -> str:
    """A reference as part of a path."""
    return quote(str(names.reference(ref)), safe="@:")
