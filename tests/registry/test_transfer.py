"""Trees of plain files, and versions that cross from one registry to another without changing."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from registry_helpers import digest

from modelhub.errors import RegistryError, UnreadableFile
from modelhub_registry import Registry, tree

CPP = r"""
#include <fstream>
#include <iostream>
#include <sstream>
int main(int, char** argv) {
  std::ifstream file(argv[1]);
  if (!file) return 1;
  std::stringstream text;
  text << file.rdbuf();
  std::cout << text.str();
}
"""


@pytest.fixture
def full(proved: Registry, files, report) -> Registry:
    """Two models, three versions, a report that came later and supersedes one, and aliases."""
    proved.alias("btag@1", "prod")
    proved.push("btag", [*files("b", net_pt="second")], metadata={"area": "BTagging/2026"})
    proved.alias("btag@2", "dev")
    source, json_ = files("t", net_pt="tau", net_json='{"tau": 1}')
    proved.push("tau", [source, json_], [report(source, json_, "different")])
    proved.attach("tau@1", [report(source, json_)])
    return proved


def same(a: Path, b: Path) -> bool:
    return subprocess.run(["diff", "-r", str(a), str(b)], capture_output=True, check=False).returncode == 0


def test_the_tree(full: Registry, tmp_path: Path) -> None:
    root = tmp_path / "GroupData"
    done = full.export(root)
    paths = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and "by-hash" not in p.parts)
    superseded = full.version("tau").manifest.reports[0].sha256
    assert paths == sorted([
        "SHA256SUMS", "index.json",
        "BTagging/2026/btag/2/manifest.json", "BTagging/2026/btag/2/source/net.pt",
        "models/btag/1/manifest.json", "models/btag/1/network.json", "models/btag/1/network.json.report.json",
        "models/btag/1/network.onnx", "models/btag/1/network.onnx.report.json", "models/btag/1/source/net.pt",
        "models/tau/1/manifest.json", "models/tau/1/network.json", "models/tau/1/network.json.report.json",
        f"models/tau/1/reports/{superseded}.json", "models/tau/1/source/net.pt",
    ])  # fmt: skip
    assert (root / "models/btag/1/network.json").read_text() == '{"a": 1}'
    assert done.files == len([p for p in root.rglob("*") if p.is_file()]) == done.written
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=root, check=True)
    index = json.loads((root / "index.json").read_text())
    assert index["aliases"] == {"btag": {"dev": 2, "prod": 1}}
    assert [(v["name"], v["number"], v["verdict"]) for v in index["versions"]] == [
        ("btag", 1, "equivalent"), ("btag", 2, "unchecked"), ("tau", 1, "equivalent"),
    ]  # fmt: skip


def test_repeated_it_gives_the_same_bytes(full: Registry, tmp_path: Path) -> None:
    full.export(tmp_path / "tree-a", archive=tmp_path / "tree-a.zip")
    assert full.export(tmp_path / "tree-a").written == 0
    full.export(tmp_path / "tree-b", archive=tmp_path / "tree-b.zip")
    assert same(tmp_path / "tree-a", tmp_path / "tree-b")
    assert (tmp_path / "tree-a.zip").read_bytes() == (tmp_path / "tree-b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "tree-a.zip") as archive:
        archive.extractall(tmp_path / "tree-c")
    assert same(tmp_path / "tree-a", tmp_path / "tree-c")


def test_it_grows_and_mends(full: Registry, tmp_path: Path, files) -> None:
    """In steps or at once, from a mended tree or a new one: the bytes are the same."""
    full.export(tmp_path / "tree-a", "name=tau")
    full.export(tmp_path / "tree-a")
    (tmp_path / "tree-a/models/btag/1/network.json").write_text("{}")
    (tmp_path / "tree-a/models/btag/1/network.onnx").unlink()
    assert full.export(tmp_path / "tree-a").written == 2
    full.export(tmp_path / "tree-b")
    assert same(tmp_path / "tree-a", tmp_path / "tree-b")
    full.push("btag", files("n", net_pt="new"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "tree-a/models/btag/1").iterdir()}
    full.export(tmp_path / "tree-a")
    assert (tmp_path / "tree-a/models/btag/3/source/net.pt").read_text() == "new"
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "tree-a/models/btag/1").iterdir()} == before


def test_a_stray_file_is_known_with_and_without_the_registry(full: Registry, tmp_path: Path) -> None:
    root = tmp_path / "GroupData"
    full.export(root)
    stray = root / "models/btag/1/network.json"
    assert [(f.version.ref, f.role) for f in full.which(stray)] == [("btag@1", "export:json")]
    full.close()
    shutil.rmtree(full.root)
    (held,) = tree.which(root, digest(stray))
    assert (held.ref, held.role, held.verdict) == ("btag@1", "export:json", "equivalent")
    for path in root.rglob("*"):
        if path.is_file() and "by-hash" not in path.parts and path.parent != root:
            assert tree.which(root, digest(path)), path
    assert tree.which(root, "0" * 64) == []
    with pytest.raises(RegistryError, match="not an exported tree"):
        tree.which(tmp_path, "0" * 64)


def test_cpp_reads_it_with_ifstream(full: Registry, tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    full.export(tmp_path / "GroupData")
    (tmp_path / "read.cc").write_text(CPP)
    subprocess.run(["g++", "-std=c++17", "read.cc", "-o", "read"], cwd=tmp_path, check=True)
    path = tmp_path / "GroupData/models/btag/1/network.json"
    done = subprocess.run([str(tmp_path / "read"), str(path)], capture_output=True, check=True)
    assert done.stdout == path.read_bytes() == full.open("btag@1", "export:json")


def versions(registry: Registry) -> list[tuple[str, str, str]]:
    return [(s.ref, s.digest, s.verdict) for s in registry.list()]


@pytest.mark.parametrize("way", ["tree", "oci", "pull"])
def test_versions_keep_their_identity(full: Registry, tmp_path: Path, way: str) -> None:
    with Registry(tmp_path / "other") as other:

        def bring():
            if way == "tree":
                full.export(tmp_path / "tree")
                return other.import_tree(tmp_path / "tree")
            if way == "oci":
                full.export_oci(tmp_path / "oci")
                return other.import_oci(tmp_path / "oci")
            return other.pull(full)

        assert [(a.there, a.here, a.new) for a in bring()] == [
            ("btag@1", "btag@1", True), ("btag@2", "btag@2", True), ("tau@1", "tau@1", True),
        ]  # fmt: skip
        assert versions(other) == versions(full)
        assert other.aliases("btag") == full.aliases("btag")
        assert other.version("tau").attached == full.version("tau").attached
        assert other.fsck() == []
        assert not any(a.new for a in bring())
        assert versions(other) == versions(full)
        assert other.reindex() == []
        assert versions(other) == versions(full)


def test_what_is_damaged_here_is_mended_by_what_arrives(full: Registry, tmp_path: Path) -> None:
    with Registry(tmp_path / "other") as other:
        other.pull(full)
        blob = other.root / "blobs/sha256" / other.version("tau").manifest.artifact("source").sha256
        blob.chmod(0o644)
        blob.write_bytes(b"damaged")
        assert other.verify() != []
        assert not any(a.new for a in other.pull(full))
        assert other.verify() == []


def test_numbers_are_given_anew(full: Registry, tmp_path: Path, files) -> None:
    with Registry(tmp_path / "other") as other:
        other.push("btag", files("mine", net_pt="mine"))
        assert [a.here for a in other.pull(full, ["btag"])] == ["btag@2", "btag@3"]
        assert other.aliases("btag") == {"prod": 2, "dev": 3}
        with pytest.raises(RegistryError, match="has no model nothing"):
            other.pull(full, ["nothing"])


def test_a_protected_alias_passes_the_gate_where_it_arrives(full: Registry, tmp_path: Path) -> None:
    full.alias("btag@2", "prod", force=True, reason="test")
    with Registry(tmp_path / "other") as other:
        with pytest.raises(RegistryError, match="may not become 'prod'"):
            other.pull(full)
        assert "prod" not in other.aliases("btag")
        assert len(other.pull(full, aliases=False)) == 3


@pytest.mark.parametrize("way", ["tree", "oci"])
def test_a_damaged_tree_is_refused_and_nothing_comes_in(full: Registry, tmp_path: Path, way: str) -> None:
    if way == "tree":
        full.export(tmp_path / "x", "name=tau")
    else:
        full.export_oci(tmp_path / "x", "name=tau")
    paths = [
        p for p in (tmp_path / "x").rglob("*") if p.is_file() and "by-hash" not in p.parts and p.name != "SHA256SUMS"
    ]
    for number, path in enumerate(paths):
        data = path.read_bytes()
        for damaged in (data[:-1], data.replace(b"e", b"f", 1), None):
            if damaged == data or (damaged is not None and path.name == "oci-layout"):
                continue
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with Registry(tmp_path / f"other-{number}") as other:
                arrived: object = ()
                with suppress(RegistryError, UnreadableFile):  # anything else is a fault
                    arrived = other.import_tree(tmp_path / "x") if way == "tree" else other.import_oci(tmp_path / "x")
                # what was changed may say nothing about the files, as the name of a layout
                assert not arrived or versions(other)[0][1] == versions(full)[2][1], path
                if other.list():
                    assert other.verify() == []
            path.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["versions"][0]["files"][0].update(path="../../secret"),
        lambda d: d["versions"][0]["files"][0].update(path="/etc/passwd"),
        lambda d: d["versions"][0].update(name="../x"),
        lambda d: d["versions"][0].update(digest="x"),
        lambda d: d["versions"][0].pop("files"),
        lambda d: d["aliases"].update({"btag": {"../x": 1}}),
        lambda d: d["aliases"].update({"btag": 1}),
        lambda d: d.update(versions=None),
        lambda d: d.update(kind="other"),
    ],
)
def test_hostile_indexes(full: Registry, tmp_path: Path, change) -> None:
    full.export(tmp_path / "x")
    document = json.loads((tmp_path / "x/index.json").read_text())
    change(document)
    (tmp_path / "x/index.json").write_text(json.dumps(document))
    with Registry(tmp_path / "other") as other:
        with pytest.raises(RegistryError, match="not the index of a tree") as caught:
            other.import_tree(tmp_path / "x")
        assert "\n" not in str(caught.value)
        assert other.list() == []


def test_the_oci_layout(full: Registry, tmp_path: Path) -> None:
    done = full.export_oci(tmp_path / "tree-a")
    assert done.written > 0
    assert full.export_oci(tmp_path / "tree-a").written == 0
    full.export_oci(tmp_path / "tree-b")
    assert same(tmp_path / "tree-a", tmp_path / "tree-b")
    index = json.loads((tmp_path / "tree-a/index.json").read_text())
    tags = [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]]
    assert tags == ["btag.1", "btag.2", "btag.dev", "btag.prod", "tau.1"]
    for entry in index["manifests"]:
        path = tmp_path / "tree-a/blobs/sha256" / entry["digest"].removeprefix("sha256:")
        assert (digest(path), path.stat().st_size) == (path.name, entry["size"])
        manifest = json.loads(path.read_text())
        for blob in (manifest["config"], *manifest["layers"]):
            file = tmp_path / "tree-a/blobs/sha256" / blob["digest"].removeprefix("sha256:")
            assert (digest(file), file.stat().st_size) == (file.name, blob["size"])
