"""An estimator as data: a class name and its attributes, whether it came from a file or a live object.

Every value is a Python number, text, None, list, tuple, dict, numpy array, `Name` or another `Estimator`. The getters
check what a converter relies on, so that a damaged file gives one clear line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported, safe_text

__all__ = ["Estimator", "Name"]

_NUMBER = (bool, int, float)

_COMPUTED = ("xgboost.sklearn.", "lightgbm.sklearn.")
_OWN_KEYS = {"_classes": "classes_", "_n_features_in": "n_features_in_"}
"""LightGBM's names of attributes, and scikit-learn's. XGBoost numbers its classes, and keeps how many there are."""


@dataclass(frozen=True)
class Name:
    """A class or a function that is only named, or an object of which nothing but its class is known."""

    name: str


@dataclass(frozen=True, eq=False)
class Estimator:
    """An object of class `name` (with its module). `where` names the file in errors."""

    name: str
    attributes: Mapping[str, Any]
    where: str

    def __post_init__(self) -> None:
        if self.name.startswith(_COMPUTED):  # they compute what scikit-learn's own classes store
            known = {key: self.attributes[own] for own, key in _OWN_KEYS.items() if own in self.attributes}
            count = self.attributes.get("n_classes_")
            if isinstance(count, int) and 0 < count < 1 << 16:
                known["classes_"] = np.arange(count)
            object.__setattr__(self, "attributes", {**self.attributes, **known})

    @property
    def short(self) -> str:
        """The class without its module, fit to print."""
        return safe_text(self.name.rpartition(".")[2])

    @property
    def place(self) -> str:
        """File and class, for errors."""
        return f"{self.where}: {self.short}"

    def broken(self, what: str) -> UnreadableFile:
        """The error for a damaged estimator."""
        return UnreadableFile(f"{self.place}: {what}")

    def refused(self, what: str) -> Unsupported:
        """The error for an estimator that is whole and that we do not know."""
        return Unsupported(f"{self.place}: {what}")

    def has(self, key: str) -> bool:
        """Whether there is such an attribute, and it is not None."""
        return self.attributes.get(key) is not None

    def get(self, key: str) -> Any:
        """An attribute, whatever it is."""
        try:
            return self.attributes[key]
        except KeyError:
            raise self.broken(f"no attribute {key!r}; is the estimator fitted?") from None

    def array(self, key: str, *shape: int | None, finite: bool = True) -> NDArray[np.float64]:
        """A numeric attribute as float64 in `shape` (None: any size); nothing said about the shape allows any."""
        value = self.get(key)
        if isinstance(value, list | tuple):
            try:
                value = np.asarray(value)
            except ValueError:
                raise self.broken(f"{key!r} is not a table of numbers") from None
        if isinstance(value, np.ndarray) and value.dtype == object and all(isinstance(v, _NUMBER) for v in value.flat):
            value = value.astype(np.float64)
        if isinstance(value, _NUMBER):
            value = np.asarray(value, np.float64)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise self.broken(f"{key!r} is not an array of numbers")
        fits = len(shape) == value.ndim and all(
            wish in (None, size) for wish, size in zip(shape, value.shape, strict=True)
        )
        if shape and not fits:
            wished = " x ".join("any" if size is None else str(size) for size in shape)
            raise self.broken(f"{key!r} has shape {value.shape}, not {wished}")
        result = value.astype(np.float64)
        if finite and not np.isfinite(result).all():
            raise self.broken(f"{key!r} holds a number that is not finite")
        return result

    def own(self, key: str, *shape: int | None) -> NDArray[np.floating[Any]]:
        """As `array`, but float32 where it is stored so, as in models trained on float32 rows.

        scikit-learn computes constants anew at every call, in the precision of what they are computed from.
        """
        stored = self.get(key)
        single = isinstance(stored, np.ndarray) and stored.dtype == np.float32
        return self.array(key, *shape).astype(np.float32 if single else np.float64)

    def number(self, key: str) -> float:
        """A finite number."""
        return float(self.array(key).reshape(-1)[0]) if self.array(key).size == 1 else self._no(key, "a number")

    def whole(self, key: str) -> int:
        """A whole number from 0 to 2^31."""
        value = self.number(key)
        return int(value) if value == int(value) and 0 <= value < 1 << 31 else self._no(key, "a count")

    def _no(self, key: str, what: str) -> Any:
        raise self.broken(f"{key!r} is not {what}")

    def flag(self, key: str) -> bool:
        """True or False; False where it is absent, as files of an older scikit-learn have fewer parameters."""
        value = self.attributes.get(key, False)
        return value if isinstance(value, bool) else bool(self.number(key))

    def text(self, key: str) -> str:
        """A text."""
        value = self.get(key)
        return value if isinstance(value, str) else str(self._no(key, "a text"))

    def choice(self, key: str) -> str:
        """A text that chooses among ways; "" for None or nothing, "an object" for what is no text."""
        value = self.attributes.get(key)
        return value if isinstance(value, str) else "" if value is None else "an object"

    def part(self, key: str) -> Estimator:
        """An estimator inside this one."""
        value = self.get(key)
        if not isinstance(value, Estimator):
            raise self.broken(f"{key!r} is not an estimator")
        return value

    def items(self, key: str) -> list[Any]:
        """The items of a list, tuple or array of objects (row by row)."""
        value = self.get(key)
        if isinstance(value, np.ndarray) and value.dtype == object:
            return list(value.reshape(-1))
        if not isinstance(value, list | tuple):
            raise self.broken(f"{key!r} is not a list")
        return list(value)

    def parts(self, key: str) -> list[Estimator]:
        """The estimators in a list or array of them, row by row; at least one."""
        found = self.items(key)
        if not found or not all(isinstance(item, Estimator) for item in found):
            raise self.broken(f"{key!r} is not a list of estimators")
        return found

    def indices(self, key: str, limit: int) -> list[NDArray[np.int64]]:
        """A list of arrays of indices below `limit`."""
        return [self.columns(item, key, limit) for item in self.items(key)]

    def columns(self, value: Any, key: str, limit: int) -> NDArray[np.int64]:
        """An array, list or range of indices below `limit`."""
        if isinstance(value, list | tuple):
            value = np.array(value) if all(isinstance(item, int) for item in value) else None
        index = value if isinstance(value, np.ndarray) else None
        if index is None or index.ndim != 1 or (index.dtype.kind not in "iu" and index.size):
            raise self.broken(f"{key!r} is not a list of indices")
        if index.size and not 0 <= int(index.min()) <= int(index.max()) < limit:
            raise self.broken(f"{key!r} holds an index out of range")
        return index.astype(np.int64)

    @property
    def classes(self) -> list[Any]:
        """The labels of a classifier of one target, in order."""
        value = self.get("classes_")
        if isinstance(value, list):
            raise self.refused("several targets at once are not supported here; convert the classifier of each")
        return self._labels(value)

    @property
    def targets(self) -> list[list[Any]]:
        """The labels of every target of a classifier, which may have one or several."""
        value = self.get("classes_")
        if not isinstance(value, list):
            return [self._labels(value)]
        if not value:
            raise self.broken("'classes_' is empty")
        return [self._labels(labels) for labels in value]

    def _labels(self, value: Any) -> list[Any]:
        if not isinstance(value, np.ndarray) or value.ndim != 1 or not value.size:
            raise self.broken("'classes_' is not a list of labels")
        labels: list[Any] = value.tolist()
        if not all(isinstance(label, str) or (isinstance(label, _NUMBER) and isfinite(label)) for label in labels):
            raise self.broken("'classes_' holds a label that is neither a text nor a number")
        return labels

    @property
    def version(self) -> tuple[int, ...]:
        """The scikit-learn that fitted it, e.g. (1, 5); (0,) where it does not say."""
        text = self.attributes.get("_sklearn_version")
        parts = text.split(".")[:2] if isinstance(text, str) else []
        return tuple(int(part) for part in parts) if parts and all(p.isdecimal() for p in parts) else (0,)

    def walk(self) -> Iterator[Estimator]:
        """The estimator itself and every one inside it."""
        stack: list[Any] = [self]
        seen: set[int] = set()
        while stack:
            value = stack.pop()
            if id(value) in seen:
                continue
            if isinstance(value, Estimator):
                seen.add(id(value))
                yield value
                stack.extend(value.attributes.values())
            elif isinstance(value, dict):
                stack.extend(value.values())
            elif isinstance(value, list | tuple):
                stack.extend(value)
            elif isinstance(value, np.ndarray) and value.dtype == object:
                stack.extend(value.reshape(-1))
