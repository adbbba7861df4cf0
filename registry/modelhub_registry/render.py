"""What the commands print: JSON for machines, tables that fit a terminal of 80 columns for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelhub.errors import safe_text
from modelhub_registry.comparing import Comparison, Line
from modelhub_registry.index import Found, History, Summary
from modelhub_registry.lookup import Details, Lineage
from modelhub_registry.records import PASSING, Version

__all__ = [
    "change",
    "comparison_json",
    "details_json",
    "found_json",
    "lineage_json",
    "print_comparison",
    "print_details",
    "print_files",
    "print_found",
    "print_lineage",
    "print_list",
    "summary_json",
    "version_json",
]

WIDE = 1000
"""Columns for a table that goes to a file or another program."""


def version_json(version: Version) -> dict[str, Any]:
    """A version: where it stands, and what its manifest says."""
    manifest = version.judged.to_json()
    del manifest["kind"], manifest["version"]
    place = {
        "ref": version.ref,
        "number": version.number,
        "digest": f"sha256:{version.digest}",
        "verdict": version.verdict,
    }
    return place | manifest


def details_json(details: Details) -> dict[str, Any]:
    """A version with its aliases and their history; `gaps` says why the evidence is not complete."""
    return version_json(details.version) | {
        "gaps": details.version.judged.gaps(),
        "aliases": list(details.aliases),
        "moves": [{"created": m.created, "by": m.by, **vars(m.move)} for m in details.moves],
    }


def summary_json(summary: Summary) -> dict[str, Any]:
    """A line of a list."""
    return {"ref": summary.ref, **vars(summary), "digest": f"sha256:{summary.digest}"}


def found_json(found: Found) -> dict[str, Any]:
    """A version that holds a file, and as what."""
    return {"role": found.role, **summary_json(found.version)}


def lineage_json(lineage: Lineage) -> dict[str, Any]:
    """Conversions of a version, and who else holds its files."""
    return {
        "ref": lineage.version.ref,
        "files": [vars(a) for a in lineage.version.manifest.artifacts],
        "steps": [vars(step) for step in lineage.steps],
        "shared": [found_json(found) for found in lineage.shared],
    }


def print_lineage(lineage: Lineage) -> None:
    """The way from source to exports, then the versions that share a file."""
    console = _console()
    table = _table("from", "to", "verdict", "report", "graph")
    for step in lineage.steps:
        graph = f"{step.graph[:12]}…" if step.graph else "-"
        table.add_row(step.source, step.target, _verdict(step.verdict), step.report, graph)
    proved = {step.target for step in lineage.steps}
    for a in lineage.version.manifest.artifacts:
        if not a.is_source and a.role not in proved:
            table.add_row("-", a.role, _verdict("unchecked"), "-", "-")
    console.print(lineage.version.ref)
    console.print(table)
    if lineage.shared:
        console.print("the same file is in:")
        print_found(lineage.shared)


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Two versions side by side."""

    def lines(part: Iterable[Line]) -> list[dict[str, Any]]:
        return [{**vars(line), "same": line.same, "change": line.change} for line in part]

    return {
        "a": version_json(found.a),
        "b": version_json(found.b),
        "same": found.same,
        "files": lines(found.files),
        "reports": lines(found.reports),
        "figures": lines(found.figures),
        "interface": lines(found.interface),
        "metadata": lines(found.metadata),
    }


def print_comparison(found: Comparison) -> None:
    """Two versions side by side; of interface and metadata what differs; behind a number what it is more or less."""
    table = _table("", found.a.ref, found.b.ref)
    table.add_row("verdict", _verdict(found.a.verdict), _verdict(found.b.verdict))
    for line in found.files:
        table.add_row(line.what, *(_file(line, side) for side in (line.a, line.b)))
    for line in found.reports:
        table.add_row(f"report {line.what}", *(_verdict(side or "-") for side in (line.a, line.b)))
    for title, lines in (("", found.figures), ("interface ", found.interface), ("metadata ", found.metadata)):
        for line in lines:
            table.add_row(f"{title}{safe_text(line.what)}", _side(line.a), _side(line.b) + change(line))
    _console().print(table)


