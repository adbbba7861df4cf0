"""Our lwtnn evaluator against the real C++ engine: the shipped answers of it, and those of the real cases.

Largest difference measured, as a fraction of the largest component or of 1: 2e-14 on the shipped networks (a GRU with
linear gates that grows to 1e16; 1e-15 elsewhere), 4e-16 on the real cases.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modelhub.errors import Inconclusive
from modelhub_lwtnn.engine import evaluate
from modelhub_lwtnn.parse import parse, read
from modelhub_lwtnn.schema import GraphNetwork, dumps
from modelhub_lwtnn.wiring import SERIES, VECTOR, Answer, as_graph

NETWORKS = Path(__file__).parents[2] / "fixtures" / "lwtnn" / "engine" / "networks.jsonl"
TOLERANCE = 1e-13


def shipped() -> list[dict]:
    return [json.loads(line) for line in NETWORKS.read_text().splitlines()]


def arrays(groups, values, steps: int) -> list[np.ndarray]:
    """Nested lists as arrays, an empty sequence with its axis of variables."""
    shapes = [
        (len(v), steps, len(g.variables)) if steps >= 0 else (len(v), len(g.variables))
        for g, v in zip(groups, values, strict=True)
    ]
    return [np.array(v, dtype=np.float64).reshape(shape) for v, shape in zip(values, shapes, strict=True)]


def asked(graph: GraphNetwork, key: str) -> Answer:
    name, how = key.rsplit(" ", 1)
    output = graph.outputs[name]
    return Answer(name, output.labels, output.node, sequence=how == "scan")


def expected(answer: Answer, values) -> np.ndarray:
    result = np.array(values, dtype=np.float64)
    return result.transpose(0, 2, 1) if answer.sequence else result


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference as a fraction of the largest component."""
    assert a.shape == b.shape
    return float(np.abs(a - b).max(initial=0.0) / max(1.0, np.abs(b).max(initial=0.0)))


@pytest.mark.parametrize("case", shipped(), ids=lambda case: case["name"])
def test_answers_what_the_real_engine_answers(case):
    graph = as_graph(parse(case["network"], case["name"]))
    for question in case["asked"]:
        steps = len(question["input_sequences"][0][0]) if question["input_sequences"] else -1
        vectors = arrays(graph.inputs, question["inputs"], -1)
        sequences = arrays(graph.input_sequences, question["input_sequences"], steps)
        wanted = [asked(graph, key) for key in question["answers"]]
        for answer, ours, theirs in zip(
            wanted, evaluate(graph, vectors, sequences, wanted), question["answers"].values(), strict=True
        ):
            assert difference(ours, expected(answer, theirs)) <= TOLERANCE, (answer.name, steps)


def test_the_shipped_networks_cover_every_layer_node_and_length():
    layers, nodes, lengths = set(), set(), set()
    for case in shipped():
        layers |= {layer["architecture"] for layer in case["network"]["layers"]}
        nodes |= {node["type"] for node in case["network"].get("nodes", [])}
        lengths |= {len(q["input_sequences"][0][0]) for q in case["asked"] if q["input_sequences"]}
    assert layers == {"dense", "normalization", "maxout", "highway", "lstm", "gru", "simplernn", "conv1d", "embedding"}
    assert nodes == VECTOR | SERIES
    assert lengths == {0, 1, 2, 7}


CASES = [
    "batchnorm",
    "conv1d",
    "dense_dropout",
    "elu",
    "example_sequential",
    "gru_sequence",
    "highway",
    "lstm",
    "merge_graph",
]


