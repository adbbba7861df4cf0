"""A graph with one of its values given: what it would answer if that one were right."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from modelhub import plugins
from modelhub.errors import Inconclusive, Notice
from modelhub.graph.interface import Feature, Input, Interface
from modelhub.graph.precision import to_precision
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelhub.protocols import Arrays

__all__ = ["mended"]


def mended(model: ir.Model, name: str, given: NDArray[Any], arrays: Arrays) -> Arrays:
    """The outputs of `model` in float64 for inputs `arrays`, its value `name` being `given`. Raises `Inconclusive`.

    Before and after::

        x ──► layer ──► rest ──► y          given ──► rest ──► y
    """
    runtime, graph = plugins.runtime("onnx"), model.clone()
    if runtime is None or not runtime.installed():
        raise Inconclusive("onnxruntime is not installed")
    value = next(v for node in graph.graph for v in node.outputs if v.name == name)
    slot = ir.Value(name=f"{name}_given", type=value.type, shape=value.shape)
    value.replace_all_uses_with(slot, replace_graph_outputs=True)
    graph.graph.inputs.append(slot)
    record = Interface.of(model)
    more = Input(slot.name or "", (Feature("given"),))
    outputs = tuple(replace(o, tensor=slot.name or "") if o.tensor == name else o for o in record.outputs)
    wider = replace(record, inputs=(*record.inputs, more), outputs=outputs)
    wider.store(graph)
    with TemporaryDirectory(prefix="modelhub-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        path = Path(folder) / "mended.onnx"
        path.write_bytes(ir.to_proto(to_precision(graph, "float64")).SerializeToString())
        answer = runtime.load(path, wider, "float64", ReadOptions())({**arrays, more.tensor: given})
    return {old.tensor: answer[new.tensor] for old, new in zip(record.outputs, outputs, strict=True)}
