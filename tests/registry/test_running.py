"""A version that is ready to compute: by names, in batches, against a formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from modelhub.errors import RegistryError
from modelhub_registry import Registry

WEIGHTS = np.array([[1.0, 2.0], [-3.0, 0.5], [0.25, 4.0]], np.float32)
RECORD = {
    "version": 1,
    "inputs": [{"name": "jet", "tensor": "x", "features": [
        {"name": "pt", "offset": -1.0, "scale": 0.5, "default": 3.0}, {"name": "eta", "offset": 0, "scale": 1},
        {"name": "phi", "offset": 0, "scale": 1}]}],
    "outputs": [{"name": "tagger", "tensor": "y", "labels": ["b", "c"]}],
}  # fmt: skip


def linear(path: Path, batch: int | str = "N") -> Path:
    """y = x W, of a file that does no scaling of its own."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def summed(path: Path) -> Path:
    """y = v + the sum over all steps of s, with two inputs."""
    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["s", "axes"], ["t"], keepdims=0), helper.make_node("Add", ["v", "t"], ["y"])],
        "summed",
        [
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, ["N", "T", 2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def expected(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float32).copy()
    x[:, 0] = (np.where(np.isnan(x[:, 0]), 3.0, x[:, 0]) - 1.0) * 0.5
    return x @ WEIGHTS


@pytest.fixture
def events() -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(50, 3))
    x[7, 0] = np.nan
    return x


def test_every_way_to_say_it(registry: Registry, tmp_path: Path, events: np.ndarray) -> None:
    registry.push("net", [linear(tmp_path / "net.onnx")], interface=RECORD)
    model = registry.load("net@1", batch=7)
    frame = pandas.DataFrame(events[:, ::-1], columns=["phi", "eta", "pt"])  # columns go by name, not by place
    ways = [
        events, frame, frame.to_records(index=False), {"jet": frame}, {"jet": events},
        {name: frame[name] for name in frame},
        {"jet": {name: frame[name].to_numpy() for name in frame}},
    ]  # fmt: skip
    for way in ways:
        found = model(way)
        assert list(found) == ["tagger"]
        np.testing.assert_allclose(found["tagger"], expected(events), rtol=1e-6, atol=1e-6)
    assert model.outputs[0].labels == ("b", "c")
    assert model(events[:0])["tagger"].shape == (0, 2)


def test_a_batch_burnt_into_the_file(registry: Registry, tmp_path: Path, events: np.ndarray) -> None:
    registry.push("net", [linear(tmp_path / "net.onnx", 8)], interface=RECORD)
    np.testing.assert_allclose(registry.load("net")(events)["tagger"], expected(events), rtol=1e-6, atol=1e-6)


def test_sequences_of_any_length(registry: Registry, tmp_path: Path) -> None:
    names = [{"name": n, "offset": 0, "scale": 1} for n in "ab"]
    record = {
        "version": 1,
        "inputs": [{"name": "v", "features": names}, {"name": "s", "sequence": True, "features": names}],
        "outputs": [{"name": "y", "labels": ["p", "q"]}],
    }
    registry.push("sum", [summed(tmp_path / "sum.onnx")], interface=record)
    model = registry.load("sum", batch=3)
    random = np.random.default_rng(2)
    vectors = random.normal(size=(20, 2))
    steps = [random.normal(size=(n % 5, 2)) for n in range(20)]
    wanted = vectors + np.array([s.sum(axis=0) for s in steps])
    np.testing.assert_allclose(model({"v": vectors, "s": steps})["y"], wanted, rtol=1e-5, atol=1e-5)
    frames = [pandas.DataFrame(s, columns=["a", "b"]) for s in steps]
    np.testing.assert_allclose(model({"v": vectors, "s": frames})["y"], wanted, rtol=1e-5, atol=1e-5)
    stacked = np.stack([s for s in steps if len(s) == 4])
    four = vectors[[len(s) == 4 for s in steps]]
    np.testing.assert_allclose(model({"v": four, "s": stacked})["y"], four + stacked.sum(axis=1), rtol=1e-5, atol=1e-5)
    for wrong, told in (
        ({"v": vectors}, "missing input: s"),
        ({"v": vectors, "s": steps[:3]}, "different numbers of events"),
        (vectors, "several inputs"),
        ({"v": vectors, "s": vectors}, "wanted"),
    ):
        with pytest.raises(RegistryError, match=told):
            model(wrong)


def test_what_does_not_fit_is_told(registry: Registry, tmp_path: Path, files) -> None:
    registry.push("net", [linear(tmp_path / "net.onnx")], interface=RECORD)
    model = registry.load("net")
    for wrong, told in (
        (np.zeros((4, 2)), "wanted"),
        (pandas.DataFrame({"pt": [1.0], "eta": [1.0]}), "no column phi"),
        ({"jet": np.array([["a", "b", "c"]])}, "numbers wanted"),
    ):
        with pytest.raises(RegistryError, match=told):
            model(wrong)
    with pytest.raises(RegistryError, match="has no NoSuchProvider"):
        registry.load("net", providers=["NoSuchProvider"])
    registry.push("json", files(net_json="{}"))
    with pytest.raises(RegistryError, match="holds no ONNX"):
        registry.load("json")
    registry.push("nameless", [linear(tmp_path / "net.onnx")])
    with pytest.raises(RegistryError, match="have no names"):
        registry.load("nameless")
    registry.push("two", [summed(tmp_path / "two.onnx")], interface=RECORD)
    with pytest.raises(RegistryError, match=r"it takes v, s and gives y, the record 1 inputs .* convert it to ONNX"):
        registry.load("two")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(linear(tmp_path / "net.onnx").read_bytes()[:-40])
    registry.push("broken", [("source", broken)], interface=RECORD)
    with pytest.raises(RegistryError, match=r"cannot load it|holds no ONNX"):
        registry.load("broken")


def test_a_damaged_file_is_not_run(registry: Registry, tmp_path: Path) -> None:
    version = registry.push("net", [linear(tmp_path / "net.onnx")], interface=RECORD)
    blob = registry.root / "blobs/sha256" / version.manifest.artifacts[0].sha256
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(bytes(data))
    with pytest.raises(RegistryError, match="is damaged"):
        registry.load("net")
