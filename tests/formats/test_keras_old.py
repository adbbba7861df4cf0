"""Files of Keras 1 and of the backend Theano, written here as those wrote them, against their own formulas in numpy.

No engine for them can be installed any more; the formulas are those of Keras 1's layers/recurrent.py, layers/core.py,
layers/convolutional.py and engine/topology.py, spelled out step by step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from modelhub.errors import UnreadableFile, Unsupported
from modelhub.graph.interface import Interface
from modelhub.graph.precision import to_precision
from modelhub.protocols import ReadOptions
from modelhub_keras import Importer

Weights = dict[str, dict[str, np.ndarray]]
RNG = np.random.default_rng(2)


def write(folder: Path, config: Any, weights: Weights, version: str | None, backend: str | None) -> tuple[Path, Path]:
    """An architecture and weights as Keras 1 saved them; the weights of each layer in the order given."""
    architecture = {"class_name": "Sequential" if isinstance(config, list) else "Model", "config": config}
    if version is not None:
        architecture |= {"keras_version": version}
    (folder / "arch.json").write_text(json.dumps(architecture))
    with h5py.File(folder / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in weights]
        if backend is not None:
            file.attrs["backend"] = backend.encode()
        for layer, arrays in weights.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, array in arrays.items():
                group[name] = array
    return folder / "arch.json", folder / "weights.h5"


def answer(files: tuple[Path, Path], *arrays: np.ndarray) -> np.ndarray:
    """What the graph computes in float64."""
    path, weights = files
    model = to_precision(Importer().read(path, ReadOptions(weights=weights)), "float64")
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    given = zip(session.get_inputs(), arrays, strict=True)
    feeds = {i.name: x.astype("int64" if "int" in i.type else "float64") for i, x in given}
    (result,) = session.run(None, feeds)
    return result


def draw(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype("float32")


def gates(layer: str, names: str, width: int, units: int) -> dict[str, np.ndarray]:
    """The three arrays of each gate, in the order of `names`."""
    arrays = {}
    for gate in names:
        arrays |= {f"{layer}_W_{gate}": draw(width, units), f"{layer}_U_{gate}": draw(units, units)}
        arrays[f"{layer}_b_{gate}"] = draw(units)
    return arrays


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(0.2 * x + 0.5, 0, 1)


def layer(kind: str, name: str, **options: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, "trainable": True, **options}}


RECURRENT = {"output_dim": 3, "activation": "tanh", "inner_activation": "hard_sigmoid", "return_sequences": True}


def lstm(w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    h = c = np.zeros((len(x), 3))
    out = []
    for t in range(x.shape[1]):
        i, f, g, o = (x[:, t] @ w[f"lstm_1_W_{k}"] + h @ w[f"lstm_1_U_{k}"] + w[f"lstm_1_b_{k}"] for k in "ifco")
        c = hard_sigmoid(f) * c + hard_sigmoid(i) * np.tanh(g)
        h = hard_sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out, axis=1)


@pytest.mark.parametrize("suffix", ["", ":0"])
@pytest.mark.parametrize("order", ["icfo", "ifco"])
def test_lstm_with_gates_apart(order: str, suffix: str, tmp_path: Path) -> None:
    """Names tell the gates, in whichever order a version of Keras 1 lists them."""
    w = gates("lstm_1", order, 2, 3)
    config = [
        layer("LSTM", "lstm_1", batch_input_shape=[None, 5, 2], consume_less="cpu", go_backwards=False, **RECURRENT)
    ]
    files = write(tmp_path, config, {"lstm_1": {name + suffix: a for name, a in w.items()}}, "1.2.2", "tensorflow")
    x = draw(4, 5, 2)
    np.testing.assert_allclose(answer(files, x), lstm({k: v.astype(float) for k, v in w.items()}, x), rtol=1e-12)


def test_lstm_with_gates_together(tmp_path: Path) -> None:
    """`consume_less="gpu"` keeps the gates side by side, in the order i, f, c, o."""
    w = gates("lstm_1", "ifco", 2, 3)
    joined = {f"lstm_1_{k}": np.concatenate([w[f"lstm_1_{k}_{g}"] for g in "ifco"], axis=-1) for k in "WUb"}
    config = [layer("LSTM", "lstm_1", batch_input_shape=[None, None, 2], consume_less="gpu", **RECURRENT)]
    files = write(tmp_path, config, {"lstm_1": joined}, "1.1.0", "theano")
    x = draw(4, 5, 2)
    np.testing.assert_allclose(answer(files, x), lstm({k: v.astype(float) for k, v in w.items()}, x), rtol=1e-12)


def test_gru_with_gates_apart(tmp_path: Path) -> None:
    w = gates("gru_1", "zrh", 2, 3)
    config = [layer("GRU", "gru_1", batch_input_shape=[None, None, 2], **RECURRENT)]
    x, h = draw(4, 5, 2), np.zeros((4, 3))
    expected = []
    for t in range(5):
        part = {k: x[:, t] @ w[f"gru_1_W_{k}"].astype(float) + w[f"gru_1_b_{k}"] for k in "zrh"}
        z, r = (hard_sigmoid(part[k] + h @ w[f"gru_1_U_{k}"]) for k in "zr")
        h = z * h + (1 - z) * np.tanh(part["h"] + (r * h) @ w["gru_1_U_h"])
        expected.append(h)
    files = write(tmp_path, config, {"gru_1": w}, "1.0.8", "theano")
    np.testing.assert_allclose(answer(files, x), np.stack(expected, axis=1), rtol=1e-12)


def test_simple_rnn_and_dense_of_steps(tmp_path: Path) -> None:
    w = {"rnn_W": draw(2, 3), "rnn_U": draw(3, 3), "rnn_b": draw(3)}
    d = {"dense_W": draw(3, 2), "dense_b": draw(2)}
    config = [
        layer("SimpleRNN", "rnn", input_dim=2, batch_input_shape=[None, None, 2], output_dim=3, activation="relu",
              return_sequences=True, dropout_W=0.1, dropout_U=0.0),
        layer("TimeDistributedDense", "dense", output_dim=2, activation="linear", bias=True),
    ]  # fmt: skip
    x, h, expected = draw(4, 5, 2), np.zeros((4, 3)), []
    for t in range(5):
        h = np.maximum(x[:, t] @ w["rnn_W"].astype(float) + h @ w["rnn_U"] + w["rnn_b"], 0)
        expected.append(h @ d["dense_W"] + d["dense_b"])
    files = write(tmp_path, config, {"rnn": w, "dense": d}, "1.0.1", None)
    np.testing.assert_allclose(answer(files, x), np.stack(expected, axis=1), rtol=1e-12)


def convolved(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Every window of `x` [N, T, in] times `kernel` [steps, in, out], the first step of both together."""
    steps = kernel.shape[0]
    windows = [np.einsum("nki,kio->no", x[:, t : t + steps], kernel) for t in range(x.shape[1] - steps + 1)]
    return np.stack(windows, axis=1) + bias


