"""An old model rebuilt with Keras 3's layers: the configuration adapted to today's names, the weights set one by one.

A referee for files that Keras 3 cannot load, or would load with another meaning. It shares with the reader how files
are opened and which layer feeds which, not what a layer computes.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np

from modelhub.errors import Inconclusive
from modelhub_keras.archive import KerasFile
from modelhub_keras.config import Layer, Network, Ref, flat, parse_layer
from modelhub_keras.keras1 import LOST, arrays_today, layer_today
from modelhub_keras.rewriting import rewritten
from modelhub_keras.tensorflow_operations import KINDS, as_operation
from modelhub_keras.weights import NamedWeights, Weights

__all__ = ["rebuild"]


def rebuild(keras: Any, file: KerasFile, precision: str, free: frozenset[str]) -> Any:
    """The model of a file whose weights are in the layout of before Keras 3. Raises `Inconclusive` for others."""
    if not isinstance(file.weights, NamedWeights):
        raise Inconclusive("only the layout of save_weights before Keras 3 is rebuilt")
    builder = _Rebuilder(keras, file, precision)
    model = builder.network(file.network, free)
    builder.set_weights(file.network, file.weights)
    return model


class _Rebuilder:
    def __init__(self, keras: Any, file: KerasFile, precision: str) -> None:
        self.keras = keras
        self.file = file
        self.precision = precision
        self.made: dict[int, Any] = {}

    def network(self, network: Network, free: frozenset[str], name: str | None = None) -> Any:
        """A functional model of `network`, nested ones inside."""
        values: dict[tuple[str, int], list[Any]] = {}
        for name, number in network.order:
            layer = network.layers[name]
            call = layer.calls[number]
            if layer.kind == "InputLayer":
                values[name, number] = [self._input(layer, free)]
                continue
            if layer.operation or layer.kind in KINDS:
                args, kwargs = (_filled(item, values) for item in (call.args, call.kwargs))
                values[name, number] = [self._operation(layer, args, kwargs)]
                continue
            xs = [values[ref.layer, ref.call][ref.tensor] for ref in flat(call.args)]
            kwargs = {key: _filled(value, values) for key, value in call.kwargs.items() if key != "training"}
            if id(layer) not in self.made:
                self.made[id(layer)] = self._layer(layer)
            result = self.made[id(layer)](xs if len(xs) > 1 else xs[0], **kwargs)
            values[name, number] = list(result) if isinstance(result, list | tuple) else [result]
        inputs = [values[ref.layer, ref.call][0] for ref in network.inputs]
        outputs = [values[ref.layer, ref.call][ref.tensor] for ref in network.outputs]
        return self.keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=name)

    def _input(self, layer: Layer, free: frozenset[str]) -> Any:
        shape = list(layer.config.get("batch_shape") or layer.config.get("batch_input_shape") or [None, None])
        if layer.name in free:
            shape[1] = None
        dtype = str(layer.config.get("dtype") or self.precision)
        return self.keras.Input(
            batch_shape=[None, *shape[1:]], dtype=self.precision if "float" in dtype else dtype, name=layer.name
        )

    def _operation(self, layer: Layer, args: list[Any], kwargs: dict[str, Any]) -> Any:
        kind, options = layer.kind, {key: value for key, value in layer.config.items() if key != "name"}
        if kind in KINDS:
            kind, args, kwargs = as_operation(layer, args, kwargs)
            options = {}
        if kind == "GetItem":
            return args[0][tuple(args[1]) if isinstance(args[1], list) else args[1]]
        options |= kwargs
        if str(options.get("dtype")).startswith("float"):
            options["dtype"] = self.precision
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
        return getattr(self.keras.ops, name)(*args, **options)

    def _layer(self, layer: Layer) -> Any:
        if layer.network is not None:
            return self.network(layer.network, frozenset(), layer.name)
        if self.file.version < (2,):
            layer = layer_today(layer)
            if layer.kind in LOST:
                return LOST[layer.kind](self.keras, {**layer.config, "dtype": self.precision})
        kind = getattr(self.keras.layers, layer.kind, None)
        if kind is None:
            raise Inconclusive(f"Keras {self.keras.__version__} has no layer {layer.kind}")
        config = rewritten({"config": layer.config}, self.precision, frozenset())["config"]
        known = set(inspect.signature(kind.__init__).parameters)
        options = {key: value for key, value in config.items() if key in known and not _of_training(key)}
        for key in ("layer", "backward_layer"):
            if isinstance(options.get(key), dict):
                options[key] = self._layer(parse_layer(options[key], 0, self.file.where, 0))
        for key in ("activation", "recurrent_activation"):
            if key in options:
                options[key] = self._activation(options[key])
        if layer.kind == "BatchNormalization" and isinstance(options.get("axis"), list):
            (options["axis"],) = options["axis"]
        if layer.kind == "GRU":
            options["reset_after"] = layer.config.get("reset_after", False) is True
        return kind(**options, name=layer.name, dtype=self.precision)

    def _activation(self, given: Any) -> Any:
        if isinstance(given, dict):
            return self._layer(parse_layer(given, 0, self.file.where, 0))
        if given == "hard_sigmoid" and self.file.version < (3,):
            return lambda x: self.keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
        return given

    def set_weights(self, network: Network, weights: Weights) -> None:
        """Every layer's arrays, in the order of the file, which is Keras's own."""
        for layer in network.layers.values():
            if layer.network is not None:
                self.set_weights(layer.network, weights.of(network, layer))
            elif id(layer) in self.made:
                found = weights.of(network, layer)
                arrays = found.all()
                if self.file.version < (2,):
                    names = [name for name, _ in found.entries] if isinstance(found, NamedWeights) else []
                    arrays = arrays_today(layer.kind, names, arrays)
                if self.file.backend == "theano" and re.fullmatch(r"Conv[123]D", layer.kind):
                    arrays[0] = np.flip(arrays[0], axis=tuple(range(arrays[0].ndim - 2)))
                if arrays:
                    self.made[id(layer)].set_weights(arrays)
                if hasattr(self.made[id(layer)], "finalize_state"):
                    self.made[id(layer)].finalize_state()  # Normalization keeps what it divides by


def _of_training(key: str) -> bool:
    return key.endswith(("initializer", "regularizer", "constraint")) or key in ("name", "dtype", "trainable")


def _filled(item: Any, values: dict[tuple[str, int], list[Any]]) -> Any:
    if isinstance(item, Ref):
        return values[item.layer, item.call][item.tensor]
    if isinstance(item, dict):
        return {key: _filled(part, values) for key, part in item.items()}
    return [_filled(part, values) for part in item] if isinstance(item, list) else item
