"""The interface record: into JSON and back, attached to a graph, computed by the graph itself."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.errors import UnreadableFile, UsageError
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.naming import attach
from modelhub.graph.records import schema

number = st.floats(allow_nan=False, allow_infinity=False)
name = st.text(min_size=1, max_size=12)
feature = st.builds(
    Feature,
    name,
    number,
    number,
    st.none() | number,
    st.none() | number,
    st.none() | number,
    st.none() | st.integers(1, 9),
)
inputs = st.builds(
    Input,
    name,
    st.lists(feature, max_size=3).map(tuple),
    st.booleans(),
    st.just("") | name,
    st.none() | st.text(max_size=5),
    st.none() | st.text(max_size=5),
    st.integers(0, 3),
    st.none() | st.integers(0, 40),
)
outputs = st.builds(
    Output,
    name,
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
    st.booleans(),
    st.just("") | name,
    st.none() | st.lists(number, max_size=3).map(tuple),
)
records = st.builds(Interface, st.lists(inputs, max_size=3).map(tuple), st.lists(outputs, max_size=3).map(tuple))


@given(records)
def test_json_and_back(record: Interface) -> None:
    data = json.loads(json.dumps(record.to_json(), allow_nan=False))
    jsonschema.Draft202012Validator(schema()).validate(data)
    assert Interface.from_json(data, "here") == record


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"version": 2, "inputs": [], "outputs": []},
        {"version": 1, "inputs": [{"name": "a"}], "outputs": []},
        {"version": 1, "inputs": [], "outputs": [], "more": 1},
        {"inputs": [{"name": "x", "offset": "far", "scale": 1}]},
        {"inputs": [{"name": "x", "offset": 0, "scale": True}]},
        {"inputs": [{"offset": 0, "scale": 1}]},
        {"inputs": [7]},
    ],
)
def test_what_is_no_record_is_refused(data: object) -> None:
    with pytest.raises(UnreadableFile):
        Interface.from_json(data, "vars.json")


def test_lwtnn_variables_of_a_sequential_network() -> None:
    data = {
        "class_labels": ["u", "b"],
        "inputs": [
            {"name": "pt", "offset": "-25.5", "scale": 0.1},
            {"name": "sv", "offset": 0, "scale": 1, "default": -1},
        ],
        "keras_version": "1.0.1",
    }
    record = Interface.from_json(data, "vars.json")
    assert [f.offset for f in record.inputs[0].features] == [-25.5, 0]
    assert [f.default for f in record.inputs[0].features] == [None, -1]
    assert record.outputs[0].labels == ("u", "b")


def test_lwtnn_variables_of_a_graph_may_share_a_name() -> None:
    variable = {"name": "v", "offset": 0, "scale": 1}
    data = {
        "inputs": [{"name": "node_0", "variables": [variable]}],
        "input_sequences": [{"name": "node_0", "variables": [variable]}],
        "outputs": [{"name": "out", "labels": ["x"]}],
    }
    record = Interface.from_json(data, "vars.json")
    assert [i.name for i in record.inputs] == ["node_0", "node_0"]
    assert len({i.tensor for i in record.inputs}) == 2
    assert [i.sequence for i in record.inputs] == [False, True]


def pass_through(dtype: str = "float32", width: int = 3) -> ir.Model:
    b = Builder()
    x = b.input("in", ["N", width], dtype)
    b.output(b.op("Neg", x), "out", ["N", width], dtype)
    return b.finish()


RECORD = Interface(
    (Input("jet", (Feature("pt", -50.5, 0.25, -1.0), Feature("eta"), Feature("m", 3.0, 2.0))),),
    (Output("tagger", ("u", "c", "b")),),
)


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    return ort.InferenceSession(proto.SerializeToString()).run(None, {proto.graph.input[0].name: x})[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_graph_scales_as_the_record_says(dtype: str) -> None:
    model = pass_through(dtype)
    attach(model, RECORD)
    x = np.array([[60.0, 1.0, 2.0], [np.nan, -1.0, 0.5]], dtype)
    expected = -np.array([[(60 - 50.5) / 4, 1, 10], [(-1 - 50.5) / 4, -1, 7]])
    np.testing.assert_array_equal(run(model, x), expected)
    np.testing.assert_array_equal(RECORD.prepare({"jet": x}, dtype)["jet"], -expected)


def test_the_record_survives_the_file() -> None:
    model = pass_through()
    attach(model, RECORD)
    again = ir.from_proto(ir.to_proto(model))
    assert Interface.of(again) == RECORD.__class__(
        (Input("jet", RECORD.inputs[0].features),), (Output("tagger", ("u", "c", "b")),)
    )


def test_scaling_twice_is_refused() -> None:
    model = pass_through()
    attach(model, RECORD)
    other = Interface((Input("jet", (Feature("pt", 1.0), Feature("eta"), Feature("m"))),), RECORD.outputs)
    with pytest.raises(UsageError, match="scaled inside the model already"):
        attach(model, other)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (Interface((Input("jet", (Feature("pt"),)),), ()), "takes 3 variables"),
        (Interface((), ()), "has 1 inputs"),
        (Interface(RECORD.inputs, (Output("o", ("a",)),)), "3 components"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(record: Interface, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        attach(pass_through(), record)


def test_names_decide_over_order() -> None:
    b = Builder()
    x, y = b.input("a", ["N", 1]), b.input("b", ["N", 1])
    b.output(b.op("Sub", x, y), "d", ["N", 1])
    model = b.finish()
    attach(model, Interface((Input("b", (Feature("beta", 1.0),)), Input("a", (Feature("alpha"),))), ()))
    assert [f.name for i in Interface.of(model).inputs for f in i.features] == ["alpha", "beta"]


def test_a_record_written_here_needs_no_schema_but_one_that_was_changed_does() -> None:
    b = Builder()
    b.output(b.op("Neg", b.input("x", ["N", 1])), "y", ["N", 1])
    record = Interface((Input("x", (Feature("pt", 1, 2.0, 3.0),)),), (Output("y", ("score",)),))
    model = b.finish(record)
    for graph in (model, model.clone(), ir.from_proto(ir.to_proto(model))):
        assert Interface.of(graph) == record
    changed = model.clone()
    changed.metadata_props["modelhub.interface"] = changed.metadata_props["modelhub.interface"].replace("pt", "")
    with pytest.raises(UnreadableFile, match="name"):
        Interface.of(changed)


@pytest.mark.parametrize("name", ["", "x" * 1025])
def test_names_that_no_record_may_have_are_refused_at_once(name: str) -> None:
    b = Builder()
    b.output(b.op("Neg", b.input("x", ["N", 1])), "y", ["N", 1])
    with pytest.raises(UnreadableFile, match="names have 1 to 1024 characters"):
        b.finish(Interface((Input("x", (Feature(name),)),), (Output("y", ("score",)),)))
