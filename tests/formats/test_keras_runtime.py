"""Keras as the referee: which files it runs, in which precision, and when it says that it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from keras_making import L, in_double, keras, randomise

from modelhub.errors import Inconclusive
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.naming import attach
from modelhub.graph.precision import to_precision
from modelhub.protocols import ReadOptions
from modelhub_keras import Importer, Runtime

SHIPPED = {
    "tagger": ("model.keras", None, "keras"),
    "classifier": ("model.h5", None, "keras"),
    "deep_set": ("architecture.json", "model.weights.h5", "keras"),
    "keras2_wiring": ("model.h5", None, "keras (config adapted)"),
}


def options(folder: Path, weights: str | None) -> ReadOptions:
    return ReadOptions(weights=folder / weights if weights else None)


def read(path: Path, given: ReadOptions) -> tuple[ir.Model, Interface]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Importer().read(path, given)
    return model, Interface.of(model)


def drawn(interface: Interface, steps: int, events: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    shapes = {i.tensor: (events, *([steps] if i.sequence else []), len(i.features)) for i in interface.inputs}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def run(model: ir.Model, arrays: dict[str, np.ndarray], precision: str) -> list[np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(to_precision(model, precision)).SerializeToString())
    return list(session.run(None, {name: x.astype(precision) for name, x in arrays.items()}))


@pytest.fixture(autouse=True)
def without_tf_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has Keras 3 alone."""
    from modelhub_keras import runtime

    found = runtime.find_spec
    monkeypatch.setattr(runtime, "find_spec", lambda name: None if name == "tf_keras" else found(name))


@pytest.mark.parametrize("precision", ["float32", pytest.param("float64", marks=in_double)])
@pytest.mark.parametrize("case", SHIPPED)
def test_the_graph_computes_what_keras_computes(case: str, precision: str, fixtures: Path) -> None:
    folder = fixtures / "keras" / case
    name, weights, called = SHIPPED[case]
    model, interface = read(folder / name, options(folder, weights))
    engine = Runtime().load(folder / name, interface, precision, options(folder, weights))
    assert (engine.name, engine.version, engine.precision) == (called, keras.__version__, precision)
    for steps in (1, 10, 13):
        arrays = drawn(interface, steps)
        answers = engine(arrays)
        assert list(answers) == [output.tensor for output in interface.outputs]
        for output, ours in zip(interface.outputs, run(model.clone(), arrays, precision), strict=True):
            theirs = answers[output.tensor]
            assert theirs.dtype == precision
            np.testing.assert_allclose(ours, theirs, rtol=1e-12 if precision == "float64" else 1e-5, atol=1e-6)


@in_double
def test_precisions_named_in_text(fixtures: Path, tmp_path: Path) -> None:
    """Keras 2 and the first of Keras 3 wrote `"dtype": "float32"` where later ones write a policy."""
    folder = fixtures / "keras" / "deep_set"

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return "float32" if item.get("class_name") == "DTypePolicy" else {k: plain(v) for k, v in item.items()}
        return [plain(part) for part in item] if isinstance(item, list) else item

    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(plain(json.loads((folder / "architecture.json").read_text()))))
    model, interface = read(path, options(folder, "model.weights.h5"))
    engine = Runtime().load(path, interface, "float64", options(folder, "model.weights.h5"))
    arrays = drawn(interface, 5)
    (ours,) = run(model, arrays, "float64")
    assert engine.name == "keras"
    np.testing.assert_allclose(ours, engine(arrays)[interface.outputs[0].tensor], rtol=1e-12)


@in_double
def test_keras_is_left_as_it_was(fixtures: Path) -> None:
    path = fixtures / "keras" / "classifier" / "model.h5"
    _, interface = read(path, ReadOptions())
    engine = Runtime().load(path, interface, "float64", ReadOptions())
    engine(drawn(interface, 1))
    assert keras.config.floatx() == "float32"
    assert keras.config.dtype_policy().name == "float32"


