"""One forest for all: what every tree reader fills and every tree writer takes.

A forest is a handful of numpy arrays over *all* nodes of *all* trees, in any order. At a split the condition
``x[feature] <compare> threshold`` is asked; where it holds the row goes to `true_child`, else to `false_child`; a NaN
asks nothing and goes where `missing` says. At a leaf a row of `values` is picked up. Then

    margin[o] = base[o] + (sum over the trees t that feed output o of  tree_weight[t] * value[t]) / divisor
    output    = link(margin)

    forest = Forest(features=2, feature=np.array([0, -1, -1]), ...).checked("model.json")
    leaves, margins = forest_eval.leaves(forest, x), forest_eval.margins(forest, x)
    model = forest_onnx.to_graph(forest, interface)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile

__all__ = ["ZERO", "Compare", "Forest", "LinearLeaves", "Link", "Rounding", "Sets"]

ZERO = float(np.float32(1e-35))
"""A `zero_missing` feature is missing where ``|x| <= ZERO`` (LightGBM: kZeroThreshold in include/LightGBM/meta.h)."""


class Compare(IntEnum):
    """What a split asks; the true branch is taken where it holds. The numbers are those of TreeEnsemble in ONNX."""

    LE = 0
    LT = 1
    GE = 2
    GT = 3
    EQ = 4
    NE = 5
    MEMBER = 6
    """The value is one of the node's categories."""


class Rounding(IntEnum):
    """What happens to a feature's value before any node sees it (NaN stays NaN)."""

    NONE = 0
    TRUNCATE = 1
    """Towards zero, as a C cast does: -0.5 is category 0."""
    FLOOR = 2
    """Downwards: -0.5 is category -1, which is in no set."""


@dataclass(frozen=True)
class Link:
    """From margins to outputs, over the last axis.

    kind: "identity"; "sigmoid" 1/(1+exp(-slope x)), each output by itself; "softmax"; "exp"; "tanh", which is TMVA's
          2/(1+exp(-2x))-1; "softplus" log(1+exp(x)); "signed_square" x|x|; "step" 1 where x > 0, else 0;
          "argmax" the index of the largest margin, one output; "sorted" the margins in ascending order; "steps" the
          first margin as it is, each further output its predecessor plus 1e-6 plus softplus of its margin.
    """

    kind: str = "identity"
    slope: float = 1.0

    KINDS = (
        "identity", "sigmoid", "softmax", "exp", "tanh", "softplus", "signed_square", "step", "argmax", "sorted",
        "steps",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            raise ValueError(f"no such link: {self.kind}")


@dataclass(frozen=True, eq=False)
class Sets:
    """The categories of MEMBER nodes: those of node n are ``members[start[n]:start[n + 1]]``, whole numbers."""

    start: NDArray[np.int64]
    """[nodes + 1]"""
    members: NDArray[np.float64]
    """[all members]"""

    @classmethod
    def of(cls, sizes: NDArray[Any], members: NDArray[Any]) -> Sets:
        """Sets of `sizes` [nodes] (0 where a node has none), one after the other in `members`."""
        start = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=start[1:])
        return cls(start, np.asarray(members, np.float64))


