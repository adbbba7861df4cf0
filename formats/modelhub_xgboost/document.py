"""The learner of a `.json` or `.ubj` file: one document, written in two notations (doc/model.schema of XGBoost)."""

from __future__ import annotations

from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub_xgboost.model import Model, Trees

__all__ = ["learner"]

_KNOWN = {
    "": {"learner", "version"},
    "learner": {
        "attributes", "feature_names", "feature_types", "gradient_booster", "learner_model_param", "objective",
        "learner_train_param", "metrics",
    },
    "learner_model_param": {"base_score", "boost_from_average", "num_class", "num_feature", "num_target"},
    "gradient_booster": {"gbtree", "model", "name", "weight_drop"},
    "gbtree": {"model", "name"},
    "model": {
        "boosted_rounds", "cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees", "weight_drop",
        "weights",
    },
    "trees": {
        "base_weights", "categories", "categories_nodes", "categories_segments", "categories_sizes", "default_left",
        "id", "leaf_child_counts", "leaf_weights", "left_children", "loss_changes", "parents", "right_children",
        "split_conditions", "split_indices", "split_type", "sum_hessian", "tree_param",
    },
}  # fmt: skip
"""Every key of versions 1.0 to 3.4. A new one may change what a model says (`weight_drop` came to gbtree in 3.4)."""


def learner(document: Any, where: str) -> Model:
    """The model in a parsed document. Raises `UnreadableFile` where a field is missing or of the wrong kind."""
    reader = _Fields(where)
    if isinstance(document, dict):
        reader.known(document, "")
    body = reader.object(document, "learner")
    param = reader.object(body, "learner_model_param")
    booster = reader.object(body, "gradient_booster")
    name = reader.text(booster, "name")
    outputs = max(reader.integer(param, "num_class", 0), reader.integer(param, "num_target", 1), 1)
    features = reader.integer(param, "num_feature")
    attributes = body.get("attributes", {})
    common: dict[str, Any] = {
        "version": tuple(int(v) for v in reader.column(document, "version", np.int64)),
        "booster": name,
        "objective": reader.text(reader.object(body, "objective"), "name"),
        "features": features,
        "outputs": outputs,
        "base_score": reader.base_score(param),
        "base_is_margin": False,
        "attributes": {str(k): str(v) for k, v in attributes.items()} if isinstance(attributes, dict) else {},
        "feature_names": reader.names(body, "feature_names"),
        "feature_types": reader.names(body, "feature_types"),
    }
    match name:
        case "gblinear":
            weights = reader.column(reader.object(booster, "model"), "weights", np.float32).astype(np.float64)
            if len(weights) != (features + 1) * outputs:
                raise UnreadableFile(f"{where}: {len(weights)} weights for {features} features, {outputs} outputs")
            return Model(**common, weights=weights.reshape(features + 1, outputs))
        case "gbtree":
            return Model(**common, **_forest(reader, reader.object(booster, "model")))
        case "dart":
            model = reader.object(reader.object(booster, "gbtree"), "model")
            forest = _forest(reader, model | {"weight_drop": booster.get("weight_drop")})
            return Model(**common, **forest)
        case _:
            raise Unsupported(f"{where}: the booster {safe_text(name)!r} is not gbtree, dart or gblinear")


def _forest(reader: _Fields, model: dict[str, Any]) -> dict[str, Any]:
    """Trees and rounds of a gbtree model."""
    entries = model.get("trees")
    if not isinstance(entries, list):
        raise reader.refuse("trees")
    group = reader.column(model, "tree_info", np.int64)
    if len(group) != len(entries):
        raise UnreadableFile(f"{reader.where}: {len(entries)} trees, and tree_info for {len(group)}")
    drop = reader.column(model, "weight_drop", np.float32).astype(np.float64) if "weight_drop" in model else None
    rounds = reader.column(model, "iteration_indptr", np.int64) if "iteration_indptr" in model else None
    parallel = reader.integer(reader.object(model, "gbtree_model_param"), "num_parallel_tree", 1)
    return {"trees": _trees(reader, entries, group), "rounds": rounds, "per_round": max(parallel, 1), "drop": drop}


