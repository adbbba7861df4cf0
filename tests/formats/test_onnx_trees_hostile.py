"""Trees in ONNX files that are none, or too deep: one clear line each, from the reader and from the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import modelhub
from modelhub.errors import UnreadableFile, Unsupported
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions
from modelhub_onnx import Runtime


def array(*numbers: float, dtype: str = "f4") -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(numbers, dtype))


def modern(**changes: Any) -> onnx.NodeProto:
    """x0 <= 0 ? (x1 <= 1 ? leaf 0 : leaf 1) : leaf 2"""
    attributes: dict[str, Any] = {
        "n_targets": 1,
        "tree_roots": [0],
        "nodes_featureids": [0, 1],
        "nodes_modes": array(0, 0, dtype="u1"),
        "nodes_splits": array(0, 1),
        "nodes_truenodeids": [1, 0],
        "nodes_trueleafs": [0, 1],
        "nodes_falsenodeids": [2, 1],
        "nodes_falseleafs": [1, 1],
        "leaf_targetids": [0, 0, 0],
        "leaf_weights": array(1, 2, 3),
        **changes,
    }
    given = {key: value for key, value in attributes.items() if value is not None}
    return helper.make_node("TreeEnsemble", ["x"], ["y"], domain="ai.onnx.ml", name="trees", **given)


def old(**changes: Any) -> onnx.NodeProto:
    """The same in the classic form: nodes 0 and 1, leaves 2 to 4."""
    attributes: dict[str, Any] = {
        "n_targets": 1,
        "nodes_treeids": [0, 0, 0, 0, 0],
        "nodes_nodeids": [0, 1, 2, 3, 4],
        "nodes_featureids": [0, 1, 0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        "nodes_values": [0.0, 1.0, 0.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 2, 0, 0, 0],
        "nodes_falsenodeids": [4, 3, 0, 0, 0],
        "target_treeids": [0, 0, 0],
        "target_nodeids": [2, 3, 4],
        "target_ids": [0, 0, 0],
        "target_weights": [1.0, 2.0, 3.0],
        **changes,
    }
    given = {key: value for key, value in attributes.items() if value is not None}
    return helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", name="trees", **given)


def saved(path: Path, node: onnx.NodeProto) -> Path:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
    )
    version = 5 if node.op_type == "TreeEnsemble" else 3
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", version)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path


RECORD = Interface((Input("x", (Feature("a"), Feature("b"))),), (Output("y", ("v",)),))


def doors(path: Path) -> list[Any]:
    """The two ways into a file."""
    return [
        lambda: modelhub.read(path, format="onnx"),
        lambda: Runtime().load(path, RECORD, "float32", ReadOptions()),
    ]


@pytest.mark.parametrize("make", [modern, old])
@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
def test_the_undamaged_node_is_read(tmp_path: Path, make: Any) -> None:
    for enter in doors(saved(tmp_path / "good.onnx", make())):
        enter()


NAN = float("nan")

MODERN: dict[str, tuple[dict[str, Any], str]] = {
    "child out of range": ({"nodes_truenodeids": [9, 0]}, "child that is not there"),
    "leaf out of range": ({"nodes_falsenodeids": [2, 10**9]}, "child that is not there"),
    "negative child": ({"nodes_falsenodeids": [2, -1]}, "child that is not there"),
    "huge child": ({"nodes_falsenodeids": [2, 2**63 - 1]}, "child that is not there"),
    "circle": ({"nodes_truenodeids": [0, 0]}, "child of two nodes|circle|not reached"),
    "shared leaf": ({"nodes_falsenodeids": [2, 2]}, "child of two nodes"),
    "NaN threshold": ({"nodes_splits": array(NAN, 1)}, "threshold that is no number"),
    "infinite weight": ({"leaf_weights": array(1, 2, np.inf)}, "finite"),
    "huge feature": ({"nodes_featureids": [0, 2**62]}, "no known feature"),
    "negative feature": ({"nodes_featureids": [0, -5]}, "no known feature"),
    "huge target": ({"leaf_targetids": [0, 0, 2**62]}, "output that is not there"),
    "endless outputs": ({"n_targets": 2**62}, "output that is not there"),
    "no outputs": ({"n_targets": 0}, "output that is not there"),
    "root out of range": ({"tree_roots": [7]}, "root of a tree"),
    "two roots": ({"tree_roots": [0, 1]}, "a child and a root"),
    "unknown mode": ({"nodes_modes": array(0, 77, dtype="u1")}, "unknown way"),
    "short features": ({"nodes_featureids": [0]}, "1 entries, not 2"),
    "no features": ({"nodes_featureids": None}, "nodes_featureids"),
    "no sets": ({"nodes_modes": array(0, 6, dtype="u1")}, "membership_values"),
    "open set": ({"nodes_modes": array(0, 6, dtype="u1"), "membership_values": array(1, NAN, 2)}, "sets of categories"),
    "splits that are no list": (
        {"nodes_splits": numpy_helper.from_array(np.zeros((1, 2), "f4"))},
        "list of numbers|1D|rank",
    ),
}

OLD: dict[str, tuple[dict[str, Any], str]] = {
    "child out of range": ({"nodes_truenodeids": [9, 2, 0, 0, 0]}, "child that is not there"),
    "child of another tree": ({"nodes_treeids": [0, 0, 0, 0, 1]}, "child that is not there"),
    "circle": ({"nodes_truenodeids": [1, 0, 0, 0, 0]}, "a child and a root"),
    "shared leaf": ({"nodes_falsenodeids": [4, 4, 0, 0, 0]}, "child of two nodes"),
    "NaN threshold": ({"nodes_values": [NAN, 1.0, 0.0, 0.0, 0.0]}, "threshold that is no number"),
    "one id twice": ({"nodes_nodeids": [0, 1, 2, 3, 3]}, "have one id"),
    "tree in two pieces": ({"nodes_treeids": [0, 0, 1, 0, 0]}, "do not stand together"),
    "huge tree id": ({"nodes_treeids": [0, 0, 0, 0, 2**63 - 1]}, "child that is not there"),
    "weight of no node": ({"target_nodeids": [2, 3, 9]}, "a weight belongs to a node"),
    "huge target": ({"target_ids": [0, 0, 2**62]}, "output that is not there"),
    "endless targets": ({"n_targets": 2**62}, "has 4611686018427387904 outputs"),
    "unknown mode": ({"nodes_modes": ["BRANCH_LEQ", "MAYBE", "LEAF", "LEAF", "LEAF"]}, "unknown entry 'MAYBE'"),
    "negative feature": ({"nodes_featureids": [0, -1, 0, 0, 0]}, "no known feature"),
    "short values": ({"nodes_values": [0.0]}, "1 entries, not 5"),
    "no modes": ({"nodes_modes": None}, "nodes_modes"),
}

CASES = [
    pytest.param(make, *case, id=f"{make.__name__}-{name}")
    for make, cases in ((modern, MODERN), (old, OLD))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("make", "changes", "said"), CASES)
def test_what_is_no_tree_is_refused_in_one_line(tmp_path: Path, make: Any, changes: dict[str, Any], said: str) -> None:
    for enter in doors(saved(tmp_path / "bad.onnx", make(**changes))):
        with pytest.raises((UnreadableFile, Unsupported), match=said) as caught:
            enter()
        assert "bad.onnx" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("make", [modern, old])
def test_a_tree_that_would_crash_onnxruntime_is_refused(tmp_path: Path, make: Any) -> None:
    depth = 20_000
    ids = np.arange(depth)
    if make is modern:
        node = modern(
            nodes_featureids=(ids * 0).tolist(),
            nodes_modes=numpy_helper.from_array(np.zeros(depth, "u1")),
            nodes_splits=numpy_helper.from_array(-ids.astype("f4")),
            nodes_truenodeids=[*range(1, depth), depth],
            nodes_trueleafs=[0] * (depth - 1) + [1],
            nodes_falsenodeids=ids.tolist(),
            nodes_falseleafs=[1] * depth,
            leaf_targetids=[0] * (depth + 1),
            leaf_weights=numpy_helper.from_array(np.ones(depth + 1, "f4")),
        )
    else:
        leaves = depth + 1
        node = old(
            nodes_treeids=[0] * (depth + leaves),
            nodes_nodeids=list(range(depth + leaves)),
            nodes_featureids=[0] * (depth + leaves),
            nodes_modes=["BRANCH_LEQ"] * depth + ["LEAF"] * leaves,
            nodes_values=[-float(i) for i in ids] + [0.0] * leaves,
            nodes_truenodeids=[*range(1, depth), 2 * depth] + [0] * leaves,
            nodes_falsenodeids=[*range(depth, 2 * depth)] + [0] * leaves,
            target_treeids=[0],
            target_nodeids=[depth],
            target_ids=[0],
            target_weights=[1.0],
        )
    for enter in doors(saved(tmp_path / "deep.onnx", node)):
        with pytest.raises(Unsupported, match="too deep for onnxruntime"):
            enter()
