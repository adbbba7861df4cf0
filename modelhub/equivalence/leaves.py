"""Which leaves two sides put rows in: the same ones, or not, whatever the leaves hold.

Two engines number the leaves of a tree as they like. If both ask the same questions, all rows in a leaf of the one are
in one leaf of the other::

    source   4 4 7 7 7 9 9      one tree: the rows of 0 come from 4, those of 2 from 7 and those of 1 from 9,
    target   0 0 2 2 2 2 1      but for one: it is in another leaf

There is no rounding in that, so there is no tolerance. A fault that changes no output is seen here alone: a threshold
between two leaves that hold the same, or two that make up for each other. That the second side divides a leaf of the
first is none: writers spell one question as several, and a linear leaf as two, with NaN and without.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.equivalence.tree_entrance import chosen_from_input
from modelhub.errors import Inconclusive
from modelhub.protocols import TellsLeaves

if TYPE_CHECKING:
    from modelhub.equivalence.probes import Probe
    from modelhub.protocols import Arrays, Engine

__all__ = ["CASES", "Leaves", "Stray", "at_entrance", "leaves_of", "met"]

PARTNERS = 8
"""Leaves of the first side that are kept for one of the second, those with the smallest numbers; where nothing is
wrong, there is one."""

ODD = 0.1
"""A tree of which more rows than these are in another leaf is taken for another tree."""

CASES = 5
"""Rows in another leaf that a leg names."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Stray:
    """A row that the second side puts in another leaf than the first.

    tree:  counted from 0, in the order of the files.
    a, b:  the leaf on either side, as its engine numbers them.
    usual: the leaf of the first side that most rows of `b` come from.
    """

    tree: int
    a: int
    b: int
    usual: int
    probe: str
    length: int | None
    event: int


@dataclass(frozen=True, eq=False)
class Leaves:
    """The leaves two sides put rows in. Merging adds up, in any order; size grows with the leaves, not with the rows.

    rows, trees: how many were compared.
    pairs:  [P] tree, leaf of the second side, leaf of the first, in one number (`_parted`); ascending.
    count:  [P] rows that were in both.
    first:  [P] the first of them: index of its probe in `probes`, and its number there, in one number (`_EVENT`).
    probes: name and length (-1: none) of probes, sorted.
    lost:   rows, tree by tree, whose pair was not kept (`PARTNERS`).
    """

    rows: int
    trees: int
    pairs: Ints
    count: Ints
    first: Ints
    probes: tuple[tuple[str, int], ...]
    lost: int = 0

    def merged(self, other: Leaves) -> Leaves:
        """Both together; associative, and the same in either order."""
        probes = tuple(sorted({*self.probes, *other.probes}))
        pairs, count, first = (
            np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("pairs", "count", "first")
        )
        index = np.array([probes.index(probe) for probe in (*self.probes, *other.probes)], np.int64)
        index = index[(first >> _EVENT) + np.repeat([0, len(self.probes)], [len(self.pairs), len(other.pairs)])]
        first = index << _EVENT | first & (1 << _EVENT) - 1
        order = np.argsort(pairs, kind="stable")
        start = np.flatnonzero(np.diff(pairs[order], prepend=-1))
        return _kept(
            Leaves(
                self.rows + other.rows,
                self.trees,
                pairs[order[start]],
                np.add.reduceat(count[order], start),
                np.minimum.reduceat(first[order], start),
                probes,
                self.lost + other.lost,
            )
        )

    @property
    def elsewhere(self) -> int:
        """How many times a row was in another leaf, tree by tree."""
        return self.lost + int(self.count[~self._own].sum())

    @property
    def strays(self) -> list[Stray]:
        """The first few of these, one for two leaves that do not go together."""
        tree, b, a = _parted(self.pairs)
        found = []
        for at in np.flatnonzero(~self._own)[:CASES]:
            (usual,) = a[self._own & (tree == tree[at]) & (b == b[at])].tolist()
            probe, length = self.probes[self.first[at] >> _EVENT]
            event = int(self.first[at] & (1 << _EVENT) - 1)
            place = probe, None if length < 0 else length, event
            found.append(Stray(int(tree[at]), int(a[at]), int(b[at]), usual, *place))
        return found

    @cached_property
    def comparable(self) -> bool:
        """Whether at least half of the trees seem to be the same on both sides, leaf by leaf.

        If not, a writer has put them in another order, or made two of one, and nothing can be said of leaves. A fault
        in all trees at once is not missed: that outputs show.
        """
        tree, b, a = _parted(self.pairs)
        sizes = [np.bincount(np.unique(tree << _LEAF | leaf) >> _LEAF, minlength=self.trees) for leaf in (a, b)]
        rows = np.bincount(tree, self.count, self.trees)
        odd = np.bincount(tree, self.count * ~self._own, self.trees) > ODD * rows
        return bool(2 * np.count_nonzero(odd | (sizes[0] != sizes[1])) <= self.trees)

    @cached_property
    def _own(self) -> NDArray[np.bool_]:
        """[P] which pairs belong together: of those with one leaf of the second side the most frequent, or first."""
        leaf = self.pairs >> _LEAF
        order = np.lexsort((self.pairs, -self.count, leaf))
        own = np.zeros(len(order), np.bool_)
        own[order[np.flatnonzero(np.diff(leaf[order], prepend=-1))]] = True
        return own

    def to_json(self) -> dict[str, Any]:
        """As the report's schema describes it."""
        cases = [asdict(stray) for stray in self.strays]
        return {"rows": self.rows, "trees": self.trees, "elsewhere": self.elsewhere, "cases": cases}


