"""A protected alias moves on evidence only, or by force that is never forgotten."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from modelhub.errors import RegistryError
from modelhub_registry import Registry


def refused(registry: Registry, ref: str, alias: str = "prod") -> str:
    with pytest.raises(RegistryError, match="may not become") as caught:
        registry.alias(ref, alias)
    assert alias not in registry.aliases(ref.partition("@")[0])
    return str(caught.value)


def test_passing_reports_of_every_export_open_it(proved: Registry) -> None:
    proved.alias("btag@1", "prod")
    details = proved.show("btag@prod")
    assert (details.aliases, details.version.verdict) == (("prod",), "equivalent")
    assert [(e.move.forced, e.move.reason) for e in details.moves] == [(False, None)]


def test_without_evidence(registry: Registry, files, report) -> None:
    source, json_, onnx = files(net_pt="weights", net_json="{}", net_onnx="graph")
    registry.push("x", [source, json_, onnx])
    message = refused(registry, "x@1")
    assert "no report covers net.pt with export:json net.json" in message
    assert "no report covers net.pt with export:onnx net.onnx" in message
    registry.push("x", [source, json_, onnx], [report(source, json_)])
    assert "net.json" not in refused(registry, "x@2").replace("net.json.report", "")
    for number, verdict in enumerate(("different", "inconclusive"), start=3):
        registry.push("x", [source, json_, onnx], [report(source, json_), report(source, onnx, verdict)])
        assert f"net.onnx.report.json says {verdict}" in refused(registry, f"x@{number}")
    registry.push("x", [source])
    assert "no export" in refused(registry, "x@5")
    registry.push("x", [("export:json", json_)])
    assert "no source" in refused(registry, "x@6")


def test_a_report_of_other_bytes_does_not_count(registry: Registry, files, report) -> None:
    source, json_, onnx = files(net_pt="weights", net_json="{}", net_onnx="graph")
    told = [report(source, json_), report(source, onnx)]
    onnx.write_text("graph, changed after the check")
    with pytest.raises(RegistryError, match="speaks of other files"):
        registry.push("x", [source, json_, onnx], told)
    registry.push("x", [source, json_, onnx], told[:1])
    assert "export:onnx net.onnx" in refused(registry, "x@1")


def test_a_source_of_two_files_is_covered_whole(registry: Registry, files, report) -> None:
    arch, weights, onnx, other = files(net_json="{}", net_h5="w", net_onnx="graph", other_h5="v")
    registry.push("k", [("source", arch), ("source:weights", weights), onnx], [report(arch, onnx)])
    assert "no report covers net.json and net.h5 with export:onnx net.onnx" in refused(registry, "k@1")
    told = report(arch, onnx, weights=weights)
    with pytest.raises(RegistryError, match="speaks of other files"):
        registry.push("k", [("source", arch), ("source:weights", other), onnx], [told])
    pushed = registry.push("k", [onnx, weights, arch], [told]).manifest  # the report knows the roles
    assert {a.filename: a.role for a in pushed.artifacts} == {
        "net.json": "source",
        "net.h5": "source:weights",
        "net.onnx": "export:onnx",
    }
    registry.alias("k@2", "prod")


@pytest.mark.parametrize("alias", ["prod", "Prod", "PROD"])
def test_capitals_do_not_slip_through(registry: Registry, files, alias: str) -> None:
    registry.push("x", files(net_pt="weights"))
    refused(registry, "x@1", alias)
    registry.alias("x@1", "production-candidate")


def test_force_needs_a_reason_and_is_recorded_for_ever(proved: Registry, files) -> None:
    proved.push("btag", files("more", net_pt="untested"))
    for reason in (None, "", "  ", "x" * 2000):
        with pytest.raises(RegistryError, match="reason"):
            proved.alias("btag@2", "prod", force=True, reason=reason)
    proved.alias("btag@2", "prod", force=True, reason="beam \u2713 tonight")
    proved.alias("btag@1", "prod")
    forced = [(e.move.number, e.move.previous, e.move.forced, e.move.reason) for e in proved.show("btag@2").moves]
    assert forced == [(2, None, True, "beam \u2713 tonight"), (1, 2, False, None)]
    proved.reindex()
    assert [e.move.reason for e in proved.show("btag@2").moves] == ["beam \u2713 tonight", None]


def test_force_is_not_noted_where_it_was_not_needed(proved: Registry) -> None:
    proved.alias("btag@1", "prod", force=True, reason="to be sure")
    assert [e.move.forced for e in proved.show("btag@1").moves] == [False]


def test_damage_closes_it(proved: Registry) -> None:
    sha256 = proved.version("btag").manifest.artifact("export:json").sha256
    blob = proved.root / "blobs" / "sha256" / sha256
    blob.chmod(0o644)
    blob.write_text("other")
    assert f"sha256:{sha256} is damaged" in refused(proved, "btag@1")


def test_a_manifest_that_lies_about_its_report(proved: Registry, files, report) -> None:
    """As another program might write it: the manifest says identical, the report it carries says different."""
    source, json_ = files(net_pt="weights", net_json="{}")
    true = proved.push("liar", [source, json_], [report(source, json_, "different")]).manifest
    false = replace(true, reports=(replace(true.reports[0], verdict="identical"),))
    lying = proved._publish(false, [], [], again=True)
    assert lying.verdict == "identical"
    assert "another verdict" in refused(proved, lying.ref)
    assert any("another verdict" in finding.what for finding in proved.verify())


def test_which_aliases_are_protected_is_a_setting(tmp_path: Path, proved: Registry, files) -> None:
    path = proved.root / "registry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "protected": ["Release", "online"]}))
    with Registry(proved.root) as opened:
        opened.push("x", files("more", net_pt="untested"))
        opened.alias("x@1", "prod")
        refused(opened, "x@1", "release")
        refused(opened, "x@1", "online")


@pytest.mark.parametrize(
    "text", ["", "{}", "nonsense", '{"kind": "modelhub.registry", "version": 2, "protected": [], "blobs": null}',
             '{"kind": "modelhub.registry", "version": 1, "protected": "prod", "blobs": null}',
             '{"kind": "modelhub.registry", "version": 1, "blobs": null}']
)  # fmt: skip
def test_settings_that_cannot_be_read_protect_everything(proved: Registry, text: str) -> None:
    (proved.root / "registry.json").write_text(text)
    with Registry(proved.root) as opened, pytest.raises(RegistryError, match="not the settings of a registry"):
        opened.alias("btag@1", "prod")


def test_an_alias_can_be_removed_and_is_remembered(proved: Registry) -> None:
    proved.alias("btag@1", "dev")
    assert proved.unalias("btag", "dev") == 1
    assert proved.aliases("btag") == {}
    with pytest.raises(RegistryError, match="there is no btag@dev"):
        proved.version("btag@dev")
    with pytest.raises(RegistryError, match="there is no btag@dev"):
        proved.unalias("btag", "dev")
    proved.alias("btag@1", "prod")
    with pytest.raises(RegistryError, match="give a reason"):
        proved.unalias("btag", "prod")
    proved.unalias("btag", "prod", reason="withdrawn")
    moves = [(e.move.alias, e.move.number, e.move.previous, e.move.reason) for e in proved.show("btag@1").moves]
    assert moves == [
        ("dev", 1, None, None),
        ("dev", None, 1, None),
        ("prod", 1, None, None),
        ("prod", None, 1, "withdrawn"),
    ]
    before = proved.list()
    assert proved.reindex() == []
    assert proved.list() == before
    assert proved.aliases("btag") == {}
    assert proved.verify() == []


def test_a_report_that_comes_later_counts(registry: Registry, files, report) -> None:
    source, json_, onnx = files(net_pt="weights", net_json="{}", net_onnx="graph")
    registry.push("x", [source, json_, onnx], [report(source, json_, "different")])
    assert registry.version("x").verdict == "different"
    registry.attach("x@1", [report(source, json_), report(source, onnx)])
    assert registry.version("x").verdict == registry.list("x")[0].verdict == "equivalent"
    registry.alias("x@1", "prod")
    assert registry.version("x@prod").digest == registry.list("x")[0].digest
    registry.attach("x@1", [report(source, onnx, "suspect")])
    assert registry.version("x").verdict == registry.list("x")[0].verdict == "suspect"
    assert "net.onnx.report.json says suspect" in refused(registry, "x@1", "PROD")
    before = registry.list(), registry.version("x")
    assert registry.reindex() == []
    assert (registry.list(), registry.version("x")) == before
    assert registry.verify() == []
    assert registry.which(report(source, onnx, "suspect"))[0].version.ref == "x@1"
    assert registry.gc().orphans == ()


def test_a_report_of_other_files_cannot_be_attached(proved: Registry, files, report) -> None:
    source, other = files("other", net_pt="other weights", net_json="{}")
    with pytest.raises(RegistryError, match="speaks of other files"):
        proved.attach("btag@1", [report(source, other)])


def test_attaching_twice_changes_nothing(proved: Registry, files, report) -> None:
    source, json_ = files(net_pt="weights", net_json='{"a": 1}')
    path = report(source, json_, "identical")
    proved.attach("btag@1", [path])
    entries = len(list((proved.root / "log/btag").iterdir()))
    proved.attach("btag@1", [path])
    assert len(list((proved.root / "log/btag").iterdir())) == entries == 2


@pytest.mark.parametrize(("created", "told"), [
    ("2001-01-01T00:00:00+00:00", "has expired after 365 days"),
    ("2999-01-01T00:00:00+00:00", "made in the future"),
    ("yesterday", "does not say when"),
])  # fmt: skip
def test_reports_expire(registry: Registry, files, report, created: str, told: str) -> None:
    source, json_ = files(net_pt="weights", net_json="{}")
    path = report(source, json_)
    document = json.loads(path.read_text())
    document["created"] = created  # the digest of a report does not cover its time
    path.write_text(json.dumps(document))
    registry.push("x", [source, json_], [path])
    assert told in refused(registry, "x@1")
    registry.attach("x@1", [report(source, json_, seed=2)])
    registry.alias("x@1", "prod")


def test_expiry_is_set_in_registry_json(registry: Registry, files, report) -> None:
    source, json_ = files(net_pt="weights", net_json="{}")
    path = report(source, json_)
    document = json.loads(path.read_text())
    document["created"] = "2001-01-01T00:00:00+00:00"
    path.write_text(json.dumps(document))
    registry.push("x", [source, json_], [path])
    settings = json.loads((registry.root / "registry.json").read_text())
    (registry.root / "registry.json").write_text(json.dumps({**settings, "report_days": None}))
    with Registry(registry.root) as opened:
        opened.alias("x@1", "prod")
        assert opened.show("x@1").moves[0].move.forced is False


def test_newest_passing(proved: Registry, files, report) -> None:
    proved.push("btag", files("b", net_pt="second"))
    assert proved.version("btag").number == 2
    assert proved.version("btag@newest-passing").number == 1
    proved.push("tau", files("b", net_pt="second"))
    with pytest.raises(RegistryError, match="no version of tau has passing reports"):
        proved.version("tau@newest-passing")
    with pytest.raises(RegistryError, match="reserved"):
        proved.alias("btag@1", "newest-passing")
