"""Publish, look up, fetch, point aliases: the registry on a real folder and a real SQLite file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from registry_helpers import digest

from modelhub.errors import RegistryError, UnreadableFile
from modelhub_registry import Registry


def test_publish_and_look_up(registry: Registry, files, report) -> None:
    source, exported = files(net_pt="weights", net_json='{"a": 1}')
    interface = {"inputs": [{"name": "pt", "offset": 0, "scale": 1}], "class_labels": ["b"]}
    version = registry.push(
        "btag",
        [source, exported],
        [report(source, exported)],
        metadata={"auc": 0.93, "tags": ["a"]},
        interface=interface,
    )
    assert (version.ref, version.number, version.new, version.verdict) == ("btag@1", 1, True, "equivalent")
    for ref in ("btag", "btag@1", f"btag@sha256:{version.digest}", f"btag@sha256:{version.digest[:8]}"):
        assert registry.version(ref) == version
    manifest = version.manifest
    assert [(a.role, a.filename, a.sha256, a.size) for a in manifest.artifacts] == [
        ("export:json", "net.json", digest(exported), 8),
        ("source", "net.pt", digest(source), 7),
    ]
    assert manifest.metadata == {"auc": 0.93, "tags": ["a"]}
    assert manifest.interface is not None
    assert manifest.interface["inputs"][0]["features"][0]["name"] == "pt"
    assert manifest.reports[0].covers == {"source": digest(source), "target": digest(exported)}
    assert registry.open("btag", "source") == b"weights"
    with pytest.raises(RegistryError, match="has no 'export:onnx', only export:json, source"):
        registry.open("btag", "export:onnx")


def test_numbers_count_up_per_name_and_content_is_kept_once(registry: Registry, files) -> None:
    one, two = files(a_bin="1", b_bin="2")
    assert [registry.push("x", [p]).ref for p in (one, two)] == ["x@1", "x@2"]
    assert registry.push("y", [one]).ref == "y@1"
    same = registry.push("x", [one])
    assert (same.ref, same.new) == ("x@1", False)
    again = registry.push("x", [one], again=True)
    assert (again.ref, again.new) == ("x@3", True)
    assert registry.push("x", [one]).ref == "x@3"  # the newest with this content
    assert registry.push("x", [one], metadata={"k": 1}).ref == "x@4"
    assert len({s.digest for s in registry.list("x")}) == 4
    assert len(list((registry.root / "blobs" / "sha256").iterdir())) == 2 + 5
    assert registry.version("x").number == 4


def test_a_repeated_publish_mends_a_damaged_file(registry: Registry, files) -> None:
    (source,) = files(a_bin="1")
    registry.push("x", [source])
    blob = registry.root / "blobs" / "sha256" / digest(source)
    blob.unlink()
    assert registry.verify() != []
    assert not registry.push("x", [source]).new
    assert registry.verify() == []


def test_roles(registry: Registry, files, report) -> None:
    first, second, third = files(net_json="{}", net_pt="w", net_onnx="o")
    roles = {a.filename: a.role for a in registry.push("order", [first, second, third]).manifest.artifacts}
    assert roles == {"net.json": "source", "net.pt": "export:pt", "net.onnx": "export:onnx"}
    told = registry.push("reports", [first, second, third], [report(second, first)]).manifest
    assert {a.filename: a.role for a in told.artifacts}["net.pt"] == "source"
    said = registry.push("said", [("graph", first), ("source", second), ("export:onnx", third)]).manifest
    assert {a.filename: a.role for a in said.artifacts} == {
        "net.json": "graph",
        "net.pt": "source",
        "net.onnx": "export:onnx",
    }
    with pytest.raises(RegistryError, match="two files have the role source"):
        registry.push("x", [("source", first), ("source", second)])
    with pytest.raises(RegistryError, match="two files are called"):
        registry.push("x", [first, *files("elsewhere", net_json="other")])


def test_a_source_given_as_an_export(registry: Registry, files, fixtures: Path) -> None:
    """No exporter writes torch archives, so a torch file behind another cannot be meant as an export."""
    (network,), torch = files(net_json="{}"), fixtures / "torch" / "dl1" / "net.pt2"
    with pytest.raises(RegistryError, match="nothing writes torch, so it cannot be an export"):
        registry.push("x", [network, torch])
    artifacts = registry.push("x", [torch, network]).manifest.artifacts
    assert [(a.role, a.format) for a in artifacts] == [("export:json", "json"), ("source", "torch")]


def test_two_files_of_one_source(registry: Registry, files) -> None:
    arch, weights, export = files(arch_json="{}", weights_h5="w", net_onnx="o")
    version = registry.push("k", [("source", arch), ("source:weights", weights), export])
    assert [a.role for a in version.manifest.artifacts] == ["export:onnx", "source", "source:weights"]


def test_list(registry: Registry, files) -> None:
    assert registry.list() == []  # and no registry is made by asking
    assert not registry.root.exists()
    one, two = files(a_bin="1", b_bin="2")
    registry.push("x", [one, two])
    registry.push("x", [two])
    registry.push("a", [two])
    registry.alias("x@1", "best")
    registry.alias("x@1", "also")
    found = registry.list()
    assert [s.ref for s in found] == ["a@1", "x@1", "x@2"]
    assert [s.aliases for s in found] == [(), ("also", "best"), ()]
    assert (found[1].source, found[1].exports, found[1].verdict) == ("bin", ("bin",), "unchecked")
    assert found[1:] == registry.list("x")
    with pytest.raises(RegistryError, match="there is no model 'nothere'"):
        registry.list("nothere")


def test_which(registry: Registry, files, report, proved: Registry) -> None:
    source, exported = files(net_pt="weights", net_json='{"a": 1}')
    other, stray = files("elsewhere", copy_json='{"a": 1}', stray_bin="nobody's")
    registry.push("second", [source])
    assert [(h.version.ref, h.role) for h in proved.which(other)] == [("btag@1", "export:json")]
    assert [(h.version.ref, h.role) for h in proved.which(source)] == [("btag@1", "source"), ("second@1", "source")]
    sha256 = digest(exported)
    for text in (sha256, f"sha256:{sha256}", sha256[:8], f"sha256:{sha256[:12]}"):
        assert [h.role for h in proved.which(text)] == ["export:json"]
    assert proved.which(stray) == []
    assert [h.role for h in proved.which(proved.version("btag").digest)] == ["manifest"]
    assert [h.role for h in proved.which(proved.version("btag").manifest.reports[0].sha256)] == ["report"]
    with pytest.raises(UnreadableFile):
        proved.which("not-a-digest.json")


def test_aliases(registry: Registry, files) -> None:
    for content in "123":
        registry.push("x", files(a_bin=content))
    registry.alias("x@1", "best")
    assert registry.version("x@best").number == 1
    registry.alias("x@3", "best", reason="better")
    registry.alias("x@best", "champion")
    registry.alias("x@3", "best")  # already there: no event
    assert registry.aliases("x") == {"best": 3, "champion": 3}
    details = registry.show("x@champion")
    assert details.aliases == ("best", "champion")
    assert [(e.move.alias, e.move.number, e.move.previous, e.move.reason) for e in details.moves] == [
        ("best", 3, 1, "better"),
        ("champion", 3, None, None),
    ]
    assert [e.move.number for e in registry.show("x@1").moves] == [1, 3]
    with pytest.raises(RegistryError, match="there is no x@nothere; versions go up to 3, aliases: best, champion"):
        registry.version("x@nothere")
    for bad in ("3", "latest", "a/b", ""):
        with pytest.raises(RegistryError):
            registry.alias("x@1", bad)


def test_get(proved: Registry, tmp_path: Path) -> None:
    paths = proved.get("btag@1", to=tmp_path / "new" / "folder")
    names = {p.name for p in paths}
    assert names == {"net.pt", "net.json", "net.onnx", "net.json.report.json", "net.onnx.report.json"}
    for path in paths:
        assert digest(path) == digest(tmp_path / "in" / path.name) if path.suffix != ".json" else path.exists()
    assert json.loads((tmp_path / "new" / "folder" / "net.onnx.report.json").read_text())["verdict"] == "identical"
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == names
    assert proved.get("btag@1", to=tmp_path / "new" / "folder") == paths  # the same bytes are there: fine
    (tmp_path / "new" / "folder" / "net.json").write_text("edited by hand")
    with pytest.raises(RegistryError, match="is there with other content"):
        proved.get("btag@1", to=tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "net.json").read_text() == "edited by hand"
    assert [p.name for p in proved.get("btag", "export:onnx", tmp_path / "one")] == ["net.onnx"]


def test_get_writes_nothing_when_a_file_is_damaged(proved: Registry, tmp_path: Path) -> None:
    sha256 = proved.version("btag").manifest.artifact("source").sha256
    (proved.root / "blobs" / "sha256" / sha256).unlink()
    with pytest.raises(RegistryError, match="is missing"):
        proved.get("btag", to=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_names_that_differ_in_capitals_only(registry: Registry, files) -> None:
    registry.push("BTag", files(a_bin="1"))
    with pytest.raises(RegistryError, match="'btag' differs from 'BTag' in capital letters only"):
        registry.push("btag", files(a_bin="2"))
    assert registry.verify() == []
    assert registry.push("BTag", files(a_bin="2")).number == 2


def test_what_cannot_be_published(registry: Registry, files, tmp_path: Path) -> None:
    (good,) = files(a_bin="1")
    (tmp_path / "empty.bin").touch()
    (tmp_path / "caf\u00e9.bin").write_text("x")
    for bad in (tmp_path / "nothere.bin", tmp_path, tmp_path / "empty.bin", Path("/dev/zero")):
        with pytest.raises(UnreadableFile):
            registry.push("x", [good, ("graph", bad)])
    for items, metadata in [
        ([], {}), ([tmp_path / "caf\u00e9.bin"], {}), ([("../x", good)], {}),
        ([good], {"a/b": 1}), ([good], {"a": float("nan")}), ([good], {"a": {1, 2}}), ([good], {"x" * 10_000: 1}),
    ]:  # fmt: skip
        with pytest.raises(RegistryError):
            registry.push("x", items, metadata=metadata)
    assert registry.list() == []
    assert list((registry.root / "incoming").iterdir()) == []
    assert not (registry.root / "blobs").exists()


def test_reports_must_be_about_these_files_and_untouched(registry: Registry, files, report, tmp_path: Path) -> None:
    source, exported, other = files(net_pt="weights", net_json="{}", other_json="[]")
    told = report(source, exported, "different")
    with pytest.raises(RegistryError, match="speaks of other files"):
        registry.push("x", [source, other], [told])
    forged = tmp_path / "forged.json"
    forged.write_text(told.read_text().replace('"different"', '"identical"'))
    with pytest.raises(RegistryError, match="changed after it was written"):
        registry.push("x", [source, exported], [forged])
    with pytest.raises(RegistryError, match="two reports compare"):
        registry.push("x", [source, exported], [told, report(source, exported, "different", seed=2)])
    for text in ("", "[]", "{}", '{"version": 2}', "nonsense", '{"version":1,"verdict":"identical","parties":{}}'):
        forged.write_text(text)
        with pytest.raises((RegistryError, UnreadableFile)):
            registry.push("x", [source, exported], [forged])
    assert registry.push("x", [source, exported], [told]).verdict == "different"  # honest evidence is kept


def test_the_interface_comes_from_the_reports(registry: Registry, files, report) -> None:
    source, json_, onnx = files(net_pt="weights", net_json="{}", net_onnx="graph")

    def record(name: str) -> dict[str, object]:
        return {"version": 1, "inputs": [{"name": name, "features": [{"name": "pt"}]}], "outputs": []}

    told = [report(source, json_, interface=record("jet")), report(source, onnx)]
    pushed = registry.push("x", [source, json_, onnx], told).manifest.interface
    assert pushed is not None
    assert pushed["inputs"][0]["name"] == "jet"
    two = [told[0], report(source, onnx, interface=record("track"), seed=2)]
    with pytest.raises(RegistryError, match="different interface records"):
        registry.push("x", [source, json_, onnx], two)
    said = registry.push("x", [source, json_, onnx], two, interface=record("muon")).manifest.interface
    assert said is not None
    assert said["inputs"][0]["name"] == "muon"


def test_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELHUB_REGISTRY", str(tmp_path / "there"))
    assert Registry().root == tmp_path / "there"
    monkeypatch.delenv("MODELHUB_REGISTRY")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Registry().root == tmp_path / ".modelhub" / "registry"


def test_asking_makes_no_registry(registry: Registry) -> None:
    for ask in (
        lambda: registry.version("x"), lambda: registry.show("x"), lambda: registry.aliases("x"), registry.verify,
        registry.reindex, lambda: registry.alias("x", "y"), lambda: registry.get("x"), lambda: registry.which("0" * 64),
        lambda: registry.list("x"),
    ):  # fmt: skip
        with pytest.raises(RegistryError, match="there is no registry in"):
            ask()
    assert not registry.root.exists()


def test_the_registry_can_be_moved(proved: Registry, tmp_path: Path) -> None:
    proved.close()
    shutil.move(proved.root, tmp_path / "moved")
    with Registry(tmp_path / "moved") as moved:
        assert moved.verify() == []
        assert moved.open("btag", "source") == b"weights"


def test_import_is_cheap() -> None:
    script = "import time; t = time.perf_counter(); import modelhub_registry; print(time.perf_counter() - t)"
    took = [
        float(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout) for _ in range(3)
    ]
    assert min(took) < 0.15


def test_provenance(registry: Registry, files) -> None:
    made = registry.push("x", files(a_bin="1")).manifest.provenance
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", made.created)
    assert made.by
    assert made.modelhub == __import__("modelhub").__version__
