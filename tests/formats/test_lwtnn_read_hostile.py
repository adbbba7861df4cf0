"""Damaged, wrong and hostile lwtnn files: one clear line with the JSON path, whatever the engine would have done."""

from __future__ import annotations

import copy
import json
import time

import pytest

from modelhub.errors import Notice, UnreadableFile
from modelhub_lwtnn.parse import parse, read


def dense(n: int, out: int, **changes) -> dict:
    return {"architecture": "dense", "weights": [1.0] * (n * out), "bias": [0.0] * out, "activation": "tanh"} | changes


def gate(n: int, units: int, **changes) -> dict:
    return {"weights": [1.0] * (n * units), "U": [1.0] * units**2, "bias": [0.0] * units} | changes


def rnn(n: int = 2, units: int = 3, **changes) -> dict:
    return {"architecture": "simplernn", "activation": "tanh", "components": {"h": gate(n, units, **changes)}}


def lstm(**changes) -> dict:
    gates = {g: gate(2, 3) for g in "ifco"} | changes
    return {"architecture": "lstm", "activation": "tanh", "inner_activation": "sigmoid", "components": gates}


def conv(**changes) -> dict:
    layer = {"architecture": "conv1d", "weights": [1.0] * 12, "bias": [0.0] * 3, "padding": "same", "dilation_rate": 1}
    return layer | {"activation": "tanh"} | changes


def embedding(**changes) -> dict:
    return {"architecture": "embedding", "sublayers": [{"weights": [1.0] * 8, "index": 1, "n_out": 2} | changes]}


def variables(n: int) -> list[dict]:
    return [{"name": f"v{i}", "offset": 0, "scale": 1} for i in range(n)]


def sequential(*layers: dict, n: int = 2, out: int = 3, **changes) -> dict:
    return {"inputs": variables(n), "layers": list(layers), "outputs": [f"y{i}" for i in range(out)]} | changes


def graph(layer: dict, kind: str = "feed_forward", **changes) -> dict:
    """Two variables, scalar and in a sequence, and one layer of three units."""
    return {
        "inputs": [{"name": "g", "variables": variables(2)}],
        "input_sequences": [{"name": "s", "variables": variables(2)}],
        "nodes": [
            {"type": "input", "sources": [0], "size": 2},
            {"type": "input_sequence", "sources": [0], "size": 2},
            {"type": kind, "sources": [0 if kind == "feed_forward" else 1], "layer_index": 0},
        ],
        "layers": [layer],
        "outputs": {"o": {"labels": ["a", "b", "c"], "node_index": 2}},
    } | changes


def outputs(labels: list, node: object = 2) -> dict:
    return {"o": {"labels": labels, "node_index": node}}


def nodes(*changed: dict) -> list[dict]:
    """The nodes of `graph` with those after the inputs in place of its own."""
    return graph(dense(2, 3))["nodes"][:2] + list(changed)


