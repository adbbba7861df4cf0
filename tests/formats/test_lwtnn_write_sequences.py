"""Sequences that lwtnn can express: recurrent layers, convolutions, sums, look-ups; and what steers round its bugs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from lwtnn_writing import Build, Net, agree, answer, events, kinds, referee, written

from modelhub.errors import Notice
from modelhub.graph import blocks
from modelhub.graph.canonical import canonical
from modelhub.graph.interface import Feature, Input, Interface, Output

pytestmark = pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")

UNITS = 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(b: Net, op_type: str, x: ir.Value, width: int = 4, *more: ir.Value | None, **attributes):
    """Y and Y_h of a recurrent operator over x [N, T, width], Y as [N, T, units] and Y_h as [N, units]."""
    n = GATES[op_type] * UNITS
    timed = b.op("Transpose", x, perm=[1, 0, 2])
    weights = b.normal(1, n, width), b.normal(1, n, UNITS), b.normal(1, 2 * n)
    y, last, *_ = b.ops(op_type, timed, *weights, *more, outputs=2, hidden_size=UNITS, **attributes)
    every = b.op("Transpose", b.op("Squeeze", y, b.ints(1)), perm=[1, 0, 2])
    return every, b.op("Squeeze", last, b.ints(0))


def last_state(op_type: str, **attributes) -> Build:
    def build(b: Net) -> ir.Model:
        return b.done(b.dense(recurrent(b, op_type, b.sequence(), **attributes)[1], UNITS, 2))

    return build


def every_state(op_type: str) -> Build:
    def build(b: Net) -> ir.Model:
        return b.done(recurrent(b, op_type, b.sequence())[0], widths=[UNITS])

    return build


def stacked(b: Net) -> ir.Model:
    first, _ = recurrent(b, "LSTM", b.sequence())
    every, last = recurrent(b, "GRU", first, UNITS)
    timed = b.op("Softmax", b.op("Add", b.op("MatMul", every, b.normal(UNITS, 2)), b.normal(2)), axis=-1)
    return b.done(timed, b.dense(last, UNITS, 2), widths=[2, 2])


def last_by_gather(b: Net) -> ir.Model:
    every, _ = recurrent(b, "LSTM", b.sequence())
    return b.done(b.dense(b.op("Gather", every, b.constant(np.array(-1), "i"), axis=1), UNITS, 2))


def last_by_slice(b: Net) -> ir.Model:
    every, _ = recurrent(b, "LSTM", b.sequence())
    last = b.op("Slice", every, b.ints(-1), b.ints(2**63 - 1), b.ints(1), b.ints(1))
    return b.done(b.dense(b.op("Squeeze", last, b.ints(1)), UNITS, 2))


def zero_states(b: Net) -> ir.Model:
    """Initial states of zeros whose shape is computed from the input's, as exporters write them."""
    x = b.sequence()
    events = b.op("Gather", b.op("Shape", x), b.ints(0), axis=0)
    shape = b.op("Concat", b.ints(1), events, b.ints(UNITS), axis=0)
    h = b.op("Expand", b.constant(np.zeros((1, 1, 1)), "zero"), shape)
    c = b.op("ConstantOfShape", shape, value=ir.tensor(np.zeros(1)))
    return b.done(b.dense(recurrent(b, "LSTM", x, 4, None, h, c)[1], UNITS, 2))


def mixed_inputs(b: Net) -> ir.Model:
    _, last = recurrent(b, "LSTM", b.sequence())
    joined = b.op("Concat", b.vector(2), last, axis=1)
    return b.done(b.op("Softmax", b.dense(joined, 2 + UNITS, 3), axis=1))


def deep_set(b: Net) -> ir.Model:
    x = b.op("Relu", b.op("Add", b.op("MatMul", b.sequence(), b.normal(4, 6)), b.normal(6)))
    total = b.op("ReduceSum", x, b.ints(1), keepdims=0)
    return b.done(b.dense(total, 6, 2))


def two_sums(b: Net) -> ir.Model:
    x = b.sequence()
    total = b.op("ReduceSum", x, b.ints(1), keepdims=1)
    everything = b.op("Reshape", b.op("ReduceSum", x, b.ints(-1, 1), keepdims=0), b.ints(-1, 1))
    return b.done(b.dense(b.op("Squeeze", total, b.ints(1)), 4, 2), everything, widths=[2, 1])


