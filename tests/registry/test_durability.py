"""Which wait for the disk makes which promise: a power cut is played by what it would leave behind."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from modelhub.errors import RegistryError
from modelhub_registry import Registry, sqlite, stores


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every fsync and rename, in the order in which they ended, by path within the registry."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to name what is synced")
    seen: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        fsync(handle)
        seen.append(("fsync", str(path.relative_to(tmp_path / "registry"))))

    def watched_rename(path: str, target: str) -> None:
        rename(path, target)
        seen.append(
            ("rename", str(path).rpartition("/")[2] + " " + str(Path(target).relative_to(tmp_path / "registry")))
        )

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_rename)
    return seen


@pytest.fixture(params=[0.0, 1e9], ids=["slow", "quick"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the disk counts as slow, so that syncs run in threads."""
    monkeypatch.setattr(stores._Pace, "slow", request.param)


@pytest.mark.usefixtures("disk")
def test_the_order_of_a_publish(registry: Registry, files, events: list[tuple[str, str]]) -> None:
    registry.push("btag", files(a_bin="first"))
    events.clear()
    version = registry.push("btag", files(a_bin="second"))
    renames = {target: (events.index(event), name) for event in events if event[0] == "rename"
               for name, target in [event[1].split()]}  # fmt: skip
    sha256 = version.manifest.artifacts[0].sha256
    blob, manifest, entry = (
        renames[key] for key in (f"blobs/sha256/{sha256}", f"blobs/sha256/{version.digest}", "log/btag/000002.json")
    )
    for at, name in (blob, manifest, entry):  # bytes before the key
        assert ("fsync", f"incoming/{name}") in events[:at]
    folder = events.index(("fsync", "blobs/sha256"))
    assert max(blob[0], manifest[0]) < folder < entry[0]  # what the log names, before the log
    assert ("fsync", "log/btag") in events[entry[0] :]
    assert len(events) == 3 + 5  # renames; files, manifest, their folder, entry, its folder


@pytest.mark.usefixtures("disk")
def test_a_sync_that_fails_is_told(registry: Registry, files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it fails beside another, in a thread of its own."""
    registry.push("btag", files(a_bin="first"))
    fsync = os.fsync
    for failing in range(5):
        calls = iter(range(100))

        def broken(handle: int, calls=calls, failing: int = failing) -> None:
            if next(calls) == failing:
                raise OSError(5, "Input/output error")
            fsync(handle)

        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(RegistryError, match="Input/output error"):
            registry.push("btag", files(a_bin=f"second {failing}"))
    monkeypatch.setattr(os, "fsync", fsync)
    assert registry.push("btag", files(a_bin="third")).number == len(registry.list())
    assert registry.verify() == []


def test_a_power_cut_takes_nothing_acknowledged(tmp_path: Path, files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index comes back without its last commits, as SQLite may after a power cut; the first to open it mends it."""
    root = tmp_path / "registry"
    with Registry(root) as registry:
        registry.push("btag", files(a_bin="first"))
    shutil.copy(root / "index.sqlite", tmp_path / "before.sqlite")
    with Registry(root) as registry:
        registry.push("btag", files(a_bin="second"))
        registry.push("other", files(a_bin="third"))
        registry.alias("btag@2", "best")
    for leftover in root.glob("index.sqlite-*"):
        leftover.unlink()
    shutil.copy(tmp_path / "before.sqlite", root / "index.sqlite")
    with Registry(root) as registry:  # the same boot: nothing was cut
        assert len(registry.list()) == 1
    monkeypatch.setattr(sqlite, "_BOOT", "after the power cut")
    with Registry(root) as registry:
        assert [s.ref for s in registry.list()] == ["btag@1", "btag@2", "other@1"]
        assert registry.version("btag@best").number == 2
        assert registry.verify() == []


@pytest.mark.parametrize("boot", ["a boot", None])
def test_what_only_the_database_knows_waits_for_the_disk(
    registry: Registry, files, monkeypatch: pytest.MonkeyPatch, boot: str | None
) -> None:
    monkeypatch.setattr(sqlite, "_BOOT", boot)
    registry.push("btag", files(a_bin="first"))

    def synchronous(logged: bool) -> int:
        with registry._database.writing(logged=logged) as db:
            return db.rows("PRAGMA synchronous")[0][0]

    full, normal = 2, 1
    assert synchronous(logged=False) == full
    assert synchronous(logged=True) == (full if boot is None else normal)
    assert synchronous(logged=False) == full


def test_a_busy_index_is_told(registry: Registry, files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "PATIENCE", 0.1)
    registry.push("btag", files(a_bin="first"))
    registry.close()
    other = sqlite3.connect(registry.root / "index.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RegistryError, match="another process has kept it busy"):
        registry.push("btag", files(a_bin="second"))
    other.execute("ROLLBACK")
    assert registry.push("btag", files(a_bin="second")).number == 2
