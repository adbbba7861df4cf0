"""Versions to and from a real registry server of containers (Debian's docker-registry: the CNCF's distribution)."""

from __future__ import annotations

import base64
import http.server
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from servers import answers, free_port, need, running, until

from modelhub.errors import RegistryError
from modelhub_registry import Registry
from modelhub_registry.oci_server import Server


@contextmanager
def registry_server(folder: Path, **more: Any) -> Iterator[tuple[str, Path]]:
    """The URL of a server, and the folder in which it keeps its bytes; `more` for its configuration."""
    (program,) = need("docker-registry", "docker-registry")
    port = free_port()
    settings = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "config.yml").write_text(json.dumps(settings | more))
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with running([program, "serve", str(folder / "config.yml")], folder / "log", env=environment):
        until(lambda: answers(port), "docker-registry", folder / "log")
        yield f"oci+http://127.0.0.1:{port}", folder / "data"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Path]]:
    """One that asks nobody who they are."""
    with TemporaryDirectory() as name, registry_server(Path(name)) as started:
        yield started


class Tokens(http.server.BaseHTTPRequestHandler):
    """A server of tokens: signed with RS256, by a key whose certificate the registry trusts; good for one scope."""

    folder: Path
    asked: list[tuple[str, dict[str, str]]]
    lasting = 60

    def do_GET(self) -> None:
        """Whoever has the password gets what was asked for, anybody else may pull only."""
        fields = dict(parse_qsl(urlsplit(self.path).query))
        user = base64.b64decode(self.headers.get("Authorization", "Basic ")[6:]).decode()
        self.asked.append((user, fields))
        if user not in ("", "me:secret"):
            self.send_error(401)
            return
        kind, name, wanted = fields["scope"].split(":")
        actions = wanted.split(",") if user else ["pull"]
        body = json.dumps({"token": self.signed(fields["service"], {"type": kind, "name": name, "actions": actions})})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def signed(self, service: str, access: dict[str, Any]) -> str:
        def encoded(data: bytes) -> str:
            return base64.urlsafe_b64encode(data).decode().rstrip("=")

        certificate = "".join((self.folder / "cert.pem").read_text().splitlines()[1:-1])
        now = int(time.time())
        claims = {"iss": "us", "sub": "me", "aud": service, "exp": now + self.lasting, "nbf": now - 60, "iat": now}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [certificate]}
        text = ".".join(encoded(json.dumps(part).encode()) for part in (header, {**claims, "access": [access]}))
        sign = ["openssl", "dgst", "-sha256", "-sign", str(self.folder / "key.pem")]
        return f"{text}.{encoded(subprocess.run(sign, input=text.encode(), capture_output=True, check=True).stdout)}"

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[str, type[Tokens]]]:
    """A server that wants tokens, as Docker Hub, GHCR, GitLab and Harbor do."""
    need("openssl", "openssl")
    folder = tmp_path / "guarded"
    folder.mkdir()
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*made, *files], check=True, capture_output=True)
    handler = type("Handler", (Tokens,), {"folder": folder, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as tokens:
        threading.Thread(target=tokens.serve_forever).start()
        realm = f"http://127.0.0.1:{tokens.server_port}/token"
        bundle = str(folder / "cert.pem")
        auth = {"token": {"realm": realm, "service": "models", "issuer": "us", "rootcertbundle": bundle}}
        try:
            with registry_server(folder, auth=auth) as (url, _):
                yield url, handler
        finally:
            tokens.shutdown()


@pytest.fixture
def full(proved: Registry, files, report) -> Registry:
    proved.alias("btag@1", "prod")
    proved.push("btag", files("more", net_pt="second"))
    source, json_ = files("t", net_pt="tau", net_json='{"tau": 1}')
    proved.push("tau", [source, json_], [report(source, json_, "different")])
    proved.attach("tau@1", [report(source, json_)])
    return proved


def test_there_and_back(full: Registry, server: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = server
    host = url.removeprefix("oci+http://")
    assert full.push_oci(f"{url}/atlas") == [
        f"{host}/atlas/btag:1", f"{host}/atlas/btag:prod", f"{host}/atlas/btag:2", f"{host}/atlas/tau:1",
    ]  # fmt: skip
    assert len(full.push_oci(f"{url}/atlas", ["btag"])) == 3  # once more is harmless
    with Registry(tmp_path / "other") as other:
        assert [(a.here, a.new) for a in other.pull_oci(f"{url}/atlas", "btag")] == [("btag@1", True), ("btag@2", True)]
        assert [a.here for a in other.pull_oci(f"{url}/atlas", "tau")] == ["tau@1"]
        assert [(s.ref, s.digest, s.verdict, s.aliases) for s in other.list()] == [
            (s.ref, s.digest, s.verdict, s.aliases) for s in full.list()
        ]
        assert other.fsck() == []
        assert not any(a.new for a in other.pull_oci(f"{url}/atlas", "btag"))
        with pytest.raises(RegistryError, match="has no repository for nothing"):
            other.pull_oci(f"{url}/atlas", "nothing")


def test_damage_on_the_server_is_seen(full: Registry, server: tuple[str, Path], tmp_path: Path) -> None:
    """The server itself answers 200 with what is there."""
    url, data = server
    full.push_oci(f"{url}/damaged", ["tau"])
    digest = full.version("tau").manifest.artifact("source").sha256
    (path,) = data.rglob(f"sha256/{digest[:2]}/{digest}/data")
    path.write_bytes(b"TAU")
    with Registry(tmp_path / "other") as other:
        with pytest.raises(RegistryError, match="damaged"):
            other.pull_oci(f"{url}/damaged", "tau")
        assert other.list() == []
        assert other.gc().orphans == ()


def test_what_cannot_be_is_told(full: Registry, files) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(RegistryError, match="refused"):
        full.push_oci(f"oci+http://127.0.0.1:{port}/x")
    full.push("BTag2", files("b", net_pt="x"))
    with pytest.raises(RegistryError, match="small letters"):
        full.push_oci(f"oci+http://127.0.0.1:{port}/x", ["BTag2"])
    for url in ("oci://", "oci://h/../x?y", "oci://user:secret@h/x", "oci://h:x", "ocix://h"):
        with pytest.raises(RegistryError, match="no place on a server") as caught:
            full.push_oci(url)
        assert "\n" not in str(caught.value)


def test_tokens_are_fetched_where_the_server_says(
    full: Registry, guarded: tuple[str, type[Tokens]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, tokens = guarded
    monkeypatch.setenv("MODELHUB_OCI_AUTH", "me:secret")
    assert len(full.push_oci(f"{url}/atlas")) == 4
    assert {user for user, _ in tokens.asked} == {"me:secret"}
    assert {(fields["service"], fields["scope"].split(":")[1]) for _, fields in tokens.asked} == {
        ("models", "atlas/btag"), ("models", "atlas/tau"),
    }  # fmt: skip
    assert len(tokens.asked) <= 6  # a token is used until it is no good any more
    monkeypatch.delenv("MODELHUB_OCI_AUTH")
    with Registry(tmp_path / "other") as other:
        assert [a.here for a in other.pull_oci(f"{url}/atlas", "btag")] == ["btag@1", "btag@2"]
        assert other.fsck() == []
    with pytest.raises(RegistryError, match=r"says 401.*MODELHUB_OCI_AUTH"):
        full.push_oci(f"{url}/other")
    monkeypatch.setenv("MODELHUB_OCI_AUTH", "me:wrong")
    with pytest.raises(RegistryError, match=r"says 401.*MODELHUB_OCI_AUTH") as caught:
        full.push_oci(f"{url}/other")
    assert "wrong" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_token_that_has_ended_is_replaced(
    full: Registry, guarded: tuple[str, type[Tokens]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two halves of an upload: its bytes are then sent once more."""
    url, tokens = guarded
    monkeypatch.setenv("MODELHUB_OCI_AUTH", "me:secret")
    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(300_000))
    full.push("big", [big])
    ask = Server.ask
    late_for = set()

    def late(self: Server, method: str, url: str, *more: Any, **named: Any) -> Any:
        digest = url.partition("digest=")[2]
        if method == "PUT" and digest and digest not in late_for:
            late_for.add(digest)
            time.sleep(2.5)
        return ask(self, method, url, *more, **named)

    monkeypatch.setattr(Server, "ask", late)
    tokens.lasting = -58  # the server allows for clocks that are a minute apart: two seconds are left
    full.push_oci(f"{url}/atlas", ["big"])
    scopes = [set(fields["scope"].split(":")[2].split(",")) for _, fields in tokens.asked]
    assert scopes.count({"pull", "push"}) >= 3  # to begin, and after the wait for each of the two blobs
    with Registry(tmp_path / "other") as other:
        assert [a.here for a in other.pull_oci(f"{url}/atlas", "big")] == ["big@1"]
        assert other.open("big", "source") == big.read_bytes()


def test_no_password_goes_to_a_place_that_is_not_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELHUB_OCI_AUTH", "me:secret")
    for realm in ("http://elsewhere/token", "file:///etc/passwd", "ftp://elsewhere/", ""):
        with pytest.raises(RegistryError, match="is not asked for one"):
            Server("oci://registry.example.org/atlas")._token(f'Bearer realm="{realm}",service="x"')
