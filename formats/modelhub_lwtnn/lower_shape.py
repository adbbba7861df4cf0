"""Operators that only move axes or choose features, and the entrance of a graph: they draft little or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import onnx_ir as ir

from modelhub_lwtnn.draft import Default
from modelhub_lwtnn.lower_embedding import embed
from modelhub_lwtnn.lower_reshape import align, target
from modelhub_lwtnn.meaning import Category, Integers, Meaning, Missing, Record, Refusal, lowers
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


@lowers("IsNaN")
def is_nan(op: Op) -> Missing:
    """Where an input lacks a value."""
    return Missing(op.data(0))


@lowers("Where")
def where(op: Op) -> Record:
    """Where(IsNaN(x), default, x) at an input: lwtnn's `default`. lwtnn can choose nowhere else."""
    condition, value = op.meaning(0), op.input(2)
    default = op.weights(1)
    if not isinstance(condition, Missing) or default is None or value is None or op.meaning(2) != condition.record:
        raise Refusal("chooses between values; lwtnn can only replace a NaN at its inputs. Write ONNX.")
    x = condition.record
    if op.steps[x.step].entrance is None or x.columns is not None:
        raise Refusal("replaces NaN after other arithmetic; lwtnn replaces it at its inputs, first. Write ONNX.")
    if any(user is not op.node and user.op_type != "IsNaN" for user in op.users(value)):
        raise Refusal("replaces NaN for one of several uses of an input; lwtnn replaces it for all. Write ONNX.")
    return op.pointwise(x, Default(op.per_feature(default, x)))


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
def concat(op: Op) -> Record:
    """Vectors one after the other; of sequences, only columns of one."""
    parts = [op.table(index) for index in range(len(op.node.inputs))]
    axes = parts[0].axes
    axis = axes[op.axis(op.integer("axis", 0), parts[0])]
    if len(parts) == 1 and isinstance(parts[0], Record):
        return parts[0]
    if axis != "feature" or any(part.axes != axes for part in parts):
        raise Refusal(f"joins tensors along the {axis} axis; lwtnn joins features of vectors only. Write ONNX.")
    if any(isinstance(part, Category) for part in parts):
        return embed(op, parts)
    records = [part for part in parts if isinstance(part, Record)]
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


def _is_last(index: int, length: int | None) -> bool:
    """Whether `index` is the last of an axis of `length` (None: unknown)."""
    return index == -1 or (length is not None and index == length - 1)


@lowers("Gather")
def gather(op: Op) -> Record | Category:
    """Some features, the last step in time, or rows of a table."""
    table = op.weights(0)
    if table is not None:
        return _look_up(op, table)
    x, indices = op.data(0), op.array(1)
    if indices is None or indices.ndim > 1:
        raise Refusal("chooses by computed positions; lwtnn has tables of constants only. Write ONNX.")
    place = op.axis(op.integer("axis", 0), x)
    name = x.axes[place]
    chosen = [int(i) for i in indices.ravel()]
    one = () if indices.ndim == 0 else ("one",)
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
