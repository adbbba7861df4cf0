"""Functions on tensors between layers: Keras 3's `keras.ops`, and Keras 2's TFOpLambda of the same meaning.

Keras 3 also writes its masks this way (NotEqual, Any, LogicalOr, ...). What is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import onnx_ir as ir

from modelhub.errors import safe_text
from modelhub_keras.activations import RULES
from modelhub_keras.merging import broadcast
from modelhub_keras.step import Dim, Step, Tensor, single

__all__ = ["OPERATIONS", "apply", "axes_of", "operands", "operation", "option", "tensor"]

Operation = Callable[..., Tensor]
Table = dict[str, tuple[str, ...]]
OPERATIONS: dict[str, Operation] = {}
"""Keras 3's classes of functions. Each takes the step, then what the call gives."""

TYPES = {"f": None, "i": ir.DataType.INT64, "b": ir.DataType.BOOL}


def apply(step: Step, args: list[Any]) -> list[Tensor]:
    """One call of one function."""
    function = OPERATIONS[step.layer.kind]
    try:
        signature(function).bind(step, *args)
    except TypeError:
        step.damaged(f"is called with {len(args)} arguments")
    result = function(step, *args)
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


def option(step: Step, name: str, default: Any = None) -> Any:
    """An option, which may be among the named arguments of the call instead."""
    given = step.kwargs.pop(name, None)
    return given if given is not None else step.options.get(name, default=default)


def tensor(step: Step, item: Any) -> Tensor:
    """`item`, which must be a tensor."""
    if not isinstance(item, Tensor):
        step.refuse(f"needs a tensor, and gets {safe_text(item)}")
    return item


def operands(step: Step, *items: Any) -> tuple[list[ir.Value], tuple[Dim, ...], str]:
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
        values, shape, kind = operands(step, *items)
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
    values, shape, kind = operands(step, a, c)
    return Tensor(step.b.op("Div", *values), shape, kind)


def _unary(op_type: str, *kinds: str) -> None:
    def function(step: Step, operand: Any) -> Tensor:
        x = _typed(step, tensor(step, operand), "f")
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
    x = tensor(step, operand)
    return replace(x, value=step.b.op("Mul", x.value, x.value), mask=None)


@operation(
    "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Silu", "Selu", "Relu6", "HardSigmoid", "HardSilu", "Mish"
)
def activated(step: Step, operand: Any) -> Tensor:
    """Keras's activations as functions: the class name in snake case is the activation's."""
    x = tensor(step, operand)
    name = {"HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu"}.get(step.layer.kind, step.layer.kind.lower())
    return replace(x, value=RULES[name](step, x.value), mask=None)


@operation("Softmax", "LogSoftmax")
def softmax(step: Step, operand: Any) -> Tensor:
    x = tensor(step, operand)
    axis = option(step, "axis", -1)
    if not isinstance(axis, int) or axis % x.rank == 0:
        step.refuse("needs one axis other than that of events")
    return replace(x, value=step.b.op(step.layer.kind, x.value, axis=axis), mask=None)


@operation("LeakyRelu")
def leaky_relu(step: Step, operand: Any) -> Tensor:
    x = tensor(step, operand)
    slope = single(step.options.number("negative_slope", default=0.2))
    return replace(x, value=step.b.op("LeakyRelu", x.value, alpha=slope), mask=None)


@operation("Gelu")
def gelu(step: Step, operand: Any) -> Tensor:
    x = tensor(step, operand)
    kind = "tanh" if step.options.flag("approximate", default=True) else "none"
    return replace(x, value=step.b.op("Gelu", x.value, approximate=kind), mask=None)


@operation("Clip")
def clip(step: Step, operand: Any) -> Tensor:
    x = tensor(step, operand)
    low, high = step.options.number("x_min"), step.options.number("x_max")
    return replace(x, value=step.b.op("Clip", x.value, step.scalar(low), step.scalar(high)), mask=None)


@operation("Where")
def where(step: Step, condition: Any, a: Any, c: Any) -> Tensor:
    test = tensor(step, condition)
    values, shape, kind = operands(step, a, c)
    rank = max(test.rank, len(shape))
    both = [(*[1] * (rank - len(s)), *s) for s in (test.shape, shape)]
    if any(s[0] != "N" for s in both):
        step.refuse("combines tensors of different ranks, so that events would meet features")
    return Tensor(step.b.op("Where", test.value, *values), broadcast(step, both), kind)


@operation("Cast")
def cast(step: Step, operand: Any) -> Tensor:
    name = str(option(step, "dtype", "float32"))
    kind = "b" if name == "bool" else "i" if name in ("int32", "int64") else "f" if name.startswith("float") else ""
    if not kind:
        step.refuse(f"casts to {safe_text(name)}")
    return replace(_typed(step, tensor(step, operand), kind), mask=None)


@operation("ZerosLike", "OnesLike")
def filled(step: Step, operand: Any) -> Tensor:
    """Zeros or ones in the shape of `x`."""
    x, b = tensor(step, operand), step.b
    name = option(step, "dtype")
    kind = x.kind if name is None else "b" if name == "bool" else "f" if str(name).startswith("float") else "i"
    number = _number(step, step.layer.kind == "OnesLike", kind)
    return Tensor(b.op("Expand", number, b.op("Shape", x.value)), x.shape, kind)


def axes_of(step: Step, given: Any, rank: int) -> list[int]:
    """Axes counted from 0, the events' not among them."""
    axes = given if isinstance(given, list) else [given]
    if any(isinstance(a, bool) or not isinstance(a, int) or not -rank <= a < rank for a in axes):
        step.refuse("needs axes as whole numbers, other than that of events")
    if 0 in (found := sorted({a % rank for a in axes})):
        step.refuse("works across events, so one event depends on others")
    return found


def _reduction(op_type: str, *kinds: str) -> None:
    def function(step: Step, operand: Any) -> Tensor:
        x, b = tensor(step, operand), step.b
        axes, keep = axes_of(step, option(step, "axis"), x.rank), bool(option(step, "keepdims", False))
        if option(step, "initial") is not None:
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
