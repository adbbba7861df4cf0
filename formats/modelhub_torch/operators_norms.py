"""Normalisations: by stored statistics, and of each event by its own; weights that are kept as direction and length."""

from __future__ import annotations

import math

import numpy as np

from modelhub_torch.call import Call
from modelhub_torch.operators_pointwise import binary
from modelhub_torch.operators_reduce import reduce
from modelhub_torch.operators_shape import LARGEST
from modelhub_torch.translate import Tensor, Translation, aten
from modelhub_torch.views import reshape, resolve


def _or_constant(t: Translation, given: Tensor | None, size: int, value: float, like: Tensor) -> Tensor:
    return t.constant(np.full(size, value, like.dtype), "scale" if value else "bias") if given is None else given


def _batch_norm(t: Translation, c: Call, mean: Tensor, variance: Tensor) -> Tensor:
    x, weight, bias = c.tensor("input"), c.optional("weight"), c.optional("bias")
    c.get("momentum")
    channels = mean.shape[0]
    if x.rank < 2 or not isinstance(channels, int) or t.unify(x.shape[1], channels) != channels:
        raise c.refuse("the channels do not fit the statistics")
    scale, shift = _or_constant(t, weight, channels, 1, mean), _or_constant(t, bias, channels, 0, mean)
    return t.op("BatchNormalization", x, scale, shift, mean, variance, shape=x.shape, epsilon=c.number("eps"))


@aten(
    "batch_norm.default",
    "native_batch_norm.default",
    "_native_batch_norm_legit.default",
    "_batch_norm_no_update.default",
)
def batch_norm(t: Translation, c: Call) -> Tensor | list[Tensor | None]:
    """(x - running_mean) / sqrt(running_var + eps) · weight + bias per entry of axis 1."""
    if not (c.has("running_mean") and c.has("running_var")):
        raise c.training("it keeps no running statistics and would normalise by the batch itself")
    if c.flag("training"):
        raise c.training("it normalises by the batch itself")
    result = _batch_norm(t, c, c.tensor("running_mean"), c.tensor("running_var"))
    return result if len(c.node.outputs) == 1 else [result, *[None] * (len(c.node.outputs) - 1)]


@aten("_native_batch_norm_legit_no_training.default")
def batch_norm_inference(t: Translation, c: Call) -> list[Tensor | None]:
    """The same, as core ATen has it; the statistics it returns besides are of no use."""
    return [_batch_norm(t, c, c.tensor("running_mean"), c.tensor("running_var")), None, None]


def _layer_norm(t: Translation, c: Call) -> Tensor:
    x, weight, bias = c.tensor("input"), c.optional("weight"), c.optional("bias")
    axes = c.integers("normalized_shape")
    if not axes or x.shape[-len(axes) :] != tuple(axes):
        t.counts(*x.shape[-len(axes) :])
        raise c.refuse("the normalised axes do not fit the tensor")
    if weight is None:
        if math.prod(axes) > LARGEST:
            raise c.refuse("so many normalised entries are not known")
        weight = t.constant(np.ones(axes, x.dtype), "scale")
    return t.op("LayerNormalization", x, weight, bias, shape=x.shape, axis=-len(axes), epsilon=c.number("eps", 1e-5))


@aten("layer_norm.default")
def layer_norm(t: Translation, c: Call) -> Tensor:
    """Each event by its own mean and variance over the last axes, then · weight + bias."""
    return _layer_norm(t, c)


@aten("native_layer_norm.default")
def native_layer_norm(t: Translation, c: Call) -> list[Tensor | None]:
    """The same, as core ATen has it; the statistics it returns besides are of no use."""
    return [_layer_norm(t, c), None, None]


@aten("rms_norm.default")
def rms_norm(t: Translation, c: Call) -> Tensor:
    """Gives x / sqrt(mean(x²) + eps) · weight over the last axes."""
    x, weight = c.tensor("input"), c.optional("weight")
    axes = list(range(x.rank - len(c.integers("normalized_shape")), x.rank))
    eps = c.number("eps") if c.has("eps") else float(np.finfo(x.dtype).eps)
    mean = reduce(t, "ReduceMean", binary(t, "Mul", x, x, x.dtype), axes, keep=True)
    root = binary(t, "Add", mean, eps, x.dtype)
    root = t.op("Sqrt", root, shape=root.shape)
    result = binary(t, "Div", x, root, x.dtype)
    return result if weight is None else binary(t, "Mul", result, weight, x.dtype)


@aten("instance_norm.default")
def instance_norm(t: Translation, c: Call) -> Tensor:
    """Each channel of each event by its own mean and variance, then · weight + bias."""
    x, weight, bias = c.tensor("input"), c.optional("weight"), c.optional("bias")
    for name in ("running_mean", "running_var", "momentum"):
        c.get(name)
    if not c.flag("use_input_stats", default=True):
        raise c.refuse("running statistics are not known here")
    return _instance_norm(t, c, x, weight, bias)


def _instance_norm(t: Translation, c: Call, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    channels = x.shape[1]
    if not isinstance(channels, int) or not 0 < channels <= LARGEST:
        raise c.refuse("the number of channels must be fixed")
    like = t.constant(np.zeros((), x.dtype))
    scale, shift = _or_constant(t, weight, channels, 1, like), _or_constant(t, bias, channels, 0, like)
    return t.op("InstanceNormalization", x, scale, shift, shape=x.shape, epsilon=c.number("eps", 1e-5))


@aten("group_norm.default")
def group_norm(t: Translation, c: Call) -> Tensor:
    """Groups of channels of each event by their own mean and variance, then · weight + bias per channel."""
    x, groups = c.tensor("input"), c.integer("num_groups")
    rest = (1,) * (x.rank - 2)
    grouped = reshape(t, x, resolve(t, x.shape, (x.shape[0], groups, -1)))
    y = reshape(t, _instance_norm(t, c, grouped, None, None), x.shape)
    for op_type, factor in (("Mul", c.optional("weight")), ("Add", c.optional("bias"))):
        if factor is not None:
            y = binary(t, op_type, y, reshape(t, factor, (factor.shape[0], *rest)), y.dtype)
    return y


@aten("_weight_norm.default")
def weight_norm(t: Translation, c: Call) -> Tensor:
    """A weight of given directions v and lengths g: v · g / |v|, computed ahead in double precision."""
    v, g, dim = c.tensor("v"), c.tensor("g"), c.integer("dim", 0)
    if v.array is None or g.array is None:
        raise c.refuse("its parts are computed in the graph; only stored weights are known")
    exact = v.array.astype(np.float64)
    axes = tuple(a for a in range(v.rank) if a != dim % v.rank or dim == -1)
    exact = exact * (g.array.astype(np.float64) / np.sqrt((exact * exact).sum(axes, keepdims=True)))
    return t.cast(t.constant(exact, "weight"), v.dtype)
