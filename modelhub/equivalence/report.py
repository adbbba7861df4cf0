"""The report of a check: what was run, by whom, on what, and what came out; as JSON with a published schema."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from modelhub.equivalence.compare import Difference

__all__ = ["VERSION", "Leg", "Party", "ProbeResult", "Report", "schema"]

VERSION = 1


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of `Report.to_json`."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("report.schema.json").read_text(encoding="utf-8"))
    return loaded


@dataclass
class Party:
    """One side of the check: a file and the engines that ran it, or why none did."""

    role: str
    format: str
    file: str
    sha256: str
    engines: list[str] = field(default_factory=list)
    missing: str = ""
    weights: tuple[str, str] | None = None
    """Name and SHA-256 of the second file, for formats that come in two."""


@dataclass(frozen=True)
class ProbeResult:
    """The worst output of one probe on one leg."""

    probe: str
    length: int | None
    events: int
    worst: Difference


@dataclass
class Leg:
    """Two parties compared on every probe, at one precision."""

    between: tuple[str, str]
    precision: str
    results: list[ProbeResult] = field(default_factory=list)
    missing: str = ""
    """Why this leg could not run; empty when it did."""

    @property
    def verdict(self) -> str:
        """identical, equivalent, different or inconclusive."""
        if self.missing or not self.results:
            return "inconclusive"
        if any(r.worst.excessive for r in self.results):
            return "different"
        return "identical" if all(r.worst.identical for r in self.results) else "equivalent"

    @property
    def worst(self) -> ProbeResult | None:
        """The result that is worst against its tolerance."""
        return max(self.results, key=lambda r: r.worst.largest / max(r.worst.tolerance, 5e-324), default=None)


@dataclass
class Report:
    """Everything a check found. The verdict follows from the legs and from what differs in names and parameters."""

    parties: list[Party]
    legs: list[Leg]
    seed: int
    interface: dict[str, Any] = field(default_factory=dict)
    """The interface record the check was made with, as JSON."""
    record: list[str] = field(default_factory=list)
    """Differences of the interface records: a name, a scale, a label."""
    parameters: list[str] = field(default_factory=list)
    """Where source and target hold different numbers."""
    skipped: list[str] = field(default_factory=list)
    """Probes the source itself refuses, with its reason."""
    coverage: list[str] = field(default_factory=list)
    """What the probes reach of the model's trees."""
    created: str = ""
    software: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.created = self.created or datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def verdict(self) -> str:
        """Different if any leg or record differs, else inconclusive if any leg is missing, else what the legs say.

        A difference of parameters alone is no verdict: two files may hold one function in different numbers.
        """
        verdicts = [leg.verdict for leg in self.legs]
        if self.record or "different" in verdicts:
            return "different"
        if (
            not verdicts
            or "inconclusive" in verdicts
            or not any(p.role == "source" and p.engines for p in self.parties)
        ):
            return "inconclusive"
        return "identical" if set(verdicts) == {"identical"} else "equivalent"

    @property
    def largest(self) -> float:
        """The largest difference of any output on any leg."""
        return max((r.worst.largest for leg in self.legs for r in leg.results), default=0.0)

    @property
    def missing(self) -> list[str]:
        """Why the check is not complete, one line each."""
        reasons = [p.missing for p in self.parties if p.missing] + [leg.missing for leg in self.legs if leg.missing]
        return list(dict.fromkeys(reasons))

    def to_json(self) -> dict[str, Any]:
        """The report as `report.schema.json` describes it. `digest` covers all but time and itself."""
        body: dict[str, Any] = {
            "version": VERSION,
            "verdict": self.verdict,
            "seed": self.seed,
            "parties": {
                p.role: {
                    "format": p.format,
                    "file": p.file,
                    "sha256": p.sha256,
                    "engines": p.engines,
                    **({"weights": {"file": p.weights[0], "sha256": p.weights[1]}} if p.weights else {}),
                    **({"missing": p.missing} if p.missing else {}),
                }
                for p in self.parties
            },
            "interface": self.interface,
            "legs": [_leg_json(leg) for leg in self.legs],
            "record": self.record,
            "parameters": self.parameters,
            "skipped": self.skipped,
            **({"coverage": self.coverage} if self.coverage else {}),
            "software": self.software,
        }
        digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        return {**body, "created": self.created, "digest": f"sha256:{digest}"}

    def dumps(self) -> str:
        """The report as JSON text, one item a line."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"


def _leg_json(leg: Leg) -> dict[str, Any]:
    return {
        "between": list(leg.between),
        "precision": leg.precision,
        "verdict": leg.verdict,
        **({"missing": leg.missing} if leg.missing else {}),
        "probes": [
            {
                "probe": r.probe,
                "length": r.length,
                "events": r.events,
                "output": r.worst.output,
                "event": r.worst.event,
                "component": list(r.worst.component),
                "a": _number(r.worst.a),
                "b": _number(r.worst.b),
                "difference": _number(r.worst.largest),
                "tolerance": _number(r.worst.tolerance),
            }
            for r in leg.results
        ],
    }


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity: they are written as text."""
    return value if abs(value) < float("inf") else str(value)
