"""`modelhub diff`: every seeded fault is found, at the right node or record, with its cause.

The source is an ONNX file under the names that a framework gives its layers, the target the lwtnn file made of it,
with one fault put in by hand.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from modelhub.conversion import convert
from modelhub.data import DataSpec
from modelhub.difference.diff import Diff, diff
from modelhub.difference.render import to_json
from modelhub.errors import UsageError
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions, WriteOptions
from modelhub_onnx import Exporter

JETS = tuple(Feature(f"jet_{i}", offset=0.5 * i, scale=1.5, default=0.25 if i < 3 else None) for i in range(4))
TRACKS = tuple(Feature(f"track_{i}") for i in range(3))
RECORD = Interface(
    (Input("jets", JETS), Input("tracks", TRACKS, sequence=True, min_length=1)),
    (Output("flavour", ("light", "charm", "bottom")),),
)


def network(path: Path) -> None:
    """An LSTM over tracks, joined with jet variables, a square dense layer, and a head, as ONNX in float32."""
    random = np.random.default_rng(3)
    b = Builder()

    def normal(name: str, *shape: int):
        return b.constant((random.normal(size=shape) * 0.6).astype("float32"), name)

    jets, tracks = b.input("jets", ["N", 4]), b.input("tracks", ["N", "T", 3])
    with b.scope("track_lstm"):
        steps = b.op("Transpose", tracks, perm=[1, 0, 2])
        lstm = b.ops(
            "LSTM", steps, normal("W", 1, 8, 3), normal("R", 1, 8, 2), normal("B", 1, 16), outputs=2, hidden_size=2
        )
        last = b.op("Squeeze", lstm[1], b.ints(0))
    with b.scope("join"):
        x = b.op("Concat", jets, last, axis=1)
    with b.scope("square"):
        x = b.op("Relu", b.op("Gemm", x, normal("kernel", 6, 6), normal("bias", 6)))
    with b.scope("head"):
        y = b.op("Softmax", b.op("Gemm", x, normal("kernel", 6, 3), normal("bias", 3)), axis=-1)
    b.output(y, "flavour", ["N", 3])
    model = b.finish()
    bare = tuple(replace(f, offset=0.0, scale=1.0, default=None) for f in JETS)
    Interface((Input("jets", bare), RECORD.inputs[1]), RECORD.outputs).store(model)
    Exporter().write(model, path, WriteOptions())


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("pair")
    network(folder / "net.onnx")
    convert(folder / "net.onnx", folder / "net.json", interface=RECORD, check=False)
    return folder / "net.onnx", json.loads((folder / "net.json").read_text())


@pytest.fixture
def broken(pair, tmp_path):
    """Finds the difference after `change` was made to the lwtnn file."""

    def run(change=lambda network: None) -> Diff:
        source, content = pair
        edited = json.loads(json.dumps(content))
        change(edited)
        (tmp_path / "net.json").write_text(json.dumps(edited))
        return diff(source, tmp_path / "net.json", interface=RECORD)

    return run


def layer(network: dict, architecture: str, index: int = 0) -> dict:
    return [entry for entry in network["layers"] if entry["architecture"] == architecture][index]


def at(found: Diff) -> tuple[str, str]:
    """The layer in the source and the operator in the target."""
    assert found.place is not None
    return found.place.source_layer, found.place.target_node


def test_where_nothing_differs_the_check_decides(broken):
    found = broken()
    assert found.verdict == "equivalent"
    assert found.report.verdict == "equivalent"
    assert (found.place, found.minimal) == (None, None)
    json.dumps(to_json(found), allow_nan=False)


def swap_gates(network: dict) -> None:
    gates = layer(network, "lstm")["components"]
    gates["i"], gates["f"] = gates["f"], gates["i"]


def test_exchanged_gates(broken):
    found = broken(swap_gates)
    assert at(found) == ("track_lstm", "LSTM")
    assert any("gates of the kernel are in another order: forget where input" in cause for cause in found.causes)
    assert any("gates of the recurrent kernel" in cause for cause in found.causes)
    json.dumps(to_json(found), allow_nan=False)


def transpose(network: dict) -> None:
    dense = layer(network, "dense")
    dense["weights"] = np.array(dense["weights"]).reshape(6, 6).T.ravel().tolist()


def test_a_transposed_square_kernel(broken):
    found = broken(transpose)
    assert at(found) == ("square", "Gemm")
    assert "the kernel is transposed" in found.causes
    assert found.place.target_layer == "layers[1]"


def test_a_default_that_was_dropped(broken):
    found = broken(lambda network: network["inputs"][0]["variables"][2].pop("default"))
    assert found.failing == ("missing at length 1",) or all(name.startswith("missing") for name in found.failing)
    assert found.causes == ("the default of variable jet_2 is none in the target, 0.25 in the source",)
    assert any("jet_2" in line for line in found.record)
    (place,) = found.minimal.changed
    assert place == ("jets", (2,))
    assert np.isnan(found.minimal.fails["jets"][2])


def test_labels_that_were_exchanged(broken):
    def exchange(network: dict) -> None:
        labels = network["outputs"]["flavour"]["labels"]
        labels[0], labels[2] = labels[2], labels[0]

    found = broken(exchange)
    assert found.place is None
    assert found.causes == ("labels stand at other places: by position the two models agree",)
    assert any("'light' in the source, 'bottom' in the target" in line for line in found.record)


def test_variables_that_were_exchanged(broken):
    def exchange(network: dict) -> None:
        variables = network["input_sequences"][0]["variables"]
        variables[0]["name"], variables[1]["name"] = variables[1]["name"], variables[0]["name"]

    found = broken(exchange)
    assert found.causes == ("variables stand at other places: by position the two models agree",)
    assert any("track_1" in line for line in found.record)


@pytest.mark.parametrize("what", ["offset", "scale"])
def test_scaling_that_was_changed(broken, what):
    def change(network: dict) -> None:
        network["inputs"][0]["variables"][1][what] += 0.25

    found = broken(change)
    assert any(f"the {what} of variable jet_1 is" in cause for cause in found.causes)


def test_an_activation_that_is_missing(broken):
    found = broken(lambda network: layer(network, "dense").update(activation="linear"))
    assert at(found) == ("square", "Gemm")
    assert found.causes == ("Relu is missing in the target after layers[1]",)


def test_an_activation_that_is_missing_at_the_end(broken):
    found = broken(lambda network: layer(network, "dense", 1).update(activation="linear"))
    assert at(found)[0] == "head"
    assert found.causes == ("Softmax is missing in the target after layers[2]",)


def test_another_activation(broken):
    found = broken(lambda network: layer(network, "dense").update(activation="tanh"))
    assert at(found) == ("square", "Tanh")
    assert found.causes == ("the target computes Tanh where the source computes Relu",)


def test_a_bias_that_is_missing(broken):
    found = broken(lambda network: layer(network, "dense").update(bias=[]))
    assert at(found) == ("square", "Gemm")
    assert found.causes == ("the bias is missing in the target",)


def test_one_number(broken):
    def change(network: dict) -> None:
        layer(network, "dense", 1)["weights"][8] *= 1.0001

    found = broken(change)
    assert at(found) == ("head", "Gemm")
    (cause,) = found.causes
    assert cause.startswith("kernel[2][1] is ")


@pytest.mark.parametrize(("spelling", "told"), [(".5g", "printed with 5 digits"), (".3g", "printed with 3 digits")])
def test_numbers_printed_with_few_digits(broken, spelling, told):
    def change(network: dict) -> None:
        dense = layer(network, "dense")
        dense["weights"] = [float(format(w, spelling)) for w in dense["weights"]]

    found = broken(change)
    assert at(found) == ("square", "Gemm")
    assert found.causes == (f"the kernel was {told}",)


def test_numbers_in_half_precision(broken):
    def change(network: dict) -> None:
        dense = layer(network, "dense")
        dense["weights"] = np.array(dense["weights"]).astype("float16").astype(float).tolist()

    assert broken(change).causes == ("the kernel was rounded to float16",)


def test_sources_of_a_concatenation_that_were_exchanged(broken):
    def change(network: dict) -> None:
        node = next(node for node in network["nodes"] if node["type"] == "concatenate")
        node["sources"].reverse()

    found = broken(change)
    assert at(found) == ("join", "Concat")
    assert any("inputs of Concat are exchanged" in cause for cause in found.causes)


def test_the_first_of_two_faults_is_the_one_told(broken):
    def change(network: dict) -> None:
        layer(network, "dense", 1)["bias"][0] += 1
        swap_gates(network)

    assert at(broken(change)) == ("track_lstm", "LSTM")


TMVA = Path(__file__).parents[2] / "fixtures" / "tmva" / "grad" / "model.weights.xml"


def move_a_threshold(path: Path) -> tuple[str, float, float]:
    """Moves one threshold of a forest in lwtnn by a float32 ulp: the variable, the threshold before and after."""
    network = json.loads(path.read_text())
    dense = next(entry for entry in network["layers"] if max(map(abs, entry["weights"])) > 1e50)
    kernel = np.array(dense["weights"]).reshape(len(dense["bias"]), -1)
    row = len(kernel) // 2
    (column,) = np.flatnonzero(kernel[row])
    before = float(-dense["bias"][row] / kernel[row, column])
    after = before + float(np.spacing(np.float32(before)))
    dense["bias"][row] = -after * kernel[row, column]
    path.write_text(json.dumps(network))
    inputs = network["inputs"]
    variables = inputs[0].get("variables", inputs)
    return variables[column]["name"], before, after


def test_a_threshold_moved_by_an_ulp(tmp_path):
    convert(TMVA, tmp_path / "net.json", check=False)
    name, before, after = move_a_threshold(tmp_path / "net.json")
    found = diff(TMVA, tmp_path / "net.json")
    assert found.failing == ("threshold",)
    assert f"{name} is compared with {after!r}" in found.causes[0]
    assert at(found) == ("grad", "Gemm")
    turning = [sorted((bad, good)) for _, bad, good in found.minimal.edges]
    assert any(low < before < high or low < after < high for low, high in turning)
    for low, high in turning:
        assert np.nextafter(np.float32(low), np.float32(np.inf)) == np.float32(high)


def test_the_folder_shows_the_difference_without_modelhub(broken, pair, tmp_path):
    target = tmp_path / "net.json"
    broken(transpose)
    folder = tmp_path / "repro"
    command = [sys.executable, "-m", "modelhub", "diff", str(pair[0]), str(target), "--repro", str(folder)]
    done = subprocess.run([*command, "--interface", str(record_file(tmp_path))], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "the kernel is transposed" in done.stderr
    assert {p.name for p in folder.iterdir()} == {
        "net.onnx", "net.json", "graph_of_source.onnx", "graph_of_target.onnx", "input.npz", "repro.py",
        "answers.txt",
    }  # fmt: skip
    assert "modelhub" not in (folder / "repro.py").read_text().split('"""')[2]
    assert len((folder / "repro.py").read_text().splitlines()) <= 15
    shown = subprocess.run([sys.executable, "repro.py"], cwd=folder, capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    source, other = (np.array(json.loads(line.split(" ", 2)[2])) for line in shown.stdout.splitlines())
    assert np.abs(source - other).max() > 1e-3
    again = subprocess.run([*command, "--interface", str(tmp_path / "record.json")], capture_output=True, text=True)
    assert again.returncode == UsageError.exit_code


def record_file(folder: Path) -> Path:
    (folder / "record.json").write_text(json.dumps(RECORD.to_json()))
    return folder / "record.json"


def test_json_on_stdout_and_exit_code_0_where_nothing_differs(pair, tmp_path):
    (tmp_path / "net.json").write_text(json.dumps(pair[1]))
    command = [sys.executable, "-m", "modelhub", "diff", str(pair[0]), str(tmp_path / "net.json"), "--json"]
    done = subprocess.run([*command, "--interface", str(record_file(tmp_path))], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "equivalent"


def test_real_events_show_the_difference_and_are_what_it_is_made_smaller_towards(pair, tmp_path):
    random = np.random.default_rng(5)
    jets = np.zeros(300, dtype=[(f.name, "f4") for f in JETS])
    tracks = np.zeros((300, 6), dtype=[*((f.name, "f4") for f in TRACKS), ("valid", "?")])
    for name in jets.dtype.names:
        jets[name] = random.normal(size=300) + 40
    for name in tracks.dtype.names[:-1]:
        tracks[name] = random.normal(size=(300, 6))
    tracks["valid"] = np.arange(6) < random.integers(1, 6, size=(300, 1))
    with h5py.File(tmp_path / "jets.h5", "w") as file:
        file["jets"], file["tracks"] = jets, tracks
    content = json.loads(json.dumps(pair[1]))
    transpose(content)
    (tmp_path / "net.json").write_text(json.dumps(content))
    found = diff(pair[0], tmp_path / "net.json", interface=RECORD, data=DataSpec.parse(f"{tmp_path}/jets.h5"))
    assert any(name.startswith("data") for name in found.failing)
    assert at(found) == ("square", "Gemm")
    assert 35 < found.minimal.fails["jets"].mean() < 45 or found.minimal.passes is None


def test_a_keras_file_is_named_by_its_own_layers(tmp_path):
    keras = TMVA.parents[2] / "keras" / "deep_set"
    options = ReadOptions(weights=keras / "model.weights.h5")
    convert(keras / "architecture.json", tmp_path / "net.json", read_options=options, check=False)
    content = json.loads((tmp_path / "net.json").read_text())
    layer(content, "dense", 1)["bias"][0] += 1e-3
    (tmp_path / "net.json").write_text(json.dumps(content))
    found = diff(keras / "architecture.json", tmp_path / "net.json", options=options)
    assert at(found) == ("each/dense_3", "Add")
    assert found.causes[0].startswith("layers[1].bias[0] is ")
    graphs = {engine: values for engine, _, values in found.answers if "graph" in engine}
    assert len(graphs) == 2
