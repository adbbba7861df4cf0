"""How much of a model the probes reach: a check that never enters half of it proves little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOORS", "Coverage", "Reach"]

FLOORS = {"tree nodes both ways": 0.5, "tree leaves": 0.5, "ReLU units both states": 0.25, "sequence lengths": 0.5}
"""The share of each that must be reached, where the user does not say; others need not be."""


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
    """Which of the parts of each kind have been reached: kind -> flags. Merging is a union, in any order."""

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
            reached, of = totals.get(name, (0, 0))
            totals[name] = (reached + int(flags.sum()), of + flags.size)
        known = {**FLOORS, **floors}
        return [Coverage(name, *counts, known.get(name, 0.0)) for name, counts in sorted(totals.items())]
