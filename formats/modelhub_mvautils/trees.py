"""Nodes in preorder as a `Forest`: which child is which, and what each flavour asks (MVAUtils/NodeImpl.h).

    TMVA           value >= cut ? left : right         NaN goes right
    lgbm_simple    value <= cut ? left : right         NaN goes right
    lgbm           value <= cut ? left : right         NaN goes where default_left says
    xgboost        value <  cut ? left : right         NaN goes where default_left says

All in float32. The left child of a split stands behind it, the right one behind all that is below the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.graph.forest import Compare, Forest, Link
from modelhub_mvautils.root import Stored

__all__ = ["FLAVOURS", "Flavour", "flavour_of", "forest_of", "right_children"]

FARTHEST, LAST_VARIABLE = 32767, 127
"""MVAUtils keeps the distance to a right child as int16 and a variable as int8 (MVAUtilsDefs.h): more overflow."""


@dataclass(frozen=True)
class Flavour:
    """How the nodes of one creator decide."""

    name: str
    compare: Compare
    flags: bool
    """Whether default_left counts."""


FLAVOURS = {
    "TMVA": Flavour("TMVA", Compare.GE, flags=False),
    "lgbm_simple": Flavour("lgbm_simple", Compare.LE, flags=False),
    "lgbm": Flavour("lgbm", Compare.LE, flags=True),
    "xgboost": Flavour("xgboost", Compare.LT, flags=True),
}


def flavour_of(stored: Stored) -> Flavour:
    """The flavour by the title of the TTree, as MVAUtils finds it: what it does not know is TMVA's."""
    creator = stored.title.get("creator", "")
    if creator == "lgbm":
        kind = stored.title.get("node_type", "")
        if kind not in ("lgbm", "lgbm_simple"):
            raise Unsupported(f"{stored.where}: node_type {safe_text(kind)!r}; MVAUtils knows lgbm and lgbm_simple")
        flavour = FLAVOURS[kind]
    else:
        flavour = FLAVOURS["xgboost" if creator == "xgboost" else "TMVA"]
    if flavour.flags and stored.default_left is None:
        raise UnreadableFile(f"{stored.where}: {flavour.name} trees without the branch default_left")
    if flavour.name == "TMVA" and stored.weight is None:
        raise UnreadableFile(f"{stored.where}: TMVA trees without the branch offset, their weights")
    return flavour


def right_children(stored: Stored) -> NDArray[np.int64]:
    """[nodes] the right child of each split, -1 at leaves. Raises where vectors are no trees in preorder."""
    right = np.full(len(stored.variable), -1, np.int64)
    splits = (stored.variable >= 0).tolist()
    node = 0
    for tree, size in enumerate(stored.sizes.tolist()):
        waiting: list[int] = []
        for end in range(node, node + size):
            if end > node and not splits[end - 1]:
                if not waiting:
                    raise UnreadableFile(f"{stored.where}: tree {tree} goes on behind its last leaf")
                right[waiting.pop()] = end
            if splits[end]:
                waiting.append(end)
        if waiting or not size or splits[node + size - 1]:
            raise UnreadableFile(f"{stored.where}: tree {tree} ends before its last leaf")
        node += size
    far = (right - np.arange(len(right))).max(initial=0)
    beyond = []
    if far > FARTHEST:
        beyond.append(f"a right child is {far} nodes behind its parent; the distance is an int16 there")
    if (last := int(stored.variable.max(initial=-1))) > LAST_VARIABLE:
        beyond.append(f"it cuts on variable {last}; the index of a variable is an int8 there")
    if beyond:
        raise Unsupported(f"{stored.where} is beyond what MVAUtils can keep", beyond)
    return right


def forest_of(stored: Stored, flavour: Flavour, features: int) -> Forest:
    """The sum of all trees, one output; the link, weights and base are the answer's."""
    splits = stored.variable >= 0
    right = right_children(stored)
    nodes, leaves = len(splits), int((~splits).sum())
    left = np.where(splits, np.arange(nodes) + 1, -1)
    if (stored.variable < -1).any() or not np.isfinite(stored.value).all():
        raise UnreadableFile(f"{stored.where}: a node whose variable is below -1, or whose value is no finite number")
    leaf = np.full(nodes, -1, np.int64)
    leaf[~splits] = np.arange(leaves)
    flags = stored.default_left if flavour.flags and stored.default_left is not None else np.zeros(nodes, np.bool_)
    return Forest(
        features=features,
        feature=np.where(splits, stored.variable, -1).astype(np.int32),
        compare=np.where(splits, int(flavour.compare), 0).astype(np.uint8),
        threshold=np.where(splits, stored.value, 0).astype(np.float64),
        true_child=left,
        false_child=right,
        missing=flags & splits,
        leaf=leaf,
        values=stored.value[~splits].astype(np.float64)[:, np.newaxis],
        roots=np.cumsum(stored.sizes) - stored.sizes,
        tree_output=np.zeros(len(stored.sizes), np.int64),
        tree_weight=np.ones(len(stored.sizes)),
        base=np.zeros(1),
        link=Link(),
    )
