"""Options that several commands share, gathered into one argument each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from modelhub.protocols import ReadOptions
from modelhub.reports.files import Files

__all__ = ["PATH", "Reading", "reading", "rendering", "streaming"]

PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Reading:
    """What the user said about the model to be read."""

    format: str | None
    interface: Path | None
    options: ReadOptions


def reading(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that reads a model its options; the command receives them as `reading`."""

    @functools.wraps(command)
    def gathered(
        *args: Any,
        source_format: str | None,
        interface: Path | None,
        weights: Path | None,
        trust: bool,
        tie: str | None,
        task: str | None,
        **others: Any,
    ) -> None:
        options = ReadOptions(weights=weights, trust=trust, tie=tie, task=task)
        command(*args, reading=Reading(source_format, interface, options), **others)

    with_options: Callable[..., None] = gathered
    for option in (
        click.option("--task", help="[TREE:]ANSWER of an MVAUtils file, where it leaves that open to its caller."),
        click.option("--tie", help="Where a value equal to a cut goes, for TMVA: reader (default), training, >= or >."),
        click.option("--trust", is_flag=True, help="The file may run code: you vouch for where it comes from."),
        click.option("--weights", type=PATH, help="Second file of formats that come in two (Keras JSON + HDF5)."),
        click.option("--interface", type=PATH, help="Names, scales, labels: our record or an lwtnn variables file."),
        click.option("--from", "source_format", metavar="FORMAT", help="Format of the source; recognised if left out."),
    ):
        with_options = option(with_options)
    return with_options


def rendering(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of reports to write; it receives them as `files`, and `fail_on`, which they show."""

    @functools.wraps(command)
    def gathered(
        *args: Any, junit: Path | None, summary: Path | None, html: Path | None, folder: Path | None, **others: Any
    ) -> None:
        command(*args, files=Files(junit, summary, html, folder), **others)

    with_options: Callable[..., None] = gathered
    for option in (
        click.option(
            "--fail-on", type=click.Choice(["different", "suspect"]), help="The mildest verdict that fails: different."
        ),
        click.option("--report-dir", "folder", type=PATH, help="Write every report.json and a page here."),
        click.option("--html", type=PATH, help="Write one self-contained page with plots."),
        click.option("--summary", type=PATH, help="Write a summary in Markdown ($GITHUB_STEP_SUMMARY)."),
        click.option("--junit", type=PATH, help="Write JUnit XML, which CI shows as tests."),
    ):
        with_options = option(with_options)
    return with_options


def streaming(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of real data to run; it receives them as `data` (None without) and `scheduler`."""

    @functools.wraps(command)
    def gathered(
        *args: Any, data: str | None, columns: tuple[str, ...], events: int | None, batch: int | None, **others: Any
    ) -> None:
        if data is None:
            if columns or events or batch or others["scheduler"]:
                raise click.UsageError("--map, --events, --batch and --scheduler say how to read --data")
            command(*args, data=None, **others)
            return
        from modelhub.data import BLOCK, DataSpec

        command(*args, data=DataSpec.parse(data, columns, events, batch or BLOCK), **others)

    with_options: Callable[..., None] = gathered
    for option in (
        click.option(
            "--scheduler", default="", help="Share the data out: local:N processes, or tcp://HOST:PORT (Dask)."
        ),
        click.option("--batch", type=click.IntRange(1), help="Events read at once (65536)."),
        click.option("--events", type=click.IntRange(1), help="Take the first N events only."),
        click.option(
            "--map", "columns", multiple=True, metavar="VARIABLE=COLUMN", help="Where names differ; repeatable."
        ),
        click.option("--data", metavar="FILE[:TABLE,...]", help="Also run real events: HDF5, ROOT, Parquet or npz."),
    ):
        with_options = option(with_options)
    return with_options
