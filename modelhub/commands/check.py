"""`modelhub check`: whether one file computes what another computes, for one pair or for all of a modelhub.yaml."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelhub.commands.options import PATH, Reading, reading, rendering, streaming
from modelhub.commands.telling import tell
from modelhub.errors import Different, Inconclusive
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    from modelhub.data import DataSpec
    from modelhub.reports.files import Files

__all__ = ["check"]


@click.command()
@click.argument("source", type=PATH, required=False)
@click.argument("target", type=PATH, required=False)
@reading
@click.option("--to", "target_format", metavar="FORMAT", help="Format of TARGET; recognised if left out.")
@click.option("--seed", type=int, help="Seed of the probes.")
@click.option("--preset", type=click.Choice(["ftag"]), help="A community's tolerances in place of the rounding bound.")
@click.option(
    "--floor",
    "floors",
    multiple=True,
    metavar="WHAT=SHARE",
    help="Share to be reached, as in 'tree leaves=0.9'; repeatable.",
)
@streaming
@click.option("--config", type=PATH, help="Check all pairs of this modelhub.yaml instead of two files.")
@rendering
@click.option("--report", "report_path", type=PATH, help="Write report.json here.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(
    source: Path | None,
    target: Path | None,
    reading: Reading,
    target_format: str | None,
    seed: int | None,
    preset: str | None,
    floors: tuple[str, ...],
    data: DataSpec | None,
    scheduler: str,
    config: Path | None,
    files: Files,
    fail_on: str | None,
    report_path: Path | None,
    as_json: bool,
) -> None:
    """Does TARGET compute what SOURCE computes? Both are run in their own engines.

    \b
    modelhub check net.pt2 net.json
    modelhub check model.keras model.onnx --html report.html
    modelhub check net.onnx net.json --data jets.h5:jets,tracks --scheduler local:2
    modelhub check --config modelhub.yaml --junit equivalence.xml --report-dir equivalence

    Exit codes: 0 identical or equivalent (or suspect, with a warning), 1 different, 6 inconclusive. With --config: 1 if
    any pair is different, else the code of the first that could not be read or run, else 6 if any is inconclusive.
    """
    files.prepare()
    if config is not None:
        asked = (
            source,
            target,
            target_format,
            seed,
            preset,
            floors or None,
            data,
            report_path,
            reading.format,
            reading.interface,
        )
        if any(value is not None for value in asked) or reading.options != ReadOptions():
            raise click.UsageError("--config says what to check and how: give no files, formats, seed or --report")
        _check_all(config, files, fail_on, as_json=as_json)
        return
    if source is None or target is None:
        raise click.UsageError("give SOURCE and TARGET, or --config modelhub.yaml")
    from modelhub.equivalence.check import SEED
    from modelhub.equivalence.check import check as run
    from modelhub.equivalence.render import progress
    from modelhub.reports.view import Outcome, View

    report = run(
        source,
        target,
        source_format=reading.format,
        target_format=target_format,
        interface=reading.interface,
        options=reading.options,
        seed=SEED if seed is None else seed,
        data=data,
        scheduler=scheduler,
        preset=preset or "",
        floors=_floors(floors),
        progress=progress,
    )
    tell(report, report_path, as_json=as_json)
    if files:
        view = View(report.to_json(), "the report")
        files.write([Outcome(view.title, view, fail_on=fail_on or "different")], {"report": report})
    if report.verdict == "different":
        raise Different(f"{target.name} does not compute what {source.name} computes", report)
    if report.verdict == "inconclusive":
        raise Inconclusive(f"the check is incomplete: {'; '.join(report.missing)}")
    if report.verdict == "suspect":
        differs = any(leg.verdict == "suspect" for leg in report.legs)
        why = "differs by more than rounding is likely to explain from" if differs else "holds other numbers than"
        told = f"{target.name} {why} {source.name}"
        if fail_on == "suspect":
            raise Different(told, report)
        click.echo(f"warning: {told}", err=True)


def _floors(texts: tuple[str, ...]) -> dict[str, float]:
    """The shares of coverage the user asks for."""
    from modelhub.equivalence.coverage import KINDS

    found = {}
    for text in texts:
        what, _, share = text.rpartition("=")
        try:
            found[what] = float(share)
        except ValueError:
            found[what] = -1.0
        if what not in KINDS or not 0 <= found[what] <= 1:
            raise click.UsageError(f"--floor {text!r}: say WHAT=SHARE, a share between 0 and 1 of {', '.join(KINDS)}")
    return found


def _check_all(path: Path, files: Files, fail_on: str | None, *, as_json: bool) -> None:
    """All pairs of a configuration; exits with the one code that stands for all."""
    from modelhub.equivalence.config import read_config
    from modelhub.equivalence.render import progress
    from modelhub.equivalence.suite import exit_code, run
    from modelhub.reports.terminal import outcomes_json, show_outcome, show_outcomes

    config = read_config(path)
    results = []
    for result in run(config, fail_on=fail_on or config.fail_on, today=datetime.now(UTC).date(), progress=progress):
        results.append(result)
        show_outcome(len(results), len(config.pairs), result.outcome)
    outcomes = [result.outcome for result in results]
    if files:
        files.write(outcomes, {r.pair.name: r.report for r in results if r.report is not None})
    code = exit_code(outcomes)
    if as_json:
        click.echo(json.dumps(outcomes_json(outcomes, code), indent=1))
    else:
        show_outcomes(outcomes)
    click.get_current_context().exit(code)
