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
        raise e.refused("categories that are not numbers are not supported: a graph takes numbers")
    return table.astype(np.float64)


def _matches(x: Rows, table: NDArray[np.float64]) -> Rows:
    """[N, categories] 1 at the category that a column [N, 1] equals, all 0 where it equals none."""
    equal = x.number(x.b.op("Equal", x.value, x.b.constant(table, "categories")), len(table))
    missing = np.isnan(table).astype(np.float64)
    if not missing.any():
        return equal
    return equal.op("Add", x.number(x.b.op("IsNaN", x.value)).op("Mul", missing, width=len(table)), width=len(table))


def _refuse_rare(e: Estimator) -> None:
    if e.flag("_infrequent_enabled"):
        raise e.refused("infrequent categories (min_frequency, max_categories) are not supported")


@converts("transform", f"{MODULE}OneHotEncoder", decides=True)
def one_hot(e: Estimator, x: Rows) -> Rows:
    """A column of 0 and 1 for every category that is not dropped; all 0 for an unknown one."""
    _refuse_rare(e)
    dropped = e.items("drop_idx_") if e.has("drop_idx_") else None
    parts = []
    if dropped is not None and len(dropped) != x.width:
        raise e.broken("not one category to drop for every column")
    for index, table in enumerate(categories(e, x.width)):
        kept = np.arange(len(table))
        drop = None if dropped is None else dropped[index]
        if drop is not None:
            if not isinstance(drop, int) or not 0 <= drop < len(table):
                raise e.broken("a category to drop that is not there")
            kept = np.delete(kept, drop)
        if len(kept):
            parts.append(_matches(x.column(index), table).take(kept))
    if not parts:
        raise e.refused("no column is left")
    return side_by_side(parts)


@converts("transform", f"{MODULE}OrdinalEncoder", decides=True)
def ordinal(e: Estimator, x: Rows) -> Rows:
    """The place of the category; `encoded_missing_value` for a NaN that is one, `unknown_value` for an unknown one."""
    _refuse_rare(e)
    return side_by_side([_code(e, x.column(index), table) for index, table in enumerate(categories(e, x.width))])


def _code(e: Estimator, x: Rows, table: NDArray[np.float64]) -> Rows:
    """The code of one column."""
    known = ~np.isnan(table)
    code = np.where(known, np.arange(len(table)), 0)
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
