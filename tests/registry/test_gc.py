"""What crashes leave over is found and removed, and never anything else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from modelhub.errors import RegistryError
from modelhub_registry import Registry
from modelhub_registry.remote import Remote
from modelhub_registry.stores import Folder, staged


def orphan(registry: Registry, data: bytes = b"nobody's") -> str:
    """A blob that no log names, as a publisher leaves it that dies between its blobs and the log."""
    with staged(registry._store, [data]) as blob:
        item = registry._blobs.item(blob)
        registry._store.prepare([item])()
        registry._store.place([item])
    return item[1]


def dead(root: Path) -> Path:
    """An unfinished file whose writer is no more."""
    path = root / "incoming" / "modelhub-1-0123456789abcdef"
    path.write_bytes(b"half")
    aged(path)
    return path


def aged(path: Path) -> None:
    """Written some time ago."""
    os.utime(path, (1e9, 1e9))


def test_orphans_and_unfinished_files_go_and_all_else_stays(proved: Registry) -> None:
    before = {p: p.read_bytes() for p in proved.root.rglob("*") if p.is_file() and "index" not in p.name}
    key, path = orphan(proved), dead(proved.root)
    told = proved.fsck()
    assert {f.where for f in told} == {key, "incoming/" + path.name}
    assert proved.verify() == []
    swept = proved.gc(dry_run=True)
    assert (swept.orphans, swept.unfinished) == ((key,), ("incoming/" + path.name,))
    assert path.exists()
    assert proved.gc() == swept
    assert proved.fsck() == []
    assert {p: p.read_bytes() for p in proved.root.rglob("*") if p.is_file() and "index" not in p.name} == before


def test_a_living_publisher_loses_nothing(proved: Registry, files) -> None:
    """Its staged file is locked, whatever the clock says."""
    with staged(proved._store, [b"on its way"]) as blob:
        assert proved.gc(grace=0).unfinished == ()
        assert Path(blob.path).exists()
    script = (
        "import sys, pathlib, time; from modelhub_registry.stores import Folder, staged\n"
        "with staged(Folder(pathlib.Path(sys.argv[1])), [b'x']) as blob: print(blob.path, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(proved.root)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    path = Path(other.stdout.readline().strip())
    assert proved.gc(grace=0).unfinished == ()
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert proved.gc().unfinished == ()  # it may have been made a moment ago, and be locked in the next
    aged(path)
    assert proved.gc().unfinished == (f"incoming/{path.name}",)
    assert not path.exists()


def test_a_blob_of_a_version_being_published_is_safe(proved: Registry, files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published again is what gc has just removed; and gc waits for who holds the lock."""
    (source,) = files("x", net_pt="nobody's")
    key = orphan(proved)
    real = type(proved._database).writing

    def swept_first(self, **more):
        monkeypatch.undo()
        with Registry(proved.root) as other:
            assert other.gc().orphans == (key,)
        return real(self, **more)

    monkeypatch.setattr(type(proved._database), "writing", swept_first)
    version = proved.push("btag", [source])
    assert proved.open(version.ref, "source") == b"nobody's"
    assert proved.fsck() == []


def test_nothing_is_removed_from_a_damaged_registry(proved: Registry) -> None:
    key = orphan(proved)
    manifest = proved.root / "blobs/sha256" / proved.version("btag").digest
    data = manifest.read_bytes()
    manifest.unlink()
    with pytest.raises(RegistryError, match="damaged, so nothing is removed"):
        proved.gc()
    manifest.write_bytes(data)
    assert proved.gc().orphans == (key,)


def test_on_a_server_age_decides(tmp_path: Path, files) -> None:
    registry = Registry(f"memory://{uuid.uuid4().hex}", f"sqlite:///{tmp_path}/index.sqlite")
    registry.push("btag", files(a_bin="x"))
    store = registry._store
    assert isinstance(store, Remote)
    with staged(store, [b"half"]) as blob:
        store.prepare([(blob, "blobs/sha256/x")])()
    (left,) = store.list("incoming")
    assert registry.gc().unfinished == ()
    time.sleep(0.01)
    assert registry.gc(grace=0).unfinished == (f"incoming/{left}",)
    assert store.list("incoming") == []


def test_mending(proved: Registry, tmp_path: Path, files) -> None:
    """Log entries come back from the index, files from another registry, the index from the log."""
    proved.alias("btag@1", "prod")
    proved.push("btag", files("more", net_pt="second"), metadata={"k": [1, "a"]})
    proved.alias("btag@2", "dev", reason="newer")
    proved.unalias("btag", "dev")
    proved.close()
    subprocess.run(["cp", "-r", str(proved.root), str(tmp_path / "copy")], check=True)
    entries = sorted((proved.root / "log/btag").iterdir())
    assert len(entries) == 5
    was = [entry.read_bytes() for entry in entries]
    for entry in entries:
        entry.chmod(0o644)
        entry.write_bytes(b"{}")
    assert len(proved.fsck()) >= 5
    assert proved.fsck(mend=True) == []
    assert [entry.read_bytes() for entry in entries] == was
    for blob in (proved.root / "blobs/sha256").iterdir():
        blob.unlink()
    assert len(proved.fsck(mend=True)) >= 5
    assert len(proved.reindex()) == 2  # now only the log knows the manifests
    assert proved.fsck(mend=True, source=Registry(tmp_path / "copy")) == []
    with Registry(tmp_path / "copy") as copy:
        assert [s.digest for s in copy.list()] == [s.digest for s in proved.list()]


def test_strangers_are_told(proved: Registry) -> None:
    (proved.root / "blobs/sha256/readme.txt").write_text("x")
    (proved.root / "log/..what").mkdir()
    told = [f"{f.where} {f.what}" for f in proved.fsck()]
    assert len(told) == 2
    assert any("readme.txt" in line for line in told)
    assert any("..what" in line for line in told)


def test_locks_are_looked_at_not_taken_from_strangers(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    assert store.leftovers(0) == []
    with staged(store, [b"x"]) as blob:
        aged(Path(blob.path))
        os.rename(blob.path, blob.path + "x")  # noqa: PTH104
        assert store.leftovers(0) == []
    assert len(store.leftovers(0)) == 1


def test_checks_and_sweeps_beside_publishers_find_nothing(tmp_path: Path) -> None:
    """What is on its way is no damage."""
    script = (
        "import sys, pathlib; from modelhub_registry import Registry\n"
        "root = pathlib.Path(sys.argv[1]); path = root.parent / f'net-{sys.argv[2]}.bin'\n"
        "for k in range(40):\n"
        "    path.write_text(f'{sys.argv[2]} {k}'); Registry(root).push('btag', [path])"
    )
    root = tmp_path / "registry"
    others = [subprocess.Popen([sys.executable, "-c", script, str(root), str(k)]) for k in range(2)]
    swept = 0
    with Registry(root) as registry:
        while any(other.poll() is None for other in others):
            if (root / "index.sqlite").exists():
                assert registry.fsck() == []
                swept += len(registry.gc().orphans) + len(registry.gc().unfinished)
        assert [other.returncode for other in others] == [0, 0]
        assert swept == 0
        assert len(registry.list()) == 80
        assert registry.fsck() == []
