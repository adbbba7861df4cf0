"""Forests behind selected and scaled columns: the rows for them stand where the graph's own answer flips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from forest_rows import interface
from test_tree_probes import random_forest

from modelhub.equivalence.tree_probes import tree_probes
from modelhub.graph import forest_eval
from modelhub.graph.builder import Builder
from modelhub.graph.canonical import canonical
from modelhub.graph.forest import Forest
from modelhub.graph.forest_classic import classic
from modelhub.graph.forest_forms import forests
from modelhub.graph.forest_onnx import margins, to_graph
from modelhub.graph.precision import to_precision

WIDTH = 5


def engine(model: ir.Model, x: np.ndarray) -> np.ndarray:
    """The margins, which the graph gives in float64."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return np.asarray(session.run(None, {"inputs": x})[0])


def plain(seed: int) -> Forest:
    forest = random_forest(seed, routed=False)
    return replace(forest, features=3, missing=np.zeros_like(forest.missing))


def pipeline(forest: Forest, way: str) -> tuple[ir.Model, object]:
    """The forest behind a way to change five columns into its three, and the same in numpy."""
    b = Builder()
    x = b.input("inputs", ["N", WIDTH])
    pick = np.array([4, 0, 2])
    mean, scale = np.array([0.3, -1 / 7, 2e3]), np.array([1 / 3, -0.7, 1e-3])
    with b.kept():
        y = b.op("Cast", x, to=ir.DataType.DOUBLE.value)
        y = b.op("Gather", y, b.constant(pick, "columns"), axis=1)
        if way == "standard":
            y = b.op("Div", b.op("Sub", y, b.constant(mean, "mean")), b.constant(scale, "scale"))
        if way == "range":
            y = b.op("Add", b.op("Mul", y, b.constant(scale, "scale")), b.constant(mean, "mean"))
        if way == "doubled":  # which float32 numbers survive: rows stand on the thresholds themselves
            y = b.op("Mul", y, b.constant(np.array(2.0), "scale"))
        if way == "turned":
            y = b.op("Sub", b.constant(mean[:1], "one"), y)
        if way == "joined":
            first = b.op("Slice", y, b.ints(0), b.ints(1), b.ints(1))
            rest = b.op("Mul", b.op("Slice", y, b.ints(1), b.ints(3), b.ints(1)), b.constant(scale[1:], "scale"))
            y = b.op("Concat", first, rest, axis=1)
        y = margins(b, forest, y)
    b.output(y, "outputs", ["N", forest.outputs], dtype="float64")
    ways = {
        "picked": lambda z: z,
        "standard": lambda z: (z - mean) / scale,
        "range": lambda z: z * scale + mean,
        "doubled": lambda z: z * 2,
        "turned": lambda z: mean[0] - z,
        "joined": lambda z: z * np.append(1.0, scale[1:]),
    }
    record = interface(replace(forest, features=WIDTH))
    return canonical(b.finish(record)), lambda rows: ways[way](rows.astype(np.float64)[:, pick])


@pytest.mark.parametrize("way", ["picked", "standard", "range", "doubled", "turned", "joined"])
def test_rows_meet_both_sides_of_every_flip(way: str) -> None:
    forest = plain(3)
    forest = replace(forest, threshold=forest.threshold.astype(np.float32).astype(np.float64))
    model, change = pipeline(forest, way)
    (probe,) = tree_probes(model, np.random.default_rng(0))
    assert probe.rows.shape[1] == WIDTH
    assert probe.both_ways > 0.5 * probe.splits  # the others ask what the way to them has answered
    z = change(probe.rows)
    (found,) = forests(model)
    numbered = found.forest  # as the probe numbers its nodes
    # in the numbers the forest sees, each row is on the side of its node that it is for
    missed = 0
    for row, node, side in zip(z, probe.node, probe.side, strict=True):
        feature, compare, t = numbered.feature[node], numbered.compare[node], numbered.threshold[node]
        holds = (row[feature] <= t, row[feature] < t, row[feature] >= t, row[feature] > t)[compare]
        missed += holds != side
    assert missed == 0
    np.testing.assert_allclose(engine(model, probe.rows), forest_eval.margins(forest, z), atol=1e-12)


@pytest.mark.parametrize("way", ["standard", "range"])
def test_the_two_sides_are_neighbouring_numbers(way: str) -> None:
    forest = plain(5)
    model, _ = pipeline(forest, way)
    (probe,) = tree_probes(model, np.random.default_rng(0))
    pick = np.array([4, 0, 2])
    close = 0
    nodes = np.unique(probe.node)
    (found,) = forests(model)
    forest = found.forest
    for node in nodes:
        column = pick[forest.feature[node]]
        here = probe.node == node
        left, right = (probe.rows[here & (probe.side == side), column] for side in (True, False))
        close += any(np.nextafter(np.float32(a), np.float32(b)) == b for a in left for b in right)
    assert close > 0.8 * len(nodes)


def test_scaling_in_float32_is_left_alone() -> None:
    """There a float32 file and a float64 engine flip at different numbers, and both are right."""
    forest = plain(3)
    b = Builder()
    x = b.input("inputs", ["N", 3])
    y = margins(b, forest, b.op("Mul", x, b.constant(np.array([0.3], np.float32), "scale")))
    b.output(y, "outputs", ["N", 1], dtype="float64")
    assert list(tree_probes(canonical(b.finish(interface(forest))), np.random.default_rng(0))) == []


def test_a_concatenation_that_grows_without_end_is_left_alone() -> None:
    forest = plain(3)
    b = Builder()
    y = b.input("inputs", ["N", 3])
    for _ in range(40):
        y = b.op("Concat", y, y, axis=1)
    b.output(margins(b, forest, y), "outputs", ["N", 1], dtype="float64")
    assert list(tree_probes(b.finish(interface(forest)), np.random.default_rng(0))) == []


def test_the_classic_operators_are_probed_too() -> None:
    forest = plain(3)
    model = to_precision(to_graph(forest, interface(forest)), "float32")
    classic(model)
    (probe,) = tree_probes(model, np.random.default_rng(0))
    assert probe.both_ways > 0.5 * probe.splits
