"""Classic tree operators of other converters as `Forest`, against onnxruntime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from forest_rows import interface, run, threshold_rows, written
from test_forest import random_forest

from modelhub.errors import Unsupported
from modelhub.graph import forest_eval
from modelhub.graph.forest import Compare, Link
from modelhub.graph.forest_classic import classic
from modelhub.graph.forest_classic_read import is_classic, scores
from modelhub.graph.forest_onnx import to_graph
from modelhub.graph.precision import to_precision


def given(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The numbers onnxruntime gives: the last output."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), settings)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[-1])


def computed(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The same by the `Forest` of the file's tree operator."""
    (node,) = [node for node in ir.from_proto(proto).graph if is_classic(node)]
    found = scores(node)
    y = forest_eval.evaluate(found.forest, x)
    return {
        None: y,
        "complement": np.concatenate([1 - y, y], axis=1),
        "negative": np.concatenate([-y, y], axis=1),
    }[found.rest]


def sklearn_models() -> dict[str, object]:
    from sklearn import ensemble, tree

    random = np.random.default_rng(0)
    x = random.normal(size=(400, 4)).astype(np.float32)
    score = x[:, 0] * x[:, 1] + x[:, 2]
    two, three = score > 0, np.digitize(score, [-0.5, 0.5])
    return {
        "forest two": ensemble.RandomForestClassifier(15, max_depth=5, random_state=0).fit(x, two),
        "forest three": ensemble.RandomForestClassifier(15, max_depth=5, random_state=0).fit(x, three),
        "forest regression": ensemble.RandomForestRegressor(15, max_depth=5, random_state=0).fit(x, score),
        "forest targets": ensemble.RandomForestRegressor(9, random_state=0).fit(
            x, np.stack([score, -score, x[:, 3]], 1)
        ),
        "boosting two": ensemble.GradientBoostingClassifier(n_estimators=20).fit(x, two),
        "boosting three": ensemble.GradientBoostingClassifier(n_estimators=20).fit(x, three),
        "boosting regression": ensemble.GradientBoostingRegressor(n_estimators=20).fit(x, score),
        "tree": tree.DecisionTreeClassifier(max_depth=4).fit(x, three),
    }


NAMES = (
    "forest two", "forest three", "forest regression", "forest targets", "boosting two", "boosting three",
    "boosting regression", "tree",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_files_of_skl2onnx(name: str) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from skl2onnx.common.data_types import FloatTensorType

    model = sklearn_models()[name]
    options = {"zipmap": False} if hasattr(model, "classes_") else None
    proto = skl2onnx.convert_sklearn(model, initial_types=[("x", FloatTensorType([None, 4]))], options=options)
    (node,) = [node for node in ir.from_proto(proto).graph if is_classic(node)]
    x = threshold_rows(scores(node).forest, 400, 0, nan=0)
    x = np.pad(x, ((0, 0), (0, 4 - x.shape[1])))
    np.testing.assert_allclose(computed(proto, x), given(proto, x), rtol=0, atol=2e-6)


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "reg:squarederror"])
def test_files_of_onnxmltools(objective: str) -> None:
    onnxmltools, xgboost = pytest.importorskip("onnxmltools"), pytest.importorskip("xgboost")
    from onnxmltools.convert.common.data_types import FloatTensorType

    random = np.random.default_rng(0)
    x = random.normal(size=(400, 4)).astype(np.float32)
    x[::7, 1] = np.nan
    score = x[:, 0] + x[:, 2]
    target = {"b": score > 0, "m": np.digitize(score, [-0.5, 0.5]), "r": score}[objective[0]]
    settings = {"objective": objective, "max_depth": 4} | ({"num_class": 3} if objective[0] == "m" else {})
    booster = xgboost.train(settings, xgboost.DMatrix(x, target), 20)
    proto = onnxmltools.convert_xgboost(booster, initial_types=[("x", FloatTensorType([None, 4]))])
    (node,) = [node for node in ir.from_proto(proto).graph if is_classic(node)]
    rows = threshold_rows(replace(scores(node).forest, features=4), 1000, 0)
    np.testing.assert_allclose(computed(proto, rows), given(proto, rows), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("outputs", "width"), [(1, 1), (3, 1), (3, 3), (2, 2)])