CONV1 = {"nb_filter": 3, "filter_length": 2, "border_mode": "valid", "subsample_length": 1, "activation": "linear"}


@pytest.mark.parametrize("backend", ["tensorflow", "theano"])
def test_convolution_of_keras_1(backend: str, tmp_path: Path) -> None:
    """Theano convolves in the sense of mathematics: its kernels are turned round."""
    kernel, bias, x = draw(2, 1, 4, 3), draw(3), draw(5, 6, 4)
    config = [layer("Convolution1D", "conv", batch_input_shape=[None, 6, 4], **CONV1)]
    files = write(tmp_path, config, {"conv": {"conv_W": kernel, "conv_b": bias}}, "1.2.2", backend)
    used = kernel[:, 0] if backend == "tensorflow" else kernel[::-1, 0]
    np.testing.assert_allclose(answer(files, x), convolved(x.astype(float), used, bias), rtol=1e-12, atol=1e-13)


def test_convolution_of_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    config = [layer("Convolution1D", "conv", batch_input_shape=[None, 6, 4], **CONV1)]
    files = write(tmp_path, config, {"conv": {"conv_W": draw(2, 1, 4, 3), "conv_b": draw(3)}}, "1.2.2", None)
    with pytest.raises(Unsupported, match="without the name of its backend"):
        answer(files, draw(5, 6, 4))


