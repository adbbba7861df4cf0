"""How the client talks: one connection, checked certificates, the environment's proxy; answers that are none."""

from __future__ import annotations

import base64
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from modelhub.errors import RegistryError
from modelhub_registry.client import Client
from modelhub_registry.transport import Form


class Handler(BaseHTTPRequestHandler):
    """Notes down what comes, and answers with what the server was given."""

    protocol_version = "HTTP/1.1"
    server: Noting

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((f"{self.command} {self.path}", self.headers))
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(self.server.body) + self.server.missing))
        self.end_headers()
        self.wfile.write(self.server.body)
        self.close_connection = bool(self.server.missing)

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


class Noting(ThreadingHTTPServer):
    connections = 0
    status = 200
    body = b"[]"
    missing = 0
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, Message]] = []


@contextmanager
def running(server: Noting) -> Iterator[Noting]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def noting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Noting]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with running(Noting()) as server:
        yield server


def test_one_connection_is_kept(noting: Noting) -> None:
    with Client(f"http://127.0.0.1:{noting.server_port}") as client:
        for _ in range(5):
            assert client.list() == []
    assert (noting.connections, len(noting.asked)) == (1, 5)


def test_through_the_proxy_that_the_environment_names(noting: Noting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:geheim@127.0.0.1:{noting.server_port}")
    with Client("http://models.invalid:8000/hub", token="t") as client:
        assert client.list() == []
    what, headers = noting.asked[0]
    assert what == "GET http://models.invalid:8000/hub/api/v1/versions"
    assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:geheim").decode()
    assert headers["Authorization"] == "Bearer t"
    monkeypatch.setenv("no_proxy", "models.invalid")
    with Client("http://models.invalid:8000/hub") as client, pytest.raises(RegistryError, match="does not answer"):
        client.list()
    assert len(noting.asked) == 1


def test_a_password_in_the_address_is_sent_and_not_shown(noting: Noting) -> None:
    noting.status = 403
    client = Client(f"http://me:ge%20heim@127.0.0.1:{noting.server_port}", token="t")
    with client, pytest.raises(RegistryError) as caught:
        client.list()
    assert "heim" not in str(caught.value)
    assert ", ".join(noting.asked[0][1].get_all("Authorization")) == "Basic " + base64.b64encode(b"me:ge heim").decode()


def test_certificates_are_checked(noting: Noting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    noting.socket = context.wrap_socket(noting.socket, server_side=True)
    with Client(f"https://localhost:{noting.server_port}") as client, pytest.raises(RegistryError, match="certificate"):
        client.list()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Client(f"https://127.0.0.1:{noting.server_port}") as client, pytest.raises(RegistryError, match="127"):
        client.list()  # the certificate is another host's
    assert noting.asked == []
    with Client(f"https://localhost:{noting.server_port}") as client:
        assert client.list() == []


@pytest.mark.parametrize(("status", "body", "missing"), [(302, b"", 0), (200, b"<html>", 0), (200, b"[", 10)])
def test_answers_that_are_none(noting: Noting, status: int, body: bytes, missing: int) -> None:
    noting.status, noting.body, noting.missing = status, body, missing
    client = Client(f"http://127.0.0.1:{noting.server_port}")
    with client, pytest.raises(RegistryError, match=r"JSON|does not answer"):
        client.list()
    assert len(noting.asked) == 1


def test_a_form_is_as_long_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x" * 200_000)
    with path.open("rb") as file:
        form = Form({"again": "true"}, [("file:graph", "net.onnx", file)])
        assert sum(map(len, form)) == form.size
    with path.open("rb") as file:
        form = Form({}, [("file", "net.onnx", file)])
        path.write_bytes(b"x" * 100)
        with pytest.raises(RegistryError, match="changed while"):
            list(form)
