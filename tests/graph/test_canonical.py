"""One property for all passes: random graphs answer random inputs the same before and after."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from modelhub.graph import blocks
from modelhub.graph.builder import Builder
from modelhub.graph.canonical import canonical, inline_all
from modelhub.graph.precision import to_precision

WIDTH = 4

STEPS = [
    "matmul",
    "matmul+bias",
    "bias+matmul",
    "matmul+row",
    "identity",
    "dropout",
    "cast",
    "reshape",
    "reshape fixed",
    "transpose",
    "flatten",
    "relu",
    "leaky",
    "elu",
    "selu",
    "celu",
    "hard sigmoid",
    "HardSwish",
    "Softplus",
    "Softsign",
    "Mish",
    "ThresholdedRelu",
    "prelu",
    "pools",
    "batch normalization",
    "layer normalization",
    "normalization over two axes",
    "instance normalization",
    "highway",
    "maxout",
    "branch",
]


def step(b: Builder, x: ir.Value, kind: str, rng: np.random.Generator) -> ir.Value:
    """One layer on a value [N, WIDTH]."""

    def const(*shape: int) -> ir.Value:
        return b.constant(rng.standard_normal(shape).astype("f4"), "c")

    match kind:
        case "matmul":
            return b.op("MatMul", x, const(WIDTH, WIDTH))
        case "matmul+bias":
            return b.op("Add", b.op("MatMul", x, const(WIDTH, WIDTH)), const(WIDTH))
        case "bias+matmul":
            return b.op("Add", const(WIDTH), b.op("MatMul", x, const(WIDTH, WIDTH)))
        case "matmul+row":
            return b.op("Add", b.op("MatMul", x, const(WIDTH, WIDTH)), const(1, WIDTH))
        case "identity":
            return b.op("Identity", x)
        case "dropout":
            return b.op("Dropout", x)
        case "cast":
            return b.op("Cast", x, to=ir.DataType.FLOAT)
        case "reshape":
            return b.op("Reshape", x, b.ints(-1, WIDTH))
        case "reshape fixed":
            return b.op("Reshape", b.op("Reshape", x, b.ints(-1, 2, WIDTH // 2)), b.ints(-1, WIDTH))
        case "transpose":
            return b.op("Transpose", x, perm=[0, 1])
        case "flatten":
            return b.op("Flatten", x)
        case "relu":
            return b.op("Relu", x)
        case "leaky":
            return b.op("LeakyRelu", x, alpha=0.1)
        case "elu":
            return b.op("Elu", x, alpha=0.7)
        case "selu":
            return b.op("Selu", x)
        case "celu":
            return b.op("Celu", x, alpha=1.3)
        case "HardSwish" | "Softplus" | "Softsign" | "Mish" | "ThresholdedRelu":
            return b.op(kind, x)
        case "prelu":
            return b.op("PRelu", x, const(WIDTH))
        case "pools":
            square = b.op("Reshape", x, b.ints(-1, 1, 2, WIDTH // 2))
            both = b.op("Mul", b.op("GlobalMaxPool", square), b.op("GlobalAveragePool", square))
            return b.op("Add", x, b.op("Reshape", both, b.ints(-1, 1)))
        case "hard sigmoid":
            return b.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        case "batch normalization":
            scale, shift, mean = const(WIDTH), const(WIDTH), const(WIDTH)
            variance = b.constant(rng.uniform(0.1, 2, WIDTH).astype("f4"), "v")
            return b.op("BatchNormalization", x, scale, shift, mean, variance, epsilon=1e-3)
        case "layer normalization":
            return b.op("LayerNormalization", x, const(WIDTH), const(WIDTH), epsilon=1e-5)
        case "normalization over two axes":
            square = b.op("Reshape", x, b.ints(-1, 2, WIDTH // 2))
            both = b.op("LayerNormalization", square, const(2, WIDTH // 2), axis=1, epsilon=1e-3)
            return b.op("Reshape", both, b.ints(-1, WIDTH))
        case "instance normalization":
            square = b.op("Reshape", x, b.ints(-1, 2, WIDTH // 2))
            each = b.op("InstanceNormalization", square, const(2), const(2), epsilon=1e-3)
            return b.op("Reshape", each, b.ints(-1, WIDTH))
        case "highway":
            return b.block(blocks.highway(), x, b.op("Relu", x), b.op("MatMul", x, const(WIDTH, WIDTH)))[0]
        case "maxout":
            return b.block(blocks.maxout(), x, const(3, WIDTH, WIDTH), const(3, WIDTH))[0]
        case "branch":
            return b.op("Add", b.op("Tanh", x), b.op("Identity", x))
    raise AssertionError(kind)


def build(kinds: list[str], seed: int, outputs: int) -> ir.Model:
    rng = np.random.default_rng(seed)
    b = Builder()
    values = [b.input("x", ["N", WIDTH])]
    for kind in kinds:
        values.append(step(b, values[-1], kind, rng))
    for number, value in enumerate(values[-outputs:]):
        b.output(value, f"y{number}", ["N", WIDTH])
    return b.finish()


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), settings)
    return session.run(None, {"x": x})


graphs = st.builds(
    build, st.lists(st.sampled_from(STEPS), min_size=1, max_size=8), st.integers(0, 2**32 - 1), st.integers(1, 3)
)


@settings(max_examples=150, deadline=None)
@given(graphs, st.sampled_from([0, 1, 5]))
def test_passes_keep_the_function(model: ir.Model, events: int) -> None:
    x = np.random.default_rng(1).standard_normal((events, WIDTH))
    before = run(to_precision(model.clone(), "float64"), x)
    names = [v.name for v in (*model.graph.inputs, *model.graph.outputs)]
    once = canonical(model)
    assert [v.name for v in (*once.graph.inputs, *once.graph.outputs)] == names
    left = [node for node in once.graph if node.op_type in ("Identity", "Dropout", "Cast", "Flatten", "Constant")]
    assert all(node.outputs[0].is_graph_output() for node in left)  # an output that is an input, or twice an output
    for a, b in zip(before, run(to_precision(once.clone(), "float64"), x), strict=True):
        assert_allclose(a, b, rtol=1e-11, atol=1e-11)
    again = [(n.op_type, [v.name for v in n.inputs if v]) for n in canonical(once.clone()).graph]
    assert again == [(n.op_type, [v.name for v in n.inputs if v]) for n in once.graph]


@settings(max_examples=60, deadline=None)
@given(graphs)
def test_float64_is_the_same_function_in_more_digits(model: ir.Model) -> None:
    x = np.random.default_rng(2).standard_normal((7, WIDTH)).astype("f4")
    low = run(inline_all(model.clone()), x)
    high = run(to_precision(model.clone(), "float64"), x.astype("f8"))
    for a, b in zip(low, high, strict=True):
        assert b.dtype == np.float64
        assert_allclose(a, b, rtol=2e-3, atol=1e-4 * max(1, np.abs(b).max()))


def test_a_real_attribute_is_kept_as_a_double_going_up() -> None:
    """0.1 is no float32 number: LeakyRelu's slope must not be rounded on the way to float64."""
    b = Builder()
    b.output(b.op("LeakyRelu", b.input("x", ["N", 1]), alpha=0.1), "y", ["N", 1])
    assert run(to_precision(b.finish(), "float64"), np.array([[-1.0]]))[0].item() == -0.1


def test_a_training_dropout_stays() -> None:
    b = Builder()
    x = b.input("x", ["N", 2])
    b.output(b.op("Dropout", x, None, b.constant(np.array(True), "training")), "y", ["N", 2])
    assert [n.op_type for n in canonical(b.finish()).graph] == ["Dropout"]
