"""The server, really running, and the client beside it: one contract, tokens, limits, the audit log."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from registry_helpers import digest
from test_catalog import (  # noqa: F401 - the same contract, through the client
    test_aliases,
    test_get,
    test_reports_must_be_about_these_files_and_untouched,
    test_roles,
    test_two_files_of_one_source,
    test_which,
)

from modelhub.errors import RegistryError
from modelhub_registry import Registry, wire
from modelhub_registry.client import Client
from modelhub_registry.opening import open_registry
from modelhub_registry.server.guard import Options
from modelhub_registry.server.running import listening, server
from modelhub_registry.tokens import Tokens


@dataclass
class Running:
    """A server in a thread, on a real socket, over a registry nobody has made yet."""

    folder: Path
    url: str
    tokens: Tokens

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def bearer(self, *scopes: str, days: float | None = None) -> str:
        return f"Bearer {self.tokens.create('tester', scopes, days)[0]}"

    def audit(self) -> list[dict[str, Any]]:
        path = self.folder / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Running]:
    listener = listening("127.0.0.1", 0)
    stated = Options(folder / "tokens.json", folder / "audit.jsonl", **options)
    with Registry(folder) as opened, listener:
        running = server(opened, stated)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Running(folder, f"http://127.0.0.1:{listener.getsockname()[1]}", Tokens(stated.tokens))
        finally:
            running.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path / "served", largest=1 << 20) as running:
        yield running


@pytest.fixture
def registry(served: Running) -> Iterator[Client]:
    with Client(served.url, served.tokens.create("tester", ["publish", "promote"])[0]) as client:
        yield client


def test_who_did_it_is_the_tokens_holder(registry: Client, served: Running, files) -> None:
    version = registry.push("btag", files(net_pt="w", net_json="{}"), metadata={"epoch": 3})
    assert version.manifest.provenance.by == "tester"
    assert [v.ref for v in registry.search("epoch=3")] == ["btag@1"]
    assert registry.lineage("btag").version == registry.version("btag@1") == Registry(served.folder).version("btag")
    note = served.audit()[-1]
    assert (note["by"], note["method"], note["status"], note["path"]) == (
        "tester", "POST", 201, "/api/v1/models/btag/versions",
    )  # fmt: skip


def test_the_gate_is_kept_by_the_server(registry: Client, served: Running, files, report) -> None:
    source, export = files(net_pt="w", net_json="{}")
    registry.push("btag", [source, export])
    with pytest.raises(RegistryError, match=r"no report covers net\.pt with export:json"):
        registry.alias("btag@1", "prod")
    assert served.audit()[-1]["status"] == 409
    registry.attach("btag@1", [report(source, export)])
    assert registry.alias("btag@1", "prod").ref == "btag@1"
    with pytest.raises(RegistryError, match="give a reason"):
        registry.unalias("btag", "prod")
    assert registry.unalias("btag", "prod", reason="wrong") == 1
    assert registry.aliases("btag") == {}


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        ("gc", ()), ("init", ()), ("reverify", ()), ("export_oci", ("tree",)), ("import_tree", ("tree",)),
        ("pull_oci", ("oci://here/there", "btag")), ("push_oci", ("oci://here/there",)),
    ],
)  # fmt: skip
def test_what_only_the_registry_itself_does_is_told(registry: Client, verb: str, given: tuple[str, ...]) -> None:
    with pytest.raises(RegistryError, match=f"'{verb}' where the registry is"):
        getattr(registry, verb)(*given)
    assert not hasattr(registry, "nonsense")


def test_versions_side_by_side(registry: Client, served: Running, files, report) -> None:
    """Over HTTP as where the registry is, and on a page."""
    source, export = files(net_pt="w", net_json="{}")
    registry.push("btag", [source, export], [report(source, export)], metadata={"auc": 0.93})
    registry.push("btag", [source, export], [report(source, export, "identical")], metadata={"auc": 0.95})
    found = registry.compare("btag@1", "btag@2")
    assert found == Registry(served.folder).compare("btag@1", "btag@2")
    assert {"export:json, largest difference", "export:json, events"} <= {line.what for line in found.figures}
    page = served.request("GET", "/compare?a=btag@1&b=btag@2", Accept="text/html")[1].decode()
    for told in ("Figures of the reports", "largest difference", "1e-09", "0.95 (+0.02)"):
        assert told in page, told


def test_writing_takes_a_token_with_its_scope(served: Running, files) -> None:
    versions = "/api/v1/models/btag/versions"
    publish, promote = served.bearer("publish"), served.bearer("promote")
    ended = served.bearer("publish")
    served.tokens.revoke(ended.split("_")[1])
    tries = [
        ("POST", versions, {}, 401),
        ("POST", versions, {"Authorization": "Bearer nonsense"}, 401),
        ("POST", versions, {"Authorization": promote}, 403),
        ("POST", versions, {"Authorization": ended}, 403),
        ("POST", versions, {"Authorization": publish.replace("Bearer", "Basic")}, 401),
        ("PUT", "/api/v1/models/btag/aliases/test", {"Authorization": publish}, 403),
        ("DELETE", "/api/v1/models/btag/aliases/test", {"Authorization": publish}, 403),
        ("POST", "/api/v1/versions/btag/reports", {"Authorization": promote}, 403),
        ("GET", "/api/v1/versions", {}, 200),
    ]
    assert [served.request(method, path, b"", **headers)[0] for method, path, headers, _ in tries] == [
        status for *_, status in tries
    ]
    assert not (served.folder / "registry.json").exists()
    assert [(note["status"], note["method"]) for note in served.audit()] == [
        (status, method) for method, _, _, status in tries if method != "GET"
    ]


def test_a_private_server_is_private(tmp_path: Path) -> None:
    with serving(tmp_path / "served", private=True) as served:
        assert served.request("GET", "/api/v1/versions")[0] == 401
        assert served.request("GET", "/api/v1/which/" + "0" * 64)[0] == 401
        assert served.request("GET", "/api/v1/versions", Authorization=served.bearer("read")) == (200, b"[]")
        assert served.request("GET", "/healthz") == (200, b"ok\n")


def test_etags(registry: Client, served: Running, files) -> None:
    [source] = files(net_pt="weights")
    registry.push("btag", [source])
    path = "/api/v1/versions/btag@1/files/source"
    assert served.request("GET", path) == (200, b"weights")
    assert served.request("GET", path, If_None_Match=f'"{digest(source)}"') == (304, b"")
    assert served.request("GET", path, If_None_Match='"other"')[0] == 200
    assert served.request("GET", f"/api/v1/blobs/{digest(source)}") == (200, b"weights")
    assert served.request("GET", "/api/v1/blobs/" + "0" * 64)[0] == 404


def test_damage_is_never_handed_out(registry: Client, served: Running, files) -> None:
    [source] = files(net_pt="weights")
    registry.push("btag", [source])
    blob = served.folder / "blobs" / "sha256" / digest(source)
    blob.chmod(0o600)
    blob.write_bytes(b"weightz")
    status, said = served.request("GET", "/api/v1/versions/btag@1/files/source")
    assert status == 409
    assert b"damaged" in said
    assert b"weightz" not in said


@pytest.mark.parametrize("length", [True, False])
def test_too_much_is_refused_while_it_comes(served: Running, length: bool) -> None:
    bearer = served.bearer("publish")
    with socket.create_connection((urlsplit(served.url).hostname, urlsplit(served.url).port), timeout=30) as link:
        size = b"Content-Length: 2000000000" if length else b"Transfer-Encoding: chunked"
        link.sendall(
            b"POST /api/v1/models/btag/versions HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + bearer.encode()
            + b"\r\nContent-Type: multipart/form-data; boundary=x\r\n" + size + b"\r\n\r\n"
        )  # fmt: skip
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + b"a" * 100_000
        with suppress(OSError):
            for _ in range(100):
                link.sendall(part if length else b"%x\r\n%s\r\n" % (len(part), part))
                part = b"a" * 100_000
        answer = link.recv(1000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert not (served.folder / "registry.json").exists()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_only_its_own_names_are_answered(served: Running, host: str) -> None:
    assert served.request("GET", "/api/v1/versions", Host=host)[0] == 400


def test_no_page_elsewhere_may_use_what_it_says(served: Running) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc)
    connection.request("GET", "/api/v1/versions", headers={"Origin": "https://evil.example"})
    headers = connection.getresponse().headers
    connection.close()
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


LONG = "a" * 10_000
TRICKS = ["..%2f..%2fetc%2fpasswd", "%00", "btag%00", "bt%C3%A4g", "b%D1%82ag", "-rf", ".", "btag@", "btag@-1"]
TRICKS += ["btag@sha256:zz", LONG]
PATHS = ["versions/{}", "versions/{}/version", "versions/{}/lineage", "models/{}/aliases", "which/{}", "blobs/{}"]
PATHS += ["versions/btag/files/{}", "versions?name={}", "versions?where={}"]


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("path", PATHS)
def test_odd_names_are_refused_in_one_line(served: Running, path: str, trick: str) -> None:
    status, said = served.request("GET", "/api/v1/" + path.format(trick))
    assert status in (400, 404, 422), said
    assert len(said) < 600
    assert b"Traceback" not in said
    assert "\n" not in json.loads(said)["detail"]


@pytest.mark.parametrize(
    "form",
    [
        b"", b"--x--", b"nonsense",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../evil"\r\n\r\na\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\na\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file:report"; filename="a"\r\n\r\na\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n[1]\r\n--x\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\na\r\n--x--\r\n',
    ],
)  # fmt: skip
def test_odd_forms_are_refused(served: Running, form: bytes) -> None:
    headers = {"Authorization": served.bearer("publish"), "Content-Type": "multipart/form-data; boundary=x"}
    status, said = served.request("POST", "/api/v1/models/btag/versions", form, **headers)
    assert status == 400, said
    assert not (served.folder / "blobs").exists()
    assert not (served.folder.parent / "evil").exists()


def test_a_connection_that_is_kept_is_answered_at_once(served: Running) -> None:
    """The head and the body of an answer leave without waiting for the other side's delayed acknowledgement (40 ms)."""
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    assert listening_socket_option(served)
    connection.close()


