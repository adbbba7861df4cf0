"""Every operator on vectors that lwtnn can express: the file computes what the graph computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from lwtnn_writing import Build, Net, agree, kinds, written

from modelhub.graph import blocks
from modelhub.graph.builder import Builder
from modelhub.graph.canonical import canonical


def gemm(**attributes: float) -> Build:
    def build(b: Net) -> ir.Model:
        weight = b.normal(3, 4) if attributes.get("transB") else b.normal(4, 3)
        return b.done(b.op("Gemm", b.vector(), weight, b.normal(1, 3), **attributes))

    return build


def gemm_of_transposed(b: Net) -> ir.Model:
    turned = b.op("Transpose", b.vector(), perm=[1, 0])
    return b.done(b.op("Gemm", turned, b.normal(4, 3), transA=1))


def matmul_vector(b: Net) -> ir.Model:
    return b.done(b.op("Unsqueeze", b.op("MatMul", b.vector(), b.normal(4)), b.ints(1)))


def matmul_left(b: Net) -> ir.Model:
    turned = b.op("Transpose", b.vector(), perm=[1, 0])
    return b.done(b.op("Transpose", b.op("MatMul", b.normal(3, 4), turned), perm=[1, 0]))


def chain(b: Net) -> ir.Model:
    x = b.op("Relu", b.dense(b.vector(), 4, 8))
    x = b.op("Tanh", b.dense(x, 8, 5))
    return b.done(b.op("Softmax", b.dense(x, 5, 3), axis=-1))


def activation(op_type: str, *inputs: float | np.ndarray, **attributes: float) -> Build:
    def build(b: Net) -> ir.Model:
        constants = [b.constant(np.asarray(value, dtype=np.float64), "bound") for value in inputs]
        return b.done(b.op(op_type, b.dense(b.vector(), 4, 4), *constants, **attributes))

    return build


def clip_above(b: Net) -> ir.Model:
    return b.done(b.op("Clip", b.dense(b.vector(), 4, 4), None, b.number(1.5)))


def binary(op_type: str, constant: np.ndarray, *, first: bool = False) -> Build:
    def build(b: Net) -> ir.Model:
        x, c = b.op("Tanh", b.dense(b.vector(), 4, 4)), b.constant(constant, "c")
        return b.done(b.op(op_type, c, x) if first else b.op(op_type, x, c))

    return build


FOUR = np.array([0.5, -2.0, 3.0, 1e-3])


def zero_scale(b: Net) -> ir.Model:
    x = b.op("Mul", b.op("Tanh", b.vector()), b.number(0.0, 1.0, -2.0, 3.0))
    return b.done(b.op("Add", x, b.number(1.0, 2.0, 3.0, 4.0)))


def negated(b: Net) -> ir.Model:
    return b.done(b.op("Neg", b.op("Tanh", b.vector())))


def add_vectors(b: Net) -> ir.Model:
    x = b.vector()
    return b.done(b.op("Add", b.op("Relu", b.dense(x, 4, 4)), x))


def sum_of_many(b: Net) -> ir.Model:
    x = b.vector()
    return b.done(b.op("Sum", b.dense(x, 4, 3), b.dense(x, 4, 3), b.normal(3), b.dense(x, 4, 3)))


def subtract_vectors(b: Net) -> ir.Model:
    x = b.vector()
    return b.done(b.op("Sub", b.dense(x, 4, 3), b.dense(x, 4, 3)))


def doubled(b: Net) -> ir.Model:
    x = b.op("Tanh", b.vector())
    return b.done(b.op("Add", x, x))


def concatenated(b: Net) -> ir.Model:
    x, other = b.vector(), b.vector(2, "other")
    joined = b.op("Concat", b.dense(x, 4, 3), other, x, axis=-1)
    return b.done(b.dense(joined, 9, 3))


def split(b: Net) -> ir.Model:
    x = b.op("Tanh", b.vector(5))
    left, right = b.ops("Split", x, b.ints(2, 3), outputs=2, axis=1)
    return b.done(b.op("Concat", b.op("Relu", right), b.op("Sigmoid", left), axis=1), widths=[5])


def split_evenly(b: Net) -> ir.Model:
    first, _, last = b.ops("Split", b.op("Tanh", b.vector(8)), outputs=3, axis=1, num_outputs=3)
    return b.done(b.op("Relu", first), b.op("Relu", last), widths=[3, 2])


def columns(b: Net) -> ir.Model:
    x = b.op("Tanh", b.vector(6))
    some = b.op("Gather", x, b.ints(5, 0, -2, 0), axis=1)
    every_other = b.op("Slice", x, b.ints(1), b.ints(2**31 - 1), b.ints(1), b.ints(2))
    backwards = b.op("Slice", x, b.ints(-1), b.ints(-(2**63)), b.ints(1), b.ints(-1))
    return b.done(b.dense(some, 4, 2), b.dense(every_other, 3, 2), b.dense(backwards, 6, 2), widths=[2, 2, 2])


def one_column(b: Net) -> ir.Model:
    column = b.op("Gather", b.op("Tanh", b.vector()), b.constant(np.array(2), "i"), axis=1)
    return b.done(b.dense(b.op("Unsqueeze", column, b.ints(1)), 1, 3))


def columns_joined_again(b: Net) -> ir.Model:
    x = b.vector(5)
    parts = b.ops("Split", x, b.ints(1, 4), outputs=2, axis=1)
    return b.done(b.dense(b.op("Concat", *parts, axis=1), 5, 2))


def reshaped(b: Net) -> ir.Model:
    x = b.op("Reshape", b.dense(b.vector(), 4, 6), b.ints(-1, 1, 6, 1))
    x = b.op("Squeeze", b.op("Relu", x), b.ints(3))
    x = b.op("Reshape", x, b.ints(0, 6))
    return b.done(b.dense(b.op("Flatten", b.op("Unsqueeze", x, b.ints(2))), 6, 2))


def batch_norm(b: Net) -> ir.Model:
    x = b.op("BatchNormalization", b.dense(b.vector(), 4, 4), *moments(b, 4), epsilon=1e-3)
    return b.done(b.op("Relu", x))


def batch_norm_after_relu(b: Net) -> ir.Model:
    return b.done(b.op("BatchNormalization", b.op("Relu", b.dense(b.vector(), 4, 4)), *moments(b, 4)))


def batch_norm_of_dead_feature(b: Net) -> ir.Model:
    _, *others = moments(b, 4)
    gamma = b.number(0.0, 1.0, 0.0, 2.0)
    return b.done(b.op("BatchNormalization", b.op("Relu", b.dense(b.vector(), 4, 4)), gamma, *others))


def moments(b: Net, width: int) -> list[ir.Value]:
    return [b.normal(width), b.normal(width), b.normal(width), b.constant(b.random.uniform(0.1, 4, width), "var")]


def swish(alpha: float | None = None, *, swapped: bool = False) -> Build:
    def build(b: Net) -> ir.Model:
        x = b.dense(b.vector(), 4, 5)
        argument = x if alpha is None else b.op("Mul", x, b.number(alpha))
        gate = b.op("Sigmoid", argument)
        return b.done(b.dense(b.op("Mul", gate, x) if swapped else b.op("Mul", x, gate), 5, 2))

    return build


def maxout(b: Net) -> ir.Model:
    return b.done(b.block(blocks.maxout(), b.vector(), b.normal(3, 4, 2), b.normal(3, 2))[0], widths=[2])


def highway(b: Net) -> ir.Model:
    x = b.op("Tanh", b.vector())
    transform = b.op("Elu", b.dense(x, 4, 4), alpha=0.7)
    carry = b.op("Add", b.op("MatMul", x, b.normal(4, 4)), b.normal(4))
    return b.done(b.dense(b.block(blocks.highway(), x, transform, carry)[0], 4, 2))


def summed_features(b: Net) -> ir.Model:
    x = b.op("Tanh", b.vector())
    return b.done(b.op("ReduceSum", x, b.ints(1), keepdims=1), b.op("ReduceMean", x, b.ints(-1), keepdims=1))


def no_ops(b: Net) -> ir.Model:
    x = b.op("Dropout", b.op("Identity", b.dense(b.vector(), 4, 3)), b.number(0.5))
    return b.done(b.op("Relu", b.op("Cast", x, to=ir.DataType.DOUBLE)))


def computed_weights(b: Net) -> ir.Model:
    weight = b.op("Transpose", b.op("Reshape", b.normal(12), b.ints(3, 4)), perm=[1, 0])
    bias = b.op("Mul", b.normal(3), b.op("Constant", value=ir.tensor(np.array(2.0))))
    return b.done(b.op("Add", b.op("MatMul", b.vector(), weight), bias))


def several_outputs(b: Net) -> ir.Model:
    x = b.op("Relu", b.dense(b.vector(), 4, 6))
    return b.done(x, b.op("Softmax", b.dense(x, 6, 3), axis=1), b.op("Sigmoid", b.dense(x, 6, 1)))


DENSE = ["dense"]
CASES: list[tuple[Build, str, list[str] | None]] = [
    (gemm(), "gemm", DENSE),
    (gemm(transB=1), "gemm transB", DENSE),
    (gemm(transB=1, alpha=0.5, beta=-3.0), "gemm alpha beta", DENSE),
    (gemm_of_transposed, "gemm transA", DENSE),
    (matmul_vector, "matmul vector", DENSE),
    (matmul_left, "matmul left", DENSE),
    (chain, "chain", ["dense", "dense", "dense"]),
    *((activation(op), op, DENSE) for op in ("Relu", "Sigmoid", "Tanh", "Abs", "Elu", "LeakyRelu", "HardSigmoid")),
    (activation("Elu", alpha=0.3), "Elu alpha", DENSE),
    (activation("LeakyRelu", alpha=0.3), "LeakyRelu alpha", DENSE),
    (activation("Softmax", axis=1), "Softmax", DENSE),
    (activation("Selu"), "Selu", ["dense", "normalization"]),
    (activation("Selu", alpha=1.5, gamma=2.0), "Selu alpha gamma", ["dense", "normalization"]),
    (activation("HardSigmoid", alpha=1 / 6), "HardSigmoid of torch", DENSE),
    (activation("HardSigmoid", alpha=0.200000001), "HardSigmoid of nearly lwtnn's slope", DENSE),
    (activation("HardSigmoid", alpha=0.3, beta=0.1), "HardSigmoid of another slope", DENSE),
    (activation("PRelu", 0.25), "PRelu shared", DENSE),
    (activation("PRelu", FOUR), "PRelu", ["dense", "dense", "dense"]),
    (activation("Clip", 0.0), "Clip at 0", DENSE),
    (activation("Clip", -1.0), "Clip below", ["dense", "normalization"]),
    (clip_above, "Clip above", ["dense", "normalization"]),
    (activation("Clip", 0.0, 6.0), "ReLU6", ["dense", "normalization"]),
    (activation("Clip", -1.0, 2.5), "Clip", ["dense", "normalization"]),
    (activation("Clip", 0.0, 5.0000001), "Clip of a width near 5", ["dense", "normalization"]),
    (activation("Clip", -3.5e38, 3.5e38), "Clip at nothing", DENSE),
    *((binary(op, FOUR), f"{op} constant", None) for op in ("Add", "Sub", "Mul", "Div")),
    *((binary(op, np.array(0.7)), f"{op} scalar", None) for op in ("Add", "Sub", "Mul", "Div")),
    *((binary(op, FOUR[None], first=True), f"constant {op}", None) for op in ("Add", "Sub", "Mul")),
    (zero_scale, "scale of zero", ["dense", "dense"]),
    (negated, "Neg", ["dense", "normalization"]),
    (add_vectors, "Add vectors", ["dense", "add"]),
    (sum_of_many, "Sum", ["dense", "dense", "dense", "add", "normalization"]),
    (subtract_vectors, "Sub vectors", ["dense", "dense", "add"]),
    (doubled, "x + x", ["dense", "add"]),
    (concatenated, "Concat", ["input", "dense", "concatenate", "dense"]),
    (split, "Split", None),
    (split_evenly, "Split evenly", None),
    (columns, "columns", None),
    (one_column, "one column", None),
    (columns_joined_again, "columns joined again", DENSE),
    (reshaped, "reshaped", ["dense", "dense"]),
    (batch_norm, "BatchNormalization", DENSE),
    (batch_norm_after_relu, "BatchNormalization after Relu", ["dense", "normalization"]),
    (batch_norm_of_dead_feature, "BatchNormalization with gamma 0", ["dense", "dense"]),
    (swish(), "SiLU", ["dense", "dense"]),
    (swish(swapped=True), "SiLU swapped", ["dense", "dense"]),
    (swish(1.702), "quick GELU", ["dense", "dense"]),
    (maxout, "Maxout", ["maxout"]),
    (highway, "Highway", ["dense", "highway", "dense"]),
    (summed_features, "sums of features", None),
    (no_ops, "no-ops", DENSE),
    (computed_weights, "computed weights", DENSE),
    (several_outputs, "several outputs", ["dense", "dense", "dense"]),
]


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
@pytest.mark.parametrize(("build", "expected"), [c[::2] for c in CASES], ids=[c[1] for c in CASES])
def test_file_computes_what_the_graph_computes(build: Build, expected: list[str] | None, tmp_path) -> None:
    data = agree(build(Net()), tmp_path / "net.json")
    if expected is not None:
        assert kinds(data)[1:] == expected


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
@pytest.mark.parametrize("build", [c[0] for c in CASES], ids=[c[1] for c in CASES])
def test_far_events_too(build: Build, tmp_path) -> None:
    """Where sigmoids saturate, clips clip and units die: rounding grows with the numbers, the functions stay."""
    agree(build(Net(3)), tmp_path / "net.json", tolerance=1e-11, spread=60.0)


@pytest.mark.parametrize(("alpha", "factor"), [(0.2, 1.0), (1 / 6, 1 / 6 / 0.2)])
def test_slopes_that_went_through_a_file_are_those_meant(alpha: float, factor: float, tmp_path) -> None:
    """ONNX files hold attributes in float32: 0.2 comes back as 0.20000000298023224."""
    b = Net()
    weight = np.array([[0.1, 0.2, 0.3, 0.4]])
    x = b.op("Gemm", b.vector(), b.constant(weight, "w"), transB=1)
    data = written(b.done(b.op("HardSigmoid", x, alpha=float(np.float32(alpha)))), tmp_path / "net.json")
    assert data["layers"][0]["activation"] == "hard_sigmoid"
    assert data["layers"][0]["weights"] == (weight * factor).ravel().tolist()


def test_constants_of_float32_are_computed_in_double(tmp_path) -> None:
    """As Keras's Normalization leaves them: a deviation is the root of a variance."""
    b = Builder()
    variance = np.float32([0.96774715, 1.1349896, 1.7415539, 1.1137987])
    b.output(b.op("Div", b.input("x", ["N", 4]), b.op("Sqrt", b.constant(variance, "variance"))), "y", ["N", 4])
    data = written(canonical(b.finish()), tmp_path / "net.json")
    scales = [variable["scale"] for variable in data["inputs"][0]["variables"]]
    np.testing.assert_allclose(scales, 1 / np.sqrt(variance.astype(np.float64)), rtol=1e-15)


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
@pytest.mark.parametrize("build", [c[0] for c in CASES], ids=[c[1] for c in CASES])
def test_graphs_that_nobody_tidied(build: Build, tmp_path) -> None:
    """No pass of the hub is needed: Constant nodes, no-ops and MatMul with Add are understood."""
    agree(build(Net(4, tidy=False)), tmp_path / "net.json")
