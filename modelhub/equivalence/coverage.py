"""How much of a model the probes reach: a check that never enters half of it proves little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.graph.forest import Compare, Forest
from modelhub.graph.forest_eval import leaves

__all__ = ["FLOORS", "KINDS", "Coverage", "Reach", "TreeReach"]

FLOORS = {"tree nodes both ways": 0.25, "tree leaves": 0.25, "ReLU units both states": 0.25, "sequence lengths": 0.5}
"""The share of each that must be reached, where the user does not say; others need not be."""

KINDS = (*FLOORS, "saturated units, both ends", "defaults put in for NaN", "operators")
"""All that is counted."""


@dataclass(frozen=True)
class Coverage:
    """So many of something were reached; below the floor a check is inconclusive."""

    what: str
    reached: int
    of: int
    floor: float = 0.0

    @property
    def low(self) -> bool:
        """Whether too little was reached."""
        return self.of > 0 and self.reached < self.floor * self.of

    @property
    def told(self) -> str:
        """In words."""
        wanted = f", {self.floor:.0%} are wanted" if self.floor else ""
        return f"{self.what}: {self.reached} of {self.of} reached{wanted}"

    def to_json(self) -> dict[str, Any]:
        """As the report's schema describes it."""
        return {"what": self.what, "reached": self.reached, "of": self.of, "floor": self.floor}


@dataclass
class Reach:
    """Which of the parts of each kind have been reached: kind -> flags. Merging is a union, in any order.

    Of what can be reached in two ways the flags are two halves, one for either way.
    """

    seen: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def add(self, other: Mapping[str, NDArray[np.bool_]]) -> None:
        """Take note of what one more batch reached."""
        for what, flags in other.items():
            before = self.seen.get(what)
            self.seen[what] = flags.copy() if before is None else before | flags

    def told(self, floors: Mapping[str, float]) -> list[Coverage]:
        """The figures. A kind `tree leaves/1` is one of several parts of `tree leaves`."""
        totals: dict[str, tuple[int, int]] = {}
        for what, flags in self.seen.items():
            name = what.partition("/")[0]
            if "both" in name:  # two halves, one for either way
                flags = flags[: flags.size // 2] & flags[flags.size // 2 :]
            reached, of = totals.get(name, (0, 0))
            totals[name] = (reached + int(flags.sum()), of + flags.size)
        known = {**FLOORS, **floors}
        return [Coverage(name, *counts, known.get(name, 0.0)) for name, counts in sorted(totals.items())]


class TreeReach:
    """What rows reach of a forest, and which stand too near a threshold to tell."""

    def __init__(self, forest: Forest) -> None:
        self.forest = forest
        splits = np.flatnonzero(forest.splits)
        self._parent = np.full(forest.nodes, -1, np.int64)
        self._parent[forest.true_child[splits]] = self._parent[forest.false_child[splits]] = splits
        numeric = forest.splits & (forest.compare != Compare.MEMBER) & np.isfinite(forest.threshold)
        self._thresholds = {
            int(column): np.unique(forest.threshold[numeric & (forest.feature == column)])
            for column in np.unique(forest.feature[numeric])
        }

    def near(self, rows: NDArray[np.float64], wide: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which rows [R, features] have a value within `wide` [R, features] (where not 0) of a threshold: [R]."""
        result = np.zeros(len(rows), np.bool_)
        for column, thresholds in self._thresholds.items():
            x, w = rows[:, column], wide[:, column]
            open_ = w > 0
            at = np.searchsorted(thresholds, x)
            above = np.abs(thresholds[np.minimum(at, len(thresholds) - 1)] - x)
            below = np.abs(thresholds[np.maximum(at - 1, 0)] - x)
            result |= open_ & (np.minimum(above, below) <= w)
        return result

    def reached(self, rows: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        """Flags of the children that rows [R, features] entered, and of the leaves among them."""
        entered = np.zeros(self.forest.nodes, np.bool_)
        entered[leaves(self.forest, rows).ravel()] = True
        at = np.flatnonzero(entered)
        while len(at := np.unique(self._parent[at])) and (at := at[at >= 0]).size:
            entered[at] = True
        splits = self.forest.splits
        ways = np.concatenate([entered[self.forest.true_child[splits]], entered[self.forest.false_child[splits]]])
        return {"tree nodes both ways": ways, "tree leaves": entered[~splits]}
