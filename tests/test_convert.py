"""The main job from end to end, as a user types it: convert, check, and be told what went wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import modelhub
from modelhub.equivalence.report import Report
from modelhub.protocols import WriteOptions

NETS = ["dl1", "lstm", "deepset", "two_inputs"]


def largest(report: Report, *between: str) -> float:
    legs = [leg for leg in report.legs if leg.between == between and leg.precision == "float64"]
    assert legs
    assert all(leg.results for leg in legs)
    return max(r.worst.largest / max(1.0, abs(r.worst.a)) for leg in legs for r in leg.results)


@pytest.mark.parametrize("net", NETS)
def test_torch_to_lwtnn_is_exact(fixtures: Path, tmp_path: Path, net: str) -> None:
    pytest.importorskip("torch")
    report = modelhub.convert(fixtures / "torch" / net / "net.pt2", tmp_path / "net.json")
    assert report is not None
    assert report.verdict == "equivalent"
    assert largest(report, "source", "target") <= 1e-12


@pytest.mark.parametrize("net", [*NETS, "gru"])
def test_torch_to_onnx(fixtures: Path, tmp_path: Path, net: str) -> None:
    pytest.importorskip("torch")
    report = modelhub.convert(fixtures / "torch" / net / "net.pt2", tmp_path / "net.onnx")
    assert report is not None
    assert report.verdict == "equivalent"
    assert largest(report, "source", "graph") <= 1e-12


@pytest.mark.parametrize("net", NETS)
def test_the_json_is_short_and_strict(fixtures: Path, tmp_path: Path, net: str) -> None:
    modelhub.convert(fixtures / "torch" / net / "net.pt2", tmp_path / "net.json", check=False)
    text = (tmp_path / "net.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    data = json.loads(text)
    for node in data["nodes"]:
        assert all(type(node[key]) is int for key in ("size", "layer_index") if key in node)
        assert all(type(source) is int for source in node["sources"])
    numbers = re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)
    assert len(numbers) > 100
    assert all(json.dumps(float(number)) == number for number in numbers)


def test_names_and_scales_travel(fixtures: Path, tmp_path: Path) -> None:
    folder = fixtures / "torch" / "dl1"
    given = json.loads((folder / "variables.json").read_text())
    variables = given["inputs"][0]["variables"] if "variables" in given["inputs"][0] else given["inputs"]
    for target in ("net.json", "net.onnx"):
        modelhub.convert(folder / "net.pt2", tmp_path / target, interface=folder / "variables.json", check=False)
    written = json.loads((tmp_path / "net.json").read_text())["inputs"][0]["variables"]
    assert [v["name"] for v in written] == [v["name"] for v in variables]
    for key in ("offset", "scale", "default"):
        assert [v.get(key) for v in written] == [v.get(key) for v in variables]
    found = modelhub.inspect(tmp_path / "net.onnx").interface
    assert [f.name for f in found.inputs[0].features] == [v["name"] for v in variables]
    assert [f.offset for f in found.inputs[0].features] == [v["offset"] for v in variables]
    assert {row.operator for row in modelhub.inspect(tmp_path / "net.onnx").layers} >= {"Add", "Mul"}


def test_a_changed_weight_is_found_and_named(fixtures: Path, tmp_path: Path, modelhub) -> None:
    pytest.importorskip("torch")
    source = fixtures / "torch" / "dl1" / "net.pt2"
    assert modelhub("convert", "--from", "torch", "--to", "json", source, "-o", "net.json").returncode == 0
    data = json.loads((tmp_path / "net.json").read_text())
    dense = next(i for i, layer in enumerate(data["layers"]) if layer["architecture"] == "dense")
    place = int(np.argmax(np.abs(data["layers"][dense]["weights"])))
    data["layers"][dense]["weights"][place] *= 1 + 1e-4
    (tmp_path / "copy.json").write_text(json.dumps(data))
    done = modelhub("check", source, "copy.json", "--json")
    assert done.returncode == 1
    where = json.loads(done.stdout)["parameters"]
    assert len(where) == 1
    assert where[0].startswith(f"layers[{dense}].weights[")
    assert modelhub("check", source, "net.json").returncode == 0


def test_a_gru_is_refused_and_nothing_is_written(fixtures: Path, tmp_path: Path, modelhub) -> None:
    done = modelhub(
        "convert", "--from", "torch", "--to", "json", fixtures / "torch" / "gru" / "net.pt2", "-o", "net.json"
    )
    assert done.returncode == 4
    assert "resets after the recurrent product; lwtnn resets before it" in done.stderr
    assert done.stderr.startswith(("error: net.pt2 cannot be written", "note: "))
    assert not list(tmp_path.iterdir())


HIDE = """
import importlib.machinery as machinery
real = machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.split(".")[0] in {"torch", "keras", "tensorflow", "tf_keras"} else real(name, path, target)
machinery.PathFinder.find_spec = staticmethod(find_spec)
"""


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine without the training frameworks."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(HIDE)
    return {"PYTHONPATH": str(folder)}


def test_without_the_framework(fixtures: Path, tmp_path: Path, modelhub, bare: dict[str, str]) -> None:
    source = fixtures / "torch" / "dl1" / "net.pt2"
    done = modelhub("convert", source, "-o", "net.json", env=bare)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.json").exists()
    assert 'pip install "modelhub-hep[torch]"' in done.stderr.splitlines()[-1]
    assert modelhub("check", source, "net.json", env=bare).returncode == 6
    required = modelhub("convert", source, "-o", "other.json", "--require-check", env=bare)
    assert required.returncode == 6
    assert not (tmp_path / "other.json").exists()


@pytest.mark.parametrize("target", ["net.json", "net.onnx"])
def test_reading_imports_no_framework(fixtures: Path, tmp_path: Path, target: str) -> None:
    sources = [*sorted(fixtures.glob("torch/*/net.pt2")), *sorted(fixtures.glob("keras/*/*.keras"))]
    assert sources
    script = (
        "import sys, modelhub\n"
        "from modelhub.errors import Unsupported\n"
        "for source in sys.argv[2:]:\n"
        "    try: modelhub.convert(source, sys.argv[1], check=False)\n"
        "    except Unsupported: pass\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    args = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / target), *map(str, sources)]
    loaded = subprocess.run(args, capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {"torch", "tensorflow", "keras", "tf_keras", "sklearn"}


@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".keras", ".h5", ".json", ".onnx", ".txt"])
@pytest.mark.parametrize("kind", ["empty", "text", "zip", "zeros"])
def test_what_is_no_model(tmp_path: Path, modelhub, suffix: str, kind: str) -> None:
    """One clear line, the right exit code, no traceback, nothing left behind."""
    content = {"empty": b"", "text": b"Dear reader,\n", "zip": b"PK\x03\x04" + b"\0" * 40, "zeros": bytes(4096)}[kind]
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    done = modelhub("convert", path, "-o", "out.onnx")
    assert done.returncode in (3, 5)
    assert done.returncode == 5 or kind != "empty"
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert path.name in done.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_usage_errors(tmp_path: Path, fixtures: Path, modelhub) -> None:
    source = fixtures / "torch" / "dl1" / "net.pt2"
    for args, code in (
        (["convert", source], 2),
        (["convert", source, "--to", "nonsense"], 2),
        (["convert", source, "--from", "nonsense", "-o", "a.onnx"], 2),
        (["convert", source, "-o", "a.xyz"], 2),
        (["convert", source, "-o", "no/such/folder/a.onnx"], 2),
        (["convert", "absent.pt2", "-o", "a.onnx"], 5),
        (["convert", source, "-o", "a.onnx", "--interface", "absent.json"], 5),
        (["nonsense"], 2),
    ):
        done = modelhub(*args)
        assert done.returncode == code, (args, done.stderr)
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_source_is_never_overwritten(fixtures: Path, tmp_path: Path, modelhub) -> None:
    net = tmp_path / "net.onnx"
    modelhub_net = modelhub("convert", fixtures / "torch" / "dl1" / "net.pt2", "-o", net, "--no-check")
    assert modelhub_net.returncode == 0
    before = net.read_bytes()
    assert modelhub("convert", net, "-o", net).returncode == 2
    assert net.read_bytes() == before


def test_sequential_on_request(fixtures: Path, tmp_path: Path) -> None:
    model = modelhub.read(fixtures / "torch" / "dl1" / "net.pt2")
    modelhub.write(model, tmp_path / "net.json", options=WriteOptions(form="sequential"))
    assert set(json.loads((tmp_path / "net.json").read_text())) >= {"inputs", "layers", "outputs"}
    assert "nodes" not in json.loads((tmp_path / "net.json").read_text())


class TestCases:
    """Networks of lwtnn's own examples, with what the C++ engine answers in float64."""

    NAMES = (
        "batchnorm",
        "conv1d",
        "dense_dropout",
        "elu",
        "example_sequential",
        "gru_sequence",
        "highway",
        "lstm",
        "merge_graph",
    )

    @pytest.mark.parametrize("name", NAMES)
    def test_lwtnn_to_onnx(self, cases: Path, tmp_path: Path, name: str) -> None:
        report = modelhub.convert(cases / "lwtnn" / name / "lwtnn" / "model.json", tmp_path / "net.onnx")
        assert report is not None
        assert report.verdict == "equivalent"
        assert largest(report, "source", "graph") <= 1e-12
