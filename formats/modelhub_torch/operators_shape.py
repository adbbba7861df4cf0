"""Operators that move entries without changing them, that make constants, and that compute with sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from modelhub_torch import sizes
from modelhub_torch.call import Call
from modelhub_torch.sizes import Expr, Size, add, mul, product
from modelhub_torch.translate import Clash, Tensor, Translation, aten
from modelhub_torch.views import reshape, resolve, transpose

INT64 = np.dtype(np.int64)
END = 2**63 - 1
LARGEST = 1 << 24
"""How many entries a constant may have that is made larger than it is stored."""
MOST = 4096
"""How many pieces an axis may be cut into."""


def view_of(x: Tensor, result: Tensor) -> Tensor:
    """`result` marked as sharing the memory of `x` in torch."""
    if result is not x:
        result.base = x.owner
        return result
    return Tensor(x.shape, x.dtype, x.value, x.array, x.filled, x.wish, base=x.owner)


# Nothing happens


@aten(
    "alias.default", "detach.default", "detach_.default", "contiguous.default", "dropout.default", "dropout_.default",
    "feature_dropout.default", "alpha_dropout.default", "feature_alpha_dropout.default", "view_as.default",
    "lift_fresh.default",
)  # fmt: skip
def same(_: Translation, c: Call) -> Tensor:
    """The tensor itself; dropout only where it is switched off."""
    x = c.tensor("input" if "input" in c.node.args else "self")
    if "dropout" in c.node.target:
        p, train = c.number("p", 0.5), c.flag("train", default=True)
        if train and p != 0:
            raise c.training("dropout is switched on")
    return view_of(x, x)


@aten("clone.default", "lift_fresh_copy.default")
def clone(_: Translation, c: Call) -> Tensor:
    """A copy, which writing in place does not reach."""
    x = c.tensor("self")
    return Tensor(x.shape, x.dtype, x.value, x.array, x.filled, x.wish)


@aten("to.dtype", "to.dtype_layout", "to.device", "_to_copy.default", "type_as.default", "to.other")
def to(t: Translation, c: Call) -> Tensor:
    """The tensor in another dtype; where it lies does not matter."""
    x = c.tensor("self")
    c.get("dtype")
    c.get("other")
    result = t.cast(x, c.result())
    return view_of(x, result) if result is x else result


# Shapes


@aten("view.default", "reshape.default", "_unsafe_view.default")
def view(t: Translation, c: Call) -> Tensor:
    """The same entries in another shape."""
    x = c.tensor("self")
    target = c.sizes("shape" if "shape" in c.node.args else "size")
    shape = resolve(t, x.shape, target)
    if x.spread is not None and len(shape) > 2:
        spread = x.spread()  # core ATen flattens a sequence for a dense layer: here the layer works on the sequence
        if spread.shape == shape:
            return spread
    return view_of(x, reshape(t, x, shape))


@aten("flatten.using_ints")
def flatten(t: Translation, c: Call) -> Tensor:
    """The axes from start_dim to end_dim merged into one."""
    x = c.tensor("self")
    first, last = t.axis(x.shape, c.integer("start_dim", 0)), t.axis(x.shape, c.integer("end_dim", -1))
    merged = product(x.shape[first : last + 1])
    return view_of(x, reshape(t, x, resolve(t, x.shape, (*x.shape[:first], merged, *x.shape[last + 1 :]))))


@aten("unflatten.int")
def unflatten(t: Translation, c: Call) -> Tensor:
    """One axis split into several."""
    x = c.tensor("self")
    axis = t.axis(x.shape, c.integer("dim"))
    inner = resolve(t, (x.shape[axis],), c.sizes("sizes"))
    return view_of(x, reshape(t, x, (*x.shape[:axis], *inner, *x.shape[axis + 1 :])))


@aten("unsqueeze.default")
def unsqueeze(t: Translation, c: Call) -> Tensor:
    """A new axis of size 1."""
    x = c.tensor("self")
    axis = t.axis(x.shape, c.integer("dim"), extra=1)
    shape = (*x.shape[:axis], 1, *x.shape[axis:])
    if x.value is None:
        return view_of(x, reshape(t, x, shape))
    return view_of(x, t.op("Unsqueeze", x, t.b.ints(axis), shape=shape))


@aten("squeeze.default", "squeeze.dim", "squeeze.dims")
def squeeze(t: Translation, c: Call) -> Tensor:
    """Axes of size 1 removed: all of them, or those of the named ones that have size 1."""
    x = c.tensor("self")
    named = {t.axis(x.shape, d) for d in c.integers("dim")} if c.has("dim") else set(range(x.rank))
    if any(t.hint(x.shape[a]) == 1 and x.shape[a] != 1 for a in named if a < x.rank):
        raise Clash("an axis of size 1 in the example is squeezed")
    gone = [a for a in sorted(named) if a < x.rank and x.shape[a] == 1]
    shape = tuple(s for a, s in enumerate(x.shape) if a not in gone)
    if x.value is None or not gone:
        return view_of(x, reshape(t, x, shape))
    return view_of(x, t.op("Squeeze", x, t.b.ints(*gone), shape=shape))


@aten("t.default", "numpy_T.default", "transpose.int", "swapaxes.default", "swapdims.default", "permute.default")
def permute(t: Translation, c: Call) -> Tensor:
    """Axes in another order."""
    x = c.tensor("self")
    if "dims" in c.node.args:
        order = [t.axis(x.shape, d) for d in c.integers("dims")]
    elif len(c.node.args) == 1:
        order = list(reversed(range(x.rank)))
    else:
        names = ("axis0", "axis1") if "swapaxes" in c.node.target else ("dim0", "dim1")
        a, b = (t.axis(x.shape, c.integer(name)) for name in names)
        order = list(range(x.rank))
        order[a], order[b] = order[b], order[a]
    if sorted(order) != list(range(x.rank)):
        raise c.refuse("the axes are no permutation")
    return view_of(x, transpose(t, x, order))


@aten("movedim.int")
def movedim(t: Translation, c: Call) -> Tensor:
    """One axis at another place."""
    x = c.tensor("self")
    source, target = t.axis(x.shape, c.integer("source")), t.axis(x.shape, c.integer("destination"))
    order = [a for a in range(x.rank) if a != source]
    order.insert(target, source)
    return view_of(x, transpose(t, x, order))


@aten("expand.default", "expand_as.default", "broadcast_to.default")
def expand(t: Translation, c: Call) -> Tensor:
    """Axes of size 1 repeated; -1 leaves a size as it is."""
    x = c.tensor("self")
    c.get("implicit")
    wanted = c.tensor("other").shape if c.has("other") else c.sizes("size")
    old = (*[1] * (len(wanted) - x.rank), *x.shape)
    shape: list[Size] = []
    for have, want in zip(old, wanted, strict=True):
        kept = want == -1 or have == want or (isinstance(have, Expr) and t.hint(have) == t.hint(want) != 1)
        shape.append(have if kept else t.unify(have, want))
    if tuple(shape) == x.shape:
        return view_of(x, x)
    if x.filled is not None:
        return Tensor(tuple(shape), x.dtype, filled=x.filled)
    if x.array is not None and isinstance(count := product(shape), int) and count <= LARGEST:
        repeated = np.broadcast_to(x.array, [s for s in shape if isinstance(s, int)])
        return Tensor(tuple(shape), x.dtype, array=repeated, wish=x.wish, base=x.owner)
    return view_of(x, t.op("Expand", x, t.sizes(tuple(shape)), shape=tuple(shape)))


@aten("repeat.default", "tile.default")
def repeat(t: Translation, c: Call) -> Tensor:
    """The tensor laid several times along each axis."""
    x, times = c.tensor("self"), c.sizes("dims" if "dims" in c.node.args else "repeats")
    times = (*[1] * (x.rank - len(times)), *times)
    x = reshape(t, x, (*[1] * (len(times) - x.rank), *x.shape))
    shape = tuple(mul(s, n) for s, n in zip(x.shape, times, strict=True))
    t.mixes(*(s for s, n in zip(x.shape, times, strict=True) if n != 1))
    return t.op("Tile", x, t.sizes(times), shape=shape)


# Pieces


def take(t: Translation, x: Tensor, axis: int, start: Size, end: Size, step: int = 1) -> Tensor:
    """Entries start, start + step, ... below end along an axis, with Python's rules for negative bounds."""
    size = x.shape[axis]
    if start == 0 and end in (END, size) and step == 1:
        return x
    counted = (isinstance(start, int) and start > 0) or (isinstance(end, int) and 0 <= end < END)
    if counted or step != 1:
        t.counts(size)
    t.mixes(size)
    length = _slice_length(size, start, end, step)
    shape = tuple(length if a == axis else s for a, s in enumerate(x.shape))
    if x.array is not None and isinstance(start, int) and isinstance(end, int):
        piece = x.array[(*[slice(None)] * axis, slice(start, end, step))]
        return Tensor(tuple(piece.shape), x.dtype, array=piece, wish=x.wish)
    steps = None if step == 1 else t.b.ints(step)
    return t.op("Slice", x, t.size(start), t.size(end), t.b.ints(axis), steps, shape=shape)