def _trees(reader: _Fields, entries: list[Any], group: NDArray[np.int64]) -> Trees:
    columns = {
        name: reader.columns(entries, key, dtype)
        for name, key, dtype in (
            ("left", "left_children", np.int64),
            ("right", "right_children", np.int64),
            ("feature", "split_indices", np.int64),
            ("condition", "split_conditions", np.float32),
            ("default_left", "default_left", np.bool_),
        )
    }
    sizes = np.array([len(part) for part in columns["left"]], np.int64)
    for name, parts in columns.items():
        if [len(part) for part in parts] != sizes.tolist():
            raise UnreadableFile(f"{reader.where}: a tree has {name} for other than all of its nodes")
    flat = {name: _joined(parts) for name, parts in columns.items()}
    return Trees(
        sizes=sizes, group=group, **flat, **_vectors(reader, entries, columns, sizes), **_sets(reader, entries, sizes)
    )


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _vectors(
    reader: _Fields, entries: list[Any], columns: dict[str, list[NDArray[Any]]], sizes: NDArray[np.int64]
) -> dict[str, Any]:
    """Leaves of several values: rows of leaf_weights, numbered by right_children; before 3.1 of base_weights."""
    for entry in entries:
        reader.known(entry, "trees")
    width = {reader.integer(reader.object(entry, "tree_param"), "size_leaf_vector", 1) for entry in entries}
    if width <= {0, 1}:
        return {}
    if len(width) != 1:
        raise UnreadableFile(f"{reader.where}: the leaves of some trees hold more values than those of others")
    targets = width.pop()
    tables, vectors, first = [], [], 0
    for entry, left, right, size in zip(entries, columns["left"], columns["right"], sizes, strict=True):
        key = "leaf_weights" if "leaf_weights" in entry else "base_weights"
        table = reader.column(entry, key, np.float32)
        if targets < 1 or len(table) % targets:
            raise UnreadableFile(f"{reader.where}: {key}: {len(table)} numbers for vectors of {targets}")
        row = right if key == "leaf_weights" else np.arange(size)
        if ((left < 0) & ((row < 0) | (row >= len(table) // targets))).any():
            raise UnreadableFile(f"{reader.where}: a leaf has no values in {key}")
        tables.append(table.reshape(-1, targets))
        vectors.append(np.where(left < 0, row + first, -1))
        first += len(tables[-1])
    return {"leaf_weights": np.concatenate(tables), "vector": np.concatenate(vectors)}


def _sets(reader: _Fields, entries: list[Any], sizes: NDArray[np.int64]) -> dict[str, Any]:
    """Categorical splits: categories_nodes name the nodes, segments and sizes cut their sets out of categories."""
    types = [reader.column(entry, "split_type", np.int64) if "split_type" in entry else None for entry in entries]
    wanted = [i for i, kind in enumerate(types) if kind is not None and kind.any()]
    if not wanted:
        return {}
    start = np.cumsum(sizes) - sizes
    nodes, counts, members = [], [], []
    for i in wanted:
        entry, kind = entries[i], types[i]
        node = reader.column(entry, "categories_nodes", np.int64)
        begin, count = (reader.column(entry, f"categories_{key}", np.int64) for key in ("segments", "sizes"))
        values = reader.column(entry, "categories", np.int64)
        fits = (
            kind is not None
            and len(kind) == sizes[i]
            and len(node) == len(begin) == len(count)
            and np.array_equal(node, np.flatnonzero(kind))
            and (count >= 0).all()
            and np.array_equal(begin, np.cumsum(count) - count)
            and count.sum() == len(values)
        )
        if not fits:
            raise UnreadableFile(f"{reader.where}: tree {i}: the sets of categories do not fit its nodes")
        nodes.append(node + start[i])
        counts.append(count)
        members.append(values)
    return {"category_node": _joined(nodes), "category_size": _joined(counts), "categories": _joined(members)}


class _Fields:
    """Fields of a document by name, each checked for its kind."""

    def __init__(self, where: str) -> None:
        self.where = where

    def refuse(self, key: str) -> UnreadableFile:
        return UnreadableFile(f"{self.where}: {key!r} is missing or not what XGBoost writes there")

    def object(self, entry: Any, key: str) -> dict[str, Any]:
        value = entry.get(key) if isinstance(entry, dict) else None
        if not isinstance(value, dict):
            raise self.refuse(key)
        self.known(value, key)
        return value

    def known(self, entry: dict[str, Any], key: str) -> None:
        """Refuse an object with a field we know nothing of."""
        unknown = entry.keys() - _KNOWN.get(key, entry.keys())
        if unknown:
            raise Unsupported(
                f"{self.where}: {key or 'the model'} has a field {safe_text(sorted(unknown)[0])!r}, "
                "which no XGBoost up to 3.4 writes; what it means is unknown here"
            )

    def text(self, entry: dict[str, Any], key: str) -> str:
        value = entry.get(key)
        if not isinstance(value, str):
            raise self.refuse(key)
        return value

    def integer(self, entry: dict[str, Any], key: str, default: int | None = None) -> int:
        """A count up to 2^31, which XGBoost writes as text."""
        value = entry.get(key, default)
        try:
            number = int(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise self.refuse(key) from None
        if not 0 <= number < 1 << 31:
            raise self.refuse(key)
        return number

    def base_score(self, param: dict[str, Any]) -> NDArray[np.float64]:
        """A number as text, since version 3.1 a list of them as text: "5E-1", "[5E-1]", "[1E0,2E0]"."""
        try:
            numbers = [float(part) for part in self.text(param, "base_score").strip("[] ").split(",")]
        except ValueError:
            raise self.refuse("base_score") from None
        return np.array(numbers, np.float64)

    def names(self, entry: dict[str, Any], key: str) -> tuple[str, ...]:
        value = entry.get(key, [])
        if not isinstance(value, list | np.ndarray) or not all(isinstance(name, str) for name in value):
            raise self.refuse(key)
        return tuple(value)

    def columns(self, entries: list[Any], key: str, dtype: Any) -> list[NDArray[Any]]:
        """`column` of every entry; those of a JSON document in one go, as numpy is slow on short lists."""
        values: list[Any] = [entry.get(key) if isinstance(entry, dict) else None for entry in entries]
        if not all(isinstance(value, list) for value in values):
            return [self.array(value, key, dtype) for value in values]
        flat = self.array(list(chain.from_iterable(values)), key, dtype)
        ends = list(accumulate(map(len, values)))
        return [flat[first:end] for first, end in zip([0, *ends], ends, strict=False)]

    def column(self, entry: Any, key: str, dtype: Any) -> NDArray[Any]:
        """A flat array of numbers; a list of a JSON document or an array of a UBJSON one."""
        return self.array(entry.get(key) if isinstance(entry, dict) else None, key, dtype)

    def array(self, value: Any, key: str, dtype: Any) -> NDArray[Any]:
        """A list or an array as a flat array in `dtype`."""
        if not isinstance(value, list | np.ndarray):
            raise self.refuse(key)
        try:
            array = np.asarray(value)
            if array.ndim != 1 or (len(array) and array.dtype.kind not in "biuf"):
                raise self.refuse(key)
            if np.dtype(dtype).kind == "i" and array.dtype.kind == "f" and (array != np.floor(array)).any():
                raise self.refuse(key)
            with np.errstate(over="ignore"):
                return array.astype(dtype)
        except (TypeError, ValueError, OverflowError):
            raise self.refuse(key) from None