def timed_last(b: Net) -> ir.Model:
    """The last step of what works step by step, and of an input itself."""
    x = b.sequence()
    timed = b.op("Tanh", b.op("MatMul", x, b.normal(4, 5)))
    index = b.constant(np.array(-1), "i")
    return b.done(
        b.op("Gather", timed, index, axis=1),
        b.op("Gather", x, index, axis=1),
        b.op("Gather", b.op("MatMul", recurrent(b, "LSTM", timed, 5)[0], b.normal(UNITS, 2)), index, axis=1),
        widths=[5, 4, 2],
    )


def timed_scaling(b: Net) -> ir.Model:
    x = b.op("Tanh", b.sequence())
    x = b.op("Mul", b.op("Sub", x, b.normal(1, 1, 4)), b.normal(4))
    return b.done(b.op("Selu", b.op("Clip", x, b.number(-1.0), b.number(0.5))))


def features_first(b: Net) -> ir.Model:
    """[N, F, T] throughout: BatchNormalization, PRelu with its slopes [F, 1], a matrix from the left."""
    x = b.op("Transpose", b.sequence(), perm=[0, 2, 1])
    ones = [b.normal(4), b.normal(4), b.normal(4), b.constant(b.random.uniform(0.5, 2, 4), "var")]
    x = b.op("BatchNormalization", x, *ones)
    x = b.op("PRelu", x, b.normal(4, 1))
    x = b.op("MatMul", b.normal(3, 4), x)
    return b.done(b.op("Transpose", b.op("Relu", x), perm=[0, 2, 1]))


def conv(kernel: int, *, activation: str = "Relu", last: bool = False, **attributes) -> Build:
    def build(b: Net) -> ir.Model:
        x = b.op("Transpose", b.op("Tanh", b.sequence()), perm=[0, 2, 1])
        y = b.op("Conv", x, b.normal(3, 4, kernel), b.normal(3), **attributes)
        y = b.op("Transpose", y, perm=[0, 2, 1])
        y = b.op(activation, y, **({"axis": -1} if activation == "Softmax" else {}))
        if last:
            return b.done(b.dense(b.op("Gather", y, b.constant(np.array(-1), "i"), axis=1), 3, 2))
        return b.done(y, widths=[3])

    return build


def conv_without_bias(b: Net) -> ir.Model:
    x = b.op("Transpose", b.sequence(), perm=[0, 2, 1])
    return b.done(b.op("Transpose", b.op("Conv", x, b.normal(2, 4, 2)), perm=[0, 2, 1]), widths=[2])


def flattened(b: Net) -> ir.Model:
    x = b.op("Tanh", b.sequence(length=5))
    return b.done(b.op("Relu", b.dense(b.op("Flatten", x), 20, 3)))


def flattened_features_first(b: Net) -> ir.Model:
    x = b.op("Transpose", b.op("Tanh", b.sequence(length=5)), perm=[0, 2, 1])
    return b.done(b.op("Softmax", b.dense(b.op("Reshape", x, b.ints(-1, 20)), 20, 3), axis=1))


def flattened_single_feature(b: Net) -> ir.Model:
    x = b.op("Tanh", b.sequence(1, length=5))
    return b.done(b.dense(b.op("Reshape", x, b.ints(0, -1)), 5, 3))


def mean_of_fixed(b: Net) -> ir.Model:
    x = b.op("Tanh", b.sequence(length=5))
    turned = b.op("Transpose", x, perm=[0, 2, 1])
    pooled = b.op("Squeeze", b.op("GlobalAveragePool", turned), b.ints(2))
    return b.done(b.op("ReduceMean", x, b.ints(1), keepdims=0), b.dense(pooled, 4, 2))


def columns_of_sequence(b: Net) -> ir.Model:
    x = b.sequence(5)
    left = b.op("Slice", x, b.ints(0), b.ints(2), b.ints(2))
    right = b.op("Slice", x, b.ints(3), b.ints(5), b.ints(2))
    joined = b.op("Concat", right, left, axis=2)
    return b.done(recurrent(b, "RNN", joined)[1])


def columns_of_all_steps_and_the_last(b: Net) -> ir.Model:
    every, last = recurrent(b, "LSTM", b.sequence())
    columns = b.ints(2, 0)
    gate = b.op("Gather", last, columns, axis=1)
    swish = b.op("Mul", gate, b.op("Sigmoid", gate))
    return b.done(b.op("Tanh", b.op("Gather", every, columns, axis=2)), swish, widths=[2, 2])


