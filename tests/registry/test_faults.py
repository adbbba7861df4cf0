"""Folders that may not be written, disks that are full, stores that are not local: one clear error, nothing lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from modelhub.errors import RegistryError
from modelhub_registry import Registry

NOBODY = 65534


def told_in_child(work: Callable[[], object]) -> str:
    """What `work` says, run in a forked process: its RegistryError in one line, else the repr of its result."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            text = repr(work())
        except RegistryError as error:
            text = f"RegistryError: {error}"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with closing(os.fdopen(reading)) as pipe:
        text = pipe.read()
    os.waitpid(process, 0)
    return text


def as_nobody(work: Callable[[], object]) -> Callable[[], object]:
    """`work` without root's right to write everywhere."""

    def run() -> object:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return work()

    return run


@pytest.fixture
def readonly(proved: Registry, files) -> Iterator[Path]:
    """A copy of a registry where nobody may write, in a folder everybody may enter."""
    proved.alias("btag@1", "prod")
    proved.close()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = folder / "registry"
        shutil.copytree(proved.root, root)
        for path in [root, *root.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield root
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755)


def test_a_read_only_registry_can_be_read(readonly: Path) -> None:
    def read() -> object:
        with Registry(readonly) as registry:
            return registry.list()[0].ref, registry.open("btag@prod", "source"), len(registry.verify())

    assert told_in_child(as_nobody(read)) == repr(("btag@1", b"weights", 0))


def test_a_reader_sees_what_a_writer_adds(proved: Registry, files) -> None:
    """A reader without the right to write holds no old state, whether the writer is there or gone."""
    proved.close()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "registry"
        Path(name).chmod(0o755)
        shutil.copytree(proved.root, root)

        def count() -> str:
            return told_in_child(as_nobody(lambda: len(Registry(root).list())))

        assert count() == "1"
        with Registry(root) as writer:
            writer.push("btag", files("more", net_pt="second"))
            assert count() == "2"
            writer.push("btag", files("more", net_pt="third"))
            assert count() == "3"
        assert count() == "3"


def test_a_long_lived_reader_keeps_no_old_state(proved: Registry, files) -> None:
    proved.close()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "registry"
        Path(name).chmod(0o755)
        shutil.copytree(proved.root, root)

        def read() -> object:
            with Registry(root) as registry:
                counts = [len(registry.list())]
                os.write(ready, b"x")
                os.read(go, 1)
                return [*counts, len(registry.list())]

        (wait, ready), (go, release) = os.pipe(), os.pipe()

        def publish() -> None:
            os.read(wait, 1)
            with Registry(root) as writer:
                writer.push("btag", files("more", net_pt="second"))
            os.write(release, b"x")

        publisher = threading.Thread(target=publish)
        publisher.start()
        assert told_in_child(as_nobody(read)) == "[1, 2]"
        publisher.join()


def test_a_read_only_registry_refuses_in_one_line(readonly: Path, tmp_path: Path) -> None:
    source = readonly.parent / "net.bin"
    source.write_text("x")
    for write in (
        lambda: Registry(readonly).push("btag", [source]),
        lambda: Registry(readonly).alias("btag@1", "best"),
        lambda: Registry(readonly).reindex(),
        lambda: Registry(readonly / "below").push("btag", [source]),
    ):
        told = told_in_child(as_nobody(write))
        assert told.startswith("RegistryError: "), told
        assert str(readonly) in told
        assert "\n" not in told


def limited(size: int, work: Callable[[], object]) -> Callable[[], object]:
    """`work` in a process that can make no file larger than `size` bytes: writes fail as on a full disk."""

    def run() -> object:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return work()

    return run


@pytest.mark.parametrize("size", [0, 100, 4096, 10_000, 50_000, 150_000])
def test_a_full_disk(proved: Registry, tmp_path: Path, size: int) -> None:
    """Whatever file it hits (blob, manifest, log, index): a clear error, and all is well with more space."""
    source = tmp_path / "big.bin"
    source.write_bytes(b"x" * 200_000)
    proved.close()
    told = told_in_child(limited(size, lambda: Registry(proved.root).push("btag", [source])))
    assert told.startswith("RegistryError: "), told
    assert "\n" not in told
    assert [s.ref for s in proved.list()] == ["btag@1"]
    assert proved.verify() == []
    assert proved.push("btag", [source]).ref == "btag@2"


