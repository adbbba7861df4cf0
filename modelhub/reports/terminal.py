"""The outcomes of many pairs in the terminal: a line as each is done, a table at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelhub.errors import safe_text
from modelhub.reports.view import Finding, Outcome

__all__ = ["outcomes_json", "show_outcome", "show_outcomes"]

COLOURS = {
    "identical": "green",
    "equivalent": "green",
    "waived": "blue",
    "suspect": "yellow",
    "inconclusive": "yellow",
    "different": "red",
    "error": "red",
}


def show_outcome(number: int, of: int, outcome: Outcome) -> None:
    """One line on stderr."""
    line = Text(f"[{number}/{of}] {safe_text(outcome.name)}: ")
    line.append(outcome.status, style=COLOURS.get(outcome.status, ""))
    Console(stderr=True, highlight=False, soft_wrap=True).print(line)


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """The table on stderr, and beneath it what keeps pairs from passing or is waived."""
    console = Console(stderr=True, highlight=False)
    table = Table(box=None, pad_edge=False)
    for column in ("pair", "verdict", "worst difference / tolerance", "legs", "report"):
        table.add_column(column, justify="right" if column.startswith(("worst", "legs")) else "left")
    for outcome in outcomes:
        view = outcome.view
        row = ("", "", "") if view is None else (f"{view.max_ratio:.3g}", str(len(view.legs)), view.digest[7:19])
        table.add_row(safe_text(outcome.name), Text(outcome.status, style=COLOURS.get(outcome.status, "")), *row)
    console.print()
    console.print(table)
    for outcome in outcomes:
        lines = [outcome.error] if outcome.view is None else [_line(f.verdict, f.where, f.text) for f in _open(outcome)]
        lines += _waived(outcome)
        lines += outcome.notes
        if lines:
            console.print(f"\n[bold]{safe_text(outcome.name)}[/bold]")
            for line in lines:
                console.print(Text(f"  {line}"), soft_wrap=True)


def outcomes_json(outcomes: Sequence[Outcome], code: int) -> dict[str, Any]:
    """What a run over a configuration came to, for programs."""
    return {
        "version": 1,
        "exit_code": code,
        "pairs": [
            {
                "name": outcome.name,
                "status": outcome.status,
                "exit_code": outcome.exit_code,
                **({"error": outcome.error} if outcome.view is None else {}),
                **({"verdict": outcome.view.verdict, "digest": outcome.view.digest} if outcome.view else {}),
                "findings": [
                    {
                        "verdict": f.verdict,
                        "leg": f.leg,
                        "probe": f.probe,
                        "text": f.text,
                        "waived": f.waiver is not None,
                    }
                    for f in (outcome.view.findings if outcome.view else ())
                ],
                "notes": list(outcome.notes),
            }
            for outcome in outcomes
        ],
    }


def _open(outcome: Outcome) -> Sequence[Finding]:
    return outcome.view.open[:10] if outcome.view is not None else ()


def _waived(outcome: Outcome) -> list[str]:
    """One line for each waiver: what it is for, how many findings it covers, and the first of them."""
    by_waiver: dict[int, list[Finding]] = {}
    for finding in outcome.waived:
        by_waiver.setdefault(id(finding.waiver), []).append(finding)
    lines = []
    for findings in by_waiver.values():
        first, waiver = findings[0], findings[0].waiver or {}
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        lines.append(
            f"waived until {waiver['expires']} ({waiver['reason']}; {waiver['owner']}): "
            f"{_line(first.verdict, first.where, first.text)}{more}"
        )
    return lines


def _line(verdict: str, leg: str, text: str) -> str:
    return f"{verdict}{f', {leg}' if leg else ''}: {text}"
