"""Trees in ONNX files: the forms a user may ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from forest_rows import interface, threshold_rows
from test_lightgbm_hostile import TEXT

import modelhub
from modelhub.errors import Unsupported, UsageError
from modelhub.graph import forest_eval
from modelhub.graph.forest_onnx import to_graph
from modelhub.protocols import WriteOptions
from modelhub_lightgbm.reader import load
from modelhub_onnx import Exporter


@pytest.mark.parametrize(
    ("options", "operator", "opset"),
    [
        (WriteOptions(), "TreeEnsemble", 5),
        (WriteOptions(form="classic"), "TreeEnsembleRegressor", 3),
        (WriteOptions(opset=17), "TreeEnsembleRegressor", 3),
        (WriteOptions(precision="float64"), "TreeEnsemble", 5),
    ],
)
def test_forms(tmp_path: Path, options: WriteOptions, operator: str, opset: int) -> None:
    (tmp_path / "model.txt").write_text(TEXT)
    forest, _ = load(tmp_path / "model.txt")
    path = tmp_path / "model.onnx"
    Exporter().write(to_graph(forest, interface(forest)), path, options)
    proto = onnx.load(path)
    assert operator in [node.op_type for node in proto.graph.node]
    assert opset in [entry.version for entry in proto.opset_import if entry.domain == "ai.onnx.ml"]
    x = threshold_rows(forest, 500, 0)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = session.run(None, {"inputs": x.astype(options.precision or "float32")})[0]
    np.testing.assert_allclose(given, forest_eval.evaluate(forest, x), rtol=0, atol=2e-7)


def test_what_a_form_cannot_do_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text(TEXT)
    forest, _ = load(tmp_path / "model.txt")
    path = tmp_path / "model.onnx"
    with pytest.raises(Unsupported, match="float64"):
        Exporter().write(to_graph(forest, interface(forest)), path, WriteOptions(form="classic", precision="float64"))
    with pytest.raises(UsageError, match="classic"):
        Exporter().write(to_graph(forest, interface(forest)), path, WriteOptions(form="pretty"))
    assert not path.exists()


@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
def test_trees_of_another_converter_before_an_identity(tmp_path: Path) -> None:
    """onnxmltools ends LightGBM's regressors so; ONNX infers no type for the operator in its first version."""
    (tmp_path / "model.txt").write_text(TEXT)
    forest, _ = load(tmp_path / "model.txt")
    Exporter().write(to_graph(forest, interface(forest)), tmp_path / "own.onnx", WriteOptions(form="classic"))
    proto = onnx.load(tmp_path / "own.onnx")
    (trees,) = [node for node in proto.graph.node if node.op_type == "TreeEnsembleRegressor"]
    entry, result = proto.graph.input[0].name, proto.graph.output[0].name
    del proto.graph.node[:], proto.graph.initializer[:], proto.graph.value_info[:]
    trees.input[0] = entry
    proto.graph.node.extend([trees, onnx.helper.make_node("Identity", [trees.output[0]], [result])])
    proto.ClearField("metadata_props")
    next(entry for entry in proto.opset_import if entry.domain == "ai.onnx.ml").version = 1
    onnx.save(proto, tmp_path / "other.onnx")
    model = modelhub.read(tmp_path / "other.onnx", format="onnx")
    modelhub.write(model, tmp_path / "again.onnx", format="onnx")
    x = threshold_rows(forest, 200, 0)
    given = [
        onnxruntime.InferenceSession(tmp_path / name).run(None, {entry: x})[0] for name in ("other.onnx", "again.onnx")
    ]
    np.testing.assert_array_equal(*given)
