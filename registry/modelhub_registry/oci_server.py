"""Versions to and from a registry server of containers (OCI distribution-spec 1.1): Harbor, GitLab, zot, distribution.

    oci://registry.cern.ch/atlas             https; every model is a repository below it: atlas/btag
    oci+http://127.0.0.1:5000/models         plain http, for a server on this machine

A version is pushed as its number, ``btag:3``, and once more under each alias. What is fetched is hashed before it is
believed: servers are known to answer 200 with damaged bytes. $MODELHUB_OCI_AUTH holds user:password, where one is asked
for: by the server itself, or by the server of tokens that it names (Docker Hub, GHCR, GitLab, Harbor).
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from modelhub.errors import RegistryError, UnreadableFile, safe_text
from modelhub.files import parse_json
from modelhub_registry import names
from modelhub_registry.oci import LIMIT, MANIFEST, TYPE, Oci, image
from modelhub_registry.records import Version, sha256
from modelhub_registry.stores import CHUNK
from modelhub_registry.transfer import Arrived

__all__ = ["OciServer", "Server"]

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_URL = re.compile(rf"oci(\+http)?://({_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?)(/[a-z0-9/._-]{{1,200}})?/?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_CHALLENGE = re.compile(r'([a-z]+)="([^"]*)"')
_TOKEN = re.compile(r"[!-~]{1,20000}")
PATIENCE = 60.0


class Server:
    """One server and the path below which the repositories are."""

    def __init__(self, url: str) -> None:
        found = _URL.fullmatch(url) if len(url) < 500 else None
        if found is None:
            raise RegistryError(f"{names.shown(url)} is no place on a server: write oci://host/path")
        self.base = f"{'http' if found[1] else 'https'}://{found[2]}"
        self.path = (found[3] or "").strip("/")
        self.where = f"{found[2]}/{self.path}".rstrip("/")
        user = os.environ.get("MODELHUB_OCI_AUTH", "")
        self._basic = f"Basic {base64.b64encode(user.encode()).decode()}" if user else ""
        self._shown = self._basic
        """What requests show: user and password, from the first challenge on the last token."""

    def repository(self, name: str) -> str:
        """The repository of a model, which must have a name in small letters."""
        if _REPOSITORY.fullmatch(name) is None:
            raise RegistryError(f"{name!r} cannot go to {self.where}: a repository there is named in small letters")
        return f"{self.path}/{name}".lstrip("/")

    @contextmanager
    def ask(
        self, method: str, url: str, body: IO[bytes] | bytes | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[Any]:
        """The answer to one request. Raises `KeyError` for 404, `RegistryError` for all else that is not fine."""
        import urllib.error  # these cost a tenth of the time in which the registry is imported
        from http.client import HTTPException

        url = urljoin(self.base, url)
        try:
            with self._answer(method, url, body, headers or {}) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise KeyError(url) from None
            advice = "; MODELHUB_OCI_AUTH may hold user:password" if error.code in (401, 403) else ""
            told = safe_text(error.read(300).decode(errors="replace"), 200)
            host = urlsplit(error.url or url).netloc  # a server of tokens is another
            where = self.where if host == urlsplit(self.base).netloc else safe_text(host)
            raise RegistryError(f"{where}: {method} says {error.code}: {told}{advice}") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise RegistryError(f"{self.where}: {method} failed: {safe_text(reason, 200)}") from None

    def _answer(self, method: str, url: str, body: IO[bytes] | bytes | None, headers: dict[str, str]) -> Any:
        """The answer; where a token is asked for, with one. Tokens last for minutes: any request may need a new one."""
        import urllib.error
        import urllib.request

        own = urlsplit(url).netloc == urlsplit(self.base).netloc
        for again in (False, True):
            request = urllib.request.Request(url, body, headers, method=method)
            if own and self._shown:
                request.add_unredirected_header("Authorization", self._shown)
            try:
                return urllib.request.urlopen(request, timeout=PATIENCE)
            except urllib.error.HTTPError as error:
                challenge = str(error.headers.get("WWW-Authenticate"))
                if again or not own or error.code != 401 or not challenge.lower().startswith("bearer "):
                    raise
                error.close()
                self._shown = f"Bearer {self._token(challenge)}"
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
        raise AssertionError

    def _token(self, challenge: str) -> str:
        """A token from where the server says, as docker/distribution's token authentication has it."""
        import urllib.request
        from urllib.parse import urlencode

        asked = dict(_CHALLENGE.findall(challenge))
        realm = asked.get("realm", "")
        if not realm.startswith(("https://", f"{urlsplit(self.base).scheme}://")):
            raise RegistryError(f"{self.where}: it wants a token from {names.shown(realm)}, which is not asked for one")
        fields = {key: asked[key] for key in ("service", "scope") if key in asked}
        request = urllib.request.Request(f"{realm}{'&' if '?' in realm else '?'}{urlencode(fields)}")
        if self._basic:
            request.add_unredirected_header("Authorization", self._basic)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            try:
                document = parse_json(answer.read(LIMIT), "the answer of the server of tokens")
            except UnreadableFile as error:
                raise RegistryError(f"{self.where}: {error}") from None
        token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise RegistryError(f"{self.where}: the server of tokens gave none")
        return token

    def has(self, repository: str, digest: str) -> bool:
        """Whether the server says it has a blob."""
        try:
            with self.ask("HEAD", f"/v2/{repository}/blobs/sha256:{digest}"):
                return True
        except KeyError:
            return False

    def put_blob(self, repository: str, digest: str, file: IO[bytes], size: int) -> None:
        """Upload a blob in one piece."""
        try:
            self._put_blob(repository, digest, file, size)
        except RegistryError:
            if not self._shown.startswith("Bearer "):
                raise
            file.seek(0)  # where a token ends, some servers close the connection before they have read it all
            self._put_blob(repository, digest, file, size)

    def _put_blob(self, repository: str, digest: str, file: IO[bytes], size: int) -> None:
        with self.ask("POST", f"/v2/{repository}/blobs/uploads/", b"") as answer:
            place = urljoin(self.base, answer.headers["Location"])
        sign = "&" if "?" in place else "?"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with self.ask("PUT", f"{place}{sign}digest=sha256:{digest}", file, headers):
            pass

    def put_manifest(self, repository: str, tag: str, data: bytes) -> None:
        """Give an image manifest a tag."""
        with self.ask("PUT", f"/v2/{repository}/manifests/{tag}", data, {"Content-Type": MANIFEST}):
            pass

    def manifest(self, repository: str, tag: str) -> dict[str, Any]:
        """The image manifest with a tag."""
        with self.ask("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFEST}) as answer:
            data = answer.read(LIMIT + 1)
            told = answer.headers.get("Docker-Content-Digest")
        if len(data) > LIMIT or (told is not None and told != f"sha256:{sha256(data)}"):
            raise RegistryError(f"{self.where}: the manifest {repository}:{tag} is damaged")
        try:
            document = parse_json(data, f"{repository}:{tag}")
        except UnreadableFile as error:
            raise RegistryError(f"{self.where}: {error}") from None
        if not isinstance(document, dict):
            raise RegistryError(f"{self.where}: {repository}:{tag} is no image manifest")
        return document

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository."""
        found: list[str] = []
        url: str | None = f"/v2/{repository}/tags/list"
        while url is not None:
            with self.ask("GET", url) as answer:
                document = parse_json(answer.read(LIMIT), "the list of tags")
                link = re.match(r"<([^>]+)>", answer.headers.get("Link") or "")
            listed = document.get("tags") if isinstance(document, dict) else None
            found += [tag for tag in listed or () if isinstance(tag, str)]
            url = link[1] if link and len(found) < 1_000_000 else None
        return found

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The bytes the server gives for a digest, to be hashed by who uses them."""
        try:
            with self.ask("GET", f"/v2/{repository}/blobs/sha256:{digest}") as answer:
                while piece := answer.read(CHUNK):
                    yield piece
        except KeyError:
            raise RegistryError(f"{self.where}: {repository} does not hold sha256:{digest}") from None


class OciServer(Oci):
    """The verbs that speak to a server."""

    def push_oci(self, url: str, models: Iterable[str] = ()) -> Sequence[str]:
        """Push models, or all, with their aliases to a server; returns what they are called there."""
        server = Server(url)
        wanted = set(map(names.name, models))
        pushed = []
        for summary in self.list():
            if wanted and summary.name not in wanted:
                continue
            repository = server.repository(summary.name)
            version = self.version(summary.ref)
            data = image(version)
            for blob in _blobs(data):
                if not server.has(repository, blob):
                    self._upload(server, repository, blob)
            for tag in (str(version.number), *summary.aliases):
                server.put_manifest(repository, tag, data)
                pushed.append(f"{server.where}/{version.name}:{tag}")
        return pushed

    def _upload(self, server: Server, repository: str, digest: str) -> None:
        import tempfile

        with tempfile.TemporaryDirectory(prefix="modelhub-") as name:
            path = Path(name) / "blob"
            self._blobs.save(digest, path)
            with path.open("rb") as file:
                server.put_blob(repository, digest, file, path.stat().st_size)

    def pull_oci(self, url: str, model: str) -> Sequence[Arrived]:
        """Take the versions and aliases of a model from a server; what is no version of ours is passed over."""
        server = Server(url)
        repository = server.repository(names.name(model))
        try:
            tags = server.tags(repository)
        except KeyError:
            raise RegistryError(f"{server.where} has no repository for {model}") from None
        here: dict[str, Version] = {}
        arrived, aliases = [], []
        for tag in sorted(tags, key=lambda tag: (not tag.isdecimal(), len(tag), tag)):
            document = server.manifest(repository, tag)
            config, notes = document.get("config"), document.get("annotations")
            if document.get("artifactType") != TYPE or not isinstance(config, dict) or not isinstance(notes, dict):
                continue
            digest = names.digest(str(config.get("digest")).removeprefix("sha256:"))
            if digest not in here:
                later = [names.digest(one) for one in str(notes.get("modelhub.attached") or "").split(",") if one]
                here[digest] = self.adopt(digest, lambda one: server.blob(repository, one), later)
                if here[digest].name != model:
                    raise RegistryError(f"{server.where}: the repository of {model} holds {here[digest].ref}")
                arrived.append(Arrived(f"{server.where}/{model}:{safe_text(tag)}", here[digest].ref, here[digest].new))
            if not tag.isdecimal():
                aliases.append((here[digest].ref, names.alias(tag)))
        for ref, alias in aliases:
            self._point(ref, alias)
        return arrived


def _blobs(data: bytes) -> list[str]:
    document = json.loads(data)
    entries = [document["config"], *document["layers"]]
    return list(dict.fromkeys(entry["digest"].removeprefix("sha256:") for entry in entries))
