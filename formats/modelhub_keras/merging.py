"""Layers that join several tensors: concatenate, add, multiply, dot, ..., and Keras 1's Merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import onnx_ir as ir

from modelhub.errors import safe_text
from modelhub_keras.step import Dim, Step, Tensor, layer

__all__ = ["OR_SINCE", "broadcast", "concatenate"]

OR_SINCE = (3, 4)
"""Until then Keras joined masks by AND, passing over unmasked inputs; since by OR, where one of those frees all."""


def broadcast(step: Step, shapes: Sequence[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    """The shape of tensors of one rank combined element by element."""
    return ("N", *(step.common(*dims) for dims in zip(*(shape[1:] for shape in shapes), strict=True)))


def _levelled(step: Step, xs: Sequence[Tensor]) -> list[Tensor]:
    """Tensors brought to one rank by axes of length 1 after the first (Keras: merging/base_merge.py)."""
    rank = max(x.rank for x in xs)
    level = []
    for x in xs:
        missing = rank - x.rank
        value = step.b.op("Unsqueeze", x.value, step.b.ints(*range(1, 1 + missing))) if missing else x.value
        level.append(replace(x, value=value, shape=("N", *[1] * missing, *x.shape[1:])))
    return level


def _joined_mask(step: Step, xs: Sequence[Tensor]) -> ir.Value | None:
    """The mask of tensors joined element by element, or along their last axis."""
    given = list(dict.fromkeys(x.mask for x in xs if x.mask is not None))
    step.walk.joins_masks = step.walk.joins_masks or bool(given)
    if step.version >= OR_SINCE:
        if not given or any(x.mask is None for x in xs):
            return None
        return reduce(lambda a, c: step.b.op("Or", a, c), given)
    return reduce(lambda a, c: step.b.op("And", a, c), given) if given else None


def _elementwise(step: Step, xs: Sequence[Tensor], combine: Callable[[list[ir.Value]], ir.Value]) -> Tensor:
    if not xs:
        step.damaged("joins no tensors")
    mask = _joined_mask(step, xs)
    level = _levelled(step, xs)
    shape = broadcast(step, [x.shape for x in level])
    return Tensor(combine([x.value for x in level]), shape, mask=mask)


def _folded(op_type: str) -> Callable[..., Tensor]:
    def function(step: Step, *xs: Tensor) -> Tensor:
        return _elementwise(step, xs, lambda values: reduce(lambda a, c: step.b.op(op_type, a, c), values))

    return function


def _extreme(op_type: str) -> Callable[..., Tensor]:
    """Maximum or Minimum. Since Keras 3.4 a masked step of one input leaves the choice to the others."""

    def function(step: Step, *xs: Tensor) -> Tensor:
        if step.version < OR_SINCE or all(x.mask is None for x in xs):
            return _elementwise(step, xs, lambda values: step.b.op(op_type, *values))
        _same_rank(step, xs)
        b = step.b
        keeps = [None if x.mask is None else _wide(step, x.mask) for x in xs]

        def combine(values: list[ir.Value]) -> ir.Value:
            now, kept = values[0], keeps[0]
            for value, keep in zip(values[1:], keeps[1:], strict=True):
                other = value if keep is None else b.op("Where", keep, value, now)
                now = now if kept is None else b.op("Where", kept, now, other)
                kept = None if kept is None or keep is None else b.op("Or", kept, keep)
                now = b.op(op_type, now, other)
            return now

        return _elementwise(step, xs, combine)

    return function


def _same_rank(step: Step, xs: Sequence[Tensor]) -> None:
    if any(x.rank != 3 for x in xs):
        step.refuse("joins masked sequences with tensors of other ranks")


@layer("Multiply", masks="own", many=True)
def multiply(step: Step, *xs: Tensor) -> Tensor:
    """The product. Since Keras 3.4 a masked step counts as 1, or as 0 where every input is masked."""
    if step.version < OR_SINCE or all(x.mask is None for x in xs):
        product: Tensor = _folded("Mul")(step, *xs)
        return product
    _same_rank(step, xs)
    b = step.b
    ones = [
        x if x.mask is None else replace(x, value=b.op("Where", _wide(step, x.mask), x.value, step.scalar(1.0)))
        for x in xs
    ]
    product = _folded("Mul")(step, *ones)
    if product.mask is None:
        return product
    return replace(product, value=b.op("Where", _wide(step, product.mask), product.value, step.scalar(0.0)))


def _wide(step: Step, mask: ir.Value) -> ir.Value:
    """A mask [N, T] as [N, T, 1]."""
    return step.b.op("Unsqueeze", mask, step.b.ints(2))


add = layer("Add", masks="own", many=True)(_folded("Add"))
maximum = layer("Maximum", masks="own", many=True)(_extreme("Max"))
minimum = layer("Minimum", masks="own", many=True)(_extreme("Min"))


@layer("Subtract", masks="own", many=True)
def subtract(step: Step, *xs: Tensor) -> Tensor:
    if len(xs) != 2:
        step.damaged(f"subtracts {len(xs)} tensors")
    return _elementwise(step, xs, lambda values: step.b.op("Sub", *values))


@layer("Average", masks="own", many=True)
def average(step: Step, *xs: Tensor) -> Tensor:
    total = _elementwise(step, xs, lambda values: reduce(lambda a, c: step.b.op("Add", a, c), values))
    return replace(total, value=step.b.op("Div", total.value, step.scalar(float(len(xs)))))


@layer("Concatenate", masks="own", many=True)
def concatenate_layer(step: Step, *xs: Tensor) -> Tensor:
    return concatenate(step, xs, step.options.whole("axis", default=-1, least=-99))


def concatenate(step: Step, xs: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors of one rank put together along `axis`."""
    ranks = {x.rank for x in xs}
    if len(ranks) != 1 or not -xs[0].rank <= axis < xs[0].rank or axis % xs[0].rank == 0:
        step.damaged(f"cannot join tensors of {sorted(ranks)} axes along axis {axis}")
    axis %= xs[0].rank
    shape = [
        step.common(*dims) if place != axis else _total(step, dims)
        for place, dims in enumerate(zip(*(x.shape for x in xs), strict=True))
    ]
    mask = None
    if any(x.mask is not None for x in xs):
        if axis == xs[0].rank - 1:
            mask = _joined_mask(step, xs)
        elif all(x.mask is not None for x in xs) and axis == 1:
            mask = step.b.op("Concat", *(x.mask for x in xs), axis=1)
        else:
            step.refuse("joins masked tensors along an axis that is not the last")
    kind = xs[0].kind
    if any(x.kind != kind for x in xs):
        step.refuse("joins whole numbers and real ones")
    value = step.b.op("Concat", *(x.value for x in xs), axis=axis) if len(xs) > 1 else xs[0].value
    return Tensor(value, ("N", *shape[1:]), kind, mask)


