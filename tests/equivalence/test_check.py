"""The check end to end on ONNX files: what must pass, what must be found, and where it says it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import modelhub
from modelhub.equivalence.report import schema
from modelhub.errors import Different
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output

FEATURES = tuple(Feature(f"v{i}", offset=0.1 * i, scale=1 / (1 + i), default=-9.0 if i else None) for i in range(6))
RECORD = Interface((Input("jet", FEATURES),), (Output("tagger", ("pu", "pc", "pb")),))


def network(record: Interface = RECORD) -> ir.Model:
    rng = np.random.default_rng(0)
    b = Builder()
    x = b.input("x", ["N", 6])
    for name, a, c in (("dense_1", 6, 32), ("dense_2", 32, 32), ("dense_3", 32, 3)):
        with b.scope(name):
            weight = (rng.standard_normal((a, c)) * np.sqrt(2 / a)).astype("f4")
            x = b.op("MatMul", x, b.constant(weight, "weight"))
            x = b.op("Add", x, b.constant(rng.standard_normal(c).astype("f4"), "bias"))
            x = b.op("Elu", x, alpha=0.3) if c == 32 else b.op("Softmax", x, axis=-1)
    b.output(x, "y", ["N", 3])
    model = b.finish()
    from modelhub.graph.naming import attach

    attach(model, record)
    return model


@pytest.fixture
def net(tmp_path: Path) -> Path:
    modelhub.write(network(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_a_model_is_itself(net: Path, tmp_path: Path) -> None:
    report = modelhub.convert(net, tmp_path / "copy.onnx")
    assert report is not None
    assert report.verdict in ("identical", "equivalent")
    assert {leg.between for leg in report.legs} == {("source", "graph"), ("source", "target"), ("graph", "target")}
    named = {"normal", "wide", "zero", "missing", "uniform", "corners", "raw", "odd", "pieces", "order", "threads"}
    assert {r.probe for leg in report.legs for r in leg.results} == named
    jsonschema.Draft202012Validator(schema()).validate(json.loads(report.dumps()))


def test_the_digest_tells_nothing_of_the_hour(net: Path) -> None:
    one, two = modelhub.check(net, net), modelhub.check(net, net)
    two.created = "2001-01-01T00:00:00+00:00"
    assert one.to_json()["digest"] == two.to_json()["digest"]
    assert modelhub.check(net, net, seed=1).to_json()["digest"] != one.to_json()["digest"]


def changed(net: Path, name: str, relative: float) -> Path:
    """A copy of the file with the largest number of one tensor changed."""
    proto = onnx.load(net)
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    place = np.unravel_index(np.argmax(np.abs(array)), array.shape)
    array[place] *= 1 + relative
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    copy = net.with_name("changed.onnx")
    onnx.save(proto, copy)
    return copy


@pytest.mark.parametrize("name", ["dense_1/weight", "dense_2/bias", "dense_3/weight", "jet/offset", "jet/scale"])
def test_one_changed_number_is_found_and_named(net: Path, name: str) -> None:
    report = modelhub.check(net, changed(net, name, 1e-3))
    assert report.verdict == "different"
    assert len(report.parameters) == 1
    assert report.parameters[0].startswith(f"{name}[")
    assert "relative 1.0e-03" in report.parameters[0]


def test_a_dropped_default_is_found(net: Path) -> None:
    proto = onnx.load(net)
    tensor = next(t for t in proto.graph.initializer if t.name == "jet/default")
    array = numpy_helper.to_array(tensor).copy()
    array[3] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, "jet/default"))
    onnx.save(proto, net.with_name("nodefault.onnx"))
    report = modelhub.check(net, net.with_name("nodefault.onnx"))
    assert report.verdict == "different"
    bad = {r.probe for leg in report.legs for r in leg.results if r.worst.excessive}
    assert bad == {"missing"}


def test_exchanged_labels_and_variables_are_found(net: Path, tmp_path: Path) -> None:
    labels = replace(RECORD, outputs=(Output("tagger", ("pc", "pu", "pb")),))
    modelhub.write(network(labels), tmp_path / "labels.onnx")
    report = modelhub.check(net, tmp_path / "labels.onnx")
    assert report.verdict == "different"
    assert report.record[0] == "output 'tagger', label 0: 'pu' in the source, 'pc' in the target"
    swapped = replace(
        RECORD,
        inputs=(Input("jet", (replace(FEATURES[0], name="v1"), replace(FEATURES[1], name="v0"), *FEATURES[2:])),),
    )
    modelhub.write(network(swapped), tmp_path / "swapped.onnx")
    assert (
        "variable 0: 'v0' in the source, 'v1' in the target" in modelhub.check(net, tmp_path / "swapped.onnx").record[0]
    )


def test_nothing_is_written_when_it_differs(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that damages a weight is caught by the check it does not know of."""
    from modelhub_onnx import Exporter

    honest = Exporter.write

    def damaged(self: Exporter, model: ir.Model, path: Path, options: object) -> None:
        honest(self, model, path, options)
        if path.suffix == ".onnx" and "target" in path.name:
            path.write_bytes(changed(path, "dense_1/weight", 1e-2).read_bytes())

    monkeypatch.setattr(Exporter, "write", damaged)
    target = tmp_path / "out" / "target.onnx"
    target.parent.mkdir()
    with pytest.raises(Different) as caught:
        modelhub.convert(net, target)
    assert caught.value.report.verdict == "different"
    assert not target.exists()