@in_double
def test_inputs_go_by_position_and_are_scaled(fixtures: Path) -> None:
    """With a user's names and scales, the engine takes raw inputs under the new names."""
    path = fixtures / "keras" / "classifier" / "model.h5"
    model, bare = read(path, ReadOptions())
    features = tuple(Feature(f"v{i}", offset=-1.5, scale=0.25, default=2.0) for i in range(4))
    interface = attach(model, Interface((Input("jets", features),), (Output("flavour", ("a", "c", "d")),)))
    raw = drawn(interface, 1)
    raw["jets"][0, 1] = np.nan
    answers = Runtime().load(path, interface, "float64", ReadOptions())(raw)["flavour"]
    ready = (np.where(np.isnan(raw["jets"]), 2.0, raw["jets"]) - 1.5) * 0.25
    plain = Runtime().load(path, bare, "float64", ReadOptions())({bare.inputs[0].tensor: ready})
    np.testing.assert_allclose(answers, plain[bare.outputs[0].tensor], rtol=1e-14)


@in_double
def test_what_keras_3_would_load_wrongly_is_rebuilt(tmp_path: Path) -> None:
    """A whole model that says it is of Keras 2: Keras 3 loads it, and gives hard_sigmoid another meaning."""
    path = tmp_path / "model.h5"
    randomise(keras.Sequential([keras.Input((4,)), L.Dense(3, activation="hard_sigmoid")])).save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["keras_version"] = file["model_weights"].attrs["keras_version"] = "2.9.0"
    model, interface = read(path, ReadOptions())
    engine = Runtime().load(path, interface, "float64", ReadOptions())
    arrays = drawn(interface, 1)
    (ours,) = run(model, arrays, "float64")
    assert engine.name == "keras (config adapted)"
    np.testing.assert_allclose(ours, engine(arrays)[interface.outputs[0].tensor], rtol=1e-12)


@in_double
def test_hard_sigmoid_of_keras_2_is_not_that_of_keras_3(cases: Path) -> None:
    """Keras 3 would load this file, and compute another function."""
    folder = cases / "lwtnn" / "gru_sequence" / "keras"
    given = ReadOptions(weights=folder / "weights.h5")
    model, interface = read(folder / "architecture.json", given)
    engine = Runtime().load(folder / "architecture.json", interface, "float64", given)
    arrays = drawn(interface, 5)
    (ours,) = run(model, arrays, "float64")
    assert engine.name == "keras (config adapted)"
    np.testing.assert_allclose(ours, engine(arrays)[interface.outputs[0].tensor], rtol=1e-12, atol=1e-14)


def test_no_steps_at_all_are_refused_by_keras(fixtures: Path) -> None:
    path = fixtures / "keras" / "tagger" / "model.keras"
    _, interface = read(path, ReadOptions())
    engine = Runtime().load(path, interface, "float32", ReadOptions())
    with pytest.raises(Inconclusive, match="does not compute this"):
        engine(drawn(interface, 0))


def test_joined_masks_of_keras_2_have_no_referee(fixtures: Path) -> None:
    folder = fixtures / "keras" / "keras2_masks"
    given = options(folder, "weights.h5")
    _, interface = read(folder / "architecture.json", given)
    with pytest.raises(Inconclusive, match="joins masks otherwise"):
        Runtime().load(folder / "architecture.json", interface, "float32", given)


@in_double
@pytest.mark.parametrize("case", ["batchnorm", "highway"])
def test_keras_1_is_rebuilt(case: str, cases: Path) -> None:
    """With layers that Keras no longer has."""
    folder = cases / "lwtnn" / case / "keras"
    given = ReadOptions(weights=folder / "weights.h5")
    model, interface = read(folder / "architecture.json", given)
    engine = Runtime().load(folder / "architecture.json", interface, "float64", given)
    arrays = drawn(interface, 1)
    (ours,) = run(model, arrays, "float64")
    assert engine.name == "keras (config adapted)"
    np.testing.assert_allclose(ours, engine(arrays)[interface.outputs[0].tensor], rtol=1e-12)


def test_what_keras_1_alone_had_may_have_no_referee(tmp_path: Path) -> None:
    """A convolution of Keras 1, whose kernels lay otherwise."""
    from test_keras_old import CONV1, draw, layer, write

    config = [layer("Convolution1D", "conv", batch_input_shape=[None, 6, 4], **CONV1)]
    weights = {"conv": {"conv_W": draw(2, 1, 4, 3), "conv_b": draw(3)}}
    path, second = write(tmp_path, config, weights, "1.2.2", "tensorflow")
    given = ReadOptions(weights=second)
    _, interface = read(path, given)
    with pytest.raises(Inconclusive, match="Convolution1D of Keras 1 is not rebuilt"):
        Runtime().load(path, interface, "float32", given)


