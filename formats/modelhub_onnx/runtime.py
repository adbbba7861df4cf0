"""ONNX files in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from modelhub.errors import Inconclusive, safe_text
from modelhub.files import parse_json, read_bytes
from modelhub.graph.interface import KEY, Input, Interface, Output
from modelhub_onnx.classes import scores_only
from modelhub_onnx.leaves import naming_leaves
from modelhub_onnx.reader import parse
from modelhub_onnx.trees import check_trees, is_tree

if TYPE_CHECKING:
    from modelhub.protocols import Arrays, Engine, ReadOptions

R = TypeVar("R", Input, Output)

__all__ = ["Session", "load"]


def load(path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:  # noqa: ARG001
    """The file in a session, in the precision it is written in and no other: that is what will be deployed."""
    proto = parse(path)
    check_trees(proto, str(path))
    changed = scores_only(proto, str(path)).changed
    own = _precision(proto)
    if own != precision:
        raise Inconclusive(f"{path.name} is written in {own}")
    own_record = next((entry.value for entry in proto.metadata_props if entry.key == KEY), None)
    scaled = own_record is not None and Interface.from_json(parse_json(own_record.encode(), KEY), KEY).scaled
    model = proto.SerializeToString() if changed else read_bytes(path)
    session = Session(model, interface, precision, prepares=not scaled)
    session.foreign = own_record is None
    session.refuses_empty = any(node.op_type == "GRU" for node in proto.graph.node)
    return session


def _precision(proto: onnx.ModelProto) -> str:
    """float64 if an input or output is of that type, else float32."""
    types = {value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)}
    return "float64" if onnx.TensorProto.DOUBLE in types else "float32"


class Session:
    """An `Engine`: one onnxruntime session on the CPU, on one thread unless told otherwise."""

    name = "onnxruntime"
    version: str = onnxruntime.__version__

    refuses_empty = False
    """onnxruntime 1.32 brings the whole process down when a GRU is given an empty sequence: it is not asked to."""

    foreign = False
    """Whether the file carries no record of ours, so that its outputs may be more than the record has."""

    def __init__(
        self, model: bytes, interface: Interface, precision: str, *, prepares: bool = False, threads: int = 1
    ) -> None:
        self.precision = precision
        self.threads = threads
        self._model = model
        self._interface = interface
        self._prepares = prepares
        self._named: Session | None = None
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise Inconclusive(f"onnxruntime cannot load this model in {precision}: {_last(error)}") from None
        self._batch = _fixed(self._session.get_inputs())
        self._inputs = _columns(self._session.get_inputs(), interface.inputs)
        self._outputs = _matched("output", self._session.get_outputs(), interface.outputs)

    def with_threads(self, threads: int) -> Session:
        """The same model in an engine that may use several threads."""
        other = Session(self._model, self._interface, self.precision, prepares=self._prepares, threads=threads)
        other.refuses_empty, other.foreign = self.refuses_empty, self.foreign
        return other

    def __call__(self, arrays: Arrays) -> Arrays:
        """Outputs by tensor name; a graph with a burnt-in batch is fed in slices of that size."""
        ready = self._interface.prepare(arrays, self.precision) if self._prepares else _cast(arrays, self.precision)
        feed: dict[str, NDArray[Any]] = {
            slot.name: ready[record.tensor][..., columns].astype(_NUMPY[slot.type], copy=False)
            for slot, record, columns in self._inputs
        }
        if self.refuses_empty and any(x.ndim == 3 and x.shape[1] == 0 for x in feed.values()):
            raise Inconclusive("onnxruntime cannot run a GRU on an empty sequence")
        events = len(next(iter(feed.values())))
        if self._batch is None or self._batch == events:
            results = self._run(feed)
        elif events % self._batch:
            raise Inconclusive(f"the graph takes {self._batch} events at a time, {events} do not divide")
        else:
            slices = range(0, events, self._batch)
            parts = [self._run({k: v[i : i + self._batch] for k, v in feed.items()}) for i in slices]
            try:
                results = [np.concatenate(column) for column in zip(*parts, strict=True)]
            except ValueError:  # single numbers, or rows of several lengths
                raise Inconclusive(f"not every output has a row for each of {self._batch} events") from None
        return {
            record.tensor: _asked(record, y) if self.foreign else _number(y)
            for (_, record), y in zip(self._outputs, results, strict=True)
        }

    def leaves(self, arrays: Arrays) -> NDArray[np.int64]:
        """The leaf [events, trees] each event ends in, by this file's own trees in onnxruntime (`leaves`)."""
        if self._named is None:
            proto = onnx.load_model_from_string(self._model)
            if self.foreign and sum(map(is_tree, proto.graph.node)) > 1:
                raise Inconclusive("the trees stand in several operators, in an order of the file's own")
            outputs = tuple(Output(name, ()) for name in naming_leaves(proto))
            self._named = Session(
                proto.SerializeToString(),
                replace(self._interface, outputs=outputs),
                self.precision,
                prepares=self._prepares,
            )
        return np.concatenate([x.astype(np.int64) for x in self._named(arrays).values()], axis=1)

    def _run(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        try:
            results: list[NDArray[Any]] = self._session.run([slot.name for slot, _ in self._outputs], feed)
        except Exception as error:
            raise Inconclusive(f"onnxruntime cannot run this model in {self.precision}: {_last(error)}") from None
        if not all(isinstance(y, np.ndarray) for y in results):
            raise Inconclusive("an output is a list or a dictionary, and no array")
        return results


_NUMPY = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


def _matched(what: str, slots: Sequence[Any], records: Sequence[R]) -> list[tuple[Any, R]]:
    """What the file takes or gives beside the records: by name where all names are known, else in order.

    Raises `Inconclusive` where they are not as many.
    """
    if len(slots) != len(records):
        names = [", ".join(safe_text(entry.name) for entry in entries) for entries in (slots, records)]
        raise Inconclusive(
            f"the file has {len(slots)} {what}s ({names[0]}), the model it is compared with {len(records)} ({names[1]})"
        )
    by_name = {slot.name: slot for slot in slots}
    for key in ("tensor", "name"):
        if all(getattr(record, key) in by_name for record in records):
            return [(by_name[getattr(record, key)], record) for record in records]
    return list(zip(slots, records, strict=True))


def _columns(slots: Sequence[Any], records: Sequence[Input]) -> list[tuple[Any, Input, slice]]:
    """What the file takes beside the records and the columns of these; an input may stand for one variable alone."""
    first = records[0] if len(records) == 1 < len(slots) else None
    names = [] if first is None else [feature.name for feature in first.features]
    single = all(len(slot.shape) == 2 and slot.shape[1] == 1 for slot in slots)
    if first is None or first.sequence or not single or len(slots) != len(names):
        return [(slot, record, slice(None)) for slot, record in _matched("input", slots, records)]
    known = {slot.name for slot in slots} == set(names)
    places = [names.index(slot.name) if known else place for place, slot in enumerate(slots)]
    return [(slot, first, slice(place, place + 1)) for slot, place in zip(slots, places, strict=True)]


def _asked(record: Output, y: NDArray[Any]) -> NDArray[Any]:
    """An output as the record has it: of two classes only the second, where the first is but its complement."""
    if len(record.labels) == 1 and y.ndim == 2 and y.shape[1] == 2 and np.issubdtype(y.dtype, np.floating):
        first, second = y[:, :1], y[:, 1:]
        if any(np.allclose(first, rest, rtol=1e-6, atol=1e-6, equal_nan=True) for rest in (1 - second, -second)):
            return second
    return _number(y)


def _number(y: NDArray[Any]) -> NDArray[Any]:
    """1 or 0 for what is true or false."""
    return y.astype(np.uint8) if y.dtype == np.bool_ else y


def _cast(arrays: Arrays, precision: str) -> dict[str, NDArray[Any]]:
    return {k: v.astype(precision) if np.issubdtype(v.dtype, np.floating) else v for k, v in arrays.items()}


def _fixed(slots: list[Any]) -> int | None:
    """The number of events burnt into the first axis of every input, if any."""
    sizes = {slot.shape[0] for slot in slots if slot.shape}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def _last(error: Exception) -> str:
    """What onnxruntime complains of, without its code for the kind."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    said = " ".join(lines if "INVALID_ARGUMENT" in lines[0] else lines[-1:])
    return safe_text(said.split("INVALID_ARGUMENT : ")[-1], 200)
