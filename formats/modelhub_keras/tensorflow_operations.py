"""Keras 2's TFOpLambda and SlicingOpLambda: TensorFlow functions between layers, told as those of Keras 3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelhub.errors import Unsupported, safe_text
from modelhub_keras import operations
from modelhub_keras.config import Layer
from modelhub_keras.step import Step, Tensor

__all__ = ["FUNCTIONS", "KINDS", "apply", "as_operation"]

KINDS = ("TFOpLambda", "SlicingOpLambda")

FUNCTIONS = {
    "__operators__.add": "Add",
    "__operators__.getitem": "GetItem",
    "__operators__.mul": "Multiply",
    "cast": "Cast",
    "compat.v1.squeeze": "Squeeze",
    "compat.v1.transpose": "Transpose",
    "concat": "Concatenate",
    "expand_dims": "ExpandDims",
    "linalg.matmul": "Matmul",
    "math.abs": "Absolute",
    "math.add": "Add",
    "math.divide": "Divide",
    "math.exp": "Exp",
    "math.log": "Log",
    "math.maximum": "Maximum",
    "math.minimum": "Minimum",
    "math.multiply": "Multiply",
    "math.negative": "Negative",
    "math.not_equal": "NotEqual",
    "math.pow": "Power",
    "math.reduce_any": "Any",
    "math.reduce_max": "Max",
    "math.reduce_mean": "Mean",
    "math.reduce_min": "Min",
    "math.reduce_sum": "Sum",
    "math.sigmoid": "Sigmoid",
    "math.sqrt": "Sqrt",
    "math.square": "Square",
    "math.subtract": "Subtract",
    "math.tanh": "Tanh",
    "math.truediv": "TrueDivide",
    "nn.relu": "Relu",
    "nn.softmax": "Softmax",
    "reshape": "Reshape",
    "squeeze": "Squeeze",
    "stack": "Stack",
    "transpose": "Transpose",
}
"""TensorFlow's names, as TFOpLambda keeps them without the leading `tf.`, and Keras 3's classes of the same meaning."""

SECOND = ("y", "b")
"""What the second operand is called, which comes as a named argument."""


def as_operation(layer: Layer, args: list[Any], kwargs: dict[str, Any]) -> tuple[str, list[Any], dict[str, Any]]:
    """One call of a TensorFlow function as Keras 3 would write it: class, arguments, named arguments."""
    function = layer.config.get("function")
    if function not in FUNCTIONS:
        raise Unsupported(f"{layer.where}: calls TensorFlow's {safe_text(function)}, which is not read")
    named = {key: value for key, value in kwargs.items() if key != "name" and value is not None and value is not False}
    if function == "__operators__.getitem":
        keys = named.pop("slice_spec", [])
        args = [*args, [_key(layer, part) for part in keys] if isinstance(keys, list) else keys]
    if function == "reshape":
        args = [*args, named.pop("shape", None)]
    if "perm" in named:
        named["axes"] = named.pop("perm")
    return FUNCTIONS[function], [*args, *(named.pop(name) for name in SECOND if name in named)], named


def apply(step: Step, args: list[Any]) -> list[Tensor]:
    """The same in the graph."""
    kind, args, kwargs = as_operation(step.layer, args, step.kwargs)
    told = Step(step.walk, replace(step.layer, kind=kind, config={}), step.all_weights, kwargs)
    return operations.apply(told, args)


def _key(layer: Layer, part: Any) -> Any:
    """One index of `slice_spec` (Keras 2: layers/core/tf_op_layer.py, _slice_to_dict)."""
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == "__ellipsis__":
        return ...
    if not set(part) <= {"start", "stop", "step"}:
        raise Unsupported(f"{layer.where}: indexes with {safe_text(part)}")
    return slice(part.get("start"), part.get("stop"), part.get("step"))
