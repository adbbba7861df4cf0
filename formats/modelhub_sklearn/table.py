"""Which function writes which class: a closed table, filled by a decorator.

    @converts("transform", "sklearn.preprocessing._data.StandardScaler")
    def standard_scaler(e: Estimator, x: Rows) -> Rows: ...

A method is one of scikit-learn's: "predict_proba" [N, classes], "decision_function" [N, 1] or [N, classes], "predict"
of regressors [N, targets], "transform" and "inverse_transform" [N, anything]. "predict" of a classifier, for those that
have nothing else, is [N, classes]: 1 for the class it names, else 0; for the others see `class_index`. "votes" is what
`class_index` asks first: [N, 1] or [N, classes], for those whose label does not follow from their best method.
Probabilities of several targets stand side by side, target after target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike

from modelhub.errors import Unsupported
from modelhub.graph.builder import Builder
from modelhub_sklearn.estimator import Estimator

__all__ = [
    "METHODS",
    "Rows",
    "apply",
    "class_index",
    "converts",
    "decides",
    "known",
    "method_of",
    "offers",
    "side_by_side",
]

METHODS = ("predict_proba", "decision_function", "predict", "transform")
"""What a model gives, best first."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows [N, width] in float64 in a graph under construction."""

    b: Builder
    value: ir.Value
    width: int
    missing: bool = True
    """Whether a NaN may be among the values of a row of the model itself; nobody asks behind an operator."""

    def op(self, op_type: str, *others: ArrayLike | Rows, width: int | None = None, **attributes: Any) -> Rows:
        """The result of an operator on these rows and `others`: rows, or constants, which become float64."""
        values = [
            other.value if isinstance(other, Rows) else self.b.constant(np.asarray(other, np.float64), "constant")
            for other in others
        ]
        result = self.b.op(op_type, self.value, *values, **attributes)
        return Rows(self.b, result, self.width if width is None else width)

    def take(self, columns: ArrayLike) -> Rows:
        """Some columns, in the order given."""
        index = np.asarray(columns, np.int64)
        if np.array_equal(index, np.arange(self.width)):
            return self
        value = self.b.op("Gather", self.value, self.b.constant(index, "columns"), axis=1)
        return Rows(self.b, value, len(index), self.missing)

    def column(self, index: int) -> Rows:
        """One column, [N, 1]."""
        return self.take([index])

    def times(self, matrix: ArrayLike, bias: ArrayLike | None = None) -> Rows:
        """Rows @ matrix + bias, matrix being [width, outputs] and bias [outputs]."""
        weight = np.asarray(matrix, np.float64)
        values = [self.b.constant(weight, "weight")]
        if bias is not None:
            values.append(self.b.constant(np.broadcast_to(np.asarray(bias, np.float64), weight.shape[1:]), "bias"))
        return Rows(self.b, self.b.op("Gemm", self.value, *values), weight.shape[1])

    def total(self) -> Rows:
        """The sum over the columns, [N, 1]."""
        return Rows(self.b, self.b.op("ReduceSum", self.value, self.b.ints(1), keepdims=1), 1)

    def where(self, condition: ir.Value, other: ArrayLike | Rows) -> Rows:
        """`other` where the condition [N, width] holds, these rows elsewhere."""
        value = other.value if isinstance(other, Rows) else self.b.constant(np.asarray(other, np.float64), "constant")
        return Rows(self.b, self.b.op("Where", condition, value, self.value), self.width)

    def number(self, condition: ir.Value, width: int | None = None) -> Rows:
        """A condition as 0 and 1."""
        value = self.b.op("Cast", condition, to=ir.DataType.DOUBLE.value)
        return Rows(self.b, value, self.width if width is None else width)


def side_by_side(parts: Sequence[Rows]) -> Rows:
    """All columns of `parts`, which are several or one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    value = first.b.op("Concat", *(part.value for part in parts), axis=1)
    return Rows(first.b, value, sum(part.width for part in parts))


Convert = Callable[[Estimator, Rows], Rows]
When = Callable[[Estimator], bool]


@dataclass(frozen=True)
class _Entry:
    convert: Convert
    when: When | None
    decides: When


_TABLE: dict[tuple[str, str], _Entry] = {}


def converts(
    method: str, *names: str, when: When | None = None, decides: bool | When = False
) -> Callable[[Convert], Convert]:
    """Enter a function for one method of classes (full names).

    Args:
        method: see the module.
        names: the classes.
        when: whether an estimator of the class has the method, if not all have it.
        decides: whether the function asks for more or less than, so that a rounding of its input may change the
            output by much; or for which estimators. A model with such a part keeps float64 in the middle.

    """
    asks = decides if callable(decides) else (lambda _: decides)

    def enter(function: Convert) -> Convert:
        for name in names:
            _TABLE[name, method] = _Entry(function, when, asks)
        return function

    return enter


def known() -> list[str]:
    """Every class of the table."""
    return sorted({name for name, _ in _TABLE})


def offers(e: Estimator, method: str) -> bool:
    """Whether an estimator has a method."""
    entry = _TABLE.get((e.name, method))
    return entry is not None and (entry.when is None or entry.when(e))


def method_of(e: Estimator, methods: Sequence[str] = METHODS) -> str:
    """The first of `methods` that the estimator has. Raises `Unsupported`."""
    found = next((method for method in methods if offers(e, method)), None)
    if found is None:
        if any((e.name, method) in _TABLE for method in (*METHODS, "inverse_transform")):
            raise Unsupported(f"{e.place}, with these parameters, has none of {', '.join(methods)} that can be written")
        raise Unsupported(f"{e.place} ({e.name[:80]!r}) has no converter")
    return found


def apply(e: Estimator, x: Rows, method: str, scope: str = "") -> Rows:
    """What `e.method` gives for rows `x`. Raises `Unsupported` where there is no converter."""
    method_of(e, (method,))
    if e.has("n_features_in_") and e.whole("n_features_in_") != x.width:
        raise e.broken(f"is fitted to {e.whole('n_features_in_')} features and gets {x.width}")
    with x.b.scope(scope or e.short):
        return _TABLE[e.name, method].convert(e, x)


def class_index(e: Estimator, x: Rows) -> ir.Value:
    """The predicted class as an index, int64 [N]: the first of the largest, or whether the only decision is above 0."""
    method = method_of(e, ("votes", "predict_proba", "decision_function", "predict"))
    y = apply(e, x, method)
    if y.width == 1:
        zero = x.b.constant(np.zeros(1), "zero")
        above = x.b.op("Cast", x.b.op("Greater", y.value, zero), to=ir.DataType.INT64.value)
        return x.b.op("Squeeze", above, x.b.ints(1))
    return x.b.op("ArgMax", y.value, axis=1, keepdims=0)


def decides(e: Estimator) -> bool:
    """Whether a rounding in the middle of the model may change what comes out by much."""
    return any(
        entry.decides(inside)
        for inside in e.walk()
        for method in METHODS
        if (entry := _TABLE.get((inside.name, method)))
    )
