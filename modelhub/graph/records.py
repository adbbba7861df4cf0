"""Interface records out of JSON: our own, and lwtnn's two variables files as they are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from modelhub.errors import UnreadableFile, safe_text
from modelhub.graph.interface import Feature, Input, Interface, Output

__all__ = ["built", "parse", "schema"]


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of the record."""
    text = Path(__file__).with_name("interface.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def parse(data: Any, where: str) -> Interface:
    """The record in `data`: ours, or one of lwtnn's variables files. Raises `UnreadableFile`."""
    if not isinstance(data, dict):
        raise UnreadableFile(f"{where}: an interface record is a JSON object")
    if "version" in data:
        return _own(data, where)
    return lwtnn_variables(data, where)


def _own(data: dict[str, Any], where: str) -> Interface:
    import jsonschema

    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(data))
    if error is not None:
        raise UnreadableFile(f"{where}: {safe_text(error.json_path)}: {safe_text(error.message, 120)}")
    return built(data)


def built(data: dict[str, Any]) -> Interface:
    """The record in a JSON object of ours that is known to fit the schema."""
    inputs = [
        Input(
            **{key: value for key, value in entry.items() if key != "features"},
            features=tuple(_feature(feature) for feature in entry["features"]),
        )
        for entry in data["inputs"]
    ]
    outputs = [
        Output(
            entry["name"],
            tuple(entry["labels"]),
            sequence=entry.get("sequence", False),
            tensor=entry.get("tensor", ""),
            default=tuple(map(float, entry["default"])) if "default" in entry else None,
        )
        for entry in data["outputs"]
    ]
    return Interface(tuple(inputs), tuple(outputs), invented=data.get("invented", False))


def _feature(data: dict[str, Any]) -> Feature:
    numbers = {key: float(value) for key, value in data.items() if key not in ("name", "categories")}
    return Feature(name=data["name"], categories=data.get("categories"), **numbers)


def lwtnn_variables(data: dict[str, Any], where: str) -> Interface:
    """The record in an lwtnn variables file.

    Two shapes (lwtnn: converters/keras2json.py and kerasfunc2json.py): `inputs` as a list of variables with
    `class_labels`, for a sequential network; or `inputs` and `input_sequences` as lists of nodes with
    `variables`, and `outputs` with `labels`. Numbers may be strings, as lwtnn itself allows.
    """
    inputs = _list(data, "inputs", where)
    if "input_sequences" in data or any(isinstance(entry, dict) and "variables" in entry for entry in inputs):
        series = _list(data, "input_sequences", where) if "input_sequences" in data else []
        records = [
            _node(entry, sequence, where) for sequence, group in ((False, inputs), (True, series)) for entry in group
        ]
        outputs = _list(data, "outputs", where) if "outputs" in data else []
        return Interface(
            tuple(distinct(records)),
            tuple(
                Output(_text(entry, "name", where), tuple(map(str, _list(entry, "labels", where)))) for entry in outputs
            ),
        )
    features = tuple(variable(entry, where) for entry in inputs)
    labels = tuple(map(str, data.get("class_labels", ())))
    return Interface(
        (Input("inputs", features),),
        (Output("outputs", labels),) if labels else (),
    )


def distinct(records: list[Input]) -> list[Input]:
    """`records` with tensor names that differ: lwtnn lets a scalar and a sequence input share a name."""
    taken: set[str] = set()
    result = []
    for record in records:
        tensor = record.tensor
        if tensor in taken and record.sequence:
            tensor = f"{tensor}_sequence"
        count = 2
        while tensor in taken:
            tensor, count = f"{record.tensor}_{count}", count + 1
        taken.add(tensor)
        result.append(replace(record, tensor=tensor))
    return result


def _node(entry: Any, sequence: bool, where: str) -> Input:
    variables = tuple(variable(item, where) for item in _list(entry, "variables", where))
    return Input(_text(entry, "name", where), variables, sequence=sequence)


def variable(entry: Any, where: str) -> Feature:
    """A variable as lwtnn writes it: name, offset, scale and, where given, default."""
    default = entry.get("default") if isinstance(entry, dict) else None
    return Feature(
        _text(entry, "name", where),
        _number(entry, "offset", where),
        _number(entry, "scale", where),
        None if default is None else _number(entry, "default", where),
    )


def _list(entry: Any, key: str, where: str) -> list[Any]:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, list):
        raise UnreadableFile(f"{where}: {key!r} must be a list")
    return value


def _text(entry: Any, key: str, where: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise UnreadableFile(f"{where}: {key!r} must be a text, in {safe_text(entry)}")
    return value


def _number(entry: Any, key: str, where: str) -> float:
    value = entry.get(key) if isinstance(entry, dict) else None
    try:
        if isinstance(value, bool) or value is None:
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError):
        raise UnreadableFile(f"{where}: {key!r} must be a finite number, in {safe_text(entry)}") from None
    return number
