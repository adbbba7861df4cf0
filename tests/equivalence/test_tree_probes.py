"""Tree probes: every row reaches the node it is for, and shows faults that ordinary probes do not see."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from forest_rows import interface, run

import modelhub
from modelhub.equivalence.probes import probes
from modelhub.equivalence.report import schema
from modelhub.equivalence.tree_probes import rows_for, tree_probes
from modelhub.graph import forest_eval
from modelhub.graph.forest import Compare, Forest, Link, Sets, tree_of
from modelhub.graph.forest_onnx import to_graph
from modelhub.graph.interface import Feature
from modelhub.graph.naming import attach
from modelhub.protocols import WriteOptions

FEATURES = 4


SPLITS = 12


def random_forest(seed: int, *, trees: int = 40, dtype: str = "float64", routed: bool = True) -> Forest:
    """Trees that ask columns 0 to 2 for thresholds, and if `routed` 3 for categories; column 0 routes no NaN."""
    random = np.random.default_rng(seed)
    feature, true, false, roots, sets = [], [], [], [], []

    def node() -> int:
        feature.append(-1), true.append(-1), false.append(-1), sets.append([])
        return len(feature) - 1

    for _ in range(trees):
        ends = [node()]
        roots.append(ends[0])
        for _ in range(SPLITS):
            here = ends.pop(random.integers(len(ends)))
            feature[here] = int(random.integers(FEATURES if routed else FEATURES - 1))
            sets[here] = sorted(random.choice(12, random.integers(1, 6), replace=False)) if feature[here] == 3 else []
            true[here], false[here] = node(), node()
            ends += [true[here], false[here]]
    columns, nodes = np.array(feature, np.int32), len(feature)
    leaf = np.full(nodes, -1)
    leaf[columns < 0] = np.arange((columns < 0).sum())
    threshold = random.normal(size=nodes)
    return Forest(
        features=FEATURES,
        feature=columns,
        compare=np.where(columns == 3, Compare.MEMBER, random.integers(0, 4, nodes) * (columns >= 0)).astype(np.uint8),
        threshold=threshold.astype(dtype).astype(np.float64),
        true_child=np.array(true),
        false_child=np.array(false),
        missing=routed & (columns > 0) & (random.random(nodes) < 0.5),
        leaf=leaf,
        values=random.normal(size=(int((columns < 0).sum()), 1)),
        roots=np.array(roots),
        tree_output=np.zeros(trees, np.int64),
        tree_weight=np.ones(trees),
        base=np.zeros(1),
        link=Link("sigmoid"),
        dtype=dtype,
        sets=Sets.of(np.array([len(s) for s in sets]), np.array([c for s in sets for c in s], float)),
    ).checked("random")


def taken(forest: Forest, rows: np.ndarray, node: np.ndarray) -> np.ndarray:
    """Which child of `node` each row goes to, as the definition of forests walks; -1 where it never gets there."""
    at = forest_eval.leaves(forest, rows)[np.arange(len(rows)), tree_of(forest)[node]]
    parent = np.full(forest.nodes, -1)
    splits = np.flatnonzero(forest.splits)
    parent[forest.true_child[splits]] = parent[forest.false_child[splits]] = splits
    result = np.full(len(rows), -1)
    while (at >= 0).any():
        result = np.where((at >= 0) & (parent[at] == node), at, result)
        at = np.where(at >= 0, parent[at], -1)
    return result


@pytest.mark.parametrize("seed", range(4))
def test_every_row_reaches_its_node_and_goes_where_it_is_said_to(seed: int) -> None:
    forest = random_forest(seed)
    rows, node, side = rows_for(forest, FEATURES + 1, np.random.default_rng(seed))
    assert rows.dtype == np.float32
    assert rows.shape == (len(node), FEATURES + 1)
    expected = np.where(side, forest.true_child[node], forest.false_child[node])
    np.testing.assert_array_equal(taken(forest, rows[:, :FEATURES], node), expected)
    assert np.isnan(rows[:, 1:3]).any()
    assert not np.isnan(rows[:, 0]).any()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_can_be_reached_is_left_out(seed: int) -> None:
    """Of 40 000 random rows at thresholds none goes a way that the solved rows do not go."""
    forest = random_forest(seed, trees=10)
    rows, node, side = rows_for(forest, FEATURES, np.random.default_rng(seed))
    random = np.random.default_rng(99)
    far = [np.array([9, -9]), np.array([9, -9, np.nan]), np.array([9, -9, np.nan]), np.append(np.arange(14), np.nan)]
    values = [np.append(forest.threshold if column < 3 else [], far[column]) for column in range(FEATURES)]
    x = np.stack([random.choice(column, 40_000) for column in values], axis=1).astype(np.float32)
    solved, seen = set(), set()
    for part, ends in ((solved, forest_eval.leaves(forest, rows)), (seen, forest_eval.leaves(forest, x))):
        part |= set(np.unique(ends).tolist())
    assert seen <= solved
    both = np.bincount(np.unique(np.stack([node, side]), axis=1)[0], minlength=forest.nodes) == 2
    assert both.sum() > 0.5 * forest.splits.sum()


def test_rows_are_capped_and_spread() -> None:
    forest = random_forest(0, trees=60)
    rows, node, _ = rows_for(forest, FEATURES, np.random.default_rng(0), 200)
    assert 100 < len(rows) <= 200
    trees = tree_of(forest)[node]
    assert trees.min() < 4
    assert trees.max() > 55
    assert len(np.unique(trees)) > 30


def test_a_long_chain_is_solved() -> None:
    n = 3000
    ends = np.full(n + 1, -1)
    forest = replace(
        random_forest(0, routed=False),
        feature=np.array([1] * n + [-1] * (n + 1), np.int32),
        compare=np.zeros(2 * n + 1, np.uint8),
        threshold=np.append(np.arange(n, 0, -1.0), np.zeros(n + 1)),
        true_child=np.append(np.append(np.arange(1, n), 2 * n), ends),
        false_child=np.append(n + np.arange(n), ends),
        missing=np.zeros(2 * n + 1, np.bool_),
        leaf=np.append(np.full(n, -1), np.arange(n + 1)),
        values=np.zeros((n + 1, 1)),
        roots=np.array([0]),
        tree_output=np.array([0]),
        tree_weight=np.ones(1),
        sets=None,
    ).checked("chain")
    rows, node, side = rows_for(forest, FEATURES, np.random.default_rng(0))
    np.testing.assert_array_equal(
        taken(forest, rows, node), np.where(side, forest.true_child[node], forest.false_child[node])
    )
    assert len(np.unique(forest_eval.leaves(forest, rows))) == n + 1


def nearest(forest: Forest) -> Forest:
    """The fault of converters that store thresholds as float32: rounded to nearest."""
    return replace(forest, threshold=forest.threshold.astype(np.float32).astype(np.float64))


def less(forest: Forest) -> Forest:
    """The fault of converters that know one comparison: `<` for `<=`."""
    return replace(forest, compare=np.where(forest.compare == Compare.LE, Compare.LT, forest.compare).astype(np.uint8))


FAULTS = pytest.mark.parametrize(("fault", "dtype"), [(nearest, "float64"), (less, "float32")])


@FAULTS
def test_a_fault_at_thresholds_is_seen_by_these_probes_alone(fault: Callable[[Forest], Forest], dtype: str) -> None:
    forest = random_forest(5, routed=False, trees=10, dtype=dtype)
    good, bad = to_graph(forest, interface(forest)), to_graph(fault(forest), interface(forest))
    wrong = {"threshold": 0}
    for probe in probes(good, seed=1):
        (x,) = probe.arrays.values()
        wrong[probe.name] = wrong.get(probe.name, 0) + int((np.abs(run(good, x) - run(bad, x)) > 1e-6).sum())
    assert wrong.pop("threshold") > 20
    assert {"normal", "wide", "zero", "uniform"} < wrong.keys()
    assert not any(wrong.values())


@FAULTS
def test_the_check_finds_such_a_fault(fault: Callable[[Forest], Forest], dtype: str, tmp_path: Path) -> None:
    forest = random_forest(6, routed=False, trees=10, dtype=dtype)
    for name, written in (("good", forest), ("bad", fault(forest))):
        model = to_graph(written, interface(forest))
        modelhub.write(model, tmp_path / f"{name}.onnx", options=WriteOptions(precision="float64"))
    report = modelhub.check(tmp_path / "good.onnx", tmp_path / "bad.onnx")
    assert report.verdict == "different"
    assert {r.probe for leg in report.legs for r in leg.results if r.worst.excessive} == {"threshold"}
    coverage = {c.what: c for c in report.coverage}
    assert coverage["tree nodes both ways"].of == forest.splits.sum()
    assert coverage["tree leaves"].of == (~forest.splits).sum()
    assert all(c.reached > 0.5 * c.of for c in coverage.values())
    jsonschema.Draft202012Validator(schema()).validate(json.loads(report.dumps()))
    assert modelhub.check(tmp_path / "good.onnx", tmp_path / "good.onnx").verdict != "different"


def test_only_forests_that_see_the_input_as_it_is_are_probed() -> None:
    forest = random_forest(0, trees=3)
    rng = np.random.default_rng(0)
    plain = to_graph(forest, interface(forest))
    (found,) = tree_probes(plain, rng)
    assert found.value is plain.graph.inputs[0]
    assert found.splits == forest.splits.sum()
    assert 0.5 * found.splits < found.both_ways <= found.splits
    scaled = to_graph(forest, interface(forest))
    record = interface(forest)
    features = tuple(replace(f, scale=2.0) for f in record.inputs[0].features)
    attach(scaled, replace(record, inputs=(replace(record.inputs[0], features=features),)))
    assert not list(tree_probes(scaled, rng))
    features = tuple(Feature(f.name, default=1.0) for f in features)
    default = to_graph(forest, interface(forest))
    attach(default, replace(record, inputs=(replace(record.inputs[0], features=features),)))
    assert len(list(tree_probes(default, rng))) == 1
