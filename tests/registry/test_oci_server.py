"""Versions to and from a real registry server of containers (Debian's docker-registry: the CNCF's distribution)."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from servers import answers, free_port, need, running, until

from modelhub.errors import RegistryError
from modelhub_registry import Registry


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Path]]:
    """The URL of a server, and the folder in which it keeps its bytes."""
    (program,) = need("docker-registry", "docker-registry")
    with TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        config = folder / "config.yml"
        config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"level": "warn", "accesslog": {"disabled": True}},
                    "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                    "http": {"addr": f"127.0.0.1:{port}"},
                }
            )
        )
        environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        with running([program, "serve", str(config)], folder / "log", env=environment):
            until(lambda: answers(port), "docker-registry", folder / "log")
            yield f"oci+http://127.0.0.1:{port}", folder / "data"


@pytest.fixture
def full(proved: Registry, files, report) -> Registry:
    proved.alias("btag@1", "prod")
    proved.push("btag", files("more", net_pt="second"))
    source, json_ = files("t", net_pt="tau", net_json='{"tau": 1}')
    proved.push("tau", [source, json_], [report(source, json_, "different")])
    proved.attach("tau@1", [report(source, json_)])
    return proved


def test_there_and_back(full: Registry, server: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = server
    host = url.removeprefix("oci+http://")
    assert full.push_oci(f"{url}/atlas") == [
        f"{host}/atlas/btag:1", f"{host}/atlas/btag:prod", f"{host}/atlas/btag:2", f"{host}/atlas/tau:1",
    ]  # fmt: skip
    assert len(full.push_oci(f"{url}/atlas", ["btag"])) == 3  # once more is harmless
    with Registry(tmp_path / "other") as other:
        assert [(a.here, a.new) for a in other.pull_oci(f"{url}/atlas", "btag")] == [("btag@1", True), ("btag@2", True)]
        assert [a.here for a in other.pull_oci(f"{url}/atlas", "tau")] == ["tau@1"]
        assert [(s.ref, s.digest, s.verdict, s.aliases) for s in other.list()] == [
            (s.ref, s.digest, s.verdict, s.aliases) for s in full.list()
        ]
        assert other.fsck() == []
        assert not any(a.new for a in other.pull_oci(f"{url}/atlas", "btag"))
        with pytest.raises(RegistryError, match="has no repository for nothing"):
            other.pull_oci(f"{url}/atlas", "nothing")


def test_damage_on_the_server_is_seen(full: Registry, server: tuple[str, Path], tmp_path: Path) -> None:
    """The server itself answers 200 with what is there."""
    url, data = server
    full.push_oci(f"{url}/damaged", ["tau"])
    digest = full.version("tau").manifest.artifact("source").sha256
    (path,) = data.rglob(f"sha256/{digest[:2]}/{digest}/data")
    path.write_bytes(b"TAU")
    with Registry(tmp_path / "other") as other:
        with pytest.raises(RegistryError, match="damaged"):
            other.pull_oci(f"{url}/damaged", "tau")
        assert other.list() == []
        assert other.gc().orphans == ()


def test_what_cannot_be_is_told(full: Registry, files) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(RegistryError, match="refused"):
        full.push_oci(f"oci+http://127.0.0.1:{port}/x")
    full.push("BTag2", files("b", net_pt="x"))
    with pytest.raises(RegistryError, match="small letters"):
        full.push_oci(f"oci+http://127.0.0.1:{port}/x", ["BTag2"])
    for url in ("oci://", "oci://h/../x?y", "oci://user:secret@h/x", "oci://h:x", "ocix://h"):
        with pytest.raises(RegistryError, match="no place on a server") as caught:
            full.push_oci(url)
        assert "\n" not in str(caught.value)
