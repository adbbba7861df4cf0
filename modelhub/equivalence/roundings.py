"""How far float32 may round at each operator: what `shaking` adds behind it.

δ, in units of the unit roundoff u, for a result y::

    Add, Sub        |a| + |b|                       also when an engine has folded one into another
    Mul, Div        2 |y|                           a constant may be rounded too
    Exp, Tanh, ...  c |y|, c where an engine is exact only against 1 (sigmoid)
    a sum of K terms t (MatMul, Gemm, Einsum, ReduceSum, ...; in recurrent layers once a step)
                    √(K Σt² + K y²/3)

The last is the error of K additions of which each rounds its partial sum: in a random order these walk like √Σt² and
drift to y (Higham, Mary 2019, "A new approach to probabilistic rounding error analysis", with Σ over the partial
sums written out). Operators that only move, choose or compare numbers round nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.equivalence.pen import Pen
from modelhub.errors import ModelhubError
from modelhub.graph.forest import Forest, tree_of
from modelhub.graph.forest_forms import structure, with_table

__all__ = ["EXACT", "ROUNDED", "relative"]

Shake = Callable[[Pen, ir.Node, ir.Value], "ir.Value | None"]
"""Writes what the result of a node is moved by; None where it is exact, or no rule is known."""

RELATIVE = {
    "Atan": 4.0, "Cos": 4.0, "Cosh": 4.0, "Div": 2.0, "Exp": 4.0, "Log": 4.0, "Mul": 2.0, "Pow": 6.0, "Reciprocal": 2.0,
    "Sin": 4.0, "Sinh": 4.0, "Sqrt": 1.0, "Tan": 4.0, "Tanh": 8.0, "InstanceNormalization": 8.0,
    "LpNormalization": 4.0,
}  # fmt: skip
"""Roundings of an operator, in units of its result."""

AGAINST_ONE = {"Erf": 4.0, "LogSoftmax": 4.0, "Sigmoid": 4.0, "Softplus": 4.0, "Gelu": 4.0, "Asinh": 4.0, "Acosh": 4.0}
"""Roundings of an operator in units of its result or 1, whichever is larger."""

EXACT = {
    "Abs", "And", "ArgMax", "ArgMin", "ArrayFeatureExtractor", "Binarizer", "Cast", "CastLike",
    "CategoryMapper", "Ceil", "Clip", "Compress", "Concat", "Constant", "ConstantOfShape", "DepthToSpace",
    "Dropout", "Equal", "Expand", "EyeLike", "FeatureVectorizer", "Flatten", "Floor", "Gather",
    "GatherElements", "GatherND", "GlobalMaxPool", "Greater", "GreaterOrEqual", "Identity", "If", "Imputer",
    "IsInf", "IsNaN", "LabelEncoder", "Less", "LessOrEqual", "Loop", "Max", "MaxPool", "Min", "Neg", "NonZero",
    "Not", "OneHot", "OneHotEncoder", "Or", "PRelu", "Pad", "Range", "ReduceMax", "ReduceMin", "Relu",
    "Reshape", "ReverseSequence", "Round", "Scan", "ScatterElements", "ScatterND", "Shape", "Sign", "Size",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "ThresholdedRelu", "Tile", "TopK", "Transpose",
    "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Trilu", "Unsqueeze", "Where", "Xor",
}  # fmt: skip
"""Operators that only move, choose or compare numbers, or whose bodies are looked at; and trees as a file has them."""

FEW = 16
"""A leaf is small against a base where it is less than so many of the base's roundings."""

SUMS = (
    "ReduceSum",
    "ReduceMean",
    "ReduceSumSquare",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "AveragePool",
)


def _size(value: ir.Value) -> float:
    """Numbers of one event and step."""
    dims = list(value.shape or ())[1:]
    return float(prod(dim for dim in dims if isinstance(dim, int)))


def relative(count: float) -> Shake:
    """`count` roundings of the result."""

    def shake(pen: Pen, _: ir.Node, y: ir.Value) -> ir.Value:
        pen.roundings = count * _size(y)
        return pen("Mul", y, pen.random(y, count))

    return shake


def _against_one(count: float) -> Shake:
    """`count` roundings of the result or of 1, whichever is larger."""

    def shake(pen: Pen, _: ir.Node, y: ir.Value) -> ir.Value:
        pen.roundings = count * _size(y)
        return pen("Mul", pen("Max", pen("Abs", y), pen.constant(1.0)), pen.random(y, count))

    return shake