def _side(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return safe_text(f"{len(value)}: {', '.join(value)}", 100)
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else safe_text(value, 100)


def change(line: Line) -> str:
    """B less A, for behind B; "" where they are no numbers, or the same."""
    return "" if line.change is None else f" ({line.change:+.3g})"


def _file(line: Line, side: dict[str, Any] | None) -> str:
    if side is None:
        return "-"
    mark = "=" if line.same else "≠" if line.a is not None and line.b is not None else ""
    return f"{mark} {side['format']}, {_size(side['size'])}, {side['sha256'][:8]}…".strip()


def _console() -> Console:
    """Standard output; where it is no terminal a row stays one line, for whoever reads it by lines."""
    console = Console(markup=False, highlight=False, emoji=False)
    return console if console.is_terminal else Console(width=WIDE, markup=False, highlight=False, emoji=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _verdict(verdict: str) -> Text:
    colour = "green" if verdict in PASSING else "red" if verdict == "different" else "yellow"
    return Text(verdict, style=colour)


def _time(created: str) -> str:
    return created[:16].replace("T", " ")


def _size(size: int) -> str:
    """Bytes for people, in powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"


def _way(summary: Summary) -> str:
    return f"{summary.source or '-'} -> {', '.join(summary.exports)}" if summary.exports else summary.source or "-"


def print_list(summaries: Iterable[Summary]) -> None:
    """One line per version."""
    table = _table("version", "verdict", "aliases", "model", "published (UTC)", "by")
    for s in summaries:
        aliases = ", ".join(s.aliases)
        table.add_row(s.ref, _verdict(s.verdict), aliases, _way(s), _time(s.created), safe_text(s.by, 40))
    _console().print(table)


def print_found(found: Sequence[Found]) -> None:
    """One line per version that holds the file."""
    table = _table("version", "as", "verdict", "aliases", "model", "published (UTC)")
    for hit in found:
        s = hit.version
        table.add_row(s.ref, hit.role, _verdict(s.verdict), ", ".join(s.aliases), _way(s), _time(s.created))
    _console().print(table)


def print_files(version: Version) -> None:
    """Verdict, identity and files of a version."""
    console = _console()
    console.print(Text.assemble(version.ref, "  ", _verdict(version.verdict)))
    console.print(f"sha256:{version.digest}")
    table = _table("role", "format", "file", "size", "sha256")
    manifest = version.judged
    for a in sorted(manifest.artifacts, key=lambda a: not a.is_source):
        table.add_row(a.role, a.format, a.filename, _size(a.size), f"{a.sha256[:12]}…")
    for r in manifest.reports:
        table.add_row("report", _verdict(r.verdict), manifest.report_name(r), _size(r.size), f"{r.sha256[:12]}…")
    console.print(table)


def print_details(details: Details) -> None:
    """All about a version."""
    print_files(details.version)
    console = _console()
    manifest = details.version.judged
    made = manifest.provenance
    console.print(
        f"published {_time(made.created)} UTC by {safe_text(made.by)} with modelhub {safe_text(made.modelhub)}"
    )
    if details.aliases:
        console.print(f"aliases: {', '.join(details.aliases)}")
    for gap in manifest.gaps():
        console.print(f"not proved: {gap}")
    for key, value in manifest.metadata.items():
        console.print(f"{key} = {safe_text(value, 200)}")
    if manifest.interface is not None:
        _print_interface(console, manifest.interface)
    for event in details.moves:
        console.print(_move(event))


def _print_interface(console: Console, interface: dict[str, Any]) -> None:
    from modelhub.graph.interface import Interface

    record = Interface.from_json(interface, "the interface record")
    for entry in record.inputs:
        kind = "sequence of " if entry.sequence else ""
        names = ", ".join(f.name for f in entry.features)
        console.print(f"input {safe_text(entry.name)}: {kind}{len(entry.features)} features ({safe_text(names, 400)})")
    for output in record.outputs:
        console.print(f"output {safe_text(output.name)}: {safe_text(', '.join(output.labels), 400)}")


def _move(event: History) -> Text:
    move = event.move
    came = f", was {move.previous}" if move.previous is not None else ""
    goes = "removed" if move.number is None else f"-> {move.number}"
    text = Text(f"{_time(event.created)}  {move.alias} {goes}{came}, by {safe_text(event.by)}")
    if move.forced:
        text.append("  FORCED", style="bold red")
    if move.reason is not None:
        text.append(f": {safe_text(move.reason, 1000)}")
    return text
