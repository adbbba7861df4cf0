"""Two files of what should be one model: which inputs, variables, outputs and labels belong together, and what both
can be asked.

By name where both know all of them, as users and engines do; else by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import Inconclusive, safe_text
from modelhub.graph.interface import Interface

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.graph.interface import Input, Output
    from modelhub.protocols import Arrays

__all__ = ["Pairing", "keeps", "narrow", "pairing", "unaskable"]


@dataclass(frozen=True)
class Pairing:
    """The way from the tensors of one record to those of another.

    inputs:  for every input of the other its tensor, ours, and the columns of ours in its order.
    outputs: for every output of ours its tensor, the other's, and the columns of the other in our order.
    """

    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]

    def there(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Raw inputs of ours as the other takes them."""
        return {theirs: _columns(np.asarray(arrays[ours]), columns) for theirs, ours, columns in self.inputs}

    def back(self, results: Arrays) -> dict[str, NDArray[Any]]:
        """Answers of the other as ours would be."""
        return {ours: _columns(np.asarray(results[theirs]), columns) for ours, theirs, columns in self.outputs}


def _columns(x: NDArray[Any], columns: tuple[int, ...]) -> NDArray[Any]:
    if columns == tuple(range(len(columns))) or x.ndim < 2 or x.shape[-1] != len(columns):
        return x
    return x[..., list(columns)]


def pairing(ours: Interface, theirs: Interface, *, names: bool = True) -> Pairing:
    """Pair two records; only by position where `names` is false. Raises `Inconclusive` where they do not fit."""
    names = names and not (ours.invented or theirs.invented)
    inputs = [
        (b.tensor, a.tensor, _order([f.name for f in a.features], [f.name for f in b.features], names=names))
        for b, a in _pairs("input", theirs.inputs, ours.inputs, names=names)
    ]
    outputs = [
        (a.tensor, b.tensor, _order(b.labels, a.labels, names=names))
        for a, b in _pairs("output", ours.outputs, theirs.outputs, names=names)
    ]
    return Pairing(tuple(inputs), tuple(outputs))


def _pairs(what: str, wanting: Sequence[Any], having: Sequence[Any], *, names: bool) -> list[tuple[Any, Any]]:
    """For each of `wanting` the one of `having` it belongs to."""

    def key(record: Input | Output) -> tuple[str, bool]:
        return record.name, record.sequence

    known = {key(record): record for record in having}
    if names and len(known) == len(having) and all(key(record) in known for record in wanting):
        return [(record, known[key(record)]) for record in wanting]
    if len(wanting) != len(having):
        raise Inconclusive(f"one model has {len(wanting)} {what}s, the other {len(having)}: give names (--interface)")
    if sorted(r.sequence for r in wanting) == sorted(r.sequence for r in having):  # vectors may stand before sequences
        order = sorted(range(len(having)), key=lambda i: having[i].sequence)
        places = sorted(range(len(wanting)), key=lambda i: wanting[i].sequence)
        match = dict(zip(places, order, strict=True))
        return [(record, having[match[i]]) for i, record in enumerate(wanting)]
    return list(zip(wanting, having, strict=True))


def _order(have: Sequence[str], want: Sequence[str], *, names: bool) -> tuple[int, ...]:
    """Where in `have` the names of `want` stand."""
    if names and len(set(have)) == len(have) and set(have) == set(want):
        return tuple(list(have).index(name) for name in want)
    if len(have) != len(want):
        raise Inconclusive(f"{len(have)} components in one model, {len(want)} in the other")
    return tuple(range(len(have)))


def narrow(model: ir.Model, other: ir.Model) -> None:
    """Fix the lengths of `model`'s inputs, in place, that are fixed in `other`: only with these can both be asked.

    So with the number of events that `other` takes at a time; all are multiples of 1.
    """
    import onnx_ir as ir

    record, beside = Interface.of(model), Interface.of(other)
    try:
        pairs = _pairs("input", beside.inputs, record.inputs, names=not (record.invented or beside.invented))
    except Inconclusive:
        return
    ours, theirs = ({value.name: value for value in each.graph.inputs} for each in (model, other))
    fixed: dict[str, int] = {}
    for there, here in pairs:
        a, b = ours[here.tensor].shape, theirs[there.tensor].shape
        if a is None or b is None or len(a) != len(b):
            continue
        sizes = list(a)
        for axis, size in enumerate(b):
            if not isinstance(size, int) or isinstance(a[axis], int) or (axis == 0 and size == 1):
                continue
            sizes[axis] = size
            if axis == 1:
                fixed[here.tensor] = size
        ours[here.tensor].shape = ir.Shape(sizes)  # a new one: those of files are frozen
    inputs = [
        replace(entry, min_length=fixed[entry.tensor], max_length=fixed[entry.tensor])
        if entry.sequence and entry.tensor in fixed
        else entry
        for entry in record.inputs
    ]
    replace(record, inputs=tuple(inputs)).store(model)


def unaskable(model: ir.Model) -> str:
    """Why a model cannot be given events, which lie along the first axis of every input; "" where it can."""
    fixed: dict[int, str] = {}
    if not model.graph.inputs:
        return "it has no inputs"
    for value in model.graph.inputs:
        if value.shape is None:
            continue
        name = safe_text(value.name)
        if not len(value.shape):
            return f"input {name} is a single number for all events"
        if 0 in list(value.shape):
            return f"input {name} has room for nothing"
        if isinstance(value.shape[0], int):
            fixed.setdefault(value.shape[0], name)
    if len(fixed) > 1:
        (a, first), (b, second), *_ = fixed.items()
        return f"input {first} takes {a} events and input {second} {b}"
    return ""


def keeps(other: ir.Model, format: str) -> bool:
    """Whether a target computes in float64 what the graph keeps in it; an ONNX file from elsewhere may not."""
    from modelhub.graph.builder import KEPT

    return format != "onnx" or any(KEPT in node.metadata_props for node in other.graph)
