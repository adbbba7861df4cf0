"""The kinds of Keras file: read, told from strangers, asked for their other half, refused where not understood."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelhub.errors import Unsupported, UsageError
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_keras import Importer

SHIPPED = {
    "tagger": ("model.keras", None),
    "classifier": ("model.h5", None),
    "deep_set": ("architecture.json", "model.weights.h5"),
    "keras2_wiring": ("model.h5", None),
    "keras2_masks": ("architecture.json", "weights.h5"),
}


def read(path: Path, weights: Path | None = None) -> ir.Model:
    return Importer().read(path, ReadOptions(weights=weights))


@pytest.mark.parametrize("case", SHIPPED)
def test_shipped_models_answer_as_keras_did(case: str, fixtures: Path) -> None:
    folder = fixtures / "keras" / case
    name, weights = SHIPPED[case]
    model = read(folder / name, folder / weights if weights else None)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    inputs, outputs = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
    feeds = {i.name: inputs[key] for i, key in zip(session.get_inputs(), inputs, strict=True)}
    for ours, key in zip(session.run(None, feeds), outputs, strict=True):
        np.testing.assert_allclose(ours, outputs[key], rtol=1e-5, atol=1e-6)


def test_the_interface_of_a_shipped_model(fixtures: Path) -> None:
    interface = Interface.of(read(fixtures / "keras" / "tagger" / "model.keras"))
    assert [(i.name, i.sequence, len(i.features)) for i in interface.inputs] == [("tracks", True, 3), ("jet", False, 4)]
    assert [(o.name, o.labels) for o in interface.outputs] == [
        ("flavour_0", ("out_0", "out_1", "out_2")),
        ("mass_0", ("out_0",)),
    ]


def test_reading_imports_no_framework(fixtures: Path) -> None:
    folder = fixtures / "keras"
    code = f"""
import sys
from pathlib import Path
from modelhub.protocols import ReadOptions
from modelhub_keras import Importer
folder = Path({str(folder)!r})
for path, weights in (
    (folder / "tagger/model.keras", None),
    (folder / "classifier/model.h5", None),
    (folder / "deep_set/architecture.json", folder / "deep_set/model.weights.h5"),
):
    assert Importer().recognises(path)
    Importer().read(path, ReadOptions(weights=weights))
