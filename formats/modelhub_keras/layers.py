"""Dense layers, normalisations, the layers that only train, and those that only move numbers about."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.blocks import highway, maxout
from modelhub_keras.activations import activate
from modelhub_keras.step import Step, Tensor, is_order, layer, single

__all__: list[str] = []

FUZZ = 1e-7
"""keras.backend.epsilon()."""


def _affine(step: Step, x: Tensor, kernel: NDArray[Any], bias: NDArray[Any] | None, name: str = "") -> Tensor:
    """The linear layer x · kernel + bias over the last axis."""
    b = step.b
    weight = step.constant(kernel, f"kernel{name}")
    offset = None if bias is None else step.constant(bias, f"bias{name}")
    if x.rank == 2 and offset is not None:
        value = b.op("Gemm", x.value, weight, offset)
    else:
        value = b.op("MatMul", x.value, weight)
        value = value if offset is None else b.op("Add", value, offset)
    return replace(x, value=value, shape=(*x.shape[:-1], kernel.shape[-1]))


@layer("Dense", "TimeDistributedDense", pointwise=True)
def dense(step: Step, x: Tensor) -> Tensor:
    """act(x · kernel + bias); on sequences, at every step."""
    units = step.options.whole("units", "output_dim")
    biased = step.options.flag("use_bias", "bias", default=True)
    kernel, *bias = step.weights(kernel=(step.size(x.width), units), bias=(units,) if biased else None)
    y = _affine(step, x, kernel, bias[0] if bias else None)
    return activate(step, y, step.options.get("activation", default=None))


@layer("MaxoutDense", pointwise=True)
def maxout_dense(step: Step, x: Tensor) -> Tensor:
    """The largest of several linear layers (Keras 1: layers/core.py, MaxoutDense)."""
    pieces, units = step.options.whole("nb_feature"), step.options.whole("output_dim")
    biased = step.options.flag("bias", default=True)
    kernel, *bias = step.weights(W=(pieces, step.size(x.width), units), b=(pieces, units) if biased else None)
    offset = bias[0] if bias else step.filled(0, (pieces, units))
    (value,) = step.b.block(maxout(), x.value, step.constant(kernel, "W"), step.constant(offset, "b"))
    return replace(x, value=value, shape=(*x.shape[:-1], units))


@layer("Highway", pointwise=True)
def highway_layer(step: Step, x: Tensor) -> Tensor:
    """c·act(W x + b) + (1-c)·x with c = sigmoid(W_carry x + b_carry) (Keras 1: layers/core.py, Highway)."""
    width = step.size(x.width)
    square, vector = (width, width), (width,)
    if step.options.flag("bias", default=True):
        w, b, w_carry, b_carry = step.weights(W=square, b=vector, W_carry=square, b_carry=vector)
    else:
        w, w_carry = step.weights(W=square, W_carry=square)
        b = b_carry = step.filled(0, vector)
    transform = activate(step, _affine(step, x, w, b), step.options.get("activation", default="linear"))
    carry = _affine(step, x, w_carry, b_carry, "_carry")
    (value,) = step.b.block(highway(), x.value, transform.value, carry.value)
    return replace(x, value=value)


@layer("BatchNormalization")
def batch_normalization(step: Step, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) · gamma + beta, with the averages of training."""
    options = step.options
    if options.get("mode", default=0) != 0:
        step.refuse("normalises by the batch at hand (mode 1 or 2 of Keras 1), so one event depends on others")
    axis = options.whole("axis", default=-1, least=-x.rank) % x.rank
    width = (step.size(x.shape[axis]),)
    scaled, centred = options.flag("scale", default=True), options.flag("center", default=True)
    stored = step.weights(
        gamma=width if scaled else None, beta=width if centred else None, moving_mean=width, moving_variance=width
    )
    arrays = dict(zip([*["gamma"] * scaled, *["beta"] * centred, "mean", "variance"], stored, strict=True))
    if step.version < (1, 0, 8):
        step.walk.tell(
            step.layer,
            "Keras before 1.0.8 divided by running_std itself; it is read as a variance here, as every later Keras and "
            "lwtnn do",
        )
    gamma = arrays.get("gamma", step.filled(1, width))
    beta = arrays.get("beta", step.filled(0, width))
    constants = [
        step.constant(array, name)
        for name, array in (
            ("gamma", gamma),
            ("beta", beta),
            ("mean", arrays["mean"]),
            ("variance", arrays["variance"]),
        )
    ]
    epsilon = options.number("epsilon", default=1e-3)
    order = [0, axis, *(a for a in range(1, x.rank) if a != axis)]
    back = [order.index(a) for a in range(x.rank)]
    now = x.value if axis == 1 else step.b.op("Transpose", x.value, perm=order)
    now = step.b.op("BatchNormalization", now, *constants, epsilon=epsilon)
    now = now if axis == 1 else step.b.op("Transpose", now, perm=back)
    return replace(x, value=now)


