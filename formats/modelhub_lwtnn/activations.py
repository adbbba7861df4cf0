"""lwtnn's activation functions over float64 arrays, as its engine computes them.

Source: lwtnn, include/lwtnn/generic/Stack.tcc (get_raw_activation_layer and the layers and functors it names).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from modelhub_lwtnn.schema import Activation, Array

__all__ = ["activate", "sigmoid"]


def activate(activation: Activation, x: Array, axis: int = -1) -> Array:
    """`activation` of x, any shape, elementwise; softmax runs along `axis`."""
    if activation.function == "softmax":
        return _softmax(x, axis)
    if activation.alpha is not None:
        return WITH_ALPHA[activation.function](x, activation.alpha)
    return PLAIN[activation.function](x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), exactly 0 below -30 and exactly 1 above 30 (SigmoidLayer)."""
    return np.where(x < -30.0, 0.0, np.where(x > 30.0, 1.0, 1.0 / (1.0 + np.exp(-x))))


def _softmax(x: Array, axis: int) -> Array:
    """Shifted by the largest component; a NaN anywhere makes all NaN (SoftmaxLayer)."""
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def _rectified(x: Array) -> Array:
    return np.where(x < 0.0, 0.0, x)


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(0.2 * x + 0.5, 0.0, 1.0)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x >= 0.0, x, alpha * (np.exp(x) - 1.0))


def _leaky_relu(x: Array, alpha: float) -> Array:
    return np.where(x > 0.0, x, alpha * x)


def _swish(x: Array, alpha: float) -> Array:
    return x * sigmoid(alpha * x)


PLAIN: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "rectified": _rectified,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "hard_sigmoid": _hard_sigmoid,
    "abs": np.abs,
}

WITH_ALPHA: dict[str, Callable[[Array, float], Array]] = {"elu": _elu, "leakyrelu": _leaky_relu, "swish": _swish}
