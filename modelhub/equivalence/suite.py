"""All pairs of a `modelhub.yaml`, one after the other: each checked, its waivers applied, its outcome told."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from modelhub.data import DataSpec
from modelhub.equivalence.check import SEED, check
from modelhub.equivalence.config import Config, Pair, Waiver
from modelhub.equivalence.coverage import KINDS
from modelhub.errors import ModelhubError, UsageError, safe_text
from modelhub.protocols import ReadOptions
from modelhub.reports.view import Outcome, View, covers

if TYPE_CHECKING:
    from modelhub.equivalence.probes import Progress
    from modelhub.equivalence.report import Report

__all__ = ["Result", "check_pair", "exit_code", "run"]


@dataclass(frozen=True)
class Result:
    """A pair's outcome, and its report where one could be made."""

    pair: Pair
    outcome: Outcome
    report: Report | None


def run(config: Config, *, fail_on: str, today: date, progress: Progress = iter) -> Iterator[Result]:
    """Check every pair; an error in one is its outcome and keeps no other from being checked."""
    for pair in config.pairs:
        try:
            report = check_pair(pair, progress=progress)
        except ModelhubError as error:
            yield Result(pair, Outcome(pair.name, error=str(error), code=error.exit_code), None)
            continue
        except Exception as error:
            if os.environ.get("MODELHUB_DEBUG"):
                raise
            told = f"modelhub itself failed ({type(error).__name__}: {safe_text(error, 200)})"
            yield Result(pair, Outcome(pair.name, error=told, code=70), None)
            continue
        notes = _apply([w for w in config.waivers if w.pair == pair.name], report, today)
        view = View(report.to_json(), pair.name)
        yield Result(pair, Outcome(pair.name, view, fail_on=fail_on, notes=tuple(notes)), report)


def check_pair(pair: Pair, *, progress: Progress = iter) -> Report:
    """The check of one pair as `modelhub check` makes it, with the pair's floors."""
    for what in pair.floors:  # a configuration has been looked at; a test may say anything
        if what not in KINDS:
            raise UsageError(f"a floor for {safe_text(what)!r}, which is none of {', '.join(KINDS)}")
    return check(
        pair.source,
        pair.target,
        source_format=pair.source_format,
        target_format=pair.target_format,
        interface=pair.interface,
        options=ReadOptions(weights=pair.weights, trust=pair.trust, tie=pair.tie, task=pair.task),
        seed=SEED if pair.seed is None else pair.seed,
        preset=pair.preset,
        floors=pair.floors,
        data=None if pair.data is None else _spec(pair.data, pair),
        progress=progress,
    )


def _spec(text: str, pair: Pair) -> DataSpec:
    return replace(DataSpec.parse(text, events=pair.events), columns=pair.columns)


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """One code for all: 1 if any pair differs, else the first error's, else 6 if any is inconclusive, else 0."""
    codes = [outcome.exit_code for outcome in outcomes]
    if 1 in codes:
        return 1
    return next((code for code in codes if code not in (0, 6)), 6 if 6 in codes else 0)


def _apply(waivers: Sequence[Waiver], report: Report, today: date) -> list[str]:
    """Note the waivers that hold in the report; what is to be said of the others."""
    findings = View(report.to_json(), "the report").findings
    notes = []
    for waiver in waivers:
        if not any(covers(waiver.to_json(), finding) for finding in findings):
            notes.append(f"{waiver} covers nothing: take it out")
        elif waiver.expires < today:
            notes.append(f"{waiver} has expired: what it covered fails again")
        else:
            report.waivers.append(waiver.to_json())
    return notes