@layer("LayerNormalization")
def layer_normalization(step: Step, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) · gamma + beta over the last axes of one event."""
    options = step.options
    given = options.get("axis", default=-1)
    axes = sorted(axis % x.rank for axis in (given if isinstance(given, list) else [given]) if isinstance(axis, int))
    if not axes or axes != list(range(axes[0], x.rank)):
        step.refuse("normalises over other axes than the last ones")
    if options.flag("rms_scaling", default=False):
        step.refuse("scales by the root mean square (rms_scaling), which is no LayerNormalization")
    shape = tuple(step.size(dim) for dim in x.shape[axes[0] :])
    scaled, centred = options.flag("scale", default=True), options.flag("center", default=True)
    arrays = step.weights(gamma=shape if scaled else None, beta=shape if centred else None)
    size = (math.prod(shape),)
    gamma = arrays.pop(0).reshape(size) if scaled else step.filled(1, size)
    inputs = [step.constant(gamma, "gamma"), *(step.constant(beta.reshape(size), "beta") for beta in arrays)]
    epsilon = options.number("epsilon", default=1e-3)
    flat = x if len(axes) == 1 else step.reshape(x, [*x.shape[1 : axes[0]], *size])
    value = step.b.op("LayerNormalization", flat.value, *inputs, axis=-1, epsilon=epsilon)
    y = replace(flat, value=value)
    return y if len(axes) == 1 else step.reshape(y, x.shape[1:])


@layer("Normalization")
def normalization(step: Step, x: Tensor) -> Tensor:
    """(x - mean) / max(sqrt(variance), 1e-7), or its inverse (Keras: preprocessing/normalization.py)."""
    options = step.options
    axis = options.get("axis", default=-1)
    axes = [axis] if isinstance(axis, int) else ([] if axis is None else axis)
    if not isinstance(axes, list) or [a % x.rank for a in axes if isinstance(a, int)] not in ([], [x.rank - 1]):
        step.refuse("normalises along other axes than the last one")
    shape = (step.size(x.width),) if axes else ()
    given = options.get("mean", default=None), options.get("variance", default=None)
    if given[0] is None:
        mean, variance, *_ = step.weights(mean=shape, variance=shape, count=())
    else:
        mean, variance = (_numbers(step, value) for value in given)
    smallest = np.asarray(FUZZ**2, dtype=step.walk.dtype)
    spread = step.b.op("Sqrt", step.constant(np.maximum(variance, smallest), "variance"))
    middle = step.constant(mean, "mean")
    if options.flag("invert", default=False):
        return replace(x, value=step.b.op("Add", step.b.op("Mul", x.value, spread), middle))
    return replace(x, value=step.b.op("Div", step.b.op("Sub", x.value, middle), spread))


def _numbers(step: Step, value: Any) -> NDArray[Any]:
    """Numbers from an option, without the axes of length 1 Keras puts around them."""
    try:
        array = np.asarray(value, dtype=np.float64).squeeze()
    except (TypeError, ValueError):
        step.damaged("an option must hold numbers")
    return array.astype(step.walk.dtype)


@layer("Rescaling", pointwise=True)
def rescaling(step: Step, x: Tensor) -> Tensor:
    """X · scale + offset."""
    now = x.value
    for name, op_type, neutral in (("scale", "Mul", 1.0), ("offset", "Add", 0.0)):
        given = step.options.get(name, default=neutral)
        if isinstance(given, list):
            now = step.b.op(op_type, now, step.constant(_numbers(step, given), name))
        elif step.options.number(name, default=neutral) != neutral:
            now = step.b.op(op_type, now, step.scalar(single(step.options.number(name))))
    return replace(x, value=now)


@layer(
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    pointwise=True,
)
def only_in_training(step: Step, x: Tensor) -> Tensor:
    step.options.ignore()
    return x


@layer("Flatten", masks="none")
def flatten(step: Step, x: Tensor) -> Tensor:
    if step.options.text("data_format", default="channels_last") == "channels_first" and x.rank > 2:
        x = step.transpose(x, [0, *range(2, x.rank), 1])
    return x if x.rank == 2 else step.reshape(x, [step.volume(x.shape[1:])])


@layer("Reshape", masks="none")
def reshape(step: Step, x: Tensor) -> Tensor:
    target = step.options.get("target_shape", "dims")
    if not isinstance(target, list) or any(isinstance(n, bool) or not isinstance(n, int) for n in target):
        step.damaged("target_shape must be a list of integers")
    known = math.prod(n for n in target if n != -1)
    if target.count(-1) > 1 or known <= 0:
        step.damaged(f"target_shape {target} is no shape")
    if -1 in target and isinstance(x.shape[1], str) and x.rank == 3 and x.width == known and target[0] == -1:
        return step.reshape(x, [x.shape[1], *target[1:]])
    volume = step.volume(x.shape[1:])
    shape = [volume // known if n == -1 else n for n in target]
    if math.prod(shape) != volume:
        step.damaged(f"{volume} numbers do not fit the shape {target}")
    return step.reshape(x, shape)


@layer("Permute", masks="none")
def permute(step: Step, x: Tensor) -> Tensor:
    order = step.options.get("dims")
    if not is_order(order, range(1, x.rank)):
        step.damaged(f"dims must be the numbers from 1 to {x.rank - 1} in some order")
    return step.transpose(x, [0, *order])


@layer("RepeatVector", masks="none")
def repeat_vector(step: Step, x: Tensor) -> Tensor:
    """[N, F] to [N, n, F]."""
    count = step.options.whole("n")
    row = step.b.op("Unsqueeze", x.value, step.b.ints(1))
    value = step.b.op("Expand", row, step.b.ints(1, count, 1))
    return replace(x, value=value, shape=("N", count, x.width), mask=None)


@layer("Masking", masks="own")
def masking(step: Step, x: Tensor) -> Tensor:
    """Steps whose every feature is `mask_value` are masked, and become 0."""
    b = step.b
    differs = b.op("Not", b.op("Equal", x.value, step.scalar(step.options.number("mask_value", default=0.0))))
    counted = b.op("ReduceMax", b.op("Cast", differs, to=ir.DataType.INT32.value), b.ints(-1), keepdims=0)
    keep = b.op("Cast", counted, to=ir.DataType.BOOL.value)
    value = b.op("Where", b.op("Unsqueeze", keep, b.ints(-1)), x.value, step.scalar(0.0))
    return replace(x, value=value, mask=keep)


@layer("Embedding", masks="own")
def embedding(step: Step, x: Tensor) -> Tensor:
    """One row of the table a number; with `mask_zero`, steps that hold 0 are masked."""
    b, options = step.b, step.options
    width = options.whole("output_dim")
    height = options.whole("input_dim")
    (table,) = step.weights(embeddings=(height, width))
    step.walk.categories.setdefault(x.value, height)
    rows = x.value if x.kind == "i" else b.op("Cast", x.value, to=ir.DataType.INT64.value)
    value = b.op("Gather", step.constant(table, "embeddings"), rows, axis=0)
    mask = None
    if options.flag("mask_zero", default=False):
        mask = b.op("Not", b.op("Equal", rows if x.kind == "i" else x.value, step.zero(x)))
    return Tensor(value, (*x.shape, width), mask=mask)