def _slice_length(size: Size, start: Size, end: Size, step: int) -> Size:
    """How many entries a slice has, with bounds cut to 0 and size as Python does."""

    def bound(value: Size) -> Size:
        if isinstance(value, int) and value < 0:
            return sizes.maximum(0, add(size, value))
        if value == END:
            return size
        return value if not isinstance(value, int) else sizes.minimum(value, size)

    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(size)[slice(start, end, step)])
    span = add(bound(end), mul(-1, bound(start)))
    return sizes.floordiv(add(span, step - 1), step) if step != 1 else span


@aten("slice.Tensor")
def slice_(t: Translation, c: Call) -> Tensor:
    """A range of entries along an axis."""
    x = c.tensor("self")
    axis, step = t.axis(x.shape, c.integer("dim", 0)), c.integer("step", 1)
    start, end = (c.sizes(name)[0] if c.has(name) else default for name, default in (("start", 0), ("end", END)))
    if step < 1:
        raise c.refuse("the step must be positive")
    return view_of(x, take(t, x, axis, start, end, step))


@aten("narrow.default")
def narrow(t: Translation, c: Call) -> Tensor:
    """`length` entries from `start` on along an axis."""
    x, start = c.tensor("self"), c.sizes("start")[0]
    axis = t.axis(x.shape, c.integer("dim"))
    return view_of(x, take(t, x, axis, start, add(start, c.sizes("length")[0])))