def test_what_we_write_ourselves(outputs: int, width: int) -> None:
    forest = replace(random_forest(outputs * 7 + width, outputs=outputs, width=width), rounding=None, zero_missing=None)
    forest = replace(forest, base=np.zeros(outputs), link=Link())
    model = to_precision(to_graph(forest, interface(forest)), "float32")
    classic(model)
    (node,) = [node for node in model.graph if is_classic(node)]
    x = threshold_rows(forest, 1000, 0)
    x[:, -1] = np.round(x[:, -1])
    np.testing.assert_allclose(forest_eval.margins(scores(node).forest, x), forest_eval.margins(forest, x), atol=1e-5)


def test_sets_of_one_category_and_of_none() -> None:
    """They are an equality and a threshold in the file, in a column that is asked for larger sets as well."""
    forest = replace(random_forest(4), rounding=None, zero_missing=None)
    model = to_precision(to_graph(forest, interface(forest)), "float32")
    classic(model)
    (node,) = [node for node in model.graph if is_classic(node)]
    again = scores(node).forest
    asked = again.splits & (again.feature == forest.features - 1)
    assert set(again.compare[asked]) == {Compare.EQ, Compare.LT, Compare.MEMBER}
    x = threshold_rows(forest, 1000, 0)
    x[:500, -1] = np.round(x[:500, -1])
    expected = forest_eval.margins(forest, x)
    np.testing.assert_allclose(run(to_graph(replace(again, link=Link()), interface(again)), x), expected, atol=1e-5)


@pytest.mark.parametrize("width", [1, 3])
def test_outputs_that_no_tree_moves_keep_their_base(width: int) -> None:
    """onnxruntime 1.32 adds a base to what has a weight only."""
    forest = replace(
        random_forest(5, outputs=3, width=width, sets=False), rounding=None, zero_missing=None, link=Link()
    )
    values = np.where(np.arange(width) == 0, forest.values, 0.0)
    forest = replace(
        forest, values=values, tree_output=np.zeros(forest.trees, np.int64), base=np.array([1.0, 2.0, 3.0])
    )
    x = threshold_rows(forest, 200, 0)
    given = run(written(to_graph(forest, interface(forest)), "classic"), x)
    np.testing.assert_allclose(given, forest_eval.margins(forest, x), atol=1e-5)
    assert (given[:, 1:] == [2.0, 3.0]).all()


@pytest.mark.parametrize(("targets", "known"), [([0, 1, 0, 1], True), ([0, 0, 0, 0], True), ([0, 0, 0, 1], False)])
def test_a_base_that_is_not_added(targets: list[int], known: bool) -> None:
    """Of three outputs the first has weights in both leaves, the second in both, none or one, the third in none."""
    columns = {"treeids": [0, 0, 0, 1, 1, 1], "nodeids": [0, 1, 2] * 2, "truenodeids": [1, 0, 0] * 2}
    columns |= {"falsenodeids": [2, 0, 0] * 2, "featureids": [0] * 6}
    numbers = {"values": [0.0] * 6, "modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2}
    at = {"target_treeids": [0, 0, 0, 0], "target_nodeids": [1, 1, 2, 2], "target_ids": targets}
    made = onnx.helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=3, base_values=[10.0, 20.0, 30.0],
        target_weights=[1.0, 2.0, 4.0, 8.0], **at, **{f"nodes_{k}": v for k, v in (columns | numbers).items()},
    )  # fmt: skip
    graph = onnx.helper.make_graph(
        [made],
        "g",
        [onnx.helper.make_tensor_value_info("x", 1, ["N", 1])],
        [onnx.helper.make_tensor_value_info("y", 1, ["N", 3])],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    x = np.array([[-1.0], [1.0]], np.float32)
    if known:
        np.testing.assert_array_equal(computed(proto, x), given(proto, x))
    else:
        assert (given(proto, x)[:, 1] == [0.0, 28.0]).all()
        with pytest.raises(Unsupported, match="some rows only"):
            computed(proto, x)


@pytest.mark.parametrize("transform", ["PROBIT", "SOFTMAX_ZERO"])
def test_what_is_no_link_is_refused(transform: str) -> None:
    forest = replace(random_forest(1), rounding=None, zero_missing=None)
    model = to_precision(to_graph(forest, interface(forest)), "float32")
    classic(model)
    (node,) = [node for node in model.graph if is_classic(node)]
    node.attributes["post_transform"] = ir.AttrString("post_transform", transform)
    with pytest.raises(Unsupported, match=transform):
        scores(node)
