"""Categories that the source does not round: 2.7 is in no set, whatever an engine does with it; rows in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from forest_rows import FORMS, interface, run, written

from modelhub.errors import Unsupported
from modelhub.graph import forest_eval
from modelhub.graph.builder import Builder
from modelhub.graph.forest import Compare, Forest, Rounding, Sets
from modelhub.graph.forest_onnx import margins, to_graph

SETS = ((2,), (1, 2, 3), (2, 70), (0, 5), tuple(range(0, 40, 2)), (-1, 2), (1000,), (0, 2, 1000), ())


def asking(sets: tuple[tuple[int, ...], ...]) -> Forest:
    """One tree of one split for each set, all about column 0; each its own output: 1 inside, 2 outside."""
    count = len(sets)
    node = np.arange(3 * count)
    split = node % 3 == 0
    tree = node // 3
    sizes = np.where(split, np.array([len(s) for s in sets])[tree], 0)
    return Forest(
        features=1,
        feature=np.where(split, 0, -1).astype(np.int32),
        compare=np.where(split, Compare.MEMBER, 0).astype(np.uint8),
        threshold=np.zeros(3 * count),
        true_child=np.where(split, node + 1, -1),
        false_child=np.where(split, node + 2, -1),
        missing=split & (tree % 2 == 0),
        leaf=np.where(split, -1, node % 3 - 1),
        values=np.array([[1.0], [2.0]]),
        roots=np.arange(count) * 3,
        tree_output=np.arange(count),
        tree_weight=np.ones(count),
        base=np.zeros(count),
        sets=Sets.of(sizes, np.array([c for s in sets for c in s], np.float64)),
    ).checked("sets")


WHOLE = [0, 1, 2, 3, 5, 38, 70, 71, 1000, -1, -2]
VALUES = np.array([*WHOLE, *(w + 0.3 for w in WHOLE), *(w - 0.5 for w in WHOLE), 1e10, -1e10, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("form", FORMS)
def test_a_broken_number_is_the_category_the_source_makes_of_it(form: str, rounding: Rounding) -> None:
    forest = asking(SETS)
    forest = replace(forest, rounding=np.array([rounding], np.uint8) if rounding else None)
    rows = VALUES[:, np.newaxis]
    ways = {Rounding.NONE: lambda v: v, Rounding.TRUNCATE: np.trunc, Rounding.FLOOR: np.floor}
    seen = ways[rounding](VALUES)
    expected = np.stack([np.where(np.isin(seen, s), 1, 2) for s in SETS], axis=1)
    expected[-1] = np.where(np.arange(len(SETS)) % 2 == 0, 1, 2)  # NaN
    np.testing.assert_array_equal(forest_eval.margins(forest, rows), expected)
    np.testing.assert_array_equal(run(written(to_graph(forest, interface(forest)), form), rows), expected)


def test_rows_may_be_float64() -> None:
    """A forest behind something computed in float64, as scikit-learn's are."""
    forest = asking(SETS)
    forest = replace(forest, zero_missing=np.array([True]), rounding=np.array([Rounding.TRUNCATE], np.uint8))
    b = Builder()
    x = b.input("inputs", ["N", 1], dtype="float64")
    b.output(margins(b, forest, x), "outputs", ["N", len(SETS)], dtype="float64")
    model: ir.Model = b.finish(interface(forest))
    rows = VALUES[:, np.newaxis]
    np.testing.assert_array_equal(run(model, rows), forest_eval.margins(forest, rows))


def test_a_column_with_thresholds_as_well_is_refused() -> None:
    forest = asking(((1,), (2,)))
    compare = forest.compare.copy()
    compare[0] = Compare.LE
    with pytest.raises(Unsupported, match="column 0"):
        to_graph(replace(forest, compare=compare), interface(forest))
    rounded = replace(forest, compare=compare, rounding=np.array([Rounding.TRUNCATE], np.uint8))
    to_graph(rounded, interface(forest))  # where thresholds see the category as well
