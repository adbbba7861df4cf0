"""How a command tells what a check found: the report in a file, JSON on stdout, or a table on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from modelhub.equivalence.report import Report

__all__ = ["tell"]


def tell(report: Report, path: Path | None, *, as_json: bool) -> None:
    """Write the report to `path` where one was named, and show it."""
    from modelhub.equivalence.render import show
    from modelhub.files import atomic_write

    if path is not None:
        with atomic_write(path) as temporary:
            temporary.write_text(report.dumps(), encoding="utf-8")
    if as_json:
        click.echo(report.dumps(), nl=False)
    else:
        show(report)
