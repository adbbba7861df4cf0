"""The manifest: one spelling, a schema that says the same as the reader, and what the reports add up to."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import modelhub_registry
from modelhub.errors import RegistryError
from modelhub_registry.records import Artifact, Evidence, Manifest, Provenance, canonical

SCHEMA = json.loads(Path(modelhub_registry.__file__).with_name("manifest.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

A, B, C, D = ("abcd"[i] * 64 for i in range(4))
SOURCE = Artifact("source", "torch", "net.pt2", A, 10)
JSON = Artifact("export:json", "lwtnn", "net.json", B, 10)
ONNX = Artifact("export:onnx", "onnx", "net.onnx", C, 10)
WEIGHTS = Artifact("source:weights", "keras", "net.h5", D, 10)
MADE = Provenance("2026-02-03T04:05:06.000007Z", "me", "0.1.0")


def told(source: str, target: str, verdict: str = "identical", **more: str) -> Evidence:
    return Evidence("e" * 64, 5, verdict, {"source": source, "target": target, **more})


def manifest(*artifacts: Artifact, reports: tuple[Evidence, ...] = (), **more: Any) -> Manifest:
    return Manifest("btag", artifacts, MADE, reports, **more).ordered()


FULL = manifest(
    SOURCE,
    JSON,
    ONNX,
    reports=(told(A, B), told(A, C, graph=D)),
    interface={"version": 1},
    metadata={"auc": 0.1, "tags": ["x"]},
)


def test_round_trip_in_one_spelling() -> None:
    data = FULL.to_bytes()
    assert Manifest.from_bytes(data, "here") == FULL
    VALIDATOR.validate(json.loads(data))
    pretty = json.dumps(json.loads(data), indent=1).encode()
    with pytest.raises(RegistryError, match="one spelling"):
        Manifest.from_bytes(pretty, "here")


def mutations() -> list[tuple[tuple[Any, ...], Any]]:
    """Places in the full manifest, and what to put there; None as a value stands for null, `...` for nothing at all."""
    junk: list[Any] = [..., None, "", " ", "../x", 0, -1, 1.5, True, "1", [], {}, "a" * 2000, 2**63, "e" * 64, {"x": 1}]
    places: list[tuple[Any, ...]] = []

    def walk(node: Any, place: tuple[Any, ...]) -> None:
        places.append(place)
        if isinstance(node, dict | list):
            for key in node if isinstance(node, dict) else range(len(node)):
                walk(node[key], (*place, key))

    walk(FULL.to_json(), ())
    return [(place, value) for place in places if place and place[0] not in ("interface",) for value in junk]


def mutated(place: tuple[Any, ...], value: Any) -> Any:
    document = json.loads(FULL.to_bytes())
    node = document
    for key in place[:-1]:
        node = node[key]
    if value is ...:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return document


def refusal(data: bytes) -> str | None:
    try:
        Manifest.from_bytes(data, "here")
    except RegistryError as error:
        return str(error)
    return None


COHERENCE = ("order", "other files", "files have the role", "reports compare", "files are called")
"""Rules between the parts, which a JSON Schema cannot say."""


def test_reader_and_schema_agree() -> None:
    """What the reader takes the schema takes; what the reader alone refuses breaks a rule between the parts."""
    refused = 0
    for place, value in mutations():
        document = mutated(place, value)
        reason = refusal(canonical(document))
        if reason is None:
            assert VALIDATOR.is_valid(document), (place, value)
        else:
            refused += 1
            assert "\n" not in reason
            assert not VALIDATOR.is_valid(document) or any(r in reason for r in COHERENCE), (place, value, reason)
    assert refused > 300


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_refused_in_one_line(document: Any) -> None:
    try:
        data = json.dumps(document).encode()
    except ValueError:
        return
    with pytest.raises(RegistryError) as caught:
        Manifest.from_bytes(data, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[" * 100_000, b"\xff", b'{"a":1,"a":1}', b"null", b'{"a":NaN}', FULL.to_bytes()[:-1]]
)
def test_broken_bytes(data: bytes) -> None:
    with pytest.raises(RegistryError, match="not a manifest"):
        Manifest.from_bytes(data, "here")


def test_content_ignores_who_and_when_and_a_repeated_check() -> None:
    later = Manifest(**{**vars(FULL), "provenance": Provenance("2027-02-03T04:05:06.000007Z", "you", "0.2.0")})
    again = Manifest(
        **{**vars(FULL), "reports": tuple(Evidence("f" * 64, 6, r.verdict, r.covers) for r in FULL.reports)}
    )
    assert later.content == again.content == FULL.content
    assert later.to_bytes() != FULL.to_bytes()
    for change in (
        {"metadata": {"auc": 0.2}}, {"interface": None}, {"reports": FULL.reports[:1]}, {"name": "b"},
        {"artifacts": FULL.artifacts[1:]},
        {"reports": (told(A, B, "different"), FULL.reports[1])},
    ):  # fmt: skip
        assert Manifest(**{**vars(copy.deepcopy(FULL)), **change}).content != FULL.content


@pytest.mark.parametrize(
    ("candidate", "verdict", "proved"),
    [
        (manifest(SOURCE, JSON, ONNX), "unchecked", False),
        (manifest(SOURCE, JSON, ONNX, reports=(told(A, B),)), "incomplete", False),
        (manifest(SOURCE, JSON, ONNX, reports=(told(A, B), told(A, C))), "identical", True),
        (manifest(SOURCE, JSON, ONNX, reports=(told(A, B), told(A, C, "equivalent"))), "equivalent", True),
        (manifest(SOURCE, JSON, ONNX, reports=(told(A, B), told(A, C, "different"))), "different", False),
        (manifest(SOURCE, JSON, ONNX, reports=(told(A, B), told(A, C, "inconclusive"))), "inconclusive", False),
        (manifest(SOURCE, JSON, reports=(told(A, B, "different"),)), "different", False),
        (manifest(SOURCE), "unchecked", False),
        (manifest(JSON, ONNX), "unchecked", False),
        (manifest(SOURCE, WEIGHTS, JSON, reports=(told(A, B),)), "incomplete", False),
        (manifest(SOURCE, WEIGHTS, JSON, reports=(told(A, B, weights=D),)), "identical", True),
    ],
)
def test_what_reports_add_up_to(candidate: Manifest, verdict: str, proved: bool) -> None:
    assert candidate.verdict == verdict
    assert (candidate.gaps() == []) is proved
    assert Manifest.from_bytes(candidate.to_bytes(), "here") == candidate


@pytest.mark.parametrize(
    "candidate",
    [
        manifest(),
        manifest(SOURCE, SOURCE),
        manifest(SOURCE, Artifact("graph", "onnx", "NET.pt2", C, 1)),
        manifest(SOURCE, JSON, reports=(told(B, A),)),
        manifest(SOURCE, JSON, reports=(told(A, C),)),
        manifest(SOURCE, JSON, reports=(told(A, B, weights=C),)),
        manifest(SOURCE, JSON, reports=(told(A, B), told(A, B))),
        manifest(SOURCE, JSON, Artifact("graph", "json", "net.json.report.json", C, 1), reports=(told(A, B),)),
        Manifest("btag", (SOURCE, JSON), MADE),
    ],
)
def test_parts_that_do_not_fit(candidate: Manifest) -> None:
    with pytest.raises(RegistryError):
        Manifest.from_bytes(candidate.to_bytes(), "here")
