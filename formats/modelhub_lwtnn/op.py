"""What a lowering function sees: its node's inputs and attributes, and ways to draft steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import notice, safe_text
from modelhub.graph.builder import DOMAIN
from modelhub_lwtnn.draft import Layer, Step, affine
from modelhub_lwtnn.lower_embedding import embed
from modelhub_lwtnn.meaning import Category, Mark, Meaning, Record, Refusal, Stack
from modelhub_lwtnn.schema import Activation, Array, Dense

if TYPE_CHECKING:
    from modelhub_lwtnn.lowering import Walk

__all__ = ["Op", "told"]


def told(node: ir.Node) -> str:
    """How a node is called to the user: its layer's name in the source and the operator, "gru_1 (GRU)"."""
    name = node.name or (node.outputs[0].name if node.outputs else None) or "a node"
    scope, _, last = name.rpartition("/")
    return f"{safe_text(scope if scope and last.startswith(node.op_type) else name)} ({safe_text(node.op_type)})"


class Op:
    """What a lowering function sees of its node and of the walk."""

    def __init__(self, walk: Walk, node: ir.Node) -> None:
        self._walk = walk
        self.node = node
        self.origin = told(node)
        self.steps = walk.draft.steps

    # inputs and attributes

    def input(self, index: int) -> ir.Value | None:
        """An input of the node, None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def meaning(self, index: int) -> Meaning:
        """Whatever an input is."""
        return self._walk.meaning(self.input(index))

    def data(self, index: int) -> Record:
        """An input that must be numbers the network computes."""
        meaning = self.table(index)
        return embed(self, [meaning]) if isinstance(meaning, Category) else meaning

    def table(self, index: int) -> Record | Category:
        """Like `data`, with look-ups that are not made yet: of several, the order counts (`lower_embedding.embed`)."""
        meaning = self.meaning(index)
        if isinstance(meaning, Record | Category):
            return meaning
        if isinstance(meaning, Mark):
            raise Refusal("reads positions of masked steps; lwtnn has no masks. Write ONNX.")
        if isinstance(meaning, Stack):
            raise Refusal("works on the states of stacked layers together. Write ONNX, or take the last layer's only.")
        raise Refusal("computes with integers; lwtnn computes in double. Write ONNX.")

    def array(self, index: int) -> NDArray[Any] | None:
        """An input that is a constant, as it is; None where it is left out or no constant."""
        value = self.input(index)
        return None if value is None else self._walk.constants.array(value)

    def constant(self, value: ir.Value) -> NDArray[Any] | None:
        """Any value of the graph that is a constant, as it is."""
        return self._walk.constants.array(value)

    def weights(self, index: int) -> Array | None:
        """A constant input as float64: exact, whatever the graph's own precision."""
        array = self.array(index)
        return None if array is None else array.astype(np.float64)

    def zeros(self, index: int) -> bool:
        """Whether an input is left out or zero everywhere, be its shape constant or not."""
        value = self.input(index)
        return value is None or self._walk.constants.zero(value)

    def integers(self, index: int, name: str) -> list[int] | None:
        """Integers given as input `index` or, in older operator sets, as attribute `name`; None if neither."""
        attribute = self.node.attributes.get(name)
        if attribute is not None:
            return [attribute.as_int()] if attribute.type == ir.AttributeType.INT else list(attribute.as_ints())
        if self.input(index) is None:
            return None
        array = self.array(index)
        if array is None:
            raise Refusal(f"computes its {name} from data; lwtnn has no dynamic shapes. Write ONNX.")
        return [int(item) for item in array.ravel()]

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def number(self, name: str, default: float) -> float:
        """A real attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else float(attribute.as_float())

    def numbers(self, name: str) -> list[float]:
        """A list of real numbers."""
        attribute = self.node.attributes.get(name)
        return [] if attribute is None else [float(item) for item in attribute.as_floats()]

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        attribute = self.node.attributes.get(name)
        return [] if attribute is None else list(attribute.as_strings())

    def text(self, name: str, default: str) -> str:
        """A text attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    @property
    def batch(self) -> int | None:
        """The number of events, where the graph fixes it."""
        return self._walk.batch

    def maker(self, index: int) -> str:
        """The operator of domain `modelhub` that makes an input, "" for any other."""
        value = self.input(index)
        node = None if value is None else value.producer()
        return node.op_type if node is not None and node.domain == DOMAIN else ""

    def users(self, value: ir.Value) -> list[ir.Node]:
        """The nodes that use `value` on the way to an output."""
        return [use.node for use in value.uses() if use.node in self._walk.live]

    def axes_of(self, value: ir.Value | None) -> list[int | str] | None:
        """For each axis of a value its length, or its name where the length varies; None for what is no record."""
        meaning = None if value is None else self._walk.meanings.get(value)
        if not isinstance(meaning, Record):
            return None
        length = self.steps[meaning.step].length
        sizes = {"feature": self.width(meaning), "one": 1, "time": length}
        return [axis if (size := sizes.get(axis)) is None else size for axis in meaning.axes]

    def lives(self, index: int) -> bool:
        """Whether anything uses an output of the node."""
        if index >= len(self.node.outputs):
            return False
        output = self.node.outputs[index]
        return bool(self.users(output)) or output.is_graph_output()

    def only_use(self, index: int) -> bool:
        """Whether an input comes straight from a graph input that nothing else reads; casts do not count."""
        value = self.input(index)
        while value is not None and len(self.users(value)) == 1 and not value.is_graph_output():
            producer = value.producer()
            if producer is None:
                return True
            value = producer.inputs[0] if producer.op_type in ("Cast", "Identity") else None
        return False

    def stands_for(self, nodes: Sequence[ir.Node], result: Record) -> None:
        """Tell the walk that `nodes` need no lowering of their own: the last one's output is `result`."""
        self._walk.live.difference_update(nodes)
        self._walk.meanings[nodes[-1].outputs[0]] = result

    def fixed_length(self, length: int) -> None:
        """Tell the user that the written network is right for sequences of `length` steps only."""
        notice(f"{self.origin}: the file is right for sequences of exactly {length} steps; lwtnn does not check that.")

    def axis(self, axis: int, record: Record | Category) -> int:
        """`axis` counted from the front."""
        rank = len(record.axes)
        if not -rank <= axis < rank:
            raise Refusal(f"names axis {axis} of {rank}")
        return axis % rank

    # steps

    def tidy(self, record: Record) -> Record:
        """`record` with one name for its axes: a single feature is the last axis of length 1."""
        if self.width(record) != 1:
            return record
        axes = ["one" if axis == "feature" else axis for axis in record.axes]
        if "one" in axes:
            axes[len(axes) - 1 - axes[::-1].index("one")] = "feature"
        return replace(record, axes=tuple(axes))

    def width(self, record: Record) -> int:
        """How many features a record has."""
        return self._walk.width(record)

    def whole(self, record: Record) -> Record:
        """`record` as a step of its own."""
        return self._walk.whole(record)

    def pointwise(self, record: Record, layer: Layer) -> Record:
        """`layer` on a vector, or on every step of a sequence."""
        return self._walk.pointwise(record, layer, self.origin)

    def activate(self, record: Record, function: str, alpha: float | None = None) -> Record:
        """An activation as a step of its own; folding puts it on the layer before."""
        return self.pointwise(record, Dense(None, None, Activation(function, alpha)))

    def scale(
        self, record: Record, *, offset: Array | float = 0.0, scale: Array | float = 1.0, shift: Array | float = 0.0
    ) -> Record:
        """(record + offset) * scale + shift."""
        return self.pointwise(record, affine(self.width(record), offset, scale, shift))

    def add(self, kind: str, sources: Sequence[int], width: int, axes: tuple[str, ...], **more: Any) -> Record:
        """A step of any kind as a record."""
        return Record(self._walk.draft.add(Step(kind, tuple(sources), width, self.origin, **more)), axes)

    def layer(self, record: Record) -> Layer | None:
        """The layer of the step behind a record."""
        return self.steps[record.step].layer

    def last(self, record: Record) -> Record:
        """The last step in time of a sequence, as a vector whose axes are those left."""
        source = self.whole(record)
        axes = tuple(axis for axis in source.axes if axis != "time")
        return self.add("last", [source.step], self.width(source), axes)

    def per_feature(self, constant: Array, record: Record) -> Array:
        """A constant that is added or multiplied, as one number for each feature [n]."""
        shape = list(constant.shape)
        while len(shape) > len(record.axes) and shape[0] == 1:
            shape.pop(0)
        if len(shape) > len(record.axes):
            raise Refusal("adds axes to its input by a constant. Write ONNX.")
        width = self.width(record)
        for size, axis in zip(reversed(shape), reversed(record.axes), strict=False):
            if size == 1 or (axis == "feature" and size == width):
                continue
            if axis == "feature":
                raise Refusal(f"combines {width} features with {size} constants. Write ONNX.")
            raise Refusal(f"has constants that differ along the {axis} axis; lwtnn knows one per feature. Write ONNX.")
        return np.broadcast_to(constant.ravel(), width).astype(np.float64)
