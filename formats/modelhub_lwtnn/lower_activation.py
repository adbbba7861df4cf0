"""Activations: lwtnn's own by name, others where scaling around one of lwtnn's makes them exactly."""

from __future__ import annotations

import numpy as np

from modelhub_lwtnn.draft import LINEAR
from modelhub_lwtnn.meaning import Record, Refusal, lowers
from modelhub_lwtnn.op import Op
from modelhub_lwtnn.schema import Activation, Dense

PLAIN = {"Relu": "rectified", "Sigmoid": "sigmoid", "Tanh": "tanh", "Abs": "abs"}

SLOPE = 0.2
"""Of lwtnn's hard_sigmoid, clip(0.2 x + 0.5, 0, 1)."""

WIDEST_CLIP = 1e4
"""Beyond it, the scaling around a clip would cost more than the 1e-12 that we promise."""


@lowers(*PLAIN)
def plain(op: Op) -> Record:
    """Activations lwtnn has as they are."""
    return op.activate(op.data(0), PLAIN[op.node.op_type])


@lowers("Softmax")
def softmax(op: Op) -> Record:
    """Softmax over the features; over steps in time it would be attention."""
    x = op.data(0)
    axis = x.axes[op.axis(op.integer("axis", -1), x)]
    if axis != "feature":
        raise Refusal(f"normalises along the {axis} axis; lwtnn's softmax goes over the features. Write ONNX.")
    return op.activate(x, "softmax")


@lowers("Elu")
def elu(op: Op) -> Record:
    """x, or alpha (exp(x) - 1) below 0."""
    return op.activate(op.data(0), "elu", op.number("alpha", 1.0))


@lowers("LeakyRelu")
def leaky_relu(op: Op) -> Record:
    """x, or alpha x below 0."""
    return op.activate(op.data(0), "leakyrelu", op.number("alpha", 0.01))


@lowers("Selu")
def selu(op: Op) -> Record:
    """Elu times gamma; defaults from Klambauer et al., 1706.02515, as ONNX has them."""
    x = op.activate(op.data(0), "elu", op.number("alpha", 1.6732632423543772))
    return op.scale(x, scale=op.number("gamma", 1.0507009873554805))


@lowers("PRelu", reads=(0,))
def prelu(op: Op) -> Record:
    """x, or slope x below 0; slopes of its own per feature as relu(x) - slope relu(-x)."""
    slopes = op.weights(1)
    if slopes is None:
        raise Refusal("computes its slopes from data; lwtnn has constant weights only. Write ONNX.")
    x = op.data(0)
    slope = op.per_feature(slopes, x)
    if (slope == slope[0]).all():
        return op.activate(x, "leakyrelu", float(slope[0]))
    one = np.eye(len(slope))
    both = op.pointwise(x, Dense(np.vstack([one, -one]), None, Activation("rectified")))
    return op.pointwise(both, Dense(np.hstack([one, -np.diag(slope)]), None, LINEAR))


def hard_sigmoid_line(alpha: float, beta: float) -> tuple[float, float]:
    """The a and b for which clip(alpha x + beta, 0, 1) is lwtnn's hard_sigmoid of a x + b.

    An alpha that went through a file's float32 (ONNX attributes are) is taken for the 1/5 of Keras 1 and 2 or the 1/6
    of torch and Keras 3 that it was.
    """
    for common in (SLOPE, 1 / 6):
        if alpha == float(np.float32(common)):
            alpha = common
    return alpha / SLOPE, (beta - 0.5) / SLOPE


@lowers("HardSigmoid")
def hard_sigmoid(op: Op) -> Record:
    """clip(alpha x + beta, 0, 1)."""
    return _hard_sigmoid(op, op.data(0), *hard_sigmoid_line(op.number("alpha", 0.2), op.number("beta", 0.5)))


def _hard_sigmoid(op: Op, x: Record, a: float, b: float) -> Record:
    """Apply lwtnn's hard_sigmoid to a x + b."""
    if (a, b) != (1.0, 0.0):
        x = op.scale(x, scale=a, shift=b)
    return op.activate(x, "hard_sigmoid")


@lowers("Clip", reads=(0,))
def clip(op: Op) -> Record:
    """min(max(x, low), high): relu where one-sided, hard_sigmoid between two scalings where not."""
    low, high = _bound(op, 1, "min", -1.0), _bound(op, 2, "max", 1.0)
    x = op.data(0)
    if low is None and high is None:
        return x
    if low is not None and high is not None:
        width = high - low
        if width <= 0:
            raise Refusal("clips to nothing. Write ONNX.")
        x = _hard_sigmoid(op, x, 1 / (width * SLOPE), (-low / width - 0.5) / SLOPE)
        return op.scale(x, scale=width, shift=low)
    if low is not None:
        x = op.activate(op.scale(x, offset=-low) if low else x, "rectified")
        return op.scale(x, offset=low) if low else x
    return op.scale(op.activate(op.scale(x, scale=-1.0, shift=high or 0.0), "rectified"), scale=-1.0, shift=high or 0.0)


def _bound(op: Op, index: int, name: str, side: float) -> float | None:
    """A bound of Clip; None where it is absent or as far out as a float32 gets, which exporters write for absent."""
    if op.input(index) is None:
        return None
    array = op.weights(index)
    if array is None or array.size != 1:
        raise Refusal(f"computes its {name} from data; lwtnn has constant weights only. Write ONNX.")
    bound = float(array.ravel()[0])
    if bound * side >= float(np.finfo(np.float32).max):
        return None
    if abs(bound) > WIDEST_CLIP:
        raise Refusal(f"clips at {bound:g}; scaling around lwtnn's hard_sigmoid would lose digits. Write ONNX.")
    return bound
