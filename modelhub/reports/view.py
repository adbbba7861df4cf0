"""What a report says, read from its JSON: the one published form, so that stored reports render like fresh ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from modelhub.errors import UnreadableFile
from modelhub.files import parse_json, read_bytes

__all__ = ["VERSIONS", "Case", "Coverage", "Finding", "Leg", "Outcome", "Party", "Row", "View", "covers", "load"]

VERSIONS = (1, 2)
"""Versions of the report's schema that are understood."""

LIMIT = 64 << 20
"""Bytes a stored report may have."""

FAILING = ("different", "suspect", "inconclusive")


@dataclass(frozen=True)
class Party:
    """One side of the check."""

    role: str
    format: str
    file: str
    sha256: str
    engines: tuple[str, ...]
    missing: str


@dataclass(frozen=True)
class Row:
    """One event that is among the worst of a leg."""

    leg: str
    precision: str
    probe: str
    event: int
    place: str
    a: float
    b: float
    difference: float
    tolerance: float
    inputs: str


@dataclass(frozen=True)
class Case:
    """One probe on one leg: its worst output."""

    probe: str
    length: int | None
    events: int
    place: str
    """Output and component, as in ``tagger[2]``."""
    event: int
    a: float
    b: float
    difference: float
    tolerance: float
    ratio: float
    """Difference over tolerance, the worst of the probe."""
    limit: float
    """The ratio at which rounding cannot explain the difference; between 1 and it a probe is suspect."""
    undecidable: int
    """Events so near a hard decision that rounding may turn them: counted, not failed."""

    @property
    def name(self) -> str:
        """The probe, and the length of its sequences."""
        return self.probe if self.length is None else f"{self.probe}, {self.length} steps"

    @property
    def verdict(self) -> str:
        """identical, equivalent, suspect or different."""
        if not self.ratio <= self.limit:
            return "different"
        if self.ratio > 1:
            return "suspect"
        return "identical" if self.difference == 0 else "equivalent"


@dataclass(frozen=True)
class Leg:
    """Two parties on every probe, at one precision."""

    between: tuple[str, str]
    precision: str
    verdict: str
    missing: str
    cases: tuple[Case, ...]
    ulps: tuple[int, ...]
    """How many numbers lie 0, 1, 2-3, 4-7, ... units in the last place apart."""
    scatter: tuple[tuple[float, float], ...]
    """Size of an output and its difference over tolerance, a sample."""
    rows: tuple[Row, ...]
    engine: str = ""
    """The engine of the second party, where it has several of this precision."""

    @property
    def name(self) -> str:
        """The two roles, as waivers call them: ``source-target``."""
        return "-".join(self.between)

    @property
    def title(self) -> str:
        """The leg with its engine, where that is told, and its precision."""
        return ", ".join(part for part in (" – ".join(self.between), self.engine, self.precision) if part)

    @property
    def worst(self) -> Case | None:
        """The case that is worst against its tolerance."""
        return max(self.cases, key=lambda case: case.ratio, default=None)

    @property
    def max_ulp(self) -> int | None:
        """The largest distance in units in the last place, to a power of two: the lower edge of its bin."""
        filled = [place for place, count in enumerate(self.ulps) if count]
        return None if not filled else (0 if filled[-1] == 0 else 2 ** (filled[-1] - 1))


@dataclass(frozen=True)
class Coverage:
    """What the probes reached of something: nodes, leaves, units of a layer."""

    what: str
    reached: int | None
    of: int | None
    floor: float

    @property
    def share(self) -> float | None:
        """Between 0 and 1; None where the report gives words only (its first version)."""
        return None if self.reached is None or self.of is None else (self.reached / self.of if self.of else 1.0)

    @property
    def low(self) -> bool:
        """Whether it is below its floor."""
        return self.share is not None and self.share < self.floor


@dataclass(frozen=True)
class Finding:
    """One thing that keeps a check from passing, as a waiver names it."""

    verdict: str
    leg: str
    probe: str
    text: str
    case: Case | None = None
    """The comparison it was found in, if it was in one."""
    waiver: Mapping[str, str] | None = None
    """The waiver that covers it: reason, owner, expires."""