def _total(step: Step, dims: Sequence[Dim]) -> Dim:
    numbers = [dim for dim in dims if isinstance(dim, int)]
    if len(numbers) == len(dims):
        return sum(numbers)
    return step.lengths.derived(dims)


@layer("Dot", masks="own", many=True)
def dot(step: Step, *xs: Tensor) -> Tensor:
    axes = step.options.get("axes")
    pair = axes if isinstance(axes, list) else [axes, axes]
    return _dot(step, xs, pair, step.options.flag("normalize", default=False))


def _dot(step: Step, xs: Sequence[Tensor], axes: list[int], normalize: bool) -> Tensor:
    """The sum over one axis of each of two tensors, event by event (Keras: backend batch_dot)."""
    b = step.b
    if len(xs) != 2 or len(axes) != 2 or any(x.rank not in (2, 3) for x in xs):
        step.refuse("multiplies other than two tensors of two or three axes")
    if any(isinstance(a, bool) or not isinstance(a, int) for a in axes):
        step.damaged("axes must be two integers")
    sides, shape = [], []
    for x, axis, last in zip(xs, axes, (True, False), strict=True):
        axis %= x.rank
        if axis == 0:
            step.damaged("sums over events")
        value = x.value
        if normalize:
            squares = b.op("ReduceSumSquare", value, b.ints(axis), keepdims=1)
            value = b.op("Div", value, b.op("Sqrt", b.op("Max", squares, step.scalar(1e-12))))
        if x.rank == 2:
            value = b.op("Unsqueeze", value, b.ints(1 if last else 2))
        elif axis != (2 if last else 1):
            value = b.op("Transpose", value, perm=[0, 2, 1])
        sides.append(value)
        shape += [dim for place, dim in enumerate(x.shape) if place not in (0, axis)]
    step.common(*(x.shape[axis % x.rank] for x, axis in zip(xs, axes, strict=True)))
    product = b.op("MatMul", *sides)
    flat = [place + 1 for place, x in enumerate(xs) if x.rank == 2]
    if flat:
        product = b.op("Squeeze", product, b.ints(*flat))
    if not shape:
        return Tensor(b.op("Unsqueeze", product, b.ints(1)), ("N", 1))
    return Tensor(product, ("N", *shape))


MODES: dict[str, Callable[..., Any]] = {"sum": add, "mul": multiply, "max": maximum, "ave": average}


@layer("Merge", masks="own", many=True)
def merge(step: Step, *xs: Tensor) -> Tensor:
    """Keras 1's layer for all of these (engine/topology.py, Merge)."""
    options = step.options
    mode = options.get("mode", default="sum")
    for unused in ("layers", "mode_type", "output_shape", "output_shape_type", "output_mask", "output_mask_type"):
        options.get(unused, default=None)
    for unused in ("node_indices", "tensor_indices", "arguments"):
        options.get(unused, default=None)
    concat_axis, dot_axes = options.get("concat_axis", default=-1), options.get("dot_axes", default=-1)
    if options.get("mode_type", default="raw") != "raw":
        step.refuse("joins its inputs by a function of its own, which is in no file")
    if mode == "concat" and isinstance(concat_axis, int):
        return concatenate(step, xs, concat_axis)
    if mode == "dot":
        return _dot(step, xs, dot_axes if isinstance(dot_axes, list) else [dot_axes, dot_axes], normalize=False)
    if mode not in MODES:
        step.refuse(f"joins its inputs by {safe_text(mode)!r}; read are concat, dot, {', '.join(MODES)}")
    joined: Tensor = MODES[mode](step, *xs)
    return joined
