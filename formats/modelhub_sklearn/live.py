"""Live estimators as data: the same `Estimator` that a `.skops` file gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelhub.errors import UsageError
from modelhub_sklearn.estimator import Estimator, Name

__all__ = ["snapshot"]

PACKAGES = ("sklearn.", "xgboost.", "lightgbm.")
OTHERS = ("scipy.interpolate._bsplines.BSpline",)
"""Classes of other packages that estimators hold."""

_PLAIN = (str, bytes, bool, int, float, type(None))


def snapshot(estimator: object, where: str) -> Estimator:
    """`estimator` (an object of a scikit-learn class) as data; `where` names it in errors."""
    found = _value(estimator, where, {})
    if not isinstance(found, Estimator):
        raise UsageError(f"{where} is no estimator but a {type(estimator).__name__}")
    return found


def _value(value: Any, where: str, seen: dict[int, tuple[Any, Any]]) -> Any:
    if isinstance(value, _PLAIN) and not isinstance(value, np.generic):
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value
    if isinstance(value, slice):
        return value
    if callable(value) and hasattr(value, "__name__"):  # a class or a function, of Python's or of numpy's kinds
        return Name(_name(value))
    if isinstance(value, np.dtype):
        return Name(f"numpy.{value.name}")
    if id(value) not in seen:
        seen[id(value)] = value, None  # kept alive, as its id would be used again; what holds itself holds nothing
        seen[id(value)] = value, _composite(value, where, seen)
    return seen[id(value)][1]


def _composite(value: Any, where: str, seen: dict[int, tuple[Any, Any]]) -> Any:
    if isinstance(value, np.ndarray):
        array = np.empty(value.size, object)
        array[:] = [_value(item, where, seen) for item in value.reshape(-1)]
        return array.reshape(value.shape)
    if isinstance(value, dict):
        return {key: _value(item, where, seen) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_value(item, where, seen) for item in value)
    if isinstance(value, list | set):
        return [_value(item, where, seen) for item in value]
    name = _name(type(value))
    if name == "sklearn.tree._tree.Tree":
        _, arguments, state = value.__reduce__()
        names = ("n_features", "n_classes", "n_outputs")
        return Estimator(name, {**state, **dict(zip(names, arguments, strict=True))}, where)
    state = value.__getstate__() if name.startswith(PACKAGES) or name in OTHERS else None
    if not isinstance(state, dict):
        return Estimator(name, {}, where)
    return Estimator(name, {key: _value(item, where, seen) for key, item in state.items()}, where)


def _name(kind: Any) -> str:
    module = getattr(kind, "__module__", None) or ("numpy" if isinstance(kind, np.ufunc) else "")
    return f"{module}.{getattr(kind, '__name__', '')}"
