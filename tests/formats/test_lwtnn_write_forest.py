"""Forests written as lwtnn JSON: the file decides as the forest does, at every threshold and its float neighbours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from forest_rows import interface, threshold_rows
from lwtnn_writing import written

from modelhub.errors import Notice, Unsupported
from modelhub.graph import forest_eval
from modelhub.graph.builder import Builder
from modelhub.graph.canonical import canonical
from modelhub.graph.forest import Compare, Forest, Link, Rounding, Sets
from modelhub.graph.forest_onnx import margins, to_graph
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.naming import attach
from modelhub_lwtnn import lower_forest
from modelhub_lwtnn.runtime import evaluator

SPECIAL = (0.0, -0.0, 1e-45, 1e-40, -1e-45, 3.4028234663852886e38, -3.4028234663852886e38, 0.1, 1 / 3)
COMPARES = (Compare.LE, Compare.LT, Compare.GE, Compare.GT)


def full_forest(
    trees: int,
    depth: int,
    seed: int = 0,
    *,
    outputs: int = 1,
    width: int = 1,
    dtype: str = "float32",
    features: int = 6,
    spread: float = 1.0,
) -> Forest:
    """Trees of `depth` splits on every way but for some that end early; all comparisons that order, no NaN routed."""
    random = np.random.default_rng(seed)
    feature, true, false, leaf, roots = [], [], [], [], []
    leaves = 0
    for _ in range(trees):
        roots.append(len(feature))
        todo = [0]
        feature.append(-1), true.append(-1), false.append(-1), leaf.append(-1)
        at = [roots[-1]]
        while todo:
            level, here = todo.pop(), at.pop()
            if level == depth or random.random() < 0.05:
                leaf[here] = leaves
                leaves += 1
                continue
            feature[here] = int(random.integers(features))
            for side in (true, false):
                side[here] = len(feature)
                feature.append(-1), true.append(-1), false.append(-1), leaf.append(-1)
                todo.append(level + 1), at.append(side[here])
    nodes = len(feature)
    threshold = random.normal(size=nodes) * spread
    special = random.random(nodes) < 0.1
    threshold[special] = random.choice(SPECIAL, special.sum())
    if dtype == "float32":
        threshold = threshold.astype(np.float32).astype(np.float64)
    return Forest(
        features=features,
        feature=np.array(feature, np.int32),
        compare=random.choice(COMPARES, nodes).astype(np.uint8),
        threshold=threshold,
        true_child=np.array(true),
        false_child=np.array(false),
        missing=np.zeros(nodes, np.bool_),
        leaf=np.array(leaf),
        values=random.normal(size=(leaves, width)) * 0.1,
        roots=np.array(roots),
        tree_output=random.integers(0, outputs, trees),
        tree_weight=random.uniform(0.5, 1.5, trees),
        base=random.normal(size=outputs),
        divisor=2.0,
        link=Link("softmax") if outputs > 1 else Link("sigmoid"),
        dtype=dtype,
    ).checked("random")


def answers(model: ir.Model, path: Path, x: np.ndarray) -> np.ndarray:
    """What the written file gives for rows `x`."""
    record = Interface.of(model)
    canonical(model)
    written(model, path)
    (result,) = evaluator(path, record, "float64")({record.inputs[0].tensor: x}).values()
    return np.asarray(result)


def agrees(forest: Forest, path: Path, rows: int, *, x: np.ndarray | None = None) -> None:
    """Write the forest, and demand its outputs at thresholds, their float neighbours, zeros, and random values."""
    if x is None:
        x = threshold_rows(forest, rows, 1, nan=0)
        x = np.clip(x, -np.finfo(np.float32).max, np.finfo(np.float32).max)
    with pytest.warns(Notice, match="double"):
        given = answers(to_graph(forest, interface(forest)), path, x)
    np.testing.assert_allclose(given, forest_eval.evaluate(forest, x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("trees", "depth", "outputs", "width"), [(1, 2, 1, 1), (30, 4, 1, 1), (9, 5, 3, 1), (9, 5, 3, 3)]
)
def test_the_file_decides_as_the_forest(
    tmp_path: Path, trees: int, depth: int, outputs: int, width: int, dtype: str
) -> None:
    agrees(full_forest(trees, depth, outputs=outputs, width=width, dtype=dtype), tmp_path / "net.json", 1500)


def test_trees_of_one_leaf_each(tmp_path: Path) -> None:
    agrees(full_forest(3, 0), tmp_path / "net.json", 100)


@pytest.mark.heavy
@pytest.mark.parametrize(("trees", "depth"), [(100, 4), (800, 3), (100, 8)])
def test_forests_of_the_sizes_in_use(tmp_path: Path, trees: int, depth: int) -> None:
    agrees(full_forest(trees, depth, features=20), tmp_path / "net.json", 600)


def test_doubles_between_the_float_neighbours_go_as_the_source_sends_them(tmp_path: Path) -> None:
    """A source that rounds to float32 first flips half-way between two of them, one in float64 at its threshold."""
    random = np.random.default_rng(3)
    for dtype in ("float32", "float64"):
        forest = replace(full_forest(20, 4, dtype=dtype), link=Link())
        at = np.where(forest.splits, forest.threshold, 0)[random.integers(0, forest.nodes, (800, 6))]
        if dtype == "float32":
            at = (at + np.nextafter(at.astype(np.float32), np.float32(9)).astype(np.float64)) / 2
        x = np.clip(at, -3e38, 3e38) * (1 + random.choice([-3e-10, 3e-10], at.shape))
        agrees(forest, tmp_path / f"{dtype}.json", 0, x=x)


def chain(compare: Compare, thresholds: list[float], missing: list[bool], sets: Sets | None = None) -> Forest:
    """One tree that asks one column again and again; each answer "true" ends it."""
    n = len(thresholds)
    ends = np.full(n + 1, -1)
    return Forest(
        features=1,
        feature=np.array([0] * n + [-1] * (n + 1), np.int32),
        compare=np.array([compare] * n + [0] * (n + 1), np.uint8),
        threshold=np.array(thresholds + [0.0] * (n + 1)),
        true_child=np.append(n + np.arange(n), ends),
        false_child=np.append(np.append(np.arange(1, n), 2 * n), ends),
        missing=np.append(missing, np.zeros(n + 1, np.bool_)),
        leaf=np.append(np.full(n, -1), np.arange(n + 1)),
        values=np.arange(1.0, n + 2)[:, np.newaxis],
        roots=np.array([0]),
        tree_output=np.array([0]),
        tree_weight=np.ones(1),
        base=np.zeros(1),
        sets=sets,
    ).checked("chain")


@pytest.mark.parametrize(
    ("thresholds", "missing"),
    [
        ([-2.0, -1.0, 1.0], [False, False, True]),  # as 0 goes
        ([1.0, 2.0, 3.0], [False, True, True]),
        ([-3.0, -2.0, -1.0], [False, True, True]),
        ([-3.0, -2.0], [True, True]),
        ([0.0, 1.0], [True, True]),
        ([float(np.nextafter(np.float32(1), np.float32(0))), 1.0], [False, True]),
    ],
)
def test_nan_becomes_a_number_that_goes_its_way(tmp_path: Path, thresholds: list[float], missing: list[bool]) -> None:
    forest = chain(Compare.LE, thresholds, missing)
    x = np.array([[np.nan], *([t] for t in thresholds), [9.0], [-9.0]], np.float32)
    with pytest.warns(Notice, match="NaN in x0 is replaced"):
        agrees(forest, tmp_path / "net.json", 0, x=x)
    (variable,) = json.loads((tmp_path / "net.json").read_text())["inputs"][0]["variables"]
    assert forest_eval.leaves(forest, np.array([[variable["default"]]])) == forest_eval.leaves(forest, x[:1])


def test_a_default_of_the_user_makes_missing_values_no_matter(tmp_path: Path) -> None:
    forest = chain(Compare.LE, [2.0, 1.0], [False, True])
    record = interface(forest)
    (entry,) = record.inputs
    model = to_graph(forest, record)
    attach(model, replace(record, inputs=(replace(entry, features=(Feature("x0", default=7.0),)),)))
    x = np.array([[np.nan], [1.0], [2.0], [7.0]], np.float32)
    with pytest.warns(Notice, match="double"):
        given = answers(model, tmp_path / "net.json", x)
    np.testing.assert_array_equal(given.ravel(), [3, 1, 1, 3])


def refused(forest: Forest, path: Path) -> str:
    with pytest.raises(Unsupported) as caught:
        written(to_graph(forest, interface(forest)), path)
    assert not path.exists()
    return str(caught.value)


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
def test_what_layers_cannot_say_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    sets = Sets.of(np.array([1, 0, 0]), np.array([4.0]))
    assert "categories" in refused(chain(Compare.MEMBER, [0.0], [False], sets), path)
    assert "equality" in refused(chain(Compare.EQ, [2.0], [False]), path)
    both_ways = chain(Compare.LE, [1.0, 0.0], [False, True])
    assert "routes missing values (column 0) as no number goes" in refused(both_ways, path)
    zeros = replace(chain(Compare.LE, [1.0], [True]), zero_missing=np.ones(1, np.bool_))
    assert "zero for a missing value" in refused(zeros, path)
    whole = replace(chain(Compare.LE, [1.0], [False]), rounding=np.array([Rounding.FLOOR], np.uint8))
    assert "categories" in refused(whole, path)


def on_columns(forest: Forest, columns: list[int], *, also: bool = False) -> ir.Model:
    """The forest on some columns of an input of eight; if `also`, a second one on the first columns as they are."""
    b = Builder()
    x = b.input("x", ["N", 8])
    y = margins(b, forest, b.op("Gather", x, b.constant(np.array(columns), "columns"), axis=1))
    if also:
        y = b.op("Add", margins(b, forest, x), y)
    b.output(y, "y", ["N", forest.outputs], "float64")
    record = Interface((Input("x", tuple(Feature(f"x{i}") for i in range(8))),), (Output("y", ("y0",)),))
    return b.finish(record)


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
def test_forests_on_chosen_columns_and_several_of_them(tmp_path: Path) -> None:
    forest = replace(full_forest(5, 3), link=Link())
    columns = [7, 0, 3, 2, 5, 1]
    x = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    x[:, columns] = np.where(x[:, :6] > 0, threshold_rows(forest, 500, 1, nan=0).clip(-3e38, 3e38), x[:, columns])
    given = answers(on_columns(forest, columns), tmp_path / "one.json", x)
    np.testing.assert_allclose(given, forest_eval.evaluate(forest, x[:, columns]), rtol=0, atol=1e-13)
    given = answers(on_columns(forest, columns, also=True), tmp_path / "two.json", x)
    expected = forest_eval.evaluate(forest, x[:, columns]) + forest_eval.evaluate(forest, x[:, :6])
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-13)
    routed = chain(Compare.LE, [1.0], [True])
    for also in (False, True):
        with pytest.raises(Unsupported, match="used elsewhere"):
            written(on_columns(routed, [2], also=also), tmp_path / "not.json")


def test_large_forests_are_told_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forest = full_forest(10, 3)
    monkeypatch.setattr(lower_forest, "MANY", 10)
    with pytest.warns(Notice, match="leaves; lwtnn will be slow"):
        written(to_graph(forest, interface(forest)), tmp_path / "net.json")
    for largest, too_large in (
        (2_000, forest),
        (1_000_000, chain(Compare.LE, list(np.arange(3000.0)), [False] * 3000)),
    ):
        monkeypatch.setattr(lower_forest, "LARGEST", largest)
        with pytest.warns(Notice):
            assert f"more than {largest:,} numbers" in refused(too_large, tmp_path / "large.json")


def test_scaled_inputs_are_told(tmp_path: Path) -> None:
    forest = full_forest(3, 2)
    record = interface(forest)
    features = tuple(replace(f, offset=1.5, scale=0.1) for f in record.inputs[0].features)
    model = to_graph(forest, record)
    attach(model, replace(record, inputs=(replace(record.inputs[0], features=features),)))
    with pytest.warns(Notice, match="in double; where the source rounds"):
        given = answers(model, tmp_path / "net.json", x := np.random.default_rng(0).normal(size=(200, 6)) * 20)
    expected = forest_eval.evaluate(forest, (x + 1.5) * 0.1)
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-13)
