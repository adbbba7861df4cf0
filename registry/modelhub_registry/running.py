"""A version ready to compute: its verified ONNX file in onnxruntime, fed by the names of its variables.

    model = Registry().load("btag@prod")
    model(frame)                                   a data frame or structured array with the variables as columns
    model({"pt": pt, "eta": eta})                  or columns by name
    model({"jet": frame, "tracks": tracks})        several inputs, each by its own name
    model.outputs                                  names and labels of what comes back

Events are taken in batches. A sequence is [events, steps, features], a structured array [events, steps], or a list of
one array per event, of any lengths: events of one length are computed together, so that nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from modelhub.errors import RegistryError, UnreadableFile, safe_text
from modelhub.files import parse_json
from modelhub.graph.interface import KEY, Input, Interface, Output

__all__ = ["Model"]

_TYPES: dict[str, type[np.generic]] = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
}


class Model:
    """A session of onnxruntime with named inputs. `batch` is the number of events computed at once."""

    def __init__(
        self, data: bytes, record: Interface | None, where: str, *, providers: Sequence[str] = (), batch: int = 8192
    ) -> None:
        if batch < 1:
            raise RegistryError("a batch has at least one event")
        wanted = list(providers) or ["CPUExecutionProvider"]
        if missing := [name for name in wanted if name not in onnxruntime.get_available_providers()]:
            there = ", ".join(onnxruntime.get_available_providers())
            raise RegistryError(
                f"this onnxruntime has no {safe_text(missing[0])}, only {there}; a GPU wants onnxruntime-gpu"
            )
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(data, settings, providers=wanted)
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise RegistryError(f"{where}: onnxruntime cannot load it: {_last(error)}") from None
        self._where = where
        told = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        self._prepares = told is None  # a file that carries the record scales by itself
        if told is not None:
            record = Interface.from_json(parse_json(told.encode(), where), where)
        slots, results = self.session.get_inputs(), self.session.get_outputs()
        if record is None:
            raise RegistryError(
                f"{where}: its inputs have no names, as no interface record is there; push it with --interface"
            )
        if (len(record.inputs), len(record.outputs)) != (len(slots), len(results)):
            names = [", ".join(safe_text(slot.name) for slot in each) for each in (slots, results)]
            raise RegistryError(
                f"{where}: it takes {names[0]} and gives {names[1]}, the record {len(record.inputs)} inputs and "
                f"{len(record.outputs)} outputs; convert it to ONNX with modelhub, which takes the scores of a "
                "classifier alone, or push it with another record"
            )
        self.interface = record
        self._types = [_TYPES[slot.type] for slot in slots]
        fixed = {slot.shape[0] for slot in slots if slot.shape and isinstance(slot.shape[0], int)}
        self._fixed: int | None = min(fixed) if fixed else None
        self._batch = self._fixed or batch

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What goes in."""
        return self.interface.inputs

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What comes back."""
        return self.interface.outputs

    def __call__(self, data: Any) -> dict[str, NDArray[Any]]:
        """Every output by its name, [events, ...]. Raises `RegistryError` for what does not fit the inputs."""
        given = self._by_input(data)
        columns = {record.name: _events(given[record.name], record) for record in self.inputs}
        counts = {name: len(events) for name, events in columns.items()}
        if len(set(counts.values())) != 1:
            told = ", ".join(f"{safe_text(name)}: {count}" for name, count in counts.items())
            raise RegistryError(f"the inputs hold different numbers of events ({told})")
        count = next(iter(counts.values()))
        ragged = [events for events in columns.values() if isinstance(events, list)]
        groups = _groups(ragged, count)
        results: list[NDArray[Any]] | None = None
        for group in groups:
            for start in range(0, max(len(group), 1), self._batch):
                rows = group[start : start + self._batch]
                found = self._run([_rows(columns[record.name], rows, record) for record in self.inputs])
                if results is None:
                    results = [np.empty((count, *r.shape[1:]), r.dtype) for r in found]
                for whole, part in zip(results, found, strict=True):
                    if whole.shape[1:] != part.shape[1:]:
                        raise RegistryError(
                            "an output has as many steps as its input: give events of one length at a time"
                        )
                    whole[rows] = part
        return {o.name: r for o, r in zip(self.outputs, results or [], strict=True)}

    def _by_input(self, data: Any) -> Mapping[str, Any]:
        """What was given, by name of input."""
        names = [record.name for record in self.inputs]
        if isinstance(data, Mapping):
            if set(names) <= data.keys():
                return data
            if len(names) == 1 and not self.inputs[0].sequence:
                return {names[0]: data}
            missing = ", ".join(safe_text(name) for name in names if name not in data)
            raise RegistryError(f"missing input: {missing}; this model takes {', '.join(map(safe_text, names))}")
        if len(names) == 1:
            return {names[0]: data}
        vectors = [record for record in self.inputs if not record.sequence]
        if len(vectors) == len(names):  # all variables in one table
            return dict.fromkeys(names, data)
        raise RegistryError(f"this model has several inputs: give a dict of {', '.join(map(safe_text, names))}")

    def _run(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        count = len(arrays[0])
        if self._fixed is not None and count < self._fixed:  # a batch burnt into the file: filled up, then cut
            arrays = [np.concatenate([x, np.repeat(x[-1:], self._fixed - count, axis=0)]) for x in arrays]
        ready = {record.tensor: x for record, x in zip(self.inputs, arrays, strict=True)}
        if self._prepares:
            wide = any(kind is np.float64 for kind in self._types)
            ready = dict(self.interface.prepare(ready, "float64" if wide else "float32"))
        feed = {
            slot.name: np.ascontiguousarray(x, kind)
            for slot, x, kind in zip(self.session.get_inputs(), ready.values(), self._types, strict=True)
        }
        try:
            return [np.asarray(result)[:count] for result in self.session.run(None, feed)]
        except Exception as error:
            raise RegistryError(f"{self._where}: onnxruntime cannot run it on this: {_last(error)}") from None


def _events(data: Any, record: Input) -> NDArray[Any] | list[NDArray[Any]]:
    """Events of one input: [events, features], [events, steps, features], or a list of [steps, features]."""
    if record.sequence and isinstance(data, list | tuple):
        return [_table(one, record, 2) for one in data]
    return _table(data, record, 3 if record.sequence else 2)


def _table(data: Any, record: Input, rank: int) -> NDArray[Any]:
    names = [feature.name for feature in record.features]
    columns = _names(data)
    if columns is not None:
        if missing := [name for name in names if name not in columns]:
            raise RegistryError(f"input {safe_text(record.name)}: no column {', '.join(map(safe_text, missing[:10]))}")
        parts = [np.asarray(data[name]) for name in names]
        shapes = {part.shape for part in parts}
        if len(shapes) != 1 or len(next(iter(shapes))) != rank - 1:
            raise RegistryError(f"input {safe_text(record.name)}: its columns must have {rank - 1} axes and one length")
        return np.stack([_numbers(part, record) for part in parts], axis=-1)
    found = _numbers(np.asarray(data), record)
    if found.ndim != rank or found.shape[-1] != len(names):
        axes = "events, steps" if rank == 3 else "steps" if record.sequence else "events"
        raise RegistryError(
            f"input {safe_text(record.name)}: wanted [{axes}, {len(names)}] or columns by name, not {list(found.shape)}"
        )
    return found


def _names(data: Any) -> Iterable[str] | None:
    """The columns of a data frame, a structured array or a dict; None of a plain array."""
    if isinstance(data, Mapping):
        return list(data)
    if isinstance(data, np.ndarray):
        return list(data.dtype.names) if data.dtype.names else None
    columns = getattr(data, "columns", None)
    return None if columns is None else list(columns)


def _numbers(data: NDArray[Any], record: Input) -> NDArray[Any]:
    if data.dtype.kind not in "fiub":
        raise RegistryError(f"input {safe_text(record.name)}: numbers wanted, got {data.dtype}")
    return data.astype(np.float64) if data.dtype.kind in "iub" and not _looked_up(record) else data


def _looked_up(record: Input) -> bool:
    return any(feature.categories is not None for feature in record.features)


def _groups(ragged: Sequence[list[NDArray[Any]]], count: int) -> list[NDArray[np.intp]]:
    """Numbers of the events that can be computed together: of one length in every sequence."""
    if not ragged:
        return [np.arange(count)]
    groups: dict[tuple[int, ...], list[int]] = {}
    for event, lengths in enumerate(zip(*(map(len, one) for one in ragged), strict=True)):
        groups.setdefault(lengths, []).append(event)
    return [np.asarray(group) for group in groups.values()] or [np.arange(0)]


def _rows(events: NDArray[Any] | list[NDArray[Any]], rows: NDArray[np.intp], record: Input) -> NDArray[Any]:
    if not isinstance(events, list):
        return events[rows]
    return np.stack([events[row] for row in rows]) if len(rows) else np.empty((0, 0, len(record.features)))


def _last(error: Exception) -> str:
    return safe_text(str(error).strip().splitlines()[-1], 200)


def record_of(document: dict[str, Any] | None, where: str) -> Interface | None:
    """The interface record of a manifest."""
    try:
        return None if document is None else Interface.from_json(document, where)
    except UnreadableFile as error:
        raise RegistryError(str(error)) from None
