"""In float64 the graph is Keras to twelve digits: epsilons, slopes and other constants are those Keras has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from keras_making import L, drawn, in_double, keras, randomise, read, saved

from modelhub.graph.interface import Interface
from modelhub.graph.precision import to_precision
from modelhub.protocols import ReadOptions
from modelhub_keras import Runtime

pytestmark = in_double

ACTIVATIONS = [
    "celu",
    "elu",
    "exponential",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "squareplus",
    "tanh",
    "tanh_shrink",
]


def activations() -> Any:
    x = keras.Input((4,), name="x")
    return keras.Model(x, [L.Dense(3, activation=name, name=name)(x) for name in ACTIVATIONS])


def layers() -> Any:
    x, y = keras.Input((4,), name="x"), keras.Input((3, 4), name="y")
    normal = {"mean": [0.1, 0.2, 0.3, 0.4], "variance": [1.1, 0.7, 0.3, 2.2]}
    of_vectors = [
        L.ReLU(max_value=0.7),
        L.ReLU(negative_slope=0.2),
        L.ReLU(negative_slope=0.2, max_value=0.9),
        L.ReLU(negative_slope=0.2, max_value=0.9, threshold=0.3),
        L.LeakyReLU(negative_slope=0.17),
        L.ELU(alpha=0.6),
        L.PReLU(),
        L.BatchNormalization(epsilon=0.1),
        L.LayerNormalization(epsilon=0.1),
        L.Normalization(),
        L.Normalization(**normal),
        L.Normalization(invert=True, **normal),
        L.Rescaling(1 / 255, offset=0.1),
        L.Rescaling([0.1, 0.2, 0.3, 0.4]),
    ]
    of_steps = [L.BatchNormalization(axis=1), L.LayerNormalization(axis=[1, 2]), L.TimeDistributed(L.Dense(2))]
    outputs = [layer(x) for layer in of_vectors] + [layer(y) for layer in of_steps]
    outputs += [
        L.MultiHeadAttention(2, 3)(y, y),
        L.Dot(axes=1, normalize=True)([x, x]),
        L.Average()([x, L.Dense(4)(x), x]),
    ]
    return keras.Model([x, y], outputs)


def recurrent() -> Any:
    y = keras.Input((6, 4), name="y")
    x = L.Masking(mask_value=0.1)(y)
    cells = [L.LSTM(3, recurrent_activation="hard_sigmoid"), L.GRU(3, activation="elu"), L.GRU(3, reset_after=False)]
    cells += [L.SimpleRNN(3, activation="leaky_relu"), L.LSTM(3, activation="relu", return_sequences=True)]
    return keras.Model(y, [cell(source) for cell in cells for source in (x, y)])


@pytest.mark.parametrize("make", [activations, layers, recurrent])
def test_every_digit(make: Any, tmp_path: Path) -> None:
    model = randomise(make())
    path, _ = saved(model, tmp_path, "keras")
    graph = read(path)
    interface = Interface.of(graph)
    arrays = {i.tensor: x.astype("float64") for i, x in zip(interface.inputs, drawn(model), strict=True)}
    answers = Runtime().load(path, interface, "float64", ReadOptions())(arrays)
    session = ort.InferenceSession(ir.to_proto(to_precision(graph, "float64")).SerializeToString())
    for output, ours in zip(interface.outputs, session.run(None, arrays), strict=True):
        np.testing.assert_allclose(ours, answers[output.tensor], rtol=1e-12, atol=1e-13, err_msg=output.name)
