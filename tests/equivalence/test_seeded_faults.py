"""A conversion from Keras or of trees to lwtnn, damaged by hand: each fault is found, and told by the right name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forest_rows import interface
from test_tree_probes import random_forest

import modelhub
from modelhub.equivalence.report import Report
from modelhub.graph.forest_onnx import to_graph
from modelhub.protocols import WriteOptions

RECORD = {
    "version": 1,
    "inputs": [
        {
            "name": "tracks",
            "sequence": True,
            "features": [{"name": name, "offset": 0.1, "scale": 2.0} for name in ("d0", "z0", "phi")],
        },
        {
            "name": "jet",
            "features": [
                {"name": name, "offset": -0.5, "scale": 0.5, "default": -1.0} for name in ("pt", "eta", "mass", "n")
            ],
        },
    ],
    "outputs": [{"name": "flavour", "labels": ["pu", "pc", "pb"]}],
}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.keras, its record.json, and net.json written from it."""
    keras = pytest.importorskip("keras")
    layers = keras.layers
    tracks, jet = keras.Input((None, 3), name="tracks"), keras.Input((4,), name="jet")
    x = layers.Concatenate(name="join")([layers.LSTM(5, name="lstm")(tracks), jet])
    x = layers.Dense(9, activation="relu", name="trunk")(x)  # a square kernel
    net = keras.Model([tracks, jet], layers.Dense(3, activation="softmax", name="flavour")(x))
    rng = np.random.default_rng(5)
    net.set_weights([rng.normal(size=w.shape) / 2 for w in net.weights])
    folder = tmp_path_factory.mktemp("tagger")
    net.save(folder / "net.keras")
    (folder / "record.json").write_text(json.dumps(RECORD))
    report = modelhub.convert(folder / "net.keras", folder / "net.json", interface=folder / "record.json")
    assert report is not None
    assert report.verdict == "equivalent"
    return folder


def check(folder: Path, fault: Callable[[dict[str, Any]], None]) -> Report:
    document = json.loads((folder / "net.json").read_text())
    fault(document)
    (folder / "bad.json").write_text(json.dumps(document))
    return modelhub.check(folder / "net.keras", folder / "bad.json", interface=folder / "record.json")


def failing(report: Report) -> set[tuple[str, str]]:
    return {leg.between for leg in report.legs if leg.verdict == "different"}


TARGET_IS_OFF = {("source", "target"), ("graph", "target")}
"""Source and graph agree: it is the target that is off."""


def test_exchanged_gates_of_an_lstm(tagger: Path) -> None:
    def fault(net: dict[str, Any]) -> None:
        gates = next(layer["components"] for layer in net["layers"] if layer["architecture"] == "lstm")
        gates["i"], gates["f"] = gates["f"], gates["i"]

    report = check(tagger, fault)
    assert report.verdict == "different"
    assert failing(report) == TARGET_IS_OFF
    assert all(line.startswith(("layers[0].components", "and ")) for line in report.parameters)


def test_a_transposed_kernel(tagger: Path) -> None:
    def fault(net: dict[str, Any]) -> None:
        layer = net["layers"][1]
        layer["weights"] = np.reshape(layer["weights"], (9, 9)).T.ravel().tolist()

    report = check(tagger, fault)
    assert report.verdict == "different"
    assert failing(report) == TARGET_IS_OFF
    assert all(line.startswith(("layers[1].weights", "and ")) for line in report.parameters)


def test_a_dropped_default(tagger: Path) -> None:
    def fault(net: dict[str, Any]) -> None:
        del net["inputs"][0]["variables"][2]["default"]

    report = check(tagger, fault)
    assert report.verdict == "different"
    assert {r.kind for leg in report.legs for r in leg.results if r.worst.excessive} == {"missing"}
    assert report.record == ["input 'jet', variable 'mass': default -1.0 in the source, none in the target"]


def test_exchanged_labels(tagger: Path) -> None:
    def fault(net: dict[str, Any]) -> None:
        labels = net["outputs"]["flavour"]["labels"]
        labels[0], labels[1] = labels[1], labels[0]

    report = check(tagger, fault)
    assert report.verdict == "different"
    assert report.record[0] == "output 'flavour', label 0: 'pu' in the source, 'pc' in the target"


def test_a_threshold_moved_by_one_float(tmp_path: Path) -> None:
    forest = random_forest(3, routed=False, trees=10, dtype="float32")
    source, target = tmp_path / "forest.onnx", tmp_path / "forest.json"
    modelhub.write(to_graph(forest, interface(forest)), source, options=WriteOptions(precision="float64"))
    assert modelhub.convert(source, target).verdict in ("identical", "equivalent")
    net = json.loads(target.read_text())
    layer = next(layer for layer in net["layers"] if layer["activation"] == "hard_sigmoid")
    steep = max(map(abs, layer["weights"]))
    root = float(forest.threshold[forest.roots[0]])
    unit = int(np.argmin(np.abs(-np.array(layer["bias"]) / steep - root)))  # rows do get to a root
    next_but_one = float(np.nextafter(np.nextafter(np.float32(root), np.float32(9)), np.float32(9)))
    assert 0 < abs(-layer["bias"][unit] / steep - root) < abs(next_but_one - root)
    layer["bias"][unit] = -next_but_one * steep
    target.write_text(json.dumps(net))
    report = modelhub.check(source, target)
    assert report.verdict == "different"
    assert {r.kind for leg in report.legs for r in leg.results if r.worst.excessive} == {"threshold"}
    place = net["layers"].index(layer)
    assert report.parameters == [line for line in report.parameters if f"layers[{place}].bias[{unit}]" in line]
    assert len(report.parameters) == 1