def test_command_line(net: Path, modelhub, tmp_path: Path) -> None:
    good = modelhub("check", net, net, "--report", "report.json", "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout) == json.loads((tmp_path / "report.json").read_text())
    bad = modelhub("check", net, changed(net, "dense_2/weight", 1e-3))
    assert bad.returncode == 1
    assert bad.stdout == ""
    assert "dense_2/weight[" in bad.stderr
    assert "Traceback" not in bad.stderr


def test_a_change_too_small_for_probes_is_suspect(net: Path) -> None:
    """A weight of one part in a million is within rounding in float32, but the files hold other numbers."""
    report = modelhub.check(net, changed(net, "dense_1/weight", 1e-6))
    assert {leg.verdict for leg in report.legs} <= {"identical", "equivalent"}
    assert report.verdict == "suspect"
    assert report.parameters[0].startswith("dense_1/weight[")
    rounded = modelhub.check(net, changed(net, "dense_1/weight", 1.2e-7))
    assert rounded.verdict == "equivalent"
    assert len(rounded.parameters) == 1


def test_a_floor_that_is_not_reached(net: Path, modelhub) -> None:
    """No unit of a softmax network saturates; whoever wants one to gets no verdict."""
    proto = onnx.load(net)
    for node in proto.graph.node:
        if node.op_type == "Elu":
            node.op_type = "Sigmoid"
            del node.attribute[:]
    onnx.save(proto, net)
    assert modelhub("check", net, net).returncode == 0
    some = modelhub("check", net, net, "--floor", "saturated units, both ends=1", "--floor", "operators=1", "--json")
    coverage = {c["what"]: c for c in json.loads(some.stdout)["coverage"]}
    assert coverage["operators"]["reached"] == coverage["operators"]["of"] > 3
    assert coverage["defaults put in for NaN"]["of"] == 5
    saturated = coverage["saturated units, both ends"]
    assert saturated["of"] == 64
    assert some.returncode == (0 if saturated["reached"] == 64 else 6)
    assert modelhub("check", net, net, "--floor", "operators=2").returncode == 2
    assert modelhub("check", net, net, "--floor", "leaves=1").returncode == 2


@pytest.mark.parametrize("batch", [1, 4, "N"])
def test_units_are_counted_once_whatever_batch_is_burnt_in(batch: int | str, tmp_path: Path) -> None:
    """As Keras's own exporter leaves it: a graph for one event at a time."""
    b = Builder()
    x = b.input("x", [batch, 2])
    weight, bias = np.float32([[1, -1, 0], [0, 1, 0]]), np.float32([0, 0, 1])
    x = b.op("Relu", b.op("Add", b.op("MatMul", x, b.constant(weight, "weight")), b.constant(bias, "bias")))
    b.output(b.op("Sigmoid", x), "y", [batch, 3])
    modelhub.write(b.finish(), tmp_path / "net.onnx")
    report = modelhub.check(tmp_path / "net.onnx", tmp_path / "net.onnx")
    assert report.verdict in ("identical", "equivalent")
    relu = next(c for c in report.coverage if c.what == "ReLU units both states")
    assert (relu.reached, relu.of) == (2, 3)  # the third is always on


def test_nodes_without_names_and_names_that_are_invented(tmp_path: Path) -> None:
    """Both as other converters write them: two operators of one kind that are spelled out in float64."""
    b = Builder()
    x = b.input("x", ["N", 4])
    b.output(b.op("Elu", b.op("Elu", x, alpha=0.5), alpha=0.25), "y", ["N", 4])
    model = b.finish()
    modelhub.write(model, tmp_path / "net.onnx")
    proto = onnx.load(tmp_path / "net.onnx")
    for node in proto.graph.node:
        node.name = ""
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "net.onnx")
    report = modelhub.convert(tmp_path / "net.onnx", tmp_path / "copy.onnx")
    assert report is not None
    assert report.verdict in ("identical", "equivalent")
    assert {leg.precision for leg in report.legs if leg.results} == {"float32"}
    assert "onnxruntime" in next(p for p in report.parties if p.role == "graph").engines[0]
    assert "float64" in next(p for p in report.parties if p.role == "graph").engines[0]
    assert Interface.of(modelhub.read(tmp_path / "copy.onnx")).invented
