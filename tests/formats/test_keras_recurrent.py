"""Recurrent layers and masks, made with Keras, against Keras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_making import L, check, keras, randomise, saved

from modelhub.errors import Notice
from modelhub.protocols import ReadOptions
from modelhub_keras import Importer

CELLS = {
    "rnn": L.SimpleRNN,
    "gru": L.GRU,
    "gru before": lambda *a, **k: L.GRU(*a, reset_after=False, **k),
    "lstm": L.LSTM,
}
CHOICES: dict[str, dict[str, Any]] = {
    "last": {},
    "sequence": {"return_sequences": True},
    "backwards": {"go_backwards": True},
    "backwards sequence": {"go_backwards": True, "return_sequences": True},
    "without bias": {"use_bias": False},
    "zeros": {"return_sequences": True, "zero_output_for_mask": True},
}
ACTIVATIONS = ("relu", "linear", "elu", "softsign", "softplus", "leaky_relu", "hard_sigmoid", "sigmoid")


def steps(masked: bool) -> np.ndarray:
    """Sequences of 6 steps; masked ones end, begin and are interrupted by zeros, and one is nothing else."""
    x = np.random.default_rng(0).normal(size=(6, 6, 3)).astype("float32")
    if masked:
        x[1, 4:] = x[2, :3] = x[3, 2:4] = x[4] = 0
        x[5, [0, 2, 5]] = 0
    return x


def network(layers: list[Callable[[], Any]], masked: bool) -> Any:
    x = inputs = keras.Input((None, 3), name="tracks")
    if masked:
        x = L.Masking()(x)
    for layer in layers:
        x = layer()(x)
    return randomise(keras.Model(inputs, x))


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("cell", CELLS)
def test_cell(cell: str, choice: str, masked: bool, tmp_path: Path) -> None:
    model = network([lambda: CELLS[cell](4, **CHOICES[choice])], masked)
    check(model, tmp_path, "keras" if masked else "h5", [steps(masked)])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_cells(activation: str, tmp_path: Path) -> None:
    gates = {} if activation == "linear" else {"recurrent_activation": activation}
    inputs = keras.Input((None, 3), name="tracks")
    cells = [L.LSTM(4, activation=activation), L.GRU(4, activation=activation), L.SimpleRNN(4, activation=activation)]
    cells += [L.LSTM(4, **gates), L.GRU(4, **gates)]
    model = keras.Model(inputs, [cell(inputs) for cell in cells])
    check(randomise(model), tmp_path, "keras", [steps(False)], tolerance=1e-4)


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_bidirectional(mode: str, masked: bool, kind: str, tmp_path: Path) -> None:
    layers = [
        lambda: L.Bidirectional(L.LSTM(4, return_sequences=True), merge_mode=mode),
        lambda: L.Bidirectional(L.GRU(3), merge_mode=mode),
    ]
    check(network(layers, masked), tmp_path, kind, [steps(masked)])


def test_bidirectional_in_two(tmp_path: Path) -> None:
    x = inputs = keras.Input((None, 3), name="tracks")
    ahead, astern = L.Bidirectional(L.LSTM(4), merge_mode=None)(x)
    model = keras.Model(inputs, [ahead, astern])
    check(randomise(model), tmp_path, "keras", [steps(False)])


def test_bidirectional_of_different_layers(tmp_path: Path) -> None:
    layer = L.Bidirectional(L.LSTM(4), backward_layer=L.LSTM(4, activation="relu", go_backwards=True))
    check(network([lambda: layer], True), tmp_path, "keras", [steps(True)])


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_states_out_and_in(masked: bool, tmp_path: Path) -> None:
    tracks, others = keras.Input((None, 3), name="tracks"), keras.Input((None, 3), name="others")
    x = L.Masking()(tracks) if masked else tracks
    _, h, c = L.LSTM(4, return_state=True)(x)
    y, s = L.GRU(4, return_sequences=True, return_state=True)(x)
    z = L.LSTM(4)(others, initial_state=[h, c])
    w = L.SimpleRNN(4)(others, initial_state=s)
    model = keras.Model([tracks, others], [y, z, w])
    check(randomise(model), tmp_path, "keras", [steps(masked), steps(False)])


BETWEEN: dict[str, list[Callable[[], Any]]] = {
    "dense": [lambda: L.Dense(4, activation="relu")],
    "batchnorm": [L.BatchNormalization],
    "layernorm": [L.LayerNormalization],
    "dropout": [lambda: L.Dropout(0.5), lambda: L.SpatialDropout1D(0.5)],
    "activation": [lambda: L.Activation("softmax"), L.ReLU],
    "time distributed": [lambda: L.TimeDistributed(L.Dense(4))],
    "another mask": [lambda: L.Masking(mask_value=-1.0)],
    "rnn": [lambda: L.SimpleRNN(4, return_sequences=True)],
    "chain": [lambda: keras.Sequential([L.Dense(4), L.GRU(3, return_sequences=True)])],
}


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("name", BETWEEN)
def test_masks_pass(name: str, kind: str, tmp_path: Path) -> None:
    """A mask made before layers that pass it on reaches the layers after them."""
    x = steps(True)
    x[0, 1] = -1
    check(network([*BETWEEN[name], lambda: L.LSTM(4)], True), tmp_path, kind, [x])


def test_a_chain_passes_its_mask(tmp_path: Path) -> None:
    layers = [keras.Input((None, 3)), L.Masking(), L.Dense(3), L.LSTM(4, return_sequences=True), L.GRU(2)]
    check(randomise(keras.Sequential(layers)), tmp_path, "keras", [steps(True)])


def test_masked_mean(tmp_path: Path) -> None:
    x = steps(True)[[0, 1, 2, 3, 5]]
    check(network([lambda: L.Dense(4), L.GlobalAveragePooling1D], True), tmp_path, "keras", [x])


def test_embedded_zeros_are_masked(tmp_path: Path) -> None:
    inputs = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(inputs, L.LSTM(3)(L.Embedding(5, 4, mask_zero=True)(inputs)))
    ids = np.random.default_rng(0).integers(0, 5, (8, 7)).astype("int32")
    ids[0] = 0
    check(randomise(model), tmp_path, "keras", [ids])


@pytest.mark.parametrize("join", [L.Add, L.Concatenate, L.Maximum, L.Multiply])
def test_joined_masks(join: Any, tmp_path: Path) -> None:
    """Two sequences masked at different steps; a third without a mask."""
    a, c, d = (keras.Input((6, 3), name=name) for name in "acd")
    masked = join()([L.Masking()(a), L.Masking()(c)])
    free = join()([L.Masking()(a), d])
    model = keras.Model([a, c, d], [L.LSTM(4)(masked), L.LSTM(4)(free)])
    x = steps(True)
    check(randomise(model), tmp_path, "keras", [x, x[::-1].copy(), steps(False)])


def test_sequences_joined_along_steps_keep_their_masks(tmp_path: Path) -> None:
    a, c = keras.Input((6, 3), name="a"), keras.Input((6, 3), name="c")
    joined = L.Concatenate(axis=1)([L.Masking()(a), L.Masking()(c)])
    model = keras.Model([a, c], L.LSTM(4)(joined))
    check(randomise(model), tmp_path, "keras", [steps(True), steps(True)[::-1].copy()])


def test_attention_under_masks(tmp_path: Path) -> None:
    a, c = keras.Input((6, 3), name="a"), keras.Input((5, 3), name="c")
    x = L.MultiHeadAttention(2, 3)(L.Masking()(a), L.Masking()(c))
    model = keras.Model([a, c], L.GlobalAveragePooling1D()(L.LSTM(3, return_sequences=True)(x)))
    x = steps(True)[[0, 1, 2, 3, 5]]
    check(randomise(model), tmp_path, "keras", [x, x[::-1, :5].copy()])


def test_a_dropped_mask_is_told(tmp_path: Path) -> None:
    model = network([lambda: L.Conv1D(4, 2), lambda: L.LSTM(3)], True)
    check(model, tmp_path, "keras", [steps(True)])
    path, _ = saved(model, tmp_path, "keras")
    with pytest.warns(Notice, match="the mask of the input is dropped"):
        Importer().read(path, ReadOptions())
