"""Forests as dense layers, with every decision about a float32 row exact.

A few dozen leaves and all splits on the way to them make a block of three layers; the blocks are added up::

    x ──► 1e60 (x_f - m), hard_sigmoid ──► rectified ──► linear ──► add ──► margins
          which side of each split?        which leaf?   its value

m lies strictly between the two neighbouring float32 values between which the split flips. Any float32 is so far from
it that the first layer gives exactly 0 or 1: the nearest denormal is 1e-48 away, and 1e60 of that is far more than the
2.5 where hard_sigmoid ends. A leaf is 1 + (right turns with answer 1) - (left turns with answer 1) - (right turns):
1 where every turn is taken, 0 or less elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import ModelhubError, notice, safe_text
from modelhub.graph.forest import Compare, Forest
from modelhub.graph.forest_forms import forest_at
from modelhub.graph.forest_onnx import narrowed
from modelhub_lwtnn.draft import LINEAR, Affine, Default
from modelhub_lwtnn.meaning import Record, Refusal, lowers
from modelhub_lwtnn.op import Op
from modelhub_lwtnn.schema import Activation, Array, Dense

STEEP = 1e60
"""Slope of the first layer. A float32 times this is no infinity in double; in FastGraph<float> it is."""

BLOCK = 64
"""Leaves in a block: between 32 and 64 lwtnn is fastest; small blocks fetch all inputs each, large ones are square."""

MANY = 30_000
"""Leaves from which on lwtnn needs about a gigabyte to read the file and milliseconds for an event."""

LARGEST = 20_000_000
"""Numbers in the file: lwtnn needs about 300 bytes of memory for each while it reads them."""

INFINITE = 2.0**128
"""Stands for infinity: the power of two behind the largest float32."""


@lowers("TreeEnsemble", domain="ai.onnx.ml")
def tree_ensemble(op: Op) -> Record:
    """A forest, with the table of leaves behind it where these hold several values."""
    try:
        found = forest_at(op.node)
    except ModelhubError as error:
        raise Refusal(f"is no forest lwtnn could compute ({error}). Write ONNX.") from error
    forest, x = found.forest, op.data(0)
    if x.axes != ("batch", "feature"):
        raise Refusal("looks at a sequence; lwtnn's trees are made of layers on vectors. Write ONNX.")
    if forest.features > op.width(x):
        raise Refusal(f"asks for {forest.features} features, but gets {op.width(x)}")
    if not forest.trees:
        raise Refusal("holds no trees")
    questions = _questions(forest, exact=op.node.attributes["nodes_splits"].as_tensor().dtype == ir.DataType.DOUBLE)
    x = _without_nan(op, forest, questions, x)
    _tell(op, forest, x)
    place = np.arange(op.width(x)) if x.columns is None else np.array(x.columns)
    x = replace(x, columns=None)
    width = op.width(x)
    parts = []
    for questions_of, leaves, values in _blocks(forest, questions, width):
        first = np.zeros((len(questions_of), width))
        first[range(len(first)), place[questions.feature[questions_of]]] = STEEP
        sides = op.pointwise(x, Dense(first, -STEEP * questions.boundary[questions_of], Activation("hard_sigmoid")))
        reached = op.pointwise(sides, Dense(leaves[:, 1:], leaves[:, 0], Activation("rectified")))
        parts.append(op.pointwise(reached, Dense(values, None, LINEAR)))
    result = parts[0] if len(parts) == 1 else op.add("add", [part.step for part in parts], forest.outputs, x.axes)
    if len(found.nodes) > 1:
        op.stands_for(found.nodes[1:], result)
    return result


@dataclass(frozen=True, eq=False)
class _Questions:
    """What the splits ask, "is x[feature] above boundary?", each different question once."""

    feature: NDArray[np.int64]
    """[questions]"""
    boundary: Array
    """[questions] never a float32 value, and infinite ones are ±2^128"""
    asked: NDArray[np.int64]
    """[nodes] the question of a split; -1 at leaves"""
    yes: NDArray[np.int64]
    """[nodes] where a split leads rows above the boundary; -1 at leaves"""
    no: NDArray[np.int64]


def _questions(forest: Forest, *, exact: bool) -> _Questions:
    """The questions of a forest; where `exact`, thresholds are meant for doubles and kept as near as can be."""
    compare, t = narrowed(forest.compare, forest.threshold)
    splits = np.flatnonzero(forest.splits)
    if (compare[splits] == Compare.MEMBER).any():
        raise Refusal("asks for sets of categories; lwtnn's layers know thresholds only. Write ONNX.")
    if (compare[splits] > Compare.GT).any():
        raise Refusal("asks for equality; lwtnn's layers know thresholds only. Write ONNX.")
    before = (compare == Compare.LT) | (compare == Compare.GE)
    with np.errstate(over="ignore"):
        other = np.nextafter(t, np.where(before, -np.inf, np.inf).astype(np.float32))
    ends = np.clip(np.stack([t, other]).astype(np.float64), -INFINITE, INFINITE)
    low, high = ends.min(axis=0), ends.max(axis=0)
    margin = (high - low) * 2.0**-10
    boundary = np.clip(forest.threshold, low + margin, high - margin) if exact else (low + high) / 2
    pairs = np.stack([forest.feature[splits].astype(np.float64), boundary[splits]], axis=1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    asked = np.full(forest.nodes, -1, np.int64)
    asked[splits] = inverse.ravel()
    if not len(splits):
        unique = np.array([[0.0, 2.0**-150]])  # one that no leaf heeds, as lwtnn has no layers of width 0
    above = (compare == Compare.GE) | (compare == Compare.GT)
    yes, no = (np.where(above == side, forest.true_child, forest.false_child) for side in (True, False))
    return _Questions(unique[:, 0].astype(np.int64), unique[:, 1], asked, yes, no)


def _without_nan(op: Op, forest: Forest, questions: _Questions, x: Record) -> Record:
    """`x` with NaN replaced where the trees route it: by a value that goes every way that NaN goes.

    lwtnn poisons every output with any NaN. A variable whose NaN goes to the true branch nowhere is left alone.
    """
    routed = np.unique(forest.feature[forest.splits & forest.missing])
    routed = routed[~_replaced(op, x)[routed]]
    if not len(routed):
        return x
    above = (questions.yes == forest.true_child) == forest.missing  # NaN goes where rows above the boundary go
    values = np.full(op.width(x), np.nan)
    both_ways = []
    for feature in routed:
        here = np.flatnonzero(forest.splits & (forest.feature == feature))
        boundary = questions.boundary[questions.asked[here]]
        low, high = boundary[above[here]].max(initial=-INFINITE), boundary[~above[here]].min(initial=INFINITE)
        if low < high:
            values[feature] = _between(low, high)
        if not low < values[feature] < high:
            both_ways.append(f"column {feature}")
    if both_ways:
        raise Refusal(
            f"routes missing values ({_listed(both_ways)}) as no number goes; "
            "lwtnn can only replace NaN by a number. Give these variables a default with --interface, or write ONNX."
        )
    entrance = op.steps[x.step].entrance
    if entrance is None or x.columns is not None or not op.only_use(0):
        raise Refusal(
            "routes missing values of variables that were computed, chosen or are used elsewhere; lwtnn replaces NaN "
            "at its inputs, for all. "
            "Give the variables a default with --interface, or write ONNX."
        )
    names = _listed([safe_text(entrance.record.features[feature].name) for feature in routed])
    notice(
        f"{op.origin}: NaN in {names} is replaced by a number that takes "
        "the same branches; in C++, give the defaults of the file to lwt::NanReplacer"
    )
    return op.pointwise(x, Default(values))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _between(low: float, high: float) -> float:
    """The float32 next to zero among those between two boundaries, which are no float32 themselves."""
    if low < 0 < high:
        return 0.0
    sign, bound = (1, low) if low > 0 else (-1, -high)
    value = np.float32(bound)
    return sign * float(value if value > bound else np.nextafter(value, np.float32(np.inf)))


def _replaced(op: Op, x: Record) -> NDArray[np.bool_]:
    """[columns of x] whether NaN is replaced on the way from the input."""
    replaced = np.zeros(op.width(replace(x, columns=None)), np.bool_)
    step = op.steps[x.step]
    while step.entrance is None and isinstance(step.layer, Affine | Default):
        if isinstance(step.layer, Default):
            replaced |= ~np.isnan(step.layer.values)
        step = op.steps[step.sources[0]]
    return replaced if x.columns is None else replaced[list(x.columns)]


def _tell(op: Op, forest: Forest, x: Record) -> None:
    notice(
        f"{op.origin}: trees are written as layers with weights of {STEEP:g}: use LightweightGraph or another engine "
        "in double (FastGraph<float> gives NaN), and no NaN or infinity in any input"
    )
    leaves = int((~forest.splits).sum())
    if leaves > MANY:
        notice(f"{op.origin}: {leaves} leaves; lwtnn will be slow, and needs gigabytes to read the file")
    step = op.steps[x.step]
    while step.entrance is None and isinstance(step.layer, Default):
        step = op.steps[step.sources[0]]
    if step.entrance is None:
        notice(
            f"{op.origin}: the trees see variables that lwtnn computes in double; where the source rounds them to "
            "float32, a row that comes within a rounding of a threshold may go the other way"
        )


def _blocks(forest: Forest, questions: _Questions, width: int) -> Iterator[tuple[NDArray[np.int64], Array, Array]]:
    """For each block its questions [Q], its leaves [L, 1 + Q] (the constant first), and their values [outputs, L]."""
    splits = np.flatnonzero(forest.splits)
    parent = np.full(forest.nodes, -1, np.int64)
    right = np.zeros(forest.nodes, np.bool_)
    parent[questions.yes[splits]] = parent[questions.no[splits]] = splits
    right[questions.yes[splits]] = True
    ends, tree = _in_order(forest, questions)
    total = 0
    for first in range(0, len(ends), BLOCK):
        chunk, chunk_tree = ends[first : first + BLOCK], tree[first : first + BLOCK]
        row, node = np.arange(len(chunk)), chunk
        turns = []
        while len(node := node[kept := parent[node] >= 0]):
            row = row[kept]
            turns.append((row, questions.asked[parent[node]], right[node]))
            node = parent[node]
        rows, asked, sides = (
            (np.concatenate(part) for part in zip(*turns, strict=True)) if turns else (np.zeros(0, np.int64),) * 3
        )
        unique, column = np.unique(asked, return_inverse=True)
        if not len(unique):
            unique = np.zeros(1, np.int64)  # lwtnn has no layers of width 0
        total += len(unique) * (width + 1) + len(chunk) * (len(unique) + 1 + forest.outputs)
        if total > LARGEST:
            raise _too_large()
        leaves = np.zeros((len(chunk), 1 + len(unique)))
        np.add.at(leaves, (rows, 1 + column.ravel()), np.where(sides, 1.0, -1.0))
        leaves[:, 0] = 1 - np.bincount(rows, sides, len(chunk))
        value = forest.values[forest.leaf[chunk]] * forest.tree_weight[chunk_tree, np.newaxis] / forest.divisor
        if value.shape[1] != forest.outputs:
            alone, value = value[:, 0], np.zeros((len(chunk), forest.outputs))
            value[range(len(chunk)), forest.tree_output[chunk_tree]] = alone
        yield unique, leaves, np.ascontiguousarray(value.T)


def _in_order(forest: Forest, questions: _Questions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All leaf nodes, tree after tree, those with a common way next to each other; and the trees they are on."""
    ends, trees, length = [], [], 0
    yes, no = questions.yes.tolist(), questions.no.tolist()
    for tree, root in enumerate(forest.roots.tolist()):
        open_nodes = [(root, 0)]
        while open_nodes:
            node, depth = open_nodes.pop()
            if yes[node] >= 0:
                open_nodes += [(yes[node], depth + 1), (no[node], depth + 1)]
                continue
            ends.append(node)
            trees.append(tree)
            length += depth
            if length > LARGEST:
                raise _too_large()
    return np.array(ends, np.int64), np.array(trees, np.int64)


def _too_large() -> Refusal:
    return Refusal(f"would take more than {LARGEST:,} numbers. Use fewer leaves, or write ONNX.")
