"""The digest of a report: of what was found, not of when or on which machine.

Light: the registry reads reports without numpy.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["digest"]

MEASURED = ("created", "digest", "host")
"""Left out of a report: the time, the machine, and the digest itself."""

PROBE = ("probe", "kind", "length", "events")
"""Kept of a probe. The numbers differ from one processor to the next in their last bits, and with them ratios, the
place of the worst event, and how many events are undecidable."""

COVERAGE = ("what", "of", "floor")
"""Kept of a coverage figure: which side of zero a unit is on may depend on the last bit."""


def digest(report: dict[str, Any]) -> str:
    """`sha256:...` of the parts of a report (its JSON) that are the same whenever and wherever it is made.

    That is: the verdicts (with "identical" counted as "equivalent", which one bit decides), the files and engines,
    the seed, the interface record, which probes ran on how many events, and where names and parameters differ.
    """
    body = {key: value for key, value in report.items() if key not in MEASURED}
    if report.get("version", 1) >= 2:
        body["verdict"] = _coarse(report["verdict"])
        body["parties"] = {
            role: {key: value for key, value in party.items() if not (role == "graph" and key == "sha256")}
            for role, party in report["parties"].items()
        }
        body["legs"] = [_leg(leg) for leg in report["legs"]]
        body["coverage"] = [{key: c[key] for key in COVERAGE if key in c} for c in report["coverage"]]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _leg(leg: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: leg[key] for key in ("between", "precision", "engine", "missing") if key in leg}
    probes = [{key: probe[key] for key in PROBE if key in probe} for probe in leg["probes"]]
    return {**kept, "verdict": _coarse(leg["verdict"]), "probes": probes}


def _coarse(verdict: str) -> str:
    return "equivalent" if verdict == "identical" else verdict
