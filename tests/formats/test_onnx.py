"""ONNX in and out: real files against stored answers of onnxruntime, hostile files, operator sets, precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import modelhub
from modelhub.errors import ModelhubError, UnreadableFile, Unsupported, UsageError
from modelhub.protocols import ReadOptions, WriteOptions
from modelhub_onnx import Importer

REAL = [
    "keras/cms_DeepDoubleX_102X_CvL/CvL",
    "mxnet/cms_DeepBoostedJet_V02_decorrelated/resnet",
    "onnx/cms_DeepJet_Run3/DeepJet_Run3_122X",
    "onnx/cms_RobustParTAK4/RobustParTAK4",
    "onnx/hls4ml_example_onnx/conv1d_small_keras",
    "onnx/hls4ml_example_onnx/conv2d_small_mp_keras",
    "onnx/hls4ml_example_onnx/two_layer_keras",
    "pytorch/cms_particlenet_AK4_PT_torchscript/model",
    "tensorflow_pb/cms_DeepDoubleX_94X_DDB/DDB",
]


@pytest.mark.parametrize("name", REAL)
def test_real_files_answer_as_before(cases: Path, tmp_path: Path, name: str) -> None:
    path = cases / "real" / f"{name}.onnx"
    stored = np.load(path.with_suffix(".reference_onnxruntime.npz"))
    modelhub.write(modelhub.read(path, format="onnx"), tmp_path / "again.onnx", format="onnx")
    session = ort.InferenceSession(tmp_path / "again.onnx")
    keys = {key.partition(":")[2]: key for key in stored if key.startswith("in")}
    got = session.run(None, {slot.name: stored[keys[slot.name]] for slot in session.get_inputs()})
    expected = [stored[key] for key in stored if key.startswith("out")]
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_quantised_operators_are_refused_by_name(cases: Path) -> None:
    path = cases / "real/qonnx/qonnx_jettagging_3layer/qkeras_jettagging.onnx"
    with pytest.raises(Unsupported, match=r"Quant of finn\.custom_op\.general"):
        modelhub.read(path, format="onnx")


def small(dims: tuple[int, ...] = (2, 2), opset: int = 20) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.array([[1.0, 2.0], [3.0, 4.0]], "f4"), "w")
    weight.dims[:] = dims
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 20])
def test_older_operator_sets_are_raised(tmp_path: Path, opset: int) -> None:
    model = modelhub.read(saved(tmp_path / "old.onnx", small(opset=opset)), format="onnx")
    assert model.opset_imports[""] == 20
    x = np.array([[1.0, -2.0]], "f4")
    got = ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, np.maximum(x @ [[1, 2], [3, 4]], 0))


@pytest.mark.parametrize("opset", [14, 17, 18])
def test_another_operator_set_on_request(tmp_path: Path, opset: int) -> None:
    model = modelhub.read(saved(tmp_path / "a.onnx", small()), format="onnx")
    modelhub.write(model, tmp_path / "b.onnx", format="onnx", options=WriteOptions(opset=opset))
    assert {i.version for i in onnx.load(tmp_path / "b.onnx").opset_import if i.domain == ""} == {opset}


def test_float64_on_request(tmp_path: Path) -> None:
    model = modelhub.read(saved(tmp_path / "a.onnx", small()), format="onnx")
    modelhub.write(model, tmp_path / "b.onnx", format="onnx", options=WriteOptions(precision="float64"))
    x = np.array([[1 / 3, 1 / 7]])
    got = ort.InferenceSession(tmp_path / "b.onnx").run(None, {"x": x})[0]
    np.testing.assert_array_equal(got, x @ [[1.0, 2.0], [3.0, 4.0]])


def test_nodes_in_any_order(tmp_path: Path) -> None:
    proto = small()
    first, second = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([second, first])
    model = modelhub.read(saved(tmp_path / "mixed.onnx", proto), format="onnx")
    assert [n.op_type for n in model.graph] == ["Gemm", "Relu"]


def test_a_form_that_does_not_exist(tmp_path: Path) -> None:
    model = modelhub.read(saved(tmp_path / "a.onnx", small()), format="onnx")
    with pytest.raises(UsageError, match="classic or none"):
        modelhub.write(model, tmp_path / "b.onnx", format="onnx", options=WriteOptions(form="graph"))
    assert not (tmp_path / "b.onnx").exists()


def cyclic() -> onnx.ModelProto:
    proto = small()
    proto.graph.node[0].input[0] = "y"
    return proto


def external() -> onnx.ModelProto:
    proto = small()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    return proto


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (lambda: small(dims=(2**20, 2**20)), "claims"),
        (lambda: small(dims=(-1, 4)), "negative size"),
        (cyclic, "cycle|acyclic|sort"),
        (external, "lie in another file"),
        (onnx.ModelProto, "empty"),
        (
            lambda: helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[]),
            "no graph or no operator set",
        ),
    ],
)
def test_hostile_models(tmp_path: Path, proto, words: str) -> None:
    with pytest.raises(UnreadableFile, match=words) as caught:
        modelhub.read(saved(tmp_path / "bad.onnx", proto()), format="onnx")
    assert "bad.onnx" in str(caught.value)


def test_every_truncation_and_many_flips_are_refused_or_read(tmp_path: Path) -> None:
    good = small().SerializeToString()
    rng = np.random.default_rng(0)
    broken = [good[:n] for n in range(len(good))]
    for _ in range(1000):
        copy = bytearray(good)
        copy[rng.integers(len(copy))] ^= 1 << rng.integers(8)
        broken.append(bytes(copy))
    for data in broken:
        path = tmp_path / "bad.onnx"
        path.write_bytes(data)
        try:
            modelhub.read(path, format="onnx")
        except ModelhubError as error:
            assert len(str(error)) < 2000  # noqa: PT017 - refusing is as good as reading, as long as it is said well


def test_weights_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    """As every file before IR version 4 has it."""
    proto = small()
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 2]))
    onnx.save(proto, tmp_path / "old.onnx")
    model = modelhub.read(tmp_path / "old.onnx")
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert modelhub.check(tmp_path / "old.onnx", tmp_path / "old.onnx").verdict in ("identical", "equivalent")


def test_every_node_gets_a_name_of_its_own(tmp_path: Path) -> None:
    proto = small()
    for name in ("", "Relu_0", "again", "again"):
        proto.graph.node.append(helper.make_node("Relu", ["h"], [f"unused{len(proto.graph.node)}"], name=name))
    onnx.save(proto, tmp_path / "net.onnx")
    names = [node.name for node in Importer().read(tmp_path / "net.onnx", ReadOptions()).graph]
    assert len(set(names)) == len(names) == 6
    assert {"Relu_0", "again"} <= set(names)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3, 0.1, 1.2345678e-12])
def test_an_epsilon_is_the_decimal_it_was_written_as(tmp_path: Path, epsilon: float) -> None:
    """So a file in float32 computes what its neighbour in decimals does; written again it is the same number."""
    norm = helper.make_node("BatchNormalization", ["x", *"gbmv"], ["y"], epsilon=epsilon)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in "xy"]
    constants = [numpy_helper.from_array(np.ones(2, np.float32), name) for name in "gbmv"]
    graph = helper.make_graph([norm], "g", values[:1], values[1:], constants)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    (read,) = Importer().read(path, ReadOptions()).graph
    assert read.attributes["epsilon"].as_float() == epsilon
    modelhub.convert(path, tmp_path / "again.onnx")
    assert onnx.load(tmp_path / "again.onnx").graph.node[0].attribute[0].f == np.float32(epsilon)
