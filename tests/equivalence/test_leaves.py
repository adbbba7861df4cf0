"""The leaves of trees, as the engines tell them: the same on every side, and what no output shows is found by them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from forest_rows import interface, threshold_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from test_tree_probes import random_forest

import modelhub
from modelhub.equivalence.leaves import CASES, PARTNERS, Leaves, met
from modelhub.equivalence.probes import Probe
from modelhub.equivalence.report import Report, schema
from modelhub.graph import forest_eval
from modelhub.graph.forest_onnx import to_graph
from modelhub.graph.interface import Interface
from modelhub.plugins import runtime
from modelhub.protocols import ReadOptions, TellsLeaves, WriteOptions

FEATURES = 5
TARGET_IS_OFF = {("source", "target"), ("graph", "target")}


def rows(classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(1500, FEATURES)).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    score = np.nan_to_num(x[:, 0] * x[:, 1] - x[:, 2]) + 0.3 * rng.normal(size=len(x))
    return x, np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))


def xgboost(folder: Path) -> Path:
    """20 trees, in one of which two leaves that hang on one split hold the same."""
    engine = pytest.importorskip("xgboost")
    x, y = rows()
    booster = engine.train({"objective": "binary:logistic", "max_depth": 4}, engine.DMatrix(x, y), 20)
    booster.save_model(folder / "model.json")
    document = json.loads((folder / "model.json").read_text())
    tree = document["learner"]["gradient_booster"]["model"]["trees"][7]
    left, right = tree["left_children"], tree["right_children"]
    at = next(i for i in range(len(left)) if left[i] >= 0 and left[left[i]] < 0 and left[right[i]] < 0)
    tree["split_conditions"][left[at]] = tree["split_conditions"][right[at]] = 0.125
    tree["base_weights"][left[at]] = tree["base_weights"][right[at]] = 0.125
    (folder / "model.json").write_text(json.dumps(document))
    return folder / "model.json"


def lightgbm(folder: Path) -> Path:
    """The same by LightGBM."""
    engine = pytest.importorskip("lightgbm")
    x, y = rows()
    options = {"objective": "binary", "num_leaves": 12, "verbose": -1}
    booster = engine.train(options, engine.Dataset(x, y), 20)
    head, *trees = re.split(r"(?=Tree=\d+\n)", booster.model_to_string())
    fields = dict(line.split("=", 1) for line in trees[7].splitlines() if "=" in line)
    left, right = ([int(child) for child in fields[f"{side}_child"].split()] for side in ("left", "right"))
    at = next(i for i in range(len(left)) if left[i] < 0 and right[i] < 0)
    values = fields["leaf_value"].split()
    values[-1 - left[at]] = values[-1 - right[at]] = "0.125"
    trees[7] = trees[7].replace(f"leaf_value={fields['leaf_value']}", f"leaf_value={' '.join(values)}")
    whole = "".join([head, *trees])
    (folder / "model.txt").write_text(re.sub(r"tree_sizes=.*\n", "", whole))
    return folder / "model.txt"


def sklearn(folder: Path, name: str = "RandomForestRegressor") -> Path:
    """The same by scikit-learn."""
    ensemble, skops = pytest.importorskip("sklearn.ensemble"), pytest.importorskip("skops.io")
    x, y = rows(3 if "Gradient" in name else 2)
    forest = getattr(ensemble, name)(n_estimators=20, max_depth=4, random_state=1).fit(np.nan_to_num(x), y)
    tree = np.ravel(forest.estimators_)[7].tree_
    left, right = tree.children_left, tree.children_right
    at = next(i for i in range(len(left)) if left[i] >= 0 and left[left[i]] < 0 and left[right[i]] < 0)
    tree.value[left[at]] = tree.value[right[at]] = 0.125
    skops.dump(forest, folder / "model.skops")
    return folder / "model.skops"


SOURCES: dict[str, Callable[[Path], Path]] = {"xgboost": xgboost, "lightgbm": lightgbm, "sklearn": sklearn}


def write(source: Path, form: str | None = None) -> Path:
    target = source.with_name("target.onnx")
    modelhub.write(modelhub.read(source), target, options=WriteOptions(form=form))
    return target


def differing(report: Report) -> set[tuple[str, str]]:
    """The legs on which some row is in another leaf."""
    return {leg.between for leg in report.legs if leg.leaves is not None and leg.leaves.elsewhere}


def values_agree(report: Report) -> bool:
    return all(r.worst.verdict in ("identical", "equivalent") for leg in report.legs for r in leg.results)


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
@pytest.mark.parametrize("form", [None, "classic"])
@pytest.mark.parametrize("name", SOURCES)
def test_every_side_puts_every_row_in_the_same_leaf(name: str, form: str | None, tmp_path: Path) -> None:
    source = SOURCES[name](tmp_path)
    report = modelhub.check(source, write(source, form))
    assert report.verdict in ("identical", "equivalent")
    told = [leg for leg in report.legs if leg.leaves is not None]
    assert {leg.between for leg in told} == {("source", "graph"), ("source", "target"), ("graph", "target")}
    events = {leg.between: sum(r.events for r in leg.results) for leg in report.legs}
    for leg in told:
        assert leg.leaves is not None
        assert (leg.leaves.trees, leg.leaves.elsewhere, leg.leaves.rows) == (20, 0, events[leg.between])
    document = json.loads(report.dumps())
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert document["legs"][-1]["leaves"] == {"rows": told[-1].leaves.rows, "trees": 20, "elsewhere": 0, "cases": []}


@pytest.mark.parametrize("name", ["GradientBoostingClassifier", "ExtraTreesClassifier"])
def test_trees_of_several_classes_stand_in_order(name: str, tmp_path: Path) -> None:
    source = sklearn(tmp_path, name)
    leaves = [leg.leaves for leg in modelhub.check(source, write(source)).legs if leg.leaves is not None]
    assert {(met.trees, met.elsewhere) for met in leaves} == {(60 if "Gradient" in name else 20, 0)}
    assert len(leaves) == 3


@pytest.mark.parametrize("name", ["AdaBoostClassifier", "BaggingRegressor", "IsolationForest"])
def test_ensembles_that_do_not_tell_have_trees_that_do(name: str, tmp_path: Path) -> None:
    ensemble, skops = pytest.importorskip("sklearn.ensemble"), pytest.importorskip("skops.io")
    x, y = rows()
    part = {"AdaBoostClassifier": {}, "BaggingRegressor": {"max_features": 3}, "IsolationForest": {"max_samples": 60}}
    forest = getattr(ensemble, name)(n_estimators=7, random_state=1, **part[name]).fit(np.nan_to_num(x), y)
    skops.dump(forest, tmp_path / "model.skops")
    report = modelhub.check(tmp_path / "model.skops", write(tmp_path / "model.skops"))
    assert report.verdict in ("identical", "equivalent")
    found = {leg.between: (leg.leaves.trees, leg.leaves.elsewhere) for leg in report.legs if leg.leaves is not None}
    pairs = [("source", "graph"), ("source", "target"), ("graph", "target")]
    assert found == dict.fromkeys(pairs, (len(forest.estimators_), 0))


def attribute(node: onnx.NodeProto, name: str) -> Any:
    return next(a for a in node.attribute if a.name == name)


def damage(target: Path, change: Callable[[np.ndarray, onnx.NodeProto, int], None]) -> None:
    """`change` the thresholds at a split between two leaves that hold the same; or the node itself."""
    proto = onnx.load(target)
    node = next(node for node in proto.graph.node if node.op_type.startswith("TreeEnsemble"))
    if node.op_type == "TreeEnsemble":
        kinds = [list(attribute(node, f"nodes_{side}leafs").ints) for side in ("true", "false")]
        child = [list(attribute(node, f"nodes_{side}nodeids").ints) for side in ("true", "false")]
        weight = numpy_helper.to_array(attribute(node, "leaf_weights").t)
        at = next(
            i for i, both in enumerate(zip(*kinds, strict=True))
            if all(both) and weight[child[0][i]] == weight[child[1][i]]
        )  # fmt: skip
        values = numpy_helper.to_array(attribute(node, "nodes_splits").t).copy()
        change(values, node, at)
        attribute(node, "nodes_splits").t.CopyFrom(numpy_helper.from_array(values))
    else:
        ids = list(zip(attribute(node, "nodes_treeids").ints, attribute(node, "nodes_nodeids").ints, strict=True))
        hung = zip(
            *(attribute(node, f"target_{what}").ints for what in ("treeids", "nodeids")),
            attribute(node, "target_weights").floats, strict=True,
        )  # fmt: skip
        weights = {(tree, name): value for tree, name, value in hung}
        sides = [attribute(node, f"nodes_{side}nodeids").ints for side in ("true", "false")]
        modes = attribute(node, "nodes_modes").strings
        ends = [[weights.get((tree, side[i])) for side in sides] for i, (tree, _) in enumerate(ids)]
        at = next(i for i, (a, b) in enumerate(ends) if modes[i] != b"LEAF" and a == b and a is not None)
        values = np.array(attribute(node, "nodes_values").floats, np.float32)
        change(values, node, at)
        attribute(node, "nodes_values").floats[:] = values.tolist()
    onnx.save(proto, target)


def one_ulp(values: np.ndarray, _: onnx.NodeProto, at: int) -> None:
    values[at] = np.nextafter(values[at], np.float32(np.inf))


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
@pytest.mark.parametrize("form", [None, "classic"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_threshold_between_equal_leaves_moved_by_one_float(name: str, form: str | None, tmp_path: Path) -> None:
    source = SOURCES[name](tmp_path)
    target = write(source, form)
    damage(target, one_ulp)
    report = modelhub.check(source, target)
    assert values_agree(report)
    assert report.verdict == "different"
    assert differing(report) == TARGET_IS_OFF
    (leg,) = (leg for leg in report.legs if leg.between == ("source", "target"))
    assert leg.leaves is not None
    (case,) = leg.leaves.strays
    assert (case.tree, case.probe) == (7, "threshold")
    assert case.usual != case.a
    assert len(report.parameters) == 1  # and that is the place
    document = json.loads(report.dumps())
    jsonschema.Draft202012Validator(schema()).validate(document)


def test_the_command_line_tells_of_leaves(modelhub: Any, tmp_path: Path) -> None:
    source = xgboost(tmp_path)
    target = write(source)
    good = modelhub("check", source, target)
    assert good.returncode == 0
    assert "rows in 20 trees, always in the same leaf" in good.stderr
    damage(target, one_ulp)
    bad = modelhub("check", source, target, "--html", "report.html", "--summary", "report.md")
    assert bad.returncode == 1
    assert re.search(r"source – target, float32: [\d,]+ rows in 20 trees, \d+ times? in another leaf", bad.stderr)
    assert re.search(r"tree 7, threshold, event \d+: leaf \d+ against \d+, where other rows come", bad.stderr)
    assert "Traceback" not in bad.stderr


def test_a_nan_that_goes_the_other_way_to_an_equal_leaf(tmp_path: Path) -> None:
    def turned(_: np.ndarray, node: onnx.NodeProto, at: int) -> None:
        tracks = attribute(node, "nodes_missing_value_tracks_true").ints
        tracks[at] = 1 - tracks[at]

    source = xgboost(tmp_path)
    target = write(source)
    damage(target, turned)
    report = modelhub.check(source, target)
    assert values_agree(report)
    assert differing(report) == TARGET_IS_OFF


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
def test_leaves_under_other_numbers_are_the_same_leaves(tmp_path: Path) -> None:
    """Two leaves that hold the same exchanged in the file: every row is still with the same others."""

    def exchanged(_: np.ndarray, node: onnx.NodeProto, at: int) -> None:
        true, false = (attribute(node, f"nodes_{side}nodeids").ints for side in ("true", "false"))
        true[at], false[at] = false[at], true[at]

    source = xgboost(tmp_path)
    target = write(source)
    damage(target, exchanged)
    report = modelhub.check(source, target)
    assert values_agree(report)
    assert differing(report) == set()
    assert sum(leg.leaves is not None for leg in report.legs) == 3


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
def test_trees_in_another_order_are_left_out(tmp_path: Path) -> None:
    source = xgboost(tmp_path)
    target = write(source)
    proto = onnx.load(target)
    node = next(node for node in proto.graph.node if node.op_type == "TreeEnsemble")
    roots = attribute(node, "tree_roots").ints
    roots[:] = list(roots)[::-1]
    onnx.save(proto, target)
    report = modelhub.check(source, target)
    assert values_agree(report)
    assert {leg.verdict for leg in report.legs} <= {"identical", "equivalent"}
    assert {leg.between for leg in report.legs if leg.leaves is not None} == {("source", "graph")}


def test_sides_that_cannot_tell_are_left_out(tmp_path: Path) -> None:
    forest = random_forest(3, routed=False, trees=4, dtype="float32")
    wide = WriteOptions(precision="float64")
    modelhub.write(to_graph(forest, interface(forest)), tmp_path / "forest.onnx", options=wide)
    report = modelhub.convert(tmp_path / "forest.onnx", tmp_path / "forest.json")
    assert report is not None
    assert {leg.between for leg in report.legs if leg.leaves is not None} == {("source", "graph")}


def test_a_linear_leaf_may_be_divided(fixtures: Path, tmp_path: Path) -> None:
    """The graph has two for one in which a feature may be missing: to LightGBM it is one leaf with two values."""
    pytest.importorskip("lightgbm")
    report = modelhub.convert(fixtures / "lightgbm" / "linear_leaves" / "model.txt", tmp_path / "target.onnx")
    assert report is not None
    assert report.verdict == "equivalent"
    assert differing(report) == set()


def test_trees_behind_arithmetic_are_left_out(tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    source = xgboost(tmp_path)
    record = {
        "version": 1,
        "inputs": [{"name": "x", "features": [{"name": f"f{i}", "offset": 0.1} for i in range(FEATURES)]}],
        "outputs": [{"name": "y", "labels": ["y"]}],
    }
    (tmp_path / "record.json").write_text(json.dumps(record))
    report = modelhub.convert(source, tmp_path / "target.onnx", interface=tmp_path / "record.json")
    assert report is not None
    assert all(leg.leaves is None for leg in report.legs)


def regressor_as_classifier(path: Path) -> None:
    """The same trees in a TreeEnsembleClassifier: every target a class."""
    proto = onnx.load(path)
    node = next(node for node in proto.graph.node if node.op_type == "TreeEnsembleRegressor")
    count = attribute(node, "n_targets").i
    node.attribute.remove(attribute(node, "n_targets"))
    for each in node.attribute:
        each.name = each.name.replace("target_", "class_")
    node.attribute.append(onnx.helper.make_attribute("classlabels_int64s", list(range(count))))
    node.op_type = "TreeEnsembleClassifier"
    node.output.insert(0, "label")
    onnx.save(proto, path)


@pytest.mark.parametrize("form", ["float32", "float64", "classic", "classifier"])
def test_onnxruntime_tells_the_leaves_of_the_file(form: str, tmp_path: Path) -> None:
    forest = random_forest(5, routed=True, trees=7, dtype="float32")
    model, path = to_graph(forest, interface(forest)), tmp_path / "forest.onnx"
    classic = "classic" if form.startswith("class") else None
    precision = "float64" if form == "float64" else "float32"
    modelhub.write(model, path, options=WriteOptions(precision=precision, form=classic))
    if form == "classifier":
        regressor_as_classifier(path)
    loader = runtime("onnx")
    assert loader is not None
    engine = loader.load(path, Interface.of(model), precision, ReadOptions())
    assert isinstance(engine, TellsLeaves)
    x = threshold_rows(forest, 3000, 1)
    found = engine.leaves({interface(forest).inputs[0].tensor: x})
    probe = Probe("all", None, {"x": x})
    together = met(probe, forest_eval.leaves(forest, x), found)
    assert (together.rows, together.trees, together.elsewhere) == (3000, 7, 0)
    assert len(together.pairs) == len(np.unique(forest_eval.leaves(forest, x)))


def batch(numbers: np.ndarray, a: np.ndarray, b: np.ndarray, name: str = "all") -> Leaves:
    return met(Probe(name, None, {"x": a}, numbers=numbers), a[numbers], b[numbers])


def plain(leaves: Leaves) -> tuple[Any, ...]:
    arrays = (leaves.pairs, leaves.count, leaves.first)
    return leaves.rows, leaves.trees, leaves.probes, leaves.lost, *(array.tolist() for array in arrays)


@given(st.integers(0, 2**32), st.integers(1, 40), st.lists(st.integers(0, 299), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_batches_merge_in_any_order(seed: int, leaves: int, cuts: list[int]) -> None:
    """Also where a leaf has more partners than are kept."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, leaves, (2, 300, 3))
    whole = batch(np.arange(300), a, b)
    parts = [batch(part, a, b) for part in np.split(rng.permutation(300), sorted(cuts)) if len(part)]
    for order in (parts, parts[::-1], [parts[i] for i in rng.permutation(len(parts))]):
        assert plain(reduce(Leaves.merged, order)) == plain(whole)
    if len(parts) > 2:
        one, two, *rest = parts
        assert plain(one.merged(reduce(Leaves.merged, [two, *rest]))) == plain(whole)
    other = batch(np.arange(300), b, a, "other")
    assert plain(whole.merged(other)) == plain(other.merged(whole))
    assert int(whole.count.sum()) + whole.lost == 900
    assert np.unique(whole.pairs >> 21, return_counts=True)[1].max() <= PARTNERS
    assert len(whole.pairs) <= PARTNERS * 3 * leaves


