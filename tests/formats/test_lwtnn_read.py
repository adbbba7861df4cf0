"""lwtnn files into the common graph: run in onnxruntime, they answer what the real engine answers."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from test_lwtnn_engine import CASES, case_answers, case_inputs, difference, expected, shipped

from modelhub.errors import Notice, Unsupported
from modelhub.graph.interface import Feature, Interface
from modelhub.graph.precision import to_precision
from modelhub.protocols import ReadOptions
from modelhub_lwtnn import Importer
from modelhub_lwtnn.engine import evaluate
from modelhub_lwtnn.parse import parse, read
from modelhub_lwtnn.reader import to_graph
from modelhub_lwtnn.schema import dumps, to_json
from modelhub_lwtnn.wiring import answers, as_graph

REAL = [
    "atlas_ttgamma_ELD_dilepton/model4_300_dilepton_ELD.json",
    "cms_DeepCSV_PhaseI/DeepCSV_PhaseI.json",
    "lwtnn_examples_functional/test_NN.json",
    "lwtnn_examples_sequential/test_NN.json",
]


def session(model: ir.Model, precision: str) -> onnxruntime.InferenceSession:
    proto = ir.to_proto(to_precision(model, precision))
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(network, vectors, sequences, precision: str = "float32") -> dict[tuple[str, bool], np.ndarray]:
    """Outputs of the graph by name and kind."""
    model = to_graph(network)
    interface = Interface.of(model)
    feed = {r.tensor: x.astype(precision) for r, x in zip(interface.inputs, [*vectors, *sequences], strict=True)}
    results = session(model, precision).run([o.tensor for o in interface.outputs], feed)
    return {(o.name, o.sequence): x for o, x in zip(interface.outputs, results, strict=True)}


def unsupported_by_onnx(case: dict) -> bool:
    """Whether a recurrent layer has an activation that ONNX's recurrent operators have not."""

    def name(activation) -> str:
        return activation["function"] if isinstance(activation, dict) else activation

    used = {
        name(layer[key])
        for layer in case["network"]["layers"]
        if layer["architecture"] in ("lstm", "gru", "simplernn")
        for key in ("activation", "inner_activation")
        if key in layer
    }
    return bool(used & {"softmax", "abs", "swish"})


@pytest.mark.parametrize("case", shipped(), ids=lambda case: case["name"])
def test_graph_answers_what_the_real_engine_answers(case):
    network = parse(case["network"], case["name"])
    if unsupported_by_onnx(case):
        with pytest.raises(Unsupported, match=r"layers\[\d\].*activation (softmax|abs|swish)"):
            to_graph(network)
        return
    graph = as_graph(network)
    gru = any(layer["architecture"] == "gru" for layer in case["network"]["layers"])
    conv = any(layer["architecture"] == "conv1d" for layer in case["network"]["layers"])
    for question in case["asked"]:
        steps = len(question["input_sequences"][0][0]) if question["input_sequences"] else -1
        if steps == 0 and (gru or conv):
            continue  # onnxruntime 1.32 aborts the process on an empty GRU and refuses an empty convolution
        vectors = [np.array(v) for v in question["inputs"]]
        sequences = [
            np.array(v, dtype=float).reshape(len(v), steps, len(g.variables))
            for g, v in zip(graph.input_sequences, question["input_sequences"], strict=True)
        ]
        results = run(network, vectors, sequences)
        asked = {(a.node, a.sequence): a for a in answers(graph)}
        assert len(asked) == len(question["answers"])
        for key, values in question["answers"].items():
            name, how = key.rsplit(" ", 1)
            answer = asked[graph.outputs[name].node, how == "scan"]
            theirs = expected(answer, values)
            assert difference(results[answer.name, answer.sequence], theirs) <= 2e-5, (answer, steps)


