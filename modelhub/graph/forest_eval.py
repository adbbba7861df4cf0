"""Forests in numpy: which leaf every row reaches, and what comes out. The definition, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.graph.forest import ZERO, Compare, Forest, Link, Rounding

__all__ = ["evaluate", "leaves", "link", "margins", "prepared"]

PAIRS = 1 << 21
"""How many (row, tree) pairs walk at once."""

_COMPARE: dict[Compare, Callable[[Any, Any], Any]] = {
    Compare.LE: np.less_equal,
    Compare.LT: np.less,
    Compare.GE: np.greater_equal,
    Compare.GT: np.greater,
    Compare.EQ: np.equal,
    Compare.NE: np.not_equal,
}


def prepared(forest: Forest, x: NDArray[Any]) -> NDArray[np.float64]:
    """Rows [N, features] as the nodes see them: rounded to the forest's dtype, categories cut, zeros gone missing."""
    with np.errstate(over="ignore"):
        rows = np.array(np.asarray(x).astype(forest.dtype), np.float64)
    if forest.rounding is not None:
        for kind, rounded in ((Rounding.TRUNCATE, np.trunc), (Rounding.FLOOR, np.floor)):
            columns = forest.rounding == kind
            rows[:, columns] = rounded(rows[:, columns])
    if forest.zero_missing is not None:
        rows[forest.zero_missing & (np.abs(rows) <= ZERO)] = np.nan
    return rows


def leaves(forest: Forest, x: NDArray[Any]) -> NDArray[np.int64]:
    """The node [N, trees] at which every row ends, x being [N, features]."""
    rows = prepared(forest, x)
    ends = np.empty((len(rows), forest.trees), np.int64)
    step = max(1, PAIRS // max(forest.trees, 1))
    member = _membership(forest)
    for first in range(0, len(rows), step):
        ends[first : first + step] = _walk(forest, rows[first : first + step], member)
    return ends


def margins(forest: Forest, x: NDArray[Any]) -> NDArray[np.float64]:
    """Margins [N, outputs], x being [N, features]; trees are added in order."""
    ends = leaves(forest, x)
    row = forest.leaf[ends]
    total = np.zeros((len(ends), forest.outputs))
    for tree in range(forest.trees):
        value = forest.values[row[:, tree]] if forest.linear is None else _linear(forest, row[:, tree], x)
        value = value * forest.tree_weight[tree]
        if value.shape[1] == forest.outputs:
            total += value
        else:
            total[:, forest.tree_output[tree]] += value[:, 0]
    return np.asarray(forest.base + total / forest.divisor)


def evaluate(forest: Forest, x: NDArray[Any]) -> NDArray[np.float64]:
    """Outputs [N, outputs] after the link."""
    return link(forest.link, margins(forest, x))


def link(kind: Link, margin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outputs for margins [N, outputs]; the formulas are in `Link`."""
    with np.errstate(over="ignore"):
        match kind.kind:
            case "sigmoid":
                result = 1 / (1 + np.exp(-kind.slope * margin))
            case "softmax":
                power = np.exp(margin - margin.max(axis=1, keepdims=True))
                result = power / power.sum(axis=1, keepdims=True)
            case "exp":
                result = np.exp(margin)
            case "tanh":
                result = np.tanh(margin)
            case "softplus":
                result = np.logaddexp(0, margin)
            case "signed_square":
                result = margin * np.abs(margin)
            case "step":
                result = np.where(margin > 0, 1.0, 0.0)
            case "argmax":
                result = margin.argmax(axis=1)[:, np.newaxis].astype(np.float64)
            case "sorted":
                result = np.sort(margin, axis=1)
            case "steps":
                rises = np.logaddexp(0, margin[:, 1:]) + 1e-6
                result = np.cumsum(np.concatenate([margin[:, :1], rises], axis=1), axis=1)
            case _:
                result = margin
    return np.asarray(result)


def _walk(
    forest: Forest, rows: NDArray[np.float64], member: Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]
) -> NDArray[np.int64]:
    node = np.tile(forest.roots, len(rows))
    row = np.repeat(np.arange(len(rows)), forest.trees)
    asking = np.flatnonzero(forest.leaf[node] < 0)
    while len(asking):
        here = node[asking]
        value = rows[row[asking], forest.feature[here]]
        compare, threshold = forest.compare[here], forest.threshold[here]
        holds = np.zeros(len(here), np.bool_)
        for kind in np.unique(compare):
            which = compare == kind
            if kind == Compare.MEMBER:
                holds[which] = member(here[which], value[which])
            else:
                holds[which] = _COMPARE[Compare(kind)](value[which], threshold[which])
        holds = np.where(np.isnan(value), forest.missing[here], holds)
        node[asking] = np.where(holds, forest.true_child[here], forest.false_child[here])
        asking = asking[forest.leaf[node[asking]] < 0]
    return node.reshape(len(rows), forest.trees)


def _membership(forest: Forest) -> Callable[[NDArray[Any], NDArray[Any]], NDArray[np.bool_]]:
    """A function (nodes, values) -> whether each value is among its node's categories."""
    if forest.sets is None or not len(forest.sets.members):
        return lambda nodes, _: np.zeros(len(nodes), np.bool_)
    known, place = np.unique(forest.sets.members, return_inverse=True)
    owner = np.repeat(np.arange(forest.nodes), np.diff(forest.sets.start))
    keys = np.sort(owner * len(known) + place.ravel())

    def member(nodes: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
        at = np.minimum(np.searchsorted(known, values), len(known) - 1)
        key = nodes * len(known) + at
        found = keys[np.minimum(np.searchsorted(keys, key), len(keys) - 1)] == key
        return np.asarray(found & (known[at] == values))

    return member


def _linear(forest: Forest, row: NDArray[np.int64], x: NDArray[Any]) -> NDArray[np.float64]:
    """Values [N, 1] of linear leaves `row` [N]; see `LinearLeaves`."""
    linear = forest.linear
    assert linear is not None
    value = linear.constant[row].copy()
    missing = np.zeros(len(row), np.bool_)
    for leaf in np.unique(row):
        terms = slice(linear.start[leaf], linear.start[leaf + 1])
        at = np.flatnonzero(row == leaf)
        columns = np.asarray(x)[np.ix_(at, linear.feature[terms])].astype(np.float64)
        missing[at] = np.isnan(columns).any(axis=1)
        value[at] += np.where(np.isnan(columns), 0, columns) @ linear.coefficient[terms]
    return np.where(missing, forest.values[row, 0], value)[:, np.newaxis]
