"""XGBoost's trees as a `Forest`: ``x < condition`` in float32 goes left, a category of the set goes right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported
from modelhub.graph.forest import Compare, Forest, Rounding, Sets
from modelhub_xgboost.model import Model, Trees
from modelhub_xgboost.objectives import Objective

__all__ = ["best_trees", "counted_trees", "forest", "margin_base"]


def counted_trees(model: Model) -> int:
    """How many of the first trees a prediction adds up.

    All, as `Booster.predict` does; but the rounds up to `best_iteration` where a scikit-learn estimator wrote the
    file, as this is what it does itself (XGBModel._get_iteration_range). It leaves its mark among the attributes.
    """
    trees = 0 if model.trees is None else len(model.trees.sizes)
    return best_trees(model) if "scikit_learn" in model.attributes else trees


def best_trees(model: Model) -> int:
    """How many trees belong to the rounds up to `best_iteration`; all where the file does not know of it."""
    trees = 0 if model.trees is None else len(model.trees.sizes)
    if model.rounds is None and model.per_round == 0:
        # the old binary does not say how many trees a round has, but what was used for it then
        return min(_count(model, "best_ntree_limit", trees) * model.outputs, trees)
    rounds = _count(model, "best_iteration", trees) + 1
    if model.rounds is not None:
        return int(model.rounds[rounds]) if rounds < len(model.rounds) else trees
    return min(rounds * model.per_round * model.outputs, trees)


def _count(model: Model, attribute: str, default: int) -> int:
    text = model.attributes.get(attribute, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else default


def margin_base(model: Model, objective: Objective, where: str) -> NDArray[np.float64]:
    """The base score of every output, in margin space."""
    score = model.base_score
    margin = score if model.base_is_margin else objective.margin(score)
    if len(margin) not in (1, model.outputs) or not np.isfinite(margin).all():
        raise UnreadableFile(f"{where}: a base score of {score.tolist()[:4]} for {model.outputs} outputs")
    return np.broadcast_to(margin, model.outputs).copy()


def forest(model: Model, objective: Objective, where: str) -> Forest:
    """The forest of a gbtree or dart model. Raises `UnreadableFile` where the trees are none."""
    trees = model.trees
    if trees is None:
        raise ValueError("a linear model has no forest")
    count = counted_trees(model)
    kept = trees.sizes[:count]
    if (kept < 1).any() or not 0 <= count <= len(trees.sizes):
        raise UnreadableFile(f"{where}: a tree without nodes")
    drop = np.ones(len(trees.sizes)) if model.drop is None else model.drop
    if len(drop) != len(trees.sizes):
        raise UnreadableFile(f"{where}: {len(drop)} dart weights for {len(trees.sizes)} trees")
    size = int(kept.sum())
    start = np.cumsum(kept) - kept
    first = np.repeat(start, kept)
    left, right, feature = trees.left[:size], trees.right[:size], trees.feature[:size]
    # Deleted nodes stay in the file: they are left out, and so are the numbers of the nodes behind them.
    alive = feature < Trees.DELETED
    place = np.where(alive, np.cumsum(alive) - 1, -1)
    is_leaf = left < 0
    limit = np.repeat(kept, kept)
    if (alive & ~is_leaf & ((left >= limit) | (right < 0) | (right >= limit))).any():
        raise UnreadableFile(f"{where}: a node has a child outside of its tree")
    left, right = (place[np.where(is_leaf, 0, child + first)] for child in (left, right))

    member, sets = _sets(trees, size, alive)
    leaf_rows = np.cumsum(alive & is_leaf) - 1 if trees.vector is None else trees.vector[:size]
    values = trees.condition[:size][alive & is_leaf, np.newaxis] if trees.leaf_weights is None else trees.leaf_weights
    result = Forest(
        features=model.features,
        feature=np.where(is_leaf, -1, np.minimum(feature, 2**31 - 1)).astype(np.int32)[alive],
        compare=np.where(member, Compare.MEMBER, np.where(is_leaf, 0, Compare.LT)).astype(np.uint8)[alive],
        threshold=np.where(is_leaf | member, 0, trees.condition[:size]).astype(np.float64)[alive],
        true_child=np.where(is_leaf, -1, np.where(member, right, left))[alive],
        false_child=np.where(is_leaf, -1, np.where(member, left, right))[alive],
        missing=(np.where(member, ~trees.default_left[:size], trees.default_left[:size]) & ~is_leaf)[alive],
        leaf=np.where(is_leaf, leaf_rows, -1)[alive],
        values=values.astype(np.float64),
        roots=place[start],
        tree_output=trees.group[:count],
        tree_weight=drop[:count],
        base=margin_base(model, objective, where),
        link=objective.link,
        dtype="float32",
        sets=sets,
        rounding=_rounding(feature, member, is_leaf, alive, model.features, where),
    )
    return result.checked(where)


def _sets(trees: Trees, size: int, alive: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], Sets | None]:
    """Which nodes ask for categories, and their sets."""
    sizes = np.zeros(size, np.int64)
    member = np.zeros(size, np.bool_)
    inside = trees.category_node < size
    node = trees.category_node[inside]
    if not len(node):
        return member, None
    member[node] = (trees.left[node] >= 0) & alive[node]  # a node pruned to a leaf keeps its set
    sizes[node] = trees.category_size[inside]
    used = np.repeat(member, sizes)
    sizes[~member] = 0
    return member, Sets.of(sizes[alive], trees.categories[: len(used)][used])


def _rounding(
    feature: NDArray[np.int64],
    member: NDArray[np.bool_],
    is_leaf: NDArray[np.bool_],
    alive: NDArray[np.bool_],
    features: int,
    where: str,
) -> NDArray[np.uint8] | None:
    """Categorical features are cut to whole numbers; negative ones are no category (src/common/categorical.h)."""
    if not member.any():
        return None
    if (alive & ~is_leaf & ((feature < 0) | (feature >= features))).any():
        raise UnreadableFile(f"{where}: a node asks for a feature that is not there")
    categorical = np.zeros(features, np.bool_)
    categorical[feature[member]] = True
    if categorical[feature[alive & ~is_leaf & ~member]].any():
        raise Unsupported(f"{where}: a feature is a number in one split and a category in another")
    return np.where(categorical, Rounding.FLOOR, Rounding.NONE).astype(np.uint8)
