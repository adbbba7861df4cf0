"""The OpenAPI document against the server: what schemathesis thinks of sending is answered as the document says."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from registry_helpers import digest, write_report
from test_server import LONG, Running, serving

from modelhub_registry import Registry

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import load_all_checks  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

load_all_checks()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a model called as the examples of the document are, so that what is sent also hits something."""
    folder = tmp_path_factory.mktemp("openapi")
    source, export = folder / "net.pt", folder / "a"
    source.write_text("weights")
    export.write_text('{"a": 1}')
    report = write_report(folder / "report.json", source, export)
    with Registry(folder / "served") as registry:
        registry.push("btag", [source, ("export:json", export)], [report], metadata={"epoch": 2026})
        registry.alias("btag@1", "prod")
    with serving(folder / "served", largest=1 << 20) as running:
        yield running


@pytest.fixture(scope="module")
def document(filled: Running) -> Any:
    return schemathesis.openapi.from_url(f"{filled.url}/openapi.json")


@pytest.fixture(scope="module")
def bearer(filled: Running) -> str:
    return filled.bearer("read", "publish", "promote")


def explore(document: Any, token: str, examples: int) -> set[int]:
    """Send each operation what its part of the document allows, and what it does not; the statuses of the answers."""
    seen: set[int] = set()

    def conforms(case: Any) -> None:
        # That all is taken which may be sent cannot be asked: no schema says which words are a question.
        answer = case.call(headers={"Authorization": token})
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])
        seen.add(answer.status_code)

    for found in document.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with suppress(Unsatisfiable):  # nothing one may send there is wrong
                quiet = settings(deadline=None, max_examples=examples, suppress_health_check=list(HealthCheck))
                quiet(given(found.ok().as_strategy(generation_mode=mode))(conforms))()
    return seen


def test_the_server_does_as_the_document_says(document: Any, bearer: str) -> None:
    """No 5xx; a status, a type and a body as the document has them; what may not be sent is not taken."""
    assert {200, 400, 404, 422} <= explore(document, bearer, 12)


@pytest.mark.heavy
def test_the_server_does_as_the_document_says_at_length(document: Any, bearer: str) -> None:
    assert {200, 201, 400, 404, 422} <= explore(document, bearer, 500)


def test_every_answer_has_a_shape(filled: Running) -> None:
    document = json.loads(filled.request("GET", "/openapi.json")[1])
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            good = operation["responses"].get("200") or operation["responses"]["201"]
            assert good["description"] != "Successful Response", (method, path)
            for kind, content in good["content"].items():
                assert content["schema"] or kind == "application/octet-stream", (method, path)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_a_method_that_is_not_there(filled: Running) -> None:
    connection = http.client.HTTPConnection(urlsplit(filled.url).netloc)
    connection.request("PATCH", "/api/v1/models/btag/aliases/prod")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, PUT")
    connection.close()


def test_reports_that_are_none(filled: Running, bearer: str) -> None:
    status, said = filled.request(
        "POST", "/api/v1/versions/btag@1/reports", b"--x--\r\n", Authorization=bearer,
        Content_Type="multipart/form-data; boundary=x",
    )  # fmt: skip
    assert (status, json.loads(said)) == (400, {"detail": "the form has no report"})