class View:
    """A report read from its JSON. Raises `UnreadableFile` naming `where` for anything that is no report."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict) or data.get("version") not in VERSIONS:
            raise UnreadableFile(f"{where}: not a report of modelhub (versions {', '.join(map(str, VERSIONS))})")
        self.json: dict[str, Any] = data
        try:
            self._read(data)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise UnreadableFile(f"{where}: not a report of modelhub: {type(error).__name__} {error}") from None

    def _read(self, data: dict[str, Any]) -> None:
        self.verdict = _text(data["verdict"])
        self.seed = int(data["seed"])
        self.digest = _text(data["digest"])
        self.created = _text(data["created"])
        self.parties = tuple(_party(role, party) for role, party in data["parties"].items())
        self.legs = tuple(_leg(leg) for leg in data["legs"])
        self.record = tuple(map(_text, data["record"]))
        self.parameters = tuple(map(_text, data["parameters"]))
        self.skipped = tuple(map(_text, data["skipped"]))
        self.coverage = tuple(map(_coverage, data.get("coverage", [])))
        self.preset = _text(data.get("preset", ""))
        self.data = _data(data["data"]) if "data" in data else ()
        self.software = {_text(k): _text(v) for k, v in data["software"].items()}
        self.waivers: tuple[dict[str, str], ...] = tuple(
            {_text(k): _text(v) for k, v in waiver.items()} for waiver in data.get("waivers", [])
        )
        self.inputs = [
            (_text(entry["name"]), bool(entry.get("sequence")), [_feature(f) for f in entry["features"]])
            for entry in data["interface"].get("inputs", [])
        ]

    @property
    def title(self) -> str:
        """Source and target."""
        files = {party.role: party.file for party in self.parties}
        return f"{files.get('source', '?')} → {files.get('target', '?')}"

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All that keeps the check from passing, each with the waiver that covers it."""
        found = [Finding("different", "record", "", line) for line in self.record] + [
            finding for leg in self.legs for finding in _findings(leg)
        ]
        told = {leg.missing for leg in self.legs}
        found += [
            Finding("inconclusive", party.role, "", party.missing)
            for party in self.parties
            if party.missing and party.missing not in told
        ]
        found += [
            Finding("inconclusive", "coverage", c.what, f"{c.what}: {c.reached} of {c.of} reached, floor {c.floor:.0%}")
            for c in self.coverage
            if c.low
        ]
        if self.verdict in FAILING and self.verdict not in {finding.verdict for finding in found}:
            found.append(Finding(self.verdict, "", "", f"the check is {self.verdict}"))
        return tuple(_waived(finding, self.waivers) for finding in found)

    @property
    def open(self) -> tuple[Finding, ...]:
        """Findings that no waiver covers."""
        return tuple(finding for finding in self.findings if finding.waiver is None)

    @property
    def max_ratio(self) -> float:
        """The worst difference over tolerance on any leg."""
        return max((case.ratio for leg in self.legs for case in leg.cases), default=0.0)

    @property
    def max_ulp(self) -> int | None:
        """The largest distance between source and target in units in the last place."""
        return max((leg.max_ulp for leg in self.legs if leg.max_ulp is not None), default=None)


@dataclass(frozen=True)
class Outcome:
    """What became of one pair: a report, or the error that kept it from being made."""

    name: str
    view: View | None = None
    error: str = ""
    code: int = 0
    """Exit code of the error."""
    fail_on: str = "different"
    notes: tuple[str, ...] = ()
    """What is to be told besides: a waiver that has expired or that covers nothing."""

    @property
    def exit_code(self) -> int:
        """0 when every finding is waived or none is there; 1 different, 6 inconclusive, else the error's."""
        if self.view is None:
            return self.code
        verdicts = {finding.verdict for finding in self.view.open}
        if "different" in verdicts or ("suspect" in verdicts and self.fail_on == "suspect"):
            return 1
        return 6 if "inconclusive" in verdicts else 0

    @property
    def waived(self) -> tuple[Finding, ...]:
        """Findings that a waiver covers."""
        return () if self.view is None else tuple(f for f in self.view.findings if f.waiver is not None)

    @property
    def status(self) -> str:
        """One word for the pair: the verdict, "waived" when it passes by a waiver only, or "error"."""
        if self.view is None:
            return "error"
        if self.waived and self.exit_code == 0:
            return "waived"
        return self.view.verdict


def load(path: Path) -> View:
    """A stored report."""
    return View(parse_json(read_bytes(path, LIMIT), str(path)), str(path))


def _findings(leg: Leg) -> list[Finding]:
    if leg.missing or leg.verdict == "inconclusive":
        return [Finding("inconclusive", leg.name, "", leg.missing or "nothing was compared")]
    found = [
        Finding(
            case.verdict,
            leg.name,
            case.probe,
            f"{case.name}, event {case.event}, {case.place}: {case.a:.9g} against {case.b:.9g}, "
            f"{case.ratio:.3g} times the tolerance",
            case,
        )
        for case in leg.cases
        if case.verdict in FAILING
    ]
    if leg.verdict in FAILING and leg.verdict not in {finding.verdict for finding in found}:
        row = next((f", {r.probe}, event {r.event}, {r.place}" for r in leg.rows), "")
        found.append(Finding(leg.verdict, leg.name, "", f"the leg is {leg.verdict}{row}"))
    return found


