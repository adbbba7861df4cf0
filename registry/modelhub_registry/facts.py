"""What can be asked of a version's metadata: its values, one by one, as rows of the table `facts`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["LONGEST", "MOST", "facts_of"]

LONGEST = 400
"""Characters of a text that are kept to be compared: a database's index takes no more than some 2,700 bytes."""
MOST = 1000
"""Facts of one version; what goes beyond stays in the manifest and cannot be asked for."""


def facts_of(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for every number, text and truth value, and for every item of a list (`place` counts from 1).

    A value within an object has the keys on the way to it, joined by dots. null says nothing.
    """
    left = MOST
    seen = set()
    for key, place, value in _values("", metadata):
        row = _row(key, place, value)
        if row is None or (key, place) in seen:
            continue
        seen.add((key, place))
        if left == 0:
            return
        left -= 1
        yield row


def _values(key: str, value: Any) -> Iterator[tuple[str, int, Any]]:
    if isinstance(value, dict):
        for inner in value:
            yield from _values(f"{key}.{inner}" if key else inner, value[inner])
    elif isinstance(value, list):
        for place, item in enumerate(value, start=1):
            yield key, place, item
    else:
        yield key, 0, value


def _row(key: str, place: int, value: Any) -> dict[str, Any] | None:
    row = {"key": _fit(key), "place": place, "text": None, "real": None}
    if isinstance(value, bool):
        return {**row, "kind": "truth", "real": float(value)}
    if isinstance(value, int | float):
        try:
            return {**row, "kind": "number", "real": float(value)}
        except OverflowError:
            return None
    if isinstance(value, str):
        return {**row, "kind": "text", "text": _fit(value)}
    return None


def _fit(text: str) -> str:
    """What every database takes: no NUL, no half characters, not too long."""
    return text[:LONGEST].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