TRICKS = ["../../etc/passwd", "btag\x00", "bt\u00e4g", "b\u0430tag", "btag\u202e", "-rf", ".", "", "btag\n", LONG]
TRICKS += ["btag@1;drop table versions", "%s%n", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")]


def refused(status: int, said: bytes) -> None:
    detail = json.loads(said)["detail"]
    assert status in (400, 404, 405, 409, 422), (status, detail)
    assert len(detail) < 600
    assert "\n" not in detail
    assert detail.isprintable()


@pytest.mark.parametrize("trick", [t for t in TRICKS if t], ids=lambda t: ascii(t)[:20])
@pytest.mark.parametrize(
    "path", ["versions/{}", "versions/btag@{}", "versions/btag/files/{}", "versions/btag/reports/{}", "which/{}"]
)
def test_odd_words_in_a_path(filled: Running, path: str, trick: str) -> None:
    refused(*filled.request("GET", "/api/v1/" + path.format(quote(trick, safe=""))))


@pytest.mark.parametrize("trick", [t for t in TRICKS if t], ids=lambda t: ascii(t)[:20])
def test_odd_words_in_a_body(filled: Running, bearer: str, trick: str) -> None:
    """As a model, an alias, a reference and a reason; nothing moves."""
    headers = {"Authorization": bearer, "Content-Type": "application/json"}
    good = {"ref": "btag@1", "force": True, "reason": "why"}
    tries = [
        ("btag", "prod", {**good, "ref": trick}),
        (trick, "prod", good),
        ("btag", trick, good),
        ("btag", "prod", {**good, "ref": f"btag@{trick}"}),
    ]
    for name, alias, body in tries:
        path = f"/api/v1/models/{quote(name, safe='')}/aliases/{quote(alias, safe='')}"
        refused(*filled.request("PUT", path, json.dumps(body).encode(), **headers))
    assert json.loads(filled.request("GET", "/api/v1/models/btag/aliases")[1]) == {"prod": 1}


@pytest.mark.parametrize(
    "body",
    [b"", b"[", b"{" * 100_000, b"[" * 100_000, b'{"ref": 1}', b'{"ref": "\\ud800"}', b'{"ref": "btag", "force": "x"}',
     b"\xff\xfe", b'{"ref": "btag@1", "reason": "\\ud800", "force": true}', b'{"ref": NaN}'],
    ids=lambda b: ascii(b[:20]),
)  # fmt: skip
def test_odd_bodies(filled: Running, bearer: str, body: bytes) -> None:
    headers = {"Authorization": bearer, "Content-Type": "application/json"}
    refused(*filled.request("PUT", "/api/v1/models/btag/aliases/prod", body, **headers))


@pytest.mark.parametrize("trick", [t for t in TRICKS if t and "\n" not in t], ids=lambda t: ascii(t)[:20])
@pytest.mark.parametrize("field", ["filename", "role", "metadata", "interface", "again", "metadata key", "field"])
def test_odd_words_in_a_form(filled: Running, bearer: str, field: str, trick: str, tmp_path: Path) -> None:
    def part(name: str, content: str, filename: str | None = None) -> bytes:
        quoted = [word.replace("\\", "\\\\").replace('"', '\\"') for word in (name, filename or "")]
        file = f'; filename="{quoted[1]}"' if filename is not None else ""
        head = f'--x\r\nContent-Disposition: form-data; name="{quoted[0]}"{file}\r\n\r\n'
        return f"{head}{content}\r\n".encode()

    body = {
        "filename": part("file", "a", trick),
        "role": part(f"file:{trick}", "a", "a.bin"),
        "metadata key": part("metadata", json.dumps({trick: 1})) + part("file", "a", "a.bin"),
        "field": part(trick, "1") + part("file", "a", "a.bin"),
    }.get(field, part(field, trick) + part("file", "a", "a.bin")) + b"--x--\r\n"
    headers = {"Authorization": bearer, "Content-Type": "multipart/form-data; boundary=x"}
    status, said = filled.request("POST", "/api/v1/models/other/versions", body, **headers)
    refused(status, said)
    assert filled.request("GET", "/api/v1/models/other/aliases")[0] == 404


@pytest.mark.parametrize("value", ["Basic \xe9\xe9", "Basic ====", "Bearer " + LONG, "Bearer", "\xff", "Basic " + LONG])
def test_odd_headers(filled: Running, value: str) -> None:
    assert filled.request("GET", "/api/v1/versions", Authorization=value, If_None_Match=LONG, Accept=value)[0] == 200
    status, said = filled.request("DELETE", "/api/v1/models/btag/aliases/prod", Authorization=value)
    assert status == 401, said


@pytest.mark.parametrize("said", [["[null]"], ["1"], ["True"], [""], ["false", "true"], ["true", "true"]])
def test_again_is_true_or_false_and_said_once(filled: Running, bearer: str, said: list[str]) -> None:
    parts = [f'--x\r\nContent-Disposition: form-data; name="again"\r\n\r\n{word}\r\n' for word in said]
    parts += ['--x\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\na\r\n--x--\r\n']
    headers = {"Authorization": bearer, "Content-Type": "multipart/form-data; boundary=x"}
    status, answer = filled.request("POST", "/api/v1/models/other/versions", "".join(parts).encode(), **headers)
    assert status == 400
    assert "again" in json.loads(answer)["detail"]


def test_a_file_of_an_example(filled: Running) -> None:
    """The examples of the document lead somewhere, so the tests above see more than refusals."""
    status, body = filled.request("GET", "/api/v1/versions/btag/files/source")
    assert (status, body) == (200, b"weights")
    name = "a.report.json"
    assert filled.request("GET", f"/api/v1/versions/btag/reports/{name}")[0] == 200
    listed = json.loads(filled.request("GET", f"/api/v1/which/{digest(filled.folder.parent / 'a')}")[1])
    assert [hit["role"] for hit in listed] == ["export:json"]
