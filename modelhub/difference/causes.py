"""Why does this node compute something else? The faults that converters are known for, looked for in two nodes.

Only what is seen in the numbers and operators of both is told; nothing seen gives no cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.difference.bisect import Divergence
from modelhub.difference.trace import Trace
from modelhub.errors import safe_text
from modelhub.graph.canonical import const
from modelhub.graph.interface import Interface

__all__ = ["causes", "layer"]

Array = NDArray[np.generic]

GATES = {"LSTM": ("input", "output", "forget", "cell"), "GRU": ("update", "reset", "new")}
"""ONNX's order of the gates in W, R and B (iofc and zrh)."""

OPERANDS = {
    "BatchNormalization": ("input", "scale", "bias", "mean", "variance"),
    "Conv": ("input", "kernel", "bias"),
    "GRU": ("input", "kernel", "recurrent kernel", "bias"),
    "Gemm": ("input", "kernel", "bias"),
    "LSTM": ("input", "kernel", "recurrent kernel", "bias"),
    "LayerNormalization": ("input", "scale", "bias"),
    "RNN": ("input", "kernel", "recurrent kernel", "bias"),
}

ORDERED = ("Concat", "Div", "Gather", "Gemm", "MatMul", "Pow", "Sub", "Where")
"""Operators that care which operand comes first."""

BRANCHES = {
    "nodes_splits": "threshold", "nodes_modes": "comparison", "leaf_weights": "leaf", "nodes_hitrates": "hit rate",
    "nodes_missing_value_tracks_true": "way of missing values", "nodes_featureids": "variable",
}  # fmt: skip

SHOWN = 3


def layer(node: ir.Node) -> str:
    """The layer a node belongs to: its name without the operator."""
    name = node.name or node.op_type
    return safe_text(name.rsplit("/", 1)[0])


def causes(found: Divergence, target: Trace) -> list[str]:
    """What is different about the node of the target, in words; empty where nothing is recognised."""
    if found.missing:
        what = " and ".join(node.op_type for node in found.missing)
        behind = f" after {layer(found.before)}" if found.before is not None else ""
        return [f"{what} is missing in the target{behind}"]
    if found.node is None or found.partner is None:
        return []
    ours, theirs = found.partner, found.node
    if ours.op_type != theirs.op_type:
        return [f"the target computes {theirs.op_type} where the source computes {ours.op_type}"]
    return [
        *_exchanged(found, ours, theirs),
        *_numbers(ours, theirs, target.interface),
        *_attributes(ours, theirs, target.interface),
    ]


def _exchanged(found: Divergence, ours: ir.Node, theirs: ir.Node) -> Iterator[str]:
    """Whether the operands stand in another order."""
    have = [found.agreed.get(v.name or "") for v in theirs.inputs if v is not None and const(v) is None]
    want = [v.name for v in ours.inputs if v is not None and const(v) is None]
    if theirs.op_type in ORDERED and have != want and sorted(map(str, have)) == sorted(map(str, want)):
        order = ", ".join(safe_text(name) for name in have)
        yield f"the inputs of {theirs.op_type} are exchanged: the target takes them as {order}"


def _numbers(ours: ir.Node, theirs: ir.Node, record: Interface) -> Iterator[str]:
    names = OPERANDS.get(theirs.op_type, ())
    for index in range(max(len(ours.inputs), len(theirs.inputs))):
        a, b = _operand(ours, index), _operand(theirs, index)
        what = names[index] if index < len(names) else _called(theirs, index)
        if a is None and b is None:
            continue
        if a is None or b is None:
            if (index < len(ours.inputs) and ours.inputs[index] is not None and a is None) or index == 0:
                continue
            yield f"the {what} is missing in the {'target' if b is None else 'source'}"
            continue
        text = _entrance(a, b, what, theirs, record) or _compared(a, b, what, theirs.op_type)
        if text is not None:
            yield text + _threshold(ours, theirs, index, record)


