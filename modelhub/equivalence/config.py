"""`modelhub.yaml`: which pairs of files must compute the same, and which findings are waived, why and until when.

Schema: `config.schema.json`. Every refusal names the line; an unknown key, the nearest known one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from modelhub.equivalence.yaml_lines import Lines, load
from modelhub.errors import UsageError, safe_text

__all__ = ["Config", "Pair", "Waiver", "read_config", "schema"]


@dataclass(frozen=True)
class Pair:
    """Two files that must compute the same, and how to read them. Paths are absolute."""

    name: str
    source: Path
    target: Path
    source_format: str | None = None
    target_format: str | None = None
    interface: Path | None = None
    weights: Path | None = None
    tie: str | None = None
    trust: bool = False
    task: str | None = None
    data: str | None = None
    """Events to run besides the probes: FILE[:TABLE,...] (`modelhub.data.DataSpec`)."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Variable -> column of the data, where the names differ."""
    events: int | None = None
    """How many events of the data to take; None for all."""
    preset: str = ""
    """A community's tolerances (`modelhub.equivalence.presets`)."""
    seed: int | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    """Least shares of what is covered, by its name."""


@dataclass(frozen=True)
class Waiver:
    """Lets one kind of finding of one pair pass until a day."""

    pair: str
    finding: str
    reason: str
    owner: str
    expires: date
    leg: str | None = None
    probe: str | None = None

    def to_json(self) -> dict[str, str]:
        """As it stands in a report."""
        where = {key: value for key, value in (("leg", self.leg), ("probe", self.probe)) if value is not None}
        return {
            "finding": self.finding,
            **where,
            "reason": self.reason,
            "owner": self.owner,
            "expires": self.expires.isoformat(),
        }

    def __str__(self) -> str:
        where = "".join(f", {part}" for part in (self.leg, self.probe) if part)
        return f"the waiver of {self.pair} ({self.finding}{where}; {self.owner}, until {self.expires})"


@dataclass(frozen=True)
class Config:
    """A whole `modelhub.yaml`."""

    path: Path
    pairs: tuple[Pair, ...]
    waivers: tuple[Waiver, ...]
    fail_on: str = "different"


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of the file."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("config.schema.json").read_text(encoding="utf-8"))
    return loaded


def read_config(path: Path) -> Config:
    """The configuration in `path`.

    Raises `UnreadableFile` where it is no YAML, and `UsageError` for what the schema does not allow, a path that
    leaves the folder of the file, two pairs of one name, or a waiver of a pair that is not there.
    """
    import jsonschema

    data, lines = load(path)
    checker = jsonschema.Draft202012Validator(schema())
    # A key misspelt is told before the key that is missing for it.
    error = min(checker.iter_errors(data), key=lambda e: (_unknown(e) is None, _line(lines, _place(e))), default=None)
    if error is not None:
        raise UsageError(f"{path}, line {_line(lines, _place(error))}: {_told(error)}")
    for index, waiver in enumerate(data.get("waivers", [])):
        _checked_waiver(path, _line(lines, ("waivers", index)), waiver, [pair["name"] for pair in data["pairs"]])
    pairs = tuple(_pair(path, lines, index, data) for index in range(len(data["pairs"])))
    waivers = tuple(Waiver(**{**w, "expires": date.fromisoformat(w["expires"])}) for w in data.get("waivers", []))
    return Config(path, pairs, waivers, data.get("fail_on", "different"))


