"""lwtnn files read and written again: the second file answers what the real engine answered to the first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_lwtnn_engine import CASES, TOLERANCE, case_answers, case_inputs, difference, expected, shipped

from modelhub.errors import Unsupported
from modelhub.graph.canonical import canonical
from modelhub.protocols import WriteOptions
from modelhub_lwtnn import parse
from modelhub_lwtnn.engine import evaluate
from modelhub_lwtnn.reader import to_graph
from modelhub_lwtnn.schema import GraphNetwork, Network
from modelhub_lwtnn.wiring import Answer, answers, as_graph
from modelhub_lwtnn.writer import write

pytestmark = pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")


def again(network: Network, path: Path, form: str = "graph") -> GraphNetwork:
    """`network` after a trip through the common graph and a file."""
    write(canonical(to_graph(network)), path, WriteOptions(form=form))
    return as_graph(parse.read(path))


def asked(graph: GraphNetwork, answer: Answer) -> Answer:
    """The same question to another file of the same network."""
    name = f"{answer.name}_steps" if answer.sequence else answer.name
    return next(a for a in answers(graph) if (a.name, a.sequence) == (name, answer.sequence))


@pytest.mark.parametrize("name", CASES)
def test_real_cases(cases: Path, name: str, tmp_path) -> None:
    network = parse.read(cases / "lwtnn" / name / "lwtnn" / "model.json")
    first, second = as_graph(network), again(network, tmp_path / "net.json")
    vectors, sequences = case_inputs(first, json.loads((cases / "lwtnn" / name / "inputs.jsonl").read_text()))
    theirs = case_answers(first, json.loads((cases / "lwtnn" / name / "engine_output.jsonl").read_text()))
    wanted = [asked(second, answer) for answer in theirs]
    for values, ours in zip(theirs.values(), evaluate(second, vectors, sequences, wanted), strict=True):
        assert difference(ours, values) <= TOLERANCE
    assert len(second.layers) == len(first.layers)
    told = [group.variables for group in (*first.inputs, *first.input_sequences)]
    assert [group.variables for group in (*second.inputs, *second.input_sequences)] == told


@pytest.mark.parametrize("name", ["batchnorm", "example_sequential", "highway"])
def test_real_cases_of_the_sequential_form(cases: Path, name: str, tmp_path) -> None:
    network = parse.read(cases / "lwtnn" / name / "lwtnn" / "model.json")
    first, second = as_graph(network), again(network, tmp_path / "net.json", "sequential")
    vectors, _ = case_inputs(first, json.loads((cases / "lwtnn" / name / "inputs.jsonl").read_text()))
    theirs = case_answers(first, json.loads((cases / "lwtnn" / name / "engine_output.jsonl").read_text()))
    for values, ours in zip(theirs.values(), evaluate(second, vectors, [], answers(second)), strict=True):
        assert difference(ours, values) <= TOLERANCE


@pytest.mark.parametrize("case", shipped(), ids=lambda case: case["name"])
def test_networks_the_real_engine_answered(case: dict, tmp_path) -> None:
    network = parse.parse(case["network"], case["name"])
    first = as_graph(network)
    try:
        second = again(network, tmp_path / "net.json")
    except Unsupported as refused:
        reasons = [reason.split(":", 1)[1].strip() for reason in refused.reasons]
        assert all(reason.startswith(KNOWN) for reason in reasons), reasons
        return
    for question in case["asked"]:
        steps = len(question["input_sequences"][0][0]) if question["input_sequences"] else -1
        vectors = [np.array(v) for v in question["inputs"]]
        sequences = [
            np.array(v, dtype=float).reshape(len(v), steps, len(g.variables))
            for g, v in zip(first.input_sequences, question["input_sequences"], strict=True)
        ]
        for key, values in question["answers"].items():
            name, how = key.rsplit(" ", 1)
            node = first.outputs[name]
            answer = Answer(name, node.labels, node.node, sequence=how == "scan")
            both = {(a.name.removesuffix("_steps"), a.sequence): a for a in answers(second)}
            (ours,) = evaluate(second, vectors, sequences, [both[name, answer.sequence]])
            assert difference(ours, expected(answer, values)) <= TOLERANCE, (key, steps)


KNOWN = ("activation", "normalises along the time axis")
