"""Operators one by one: an ONNX file against itself, in float32 and as the graph computes it in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import modelhub
from modelhub.equivalence.bounds import bound
from modelhub.equivalence.parties import graph_side
from modelhub.equivalence.probes import Probe
from modelhub.equivalence.report import Report
from modelhub.graph.interface import Interface


def written(
    folder: Path,
    op_type: str,
    shape: tuple[str | int, ...] = ("N", 6),
    *,
    opset: int = 20,
    domain: str = "",
    **attributes,
) -> Path:
    """A file of one operator."""
    node = helper.make_node(op_type, ["x"], ["y"], domain=domain, **attributes)
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in ("x", "y")]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    proto = helper.make_model(helper.make_graph([node], "g", *ends), opset_imports=imports, ir_version=10)
    onnx.save(proto, folder / "m.onnx")
    return folder / "m.onnx"


def checked(path: Path) -> Report:
    return modelhub.check(path, path)


@pytest.mark.parametrize("shape", [("N", 6), ("N",), (3,), ("N", 4, 5)])
@pytest.mark.parametrize(
    "op_type",
    ["Acosh", "Asinh", "Atanh", "Celu", "Cosh", "Elu", "Erf", "Exp", "Gelu", "HardSwish", "Log", "Mish", "Selu",
     "Sigmoid", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh"],
)  # fmt: skip
def test_functions_of_one_number(op_type: str, shape: tuple[str | int, ...], tmp_path: Path) -> None:
    report = checked(written(tmp_path, op_type, shape))
    assert report.verdict in ("identical", "equivalent")


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_a_softmax_of_inputs_that_are_exact(op_type: str, tmp_path: Path) -> None:
    """Its exponent x - max(x) is rounded, which counts where it is large."""
    assert checked(written(tmp_path, op_type, axis=-1)).verdict in ("identical", "equivalent")


def test_a_sum_that_goes_on(tmp_path: Path) -> None:
    axis = helper.make_node("Constant", [], ["axis"], value_int=1)
    node = helper.make_node("CumSum", ["x", "axis"], ["y"])
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 20])] for name in ("x", "y")]
    graph = helper.make_graph([axis, node], "g", *ends)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    assert checked(tmp_path / "m.onnx").verdict in ("identical", "equivalent")


@pytest.mark.parametrize("opset", [20, 21, 22, 23])
def test_a_graph_of_any_operator_set_is_shaken(opset: int, tmp_path: Path) -> None:
    model = modelhub.read(written(tmp_path, "Elu", opset=opset))
    found = bound(model, Interface.of(model), tmp_path, 1)
    assert found is not None
    assert not found.blind


def test_operators_of_which_nothing_is_known_are_bound_by_moving_their_inputs(tmp_path: Path) -> None:
    path = written(tmp_path, "DFT", ("N", 4, 1), opset=19, axis=1)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 2
    onnx.save(model, path)
    graph = modelhub.read(path)
    found = bound(graph, Interface.of(graph), tmp_path, 1)
    assert found is not None
    assert found.blind
    assert checked(path).verdict in ("identical", "equivalent")


def test_a_support_vector_machine(tmp_path: Path) -> None:
    path = written(
        tmp_path, "SVMRegressor", domain="ai.onnx.ml", kernel_type="RBF", kernel_params=[0.3, 0.0, 3.0], n_supports=40,
        coefficients=np.random.default_rng(0).standard_normal(40).tolist(), rho=[0.1],
        support_vectors=np.random.default_rng(1).standard_normal(240).tolist(),
    )  # fmt: skip
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, path)
    assert checked(path).verdict in ("identical", "equivalent")
    coefficients = next(a for a in model.graph.node[0].attribute if a.name == "coefficients")
    coefficients.floats[3] *= 1.01
    onnx.save(model, tmp_path / "other.onnx")
    assert modelhub.check(path, tmp_path / "other.onnx").verdict == "different"


def test_a_function_spelled_in_float64_keeps_small_numbers(tmp_path: Path) -> None:
    x = np.float32([[-80, -47.6, -20, -1, 0, 30]])
    model = modelhub.read(written(tmp_path, "Softplus"))
    (found,) = graph_side(model, Interface.of(model), tmp_path).engines["float64"]({"x": x}).values()
    exact = np.log1p(np.exp(-np.abs(x.astype(np.float64)))) + np.maximum(x, 0.0)
    np.testing.assert_allclose(found, exact, rtol=1e-15)


def test_the_bound_of_a_small_number_is_small(tmp_path: Path) -> None:
    """What is spelled with 1 + z is not as uncertain as that 1."""
    model = modelhub.read(written(tmp_path, "Softplus"))
    record = Interface.of(model)
    x = np.float32([[-30, -18, -14, -10, -5, 1]]).repeat(20, 0)
    answer = graph_side(model, record, tmp_path).engines["float64"]({"x": x})
    found = bound(model, record, tmp_path, 1)
    assert found is not None
    allowed = found.of(Probe("normal", None, {"x": x}), answer).allowed(answer, "float32")["y"].tolerance
    assert (allowed < 1e-5 * answer["y"]).all()


def test_the_inverse_of_cosh_has_no_value_below_one(tmp_path: Path) -> None:
    model = modelhub.read(written(tmp_path, "Acosh"))
    x = np.float32([[-1e30, -1, 0.5, 1, 1.5, 1e20]])
    (found,) = graph_side(model, Interface.of(model), tmp_path).engines["float64"]({"x": x}).values()
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found, np.arccosh(x.astype(np.float64)), rtol=1e-14)
