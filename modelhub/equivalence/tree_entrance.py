"""What stands between an input of the graph and a forest, and the forest as it looks from that input.

A split asks about ``z <= t``, and z is the input scaled, shifted, selected: monotone in one column of the input. So
there is one float32 at which the answer flips. It is found by bisection over the float32 numbers, with every operator
computed as the engine computes it; the forest that asks about it decides every float32 row as the graph does.

    x ──► Gather ──► Sub ──► Div ──► TreeEnsemble(z <= t)          x ──► TreeEnsemble(x[column] <= u)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.builder import KEPT
from modelhub.graph.canonical import const
from modelhub.graph.forest import Compare, Forest

__all__ = ["chosen_from_input", "seen_from_input"]

LARGEST = np.finfo(np.float32).max

DEEPEST, WIDEST = 16, 1 << 16
"""How many Concats may follow each other, and how many columns come out."""

Step = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class _Column:
    """A column of a value in the graph: `steps` on column `source` of a graph input; `falls` if they turn it round."""

    source: int
    steps: tuple[Step, ...] = ()
    falls: bool = False


def seen_from_input(forest: Forest, value: ir.Value | None) -> tuple[Forest, ir.Value] | None:
    """The forest over the columns of the graph input that feeds `value`, and that input; None if that is not solved.

    Solved are Cast, Identity, Where (its last branch: NaN and categories are replaced in the others), Gather, Slice,
    ArrayFeatureExtractor and Concat of columns of one input, and Add, Sub, Mul and Div with constants in nodes that
    keep float64: where a file computes them in float32, another number lies at the threshold than in float64.
    """
    found = _columns(value)
    if found is None:
        return None
    entry, columns = found
    if entry.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE) or forest.features > len(columns):
        return None
    splits = np.flatnonzero(forest.splits)
    asked = forest.feature[splits]
    arithmetic = np.array([bool(column.steps) for column in columns])
    if (arithmetic[asked] & (forest.compare[splits] == Compare.MEMBER)).any():
        return None
    source = np.array([column.source for column in columns], np.int64)
    feature, compare, threshold = forest.feature.copy(), forest.compare.copy(), forest.threshold.copy()
    feature[splits] = source[asked]
    for index in np.unique(asked[arithmetic[asked]]):
        here = splits[asked == index]
        compare[here], threshold[here] = _flips(columns[index], forest.compare[here], forest.threshold[here])
    assert entry.shape is not None
    width = entry.shape[1]
    assert isinstance(width, int)
    return replace(forest, features=width, feature=feature, compare=compare, threshold=threshold), entry


def chosen_from_input(value: ir.Value | None) -> bool:
    """Whether the columns of `value` are columns of one graph input as they come: chosen, and not computed with."""
    found = _columns(value)
    return found is not None and not any(column.steps for column in found[1])


def _flips(
    column: _Column, compare: NDArray[np.uint8], threshold: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Comparisons and float32 thresholds on the input that decide as (`compare`, `threshold`) do behind the steps."""
    closed = (compare == Compare.LE) | (compare == Compare.GT)

    def below(x: NDArray[np.float32]) -> NDArray[np.bool_]:
        z: NDArray[Any] = x
        with np.errstate(over="ignore", invalid="ignore"):
            for step in column.steps:
                z = step(z)
        return np.asarray(np.where(closed, z <= threshold, z < threshold) ^ column.falls)

    # the last number below the flip, by bisection over float32 in order; without one, -infinity
    low = np.full(len(threshold), _place(np.float32(-LARGEST)) - 1)
    high = np.full(len(threshold), _place(np.float32(LARGEST)))
    while (low < high).any():
        middle = (low + high + 1) // 2
        holds = below(_number(middle))
        low, high = np.where(holds, middle, low), np.where(holds, high, middle - 1)
    order = compare <= Compare.GT
    positive = (compare == Compare.LE) | (compare == Compare.LT)
    result = np.where(positive ^ column.falls, Compare.LE, Compare.GT)
    flip = _number(low).astype(np.float64)
    behind = _number(np.minimum(low + 1, _place(np.float32(LARGEST)))).astype(np.float64)  # where equality may begin
    return (
        np.where(order, result, compare).astype(np.uint8),
        np.where(order, flip, flip if column.falls else behind),
    )


