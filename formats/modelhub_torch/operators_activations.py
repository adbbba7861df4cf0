"""Activations: functions of one number that networks put behind their layers."""

from __future__ import annotations

from modelhub_torch.call import Call
from modelhub_torch.operators_pointwise import BOOL, binary, clip
from modelhub_torch.translate import Tensor, Translation, aten
from modelhub_torch.views import reshape

# Selu's constants as ATen has them (aten/src/ATen/native/Activation.cpp), in full: ONNX's defaults are rounded.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@aten("leaky_relu.default")
def leaky_relu(t: Translation, c: Call) -> Tensor:
    """Gives x where x > 0, else negative_slope · x."""
    x = c.tensor("self")
    return t.op("LeakyRelu", x, shape=x.shape, alpha=c.number("negative_slope", 0.01))


@aten("elu.default")
def elu(t: Translation, c: Call) -> Tensor:
    """Scale · (x where x > 0, else alpha · (exp(input_scale · x) - 1))."""
    x = c.tensor("self")
    alpha, scale, stretch = c.number("alpha", 1.0), c.number("scale", 1.0), c.number("input_scale", 1.0)
    if stretch != 1:
        raise c.refuse("input_scale other than 1 is not known")
    if scale != 1:
        return t.op("Selu", x, shape=x.shape, alpha=alpha, gamma=scale)
    return t.op("Elu", x, shape=x.shape, alpha=alpha)


@aten("selu.default")
def selu(t: Translation, c: Call) -> Tensor:
    """Elu with two fixed constants."""
    x = c.tensor("self")
    return t.op("Selu", x, shape=x.shape, alpha=SELU_ALPHA, gamma=SELU_SCALE)


@aten("celu.default")
def celu(t: Translation, c: Call) -> Tensor:
    """Gives alpha · elu(x / alpha); ONNX's own Celu knows float32 alone."""
    x, alpha = c.tensor("self"), c.number("alpha", 1.0)
    if alpha == 1:
        return t.op("Elu", x, shape=x.shape, alpha=1.0)
    inner = t.op("Elu", binary(t, "Div", x, alpha, x.dtype), shape=x.shape, alpha=1.0)
    return binary(t, "Mul", inner, alpha, x.dtype)


@aten("silu.default")
def silu(t: Translation, c: Call) -> Tensor:
    """Gives x · sigmoid(x), also called swish."""
    x = c.tensor("self")
    return t.op("Mul", x, t.op("Sigmoid", x, shape=x.shape), shape=x.shape)


@aten("gelu.default")
def gelu(t: Translation, c: Call) -> Tensor:
    """Gives x · Φ(x), exact or by its tanh form."""
    x = c.tensor("self")
    return t.op("Gelu", x, shape=x.shape, approximate=c.text("approximate", "none"))


@aten("hardsigmoid.default")
def hardsigmoid(t: Translation, c: Call) -> Tensor:
    """relu6(x + 3) / 6."""
    x = c.tensor("self")
    return t.op("HardSigmoid", x, shape=x.shape, alpha=1 / 6, beta=0.5)


@aten("hardswish.default")
def hardswish(t: Translation, c: Call) -> Tensor:
    """Gives x · relu6(x + 3) / 6."""
    x = c.tensor("self")
    return t.op("Mul", x, t.op("HardSigmoid", x, shape=x.shape, alpha=1 / 6, beta=0.5), shape=x.shape)


@aten("hardtanh.default")
def hardtanh(t: Translation, c: Call) -> Tensor:
    """Gives x between min_val and max_val."""
    return clip(t, c.tensor("self"), c.number("min_val", -1.0), c.number("max_val", 1.0))


@aten("relu6.default")
def relu6(t: Translation, c: Call) -> Tensor:
    """Gives x between 0 and 6."""
    return clip(t, c.tensor("self"), 0.0, 6.0)


def _softplus(t: Translation, x: Tensor) -> Tensor:
    return t.op("Softplus", x, shape=x.shape)


@aten("softplus.default")
def softplus(t: Translation, c: Call) -> Tensor:
    """log(1 + exp(beta · x)) / beta; x itself where beta · x > threshold (aten/src/ATen/native/Activation.cpp)."""
    x, beta, threshold = c.tensor("self"), c.number("beta", 1.0), c.number("threshold", 20.0)
    inner = x if beta == 1 else binary(t, "Mul", x, beta, x.dtype)
    smooth = _softplus(t, inner)
    if beta != 1:
        smooth = binary(t, "Div", smooth, beta, x.dtype)
    linear = binary(t, "Greater", inner, threshold, x.dtype, BOOL)
    return t.op("Where", linear, x, smooth, shape=x.shape, dtype=x.dtype)


@aten("log_sigmoid.default")
def log_sigmoid(t: Translation, c: Call) -> Tensor:
    """-softplus(-x)."""
    x = c.tensor("self")
    return t.op("Neg", _softplus(t, t.op("Neg", x, shape=x.shape)), shape=x.shape)


@aten("softsign.default")
def softsign(t: Translation, c: Call) -> Tensor:
    """Gives x / (1 + |x|)."""
    x = c.tensor("self")
    return t.op("Softsign", x, shape=x.shape)


@aten("mish.default")
def mish(t: Translation, c: Call) -> Tensor:
    """Gives x · tanh(softplus(x))."""
    x = c.tensor("self")
    return t.op("Mul", x, t.op("Tanh", _softplus(t, x), shape=x.shape), shape=x.shape)


@aten("threshold.default")
def threshold(t: Translation, c: Call) -> Tensor:
    """Gives x where x > threshold, else value."""
    x = c.tensor("self")
    above = binary(t, "Greater", x, c.get("threshold"), x.dtype, BOOL)
    return t.op("Where", above, x, t.operand(c.get("value"), x.dtype), shape=x.shape, dtype=x.dtype)


@aten("prelu.default", "_prelu_kernel.default")
def prelu(t: Translation, c: Call) -> Tensor:
    """Gives x where x > 0, else weight · x; one weight for all, or one per entry of axis 1."""
    x, weight = c.tensor("self"), c.tensor("weight")
    if weight.rank == 1 and x.rank > 2 and weight.shape != (1,):
        weight = reshape(t, weight, (weight.shape[0], *[1] * (x.rank - 2)))
    t.broadcast(x.shape, weight.shape)
    return t.op("PRelu", x, weight, shape=x.shape)


@aten("glu.default")
def glu(t: Translation, c: Call) -> Tensor:
    """The first half of an axis times the sigmoid of the second."""
    x = c.tensor("self")
    axis = t.axis(x.shape, c.integer("dim", -1))
    size = x.shape[axis]
    t.counts(size)
    if not isinstance(size, int) or size % 2:
        raise c.refuse("an axis of odd or dynamic size has no halves")
    half = (*x.shape[:axis], size // 2, *x.shape[axis + 1 :])
    a, b = t.ops("Split", x, t.b.ints(size // 2, size // 2), outputs=[(half, x.dtype)] * 2, axis=axis)
    return t.op("Mul", a, t.op("Sigmoid", b, shape=half), shape=half)
