"""Operators that only move axes or choose features: they draft little or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import onnx_ir as ir

from modelhub_lwtnn.lower_embedding import embed
from modelhub_lwtnn.lower_reshape import align, target
from modelhub_lwtnn.meaning import Category, Integers, Meaning, Record, Refusal, Stack, lowers
from modelhub_lwtnn.op import Op
from modelhub_lwtnn.schema import Array

END = 1 << 30
"""Beyond any axis: exporters write 2^31-1 or 2^63-1 for "to the end"."""

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
INTS = (ir.DataType.INT32, ir.DataType.INT64)


@lowers("Identity")
def identity(op: Op) -> Meaning:
    """Nothing changes."""
    return op.meaning(0)


@lowers("Dropout", reads=(0,))
def dropout(op: Op) -> Record:
    """x: inference drops nothing."""
    training = op.array(2)
    if op.lives(1) or (op.input(2) is not None and (training is None or training.any())):
        raise Refusal("drops features at random, as in training. Export the model for inference.")
    return op.data(0)


@lowers("Cast")
def cast(op: Op) -> Meaning:
    """Nothing changes between floating-point types: lwtnn computes in double. Integers are for tables only."""
    to = ir.DataType(op.integer("to", 0))
    source = op.input(0)
    if to in FLOATS:
        return op.data(0)
    if to in INTS:
        meaning = op.meaning(0)
        whole = source is not None and source.dtype in INTS
        return meaning if whole or isinstance(meaning, Integers) else Integers(op.data(0))
    op.meaning(0)
    raise Refusal(f"rounds to {to.name.lower()}; lwtnn computes in double. Write ONNX.")


@lowers("Transpose")
def transpose(op: Op) -> Record:
    """Axes in another order."""
    x = op.data(0)
    perm = op.integers(1, "perm") or list(reversed(range(len(x.axes))))
    return replace(x, axes=tuple(x.axes[axis] for axis in perm))


@lowers("Squeeze", reads=(0,))
def squeeze(op: Op) -> Record:
    """Without axes of length 1."""
    x = op.data(0)
    axes = op.integers(1, "axes")
    if axes is None:
        axes = [i for i, axis in enumerate(x.axes) if axis == "one" or (axis == "feature" and op.width(x) == 1)]
    for axis in sorted((op.axis(axis, x) for axis in axes), reverse=True):
        x = _drop(op, x, axis)
    return op.tidy(x)


def _drop(op: Op, x: Record, axis: int) -> Record:
    """`x` without an axis of length 1."""
    name = x.axes[axis]
    if name == "time" and op.steps[x.step].length == 1:
        return op.last(x)
    if name != "one" and not (name == "feature" and op.width(x) == 1):
        raise Refusal(f"removes the {name} axis. Write ONNX.")
    return replace(x, axes=(*x.axes[:axis], *x.axes[axis + 1 :]))


@lowers("Unsqueeze", reads=(0,))
def unsqueeze(op: Op) -> Record:
    """With axes of length 1."""
    x, axes = op.data(0), op.integers(1, "axes") or []
    rank = len(x.axes) + len(axes)
    names = list(x.axes)
    for axis in sorted(axis % rank for axis in axes):
        names.insert(axis, "one")
    return op.tidy(replace(x, axes=tuple(names)))


@lowers("Reshape", reads=(0,))
def reshape(op: Op) -> Record:
    """The same axes with others of length 1 among them, or a sequence of fixed length in one axis."""
    return _reshaped(op, op.data(0), target(op))


@lowers("Flatten")
def flatten(op: Op) -> Record:
    """Each event in one axis."""
    x = op.data(0)
    if op.axis(op.integer("axis", 1), x) != 1:
        raise Refusal("joins events with features. Write ONNX.")
    return _reshaped(op, x, [x.axes[0], -1])


def _reshaped(op: Op, x: Record, wish: Sequence[int | str]) -> Record:
    length = op.steps[x.step].length
    sizes = {"batch": op.batch, "time": length, "feature": op.width(x), "one": 1}
    axes = align([(axis, sizes.get(axis)) for axis in x.axes], wish)
    if axes is None:
        raise Refusal(
            f"reshapes [{', '.join(x.axes)}] to [{', '.join(map(str, wish))}]; lwtnn keeps vectors and sequences as "
            "they are (give a sequence as an input_sequence). Write ONNX."
        )
    return op.tidy(replace(x, axes=axes))


@lowers("Concat")
def concat(op: Op) -> Record | Stack:
    """Vectors one after the other; of sequences, only columns of one."""
    parts = [op.table(index) for index in range(len(op.node.inputs))]
    axes = parts[0].axes
    place = op.axis(op.integer("axis", 0), parts[0])
    axis = axes[place]
    if len(parts) == 1 and isinstance(parts[0], Record):
        return parts[0]
    records = [part for part in parts if isinstance(part, Record)]
    if axis == "one" and len(records) == len(parts) and all(record.axes == axes for record in records):
        return Stack(tuple(records), place)
    if axis != "feature" or any(part.axes != axes for part in parts):
        raise Refusal(f"joins tensors along the {axis} axis; lwtnn joins features of vectors only. Write ONNX.")
    if any(isinstance(part, Category) for part in parts):
        return embed(op, parts)
    if len({record.step for record in records}) == 1:
        columns = [c for record in records for c in record.columns or range(op.width(record))]
        return Record(records[0].step, axes, tuple(columns))
    if records[0].sequence:
        raise Refusal(
            "joins sequences; lwtnn joins vectors only. Give all variables in one input sequence, or write ONNX."
        )
    width = sum(op.width(record) for record in records)
    return op.add("concatenate", [op.whole(record).step for record in records], width, axes)


@lowers("Split", reads=(0,))
def split(op: Op) -> list[Record]:
    """Features in groups."""
    x = op.data(0)
    axis, width = op.axis(op.integer("axis", 0), x), op.width(x)
    if x.axes[axis] != "feature":
        raise Refusal(f"splits the {x.axes[axis]} axis; lwtnn chooses features only. Write ONNX.")
    count = len(op.node.outputs)
    size = -(-width // count)
    sizes = op.integers(1, "split") or [min(size, width - size * i) for i in range(count)]
    ends = list(accumulate(sizes))
    if ends[-1] != width:
        raise Refusal(f"splits {ends[-1]} features, but gets {width}")
    return [_columns(x, range(end - n, end)) for n, end in zip(sizes, ends, strict=True)]


def _columns(x: Record, chosen: Sequence[int]) -> Record:
    """Some of the features of `x`."""
    return replace(x, columns=tuple(c if x.columns is None else x.columns[c] for c in chosen))


@lowers("Slice", reads=(0,))
def slice_(op: Op) -> Record:
    """Some features, or the last step in time."""
    stack = op.meaning(0)
    if isinstance(stack, Stack):
        return _slice_of_stack(op, stack)
    x = op.data(0)
    starts, ends = op.integers(1, "starts") or [], op.integers(2, "ends") or []
    axes = op.integers(3, "axes") or list(range(len(starts)))
    strides = op.integers(4, "steps") or [1] * len(starts)
    for start, end, axis, stride in zip(starts, ends, axes, strides, strict=True):
        place = op.axis(axis, x)
        name = x.axes[place]
        length = op.steps[x.step].length
        if name == "feature":
            x = _columns(x, range(op.width(x))[slice(start, None if end < -END else end, stride)])
            if not op.width(x):
                raise Refusal("chooses no feature at all. Write ONNX.")
        elif stride == 1 and start == 0 and end >= END:
            continue
        elif name == "time" and stride == 1 and _is_last(start, length) and (end >= END or end == length):
            rest = op.last(x).axes
            x = replace(op.last(x), axes=(*rest[:place], "one", *rest[place:]))
        else:
            raise Refusal(f"cuts the {name} axis; lwtnn can only take the last step of a sequence. Write ONNX.")
    return op.tidy(x)


def _slice_of_stack(op: Op, stack: Stack) -> Record:
    """One of the states of stacked layers."""
    bounds = [op.integers(index, name) for index, name in ((1, "starts"), (2, "ends"), (3, "axes"))]
    starts, ends, axes = ([0] if bound is None else bound for bound in bounds)
    chosen = range(len(stack.records))[slice(starts[0], ends[0])]
    if axes != [stack.axis] or len(chosen) != 1 or op.integers(4, "steps") not in (None, [1]):
        raise Refusal("takes several of the states of stacked layers at once. Write ONNX.")
    return stack.records[chosen[0]]


def _is_last(index: int, length: int | None) -> bool:
    """Whether `index` is the last of an axis of `length` (None: unknown)."""
    return index == -1 or (length is not None and index == length - 1)


@lowers("Gather")
def gather(op: Op) -> Record | Category:
    """Some features, the last step in time, or rows of a table."""
    table = op.weights(0)
    if table is not None:
        return _look_up(op, table)
    indices = op.array(1)
    stack = op.meaning(0)
    x = stack.records[0] if isinstance(stack, Stack) else op.data(0)
    if indices is None or indices.ndim > 1:
        raise Refusal("chooses by computed positions; lwtnn has tables of constants only. Write ONNX.")
    place = op.axis(op.integer("axis", 0), x)
    name = x.axes[place]
    chosen = [int(i) for i in indices.ravel()]
    one = () if indices.ndim == 0 else ("one",)
    if isinstance(stack, Stack) and place == stack.axis and len(chosen) == 1:
        x, chosen = stack.records[chosen[0]], [0]
    elif isinstance(stack, Stack):
        raise Refusal("takes several of the states of stacked layers at once. Write ONNX.")
    if name == "feature":
        x = _columns(x, [i % op.width(x) for i in chosen])
        return op.tidy(replace(x, axes=(*x.axes[:place], *x.axes[place + 1 :]))) if indices.ndim == 0 else x
    if name == "time" and len(chosen) == 1 and _is_last(chosen[0], op.steps[x.step].length):
        rest = op.last(x).axes
        return op.tidy(replace(op.last(x), axes=(*rest[:place], *one, *rest[place:])))
    if name == "one" and chosen in ([0], [-1]):
        return op.tidy(replace(x, axes=(*x.axes[:place], *one, *x.axes[place + 1 :])))
    raise Refusal(f"chooses along the {name} axis; lwtnn can only take the last step of a sequence. Write ONNX.")


def _look_up(op: Op, table: Array) -> Category:
    """Rows of a table [categories, n_out] by a column of integers."""
    meaning = op.meaning(1)
    record = meaning.record if isinstance(meaning, Integers) else op.data(1)
    if op.integer("axis", 0) != 0 or table.ndim != 2 or op.width(record) != 1:
        raise Refusal("looks several indices up at once, or in a table that is no matrix. Write ONNX.")
    if not record.sequence:
        raise Refusal("looks up an index of a vector; lwtnn has tables for sequences only. Write ONNX.")
    axes = tuple("one" if axis == "feature" else axis for axis in record.axes)
    return Category(replace(record, axes=(*axes, "feature")), table)
