"""Rows that stand on the thresholds of trees, each on a row that reaches the node it is for.

A converter that rounds a threshold to the nearest float32, or writes ``<`` for ``<=``, is right nearly everywhere: only
a row that arrives at the node with the value at the threshold, or next to it, shows the fault. So the way to every
node is solved: each split above it leaves an interval of its column (or a choice of categories, or NaN), and within
these the node's own column takes the threshold and its two float32 neighbours, a category in its set and one outside,
and NaN where the forest routes NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.equivalence.tree_entrance import seen_from_input
from modelhub.errors import ModelhubError, safe_text
from modelhub.graph import forest_classic_read
from modelhub.graph.forest import Compare, Forest
from modelhub.graph.forest_forms import from_node
from modelhub.graph.forest_onnx import narrowed

__all__ = ["ROWS", "TreeProbe", "rows_for", "tree_probes"]

ROWS = 20_000
"""Rows for one model; where its trees would need more, nodes are left out evenly."""

CELLS = 1 << 25
"""Numbers in these rows."""

LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True, eq=False)
class TreeProbe:
    """Rows for one forest.

    name:   of the TreeEnsemble node.
    value:  the graph input that feeds it.
    rows:   [R, features] float32.
    node:   [R] the node of the forest a row is for.
    side:   [R] whether that node sends it to its true child.
    splits: how many splits the forest has.
    """

    name: str
    value: ir.Value
    rows: NDArray[np.float32]
    node: NDArray[np.int64]
    side: NDArray[np.bool_]
    splits: int

    @property
    def told(self) -> str:
        """The coverage in words."""
        tried, both = len(np.unique(self.node)), self.both_ways
        return f"{safe_text(self.name)}: of {self.splits} splits {tried} met their threshold, {both} went both ways"

    @property
    def both_ways(self) -> int:
        """How many splits see a row on each side."""
        sides = np.unique(np.stack([self.node, self.side]), axis=1)
        return int((np.bincount(sides[0]) == 2).sum())


def tree_probes(model: ir.Model, rng: np.random.Generator, limit: int = ROWS) -> Iterator[TreeProbe]:
    """Rows for every tree operator that sees columns of one input of the graph (`tree_entrance` says how changed).

    `limit` is the number of rows for all of them together.
    """
    found = []
    for node in model.graph:
        try:
            forest = _forest(node)
        except ModelhubError:
            continue
        seen = None if forest is None or not forest.splits.any() else seen_from_input(forest, node.inputs[0])
        if seen is not None:
            found.append((node, *seen))
    for node, forest, value in found:
        width = forest.features
        share = max(min(limit // len(found), CELLS // width), 4)
        yield TreeProbe(node.name or "", value, *rows_for(forest, width, rng, share), int(forest.splits.sum()))


def _forest(node: ir.Node) -> Forest | None:
    """The trees of a tree operator."""
    if forest_classic_read.is_classic(node):
        return forest_classic_read.structure(node)
    return from_node(node) if (node.domain, node.op_type) == ("ai.onnx.ml", "TreeEnsemble") else None


def rows_for(
    forest: Forest, width: int, rng: np.random.Generator, limit: int = ROWS
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """At most `limit` rows [R, width], the node [R] each is for, and whether it goes to that node's true child [R]."""
    splits = np.flatnonzero(forest.splits)
    count = min(len(splits), limit // 4)
    nodes = splits[np.linspace(0, len(splits) - 1, count).astype(np.int64)]
    ways = _Ways(forest, nodes, width)
    rows, blocked = ways.rows(rng)
    column = forest.feature[nodes]
    here = np.arange(len(nodes))
    blocked[here, column] = False  # what goes here in the node's own column is looked at below
    reached = ~blocked.any(axis=1)
    low, high, nan = ways.low[here, column], ways.high[here, column], ways.nan[here, column]
    t = ways.threshold[nodes]
    member = ways.compare[nodes] == Compare.MEMBER
    result: list[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]] = []

    def add(value: NDArray[np.float32], fits: NDArray[np.bool_], side: NDArray[np.bool_]) -> None:
        chosen = np.flatnonzero(fits & reached)
        some = rows[chosen]
        some[np.arange(len(chosen)), column[chosen]] = value[chosen]
        result.append((some, nodes[chosen], side[chosen]))

    with np.errstate(over="ignore"):
        for value in (np.nextafter(t, np.float32(-np.inf)), t, np.nextafter(t, np.float32(np.inf))):
            add(value, (low <= value) & (value <= high) & ~member, ways.holds(nodes, value))
    for inside in (True, False):
        category = np.full(len(nodes), np.nan, np.float32)
        for i in np.flatnonzero(member):
            category[i] = ways.category(int(i), int(column[i]), (int(nodes[i]), inside))
        add(category, member & ~np.isnan(category), np.full(len(nodes), inside))
    add(np.full(len(nodes), np.nan, np.float32), nan, forest.missing[nodes])
    columns = list(zip(*result, strict=True))
    return np.concatenate(columns[0]), np.concatenate(columns[1]), np.concatenate(columns[2])


