"""Keras's activation functions, each as its own Keras defines it, and their names inside ONNX's recurrent operators.

(Keras 1 and 2: activations.py; Keras 3: src/activations/activations.py.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from modelhub.errors import safe_text
from modelhub_keras.config import parse_layer
from modelhub_keras.step import LAYERS, Step, Tensor, layer, single

__all__ = ["RecurrentActivation", "activate", "activation_name", "recurrent_activation"]

# Klambauer et al., 1706.02515, with the digits of Keras's activations.py.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946

Rule = Callable[[Step, ir.Value], ir.Value]


def hard_sigmoid_slope(version: tuple[int, ...]) -> float:
    """Keras 3 has clip(x/6 + 1/2, 0, 1), Keras 1 and 2 clip(0.2 x + 1/2, 0, 1)."""
    return 1 / 6 if version >= (3,) else 0.2


def _hard_sigmoid(step: Step, x: ir.Value) -> ir.Value:
    return step.b.op("HardSigmoid", x, alpha=hard_sigmoid_slope(step.version), beta=0.5)


def _silu(step: Step, x: ir.Value) -> ir.Value:
    return step.b.op("Mul", x, step.b.op("Sigmoid", x))


def _clip(low: float, high: float) -> Rule:
    return lambda step, x: step.b.op("Clip", x, step.scalar(low), step.scalar(high))


def _op(op_type: str, **attributes: Any) -> Rule:
    return lambda step, x: step.b.op(op_type, x, **attributes)


def _mish(step: Step, x: ir.Value) -> ir.Value:
    return step.b.op("Mul", x, step.b.op("Tanh", step.b.op("Softplus", x)))


def _log_sigmoid(step: Step, x: ir.Value) -> ir.Value:
    return step.b.op("Neg", step.b.op("Softplus", step.b.op("Neg", x)))


def _tanh_shrink(step: Step, x: ir.Value) -> ir.Value:
    return step.b.op("Sub", x, step.b.op("Tanh", x))


def _hard_shrink(step: Step, x: ir.Value) -> ir.Value:
    """X beyond 1/2 on either side, else 0."""
    beyond = step.b.op("Greater", step.b.op("Abs", x), step.scalar(0.5))
    return step.b.op("Where", beyond, x, step.scalar(0.0))


def _soft_shrink(step: Step, x: ir.Value) -> ir.Value:
    """X drawn towards 0 by 1/2, but not across."""
    return step.b.op("Sub", x, _clip(-0.5, 0.5)(step, x))


def _squareplus(step: Step, x: ir.Value) -> ir.Value:
    b = step.b
    root = b.op("Sqrt", b.op("Add", b.op("Mul", x, x), step.scalar(4.0)))
    return b.op("Mul", b.op("Add", x, root), step.scalar(0.5))


RULES: dict[str, Rule] = {
    "celu": _op("Celu", alpha=1.0),
    "elu": _op("Elu", alpha=1.0),
    "exponential": _op("Exp"),
    "gelu": _op("Gelu"),
    "hard_shrink": _hard_shrink,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _op("HardSwish"),
    "hard_swish": _op("HardSwish"),
    "hard_tanh": _clip(-1.0, 1.0),
    "leaky_relu": _op("LeakyRelu", alpha=single(0.2)),
    "linear": lambda _, x: x,
    "log_sigmoid": _log_sigmoid,
    "log_softmax": _op("LogSoftmax", axis=-1),
    "mish": _mish,
    "relu": _op("Relu"),
    "relu6": _clip(0.0, 6.0),
    "selu": _op("Selu", alpha=SELU_ALPHA, gamma=SELU_SCALE),
    "sigmoid": _op("Sigmoid"),
    "silu": _silu,
    "soft_shrink": _soft_shrink,
    "softmax": _op("Softmax", axis=-1),
    "softmax_v2": _op("Softmax", axis=-1),
    "softplus": _op("Softplus"),
    "softsign": _op("Softsign"),
    "squareplus": _squareplus,
    "swish": _silu,
    "tanh": _op("Tanh"),
    "tanh_shrink": _tanh_shrink,
}


def activation_name(step: Step, given: Any) -> str | None:
    """The name in an `activation` option; None where a whole layer is given instead."""
    if given is None:
        return "linear"
    if isinstance(given, dict):
        kind, config = given.get("class_name"), given.get("config")
        if kind == "function" and isinstance(config, str) and ">" not in str(given.get("registered_name")):
            given = config
        elif kind in ("LeakyReLU", "PReLU", "ELU", "ReLU", "Softmax", "ThresholdedReLU", "Activation"):
            return None
    if not isinstance(given, str) or given not in RULES:
        named = given.get("class_name") if isinstance(given, dict) else given
        step.refuse(f"the activation {safe_text(named)!r} is none of Keras's; what it computes is in no file")
    return given


def activate(step: Step, x: Tensor, given: Any) -> Tensor:
    """`x` after the activation in a layer's option `activation`: a name, or a layer of its own."""
    name = activation_name(step, given)
    if name is not None:
        if name in ("softmax", "softmax_v2", "log_softmax"):
            step.size(x.width)
        return replace(x, value=RULES[name](step, x.value))
    inner = parse_layer(given, 0, step.walk.where, 0)
    with step.inside(inner, "activation", inner.name) as part:
        result = LAYERS[inner.kind].function(part, x)
        part.options.finish()
    assert isinstance(result, Tensor)
    return result


