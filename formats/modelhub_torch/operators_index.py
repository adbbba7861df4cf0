"""Operators that pick entries by number, or put entries at places given by number."""

from __future__ import annotations

import numpy as np

from modelhub_torch.call import Call
from modelhub_torch.operators_pointwise import BOOL, binary
from modelhub_torch.operators_shape import END, INT64, take
from modelhub_torch.sizes import Size
from modelhub_torch.translate import Tensor, Translation, aten
from modelhub_torch.views import reshape


@aten("index_select.default")
def index_select(t: Translation, c: Call) -> Tensor:
    """The entries with the given numbers along an axis."""
    x, index = c.tensor("self"), c.tensor("index")
    return gather(t, x, index, t.axis(x.shape, c.integer("dim")))


def gather(t: Translation, x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Entries of `x` by number along an axis, which the axes of `index` replace."""
    t.mixes(x.shape[axis])
    t.counts(x.shape[axis])
    return t.op("Gather", x, index, shape=(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), axis=axis)


@aten("index.Tensor")
def index_(t: Translation, c: Call) -> Tensor:
    """Advanced indexing with one tensor of integers, or with several for the leading axes; masks are not known."""
    x, indices = c.tensor("self"), c.get("indices")
    given = [(a, i) for a, i in enumerate(indices if isinstance(indices, list) else []) if i is not None]
    numbers = [i for _, i in given if isinstance(i, Tensor) and i.dtype == INT64]
    if len(numbers) != len(given) or not given:
        raise c.refuse("indexing with a mask is not known")
    if len(given) == 1:
        return gather(t, x, numbers[0], given[0][0])
    if [a for a, _ in given] != list(range(len(given))):
        raise c.refuse("indexing with several tensors is known for the leading axes only")
    t.counts(*x.shape[: len(given)])
    shape = t.broadcast(*(i.shape for i in numbers))
    columns = []
    for number in numbers:
        if number.shape != shape:
            number = t.op("Expand", number, t.sizes(shape), shape=shape)
        columns.append(t.op("Unsqueeze", number, t.b.ints(-1), shape=(*shape, 1)))
    place = t.op("Concat", *columns, shape=(*shape, len(columns)), axis=-1)
    return t.op("GatherND", x, place, shape=(*shape, *x.shape[len(columns) :]))


@aten("gather.default")
def gather_elements(t: Translation, c: Call) -> Tensor:
    """Entries picked along an axis, each by its own index."""
    x, index = c.tensor("self"), c.tensor("index")
    c.get("sparse_grad")
    axis = t.axis(x.shape, c.integer("dim"))
    t.mixes(x.shape[axis], index.shape[axis])
    t.counts(x.shape[axis])
    for other, size in enumerate(index.shape):
        x = x if other == axis or size == x.shape[other] else take(t, x, other, 0, size)
    return t.op("GatherElements", x, index, shape=index.shape, axis=axis)


def _scatter(t: Translation, x: Tensor, index: Tensor, source: Tensor, axis: int, reduction: str | None) -> Tensor:
    t.mixes(x.shape[axis])
    t.counts(x.shape[axis])
    return t.op("ScatterElements", x, index, source, shape=x.shape, axis=axis, reduction=reduction)


@aten("scatter_add.default", "scatter.src")
def scatter(t: Translation, c: Call) -> Tensor:
    """Entries of src added to, or put in the place of, those that index names along an axis."""
    x, index, source = c.tensor("self"), c.tensor("index"), c.tensor("src")
    for other, size in enumerate(index.shape):
        source = source if size == source.shape[other] else take(t, source, other, 0, size)
    reduction = "add" if "scatter_add" in c.node.target else None
    return _scatter(t, x, index, source, t.axis(x.shape, c.integer("dim")), reduction)


@aten("index_add.default")
def index_add(t: Translation, c: Call) -> Tensor:
    """Slices of source added to the slices of self that index names along an axis; a place named twice gets both."""
    x, source, alpha = c.tensor("self"), c.tensor("source"), c.get("alpha", 1)
    if alpha != 1:
        source = binary(t, "Mul", source, alpha, x.dtype)
    return _add_slices(t, x, t.axis(x.shape, c.integer("dim")), c.tensor("index"), source)


@aten("index_put.default")
def index_put(t: Translation, c: Call) -> Tensor:
    """The same as core ATen has it: values added where one tensor of integers says."""
    x, indices, values = c.tensor("self"), c.get("indices"), c.tensor("values")
    given = [(a, i) for a, i in enumerate(indices if isinstance(indices, list) else []) if i is not None]
    axis, index = given[0] if len(given) == 1 else (0, None)
    if not isinstance(index, Tensor) or index.dtype != INT64 or index.rank != 1 or not c.flag("accumulate"):
        raise c.refuse("it is known for adding at the places of one tensor of integers only")
    shape = (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :])
    if values.shape != shape:
        t.broadcast(values.shape, shape)
        values = t.op("Expand", values, t.sizes(shape), shape=shape)
    return _add_slices(t, x, axis, index, values)


def _add_slices(t: Translation, x: Tensor, axis: int, index: Tensor, source: Tensor) -> Tensor:
    column: list[Size] = [1] * x.rank
    column[axis] = index.shape[0]
    places = t.op("Expand", reshape(t, index, tuple(column)), t.sizes(source.shape), shape=source.shape)
    return _scatter(t, x, places, source, axis, "add")


@aten("one_hot.default")
def one_hot(t: Translation, c: Call) -> Tensor:
    """A new last axis with a one at the place of each number."""
    x, classes = c.tensor("self"), c.integer("num_classes", -1)
    if not 0 < classes <= 1 << 20:
        raise c.refuse("it needs a number of classes")
    column = t.op("Unsqueeze", x, t.b.ints(-1), shape=(*x.shape, 1))
    return t.cast(binary(t, "Equal", column, t.constant(np.arange(classes), "classes"), INT64, BOOL), INT64)


@aten("copy.default")
def copy(t: Translation, c: Call) -> Tensor:
    """The source in the shape and dtype of self."""
    x, source = c.tensor("self"), t.cast(c.tensor("src"), c.tensor("self").dtype)
    if source.shape == x.shape:
        return source
    t.broadcast(x.shape, source.shape)
    return t.op("Expand", source, t.sizes(x.shape), shape=x.shape)


def _put(t: Translation, x: Tensor, piece: Tensor, axis: int, start: Size, end: Size) -> Tensor:
    """`x` with `piece` in the place of its entries from start to end along an axis."""
    if piece.shape == x.shape and start == 0:
        return piece
    before = take(t, x, axis, 0, start) if start != 0 else None
    after = take(t, x, axis, end, END) if end not in (END, x.shape[axis], 0) else None
    parts = [part for part in (before, piece, after) if part is not None and part.shape[axis] != 0]
    return t.op("Concat", *parts, shape=x.shape, axis=axis)


@aten("slice_scatter.default")
def slice_scatter(t: Translation, c: Call) -> Tensor:
    """A range of entries along an axis replaced by src."""
    x, piece = c.tensor("self"), c.tensor("src")
    axis = t.axis(x.shape, c.integer("dim", 0))
    start, end = (c.integer(name) if c.has(name) else value for name, value in (("start", 0), ("end", END)))
    if c.integer("step", 1) != 1:
        raise c.refuse("a step other than 1 is not known")
    return _put(t, x, t.cast(piece, x.dtype), axis, start, end)


@aten("select_scatter.default")
def select_scatter(t: Translation, c: Call) -> Tensor:
    """One entry along an axis replaced by src."""
    x, piece = c.tensor("self"), c.tensor("src")
    axis, index = t.axis(x.shape, c.integer("dim")), c.integer("index")
    row = t.op("Unsqueeze", t.cast(piece, x.dtype), t.b.ints(axis), shape=(*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    return _put(t, x, row, axis, index, index + 1)