@aten("select.int")
def select(t: Translation, c: Call) -> Tensor:
    """One entry along an axis, which vanishes."""
    x, index = c.tensor("self"), c.sizes("index")[0]
    axis = t.axis(x.shape, c.integer("dim"))
    t.mixes(x.shape[axis])
    if index not in (0, -1):
        t.counts(x.shape[axis])
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    if isinstance(index, int) and x.array is not None and -x.array.shape[axis] <= index < x.array.shape[axis]:
        return Tensor(shape, x.dtype, array=np.take(x.array, index, axis), wish=x.wish, base=x.owner)
    if isinstance(index, int):
        place = t.constant(np.array(index, np.int64), "index")
    else:
        place = Tensor((), INT64, t.b.op("Squeeze", t.size(index)))
    return view_of(x, t.op("Gather", x, place, shape=shape, axis=axis))


def _pieces(t: Translation, x: Tensor, axis: int, lengths: Sequence[int]) -> list[Tensor]:
    if len(lengths) == 1:
        return [view_of(x, x)]
    t.mixes(x.shape[axis])
    t.counts(x.shape[axis])
    outputs = [((*x.shape[:axis], n, *x.shape[axis + 1 :]), x.dtype) for n in lengths]
    return [view_of(x, p) for p in t.ops("Split", x, t.b.ints(*lengths), outputs=outputs, axis=axis)]


def _fixed(t: Translation, c: Call, x: Tensor, axis: int) -> int:
    size = x.shape[axis]
    if not isinstance(size, int):
        t.counts(size)
        raise c.refuse("cutting an axis of dynamic size is not known")
    if size > MOST:
        raise c.refuse(f"cutting an axis of more than {MOST} entries is not known")
    return size


@aten("split.Tensor", "split_with_sizes.default", "split.sizes")
def split(t: Translation, c: Call) -> list[Tensor]:
    """An axis cut into pieces of one size (the last may be shorter) or of given sizes."""
    x = c.tensor("self")
    axis = t.axis(x.shape, c.integer("dim", 0))
    size = _fixed(t, c, x, axis)
    given = c.integers("split_sizes" if "split_sizes" in c.node.args else "split_size")
    if "split_sizes" in c.node.args:
        return _pieces(t, x, axis, given)
    step = max(given[0], 1)
    return _pieces(t, x, axis, [min(step, size - k) for k in range(0, size, step)])


@aten("chunk.default")
def chunk(t: Translation, c: Call) -> list[Tensor]:
    """An axis cut into `chunks` pieces, the last perhaps shorter."""
    x = c.tensor("self")
    axis = t.axis(x.shape, c.integer("dim", 0))
    size = _fixed(t, c, x, axis)
    step = max(math.ceil(size / max(c.integer("chunks"), 1)), 1)
    return _pieces(t, x, axis, [min(step, size - k) for k in range(0, size, step)])


