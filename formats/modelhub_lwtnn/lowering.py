"""Common graph -> drafted lwtnn network: a walk over the graph with one small function per ONNX operator.

The walk interprets the graph abstractly: every ONNX value becomes a `Record`, which says which drafted step holds
the numbers and what each axis of the value means. So Transpose, Squeeze, Reshape and the like only move axes. A
function that lowers an operator stands in one of the `lower_*` files:

    @lowers("Relu")
    def relu(op: Op) -> Record:
        return op.activate(op.data(0), "rectified")

What lwtnn cannot say is refused with `raise Refusal("...")`; the walk goes on, and tells all refusals at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir

from modelhub.errors import Unsupported, safe_text
from modelhub.graph.forest_onnx import PREPARED
from modelhub.graph.interface import Input, Interface, Output
from modelhub_lwtnn import (
    lower_activation,
    lower_dense,
    lower_forest,
    lower_mask,
    lower_recurrent,
    lower_sequence,
    lower_shape,
)
from modelhub_lwtnn.constants import Constants
from modelhub_lwtnn.draft import LINEAR, Draft, Entrance, Layer, Step
from modelhub_lwtnn.lower_shape import FLOATS, INTS
from modelhub_lwtnn.meaning import RULES, Meaning, Poisoned, Record, Refusal
from modelhub_lwtnn.op import Op, told
from modelhub_lwtnn.schema import Dense, Maxout

__all__ = ["Walk", "lower"]

RULE_BOOKS = (
    lower_activation,
    lower_dense,
    lower_forest,
    lower_mask,
    lower_recurrent,
    lower_sequence,
    lower_shape,
)
"""The files whose functions are in `RULES` once they are imported."""

NUMBERS = frozenset({*FLOATS, *INTS, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})

OLDEST = 13
"""The operator set since which Softmax means its axis alone."""


def lower(model: ir.Model, interface: Interface, what: str) -> Draft:
    """The drafted network of `model`. Raises one `Unsupported`, "`what` cannot be ...", with every reason."""
    opset = model.graph.opset_imports.get("", OLDEST)
    if opset < OLDEST:
        raise Unsupported(what, [f"the graph is in operator set {opset}; from {OLDEST} on they are understood."])
    walk = Walk(model, interface)
    reasons = walk.run()
    if reasons:
        raise Unsupported(what, reasons)
    return walk.draft


_TREES = (
    "the trees ask about categories, or take zero for a missing value; lwtnn only compares numbers with thresholds. "
    "Write ONNX, or train on categories encoded one-hot and without missing values."
)


class Walk:
    """One pass over the graph, inputs first."""

    def __init__(self, model: ir.Model, interface: Interface) -> None:
        self.graph = model.graph
        self.interface = interface
        self.draft = Draft()
        self.meanings: dict[ir.Value, Meaning | None] = {}
        self.constants = Constants(model.graph)
        self.batch: int | None = None
        self.reasons: list[str] = []
        self.live: set[ir.Node] = set()
        self.chosen: dict[tuple[int, tuple[int, ...]], int] = {}

    def run(self) -> list[str]:
        """Fill the draft; what was refused."""
        tensors = {value.name: value for value in (*self.graph.inputs, *self.graph.outputs)}
        for record in self.interface.inputs:
            self._guard(f"input {safe_text(record.name)}", partial(self._input, tensors[record.tensor], record))
        self.live = self._live()
        for node in self.graph:
            if node in self.live:
                self._node(node)
        for output in self.interface.outputs:
            self._guard(f"output {safe_text(output.name)}", partial(self._output, tensors[output.tensor], output))
        return list(dict.fromkeys(self.reasons))  # one layer may hold several equal nodes

    def _guard(self, who: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Refusal as refusal:
            self.reasons.append(f"{who}: {refusal}")
        except Poisoned:
            pass

    def _live(self) -> set[ir.Node]:
        """Nodes that an output depends on; not those that only make masks, shapes or constants."""
        wanted: set[ir.Node] = set()
        todo = [value.producer() for value in self.graph.outputs]
        while todo:
            node = todo.pop()
            if node is None or node in wanted or all(self.constants.known(value) for value in node.outputs):
                continue
            wanted.add(node)
            rule = RULES.get(_operator(node))
            reads = range(len(node.inputs)) if rule is None or rule.reads is None else rule.reads
            todo.extend(v.producer() for i in reads if i < len(node.inputs) and (v := node.inputs[i]) is not None)
        return wanted

    def _input(self, value: ir.Value, record: Input) -> None:
        dims = [dim if isinstance(dim, int) else None for dim in value.shape or ()]
        width = len(record.features)
        # Indices come as [N, T] too: steps of one variable.
        sequence = record.sequence or (len(dims) == 2 and dims[1] is None and width == 1)
        if sequence and len(dims) in (2, 3):
            axes: tuple[str, ...] = ("batch", "time", "feature")[: len(dims)]
            length, features = dims[1], dims[2] if len(dims) == 3 else 1
        elif not sequence and len(dims) == 2:
            axes, length, features = ("batch", "feature"), None, dims[1]
        else:
            raise Refusal(
                f"is [{', '.join(map(str, value.shape or ()))}]; lwtnn takes vectors [N, F] and sequences [N, T, F]. "
                "Write ONNX."
            )
        if value.dtype not in NUMBERS:
            raise Refusal(f"holds {value.dtype}; lwtnn takes numbers. Write ONNX.")
        if features != width or width == 0:
            raise Refusal(f"has {features} features in the graph, {width} in the interface record")
        self.batch = self.batch or dims[0]
        nothing = np.full(width, np.nan), np.zeros(width), np.ones(width)
        entrance = Entrance(record, value.dtype.numpy(), *nothing)
        kind = "input_sequence" if sequence else "input"
        step = Step(kind, (), width, f"input {record.name}", length=length, entrance=entrance)
        self.meanings[value] = Record(self.draft.add(step), axes)

    def _node(self, node: ir.Node) -> None:
        rule = RULES.get(_operator(node))
        if PREPARED in (node.name or "").split("/"):
            if _TREES not in self.reasons:
                self.reasons.append(_TREES)
            return
        if rule is None:
            self.reasons.append(f"{told(node)}: lwtnn has no such layer. Write ONNX.")
            return

        def action() -> None:
            try:
                result = rule.lower(Op(self, node))
            except (IndexError, RecursionError, TypeError, ValueError) as error:
                raise Refusal(f"its inputs and attributes do not fit together ({safe_text(error)}).") from error
            results = result if isinstance(result, Sequence) else (result,)
            self.meanings.update(zip(node.outputs, results, strict=False))

        self._guard(told(node), action)

    def _output(self, value: ir.Value, output: Output) -> None:
        meaning = self.meaning(value)
        if not isinstance(meaning, Record):
            raise Refusal("holds no numbers that lwtnn computes. Write ONNX.")
        record = self.whole(meaning)
        axes = tuple(axis for axis in record.axes if axis != "one")
        if axes not in (("batch", "feature"), ("batch",), ("batch", "time", "feature"), ("batch", "time")):
            raise Refusal(f"has the axes {_spell(record.axes)}; lwtnn gives vectors and sequences only. Write ONNX.")
        width = self.draft.steps[record.step].width
        if width != len(output.labels):
            raise Refusal(f"has {width} components, the interface record names {len(output.labels)} labels")
        if output.name in [other.name for other, _ in self.draft.outputs]:
            raise Refusal("shares its name with another output; lwtnn finds outputs by name. Rename one.")
        self.draft.outputs.append((replace(output, sequence=record.sequence), record.step))

    def meaning(self, value: ir.Value | None) -> Meaning:
        """What `value` is; ends the current operator in silence where that was refused already."""
        if value is None:
            raise Refusal("lacks an input")
        if self.constants.known(value):
            raise Refusal("computes with a constant in the place of data. Write ONNX.")
        meaning = self.meanings.get(value)
        if meaning is None:
            raise Poisoned
        return meaning

    def width(self, record: Record) -> int:
        """How many features a record has."""
        return self.draft.steps[record.step].width if record.columns is None else len(record.columns)

    def whole(self, record: Record) -> Record:
        """`record` as a step of its own: chosen columns by a matrix of zeros and ones, exact for finite numbers."""
        width = self.draft.steps[record.step].width
        if record.columns is None or record.columns == tuple(range(width)):
            return replace(record, columns=None)
        key = (record.step, record.columns)
        if key not in self.chosen:
            matrix = np.zeros((len(record.columns), width))
            matrix[range(len(record.columns)), record.columns] = 1.0
            whole = self.pointwise(replace(record, columns=None), Dense(matrix, None, LINEAR), "columns")
            self.chosen[key] = whole.step
        return replace(record, step=self.chosen[key], columns=None)

    def pointwise(self, record: Record, layer: Layer, origin: str) -> Record:
        """`layer` on a vector, or on every step of a sequence. Its width may be another, the axes stay."""
        record = self.whole(record)
        source = self.draft.steps[record.step]
        width = source.width
        if isinstance(layer, Dense) and layer.weights is not None:
            width = len(layer.weights)
        elif isinstance(layer, Maxout):
            width = layer.weights.shape[1]
        kind = "time_distributed" if record.sequence else "feed_forward"
        length = source.length if record.sequence else None
        return replace(record, step=self.draft.add(Step(kind, (record.step,), width, origin, layer, length)))


def _operator(node: ir.Node) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain), node.op_type


def _spell(axes: Sequence[str]) -> str:
    return f"[{', '.join(axes)}]"