@pytest.mark.parametrize("name", CASES)
def test_real_cases_through_onnx_match_the_engine_to_float32(cases, name):
    network = read(cases / "lwtnn" / name / "lwtnn" / "model.json")
    graph = as_graph(network)
    vectors, sequences = case_inputs(graph, json.loads((cases / "lwtnn" / name / "inputs.jsonl").read_text()))
    theirs = case_answers(graph, json.loads((cases / "lwtnn" / name / "engine_output.jsonl").read_text()))
    results = run(network, vectors, sequences)
    for answer, values in theirs.items():
        name = f"{answer.name}_steps" if answer.sequence else answer.name
        np.testing.assert_allclose(results[name, answer.sequence], values, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["batchnorm", "dense_dropout", "elu", "example_sequential", "highway"])
def test_real_cases_through_onnx_match_the_engine_in_float64(cases, name):
    network = read(cases / "lwtnn" / name / "lwtnn" / "model.json")
    graph = as_graph(network)
    vectors, sequences = case_inputs(graph, json.loads((cases / "lwtnn" / name / "inputs.jsonl").read_text()))
    theirs = case_answers(graph, json.loads((cases / "lwtnn" / name / "engine_output.jsonl").read_text()))
    results = run(network, vectors, sequences, "float64")
    for answer, values in theirs.items():
        np.testing.assert_allclose(results[answer.name, False], values, rtol=1e-12)


@pytest.mark.parametrize("file", REAL)
def test_public_files_read_and_run(cases, file):
    path = cases / "real" / "lwtnn" / file
    assert Importer().recognises(path)
    model = Importer().read(path, ReadOptions())
    interface = Interface.of(model)
    rng = np.random.default_rng(1)
    shapes = [(4, 5, len(r.features)) if r.sequence else (4, len(r.features)) for r in interface.inputs]
    feed = {r.tensor: rng.normal(size=s).astype("f4") for r, s in zip(interface.inputs, shapes, strict=True)}
    results = session(model, "float32").run([o.tensor for o in interface.outputs], feed)
    assert all(np.isfinite(result).all() for result in results)


def test_an_electron_scale_factor_out_of_correctionlib(cases):
    """The network inside a CorrectionSet, with the inputs and the answer of correctionlib's own test."""
    text = (cases / "real" / "lwtnn" / "correctionlib_lwtnn_example" / "lwtnn_example.json").read_text()
    node = json.loads(text)["corrections"][0]["data"]["content"]["content"]
    network = parse(node["opaque"], "the network in the correction")
    graph = as_graph(network)
    event = np.array([[np.log10(15.0), 0.4, 2.1, np.log10(1e-3)]])  # pt, eta, phi, iso as the correction feeds them
    p = dict(zip(["p11", "p10", "p01", "p00"], evaluate(graph, [event], [], answers(graph))[0][0], strict=True))
    assert (p["p01"] + p["p11"]) / (p["p10"] + p["p11"]) == pytest.approx(0.95186825355646787, rel=1e-14)


def test_the_record_has_names_scaling_defaults_and_labels():
    variables = [
        {"name": "pt", "offset": -25.1, "scale": "0.03", "default": 0},
        {"name": "eta", "offset": 0, "scale": 1},
    ]
    model = to_graph(parse({"inputs": variables, "layers": [], "outputs": ["b", "light"]}, "a test"))
    interface = Interface.of(model)
    assert not interface.invented
    assert interface.inputs[0].features == (Feature("pt", -25.1, 0.03, 0.0), Feature("eta"))
    assert interface.outputs[0].labels == ("b", "light")
    feed = {"inputs": np.array([[np.nan, np.nan], [30.0, 1.0]])}
    (result,) = session(model, "float64").run(None, feed)
    np.testing.assert_allclose(result, [[-25.1 * 0.03, np.nan], [4.9 * 0.03, 1.0]], rtol=1e-15)


def graph_file(**members) -> dict:
    return {"inputs": [], "input_sequences": [], "nodes": [], "layers": [], "outputs": {}} | members


def group(name: str, *variables: str) -> dict:
    return {"name": name, "variables": [{"name": v, "offset": 0, "scale": 1} for v in variables]}


