"""Convolutions in one and two dimensions. Keras keeps channels last, ONNX puts them second.

Keras's kernels are [*kernel, in, out], ONNX's [out, in, *kernel]. (Keras: layers/convolutional/.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub_keras.activations import activate
from modelhub_keras.step import Dim, Step, Tensor, layer

__all__ = ["Window", "first_channels", "last_channels"]


class Window:
    """The geometry a convolution or a pooling slides along its axes: kernel, strides, dilation and padding."""

    def __init__(self, step: Step, kernel: list[int], strides: list[int], dilations: list[int], padding: str) -> None:
        self.step = step
        self.kernel = kernel
        self.strides = strides
        self.dilations = dilations
        self.padding = padding
        self.spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]

    def attributes(self, dims: tuple[Dim, ...]) -> dict[str, Any]:
        """ONNX's attributes for axes of these lengths."""
        given: dict[str, Any] = {"kernel_shape": self.kernel, "strides": self.strides}
        if any(d != 1 for d in self.dilations):
            given["dilations"] = self.dilations
        pads = [self._pads(*row) for row in zip(dims, self.spans, self.strides, strict=True)]
        if any(pad is None for pad in pads):
            return given | {"auto_pad": "SAME_UPPER"}
        if any(pad != (0, 0) for pad in pads):
            given["pads"] = [pad[0] for pad in pads if pad] + [pad[1] for pad in pads if pad]
        return given

    def _pads(self, dim: Dim, span: int, stride: int) -> tuple[int, int] | None:
        """Zeros before and after; None where they depend on a length not known yet."""
        if self.padding == "valid":
            return 0, 0
        if self.padding == "causal":
            return span - 1, 0
        if stride == 1:
            total = span - 1
        elif isinstance(dim, int):
            total = max((-(-dim // stride) - 1) * stride + span - dim, 0)
        else:
            return None
        return total // 2, total - total // 2

    def lengths(self, dims: tuple[Dim, ...]) -> list[Dim]:
        """The lengths that come out."""
        return [self._length(*row) for row in zip(dims, self.spans, self.strides, strict=True)]

    def _length(self, dim: Dim, span: int, stride: int) -> Dim:
        lost = span - 1 if self.padding == "valid" else 0
        if isinstance(dim, int):
            length = (dim - lost + stride - 1) // stride
            if length < 1:
                self.step.damaged(f"{dim} steps are fewer than the {span} the window spans")
            return length
        lengths = self.step.lengths
        lengths.require(dim, 1 + lost)
        if lost == 0 and stride == 1:
            return dim
        return lengths.derived([dim], lambda n: (n - 1) * stride + 1 + lost)


def channels_first(step: Step) -> bool:
    """Whether the layer keeps channels before the axes it slides along (Keras 1: `dim_ordering` "th")."""
    ordering = step.options.get("data_format", "dim_ordering", default="channels_last")
    if ordering not in ("channels_last", "channels_first", "tf", "th", "default", None):
        step.damaged("data_format must be channels_last or channels_first")
    if ordering in ("default", None) and step.version < (2,):
        step.refuse("does not say whether channels come first or last (dim_ordering)")
    return ordering in ("channels_first", "th")


def first_channels(step: Step, x: Tensor, already: bool) -> Tensor:
    """`x` with its channels second."""
    return x if already else step.transpose(x, [0, x.rank - 1, *range(1, x.rank - 1)])


def last_channels(step: Step, x: Tensor, already: bool) -> Tensor:
    """`x` with its channels last again, unless they came first."""
    return x if already else step.transpose(x, [0, *range(2, x.rank), 1])


def _window(step: Step, axes: int) -> Window:
    options = step.options
    dilations = options.wholes("dilation_rate", "atrous_rate", count=axes, default=1)
    strides = options.wholes("strides", "subsample", "subsample_length", count=axes, default=1)
    kernel = _old_kernel(step, axes) if step.version < (2,) else options.wholes("kernel_size", count=axes)
    allowed = ("valid", "same", "causal") if axes == 1 else ("valid", "same")
    return Window(step, kernel, strides, dilations, options.text("padding", "border_mode", default="valid", of=allowed))


def _old_kernel(step: Step, axes: int) -> list[int]:
    names = ("filter_length",) if axes == 1 else ("nb_row", "nb_col")
    return [step.options.whole(name) for name in names]


def _check_rank(step: Step, x: Tensor, axes: int) -> None:
    if x.rank != axes + 2:
        step.damaged(f"slides along {axes} axes, but gets tensors of {x.rank}")


def _groups(step: Step, channels: int) -> int:
    groups = step.options.whole("groups", default=1)
    if channels % groups:
        step.damaged(f"{channels} channels do not fall into {groups} groups")
    return groups


def _kernel(step: Step, size: list[int], channels: int, filters: int) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """The kernel as [*kernel, in, out], and the bias if there is one.

    Theano turns kernels round where every other backend does not, and Keras turns them back on loading
    (hdf5_format.py, preprocess_weights_for_loading); it also holds the layouts of Keras 1 handled here.
    """
    biased = step.options.flag("use_bias", "bias", default=True)
    bias = (filters,) if biased else None
    if step.version >= (2,):
        kernel, *rest = step.weights(kernel=(*size, channels, filters), bias=bias)
    elif len(size) == 1:
        kernel, *rest = step.weights(W=(size[0], 1, channels, filters), b=bias)
        kernel = kernel[:, 0]
    elif step.options.get("dim_ordering", default="tf") == "th":
        kernel, *rest = step.weights(W=(filters, channels, *size), b=bias)
        kernel = kernel.transpose(2, 3, 1, 0)
    else:
        kernel, *rest = step.weights(W=(*size, channels, filters), b=bias)
    if step.walk.backend == "theano":
        kernel = kernel[::-1] if len(size) == 1 else kernel[::-1, ::-1]
    elif step.version < (2,) and step.walk.backend != "tensorflow":
        step.refuse("was saved by Keras 1 without the name of its backend, on which the order of a kernel depends")
    return kernel, rest


def _convolve(
    step: Step, x: Tensor, window: Window, kernel: NDArray[Any], bias: list[NDArray[Any]], groups: int
) -> Tensor:
    """The operator over tensors with channels second; `kernel` is ONNX's."""
    dims = x.shape[2:]
    value = step.b.op(
        "Conv",
        x.value,
        step.constant(np.ascontiguousarray(kernel), "kernel"),
        *(step.constant(array, "bias") for array in bias),
        group=groups,
        **window.attributes(dims),
    )
    return replace(x, value=value, shape=("N", kernel.shape[0], *window.lengths(dims)))


def _plain(step: Step, x: Tensor, axes: int) -> Tensor:
    _check_rank(step, x, axes)
    window, first = _window(step, axes), channels_first(step)
    x = first_channels(step, x, first)
    channels = step.size(x.shape[1])
    filters, groups = step.options.whole("filters", "nb_filter"), _groups(step, channels)
    kernel, bias = _kernel(step, window.kernel, channels // groups, filters)
    kernel = kernel.transpose(axes + 1, axes, *range(axes))
    y = last_channels(step, _convolve(step, x, window, kernel, bias, groups), first)
    return activate(step, y, step.options.get("activation", default=None))


@layer("Conv1D", "Convolution1D", masks="none")
def conv1d(step: Step, x: Tensor) -> Tensor:
    return _plain(step, x, 1)


@layer("Conv2D", "Convolution2D", masks="none")
def conv2d(step: Step, x: Tensor) -> Tensor:
    return _plain(step, x, 2)


def _depthwise(kernel: NDArray[Any], axes: int) -> NDArray[Any]:
    """[*kernel, in, times] to ONNX's [in·times, 1, *kernel]."""
    moved = kernel.transpose(axes, axes + 1, *range(axes))
    return moved.reshape(-1, 1, *kernel.shape[:axes])


def _modern(step: Step) -> None:
    if step.version < (2,) or step.walk.backend == "theano":
        step.refuse("was saved by Keras 1 or with the backend Theano, whose kernels of this class are not read")


def _by_channel(step: Step, x: Tensor, axes: int) -> Tensor:
    _check_rank(step, x, axes)
    _modern(step)
    options = step.options
    window, first = _window(step, axes), channels_first(step)
    for unused in ("filters", "groups"):
        options.get(unused, default=None)
    x = first_channels(step, x, first)
    channels, times = step.size(x.shape[1]), options.whole("depth_multiplier", default=1)
    biased = options.flag("use_bias", default=True)
    kernel, *bias = step.weights(
        depthwise_kernel=(*window.kernel, channels, times), bias=(channels * times,) if biased else None
    )
    y = _convolve(step, x, window, _depthwise(kernel, axes), bias, channels)
    return activate(step, last_channels(step, y, first), options.get("activation", default=None))


@layer("DepthwiseConv1D", masks="none")
def depthwise_conv1d(step: Step, x: Tensor) -> Tensor:
    return _by_channel(step, x, 1)


@layer("DepthwiseConv2D", masks="none")
def depthwise_conv2d(step: Step, x: Tensor) -> Tensor:
    return _by_channel(step, x, 2)


def _separable(step: Step, x: Tensor, axes: int) -> Tensor:
    _check_rank(step, x, axes)
    _modern(step)
    options = step.options
    window, first = _window(step, axes), channels_first(step)
    options.get("groups", default=None)
    x = first_channels(step, x, first)
    channels, times = step.size(x.shape[1]), options.whole("depth_multiplier", default=1)
    filters, biased = options.whole("filters"), options.flag("use_bias", default=True)
    deep, point, *bias = step.weights(
        depthwise_kernel=(*window.kernel, channels, times),
        pointwise_kernel=(*[1] * axes, channels * times, filters),
        bias=(filters,) if biased else None,
    )
    y = _convolve(step, x, window, _depthwise(deep, axes), [], channels)
    one = Window(step, [1] * axes, [1] * axes, [1] * axes, "valid")
    y = _convolve(step, y, one, point.transpose(axes + 1, axes, *range(axes)), bias, 1)
    return activate(step, last_channels(step, y, first), options.get("activation", default=None))


@layer("SeparableConv1D", masks="none")
def separable_conv1d(step: Step, x: Tensor) -> Tensor:
    return _separable(step, x, 1)


@layer("SeparableConv2D", masks="none")
def separable_conv2d(step: Step, x: Tensor) -> Tensor:
    return _separable(step, x, 2)