def test_rows_in_another_leaf_are_counted_and_named() -> None:
    a = np.array([[4, 1], [4, 1], [7, 1], [7, 2], [9, 2], [9, 2], [7, 2]])
    b = np.array([[0, 5], [0, 5], [2, 5], [2, 6], [1, 6], [2, 6], [2, 6]])
    found = batch(np.arange(7), a, b)
    assert (found.rows, found.trees, found.elsewhere) == (7, 2, 1)
    (case,) = found.strays
    assert (case.tree, case.a, case.b, case.usual, case.probe, case.length, case.event) == (0, 9, 2, 7, "all", None, 5)
    assert found.comparable
    shuffled = batch(np.arange(7), a, np.random.default_rng(0).integers(0, 2, a.shape))
    assert 0 < len(shuffled.strays) <= CASES
    assert not shuffled.comparable


def test_a_leaf_may_be_divided_and_not_be_joined() -> None:
    coarse, fine = (np.repeat(np.arange(n), 12 // n)[:, np.newaxis] for n in (3, 6))
    assert batch(np.arange(12), coarse, fine).elsewhere == 0
    assert batch(np.arange(12), fine, coarse).elsewhere == 6


def test_deep_trees_in_another_order_are_left_out(tmp_path: Path) -> None:
    """Most rows have a leaf for themselves: what tells is that trees have other numbers of leaves."""
    ensemble, skops = pytest.importorskip("sklearn.ensemble"), pytest.importorskip("skops.io")
    x = np.random.default_rng(2).normal(size=(1500, FEATURES))
    forest = ensemble.RandomForestRegressor(6, random_state=1).fit(x, x[:, 0] * x[:, 1] - x[:, 2])
    skops.dump(forest, tmp_path / "model.skops")
    target = write(tmp_path / "model.skops")
    same = modelhub.check(tmp_path / "model.skops", target)
    assert (same.verdict, sum(leg.leaves is not None for leg in same.legs)) == ("equivalent", 3)
    proto = onnx.load(target)
    roots = attribute(next(n for n in proto.graph.node if n.op_type == "TreeEnsemble"), "tree_roots").ints
    roots[:] = list(roots)[1:] + list(roots)[:1]
    onnx.save(proto, target)
    report = modelhub.check(tmp_path / "model.skops", target)
    assert {leg.verdict for leg in report.legs} <= {"identical", "equivalent"}
    assert {leg.between for leg in report.legs if leg.leaves is not None} == {("source", "graph")}