@dataclass(frozen=True, eq=False)
class LinearLeaves:
    """Leaves that are linear functions of the row, as LightGBM's linear_tree (io/tree.cpp: PredictionFunLinear).

    The value of leaf l is ``constant[l] + sum(coefficient[i] * x[feature[i]] for i in start[l]..start[l + 1])``, and
    the plain ``Forest.values[l, 0]`` for a row where one of these features is NaN. The row is taken as it comes.
    """

    constant: NDArray[np.float64]
    """[leaves]"""
    start: NDArray[np.int64]
    """[leaves + 1]"""
    feature: NDArray[np.int64]
    coefficient: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Forest:
    """All trees of a model. Arrays over nodes have one entry per node, leaves included."""

    features: int
    """How many columns a row has."""

    feature: NDArray[np.int32]
    """[nodes] the column a split looks at; -1 at leaves."""
    compare: NDArray[np.uint8]
    """[nodes] a `Compare`; 0 at leaves."""
    threshold: NDArray[np.float64]
    """[nodes] exactly as the source compares; unused at leaves and MEMBER nodes."""
    true_child: NDArray[np.int64]
    """[nodes] a node; -1 at leaves."""
    false_child: NDArray[np.int64]
    """[nodes] a node; -1 at leaves."""
    missing: NDArray[np.bool_]
    """[nodes] whether NaN goes to the true branch."""
    leaf: NDArray[np.int64]
    """[nodes] the leaf's row in `values`; -1 at splits. Leaf rows may be shared."""

    values: NDArray[np.float64]
    """[leaves, width]: width 1 feeds the tree's own output, width `outputs` feeds all."""

    roots: NDArray[np.int64]
    """[trees]"""
    tree_output: NDArray[np.int64]
    """[trees] the output a tree with one value per leaf feeds; unused where leaves hold all outputs."""
    tree_weight: NDArray[np.float64]
    """[trees]"""

    base: NDArray[np.float64]
    """[outputs] in margin space."""
    divisor: float = 1.0
    link: Link = Link()

    dtype: str = "float32"
    """What a row is rounded to before the source compares: "float32" or "float64"."""

    sets: Sets | None = None
    """Needed where a node asks MEMBER."""
    zero_missing: NDArray[np.bool_] | None = None
    """[features] whether values up to `ZERO` count as NaN; None: nowhere."""
    rounding: NDArray[np.uint8] | None = None
    """[features] a `Rounding`; None: none."""
    linear: LinearLeaves | None = None
    """Linear functions in place of `values`; only where these have width 1."""

    @property
    def outputs(self) -> int:
        """How many margins there are."""
        return len(self.base)

    @property
    def trees(self) -> int:
        """How many trees there are."""
        return len(self.roots)

    @property
    def nodes(self) -> int:
        """How many nodes there are, leaves included."""
        return len(self.feature)

    @property
    def splits(self) -> NDArray[np.bool_]:
        """[nodes] which nodes are splits."""
        return np.asarray(self.leaf < 0)

    def checked(self, where: str) -> Forest:
        """The forest itself, if it is one: `where` names the file in the error.

        Every node hangs on exactly one parent or is a root, every node is reached, nothing turns in circles, splits
        have both children and leaves none, every index is in range, no threshold is NaN, every number that
        counts is finite. No recursion; time grows as nodes times the logarithm of the depth. Raises `UnreadableFile`.
        """
        _check_sizes(self, where)
        _check_nodes(self, where)
        tree_of(self, where)
        _check_sets(self, where)
        _check_linear(self, where)
        return self


def tree_of(forest: Forest, where: str = "forest") -> NDArray[np.int64]:
    """[nodes] the tree every node belongs to.

    Raises `UnreadableFile` unless each node has one way to it. With exactly one parent per node, a node is on
    a tree if and only if the way up ends in a root; the way up is doubled in each round.
    """
    splits = np.flatnonzero(forest.splits)
    children = np.concatenate([forest.true_child[splits], forest.false_child[splits]])
    seen = np.bincount(np.concatenate([children, forest.roots]), minlength=forest.nodes)
    _refuse(seen > 1, where, "is the child of two nodes, or a child and a root")
    _refuse(seen < 1, where, "is not reached from any root")
    up = np.empty(forest.nodes, np.int64)
    up[children] = np.concatenate([splits, splits])
    up[forest.roots] = forest.roots
    for _ in range(max(forest.nodes, 1).bit_length()):
        higher = up[up]
        if np.array_equal(higher, up):
            break
        up = higher
    tree = np.full(forest.nodes, -1, np.int64)
    tree[forest.roots] = np.arange(forest.trees)
    tree = tree[up]
    _refuse(tree < 0, where, "is part of a circle")
    return tree


