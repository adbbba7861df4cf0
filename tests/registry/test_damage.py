"""Whatever is flipped, cut, swapped or deleted: reads refuse, `verify` names it, and the index can be made anew."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from modelhub.errors import RegistryError
from modelhub_registry import Registry
from modelhub_registry.log import Entry, Publish


@pytest.fixture
def full(proved: Registry, files) -> Registry:
    """Two models, four versions, aliases that moved."""
    proved.push("btag", files("b", net_pt="second"), metadata={"auc": 0.9})
    proved.alias("btag@1", "prod")
    proved.alias("btag@2", "dev")
    proved.push("tau", files("c", net_pt="weights"))  # shares a blob with btag@1
    proved.push("btag", files("d", net_pt="third"))
    proved.alias("btag@3", "dev", reason="newer")
    assert proved.verify() == []
    return proved


def rows(registry: Registry) -> dict[str, list[tuple[object, ...]]]:
    """All that the index holds."""
    with closing(sqlite3.connect(registry.root / "index.sqlite")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: sorted(db.execute(f"SELECT * FROM {table}"), key=repr) for table in tables}


def change(registry: Registry, statement: str) -> None:
    """Change the index behind the registry's back."""
    with closing(sqlite3.connect(registry.root / "index.sqlite", isolation_level=None)) as db:
        db.execute(statement)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def first(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 0x20
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def damaged(path: Path, how: Callable[[Path], None]) -> None:
    path.chmod(0o644)
    how(path)


def everything(registry: Registry, to: Path) -> None:
    """Read all there is by the registry's own calls."""
    for summary in registry.list():
        registry.show(summary.ref)
        registry.get(summary.ref, to=to / summary.ref)


@pytest.mark.parametrize("how", [flip, first, truncate, empty, longer, Path.unlink], ids=lambda f: f.__name__)
def test_any_blob(full: Registry, how: Callable[[Path], None], tmp_path: Path) -> None:
    blobs = sorted((full.root / "blobs" / "sha256").iterdir())
    assert len(blobs) == 5 + 2 + 4  # files, reports, manifests
    for blob in blobs:
        before = blob.read_bytes()
        damaged(blob, how)
        with pytest.raises(RegistryError, match=blob.name):
            everything(full, tmp_path / blob.name)
        assert any(blob.name in finding.what for finding in full.verify()), blob.name
        blob.write_bytes(before)
    assert full.verify() == []


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("how", [pipe, device, folder], ids=lambda f: f.__name__)
@pytest.mark.parametrize("where", ["blobs/sha256/*", "log/btag/000001.json", "registry.json"])
def test_what_is_no_file(full: Registry, how: Callable[[Path], None], where: str, tmp_path: Path) -> None:
    """In place of any file: it is told, and nobody waits for what a pipe or a device may say."""
    how(sorted(full.root.glob(where))[0])
    full.close()
    with Registry(full.root) as again:
        if where != "log/btag/000001.json":  # what the index has read is in it
            with pytest.raises(RegistryError, match="not a regular file"):
                everything(again, tmp_path / "out")
        try:
            told = " ".join(finding.what for finding in again.fsck())
        except RegistryError as error:  # without its settings it is no registry
            told = str(error)
        assert "not a regular file" in told


def test_swapped_blobs(full: Registry, tmp_path: Path) -> None:
    blobs = sorted((full.root / "blobs" / "sha256").iterdir())
    for a, b in pairwise(blobs):
        was = a.read_bytes(), b.read_bytes()
        for blob, data in ((a, was[1]), (b, was[0])):
            blob.chmod(0o644)
            blob.write_bytes(data)
        with pytest.raises(RegistryError, match="damaged"):
            everything(full, tmp_path / a.name)
        told = " ".join(finding.what for finding in full.verify())
        assert a.name in told
        assert b.name in told
        a.write_bytes(was[0])
        b.write_bytes(was[1])


@pytest.mark.parametrize("how", [flip, first, truncate, empty, longer, Path.unlink], ids=lambda f: f.__name__)
def test_any_log_entry(full: Registry, how: Callable[[Path], None]) -> None:
    entries = sorted((full.root / "log").rglob("*.json"))
    assert len(entries) == 7
    for entry in entries:
        before = entry.read_bytes()
        damaged(entry, how)
        assert any(entry.parent.name in finding.where or "log" in finding.where for finding in full.verify()), entry
        entry.write_bytes(before)
    assert full.verify() == []


def test_swapped_log_entries(full: Registry) -> None:
    one, two = (full.root / "log" / "btag" / f"00000{n}.json" for n in (2, 3))
    a, b = one.read_bytes(), two.read_bytes()
    damaged(one, lambda path: path.write_bytes(b))
    damaged(two, lambda path: path.write_bytes(a))
    assert [f.where for f in full.verify() if f.where.startswith("btag")] == ["btag, log entry 2", "btag, log entry 3"]


@pytest.mark.parametrize(
    "forgery", [{"by": "somebody else"}, {"event": Publish(7, "0" * 64)}, {"sequence": 3}, {"name": "tau"}]
)
def test_a_forged_log_entry(full: Registry, forgery: dict[str, object]) -> None:
    """Well-formed and with a digest of its own, but not what the next entry follows: seen even without the index."""
    path = full.root / "log" / "btag" / "000002.json"
    forged = replace(Entry.from_bytes(path.read_bytes(), "here"), **forgery)
    damaged(path, lambda path: path.write_bytes(forged.to_bytes()))
    assert any(f.where.startswith("btag, log entry") for f in full.verify())
    full.close()
    (full.root / "index.sqlite").unlink()
    assert any(f.where.startswith("btag, log entry") for f in full.reindex())


def test_a_log_that_points_to_a_manifest_of_another_model(full: Registry) -> None:
    path = full.root / "log" / "tau" / "000001.json"
    entry = Entry.from_bytes(path.read_bytes(), "here")
    forged = replace(entry, event=Publish(1, full.version("btag@1").digest))
    damaged(path, lambda path: path.write_bytes(forged.to_bytes()))
    assert [f.where for f in full.reindex()] == ["tau@1"]
    with pytest.raises(RegistryError, match="lost"):
        full.version("tau@1")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE aliases SET number = 2 WHERE alias = 'prod'",
        "UPDATE versions SET verdict = 'identical' WHERE number = 2",
        "UPDATE versions SET digest = (SELECT digest FROM versions WHERE number = 2) WHERE name = 'tau'",
        "DELETE FROM versions WHERE name = 'tau'",
        "DELETE FROM files WHERE role = 'source'",
        "INSERT INTO aliases VALUES ('tau', 'prod', 1)",
        "UPDATE log SET forced = 0, reason = NULL WHERE number = 3",
        "DELETE FROM models WHERE name = 'tau'",
    ],
)
def test_a_tampered_index(full: Registry, statement: str) -> None:
    before = rows(full)
    change(full, statement)
    assert full.verify() != []
    assert full.reindex() == []
    assert full.verify() == []
    assert rows(full) == before


