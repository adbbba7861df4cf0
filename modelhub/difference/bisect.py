"""The first node that diverges: two graphs laid open side by side, followed from the inputs until they part.

Nodes are paired by what they compute, not by their names: a value of the target that is, on every event of every batch,
some value of the reference to rounding, agrees. So it does not matter that one graph folds a normalisation into a
kernel and the other does not, or that axes stand in another order. What the outputs that differ depend on without such
an agreement in between is the region of the fault, and the first node of the target in it is where the two part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.difference.trace import Trace, Traced

__all__ = ["Divergence", "Match", "first_divergence", "matches", "region", "same"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Match:
    """How far apart two values are where they are worst against the tolerance; equal is a ratio of at most 1."""

    ratio: float
    difference: float = 0.0
    tolerance: float = 0.0
    place: tuple[int, ...] = ()
    a: float = 0.0
    b: float = 0.0


@dataclass(frozen=True, eq=False)
class Divergence:
    """Where two graphs part.

    node:    the first node of the target that computes something else; None where all agree, but an output of the
             target is a value from the middle of the reference: nodes are missing at its end.
    partner: the node of the reference that computes what it should, None where nothing has its shape.
    match:   the two values against each other.
    agreed:  for values of the target the value of the reference that they are.
    missing: nodes of the reference that the target passes over just before `node` (or at the output).
    before:  the node of the target after which they are missing.
    """

    node: ir.Node | None
    partner: ir.Node | None
    match: Match
    agreed: dict[str, str] = field(repr=False)
    missing: tuple[ir.Node, ...] = ()
    before: ir.Node | None = None


def same(a: Array, b: Array, tolerance: Array, skipped: NDArray[np.bool_] | None = None) -> Match:
    """Two arrays of one shape, NaN equal to NaN, without the events that are `skipped`."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        difference = np.where(np.isnan(difference), np.inf, difference)
        ratio = np.where(difference == 0, 0.0, difference / np.maximum(np.broadcast_to(tolerance, a.shape), 5e-324))
    if skipped is not None and a.ndim and len(a) == len(skipped):
        ratio[skipped] = 0.0
    if ratio.size == 0:
        return Match(0.0)
    place = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    where = tuple(int(i) for i in place)
    allowed = float(np.broadcast_to(tolerance, a.shape)[place])
    return Match(float(ratio[place]), float(difference[place]), allowed, where, float(a[place]), float(b[place]))


def matches(ours: Sequence[Traced], theirs: Sequence[Traced], name: str, other: str) -> Match | None:
    """Value `name` of ours against `other` of theirs over all batches: the worst; None where the shapes do not fit."""
    orders: dict[int, tuple[int, ...]] = {}
    worst = Match(0.0)
    for a, b in zip(ours, theirs, strict=True):
        x, tolerance = a.values[name], np.broadcast_to(a.tolerances[name], a.values[name].shape)
        y = b.values[other]
        if x.size != y.size:
            return None
        x, tolerance, y = np.squeeze(x), np.squeeze(tolerance), np.squeeze(y)
        axes = orders.get(y.ndim) or _axes(x, y, tolerance)  # one order for all batches, but for axes of length 1
        if axes is None or y.transpose(axes).shape != x.shape:
            return None
        orders[y.ndim] = axes
        match = same(x, y.transpose(axes), tolerance, a.undecidable if x.shape == a.values[name].shape else None)
        worst = max(worst, match, key=lambda m: m.ratio)
    return worst


def _axes(x: Array, y: Array, tolerance: Array) -> tuple[int, ...] | None:
    """The order of the axes of `y` in which it is nearest to `x`."""
    fitting = [p for p in permutations(range(y.ndim)) if y.transpose(p).shape == x.shape] if y.ndim == x.ndim else []
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    return min(fitting, key=lambda p: same(x, y.transpose(p), tolerance).ratio)


