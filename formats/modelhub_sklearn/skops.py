"""`.skops` files as data: a zip archive with `schema.json` and `.npy` members. Nothing is imported, nothing is called.

Every node of the schema says by `__loader__` how skops would build it (skops: io/_general.py, _numpy.py, _sklearn.py).
Here a node becomes a value of `modelhub_sklearn.estimator`; classes and functions stay names.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.files import LIMITS, Archive
from modelhub_sklearn.estimator import Estimator, Name

__all__ = ["load"]

PROTOCOL = 2
"""The newest protocol known (skops: io/_protocol.py)."""

TEXT = 1 << 20
"""Bytes of JSON in one scalar."""

LONGEST_HEADER = 1 << 14
"""Bytes in front of an array."""


def load(path: Path) -> Estimator:
    """The estimator in `path`. Raises `UnreadableFile`."""
    with Archive(path) as archive:
        return _Reader(path, archive).estimator()


class _Reader:
    """Reads the schema of one archive; a node that is met again (same `__id__`) is read once."""

    def __init__(self, path: Path, archive: Archive) -> None:
        self.path = path
        self.archive = archive
        self.seen: dict[int, Any] = {}
        self.open: set[int] = set()

    def fail(self, what: str) -> UnreadableFile:
        return UnreadableFile(f"{self.path}: {what}")

    def estimator(self) -> Estimator:
        schema = self.archive.json("schema.json")
        if not isinstance(schema, dict):
            raise self.fail("schema.json is not an object")
        protocol = schema.get("protocol")
        if not isinstance(protocol, int) or isinstance(protocol, bool) or protocol < 0:
            raise self.fail(f"not a skops file: its protocol is {safe_text(protocol)}")
        if protocol > PROTOCOL:
            raise Unsupported(f"{self.path}: skops protocol {protocol}; known are those up to {PROTOCOL}")
        found = self.value(schema, 0)
        if not isinstance(found, Estimator):
            raise Unsupported(f"{self.path} holds no estimator but a {safe_text(schema.get('__class__'))}")
        return found

    def value(self, node: Any, depth: int) -> Any:
        """What a node of the schema stands for."""
        if not isinstance(node, dict):
            raise self.fail("schema.json: a node is not an object")
        if depth > LIMITS.depth:
            raise self.fail("schema.json: nested too deeply")
        loader, key = node.get("__loader__"), node.get("__id__")
        read = _LOADERS.get(loader) if isinstance(loader, str) else None
        if read is None:
            raise self.fail(f"schema.json: unknown loader {safe_text(loader)!r}")
        if not isinstance(key, int):
            return read(self, node, depth + 1)
        if key in self.open:
            raise self.fail("schema.json: a node that holds itself")
        if key not in self.seen:
            self.open.add(key)
            self.seen[key] = read(self, node, depth + 1)
            self.open.remove(key)
        return self.seen[key]

    def name(self, node: dict[str, Any]) -> str:
        """Module and class of a node."""
        module, kind = node.get("__module__"), node.get("__class__")
        if not isinstance(module, str) or not isinstance(kind, str):
            raise self.fail("schema.json: a node without class and module")
        return f"{module}.{kind}"

    def field(self, node: dict[str, Any], key: str, kind: type) -> Any:
        """An entry of a node that must be there and be of `kind`."""
        value = node.get(key)
        if not isinstance(value, kind):
            raise self.fail(f"schema.json: a {safe_text(node.get('__loader__'))} without {key!r}")
        return value

    def scalar(self, node: dict[str, Any], _: int) -> Any:
        """JsonNode: a text of JSON; NaN and infinity are values here, `SimpleImputer` has them."""
        text = self.field(node, "content", str)
        try:
            short = len(text) <= TEXT or text.startswith('"')  # the trees of LightGBM are one text
            value = json.loads(text) if short else None
        except (ValueError, RecursionError):
            raise self.fail(f"schema.json: {safe_text(text)!r} is not JSON") from None
        if isinstance(value, list | dict) or not short:
            raise self.fail("schema.json: a JsonNode that is no scalar")
        return value

    def mapping(self, node: dict[str, Any], depth: int) -> dict[Any, Any]:
        """DictNode: keys are texts in JSON; those that were numbers are numbers again."""
        content = self.field(node, "content", dict)
        kinds = self.value(node.get("key_types"), depth) if "key_types" in node else []
        values = [self.value(value, depth) for value in content.values()]
        keys: list[Any] = list(content)
        for index, kind in enumerate(kinds if isinstance(kinds, list) else []):
            if index < len(keys) and isinstance(kind, Name) and kind.name.rpartition(".")[2].startswith("int"):
                keys[index] = self._whole(keys[index])
        return dict(zip(keys, values, strict=True))

    def _whole(self, text: str) -> int:
        if not text.removeprefix("-").isdecimal() or len(text) > 18:
            raise self.fail(f"schema.json: the key {safe_text(text)!r} is not a number")
        return int(text)

    def sequence(self, node: dict[str, Any], depth: int) -> list[Any]:
        return [self.value(item, depth) for item in self.field(node, "content", list)]

    def tupled(self, node: dict[str, Any], depth: int) -> tuple[Any, ...]:
        return tuple(self.sequence(node, depth))

    def bytes(self, node: dict[str, Any], _: int) -> bytes:
        """BytesNode, BytearrayNode: a member of the archive."""
        return self.archive.read(self.field(node, "file", str))

    def named(self, node: dict[str, Any], _: int) -> Name:
        return Name(self.name(node))

    def object(self, node: dict[str, Any], depth: int) -> Estimator:
        """ObjectNode: class and attributes; a state that is no dict belongs to compiled classes we never look into."""
        content = self.value(node["content"], depth) if node.get("content") is not None else None
        if not isinstance(content, dict):
            content = {}
        if not all(isinstance(key, str) for key in content):
            raise self.fail(f"schema.json: the attributes of {safe_text(self.name(node))} are not named")
        return Estimator(self.name(node), content, str(self.path))

    def tree(self, node: dict[str, Any], depth: int) -> Estimator:
        """TreeNode: sklearn.tree._tree.Tree(n_features, n_classes, n_outputs) and its state."""
        state = self.value(node.get("content"), depth)
        reduce = self.field(node, "__reduce__", dict)
        arguments = self.value(reduce.get("args"), depth)
        if not isinstance(state, dict) or not isinstance(arguments, tuple) or len(arguments) != 3:
            raise self.fail("schema.json: a Tree without its arguments")
        names = ("n_features", "n_classes", "n_outputs")
        return Estimator(
            "sklearn.tree._tree.Tree", {**state, **dict(zip(names, arguments, strict=True))}, str(self.path)
        )

    def array(self, node: dict[str, Any], depth: int) -> Any:
        """NdArrayNode: a `.npy` member, or the items of an array of objects; numpy's scalars become Python's."""
        kind = self.field(node, "type", str)
        if kind == "json":
            return self._objects(node, depth)
        if kind != "numpy":
            raise self.fail(f"schema.json: an array of type {safe_text(kind)!r}")
        member = self.field(node, "file", str)
        array = npy_array(self.archive.read(member), f"{self.path}, member {safe_text(member)}")
        if self.name(node) != "numpy.ndarray":
            if array.size != 1:
                raise self.fail(f"schema.json: {safe_text(self.name(node))} is not one number")
            return array.reshape(-1)[0].item()
        return array

    def _objects(self, node: dict[str, Any], depth: int) -> NDArray[np.object_]:
        shape = self.value(node.get("shape"), depth)
        flat: list[Any] = self.sequence(node, depth)
        dimensions = shape if isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape) else ()
        for size in dimensions[1:]:
            if not all(isinstance(row, list) and len(row) == size for row in flat):
                raise self.fail("schema.json: an array of objects that is not of its shape")
            flat = [item for row in flat for item in row]
        if not dimensions or math.prod(dimensions) != len(flat):
            raise self.fail("schema.json: an array of objects that is not of its shape")
        array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(dimensions)

    def dtype(self, node: dict[str, Any], depth: int) -> Name:
        """DTypeNode: kept as the dtype of an empty array."""
        array = self.value(node.get("content"), depth)
        return Name(f"numpy.{array.dtype.name}" if isinstance(array, np.ndarray) else "numpy.dtype")

    def span(self, node: dict[str, Any], _: int) -> slice:
        content = self.field(node, "content", dict)
        ends = [content.get(key) for key in ("start", "stop", "step")]
        if not all(end is None or isinstance(end, int) for end in ends):
            raise self.fail("schema.json: a slice that is not between whole numbers")
        return slice(*ends)


_HEADER = re.compile(
    rb"\{'descr': (?P<descr>.*), 'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>[\d, ]*)\), \} *\n"
)
"""What numpy writes in front of an array (numpy/lib/_format_impl.py, _write_array_header), and nothing else."""


def npy_array(data: bytes, where: str) -> NDArray[Any]:
    """An array in numpy's own file format, without pickles; no byte more or less than its shape asks for."""
    start = {b"\x93NUMPY\x01\x00": 10, b"\x93NUMPY\x02\x00": 12}.get(data[:8], 0)
    end = start + int.from_bytes(data[8:start], "little")
    header = _HEADER.fullmatch(data[start:end]) if end - start <= LONGEST_HEADER else None
    if header is None:
        raise UnreadableFile(f"{where}: not a .npy array: dtype, order and shape are not where numpy writes them")
    try:
        dtype = _dtype(header["descr"])
        shape = tuple(int(size) for size in header["shape"].decode().split(",") if size.strip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise UnreadableFile(f"{where}: not a .npy array: {safe_text(error)}") from None
    rest = len(data) - end
    if dtype.hasobject or dtype.itemsize == 0 or dtype.kind not in "biufUV" or dtype.subdtype is not None:
        raise UnreadableFile(f"{where}: an array of {safe_text(dtype)}")
    if len(shape) > 8:
        raise UnreadableFile(f"{where}: an array of shape {safe_text(shape)}")
    if math.prod(shape) * dtype.itemsize != rest:
        raise UnreadableFile(f"{where}: {rest} bytes for an array of shape {safe_text(shape)} of {safe_text(dtype)}")
    array = np.frombuffer(data, dtype, offset=end)
    return array.reshape(shape, order="F" if header["fortran"] == b"True" else "C")


@lru_cache(maxsize=64)
def _dtype(descr: bytes) -> np.dtype[Any]:
    """The dtype that a header describes."""
    return npy.descr_to_dtype(ast.literal_eval(descr.decode("ascii")))


_LOADERS: dict[str, Callable[[_Reader, dict[str, Any], int], Any]] = {
    "BytearrayNode": _Reader.bytes,
    "BytesNode": _Reader.bytes,
    "JsonNode": _Reader.scalar,
    "DictNode": _Reader.mapping,
    "ListNode": _Reader.sequence,
    "SetNode": _Reader.sequence,
    "TupleNode": _Reader.tupled,
    "SliceNode": _Reader.span,
    "NdArrayNode": _Reader.array,
    "DTypeNode": _Reader.dtype,
    "ObjectNode": _Reader.object,
    "TreeNode": _Reader.tree,
    # what a converter never looks into: a name is all that is kept
    **dict.fromkeys(
        (
            "ConstructorFromReduceNode",
            "DefaultDictNode",
            "FunctionNode",
            "LossNode",
            "MaskedArrayNode",
            "MethodNode",
            "OperatorFuncNode",
            "PartialNode",
            "RandomGeneratorNode",
            "RandomStateNode",
            "SparseMatrixNode",
            "TypeNode",
        ),
        _Reader.named,
    ),
}
