"""Functions on tensors between layers: Keras 3's `keras.ops`, and Keras 2's TFOpLambda of the same meaning.

Keras 3 also writes its masks this way (NotEqual, Any, LogicalOr, ...). What is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from modelhub.errors import safe_text
from modelhub_keras.activations import RULES
from modelhub_keras.merging import broadcast, concatenate
from modelhub_keras.step import Dim, Step, Tensor

__all__ = ["OPERATIONS", "apply"]

Operation = Callable[..., Tensor]
Table = dict[str, tuple[str, ...]]
OPERATIONS: dict[str, Operation] = {}
"""Keras 3's classes of functions. Each takes the step, then what the call gives."""

TYPES = {"f": None, "i": ir.DataType.INT64, "b": ir.DataType.BOOL}


def apply(step: Step, args: list[Any]) -> list[Tensor]:
    """One call of one function."""
    result = OPERATIONS[step.layer.kind](step, *args)
    step.options.finish()
    for name, value in step.kwargs.items():
        if value is not None and name != "dtype":
            step.refuse(f"is called with {safe_text(name)}, which is not understood")
    return [result]


def operation(*kinds: str) -> Callable[[Operation], Operation]:
    """Enter a function in the table under the classes `kinds`."""

    def enter(function: Operation) -> Operation:
        for kind in kinds:
            OPERATIONS[kind] = function
        return function

    return enter


def _option(step: Step, name: str, default: Any = None) -> Any:
    """An option, which may be among the named arguments of the call instead."""
    given = step.kwargs.pop(name, None)
    return given if given is not None else step.options.get(name, default=default)


def _tensor(step: Step, item: Any) -> Tensor:
    if not isinstance(item, Tensor):
        step.refuse(f"needs a tensor, and gets {safe_text(item)}")
    return item


def _operands(step: Step, *items: Any) -> tuple[list[ir.Value], tuple[Dim, ...], str]:
    """Tensors and numbers as values of one type, with the shape and kind of what they make element by element."""
    tensors = [item for item in items if isinstance(item, Tensor)]
    if not tensors:
        step.refuse("takes no tensor")
    kind = "f" if any(x.kind == "f" for x in tensors) or any(isinstance(n, float) for n in items) else tensors[0].kind
    rank = max(x.rank for x in tensors)
    values, shapes = [], []
    for item in items:
        if isinstance(item, Tensor):
            values.append(_typed(step, item, kind).value)
            shapes.append((*[1] * (rank - item.rank), *item.shape))
        elif isinstance(item, bool | int | float):
            wanted = {"f": None, "i": np.int64, "b": np.bool_}[kind]
            values.append(
                step.scalar(float(item)) if wanted is None else step.constant(np.array(item, wanted), "number")
            )
        else:
            step.refuse(f"combines a tensor with {safe_text(item)}")
    if any(shape[0] != "N" for shape in shapes):
        step.refuse("combines tensors of different ranks, so that events would meet features")
    return values, broadcast(step, shapes), kind


def _number(step: Step, number: float, kind: str) -> ir.Value:
    """A 0-d constant of `kind`."""
    if kind == "f":
        return step.scalar(float(number))
    return step.constant(np.array(number, np.int64 if kind == "i" else np.bool_), "number")


def _typed(step: Step, x: Tensor, kind: str) -> Tensor:
    if x.kind == kind:
        return x
    wanted = TYPES[kind] or ir.DataType.from_numpy(step.walk.dtype)
    return replace(x, value=step.b.op("Cast", x.value, to=wanted.value), kind=kind)


def _elementwise(op_type: str, *kinds: str, result: str | None = None) -> None:
    def function(step: Step, *items: Any) -> Tensor:
        values, shape, kind = _operands(step, *items)
        if op_type == "Not":
            equal = step.b.op("Equal", *values)
            return Tensor(step.b.op("Not", equal), shape, "b")
        return Tensor(step.b.op(op_type, *values), shape, result or kind)

    operation(*kinds)(function)


COMBINED: Table = {
    "Add": ("Add",),
    "Sub": ("Subtract",),
    "Mul": ("Multiply",),
    "Max": ("Maximum",),
    "Min": ("Minimum",),
    "Pow": ("Power",),
    "And": ("LogicalAnd",),
    "Or": ("LogicalOr",),
}
COMPARED: Table = {
    "Not": ("NotEqual",),
    "Equal": ("Equal",),
    "Greater": ("Greater",),
    "GreaterOrEqual": ("GreaterEqual",),
    "Less": ("Less",),
    "LessOrEqual": ("LessEqual",),
}
for _op_type, _kinds in COMBINED.items():
    _elementwise(_op_type, *_kinds)
for _op_type, _kinds in COMPARED.items():
    _elementwise(_op_type, *_kinds, result="b")


@operation("Divide", "TrueDivide")
def divide(step: Step, a: Any, c: Any) -> Tensor:
    a, c = (_typed(step, x, "f") if isinstance(x, Tensor) else x for x in (a, c))
    values, shape, kind = _operands(step, a, c)
    return Tensor(step.b.op("Div", *values), shape, kind)


