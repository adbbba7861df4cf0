"""Reading `.pt2` files: shipped cases against torch's stored answers, names, detection, no torch imported, speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch_checking import EXACT, ROUGH, close, session

import modelhub
from modelhub.errors import Notice, Unsupported
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_torch import Importer

CASES = ["deepset", "dl1", "gru", "lstm", "two_inputs"]

pytestmark = pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")


def batches(folder: Path) -> list[dict[str, dict[str, np.ndarray]]]:
    """The stored batches: what goes in, what torch gave in float64, what in float32."""
    stored = np.load(folder / "reference.npz")
    count = 1 + max(int(key[0]) for key in stored)
    return [
        {
            kind: {key.partition(":")[2]: stored[key] for key in stored if key.startswith(f"{index}{kind}:")}
            for kind in ("in", "out", "out32")
        }
        for index in range(count)
    ]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("precision", "kind", "tolerance"), [("float32", "out32", ROUGH), ("float64", "out", EXACT)])
def test_answers_as_torch_did(fixtures: Path, case: str, precision: str, kind: str, tolerance: float) -> None:
    engine = session(modelhub.read(fixtures / "torch" / case / "net.pt2"), precision)
    names = [slot.name for slot in engine.get_outputs()]
    for batch in batches(fixtures / "torch" / case):
        got = engine.run(names, {name: x.astype(precision) for name, x in batch["in"].items()})
        assert set(names) == set(batch[kind])
        for name, array in zip(names, got, strict=True):
            close(array, batch[kind][name], tolerance)


def test_shapes_and_names(fixtures: Path) -> None:
    model = modelhub.read(fixtures / "torch/two_inputs/net.pt2")
    shapes = {value.name: [str(d) for d in value.shape] for value in (*model.graph.inputs, *model.graph.outputs)}
    assert shapes == {"jet": ["N", "4"], "tracks": ["N", "T_tracks", "6"], "flavour": ["N", "3"]}
    record = Interface.of(model)
    assert [(i.name, i.sequence, len(i.features)) for i in record.inputs] == [("jet", False, 4), ("tracks", True, 6)]
    assert record.inputs[1].features[5].name == "tracks_5"
    assert record.outputs[0].labels == ("out_0", "out_1", "out_2")
    layers = {node.name.partition("/")[0] for node in model.graph if "/" in node.name}
    assert {"jet", "tracks", "merged", "head"} <= layers


def test_weights_are_the_stored_ones(fixtures: Path) -> None:
    model = modelhub.read(fixtures / "torch/dl1/net.pt2")
    weight = model.graph.initializers["body.1/weight"].const_value.numpy()
    assert weight.shape == (72, 44)
    assert weight.dtype == np.float32
    assert not weight.flags.writeable  # a view of the file's bytes, not a copy


def test_names_of_the_variables_file(fixtures: Path) -> None:
    folder = fixtures / "torch/dl1"
    model = modelhub.read(folder / "net.pt2", interface=folder / "variables.json")
    record = Interface.of(model)
    listed = json.loads((folder / "variables.json").read_text())
    assert [f.name for f in record.inputs[0].features] == [row["name"] for row in listed["inputs"]]
    assert record.outputs[0].labels == ("pb", "pc", "pu")
    assert any(f.default is not None for f in record.inputs[0].features)


def test_steps_of_a_recurrent_layer_are_freed_with_a_notice(fixtures: Path) -> None:
    with pytest.warns(Notice, match="exported for one length of tracks"):
        Importer().read(fixtures / "torch/lstm/net.pt2", ReadOptions())


@pytest.mark.parametrize("case", CASES)
def test_metadata_of_the_exporting_machine_stays_behind(fixtures: Path, case: str) -> None:
    model = modelhub.read(fixtures / "torch" / case / "net.pt2")
    kept = [*model.metadata_props, *(key for node in model.graph for key in node.metadata_props)]
    assert kept == ["modelhub.interface"]


def test_reading_imports_no_framework(fixtures: Path) -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import modelhub\n"
        f"modelhub.read({str(fixtures / 'torch/lstm/net.pt2')!r})\n"
        "bad = {'torch', 'tensorflow', 'keras', 'pickle5'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_format_is_cheap() -> None:
    code = "import sys, modelhub_torch; sys.exit(bool({'torch', 'onnx_ir', 'numpy', 'onnx'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reading_takes_milliseconds(fixtures: Path) -> None:
    from time import process_time

    from modelhub_torch.reader import read

    read(fixtures / "torch/dl1/net.pt2")
    start = process_time()
    for _ in range(5):
        read(fixtures / "torch/dl1/net.pt2")
    assert (process_time() - start) / 5 < 0.1  # some 5 ms on a quiet machine


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("cms_particlenet_AK4_PT_torchscript/model.pt", "TorchScript"),
        ("hls4ml_two_layer_model/two_layer_model.pt", "older than 1.6"),
        ("hls4ml_three_layer_model/three_layer_model.pt", "older than 1.6"),
        ("jetclass_ParticleNet_kin/ParticleNet_kin.pt", "no graph"),
    ],
)
def test_other_torch_files_are_known_and_refused_with_the_way_out(cases: Path, file: str, words: str) -> None:
    path = cases / "real/pytorch" / file
    assert Importer().recognises(path)
    with pytest.raises(Unsupported, match=words) as caught:
        modelhub.read(path)
    assert "torch.export.save" in str(caught.value)
    assert "from_module" in str(caught.value)


def test_foreign_files_are_not_claimed(fixtures: Path, tmp_path: Path) -> None:
    import zipfile

    other = tmp_path / "net.pt2"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    assert not Importer().recognises(other)
    other.write_bytes(b'{"layers": []}')
    assert not Importer().recognises(other)
    other.write_bytes((fixtures / "torch/gru/net.pt2").read_bytes()[:3000])
    assert Importer().recognises(other)  # broken, but by its suffix ours to complain about
