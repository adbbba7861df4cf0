"""Digests, and reports as `modelhub check` writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from modelhub.equivalence.compare import Difference
from modelhub.equivalence.report import Leg, Party, ProbeResult, Report

LARGEST = {"identical": 0.0, "equivalent": 1e-9, "suspect": 2e-6, "different": 1.0}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_report(
    path: Path, source: Path, target: Path, verdict: str = "equivalent", seed: int = 1, *,
    weights: Path | None = None, interface: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """A report as the check makes it, its verdict following from one leg."""
    parties = [
        Party("source", "torch", str(source), digest(source), ["torch"]),
        Party("target", "lwtnn", str(target), digest(target), ["lwtnn"]),
    ]
    if weights is not None:
        parties[0].weights = (weights.name, digest(weights))
    leg = Leg(("source", "target"), "float64", missing="" if verdict in LARGEST else "no engine")
    if verdict in LARGEST:
        largest = LARGEST[verdict]
        worst = Difference("out", largest, 1e-6, 0, (0,), 1.0, 1.0 + largest, verdict == "identical", limit=10.0)
        leg.results.append(ProbeResult("normal", None, 10, worst))
    made = Report(parties, [leg], seed, interface or {})
    assert made.verdict == verdict
    path.write_text(made.dumps())
    return path