def test_a_disk_that_fills_up_between_log_and_index(proved: Registry, tmp_path: Path) -> None:
    """Small files fit, the index's journal does not: the version is in the log, and appears with the next publish."""
    source = tmp_path / "small.bin"
    source.write_bytes(b"x")
    proved.close()
    told = told_in_child(limited(8_000, lambda: Registry(proved.root).push("btag", [source])))
    assert told.startswith("RegistryError: "), told
    assert "index.sqlite" in told
    assert [s.ref for s in proved.list()] == ["btag@1"]
    assert proved.push("btag", [source]).ref == "btag@2"
    assert [s.ref for s in proved.list()] == ["btag@1", "btag@2"]
    assert proved.verify() == []


def test_a_full_disk_while_fetching(proved: Registry, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(b"x" * 200_000)
    proved.push("big", [source])
    told = told_in_child(limited(1000, lambda: proved.get("big", to=tmp_path / "out")))
    assert told.startswith("RegistryError: "), told
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.getuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False).returncode
    ):
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk: Path, but: int = 0) -> Path:
    """Write a file that takes all of the disk but some bytes."""
    path = disk / "fill"
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(path, path.stat().st_size - but)
    return path


def test_a_full_disk_can_be_read(proved: Registry, small: Path, tmp_path: Path) -> None:
    """What WAL lays beside the index finds no room; the index is read as it stands, and seen anew every time."""
    proved.close()
    root = small / "registry"
    shutil.copytree(proved.root, root)
    filling = fill(small)
    with Registry(root) as registry:
        assert [s.ref for s in registry.list()] == ["btag@1"]
        assert len(registry.get("btag@1", to=tmp_path / "out")) == 5
        assert registry.verify() == []
        with pytest.raises(RegistryError, match=r"index\.sqlite: .*disk"):
            registry.alias("btag@1", "dev")
        for export in (lambda: registry.export(small / "tree"), lambda: registry.export_oci(small / "tree")):
            with pytest.raises(RegistryError, match=f"cannot write.*{small}"):
                export()
        filling.unlink()
        with Registry(root) as other:
            other.alias("btag@1", "dev")
        assert registry.list()[0].aliases == ("dev",)
        assert registry.verify() == []


@pytest.mark.parametrize("left", range(4096, 400_000, 16_384))
def test_a_disk_that_is_full_from_the_start(small: Path, files, left: int) -> None:
    """An index that could not be made is none: with more space all is well, and nothing needs to be mended."""
    (source,) = files(net_pt="weights")
    filling = fill(small, left)
    with suppress(RegistryError), Registry(small / "registry") as registry:
        registry.push("btag", [source])
    filling.unlink()
    with Registry(small / "registry") as registry:
        assert registry.push("btag", [source]).ref == "btag@1"
        assert registry.verify() == []


def test_a_clock_set_back(proved: Registry, files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and the newest come from the log, never from the clock."""
    from modelhub_registry.records import Provenance

    then = Provenance("1999-01-01T00:00:00.000000Z", "me", "0.1.0")
    monkeypatch.setattr(Registry, "_provenance", staticmethod(lambda: then))
    assert proved.push("btag", files("more", net_pt="second")).number == 2
    assert proved.version("btag").number == 2
    assert proved.reindex() == []
    assert proved.version("btag").number == 2


def test_twice_in_one_microsecond(registry: Registry, files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same content by the same person at the same time would be the same manifest: the second waits for its own."""
    from modelhub_registry.records import Provenance

    times = iter("112")
    monkeypatch.setattr(
        Registry,
        "_provenance",
        staticmethod(lambda: Provenance(f"2026-01-01T00:00:00.00000{next(times)}Z", "me", "0.1.0")),
    )
    (source,) = files(net_pt="weights")
    versions = [registry.push("btag", [source], again=True) for _ in range(2)]
    assert [v.number for v in versions] == [1, 2]
    assert versions[0].digest != versions[1].digest
    assert registry.verify() == []


def test_blobs_elsewhere(tmp_path: Path, files, report) -> None:
    """The same registry with blobs and log in a store that fsspec speaks."""
    root = tmp_path / "registry"
    root.mkdir()
    url = f"memory://{uuid.uuid4().hex}"
    settings = {"kind": "modelhub.registry", "version": 1, "protected": ["prod"], "blobs": url}
    (root / "registry.json").write_text(json.dumps(settings))
    source, exported = files(net_pt="weights", net_json="{}")
    with Registry(root) as registry:
        registry.push("btag", [source, exported], [report(source, exported)])
        registry.push("btag", [exported])
        registry.alias("btag@1", "prod")
        assert not (root / "blobs").exists()
        assert not (root / "log").exists()
        assert registry.open("btag@prod", "source") == b"weights"
        assert registry.verify() == []
        before = registry.list()
        assert registry.reindex() == []
        assert registry.list() == before
        registry.close()
        (root / "index.sqlite").unlink()
        assert registry.list() == before
        assert registry.push("btag", [source]).number == 3
