"""A value in an lwtnn file and where it stands: every fault found through it names its JSON path.

Types are lwtnn's (boost property_tree keeps scalars as text): a number may be quoted, an integer may not have a point.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelhub.errors import UnreadableFile, safe_text
from modelhub_lwtnn.schema import Array

__all__ = ["Cursor"]

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
NAME = 1000
"""The longest name of an input, a variable or an output."""

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True)
class Cursor:
    """`value` stands at `path` (``layers[3].bias``, empty for the whole) of the document called `document`."""

    value: Any
    document: str
    path: str = ""

    def fault(self, reason: str) -> UnreadableFile:
        """An error that names this place; to be raised by the caller."""
        return UnreadableFile(f"{self.document}: {safe_text(self.path, 120) or 'the file'} {reason}")

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def __getitem__(self, key: str) -> Cursor:
        """The member `key` of an object; its absence is a fault."""
        if not isinstance(self.value, dict):
            raise self.fault("must be a JSON object")
        if key not in self.value:
            raise self.fault(f"lacks the key {key!r}")
        return self._member(key)

    def _member(self, key: str) -> Cursor:
        return Cursor(self.value[key], self.document, f"{self.path}.{key}" if self.path else key)

    def members(self) -> Iterator[tuple[str, Cursor]]:
        """All members of an object, in the order of the file, whose keys are names."""
        if not isinstance(self.value, dict):
            raise self.fault("must be a JSON object")
        for key in self.value:
            member = self._member(key)
            yield member._fit(member._sound(key)), member

    def elements(self) -> list[Cursor]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self.fault("must be a list")
        return [Cursor(item, self.document, f"{self.path}[{index}]") for index, item in enumerate(self.value)]

    def _sound(self, text: str) -> str:
        """`text`, which must survive being written again: no half surrogate pairs."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.fault("holds half a surrogate pair, which is no text") from None
        return text

    def text(self) -> str:
        """A text; lwtnn takes a whole number for one, so it counts too."""
        if isinstance(self.value, str):
            return self._sound(self.value)
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return str(self.value)
        raise self.fault("must be a text")

    def name(self) -> str:
        """A text fit to be a name: not empty, and no longer than names in the interface record may get."""
        return self._fit(self.text())

    def _fit(self, name: str) -> str:
        if not 0 < len(name) <= NAME:
            raise self.fault(f"must be a name of 1 to {NAME} characters, has {len(name)}")
        return name

    def integer(self, *, least: int = 0, most: int = (1 << 31) - 1) -> int:
        """A whole number in [least, most]; ``0.0`` is none, to lwtnn as to us."""
        value = self.value
        if isinstance(value, str) and INTEGER.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fault(f"must be a whole number, is {safe_text(self.value, 40)}")
        if not least <= value <= most:
            raise self.fault(f"is {safe_text(value, 40)}, must lie in {least} to {most}")
        return value

    def number(self) -> float:
        """A finite number."""
        value = self.value
        if isinstance(value, str) and NUMBER.fullmatch(value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fault(f"must be a number, is {safe_text(self.value, 40)}")
        try:
            result = float(value)
        except OverflowError:
            result = np.inf
        if not np.isfinite(result):
            raise self.fault("overflows a double")
        return result

    def numbers(self) -> Array:
        """A flat list of finite numbers, float64; lists in lists are a fault, to lwtnn as to us."""
        if not isinstance(self.value, list):
            raise self.fault("must be a list of numbers")
        if set(map(type, self.value)) <= {float}:  # the usual case: millions of weights, already known to be finite
            return np.array(self.value, dtype=np.float64)
        return np.array([element.number() for element in self.elements()], dtype=np.float64)
