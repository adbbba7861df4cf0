"""What a file says, whichever of the three layouts it has: numbers and names, nothing decided yet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Model", "Trees"]


@dataclass(frozen=True, eq=False)
class Trees:
    """All trees, one after the other: arrays over all nodes, children counted from the tree's first node.

    A leaf has `left` -1 and its value in `condition`; where `leaf_weights` holds vectors, its row there is `vector`.
    A deleted node (pruned in training, still in the file) has feature `DELETED`.
    """

    DELETED = 2**31 - 1

    sizes: NDArray[np.int64]
    """[trees] nodes of each tree."""
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    condition: NDArray[np.float32]
    default_left: NDArray[np.bool_]
    group: NDArray[np.int64]
    """[trees] the output each tree feeds."""

    leaf_weights: NDArray[np.float32] | None = None
    """[rows, targets]"""
    vector: NDArray[np.int64] | None = None
    """[nodes] row of `leaf_weights`, -1 at splits."""

    category_node: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """[categorical splits] the node, counted over all trees, ascending."""
    category_size: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    categories: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The categories that go right, one set after the other."""


@dataclass(frozen=True, eq=False)
class Model:
    """A learner: either `trees` (gbtree, dart) or `weights` (gblinear)."""

    version: tuple[int, ...]
    booster: str
    objective: str
    features: int
    outputs: int
    """Groups: classes or targets, 1 otherwise."""
    base_score: NDArray[np.float64]
    """[1] or [outputs]"""
    base_is_margin: bool
    attributes: dict[str, str]
    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    trees: Trees | None = None
    rounds: NDArray[np.int64] | None = None
    """[rounds + 1] the first tree of every round; None where the file does not say."""
    per_round: int = 1
    """Trees per round and output where `rounds` is None; 0: the file does not say either."""
    drop: NDArray[np.float64] | None = None
    """[trees] dart's weights."""
    weights: NDArray[np.float64] | None = None
    """[features + 1, outputs] the last row being the bias."""
