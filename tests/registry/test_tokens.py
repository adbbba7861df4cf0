"""Tokens: what is handed out opens what it is for, and nothing of it lies in the file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelhub.errors import RegistryError
from modelhub_registry.tokens import Token, Tokens

NOW = datetime.now(UTC)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "deep" / "tokens.json")


def test_only_a_hash_is_kept_where_only_the_owner_reads(tokens: Tokens) -> None:
    shown, made = tokens.create("ci", ["publish"])
    stored = tokens.path.read_text()
    assert shown.rpartition("_")[2] not in stored
    assert made.sha256 in stored
    assert tokens.path.stat().st_mode & 0o777 == 0o600


def test_a_token_is_found_by_the_whole_of_it(tokens: Tokens) -> None:
    shown, made = tokens.create("ci", ["publish"])
    other, _ = tokens.create("other", ["publish"])
    assert Tokens(tokens.path).find(shown) == made
    secret = shown.split("_", 2)[2]
    wrong = [shown[:-1], shown + "x", shown[:-1] + ("A" if shown[-1] != "A" else "B"), other[:12] + secret, "", "mh_"]
    assert [tokens.find(text) for text in wrong] == [None] * len(wrong)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [(["read"], {"read"}), (["publish"], {"read", "publish"}), (["promote"], {"read", "promote"})],
)
def test_scopes(tokens: Tokens, scopes: list[str], allowed: set[str]) -> None:
    _, made = tokens.create("ci", scopes)
    assert {scope for scope in ("read", "publish", "promote") if made.allows(scope, NOW)} == allowed


def test_an_end(tokens: Tokens) -> None:
    shown, made = tokens.create("ci", ["publish"], days=2)
    assert made.allows("publish", NOW + timedelta(days=1))
    assert not made.allows("publish", NOW + timedelta(days=3))
    before = Tokens(tokens.path)
    assert before.find(shown) == made
    tokens.revoke(made.id)
    ended = before.find(shown)  # another process sees it at once
    assert isinstance(ended, Token)
    assert not ended.allows("read", NOW)


@pytest.mark.parametrize(
    ("label", "scopes", "days"),
    [
        ("", ["read"], None),
        ("x" * 81, ["read"], None),
        ("a\x00b", ["read"], None),
        ("a\u202eb", ["read"], None),
        ("ci", [], None),
        ("ci", ["admin"], None),
        ("ci", ["read"], 0),
    ],
)
def test_what_is_refused(tokens: Tokens, label: str, scopes: list[str], days: float | None) -> None:
    with pytest.raises(RegistryError):
        tokens.create(label, scopes, days)
    assert not tokens.path.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"tokens": [{"id": 1}]}', "nonsense"])
def test_a_damaged_file_opens_nothing(tokens: Tokens, text: str) -> None:
    shown, _ = tokens.create("ci", ["publish"])
    tokens.path.write_text(text)
    with pytest.raises(RegistryError, match="not a file of tokens"):
        tokens.find(shown)


def test_unknown_tokens_cannot_be_revoked(tokens: Tokens) -> None:
    with pytest.raises(RegistryError, match="token list"):
        tokens.revoke("00000000")


@pytest.mark.parametrize("path", ["a\x00b", "a" * 5000, "\ud800", "folder/" + "b" * 256])
def test_no_path_for_the_file(path: str) -> None:
    with pytest.raises(RegistryError, match="cannot be a path"):
        Tokens(Path(path))


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RegistryError, match=r"file/tokens\.json: cannot be"):
        Tokens(tmp_path / "file" / "tokens.json").create("ci", ["read"])
