"""Pooling, and the layers that pad, crop and repeat along steps or pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from modelhub_keras.convolution import Window, channels_first, first_channels, last_channels
from modelhub_keras.step import Step, Tensor, layer

__all__: list[str] = []


def _pool(step: Step, x: Tensor, op_type: str, axes: int) -> Tensor:
    if x.rank != axes + 2:
        step.damaged(f"pools along {axes} axes, but gets tensors of {x.rank}")
    options = step.options
    size = options.wholes("pool_size", "pool_length", count=axes, default=2)
    given = options.get("strides", "stride", default=None)
    strides = size if given is None else options.wholes("strides", "stride", count=axes)
    padding = options.text("padding", "border_mode", default="valid", of=("valid", "same"))
    window, first = Window(step, size, strides, [1] * axes, padding), channels_first(step)
    x = first_channels(step, x, first)
    dims = x.shape[2:]
    value = step.b.op(op_type, x.value, **window.attributes(dims))
    return last_channels(step, replace(x, value=value, shape=(*x.shape[:2], *window.lengths(dims))), first)


@layer("MaxPooling1D", "MaxPool1D", masks="none")
def max_pooling1d(step: Step, x: Tensor) -> Tensor:
    return _pool(step, x, "MaxPool", 1)


@layer("MaxPooling2D", "MaxPool2D", masks="none")
def max_pooling2d(step: Step, x: Tensor) -> Tensor:
    return _pool(step, x, "MaxPool", 2)


@layer("AveragePooling1D", "AvgPool1D", masks="none")
def average_pooling1d(step: Step, x: Tensor) -> Tensor:
    """The mean of each window, padding not counted."""
    return _pool(step, x, "AveragePool", 1)


@layer("AveragePooling2D", "AvgPool2D", masks="none")
def average_pooling2d(step: Step, x: Tensor) -> Tensor:
    return _pool(step, x, "AveragePool", 2)


def _global(step: Step, x: Tensor, op_type: str, axes: int) -> Tensor:
    if x.rank != axes + 2:
        step.damaged(f"pools over {axes} axes, but gets tensors of {x.rank}")
    over = [1 + axis + channels_first(step) for axis in range(axes)]
    keep = step.options.flag("keepdims", default=False)
    for axis in over:
        step.lengths.require(x.shape[axis], 1)
    value = step.b.op(op_type, x.value, step.b.ints(*over), keepdims=int(keep))
    shape = tuple(1 if place in over else dim for place, dim in enumerate(x.shape) if keep or place not in over)
    return replace(x, value=value, shape=shape, mask=None)


@layer("GlobalMaxPooling1D", "GlobalMaxPool1D", masks="none")
def global_max_pooling1d(step: Step, x: Tensor) -> Tensor:
    return _global(step, x, "ReduceMax", 1)


@layer("GlobalMaxPooling2D", "GlobalMaxPool2D", masks="none")
def global_max_pooling2d(step: Step, x: Tensor) -> Tensor:
    return _global(step, x, "ReduceMax", 2)


@layer("GlobalAveragePooling2D", "GlobalAvgPool2D", masks="none")
def global_average_pooling2d(step: Step, x: Tensor) -> Tensor:
    return _global(step, x, "ReduceMean", 2)


@layer("GlobalAveragePooling1D", "GlobalAvgPool1D", masks="own")
def global_average_pooling1d(step: Step, x: Tensor) -> Tensor:
    """The mean over all steps, or over those that the mask keeps."""
    if x.mask is None:
        return _global(step, x, "ReduceMean", 1)
    if channels_first(step):
        step.refuse("averages masked steps that come last")
    b, keep = step.b, int(step.options.flag("keepdims", default=False))
    step.lengths.require(x.shape[1], 1)
    kept = b.op("Unsqueeze", x.mask, b.ints(2))
    total = b.op("ReduceSum", b.op("Where", kept, x.value, step.scalar(0.0)), b.ints(1), keepdims=keep)
    count = b.op("ReduceSum", b.op("CastLike", kept, x.value), b.ints(1), keepdims=keep)
    shape = ("N", 1, x.width) if keep else ("N", x.width)
    return replace(x, value=b.op("Div", total, count), shape=shape, mask=None)


def _sides(step: Step, name: str, axes: int) -> list[tuple[int, int]]:
    """How much is added or cut before and after each axis, from one of Keras's three spellings."""
    given = step.options.get(name, default=1)
    rows = given if isinstance(given, list) else [given] * axes
    if axes == 1 and len(rows) == 2 and all(isinstance(row, int) for row in rows):
        rows = [rows]
    pairs = [row if isinstance(row, list) else [row, row] for row in rows]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for pair in pairs for n in pair)
    if len(pairs) != axes or any(len(pair) != 2 for pair in pairs) or not whole:
        step.damaged(f"{name} must be one or two whole numbers an axis")
    return [(pair[0], pair[1]) for pair in pairs]


