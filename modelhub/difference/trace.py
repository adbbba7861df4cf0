"""A graph with all its intermediate values laid open, run in float64 by onnxruntime.

Inner values of loops and of recurrent layers stay closed: a layer is one node here, as in the graph it was read into.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub import plugins
from modelhub.equivalence.bounds import Bound, bound
from modelhub.errors import Inconclusive, Notice
from modelhub.graph.interface import Interface, Output
from modelhub.graph.precision import to_precision
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    from modelhub.equivalence.probes import Probe
    from modelhub.protocols import Arrays, Engine

__all__ = ["Trace", "Traced", "traced"]

Array = NDArray[Any]
REAL = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@dataclass(frozen=True, eq=False)
class Traced:
    """One batch seen inside a graph: inputs and every value by name, and how far float rounding may move them."""

    values: dict[str, Array]
    tolerances: dict[str, Array]
    undecidable: NDArray[np.bool_]
    """[events] whether rounding may turn a hard decision."""


class Trace:
    """A graph in its engine, with its nodes in order.

    nodes: those whose result is a real number that depends on an input, sources first.
    value: of each, the name of that result.
    """

    def __init__(self, model: ir.Model, opened: Engine, plain: Engine, shaken: Bound | None) -> None:
        self.model = model
        self.interface = Interface.of(model)
        self.nodes = list(_computing(model))
        self.value = {node.name or "": _result(node) for node in self.nodes}
        self._opened = opened
        self._plain = plain
        self._shaken = shaken

    def __call__(self, arrays: Arrays) -> Arrays:
        """Only the outputs of the graph, float64, by tensor name. Raises `Inconclusive`."""
        return self._plain(arrays)

    def inside(self, probe: Probe, precision: str) -> Traced:
        """Every value of `nodes` for one batch, and what rounding at `precision` may do to it."""
        values = {name: np.asarray(x) for name, x in self._opened(probe.arrays).items()}
        given = {name: np.asarray(x, np.float64) for name, x in probe.arrays.items()}
        exact = {name: np.zeros(1) for name in given}
        if self._shaken is None:
            tolerances = {name: 1e-5 * np.maximum(1.0, np.abs(x)) for name, x in values.items()}
            return Traced(given | values, exact | tolerances, np.zeros(probe.events, np.bool_))
        allowed = self._shaken.of(probe, values).allowed(values, precision)
        flags = next(iter(allowed.values())).undecidable
        turned = flags if flags is not None and len(flags) == probe.events else np.zeros(probe.events, np.bool_)
        return Traced(given | values, exact | {name: a.tolerance for name, a in allowed.items()}, turned)


@contextmanager
def traced(model: ir.Model, seed: int) -> Iterator[Trace]:
    """`model`, which stays as it is, ready to be looked into. Raises `Inconclusive` where onnxruntime cannot run it."""
    runtime = plugins.runtime("onnx")
    if runtime is None or not runtime.installed():
        raise Inconclusive("onnxruntime is not installed")
    interface = Interface.of(model)
    opened = model.clone()
    known = {output.tensor for output in interface.outputs}
    extra = [name for node in _computing(opened) if (name := _result(node)) not in known]
    for value in [v for node in opened.graph for v in node.outputs if v.name in set(extra)]:
        opened.graph.outputs.append(value)
    every = replace(interface, outputs=(*interface.outputs, *(Output(name, ("value",)) for name in extra)))
    every.store(opened)
    with TemporaryDirectory(prefix="modelhub-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        folder = Path(name)
        engines = []
        for index, (each, record) in enumerate([(opened, every), (model, interface)]):
            path = folder / f"{index}.onnx"
            path.write_bytes(ir.to_proto(to_precision(each.clone(), "float64")).SerializeToString())
            engines.append(runtime.load(path, record, "float64", ReadOptions()))
        yield Trace(model, engines[0], engines[1], bound(opened, every, folder, seed))


def _computing(model: ir.Model) -> Iterator[ir.Node]:
    """The nodes that compute real numbers from the inputs."""
    alive = {id(value) for value in model.graph.inputs}
    for node in model.graph:
        if any(id(value) in alive for value in node.inputs):
            alive |= {id(value) for value in node.outputs}
            if _result(node) and next(v for v in node.outputs if v.name).dtype in REAL:
                yield node


def _result(node: ir.Node) -> str:
    """The name of the node's first result that has one."""
    return next((value.name for value in node.outputs if value.name), "")