def _softmax(pen: Pen, _: ir.Node, y: ir.Value) -> ir.Value:
    """6 roundings of the result, or 0.4 |log y| where y is smaller than 3e-7.

    The exponent x - max(x), which is at most as large as log y, is rounded too; with λ = 6 that is within.
    """
    pen.roundings = 6 * _size(y)
    exponent = pen("Abs", pen("Log", pen("Max", pen("Abs", y), pen.constant(np.finfo(np.float32).tiny))))
    count = pen("Max", pen("Mul", exponent, pen.constant(0.4)), pen.constant(6.0))
    return pen("Mul", pen("Mul", y, count), pen.random(y, 1.0))


def _sum_of_two(pen: Pen, node: ir.Node, y: ir.Value) -> ir.Value:
    """|a| + |b|."""
    pen.roundings = _size(y)
    total = pen("Abs", node.inputs[0])  # type: ignore[arg-type]
    for value in node.inputs[1:]:
        total = pen("Add", total, pen("Abs", value))  # type: ignore[arg-type]
    return pen("Mul", total, pen.random(y, 1.0))


def _squared(pen: Pen, value: ir.Value) -> ir.Value:
    tensor = value.const_value
    return pen("Mul", value, value) if tensor is None else pen.constant(tensor.numpy().astype(np.float64) ** 2)


def _walk(pen: Pen, y: ir.Value, squares: ir.Value, terms: ir.Value, end: ir.Value | None = None) -> ir.Value:
    """√(K Σt² + K y²/3), or that with `end` for y, where an engine's partial sums may end elsewhere."""
    end = y if end is None else end
    drift = pen("Mul", pen("Mul", end, end), pen.constant(1 / 3))
    return pen("Mul", pen("Sqrt", pen("Mul", terms, pen("Add", squares, drift))), pen.random(y, 1.0))