def test_reindex_equals_the_original(full: Registry) -> None:
    before = rows(full)
    assert full.reindex() == []
    assert rows(full) == before
    full.close()
    for path in full.root.glob("index.sqlite*"):
        path.unlink()
    assert [s.ref for s in full.list()] == ["btag@1", "btag@2", "btag@3", "tau@1"]  # made anew by the first who asks
    assert rows(full) == before
    assert full.push("btag", [full.root / "registry.json"]).number == 4


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100], ids=["emptied", "overwritten"])
def test_an_index_that_is_none(full: Registry, content: bytes) -> None:
    before = rows(full)
    full.close()
    (full.root / "index.sqlite").write_bytes(content)
    for ask in (full.list, lambda: full.version("btag"), full.verify):
        with pytest.raises(RegistryError, match="reindex"):
            ask()
    assert full.reindex() == []
    assert rows(full) == before


def test_an_index_with_a_torn_page(full: Registry) -> None:
    before = rows(full)
    full.close()
    path = full.root / "index.sqlite"
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    path.write_bytes(data)
    with pytest.raises(RegistryError, match="reindex"):
        full.list()
    assert full.reindex() == []
    assert rows(full) == before


def test_an_index_of_the_future(full: Registry) -> None:
    full.close()
    change(full, "INSERT INTO migrations VALUES (99)")
    with pytest.raises(RegistryError, match="newer modelhub"):
        full.list()


def test_what_is_lost_is_told_and_numbers_are_not_given_out_again(full: Registry, files) -> None:
    """Index gone and, of what it is made from, one manifest and one log entry: the rest comes back."""
    full.close()
    second = full.version("btag@2")
    full.close()
    (full.root / "index.sqlite").unlink()
    (full.root / "blobs" / "sha256" / second.digest).unlink()
    findings = full.reindex()
    assert [f.where for f in findings] == ["btag@2"]
    assert [s.ref for s in full.list()] == ["btag@1", "btag@3", "tau@1"]
    with pytest.raises(RegistryError, match="the index has lost this version"):
        full.version("btag@2")
    assert full.push("btag", files("e", net_pt="fourth")).number == 4

    (full.root / "log" / "btag" / "000005.json").unlink()  # the publish of 3
    assert [f.where for f in full.reindex()] == ["btag@2", "btag, log entry 5"]
    assert [s.ref for s in full.list("btag")] == ["btag@1", "btag@4"]
    assert full.push("btag", files("f", net_pt="fifth")).number == 5

    last = sorted((full.root / "log" / "btag").iterdir())[-1]
    damaged(last, flip)
    full.reindex()
    with pytest.raises(RegistryError, match="the end of the log of btag is damaged"):
        full.push("btag", files("g", net_pt="sixth"))


def test_an_index_behind_the_log_catches_up(full: Registry, files, tmp_path: Path) -> None:
    """An old copy of the index comes back: nothing that was acknowledged is overwritten."""
    full.close()
    old = (full.root / "index.sqlite").read_bytes()
    full.push("btag", files("e", net_pt="fourth"))
    full.alias("btag@4", "dev")
    full.close()
    (full.root / "index.sqlite").write_bytes(old)
    assert full.version("btag").number == 3
    assert [f.where for f in full.verify()] == ["btag"]
    assert full.push("btag", files("f", net_pt="fifth")).number == 5
    assert full.version("btag@dev").number == 4
    assert full.verify() == []


def test_hostile_names_in_the_folder(full: Registry) -> None:
    (full.root / "log" / "..evil name").mkdir()
    (full.root / "log" / "stray.txt").write_text("x")
    (full.root / "blobs" / "sha256" / "stray").write_text("x")
    assert full.reindex() == []
    assert full.verify() == []
    assert [s.ref for s in full.list("btag")] == ["btag@1", "btag@2", "btag@3"]
