"""Registries that are not a folder: blobs at a URL, the index in a database named by URL."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from modelhub.errors import RegistryError
from modelhub_registry import Registry
from modelhub_registry.database import open_database
from modelhub_registry.database_server import Server
from modelhub_registry.log import Head
from modelhub_registry.remote import Remote, without_secrets
from modelhub_registry.stores import staged


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/models"


def test_a_url_and_a_database(tmp_path: Path, url: str, files, report) -> None:
    database = f"sqlite:///{tmp_path}/index.sqlite"
    source, exported = files(net_pt="weights", net_json="{}")
    with Registry(url, database) as registry:
        assert registry.list() == []
        assert registry.push("btag", [source, exported], [report(source, exported)]).ref == "btag@1"
        registry.alias("btag@1", "prod")
        assert registry.verify() == []
    with Registry(url, database) as other:
        assert other.open("btag@prod", "source") == b"weights"
    assert Remote(url).list("") == ["blobs", "incoming", "log", "registry.json"]
    assert Remote(url).list("incoming") == []
    with Registry(url, f"sqlite:///{tmp_path}/another.sqlite") as fresh:  # an index is made from the log
        assert fresh.version("btag@prod").number == 1


def test_a_url_alone_says_what_is_missing(url: str, files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for use in (lambda: Registry(url).push("btag", files(a_bin="x")), lambda: Registry(url).version("btag")):
        with pytest.raises(RegistryError, match="MODELHUB_DATABASE"):
            use()
    assert Remote(url).list("") == []
    monkeypatch.setenv("MODELHUB_DATABASE", f"sqlite:///{tmp_path}/index.sqlite")
    monkeypatch.setenv("MODELHUB_REGISTRY", url)
    assert Registry().push("btag", files(a_bin="x")).ref == "btag@1"


def test_a_folder_that_names_servers(tmp_path: Path, url: str, files) -> None:
    root = tmp_path / "registry"
    root.mkdir()
    settings = {"kind": "modelhub.registry", "version": 1, "protected": [], "blobs": url}
    settings["database"] = f"sqlite:///{tmp_path}/elsewhere.sqlite"
    (root / "registry.json").write_text(json.dumps(settings))
    assert Registry(root).push("btag", files(a_bin="x")).ref == "btag@1"
    assert [path.name for path in root.iterdir()] == ["registry.json"]
    assert (tmp_path / "elsewhere.sqlite").exists()


def test_file_urls_are_folders(tmp_path: Path, files) -> None:
    with Registry(f"file://{tmp_path}/a%20b") as registry:
        registry.push("btag", files(a_bin="x"))
    assert (tmp_path / "a b" / "index.sqlite").exists()


@pytest.mark.parametrize(
    ("database", "told"),
    [("nonsense", "as a URL"), ("sqlite://", "names? a file|in memory"), ("oracle+nosuch://h/d", "nosuch|oracle")],
)
def test_databases_that_are_none(tmp_path: Path, database: str, told: str, files) -> None:
    with pytest.raises(RegistryError, match=told):
        Registry(tmp_path / "r", database).push("btag", files(a_bin="x"))


def test_an_unreachable_database_is_one_line_without_the_password(tmp_path: Path, files) -> None:
    with pytest.raises(RegistryError) as caught:
        Registry(tmp_path / "r", "postgresql://me:geheim@127.0.0.1:1/x").push("btag", files(a_bin="x"))
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(open_database("postgresql://h/d", lambda db: None, lambda db: None), Server)


def test_urls_are_told_without_secrets() -> None:
    assert without_secrets("s3://key:secret@bucket/models?token=x#y") == "s3://bucket/models"


@pytest.mark.parametrize("local", [True, False])
def test_two_indexes_on_one_log_are_told(tmp_path: Path, url: str, files, local: bool) -> None:
    """The second index has not seen what the first wrote after it looked: nothing is overwritten."""
    first = Registry(tmp_path / "registry" if local else url, f"sqlite:///{tmp_path}/1.sqlite")
    first.push("btag", files(a_bin="1"))
    with pytest.raises(RegistryError, match="another index"):
        first._log.append(first._log.next("btag", Head()))
    assert first.verify() == []


def test_a_damaged_upload_never_gets_a_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers well and stores something else."""
    store = Remote(url)
    real = type(store._system).put_file

    def lossy(self, local: str, remote: str, **more: object) -> None:
        real(self, local, remote, **more)
        with self.open(remote, "rb") as file:
            data = file.read()
        with self.open(remote, "wb") as file:
            file.write(data[:-1] + b"?")

    monkeypatch.setattr(type(store._system), "put_file", lossy)
    with staged(store, [b"weights"]) as blob:
        with pytest.raises(RegistryError, match="reads back as something else"):
            store.prepare([(blob, "blobs/sha256/x")])()
        with pytest.raises(RegistryError, match="reads back as something else"):
            store.place([(blob, "blobs/sha256/x")])
    assert not store.has("blobs/sha256/x")
    assert store.list("incoming") == []


def test_what_gc_took_between_prepare_and_place_is_uploaded_again(url: str) -> None:
    store = Remote(url)
    for _ in range(2):
        with staged(store, [b"weights"]) as blob:
            store.prepare([(blob, "blobs/x")])()
            store.place([(blob, "blobs/x")])
    with staged(store, [b"weights"]) as blob:
        store.prepare([(blob, "blobs/x")])()
        store.delete("blobs/x")
        store.place([(blob, "blobs/x")])
    assert b"".join(store.read("blobs/x")) == b"weights"
    assert store.list("incoming") == []


@pytest.mark.parametrize("place", ["oci://registry.cern.ch/atlas", "oci+http://127.0.0.1:5000/models"])
def test_a_server_of_containers_is_no_registry(place: str) -> None:
    with pytest.raises(RegistryError, match=r"server of containers.*mirror"):
        Registry(place)


def test_a_server_that_is_not_there_is_told_soon() -> None:
    """XRootD by itself would try for ten minutes, and tell of its own inside."""
    if importlib.util.find_spec("fsspec_xrootd") is None:
        pytest.skip("the Python package fsspec-xrootd is not installed")
    program = "from modelhub_registry import Registry; Registry('root://127.0.0.1:1//m', 'sqlite:////tmp/none').list()"
    environment = {**os.environ, "XRD_CONNECTIONWINDOW": "1"}
    environment.pop("XRD_CONNECTIONRETRY", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    told = done.stderr.splitlines()[-1]
    assert "RegistryError: root://127.0.0.1:1//m: cannot" in told
    assert "<" not in told
