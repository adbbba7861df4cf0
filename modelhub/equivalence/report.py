"""The report of a check: what was run, by whom, on what, and what came out; as JSON with a published schema."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.equivalence.compare import BANDS, Difference, ProbeResult, Row, added, sample, worst_rows
from modelhub.equivalence.coverage import Coverage, Reach
from modelhub.equivalence.digest import digest
from modelhub.equivalence.leaves import Leaves

__all__ = ["VERSION", "Leg", "Outcome", "Party", "ProbeResult", "Report", "schema"]

VERSION = 2


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


@dataclass
class Leg:
    """Two parties compared on every probe, at one precision."""

    between: tuple[str, str]
    precision: str
    results: list[ProbeResult] = field(default_factory=list)
    missing: str = ""
    """Why this leg could not run; empty when it did."""
    engine: str = ""
    """The engine of the second party, where several of its are compared at this precision."""
    met: Leaves | None = None
    """The leaves of trees both put rows in, where both engines tell."""

    @property
    def title(self) -> str:
        """What no other leg of a report is called."""
        return ", ".join(part for part in (" – ".join(self.between), self.engine, self.precision) if part)

    def add(self, result: ProbeResult) -> None:
        """Merge a batch's result into that of its probe."""
        for index, before in enumerate(self.results):
            if before.key == result.key:
                self.results[index] = before.merged(result)
                return
        self.results.append(result)

    def meet(self, leaves: Leaves) -> None:
        """Add the leaves of one more batch."""
        self.met = leaves if self.met is None else self.met.merged(leaves)

    @property
    def leaves(self) -> Leaves | None:
        """The same, where the trees of both stand in one order."""
        return self.met if self.met is not None and self.met.comparable else None

    @property
    def verdict(self) -> str:
        """identical, equivalent, suspect, different or inconclusive."""
        if self.leaves is not None and self.leaves.elsewhere:
            return "different"
        verdicts = {verdict for r in self.results for verdict in (r.worst.verdict, *(x.worst.verdict for x in r.rows))}
        if "different" not in verdicts and (self.missing or not verdicts):
            return "inconclusive"
        return next(v for v in ("different", "suspect", "equivalent", "identical") if v in verdicts)

    @property
    def worst(self) -> ProbeResult | None:
        """The result that is worst against its tolerance."""
        return max(self.results, key=lambda r: r.worst.ratio, default=None)

    @property
    def ulps(self) -> tuple[int, ...]:
        """How many numbers are 0, 1, 2-3, 4-7, ... units in the last place apart."""
        return reduce(added, (r.ulps for r in self.results), ())

    @property
    def bands(self) -> list[tuple[float, float]]:
        """For each difference of `compare.BANDS` the share of events with an output that differs by more."""
        nothing: tuple[int, ...] = ()
        counts = reduce(added, (r.bands for r in self.results), nothing)
        events = sum(r.events for r in self.results)
        return [(limit, count / max(events, 1)) for limit, count in zip(BANDS, counts, strict=False)]

    @property
    def scatter(self) -> tuple[tuple[int, float, float], ...]:
        """(rank, |value|, difference over tolerance) of a sample of all numbers."""
        return sample(point for r in self.results for point in r.scatter)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The worst events."""
        return worst_rows(row for r in self.results for row in r.rows)


@dataclass(frozen=True)
class Outcome:
    """What one batch showed.

    results: one for every pair of the bench; None where it was not compared.
    leaves:  the same for the leaves of trees; () where no engine was asked.
    reached: what of the model the batch reached (`coverage.Reach`).
    refusals: for every pair why an engine would not take it, or ""; () where all did.
    skipped: the same, where that is the source's good right.
    """

    results: tuple[ProbeResult | None, ...]
    reached: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    refusals: tuple[str, ...] = ()
    skipped: str = ""
    leaves: tuple[Leaves | None, ...] = ()


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
    altered: bool = False
    """Whether rounding cannot explain these: then the target was made from other numbers."""
    skipped: list[str] = field(default_factory=list)
    """Probes the source itself refuses, with its reason."""
    coverage: list[Coverage] = field(default_factory=list)
    """What the probes reach of the model."""
    reach: Reach = field(default_factory=Reach, repr=False)
    """What the batches taken so far reach of it."""
    data: dict[str, Any] = field(default_factory=dict)
    """The real events that were run, if any (`stream`): file, events, digest of what went in, what was left out."""
    preset: str = ""
    """The name of the tolerances, where they are not the rounding bound."""
    waivers: list[dict[str, str]] = field(default_factory=list)
    """What `modelhub.yaml` lets pass: finding, leg, probe, reason, owner, expires. They change no verdict."""
    created: str = ""
    software: dict[str, str] = field(default_factory=dict)
    host: dict[str, str] = field(default_factory=lambda: _host())

    def __post_init__(self) -> None:
        self.created = self.created or datetime.now(UTC).isoformat(timespec="seconds")

    def take(self, outcome: Outcome) -> None:
        """Add what one more batch showed, in any order."""
        for leg, result in zip(self.legs, outcome.results, strict=True):
            if result is not None:
                leg.add(result)
        for leg, refusal in zip(self.legs, outcome.refusals, strict=bool(outcome.refusals)):
            leg.missing = min(filter(None, (leg.missing, refusal)), default="")
        for leg, leaves in zip(self.legs, outcome.leaves, strict=bool(outcome.leaves)):
            if leaves is not None:
                leg.meet(leaves)
        self.reach.add(outcome.reached)
        self.skipped += [outcome.skipped] if outcome.skipped else []

    @property
    def verdict(self) -> str:
        """Different if any leg or record differs, else inconclusive if a leg or coverage is missing, else the legs'.

        A difference of parameters alone is suspect: two files may hold one function in different numbers, but a change
        too small for any probe shows nowhere else.
        """
        verdicts = [leg.verdict for leg in self.legs]
        if self.record or "different" in verdicts:
            return "different"
        ran = any(p.role == "source" and p.engines for p in self.parties)
        if not verdicts or "inconclusive" in verdicts or not ran or any(c.low for c in self.coverage):
            return "inconclusive"
        if self.altered:
            return "suspect"
        return next(v for v in ("suspect", "equivalent", "identical") if v in verdicts)

    @property
    def largest(self) -> float:
        """The largest difference of any output on any leg."""
        return max((r.worst.largest for leg in self.legs for r in leg.results), default=0.0)

    @property
    def missing(self) -> list[str]:
        """Why the check is not complete, one line each."""
        reasons = [p.missing for p in self.parties if p.missing] + [leg.missing for leg in self.legs if leg.missing]
        return list(dict.fromkeys([*reasons, *(c.told for c in self.coverage if c.low)]))

    def to_json(self) -> dict[str, Any]:
        """The report as `report.schema.json` describes it."""
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
            "legs": [_leg_json(leg, banded=bool(self.preset)) for leg in self.legs],
            "record": self.record,
            "parameters": self.parameters,
            "skipped": sorted(set(self.skipped)),
            "coverage": [c.to_json() for c in sorted(self.coverage, key=lambda c: c.what)],
            **({"data": self.data} if self.data else {}),
            **({"preset": self.preset} if self.preset else {}),
            **({"waivers": self.waivers} if self.waivers else {}),
            "software": self.software,
        }
        return {**body, "host": self.host, "created": self.created, "digest": digest(body)}

    def dumps(self) -> str:
        """The report as JSON text, one item a line."""
        return json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"


def _host() -> dict[str, str]:
    """The machine the check runs on."""
    return {"system": platform.system(), "machine": platform.machine(), "processors": str(os.cpu_count() or 0)}


def _leg_json(leg: Leg, *, banded: bool) -> dict[str, Any]:
    return {
        "between": list(leg.between),
        "precision": leg.precision,
        "verdict": leg.verdict,
        **({"engine": leg.engine} if leg.engine else {}),
        **({"missing": leg.missing} if leg.missing else {}),
        "probes": [
            {
                "probe": r.probe,
                "kind": r.kind,
                "length": r.length,
                "events": r.events,
                **_difference_json(r.worst),
                "ratio": _number(r.worst.ratio),
                "limit": _number(r.worst.limit),
                "undecidable": r.undecidable,
                **({"undecided": [_difference_json(d) for d in r.undecided]} if r.undecided else {}),
            }
            for r in sorted(leg.results, key=lambda r: r.key)
        ],
        **({"leaves": leg.leaves.to_json()} if leg.leaves is not None else {}),
        "ulps": list(leg.ulps),
        **({"bands": [[limit, share] for limit, share in leg.bands]} if banded else {}),
        "scatter": [[size, ratio] for _, size, ratio in leg.scatter],
        "rows": [
            {
                "probe": row.probe,
                "length": row.length,
                **_difference_json(row.worst),
                **({"inputs": _numbers(row.inputs)} if row.inputs is not None else {}),
            }
            for row in leg.rows
        ],
    }


def _difference_json(worst: Difference) -> dict[str, Any]:
    return {
        "output": worst.output,
        "event": worst.event,
        "component": list(worst.component),
        "a": _number(worst.a),
        "b": _number(worst.b),
        "difference": _number(worst.largest),
        "tolerance": _number(worst.tolerance),
    }


def _numbers(value: Any) -> Any:
    """Nested numbers, fit for JSON."""
    if isinstance(value, dict):
        return {name: _numbers(inner) for name, inner in value.items()}
    if isinstance(value, Iterable):
        return [_numbers(inner) for inner in value]
    return _number(value)


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity: they are written as text."""
    return value if abs(value) < float("inf") else str(value)
