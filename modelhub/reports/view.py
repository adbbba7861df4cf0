"""What a report says, read from its JSON: the one published form, so that stored reports render like fresh ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

from modelhub.errors import UnreadableFile
from modelhub.files import parse_json, read_bytes
from modelhub.reports.records import (
    Case,
    Leg,
    read_coverage,
    read_events,
    read_feature,
    read_leg,
    read_party,
    read_text,
)

__all__ = ["VERSIONS", "Finding", "Outcome", "View", "covers", "load"]

VERSIONS = (1, 2)
"""Versions of the report's schema that are understood."""

LIMIT = 64 << 20
"""Bytes a stored report may have."""

FAILING = ("different", "suspect", "inconclusive")
"""The worst first."""
VERDICTS = ("identical", "equivalent", *FAILING)


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
    run: str = ""
    """Engine and precision of the leg."""

    @property
    def where(self) -> str:
        """The leg as a waiver names it, with its engine and precision."""
        return f"{self.leg}, {self.run}" if self.run else self.leg


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
        self.verdict = read_text(data["verdict"])
        if self.verdict not in VERDICTS:
            raise ValueError(f"the verdict {self.verdict:.40}")
        self.seed = int(data["seed"])
        self.digest = read_text(data["digest"])
        self.created = read_text(data["created"])
        self.seconds = min(max(float(data.get("host", {}).get("seconds", 0)), 0.0), 1e9)
        self.parties = tuple(read_party(role, party) for role, party in data["parties"].items())
        self.legs = _numbered([read_leg(leg) for leg in data["legs"]])
        self.record = tuple(map(read_text, data["record"]))
        self.parameters = tuple(map(read_text, data["parameters"]))
        self.skipped = tuple(map(read_text, data["skipped"]))
        self.coverage = tuple(map(read_coverage, data.get("coverage", [])))
        self.preset = read_text(data.get("preset", ""))
        self.data = read_events(data["data"]) if "data" in data else ()
        self.software = {read_text(k): read_text(v) for k, v in data["software"].items()}
        self.waivers: tuple[dict[str, str], ...] = tuple(
            {read_text(k): read_text(v) for k, v in waiver.items()} for waiver in data.get("waivers", [])
        )
        self.inputs = [
            (read_text(entry["name"]), bool(entry.get("sequence")), [read_feature(f) for f in entry["features"]])
            for entry in data["interface"].get("inputs", [])
        ]

    @property
    def title(self) -> str:
        """Source and target."""
        files = {party.role: party.file for party in self.parties}
        return f"{files.get('source', '?')} → {files.get('target', '?')}"

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All that keeps the check from passing, the worst first, each with the waiver that covers it."""
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
            # Numbers that differ by more than rounding make a check suspect, even where no probe shows it.
            leg, text = ("parameters", self.parameters[0]) if self.parameters else ("", f"the check is {self.verdict}")
            found.append(Finding(self.verdict, leg, "", text))
        found.sort(key=lambda finding: FAILING.index(finding.verdict))
        return tuple(_waived(finding, self.waivers) for finding in found)

    @property
    def open(self) -> tuple[Finding, ...]:
        """Findings that no waiver covers."""
        return tuple(finding for finding in self.findings if finding.waiver is None)

    @property
    def leaves(self) -> tuple[str, ...]:
        """What was found of the leaves of trees, a line for each leg that tells."""
        return tuple(f"{leg.title}: {leg.leaves.told}" for leg in self.legs if leg.leaves is not None)

    @property
    def max_ratio(self) -> float:
        """The worst difference over tolerance on any leg."""
        return max((case.ratio for leg in self.legs for case in leg.cases), default=0.0)

    @property
    def max_ulp(self) -> int | None:
        """The largest distance between source and target in units in the last place."""
        legs = (leg for leg in self.legs if leg.between == ("source", "target"))
        return max((leg.max_ulp for leg in legs if leg.max_ulp is not None), default=None)


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


def _numbered(legs: list[Leg]) -> tuple[Leg, ...]:
    """Legs that share a title, told apart."""
    titles = [leg.title for leg in legs]
    return tuple(replace(leg, number=titles[: i + 1].count(leg.title)) for i, leg in enumerate(legs))


def _findings(leg: Leg) -> list[Finding]:
    found = []
    if leg.missing or leg.verdict == "inconclusive":
        found.append(Finding("inconclusive", leg.name, "", leg.missing or "nothing was compared", run=leg.run))
    if leg.verdict == "inconclusive":
        return found
    found += [
        Finding(
            case.verdict,
            leg.name,
            case.probe,
            _told(leg, case),
            case,
            run=leg.run,
        )
        for case in leg.cases
        if case.verdict in FAILING
    ]
    if leg.leaves is not None and leg.leaves.elsewhere:
        first = "".join(f"; {case}" for case in leg.leaves.cases[:1])
        found.append(Finding("different", leg.name, "leaves", f"{leg.leaves.told}{first}"))
    if leg.verdict in FAILING and leg.verdict not in {finding.verdict for finding in found}:
        row = next((f", {r.probe}, event {r.event}, {r.place}" for r in leg.rows), "")
        found.append(Finding(leg.verdict, leg.name, "", f"the leg is {leg.verdict}{row}", run=leg.run))
    return found


def _told(leg: Leg, case: Case) -> str:
    where = f"{case.name}, event {case.event}, {case.place}"
    if isnan(case.a) and isnan(case.b):
        return f"{where}: arrays of different shapes"
    return f"{where}: {leg.told(case.a)} against {leg.told(case.b)}, {case.ratio:.3g} times the tolerance"


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
