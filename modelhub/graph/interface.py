"""The interface record: what goes in and what comes out, by name, through every hop.

An ONNX graph knows tensors; a physicist knows variables. The record says for every input tensor which
variables it holds, in order, how each is shifted, scaled and what stands in when it is missing, and for
every output what it is called and what its components mean. It lives as JSON in the model's metadata
under `KEY`; `interface.schema.json` beside this file is its JSON Schema.

Scaling has lwtnn's meaning, ``(x + offset) * scale``, after ``default`` has replaced a NaN
(lwtnn: InputPreprocessor and NanReplacer). The graph does it itself at its entrance (`attach`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from modelhub.errors import UnreadableFile, safe_text

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    from modelhub.protocols import Arrays

__all__ = ["KEY", "Feature", "Input", "Interface", "Output", "entrance"]

KEY = "modelhub.interface"
"""The metadata key the record is stored under."""

VERSION = 1

LONGEST_NAME = 1024
"""As in the schema."""


@dataclass(frozen=True)
class Feature:
    """One variable. `default` (None: none) replaces NaN before ``(x + offset) * scale``; the range is of raw values.

    `categories` (None: a real number) counts the values 0, 1, ... of a variable that is looked up in a table.
    """

    name: str
    offset: float = 0.0
    scale: float = 1.0
    default: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    categories: int | None = None


@dataclass(frozen=True)
class Input:
    """One input: `name` for people and lwtnn, `tensor` for the graph; they differ only where names collide.

    A sequence tensor is [events, steps, features], any other [events, features].
    `selection` and `sort` are opaque labels of what the caller puts in, and in which order.
    """

    name: str
    features: tuple[Feature, ...]
    sequence: bool = False
    tensor: str = ""
    selection: str | None = None
    sort: str | None = None
    min_length: int = 0
    max_length: int | None = None

    def __post_init__(self) -> None:
        if not self.tensor:
            object.__setattr__(self, "tensor", self.name)

    @property
    def scaled(self) -> bool:
        """Whether any feature has an offset, a scale or a default."""
        return any((f.offset, f.scale, f.default) != (0.0, 1.0, None) for f in self.features)


@dataclass(frozen=True)
class Output:
    """One output. `labels` name the components of its last axis; `default` is what an event without input gets."""

    name: str
    labels: tuple[str, ...]
    sequence: bool = False
    tensor: str = ""
    default: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.tensor:
            object.__setattr__(self, "tensor", self.name)


@dataclass(frozen=True)
class Interface:
    """All inputs and outputs of a model, in order."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    invented: bool = field(default=False, compare=False)
    """Whether names had to be invented because the source has none."""

    def input(self, tensor: str) -> Input:
        """The input carried by graph input `tensor`."""
        return next(i for i in self.inputs if i.tensor == tensor)

    def output(self, tensor: str) -> Output:
        """The output carried by graph output `tensor`."""
        return next(o for o in self.outputs if o.tensor == tensor)

    @property
    def scaled(self) -> bool:
        """Whether any input has offsets, scales or defaults."""
        return any(record.scaled for record in self.inputs)

    def unscaled(self) -> Interface:
        """The same names with no offset, scale or default."""
        inputs = (
            replace(record, features=tuple(replace(f, offset=0.0, scale=1.0, default=None) for f in record.features))
            for record in self.inputs
        )
        return replace(self, inputs=tuple(inputs))

    def prepare(self, arrays: Arrays, precision: str) -> dict[str, NDArray[np.generic]]:
        """Raw inputs made ready for a network that does no scaling of its own.

        Replaces NaN by the default, then ``(x + offset) * scale``, in `precision`; other dtypes (indices) pass.
        """
        import numpy as np

        ready: dict[str, NDArray[np.generic]] = {}
        for tensor, raw in arrays.items():
            record = self.input(tensor)
            if not np.issubdtype(raw.dtype, np.floating):
                ready[tensor] = raw
                continue
            x = raw.astype(precision)
            if record.scaled:
                offset, scale, default = entrance(record, precision)
                x = (np.where(np.isnan(x), default, x) + offset) * scale
            ready[tensor] = x
        return ready

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object, without the fields that hold their default."""
        return {
            "version": VERSION,
            "inputs": [_input_json(i) for i in self.inputs],
            "outputs": [_output_json(o) for o in self.outputs],
            **({"invented": True} if self.invented else {}),
        }

    @classmethod
    def from_json(cls, data: Any, where: str) -> Interface:
        """The record in a JSON object; `where` names its place in errors.

        Also takes lwtnn's two variables files as they are: the sequential one (`class_labels`, `inputs`)
        and the graph one (`inputs`, `input_sequences`, `outputs`).
        """
        from modelhub.graph.records import parse

        return parse(data, where)

    @classmethod
    def of(cls, model: ir.Model) -> Interface:
        """The record a graph carries; one with invented names when it carries none."""
        text = model.metadata_props.get(KEY)
        if text is None:
            from modelhub.graph.naming import invent

            return invent(model)
        interface = _stored(text, ours=model.graph.meta.get(KEY) == text)
        tensors = {v.name for v in model.graph.inputs} ^ {i.tensor for i in interface.inputs}
        tensors |= {v.name for v in model.graph.outputs} ^ {o.tensor for o in interface.outputs}
        if tensors:
            raise UnreadableFile(f"metadata {KEY} and the graph disagree about {', '.join(map(safe_text, tensors))}")
        return interface

    def store(self, model: ir.Model) -> None:
        """Write the record into the model's metadata. Raises `UnreadableFile` for a name no record may have."""
        entries: list[Input | Output] = [*self.inputs, *self.outputs]
        for name in (text for entry in entries for text in _names(entry)):
            if not 1 <= len(name) <= LONGEST_NAME:
                raise UnreadableFile(
                    f"something is called {safe_text(name, 40)!r}: names have 1 to {LONGEST_NAME} characters"
                )
        text = json.dumps(self.to_json(), allow_nan=False)
        model.metadata_props[KEY] = model.graph.meta[KEY] = text  # meta lives in memory only, and goes with a clone


