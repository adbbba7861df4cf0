"""Keras 1 told in the words of Keras 3, for the referee: classes, options, and the order of a layer's arrays.

(Keras 1: layers/core.py, recurrent.py, normalization.py, engine/topology.py.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import Inconclusive
from modelhub_keras.config import Layer

__all__ = ["LOST", "arrays_today", "layer_today"]

KINDS = {"TimeDistributedDense": "Dense"}
SAME = [
    "Activation",
    "BatchNormalization",
    "Bidirectional",
    "Dense",
    "Dropout",
    "ELU",
    "Embedding",
    "Flatten",
    "GRU",
    "GaussianNoise",
    "LSTM",
    "LeakyReLU",
    "Masking",
    "Permute",
    "RepeatVector",
    "Reshape",
    "SimpleRNN",
    "TimeDistributed",
]
MERGES = {"concat": "Concatenate", "sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum"}
OPTIONS = {
    "bias": "use_bias",
    "concat_axis": "axis",
    "inner_activation": "recurrent_activation",
    "p": "rate",
}
GATES = {"GRU": "zrh", "LSTM": "ifco"}


def layer_today(layer: Layer) -> Layer:
    """A layer of Keras 1 as Keras 3 would describe it."""
    kind, config = KINDS.get(layer.kind, layer.kind), dict(layer.config)
    if kind == "Merge" and config.get("mode") in MERGES:
        kind = MERGES[config["mode"]]
    elif kind not in SAME and kind not in LOST:
        raise Inconclusive(f"{kind} of Keras 1 is not rebuilt")
    if kind != "Embedding" and "output_dim" in config:
        config["units"] = config.pop("output_dim")
    config = {OPTIONS.get(key, key): value for key, value in config.items()}
    if isinstance(config.get("layer"), dict):
        inner = config["layer"]
        told = layer_today(Layer(layer.name, inner["class_name"], inner["config"], layer.where))
        config["layer"] = {"class_name": told.kind, "config": told.config}
    return replace(layer, kind=kind, config=config)


def arrays_today(kind: str, names: list[str], arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Arrays in today's order: the gates of a recurrent layer, which Keras 1 may keep apart, side by side."""
    gates = GATES.get(kind, "")
    if not gates or len(arrays) != 3 * len(gates):
        return arrays
    by_name = {re.sub(r":0$", "", name)[-3:]: array for name, array in zip(names, arrays, strict=True)}
    return [np.concatenate([by_name[f"{letter}_{gate}"] for gate in gates], axis=-1) for letter in "WUb"]


def _maxout(keras: Any, options: dict[str, Any]) -> Any:
    class Maxout(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            pieces, units = options["nb_feature"], options["units"]
            self.W = self.add_weight(shape=(pieces, shape[-1], units))
            self.b = self.add_weight(shape=(pieces, units))

        def call(self, x: Any) -> Any:
            return keras.ops.max(keras.ops.einsum("ni,kio->nko", x, self.W) + self.b, axis=1)

    return Maxout(dtype=options["dtype"])


def _highway(keras: Any, options: dict[str, Any]) -> Any:
    class Highway(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            square = (shape[-1], shape[-1])
            self.W, self.b = self.add_weight(shape=square), self.add_weight(shape=square[:1])
            self.W_carry, self.b_carry = self.add_weight(shape=square), self.add_weight(shape=square[:1])

        def call(self, x: Any) -> Any:
            gate = keras.ops.sigmoid(x @ self.W_carry + self.b_carry)
            return gate * keras.activations.get(options["activation"])(x @ self.W + self.b) + (1 - gate) * x

    return Highway(dtype=options["dtype"])


LOST: dict[str, Callable[[Any, dict[str, Any]], Any]] = {"MaxoutDense": _maxout, "Highway": _highway}
"""Layers that Keras no longer has, written with its operations; called with Keras and the layer's options."""
