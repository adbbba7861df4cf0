"""Reports for people: a table in the terminal, and one line that sums it up."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from math import isnan
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from modelhub.errors import safe_text
from modelhub.reports.records import read_leaves

if TYPE_CHECKING:
    from modelhub.equivalence.compare import Difference
    from modelhub.equivalence.probes import Probe
    from modelhub.equivalence.report import Leg, Report
    from modelhub.inspection import Inspection

__all__ = ["progress", "show", "show_formats", "show_inspection", "summary"]

COLOURS = {
    "identical": "green",
    "equivalent": "green",
    "suspect": "yellow",
    "different": "red",
    "inconclusive": "yellow",
}


def summary(report: Report) -> str:
    """One line: the verdict and the number behind it, or what is missing."""
    if report.verdict == "inconclusive":
        return f"check incomplete: {'; '.join(report.missing) or 'no leg ran'}"
    last = [leg for leg in report.legs if leg.between == ("source", "target")]
    worst = max((leg.worst.worst.largest for leg in last if leg.worst is not None), default=0.0)
    astray = max((leg.leaves.elsewhere for leg in report.legs if leg.leaves is not None), default=0)
    leaves = f"; {astray:,} times in another leaf" if astray else ""
    return f"{report.verdict}, largest difference between source and target {worst:.1e}{leaves}"


def progress(probes: Iterable[Probe]) -> Iterable[Probe]:
    """A progress bar on stderr over the probes of a check, where there is a terminal to draw it on."""
    console = Console(stderr=True)
    return track(probes, "checking", console=console, transient=True) if console.is_terminal else probes


def show(report: Report) -> None:
    """The report as tables on stderr: who ran, leg by leg what came out, and where it differs."""
    console = Console(stderr=True, highlight=False)
    parties = Table(box=None, pad_edge=False)
    for column in ("party", "file", "engine"):
        parties.add_column(column, style="bold" if column == "party" else "")
    for party in report.parties:
        engines = "\n".join(party.engines) or Text(party.missing or "did not run", style="yellow")
        parties.add_row(party.role, Text(safe_text(party.file, 60)), engines)
    console.print(parties)
    console.print()
    legs = Table(box=None, pad_edge=False)  # 80 columns wide with the longest names and verdicts
    for column in ("leg", "probes", "events", "largest\ndifference", "share of\ntolerance", "verdict"):
        text = column in ("leg", "verdict")
        legs.add_column(column, justify="left" if text else "right", no_wrap=text, vertical="bottom")
    for leg in report.legs:
        legs.add_row(*_leg_row(leg))
    console.print(legs)
    for title, lines in (
        ("names that differ", report.record),
        ("numbers that differ", report.parameters),
        ("could not be run", [leg for leg in report.missing if report.verdict == "different"]),
        ("coverage", [c.told for c in report.coverage]),
        ("not compared", _skipped(report)),
        ("real events", _real_events(report)),
        ("undecidable", _undecidable(report)),
        ("leaves of trees", _leaves(report)),
        ("worst cases", _worst_cases(report)),
        (f"events that differ by more, preset {report.preset}", _bands(report) if report.preset else []),
    ):
        if lines:
            console.print(f"\n[bold]{title}[/bold]")
            for line in lines:
                console.print(Text(f"  {line}"))
    console.print(f"\nverdict: [bold {COLOURS[report.verdict]}]{report.verdict}[/]")


def _leg_row(leg: Leg) -> list[str | Text]:
    name = f"{' – '.join(leg.between)}, {leg.precision}" + (f"\n  {leg.engine}" if leg.engine else "")
    verdict = Text(leg.verdict, style=COLOURS[leg.verdict])
    worst = leg.worst
    if worst is None:
        return [name, "0", "0", "", "", verdict]
    events = sum(result.events for result in leg.results)
    largest = max(result.worst.largest for result in leg.results)
    return [
        name,
        str(len(leg.results)),
        str(events),
        f"{largest:.1e}",
        f"{worst.worst.ratio:.2g}",
        verdict,
    ]


def _skipped(report: Report) -> list[str]:
    """Probes that were skipped, those with one reason on one line."""
    by_reason: dict[str, list[str]] = {}
    for line in report.skipped:
        probe, _, reason = line.partition(": ")
        by_reason.setdefault(reason, []).append(probe)
    return [f"{', '.join(probes)}: {reason}" for reason, probes in by_reason.items()]


def _undecidable(report: Report) -> list[str]:
    """Where sides differ on events that rounding may turn at a hard decision."""
    lines = []
    for leg in report.legs:
        for r in leg.results:
            if r.undecidable:
                lines.append(f"{leg.title}, probe {r.probe}: {r.undecidable} events within rounding of a decision")
                lines += [f"  event {d.event}, {_compared(d)}" for d in r.undecided]
    return lines


def _leaves(report: Report) -> list[str]:
    """Whether the sides put the rows in the same leaves, and where not."""
    lines = []
    for leg in report.legs:
        if leg.leaves is not None:
            found = read_leaves(leg.leaves.to_json())
            lines += [f"{leg.title}: {found.told}", *(f"  {case}" for case in found.cases)]
    return lines


def _bands(report: Report) -> list[str]:
    """The table of flavour tagging: what share of events differs by more than each limit."""
    return [
        f"{leg.title}: " + ", ".join(f"{limit:g}: {share:.2%}" for limit, share in leg.bands)
        for leg in report.legs
        if leg.results
    ]


def _real_events(report: Report) -> list[str]:
    """What was run of a data file, and what became of it on the way."""
    if not report.data:
        return []
    left_out = [f"{reason}: {count}" for reason, count in report.data["left_out"].items()]
    counted = f"{report.data['events']} of {safe_text(report.data['file'])}"
    if "observed" in report.data:
        counted += f"; probes keep to the ranges of the first {report.data['observed']}"
    return [counted, *report.data["conversions"], *left_out]


def _worst_cases(report: Report) -> list[str]:
    """For every leg that differs, the probe, event and component where it does most."""
    lines = []
    for leg in report.legs:
        result = leg.worst
        if result is None or not result.worst.excessive:  # where only leaves differ, they are told above
            continue
        worst = result.worst
        steps = "" if result.length is None else f", {result.length} steps"
        lines.append(f"{leg.title}: probe {result.probe}{steps}, event {worst.event}, {_compared(worst)}")
    return lines


def _compared(difference: Difference) -> str:
    """An output, and what the two say."""
    place = "".join(f"[{i}]" for i in difference.component)
    if isnan(difference.a) and isnan(difference.b):  # these are equal but for this reason
        return f"{safe_text(difference.output)}: arrays of different shapes"
    return f"{safe_text(difference.output)}{place}: {difference.a:.9g} against {difference.b:.9g}"


def show_inspection(found: Inspection) -> None:
    """An inspection as tables on stdout."""
    console = Console(highlight=False)
    console.print(f"[bold]{found.file}[/bold]: {found.format}, {found.parameters:,} parameters, opset {found.opset}\n")
    layers = Table(box=None, pad_edge=False)
    for column in ("layer", "operator", "output"):
        layers.add_column(column)
    layers.add_column("parameters", justify="right")
    for row in found.layers:
        layers.add_row(
            Text(safe_text(row.name, 60)), row.operator, row.shape, f"{row.parameters:,}" if row.parameters else ""
        )
    console.print(layers)
    inputs = Table(box=None, pad_edge=False, title="\ninputs", title_justify="left", title_style="bold")
    for column in ("input", "variable", "offset", "scale", "default"):
        inputs.add_column(column, justify="left" if column in ("input", "variable") else "right")
    for record in found.interface.inputs:
        for index, f in enumerate(record.features):
            name = safe_text(record.name) + (" (sequence)" if record.sequence else "") if index == 0 else ""
            default = "" if f.default is None else f"{f.default:g}"
            inputs.add_row(name, Text(safe_text(f.name)), f"{f.offset:g}", f"{f.scale:g}", default)
    console.print(inputs)
    console.print("\n[bold]outputs[/bold]")
    for output in found.interface.outputs:
        console.print(Text(f"{safe_text(output.name)}: {', '.join(map(safe_text, output.labels))}"))


def show_formats(rows: list[dict[str, Any]]) -> None:
    """The table of formats on stdout."""
    console = Console(highlight=False, file=sys.stdout)
    table = Table(box=None, pad_edge=False)
    for column in ("format", "reads", "writes", "engine for the check"):
        table.add_column(column)
    for row in rows:
        alias = f" (= {row['alias_of']})" if row["alias_of"] else ""
        engine = row["engine"] or "none"
        if engine == "missing":
            engine = f'pip install "modelhub-hep[{row["extra"]}]"'
        table.add_row(row["format"] + alias, " ".join(row["reads"]), row["writes"] or "", Text(engine))
    console.print(table)
