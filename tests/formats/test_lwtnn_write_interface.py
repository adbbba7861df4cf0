"""Names and scalings of the interface in the written file, and the two forms of file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from lwtnn_writing import Net, agree, answer, kinds, referee, written

from modelhub.errors import Notice, Unsupported, UsageError
from modelhub.graph.builder import Builder
from modelhub.graph.canonical import canonical
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.naming import attach
from modelhub.protocols import ReadOptions, WriteOptions
from modelhub_lwtnn import Importer

FEATURES = (
    Feature("pt", 0.1, 1 / 3, 0.3),
    Feature("eta.abs", -0.7, 0.01),
    Feature("φ", 0.0, 1.0, -999.0),
    Feature("mass", 1e-3, -2.0),
)


def float32_net(*features: Feature, sequence: bool = False) -> ir.Model:
    """A dense layer in float32 with `features` attached."""
    b = Builder()
    random = np.random.default_rng(0)
    width = len(features)
    x = b.input("x", ["N", *(["T"] if sequence else []), width])
    weight = b.constant(random.normal(size=(width, 3)).astype(np.float32), "w")
    y = b.op("MatMul", x, weight)
    b.output(y, "y", ["N", *(["T"] if sequence else []), 3])
    model = b.finish()
    labels = ("a", "b", "c")
    attach(model, Interface((Input("jets", features, sequence=sequence),), (Output("out", labels),)))
    return canonical(model)


def variables(data: dict, group: str = "inputs") -> list[dict]:
    return data[group][0]["variables"]


def test_numbers_of_the_record_stay_what_they_are(tmp_path) -> None:
    """0.1 is written as 0.1, though the graph holds it rounded to float32."""
    data = written(float32_net(*FEATURES), tmp_path / "net.json")
    assert data["inputs"][0]["name"] == "jets"
    assert variables(data) == [
        {"name": "pt", "offset": 0.1, "scale": 1 / 3, "default": 0.3},
        {"name": "eta.abs", "offset": -0.7, "scale": 0.01},
        {"name": "φ", "offset": 0.0, "scale": 1.0, "default": -999.0},
        {"name": "mass", "offset": 1e-3, "scale": -2.0},
    ]
    assert data["outputs"] == {"out": {"labels": ["a", "b", "c"], "node_index": 1}}
    assert kinds(data) == ["input", "dense"]


def test_numbers_of_the_graph_count_where_the_record_says_others(tmp_path) -> None:
    model = float32_net(*FEATURES)
    told = Interface.of(model)
    other = (Feature("pt", 0.25, 1 / 3, 0.3), *FEATURES[1:])
    Interface((Input("jets", other),), told.outputs).store(model)
    first = variables(written(model, tmp_path / "net.json"))[0]
    assert first["offset"] == float(np.float32(0.1))


@pytest.mark.parametrize("sequence", [False, True])
def test_missing_values_take_the_default(sequence: bool, tmp_path) -> None:
    model = float32_net(*FEATURES, sequence=sequence)
    path = tmp_path / "net.json"
    data = written(model, path)
    assert len(variables(data, "input_sequences" if sequence else "inputs")) == 4
    x = np.random.default_rng(1).normal(size=(50, 4, 4) if sequence else (50, 4))
    x[..., [0, 2]] = np.where(np.random.default_rng(2).random((*x.shape[:-1], 2)) < 0.5, np.nan, x[..., [0, 2]])
    (told,), (computed,) = referee(model, {"jets": x}), answer(path, model, {"jets": x})
    assert np.isfinite(told).all()
    np.testing.assert_allclose(computed, told, rtol=1e-12, atol=1e-12)


def entrance(b: Net, *steps: str, sequence: bool = False) -> ir.Model:
    """A dense layer after the given operators on the input."""
    x = b.sequence() if sequence else b.vector()
    for op_type in steps:
        if op_type == "BatchNormalization":
            scale = [b.normal(4), b.normal(4), b.normal(4), b.constant(b.random.uniform(0.5, 2, 4), "var")]
            x = b.op(op_type, x, *scale)
        else:
            x = b.op(op_type, x, b.normal(4))
    return b.done(b.op("MatMul", x, b.normal(4, 2)))


@pytest.mark.parametrize(
    "steps",
    [("Sub", "Div"), ("Add", "Mul"), ("Mul", "Add"), ("Mul", "Add", "Sub", "Mul"), ("BatchNormalization",), ("Add",)],
    ids="-".join,
)
def test_own_standardisation_becomes_offset_and_scale(steps: tuple[str, ...], tmp_path) -> None:
    assert kinds(agree(entrance(Net(), *steps), tmp_path / "net.json", spread=100.0)) == ["input", "dense"]


def test_own_standardisation_of_sequences_too(tmp_path) -> None:
    data = agree(entrance(Net(), "Sub", "Div", sequence=True), tmp_path / "net.json")
    assert kinds(data) == ["input_sequence", "dense"]


def test_exact_numbers_of_own_standardisation(tmp_path) -> None:
    b = Net()
    x = b.op("Div", b.op("Sub", b.vector(), b.number(91.19, 1.0, 2.0, 3.0)), b.number(2.4952, 1.0, 4.0, 0.5))
    data = agree(b.done(b.dense(x, 4, 2)), tmp_path / "net.json")
    assert variables(data)[0] == {"name": "x_0", "offset": -91.19, "scale": 1 / 2.4952}
    assert variables(data)[2] == {"name": "x_2", "offset": -2.0, "scale": 0.25}


def test_networks_own_normalisation_leaves_the_record_alone(tmp_path) -> None:
    model = entrance(Net(), "BatchNormalization")
    attach(model, Interface((Input("x", FEATURES),), ()))
    data = agree(model, tmp_path / "net.json")
    assert [v["offset"] for v in variables(data)] == [0.1, -0.7, 0.0, 1e-3]
    assert kinds(data) == ["input", "normalization", "dense"]


def test_shift_after_a_scale_of_zero_is_no_offset(tmp_path) -> None:
    b = Net()
    x = b.op("Add", b.op("Mul", b.vector(), b.number(0.0, 1.0, 2.0, 3.0)), b.number(5.0, 6.0, 7.0, 8.0))
    data = agree(b.done(b.dense(x, 4, 2)), tmp_path / "net.json")
    assert [v["scale"] for v in variables(data)] == [0.0, 1.0, 2.0, 3.0]
    assert kinds(data) == ["input", "normalization", "dense"]


def test_scaling_of_one_use_of_an_input_stays_with_that_use(tmp_path) -> None:
    b = Net()
    x = b.vector()
    scaled = b.op("Mul", b.op("Sub", x, b.normal(4)), b.normal(4))
    data = agree(b.done(b.dense(b.op("Concat", scaled, x, axis=1), 8, 2)), tmp_path / "net.json")
    assert {(v["offset"], v["scale"]) for v in variables(data)} == {(0.0, 1.0)}
    assert kinds(data) == ["input", "normalization", "concatenate", "dense"]


def test_scalars_and_sequences_may_share_a_name(tmp_path) -> None:
    b = Net()
    total = b.op("ReduceSum", b.sequence(), b.ints(1), keepdims=0)
    model = b.done(b.dense(b.op("Concat", b.vector(2), total, axis=1), 6, 2))
    features = tuple(Feature(name) for name in "abcd")
    attach(
        model,
        Interface((Input("jet", features, sequence=True, tensor="jet_tracks"), Input("jet", features[:2])), ()),
    )
    data = agree(model, tmp_path / "net.json")
    assert [group["name"] for group in (*data["inputs"], *data["input_sequences"])] == ["jet", "jet"]


def test_an_input_nobody_reads_stays(tmp_path) -> None:
    b = Net()
    b.vector(2, "spectator")
    data = agree(b.done(b.dense(b.vector(), 4, 2)), tmp_path / "net.json")
    assert [group["name"] for group in data["inputs"]] == ["spectator", "x"]


def test_records_in_another_order_than_the_graph(tmp_path) -> None:
    b = Net()
    joined = b.op("Concat", b.vector(4, "a"), b.vector(4, "b"), axis=1)
    model = b.done(b.dense(joined, 8, 2), b.dense(b.op("Tanh", joined), 8, 2))
    told = Interface.of(model)
    Interface(told.inputs[::-1], told.outputs[::-1]).store(model)
    data = agree(model, tmp_path / "net.json", reverse=True)
    assert [group["name"] for group in data["inputs"]] == ["b", "a"]


def test_integers_are_integers_and_no_number_is_lost(tmp_path) -> None:
    data = written(float32_net(*FEATURES), tmp_path / "net.json")
    for node in data["nodes"]:
        assert all(isinstance(n, int) for n in (*node["sources"], node.get("size", 0), node.get("layer_index", 0)))
    weights = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(data["layers"][0]["weights"], weights.T.astype(np.float64).ravel())


def test_last_step_and_all_steps_of_one_layer_are_one_output(tmp_path) -> None:
    """The reader tells an output on a `sequence` node as two, `y` and `y_steps`."""
    b = Net()
    timed = b.op("Transpose", b.sequence(), perm=[1, 0, 2])
    y, last = b.ops("LSTM", timed, b.normal(1, 12, 4), b.normal(1, 12, 3), outputs=2, hidden_size=3)
    every = b.op("Transpose", b.op("Squeeze", y, b.ints(1)), perm=[1, 0, 2])
    model = b.done(b.op("Squeeze", last, b.ints(0)), every, widths=[3, 3])
    told = Interface.of(model)
    labels = ("a", "b", "c")
    outputs = (Output("y", labels, tensor="y0"), Output("y_steps", labels, sequence=True, tensor="y1"))
    Interface(told.inputs, outputs).store(model)
    path = tmp_path / "net.json"
    assert written(model, path)["outputs"] == {"y": {"labels": ["a", "b", "c"], "node_index": 1}}
    assert written(model, path, "sequential")["outputs"] == ["a", "b", "c"]
    written(model, path)
    again = Importer().read(path, ReadOptions())
    assert [(o.name, o.sequence) for o in Interface.of(again).outputs] == [("y", False), ("y_steps", True)]


def test_shared_layers_are_written_once(tmp_path) -> None:
    b = Net()
    weight, bias = b.normal(4, 3), b.normal(3)
    twins = [b.op("Tanh", b.op("Add", b.op("MatMul", b.vector(4, name), weight), bias)) for name in ("a", "b")]
    data = agree(b.done(b.dense(b.op("Concat", *twins, axis=1), 6, 2)), tmp_path / "net.json")
    assert [node.get("layer_index") for node in data["nodes"]] == [None, None, 0, 0, None, 1]


def chain(b: Net) -> ir.Model:
    x = b.op("Mul", b.op("Sub", b.vector(), b.normal(4)), b.normal(4))
    x = b.op("Relu", b.dense(x, 4, 5))
    x = b.op("BatchNormalization", x, b.normal(5), b.normal(5), b.normal(5), b.constant(np.full(5, 2.0), "var"))
    return b.done(b.op("Softmax", b.dense(x, 5, 3), axis=1))


def recurrent_chain(b: Net) -> ir.Model:
    x = b.op("Sub", b.sequence(), b.normal(4))
    timed = b.op("Transpose", x, perm=[1, 0, 2])
    y, _ = b.ops("LSTM", timed, b.normal(1, 12, 4), b.normal(1, 12, 3), b.normal(1, 24), outputs=2, hidden_size=3)
    _, last = b.ops(
        "GRU", b.op("Squeeze", y, b.ints(1)), b.normal(1, 6, 3), b.normal(1, 6, 2), outputs=2, hidden_size=2
    )
    return b.done(b.op("Sigmoid", b.dense(b.op("Squeeze", last, b.ints(0)), 2, 1)))


@pytest.mark.parametrize(
    ("build", "layers"),
    [(chain, ["dense", "normalization", "dense"]), (recurrent_chain, ["lstm", "gru", "dense"])],
    ids=["dense", "recurrent"],
)
def test_sequential_form(build, layers: list[str], tmp_path) -> None:
    data = agree(build(Net()), tmp_path / "net.json", form="sequential")
    assert sorted(data) == ["inputs", "layers", "outputs"]
    assert [layer["architecture"] for layer in data["layers"]] == layers
    assert data["outputs"] == [f"label_{i}" for i in range(len(data["outputs"]))]
    assert data["inputs"][0]["offset"] != 0.0


def test_sequential_form_carries_the_sort_order(tmp_path) -> None:
    model = recurrent_chain(Net())
    told = Interface.of(model)
    features = told.inputs[0].features
    Interface((Input("tracks", features, sequence=True, sort="sd0"),), told.outputs).store(model)
    data = written(model, tmp_path / "net.json", "sequential")
    assert data["miscellaneous"] == {"sort_order": "sd0"}


def test_dense_before_the_recurrent_layer_is_no_sequential_file(tmp_path) -> None:
    """LightweightRNN would run it after."""
    b = Net()
    with b.scope("embed"):
        x = b.op("Tanh", b.op("MatMul", b.sequence(), b.normal(4, 4)))
    timed = b.op("Transpose", x, perm=[1, 0, 2])
    _, last = b.ops("RNN", timed, b.normal(1, 3, 4), b.normal(1, 3, 3), outputs=2, hidden_size=3)
    path = tmp_path / "net.json"
    with pytest.raises(Unsupported) as caught:
        written(b.done(b.op("Squeeze", last, b.ints(0))), path, "sequential")
    assert caught.value.what == "model cannot be written as lwtnn JSON of the sequential form"
    assert caught.value.reasons == ("embed (MatMul): needs a node of type time_distributed. Write the form graph.",)
    assert not list(tmp_path.iterdir())


def test_two_inputs_and_outputs_are_no_sequential_file(tmp_path) -> None:
    b = Net()
    x = b.op("Concat", b.vector(2, "a"), b.vector(2, "b"), axis=1)
    with pytest.raises(Unsupported) as caught:
        written(b.done(b.dense(x, 4, 2), b.dense(x, 4, 1)), tmp_path / "net.json", "sequential")
    text = str(caught.value)
    assert "has 2 inputs, a sequential file one" in text
    assert "has 2 outputs, a sequential file one" in text
    assert "Concat (Concat): needs a node of type concatenate" in text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (WriteOptions(form="onnx"), "in the forms graph and sequential, not 'onnx'"),
        (WriteOptions(opset=17), "has no operator sets"),
        (WriteOptions(precision="float32"), "written in float64, not float32"),
    ],
    ids=["form", "opset", "precision"],
)
def test_options_that_mean_nothing_are_told(options: WriteOptions, text: str, tmp_path: Path) -> None:
    from modelhub_lwtnn.writer import write

    with pytest.raises(UsageError, match=text):
        write(float32_net(*FEATURES), tmp_path / "net.json", options)


def test_cost_of_remembering_nothing_is_told(tmp_path) -> None:
    b = Net()
    x = b.vector()
    for _ in range(9):
        x = b.op("Add", b.op("Relu", b.dense(x, 4, 4)), x)
    # Block n costs T(n) = 2 + 2 T(n-1) evaluations, T(0) = 1: 1534 for 19 nodes.
    with pytest.warns(Notice, match="lwtnn remembers no results: it will compute 19 nodes 80 times each"):
        agree(b.done(x), tmp_path / "net.json", tolerance=1e-11)


def test_deep_networks_are_written_too(tmp_path) -> None:
    """Neither the depth of a graph nor the astronomic cost of its residuals in lwtnn breaks the writer."""
    b = Net()
    x = b.vector()
    for _ in range(1200):
        x = b.op("Add", b.op("Relu", x), x)
    with pytest.warns(Notice, match="more than 1000000 times each"):
        written(b.done(x), tmp_path / "net.json")