def test_a_scalar_and_a_sequence_input_may_share_a_name():
    network = graph_file(
        inputs=[group("jet/1", "x")],
        input_sequences=[group("jet/1", "x")],
        nodes=[
            {"type": "input", "sources": [0], "size": 1},
            {"type": "input_sequence", "sources": [0], "size": 1},
            {"type": "sum", "sources": [1]},
            {"type": "add", "sources": [0, 2]},
        ],
        outputs={"jet/1": {"labels": ["y"], "node_index": 3}},
    )
    interface = Interface.of(to_graph(parse(network, "a test")))
    assert [(r.name, r.tensor) for r in interface.inputs] == [("jet/1", "jet_1"), ("jet/1", "jet_1_sequence")]
    assert interface.outputs[0].name == "jet/1"
    results = run(parse(network, "a test"), [np.ones((2, 1))], [np.ones((2, 3, 1))])
    assert results["jet/1", False].ravel().tolist() == [4.0, 4.0]


def conv_file(padding: str, activation: str = "linear") -> dict:
    layer = {"architecture": "conv1d", "weights": [1, 10, 100, 1000], "bias": [0], "padding": padding}
    return graph_file(
        input_sequences=[group("s", "x")],
        nodes=[
            {"type": "input_sequence", "sources": [0], "size": 1},
            {"type": "sequence", "sources": [0], "layer_index": 0},
        ],
        layers=[layer | {"dilation_rate": 1, "activation": activation}],
        outputs={"o": {"labels": ["a"], "node_index": 1}},
    )


def test_same_padding_stands_in_front_as_in_lwtnn():
    results = run(parse(conv_file("same"), "a test"), [], [np.array([[[1.0], [2.0], [3.0]]])])
    # Two zeros in front and one behind; Keras and PyTorch would have one in front.
    assert results["o_steps", True].ravel().tolist() == [2100.0, 3210.0, 321.0]


def test_the_record_tells_the_shortest_sequence_a_convolution_takes():
    def least(file: dict) -> int:
        return Interface.of(to_graph(parse(file, "a test"))).inputs[0].min_length

    assert least(conv_file("valid")) == 4
    assert least(conv_file("same")) == 0
    assert least(conv_file("same", "softmax")) == 1


def test_a_sequence_output_is_a_vector_and_its_steps():
    model = to_graph(parse(conv_file("causal"), "a test"))
    assert [(o.name, o.sequence) for o in Interface.of(model).outputs] == [("o", False), ("o_steps", True)]
    assert [list(map(str, v.shape)) for v in model.graph.outputs] == [["N", "1"], ["N", "T_s", "1"]]


def test_names_stay_when_a_file_is_read_and_written_again():
    network = graph_file(**conv_file("causal"))
    network["outputs"] = {"o_steps": {"labels": ["a"], "node_index": 1}, "o": {"labels": ["a"], "node_index": 1}}
    outputs = Interface.of(to_graph(parse(network, "a test"))).outputs
    assert [(o.name, o.sequence) for o in outputs] == [("o_steps", True), ("o", False)]


def test_initializers_are_named_after_their_place_in_the_file_and_shared():
    dense = {"architecture": "dense", "weights": [1, 2], "bias": [3, 4], "activation": "tanh"}
    wide = {"architecture": "dense", "weights": [1, 2, 3, 4], "bias": [3, 4], "activation": "tanh"}
    network = graph_file(
        inputs=[group("g", "x")],
        nodes=[
            {"type": "input", "sources": [0], "size": 1},
            {"type": "feed_forward", "sources": [0], "layer_index": 0},
            {"type": "feed_forward", "sources": [1], "layer_index": 1},
            {"type": "feed_forward", "sources": [2], "layer_index": 1},
        ],
        layers=[dense, wide],
        outputs={"o": {"labels": ["a", "b"], "node_index": 3}},
    )
    model = to_graph(parse(network, "a test"))
    assert set(model.graph.initializers) == {
        "layers[0].weights",
        "layers[0].bias",
        "layers[1].weights",
        "layers[1].bias",
    }
    assert all(v.dtype == ir.DataType.DOUBLE for v in model.graph.initializers.values())
    assert {node.name.split("/")[0] for node in model.graph} == {"layers[0]", "layers[1]"}


