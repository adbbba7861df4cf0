"""The graph against the file's own engine, layer by layer: a fault of the reader is found at its layer, no other is.

Faults are put into graphs that a reader made of real files; the engines run the files as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from click.testing import CliRunner

from modelhub import plugins
from modelhub.conversion import convert, read
from modelhub.difference.diff import Diff, diff
from modelhub.difference.layers import Layers, compared, layered
from modelhub.difference.render import to_json
from modelhub.difference.trace import traced
from modelhub.equivalence.probes import probes
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions

FIXTURES = Path(__file__).parents[2] / "fixtures"

if "KERAS_BACKEND" not in os.environ and find_spec("tensorflow") is None:
    os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Change = Callable[[ir.Model], None]


def held(path: Path, *changes: Change, options: ReadOptions = ReadOptions()) -> Layers:
    """The file in its own engine against its graph, to which `changes` were made."""
    format_, model = plugins.detect(path), read(path, options=options)
    engine = layered(path, format_, Interface.of(model), options)
    assert engine is not None
    for change in changes:
        change(model)
    with traced(model, 0) as trace:
        found = compared("source", trace, engine, [p for p in probes(model, 0) if p.judged])
    assert found is not None
    return found


def edit(name: str, function: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Another array in the place of an initializer."""

    def change(model: ir.Model) -> None:
        value = model.graph.initializers[name]
        array = np.ascontiguousarray(function(value.const_value.numpy().copy()))
        assert not np.array_equal(array, value.const_value.numpy())
        value.const_value = ir.tensor(array, name=name)

    return change


def exchanged(x: np.ndarray, a: int, b: int, axis: int = 0) -> np.ndarray:
    """Two rows (or columns) in each other's place."""
    rows = np.moveaxis(x, axis, 0)
    rows[[a, b]] = rows[[b, a]]
    return x


def operator(name: str, kind: str) -> Change:
    """Another operator in the place of a node's."""

    def change(model: ir.Model) -> None:
        next(node for node in model.graph if node.name == name).op_type = kind

    return change


def attribute(name: str, key: str, number: float) -> Change:
    def change(model: ir.Model) -> None:
        next(node for node in model.graph if node.name == name).attributes[key] = ir.AttrFloat32(key, number)

    return change


KERAS = FIXTURES / "keras"
SOUND = {
    "classifier": (KERAS / "classifier" / "model.h5", None),
    "deep_set": (KERAS / "deep_set" / "architecture.json", KERAS / "deep_set" / "model.weights.h5"),
    "tagger": (KERAS / "tagger" / "model.keras", None),
    **{name: (FIXTURES / "torch" / name / "net.pt2", None) for name in ("deepset", "dl1", "gru", "lstm", "two_inputs")},
}


@pytest.mark.parametrize("name", SOUND)
def test_a_graph_that_is_right_is_accused_of_nothing(name: str) -> None:
    path, weights = SOUND[name]
    pytest.importorskip("torch" if path.suffix == ".pt2" else "keras")
    found = held(path, options=ReadOptions(weights=weights))
    assert found.parting is None
    assert found.compared == found.agreeing >= 3


REAL = {
    "cms_DeepDoubleX_102X_CvL": ("CvL.h5", None, 27),
    "dguest_btag_tutorial": ("arch.json", "weights.h5", 5),
    "hls4ml_KERAS_3layer_batch_norm": ("KERAS_3layer_batch_norm.json", "KERAS_3layer_batch_norm_weights.h5", 12),
    "hls4ml_KERAS_conv1d_small": ("KERAS_conv1d_small.json", "KERAS_conv1d_small_weights.h5", 6),
    "hls4ml_KERAS_conv2d_model": ("KERAS_conv2d_model.json", "KERAS_conv2d_model_weights.h5", 4),
    "keras2c_example": ("model.h5", None, 4),
}


