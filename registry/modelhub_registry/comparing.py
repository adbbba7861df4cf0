"""Two versions side by side: files, evidence and its figures, interface, metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelhub.files import parse_json
from modelhub_registry.evidence import LIMIT
from modelhub_registry.lookup import Lookup
from modelhub_registry.records import Artifact, Version

__all__ = ["Comparing", "Comparison", "Line"]

_PRECISION = re.compile(r" float[0-9]+$")


@dataclass(frozen=True)
class Line:
    """One thing of both versions; None where a version does not have it."""

    what: str
    a: Any
    b: Any

    @property
    def same(self) -> bool:
        """Whether both say the same (True is not 1 here)."""
        return type(self.a) is type(self.b) and self.a == self.b

    @property
    def change(self) -> float | None:
        """B less A, where both are numbers and not the same."""
        numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in (self.a, self.b))
        return self.b - self.a if numbers and self.a != self.b else None


@dataclass(frozen=True)
class Comparison:
    """What two versions say, line by line; `interface` and `metadata` hold what differs only.

    `figures` are those of the reports that count: how far the engines are apart, and what the probes reached.
    """

    a: Version
    b: Version
    files: tuple[Line, ...]
    reports: tuple[Line, ...]
    figures: tuple[Line, ...]
    interface: tuple[Line, ...]
    metadata: tuple[Line, ...]

    @property
    def same(self) -> bool:
        """Whether they hold the same files under the same names, and say the same of them."""
        lines = (*self.files, *self.reports, *self.interface, *self.metadata)
        return all(line.same for line in lines)


class Comparing(Lookup):
    """The verb that compares."""

    def compare(self, a: str, b: str) -> Comparison:
        """Two versions, of one model or of two, side by side."""
        one, other = self.version(a), self.version(b)
        return Comparison(
            one,
            other,
            tuple(_paired(_files(one), _files(other))),
            tuple(_paired(_reports(one), _reports(other))),
            tuple(_paired(self._figures(one), self._figures(other))),
            tuple(_differences("", one.manifest.interface or {}, other.manifest.interface or {})),
            tuple(_differences("", one.manifest.metadata, other.manifest.metadata)),
        )

    def _figures(self, version: Version) -> dict[str, Any]:
        """The figures of the reports that count, by the role of the target. Raises `DamageError`, `UnreadableFile`."""
        judged = version.judged
        roles = {a.sha256: a.role for a in judged.artifacts}
        found: dict[str, Any] = {}
        for report in judged.reports:
            name = judged.report_name(report)
            told = _told_by(self._blobs.get(report.sha256, LIMIT), f"{version.ref}, {name}")
            found |= {f"{roles[report.covers['target']]}, {what}": value for what, value in told.items()}
        return found


def _told_by(data: bytes, where: str) -> dict[str, Any]:
    """The figures of one report: the worst over the legs, what was run, what was reached."""
    from modelhub.reports.view import View

    view = View(parse_json(data, where), where)
    cases = [case for leg in view.legs for case in leg.cases]
    figures: dict[str, Any] = {}
    if cases:
        figures["largest difference"] = _number(max(case.difference for case in cases))
        figures["worst difference / tolerance"] = _number(view.max_ratio)
        figures["events"] = max(sum(case.events for case in leg.cases) for leg in view.legs)
    if view.data:
        figures["real events"] = view.data[0]
    for one in view.coverage:
        if one.share is not None:  # reports of the first version have a sentence
            figures[f"reached of {one.what}"] = f"{one.reached} of {one.of}"
    engines = {_PRECISION.sub("", engine) for party in view.parties for engine in party.engines}
    figures["engines"] = ", ".join(sorted(engines))
    return figures


def _number(value: float) -> float | str:
    """JSON has no word for what is not finite."""
    return value if math.isfinite(value) else str(value)


def _files(version: Version) -> dict[str, dict[str, Any]]:
    return {a.role: _told(a) for a in version.manifest.artifacts}


def _told(artifact: Artifact) -> dict[str, Any]:
    return {"format": artifact.format, "size": artifact.size, "sha256": artifact.sha256}


def _reports(version: Version) -> dict[str, str]:
    judged = version.judged
    roles = {a.sha256: a.role for a in judged.artifacts}
    return {roles[report.covers["target"]]: report.verdict for report in judged.reports}


def _paired(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Line]:
    for key in sorted(a.keys() | b.keys()):
        yield Line(key, a.get(key), b.get(key))


def _differences(path: str, a: Any, b: Any) -> Iterator[Line]:
    """Every value that differs, with the way to it. What has a name in a list is found by its name."""
    if {type(a), type(b)} <= {dict, type(None)} and (a or b):
        for line in _paired(a or {}, b or {}):
            yield from _differences(f"{path}.{line.what}" if path else line.what, line.a, line.b)
    elif _has_names(a) and _has_names(b):
        yield from _named(path, a or [], b or [])
    elif path and not (line := Line(path, a, b)).same:
        yield line


def _has_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value))


def _named(path: str, a: list[dict[str, Any]], b: list[dict[str, Any]]) -> Iterator[Line]:
    """Two lists of what has names: which are in one alone, in which order the others stand, and how they differ."""
    one, other = {item["name"]: item for item in a}, {item["name"]: item for item in b}
    only = [name for name in one if name not in other], [name for name in other if name not in one]
    if any(only):
        yield Line(f"{path} (only here)", only[0] or None, only[1] or None)
    order = Line(f"{path} (order)", [n for n in one if n in other], [n for n in other if n in one])
    if not order.same:
        yield order
    for name in order.a:
        yield from _differences(f"{path}.{name}", one[name], other[name])
