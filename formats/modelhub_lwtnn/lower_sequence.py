"""Convolutions over steps, and sums and means over steps or features."""

from __future__ import annotations

import numpy as np

from modelhub_lwtnn.draft import LINEAR
from modelhub_lwtnn.meaning import Record, Refusal, lowers
from modelhub_lwtnn.op import Op
from modelhub_lwtnn.schema import Array, Conv1d, Dense


@lowers("Conv", reads=(0,))
def conv(op: Op) -> Record:
    """A convolution over steps of [batch, feature, time] (ONNX Conv; lwtnn Conv1dLayer::scan)."""
    kernel, bias = op.weights(1), op.weights(2)
    if kernel is None or (bias is None and op.input(2) is not None):
        raise Refusal("computes its weights from data; lwtnn has constant weights only. Write ONNX.")
    if kernel.ndim != 3:
        raise Refusal("convolves over more than one axis; lwtnn has convolutions over steps only. Write ONNX.")
    if op.integer("group", 1) != 1:
        raise Refusal("convolves in groups; lwtnn's convolution takes all features at once. Write ONNX.")
    if (op.integers(9, "strides") or [1]) != [1]:
        raise Refusal("skips steps (strides); lwtnn's convolution does not. Write ONNX.")
    x = op.whole(op.data(0))
    source = op.steps[x.step]
    if x.axes != ("batch", "feature", "time") or kernel.shape[1] != source.width:
        raise Refusal(f"convolves over [{', '.join(x.axes)}], which is no sequence of lwtnn's. Write ONNX.")
    (dilation,) = op.integers(9, "dilations") or [1]
    field = (kernel.shape[2] - 1) * dilation
    kernel, padding, dilation = _padding(kernel, dilation, *_pads(op, field))
    length = source.length
    if length is not None and padding == "valid":
        length -= field
    layer = Conv1d(kernel, np.zeros(len(kernel)) if bias is None else bias, padding, dilation, LINEAR)
    return op.add("sequence", [x.step], len(kernel), x.axes, layer=layer, length=length)


def _pads(op: Op, field: int) -> tuple[int, int]:
    """Zeros before and after the sequence."""
    match op.text("auto_pad", "NOTSET"):
        case "SAME_UPPER":
            return field // 2, field - field // 2
        case "SAME_LOWER":
            return field - field // 2, field // 2
        case "VALID":
            return 0, 0
        case _:
            before, after = op.integers(9, "pads") or [0, 0]
            return before, after


def _padding(kernel: Array, dilation: int, before: int, after: int) -> tuple[Array, str, int]:
    """Kernel, padding and dilation with which lwtnn pads as asked.

    Its `same` puts (field + 1) // 2 zeros before; Keras and torch put field // 2. So where the two sides differ, the
    kernel is widened by zeros until its middle is the present step.
    """
    field = (kernel.shape[2] - 1) * dilation
    if (before, after) == (0, 0) and field:
        return kernel, "valid", dilation
    if before + after != field:
        raise Refusal(
            f"pads {before} steps before and {after} after; lwtnn pads not at all, or as many as keep the length "
            f"({field}). Write ONNX."
        )
    if after == 0:  # of one step, too: unlike `valid` it takes a sequence without steps
        return kernel, "causal", dilation
    if before == after:
        return kernel, "same", dilation
    side = max(before, after)
    wide = np.zeros((*kernel.shape[:2], 2 * side + 1))
    wide[:, :, side - before : side - before + field + 1 : dilation] = kernel
    return wide, "same", 1


@lowers("ReduceSum", "ReduceMean", reads=(0,))
def reduce(op: Op) -> Record:
    """Sums over steps (lwtnn's `sum`) or features (a row of ones); means where the number is fixed."""
    x = op.data(0)
    axes = op.integers(1, "axes")
    if not axes:
        if op.integer("noop_with_empty_axes", 0):
            return x
        raise Refusal("sums over events. Write ONNX.")
    return _reduced(op, x, axes, keep=bool(op.integer("keepdims", 1)), mean=op.node.op_type == "ReduceMean")


@lowers("GlobalAveragePool")
def global_average_pool(op: Op) -> Record:
    """The mean over all axes after the features'."""
    x = op.data(0)
    return _reduced(op, x, list(range(2, len(x.axes))), keep=True, mean=True)


def _reduced(op: Op, x: Record, axes: list[int], *, keep: bool, mean: bool) -> Record:
    for axis in sorted((op.axis(axis, x) for axis in axes), reverse=True):
        name = x.axes[axis]
        left = (*x.axes[:axis], *(("one",) if keep else ()), *x.axes[axis + 1 :])
        if name == "time":
            x = _over_steps(op, x, left, mean=mean)
        elif name == "feature":
            width = op.width(x)
            row = op.pointwise(x, Dense(np.full((1, width), 1 / width if mean else 1.0), None, LINEAR))
            x = Record(row.step, left)
        elif name == "one":
            x = Record(x.step, left, x.columns)
        else:
            raise Refusal(f"reduces the {name} axis. Write ONNX.")
    return op.tidy(x)


def _over_steps(op: Op, x: Record, axes: tuple[str, ...], *, mean: bool) -> Record:
    x = op.whole(x)
    source = op.steps[x.step]
    if mean and source.length is None:
        raise Refusal(
            "averages over a number of steps that varies; lwtnn can only sum. Write ONNX, or train with a sum."
        )
    total = op.add("sum", [x.step], source.width, axes)
    if not mean or source.length is None:
        return total
    op.fixed_length(source.length)
    return op.scale(total, scale=1.0 / source.length)
