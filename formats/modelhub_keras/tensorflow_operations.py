"""Keras 2's TFOpLambda and SlicingOpLambda: TensorFlow functions between layers, told as those of Keras 3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from modelhub.errors import safe_text
from modelhub_keras import operations
from modelhub_keras.step import Step, Tensor

__all__ = ["FUNCTIONS", "KINDS", "apply"]

KINDS = ("TFOpLambda", "SlicingOpLambda")

FUNCTIONS = {
    "__operators__.add": "Add",
    "__operators__.getitem": "GetItem",
    "__operators__.mul": "Multiply",
    "cast": "Cast",
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


def apply(step: Step, args: list[Any]) -> list[Tensor]:
    """One call of one TensorFlow function."""
    function = step.options.get("function")
    if function not in FUNCTIONS:
        step.refuse(f"calls TensorFlow's {safe_text(function)}, which is not read")
    kwargs = {key: value for key, value in step.kwargs.items() if value is not None and key != "name"}
    if function == "__operators__.getitem":
        args = [*args, [_key(step, part) for part in kwargs.pop("slice_spec", [])]]
    args = [*args, *(kwargs.pop(name) for name in SECOND if name in kwargs)]
    if function == "reshape":
        args = [*args, kwargs.pop("shape", None)]
    kind = FUNCTIONS[function]
    told = Step(step.walk, replace(step.layer, kind=kind, config={}), step.all_weights, kwargs)
    return operations.apply(told, args)


def _key(step: Step, part: Any) -> Any:
    """One index of `slice_spec` (Keras 2: layers/core/tf_op_layer.py, _slice_to_dict)."""
    if isinstance(part, dict):
        if set(part) <= {"start", "stop", "step"}:
            return slice(part.get("start"), part.get("stop"), part.get("step"))
        step.refuse(f"indexes with {safe_text(part)}")
    return part