GOOD = {
    "sequential": sequential(dense(2, 3)),
    "numbers as texts": sequential(dense(2, 3, bias=["1", "-2.5", ".5e1"])),
    "feed_forward": graph(dense(2, 3)),
    "integers as texts": graph(dense(2, 3), outputs=outputs(["a", "b", "c"], "2")),
    "time_distributed": graph(dense(2, 3), "time_distributed"),
    "simplernn": graph(rnn(), "sequence"),
    "lstm": graph(lstm(), "sequence"),
    "conv1d": graph(conv(), "sequence"),
    "embedding": graph(embedding(), "sequence"),
    "elu without alpha": sequential(dense(2, 3, activation="elu")),
    "legacy": sequential(dense(2, 3, activation="rectified_legacy")),
    "unknown keys": sequential(dense(2, 3, remark=[{}]), remark=None),
    "remarks": sequential(dense(2, 3), miscellaneous={"sort_order": "sd0", "more": {"deep": [1]}}),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_files_pass(name):
    parse(GOOD[name], name)


BAD = {
    # sequential files
    "no inputs": ({"layers": [], "outputs": ["y"]}, "'inputs'"),
    "no layers": ({"inputs": variables(1), "outputs": ["y"]}, "'layers'"),
    "no outputs": ({"inputs": variables(1), "layers": []}, "'outputs'"),
    "no variables": (sequential(n=0, out=0), "inputs is empty"),
    "a variables file": ({"inputs": [], "input_sequences": [], "outputs": []}, "variables file"),
    "not an object": ([1], "must be a JSON object"),
    "no offset": (sequential(inputs=[{"name": "x", "scale": 1}]), "inputs[0] lacks the key 'offset'"),
    "nameless": (sequential(inputs=[{"name": "", "offset": 0, "scale": 1}]), "inputs[0].name must be a name"),
    "half a character": (sequential(inputs=[{"name": "\ud800", "offset": 0, "scale": 1}]), "surrogate"),
    "offset in words": (
        sequential(inputs=[{"name": "x", "offset": "nan", "scale": 1}]),
        "inputs[0].offset must be",
    ),
    "offset true": (
        sequential(inputs=[{"name": "x", "offset": True, "scale": 1}]),
        "inputs[0].offset must be",
    ),
    "too many labels": (sequential(dense(2, 3), out=4), "outputs has 4 labels for 3 components"),
    "too few labels": (sequential(dense(2, 3), out=2), "outputs has 2 labels for 3 components"),
    "one label twice": (sequential(dense(2, 3), outputs=["a", "b", "a"]), "'a' twice"),
    "conv1d in a sequential file": (sequential(conv()), "layers[0] is a conv1d"),
    # layers
    "architecture": (sequential(dense(2, 3, architecture="dens")), "layers[0].architecture is 'dens'"),
    "weights not divisible": (sequential(dense(2, 3, weights=[1.0] * 5)), "layers[0].weights has 5 numbers"),
    "weights for another width": (
        sequential(dense(2, 3, weights=[1.0] * 8)),
        "layers[0].bias has 3 numbers",
    ),
    "bias too short": (sequential(dense(2, 3, bias=[1.0])), "layers[0].bias has 1 numbers, must have 3"),
    "nested weights": (sequential(dense(2, 3, weights=[[1.0] * 6])), "layers[0].weights[0] must be a number"),
    "null in weights": (sequential(dense(2, 3, weights=[None] * 6)), "layers[0].weights[0] must be a number, is None"),
    "text in weights": (sequential(dense(2, 3, weights=["1.5abc"] * 6)), "layers[0].weights[0] must be a number"),
    "huge integer": (sequential(dense(2, 3, bias=[10**400, 0, 0])), "layers[0].bias[0] overflows"),
    "no activation": (
        sequential({"architecture": "dense", "weights": [], "bias": []}),
        "lacks the key 'activation'",
    ),
    "relu": (
        sequential(dense(2, 3, activation="relu")),
        "is 'relu', which is no activation of lwtnn: lwtnn calls it",
    ),
    "swish without alpha": (sequential(dense(2, 3, activation="swish")), "layers[0].activation is swish without alpha"),
    "leakyrelu without alpha": (sequential(dense(2, 3, activation="leakyrelu")), "leakyrelu without alpha"),
    "half an activation": (sequential(dense(2, 3, activation={"function": "elu"})), "lacks the key 'alpha'"),
    "normalization too short": (
        sequential({"architecture": "normalization", "weights": [1.0], "bias": [1.0]}, out=1),
        "layers[0].weights has 1 numbers, must have 2",
    ),
    "maxout of nothing": (sequential({"architecture": "maxout", "sublayers": []}), "layers[0].sublayers is empty"),
    "uneven maxout": (
        sequential({"architecture": "maxout", "sublayers": [dense(2, 3), dense(2, 2)]}),
        "layers[0].sublayers[1].weights gives 2 components",
    ),
    "highway not square": (
        sequential({"architecture": "highway", "activation": "tanh", "components": {"t": gate(2, 3), "carry": {}}}),
        "layers[0].components.t.weights has 6 numbers, must have 2 x 2",
    ),
    "no U": (graph(rnn(U=[]), "sequence"), "layers[0].components.h.U has 0 numbers, must have 3 x 3"),
    "missing U": (
        graph({**rnn(), "components": {"h": {"weights": [1.0] * 6, "bias": [0.0] * 3}}}, "sequence"),
        "layers[0].components.h lacks the key 'U'",
    ),
    "missing gate": (graph(lstm(o=None), "sequence"), "layers[0].components.o must be a JSON object"),
    "gates of two sizes": (graph(lstm(f=gate(2, 2)), "sequence"), "is for 2 units, those of gate 'i' for 3"),
    "GRU with two biases": (
        graph(
            {
                "architecture": "gru",
                "activation": "tanh",
                "inner_activation": "sigmoid",
                "components": {g: gate(2, 3, bias=[0.0] * 24) for g in "zrh"},
            },
            "sequence",
        ),
        "layers[0].components.z.bias has 24 numbers, must have 3",
    ),
    "conv1d without bias": (graph(conv(bias=[]), "sequence"), "layers[0].bias is empty"),
    "conv1d weights": (graph(conv(weights=[1.0] * 11), "sequence"), "layers[0].weights has 11 numbers"),
    "conv1d padding": (graph(conv(padding="full"), "sequence"), "layers[0].padding is 'full'"),
    "conv1d dilation 0": (graph(conv(dilation_rate=0), "sequence"), "layers[0].dilation_rate is 0"),
    "conv1d dilation 1.0": (
        graph(conv(dilation_rate=1.0), "sequence"),
        "layers[0].dilation_rate must be",
    ),
    "conv1d of endless reach": (graph(conv(dilation_rate=2**30), "sequence"), "reach over"),
    "embedding not last": (graph(embedding(index=0), "sequence"), "layers[0].sublayers[0].index is 0, must be 1"),
    "embedding n_out": (graph(embedding(n_out=3), "sequence"), "must have a multiple of n_out = 3"),
    "embedding of huge n_out": (graph(embedding(n_out=2**31 - 1), "sequence"), "must have a multiple of n_out"),
    # graph files
    "no input_sequences": (
        {k: v for k, v in graph(dense(2, 3)).items() if k != "input_sequences"},
        "'input_sequences'",
    ),
    "node type": (graph(dense(2, 3), nodes=nodes({"type": "multiply", "sources": [0]})), "nodes[2].type is 'multiply'"),
    "no sources": (graph(dense(2, 3), nodes=nodes({"type": "add", "sources": []})), "nodes[2].sources has 0 entries"),
    "two sources": (
        graph(dense(2, 3), nodes=nodes({"type": "sum", "sources": [1, 1]})),
        "nodes[2].sources has 2 entries, a sum node takes exactly one",
    ),
    "source out of range": (graph(dense(2, 3), nodes=nodes({"type": "add", "sources": [7]})), "names node 7 (entry 0)"),
    "negative source": (graph(dense(2, 3), nodes=nodes({"type": "add", "sources": [-1]})), "nodes[2].sources[0] is -1"),
    "float source": (
        graph(dense(2, 3), nodes=nodes({"type": "add", "sources": [0.0]})),
        "nodes[2].sources[0] must be",
    ),
    "layer out of range": (
        graph(dense(2, 3), nodes=nodes({"type": "feed_forward", "sources": [0], "layer_index": 1})),
        "nodes[2].layer_index is 1, the file has 1 layers",
    ),
    "group out of range": (graph(dense(2, 3), nodes=[{"type": "input", "sources": [1], "size": 2}]), "names inputs[1]"),
    "size": (
        graph(dense(2, 3), nodes=[{"type": "input", "sources": [0], "size": 3}]),
        "nodes[0].size is 3",
    ),
    "size 0": (graph(dense(2, 3), nodes=[{"type": "input", "sources": [0], "size": 0}]), "nodes[0].size is 0"),
    "own source": (graph(dense(2, 3), nodes=nodes({"type": "add", "sources": [2]})), "nodes[2].sources closes a cycle"),
    "cycle": (
        graph(dense(2, 3), nodes=nodes({"type": "add", "sources": [3]}, {"type": "concatenate", "sources": [0, 2]})),
        "closes a cycle",
    ),
    "vector for a sequence": (
        graph(dense(2, 3), nodes=nodes({"type": "sum", "sources": [0]})),
        "nodes[2].sources must name sequence nodes; node 0 is of type input",
    ),
    "sequence for a vector": (
        graph(dense(2, 3), nodes=nodes({"type": "concatenate", "sources": [0, 1]})),
        "nodes[2].sources must name vector nodes; node 1 is of type input_sequence",
    ),
    "recurrent layer on a vector": (graph(rnn()), "layers[0].architecture = simplernn, a feed_forward node takes"),
    "dense as a sequence node": (
        graph(dense(2, 3), "sequence"),
        "= dense, a sequence node takes",
    ),
    "a layer at two widths": (
        graph(
            dense(2, 3, bias=[]),
            nodes=nodes(
                {"type": "feed_forward", "sources": [0], "layer_index": 0},
                {"type": "feed_forward", "sources": [2], "layer_index": 0},
            ),
        ),
        "runs layer 0 at width 3, another node at 2",
    ),
    "add of two widths": (
        graph(
            dense(2, 3),
            nodes=nodes(
                {"type": "feed_forward", "sources": [0], "layer_index": 0},
                {"type": "add", "sources": [0, 2]},
            ),
        ),
        "an add node needs equal ones",
    ),
    "more labels than components": (
        graph(dense(2, 3), outputs=outputs(list("abcd"))),
        "outputs.o.labels has 4",
    ),
    "fewer labels": (graph(dense(2, 3), outputs=outputs(["a"])), "outputs.o.labels has 1 labels for 3 components"),
    "labels twice": (graph(dense(2, 3), outputs=outputs(["a", "a", "b"])), "outputs.o.labels has the label 'a' twice"),
    "output out of range": (
        graph(dense(2, 3), outputs=outputs(["a"], 3)),
        "outputs.o.node_index is 3",
    ),
    "no output at all": (graph(dense(2, 3), outputs={}), "outputs is empty"),
    "outputs as a list": (graph(dense(2, 3), outputs=[1]), "outputs must be a JSON object"),
    "nodes as an object": (graph(dense(2, 3), nodes={}), "nodes must be a list"),
}


@pytest.mark.parametrize("name", BAD)
def test_faults_are_told_with_their_place(name):
    data, message = BAD[name]
    with pytest.raises(UnreadableFile) as caught:
        parse(data, "bad.json")
    text = str(caught.value)
    assert text.startswith("bad.json: ")
    assert message in text
    assert "\n" not in text
    assert len(text) < 400


TEXTS = {
    "truncated": json.dumps(GOOD["feed_forward"])[:-20],
    "trailing comma": '{"inputs": [],}',
    "two documents": "{}{}",
    "NaN": json.dumps(sequential(dense(2, 3, bias=[float("nan"), 0, 0]))),
    "infinity": json.dumps(sequential(dense(2, 3, bias=[float("inf"), 0, 0]))),
    "overflow": json.dumps(sequential(dense(2, 3))).replace("0.0", "1e400", 1),
    "a key twice": '{"inputs": [], "inputs": []}',
    "nested": '{"layers": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "nested objects": '{"nodes":' * 100_000 + "1" + "}" * 100_000,
    "a number as long as a book": '{"inputs": ' + "9" * 1_000_000 + "}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_json_is_told_in_one_line(tmp_path, name):
    path = tmp_path / "bad.json"
    path.write_text(TEXTS[name])
    with pytest.raises(UnreadableFile) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [b"", b"\xff\xfe{}", b"\x00" * 100])
def test_what_is_no_text_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"bad\.json"):
        read(path)


def test_a_short_file_cannot_claim_a_vector_without_end():
    doubling = [{"type": "concatenate", "sources": [i + 1, i + 1]} for i in range(1, 200)]
    chain = nodes({"type": "concatenate", "sources": [0, 0]}, *doubling)
    with pytest.raises(UnreadableFile, match="more than the limit"):
        parse(graph(dense(2, 3), nodes=chain), "bad.json")


def test_a_long_chain_is_walked_without_recursion():
    chain = nodes(*({"type": "add", "sources": [max(i - 1, 0)]} for i in range(2, 50_000)))
    chain[2]["sources"] = [0]
    parsed = parse(graph(dense(2, 3), nodes=chain, layers=[], outputs=outputs(["a", "b"], 49_999)), "long.json")
    assert len(parsed.nodes) == 50_000


def test_a_long_chain_backwards_and_its_cycle():
    count = 50_000
    chain = nodes(*({"type": "add", "sources": [i + 1]} for i in range(2, count)), {"type": "add", "sources": [2]})
    with pytest.raises(UnreadableFile, match="closes a cycle"):
        parse(graph(dense(2, 3), nodes=chain), "bad.json")
    chain[-1]["sources"] = [0]
    parse(graph(dense(2, 3), nodes=chain, layers=[], outputs=outputs(["a", "b"])), "long.json")


def test_a_million_weights_take_a_moment(tmp_path):
    path = tmp_path / "big.json"
    path.write_text(json.dumps(sequential(dense(1000, 1000), n=1000, out=1000)))
    start = time.process_time()
    read(path)
    assert time.process_time() - start < 10


def test_what_the_engine_ignores_is_told():
    layer = {"architecture": "normalization", "weights": [1, 1], "bias": [0, 0], "activation": "tanh"}
    with pytest.warns(Notice, match=r"layers\[0\]\.activation has no effect"):
        parse(sequential(layer, out=2), "a test")


def test_control_characters_do_not_reach_the_terminal():
    bad = copy.deepcopy(GOOD["feed_forward"])
    bad["outputs"] = {"\x1b[31m\nred": {"labels": ["a"], "node_index": 2}}
    with pytest.raises(UnreadableFile) as caught:
        parse(bad, "bad.json")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
