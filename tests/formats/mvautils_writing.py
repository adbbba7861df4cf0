"""ROOT files in the layout of MVAUtils, for tests, and what MVAUtils answers to them, tree by tree in nested tuples.

uproot writes vectors as counted arrays and not as std::vector, which MVAUtils itself would refuse; reading is the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

ak = pytest.importorskip("awkward")
uproot = pytest.importorskip("uproot")

Node: TypeAlias = Any
"""A leaf is its value; a split is (variable, cut, default_left, left, right)."""


def preorder(node: Node) -> tuple[list[int], list[float], list[bool]]:
    """vars, values and default_left of a tree."""
    variables: list[int] = []
    values: list[float] = []
    flags: list[bool] = []
    going = [node]
    while going:
        node = going.pop()
        if not isinstance(node, tuple):
            variables.append(-1)
            values.append(node)
            flags.append(True)
            continue
        variable, cut, default_left, left, right = node
        variables.append(variable)
        values.append(cut)
        flags.append(default_left)
        going += [right, left]
    return variables, values, flags


def written(
    path: Path,
    trees: Sequence[Node],
    title: str,
    weights: Sequence[float] | None = None,
    name: str = "BDT",
    flags: bool = True,
) -> Path:
    """A file of one forest."""
    with uproot.recreate(path) as file:
        plant(file, name, [preorder(tree) for tree in trees], title, weights, flags)
    return path


def plant(
    file: Any,
    name: str,
    columns: Sequence[tuple[list[int], list[float], list[bool]]],
    title: str,
    weights: Sequence[float] | None = None,
    flags: bool = True,
) -> None:
    """A TTree of `columns` (tree by tree: vars, values, default_left), which need be no trees."""
    kinds = {"vars": "var * int32", "values": "var * float32"}
    data = {
        "vars": ak.values_astype(ak.Array([c[0] for c in columns]), np.int32),
        "values": ak.values_astype(ak.Array([c[1] for c in columns]), np.float32),
    }
    if flags:
        kinds["default_left"] = "var * bool"
        data["default_left"] = ak.values_astype(ak.Array([c[2] for c in columns]), np.bool_)
    if weights is not None:
        kinds["offset"] = "float32"
        data["offset"] = np.array(weights, np.float32)
    file.mktree(name, kinds, title=title).extend(data)


def walk(node: Node, x: np.ndarray, flavour: str) -> np.ndarray:
    """What a tree answers to float32 events, by the rules in NodeImpl.h."""
    if not isinstance(node, tuple):
        return np.full(len(x), np.float32(node))
    variable, cut, default_left, left, right = node
    column, cut = x[:, variable], np.float32(cut)
    goes = {"TMVA": column >= cut, "xgboost": column < cut}.get(flavour, column <= cut)
    if flavour in ("xgboost", "lgbm"):
        goes = np.where(np.isnan(column), default_left, goes)
    result = np.empty(len(x), np.float32)
    result[goes] = walk(left, x[goes], flavour)
    result[~goes] = walk(right, x[~goes], flavour)
    return result


def answer(
    trees: Sequence[Node], x: np.ndarray, flavour: str, task: str, weights: Sequence[float] | None = None
) -> np.ndarray:
    """[N, outputs] in double."""
    each = [walk(tree, x, flavour).astype(np.float64) for tree in trees]
    w = [float(np.float32(v)) for v in weights or ()]
    if task.startswith("multiclass="):
        classes = int(task.partition("=")[2])
        sums = np.stack([sum(each[c::classes]) for c in range(classes)], axis=1)
        shares = np.exp(sums - sums.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)
    total = sum(each)
    if task == "gradboost":
        return (2 / (1 + np.exp(-2 * total)) - 1)[:, np.newaxis]
    if task == "response":
        return (total + (w[0] if w else 0))[:, np.newaxis]
    if w:
        return (sum(a * b for a, b in zip(w, each, strict=True)) / sum(w))[:, np.newaxis]
    return (1 / (1 + np.exp(-total)))[:, np.newaxis]


def grown(random: np.random.Generator, variables: int, depth: int) -> Node:
    """A random tree, of cuts on a coarse grid so that events meet them."""
    if depth == 0 or random.random() < 0.1:
        return float(np.float32(random.normal()))
    left, right = (grown(random, variables, depth - 1) for _ in range(2))
    cut = float(random.integers(-8, 9)) / 4
    return int(random.integers(variables)), cut, bool(random.integers(2)), left, right


def from_xgboost(booster: Any) -> list[Node]:
    """The trees of a booster, as ATLAS's convertXGBoostToRootTree.py takes them from its dump."""

    def node(entry: dict[str, Any]) -> Node:
        if "leaf" in entry:
            return entry["leaf"]
        child = {c["nodeid"]: c for c in entry["children"]}
        flag = entry["missing"] == entry["yes"]
        sides = node(child[entry["yes"]]), node(child[entry["no"]])
        return int(entry["split"].removeprefix("f")), entry["split_condition"], flag, *sides

    return [node(json.loads(text)) for text in booster.get_dump(dump_format="json")]


def from_lightgbm(booster: Any) -> tuple[list[Node], str]:
    """The trees of a booster and the title, as ATLAS's convertLGBMToRootTree.py takes them from its dump."""
    dump = booster.dump_model()

    def node(entry: dict[str, Any]) -> Node:
        if "split_feature" not in entry:
            return entry["leaf_value"]
        assert entry["decision_type"] == "<="
        sides = node(entry["left_child"]), node(entry["right_child"])
        return entry["split_feature"], entry["threshold"], entry["default_left"], *sides

    trees = [node(tree["tree_structure"]) for tree in dump["tree_info"]]
    infos = ";".join(f"{key}={value}" for key, value in dump.items() if not isinstance(value, list))
    return trees, infos
