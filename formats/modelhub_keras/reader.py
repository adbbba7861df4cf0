"""A Keras file as a common graph: the topology walked call by call, each layer's function writing its operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from modelhub.errors import UnreadableFile, Unsupported, notice, safe_text
from modelhub.files import LIMITS
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub_keras import (
    activations,  # noqa: F401  (each enters its layers in the table)
    attention,  # noqa: F401
    convolution,  # noqa: F401
    layers,  # noqa: F401
    merging,  # noqa: F401
    operations,
    operations_shape,  # noqa: F401
    pooling,  # noqa: F401
    recurrent,  # noqa: F401
    tensorflow_operations,
    wrappers,  # noqa: F401
)
from modelhub_keras.archive import KerasFile, open_file
from modelhub_keras.config import Call, Layer, Network, Ref, flat
from modelhub_keras.step import LARGEST, LAYERS, Dim, Lengths, NeedsLength, Step, Tensor, numbered
from modelhub_keras.weights import Weights

if TYPE_CHECKING:
    from modelhub.protocols import ReadOptions

__all__ = ["Walk", "read", "survey"]


def read(path: Path, options: ReadOptions) -> ir.Model:
    """The model in a Keras file of any version; architecture JSON takes its weights from `options.weights`.

    Raises `UnreadableFile`, `Unsupported` naming each offending layer, or `UsageError` when the other file is missing.
    """
    with open_file(path, options.weights) as file:
        model, walk = _walked(file)
    for text in file.notices:
        notice(text)
    for text, names in walk.told.items():
        notice(f"{', '.join(dict.fromkeys(names))}: {text}")
    return model


def survey(file: KerasFile) -> tuple[frozenset[str], bool]:
    """The sequence inputs of fixed length whose steps no layer counts, and whether any layer joins masked tensors."""
    _, walk = _walked(file)
    return walk.fixable - walk.fixed, walk.joins_masks


def _walked(file: KerasFile) -> tuple[ir.Model, Walk]:
    """The graph, with only those numbers of steps fixed that a layer needs."""
    fixed: frozenset[str] = frozenset()
    try:
        _refuse_strangers(file.network, file.where)
        while True:
            walk = Walk(file, fixed)
            try:
                return walk.model(), walk
            except NeedsLength as need:
                fixed |= need.inputs
    except RecursionError:
        raise UnreadableFile(f"{file.where}: nested too deeply") from None
    except OverflowError:
        raise UnreadableFile(f"{file.where}: a number in the architecture is too large") from None


def _refuse_strangers(network: Network, where: str) -> None:
    """Refuse every layer class that is not in the table, all at once."""
    reasons = [_reason(layer) for layer in _all_layers(network) if layer.stranger is not None or not _known(layer)]
    if reasons:
        raise Unsupported(f"{where} cannot be read", reasons)


def _known(layer: Layer) -> bool:
    if layer.operation:
        return layer.kind in operations.OPERATIONS
    if layer.kind in tensorflow_operations.KINDS:
        return layer.config.get("function") in tensorflow_operations.FUNCTIONS
    return layer.network is not None or layer.kind == "InputLayer" or layer.kind in LAYERS


def _reason(layer: Layer) -> str:
    if layer.stranger is not None:
        origin = safe_text(layer.stranger)
        return f"{layer.where}: this class comes from {origin}, not from Keras; bring the model as ONNX"
    if layer.kind in ("Lambda", "TFOpLambda", "SlicingOpLambda"):
        return f"{layer.where}: holds a function of its own; rebuild it from layers, or bring the model as ONNX"
    if layer.kind.startswith("CuDNN"):
        return f"{layer.where}: keeps its weights in an order of its own; save the model with {layer.kind[5:]} instead"
    return f"{layer.where}: no layer of this class is known; bring the model as ONNX"


def _all_layers(network: Network) -> list[Layer]:
    found = []
    waiting = [network]
    while waiting:
        for layer in waiting.pop().layers.values():
            if layer.network is None:
                found.append(layer)
            else:
                waiting.append(layer.network)
    return found


class Walk:
    """One walk over a network; `fixed` names the sequence inputs whose number of steps stays a number."""

    def __init__(self, file: KerasFile, fixed: frozenset[str]) -> None:
        self.file = file
        self.where = file.where
        self.version = file.version
        self.backend = file.backend
        self.dtype = np.dtype(file.precision)
        self.b = Builder()
        self.lengths = Lengths()
        self.fixed = fixed
        self.fixable: frozenset[str] = frozenset()
        self.told: dict[str, list[str]] = {}
        self.joins_masks = False
        self.categories: dict[ir.Value, int] = {}

    def model(self) -> ir.Model:
        """The graph with its interface record."""
        network = self.file.network
        inputs = [self._input(network.layers[ref.layer]) for ref in network.inputs]
        outputs = self.run(network, inputs, self.file.weights)
        taken = {x.value.name or "" for x in inputs}
        records = []
        for tensor, ref in zip(outputs, network.outputs, strict=True):
            name = _distinct(self._output_name(ref), taken)
            width = self._width(tensor, name)
            labels = tuple(f"out_{i}" for i in range(width))
            dtype = {"f": self.dtype.name, "i": "int64", "b": "bool"}[tensor.kind]
            self.b.output(tensor.value, name, tensor.shape, dtype)
            records.append(Output(name, labels, sequence=tensor.rank == 3))
        interface = Interface(tuple(self._record(x) for x in inputs), tuple(records), invented=True)
        model = self.b.finish(interface, name=network.name)
        common.RemoveUnusedNodesPass()(model)
        return model

    def _output_name(self, ref: Ref) -> str:
        """As lwtnn names them: the layer and the number of its call (lwtnn: converters/kerasfunc2json.py)."""
        return f"{ref.layer}_{ref.call}" + (f"_{ref.tensor}" if ref.tensor else "")

    def _input(self, layer: Layer) -> Tensor:
        """A graph input for an input layer."""
        shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
        if not isinstance(shape, list) or len(shape) < 1 or any(not _is_length(dim) for dim in shape[1:]):
            raise UnreadableFile(
                f"{self.where}, {layer.where}: the file does not say how many features go in "
                f"(a network that was saved before it was built)"
            )
        dtype = str(layer.config.get("dtype") or layer.config.get("input_dtype") or self.dtype)
        kind = "i" if "int" in dtype else "b" if dtype == "bool" else "f"
        if dtype == "string":
            raise Unsupported(f"{self.where}, {layer.where}: takes text; only numbers are read")
        dims: list[Dim] = ["N"]
        for axis, dim in enumerate(shape[1:], start=1):
            # [events, steps] is a sequence of one variable: an index to be embedded, mostly.
            steps = axis == 1 and (len(shape) == 3 or (len(shape) == 2 and dim is None))
            if steps and (dim is None or layer.name not in self.fixed):
                dims.append(self.lengths.root(layer.name))
                if dim is not None:
                    self.fixable |= {layer.name}
            else:
                dims.append(f"D{axis}_{layer.name}" if dim is None else dim)
        value = self.b.input(layer.name, dims, {"f": self.dtype.name, "i": "int64", "b": "bool"}[kind])
        return Tensor(value, tuple(dims), kind)

    def tell(self, layer: Layer, text: str) -> None:
        """Keep something the user should know of a layer, to be told once for all layers it is true of."""
        self.told.setdefault(text, []).append(safe_text(layer.name))

    def _width(self, x: Tensor, name: str) -> int:
        """How many components the last axis has, to be named one by one."""
        width = x.width if x.rank > 1 and isinstance(x.width, int) else 1
        if width > LIMITS.members:
            raise Unsupported(
                f"{self.where}: {safe_text(name)} has {width} components; named are up to {LIMITS.members}"
            )
        return width

    def _record(self, x: Tensor) -> Input:
        name = x.value.name or ""
        width = self._width(x, name)
        categories = self.categories.get(x.value)
        features = tuple(Feature(f"{name}_{index}", categories=categories) for index in range(width))
        if x.rank != 3 and (x.rank != 2 or isinstance(x.shape[1], int)):
            return Input(name, features)
        steps = x.shape[1]
        if isinstance(steps, int):
            return Input(name, features, sequence=True, min_length=steps, max_length=steps)
        (source,) = self.lengths.inputs(steps)
        return Input(name, features, sequence=True, min_length=self.lengths.least.get(source, 0))

    def run(self, network: Network, inputs: Sequence[Tensor], weights: Weights) -> list[Tensor]:
        """The outputs of `network` for `inputs`, in its order."""
        if len(inputs) != len(network.inputs):
            raise UnreadableFile(
                f"{self.where}: the network {safe_text(network.name)!r} takes {len(network.inputs)} inputs, "
                f"and gets {len(inputs)}"
            )
        made: dict[tuple[str, int], list[Tensor]] = {}
        for ref, tensor in zip(network.inputs, inputs, strict=True):
            made[ref.layer, ref.call] = [tensor]
        for name, number in network.order:
            layer = network.layers[name]
            if (name, number) in made:
                continue
            if layer.kind == "InputLayer":
                continue
            with self.b.scope(name):
                made[name, number] = self._call(network, layer, layer.calls[number], made, weights)
                for index, tensor in enumerate(made[name, number] if len(layer.calls) == 1 else []):
                    self.b.result_of(numbered(self.b.path, index), tensor.value)
        return [self._made(ref, made, self.where) for ref in network.outputs]

    def _call(
        self,
        network: Network,
        layer: Layer,
        call: Call,
        made: dict[tuple[str, int], list[Tensor]],
        weights: Weights,
    ) -> list[Tensor]:
        where = f"{self.where}, {layer.where}"

        def tensors(item: Any) -> Any:
            if isinstance(item, Ref):
                return self._made(item, made, where)
            if isinstance(item, dict):
                return {key: tensors(part) for key, part in item.items()}
            return [tensors(part) for part in item] if isinstance(item, list) else item

        kwargs = tensors(call.kwargs)
        if layer.operation or layer.kind in tensorflow_operations.KINDS:
            step = Step(self, layer, weights, kwargs)
            function = operations.apply if layer.operation else tensorflow_operations.apply
            return function(step, tensors(call.args))
        xs = [self._made(ref, made, where) for ref in flat(call.args)]
        return self.apply(Step(self, layer, weights.of(network, layer), kwargs), xs)

    def _made(self, ref: Ref, made: dict[tuple[str, int], list[Tensor]], where: str) -> Tensor:
        outputs = made.get((ref.layer, ref.call), [])
        if ref.tensor >= len(outputs):
            raise UnreadableFile(f"{where}: {safe_text(ref.layer)!r} has no output number {ref.tensor}")
        return outputs[ref.tensor]

    def apply(self, step: Step, xs: Sequence[Tensor]) -> list[Tensor]:
        """One layer, or a network as a layer, on its inputs."""
        layer, kwargs = step.layer, step.kwargs
        if kwargs.pop("training", None):
            step.refuse("is called with training=True, so its outputs are random")
        mask = kwargs.pop("mask", None)
        masks = mask if isinstance(mask, list) else [mask]
        xs = [_masked(x, masks[place] if place < len(masks) else None) for place, x in enumerate(xs)]
        if layer.network is not None:
            return self.run(layer.network, xs, step.all_weights)
        entry = LAYERS.get(layer.kind) if layer.stranger is None else None
        if entry is None:
            raise Unsupported(f"{self.where} cannot be read", [_reason(layer)])
        if not xs or (len(xs) > 1 and not entry.many):
            step.damaged(f"gets {len(xs)} inputs")
        result = entry.function(step, *xs)
        step.options.finish()
        for name, value in kwargs.items():
            if value is not None:
                step.refuse(f"is called with {safe_text(name)}, which is not understood")
        outputs = result if isinstance(result, list) else [result]
        if any(isinstance(dim, int) and dim > LARGEST for output in outputs for dim in output.shape):
            step.damaged(f"makes an axis of more than {LARGEST} numbers")
        if entry.masks == "own":
            return outputs
        if entry.masks == "none" and xs[0].mask is not None:
            self.tell(layer, "the mask of the input is dropped, as Keras does")
        kept = xs[0].mask if entry.masks == "pass" else None
        return [_masked_by(output, kept) for output in outputs]


def _distinct(wish: str, taken: set[str]) -> str:
    """`wish`, numbered where it is taken: an output may be given twice, or be called like an input."""
    name, count = wish, 2
    while name in taken:
        name, count = f"{wish}_{count}", count + 1
    taken.add(name)
    return name


def _is_length(dim: Any) -> bool:
    return dim is None or (isinstance(dim, int) and not isinstance(dim, bool) and dim > 0)


def _masked(x: Tensor, mask: Any) -> Tensor:
    """`x` with the mask a call gives it by name; without one it keeps its own."""
    return _masked_by(x, mask.value) if isinstance(mask, Tensor) else x


def _masked_by(x: Tensor, mask: ir.Value | None) -> Tensor:
    return replace(x, mask=mask)