def dynamic_reshape(b: Net) -> ir.Model:
    """Y [T, 1, N, H] to [T, N, H] by a shape computed from the data."""
    timed = b.op("Transpose", b.sequence(), perm=[1, 0, 2])
    n = GATES["RNN"] * UNITS
    y = b.op("RNN", timed, b.normal(1, n, 4), b.normal(1, n, UNITS), hidden_size=UNITS)
    steps = b.op("Gather", b.op("Shape", timed), b.ints(0), axis=0)
    shape = b.op("Concat", steps, b.ints(-1, UNITS), axis=0)
    every = b.op("Transpose", b.op("Reshape", y, shape), perm=[1, 0, 2])
    return b.done(b.op("Tanh", every), widths=[UNITS])


def last_of_stacked_states(b: Net) -> ir.Model:
    """Torch's h_n of two layers, of which one is taken by Gather, the other by Slice."""
    timed = b.op("Transpose", b.sequence(), perm=[1, 0, 2])
    lasts = []
    for width in (4, UNITS):
        n = GATES["LSTM"] * UNITS
        y, last = b.ops("LSTM", timed, b.normal(1, n, width), b.normal(1, n, UNITS), outputs=2, hidden_size=UNITS)
        timed = b.op("Squeeze", y, b.ints(1))
        lasts.append(last)
    states = b.op("Concat", *lasts, axis=0)
    first = b.op("Squeeze", b.op("Slice", states, b.ints(0), b.ints(1), b.ints(0)), b.ints(0))
    last = b.op("Gather", states, b.constant(np.array(-1), "i"), axis=0)
    return b.done(b.dense(first, UNITS, 2), b.dense(last, UNITS, 2))


CASES: list[tuple[Build, str, list[str] | None]] = [
    *((last_state(op), op, ["input_sequence", op.lower(), "dense"]) for op in ("LSTM", "GRU")),
    (last_state("RNN"), "RNN", ["input_sequence", "simplernn", "dense"]),
    *((every_state(op), f"{op} every step", None) for op in GATES),
    (last_by_gather, "last step by Gather", ["input_sequence", "lstm", "dense"]),
    (last_by_slice, "last step by Slice", ["input_sequence", "lstm", "dense"]),
    (zero_states, "initial states of zeros", ["input_sequence", "lstm", "dense"]),
    (stacked, "stacked", ["input_sequence", "lstm", "gru", "dense", "dense"]),
    (mixed_inputs, "vector and sequence", ["input_sequence", "input", "lstm", "concatenate", "dense"]),
    (deep_set, "deep set", ["input_sequence", "dense", "sum", "dense"]),
    (two_sums, "sums", ["input_sequence", "sum", "dense", "sum", "dense"]),
    (timed_last, "last of timed", None),
    (timed_scaling, "scaling of steps", None),
    (features_first, "features first", None),
    (conv(3), "conv valid", ["input_sequence", "dense", "conv1d"]),
    (conv(1), "conv of one", None),
    (conv(3, pads=[1, 1]), "conv same", None),
    (conv(3, pads=[2, 2], dilations=[2]), "conv same dilated", None),
    (conv(4, pads=[1, 2]), "conv same even kernel", None),
    (conv(2, pads=[0, 1]), "conv same kernel of two", None),
    (conv(2, pads=[1, 2], dilations=[3]), "conv same odd dilation", None),
    (conv(4, pads=[2, 1]), "conv same lower", None),
    (conv(4, auto_pad="SAME_UPPER"), "conv auto same", None),
    (conv(4, auto_pad="SAME_LOWER"), "conv auto same lower", None),
    (conv(3, auto_pad="VALID"), "conv auto valid", None),
    (conv(3, pads=[2, 0]), "conv causal", None),
    (conv(2, pads=[3, 0], dilations=[3]), "conv causal dilated", None),
    (conv(3, pads=[0, 2]), "conv anticausal", None),
    (conv(3, activation="Softmax"), "conv softmax", ["input_sequence", "dense", "conv1d", "dense"]),
    (conv(3, last=True), "conv last", ["input_sequence", "dense", "conv1d", "dense"]),
    (conv_without_bias, "conv without bias", ["input_sequence", "conv1d"]),
    (flattened, "flattened", ["input_sequence", "dense", "conv1d"]),
    (flattened_features_first, "flattened features first", ["input_sequence", "dense", "conv1d", "dense"]),
    (flattened_single_feature, "flattened single feature", ["input_sequence", "dense", "conv1d"]),
    (mean_of_fixed, "mean over fixed length", None),
    (columns_of_sequence, "columns of a sequence", ["input_sequence", "dense", "simplernn"]),
    (last_of_stacked_states, "states of stacked layers", ["input_sequence", "lstm", "lstm", "dense", "dense"]),
    (columns_of_all_steps_and_the_last, "columns of all steps and of the last", None),
    (dynamic_reshape, "dynamic reshape", None),
]