def _pair(path: Path, lines: Lines, index: int, data: dict[str, Any]) -> Pair:
    given = data["pairs"][index]
    if given["name"].lower() in (other["name"].lower() for other in data["pairs"][:index]):
        line = _line(lines, ("pairs", index, "name"))
        raise UsageError(f"{path}, line {line}: two pairs are called {given['name']!r} (capitals count for nothing)")

    def inside(key: str) -> Path | None:
        return _inside(path, _line(lines, ("pairs", index, key)), given[key]) if key in given else None

    source, target = inside("source"), inside("target")
    assert source is not None
    assert target is not None
    return Pair(
        given["name"],
        source,
        target,
        given.get("from"),
        given.get("to"),
        inside("interface"),
        inside("weights"),
        given.get("tie"),
        given.get("trust", False),
        given.get("task"),
        _data(path, _line(lines, ("pairs", index, "data")), given["data"]) if "data" in given else None,
        given.get("columns", {}),
        given.get("events"),
        given.get("preset", ""),
        given.get("seed", data.get("seed")),
        {**data.get("floors", {}), **given.get("floors", {})},
    )


def _inside(path: Path, line: int, text: str) -> Path:
    """`text` as a path below the folder of the file; symbolic links are followed before that is asked."""
    folder = path.parent.resolve()
    try:
        found = (folder / text).resolve()
    except (OSError, ValueError, RuntimeError):
        raise UsageError(f"{path}, line {line}: {safe_text(text)!r} is no path") from None
    if Path(text).is_absolute() or not found.is_relative_to(folder):
        raise UsageError(f"{path}, line {line}: {safe_text(text)!r} leaves the folder of this file")
    return found


def _data(path: Path, line: int, text: str) -> str:
    """`text`, FILE or FILE:TABLES, with the file's whole path."""
    file, colon, tables = text, "", ""
    if not (path.parent / text).exists():
        file, colon, tables = text.rpartition(":") if ":" in text else (text, "", "")
    return f"{_inside(path, line, file)}{colon}{tables}"


def _checked_waiver(path: Path, line: int, waiver: dict[str, str], names: list[str]) -> None:
    if waiver["pair"] not in names:
        nearest = _nearest(waiver["pair"], names)
        raise UsageError(f"{path}, line {line}: a waiver of {safe_text(waiver['pair'])!r}, which is no pair{nearest}")
    try:
        date.fromisoformat(waiver["expires"])
    except ValueError:
        raise UsageError(
            f"{path}, line {line}: {safe_text(waiver['expires'])!r} is no day; write it as 2027-01-31"
        ) from None


def _place(error: Any) -> tuple[str | int, ...]:
    """The path to what is wrong: the unknown key itself where there is one."""
    place = tuple(error.absolute_path)
    unknown = _unknown(error)
    return (*place, unknown) if unknown is not None else place


def _unknown(error: Any) -> str | None:
    if error.validator != "additionalProperties" or not isinstance(error.instance, dict):
        return None
    return next((key for key in error.instance if key not in error.schema.get("properties", {})), None)


def _line(lines: Lines, place: tuple[str | int, ...]) -> int:
    while place and place not in lines:
        place = place[:-1]
    return lines[place]


def _told(error: Any) -> str:
    """A schema's error in words a user can act on."""
    unknown = _unknown(error)
    if unknown is not None:
        known = list(error.schema.get("properties", {}))
        return f"unknown key {safe_text(unknown)!r}{_nearest(unknown, known)}; known are {', '.join(known)}"
    name = ".".join(map(str, error.absolute_path)) or "the file"
    value = safe_text(error.instance, 60)
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{name}: {', '.join(missing)} missing"
    if error.validator == "dependentRequired":
        return f"{name}: columns and events say how to read data, which is missing"
    if error.validator == "type":
        kinds = {"string": "a text (put it in quotes)", "object": "keys with values", "array": "a list (lines with -)"}
        return f"{name}: {value!r} is not {kinds.get(error.validator_value, f'of type {error.validator_value}')}"
    if error.validator in ("enum", "const"):
        known = error.validator_value if error.validator == "enum" else [error.validator_value]
        words = ", ".join(map(str, known))
        return f"{name}: {value!r} is none of {words}{_nearest(str(error.instance), [str(k) for k in known])}"
    return f"{name}: {value!r} does not fit: {error.validator} {safe_text(error.validator_value, 60)}"


def _nearest(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
