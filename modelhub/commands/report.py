"""`modelhub report`: a stored report as a page, a JUnit file or a summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelhub.commands.options import PATH, rendering

if TYPE_CHECKING:
    from modelhub.reports.files import Files

__all__ = ["report"]


@click.command()
@click.argument("reports", type=PATH, nargs=-1, required=True)
@rendering
def report(reports: tuple[Path, ...], files: Files, fail_on: str | None) -> None:
    """Render stored REPORTS (the report.json of a check) for people and for CI. Runs nothing.

    \b
    modelhub report report.json --html report.html
    modelhub report equivalence/*.json --junit equivalence.xml --summary summary.md
    """
    from modelhub.reports.view import Outcome, load

    if not files or files.folder is not None:
        raise click.UsageError("say what to write: --html, --junit or --summary")
    files.prepare()
    views = [load(path) for path in reports]
    names = [view.title for view in views] if len(views) == 1 else [path.stem for path in reports]
    files.write(
        [Outcome(name, view, fail_on=fail_on or "different") for name, view in zip(names, views, strict=True)], {}
    )