@pytest.mark.parametrize("name", REAL)
def test_nor_is_any_of_the_models_of_experiments(name: str, cases: Path) -> None:
    pytest.importorskip("keras")
    folder, (file, weights, count) = cases / "real" / "keras" / name, REAL[name]
    found = held(folder / file, options=ReadOptions(weights=None if weights is None else folder / weights))
    assert found.parting is None
    assert found.compared == found.agreeing == count


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dense network beside two LSTMs, and one of convolutions, both by Keras."""
    keras = pytest.importorskip("keras")
    layers, folder = keras.layers, tmp_path_factory.mktemp("made")
    jet, tracks = keras.Input((4,), name="jet"), keras.Input((None, 3), name="tracks")
    steps = layers.LSTM(5, return_sequences=True, name="lstm_a")(tracks)
    x = layers.Concatenate(name="join")(
        [layers.Dense(4, "relu", name="jet_dense")(jet), layers.LSTM(4, name="lstm_b")(steps)]
    )
    x = layers.BatchNormalization(name="norm")(layers.Dense(6, "tanh", name="first")(x))
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, "relu", name="square")], name="inner")
    recurrent = keras.Model([jet, tracks], layers.Dense(3, "softmax", name="head")(inner(x)))
    image = keras.Input((8, 8, 3), name="image")
    x = layers.MaxPooling2D(2, name="pool")(layers.Conv2D(4, 3, activation="relu", name="conv_1")(image))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(3, 1, name="conv_2")(x))  # 3 x 3 x 3: axes look alike
    x = layers.Flatten(name="flat")(layers.Activation("relu", name="relu")(x))
    images = keras.Model(image, layers.Dense(2, "sigmoid", name="head")(layers.Dense(8, "elu", name="dense")(x)))
    random = np.random.default_rng(2)
    for name, model in (("recurrent", recurrent), ("images", images)):
        spread = ["variance" in w.path for w in model.weights]
        model.set_weights(
            [
                random.uniform(0.5, 2, w.shape) if wide else random.normal(size=w.shape) / 2
                for w, wide in zip(model.weights, spread, strict=True)
            ]
        )
        model.save(folder / f"{name}.keras")
    return {name: folder / f"{name}.keras" for name in ("recurrent", "images")}


FAULTS = [
    ("recurrent", "lstm_a", edit("lstm_a/recurrent_kernel", partial(exchanged, a=1, b=7, axis=1))),
    ("recurrent", "lstm_b", edit("lstm_b/kernel", lambda x: np.roll(x, 4, axis=1))),
    ("recurrent", "jet_dense", edit("jet_dense/kernel", np.transpose)),
    ("recurrent", "norm", attribute("norm/BatchNormalization", "epsilon", 1e-5)),
    ("recurrent", "inner/square", operator("inner/square/Relu", "Sigmoid")),
    ("recurrent", "head", edit("head/bias", partial(exchanged, a=0, b=2))),
    ("images", "conv_1", edit("conv_1/kernel", partial(exchanged, a=0, b=2, axis=1))),
    ("images", "conv_2", edit("conv_2/kernel", lambda x: x * 1.001)),
    ("images", "norm", edit("norm/variance", partial(exchanged, a=0, b=1))),
    ("images", "dense", attribute("dense/Elu", "alpha", 0.5)),
]


@pytest.mark.parametrize(("name", "where", "change"), FAULTS, ids=[f"{name} {where}" for name, where, _ in FAULTS])
def test_a_fault_in_the_graph_of_a_keras_file_is_found_at_its_layer(made, name, where, change) -> None:
    found = held(made[name], change)
    assert found.parting is not None
    assert (found.parting.where, found.parting.layers) == (where, (where,))
    assert found.parting.match.difference > found.parting.match.tolerance
    assert found.parting.alone


def test_keras_files_without_a_fault(made) -> None:
    for path in made.values():
        found = held(path)
        assert found.parting is None
        assert found.agreeing == found.compared >= 8


TORCH = [
    ("dl1", "body.3, batch_norm_1", edit("body.3/running_var", partial(exchanged, a=0, b=1))),
    ("dl1", "body.5, linear_1", edit("body.5/weight", lambda x: x * np.float32(1.0001))),
    ("lstm", "lstm, getitem", edit("lstm/R", lambda x: np.roll(x, 3, axis=1))),
    ("lstm", "dense, linear", edit("dense/bias", lambda x: -x)),
    ("two_inputs", "merged, linear_1", edit("merged/bias", lambda x: x + np.float32(0.01))),
]


@pytest.mark.parametrize(("name", "where", "change"), TORCH, ids=[f"{name} {where}" for name, where, _ in TORCH])
def test_a_fault_in_the_graph_of_a_torch_file_is_found_at_its_operator(name, where, change) -> None:
    pytest.importorskip("torch")
    found = held(FIXTURES / "torch" / name / "net.pt2", change)
    assert found.parting is not None
    assert found.parting.where == where


def test_of_two_faults_the_first_is_told() -> None:
    pytest.importorskip("torch")
    path = FIXTURES / "torch" / "lstm" / "net.pt2"
    later, first = edit("head/bias", lambda x: x + 1), edit("lstm/W", lambda x: -x)
    found = held(path, later, first)
    assert found.parting is not None
    assert found.parting.layers == ("lstm",)
    assert not found.parting.alone


def test_a_difference_that_reaches_no_output_is_no_fault(made) -> None:
    """What is added to the steps before the last of a layer that goes no further is not what is wrong."""
    keras = pytest.importorskip("keras")
    tracks = keras.Input((3, 2), name="tracks")
    steps = keras.layers.Dense(4, name="each")(tracks)
    last = keras.layers.Cropping1D((2, 0), name="last")(steps)
    model = keras.Model(tracks, keras.layers.Dense(2, name="head")(keras.layers.Flatten(name="flat")(last)))
    path = made["images"].with_name("cropped.keras")
    model.save(path)

    def earlier(graph: ir.Model) -> None:
        """Add a number to the first two steps of `each`, which `last` leaves out."""
        node = next(n for n in graph.graph if (n.name or "").startswith("each/") and n.outputs[0].meta)
        end = node.outputs[0]
        moved = ir.node("Add", [end, ir.Value(name="step")], name="each/moved")
        shift = np.array([[[1.0]], [[1.0]], [[0.0]]], np.float32).reshape(1, 3, 1)
        graph.graph.initializers["step"] = ir.Value(name="step", const_value=ir.tensor(shift, name="step"))
        moved.replace_input_with(1, graph.graph.initializers["step"])
        moved.outputs[0].name, moved.outputs[0].type = "moved", end.type
        moved.outputs[0].meta.update(end.meta)
        end.meta.clear()
        end.replace_all_uses_with(moved.outputs[0])
        moved.replace_input_with(0, end)
        graph.graph.insert_after(node, moved)

    assert held(path, earlier).parting is None
    found = held(path, earlier, edit("head/bias", lambda x: x + 1))
    assert found.parting is not None
    assert found.parting.where == "head"


def test_where_a_layer_has_no_value_in_the_graph_all_that_may_be_wrong_are_told() -> None:
    """Taking the notes away of what one layer computes leaves two in which the fault may be."""
    pytest.importorskip("torch")

    def forget(model: ir.Model) -> None:
        for node in model.graph:
            if (node.name or "").startswith("body.3/"):
                node.outputs[0].meta.clear()

    found = held(FIXTURES / "torch" / "dl1" / "net.pt2", edit("body.3/bias", lambda x: x + 1), forget)
    assert found.parting is not None
    assert found.parting.layers == ("body.3", "body.5")
    assert found.parting.where == "one of body.3, body.5"


@pytest.fixture
def misread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of torch files takes elu for relu."""
    table = pytest.importorskip("modelhub_torch.reader").TABLE
    monkeypatch.setitem(table, "relu.default", table["elu.default"])


