"""The grammar of names and references: what it takes, and that nothing else comes through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.errors import RegistryError
from modelhub_registry import names
from modelhub_registry.names import Reference

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("btag", Reference("btag")),
        ("btag@3", Reference("btag", number=3)),
        ("btag@prod", Reference("btag", alias="prod")),
        ("GN2v01.r2-x_y@2026-a", Reference("GN2v01.r2-x_y", alias="2026-a")),
        ("btag@sha256:01234567", Reference("btag", digest="01234567")),
        (f"btag@sha256:{HEX}", Reference("btag", digest=HEX)),
        ("a" * 128 + "@1", Reference("a" * 128, number=1)),
        ("3", Reference("3")),
    ],
)
def test_references(text: str, reference: Reference) -> None:
    assert names.reference(text) == reference
    assert str(reference) == text


BAD_NAMES = [
    "", ".", "..", ".hidden", "-x", "_x", "a/b", "a\\b", "../a", "a\0b", "a b", "a\n", "a:", "bt\u00e4g", "bt\u0430g",
    "b\u200btag", "\uff42tag", "a" * 129, "a" * 10_000, "%2e%2e", "$(id)", "a;b", "'", '"', "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("text", [*BAD_NAMES, None, 3, b"btag", ["btag"]], ids=lambda x: repr(x)[:20])
def test_names_refused(text: object) -> None:
    for check in (names.name, names.alias, names.key, names.role, names.reference):
        with pytest.raises(RegistryError) as caught:
            check(text)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 400
        assert message.isprintable()


@pytest.mark.parametrize(
    "which",
    [
        "", "0", "03", "-1", "+1", "1 ", " 1", "\u0663", "9999999999", "latest", "LATEST", "v3", "sha256",
        "sha256:", "sha256:0123456", "sha256:0123456G", "SHA256:01234567", "sha256:" + "0" * 65, "sha256:../../x",
        "a@b", "a/b",
    ],
)  # fmt: skip
def test_references_refused(which: str) -> None:
    with pytest.raises(RegistryError, match="is no reference"):
        names.reference(f"btag@{which}")


@pytest.mark.parametrize(
    "text", ["3", "007", "v1", "V12", "latest", "Latest", "newest", "head", "all", "none", "sha256"]
)
def test_reserved_aliases(text: str) -> None:
    with pytest.raises(RegistryError, match="reserved"):
        names.alias(text)


@pytest.mark.parametrize("text", ["a/b", "..", ".x", "-rf", "a\\b", "a\0", "", "x" * 129, "n\u00e9t.json", "a\nb"])
def test_filenames_refused(text: str) -> None:
    with pytest.raises(RegistryError, match="name of a file"):
        names.filename(text)


@pytest.mark.parametrize(
    "text", ["report", "report:x", "manifest", "Source", "export:", ":x", "a:b:c:d:e", "export:../x"]
)
def test_roles_refused(text: str) -> None:
    with pytest.raises(RegistryError, match="role"):
        names.role(text)


@pytest.mark.parametrize(
    "text", ["", "a\0b", "x" * 4001, "a/" + "x" * 256, "\u00e9" * 128, "\ud800", "a\nb", "\x1b", b"x", None, 3]
)
def test_paths_refused(text: object) -> None:
    with pytest.raises(RegistryError, match="cannot be a path"):
        names.path(text)


@pytest.mark.parametrize("text", ["a", "/x/y z.json", "../up", "caf\u00e9/\u00fc"])
def test_paths(text: str) -> None:
    assert str(names.path(text)) == text


@pytest.mark.parametrize("text", ["0" * 63, "0" * 65, "A" * 64, "../" + "0" * 61, "0" * 63 + "\n", None])
def test_digests_refused(text: object) -> None:
    with pytest.raises(RegistryError):
        names.digest(text)


@given(st.text())
def test_a_reference_is_refused_or_says_what_was_typed(text: str) -> None:
    try:
        reference = names.reference(text)
    except RegistryError:
        return
    assert str(reference) == text
    assert text.isascii()
    assert "/" not in text
