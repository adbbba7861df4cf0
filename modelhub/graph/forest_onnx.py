"""Forests as ONNX: one TreeEnsemble (ai.onnx.ml 5) whose every decision is the source's, and the link behind it.

The common graph keeps a forest in float64, so that nothing is lost on the way to any writer::

    x ──► Cast ──► (rounding, zeros missing) ──► TreeEnsemble ──► Add(base) ──► link ──► Cast ──► y
            └──────────────────────────── in float64 ─────────────────────────────┘

`forest_forms` makes the written forms of it and reads it back. In float64 the node decides for *every* double as the
source does, also where that rounds a row to float32 first: the threshold stands on the boundary at which the rounding
flips (`boundaries`). In float32 it is the last float32 on the deciding side (`narrowed`), never the nearest.

Where leaves hold one number per output, a tree that names its leaf is followed by a table, as TreeEnsemble has one
number per leaf::

    x ──► Cast ──► TreeEnsemble [N, trees] ──► Cast(int64) ──► Add(first leaf) ──► Gather(table) ──► ReduceSum
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import Unsupported
from modelhub.graph.builder import Builder
from modelhub.graph.forest import ZERO, Compare, Forest, Link, Rounding, tree_of
from modelhub.graph.forest_attributes import Numbers
from modelhub.graph.forest_linear import as_vectors
from modelhub.graph.interface import Interface

__all__ = [
    "LARGEST_TABLE",
    "PREPARED",
    "apply_link",
    "boundaries",
    "check_depth",
    "margins",
    "narrowed",
    "to_graph",
    "tree_ensemble",
]

PREPARED = "rows_for_trees"
"""The scope of nodes that make categories and missing values of a row into what the trees ask about."""

LARGEST_CATEGORY = 1 << 24

NO_CATEGORY = -2.0 * LARGEST_CATEGORY
"""A whole number that is in no set."""

DEEPEST = 4096
"""Splits below each other. onnxruntime 1.32 walks a tree by recursion as it loads it, and at some depth between 10 000
and 20 000 runs out of stack, which ends the whole process."""

LARGEST_TABLE = 1 << 28
"""Numbers in the table of leaves that hold several outputs: 2 GiB."""


def to_graph(forest: Forest, interface: Interface) -> ir.Model:
    """The forest as a common graph with the one input and the one output of `interface`."""
    b = Builder()
    entry, result = interface.inputs[0], interface.outputs[0]
    x = b.input(entry.tensor, ["N", forest.features])
    y = apply_link(b, forest.link, margins(b, forest, x))
    y = b.op("Cast", y, to=ir.DataType.FLOAT.value)
    b.output(y, result.tensor, ["N", 1 if forest.link.kind == "argmax" else forest.outputs])
    return b.finish(interface)


def margins(b: Builder, forest: Forest, x: ir.Value) -> ir.Value:
    """Margins [N, outputs] in float64 of rows `x` [N, features] in float32 or float64."""
    row = b.op("Cast", x, to=ir.DataType.DOUBLE.value)
    with b.scope(PREPARED):
        x = _prepared(b, forest, row)
    if forest.linear is not None:
        total = _linear(b, forest, row, x)
    elif forest.values.shape[1] == 1:
        total = _ensemble(b, forest, x)
    elif (whole := _shared(forest)) is not None:
        total = _complement(b, forest, whole, x)
    elif (np.count_nonzero(forest.values, axis=1) <= 1).all():
        total = _pure(b, forest, x)
    else:
        total = _table(b, forest, x)
    if not forest.base.any():
        return total
    return b.op("Add", total, b.constant(forest.base, "base"))


def apply_link(b: Builder, link: Link, margin: ir.Value) -> ir.Value:
    """The operators of `link` (formulas: `Link`) behind margins [N, outputs] in float64."""
    zero = np.array(0, np.float64)
    if link.kind == "sigmoid" and link.slope != 1:
        margin = b.op("Mul", margin, b.constant(np.array(link.slope), "slope"))
    match link.kind:
        case "sigmoid":
            return b.op("Sigmoid", margin)
        case "softmax":
            return b.op("Softmax", margin, axis=-1)
        case "exp":
            return b.op("Exp", margin)
        case "tanh":
            return b.op("Tanh", margin)
        case "softplus":
            return _softplus(b, margin)
        case "signed_square":
            return b.op("Mul", margin, b.op("Abs", margin))
        case "step":
            return b.op("Cast", b.op("Greater", margin, b.constant(zero, "zero")), to=ir.DataType.DOUBLE.value)
        case "argmax":
            return b.op("Cast", b.op("ArgMax", margin, axis=-1, keepdims=1), to=ir.DataType.DOUBLE.value)
        case "sorted":
            width = b.op("Gather", b.op("Shape", margin), b.ints(1))
            return b.ops("TopK", margin, width, outputs=2, largest=0, sorted=1)[0]
        case "steps":
            first = b.op("Slice", margin, b.ints(0), b.ints(1), b.ints(1))
            rest = b.op("Slice", margin, b.ints(1), b.ints(np.iinfo(np.int64).max), b.ints(1))
            rest = b.op("Add", _softplus(b, rest), b.constant(zero + 1e-6, "gap"))
            return b.op("CumSum", b.op("Concat", first, rest, axis=1), b.constant(np.array(1), "axis"))
        case _:
            return margin


def _softplus(b: Builder, x: ir.Value) -> ir.Value:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)): onnxruntime has Softplus in float32 only."""
    zero = np.array(0, np.float64)
    small = b.op("Log", b.op("Add", b.op("Exp", b.op("Neg", b.op("Abs", x))), b.constant(zero + 1, "one")))
    return b.op("Add", b.op("Max", x, b.constant(zero, "zero")), small)


