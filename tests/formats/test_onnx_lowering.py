"""Operators of ai.onnx.ml in files of other converters: spelled as the common graph spells them, and so written on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from skl2onnx_writing import written

import modelhub
from modelhub.difference.diff import diff
from modelhub.errors import UnreadableFile

pytest.importorskip("skl2onnx")
ensemble = pytest.importorskip("sklearn.ensemble")
neural_network = pytest.importorskip("sklearn.neural_network")
pipeline = pytest.importorskip("sklearn.pipeline")
preprocessing = pytest.importorskip("sklearn.preprocessing")

X = np.random.default_rng(5).standard_normal((600, 4)).astype("f4")
SCORE = X[:, 0] + X[:, 1] * X[:, 2]
TWO, THREE = (SCORE > 0).astype(int), np.digitize(SCORE, [-0.5, 0.5])


MODELS = {
    "forest of two": (lambda: ensemble.RandomForestClassifier(8, max_depth=4, random_state=0), TWO),
    "forest of three": (lambda: ensemble.RandomForestClassifier(8, max_depth=4, random_state=0), THREE),
    "boosting of two": (lambda: ensemble.GradientBoostingClassifier(n_estimators=8, random_state=0), TWO),
    "boosting of three": (lambda: ensemble.GradientBoostingClassifier(n_estimators=8, random_state=0), THREE),
    "regression": (lambda: ensemble.GradientBoostingRegressor(n_estimators=8, random_state=0), SCORE),
}

NOT_IN_TMVA = ("forest of three", ".xml")


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [(kind, suffix) for kind in MODELS for suffix in (".onnx", ".json", ".xml") if (kind, suffix) != NOT_IN_TMVA],
)
def test_trees_are_written_on_in_every_format(kind: str, suffix: str, tmp_path: Path) -> None:
    make, target = MODELS[kind]
    estimator = make().fit(X, target)
    options = {"zipmap": True} if hasattr(estimator, "classes_") else {}
    path = written(estimator, tmp_path / "peer.onnx", **options)
    held = {(node.domain, node.op_type) for node in modelhub.read(path).graph}
    assert ("ai.onnx.ml", "TreeEnsemble") in held
    assert not {kind for domain, kind in held if domain == "ai.onnx.ml"} - {"TreeEnsemble"}
    report = modelhub.convert(path, tmp_path / f"ours{suffix}")
    assert report is not None
    assert report.verdict in ("identical", "equivalent")
    assert {leg.between for leg in report.legs if leg.leaves is not None} >= {("source", "graph")}


def test_a_threshold_changed_on_the_way_is_seen(tmp_path: Path) -> None:
    path = written(ensemble.RandomForestClassifier(8, max_depth=4, random_state=0).fit(X, TWO), tmp_path / "peer.onnx")
    modelhub.convert(path, tmp_path / "ours.onnx")
    proto = onnx.load(path)
    (node,) = [node for node in proto.graph.node if node.op_type == "TreeEnsembleClassifier"]
    values = next(attribute for attribute in node.attribute if attribute.name == "nodes_values")
    values.floats[0] = np.nextafter(np.float32(values.floats[0]), np.float32(9))
    onnx.save(proto, path)
    assert modelhub.check(path, tmp_path / "ours.onnx").verdict == "different"


def test_a_file_that_rounds_thresholds_to_nearest_is_told_node_by_node(tmp_path: Path) -> None:
    """What skl2onnx does to thresholds between two float32."""
    skops = pytest.importorskip("skops.io")
    model = ensemble.RandomForestClassifier(12, max_depth=6, random_state=0).fit(X, TWO)
    skops.dump(model, tmp_path / "model.skops")
    path = written(model, tmp_path / "peer.onnx", zipmap=False)
    found = diff(tmp_path / "model.skops", path)
    assert found.verdict == "different"
    assert found.place is not None
    assert found.place.target_node == found.place.source_node == "TreeEnsemble"
    assert any("rounded to float32" in cause for cause in found.causes)
    assert not any("\n" in cause for cause in found.causes)


def test_a_network_behind_a_scaler_becomes_lwtnn(tmp_path: Path) -> None:
    network = neural_network.MLPClassifier((6,), max_iter=30, random_state=0)
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), network).fit(X, THREE)
    path = written(model, tmp_path / "peer.onnx", zipmap=True)
    assert "Scaler" in {node.op_type for node in onnx.load(path).graph.node}
    report = modelhub.convert(path, tmp_path / "ours.json")
    assert report is not None
    assert report.verdict == "equivalent"


def test_trees_whose_class_is_used_stay_as_they_are(tmp_path: Path) -> None:
    path = written(ensemble.RandomForestClassifier(4, max_depth=3, random_state=0).fit(X, TWO), tmp_path / "peer.onnx")
    proto = onnx.load(path)
    (trees,) = [node for node in proto.graph.node if node.op_type == "TreeEnsembleClassifier"]
    proto.graph.node.append(onnx.helper.make_node("Cast", [trees.output[0]], ["number"], to=onnx.TensorProto.FLOAT))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("number", onnx.TensorProto.FLOAT, ["N"]))
    onnx.save(proto, path)
    kinds = [node.op_type for node in modelhub.read(path).graph]
    assert "TreeEnsembleClassifier" in kinds
    assert "TreeEnsemble" not in kinds
    report = modelhub.convert(path, tmp_path / "ours.onnx")
    assert report is not None
    assert report.verdict in ("identical", "equivalent")
    values = next(attribute for attribute in trees.attribute if attribute.name == "nodes_values")
    values.floats[0] = np.nextafter(np.float32(values.floats[0]), np.float32(9))
    onnx.save(proto, path)
    assert modelhub.check(path, tmp_path / "ours.onnx").verdict == "different"


@pytest.mark.parametrize(("text", "words"), [(b"post_transform", "not a valid ONNX model"), (b"SOFTMAX", "not UTF-8")])
def test_texts_that_are_none(text: bytes, words: str, tmp_path: Path) -> None:
    model = ensemble.GradientBoostingClassifier(n_estimators=2, random_state=0).fit(X, THREE)
    path = written(model, tmp_path / "peer.onnx", zipmap=False)
    data = path.read_bytes()
    assert text in data
    path.write_bytes(data.replace(text, text[:-1] + b"\xd0"))
    with pytest.raises(UnreadableFile, match=words):
        modelhub.read(path)