@pytest.mark.parametrize(("build", "expected"), [c[::2] for c in CASES], ids=[c[1] for c in CASES])
def test_file_computes_what_the_graph_computes(build: Build, expected: list[str] | None, tmp_path) -> None:
    data = agree(build(Net()), tmp_path / "net.json")
    if expected is not None:
        assert kinds(data) == expected


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("LSTM", {"activations": ["HardSigmoid", "Relu", "Relu"]}),
        ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [1 / 6]}),
        ("LSTM", {"activations": ["Sigmoid", "Elu", "Elu"], "activation_alpha": [0.5, 0.5]}),
        ("LSTM", {"activations": ["Tanh", "Sigmoid", "Sigmoid"]}),
        ("RNN", {"activations": ["HardSigmoid"], "activation_alpha": [0.25], "activation_beta": [0.25]}),
        ("RNN", {"activations": ["Affine"], "activation_alpha": [1.0]}),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.3]}),
        ("GRU", {"activations": ["Sigmoid", "Relu"]}),
        ("GRU", {"activations": ["HardSigmoid", "HardSigmoid"], "activation_alpha": [0.2, 0.3]}),
    ],
    ids=str,
)
def test_activations_of_recurrent_layers(op_type: str, attributes: dict, tmp_path) -> None:
    agree(last_state(op_type, **attributes)(Net()), tmp_path / "net.json", 1e-5, precision="float32", spread=0.5)


@pytest.mark.parametrize("steps", [1, 2, 11])
@pytest.mark.parametrize("build", [last_state("LSTM"), last_state("GRU"), deep_set, stacked, conv(4, pads=[1, 2])])
def test_sequences_of_any_length(build: Build, steps: int, tmp_path) -> None:
    agree(build(Net(5)), tmp_path / "net.json", steps=steps)


@pytest.mark.parametrize("build", [deep_set, two_sums])
def test_sums_of_empty_sequences(build: Build, tmp_path) -> None:
    agree(build(Net(5)), tmp_path / "net.json", steps=0)


def embedding(b: Net, columns: list[int], order: list[str]) -> ir.Model:
    """Columns of a sequence looked up in tables [6, 2] and joined, in `order`: "0" a column, "e0" its look-up."""
    x = b.sequence()
    tables = {c: b.normal(6, 2) for c in columns}

    def part(name: str) -> ir.Value:
        column = int(name.lstrip("e"))
        if name.startswith("e"):
            index = b.op("Gather", x, b.constant(np.array(column), "i"), axis=2)
            return b.op("Gather", tables[column], b.op("Cast", index, to=ir.DataType.INT64), axis=0)
        return b.op("Slice", x, b.ints(column), b.ints(column + 1), b.ints(2))

    parts = [part(name) for name in order]
    joined = b.op("Concat", *parts, axis=-1) if len(parts) > 1 else parts[0]
    total = sum(2 if name.startswith("e") else 1 for name in order)
    return b.done(recurrent(b, "RNN", joined, total)[1], widths=[UNITS])


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        ([3], ["0", "1", "2", "e3"]),
        ([3], ["e3"]),
        ([0], ["e0", "1", "2", "3"]),
        ([1, 3], ["0", "e1", "2", "e3"]),
        ([0, 2], ["e2", "e0", "0"]),
        ([2], ["e2", "2", "e2"]),
    ],
    ids=["last", "alone", "first", "two", "swapped", "twice"],
)
def test_embedding_whatever_the_column(columns: list[int], order: list[str], tmp_path) -> None:
    model = embedding(Net(), columns, order)
    path = tmp_path / "net.json"
    data = written(model, path)
    tables = [sublayer for layer in data["layers"] for sublayer in layer.get("sublayers", [])]
    assert tables
    arrays = events(model)
    for column in columns:
        arrays["tracks"][..., column] = np.random.default_rng(column).integers(0, 6, arrays["tracks"].shape[:2])
    for told, computed in zip(referee(model, arrays), answer(path, model, arrays), strict=True):
        np.testing.assert_allclose(computed, told, rtol=1e-12, atol=1e-12)


