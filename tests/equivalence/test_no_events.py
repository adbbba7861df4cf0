"""ONNX files that are no function of events: said in one line, with everything the engines can still be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import modelhub
from modelhub.equivalence.report import Report

Value = tuple[str, tuple[int | str, ...]]


def checked(folder: Path, inputs: list[Value], outputs: list[Value], *nodes: onnx.NodeProto) -> Report:
    """The check of such a file against itself."""
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values]
        for values in (inputs, outputs)
    ]
    bare = [helper.make_tensor_value_info(value.name, 0, None) for value in ends[1]]  # of any type and shape
    for value in bare:
        value.ClearField("type")
    graph = helper.make_graph(list(nodes), "g", ends[0], ends[1] if outputs[0][1] else bare)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, folder / "m.onnx")
    return modelhub.check(folder / "m.onnx", folder / "m.onnx")


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((2, 3), ()), "input b is a single number for all events"),
        ((("N", 0), ("N", 0)), "input a has room for nothing"),
        (((2, 3), (5, 3)), "input a takes 2 events and input b 5"),
    ],
)
def test_inputs_that_hold_no_events(shapes: tuple[tuple[int | str, ...], ...], words: str, tmp_path: Path) -> None:
    node = helper.make_node(
        "Add" if () in shapes else "Concat", ["a", "b"], ["y"], **({} if () in shapes else {"axis": 0})
    )
    report = checked(tmp_path, [("a", shapes[0]), ("b", shapes[1])], [("y", ("M", shapes[0][-1]))], node)
    assert report.verdict == "inconclusive"
    assert words in report.missing


def test_a_model_without_inputs(tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["y"], value_floats=[1.0, 2.0])
    report = checked(tmp_path, [], [("y", (2,))], node)
    assert report.verdict == "inconclusive"
    assert "it has no inputs" in report.missing


@pytest.mark.parametrize("events", ["N", 4])
def test_outputs_that_have_no_row_for_each_event(events: str | int, tmp_path: Path) -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    report = checked(tmp_path, [("x", (events, 3))], [("y", ("K",))], node)
    assert report.verdict == "inconclusive"
    assert any("a row for each" in line for line in report.missing)


def test_an_output_that_has_no_row_for_each_event_does_not_hide_behind_pieces(tmp_path: Path) -> None:
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    report = checked(tmp_path, [("x", ("N", 3))], [("y", (3, "N"))], node)
    assert report.verdict == "inconclusive"
    assert any("output y is [3, 512] for 512 events" in line for line in report.missing)


def test_what_is_true_or_false_is_compared(tmp_path: Path) -> None:
    zero = helper.make_node("Constant", [], ["zero"], value_float=0.25)
    proto_nodes = (
        zero,
        helper.make_node("Greater", ["x", "zero"], ["truth"]),
        helper.make_node("Cast", ["truth"], ["number"], to=TensorProto.BOOL),
    )
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("number", TensorProto.BOOL, ["N", 3])],
    )
    for value in (0.25, 0.75):
        proto_nodes[0].attribute[0].f = value
        graph = helper.make_graph(list(proto_nodes), "g", *ends)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(proto, tmp_path / f"{value}.onnx")
    same = modelhub.check(tmp_path / "0.25.onnx", tmp_path / "0.25.onnx")
    assert same.verdict in ("identical", "equivalent")
    assert modelhub.check(tmp_path / "0.25.onnx", tmp_path / "0.75.onnx").verdict == "different"


def test_a_normalization_whose_mean_is_wanted_too(tmp_path: Path) -> None:
    ones = helper.make_node("Constant", [], ["s"], value_floats=np.ones(3).tolist())
    node = helper.make_node("LayerNormalization", ["x", "s"], ["y", "mean", "deviation"])
    report = checked(tmp_path, [("x", ("N", 3))], [("y", ("N", 3)), ("mean", ("N", 1))], ones, node)
    assert report.verdict in ("identical", "equivalent", "inconclusive")


def test_outputs_that_are_lists(tmp_path: Path) -> None:
    node = helper.make_node("SplitToSequence", ["x"], ["y"], axis=1)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, tmp_path / "m.onnx")
    report = modelhub.check(tmp_path / "m.onnx", tmp_path / "m.onnx")
    assert report.verdict == "inconclusive"
    assert any("no array" in line for line in report.missing)
