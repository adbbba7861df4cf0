"""Steps that a network masks: which number says so at each input, and events that end with such steps.

A mask is found where a graph asks whether an input, behind its offset and scale, equals a constant: Keras's Masking and
Embedding(mask_zero), and what PyTorch users write by hand. Whether masked steps then change nothing is for the graph
itself to show (`modelhub.equivalence.bench`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.interface import Input

__all__ = ["behind", "masking", "padded"]

ENTRANCE = ("Add", "Cast", "Identity", "Mul", "Sub", "Where")
"""What may stand between an input and the question, for the sake of offsets, scales and defaults."""


def masking(model: ir.Model) -> dict[str, float]:
    """Input -> the number, after offset and scale, that masks a step all of whose variables are equal to it."""
    found: dict[str, float] = {}
    for node in model.graph:
        if node.op_type != "Equal" or node.domain != "":
            continue
        for value, other in (tuple(node.inputs), tuple(reversed(node.inputs))):
            constant = None if other is None else other.const_value
            if value is None or constant is None or constant.size != 1:
                continue
            for name in _inputs(value):
                found.setdefault(name, float(constant.numpy().ravel()[0]))
    return found


def _inputs(value: ir.Value) -> list[str]:
    """The graph inputs that `value` is, but for its entrance."""
    found, todo, seen = [], [value], {value}
    while todo:
        current = todo.pop()
        node = current.producer()
        if node is None and current.is_graph_input():
            found.append(current.name or "")
        if node is not None and node.op_type in ENTRANCE:
            before = [value for value in node.inputs if value is not None and value not in seen]
            seen.update(before)
            todo += before
    return found


def padded(x: NDArray[Any], record: Input, number: float, steps: int) -> NDArray[Any]:
    """`x`, [events, steps, ...], with masked steps behind its own, `steps` together."""
    shape = (len(x), max(steps - x.shape[1], 0), *x.shape[2:])
    return np.concatenate([x, np.broadcast_to(behind(record, number, x), shape).astype(x.dtype)], axis=1)


def behind(record: Input, number: float, x: NDArray[Any]) -> NDArray[np.float64]:
    """A step of `x`, [events, steps, ...], as it must come in for `number` to stand behind offset and scale."""
    raw = [number / f.scale - f.offset if f.scale else 0.0 for f in record.features]
    if x.dtype.kind != "f" or len(raw) != x.shape[-1]:
        return np.full(x.shape[2:], number)
    return np.array(raw)
