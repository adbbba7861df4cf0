"""`modelhub check`: whether one file computes what another computes."""

from __future__ import annotations

from pathlib import Path

import click

from modelhub.commands.options import PATH, Reading, reading
from modelhub.commands.telling import tell
from modelhub.errors import Different, Inconclusive

__all__ = ["check"]


@click.command()
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@reading
@click.option("--to", "target_format", metavar="FORMAT", help="Format of TARGET; recognised if left out.")
@click.option("--seed", type=int, help="Seed of the probes.")
@click.option("--report", "report_path", type=PATH, help="Write report.json here.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(
    source: Path,
    target: Path,
    reading: Reading,
    target_format: str | None,
    seed: int | None,
    report_path: Path | None,
    as_json: bool,
) -> None:
    """Does TARGET compute what SOURCE computes? Both are run in their own engines.

    \b
    modelhub check net.pt2 net.json
    modelhub check model.keras model.onnx --report report.json

    Exit codes: 0 identical or equivalent, 1 different, 6 inconclusive.
    """
    from modelhub.equivalence.check import SEED
    from modelhub.equivalence.check import check as run
    from modelhub.equivalence.render import progress

    report = run(
        source,
        target,
        source_format=reading.format,
        target_format=target_format,
        interface=reading.interface,
        options=reading.options,
        seed=SEED if seed is None else seed,
        progress=progress,
    )
    tell(report, report_path, as_json=as_json)
    if report.verdict == "different":
        raise Different(f"{target.name} does not compute what {source.name} computes", report)
    if report.verdict == "inconclusive":
        raise Inconclusive(f"the check is incomplete: {'; '.join(report.missing)}")
