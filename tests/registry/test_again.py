"""Checks run again, with the engines that are there; and versions side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import pytest
from onnx import TensorProto, helper, numpy_helper, save

import modelhub
from modelhub.data import DataSpec
from modelhub.equivalence.check import check
from modelhub.errors import RegistryError
from modelhub_registry import Registry
from modelhub_registry.evidence import evidence


def network(path: Path, weight: float = 2.0) -> Path:
    """y = 2 x + 1 as ONNX, with names."""
    import numpy as np

    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(np.array([[weight]], "f4"), "w"), numpy_helper.from_array(np.array([1.0], "f4"), "b")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def checked(registry: Registry, tmp_path: Path) -> Registry:
    """line@1: an ONNX source, the lwtnn JSON made from it, and the report of a real check."""
    source, target = network(tmp_path / "net.onnx"), tmp_path / "net.json"
    report = modelhub.convert(source, target)
    (tmp_path / "report.json").write_text(report.dumps())
    registry.push("line", [("source", source), ("export:json", target)], [tmp_path / "report.json"])
    return registry


def test_the_same_engines_say_the_same(checked: Registry) -> None:
    (again,) = checked.reverify()
    assert (again.ref, again.target, again.then, again.attached) == ("line@1", "export:json", again.now, False)
    assert again.now in ("identical", "equivalent")
    assert again.changes == ()
    assert checked.version("line").attached == ()


def test_what_changed_is_told_and_can_be_attached(checked: Registry, tmp_path: Path) -> None:
    """As if the first check had been made with another engine, and had found a difference."""
    from modelhub.equivalence.digest import digest

    stored = json.loads((tmp_path / "report.json").read_text())
    stored["verdict"] = "different"
    stored["software"] = {**stored["software"], "onnxruntime": "1.0.0"}
    stored["legs"][0]["verdict"] = "different"
    stored["digest"] = digest(stored)
    (tmp_path / "old.json").write_text(json.dumps(stored))
    assert evidence((tmp_path / "old.json").read_bytes(), "old").verdict == "different"
    checked.attach("line@1", [tmp_path / "old.json"])
    assert checked.version("line").verdict == "different"
    (again,) = checked.reverify("name=line", attach=True)
    assert (again.then, again.now) in (("different", "equivalent"), ("different", "identical"))
    assert any(change.startswith("onnxruntime 1.0.0 -> ") for change in again.changes)
    assert any("different" in change and " -> " in change for change in again.changes)
    assert checked.version("line").verdict in ("equivalent", "identical")
    checked.alias("line@1", "prod")
    assert checked.verify() == []
    assert list(checked.reverify("name=other")) == []


def test_a_check_that_cannot_run_is_inconclusive(registry: Registry, files, report) -> None:
    source, target = files(net_pt="no torch file", net_json="{}")
    registry.push("x", [source, target], [report(source, target)])
    (again,) = registry.reverify()
    assert (again.then, again.now) == ("equivalent", "inconclusive")
    assert "cannot be run" in again.changes[0]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """A thousand real events, under other names than the network's."""
    import numpy as np

    (tmp_path / "data").mkdir()
    with h5py.File(tmp_path / "data" / "jets.h5", "w") as file:
        file["jets"] = np.arange(1000, dtype="f4").view([("pt", "f4")])
        file["other"] = np.zeros(1000, [("x", "f4")])
    return tmp_path / "data" / "jets.h5"


@pytest.fixture
def with_data(registry: Registry, events: Path, tmp_path: Path) -> Registry:
    """line@1, checked on the first 800 of them, with a preset and a floor of its own."""
    source, target = network(tmp_path / "net.onnx"), tmp_path / "net.json"
    modelhub.convert(source, target)
    data = DataSpec(events, ("jets",), columns={"x_0": "pt"}, events=800, block=300)
    report = check(source, target, data=data, preset="ftag", floors={"operators": 0.9})
    (tmp_path / "report.json").write_text(report.dumps())
    registry.push("line", [("source", source), ("export:json", target)], [tmp_path / "report.json"])
    return registry


def stored(registry: Registry, ref: str) -> dict[str, Any]:
    (report,) = registry.version(ref).judged.reports
    return json.loads(registry.raw(report.sha256).__next__())


@pytest.mark.parametrize("place", ["data", "data/jets.h5"])
def test_real_events_are_run_again(with_data: Registry, tmp_path: Path, place: str) -> None:
    before = stored(with_data, "line@1")
    (again,) = with_data.reverify(attach=True, data=[tmp_path / "nowhere", tmp_path / place])
    assert (again.now, again.changes, again.attached) == (again.then, (), True)
    after = stored(with_data, "line@1")
    assert after["created"] >= before["created"]
    assert after["data"] == before["data"]
    assert (after["data"]["events"], after["data"]["inputs"]) == (
        800,
        {"x": {"table": "jets", "columns": {"x_0": "pt"}}},
    )
    assert (after["preset"], after["coverage"], after["digest"]) == ("ftag", before["coverage"], before["digest"])