_LEAF, _TREE, _EVENT = 21, 21, 40
"""Bits for the number of a leaf, of a tree, and of an event."""


def _parted(pairs: Ints) -> tuple[Ints, Ints, Ints]:
    """Trees, leaves of the second side and leaves of the first."""
    most = (1 << _LEAF) - 1
    return pairs >> 2 * _LEAF, pairs >> _LEAF & most, pairs & most


def met(probe: Probe, a: Ints, b: Ints) -> Leaves:
    """The leaves [events, trees] of two sides for one batch."""
    events, trees = a.shape
    numbers = probe.numbers if probe.numbers is not None and len(probe.numbers) == events else np.arange(events)
    order = np.argsort(numbers, kind="stable")
    cells = b[order].T << _LEAF + _TREE | a[order].T << _TREE | np.arange(events)  # [trees, events]
    cells.sort(axis=1)
    pairs = cells >> _TREE
    start = np.flatnonzero(np.diff(pairs, axis=1, prepend=-1))
    count = np.diff(start, append=cells.size)
    cells = cells.ravel()[start]
    pairs = start // events << 2 * _LEAF | cells >> _TREE
    first = numbers[order][cells & (1 << _TREE) - 1].astype(np.int64)
    key = (probe.name, -1 if probe.length is None else probe.length)
    return _kept(Leaves(events, trees, pairs, count, first, (key,)))


def _kept(found: Leaves) -> Leaves:
    """Of many partners of a leaf the first few."""
    leaf = np.flatnonzero(np.diff(found.pairs >> _LEAF, prepend=-1))
    size = np.diff(leaf, append=len(found.pairs))
    if size.max(initial=0) <= PARTNERS:
        return found
    kept = np.arange(len(found.pairs)) - np.repeat(leaf, size) < PARTNERS
    pairs, count, first = found.pairs[kept], found.count[kept], found.first[kept]
    lost = found.lost + int(found.count[~kept].sum())
    return replace(found, pairs=pairs, count=count, first=first, lost=lost)


def leaves_of(engine: Engine | None, arrays: Arrays) -> Ints | None:
    """The leaves [events, trees] of a batch, where the engine tells them."""
    if not isinstance(engine, TellsLeaves):
        return None
    try:
        leaves = engine.leaves(arrays)
    except Inconclusive:
        return None
    fits = leaves.size and leaves.min() >= 0 and leaves.max() < 1 << _LEAF and max(leaves.shape) <= 1 << _TREE
    return leaves if fits else None


def at_entrance(nodes: Iterable[ir.Node]) -> bool:
    """Whether there are trees among the nodes of a graph, and all ask about columns of an input that nothing changed.

    Behind arithmetic a value may be rounded to either side of a threshold, and a row rightly be in either leaf.
    """
    trees = [node for node in nodes if node.domain == "ai.onnx.ml" and node.op_type.startswith("TreeEnsemble")]
    return bool(trees) and all(chosen_from_input(node.inputs[0]) for node in trees)
