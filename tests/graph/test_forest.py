"""Forests: every written form decides as the definition does, and what is no forest is refused."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from forest_rows import FORMS, interface, naming_leaves, reached, run, threshold_rows, written

from modelhub.errors import UnreadableFile, Unsupported
from modelhub.graph import forest_eval
from modelhub.graph.forest import Compare, Forest, LinearLeaves, Link, Rounding, Sets
from modelhub.graph.forest_forms import forests
from modelhub.graph.forest_onnx import boundaries, narrowed, to_graph

SPECIAL = (0.0, -0.0, 1e-45, 1e-40, -1e-45, 3.4028234663852886e38, -3.4028234663852886e38, 0.1, 1 / 3)


def random_forest(
    seed: int, *, outputs: int = 1, width: int = 1, dtype: str = "float32", sets: bool = True, trees: int = 15
) -> Forest:
    """Trees of 0 to 14 splits: all comparisons, sets on the last feature, zeros missing on the first."""
    random = np.random.default_rng(seed)
    features = 5
    columns: dict[str, list] = {
        key: [] for key in ("feature", "compare", "threshold", "true", "false", "missing", "leaf")
    }
    sizes, members, roots, leaves = [], [], [], 0

    def node() -> int:
        for key, value in zip(columns, (-1, 0, 0.0, -1, -1, False, -1), strict=True):
            columns[key].append(value)
        sizes.append(0)
        members.append([])
        return len(sizes) - 1

    for _ in range(trees):
        roots.append(node())
        open_nodes = [roots[-1]]
        for _ in range(random.integers(0, 15)):
            here = open_nodes.pop(random.integers(len(open_nodes)))
            feature = int(random.integers(0, features if sets else features - 1))
            columns["feature"][here], columns["missing"][here] = feature, bool(random.integers(2))
            if feature == features - 1:
                columns["compare"][here] = Compare.MEMBER
                members[here] = sorted(random.choice(70, random.integers(0, 12), replace=False))
                sizes[here] = len(members[here])
            else:
                columns["compare"][here] = int(random.integers(0, 4))
                value = float(random.choice(SPECIAL)) if random.random() < 0.1 else float(random.normal())
                columns["threshold"][here] = float(np.float32(value)) if dtype == "float32" else value
            columns["true"][here], columns["false"][here] = node(), node()
            open_nodes += [columns["true"][here], columns["false"][here]]
        for here in open_nodes:
            columns["leaf"][here] = leaves
            leaves += 1
    return Forest(
        features=features,
        feature=np.array(columns["feature"], np.int32),
        compare=np.array(columns["compare"], np.uint8),
        threshold=np.array(columns["threshold"], np.float64),
        true_child=np.array(columns["true"], np.int64),
        false_child=np.array(columns["false"], np.int64),
        missing=np.array(columns["missing"], np.bool_),
        leaf=np.array(columns["leaf"], np.int64),
        values=random.normal(size=(leaves, width)),
        roots=np.array(roots, np.int64),
        tree_output=random.integers(0, outputs, trees),
        tree_weight=random.normal(size=trees),
        base=random.normal(size=outputs),
        divisor=2.5,
        link=Link("softmax") if outputs > 1 else Link("sigmoid", 0.7),
        dtype=dtype,
        sets=Sets.of(np.array(sizes), np.array([c for part in members for c in part], np.float64)) if sets else None,
        zero_missing=np.arange(features) == 0,
        rounding=np.where(
            np.arange(features) == features - 1, Rounding.FLOOR if seed % 2 else Rounding.TRUNCATE, 0
        ).astype(np.uint8),
    ).checked("random")


def walk(forest: Forest, row: np.ndarray, tree: int) -> int:
    """One row down one tree, one node after the other, without a line of the code that is tested."""
    node = int(forest.roots[tree])
    while forest.leaf[node] < 0:
        column = int(forest.feature[node])
        value = float(np.float32(row[column])) if forest.dtype == "float32" else float(row[column])
        if forest.rounding is not None and forest.rounding[column] and np.isfinite(value):
            value = float(np.floor(value) if forest.rounding[column] == Rounding.FLOOR else np.trunc(value))
        if forest.zero_missing is not None and forest.zero_missing[column] and abs(value) <= float(np.float32(1e-35)):
            value = np.nan
        t = float(forest.threshold[node])
        if np.isnan(value):
            holds = bool(forest.missing[node])
        elif forest.compare[node] == Compare.MEMBER:
            assert forest.sets is not None
            holds = value in forest.sets.members[forest.sets.start[node] : forest.sets.start[node + 1]]
        else:
            holds = (value <= t, value < t, value >= t, value > t, value == t, value != t)[forest.compare[node]]
        node = int((forest.true_child if holds else forest.false_child)[node])
    return node


CASES = [
    pytest.param(seed, outputs, width, dtype, id=f"{seed}-{outputs}x{width}-{dtype}")
    for seed, (outputs, width, dtype) in enumerate(
        [
            (1, 1, "float32"),
            (1, 1, "float64"),
            (3, 1, "float32"),
            (3, 3, "float32"),
            (2, 2, "float64"),
            (2, 1, "float64"),
        ]
    )
]


@pytest.mark.parametrize(("seed", "outputs", "width", "dtype"), CASES)
def test_every_form_reaches_the_leaves_of_the_definition(seed: int, outputs: int, width: int, dtype: str) -> None:
    forest = random_forest(seed, outputs=outputs, width=width, dtype=dtype, sets=seed != 2)
    x = threshold_rows(forest, 2000, seed)
    x[::50, 1], x[1::50, 2], x[2::50, 0] = np.inf, -np.inf, 1e-36
    ends = forest_eval.leaves(forest, x)
    for row in range(0, 2000, 25):
        assert [walk(forest, x[row], tree) for tree in range(forest.trees)] == ends[row].tolist()
    for form, nodes in reached(forest, x):
        assert (nodes != ends - forest.roots).sum() == 0, form


@pytest.mark.parametrize(("seed", "outputs", "width", "dtype"), CASES)
def test_every_form_gives_the_outputs_of_the_definition(seed: int, outputs: int, width: int, dtype: str) -> None:
    forest = random_forest(seed, outputs=outputs, width=width, dtype=dtype)
    x = threshold_rows(forest, 500, seed + 100)
    expected = forest_eval.evaluate(forest, x)
    for form in FORMS:
        given = run(written(to_graph(forest, interface(forest)), form), x)
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-13 if form == "float64" else 3e-6, err_msg=form)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_in_float64_the_decision_holds_for_doubles_between_two_floats(dtype: str) -> None:
    """Also where the source rounds to float32 first: rows stand on the very double at which that rounding flips."""
    forest = replace(random_forest(7, dtype=dtype, sets=False), zero_missing=None, rounding=None)
    random, edge = np.random.default_rng(0), boundaries(forest)
    x = random.normal(size=(3000, forest.features))
    for column in range(forest.features - 1):
        at = random.choice(edge[forest.splits & (forest.feature == column)], len(x))
        x[:, column] = np.where(
            random.random(len(x)) < 0.3, at, np.nextafter(at, random.choice([-np.inf, np.inf], len(x)))
        )
    named = naming_leaves(forest)
    nodes = run(written(to_graph(named, interface(named)), "float64"), x)
    assert (nodes != forest_eval.leaves(forest, x) - forest.roots).sum() == 0
    assert [walk(forest, x[0], tree) for tree in range(forest.trees)] == forest_eval.leaves(forest, x[:1])[0].tolist()


def test_thresholds_go_to_the_deciding_side() -> None:
    random = np.random.default_rng(1)
    t = np.concatenate(
        [random.normal(size=500), [0.1, 1e300, -1e300, 1e-46, -1e-46, 1e39, -1e39, 0.0, np.inf, -np.inf]]
    )
    with np.errstate(over="ignore"):
        near = t.astype(np.float32)
    probes = [near, *(np.nextafter(near, np.float32(side)) for side in (-np.inf, np.inf))]
    for kind, decide in enumerate((np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal)):
        compare, given = narrowed(np.full(len(t), kind), t)
        for x in probes:
            expected = decide(x.astype(np.float64), t)
            got = [
                (np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal)[c](a, b)
                for c, a, b in zip(compare, x, given, strict=True)
            ]
            assert (np.array(got) == expected).all(), Compare(kind)
    assert (near.astype(np.float64) > t).any()  # so the nearest float32 would decide wrongly


def test_a_forest_is_found_again_in_its_graph() -> None:
    for outputs, width in ((2, 1), (2, 2)):
        forest = random_forest(11, outputs=outputs, width=width, dtype="float64")
        x = forest_eval.prepared(forest, threshold_rows(forest, 300, 0))
        (found,) = forests(to_graph(forest, interface(forest)))
        back = replace(found.forest, features=forest.features)
        np.testing.assert_allclose(
            forest_eval.margins(back, x) + forest.base, forest_eval.margins(forest, x), rtol=0, atol=1e-12
        )


def test_linear_leaves_multiply_the_row_and_fall_back_where_it_is_missing() -> None:
    forest = replace(random_forest(13, dtype="float64"), zero_missing=None)
    random, leaves = np.random.default_rng(3), len(forest.values)
    count = random.integers(0, 4, leaves)
    forest = replace(
        forest,
        linear=LinearLeaves(
            random.normal(size=leaves),
            np.concatenate([[0], np.cumsum(count)]),
            random.integers(0, 4, count.sum()),
            random.normal(size=count.sum()),
        ),
    ).checked("linear")
    linear = forest.linear
    assert linear is not None
    x = np.clip(threshold_rows(forest, 400, 5, nan=0.2), -1e3, 1e3)
    expected = np.repeat(forest.base[np.newaxis], len(x), axis=0)
    for row in range(len(x)):
        for tree in range(forest.trees):
            leaf = int(forest.leaf[walk(forest, x[row], tree)])
            terms = slice(linear.start[leaf], linear.start[leaf + 1])
            columns = x[row, linear.feature[terms]].astype(np.float64)
            plain = np.isnan(columns).any()
            value = forest.values[leaf, 0] if plain else linear.constant[leaf] + columns @ linear.coefficient[terms]
            expected[row, forest.tree_output[tree]] += value * forest.tree_weight[tree] / forest.divisor
    np.testing.assert_allclose(forest_eval.margins(forest, x), expected, rtol=0, atol=1e-11)
    for form in FORMS:
        given = run(written(to_graph(replace(forest, link=Link()), interface(forest)), form), x)
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-11 if form == "float64" else 3e-4, err_msg=form)


@pytest.mark.parametrize("kind", Link.KINDS)
def test_links(kind: str) -> None:
    forest = replace(random_forest(17, outputs=3, dtype="float64"), link=Link(kind))
    x = threshold_rows(forest, 200, 1)
    for form in FORMS:
        given = run(written(to_graph(forest, interface(forest)), form), x)
        np.testing.assert_allclose(given, forest_eval.evaluate(forest, x), rtol=2e-5, atol=2e-6, err_msg=form)


def chain(depth: int) -> Forest:
    """One tree of `depth` splits, one below the other."""
    nodes = 2 * depth + 1
    split = np.arange(nodes) < depth
    return Forest(
        features=1,
        feature=np.where(split, 0, -1).astype(np.int32),
        compare=np.zeros(nodes, np.uint8),
        threshold=np.where(split, np.arange(nodes, dtype=np.float64), 0),
        true_child=np.where(split, np.arange(nodes) + depth, -1),
        false_child=np.where(split, np.where(np.arange(nodes) == depth - 1, 2 * depth, np.arange(nodes) + 1), -1),
        missing=np.zeros(nodes, np.bool_),
        leaf=np.where(split, -1, np.arange(nodes) - depth),
        values=np.arange(depth + 1, dtype=np.float64)[:, np.newaxis],
        roots=np.zeros(1, np.int64),
        tree_output=np.zeros(1, np.int64),
        tree_weight=np.ones(1),
        base=np.zeros(1),
    )


def test_a_tree_of_depth_20000_is_checked_without_recursion_and_not_drawn() -> None:
    """onnxruntime would take the whole process down with it."""
    start = time.process_time()
    forest = chain(20_000).checked("deep")
    assert forest_eval.margins(forest, np.array([[19_999.5]]))[0, 0] == 20_000
    with pytest.raises(Unsupported, match="4096 splits below each other"):
        to_graph(forest, interface(forest))
    assert time.process_time() - start < 20


@pytest.mark.parametrize("form", FORMS)
def test_a_tree_of_depth_4000_runs(form: str) -> None:
    forest = chain(4000).checked("deep")
    x = np.array([[3.5], [3999.5], [1999.0]])
    assert run(written(to_graph(forest, interface(forest)), form), x)[:, 0].tolist() == [4.0, 4000.0, 1999.0]


def changed(forest: Forest, name: str, node: int, value: float) -> Forest:
    column = getattr(forest, name).copy()
    column[node] = value
    return replace(forest, **{name: column})


@pytest.mark.parametrize(
    ("name", "node", "value", "words"),
    [
        ("true_child", 0, 10**9, "child that is not there"),
        ("false_child", 0, -7, "child that is not there"),
        ("true_child", 1, 0, "child of two nodes"),
        ("true_child", 0, 2, "child of two nodes"),
        ("true_child", 4, 3, "a leaf with a child"),
        ("feature", 1, 1, "no known feature"),
        ("feature", 1, -1, "no known feature"),
        ("threshold", 1, np.nan, "no number"),
        ("compare", 1, 9, "unknown way"),
        ("compare", 1, Compare.MEMBER, "categories"),
        ("leaf", 4, 99, "without a value"),
        ("values", 0, np.inf, "not all are finite"),
        ("roots", 0, 77, "root"),
        ("tree_output", 0, 1, "output that is not there"),
        ("base", 0, np.nan, "not all are finite"),
    ],
)
def test_what_is_no_forest_is_refused_in_one_line(name: str, node: int, value: float, words: str) -> None:
    forest = chain(3).checked("fine")
    with pytest.raises(UnreadableFile, match=words) as caught:
        changed(forest, name, node, value).checked("bad.json")
    assert "\n" not in str(caught.value)
    assert "bad.json" in str(caught.value)


def test_a_node_that_hangs_on_nothing_is_refused() -> None:
    forest = chain(3)
    grown = {name: np.append(getattr(forest, name), filler) for name, filler in (("true_child", -1), ("leaf", 0))}
    names = ("feature", "compare", "threshold", "false_child", "missing")
    grown |= {name: np.append(getattr(forest, name), getattr(forest, name)[-1]) for name in names}
    with pytest.raises(UnreadableFile, match="node 7 of the forest is not reached"):
        replace(forest, **grown).checked("lone.json")


def test_a_circle_is_refused() -> None:
    forest = chain(4)
    # nodes 1 and 2 feed each other, the root goes around them
    forest = changed(changed(forest, "false_child", 0, 3), "false_child", 2, 1)
    with pytest.raises(UnreadableFile, match="circle"):
        forest.checked("round.json")


def test_arrays_of_different_length_are_refused() -> None:
    forest = chain(3)
    with pytest.raises(UnreadableFile, match="do not fit"):
        replace(forest, missing=forest.missing[:-1]).checked("short.json")


def test_categories_float32_cannot_tell_apart_are_refused() -> None:
    forest = chain(1)
    forest = replace(
        forest,
        compare=np.array([Compare.MEMBER, 0, 0], np.uint8),
        sets=Sets.of(np.array([1, 0, 0]), np.array([2.0**24 + 1])),
        rounding=np.array([Rounding.FLOOR], np.uint8),
    ).checked("sets")
    with pytest.raises(Unsupported, match="2\\^24"):
        to_graph(forest, interface(forest))
