"""Classifiers as skl2onnx and onnxmltools write them: classes beside scores, scores in dictionaries, one of two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper
from skl2onnx_writing import written

import modelhub
from modelhub.equivalence.render import show
from modelhub.errors import Notice, Unsupported
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions, WriteOptions
from modelhub_onnx import Exporter, Runtime

skl2onnx = pytest.importorskip("skl2onnx")
skops = pytest.importorskip("skops.io")
linear_model = pytest.importorskip("sklearn.linear_model")
ensemble = pytest.importorskip("sklearn.ensemble")
decomposition = pytest.importorskip("sklearn.decomposition")
pipeline = pytest.importorskip("sklearn.pipeline")
preprocessing = pytest.importorskip("sklearn.preprocessing")

X = np.random.default_rng(3).standard_normal((500, 4)).astype("f4")
CLASSES = {
    "whole numbers": (X[:, 0] > 0).astype(int) + 3,
    "texts": np.where(X[:, 0] > 0, "signal", "background"),
    "three": np.digitize(X[:, 0] + X[:, 1], [-0.5, 0.5]),
}


def kept(estimator: Any, path: Path) -> Path:
    """The file of scikit-learn."""
    skops.dump(estimator, path)
    return path


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("kind", CLASSES)
def test_scores_come_as_one_array_with_the_names_of_the_classes(kind: str, zipmap: bool, tmp_path: Path) -> None:
    model = linear_model.LogisticRegression().fit(X, CLASSES[kind])
    path = written(model, tmp_path / "peer.onnx", zipmap=zipmap)
    told = r"output_label, the class itself, is left out" if zipmap else r"label, the class itself, is left out"
    with pytest.warns(Notice, match=("gives an array in place of dictionaries; " if zipmap else "") + told):
        read = modelhub.read(path)
    (output,) = Interface.of(read).outputs
    assert output.labels == tuple(map(str, model.classes_))
    session = onnxruntime.InferenceSession(path)
    own = session.run(None, {session.get_inputs()[0].name: X})[1]
    if zipmap:
        own = np.array([[row[name] for name in model.classes_] for row in own])
    engine = Runtime().load(path, Interface.of(read), "float32", ReadOptions())
    (ours,) = engine({Interface.of(read).inputs[0].tensor: X}).values()
    np.testing.assert_array_equal(ours, own)
    report = modelhub.check(kept(model, tmp_path / "model.skops"), path)
    assert report.verdict == "equivalent"
    assert modelhub.convert(path, tmp_path / "ours.onnx").verdict in ("identical", "equivalent")
    session = onnxruntime.InferenceSession(tmp_path / "ours.onnx")
    assert [value.type for value in session.get_outputs()] == ["tensor(float)"]


def test_a_fault_behind_a_dictionary_is_seen(tmp_path: Path) -> None:
    model = linear_model.LogisticRegression().fit(X, CLASSES["three"])
    path = kept(model, tmp_path / "model.skops")
    model.coef_[1, 2] += 1e-3
    assert modelhub.check(path, written(model, tmp_path / "peer.onnx", zipmap=True)).verdict == "different"


def test_of_two_classes_one_may_be_enough(tmp_path: Path) -> None:
    """XGBoost gives the probability of the second class, onnxmltools that of both."""
    onnxmltools, xgboost = pytest.importorskip("onnxmltools"), pytest.importorskip("xgboost")
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(X, X[:, 0] > X[:, 1])
    model.save_model(tmp_path / "model.json")
    proto = onnxmltools.convert_xgboost(model, initial_types=[("x", FloatTensorType([None, 4]))], target_opset=15)
    (tmp_path / "peer.onnx").write_bytes(proto.SerializeToString())
    assert modelhub.check(tmp_path / "model.json", tmp_path / "peer.onnx").verdict == "equivalent"


def test_arrays_of_different_shapes_are_told_as_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = linear_model.LogisticRegression().fit(X, CLASSES["texts"])
    three = linear_model.LogisticRegression().fit(X, CLASSES["three"])
    report = modelhub.check(kept(two, tmp_path / "two.skops"), written(three, tmp_path / "three.onnx", zipmap=False))
    assert report.verdict == "different"
    show(report)
    assert "arrays of different shapes" in " ".join(capsys.readouterr().err.split())


def test_trees_of_several_operators_have_no_order(tmp_path: Path) -> None:
    """skl2onnx writes an operator for every tree of AdaBoost, and in an order of its own."""
    model = ensemble.AdaBoostClassifier(n_estimators=12, random_state=0).fit(X, (X[:, 0] > X[:, 1]).astype(int))
    report = modelhub.check(kept(model, tmp_path / "m.skops"), written(model, tmp_path / "peer.onnx", zipmap=False))
    legs = {leg.between: leg for leg in report.legs if leg.precision == "float32"}
    assert legs["source", "target"].leaves is None


def test_a_target_that_keeps_nothing_in_double_is_allowed_to_round(tmp_path: Path) -> None:
    """Ours keeps what stands in front of trees in float64; a sum of leaves in float32 is off by 1e-7 where it is 0."""
    model = pipeline.make_pipeline(decomposition.PCA(3), ensemble.ExtraTreesClassifier(10, max_depth=4, random_state=1))
    model.fit(X, CLASSES["whole numbers"])
    path = kept(model, tmp_path / "model.skops")
    report = modelhub.check(path, written(model, tmp_path / "peer.onnx", zipmap=False))
    assert report.verdict == "equivalent"
    assert max(leg.worst.worst.largest for leg in report.legs if leg.worst is not None) > 2e-8


def test_inputs_and_outputs_go_together_by_name(tmp_path: Path) -> None:
    def two(order: int) -> Path:
        b = Builder()
        values = {name: b.input(name, ["N", 3]) for name in ("jet", "track")[::order]}
        ends = {"far": b.op("Exp", values["jet"]), "near": b.op("Neg", values["track"])}
        for name in ("far", "near")[::order]:
            b.output(ends[name], name, ["N", 3])
        path = tmp_path / f"{order}.onnx"
        Exporter().write(b.finish(), path, WriteOptions())
        return path

    assert modelhub.check(two(1), two(-1)).verdict in ("identical", "equivalent")


def test_another_number_of_inputs_is_told(tmp_path: Path) -> None:
    b = Builder()
    both = [b.input(name, ["N", 2]) for name in ("a", "b")]
    b.output(b.op("Add", *both), "y", ["N", 2])
    Exporter().write(b.finish(), tmp_path / "two.onnx", WriteOptions())
    b = Builder()
    b.output(b.op("Neg", b.input("x", ["N", 4])), "y", ["N", 4])
    Exporter().write(b.finish(), tmp_path / "one.onnx", WriteOptions())
    report = modelhub.check(tmp_path / "one.onnx", tmp_path / "two.onnx")
    assert report.verdict == "inconclusive"
    assert any(re.search(r"the file has 2 inputs \(a, b\), the model .* 1 \(x\)", line) for line in report.missing)


@pytest.mark.parametrize("turned", [False, True])
def test_an_input_for_every_variable(turned: bool, tmp_path: Path) -> None:
    """As skl2onnx writes what was trained on a table with named columns."""
    pandas = pytest.importorskip("pandas")
    from skl2onnx.common.data_types import FloatTensorType

    names = ["pt", "eta", "phi", "mass"]
    scaled = pytest.importorskip("sklearn.compose").ColumnTransformer([("s", preprocessing.StandardScaler(), names)])
    model = pipeline.make_pipeline(scaled, linear_model.LogisticRegression())
    model.fit(pandas.DataFrame(X, columns=names), CLASSES["three"])
    types = [(name, FloatTensorType([None, 1])) for name in names]
    proto = skl2onnx.convert_sklearn(model, initial_types=types, target_opset={"": 17, "ai.onnx.ml": 3})
    if turned:  # the order of the inputs is not that of the columns
        inputs = [proto.graph.input[place] for place in (2, 0, 3, 1)]
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)
    (tmp_path / "peer.onnx").write_bytes(proto.SerializeToString())
    path = kept(model, tmp_path / "model.skops")
    assert modelhub.check(path, tmp_path / "peer.onnx").verdict == "equivalent"
    assert modelhub.convert(tmp_path / "peer.onnx", tmp_path / "ours.onnx").verdict in ("identical", "equivalent")


def labelled(outputs: list[Any], *nodes: Any) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [helper.make_tensor_value_info("x", 1, ["N", 2])], outputs)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8
    )


def test_a_model_of_text_only_is_refused(tmp_path: Path) -> None:
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", ""], domain="ai.onnx.ml", coefficients=[1.0, 0.0], intercepts=[0.0],
        classlabels_strings=["a", "b"],
    )  # fmt: skip
    proto = labelled([helper.make_tensor_value_info("label", TensorProto.STRING, ["N"])], node)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(Unsupported, match="only text; export the model with its scores"):
        modelhub.read(tmp_path / "m.onnx")


def test_a_whole_number_that_is_all_there_is_stays(tmp_path: Path) -> None:
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml", coefficients=[1.0, 0.0, 0.0, 1.0],
        intercepts=[0.0, 0.0], classlabels_ints=[0, 1],
    )  # fmt: skip
    proto = labelled([helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])], node)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    assert [value.name for value in modelhub.read(tmp_path / "m.onnx").graph.outputs] == ["label"]


def test_a_file_with_our_record_is_as_it_should_be(tmp_path: Path) -> None:
    b = Builder()
    x = b.input("x", ["N", 2])
    b.output(b.op("ArgMax", x, axis=1, keepdims=0), "class", ["N"], "int64")
    b.output(b.op("Neg", x), "y", ["N", 2])
    record = Interface(
        (Input("x", (Feature("a"), Feature("b"))),), (Output("class", ("which",)), Output("y", ("p", "q")))
    )
    model = b.finish(record)
    model.graph.opset_imports["ai.onnx.ml"] = 3
    Exporter().write(model, tmp_path / "m.onnx", WriteOptions())
    assert [value.name for value in modelhub.read(tmp_path / "m.onnx").graph.outputs] == ["class", "y"]
    assert ir.load(tmp_path / "m.onnx").graph.outputs[0].dtype == ir.DataType.INT64