@aten("unbind.int")
def unbind(t: Translation, c: Call) -> list[Tensor]:
    """One tensor per entry of an axis, which vanishes."""
    x = c.tensor("self")
    axis = t.axis(x.shape, c.integer("dim", 0))
    parts = _pieces(t, x, axis, [1] * _fixed(t, c, x, axis))
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return [view_of(x, t.op("Squeeze", p, t.b.ints(axis), shape=shape)) for p in parts]


@aten("cat.default", "concat.default", "concatenate.default")
def cat(t: Translation, c: Call) -> Tensor:
    """Tensors joined along an axis; torch leaves out tensors of shape [0]."""
    parts = [p for p in c.tensors("tensors") if p.shape != (0,)]
    if not parts:
        raise c.refuse("there is nothing to join")
    dtype = c.result()
    name = "dim" if "concatenate" not in c.node.target or "dim" in c.node.args else "axis"
    axis = t.axis(parts[0].shape, c.integer(name, 0))
    t.mixes(*(p.shape[axis] for p in parts))
    shape = list(parts[0].shape)
    for part in parts[1:]:
        if part.rank != len(shape):
            raise c.refuse("tensors of different rank")
        for a in range(part.rank):
            if a == axis:
                shape[a] = add(shape[a], part.shape[a])
            elif 1 in (shape[a], part.shape[a]) and shape[a] != part.shape[a]:
                t.counts(shape[a], part.shape[a])
                raise c.refuse("tensors of different sizes")
            else:
                shape[a] = t.unify(shape[a], part.shape[a])
    return t.op("Concat", *(t.cast(p, dtype) for p in parts), shape=tuple(shape), axis=axis)


@aten("stack.default")
def stack(t: Translation, c: Call) -> Tensor:
    """Tensors joined along a new axis."""
    parts = c.tensors("tensors")
    axis = t.axis(parts[0].shape, c.integer("dim", 0), extra=1)
    shape = t.broadcast(*(p.shape for p in parts))
    rows = [
        t.op("Unsqueeze", t.cast(p, c.result()), t.b.ints(axis), shape=(*shape[:axis], 1, *shape[axis:])) for p in parts
    ]
    return t.op("Concat", *rows, shape=(*shape[:axis], len(parts), *shape[axis:]), axis=axis)


@aten("roll.default")
def roll(t: Translation, c: Call) -> Tensor:
    """Entries moved along axes; what falls off the end comes back at the start."""
    x = c.tensor("self")
    if not c.has("dims"):
        raise c.refuse("it needs an axis")
    for shift, dim in zip(c.integers("shifts"), c.integers("dims"), strict=True):
        axis = t.axis(x.shape, dim)
        size = x.shape[axis]
        t.mixes(size)
        if not isinstance(size, int):
            raise c.refuse("moving entries along an axis of dynamic size is not known")
        cut = size - shift % size if size else 0
        if cut % max(size, 1):
            x = t.op("Concat", take(t, x, axis, cut, END), take(t, x, axis, 0, cut), shape=x.shape, axis=axis)
    return x


@aten("flip.default")
def flip(t: Translation, c: Call) -> Tensor:
    """Axes read backwards."""
    x = c.tensor("self")
    axes = [t.axis(x.shape, d) for d in c.integers("dims")]
    t.mixes(*(x.shape[a] for a in axes))
    count = len(axes)
    bounds = [t.b.ints(*[-1] * count), t.b.ints(*[-END] * count), t.b.ints(*axes), t.b.ints(*[-1] * count)]
    return t.op("Slice", x, *bounds, shape=x.shape)


@aten("constant_pad_nd.default", "pad.default")
def pad(t: Translation, c: Call) -> Tensor:
    """A border of one value; `pad` holds before and after of the last axis, then of the one before, ..."""
    x, borders = c.tensor("self"), c.integers("pad")
    if c.text("mode", "constant") != "constant":
        raise c.refuse("only a constant border is known")
    value = c.number("value", 0.0) if c.has("value") else 0.0
    before, after = [0] * x.rank, [0] * x.rank
    for k in range(len(borders) // 2):
        before[x.rank - 1 - k], after[x.rank - 1 - k] = borders[2 * k], borders[2 * k + 1]
    shape = tuple(add(s, b + a) for s, b, a in zip(x.shape, before, after, strict=True))
    t.mixes(*(s for s, b, a in zip(x.shape, before, after, strict=True) if b or a))
    return t.op("Pad", x, t.b.ints(*before, *after), t.scalar(value, x.dtype), shape=shape)