def _called(node: ir.Node, index: int) -> str:
    """What the file or the entrance of the graph calls a constant: the end of its name."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return safe_text((value.name or "constant").rsplit("/", 1)[-1]) if value is not None else "constant"


def _entrance(a: Array, b: Array, what: str, node: ir.Node, record: Interface) -> str | None:
    """Offsets, scales and defaults at the entrance of the graph, by the names of variables."""
    entry = next((entry for entry in record.inputs if (node.name or "").startswith(f"{entry.tensor}/")), None)
    if entry is None or what not in ("offset", "scale", "default") or a.shape != b.shape != ():
        return None
    wrong = np.flatnonzero((a != b) & ~(np.isnan(a) & np.isnan(b)))
    told = [
        f"the {what} of variable {safe_text(entry.features[i].name)} is {_number(b[i])} in the target, "
        f"{_number(a[i])} in the source"
        for i in wrong[:SHOWN]
        if i < len(entry.features)
    ]
    return "; ".join(told) + (f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else "") or None


def _number(x: np.generic) -> str:
    return "none" if np.isnan(x) else repr(float(x))


def _operand(node: ir.Node, index: int) -> Array | None:
    """A constant operand; the kernel of a Gemm as [in, out]."""
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = const(value)
    if tensor is None:
        return None
    array = tensor.numpy()
    across = node.attributes.get("transB")
    if node.op_type == "Gemm" and index == 1 and across is not None and across.as_int():
        array = array.T
    return np.asarray(array)


def _compared(a: Array, b: Array, what: str, op_type: str) -> str | None:
    """How two constants differ; None where they do not."""
    if a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        return None
    if a.shape != b.shape:
        return f"the {what} has shape {list(b.shape)} in the target, {list(a.shape)} in the source"
    x, y = a.astype(np.float64), b.astype(np.float64)
    different = (x != y) & ~(np.isnan(x) & np.isnan(y))
    if not different.any():
        return None
    gates = GATES.get(op_type, ())
    known = _moved(x, y, what, gates) or _rounded(x[different], y[different], what, int(different.sum()), x.size)
    return known or _places(x, y, different, what)


def _moved(x: NDArray[np.float64], y: NDArray[np.float64], what: str, gates: Sequence[str]) -> str | None:
    """Transposed, with gates or single rows and columns exchanged, or with the sign turned."""
    if x.ndim == 2 and x.shape[0] == x.shape[1] and np.array_equal(x.T, y, equal_nan=True):
        return f"the {what} is transposed"
    if np.array_equal(-x, y, equal_nan=True):
        return f"the {what} has the opposite sign"
    if gates and x.ndim > 1 and x.shape[1] % len(gates) == 0:
        blocks, others = (np.stack(np.split(z, _parts(z, gates), axis=1)) for z in (x, y))
        for order in sorted(permutations(range(len(gates))), key=lambda p: sum(i != k for k, i in enumerate(p))):
            mixed = [i + len(gates) * half for half in range(len(blocks) // len(gates)) for i in order]
            if list(order) != sorted(order) and np.array_equal(blocks[mixed], others, equal_nan=True):
                swapped = [f"{gates[i]} where {gates[k]} belongs" for k, i in enumerate(order) if i != k]
                return f"the gates of the {what} are in another order: {', '.join(swapped)}"
    for axis in range(x.ndim):
        if x.shape[axis] == 1:
            continue
        rows, others = (np.moveaxis(z, axis, 0).reshape(x.shape[axis], -1) for z in (x, y))
        wrong = np.flatnonzero((rows != others).any(axis=1))
        if len(wrong) == 2 and np.array_equal(rows[wrong[::-1]], others[wrong]):
            return f"entries {wrong[0]} and {wrong[1]} of the {what} (axis {axis}) are exchanged"
    return None


def _parts(z: NDArray[np.float64], gates: Sequence[str]) -> int:
    """How many blocks axis 1 holds: one per gate, in a bias twice."""
    return len(gates) * (2 if z.ndim == 2 and z.shape[1] % (2 * len(gates)) == 0 else 1)


def _rounded(x: NDArray[np.float64], y: NDArray[np.float64], what: str, count: int, size: int) -> str | None:
    """Whether numbers were kept with too few digits."""
    if count < max(2, size // 4):
        return None
    for name in ("float32", "float16"):
        with np.errstate(over="ignore"):
            if np.array_equal(x.astype(name).astype(np.float64), y):
                return f"the {what} was rounded to {name}"
    few = slice(0, 1000)
    for digits in range(2, 16):
        if all(float(f"{p:.{digits}g}") == q for p, q in zip(x[few], y[few], strict=True)):
            return f"the {what} was printed with {digits} digits"
    return None


def _places(x: NDArray[np.float64], y: NDArray[np.float64], different: NDArray[np.bool_], what: str) -> str:
    """The numbers that differ, where they are few."""
    count = int(different.sum())
    if count > max(SHOWN, x.size // 2) and count > SHOWN:
        return f"the {what} holds other numbers ({count} of {x.size})"
    shown = []
    for place in np.argwhere(different)[:SHOWN]:
        p, q = float(x[tuple(place)]), float(y[tuple(place)])
        where = "".join(f"[{i}]" for i in place)
        shown.append(f"{what}{where} is {q!r} in the target, {p!r} in the source{_steps(p, q)}")
    return "; ".join(shown) + (f"; and {count - SHOWN} more" if count > SHOWN else "")


def _steps(p: float, q: float) -> str:
    """Says it where two numbers are neighbours."""
    if not (np.isfinite(p) and np.isfinite(q)):
        return ""
    for kind in (np.float64, np.float32):
        with np.errstate(over="ignore"):
            a, b = kind(p), kind(q)
        if a != b and b in (np.nextafter(a, kind(np.inf)), np.nextafter(a, kind(-np.inf))):
            return f" (one {kind.__name__} ulp)"
    return ""


def _threshold(ours: ir.Node, theirs: ir.Node, index: int, record: Interface) -> str:
    """For a row that compares one variable with a threshold, as forests in lwtnn do: which, and with what."""
    kernel, a, b = _operand(theirs, 1), _operand(ours, 2), _operand(theirs, 2)
    source = theirs.inputs[0]
    if theirs.op_type != "Gemm" or index != 2 or kernel is None or a is None or b is None or source is None:
        return ""
    rows = np.flatnonzero(a != b) if a.shape == b.shape else np.zeros(0, np.int64)
    told = []
    for row in rows[:SHOWN]:
        column = kernel[:, row].astype(np.float64)
        (used,) = np.nonzero(column)
        if len(used) != 1 or abs(column[used[0]]) < 1e30:
            return ""
        p, q = (-float(z[row]) / float(column[used[0]]) for z in (a, b))
        told.append(f"{_variable(source, int(used[0]), record)} is compared with {q!r}, in the source with {p!r}")
    return f": {'; '.join(told)}" if told else ""


def _variable(value: ir.Value, column: int, record: Interface) -> str:
    """The name of a column of an input."""
    origin: ir.Value | None = value
    while origin is not None and origin.producer() is not None and _keeps(origin.producer()):  # type: ignore[arg-type]
        origin = origin.producer().inputs[-1 if origin.producer().op_type == "Where" else 0]  # type: ignore[union-attr]
    known = next((entry for entry in record.inputs if origin is not None and entry.tensor == origin.name), None)
    if known is None or column >= len(known.features):
        return f"column {column} of {safe_text(value.name)}"
    return safe_text(known.features[column].name)


def _keeps(node: ir.Node) -> bool:
    """Whether a node leaves the columns of its input where they are."""
    return node.op_type in ("Cast", "Identity", "Where")


def _attributes(ours: ir.Node, theirs: ir.Node, record: Interface) -> Iterator[str]:
    for name in sorted({*ours.attributes, *theirs.attributes}):
        a, b = ours.attributes.get(name), theirs.attributes.get(name)
        if name == "transB" or (a is not None and a.type == ir.AttributeType.GRAPH):
            continue
        x, y = _plain(a), _plain(b)
        if _same_attribute(x, y):
            continue
        what = BRANCHES.get(name, name)
        if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
            text = _compared(x, y, what, theirs.op_type)
            if text is not None:
                yield text + (_split(x, y, theirs, record) if name == "nodes_splits" else "")
        elif isinstance(x, np.ndarray) or isinstance(y, np.ndarray) or x != y:
            yield f"{what} is {_short(y)} in the target, {_short(x)} in the source"


def _short(value: object) -> str:
    """An attribute's value, or how many numbers it holds."""
    many = isinstance(value, np.ndarray) and value.size > SHOWN
    return f"{np.size(value)} numbers" if many else safe_text(value)  # type: ignore[arg-type]