@lru_cache(maxsize=32)
def _stored(text: str, *, ours: bool) -> Interface:
    """The record in a graph's metadata, which is asked for again and again.

    What `store` wrote in this process (`ours`) fits the schema. jsonschema, slow to import, looks at all else.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UnreadableFile(f"metadata {KEY}: not valid JSON: {safe_text(error)}") from None
    if ours:
        from modelhub.graph.records import built

        return built(data)
    return Interface.from_json(data, f"metadata {KEY}")


def _names(entry: Input | Output) -> tuple[str, ...]:
    """The names that the schema limits in length."""
    features = (feature.name for feature in entry.features) if isinstance(entry, Input) else ()
    return (entry.name, entry.tensor, *features)


def _input_json(record: Input) -> dict[str, Any]:
    data: dict[str, Any] = {"name": record.name}
    if record.tensor != record.name:
        data["tensor"] = record.tensor
    if record.sequence:
        data["sequence"] = True
    data |= _present(record, ("selection", "sort", "max_length"))
    if record.min_length:
        data["min_length"] = record.min_length
    data["features"] = [
        {
            "name": f.name,
            "offset": f.offset,
            "scale": f.scale,
            **_present(f, ("default", "minimum", "maximum", "categories")),
        }
        for f in record.features
    ]
    return data


def _output_json(record: Output) -> dict[str, Any]:
    data: dict[str, Any] = {"name": record.name}
    if record.tensor != record.name:
        data["tensor"] = record.tensor
    if record.sequence:
        data["sequence"] = True
    data["labels"] = list(record.labels)
    if record.default is not None:
        data["default"] = list(record.default)
    return data


def _present(record: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(record, name)) is not None}


def entrance(record: Input, precision: str) -> tuple[NDArray[np.generic], ...]:
    """Offset, scale and default of every feature, each an array [features]; NaN where there is no default."""
    import numpy as np

    rows = [(f.offset, f.scale, np.nan if f.default is None else f.default) for f in record.features]
    return tuple(np.asarray(rows, dtype=precision).reshape(-1, 3).T)
