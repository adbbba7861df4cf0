"""Encoders of categories that are numbers (sklearn/preprocessing/_encoders.py, _discretization.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.table import Rows, converts, side_by_side

__all__ = ["categories"]

MODULE = "sklearn.preprocessing._encoders."


def categories(e: Estimator, width: int) -> list[NDArray[np.float64]]:
    """The categories of every column; a NaN may be among them."""
    tables = e.items("categories_")
    if len(tables) != width:
        raise e.broken(f"categories of {len(tables)} columns, and there are {width}")
    return [_numbers(e, table) for table in tables]


def _numbers(e: Estimator, table: Any) -> NDArray[np.float64]:
    if not isinstance(table, np.ndarray) or table.ndim != 1 or not len(table):
        raise e.broken("categories that are no list")
    if table.dtype.kind not in "biuf":
        raise e.refused(
            "categories that are not numbers are not supported: a graph takes numbers; give the texts numbers before "
            "the model is trained"
        )
    return table.astype(np.float64)


def _matches(x: Rows, table: NDArray[np.float64]) -> Rows:
    """[N, categories] 1 at the category that a column [N, 1] equals, all 0 where it equals none."""
    equal = x.number(x.b.op("Equal", x.value, x.b.constant(table, "categories")), len(table))
    missing = np.isnan(table).astype(np.float64)
    if not missing.any():
        return equal
    return equal.op("Add", x.number(x.b.op("IsNaN", x.value)).op("Mul", missing, width=len(table)), width=len(table))


def _groups(e: Estimator, tables: list[NDArray[np.float64]]) -> list[NDArray[np.int64] | None]:
    """For every column the code of each category once the rare ones are one, the last; None where there are none.

    Source: sklearn/preprocessing/_encoders.py, _fit_infrequent_category_mapping.
    """
    if not e.flag("_infrequent_enabled"):
        return [None] * len(tables)
    groups = e.items("_default_to_infrequent_mappings")
    if len(groups) != len(tables):
        raise e.broken("not one list of rare categories for every column")
    found: list[NDArray[np.int64] | None] = []
    for group, table in zip(groups, tables, strict=True):
        codes = None if group is None else e.columns(group, "_default_to_infrequent_mappings", len(table))
        if codes is not None and len(codes) != len(table):
            raise e.broken("not one code for every category")
        found.append(codes)
    return found


def _dropped(e: Estimator, width: int) -> list[int | None]:
    """The code that gets no column, of every column."""
    key = "_drop_idx_after_grouping" if e.flag("_infrequent_enabled") else "drop_idx_"
    if not e.has(key):
        return [None] * width
    dropped = e.items(key)
    if len(dropped) != width:
        raise e.broken("not one category to drop for every column")
    if not all(code is None or (isinstance(code, int) and code >= 0) for code in dropped):
        raise e.broken("a category to drop that is not there")
    return dropped


@converts("transform", f"{MODULE}OneHotEncoder", decides=True)
def one_hot(e: Estimator, x: Rows) -> Rows:
    """A column of 0 and 1 for every category that is not dropped, the rare ones sharing one.

    All 0 for an unknown one, or that of the rare ones where handle_unknown says so and there is such a column.
    """
    tables = categories(e, x.width)
    as_rare = e.choice("handle_unknown") in ("infrequent_if_exist", "warn")
    parts = []
    for index, (table, group, drop) in enumerate(zip(tables, _groups(e, tables), _dropped(e, x.width), strict=True)):
        found = _matches(x.column(index), table)
        if group is not None:
            rare = int(group.max())
            together = found.times(np.eye(rare + 1)[group])
            if as_rare:
                nobody = x.b.op("Equal", found.total().value, x.b.constant(np.zeros(1), "zero"))
                together = together.where(nobody, np.eye(rare + 1)[rare])
            found = together
        if drop is not None and drop >= found.width:
            raise e.broken("a category to drop that is not there")
        kept = [code for code in range(found.width) if code != drop]
        if kept:
            parts.append(found.take(kept))
    if not parts:
        raise e.refused("no column is left")
    return side_by_side(parts)


@converts("transform", f"{MODULE}OrdinalEncoder", decides=True)
def ordinal(e: Estimator, x: Rows) -> Rows:
    """The place of the category; `encoded_missing_value` for a NaN that is one, `unknown_value` for an unknown one."""
    tables = categories(e, x.width)
    groups = _groups(e, tables)
    if any(group is not None and np.isnan(table).any() for group, table in zip(groups, tables, strict=True)):
        raise e.refused("rare categories in a column with missing ones are not supported; impute the missing ones")
    return side_by_side([_code(e, x.column(i), tables[i], groups[i]) for i in range(x.width)])


def _code(e: Estimator, x: Rows, table: NDArray[np.float64], group: NDArray[np.int64] | None) -> Rows:
    """The code of one column."""
    known = ~np.isnan(table)
    code = np.where(known, np.arange(len(table)) if group is None else group, 0)
    found = x.number(x.b.op("Equal", x.value, x.b.constant(table, "categories")), len(table))
    result = found.op("Mul", code).total()
    if e.choice("handle_unknown") == "use_encoded_value":
        unknown = e.array("unknown_value", finite=False).reshape(-1)[:1]
    else:
        unknown = np.full(1, np.nan)  # scikit-learn refuses it; a number would pass for a category
    nobody = x.b.op("Equal", found.total().value, x.b.constant(np.zeros(1), "zero"))
    result = result.where(nobody, unknown)
    if known.all():
        return result
    missing = e.array("encoded_missing_value", finite=False).reshape(-1)[:1]
    return result.where(x.b.op("IsNaN", x.value), missing)


@converts("transform", "sklearn.preprocessing._target_encoder.TargetEncoder", decides=True)
def target(e: Estimator, x: Rows) -> Rows:
    """What the target is on average in the category (for each class, where there are several); for an unknown one
    what it is altogether (sklearn/preprocessing/_target_encoder.py).
    """
    tables, encodings = categories(e, x.width), e.items("encodings_")
    each = len(e.classes) if e.choice("target_type_") == "multiclass" else 1
    mean = e.array("target_mean_").reshape(-1)
    if len(encodings) != each * x.width or len(mean) != each:
        raise e.broken(f"{len(encodings)} encodings for {x.width} columns")
    parts = []
    for index, table in enumerate(tables):
        holder = Estimator(e.name, {"encodings_": encodings[index * each : (index + 1) * each]}, e.where)
        found = _matches(x.column(index), table)
        nobody = x.b.op("Equal", found.total().value, x.b.constant(np.zeros(1), "zero"))
        parts.append(found.times(holder.array("encodings_", each, len(table)).T).where(nobody, mean))
    return side_by_side(parts)


@converts("transform", "sklearn.preprocessing._discretization.KBinsDiscretizer", decides=True)
def bins(e: Estimator, x: Rows) -> Rows:
    """The bin each value falls into: how many inner edges are not above it; one column per bin where one-hot."""
    edges, encode = e.items("bin_edges_"), e.text("encode")
    if len(edges) != x.width:
        raise e.broken(f"edges of {len(edges)} columns, and there are {x.width}")
    parts = []
    for index, edge in enumerate(edges):
        holder = Estimator(e.name, {"bin_edges_": edge}, e.where)
        inner = holder.array("bin_edges_", None)[1:-1]
        column = x.column(index)
        if len(inner):
            at_least = x.b.op("GreaterOrEqual", column.value, x.b.constant(inner, "edges"))
            place = column.number(at_least, len(inner)).total()
        else:
            place = column.op("Mul", 0.0)
        if encode != "ordinal":
            labels = x.b.constant(np.arange(len(inner) + 1.0), "bins")
            place = place.number(x.b.op("Equal", place.value, labels), len(inner) + 1)
        parts.append(place)
    return side_by_side(parts)