@dataclass(frozen=True)
class RecurrentActivation:
    """An activation in the words of ONNX's RNN, LSTM and GRU: its name, then the alpha and beta it takes."""

    name: str
    alpha: tuple[float, ...] = ()
    beta: tuple[float, ...] = ()


def recurrent_activation(step: Step, given: Any) -> RecurrentActivation:
    """The activation of a recurrent layer, refused where ONNX's recurrent operators have none such."""
    name = activation_name(step, given)
    known = {
        "elu": RecurrentActivation("Elu", (1.0,)),
        "hard_sigmoid": RecurrentActivation("HardSigmoid", (hard_sigmoid_slope(step.version),), (0.5,)),
        "leaky_relu": RecurrentActivation("LeakyRelu", (single(0.2),)),
        "linear": RecurrentActivation("Affine", (1.0,), (0.0,)),
        "relu": RecurrentActivation("Relu"),
        "sigmoid": RecurrentActivation("Sigmoid"),
        "softplus": RecurrentActivation("Softplus"),
        "softsign": RecurrentActivation("Softsign"),
        "tanh": RecurrentActivation("Tanh"),
    }
    if name not in known:
        step.refuse(f"ONNX's recurrent operators have no activation {safe_text(name)!r}; they have {', '.join(known)}")
    return known[name]


@layer("Activation", pointwise=True)
def activation(step: Step, x: Tensor) -> Tensor:
    return activate(step, x, step.options.get("activation"))


@layer("ReLU", pointwise=True)
def relu(step: Step, x: Tensor) -> Tensor:
    """min(x, max_value) above the threshold, negative_slope (x - threshold) below (Keras: ReLU layer and K.relu)."""
    b, options = step.b, step.options
    highest = options.perhaps("max_value")
    highest = None if highest is None else single(highest)
    slope = options.number("negative_slope", default=0.0) if options.get("negative_slope", default=None) else 0.0
    threshold = options.number("threshold", default=0.0) if options.get("threshold", default=None) else 0.0
    if threshold == 0.0 and slope == 0.0:
        value = b.op("Relu", x.value) if highest is None else _clip(0.0, highest)(step, x.value)
    elif threshold == 0.0:
        value = b.op("LeakyRelu", x.value, alpha=slope if highest is not None else single(slope))
        value = value if highest is None else b.op("Min", value, step.scalar(highest))
    else:
        edge = step.scalar(threshold)
        value = b.op("Where", b.op("Greater", x.value, edge), x.value, step.scalar(0.0))
        value = value if highest is None else b.op("Min", value, step.scalar(highest))
        if slope != 0.0:
            below = b.op("Relu", b.op("Sub", edge, x.value))
            value = b.op("Sub", value, b.op("Mul", below, step.scalar(slope)))
    return replace(x, value=value)


@layer("LeakyReLU", pointwise=True)
def leaky_relu(step: Step, x: Tensor) -> Tensor:
    slope = single(step.options.number("negative_slope", "alpha", default=0.3))
    return replace(x, value=step.b.op("LeakyRelu", x.value, alpha=slope))


@layer("ELU", pointwise=True)
def elu(step: Step, x: Tensor) -> Tensor:
    return replace(x, value=step.b.op("Elu", x.value, alpha=step.options.number("alpha", default=1.0)))


@layer("ThresholdedReLU", pointwise=True)
def thresholded_relu(step: Step, x: Tensor) -> Tensor:
    """X where x > theta, else 0."""
    above = step.b.op("Greater", x.value, step.scalar(step.options.number("theta", default=1.0)))
    return replace(x, value=step.b.op("Where", above, x.value, step.scalar(0.0)))


@layer("PReLU")
def prelu(step: Step, x: Tensor) -> Tensor:
    """X where x >= 0, else alpha x, with one alpha an element; axes in `shared_axes` share theirs."""
    shared = step.options.get("shared_axes", default=None) or []
    if not isinstance(shared, list) or any(axis not in range(1, x.rank) for axis in shared):
        step.damaged(f"shared_axes must list axes from 1 to {x.rank - 1}")
    shape = tuple(1 if axis in shared else step.size(dim) for axis, dim in enumerate(x.shape) if axis)
    (alpha,) = step.weights(alpha=shape)
    return replace(x, value=step.b.op("PRelu", x.value, step.constant(alpha, "alpha")))


@layer("Softmax", masks="own")
def softmax(step: Step, x: Tensor) -> Tensor:
    axis = step.options.whole("axis", default=-1, least=-x.rank)
    if x.mask is not None:
        step.refuse("a Softmax layer under a mask leaves masked steps out; use Activation('softmax')")
    return replace(x, value=step.b.op("Softmax", x.value, axis=axis))
