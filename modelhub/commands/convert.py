"""`modelhub convert`: one format into another, checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelhub import plugins
from modelhub.commands.options import PATH, Reading, reading
from modelhub.commands.telling import tell
from modelhub.errors import Different
from modelhub.protocols import WriteOptions

if TYPE_CHECKING:
    from modelhub.equivalence.probes import Probe

__all__ = ["convert"]


@click.command()
@click.argument("source", type=PATH)
@click.option("-o", "--output", type=PATH, help="The file to write; default: beside SOURCE.")
@click.option("--to", "target_format", metavar="FORMAT", help="Format to write; the suffix of --output if left out.")
@reading
@click.option("--opset", type=int, help="ONNX operator set to write.")
@click.option(
    "--precision", type=click.Choice(["float32", "float64"]), help="Precision to write, where the format has a choice."
)
@click.option("--form", help="Form of the file, where the format has a choice (lwtnn: graph, sequential).")
@click.option("--check/--no-check", default=True, help="Run source, graph and result side by side (default).")
@click.option("--require-check", is_flag=True, help="Fail (exit 6) when the check cannot be completed.")
@click.option("--report", "report_path", type=PATH, help="Write the check's report.json here.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def convert(
    source: Path,
    output: Path | None,
    target_format: str | None,
    reading: Reading,
    report_path: Path | None,
    as_json: bool,
    check: bool,
    require_check: bool,
    **writing: Any,
) -> None:
    """Convert SOURCE into another format, and check the result against it.

    \b
    modelhub convert --from torch --to json net.pt2 -o net.json
    modelhub convert model.keras -o model.onnx --report report.json
    modelhub convert arch.json --weights weights.h5 --interface variables.json --to json -o net.json

    Exit codes: 0 converted, 1 the result differs (nothing is written), 3 unknown format,
    4 unsupported, 5 unreadable, 6 check incomplete (with --require-check).
    """
    from modelhub.conversion import convert as run

    if target_format is None and output is None:
        raise click.UsageError("say what to write: --to FORMAT, --output FILE, or both")
    if output is None:
        output = source.with_suffix(plugins.exporter(target_format or "").suffix)
    try:
        report = run(
            source,
            output,
            source_format=reading.format,
            target_format=target_format,
            interface=reading.interface,
            read_options=reading.options,
            write_options=WriteOptions(**writing),
            check=check,
            require_check=require_check,
            progress=_progress,
        )
    except Different as error:
        tell(error.report, report_path, as_json=as_json)
        raise
    if report is None:
        click.echo(f"{output}: written, not checked", err=True)
        return
    from modelhub.equivalence.render import summary

    tell(report, report_path, as_json=as_json)
    click.echo(f"{output}: written; {summary(report)}", err=True)
    if report.verdict == "suspect":
        click.echo("warning: it differs by more than rounding is likely to explain; look at the worst cases", err=True)


def _progress(probes: Iterable[Probe]) -> Iterable[Probe]:
    """The progress bar, which is not loaded before there is something to check."""
    from modelhub.equivalence.render import progress

    return progress(probes)