def _same_attribute(x: object, y: object) -> bool:
    """Whether two attributes mean the same: 0 is what most are that are not given, and floats are kept in float32."""
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        few = x.shape == y.shape and x.size < 8 and x.dtype.kind == y.dtype.kind == "f"
        return few and np.array_equal(x.astype(np.float32), y.astype(np.float32))
    if isinstance(x, float) and isinstance(y, float):
        return bool(np.float32(x) == np.float32(y))
    return {type(x), type(y)} == {int, str} and 0 in (x, y)


def _split(x: Array, y: Array, node: ir.Node, record: Interface) -> str:
    """The variables whose thresholds differ."""
    columns = node.attributes.get("nodes_featureids")
    source = node.inputs[0]
    if columns is None or source is None or x.shape != y.shape:
        return ""
    numbers = np.asarray(_plain(columns)).ravel()
    wrong = [int(numbers[i]) for i in np.flatnonzero(x != y) if i < len(numbers)]
    names = dict.fromkeys(_variable(source, column, record) for column in wrong)
    return f" (of {', '.join(list(names)[:SHOWN])})" if names else ""


def _plain(attribute: ir.Attr | None) -> object:
    """An attribute's value, arrays for lists of numbers."""
    if attribute is None:
        return "not given"
    if attribute.type == ir.AttributeType.TENSOR:
        return np.asarray(attribute.as_tensor().numpy())
    if attribute.type in (ir.AttributeType.FLOATS, ir.AttributeType.INTS):
        return np.asarray(attribute.value)
    return attribute.value