def _unary(op_type: str, *kinds: str) -> None:
    def function(step: Step, operand: Any) -> Tensor:
        x = _typed(step, _tensor(step, operand), "f")
        return replace(x, value=step.b.op(op_type, x.value), mask=None)

    operation(*kinds)(function)


APPLIED: Table = {
    "Abs": ("Absolute", "Abs"),
    "Exp": ("Exp",),
    "Log": ("Log",),
    "Neg": ("Negative",),
    "Sqrt": ("Sqrt",),
    "Sin": ("Sin",),
    "Cos": ("Cos",),
}
for _op_type, _kinds in APPLIED.items():
    _unary(_op_type, *_kinds)


@operation("Square")
def square(step: Step, operand: Any) -> Tensor:
    x = _tensor(step, operand)
    return replace(x, value=step.b.op("Mul", x.value, x.value), mask=None)


@operation(
    "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Silu", "Selu", "Relu6", "HardSigmoid", "HardSilu", "Mish"
)
def activated(step: Step, operand: Any) -> Tensor:
    """Keras's activations as functions: the class name in snake case is the activation's."""
    x = _tensor(step, operand)
    name = {"HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu"}.get(step.layer.kind, step.layer.kind.lower())
    return replace(x, value=RULES[name](step, x.value), mask=None)


@operation("Softmax", "LogSoftmax")
def softmax(step: Step, operand: Any) -> Tensor:
    x = _tensor(step, operand)
    axis = _option(step, "axis", -1)
    if not isinstance(axis, int) or axis % x.rank == 0:
        step.refuse("needs one axis other than that of events")
    return replace(x, value=step.b.op(step.layer.kind, x.value, axis=axis), mask=None)


@operation("LeakyRelu")
def leaky_relu(step: Step, operand: Any) -> Tensor:
    x = _tensor(step, operand)
    slope = step.options.number("negative_slope", default=0.2)
    return replace(x, value=step.b.op("LeakyRelu", x.value, alpha=slope), mask=None)


@operation("Gelu")
def gelu(step: Step, operand: Any) -> Tensor:
    x = _tensor(step, operand)
    kind = "tanh" if step.options.flag("approximate", default=True) else "none"
    return replace(x, value=step.b.op("Gelu", x.value, approximate=kind), mask=None)


@operation("Clip")
def clip(step: Step, operand: Any) -> Tensor:
    x = _tensor(step, operand)
    low, high = step.options.number("x_min"), step.options.number("x_max")
    return replace(x, value=step.b.op("Clip", x.value, step.scalar(low), step.scalar(high)), mask=None)


@operation("Where")
def where(step: Step, condition: Any, a: Any, c: Any) -> Tensor:
    test = _tensor(step, condition)
    values, shape, kind = _operands(step, a, c)
    rank = max(test.rank, len(shape))
    both = [(*[1] * (rank - len(s)), *s) for s in (test.shape, shape)]
    if any(s[0] != "N" for s in both):
        step.refuse("combines tensors of different ranks, so that events would meet features")
    return Tensor(step.b.op("Where", test.value, *values), broadcast(step, both), kind)


@operation("Cast")
def cast(step: Step, operand: Any) -> Tensor:
    name = str(_option(step, "dtype", "float32"))
    kind = "b" if name == "bool" else "i" if name in ("int32", "int64") else "f" if name.startswith("float") else ""
    if not kind:
        step.refuse(f"casts to {safe_text(name)}")
    return replace(_typed(step, _tensor(step, operand), kind), mask=None)


@operation("ZerosLike", "OnesLike")
def filled(step: Step, operand: Any) -> Tensor:
    """Zeros or ones in the shape of `x`."""
    x, b = _tensor(step, operand), step.b
    name = _option(step, "dtype")
    kind = x.kind if name is None else "b" if name == "bool" else "f" if str(name).startswith("float") else "i"
    number = _number(step, step.layer.kind == "OnesLike", kind)
    return Tensor(b.op("Expand", number, b.op("Shape", x.value)), x.shape, kind)


def _axes(step: Step, given: Any, rank: int) -> list[int]:
    """Axes counted from 0, the events' not among them."""
    axes = given if isinstance(given, list) else [given]
    if any(isinstance(a, bool) or not isinstance(a, int) or not -rank <= a < rank for a in axes):
        step.refuse("needs axes as whole numbers, other than that of events")
    if 0 in (found := sorted({a % rank for a in axes})):
        step.refuse("works across events, so one event depends on others")
    return found


