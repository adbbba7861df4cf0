"""The blob store: one contract for the local folder and for what fsspec speaks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from modelhub.errors import RegistryError
from modelhub_registry.blobs import Blobs
from modelhub_registry.remote import Remote
from modelhub_registry.stores import Folder, Store, staged

DATA = b"some weights" * 1000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["folder", "remote"])
def store(request, tmp_path: Path) -> Store:
    return Folder(tmp_path / "store") if request.param == "folder" else Remote(f"memory://{uuid.uuid4().hex}/store")


def put(store: Store, data: bytes = DATA) -> str:
    with staged(store, [data[:100], data[100:]]) as blob:
        items = [Blobs(store).item(blob)]
        store.prepare(items)()
        store.place(items)
    return blob.sha256


def replace(store: Store, sha256: str, data: bytes) -> None:
    """Change a stored blob behind the registry's back."""
    with staged(store, [data]) as blob:
        store.delete(key := f"blobs/sha256/{sha256}")
        store.prepare([(blob, key)])()
        store.place([(blob, key)])


def test_put_get_list_delete(store: Store, tmp_path: Path) -> None:
    blobs = Blobs(store)
    assert blobs.list() == []
    assert not blobs.has(SHA)
    assert put(store) == SHA
    assert put(store) == SHA  # once more changes nothing
    other = put(store, b"other")
    assert blobs.list() == sorted([SHA, other])
    assert blobs.has(SHA)
    assert blobs.get(SHA) == DATA
    blobs.save(SHA, tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == DATA
    blobs.delete(SHA)
    blobs.delete(SHA)
    assert not blobs.has(SHA)
    assert blobs.list() == [other]


@pytest.mark.parametrize("damaged", [DATA[:-1], DATA + b"x", DATA.replace(b"some", b"sume", 1), b""], ids=len)
def test_damaged_blobs_are_never_handed_out(store: Store, damaged: bytes, tmp_path: Path) -> None:
    put(store)
    replace(store, SHA, damaged)
    blobs = Blobs(store)
    for read in (blobs.get, blobs.verify, lambda sha256: blobs.save(sha256, tmp_path / "x")):
        with pytest.raises(RegistryError, match=f"{SHA} is damaged"):
            read(SHA)
    put(store)  # the same bytes again mend it
    assert blobs.get(SHA) == DATA


def test_missing_blob(store: Store) -> None:
    with pytest.raises(RegistryError, match="is missing"):
        Blobs(store).get(SHA)


def test_limit(store: Store) -> None:
    put(store)
    with pytest.raises(RegistryError, match="larger than the limit"):
        Blobs(store).get(SHA, limit=len(DATA) - 1)


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "ab", "0" * 63 + "\n", "0" * 63 + "/"])
def test_what_is_no_digest_never_becomes_a_path(store: Store, digest: str) -> None:
    blobs = Blobs(store)
    for verb in (blobs.get, blobs.has, blobs.delete, blobs.verify):
        with pytest.raises(RegistryError, match="SHA-256"):
            verb(digest)


def test_nothing_staged_is_left_behind(tmp_path: Path) -> None:
    store = Folder(tmp_path / "store")
    with pytest.raises(RegistryError, match="No space left"), staged(store, _out_of_space()):
        pass
    with staged(store, [b"never placed"]):
        assert len(list(store.staging.iterdir())) == 1
    assert list(store.staging.iterdir()) == []


def _out_of_space():
    yield b"x"
    raise OSError(28, "No space left on device")


def test_folder_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File synced, renamed, then every folder with a new entry synced: in another order a power cut may tear it."""
    events: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.replace

    def watched_fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        events.append(("fsync", str(path.relative_to(tmp_path))))
        fsync(handle)

    def watched_rename(path: Path, target: str) -> None:
        events.append(("rename", str(Path(target).relative_to(tmp_path))))
        rename(path, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to name what is synced")
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_rename)
    put(Folder(tmp_path))
    assert events[0][1].startswith("incoming/")
    renamed = events.index(("rename", f"blobs/sha256/{SHA}"))
    after = {path for what, path in events[renamed:] if what == "fsync"}
    assert after == {"blobs/sha256", "blobs", "."}


def test_blobs_are_read_only(tmp_path: Path) -> None:
    put(Folder(tmp_path))
    assert (tmp_path / "blobs" / "sha256" / SHA).stat().st_mode & 0o222 == 0


def test_a_local_registry_needs_neither_fsspec_nor_numpy(tmp_path: Path) -> None:
    """A publish asks the formats whose file it is, which may cost more; a look-up costs nothing of the kind."""
    source, root = tmp_path / "net.bin", tmp_path / "registry"
    source.write_text("x")
    start = f"import sys; from modelhub_registry import Registry; registry = Registry({str(root)!r}); "
    push = f"registry.push('btag', [{str(source)!r}]); assert not {{'fsspec', 'onnx'}} & set(sys.modules)"
    look = (
        "registry.open('btag', 'source'); registry.verify(); assert not {'fsspec', 'onnx', 'numpy'} & set(sys.modules)"
    )
    for script in (push, look):
        subprocess.run([sys.executable, "-c", start + script], check=True)


def test_unknown_protocol_is_told() -> None:
    with pytest.raises(RegistryError, match="cannot open the store"):
        Remote("nosuchthing://x")