def test_theano_kernels_of_keras_2_are_turned_round(tmp_path: Path) -> None:
    kernel, bias, x = draw(2, 4, 3), draw(3), draw(5, 6, 4)
    options = {"filters": 3, "kernel_size": [2], "strides": [1], "padding": "valid", "dilation_rate": [1]}
    config = [layer("Conv1D", "conv", batch_input_shape=[None, 6, 4], activation="linear", use_bias=True, **options)]
    files = write(tmp_path, config, {"conv": {"conv/kernel": kernel, "conv/bias": bias}}, "2.0.3", "theano")
    np.testing.assert_allclose(answer(files, x), convolved(x.astype(float), kernel[::-1], bias), rtol=1e-12, atol=1e-13)


def test_images_with_channels_first(tmp_path: Path) -> None:
    """Keras 1's `dim_ordering` "th": tensors [N, channels, rows, columns], kernels [out, in, rows, columns]."""
    kernel, bias, x = draw(3, 2, 2, 2), draw(3), draw(4, 2, 5, 4)
    options = {"nb_filter": 3, "nb_row": 2, "nb_col": 2, "border_mode": "valid", "subsample": [1, 1]}
    options |= {"dim_ordering": "th", "activation": "relu"}
    config = [layer("Convolution2D", "conv", batch_input_shape=[None, 2, 5, 4], **options)]
    files = write(tmp_path, config, {"conv": {"conv_W": kernel, "conv_b": bias}}, "1.2.2", "tensorflow")
    expected = np.zeros((4, 3, 4, 3)) + bias[:, None, None].astype(float)
    for row in range(4):
        for column in range(3):
            window = x[:, :, row : row + 2, column : column + 2].astype(float)
            expected[:, :, row, column] += np.einsum("nirc,oirc->no", window, kernel)
    np.testing.assert_allclose(answer(files, x), np.maximum(expected, 0), rtol=1e-12, atol=1e-13)


def test_branches_joined_at_the_start(tmp_path: Path) -> None:
    """A chain that starts with Merge has an input for each branch (used for embeddings in HEP)."""
    table, dense = draw(5, 2), {"out_W": draw(5, 2), "out_b": draw(2)}
    branches = [
        {"class_name": "Sequential", "config": [
            layer("Embedding", "emb", batch_input_shape=[None, 4], input_dtype="int32", input_dim=5, output_dim=2,
                  input_length=4, mask_zero=False, dropout=0.0)]},
        {"class_name": "Sequential", "config": [
            layer("Activation", "act", batch_input_shape=[None, 4, 3], activation="linear")]},
    ]  # fmt: skip
    merge = {"class_name": "Merge", "config": {
        "name": "merge_1", "layers": branches, "mode": "concat", "mode_type": "raw", "concat_axis": -1, "dot_axes": -1,
        "output_shape": None, "output_shape_type": "raw"}}  # fmt: skip
    config = [
        merge,
        layer("TimeDistributed", "td", layer=layer("Dense", "out", output_dim=2, activation="linear", bias=True)),
    ]
    weights = {"emb": {"emb_W": table}, "act": {}, "merge_1": {}, "td": dense}
    files = write(tmp_path, config, weights, "1.0.5", None)
    ids, x = RNG.integers(0, 5, (3, 4)), draw(3, 4, 3)
    expected = np.concatenate([table[ids].astype(float), x], axis=-1) @ dense["out_W"] + dense["out_b"]
    np.testing.assert_allclose(answer(files, ids, x), expected, rtol=1e-12, atol=1e-13)
    model = Importer().read(files[0], ReadOptions(weights=files[1]))
    assert [i.name for i in Interface.of(model).inputs] == ["emb_input", "act_input"]


