"""The models shipped with the project: read with no framework, they say what their framework said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from forest_rows import FORMS, written

import modelhub
from modelhub.errors import Unsupported
from modelhub.graph import forest_eval
from modelhub.graph.forest_forms import forests
from modelhub.graph.interface import Interface
from modelhub_lightgbm.reader import load

SKLEARN = (
    "categories", "columns", "coupled", "forest_with_holes", "imputed_vote", "isotonic", "lightgbm", "two_targets",
    "xgboost_pipeline",
)  # fmt: skip
LIGHTGBM = ("binary", "categories", "linear_leaves", "one_against_rest", "random_forest", "zero_as_missing")


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    (entry,) = session.get_inputs()
    return session.run(None, {entry.name: x.astype(np.float64 if entry.type == "tensor(double)" else np.float32)})


def test_every_case_is_tried(fixtures: Path) -> None:
    for folder, names in (("sklearn", SKLEARN), ("lightgbm", LIGHTGBM)):
        assert {path.parent.name for path in (fixtures / folder).glob("*/model.*")} == set(names)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SKLEARN)
def test_scikit_learn(fixtures: Path, name: str, form: str) -> None:
    folder = fixtures / "sklearn" / name
    model = modelhub.read(folder / "model.skops")
    if (name, form) == ("imputed_vote", "classic"):
        with pytest.raises(Unsupported, match="decides about it"):
            written(model, form)
        return
    single = name == "xgboost_pipeline"  # computes in float32 itself
    with np.load(folder / "expected.npz") as expected:
        answers = run(written(model, form), expected["inputs"])
        assert len(answers) == len(Interface.of(model).outputs) == len(expected.files) - 1
        for index, answer in enumerate(answers):
            bound = 1e-12 if form == "float64" and not single else 3e-6
            np.testing.assert_allclose(answer, expected[f"output_{index}"], rtol=0, atol=bound)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LIGHTGBM)
def test_lightgbm(fixtures: Path, name: str, form: str) -> None:
    folder = fixtures / "lightgbm" / name
    model = modelhub.read(folder / "model.txt")
    with np.load(folder / "expected.npz") as expected:
        (answer,) = run(written(model, form), expected["inputs"])
        bound = 1e-12 if form == "float64" else 3e-6
        np.testing.assert_allclose(answer, expected["outputs"], rtol=0, atol=bound)


@pytest.mark.parametrize("name", LIGHTGBM)
def test_leaves_of_lightgbm(fixtures: Path, name: str) -> None:
    from test_lightgbm_matrix import local_leaves

    folder = fixtures / "lightgbm" / name
    forest, _ = load(folder / "model.txt")
    with np.load(folder / "expected.npz") as expected:
        assert np.array_equal(local_leaves(forest, forest_eval.leaves(forest, expected["inputs"])), expected["leaves"])


def test_the_trees_are_found_in_the_graph(fixtures: Path) -> None:
    for name in ("forest_with_holes", "categories", "lightgbm", "xgboost_pipeline"):
        assert forests(modelhub.read(fixtures / "sklearn" / name / "model.skops")), name