def narrowed(compare: NDArray[Any], threshold: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Comparisons and float32 thresholds that decide every float32 value as (`compare`, `threshold`) do.

    ``x <= t`` keeps its meaning with the largest float32 that is not above t, ``x < t`` with the smallest that is not
    below. No float32 equals a t that is none: EQ becomes never (below -inf), NE always (not below -inf).
    """
    with np.errstate(over="ignore"):
        return _narrowed(compare.astype(np.uint8), threshold)


def _narrowed(
    compare: NDArray[np.uint8], threshold: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    nearest = threshold.astype(np.float32)
    down = ((compare == Compare.LE) | (compare == Compare.GT)) & (nearest > threshold)
    up = ((compare == Compare.LT) | (compare == Compare.GE)) & (nearest < threshold)
    moved = np.where(down, -np.inf, np.inf).astype(np.float32)
    result = np.where(down | up, np.nextafter(nearest, moved), nearest)
    never = (compare == Compare.EQ) & (nearest != threshold)
    always = (compare == Compare.NE) & (nearest != threshold)
    result[never | always] = -np.inf
    compare[never], compare[always] = Compare.LT, Compare.GE
    return compare, result


def boundaries(forest: Forest) -> NDArray[np.float64]:
    """Thresholds [nodes] that decide for every double as the source does, whatever it rounds first.

    A source that rounds to float32 decides ``round(x) < t`` where t is a float32. That flips half-way between t and the
    float32 before it; the half-way point itself rounds to whichever of the two has an even last bit (IEEE 754, 4.3.1).
    Equality and sets of whole numbers are left as they are.
    """
    result = forest.threshold.copy()
    splits = np.flatnonzero(forest.splits)
    result[splits] = _boundaries(forest, splits)
    return result


def _boundaries(forest: Forest, splits: NDArray[np.int64]) -> NDArray[np.float64]:
    """`boundaries` of some splits."""
    asked, threshold = forest.compare[splits], forest.threshold[splits]
    if forest.dtype == "float64":
        return threshold
    compare, t = narrowed(asked, threshold)
    even = t.view(np.uint32) & 1 == 0
    lower = (compare == Compare.LT) | (compare == Compare.GE)
    with np.errstate(over="ignore"):
        other = np.nextafter(t, np.where(lower, -np.inf, np.inf).astype(np.float32))
    half = (_finite(t) + _finite(other)) / 2
    # even: the half-way point rounds to t, so it is not below t (and it is not above t)
    wide = np.where(even, half, np.nextafter(half, np.where(lower, np.inf, -np.inf)))
    return np.where((asked <= Compare.GT) & (other != t), wide, threshold)  # nothing is beyond infinity


def _finite(t: NDArray[np.float32]) -> NDArray[np.float64]:
    """float32 as doubles, infinity being the power of two behind the last finite one."""
    return np.clip(t.astype(np.float64), -(2.0**128), 2.0**128)


def tree_ensemble(forest: Forest, values: NDArray[np.float64], outputs: NDArray[np.int64]) -> dict[str, Any]:
    """The attributes of the TreeEnsemble in float64; leaf n adds `values[n]` to target `outputs[n]` (both [nodes]).

    TreeEnsemble counts splits and leaves apart and its roots are splits: a tree of one leaf gets a split that leads
    to that leaf on both sides.
    """
    check_depth(forest)
    splits = np.flatnonzero(forest.splits)
    ends = np.flatnonzero(~forest.splits)
    place = np.empty(forest.nodes, np.int64)
    place[splits] = np.arange(len(splits))
    place[ends] = np.arange(len(ends))
    bare = forest.roots[~forest.splits[forest.roots]]
    roots = place[forest.roots]
    roots[~forest.splits[forest.roots]] = len(splits) + np.arange(len(bare))

    compare, threshold = forest.compare[splits], _boundaries(forest, splits)
    sizes = np.zeros(len(splits), np.int64) if forest.sets is None else np.diff(forest.sets.start)[splits]
    sizes = np.where(compare == Compare.MEMBER, sizes, 0)
    if forest.sets is not None and (np.abs(forest.sets.members) > LARGEST_CATEGORY).any():
        raise Unsupported("the forest asks for categories beyond 2^24, which float32 cannot tell apart")
    empty = (compare == Compare.MEMBER) & (sizes == 0)  # onnxruntime refuses an empty set: below -inf, never
    compare = np.where(empty, Compare.LT, compare)
    threshold = np.where(compare == Compare.MEMBER, 0, np.where(empty, -np.inf, threshold))

    def split(column: NDArray[Any], filler: NDArray[Any] | int) -> NDArray[Any]:
        return np.concatenate([column[splits], np.broadcast_to(filler, len(bare))])

    is_leaf = ~forest.splits
    true, false = (split(child, 0) for child in (forest.true_child, forest.false_child))
    true[len(splits) :] = false[len(splits) :] = bare
    attributes: dict[str, Any] = {
        "aggregate_function": 1,  # sum
        "post_transform": 0,  # none
        "nodes_modes": ir.tensor(np.append(compare, np.zeros(len(bare))).astype(np.uint8)),
        "nodes_splits": ir.tensor(np.append(threshold, np.zeros(len(bare)))),
        "leaf_weights": ir.tensor(values[ends]),
    }
    columns = {
        "tree_roots": roots,
        "nodes_featureids": split(forest.feature, 0),
        "nodes_truenodeids": place[true],
        "nodes_trueleafs": is_leaf[true].astype(np.int8),
        "nodes_falsenodeids": place[false],
        "nodes_falseleafs": is_leaf[false].astype(np.int8),
        "leaf_targetids": outputs[ends],
    }
    if forest.missing[splits].any():
        columns["nodes_missing_value_tracks_true"] = split(forest.missing, 0).astype(np.int8)
    attributes |= {name: Numbers(name, column) for name, column in columns.items()}
    if forest.sets is not None and (compare == Compare.MEMBER).any():
        wanted = np.repeat(forest.sets.start[splits], sizes) + _count_up(sizes)
        attributes["membership_values"] = ir.tensor(_parted(forest.sets.members[wanted], sizes[sizes > 0]))
    return attributes


def check_depth(forest: Forest) -> None:
    """Refuse trees of more than `DEEPEST` splits below each other."""
    level = forest.roots
    for _ in range(DEEPEST + 1):
        level = level[forest.splits[level]]
        if not len(level):
            return
        level = np.concatenate([forest.true_child[level], forest.false_child[level]])
    raise Unsupported(f"the forest has a tree of more than {DEEPEST} splits below each other, too deep for onnxruntime")


def _count_up(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """0..n-1 for every n of `sizes`, one after the other."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _parted(members: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sets one after the other, a NaN behind each (ai.onnx.ml 5, TreeEnsemble: membership_values)."""
    return np.insert(members, np.cumsum(sizes), np.nan)


def _ensemble(b: Builder, forest: Forest, x: ir.Value) -> ir.Value:
    """Sums [N, outputs] float64 of trees with one number per leaf; weights and divisor are in the leaves."""
    tree = tree_of(forest)
    values = np.where(forest.leaf < 0, 0, forest.values[forest.leaf, 0]) if len(forest.values) else np.zeros(0)
    values = values * forest.tree_weight[tree] / forest.divisor
    attributes = tree_ensemble(forest, values, forest.tree_output[tree])
    return _node(b, attributes, forest.outputs, x)


def _shared(forest: Forest) -> float | None:
    """What the two values of every leaf add up to, if it is one number, as with the fractions of two classes."""
    if forest.outputs != 2 or not len(forest.values):
        return None
    sums = forest.values.sum(axis=1)
    return float(sums[0]) if np.abs(sums - sums[0]).max() <= 4 * np.spacing(np.abs(forest.values).max()) else None


def _complement(b: Builder, forest: Forest, whole: float, x: ir.Value) -> ir.Value:
    """Sums [N, 2] float64 of leaves whose two values add up to `whole`: the trees give the second, the rest is left.

    Divided at the end, as a source does: where all trees are sure nothing is left, and no rounding makes it negative.
    """
    second = replace(forest, values=forest.values[:, 1:], base=np.zeros(1), divisor=1.0)
    sign, rest = np.array([[-1.0, 1.0]]), np.array([whole * forest.tree_weight.sum(), 0.0])
    both = b.op("Gemm", _ensemble(b, second, x), b.constant(sign, "sign"), b.constant(rest, "rest"))
    return b.op("Div", both, b.constant(np.array(forest.divisor), "divisor"))


def _pure(b: Builder, forest: Forest, x: ir.Value) -> ir.Value:
    """Sums [N, outputs] float64 of leaves that speak for one output each, and not the same all over a tree."""
    output = np.argmax(forest.values != 0, axis=1)
    tree = tree_of(forest)
    values = np.where(forest.leaf < 0, 0, forest.values[np.arange(len(forest.values)), output][forest.leaf])
    values = values * forest.tree_weight[tree] / forest.divisor
    return _node(b, tree_ensemble(forest, values, output[forest.leaf]), forest.outputs, x)


def _node(b: Builder, attributes: dict[str, Any], targets: int, x: ir.Value) -> ir.Value:
    return b.op("TreeEnsemble", x, domain="ai.onnx.ml", n_targets=targets, **attributes)


def _table(b: Builder, forest: Forest, x: ir.Value) -> ir.Value:
    """Sums [N, outputs] float64 of trees whose leaves hold all outputs: a tree names its leaf, a table the values."""
    tree = tree_of(forest)
    ends = np.flatnonzero(~forest.splits)
    if len(ends) * forest.outputs > LARGEST_TABLE:
        raise Unsupported(
            "the forest is too large for one graph", [f"{len(ends)} leaves of {forest.outputs} values; use fewer trees"]
        )
    ends = ends[np.argsort(tree[ends], kind="stable")]
    sizes = np.bincount(tree[ends], minlength=forest.trees)
    if sizes.max() >= 1 << 24:
        raise Unsupported("the forest has a tree of more than 2^24 leaves, which float32 cannot count")
    local = np.zeros(forest.nodes)
    local[ends] = _count_up(sizes)
    named = replace(forest, base=np.zeros(forest.trees), tree_output=np.arange(forest.trees))
    index = b.op("Cast", _node(b, tree_ensemble(named, local, tree), forest.trees, x), to=ir.DataType.INT64.value)
    index = b.op("Add", index, b.constant((np.cumsum(sizes) - sizes).astype(np.int64), "first_leaf"))
    table = forest.values[forest.leaf[ends]] * forest.tree_weight[tree[ends], np.newaxis] / forest.divisor
    value = b.op("Gather", b.constant(table, "leaf_values"), index, axis=0)
    return b.op("ReduceSum", value, b.ints(1), keepdims=0)


def _linear(b: Builder, forest: Forest, row: ir.Value, x: ir.Value) -> ir.Value:
    """Sums [N, outputs] float64 of linear leaves: the trees choose constant and slopes, the row is multiplied in."""
    vectors, columns = as_vectors(forest)
    chosen = _table(b, vectors, x)
    chosen = b.op("Reshape", chosen, b.ints(-1, forest.outputs, 1 + len(columns)))
    row = b.op("Gather", row, b.constant(columns, "columns"), axis=1)
    zero, one = (b.constant(np.array(number, np.float64), name) for number, name in ((0, "zero"), (1, "one")))
    row = b.op("Where", b.op("IsNaN", row), zero, row)
    row = b.op("Unsqueeze", b.op("Pad", row, b.ints(0, 1, 0, 0), one), b.ints(1))
    product = b.op("Where", b.op("Equal", chosen, zero), zero, b.op("Mul", chosen, row))  # 0 * inf would be NaN
    return b.op("ReduceSum", product, b.ints(2), keepdims=0)


def _prepared(b: Builder, forest: Forest, x: ir.Value) -> ir.Value:
    """The row `x` (float64) as the nodes see it; `forest_eval.prepared` in operators."""
    if forest.rounding is not None:
        for kind in (Rounding.TRUNCATE, Rounding.FLOOR):
            columns = forest.rounding == kind
            if columns.any():
                whole = b.op("Floor", x)
                if kind == Rounding.TRUNCATE:
                    below = b.op("Less", x, b.constant(np.array(0.0), "zero"))
                    whole = b.op("Where", below, b.op("Ceil", x), whole)
                x = b.op("Where", b.constant(columns, "categories"), whole, x)
    if forest.zero_missing is not None and forest.zero_missing.any():
        small = b.op("LessOrEqual", b.op("Abs", x), b.constant(np.array(ZERO), "smallest"))
        small = b.op("And", small, b.constant(forest.zero_missing, "zero_is_missing"))
        x = b.op("Where", small, b.constant(np.array(np.nan), "nan"), x)
    exact = _unrounded_categories(forest)
    if exact.any():
        broken = b.op("And", b.op("Less", b.op("Floor", x), x), b.constant(exact, "exact_categories"))
        x = b.op("Where", broken, b.constant(np.array(NO_CATEGORY), "no_category"), x)
    return x


def _unrounded_categories(forest: Forest) -> NDArray[np.bool_]:
    """[features] which are asked for categories and hold them unrounded.

    There 2.7 is in no set, while onnxruntime 1.32 takes it for 2 in most sets (those it keeps as bits or as a chain).
    """
    member = forest.splits & (forest.compare == Compare.MEMBER)
    columns = np.isin(np.arange(forest.features), forest.feature[member])
    if forest.rounding is not None:
        columns &= forest.rounding == Rounding.NONE
    one = (forest.compare == Compare.EQ) & (forest.threshold == np.floor(forest.threshold))
    none = (forest.compare == Compare.LT) & np.isneginf(forest.threshold)
    numeric = forest.splits & ~(member | one | none) & columns[forest.feature]  # (sets in the classic operators' words)
    if numeric.any():
        name = int(forest.feature[np.argmax(numeric)])
        raise Unsupported(f"column {name} is asked both for unrounded categories and for thresholds")
    return columns
