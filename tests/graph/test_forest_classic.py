"""Leaves of several values, and the classic operators: which form a forest takes, and that it computes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from forest_rows import interface, run, threshold_rows, written
from test_forest import random_forest

from modelhub.errors import Unsupported
from modelhub.graph import forest_eval
from modelhub.graph.builder import Builder
from modelhub.graph.forest import Forest, Link
from modelhub.graph.forest_classic import classic
from modelhub.graph.forest_forms import forests
from modelhub.graph.forest_onnx import boundaries, margins, to_graph
from modelhub.graph.precision import to_precision
from modelhub.protocols import WriteOptions
from modelhub_onnx import Exporter


def plain(forest: Forest, values: np.ndarray) -> Forest:
    """The trees of `forest` with other leaves, and what comes out as it is."""
    return replace(
        forest, values=values, base=np.zeros(values.shape[1]), link=Link(), tree_output=forest.tree_output * 0
    )


def two_classes(seed: int) -> Forest:
    forest = random_forest(seed, trees=20, outputs=2, width=2)
    share = np.random.default_rng(seed).random(len(forest.values))
    share[::3] = 1
    forest = plain(forest, np.stack([1 - share, share], axis=1))
    return replace(forest, tree_weight=np.ones(forest.trees), divisor=float(forest.trees))


def pure(seed: int) -> Forest:
    forest = random_forest(seed, trees=20, outputs=3, width=3)
    class_of = np.random.default_rng(seed).integers(0, 3, len(forest.values))
    return plain(forest, np.eye(3)[class_of] * forest.values)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("make", [two_classes, pure])
@pytest.mark.parametrize("form", ["common", "float32", "classic", "float64"])
def test_leaves_of_several_values_that_need_no_table(make, form: str) -> None:
    forest = make(3)
    model = written(to_graph(forest, interface(forest)), form)
    assert "Gather" not in operators(model)
    x = threshold_rows(forest, 1000, 1)
    expected = forest_eval.evaluate(forest, x)
    np.testing.assert_allclose(run(model, x), expected, rtol=0, atol=1e-13 if form == "float64" else 3e-6)


@pytest.mark.parametrize("make", [two_classes, pure])
def test_they_are_found_again(make) -> None:
    forest = replace(make(5), rounding=None, zero_missing=None)  # which are operators in front of the trees
    (found,) = forests(to_graph(forest, interface(forest)))
    x = threshold_rows(forest, 500, 2)
    again, expected = forest_eval.margins(found.forest, x), forest_eval.margins(forest, x)
    if make is two_classes:  # the trees give the sum of the second value
        expected = expected[:, 1:] * forest.divisor
    np.testing.assert_allclose(again, expected, atol=1e-13)


def test_where_every_tree_is_sure_nothing_is_left() -> None:
    forest = two_classes(1)
    sure = replace(forest, values=np.tile([[0.0, 1.0]], (len(forest.values), 1)), divisor=7.0)
    sure = replace(sure, tree_weight=np.full(sure.trees, 0.1))
    given = run(written(to_graph(sure, interface(sure)), "float64"), threshold_rows(sure, 50, 0))
    assert (given[:, 0] == 0).all()
    forest = replace(forest, values=np.tile([[0.0, 1.0]], (len(forest.values), 1)))
    given = run(written(to_graph(forest, interface(forest)), "float32"), threshold_rows(forest, 50, 0))
    assert (given == [0, 1]).all()


@pytest.mark.parametrize(("kept", "operator"), [(False, "TreeEnsembleRegressor"), (True, "TreeEnsemble")])
def test_a_table_is_written_in_the_classic_form(tmp_path: Path, kept: bool, operator: str) -> None:
    forest = replace(random_forest(2, outputs=3, width=3), link=Link())
    path = tmp_path / "model.onnx"
    Exporter().write(in_between(forest, kept=kept), path, WriteOptions())
    written_as = [node.op_type for node in onnx.load(path).graph.node]
    assert operator in written_as
    assert ("Gather" in written_as) == kept


def in_between(forest: Forest, *, kept: bool, median: bool = False) -> ir.Model:
    """Rows in, (x * 1/3) decided about in the middle, margins out."""
    b = Builder()
    x = b.input("inputs", ["N", forest.features])
    y = b.op("Cast", x, to=ir.DataType.DOUBLE.value)
    if kept:
        with b.kept():
            y = b.op("Cast", x, to=ir.DataType.DOUBLE.value)
            y = margins(b, forest, b.op("Mul", y, b.constant(np.array(1 / 3), "third")))
            if median:
                y = b.ops("TopK", y, b.ints(1), outputs=2)[0]
    else:
        y = margins(b, forest, x)
    b.output(b.op("Cast", y, to=ir.DataType.FLOAT.value), "outputs", ["N", 1 if median else forest.outputs])
    return b.finish(interface(forest))


@pytest.mark.parametrize("width", [1, 3])
def test_a_forest_that_keeps_float64_keeps_it_in_the_classic_form(width: int) -> None:
    forest = replace(random_forest(4, outputs=3, width=width, sets=False, dtype="float64"), rounding=None)
    forest = replace(forest, zero_missing=None, link=Link())
    random = np.random.default_rng(0)
    x = random.normal(size=(2000, forest.features)).astype(np.float32)
    for column in range(forest.features):  # next to where a third of a float32 passes a threshold
        at = boundaries(forest)[forest.splits & (forest.feature == column)]
        if len(at):
            near = np.clip(random.choice(at, len(x)) * 3, -1e38, 1e38).astype(np.float32)
            x[:, column] = np.where(random.random(len(x)) < 0.7, near, x[:, column])
    model = to_precision(in_between(forest, kept=True), "float32")
    classic(model)
    assert "TreeEnsembleRegressor" in operators(model)
    expected = forest_eval.margins(forest, x.astype(np.float64) * (1 / 3))
    np.testing.assert_allclose(run(model, x), expected, rtol=2e-6, atol=2e-6)


def test_a_decision_about_the_sum_is_refused() -> None:
    forest = replace(random_forest(4, outputs=3, width=1), link=Link())
    model = to_precision(in_between(forest, kept=True, median=True), "float32")
    with pytest.raises(Unsupported, match="TopK"):
        classic(model)


@pytest.mark.parametrize(
    ("spare", "operator"), [(False, "TreeEnsembleRegressor"), (True, "TreeEnsemble")], ids=["alone", "margins too"]
)
def test_a_softmax_goes_into_the_classic_operator(tmp_path: Path, spare: bool, operator: str) -> None:
    """With the base before it; unless somebody asks for the margins as well."""
    forest = replace(random_forest(6, outputs=3), link=Link("softmax"), base=np.array([0.5, -2.0, 1e-3]))
    model = to_graph(forest, interface(forest))
    if spare:
        (softmax,) = (node for node in model.graph if node.op_type == "Softmax")
        identity = ir.node("Abs", [softmax.inputs[0]])
        model.graph.append(identity)
        identity.outputs[0].name, identity.outputs[0].type = "margins", softmax.inputs[0].type
        model.graph.outputs.append(identity.outputs[0])
    path = tmp_path / "model.onnx"
    Exporter().write(model, path, WriteOptions())
    proto = onnx.load(path)
    assert operator in [node.op_type for node in proto.graph.node]
    assert ("Softmax" in [node.op_type for node in proto.graph.node]) == spare
    x = threshold_rows(forest, 1000, 3)
    np.testing.assert_allclose(run(ir.from_proto(proto), x), forest_eval.evaluate(forest, x), rtol=0, atol=3e-6)
