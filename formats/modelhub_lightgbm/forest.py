"""LightGBM's trees as a `Forest`: ``x <= threshold`` in float64 goes left, so does a category of the set.

Source: NumericalDecision, CategoricalDecision and PredictionFunLinear in include/LightGBM/tree.h.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported
from modelhub.graph.forest import ZERO, Compare, Forest, LinearLeaves, Link, Rounding, Sets
from modelhub_lightgbm.text import Fields, Text

__all__ = ["forest"]

_CATEGORICAL, _DEFAULT_LEFT, _MISSING = 1, 2, 12
_MISSING_ZERO, _MISSING_NAN = 4, 8


class _Tree(NamedTuple):
    """One tree; its splits are nodes 0..n-2, leaf l is node n - 1 + l."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    decision: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    values: NDArray[np.float64]
    set_sizes: NDArray[np.int64]
    """[splits]"""
    members: NDArray[np.int64]


def forest(text: Text, features: int, outputs: int, link: Link, where: str) -> Forest:
    """The forest of all trees. Raises `UnreadableFile` where they are none, `Unsupported` for what has no words."""
    trees = [_tree(fields) for fields in text.trees]
    if not trees or len(trees) % outputs:
        raise UnreadableFile(f"{where}: {len(trees)} trees for {outputs} outputs")
    leaves = np.array([len(tree.values) for tree in trees])
    sizes = 2 * leaves - 1
    first = np.cumsum(sizes) - sizes
    splits = np.concatenate([np.arange(n - 1) + f for n, f in zip(leaves, first, strict=True)])
    ends = np.concatenate([np.arange(n) + f + n - 1 for n, f in zip(leaves, first, strict=True)])
    nodes = int(sizes.sum())
    base = np.repeat(first, leaves - 1)
    count = np.repeat(leaves, leaves - 1)

    def child(column: NDArray[np.int64]) -> NDArray[np.int64]:
        inside = np.where(column < 0, -1 - column < count, column < count - 1)
        if not inside.all():
            raise UnreadableFile(f"{where}: a split has a child outside of its tree")
        return np.asarray(base + np.where(column < 0, count - 2 - column, column))

    def spread(column: NDArray[Any], filler: float) -> NDArray[Any]:
        whole = np.full(nodes, filler, column.dtype)
        whole[splits] = column
        return whole

    feature, threshold, decision, left, right, values, set_sizes, members = (
        np.concatenate([tree[i] for tree in trees]) for i in range(len(_Tree._fields))
    )
    if ((feature < 0) | (feature >= features)).any():
        raise UnreadableFile(f"{where}: a split asks for a feature that is not there")
    member = decision & _CATEGORICAL != 0
    missing = decision & _MISSING
    numeric = ~member
    left_by_default = decision & _DEFAULT_LEFT != 0
    # without a missing type NaN counts as 0; a category that is NaN is in no set
    nan_left = np.where(missing == 0, threshold >= 0, left_by_default) & numeric
    leaf = np.full(nodes, -1)
    leaf[ends] = np.arange(len(ends))
    zero_missing = _by_feature(feature[numeric], missing[numeric] == _MISSING_ZERO, features, where)
    categorical = _by_feature(feature, member, features, where)
    return Forest(
        features=features,
        feature=spread(feature.astype(np.int32), -1),
        compare=spread(np.where(member, Compare.MEMBER, Compare.LE).astype(np.uint8), 0),
        threshold=spread(np.where(member, 0, _around_zero(threshold)), 0),
        true_child=spread(child(left), -1),
        false_child=spread(child(right), -1),
        missing=spread(nan_left, 0),
        leaf=leaf,
        values=values[:, np.newaxis],
        roots=first,
        tree_output=np.arange(len(trees)) % outputs,
        tree_weight=np.ones(len(trees)),
        base=np.zeros(outputs),
        divisor=len(trees) // outputs if "average_output" in text.header else 1.0,
        link=link,
        dtype="float64",
        sets=Sets.of(spread(set_sizes, 0), members) if member.any() else None,
        zero_missing=zero_missing if zero_missing.any() else None,
        rounding=np.where(categorical, Rounding.TRUNCATE, Rounding.NONE).astype(np.uint8) if member.any() else None,
        linear=_linear(text.trees, leaves, zero_missing, where),
    ).checked(where)