print(sorted({{"keras", "tensorflow", "torch", "jax", "tf_keras", "onnxruntime"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, modelhub_keras; print(sorted({'numpy', 'h5py', 'onnx_ir', 'onnx', 'keras'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_each_kind_of_file_is_recognised(fixtures: Path, tmp_path: Path) -> None:
    importer, folder = Importer(), fixtures / "keras"
    for case, names in SHIPPED.items():
        assert all(importer.recognises(folder / case / name) for name in names if name)
    renamed = shutil.copy(folder / "tagger" / "model.keras", tmp_path / "model.zip")
    assert importer.recognises(Path(renamed))


@pytest.mark.parametrize(
    "content", [b'{"layers": [], "inputs": []}', b"{}", b"[1]", b"\x08\x07", b"PK\x03\x04", b"ROOT"]
)
def test_other_files_are_not_claimed(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    assert not Importer().recognises(path)


def test_hdf5_of_data_is_not_claimed(tmp_path: Path) -> None:
    path = tmp_path / "events.h5"
    with h5py.File(path, "w") as file:
        file["jets/pt"] = np.zeros(3)
    assert not Importer().recognises(path)


def test_the_first_keras_of_tensorflow_counts_as_its_successors(fixtures: Path, tmp_path: Path) -> None:
    """`2.2.4-tf` masks the outputs of Bidirectional with zeros, as no Keras 2.2.4 did."""
    folder = fixtures / "keras" / "keras2_masks"
    config = json.loads((folder / "architecture.json").read_text())
    outputs = {}
    for version in (config["keras_version"], "2.2.4-tf", "2.2.4"):
        (tmp_path / "arch.json").write_text(json.dumps({**config, "keras_version": version}))
        session = ort.InferenceSession(
            ir.to_proto(read(tmp_path / "arch.json", folder / "weights.h5")).SerializeToString()
        )
        inputs = np.load(folder / "inputs.npz")
        feeds = {i.name: inputs[key] for i, key in zip(session.get_inputs(), inputs, strict=True)}
        outputs[version] = session.run(None, feeds)[1]
    np.testing.assert_array_equal(outputs[config["keras_version"]], outputs["2.2.4-tf"])
    assert (outputs["2.2.4-tf"] != outputs["2.2.4"]).any()


def test_an_architecture_alone_asks_for_weights(fixtures: Path) -> None:
    with pytest.raises(UsageError, match="--weights"):
        read(fixtures / "keras" / "deep_set" / "architecture.json")


def test_weights_alone_ask_for_an_architecture(fixtures: Path) -> None:
    with pytest.raises(UsageError, match="architecture JSON"):
        read(fixtures / "keras" / "deep_set" / "model.weights.h5")


@pytest.mark.parametrize("case", ["tagger", "classifier"])
def test_weights_beside_a_whole_model_are_a_mistake(case: str, fixtures: Path) -> None:
    folder = fixtures / "keras"
    with pytest.raises(UsageError, match="leave --weights out"):
        read(folder / case / str(SHIPPED[case][0]), folder / "deep_set" / "model.weights.h5")


def test_weights_that_are_no_hdf5(fixtures: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_text("numbers")
    with pytest.raises(UsageError, match="no HDF5 file"):
        read(fixtures / "keras" / "deep_set" / "architecture.json", tmp_path / "weights.h5")


def test_an_architecture_inside_a_json_string(fixtures: Path, tmp_path: Path) -> None:
    """`json.dump(model.to_json(), file)`, met in the wild."""
    folder = fixtures / "keras" / "deep_set"
    path = tmp_path / "twice.json"
    path.write_text(json.dumps((folder / "architecture.json").read_text()))
    assert Importer().recognises(path)
    assert read(path, folder / "model.weights.h5").graph.inputs[0].name == "tracks"


def test_strangers_are_named_all_at_once(fixtures: Path, tmp_path: Path) -> None:
    folder = fixtures / "keras" / "deep_set"
    config = json.loads((folder / "architecture.json").read_text())
    layers = config["config"]["layers"]
    layers[1]["class_name"], layers[-1]["class_name"] = "GarNet", "QDense"
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(config))
    with pytest.raises(Unsupported) as told:
        read(path, folder / "model.weights.h5")
    assert len(told.value.reasons) == 2
    assert "each (GarNet, layer 1)" in str(told.value)
    assert "score (QDense, layer 3)" in str(told.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"module": "my.code", "registered_name": "Mine>Dense"},
            r"score \(Dense, layer 3\): this class comes from my.code",
        ),
        ({"registered_name": "Mine>Dense"}, "Mine>Dense"),
        ({"class_name": "Lambda"}, "function of its own"),
        ({"config": {"activation": "wiggle"}}, "activation 'wiggle'"),
        ({"config": {"lora_rank": 4}}, "lora_rank = 4 is not understood"),
        ({"config": {"dtype": "int8_from_float32"}}, "int8_from_float32"),
    ],
)
def test_what_is_not_understood_is_refused(change: dict, match: str, fixtures: Path, tmp_path: Path) -> None:
    folder = fixtures / "keras" / "deep_set"
    config = json.loads((folder / "architecture.json").read_text())
    layer = config["config"]["layers"][-1]
    layer.update({key: value for key, value in change.items() if key != "config"})
    layer["config"].update(change.get("config", {}))
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(config))
    with pytest.raises(Unsupported, match=match):
        read(path, folder / "model.weights.h5")


def test_a_call_in_training_is_refused(fixtures: Path, tmp_path: Path) -> None:
    """Dropout(x, training=True) is random at every call."""
    folder = fixtures / "keras" / "deep_set"
    config = json.loads((folder / "architecture.json").read_text())
    config["config"]["layers"][-1]["inbound_nodes"][0]["kwargs"]["training"] = True
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(config))
    with pytest.raises(Unsupported, match="training=True"):
        read(path, folder / "model.weights.h5")
