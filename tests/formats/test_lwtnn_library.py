"""lwtnn itself as an engine: found, compiled against, asked, and told apart from our evaluator.

What needs the C++ library skips where ``LWTNN_PREFIX`` and ``lwtnn-config`` tell of none.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import numpy as np
import pytest

from modelhub.conversion import convert, read
from modelhub.equivalence.check import check
from modelhub.equivalence.report import schema
from modelhub.errors import Inconclusive, Notice
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub.reports.junit import junit
from modelhub.reports.view import Outcome, View
from modelhub_lwtnn import Library, Runtime, library, process
from modelhub_lwtnn.engine import evaluate
from modelhub_lwtnn.parse import parse
from modelhub_lwtnn.process import Process
from modelhub_lwtnn.wiring import Answer, as_graph

NETWORKS = Path(__file__).parents[2] / "fixtures" / "lwtnn" / "engine" / "networks.jsonl"


@pytest.fixture(scope="module")
def driver() -> Path:
    prefix = library.mentioned()
    if prefix is None:
        pytest.skip("lwtnn is not installed: set LWTNN_PREFIX")
    return library.driver(library.find(prefix))


def shaped(groups, values, *steps: int) -> list[np.ndarray]:
    pairs = zip(values, groups, strict=True)
    return [np.array(v, dtype=float).reshape(len(v), *steps, len(g.variables)) for v, g in pairs]


def test_it_answers_to_the_bit_what_is_shipped_and_the_evaluator_to_rounding(driver, tmp_path):
    """The shipped answers were made by an older driver of another protocol."""
    path = tmp_path / "net.json"
    for line in NETWORKS.read_text().splitlines():
        case = json.loads(line)
        path.write_text(json.dumps(case["network"]))
        network = parse(case["network"], case["name"])
        graph = as_graph(network)
        wanted = [(key.rsplit(" ", 1)[0], key.endswith("scan")) for key in case["asked"][0]["answers"]]
        outputs = [graph.outputs[name] for name, _ in wanted]
        asked = [Answer("", o.labels, o.node, sequence=s) for o, (_, s) in zip(outputs, wanted, strict=True)]
        ask = Process(driver, network, path, wanted)
        for question in case["asked"]:
            steps = [len(question["input_sequences"][0][0])] if question["input_sequences"] else []
            vectors = shaped(graph.inputs, question["inputs"])
            sequences = shaped(graph.input_sequences, question["input_sequences"], *steps)
            given = ask(vectors, sequences)
            ours = evaluate(graph, vectors, sequences, asked)
            for a, b, (_, scan), told in zip(given, ours, wanted, question["answers"].values(), strict=True):
                expected = np.array(told, dtype=float).reshape(len(a), *(a.shape[:0:-1] if scan else a.shape[1:]))
                assert np.array_equal(a, expected.transpose(0, 2, 1) if scan else expected), case["name"]
                assert np.abs(a - b).max(initial=0) <= 1e-13 * max(1, np.abs(a).max(initial=0))


def dense(**variable) -> dict:
    layer = {"architecture": "dense", "weights": [2], "bias": [1], "activation": "linear"}
    variables = [{"name": "x", "offset": 1, "scale": 10} | variable]
    return {"inputs": variables, "layers": [layer], "outputs": ["y"]}


def engine(path: Path, content: dict, door=Library):
    path.write_text(json.dumps(content))
    return door().load(path, Interface.of(read(path, format="lwtnn")), "float64", ReadOptions())


def test_each_engine_has_its_own_name(driver, tmp_path):
    real, stand_in = (engine(tmp_path / "net.json", dense(), door) for door in (Library, Runtime))
    assert (real.name, real.version) == ("lwtnn", library.find(library.mentioned()).version)
    assert stand_in.name == "modelhub lwtnn evaluator"


def test_the_default_stands_in_for_nan_before_offset_and_scale(driver, tmp_path):
    real = engine(tmp_path / "net.json", dense(default=4))
    x = np.array([[np.nan], [1.0]])
    assert real({"inputs": x})["outputs"].tolist() == [[101.0], [41.0]]
    bare = engine(tmp_path / "net.json", dense())
    assert np.isnan(bare({"inputs": x})["outputs"][0, 0])


def test_all_batches_go_to_one_process_that_ends_with_the_engine(driver, tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(dense()))
    ask = Process(driver, parse(dense(), "net"), path, [("outputs", False)])
    assert [ask([np.full((n, 1), 1.0)], [])[0].shape for n in (1, 7, 0, 1000)] == [(1, 1), (7, 1), (0, 1), (1000, 1)]
    running = ask._running
    del ask
    assert running.poll() is not None


def test_after_a_crash_it_is_told_and_started_anew(driver, tmp_path):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(dense()))
    ask = Process(driver, parse(dense(), "net"), path, [("outputs", False)])
    x = np.ones((200_000, 1))
    ask([x], [])
    os.kill(ask._running.pid, signal.SIGSEGV)
    with pytest.raises(Inconclusive, match=r"lwtnn crashed \(SIGSEGV\)"):
        ask([x], [])
    assert ask([x], [])[0][0, 0] == 41


def test_what_lwtnn_says_is_told(driver, tmp_path):
    path = tmp_path / "net.json"
    path.write_text('{"inputs": [], "layers": []}')
    with pytest.raises(Inconclusive, match=r"lwtnn refuses: .*outputs"):
        Process(driver, parse(dense(), "net"), path, [("outputs", False)])([np.ones((1, 1))], [])


def test_it_has_limits_of_time_and_memory(driver, tmp_path, monkeypatch):
    doubling = [{"type": "add", "sources": [i, i]} for i in range(60)]  # lwtnn computes a node for every consumer
    network = {
        "inputs": [{"name": "g", "variables": [{"name": "x", "offset": 0, "scale": 1}]}],
        "input_sequences": [],
        "nodes": [{"type": "input", "sources": [0], "size": 1}, *doubling],
        "layers": [],
        "outputs": {"o": {"labels": ["a"], "node_index": 60}},
    }
    path = tmp_path / "net.json"
    path.write_text(json.dumps(network))
    monkeypatch.setattr(process, "START", 0.5)
    with pytest.raises(Inconclusive, match="gave no answer within"):
        Process(driver, parse(network, "net"), path, [("o", False)])([np.ones((1, 1))], [])
    monkeypatch.setattr(process, "MEMORY", 200 << 20)
    path.write_text(json.dumps(dense()))
    with pytest.raises(Inconclusive, match="lwtnn refuses: out of memory"):
        Process(driver, parse(dense(), "net"), path, [("outputs", False)])([np.ones((40 << 20, 1))], [])


def test_an_empty_sequence_is_refused_where_lwtnn_crashes(driver, tmp_path):
    gate = {"weights": [1], "U": [1], "bias": [0]}
    memory = {"architecture": "simplernn", "activation": "tanh", "components": {"h": gate}}
    rnn = dense() | {"layers": [memory, *dense()["layers"]]}
    real = engine(tmp_path / "net.json", rnn)
    assert real({"inputs": np.zeros((2, 3, 1))})["outputs"].shape == (2, 1)
    with pytest.raises(Inconclusive, match="empty sequence"):
        real({"inputs": np.zeros((2, 0, 1))})
    with pytest.raises(Inconclusive, match="last step only"):  # our record asks for every step as well
        engine(tmp_path / "net.json", rnn | {"layers": [memory]})


def test_the_driver_is_compiled_once_and_anew_for_another_compiler(driver, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = library.find(library.mentioned())
    build = library.driver.__wrapped__
    first = build(found)
    made = first.stat().st_mtime_ns
    assert first.is_relative_to(tmp_path / "modelhub" / "lwtnn")
    assert [p.name for p in first.parent.iterdir()] == ["driver"]
    assert build(found) == first
    assert first.stat().st_mtime_ns == made
    monkeypatch.setenv("CXX", "c++ -O1")
    assert build(found) != first


@pytest.mark.parametrize(("compiler", "told"), [("/no/such/compiler", "No such file"), ("false", "without a word")])
def test_a_missing_compiler_is_told(compiler, told, driver, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    with pytest.raises(Inconclusive, match=f"cannot be compiled: .*{told}"):
        library.driver.__wrapped__(library.find(library.mentioned()))


def test_a_prefix_without_lwtnn_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("LWTNN_PREFIX", str(tmp_path))
    assert Library().installed()
    with pytest.raises(Inconclusive, match=r"no lwtnn in .* where LWTNN_PREFIX"):
        engine(tmp_path / "net.json", dense())


def test_without_a_word_about_it_lwtnn_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.delenv("LWTNN_PREFIX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not Library().installed()
    with pytest.raises(Inconclusive, match="not installed"):
        engine(tmp_path / "net.json", dense())


def test_lwtnn_config_on_the_path_tells_the_prefix(tmp_path, monkeypatch):
    script = tmp_path / "bin" / "lwtnn-config"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.delenv("LWTNN_PREFIX", raising=False)
    monkeypatch.setenv("PATH", str(script.parent))
    assert library.mentioned() == tmp_path


def pair(tmp_path) -> tuple[Path, Path]:
    """An lwtnn file, and one of ONNX made of it."""
    path = tmp_path / "net.json"
    path.write_text(json.dumps(dense(default=4)))
    convert(path, tmp_path / "net.onnx", check=False)
    return tmp_path / "net.onnx", path


def test_the_check_runs_both_engines_and_names_them(driver, tmp_path):
    report = check(*pair(tmp_path))
    assert report.verdict in ("identical", "equivalent")
    engines = {leg.engine for leg in report.legs if leg.between == ("source", "target")}
    assert engines == {"lwtnn", "modelhub lwtnn evaluator"}
    told = next(party.engines for party in report.parties if party.role == "target")
    assert [name.rsplit(" ", 2)[0] for name in told] == ["lwtnn", "modelhub lwtnn evaluator"]
    jsonschema.validate(report.to_json(), schema())


def test_where_lwtnn_fails_the_check_is_inconclusive_whatever_the_evaluator_says(driver, tmp_path, monkeypatch):
    files = pair(tmp_path)
    monkeypatch.setattr(process, "START", 0.0)
    monkeypatch.setattr(process, "EVENT", 0.0)
    report = check(*files)
    assert report.verdict == "inconclusive"
    assert any(re.search(r"lwtnn gave no answer within .*\(probe \w+, \d+ events\)", r) for r in report.missing)
    view = View(report.to_json(), "the report")
    names = [case.get("name") for case in ET.fromstring(junit([Outcome("pair", view)])).iter("testcase")]
    assert len(set(names)) == len(names)
    assert "source-target, lwtnn, float32" in names


def test_an_lwtnn_that_is_not_where_it_is_said_to_be_is_told(tmp_path, monkeypatch):
    files = pair(tmp_path)
    monkeypatch.setenv("LWTNN_PREFIX", str(tmp_path / "nowhere"))
    with pytest.warns(Notice, match="there is no lwtnn in"):
        report = check(*files)
    assert {leg.engine for leg in report.legs}.isdisjoint({"lwtnn", "modelhub lwtnn evaluator"})
