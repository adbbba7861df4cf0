"""Functions between layers that move components: joining, reshaping, slicing, products over named axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelhub.errors import safe_text
from modelhub_keras.merging import broadcast, concatenate
from modelhub_keras.operations import axes_of, operation, option, tensor
from modelhub_keras.step import Dim, Step, Tensor, is_order

__all__: list[str] = []  # all of it is reached through the table of `operations`


@operation("Concatenate")
def concatenated(step: Step, xs: Any) -> Tensor:
    tensors = [tensor(step, x) for x in xs] if isinstance(xs, list) else [tensor(step, xs)]
    axis = option(step, "axis", 0)
    return concatenate(step, [replace(x, mask=None) for x in tensors], axis if isinstance(axis, int) else 0)


@operation("Stack")
def stack(step: Step, xs: Any) -> Tensor:
    tensors = [tensor(step, x) for x in xs] if isinstance(xs, list) else [tensor(step, xs)]
    axis = option(step, "axis", 0)
    (axis,) = axes_of(step, axis, tensors[0].rank + 1)
    rows = [_expanded(step, replace(x, mask=None), [axis]) for x in tensors]
    return concatenate(step, rows, axis)


def _expanded(step: Step, x: Tensor, axes: Sequence[int]) -> Tensor:
    shape = list(x.shape)
    for axis in axes:
        shape.insert(axis, 1)
    return replace(x, value=step.b.op("Unsqueeze", x.value, step.b.ints(*axes)), shape=tuple(shape), mask=None)


@operation("ExpandDims")
def expand_dims(step: Step, operand: Any) -> Tensor:
    x = tensor(step, operand)
    return _expanded(step, x, axes_of(step, option(step, "axis"), x.rank + 1))


@operation("Squeeze")
def squeeze(step: Step, operand: Any) -> Tensor:
    x = tensor(step, operand)
    given = option(step, "axis")
    axes = [a for a, dim in enumerate(x.shape) if dim == 1] if given is None else axes_of(step, given, x.rank)
    if any(step.size(x.shape[a]) != 1 for a in axes):
        step.damaged("drops an axis that is longer than 1")
    shape = tuple(dim for a, dim in enumerate(x.shape) if a not in axes)
    return replace(x, value=step.b.op("Squeeze", x.value, step.b.ints(*axes)), shape=shape, mask=None)


@operation("Reshape")
def reshape(step: Step, operand: Any, given: Any = None) -> Tensor:
    x = tensor(step, operand)
    target = given if given is not None else option(step, "newshape", option(step, "shape"))
    if not isinstance(target, list) or not target or any(isinstance(n, bool) or not isinstance(n, int) for n in target):
        step.refuse("needs its new shape as whole numbers")
    rest, volume = target[1:], step.volume(x.shape[1:])
    known = math.prod(n for n in rest if n != -1)
    if target[0] != -1 or rest.count(-1) > 0 or known != volume:
        step.refuse("moves numbers between events, or does not say how long the other axes are")
    return step.reshape(x, rest)


@operation("Transpose")
def transpose(step: Step, operand: Any) -> Tensor:
    x = tensor(step, operand)
    axes = option(step, "axes", option(step, "perm"))
    if not is_order(axes, range(x.rank)) or axes[0] != 0:
        step.refuse("moves the axis of events")
    return step.transpose(x, axes)


@operation("Matmul")
def matmul(step: Step, operand: Any, other: Any) -> Tensor:
    x, y = tensor(step, operand), tensor(step, other)
    if x.rank != y.rank or x.rank < 3:
        step.refuse("multiplies other than two stacks of matrices, one an event")
    step.common(x.shape[-1], y.shape[-2])
    shape = (*broadcast(step, [x.shape[:-2], y.shape[:-2]]), x.shape[-2], y.shape[-1])
    return Tensor(step.b.op("MatMul", x.value, y.value), shape)


@operation("GetItem")
def get_item(step: Step, operand: Any, key: Any) -> Tensor:
    """x[:, 0], x[..., 1:], x[:, ::2, None] and the like; the axis of events stays whole."""
    x = replace(tensor(step, operand), mask=None)
    keys = list(key) if isinstance(key, list) else [key]
    if keys.count(...) > 1 or sum(k is not None and k is not ... for k in keys) > x.rank:
        step.refuse("indexes with more keys than there are axes")
    rest = x.rank - sum(k is not None and k is not ... for k in keys)
    place = keys.index(...) if ... in keys else len(keys)
    keys[place : place + 1] = [slice(None)] * rest
    axis = 0
    for k in keys:
        if k is None:
            if axis == 0:
                step.refuse("puts an axis before that of events")
            x = _expanded(step, x, [axis])
            axis += 1
        elif k == slice(None):
            axis += 1
        elif axis == 0:
            step.refuse("picks events")
        elif isinstance(k, int) and not isinstance(k, bool):
            x = _picked(step, x, axis, k)
        elif isinstance(k, slice):
            x = _sliced(step, x, axis, k)
            axis += 1
        else:
            step.refuse(f"indexes with {safe_text(k)}")
    return x


def _picked(step: Step, x: Tensor, axis: int, index: int) -> Tensor:
    dim = x.shape[axis]
    if isinstance(dim, int) and not -dim <= index < dim:
        step.damaged(f"picks number {index} of {dim}")
    step.lengths.require(dim, index + 1 if index >= 0 else -index)
    value = step.b.op("Gather", x.value, step.constant(np.array(index, np.int64), "index"), axis=axis)
    return replace(x, value=value, shape=tuple(d for a, d in enumerate(x.shape) if a != axis))


def _every(stride: int) -> Callable[[int], int]:
    """How many steps are needed for `n` of them at this stride."""
    return lambda n: (n - 1) * stride + 1


def _sliced(step: Step, x: Tensor, axis: int, key: slice) -> Tensor:
    start, stop, stride = key.start, key.stop, key.step
    if (
        any(n is not None and (isinstance(n, bool) or not isinstance(n, int)) for n in (start, stop, stride))
        or stride == 0
    ):
        step.refuse("slices by other than whole numbers")
    b, dim = step.b, x.shape[axis]
    stride = 1 if stride is None else stride
    far = 2**62
    first = (0 if stride > 0 else far) if start is None else start
    last = (far if stride > 0 else -far) if stop is None else stop
    value = b.op("Slice", x.value, b.ints(first), b.ints(last), b.ints(axis), b.ints(stride))
    # Without a start and a stop the length follows from that of the axis alone, and reversing keeps it.
    if isinstance(dim, int):
        length: Dim = len(range(*slice(start, stop, stride).indices(dim)))
        if length == 0:
            step.damaged(f"slices nothing out of {dim}")
    elif start is None and stop is None:
        length = dim if abs(stride) == 1 else step.lengths.derived([dim], _every(abs(stride)))
    else:
        length = len(range(*slice(start, stop, stride).indices(step.size(dim))))
    return replace(x, value=value, shape=tuple(length if a == axis else d for a, d in enumerate(x.shape)))


@operation("Einsum")
def einsum(step: Step, *xs: Any) -> Tensor:
    """A sum of products by letters, the first of which is that of events everywhere."""
    text = step.options.text("subscripts").replace(" ", "")
    tensors = [tensor(step, x) for x in xs]
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    shaped = (
        arrow and len(terms) == len(tensors) and all(len(t) == x.rank for t, x in zip(terms, tensors, strict=False))
    )
    if not shaped or "." in text or any(t[:1] != terms[0][:1] or len(set(t)) != len(t) for t in [*terms, right]):
        step.refuse("sums in a way that is not read; write it with explicit letters, events first in every term")
    dims: dict[str, Dim] = {}
    for term, x in zip(terms, tensors, strict=True):
        for letter, dim in zip(term, x.shape, strict=True):
            dims[letter] = step.common(dims.get(letter, dim), dim) if dim != "N" else dim
    if any(letter not in dims for letter in right):
        step.damaged("names an axis that no tensor has")
    return Tensor(step.b.op("Einsum", *(x.value for x in tensors), equation=text), tuple(dims[c] for c in right))