def _around_zero(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds that see every value up to `ZERO` as 0, as it is before the trees see it.

    Source: RowPairFunctionFromDenseMatric in src/c_api.cpp keeps values beyond kZeroThreshold only.
    """
    below = (threshold >= -ZERO) & (threshold < 0)
    above = (threshold >= 0) & (threshold < ZERO)
    return np.where(below, np.nextafter(-ZERO, -np.inf), np.where(above, ZERO, threshold))


def _by_feature(feature: NDArray[np.int64], flag: NDArray[np.bool_], features: int, where: str) -> NDArray[np.bool_]:
    """What all splits of a feature agree upon: [features]."""
    result = np.zeros(features, np.bool_)
    result[feature[flag]] = True
    if result[feature[~flag]].any():
        raise Unsupported(
            f"{where}: two splits treat one feature differently (category or number, zero missing or not)"
        )
    return result


def _tree(fields: Fields) -> _Tree:
    leaves = fields.integer("num_leaves")
    if not 1 <= leaves <= len(fields.text("leaf_value")):
        raise UnreadableFile(f"{fields.where}: {leaves} leaves announced")
    values = fields.floats("leaf_value", leaves)
    none = np.zeros(0, np.int64)
    if leaves == 1:
        return _Tree(none, np.zeros(0), none, none, none, values, none, none)
    feature, left, right, decision = (
        fields.integers(key, leaves - 1) for key in ("split_feature", "left_child", "right_child", "decision_type")
    )
    if ((decision < 0) | (decision > 15) | (decision & _MISSING == _MISSING)).any():
        raise Unsupported(f"{fields.where}: a decision type that LightGBM up to version 4 does not have")
    threshold = fields.floats("threshold", leaves - 1)
    sizes, members = _sets(fields, threshold, decision & _CATEGORICAL != 0)
    return _Tree(feature, threshold, decision, left, right, values, sizes, members)


def _sets(
    fields: Fields, threshold: NDArray[np.float64], member: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many categories each split has, and all of them: bit b of word w in a split's bitset is category 32 w + b.

    A categorical split's threshold is the number of its bitset; the bitsets lie one after the other.
    """
    sizes = np.zeros(len(threshold), np.int64)
    count = fields.integer("num_cat", 0)
    if count != member.sum():
        raise UnreadableFile(f"{fields.where}: {count} sets of categories for {int(member.sum())} splits")
    if not count:
        return sizes, np.zeros(0, np.int64)
    words = np.array(fields.text("cat_threshold").split(), np.str_)
    boundaries = fields.integers("cat_boundaries", count + 1)
    if boundaries[0] != 0 or boundaries[-1] != len(words) or (np.diff(boundaries) < 0).any():
        raise UnreadableFile(f"{fields.where}: cat_boundaries do not fit cat_threshold")
    number = threshold[member]
    if not np.array_equal(np.sort(number), np.arange(count)):
        raise UnreadableFile(f"{fields.where}: the categorical splits do not name every set once")
    bits = fields.integers("cat_threshold", len(words))
    if ((bits < 0) | (bits >= 1 << 32)).any():
        raise UnreadableFile(f"{fields.where}: cat_threshold holds a word of more than 32 bits")
    word, bit = np.nonzero(bits[:, np.newaxis] >> np.arange(32) & 1)
    owner = np.searchsorted(boundaries, word, side="right") - 1
    members = 32 * (word - boundaries[owner]) + bit
    order = np.argsort(number)  # bitset -> split, in the order of the splits
    rank = np.empty(count, np.int64)
    rank[np.arange(count)] = order
    sizes[np.flatnonzero(member)[order]] = np.bincount(owner, minlength=count)
    return sizes, members[np.argsort(rank[owner], kind="stable")]


def _linear(
    trees: list[Fields], leaves: NDArray[np.int64], zero_missing: NDArray[np.bool_], where: str
) -> LinearLeaves | None:
    """Linear leaves of all trees, a plain tree among them being constant; None where no tree is linear."""
    linear = [fields.integer("is_linear", 0) == 1 for fields in trees]
    if not any(linear):
        return None
    if zero_missing.any():
        raise Unsupported(f"{where}: linear trees together with zero_as_missing, which LightGBM does not train")
    constants, counts, features, coefficients = [], [], [], []
    for fields, is_linear, leaf_count in zip(trees, linear, leaves, strict=True):
        constants.append(fields.floats("leaf_const" if is_linear else "leaf_value", leaf_count))
        count = fields.integers("num_features", leaf_count) if is_linear else np.zeros(leaf_count, np.int64)
        if (count < 0).any():
            raise UnreadableFile(f"{fields.where}: a leaf of a negative number of features")
        counts.append(count)
        if is_linear:
            features.append(fields.integers("leaf_features", int(count.sum())))
            coefficients.append(fields.floats("leaf_coeff", int(count.sum())))
    start = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))])
    return LinearLeaves(np.concatenate(constants), start, np.concatenate(features), np.concatenate(coefficients))