def _check_sizes(forest: Forest, where: str) -> None:
    per_node = (
        forest.compare,
        forest.threshold,
        forest.true_child,
        forest.false_child,
        forest.missing,
        forest.leaf,
    )
    fits = (
        all(array.shape == (forest.nodes,) for array in per_node)
        and forest.values.ndim == 2
        and forest.base.ndim == 1
        and forest.outputs >= 1
        and forest.values.shape[1] in (1, forest.outputs)
        and forest.tree_output.shape == forest.tree_weight.shape == forest.roots.shape
        and all(a is None or a.shape == (forest.features,) for a in (forest.zero_missing, forest.rounding))
    )
    if not fits:
        raise UnreadableFile(f"{where}: the arrays of the forest do not fit together")
    if forest.trees and not 0 <= int(forest.roots.min()) <= int(forest.roots.max()) < forest.nodes:
        raise UnreadableFile(f"{where}: the root of a tree is not a node")
    if forest.trees and not 0 <= int(forest.tree_output.min()) <= int(forest.tree_output.max()) < forest.outputs:
        raise UnreadableFile(f"{where}: a tree feeds an output that is not there")
    for name in ("values", "tree_weight", "base"):
        if not np.isfinite(getattr(forest, name)).all():
            raise UnreadableFile(f"{where}: {name.replace('_', ' ')} of the forest: not all are finite numbers")
    if not (np.isfinite(forest.divisor) and forest.divisor > 0):
        raise UnreadableFile(f"{where}: the sum of the trees is divided by {forest.divisor}")


def _check_nodes(forest: Forest, where: str) -> None:
    splits, nodes = forest.splits, forest.nodes
    _refuse(forest.leaf >= len(forest.values), where, "is a leaf without a value")
    for child in (forest.true_child, forest.false_child):
        _refuse(splits & ((child < 0) | (child >= nodes)), where, "has a child that is not there")
        _refuse(~splits & (child >= 0), where, "is a leaf with a child")
    _refuse(splits & ((forest.feature < 0) | (forest.feature >= forest.features)), where, "asks for no known feature")
    _refuse(splits & (forest.compare > max(Compare)), where, "compares in an unknown way")
    numeric = splits & (forest.compare != Compare.MEMBER)
    _refuse(numeric & np.isnan(forest.threshold), where, "has a threshold that is no number")


def _check_sets(forest: Forest, where: str) -> None:
    member = forest.splits & (forest.compare == Compare.MEMBER)
    if forest.sets is None:
        _refuse(member, where, "asks for categories, and the forest has none")
        return
    start, members = forest.sets.start, forest.sets.members
    if start.shape != (forest.nodes + 1,) or start[0] != 0 or start[-1] != len(members) or (np.diff(start) < 0).any():
        raise UnreadableFile(f"{where}: the sets of categories do not fit the nodes")
    if not (np.isfinite(members).all() and (members == np.floor(members)).all()):
        raise UnreadableFile(f"{where}: a category is not a whole number")


def _check_linear(forest: Forest, where: str) -> None:
    linear = forest.linear
    if linear is None:
        return
    leaves = len(forest.values)
    fits = (
        forest.values.shape[1] == 1
        and linear.constant.shape == (leaves,)
        and linear.start.shape == (leaves + 1,)
        and linear.start[0] == 0
        and linear.start[-1] == len(linear.feature) == len(linear.coefficient)
        and not (np.diff(linear.start) < 0).any()
        and np.isfinite(linear.constant).all()
        and np.isfinite(linear.coefficient).all()
    )
    if not fits or ((linear.feature < 0) | (linear.feature >= forest.features)).any():
        raise UnreadableFile(f"{where}: the linear leaves do not fit the forest")


def _refuse(bad: NDArray[Any], where: str, what: str) -> None:
    if bad.any():
        raise UnreadableFile(f"{where}: node {int(np.argmax(bad))} of the forest {what}")