def case_inputs(graph: GraphNetwork, values: dict) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The one event of a case, by group."""
    scalars = values.get("@scalars", values)
    series = values.get("@sequences", values)
    if len(graph.inputs) == 1 and graph.inputs[0].name not in scalars:
        scalars = {graph.inputs[0].name: scalars}
    vectors = [np.array([[scalars[g.name][f.name] for f in g.variables]]) for g in graph.inputs]
    sequences = [
        np.array([[series[g.name][f.name] for f in g.variables]]).transpose(0, 2, 1) for g in graph.input_sequences
    ]
    return vectors, sequences


def case_answers(graph: GraphNetwork, values: dict) -> dict[Answer, np.ndarray]:
    """What the real engine answered, output by output."""
    if "outputs" in graph.outputs:
        values = {"outputs": values}
    result = {}
    for name, found in values.items():
        output = graph.outputs[name]
        both = found if "compute" in found else {"compute": found}
        for how, labelled in both.items():
            answer = Answer(name, output.labels, output.node, sequence=how == "scan")
            result[answer] = expected(answer, [[labelled[label] for label in output.labels]])
    return result


@pytest.mark.parametrize("name", CASES)
def test_answers_what_the_real_engine_answered_on_real_models(cases, name):
    graph = as_graph(read(cases / "lwtnn" / name / "lwtnn" / "model.json"))
    vectors, sequences = case_inputs(graph, json.loads((cases / "lwtnn" / name / "inputs.jsonl").read_text()))
    theirs = case_answers(graph, json.loads((cases / "lwtnn" / name / "engine_output.jsonl").read_text()))
    for (answer, expects), ours in zip(theirs.items(), evaluate(graph, vectors, sequences, list(theirs)), strict=True):
        assert difference(ours, expects) <= TOLERANCE, answer


def network(**members) -> GraphNetwork:
    empty = {"inputs": [], "input_sequences": [], "nodes": [], "layers": [], "outputs": {}}
    return as_graph(parse(empty | members, "a test"))


def sequential(layers: list[dict], width: int, variables: list[dict] | None = None, **members) -> GraphNetwork:
    variables = variables or [{"name": "x", "offset": 0, "scale": 1}]
    return as_graph(
        parse({"inputs": variables, "layers": layers, "outputs": [f"y{i}" for i in range(width)], **members}, "a test")
    )


def ask(graph: GraphNetwork, *vectors) -> np.ndarray:
    output = graph.outputs["outputs"]
    answer = Answer("outputs", output.labels, output.node, sequence=False)
    return evaluate(graph, [np.array(v, dtype=np.float64) for v in vectors], [], [answer])[0]


def test_sigmoid_is_exactly_0_and_1_beyond_30():
    graph = sequential([{"architecture": "dense", "weights": [], "bias": [], "activation": "sigmoid"}], 1)
    assert ask(graph, [[-30.1], [30.1]]).ravel().tolist() == [0.0, 1.0]
    assert 0 < ask(graph, [[-30.0]])[0, 0] < 1e-13


def test_the_default_replaces_nan_before_offset_and_scale():
    variable = {"name": "x", "offset": 1, "scale": 10, "default": 2}
    graph = sequential([], 1, [variable])
    assert ask(graph, [[np.nan], [5.0]]).ravel().tolist() == [30.0, 60.0]


def test_defaults_at_the_top_overrule_those_of_the_variables():
    variable = {"name": "x", "offset": 0, "scale": 1, "default": 2}
    assert ask(sequential([], 1, [variable], defaults={"x": "7"}), [[np.nan]])[0, 0] == 7
    assert np.isnan(ask(sequential([], 1, [variable], defaults={}), [[np.nan]])[0, 0])


def test_nan_passes_where_there_is_no_default():
    dense = {"architecture": "dense", "weights": [1, 0], "bias": [], "activation": "rectified"}
    assert np.isnan(ask(sequential([dense], 2), [[np.nan]])).all()


def test_an_empty_sequence_gives_zeros_without_bias():
    gate = {"weights": [1], "U": [1], "bias": [5]}
    graph = network(
        input_sequences=[{"name": "s", "variables": [{"name": "x", "offset": 3, "scale": 1}]}],
        nodes=[
            {"type": "input_sequence", "sources": [0], "size": 1},
            {"type": "sequence", "sources": [0], "layer_index": 0},
            {"type": "sum", "sources": [0]},
        ],
        layers=[{"architecture": "simplernn", "activation": "tanh", "components": {"h": gate}}],
        outputs={"o": {"labels": ["a"], "node_index": 1}, "s": {"labels": ["a"], "node_index": 2}},
    )
    wanted = [
        Answer("o", ("a",), 1, sequence=False),
        Answer("o", ("a",), 1, sequence=True),
        Answer("s", ("a",), 2, sequence=False),
    ]
    last, every, total = evaluate(graph, [], [np.zeros((2, 0, 1))], wanted)
    assert last.tolist() == total.tolist() == [[0.0], [0.0]]
    assert every.shape == (2, 0, 1)


def conv(padding: str, activation: str) -> GraphNetwork:
    layer = {"architecture": "conv1d", "weights": [1, 1, 1], "bias": [0], "padding": padding, "dilation_rate": 1}
    return network(
        input_sequences=[{"name": "s", "variables": [{"name": "x", "offset": 0, "scale": 1}]}],
        nodes=[
            {"type": "input_sequence", "sources": [0], "size": 1},
            {"type": "sequence", "sources": [0], "layer_index": 0},
        ],
        layers=[layer | {"activation": activation}],
        outputs={"o": {"labels": ["a"], "node_index": 1}},
    )


@pytest.mark.parametrize(("padding", "activation", "steps"), [("valid", "linear", 2), ("same", "softmax", 0)])
def test_says_where_lwtnn_refuses_or_crashes(padding, activation, steps):
    with pytest.raises(Inconclusive, match="lwtnn"):
        evaluate(conv(padding, activation), [], [np.zeros((1, steps, 1))], [Answer("o", ("a",), 1, sequence=True)])


@pytest.mark.parametrize("category", [-1.0, 3.0, 0.5, np.nan])
def test_refuses_categories_outside_the_table(category):
    graph = network(
        input_sequences=[{"name": "s", "variables": [{"name": "x", "offset": 0, "scale": 1}]}],
        nodes=[
            {"type": "input_sequence", "sources": [0], "size": 1},
            {"type": "sequence", "sources": [0], "layer_index": 0},
        ],
        layers=[{"architecture": "embedding", "sublayers": [{"weights": [1, 2, 3], "index": 0, "n_out": 1}]}],
        outputs={"o": {"labels": ["a"], "node_index": 1}},
    )
    answer = [Answer("o", ("a",), 1, sequence=False)]
    assert evaluate(graph, [], [np.array([[[2.0]]])], answer)[0][0, 0] == 3
    with pytest.raises(Inconclusive, match="category"):
        evaluate(graph, [], [np.array([[[category]]])], answer)


def test_a_chain_of_many_nodes_needs_no_recursion_and_no_second_look():
    count = 20_000
    nodes = [{"type": "input", "sources": [0], "size": 1}]
    nodes += [{"type": "add", "sources": [i, i]} for i in range(40)]  # lwtnn itself would compute 2^40 nodes
    nodes += [{"type": "concatenate", "sources": [i]} for i in range(40, count)]
    graph = network(
        inputs=[{"name": "g", "variables": [{"name": "x", "offset": 0, "scale": 1}]}],
        nodes=nodes,
        outputs={"o": {"labels": ["a"], "node_index": count}},
    )
    assert evaluate(graph, [np.ones((1, 1))], [], [Answer("o", ("a",), count, sequence=False)])[0][0, 0] == 2.0**40
    assert dumps(graph)
