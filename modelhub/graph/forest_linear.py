"""Linear leaves spelled as leaves of several values, so that nothing behind the reader has to know them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import Unsupported
from modelhub.graph.forest import Compare, Forest, Sets, tree_of

__all__ = ["as_vectors"]

LARGEST = 1 << 28
"""Numbers in the leaves that come out: 2 GiB."""


def as_vectors(forest: Forest) -> tuple[Forest, NDArray[np.int64]]:
    """A forest whose leaves choose, for every output, a constant and one slope per column; and these columns [C].

    Its outputs are [outputs * (1 + C)]. A leaf that falls back on a plain value where one of its columns is NaN becomes
    a chain of splits, one per column, that only a NaN leaves early::

        leaf(f, g)        f is NaN? ──► plain value
                              └──► g is NaN? ──► plain value
                                       └──► constant, slopes
    """
    linear = forest.linear
    if linear is None:
        raise ValueError("the forest has no linear leaves")
    columns, place = np.unique(linear.feature, return_inverse=True)
    width = 1 + len(columns)
    ends = np.flatnonzero(~forest.splits)
    tree = tree_of(forest)[ends]
    row, output = forest.leaf[ends], forest.tree_output[tree]
    count = np.diff(linear.start)[row]
    total = int(count.sum())
    if (2 * len(ends)) * forest.outputs * width > LARGEST:
        raise Unsupported("the linear leaves are too large for one graph", [f"{len(ends)} leaves of {width} numbers"])

    # values: one row per leaf node with its function, then one row per leaf node with its plain value
    values = np.zeros((2 * len(ends), forest.outputs, width))
    at = np.arange(len(ends))
    values[at, output, 0] = linear.constant[row]
    values[at + len(ends), output, 0] = forest.values[row, 0]
    owner = np.repeat(at, count)
    term = np.repeat(linear.start[row], count) + np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    np.add.at(values, (owner, output[owner], 1 + place.ravel()[term]), linear.coefficient[term])

    # nodes: the old leaf node becomes the head of its chain; link i of the chain and its way out are new nodes
    first = forest.nodes + np.cumsum(count) - count
    links = forest.nodes + np.arange(total)
    way_out = links + total
    step = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    # a chain of n tests is nodes end, first+1 .. first+n-1, and its last stop is the node `first`
    here = np.where(step == 0, ends[owner], links)
    following = np.where(step == count[owner] - 1, first[owner], links + 1)
    size = forest.nodes + 2 * total

    def grown(column: NDArray[Any], filler: float) -> NDArray[Any]:
        return np.concatenate([column, np.full(2 * total, filler, column.dtype)])

    feature, compare = grown(forest.feature, -1), grown(forest.compare, 0)
    threshold, missing = grown(forest.threshold, 0), grown(forest.missing, False)
    true_child, false_child, leaf = grown(forest.true_child, -1), grown(forest.false_child, -1), grown(forest.leaf, -1)
    leaf[ends] = np.where(count == 0, at, -1)
    feature[here], compare[here], threshold[here], missing[here] = linear.feature[term], Compare.LT, -np.inf, True
    true_child[here], false_child[here] = way_out, following
    leaf[way_out] = len(ends) + owner
    leaf[first[count > 0]] = at[count > 0]
    vectors = replace(
        forest,
        feature=feature,
        compare=compare,
        threshold=threshold,
        true_child=true_child,
        false_child=false_child,
        missing=missing,
        leaf=leaf,
        values=values.reshape(2 * len(ends), -1),
        base=np.zeros(forest.outputs * width),
        tree_output=np.zeros_like(forest.tree_output),
        sets=None if forest.sets is None else _grown_sets(forest.sets, size),
        linear=None,
    )
    return vectors, columns


def _grown_sets(sets: Sets, size: int) -> Sets:
    """`sets` for `size` nodes, the new ones without categories."""
    return Sets(np.append(sets.start, np.full(size + 1 - len(sets.start), sets.start[-1])), sets.members)
