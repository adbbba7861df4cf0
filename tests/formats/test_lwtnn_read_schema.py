"""lwtnn's spelling: what the dataclasses look like in JSON."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from modelhub.errors import Unsupported
from modelhub.graph.interface import Feature
from modelhub_lwtnn.parse import parse
from modelhub_lwtnn.schema import (
    Activation,
    Conv1d,
    Dense,
    Embedding,
    EmbeddingTable,
    Gate,
    GraphNetwork,
    Group,
    Highway,
    Lstm,
    Maxout,
    Node,
    Normalization,
    OutputNode,
    SequentialNetwork,
    dumps,
    to_json,
)

LINEAR = Activation("linear")


def sequential(*layers, **changes) -> SequentialNetwork:
    return SequentialNetwork(**{"variables": (Feature("x"),), "layers": layers, "labels": ("y",), **changes})


def spelt(layer) -> dict:
    (result,) = to_json(sequential(layer))["layers"]
    return result


def test_dense_is_flat_and_always_has_its_activation():
    assert spelt(Dense(np.array([[1.0, 2.0], [3.0, 4.0]]), None, LINEAR)) == {
        "architecture": "dense",
        "weights": [1.0, 2.0, 3.0, 4.0],
        "bias": [],
        "activation": "linear",
    }
    assert spelt(Dense(None, np.array([5.0]), Activation("softmax")))["weights"] == []


@pytest.mark.parametrize("function", ["elu", "leakyrelu", "swish"])
def test_activations_with_alpha_are_objects(function):
    layer = spelt(Dense(None, None, Activation(function, 0.1)))
    assert layer["activation"] == {"function": function, "alpha": 0.1}


def test_all_architectures():
    one, matrix = np.array([1.0]), np.array([[2.0]])
    gate = Gate(matrix, matrix * 2, one)
    assert spelt(Normalization(one, one * 3)) == {"architecture": "normalization", "weights": [1.0], "bias": [3.0]}
    assert spelt(Maxout(np.array([[[1.0]], [[2.0]]]), np.array([[3.0], [4.0]]))) == {
        "architecture": "maxout",
        "sublayers": [{"weights": [1.0], "bias": [3.0]}, {"weights": [2.0], "bias": [4.0]}],
    }
    assert spelt(Highway(matrix, one, matrix * 2, one * 2, LINEAR)) == {
        "architecture": "highway",
        "activation": "linear",
        "components": {"t": {"weights": [2.0], "bias": [1.0]}, "carry": {"weights": [4.0], "bias": [2.0]}},
    }
    lstm = spelt(Lstm(dict.fromkeys("ifco", gate), Activation("tanh"), Activation("sigmoid")))
    assert lstm["components"]["o"] == {"weights": [2.0], "U": [4.0], "bias": [1.0]}
    assert (lstm["activation"], lstm["inner_activation"]) == ("tanh", "sigmoid")
    conv = spelt(Conv1d(np.arange(6.0).reshape(1, 2, 3), None, "same", 2, LINEAR))
    assert conv["bias"] == [0.0]  # the engine counts the channels by the bias
    assert (conv["weights"], conv["padding"], conv["dilation_rate"]) == ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "same", 2)
    table = EmbeddingTable(1, np.arange(6.0).reshape(2, 3))
    assert spelt(Embedding((table,)))["sublayers"] == [{"weights": list(range(6)), "index": 1, "n_out": 2}]


def test_integers_are_integers_and_numbers_the_shortest_that_come_back():
    network = GraphNetwork(
        inputs=(Group("g", (Feature("pt", -25.1, 1 / 3, 0.1),)),),
        input_sequences=(),
        nodes=(Node("input", (np.int64(0),), size=np.int64(1)), Node("feed_forward", (0,), layer=0)),
        layers=(Dense(np.array([[0.1 + 0.2, 5e-324][:1]]), None, LINEAR),),
        outputs={"ö": OutputNode(("a",), np.int64(1))},
    )
    text = dumps(network).decode()
    assert text == (
        '{"inputs":[{"name":"g","variables":[{"name":"pt","offset":-25.1,"scale":0.3333333333333333,"default":0.1}]}],'
        '"input_sequences":[],"nodes":[{"type":"input","sources":[0],"size":1},'
        '{"type":"feed_forward","sources":[0],"layer_index":0}],'
        '"outputs":{"ö":{"labels":["a"],"node_index":1}},'
        '"layers":[{"architecture":"dense","weights":[0.30000000000000004],"bias":[],"activation":"linear"}]}\n'
    )
    assert dumps(parse(json.loads(text), "a test")).decode() == text


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_json_has_no_words_for_is_refused_by_name(number):
    good = Dense(None, np.array([1.0]), LINEAR)
    bad = Dense(None, np.array([number]), LINEAR)
    with pytest.raises(Unsupported, match=r"layers\[1\] \(dense\): bias"):
        dumps(sequential(good, bad))
    with pytest.raises(Unsupported, match="alpha of elu"):
        dumps(sequential(Dense(None, None, Activation("elu", number))))
    with pytest.raises(Unsupported, match="'x'"):
        dumps(sequential(variables=(Feature("x", number),)))


def test_remarks_travel():
    network = sequential(miscellaneous={"sort_order": "sd0"})
    back = parse(json.loads(dumps(network)), "a test")
    assert isinstance(back, SequentialNetwork)
    assert back.miscellaneous == {"sort_order": "sd0"}


def test_a_million_weights_take_a_moment():
    weights = np.random.default_rng(0).normal(size=(1000, 1000))
    start = time.process_time()
    text = dumps(sequential(Dense(weights, None, LINEAR)))
    assert time.process_time() - start < 10
    assert len(text) < 22_000_000