def _less(count: int) -> Callable[[int], int]:
    return lambda n: max(n - count, 0)


def _part(times: int) -> Callable[[int], int]:
    return lambda n: -(-n // times)


def _padded(step: Step, x: Tensor, axes: int) -> Tensor:
    first = int(channels_first(step))
    sides = _sides(step, "padding", axes)
    shape = list(x.shape)
    before, after = [0] * x.rank, [0] * x.rank
    for place, (low, high) in enumerate(sides):
        axis = 1 + first + place
        before[axis], after[axis] = low, high
        dim, more = shape[axis], low + high
        longer = dim + more if isinstance(dim, int) else step.lengths.derived([dim], _less(more))
        shape[axis] = longer
    value = step.b.op("Pad", x.value, step.b.ints(*before, *after))
    return replace(x, value=value, shape=tuple(shape))


def _cropped(step: Step, x: Tensor, axes: int) -> Tensor:
    first = int(channels_first(step))
    shape, value = list(x.shape), x.value
    for place, (low, high) in enumerate(_sides(step, "cropping", axes)):
        axis = 1 + first + place
        dim, less = shape[axis], low + high
        if isinstance(dim, int):
            if dim <= less:
                step.damaged(f"cuts {less} of {dim}")
            shape[axis] = dim - less
        elif less:
            step.lengths.require(dim, 1 + less)
            shape[axis] = step.lengths.derived([dim], _less(-less))
        end = -high if high else 2**62
        value = step.b.op("Slice", value, step.b.ints(low), step.b.ints(end), step.b.ints(axis))
    return replace(x, value=value, shape=tuple(shape))


def _repeated(step: Step, x: Tensor, times: list[int], first: int) -> Tensor:
    """Every step or pixel `times` over, side by side."""
    shape, value = list(x.shape), x.value
    b = step.b
    for place, count in enumerate(times):
        axis = 1 + first + place
        if count == 1:
            continue
        dim = shape[axis]
        shape[axis] = dim * count if isinstance(dim, int) else step.lengths.derived([dim], _part(count))
        rows = b.op("Unsqueeze", value, b.ints(axis + 1))
        wide = b.op("Expand", rows, b.ints(*(count if a == axis + 1 else 1 for a in range(x.rank + 1))))
        target = [0 if a < axis else -1 if a == axis else shape[a] for a in range(x.rank)]
        if any(isinstance(n, str) for n in target):
            step.refuse("repeats along an axis before one of open length")
        value = b.op("Reshape", wide, b.ints(*(n for n in target if isinstance(n, int))))
    return replace(x, value=value, shape=tuple(shape))


@layer("ZeroPadding1D", masks="none")
def zero_padding1d(step: Step, x: Tensor) -> Tensor:
    return _padded(step, x, 1)


@layer("ZeroPadding2D", masks="none")
def zero_padding2d(step: Step, x: Tensor) -> Tensor:
    return _padded(step, x, 2)


@layer("Cropping1D", masks="none")
def cropping1d(step: Step, x: Tensor) -> Tensor:
    return _cropped(step, x, 1)


@layer("Cropping2D", masks="none")
def cropping2d(step: Step, x: Tensor) -> Tensor:
    return _cropped(step, x, 2)


@layer("UpSampling1D", masks="none")
def up_sampling1d(step: Step, x: Tensor) -> Tensor:
    return _repeated(step, x, [step.options.whole("size", "length", default=2)], int(channels_first(step)))


@layer("UpSampling2D", masks="none")
def up_sampling2d(step: Step, x: Tensor) -> Tensor:
    step.options.text("interpolation", default="nearest", of=("nearest",))
    return _repeated(step, x, step.options.wholes("size", count=2, default=2), int(channels_first(step)))
