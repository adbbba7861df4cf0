"""What a Reshape means: which axis of its input each axis of its output is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from modelhub_lwtnn.meaning import Refusal

if TYPE_CHECKING:
    from modelhub_lwtnn.op import Op

__all__ = ["align", "target"]

Size = int | str
"""A length, -1 for whatever is left, or the name of an axis whose length is meant."""


def align(source: Sequence[tuple[str, int | None]], wish: Sequence[Size]) -> tuple[str, ...] | None:
    """The axes of a tensor with axes `source` (name, length or None) after a reshape to `wish`; None if not ours.

    Axes of length 1 may come and go. Time and features side by side may become one axis where both lengths are known.
    """
    if not source and not wish:
        return ()
    if source and wish:
        (name, length), size = source[0], wish[0]
        if size in (name, -1) or (length is not None and size == length):
            rest = align(source[1:], wish[1:])
            if rest is not None:
                return (name, *rest)
        pair = _pair(source)
        if pair is not None and size in (-1, pair[1]):
            rest = align(source[pair[2] :], wish[1:])
            if rest is not None:
                return (pair[0], *rest)
    if wish and wish[0] == 1:
        rest = align(source, wish[1:])
        if rest is not None:
            return ("one", *rest)
    if source and source[0][1] == 1:
        return align(source[1:], wish)
    return None


def _pair(source: Sequence[tuple[str, int | None]]) -> tuple[str, int, int] | None:
    """Time and features next to each other: name and length of the one axis they make, and how many axes they were."""
    first, length = source[0]
    taken = 1
    while taken < len(source) and source[taken][0] == "one":
        taken += 1
    if taken == len(source):
        return None
    second, other = source[taken]
    if {first, second} != {"time", "feature"} or length is None or other is None:
        return None
    return f"{first}*{second}", length * other, taken + 1


def target(op: Op) -> list[Size]:
    """The shape a Reshape asks for. A 0 is the length of the input's axis at that place (ONNX Reshape)."""
    wish = _sizes(op, op.input(1))
    if wish is None:
        raise Refusal("reshapes to computed lengths; lwtnn has no dynamic shapes. Write ONNX.")
    axes = op.data(0).axes
    if op.integer("allowzero", 0):
        return wish
    return [axes[i] if size == 0 and i < len(axes) else size for i, size in enumerate(wish)]


def _sizes(op: Op, value: ir.Value | None) -> list[Size] | None:
    """Lengths in a shape tensor, by name where they are those of an axis of data."""
    if value is None:
        return None
    array = op.constant(value)
    if array is not None:
        return [int(item) for item in array.ravel()]
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "Concat":
        parts = [_sizes(op, part) for part in node.inputs]
        return None if any(part is None for part in parts) else [size for part in parts if part for size in part]
    if node.op_type in ("Cast", "Identity", "Squeeze", "Unsqueeze"):
        return _sizes(op, node.inputs[0])
    if node.op_type == "Shape":
        axes = op.axes_of(node.inputs[0])
        bounds = [node.attributes[name].as_int() if name in node.attributes else None for name in ("start", "end")]
        return None if axes is None else list(axes[slice(*bounds)])
    if node.op_type in ("Gather", "Slice"):
        sizes = _sizes(op, node.inputs[0])
        picks = [None if part is None else op.constant(part) for part in node.inputs[1:]]
        if sizes is None or any(pick is None for pick in picks):
            return None
        numbers = [[int(item) for item in pick.ravel()] for pick in picks if pick is not None]
        if node.op_type == "Gather":
            return [sizes[i] for i in numbers[0]]
        start, end, *_ = (number[0] for number in numbers)
        return sizes[start:end] if len(numbers) < 4 or numbers[3] == [1] else None
    return None
