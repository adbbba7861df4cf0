"""What lwtnn cannot say is refused: every node by name, with the reason, all at once, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from lwtnn_writing import Build, Net, agree, written

from modelhub.errors import Unsupported
from modelhub.graph.interface import Feature, Input, Interface, Output

pytestmark = pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")

UNITS = 2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(op_type: str, *more: str, directions: int = 1, output: int = 1, **attributes) -> Build:
    """A recurrent layer "rnn_1" whose Y_h (or another output) is read; `more` are inputs after the biases, by name."""

    def build(b: Net) -> ir.Model:
        n = GATES[op_type] * UNITS
        x = b.op("Transpose", b.sequence(), perm=[1, 0, 2])
        kinds = {
            "state": lambda: b.normal(directions, 1, UNITS),
            "peepholes": lambda: b.normal(directions, 3 * UNITS),
            "": lambda: None,
        }
        inputs = [kinds[name]() for name in more]
        with b.scope("rnn_1"):
            weights = [b.normal(directions, n, 4), b.normal(directions, n, UNITS), b.normal(directions, 2 * n)]
            count = 3 if op_type == "LSTM" else 2
            outputs = b.ops(op_type, x, *weights, *inputs, outputs=count, hidden_size=UNITS, **attributes)
        return b.done(
            b.op("Tanh", b.op("Gather", outputs[output], b.constant(np.array(0), "i"), axis=0)), widths=[UNITS]
        )

    return build


def unary(op_type: str, *inputs: float, sequence: bool = False, **attributes) -> Build:
    """The operator in a layer "head" on a vector or sequence of four features."""

    def build(b: Net) -> ir.Model:
        x = b.sequence() if sequence else b.vector()
        with b.scope("head"):
            return b.done(b.op(op_type, x, *(b.number(value) for value in inputs), **attributes), widths=[4])

    return build


def on(make: Callable[[Net, ir.Value], ir.Value], *, sequence: bool = False, length: int | str = "T") -> Build:
    """What `make` does in a layer "head" with a vector or sequence of four features."""

    def build(b: Net) -> ir.Model:
        x = b.sequence(length=length) if sequence else b.vector()
        with b.scope("head"):
            return b.done(make(b, x), widths=[4])

    return build


def i(b: Net, index: int) -> ir.Value:
    return b.constant(np.array(index), "i")


def attention(b: Net, x: ir.Value) -> ir.Value:
    return b.op("MatMul", b.op("MatMul", x, b.op("Transpose", x, perm=[0, 2, 1])), x)


def convolved(b: Net, x: ir.Value, *, features: int = 4, **attributes) -> ir.Value:
    turned = b.op("Transpose", x, perm=[0, 2, 1])
    return b.op("Transpose", b.op("Conv", turned, b.normal(4, features, 3), **attributes), perm=[0, 2, 1])


def late_default(b: Net, x: ir.Value) -> ir.Value:
    x = b.op("Tanh", x)
    return b.op("Where", b.op("IsNaN", x), b.normal(4), x)


def half_default(b: Net, x: ir.Value) -> ir.Value:
    replaced = b.op("Where", b.op("IsNaN", x), b.normal(4), x)
    return b.op("Add", b.op("Relu", replaced), x)


REFUSED: list[tuple[Build, str]] = [
    (
        recurrent("GRU", linear_before_reset=1),
        "rnn_1 (GRU): resets after the recurrent product; lwtnn resets before it. Write ONNX, or train with "
        "reset_after=False.",
    ),
    (
        recurrent("LSTM", direction="reverse"),
        "rnn_1 (LSTM): runs backwards through the sequence; lwtnn runs forwards only. Write ONNX, or train on a second "
        "input that holds the reversed sequence.",
    ),
    (
        recurrent("LSTM", directions=2, direction="bidirectional"),
        "rnn_1 (LSTM): runs backwards through the sequence; lwtnn runs forwards only. Write ONNX, or train on a second "
        "input that holds the reversed sequence.",
    ),
    (
        recurrent("RNN", "", "state"),
        "rnn_1 (RNN): starts from a state that is not zero; lwtnn starts from zero. Write ONNX.",
    ),
    (
        recurrent("LSTM", "", "", "", "peepholes"),
        "rnn_1 (LSTM): has peephole connections; lwtnn's LSTM has none. Write ONNX.",
    ),
    (
        recurrent("LSTM", output=2),
        "rnn_1 (LSTM): gives out its cell state; lwtnn keeps it inside. Write ONNX, or use the hidden state.",
    ),
    (recurrent("LSTM", clip=1.0), "rnn_1 (LSTM): clips its gates; lwtnn does not. Write ONNX."),
    (
        recurrent("GRU", activations=["Sigmoid", "Softsign"]),
        "rnn_1 (GRU): uses the activation softsign, which lwtnn does not have. Write ONNX.",
    ),
    (
        recurrent("LSTM", activations=["Sigmoid", "Tanh", "Relu"]),
        "rnn_1 (LSTM): has different activations for cell and output; lwtnn's LSTM has one. Write ONNX.",
    ),
    *(
        (unary(op_type), f"head ({op_type}): lwtnn has no such layer. Write ONNX.")
        for op_type in ("Erf", "Gelu", "Softplus", "Exp", "HardSwish", "Mish", "Softsign", "LogSoftmax", "IsNaN")
    ),
    (
        unary("Softmax", axis=0),
        "head (Softmax): normalises along the batch axis; lwtnn's softmax goes over the features. Write ONNX.",
    ),
    (
        unary("Softmax", sequence=True, axis=1),
        "head (Softmax): normalises along the time axis; lwtnn's softmax goes over the features. Write ONNX.",
    ),
    (
        unary("Clip", -1.0, 1e6),
        "head (Clip): clips at 1e+06; scaling around lwtnn's hard_sigmoid would lose digits. Write ONNX.",
    ),
    (
        unary("Clip", 3.5e38),
        "head (Clip): clips at 3.5e+38; scaling around lwtnn's hard_sigmoid would lose digits. Write ONNX.",
    ),
    (unary("Clip", 2.0, 1.0), "head (Clip): clips to nothing. Write ONNX."),
    (unary("Div", 0.0), "head (Div): divides by zero. Write ONNX."),
    (
        on(lambda b, x: b.op("Mul", b.op("Tanh", x), b.op("Sigmoid", x))),
        "head (Mul): multiplies two computed tensors; lwtnn multiplies by constants only, or x by sigmoid(x). Write "
        "ONNX.",
    ),
    (
        on(lambda b, x: b.op("Div", b.op("Tanh", x), x)),
        "head (Div): divides by a computed tensor; lwtnn has no division. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("Add", b.op("Relu", x), x), sequence=True),
        "head (Add): adds sequences; lwtnn adds vectors only. Write ONNX, or sum over the steps before adding.",
    ),
    (
        on(lambda b, x: b.op("Concat", b.op("Relu", x), x, axis=2), sequence=True),
        "head (Concat): joins sequences; lwtnn joins vectors only. Give all variables in one input sequence, or write "
        "ONNX.",
    ),
    (
        on(lambda b, x: b.op("Concat", x, x, axis=1), sequence=True),
        "head (Concat): joins tensors along the time axis; lwtnn joins features of vectors only. Write ONNX.",
    ),
    (
        on(attention, sequence=True),
        "head (MatMul): multiplies two computed tensors, as attention does; lwtnn has constant weights only. "
        "Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("ReduceMean", x, b.ints(1), keepdims=0), sequence=True),
        "head (ReduceMean): averages over a number of steps that varies; lwtnn can only sum. Write ONNX, or train with "
        "a sum.",
    ),
    (
        on(lambda b, x: b.op("ReduceMax", x, b.ints(1), keepdims=0), sequence=True),
        "head (ReduceMax): lwtnn has no such layer. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("ReduceSum", x, b.ints(0), keepdims=1)),
        "head (ReduceSum): reduces the batch axis. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("Gather", x, i(b, 0), axis=1), sequence=True),
        "head (Gather): chooses along the time axis; lwtnn can only take the last step of a sequence. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("Slice", x, b.ints(-1), b.ints(-(2**63)), b.ints(1), b.ints(-1)), sequence=True),
        "head (Slice): cuts the time axis; lwtnn can only take the last step of a sequence. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("Add", x, b.normal(1, 5, 1)), sequence=True, length=5),
        "head (Add): has constants that differ along the time axis; lwtnn knows one per feature. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("Reshape", x, b.ints(-1, 2, 2))),
        "head (Reshape): reshapes [batch, feature] to [-1, 2, 2]; lwtnn keeps vectors and sequences as they are (give "
        "a sequence as an input_sequence). Write ONNX.",
    ),
    (
        on(lambda b, x: convolved(b, x, strides=[2]), sequence=True),
        "head (Conv): skips steps (strides); lwtnn's convolution does not. Write ONNX.",
    ),
    (
        on(lambda b, x: convolved(b, x, features=2, group=2), sequence=True),
        "head (Conv): convolves in groups; lwtnn's convolution takes all features at once. Write ONNX.",
    ),
    (
        on(lambda b, x: convolved(b, x, pads=[1, 0]), sequence=True),
        "head (Conv): pads 1 steps before and 0 after; lwtnn pads not at all, or as many as keep the length (2). Write "
        "ONNX.",
    ),
    (
        on(lambda b, x: b.op("Where", b.op("Greater", x, b.number(0.5)), x, b.number(0.0))),
        "head (Where): chooses between values; lwtnn can only replace a NaN at its inputs. Write ONNX.",
    ),
    (
        on(late_default),
        "head (Where): replaces NaN after other arithmetic; lwtnn replaces it at its inputs, first. Write ONNX.",
    ),
    (
        on(half_default),
        "head (Where): replaces NaN for one of several uses of an input; lwtnn replaces it for all. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("Cast", b.op("Cast", x, to=ir.DataType.INT32), to=ir.DataType.DOUBLE)),
        "head (Cast): computes with integers; lwtnn computes in double. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("Gather", b.normal(9, 4), b.op("Cast", b.op("Gather", x, i(b, 0), axis=1), to=7), axis=0)),
        "head (Gather): looks up an index of a vector; lwtnn has tables for sequences only. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("Gemm", x, b.normal(4, 4), x)),
        "head (Gemm): adds a computed tensor to a product; lwtnn has constant biases only. Write ONNX.",
    ),
    (
        on(lambda b, x: b.op("Dropout", x, b.number(0.5), b.constant(np.array(True), "training"))),
        "head (Dropout): drops features at random, as in training. Export the model for inference.",
    ),
    (
        on(lambda b, x: b.op("Mul", b.op("Relu", b.dense(x, 4, 4)), b.constant(np.full(4, np.inf), "c"))),
        "head (Mul): holds NaN or infinity, which lwtnn cannot read. Look at the training.",
    ),
]


def _name(pair: tuple[Build, str]) -> str:
    return pair[1].split(";")[0].removeprefix("head ")[:60]


@pytest.mark.parametrize(("build", "reason"), REFUSED, ids=map(_name, REFUSED))
def test_refused_with_the_reason_and_nothing_written(build: Build, reason: str, tmp_path) -> None:
    model = build(Net())
    with pytest.raises(Unsupported) as caught:
        written(model, tmp_path / "net.json")
    assert caught.value.exit_code == 4
    assert str(caught.value) == f"model cannot be written as lwtnn JSON:\n  - {reason}"
    assert not list(tmp_path.iterdir())


def test_lengths_as_data(tmp_path) -> None:
    b = Net()
    n = 3 * UNITS
    x = b.op("Transpose", b.sequence(), perm=[1, 0, 2])
    lengths = b.op("Cast", b.op("Squeeze", b.vector(1, "lengths"), b.ints(1)), to=ir.DataType.INT32)
    with b.scope("rnn_1"):
        weights = [b.normal(1, n, 4), b.normal(1, n, UNITS), b.normal(1, 2 * n)]
        _, last = b.ops("GRU", x, *weights, lengths, outputs=2, hidden_size=UNITS)
    model = b.done(b.op("Squeeze", last, b.ints(0)), widths=[UNITS])
    with pytest.raises(Unsupported, match="takes the lengths of its sequences as data"):
        written(model, tmp_path / "net.json")


def test_all_reasons_are_told_at_once(tmp_path) -> None:
    """Also of layers behind a refused one, where they cannot be wrong about it; and nothing invented."""
    b = Net()
    x = b.op("Transpose", b.sequence(), perm=[1, 0, 2])
    with b.scope("gru_1"):
        weights = [b.normal(1, 6, 4), b.normal(1, 6, 2), b.normal(1, 12)]
        y, _ = b.ops("GRU", x, *weights, outputs=2, hidden_size=2, linear_before_reset=1)
    with b.scope("lstm_1"):
        weights = [b.normal(1, 8, 2), b.normal(1, 8, 2), b.normal(1, 16)]
        _, last = b.ops("LSTM", b.op("Squeeze", y, b.ints(1)), *weights, outputs=2, hidden_size=2, clip=2.0)
    x = b.op("Squeeze", last, b.ints(0))
    with b.scope("head"):
        x = b.op("Erf", b.dense(x, 2, 3), name="erf")
        x = b.op("Mul", b.dense(x, 3, 3), b.op("Tanh", x))
    with pytest.raises(Unsupported) as caught:
        written(b.done(x, b.op("Gelu", b.vector())), tmp_path / "net.json")
    assert [reason.split(":")[0] for reason in caught.value.reasons] == [
        "gru_1 (GRU)",
        "lstm_1 (LSTM)",
        "head/erf (Erf)",
        "Gelu (Gelu)",
    ]


def test_gru_that_resets_after_a_diagonal_product_is_the_same(tmp_path) -> None:
    """r (U h') is U (r h') where U is diagonal and has no bias of its own."""

    def net(bias: float) -> ir.Model:
        b = Net()
        recurrent, biases = b.random.normal(size=(1, 6, 2)), b.random.normal(size=(1, 12))
        recurrent[0, 4:] = np.diag([0.5, -1.5])
        biases[0, 10:] = bias
        x = b.op("Transpose", b.sequence(), perm=[1, 0, 2])
        weights = b.normal(1, 6, 4), b.constant(recurrent, "R"), b.constant(biases, "B")
        _, last = b.ops("GRU", x, *weights, outputs=2, hidden_size=2, linear_before_reset=1)
        return b.done(b.op("Squeeze", last, b.ints(0)))

    agree(net(0.0), tmp_path / "net.json")
    with pytest.raises(Unsupported, match="resets after"):
        written(net(0.1), tmp_path / "other.json")


def with_record(model: ir.Model, labels: int = 2, features: int = 4, names: tuple[str, ...] = ("y0",)) -> ir.Model:
    told = Interface.of(model)
    inputs = tuple(Input(r.name, tuple(Feature(f"f{k}") for k in range(features))) for r in told.inputs)
    outputs = tuple(
        Output(name, tuple(f"l{k}" for k in range(labels)), tensor=r.tensor)
        for name, r in zip(names, told.outputs, strict=True)
    )
    Interface(inputs, outputs).store(model)
    return model


def test_labels_that_are_not_as_many_as_components(tmp_path) -> None:
    """lwtnn would read memory behind the vector."""
    b = Net()
    model = with_record(b.done(b.dense(b.vector(), 4, 2)), labels=3)
    with pytest.raises(Unsupported, match="output y0: has 2 components, the interface record names 3 labels"):
        written(model, tmp_path / "net.json")


def test_variables_that_are_not_as_many_as_features(tmp_path) -> None:
    b = Net()
    model = with_record(b.done(b.dense(b.vector(), 4, 2)), features=3)
    with pytest.raises(Unsupported, match="input x: has 4 features in the graph, 3 in the interface record"):
        written(model, tmp_path / "net.json")


def test_two_outputs_of_one_name(tmp_path) -> None:
    b = Net()
    x = b.vector()
    model = with_record(b.done(b.dense(x, 4, 2), b.dense(x, 4, 2)), names=("y", "y"))
    with pytest.raises(Unsupported, match="output y: shares its name with another output"):
        written(model, tmp_path / "net.json")


def test_images_and_scalars_are_no_inputs(tmp_path) -> None:
    b = Net()
    image = b.input("image", ["N", 3, 8, 8], "float64")
    b.output(b.op("Relu", image), "y", ["N", 3, 8, 8], "float64")
    features = tuple(Feature(f"f{k}") for k in range(8))
    model = b.finish(Interface((Input("image", features),), (Output("y", ("a",)),)))
    with pytest.raises(Unsupported, match=r"input image: is \[N, 3, 8, 8\]; lwtnn takes vectors"):
        written(model, tmp_path / "net.json")


def test_output_with_features_before_steps(tmp_path) -> None:
    b = Net()
    model = b.done(b.op("Transpose", b.op("Tanh", b.sequence()), perm=[0, 2, 1]), widths=[4])
    with pytest.raises(Unsupported, match=r"output y0: has the axes \[batch, feature, time\]"):
        written(model, tmp_path / "net.json")


def test_a_graph_that_does_not_fit_together_is_refused_in_one_line(tmp_path) -> None:
    b = Net()
    with b.scope("head"):
        y = b.op("Gemm", b.vector(), b.normal(4))
    b.output(y, "y", ["N", 1], "float64")
    model = b.finish()
    with pytest.raises(Unsupported, match=r"head \(Gemm\): its inputs and attributes do not fit together"):
        written(model, tmp_path / "net.json")


def test_nothing_takes_the_place_of_an_older_file(tmp_path) -> None:
    path = tmp_path / "net.json"
    path.write_text("older")
    with pytest.raises(Unsupported):
        written(unary("Erf")(Net()), path)
    assert path.read_text() == "older"