def first_divergence(
    reference: Trace, target: Trace, ours: Sequence[Traced], theirs: Sequence[Traced], inputs: dict[str, str],
    outputs: Iterable[tuple[str, str]], slack: float = 1.0,
) -> Divergence:  # fmt: skip
    """Follow both graphs from the inputs.

    Args:
        reference: the graph that is right.
        target: the graph that is not.
        ours: what the batches are inside `reference`.
        theirs: the same batches inside `target`.
        inputs: for every input of the target that of the reference.
        outputs: outputs that differ, in reference and target.
        slack: by how many tolerances two values may differ and still be the same.

    """
    agreed = dict(inputs)
    order = [*inputs.values(), *(reference.value[node.name or ""] for node in reference.nodes)]
    for node in target.nodes:
        value = target.value[node.name or ""]
        named = [reference.value[node.name or ""]] if (node.name or "") in reference.value else []
        for candidate in [*named, *order]:
            match = matches(ours, theirs, candidate, value)
            if match is not None and match.ratio <= slack:
                agreed[value] = candidate
                break
    here, there = zip(*outputs, strict=True)
    parting = region(target, there, set(agreed))
    rest = region(reference, here, set(agreed.values()))
    for node in parting:
        value = target.value[node.name or ""]
        partner, match = _partner(reference, node, rest, lambda name, v=value: matches(ours, theirs, name, v))
        if partner is not None:
            missing, before = _passed_over(
                reference, target, node, partner, agreed, lambda a, b: _one(ours, theirs, a, b, slack)
            )
            return Divergence(node, partner, match, agreed, missing, before)
    if parting:
        return Divergence(parting[0], None, Match(np.inf), agreed)
    producer = _producers(target).get(there[0])
    return Divergence(None, None, Match(np.inf), agreed, tuple(rest), producer)


def region(trace: Trace, ends: Iterable[str], known: set[str]) -> list[ir.Node]:
    """The nodes that `ends` depend on, in order, back to values that are `known`."""
    producers = _producers(trace)
    seen: set[str] = set()
    todo = [end for end in ends if end not in known]
    while todo:
        name = todo.pop()
        node = producers.get(name)
        if node is None or (node.name or "") in seen:
            continue
        seen.add(node.name or "")
        todo += [value.name for value in node.inputs if value is not None and value.name and value.name not in known]
    return [node for node in trace.nodes if (node.name or "") in seen]


def _producers(trace: Trace) -> dict[str, ir.Node]:
    return {value.name: node for node in trace.model.graph for value in node.outputs if value.name}


def _partner(reference: Trace, node: ir.Node, rest: Sequence[ir.Node], against: Any) -> tuple[ir.Node | None, Match]:
    """The node of `rest` that stands for `node`: of its name and operator, else the nearest of its operator."""
    found: list[tuple[tuple[bool, bool, float], ir.Node, Match]] = []
    for other in rest:
        match = against(reference.value[other.name or ""])
        if match is not None:
            like = other.op_type == node.op_type
            found.append(((not (like and other.name == node.name), not like, match.ratio), other, match))
    if not found:
        return None, Match(np.inf)
    _, other, match = min(found, key=lambda item: item[0])
    return other, match


def _passed_over(
    reference: Trace,
    target: Trace,
    node: ir.Node,
    partner: ir.Node,
    agreed: dict[str, str],
    one: Callable[[str, str], bool],
) -> tuple[tuple[ir.Node, ...], ir.Node | None]:
    """The nodes of the reference between what `node` reads and what `partner` reads, where the two are not the same."""
    if node.op_type != partner.op_type:
        return (), None
    for value, other in zip(node.inputs, partner.inputs, strict=False):
        if value is None or other is None or value.name not in agreed or agreed[value.name] == other.name:
            continue
        if one(other.name or "", value.name):  # it is both: the one is the other with its axes in another order
            continue
        between = region(reference, [other.name or ""], {agreed[value.name], *agreed.values()} - {other.name or ""})
        if between and other.name not in agreed.values():
            return tuple(between), _producers(target).get(value.name)
    return (), None


def _one(ours: Sequence[Traced], theirs: Sequence[Traced], name: str, other: str, slack: float) -> bool:
    """Whether two values are the same as they stand, but for axes of length 1."""
    for a, b in zip(ours, theirs, strict=True):
        if name not in a.values or other not in b.values:
            return False
        x, tolerance, y = a.values[name], a.tolerances[name], b.values[other]
        x, tolerance, y = np.squeeze(x), np.squeeze(np.broadcast_to(tolerance, x.shape)), np.squeeze(y)
        if x.shape != y.shape or same(x, y, slack * tolerance).ratio > 1:
            return False
    return True