class _Ways:
    """What the ways to `nodes` demand of a row."""

    def __init__(self, forest: Forest, nodes: NDArray[np.int64], width: int) -> None:
        self.forest = forest
        self.compare, self.threshold = narrowed(forest.compare, forest.threshold)
        with np.errstate(over="ignore"):
            below, above = (np.nextafter(self.threshold, np.float32(side)) for side in (-np.inf, np.inf))
        closed = (self.compare == Compare.LE) | (self.compare == Compare.GT)
        self.last = np.where(closed, self.threshold, below)
        """[nodes] the largest float32 below the step"""
        self.first = np.where(closed, above, self.threshold)
        """[nodes] the smallest float32 above it"""
        shape = len(nodes), width
        self.low, self.high = np.full(shape, -LARGEST), np.full(shape, LARGEST)
        """[len(nodes), width] the interval of a column, ends included"""
        self.sets: dict[tuple[int, int], list[tuple[int, bool]]] = {}
        """for (row, column) the splits by category on the way, and whether the row must be in their sets"""
        routed = np.zeros(width, np.bool_)
        routed[forest.feature[forest.splits & forest.missing]] = True
        self.nan = np.broadcast_to(routed, shape).copy()
        """[len(nodes), width] whether NaN goes that way too; nowhere in columns whose NaN the forest does not route"""
        self._walk_up(nodes)

    def _walk_up(self, nodes: NDArray[np.int64]) -> None:
        forest = self.forest
        splits = np.flatnonzero(forest.splits)
        parent = np.full(forest.nodes, -1, np.int64)
        parent[forest.true_child[splits]] = parent[forest.false_child[splits]] = splits
        row, at = np.arange(len(nodes)), nodes
        while len(row := row[kept := parent[at] >= 0]):
            below, at = at[kept], parent[at[kept]]
            true, column, kind = forest.true_child[at] == below, forest.feature[at], self.compare[at]
            lower = ((kind == Compare.LE) | (kind == Compare.LT)) == true
            step = kind <= Compare.GT
            equal = np.where(true, kind == Compare.EQ, kind == Compare.NE)
            t = self.threshold[at]
            high = np.select([step & lower, equal], [self.last[at], t], LARGEST)
            low = np.select([step & ~lower, equal], [self.first[at], t], -LARGEST)
            self.high[row, column] = np.minimum(self.high[row, column], high)
            self.low[row, column] = np.maximum(self.low[row, column], low)
            self.nan[row, column] &= forest.missing[at] == true
            for i in np.flatnonzero(kind == Compare.MEMBER):
                self.sets.setdefault((int(row[i]), int(column[i])), []).append((int(at[i]), bool(true[i])))

    def holds(self, nodes: NDArray[np.int64], value: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether the numeric splits `nodes` send `value` [len(nodes)] to their true children."""
        compare, t, lower = self.compare[nodes], self.threshold[nodes], value <= self.last[nodes]
        kinds = [(Compare.LE, lower), (Compare.LT, lower), (Compare.GE, ~lower), (Compare.GT, ~lower)]
        kinds += [(Compare.EQ, value == t), (Compare.NE, value != t)]
        return np.asarray(np.any([(compare == kind) & answer for kind, answer in kinds], axis=0))

    def category(self, row: int, column: int, *more: tuple[int, bool]) -> float:
        """A category that goes the way of `row`, and that of the splits `more`; NaN if there is none."""
        sets = self.forest.sets
        assert sets is not None
        inside: set[float] | None = None
        outside: set[float] = set()
        for node, true in (*self.sets.get((row, column), ()), *more):
            members = set(sets.members[sets.start[node] : sets.start[node + 1]].tolist())
            if not true:
                outside |= members
            else:
                inside = members if inside is None else inside & members
        candidates = (float(n) for n in range(len(outside) + 1)) if inside is None else iter(sorted(inside))
        return next((candidate for candidate in candidates if candidate not in outside), np.nan)

    def rows(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A row for each way, and [rows, width] the columns in which nothing goes that way.

        Columns that are free stand at a threshold of their own, where there is one: the row is for all trees.
        """
        forest, (count, width) = self.forest, self.low.shape
        rows = rng.standard_normal((count, width)).astype(np.float32)
        numeric = forest.splits & (self.compare != Compare.MEMBER) & np.isfinite(self.threshold)
        order = np.flatnonzero(numeric)[np.argsort(forest.feature[numeric], kind="stable")]
        for column, group in zip(*_groups(forest.feature[order], order), strict=True):
            rows[:, column] = self.threshold[rng.choice(group, count)]
        for column in np.unique(forest.feature[forest.splits & (self.compare == Compare.MEMBER)]):
            rows[:, column] = rng.integers(0, 8, count)
        blocked = self.low > self.high
        rows = np.clip(rows, np.minimum(self.low, self.high), self.high)
        for row, column in self.sets:
            rows[row, column] = self.category(row, column)
            blocked[row, column] = np.isnan(rows[row, column])
        rows[blocked] = np.nan
        return rows, blocked & ~self.nan


def _groups(keys: NDArray[np.int32], items: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[NDArray[np.int64]]]:
    """The different keys of a sorted array, and the items that belong to each."""
    unique, first = np.unique(keys, return_index=True)
    return unique, np.split(items, first[1:]) if len(items) else []
