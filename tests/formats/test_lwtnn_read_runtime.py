"""Whose file is this, the plug-in's three doors, and the runtime that answers by the tensors of a record."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modelhub.errors import Inconclusive
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions
from modelhub_lwtnn import Importer, Runtime
from modelhub_lwtnn.reader import read_model

ROOT = Path(__file__).parents[2]


def group(name: str, *variables: str, **numbers) -> dict:
    scaling = {"offset": 0, "scale": 1} | numbers
    return {"name": name, "variables": [{"name": v} | scaling for v in variables]}


def dense(weights: list[float], bias: list[float]) -> dict:
    return {"architecture": "dense", "weights": weights, "bias": bias, "activation": "linear"}


def two_outputs(**scaling) -> dict:
    """x, y of `jet` and the sum over `tracks`: outputs `swap` (y, x) and `total`."""
    return {
        "inputs": [group("jet", "x", "y", **scaling)],
        "input_sequences": [group("tracks", "z")],
        "nodes": [
            {"type": "input", "sources": [0], "size": 2},
            {"type": "input_sequence", "sources": [0], "size": 1},
            {"type": "feed_forward", "sources": [0], "layer_index": 0},
            {"type": "sum", "sources": [1]},
            {"type": "time_distributed", "sources": [1], "layer_index": 1},
        ],
        "layers": [dense([0, 1, 1, 0], []), dense([2], [1])],
        "outputs": {
            "swap": {"labels": ["b", "a"], "node_index": 2},
            "total": {"labels": ["t"], "node_index": 3},
            "each": {"labels": ["e"], "node_index": 4},
        },
    }


@pytest.fixture
def file(tmp_path):
    def write(content: dict | str, name: str = "net.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def engine(path: Path, interface: Interface | None = None):
    return Runtime().load(path, interface or Interface.of(read_model(path)), "float64", ReadOptions())


JET = np.array([[1.0, 2.0], [3.0, 4.0]])
TRACKS = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])


def test_it_answers_by_the_tensors_of_the_record(file):
    run = engine(file(two_outputs()))
    results = run({"jet": JET.astype("float32"), "tracks": TRACKS})
    assert results["swap"].tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert results["total"].tolist() == [[3.0], [7.0]]
    assert results["each_steps"].tolist() == [[[3.0], [5.0]], [[7.0], [9.0]]]
    assert {r.dtype for r in results.values()} == {np.dtype("float64")}
    assert (run.name, run.precision) == ("modelhub lwtnn evaluator", "float64")


def test_it_follows_renamed_tensors(file):
    path = file(two_outputs())
    interface = Interface(
        inputs=(
            Input("t", (Feature("q"),), sequence=True, tensor="T"),
            Input("j", (Feature("p"), Feature("r")), tensor="J"),
        ),
        outputs=(Output("s", ("u", "v")), Output("n", ("w",)), Output("m", ("k",), sequence=True, tensor="M")),
    )
    results = engine(path, interface)({"J": JET, "T": TRACKS})
    assert results["s"].tolist() == [[2.0, 1.0], [4.0, 3.0]]
    assert results["M"].shape == (2, 2, 1)


def test_variables_are_matched_by_name_where_all_are_known(file):
    path = file(two_outputs())
    interface = Interface.of(read_model(path))
    jet, tracks = interface.inputs
    turned = replace(interface, inputs=(tracks, replace(jet, features=jet.features[::-1])))
    results = engine(path, turned)({"jet": JET[:, ::-1], "tracks": TRACKS})
    assert results["swap"].tolist() == [[2.0, 1.0], [4.0, 3.0]]


def test_outputs_and_labels_are_matched_by_name_where_all_are_known(file):
    path = file(two_outputs())
    interface = Interface.of(read_model(path))
    swap, *others = interface.outputs
    turned = replace(interface, outputs=(*others, replace(swap, labels=("a", "b"))))
    results = engine(path, turned)({"jet": JET, "tracks": TRACKS})
    assert results["swap"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert results["total"].tolist() == [[3.0], [7.0]]


def test_the_file_does_its_own_scaling(file):
    path = file(two_outputs(offset=1, scale=10, default=4))
    results = engine(path)({"jet": np.array([[np.nan, 1.0]]), "tracks": TRACKS[:1]})
    assert results["swap"].tolist() == [[20.0, 50.0]]


def test_scaling_that_the_user_adds_to_a_bare_file_is_done(file):
    path = file(two_outputs())
    interface = Interface.of(read_model(path))
    scaled = tuple(replace(f, offset=1.0, scale=10.0, default=4.0) for f in interface.inputs[0].features)
    interface = replace(interface, inputs=(replace(interface.inputs[0], features=scaled), interface.inputs[1]))
    results = engine(path, interface)({"jet": np.array([[np.nan, 1.0]]), "tracks": TRACKS[:1]})
    assert results["swap"].tolist() == [[20.0, 50.0]]


def test_a_sequential_file_answers_whatever_its_output_is_called(file):
    variables = [{"name": n, "offset": 0, "scale": 1} for n in ("x", "y")]
    path = file({"inputs": variables, "layers": [dense([0, 1, 1, 0], [])], "outputs": ["b", "a"]})
    interface = Interface((Input("jets", (Feature("x"), Feature("y"))),), (Output("flavour", ("b", "a")),))
    assert engine(path, interface)({"jets": JET})["flavour"].tolist() == [[2.0, 1.0], [4.0, 3.0]]


def test_a_sequence_output_is_found_under_its_plain_name(file):
    content = two_outputs()
    content["outputs"] = {"each": {"labels": ["e"], "node_index": 4}}
    path = file(content)
    interface = replace(Interface.of(read_model(path)), outputs=(Output("each", ("e",), sequence=True),))
    assert engine(path, interface)({"jet": JET, "tracks": TRACKS})["each"].shape == (2, 2, 1)


def test_one_name_asks_for_the_last_step_or_for_all(file):
    content = two_outputs()
    content["nodes"][4]["type"] = "sequence"
    gate = {"weights": [1], "U": [1], "bias": [0]}
    content["layers"][1] = {"architecture": "simplernn", "activation": "linear", "components": {"h": gate}}
    content["outputs"] = {"memory": {"labels": ["m"], "node_index": 4}}
    path = file(content)
    record = Interface.of(read_model(path))
    given = {"jet": JET, "tracks": TRACKS}
    last = engine(path, replace(record, outputs=(Output("memory", ("m",)),)))(given)["memory"]
    every = engine(path, replace(record, outputs=(Output("memory", ("m",), sequence=True),)))(given)["memory"]
    assert last.tolist() == [[3.0], [7.0]]
    assert every.tolist() == [[[1.0], [3.0]], [[3.0], [7.0]]]


@pytest.mark.parametrize(
    ("interface", "message"),
    [
        (Interface((), ()), "1 scalar inputs, the interface 0"),
        (
            Interface((Input("jet", (Feature("x"),)), Input("tracks", (Feature("z"),), sequence=True)), ()),
            "2 against 1",
        ),
        (
            Interface(
                (Input("jet", (Feature("x"), Feature("y"))), Input("tracks", (Feature("z"),), sequence=True)),
                (Output("other", ("a",)),),
            ),
            "the interface asks for other",
        ),
    ],
)
def test_a_record_that_does_not_fit_is_inconclusive(file, interface, message):
    with pytest.raises(Inconclusive, match=message):
        engine(file(two_outputs()), interface)


def test_float32_is_inconclusive(file):
    path = file(two_outputs())
    with pytest.raises(Inconclusive, match="float64"):
        Runtime().load(path, Interface.of(read_model(path)), "float32", ReadOptions())


def test_arrays_that_do_not_fit_are_inconclusive(file):
    run = engine(file(two_outputs()))
    with pytest.raises(Inconclusive, match="no array"):
        run({"jet": JET})
    with pytest.raises(Inconclusive, match="shape"):
        run({"jet": JET[:, :1], "tracks": TRACKS})


FOREIGN = {
    "keras": '{"class_name": "Model", "config": {"layers": [], "inputs": []}}',
    "keras, sorted": '{"config": {"layers": []}, "keras_version": "2", "layers": 1, "inputs": 2}',
    "xgboost": '{"learner": {"layers": []}, "version": [2, 1, 0]}',
    "interface record": '{"version": 1, "inputs": [], "outputs": []}',
    "variables of a sequential network": '{"inputs": [{"name": "x", "offset": 0, "scale": 1}], "class_labels": ["y"]}',
    "variables of a graph": '{"inputs": [], "input_sequences": [], "outputs": []}',
    "correctionlib": '{"schema_version": 2, "corrections": [{"layers": [], "inputs": []}]}',
    "a list": '[{"layers": [], "inputs": []}]',
    "no JSON": "layers inputs",
    "nothing in it": "{}",
    "a text without end": '{"layers": "' + '\\"' * 100_000,
    "brackets without end": "{" * 3_000_000,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_are_not_claimed(file, name):
    start = time.process_time()
    assert not Importer().recognises(file(FOREIGN[name]))
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    "text", ['{"layers": [], "inputs": 1', '\ufeff {"inputs": [], "n": [{"layers": 1}], "layers"  :']
)
def test_its_own_are_claimed_by_their_keys(file, text):
    assert Importer().recognises(file(text, "net.txt"))


def test_a_large_file_is_recognised_without_being_parsed(file):
    path = file('{"layers": [{"weights": [' + "0.123456789012345678," * 1_000_000 + '1]}], "inputs": []}')
    start = time.process_time()
    assert Importer().recognises(path)
    assert time.process_time() - start < 2


def test_no_case_of_another_format_is_claimed(cases):
    claimed = {p.relative_to(cases).parts for p in cases.rglob("*.json") if Importer().recognises(p)}
    assert claimed
    for parts in claimed:
        assert parts[0] == "lwtnn" or parts[1] == "lwtnn"
        assert "keras" not in parts


def test_importing_the_format_is_cheap():
    code = (
        "import sys, modelhub_lwtnn as m; m.Importer(), m.Exporter(), m.Runtime().installed(); "
        "print([n for n in ('numpy', 'onnx', 'onnx_ir', 'modelhub_lwtnn.parse') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
