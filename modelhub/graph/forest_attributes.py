"""Attributes as long as a forest: numbers kept as arrays, and a way to look at a graph without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, safe_text

__all__ = ["Numbers", "Strings", "floats", "ints", "place_of", "tensor", "texts", "without_long_attributes"]

LONG = 1000
"""From how many items on an attribute is long."""


class Numbers(ir.Attr):
    """INTS or FLOATS, given as an array. onnx_ir's own attribute looks at each number in Python, at every turn."""

    def __init__(self, name: str, array: NDArray[Any]) -> None:
        super().__init__(name, ir.AttributeType.FLOATS if array.dtype.kind == "f" else ir.AttributeType.INTS, None)
        self.array = array

    @cached_property
    def value(self) -> tuple[float, ...]:
        """The numbers as onnx_ir and protobuf take them."""
        return tuple(self.array.tolist())


class Strings(ir.Attr):
    """STRINGS, given as `texts[i]` for every i of `choice`."""

    def __init__(self, name: str, choice: NDArray[Any], texts: tuple[str, ...]) -> None:
        super().__init__(name, ir.AttributeType.STRINGS, None)
        self.choice, self.texts = choice, texts

    @cached_property
    def value(self) -> tuple[str, ...]:
        """The texts, one after the other."""
        return tuple(map(self.texts.__getitem__, self.choice.tolist()))


def ints(node: ir.Node, name: str, count: int | None = None) -> NDArray[np.int64]:
    """An attribute of whole numbers as an array, of `count` items if that is said. Raises `UnreadableFile`."""
    attribute = _attribute(node, name, ir.AttributeType.INTS)
    array = np.asarray(attribute.array if isinstance(attribute, Numbers) else attribute.as_ints(), np.int64)
    return _counted(node, name, array, count)


def floats(node: ir.Node, name: str, count: int | None = None) -> NDArray[np.float64]:
    """An attribute of numbers as an array: a list, or a tensor called `name` + "_as_tensor"."""
    if f"{name}_as_tensor" in node.attributes:
        return _counted(node, name, tensor(node, f"{name}_as_tensor").astype(np.float64), count)
    attribute = _attribute(node, name, ir.AttributeType.FLOATS)
    array = np.asarray(attribute.array if isinstance(attribute, Numbers) else attribute.as_floats(), np.float64)
    return _counted(node, name, array, count)


def texts(node: ir.Node, name: str, known: Sequence[str], count: int | None = None) -> NDArray[np.int64]:
    """An attribute of texts, each given as its place in `known`."""
    attribute = _attribute(node, name, ir.AttributeType.STRINGS)
    if isinstance(attribute, Strings) and attribute.texts == tuple(known):
        return _counted(node, name, np.asarray(attribute.choice, np.int64), count)
    place = {text: index for index, text in enumerate(known)}
    array = np.array([place.get(text, -1) for text in attribute.as_strings()], np.int64)
    if (array < 0).any():
        strange = attribute.as_strings()[int(np.argmax(array < 0))]
        raise UnreadableFile(f"{place_of(node)}: {name} has the unknown entry {safe_text(strange)!r}")
    return _counted(node, name, array, count)


def tensor(node: ir.Node, name: str, count: int | None = None) -> NDArray[Any]:
    """An attribute that is a tensor of one axis."""
    array = np.asarray(_attribute(node, name, ir.AttributeType.TENSOR).as_tensor().numpy())
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise UnreadableFile(f"{place_of(node)}: {name} is not a list of numbers")
    return _counted(node, name, array, count)


def place_of(node: ir.Node) -> str:
    """Name and operator, for errors."""
    return f"{safe_text(node.name)} ({safe_text(node.op_type)})"


def _attribute(node: ir.Node, name: str, kind: ir.AttributeType) -> ir.Attr:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref() or attribute.type != kind:
        raise UnreadableFile(f"{place_of(node)}: {name} is missing or not of its type")
    return attribute


def _counted(node: ir.Node, name: str, array: NDArray[Any], count: int | None) -> NDArray[Any]:
    if count is not None and len(array) != count:
        raise UnreadableFile(f"{place_of(node)}: {name} holds {len(array)} entries, not {count}")
    return array


@contextmanager
def without_long_attributes(model: ir.Model) -> Iterator[None]:
    """Shorten the long attributes of tree operators for a while: shape inference serialises the graph, and reads none.

    What decides on types, ranks and the number of outputs stays as it is.
    """
    hidden: list[tuple[ir.Node, str, ir.Attr]] = []
    for graph in model.graphs():
        for node in graph:
            if node.domain == "ai.onnx.ml" and node.op_type.startswith("TreeEnsemble"):
                hidden += [(node, name, attr) for name, attr in node.attributes.items() if _is_long(name, attr)]
    try:
        for node, name, attribute in hidden:
            node.attributes[name] = _short(attribute)
        yield
    finally:
        for node, name, attribute in hidden:
            node.attributes[name] = attribute


_LISTS = (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS)


def _is_long(name: str, attribute: ir.Attr) -> bool:
    if attribute.is_ref() or name.startswith("classlabels"):
        return False
    if isinstance(attribute, Numbers):
        return attribute.array.size >= LONG
    if isinstance(attribute, Strings):
        return attribute.choice.size >= LONG
    if attribute.type == ir.AttributeType.TENSOR:
        return attribute.as_tensor().size >= LONG
    return attribute.type in _LISTS and len(attribute.value) >= LONG


def _short(attribute: ir.Attr) -> ir.Attr:
    if attribute.type != ir.AttributeType.TENSOR:
        return ir.Attr(attribute.name, attribute.type, ())
    tensor = attribute.as_tensor()
    return ir.AttrTensor(attribute.name, ir.tensor(np.zeros([1] * len(tensor.shape), tensor.dtype.numpy())))