def _product(pen: Pen, node: ir.Node, y: ir.Value) -> ir.Value:
    """MatMul, Gemm, Einsum and Conv: the same operator on squares gives Σt²."""
    operands = [value for value in node.inputs if value is not None]
    attributes = dict(node.attributes)
    for name in ("alpha", "beta"):
        if name in attributes:
            attributes[name] = ir.AttrFloat32(name, attributes[name].as_float() ** 2)
    squares = pen(node.op_type, *[_squared(pen, value) for value in operands], **attributes)
    fixed = next((v.const_value for v in operands if v.const_value is not None and len(v.const_value.shape) > 1), None)
    if fixed is not None and node.op_type in ("MatMul", "Gemm"):
        second = operands[1].const_value is fixed
        across = node.attributes["transB" if second else "transA"].as_int() if _flag(node, second) else 0
        inner = fixed.shape[-1 if across == second else -2]
        terms = pen.constant(float(str(inner)) + 1)
        pen.roundings = 2.0 * fixed.size + _size(y)  # each term is multiplied and added
    elif fixed is not None:
        terms = pen.constant(float(max(fixed.size // max(int(_size(y)), 1), 2)))
        pen.roundings = 2.0 * fixed.size
    else:
        terms = _length(pen, operands[0])
        pen.roundings = _size(y) * 16
    return _walk(pen, y, squares, terms)


def _flag(node: ir.Node, second: bool) -> bool:
    return ("transB" if second else "transA") in node.attributes


def _length(pen: Pen, value: ir.Value) -> ir.Value:
    """The number of entries of the last axis."""
    return pen("Cast", pen("Shape", value, start=-1), to=ir.DataType.DOUBLE.value)


def _reduction(pen: Pen, node: ir.Node, y: ir.Value) -> ir.Value:
    """K = numbers in / numbers out; Σt² from y itself: at most y² where the terms agree in sign, else as measured."""
    x = node.inputs[0]
    assert x is not None
    count = pen("Div", pen("Cast", pen("Size", x), to=ir.DataType.DOUBLE.value),
                pen("Max", pen("Cast", pen("Size", y), to=ir.DataType.DOUBLE.value), pen.constant(1.0)))  # fmt: skip
    pen.roundings = _size(x)
    if node.op_type in ("ReduceSum", "ReduceMean"):
        rest = [value for value in node.inputs[1:] if value is not None]
        squares = pen(node.op_type, pen("Mul", x, x), *rest, **dict(node.attributes))
        if node.op_type == "ReduceMean":
            squares = pen("Div", squares, count)
        return _walk(pen, y, squares, count, _partial(pen, y))
    scale = pen("Mul", pen("Abs", y), pen("Sqrt", pen("Max", count, pen.constant(1.0))))
    return pen("Mul", scale, pen.random(y, 2.0))


def _cumulative(pen: Pen, node: ir.Node, y: ir.Value) -> ir.Value | None:
    """Sums of up to K terms along a constant axis of length K: the same operator on squares gives Σt²."""
    x, axis = node.inputs[:2]
    if x is None or axis is None or axis.const_value is None or x.shape is None:
        return None
    place = int(axis.const_value.numpy().ravel()[0]) % len(x.shape)
    pen.roundings = _size(y)
    terms = pen("Cast", pen("Shape", x, start=place, end=place + 1), to=ir.DataType.DOUBLE.value)
    return _walk(pen, y, pen("CumSum", pen("Mul", x, x), axis, **dict(node.attributes)), terms)


def _forest(pen: Pen, node: ir.Node, y: ir.Value) -> ir.Value | None:
    """A sum over K trees: √K |y| for the drift, K times the root mean square leaf for the walk.

    Where n trees may err to one side (`_one_sided`) they do so by n |y| at most; n/4 of it is 1.5 of that, as we shake
    by λ = 6 roundings. Trees that name their leaves for a table (`forest_onnx`) give small whole numbers, which nothing
    rounds.
    """
    try:
        forest = structure(node)
    except ModelhubError:
        return None
    leaves = node.attributes["leaf_weights"].as_tensor().numpy().astype(np.float64)
    if len(with_table(node)) > 1 or not leaves.size:
        return None
    bases = [np.abs(value.const_value.numpy()).max() for value in _bases(y) if value.const_value is not None]
    drift = sqrt(forest.trees) + _one_sided(forest, leaves, FEW * pen.unit * float(max(bases, default=0.0))) / 4
    walk = forest.trees * float(np.sqrt(np.mean(leaves**2)))
    pen.roundings = float(forest.trees)
    both = pen("Add", pen("Mul", _partial(pen, y), pen.constant(drift)), pen.constant(walk))
    return pen("Mul", both, pen.random(y, 1.0))


def _one_sided(forest: Forest, leaves: NDArray[np.float64], small: float) -> int:
    """How many trees may err to one side together: the most that one number is a leaf of.

    Whoever adds a number again and again to a sum rounds it the same way each time; trees for a Huber loss have such
    leaves, and forests of pure ones. All numbers below `small` count as one: XGBoost trains each tree on what the
    rounded sum of those before has left over, and where leaves are no larger than the roundings of the base that sum
    starts from, this is rounding itself.
    """
    ends = np.flatnonzero(~forest.splits)
    value, tree = leaves[forest.leaf[ends]], tree_of(forest)[ends]
    some = value != 0
    same = np.where(np.abs(value) < small, small, value.astype(np.float32))[some]
    _, number = np.unique(same, return_inverse=True)
    pairs = np.unique(number * forest.trees + tree[some])
    return int(np.bincount(pairs // forest.trees).max(initial=0))


def _partial(pen: Pen, y: ir.Value) -> ir.Value:
    """How large the partial sums of y become: |y|, or |y + b| where a constant b is added to y, if that is more.

    An engine may start its sum from b, as XGBoost does (src/predictor/predictor.cc, InitOutPredictions).
    """
    largest = pen("Abs", y)
    for base in _bases(y):
        largest = pen("Max", largest, pen("Abs", pen("Add", y, base)))
    return largest


def _bases(y: ir.Value) -> list[ir.Value]:
    """The constants that are added to a value and leave its shape as it is."""
    added = [use.node for use in y.uses() if use.node.op_type == "Add" and use.node.domain == ""]
    return [
        value
        for node in added
        for value in node.inputs
        if value is not None and value.const_value is not None and _fits(value.const_value.numpy().shape, y.shape)
    ]


def _fits(constant: tuple[int, ...], shape: ir.Shape | None) -> bool:
    """Whether adding a constant leaves the shape of a value as it is."""
    if shape is None or len(constant) > len(shape):
        return False
    return all(size in (1, whole) for size, whole in zip(reversed(constant), reversed(shape), strict=False))


ROUNDED: dict[str, Shake] = {
    **{name: relative(count) for name, count in RELATIVE.items()},
    **{name: _against_one(count) for name, count in AGAINST_ONE.items()},
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean"), _sum_of_two),
    **dict.fromkeys(("MatMul", "Gemm", "Einsum", "Conv"), _product),
    **dict.fromkeys(SUMS, _reduction),
    "CumSum": _cumulative,
    "Softmax": _softmax,
    "TreeEnsemble": _forest,
}