def covers(waiver: Mapping[str, str], finding: Finding) -> bool:
    """Whether a waiver, as it stands in a report, names this finding; without a leg or a probe it names any."""
    return (
        waiver["finding"] == finding.verdict
        and waiver.get("leg", finding.leg) == finding.leg
        and waiver.get("probe", finding.probe) == finding.probe
    )


def _waived(finding: Finding, waivers: tuple[dict[str, str], ...]) -> Finding:
    waiver = next((waiver for waiver in waivers if covers(waiver, finding)), None)
    return finding if waiver is None else replace(finding, waiver=waiver)


def _party(role: str, data: dict[str, Any]) -> Party:
    file, sha256 = _text(data["file"]), _text(data["sha256"])
    if "weights" in data:
        file += f" + {_text(data['weights']['file'])}"
        sha256 += f" + {_text(data['weights']['sha256'])}"
    engines = tuple(map(_text, data["engines"]))
    return Party(_text(role), _text(data["format"]), file, sha256, engines, _text(data.get("missing", "")))


def _leg(data: dict[str, Any]) -> Leg:
    between = (_text(data["between"][0]), _text(data["between"][1]))
    precision = _text(data["precision"])
    name = " – ".join(between)
    return Leg(
        between,
        precision,
        _text(data["verdict"]),
        _text(data.get("missing", "")),
        tuple(map(_case, data["probes"])),
        tuple(map(int, data.get("ulps", []))),
        tuple((_number(size), _number(ratio)) for size, ratio in data.get("scatter", [])),
        tuple(_row(row, name, precision) for row in data.get("rows", [])),
        _text(data.get("engine", "")),
    )


def _case(data: dict[str, Any]) -> Case:
    difference, tolerance = _number(data["difference"]), _number(data["tolerance"])
    ratio = _number(data["ratio"]) if "ratio" in data else _over(difference, tolerance)
    return Case(
        _text(data["probe"]),
        None if data["length"] is None else int(data["length"]),
        int(data["events"]),
        _place(data),
        int(data["event"]),
        _number(data["a"]),
        _number(data["b"]),
        difference,
        tolerance,
        ratio,
        _number(data.get("limit", 1.0)),
        int(data.get("undecidable", 0)),
    )


def _over(difference: float, tolerance: float) -> float:
    if difference == 0:
        return 0.0
    return difference / tolerance if tolerance > 0 else math.inf


def _row(data: dict[str, Any], leg: str, precision: str) -> Row:
    return Row(
        leg,
        precision,
        _text(data["probe"]) + ("" if data.get("length") is None else f", {int(data['length'])} steps"),
        int(data["event"]),
        _place(data),
        _number(data["a"]),
        _number(data["b"]),
        _number(data["difference"]),
        _number(data["tolerance"]),
        _inputs(data.get("inputs")),
    )


def _inputs(data: Any) -> str:
    """Inputs of a row in one line, whatever their nesting."""
    if isinstance(data, dict):
        return "; ".join(f"{key}: {_inputs(value)}" for key, value in data.items())
    if isinstance(data, list):
        return "[" + ", ".join(_inputs(value) for value in data) + "]" if data else "[]"
    if isinstance(data, float):
        return f"{data:.9g}"
    return "" if data is None else str(data)


def _coverage(data: Any) -> Coverage:
    if isinstance(data, str):
        return Coverage(data, None, None, 0.0)
    return Coverage(_text(data["what"]), int(data["reached"]), int(data["of"]), _number(data.get("floor") or 0.0))


def _data(data: dict[str, Any]) -> tuple[str, ...]:
    """The real events that were run, in words."""
    left_out = (f"{int(count):,} events: {_text(reason)}" for reason, count in data["left_out"].items())
    return (
        f"{_text(data['file'])}: {int(data['events']):,} events, {_text(data['content'])}",
        *map(_text, data["conversions"]),
        *left_out,
    )


def _feature(data: dict[str, Any]) -> tuple[str, str, str, str]:
    default = data.get("default")
    return (
        _text(data["name"]),
        f"{_number(data['offset']):.9g}",
        f"{_number(data['scale']):.9g}",
        "" if default is None else f"{_number(default):.9g}",
    )


def _place(data: dict[str, Any]) -> str:
    return _text(data["output"]) + "".join(f"[{int(i)}]" for i in data["component"])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} where a text should be")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)


def _number(value: Any) -> float:
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        raise ValueError(f"{value!r:.40} where a number should be")
    return float(value)