def test_diff_finds_the_layer_that_the_reader_misreads(misread, tmp_path: Path) -> None:
    """Both graphs are of the same wrong reading: no comparison of the two can show it."""
    pytest.importorskip("torch")
    source = FIXTURES / "torch" / "dl1" / "net.pt2"
    convert(source, tmp_path / "net.onnx", check=False)
    found: Diff = diff(source, tmp_path / "net.onnx")
    assert found.verdict == "different"
    assert found.failing == ()
    (layers,) = found.layers
    assert layers.parting is not None
    assert layers.parting.where == "body.2, relu"
    assert layers.parting.nodes == ("Elu",)
    assert found.minimal is not None
    told = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert told["layers"][0]["parting"]["result"] == "relu"


def test_the_folder_holds_the_one_graph_and_what_the_engine_answers(misread, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from modelhub.cli import cli

    source, target, folder = FIXTURES / "torch" / "dl1" / "net.pt2", tmp_path / "net.onnx", tmp_path / "repro"
    convert(source, target, check=False)
    done = CliRunner().invoke(cli, ["diff", str(source), str(target), "--repro", str(folder)])
    assert done.exit_code == 1
    assert "first layer in which torch float64 and the graph read from net.pt2 part" in done.stderr
    assert "body.2, relu" in done.stderr
    session = onnxruntime.InferenceSession(str(folder / "graph_of_source.onnx"))
    given = np.load(folder / "input.npz")
    (answer,) = session.run(None, {slot.name: given[f"source/{slot.name}"] for slot in session.get_inputs()})
    lines = (folder / "answers.txt").read_text().splitlines()
    engine, graph = (np.array(line.partition(": ")[2].partition(": ")[2].split(), float) for line in lines)
    np.testing.assert_allclose(answer[0], graph, rtol=1e-12)
    assert np.abs(engine - graph).max() > 1e-6


def test_an_engine_that_keeps_its_layers_to_itself_is_passed_over() -> None:
    path = FIXTURES / "torch" / "lstm" / "net.json"
    assert layered(path, "lwtnn", Interface.of(read(path)), ReadOptions()) is None


def test_what_is_called_a_layer_twice_is_passed_over() -> None:
    """A value that stands for a result is taken only where it is the only one."""
    pytest.importorskip("torch")

    def twice(model: ir.Model) -> None:
        nodes = list(model.graph)
        nodes[1].outputs[0].meta.update(nodes[0].outputs[0].meta)

    path = FIXTURES / "torch" / "dl1" / "net.pt2"
    assert held(path, twice).compared == held(path).compared - 2


def test_probes_are_cut() -> None:
    model = read(FIXTURES / "torch" / "dl1" / "net.pt2")
    found = held(FIXTURES / "torch" / "dl1" / "net.pt2", edit("body.1/bias", lambda x: x + 1))
    assert found.parting is not None
    assert found.parting.probe.events == 64
    assert any(probe.events > 64 for probe in probes(model, 0))


@pytest.mark.parametrize(("dropout", "causal"), [(0.0, False), (0.0, True), (0.1, False), (0.1, True)])
def test_attention_leaves_masked_keys_out_however_large_the_scores(
    dropout: float, causal: bool, tmp_path: Path
) -> None:
    keras = pytest.importorskip("keras")
    if keras.backend.backend() == "torch":
        pytest.skip("Keras on torch fills the rows of queries without keys otherwise")
    tracks = keras.Input((None, 3), name="tracks")
    x = keras.layers.Masking(name="mask")(tracks)
    x = keras.layers.MultiHeadAttention(2, 3, dropout=dropout, name="attention")(x, x, use_causal_mask=causal)
    model = keras.Model(tracks, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling1D(name="mean")(x)))
    model.save(tmp_path / "model.keras")
    found = held(tmp_path / "model.keras")
    assert found.parting is None
    assert found.compared == found.agreeing == 4


def test_operations_of_a_rebuilt_model_are_not_known_by_the_names_they_get(tmp_path: Path) -> None:
    """Keras cannot load slices from HDF5: the rebuilt model counts them anew, here one less than the file does."""
    keras = pytest.importorskip("keras")
    keras.utils.clear_session()
    event = keras.Input((6,), name="event")
    assert event[:, :1].shape == (None, 1)
    both = keras.layers.Add(name="both")([event[:, :3], event[:, 3:]])
    keras.Model(event, keras.layers.Dense(2, name="head")(both)).save(tmp_path / "model.h5")
    keras.utils.clear_session()
    found = held(tmp_path / "model.h5")
    assert found.engine.startswith("keras (config adapted)")
    assert found.compared == found.agreeing == 2