def listening_socket_option(served: Running) -> int:
    with listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_command(tmp_path: Path, files) -> None:
    folder = str(tmp_path / "registry")
    modelhub = [sys.executable, "-m", "modelhub", "registry"]
    token = subprocess.run(
        [*modelhub, "token", "create", "ci", "--scope", "publish", "--registry", folder],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    with subprocess.Popen(
        [*modelhub, "serve", "--registry", folder, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = iter(process.stdout.readline, "")
            url = json.loads("".join(islice(lines, 3)))["url"]
            with open_registry(url) as readonly, pytest.raises(RegistryError, match="token"):
                readonly.push("btag", files(net_pt="w"))
            with Client(url, token) as client:
                assert client.push("btag", files(net_pt="w")).ref == "btag@1"
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode in (0, 130)  # uvicorn may swallow the Ctrl-C it was ended by


def test_a_server_that_lies_is_caught(registry: Client, served: Running, files, tmp_path: Path) -> None:
    """A manifest or a file in which the server changes a byte never reaches the user."""
    registry.push("btag", files(net_pt="weights"))
    honest = wire.version(registry.version("btag@1"))
    honest["manifest"]["metadata"] = {"epoch": 1}
    with pytest.raises(RegistryError, match="digest"):
        wire.version_of(honest)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[", "http://127.0.0.1:99999", "https://"])
def test_a_server_that_is_not_there(url: str) -> None:
    with pytest.raises(RegistryError, match=r"127|http"), Client(url) as client:
        client.list()


def test_an_audit_log_that_cannot_be_written(tmp_path: Path, files) -> None:
    """One line for whoever asked, not a fault; as with any full disk of the server's."""
    folder = tmp_path / "served"
    listener = listening("127.0.0.1", 0)
    tokens = Tokens(folder / "tokens.json")
    with Registry(folder) as opened, listener:
        running = server(opened, Options(tokens.path, Path("/dev/full")))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with (
                Client(url, tokens.create("x", ["publish"])[0]) as client,
                pytest.raises(RegistryError, match="No space left on device; look at its disk"),
            ):
                client.push("btag", files(net_pt="w"))
        finally:
            running.should_exit = True
            thread.join(20)