def test_a_variable_that_is_looked_up_tells_its_number_of_categories():
    network = graph_file(
        input_sequences=[group("s", "pt", "kind")],
        nodes=[
            {"type": "input_sequence", "sources": [0], "size": 2},
            {"type": "sequence", "sources": [0], "layer_index": 0},
        ],
        layers=[{"architecture": "embedding", "sublayers": [{"weights": [1, 2, 3, 4, 5, 6], "index": 1, "n_out": 2}]}],
        outputs={"o": {"labels": ["a", "b", "c"], "node_index": 1}},
    )
    features = Interface.of(to_graph(parse(network, "a test"))).inputs[0].features
    assert [f.categories for f in features] == [None, 3]
    results = run(parse(network, "a test"), [], [np.array([[[0.5, 2.0]]])])
    assert results["o", False].tolist() == [[0.5, 3.0, 6.0]]


def test_recurrent_layers_of_a_sequential_file_come_first_and_the_user_is_told():
    dense = {"architecture": "dense", "weights": [2], "bias": [], "activation": "linear"}
    gate = {"weights": [1], "U": [0], "bias": [1]}
    rnn = {"architecture": "simplernn", "activation": "linear", "components": {"h": gate}}
    file = {"inputs": [{"name": "x", "offset": 0, "scale": 1}], "layers": [dense, rnn], "outputs": ["y"]}
    with pytest.warns(Notice, match="recurrent layers"):
        results = run(parse(file, "a test"), [], [np.array([[[3.0]]])])
    assert results["outputs", False].ravel().tolist() == [8.0]  # 2 (x + 1), not 2 x + 1


def test_the_order_of_the_steps_comes_from_the_remarks():
    gate = {"weights": [1], "U": [0], "bias": [1]}
    rnn = {"architecture": "simplernn", "activation": "linear", "components": {"h": gate}}
    file = {"inputs": [{"name": "x", "offset": 0, "scale": 1}], "layers": [rnn], "outputs": ["y"]}
    file["miscellaneous"] = {"sort_order": "sd0"}
    assert Interface.of(to_graph(parse(file, "a test"))).inputs[0].sort == "sd0"


def test_reading_neither_needs_the_network_in_order_nor_all_of_it():
    dense = {"architecture": "dense", "weights": [1], "bias": [], "activation": "linear"}
    abs_rnn = {
        "architecture": "simplernn",
        "activation": "abs",
        "components": {"h": {"weights": [1], "U": [1], "bias": [1]}},
    }
    network = graph_file(
        inputs=[group("g", "x")],
        input_sequences=[group("s", "x")],
        nodes=[
            {"type": "feed_forward", "sources": [1], "layer_index": 2},
            {"type": "input", "sources": [0], "size": 1},
            {"type": "input_sequence", "sources": [0], "size": 1},
            {"type": "sequence", "sources": [2], "layer_index": 1},
        ],
        layers=[dense, abs_rnn, dense],
        outputs={"o": {"labels": ["a"], "node_index": 0}},
    )
    with pytest.warns(Notice, match="no node uses layers"):
        parsed = parse(network, "a test")
    assert len(parsed.layers) == 2
    model = to_graph(parsed)  # the abs inside of a recurrent layer that ONNX cannot say is not asked for
    assert [node.op_type for node in model.graph] == ["Gemm"]


def test_written_again_it_is_the_same_file(cases):
    for path in sorted((cases / "lwtnn").glob("*/lwtnn/*.json")):
        network = read(path)
        text = dumps(network)
        assert json.loads(text) == to_json(network)
        assert dumps(parse(json.loads(text), str(path))) == text