def test_a_functional_network_of_keras_1(tmp_path: Path) -> None:
    """Merge between layers, and BatchNormalization of the whole Keras 1.1 with its own names of weights."""
    dense = {"d_W": draw(4, 4), "d_b": draw(4)}
    norm = {"n_gamma": draw(4), "n_beta": draw(4), "n_running_mean": draw(4), "n_running_std": draw(4) ** 2}
    merge = {"name": "m", "layers": [], "mode": "sum", "mode_type": "raw", "concat_axis": -1, "dot_axes": -1}
    entries = [
        {**layer("InputLayer", "x", batch_input_shape=[None, 4], input_dtype="float32"), "inbound_nodes": []},
        {**layer("Dense", "d", output_dim=4, activation="tanh", bias=True), "inbound_nodes": [[["x", 0, 0]]]},
        {"class_name": "Merge", "config": merge, "inbound_nodes": [[["x", 0, 0], ["d", 0, 0]]]},
        {**layer("BatchNormalization", "n", epsilon=0.01, mode=0, axis=-1), "inbound_nodes": [[["m", 0, 0]]]},
        {**layer("Dropout", "o", p=0.5), "inbound_nodes": [[["n", 0, 0]]]},
    ]
    for entry in entries:
        entry["name"] = entry["config"]["name"]
    config = {"name": "net", "layers": entries, "input_layers": [["x", 0, 0]], "output_layers": [["o", 0, 0]]}
    files = write(tmp_path, config, {"x": {}, "d": dense, "m": {}, "n": norm, "o": {}}, "1.1.2", "tensorflow")
    x = draw(5, 4)
    y = x + np.tanh(x @ dense["d_W"].astype(float) + dense["d_b"])
    y = (
        norm["n_gamma"] * (y - norm["n_running_mean"]) / np.sqrt(norm["n_running_std"].astype(float) + 0.01)
        + norm["n_beta"]
    )
    np.testing.assert_allclose(answer(files, x), y, rtol=1e-12, atol=1e-13)


def test_batchnorm_by_the_batch_is_refused(tmp_path: Path) -> None:
    config = [layer("BatchNormalization", "n", batch_input_shape=[None, 4], epsilon=0.01, mode=2, axis=-1)]
    with pytest.raises(Unsupported, match="one event depends on others"):
        answer(write(tmp_path, config, {"n": {}}, "1.2.0", None), draw(2, 4))


def test_a_network_inside_a_network(tmp_path: Path) -> None:
    """The inner layers' weights lie in one list, averages last; their names tell whose they are."""
    w = {"inner/a/kernel:0": draw(4, 3), "inner/a/bias:0": draw(3), "n/gamma:0": draw(3), "n/beta:0": draw(3)}
    w |= {
        "b/kernel:0": draw(3, 3),
        "b/bias:0": draw(3),
        "n/moving_mean:0": draw(3),
        "n/moving_variance:0": draw(3) ** 2,
    }
    inner = [
        layer("Dense", "a", batch_input_shape=[None, 4], units=3, activation="relu", use_bias=True),
        layer("BatchNormalization", "n", axis=-1, epsilon=0.001, center=True, scale=True),
        layer("Dense", "b", units=3, activation="linear", use_bias=True),
    ]
    config = [{"class_name": "Sequential", "config": {"name": "inner", "layers": inner}}]
    files = write(tmp_path, config, {"inner": w}, "2.2.4", "tensorflow")
    x = draw(5, 4)
    y = np.maximum(x @ w["inner/a/kernel:0"].astype(float) + w["inner/a/bias:0"], 0)
    y = (y - w["n/moving_mean:0"]) / np.sqrt(w["n/moving_variance:0"].astype(float) + 0.001)
    y = (w["n/gamma:0"] * y + w["n/beta:0"]) @ w["b/kernel:0"] + w["b/bias:0"]
    np.testing.assert_allclose(answer(files, x), y, rtol=1e-12, atol=1e-13)


def test_a_bias_of_two_rows_tells_the_kind_of_gru(tmp_path: Path) -> None:
    """The configuration says `reset_after: false`, the weights are of the other kind: refused, not guessed."""
    options = {
        "units": 3,
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "use_bias": True,
        "reset_after": False,
    }
    config = [layer("GRU", "g", batch_input_shape=[None, None, 2], **options)]
    w = {"g/kernel:0": draw(2, 9), "g/recurrent_kernel:0": draw(3, 9), "g/bias:0": draw(2, 9)}
    with pytest.raises(UnreadableFile, match="reset_after is False"):
        answer(write(tmp_path, config, {"g": w}, "2.2.4", "tensorflow"), draw(2, 3, 2))