def _place(number: np.float32) -> int:
    """A float32 as a whole number, in the same order."""
    bits = int(number.view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _number(place: NDArray[np.int64]) -> NDArray[np.float32]:
    """The float32 numbers at places; behind the first finite one -infinity."""
    bits = np.where(place >= 0, place, -place | (1 << 31)).astype(np.uint32)
    return bits.view(np.float32)


def _columns(value: ir.Value | None, depth: int = 0) -> tuple[ir.Value, list[_Column]] | None:
    """The columns of a two-dimensional value and the graph input they come from."""
    chain: list[ir.Node] = []
    while value is not None and not value.is_graph_input():
        node = value.producer()
        if node is None or not node.inputs or node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            return None
        chain.append(node)
        if node.op_type == "Concat":
            break
        value = node.inputs[2 if node.op_type == "Where" else _data_place(node)]
    if value is None or depth > DEEPEST:
        return None
    found: tuple[ir.Value, list[_Column]] | None
    if value.is_graph_input():
        shape = value.shape
        width = shape[1] if shape is not None and len(shape) == 2 else None
        found = (value, [_Column(index) for index in range(width)]) if isinstance(width, int) else None
    else:
        found = _joined(chain.pop(), depth)
    for node in reversed(chain):
        columns = None if found is None else _applied(node, found[1])
        if found is None or columns is None:
            return None
        found = found[0], columns
    return found


def _data_place(node: ir.Node) -> int:
    """Which input of a node is not the constant one."""
    return 1 if len(node.inputs) == 2 and const(node.inputs[0]) is not None else 0


def _joined(node: ir.Node, depth: int) -> tuple[ir.Value, list[_Column]] | None:
    """A Concat of columns that all come from one input."""
    parts = [_columns(value, depth + 1) for value in node.inputs]
    axis = node.attributes.get("axis")
    if axis is None or axis.as_int() not in (1, -1) or not parts or any(part is None for part in parts):
        return None
    entries = {id(part[0]) for part in parts if part is not None}
    first = parts[0]
    joined = [column for part in parts if part is not None for column in part[1]]
    return (first[0], joined) if len(entries) == 1 and first is not None and len(joined) <= WIDEST else None


_WIDE = {ir.DataType.FLOAT.value: np.float32, ir.DataType.DOUBLE.value: np.float64}


def _applied(node: ir.Node, columns: list[_Column]) -> list[_Column] | None:
    """Columns behind a node; None for what is not solved."""
    width = len(columns)
    match node.op_type:
        case "Identity" | "Where":
            return columns
        case "Cast":
            kind = _WIDE.get(node.attributes["to"].as_int())
            if kind is None:
                return None
            return [_stepped(c, lambda z: z.astype(kind)) if c.steps else c for c in columns]
        case "Gather" | "ArrayFeatureExtractor":
            index = _constant(node, 1)
            axis = node.attributes.get("axis")
            if index is None or (node.op_type == "Gather" and (axis is None or axis.as_int() not in (1, -1))):
                return None
            places = index.astype(np.int64).ravel()
            if index.ndim == 0 or ((places < -width) | (places >= width)).any():
                return None
            return [columns[place] for place in places]
        case "Slice":
            return _sliced(node, columns)
        case "Add" | "Sub" | "Mul" | "Div" if KEPT in node.metadata_props:
            return _arithmetic(node, columns)
        case _:
            return None


def _arithmetic(node: ir.Node, columns: list[_Column]) -> list[_Column] | None:
    first = _data_place(node) == 0
    array = _constant(node, 1 if first else 0)
    if array is None or (node.op_type == "Div" and not first) or array.ndim > 2 or array.size not in (1, len(columns)):
        return None
    numbers = np.broadcast_to(array.reshape(-1), len(columns))
    if not np.isfinite(numbers).all() or (node.op_type in ("Mul", "Div") and (numbers == 0).any()):
        return None
    return [_scaled(c, node.op_type, number, first=first) for c, number in zip(columns, numbers, strict=True)]


def _scaled(column: _Column, op_type: str, number: Any, *, first: bool = True) -> _Column:
    """The column behind ``column op number``, or ``number op column`` where the column is not `first`."""
    turned = (op_type in ("Mul", "Div") and number < 0) or (op_type == "Sub" and not first)
    return _stepped(column, _operation(op_type, number, first=first), turned=turned)


def _stepped(column: _Column, step: Step, *, turned: bool = False) -> _Column:
    return replace(column, steps=(*column.steps, step), falls=column.falls ^ turned)


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide,
}  # fmt: skip


def _operation(op_type: str, number: Any, *, first: bool) -> Step:
    """One operator in the number format of its constant."""
    function = _OPERATIONS[op_type]

    def step(z: NDArray[Any]) -> NDArray[Any]:
        z = z.astype(number.dtype)
        return np.asarray(function(z, number) if first else function(number, z))

    return step


def _sliced(node: ir.Node, columns: list[_Column]) -> list[_Column] | None:
    parts = [_constant(node, place) if len(node.inputs) > place else None for place in (1, 2, 3, 4)]
    start, stop, axes, stride = (None if part is None or part.size != 1 else int(part.reshape(-1)[0]) for part in parts)
    if start is None or stop is None or axes not in (1, -1) or stride not in (None, 1):
        return None
    return columns[start:stop]


def _constant(node: ir.Node, place: int) -> NDArray[Any] | None:
    tensor = const(node.inputs[place]) if len(node.inputs) > place else None
    return None if tensor is None else np.asarray(tensor.numpy())
