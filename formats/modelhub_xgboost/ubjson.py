"""UBJSON as XGBoost writes it (https://ubjson.org, draft 12), read within bounds.

Numbers are big-endian. Arrays of one numeric type come out as numpy arrays, straight from the bytes of the file.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from modelhub.errors import UnreadableFile, safe_text
from modelhub.files import LIMITS

__all__ = ["parse"]

VALUES = 20_000_000
"""How many values outside typed arrays a file may hold: some bytes of file each, some dozens of memory."""

_NUMBERS = {b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
_STRUCTS = {
    mark: struct.Struct(form) for mark, form in zip(_NUMBERS, (">b", ">B", ">h", ">i", ">q", ">f", ">d"), strict=True)
}
_INTEGERS = frozenset(b"iUIlL"[i : i + 1] for i in range(5))
_CONSTANTS = {b"Z": None, b"T": True, b"F": False}


def parse(data: bytes, where: str) -> Any:
    """The one value in `data`; `where` names its place in errors. Raises `UnreadableFile`.

    Lengths are compared with what is left of the file before anything is made. Refused: doubled keys, typed arrays of
    anything but numbers and text, high-precision numbers, nesting beyond `LIMITS.depth`, bytes behind the value.
    """
    reader = _Reader(data, where)
    try:
        value = reader.value(reader.mark(), 0)
    except struct.error:
        raise UnreadableFile(f"{where}: the file ends in the middle of a value") from None
    if reader.at != len(data):
        raise UnreadableFile(f"{where}: {len(data) - reader.at} bytes too many behind the model")
    return value


class _Reader:
    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.at = 0
        self.left = VALUES

    def refuse(self, what: str) -> UnreadableFile:
        return UnreadableFile(f"{self.where}: UBJSON at byte {self.at}: {what}")

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            raise self.refuse(f"{count} bytes announced, {len(self.data) - self.at} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def mark(self) -> bytes:
        """The next type mark; no-ops are skipped."""
        mark = self.take(1)
        while mark == b"N":
            mark = self.take(1)
        return mark

    def peek(self) -> bytes:
        return self.data[self.at : self.at + 1]

    def number(self, mark: bytes) -> int | float:
        form = _STRUCTS[mark]
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value  # type: ignore[no-any-return]

    def length(self) -> int:
        mark = self.take(1)
        if mark not in _INTEGERS:
            raise self.refuse(f"{safe_text(mark)} where a length should be")
        value = self.number(mark)
        if not 0 <= value <= len(self.data) - self.at:
            raise self.refuse(f"a length of {value}, with {len(self.data) - self.at} bytes left")
        return int(value)

    def text(self) -> str:
        raw = self.take(self.length())
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse("text that is not UTF-8") from None

    def value(self, mark: bytes, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self.refuse(f"more than {VALUES} values")
        if mark in _STRUCTS:
            return self.number(mark)
        if mark == b"S":
            return self.text()
        if mark in _CONSTANTS:
            return _CONSTANTS[mark]
        if mark in (b"[", b"{"):
            if depth >= LIMITS.depth:
                raise self.refuse("nested too deeply")
            return self.array(depth) if mark == b"[" else self.object(depth)
        if mark == b"C":
            return self.take(1).decode("latin-1")
        raise self.refuse(f"a value of type {safe_text(mark)}, which no XGBoost model holds")

    def array(self, depth: int) -> Any:
        kind = None
        if self.peek() == b"$":
            self.take(1)
            kind = self.take(1)
            if self.peek() != b"#":
                raise self.refuse("a typed array without its length")
        if self.peek() == b"#":
            self.take(1)
            count = self.length()
            if kind in _NUMBERS:
                numbers = np.dtype(_NUMBERS[kind])
                return np.frombuffer(self.take(count * numbers.itemsize), numbers)
            if kind == b"S":
                return [self.value(kind, depth + 1) for _ in range(count)]
            if kind is not None:
                raise self.refuse(f"an array of type {safe_text(kind)}")
            return [self.value(self.mark(), depth + 1) for _ in range(count)]
        items = []
        while (mark := self.mark()) != b"]":
            items.append(self.value(mark, depth + 1))
        return items

    def object(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        count = -1
        if self.peek() == b"$":
            raise self.refuse("an object of one type")
        if self.peek() == b"#":
            self.take(1)
            count = self.length()
        while count != 0:
            while self.peek() == b"N":
                self.take(1)
            if count < 0 and self.peek() == b"}":
                self.take(1)
                break
            key = self.text()
            if key in items:
                raise self.refuse(f"the key {safe_text(key)!r} is given twice in one object")
            items[key] = self.value(self.mark(), depth + 1)
            count -= 1
        return items