@in_double
def test_gates_of_keras_1_are_rebuilt(tmp_path: Path) -> None:
    from test_keras_old import RECURRENT, gates, layer, write

    config = [
        layer("LSTM", "lstm_1", batch_input_shape=[None, None, 2], **RECURRENT),
        layer("GRU", "gru_1", **{**RECURRENT, "return_sequences": False}),
    ]
    weights = {"lstm_1": gates("lstm_1", "icfo", 2, 3), "gru_1": gates("gru_1", "zrh", 3, 3)}
    path, second = write(tmp_path, config, weights, "1.2.2", "theano")
    given = ReadOptions(weights=second)
    model, interface = read(path, given)
    engine = Runtime().load(path, interface, "float64", given)
    arrays = drawn(interface, 5)
    (ours,) = run(model, arrays, "float64")
    np.testing.assert_allclose(ours, engine(arrays)[interface.outputs[0].tensor], rtol=1e-12)


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    x = keras.Input((4,), name="x")
    y = L.Lambda(lambda t: t * 2)(x)
    path = tmp_path / "model.keras"
    keras.Model(x, y).save(path)
    bare = Interface((Input("x", tuple(Feature(f"x{i}") for i in range(4))),), (Output("y", ("a", "c", "d", "e")),))
    with pytest.raises(Inconclusive, match="function of its own"):
        Runtime().load(path, bare, "float32", ReadOptions())


@in_double
def test_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    """A model made with tables of inputs and outputs, whose order Keras makes that of the sorted names."""
    z, a = keras.Input((4,), name="zeta"), keras.Input((3,), name="alpha")
    x = L.Concatenate()([z, a])
    model = keras.Model({"zeta": z, "alpha": a}, {"second": L.Dense(2)(x), "first": L.Dense(1)(x)})
    randomise(model).save(tmp_path / "model.keras")
    graph, interface = read(tmp_path / "model.keras", ReadOptions())
    arrays = drawn(interface, 1)
    answers = Runtime().load(tmp_path / "model.keras", interface, "float64", ReadOptions())(arrays)
    for output, ours in zip(interface.outputs, run(graph, arrays, "float64"), strict=True):
        np.testing.assert_allclose(ours, answers[output.tensor], rtol=1e-12)


def test_the_check_leaves_keras_as_it_was(fixtures: Path) -> None:
    """Also where it is the first to ask Keras for its default precision, which Keras keeps from then on."""
    program = (
        "import sys, keras\n"
        "from pathlib import Path\n"
        "import modelhub\n"
        "from modelhub.graph.interface import Interface\n"
        "from modelhub.protocols import ReadOptions\n"
        "from modelhub_keras import Runtime\n"
        "path, options = Path(sys.argv[1]), ReadOptions(weights=Path(sys.argv[2]))\n"
        "Runtime().load(path, Interface.of(modelhub.read(path, options=options)), 'float64', options)\n"
        "print(keras.config.floatx(), keras.config.dtype_policy().name)\n"
    )
    folder = fixtures / "keras" / "deep_set"
    files = [str(folder / "architecture.json"), str(folder / "model.weights.h5")]
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", program, *files], capture_output=True, text=True)
    assert run.stdout.split() == ["float32", "float32"], run.stderr


def test_gelu_is_checked_in_the_precision_that_the_engine_has_it_in(tmp_path: Path) -> None:
    """TensorFlow keeps its constants in float32: held against that in float64, every conversion would differ."""
    from modelhub.equivalence.check import check_written
    from modelhub.protocols import WriteOptions
    from modelhub_onnx import Exporter

    chain = [keras.Input((4,)), L.Dense(5, activation="gelu"), L.Dense(2)]
    randomise(keras.Sequential(chain)).save(tmp_path / "model.keras")
    model, _ = read(tmp_path / "model.keras", ReadOptions())
    Exporter().write(model.clone(), tmp_path / "net.onnx", WriteOptions())
    source = (tmp_path / "model.keras", "keras", ReadOptions())
    report = check_written(model, source=source, target=(tmp_path / "net.onnx", "onnx", "net.onnx"))
    assert report.verdict == "equivalent"
    if keras.backend.backend() == "tensorflow":
        assert [engine.rpartition(" ")[2] for engine in report.parties[0].engines] == ["float32"]