def test_integer_input_looked_up(tmp_path) -> None:
    """Keras's Embedding over an input [N, T] of integers."""
    b = Net()
    x = b.input("words", ["N", "T"], "int64")
    vectors = b.op("Gather", b.normal(6, 3), x, axis=0)
    b.output(recurrent(b, "RNN", vectors, 3)[1], "y", ["N", UNITS], "float64")
    model = b.finish(Interface((Input("words", (Feature("word"),), sequence=True),), (Output("y", ("a", "b", "c")),)))
    canonical(model)
    path = tmp_path / "net.json"
    assert kinds(written(model, path)) == ["input_sequence", "embedding", "simplernn"]
    words = np.random.default_rng(0).integers(0, 6, (7, 5))
    (told,) = referee(model, {"words": words})
    (computed,) = answer(path, model, {"words": words[..., None].astype(float)})
    np.testing.assert_allclose(computed, told, rtol=1e-12, atol=1e-12)


def masked(b: Net) -> ir.Model:
    """Keras's Masking before an LSTM that returns sequences, as modelhub writes it."""
    x = b.sequence()
    keep = b.op("ReduceMax", b.op("Cast", b.op("Not", b.op("Equal", x, b.number(-99.0))), to=6), b.ints(-1), keepdims=0)
    y, lengths, slot = b.block(blocks.compact_steps(), x, b.op("Cast", keep, to=ir.DataType.BOOL), outputs=3)
    timed = b.op("Transpose", y, perm=[1, 0, 2])
    n = GATES["LSTM"] * UNITS
    weights = b.normal(1, n, 4), b.normal(1, n, UNITS), b.normal(1, 2 * n)
    every, last = b.ops("LSTM", timed, *weights, lengths, outputs=2, hidden_size=UNITS)
    every = b.op("Transpose", b.op("Squeeze", every, b.ints(1)), perm=[1, 0, 2])
    spread = b.block(blocks.spread_steps(), every, slot)[0]
    return b.done(b.op("Tanh", spread), b.op("Squeeze", last, b.ints(0)), widths=[UNITS, UNITS])


def masked_deep_set(b: Net) -> ir.Model:
    """Keras's Masking without a recurrent layer: masked steps become zeros."""
    x = b.sequence()
    differs = b.op("Cast", b.op("Not", b.op("Equal", x, b.number(-99.0))), to=6)
    keep = b.op("Cast", b.op("ReduceMax", differs, b.ints(-1), keepdims=0), to=9)
    x = b.op("Where", b.op("Unsqueeze", keep, b.ints(-1)), x, b.number(0.0))
    return b.done(b.op("ReduceSum", b.op("Relu", b.op("MatMul", x, b.normal(4, 3))), b.ints(1), keepdims=0))


def test_masks_without_recurrent_layers_too(tmp_path) -> None:
    with pytest.warns(Notice, match="has no masks"):
        data = agree(masked_deep_set(Net()), tmp_path / "net.json")
    assert kinds(data) == ["input_sequence", "dense", "sum"]


def test_masks_are_dropped_with_a_notice(tmp_path) -> None:
    model = masked(Net())
    with pytest.warns(Notice, match="has no masks.*true-length sequences without padding"):
        data = agree(model, tmp_path / "net.json")
    assert kinds(data) == ["input_sequence", "lstm", "dense"]


def test_fixed_length_is_told(tmp_path) -> None:
    with pytest.warns(Notice, match="exactly 5 steps"):
        written(mean_of_fixed(Net()), tmp_path / "net.json")


@pytest.mark.parametrize(
    ("build", "version"),
    [(last_state("RNN"), "2.13"), (conv(3), "2.14")],
    ids=["simplernn", "conv1d"],
)
def test_late_layers_tell_the_release(build: Build, version: str, tmp_path) -> None:
    with pytest.warns(Notice, match=f"needs lwtnn {version} or later"):
        written(build(Net()), tmp_path / "net.json")


@pytest.mark.parametrize("build", [c[0] for c in CASES], ids=[c[1] for c in CASES])
def test_graphs_that_nobody_tidied(build: Build, tmp_path) -> None:
    """No pass of the hub is needed: Constant nodes, no-ops and MatMul with Add are understood."""
    agree(build(Net(4, tidy=False)), tmp_path / "net.json")