def _reduction(op_type: str, *kinds: str) -> None:
    def function(step: Step, operand: Any) -> Tensor:
        x, b = _tensor(step, operand), step.b
        axes, keep = _axes(step, _option(step, "axis"), x.rank), bool(_option(step, "keepdims", False))
        if _option(step, "initial") is not None:
            step.refuse("starts from a value of its own (initial)")
        if op_type in ("ReduceMax", "ReduceMin"):
            for axis in axes:
                step.lengths.require(x.shape[axis], 1)
        flags = x.kind == "b"
        value = b.op("Cast", x.value, to=ir.DataType.INT64.value) if flags else x.value
        value = b.op(op_type, value, b.ints(*axes), keepdims=int(keep))
        value = b.op("Cast", value, to=ir.DataType.BOOL.value) if flags else value
        shape = tuple(1 if a in axes else dim for a, dim in enumerate(x.shape) if keep or a not in axes)
        return Tensor(value, shape, x.kind)

    operation(*kinds)(function)


REDUCED: Table = {
    "ReduceSum": ("Sum",),
    "ReduceMean": ("Mean",),
    "ReduceMax": ("Max", "Amax", "Any"),
    "ReduceMin": ("Min", "Amin", "All"),
    "ReduceProd": ("Prod",),
}
for _op_type, _kinds in REDUCED.items():
    _reduction(_op_type, *_kinds)


@operation("Concatenate")
def concatenated(step: Step, xs: Any) -> Tensor:
    tensors = [_tensor(step, x) for x in xs] if isinstance(xs, list) else [_tensor(step, xs)]
    axis = _option(step, "axis", 0)
    return concatenate(step, [replace(x, mask=None) for x in tensors], axis if isinstance(axis, int) else 0)


@operation("Stack")
def stack(step: Step, xs: Any) -> Tensor:
    tensors = [_tensor(step, x) for x in xs] if isinstance(xs, list) else [_tensor(step, xs)]
    axis = _option(step, "axis", 0)
    (axis,) = _axes(step, axis, tensors[0].rank + 1)
    rows = [_expanded(step, replace(x, mask=None), [axis]) for x in tensors]
    return concatenate(step, rows, axis)


def _expanded(step: Step, x: Tensor, axes: Sequence[int]) -> Tensor:
    shape = list(x.shape)
    for axis in axes:
        shape.insert(axis, 1)
    return replace(x, value=step.b.op("Unsqueeze", x.value, step.b.ints(*axes)), shape=tuple(shape), mask=None)


@operation("ExpandDims")
def expand_dims(step: Step, operand: Any) -> Tensor:
    x = _tensor(step, operand)
    return _expanded(step, x, _axes(step, _option(step, "axis"), x.rank + 1))


@operation("Squeeze")
def squeeze(step: Step, operand: Any) -> Tensor:
    x = _tensor(step, operand)
    given = _option(step, "axis")
    axes = [a for a, dim in enumerate(x.shape) if dim == 1] if given is None else _axes(step, given, x.rank)
    if any(step.size(x.shape[a]) != 1 for a in axes):
        step.damaged("drops an axis that is longer than 1")
    shape = tuple(dim for a, dim in enumerate(x.shape) if a not in axes)
    return replace(x, value=step.b.op("Squeeze", x.value, step.b.ints(*axes)), shape=shape, mask=None)


@operation("Reshape")
def reshape(step: Step, operand: Any, given: Any = None) -> Tensor:
    x = _tensor(step, operand)
    target = given if given is not None else _option(step, "newshape", _option(step, "shape"))
    if not isinstance(target, list) or not target or any(isinstance(n, bool) or not isinstance(n, int) for n in target):
        step.refuse("needs its new shape as whole numbers")
    rest, volume = target[1:], step.volume(x.shape[1:])
    known = int(np.prod([n for n in rest if n != -1], dtype=np.int64))
    if target[0] != -1 or rest.count(-1) > 0 or known != volume:
        step.refuse("moves numbers between events, or does not say how long the other axes are")
    return step.reshape(x, rest)


@operation("Transpose")
def transpose(step: Step, operand: Any) -> Tensor:
    x = _tensor(step, operand)
    axes = _option(step, "axes", _option(step, "perm"))
    if not isinstance(axes, list) or sorted(axes) != list(range(x.rank)) or axes[0] != 0:
        step.refuse("moves the axis of events")
    return step.transpose(x, axes)


@operation("Matmul")
def matmul(step: Step, operand: Any, other: Any) -> Tensor:
    x, y = _tensor(step, operand), _tensor(step, other)
    if x.rank != y.rank or x.rank < 3:
        step.refuse("multiplies other than two stacks of matrices, one an event")
    step.common(x.shape[-1], y.shape[-2])
    shape = (*broadcast(step, [x.shape[:-2], y.shape[:-2]]), x.shape[-2], y.shape[-1])
    return Tensor(step.b.op("MatMul", x.value, y.value), shape)


@operation("GetItem")
def get_item(step: Step, operand: Any, key: Any) -> Tensor:
    """x[:, 0], x[..., 1:], x[:, ::2, None] and the like; the axis of events stays whole."""
    x = replace(_tensor(step, operand), mask=None)
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
    tensors = [_tensor(step, x) for x in xs]
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
