"""What the tests of the lwtnn writer share: write a small graph, run the file, compare with an ONNX engine.

The referee is onnxruntime on the same graph in float64; where it has no float64 kernel, ONNX's
own reference implementation; and where that ignores attributes (the activations of recurrent operators), onnxruntime
in float32. The file is run by `modelhub_lwtnn.engine`, which knows nothing of the writer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

from modelhub.graph.builder import Builder
from modelhub.graph.canonical import canonical, inline_all
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.precision import to_precision
from modelhub.protocols import WriteOptions
from modelhub_lwtnn import engine, parse, wiring, writer

NO_DOUBLE = {"Conv", "GRU", "GlobalAveragePool", "LSTM", "PRelu", "RNN"}
"""Operators without a float64 kernel in onnxruntime: the hub spells them out in others, ONNX's reference runs them."""

EVENTS = 7
STEPS = 5


class Net(Builder):
    """A builder in float64 with random weights; its graphs are canonical, or as they were built if not `tidy`."""

    def __init__(self, seed: int = 1, *, tidy: bool = True) -> None:
        super().__init__()
        self.tidy = tidy
        self.random = np.random.default_rng(seed)

    def vector(self, width: int = 4, name: str = "x") -> ir.Value:
        return self.input(name, ["N", width], "float64")

    def sequence(self, width: int = 4, name: str = "tracks", length: int | str = "T") -> ir.Value:
        return self.input(name, ["N", length, width], "float64")

    def normal(self, *shape: int) -> ir.Value:
        return self.constant(self.random.normal(size=shape), "weight")

    def number(self, *values: float) -> ir.Value:
        return self.constant(np.array(values if len(values) > 1 else values[0]), "number")

    def dense(self, x: ir.Value, inside: int, outside: int) -> ir.Value:
        return self.op("Gemm", x, self.normal(outside, inside), self.normal(outside), transB=1)

    def done(self, *outputs: ir.Value, widths: list[int] | None = None) -> ir.Model:
        """The model with outputs y0, y1, ...; a record is invented from shapes, so rank and width must be told."""
        records = []
        for i, value in enumerate(outputs):
            self.output(value, f"y{i}", None, "float64")
        model = self.finish()
        canonical(inferred := model if self.tidy else model.clone())
        for i, value in enumerate(inferred.graph.outputs):
            dims = list(value.shape) if value.shape is not None else ["N", widths[i]]
            labels = tuple(f"label_{k}" for k in range(widths[i] if widths else dims[-1]))
            records.append(Output(f"y{i}", labels, sequence=len(dims) == 3))
        inputs = tuple(
            Input(v.name, tuple(Feature(f"{v.name}_{k}") for k in range(v.shape[-1])), sequence=len(v.shape) == 3)
            for v in model.graph.inputs
        )
        Interface(inputs, tuple(records)).store(model)
        return model


def written(model: ir.Model, path: Path, form: str | None = None) -> dict[str, Any]:
    """The JSON the writer makes of `model`."""
    writer.write(model.clone(), path, WriteOptions(form=form))
    return json.loads(path.read_text())


def events(model: ir.Model, seed: int = 2, steps: int = STEPS, spread: float = 2.0) -> dict[str, np.ndarray]:
    """Random inputs for every graph input."""
    random = np.random.default_rng(seed)
    arrays = {}
    for value in model.graph.inputs:
        sizes = [EVENTS, *(d if isinstance(d, int) else steps for d in list(value.shape)[1:])]
        arrays[value.name] = random.normal(size=sizes) * spread
    return arrays


def referee(model: ir.Model, arrays: dict[str, np.ndarray], precision: str = "float64") -> list[np.ndarray]:
    """What an ONNX engine computes; in "unrolled" it is onnxruntime in float64 for operators of `NO_DOUBLE` too."""
    model = inline_all(model.clone())
    if precision == "float64" and {node.op_type for node in model.graph} & NO_DOUBLE:
        return ReferenceEvaluator(ir.to_proto(model)).run(None, arrays)
    if precision == "float32":
        arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    proto = ir.to_proto(to_precision(model, precision.replace("unrolled", "float64"))).SerializeToString()
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # it fails on Relu, Clip
    return onnxruntime.InferenceSession(proto, settings, providers=["CPUExecutionProvider"]).run(None, arrays)


def answer(path: Path, model: ir.Model, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What lwtnn would compute from the file, output by output of `model`."""
    record = Interface.of(model)
    network = wiring.as_graph(parse.read(path))
    vectors = [arrays[i.tensor] for i in record.inputs if not i.sequence]
    sequences = [arrays[i.tensor] for i in record.inputs if i.sequence]
    wanted = []
    for output in record.outputs:
        found = network.outputs.get(output.name) or network.outputs[wiring.OUTPUT]
        wanted.append(wiring.Answer(output.name, found.labels, found.node, output.sequence))
    return engine.evaluate(network, vectors, sequences, wanted)


def agree(
    model: ir.Model,
    path: Path,
    tolerance: float = 1e-12,
    *,
    form: str | None = None,
    precision: str = "float64",
    reverse: bool = False,
    **how: Any,
) -> dict[str, Any]:
    """Write `model`, run file and graph on the same events, and demand the same numbers. Returns the JSON.

    `reverse` says that the record lists the outputs backwards.
    """
    data = written(model, path, form)
    arrays = events(model, **how)
    results = referee(model, arrays, precision)
    for told, computed in zip(results[::-1] if reverse else results, answer(path, model, arrays), strict=True):
        assert told.size
        np.testing.assert_allclose(computed.reshape(told.shape), told, rtol=tolerance, atol=tolerance)
    return data


def kinds(data: dict[str, Any]) -> list[str]:
    """Node types of a graph file, the layer's architecture where there is one."""
    return [
        data["layers"][node["layer_index"]]["architecture"] if "layer_index" in node else node["type"]
        for node in data["nodes"]
    ]


Build = Callable[[Net], ir.Model]
