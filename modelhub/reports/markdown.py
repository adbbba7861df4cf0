"""A summary in Markdown, as GitHub shows it under a job (``$GITHUB_STEP_SUMMARY``).

Texts from files stand in code spans, where Markdown has no meaning: no link, image or mention comes from a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from modelhub.reports.view import Outcome, View

__all__ = ["markdown"]

SIGNS = {
    "identical": "✅",
    "equivalent": "✅",
    "waived": "☑️",
    "suspect": "⚠️",
    "inconclusive": "❔",
    "different": "❌",
    "error": "❌",
}
SHOWN = 20
"""Findings of one pair that are listed."""


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The outcomes of all pairs: one table, then what keeps a pair from passing or is waived."""
    lines = [
        "## modelhub check",
        "",
        "| | pair | verdict | worst difference / tolerance | report |",
        "|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        ratio = "" if outcome.view is None else f"{outcome.view.max_ratio:.3g}"
        digest = "" if outcome.view is None else _code(outcome.view.digest.removeprefix("sha256:")[:12])
        sign = SIGNS.get(outcome.status, "❔")
        name = _code(outcome.name).replace("|", "\\|")  # which only tables take for an escape
        lines.append(f"| {sign} | {name} | {_status(outcome)} | {ratio} | {digest} |")
    for outcome in outcomes:
        lines += _details(outcome)
    return "\n".join(lines) + "\n"


def _status(outcome: Outcome) -> str:
    if outcome.status == "waived" and outcome.view is not None:
        return f"{outcome.view.verdict}, waived"
    return outcome.status


def _details(outcome: Outcome) -> list[str]:
    told = [f"- error: {_code(outcome.error)}"] if outcome.view is None else []
    if outcome.view is not None:
        told += [f"- **{f.verdict}** {_where(f.where, f.probe)}{_code(f.text)}" for f in outcome.view.open[:SHOWN]]
        if len(outcome.view.open) > SHOWN:
            told.append(f"- and {len(outcome.view.open) - SHOWN} more: see the full report")
        told += [f"- numbers differ: {_code(line)}" for line in outcome.view.parameters[:5]]
        for finding in outcome.waived[:SHOWN]:
            waiver = finding.waiver or {}
            told.append(
                f"- waived until {_code(waiver.get('expires', ''))}: **{finding.verdict}** "
                f"{_where(finding.where, finding.probe)}{_code(finding.text)}; {_code(waiver.get('reason', ''))} "
                f"({_code(waiver.get('owner', ''))})"
            )
        if len(outcome.waived) > SHOWN:
            told.append(f"- and {len(outcome.waived) - SHOWN} more that are waived")
    told += [f"- {_code(note)}" for note in outcome.notes]
    if not told:
        return []
    title = "" if outcome.view is None else f": {_code(outcome.view.title)}"
    leaves = [] if outcome.view is None else [f"- leaves: {_code(line)}" for line in outcome.view.leaves]
    return ["", f"### {_code(outcome.name)}{title}", "", *told, *leaves, *_engines(outcome.view)]


def _engines(view: View | None) -> list[str]:
    if view is None:
        return []
    lines = [
        f"- {_code(p.role)} {_code(p.file)}: {_code(', '.join(p.engines) or p.missing or 'did not run')}"
        for p in view.parties
    ]
    return ["", "<details><summary>Engines</summary>", "", *lines, "", "</details>"]


def _where(leg: str, probe: str) -> str:
    words = " ".join(_code(word) for word in (leg, probe) if word)
    return f"{words}: " if words else ""


def _code(text: str) -> str:
    """`text` in a code span, fenced by more backticks than it holds."""
    text = " ".join(text.split())
    if not text:
        return ""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}"