def test_real_events_that_are_not_at_hand_are_told(with_data: Registry) -> None:
    """What was proved with them is not replaced by less."""
    (again,) = with_data.reverify(attach=True)
    assert again.changes[-1].startswith("the 800 events of jets.h5 were not run again")
    assert "--data" in again.changes[-1]
    assert not again.attached
    assert with_data.version("line@1").attached == ()


def test_other_events_prove_nothing_of_the_first(with_data: Registry, events: Path) -> None:
    with h5py.File(events, "r+") as file:
        file["jets"][700] = (-1.0,)
    (again,) = with_data.reverify(attach=True, data=[events])
    assert (again.now, again.attached) == ("inconclusive", False)
    assert "other events than the first check had" in again.changes[0]


def test_a_report_that_is_none_does_not_end_the_sweep(with_data: Registry, tmp_path: Path) -> None:
    """Its digest is right, for whoever writes a report can compute one; what it says of its data is nonsense."""
    from modelhub.equivalence.digest import digest

    told = stored(with_data, "line@1")
    told["data"]["inputs"] = ["nonsense"]
    told["digest"] = digest(told)
    (tmp_path / "odd.json").write_text(json.dumps(told))
    with_data.attach("line@1", [tmp_path / "odd.json"])
    (again,) = with_data.reverify(data=[tmp_path / "data"])
    assert again.now == "inconclusive"
    assert "not a report" in again.changes[0]


def test_no_registry_is_no_proof(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no registry"):
        list(registry.reverify())


def test_versions_side_by_side(checked: Registry, tmp_path: Path) -> None:
    target = tmp_path / "net.json"
    other = network(tmp_path / "net.onnx", 3.0)
    record = {
        "version": 1,
        "inputs": [{"name": "jet", "features": [{"name": "pt"}]}],
        "outputs": [{"name": "y", "labels": ["a"]}],
    }
    checked.push(
        "line", [("source", other), ("export:json", target)], metadata={"auc": 1, "deep": {"x": True}}, interface=record
    )
    found = checked.compare("line@1", "line@2")
    assert not found.same
    assert {line.what: line.same for line in found.files} == {"source": False, "export:json": True}
    assert [(line.what, line.b) for line in found.reports] == [("export:json", None)]
    assert {(line.what, line.a, line.b) for line in found.metadata} == {("auc", None, 1), ("deep.x", None, True)}
    assert [(line.what, line.a, line.b) for line in found.interface if "inputs" in line.what] == [
        ("inputs (only here)", ["x"], ["jet"])
    ]
    told = {line.what: line for line in found.figures}
    assert told["export:json, largest difference"].a == pytest.approx(0, abs=1e-6)
    assert 0 <= told["export:json, worst difference / tolerance"].a < 1
    assert told["export:json, events"].a > 100
    assert "onnxruntime" in told["export:json, engines"].a
    assert told["export:json, reached of operators"].a == "1 of 1"
    assert {line.b for line in found.figures} == {None}
    assert checked.compare("line@1", "line").b == checked.version("line@2")
    assert checked.compare("line@2", "line@2").same


def test_interfaces_side_by_side(registry: Registry, files) -> None:
    """What is new or gone is told in one line, what differs in one of its own, and the order of the rest."""
    (source,) = files(net_pt="weights")

    def record(*features: str, scale: float = 1.0) -> dict[str, object]:
        entries = [{"name": name, "offset": 0.0, "scale": scale} for name in features]
        return {
            "version": 1,
            "inputs": [{"name": "jet", "features": entries}],
            "outputs": [{"name": "y", "labels": ["a"]}],
        }

    registry.push("net", [source], interface=record("pt", "eta", "old"))
    registry.push("net", [source], interface=record("eta", "pt", "new1", "new2", scale=2.0))
    found = registry.compare("net@1", "net@2")
    assert [(line.what, line.a, line.b, line.change) for line in found.interface] == [
        ("inputs.jet.features (only here)", ["old"], ["new1", "new2"], None),
        ("inputs.jet.features (order)", ["pt", "eta"], ["eta", "pt"], None),
        ("inputs.jet.features.pt.scale", 1.0, 2.0, 1.0),
        ("inputs.jet.features.eta.scale", 1.0, 2.0, 1.0),
    ]


def test_a_damaged_report_is_not_compared(checked: Registry) -> None:
    (report,) = checked.version("line@1").manifest.reports
    path = checked.root / "blobs" / "sha256" / report.sha256
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RegistryError, match=report.sha256):
        checked.compare("line@1", "line@1")
