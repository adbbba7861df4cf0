"""The command line. Data goes to stdout, talk to stderr; every refusal is one message and an exit code.

Nothing heavy is imported here: each command imports what it needs when it runs.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from modelhub import __version__, plugins
from modelhub.errors import Different, Inconclusive, ModelhubError, Notice, safe_text
from modelhub.protocols import ReadOptions, WriteOptions

__all__ = ["cli", "main"]


class _Commands(click.Group):
    """The built-in commands, and those that plug-ins add, looked up when they are wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *plugins.names(plugins.COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in plugins.names(plugins.COMMANDS):
            command = dict(plugins.commands())[cmd_name]
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="modelhub")
def cli() -> None:
    """Convert trained models, and prove that nothing changed.

    \b
    modelhub convert --from torch --to json net.pt2 -o net.json
    modelhub check net.pt2 net.json
    modelhub inspect net.json
    modelhub registry push btag net.pt2 net.json
    """


def main() -> None:
    """Run the command line; a refusal becomes one message on stderr and its exit code."""
    try:
        with _notices():
            code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.exceptions.Abort:
        code = 130
    except ModelhubError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except MemoryError:
        click.echo("error: the machine has not enough memory for this model", err=True)
        code = 5
    except Exception as error:
        if os.environ.get("MODELHUB_DEBUG"):
            raise
        click.echo(
            f"error: modelhub itself failed ({type(error).__name__}: {safe_text(error, 200)}); "
            "this is a fault to report: run again with MODELHUB_DEBUG=1 to see where",
            err=True,
        )
        code = 70
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _notices() -> Iterator[None]:
    """Show every `Notice` as one line on stderr, once; other warnings are nothing a user can act on."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, Notice) and str(message) not in told:
            told.add(str(message))
            click.echo(f"note: {message}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", Notice)
        warnings.showwarning = show
        yield


def _reading(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that reads a model."""
    path = click.Path(path_type=Path)
    for option in (
        click.option("--tie", help="Where a value equal to a cut goes, for TMVA: reader (default), training, >= or >."),
        click.option("--trust", is_flag=True, help="The file may run code: you vouch for where it comes from."),
        click.option("--weights", type=path, help="Second file of formats that come in two (Keras JSON + HDF5)."),
        click.option("--interface", type=path, help="Names, scales, labels: our record or an lwtnn variables file."),
        click.option("--from", "source_format", metavar="FORMAT", help="Format of the source; recognised if left out."),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write; default: beside SOURCE.")
@click.option("--to", "target_format", metavar="FORMAT", help="Format to write; the suffix of --output if left out.")
@_reading
@click.option("--opset", type=int, help="ONNX operator set to write.")
@click.option(
    "--precision", type=click.Choice(["float32", "float64"]), help="Precision to write, where the format has a choice."
)
@click.option("--form", help="Form of the file, where the format has a choice (lwtnn: graph, sequential).")
@click.option("--check/--no-check", default=True, help="Run source, graph and result side by side (default).")
@click.option("--require-check", is_flag=True, help="Fail (exit 6) when the check cannot be completed.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write the check's report.json here.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def convert(
    source: Path,
    output: Path | None,
    target_format: str | None,
    source_format: str | None,
    interface: Path | None,
    weights: Path | None,
    trust: bool,
    tie: str | None,
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
    from modelhub.equivalence.render import progress, summary

    if target_format is None and output is None:
        raise click.UsageError("say what to write: --to FORMAT, --output FILE, or both")
    if output is None:
        output = source.with_suffix(plugins.exporter(target_format or "").suffix)
    try:
        report = run(
            source,
            output,
            source_format=source_format,
            target_format=target_format,
            interface=interface,
            read_options=ReadOptions(weights=weights, trust=trust, tie=tie),
            write_options=WriteOptions(**writing),
            check=check,
            require_check=require_check,
            progress=progress,
        )
    except Different as error:
        _tell(error.report, report_path, as_json)
        raise
    if report is None:
        click.echo(f"{output}: written, not checked", err=True)
        return
    _tell(report, report_path, as_json)
    click.echo(f"{output}: written; {summary(report)}", err=True)


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@_reading
@click.option("--to", "target_format", metavar="FORMAT", help="Format of TARGET; recognised if left out.")
@click.option("--seed", type=int, help="Seed of the probes.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Write report.json here.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(
    source: Path,
    target: Path,
    source_format: str | None,
    target_format: str | None,
    interface: Path | None,
    weights: Path | None,
    trust: bool,
    tie: str | None,
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
        source_format=source_format,
        target_format=target_format,
        interface=interface,
        options=ReadOptions(weights=weights, trust=trust, tie=tie),
        seed=SEED if seed is None else seed,
        progress=progress,
    )
    _tell(report, report_path, as_json)
    if report.verdict == "different":
        raise Different(f"{target.name} does not compute what {source.name} computes", report)
    if report.verdict == "inconclusive":
        raise Inconclusive(f"the check is incomplete: {'; '.join(report.missing)}")


def _tell(report: Any, path: Path | None, as_json: bool) -> None:
    """Write the report where it was asked for, and show it: JSON on stdout, or a table on stderr."""
    from modelhub.equivalence.render import show
    from modelhub.files import atomic_write

    if path is not None:
        with atomic_write(path) as temporary:
            temporary.write_text(report.dumps(), encoding="utf-8")
    if as_json:
        click.echo(report.dumps(), nl=False)
    else:
        show(report)


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@_reading
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def inspect(
    source: Path,
    source_format: str | None,
    interface: Path | None,
    weights: Path | None,
    trust: bool,
    tie: str | None,
    as_json: bool,
) -> None:
    """Show what is in a model file: layers, shapes, parameters, inputs and outputs.

    \b
    modelhub inspect net.pt2
    modelhub inspect net.json --json | jq .interface
    """
    from modelhub.inspection import inspect as run

    found = run(
        source, format=source_format, interface=interface, options=ReadOptions(weights=weights, trust=trust, tie=tie)
    )
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
    else:
        from modelhub.equivalence.render import show_inspection

        show_inspection(found)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def formats(as_json: bool) -> None:
    """List the formats: what is read, what is written, which engine is installed."""
    rows = []
    names = sorted({*plugins.names(plugins.IMPORTERS), *plugins.names(plugins.EXPORTERS)})
    for name in names:
        runtime = plugins.runtime(name)
        rows.append(
            {
                "format": name,
                "alias_of": other if (other := plugins.canonical(name)) != name else None,
                "reads": list(plugins.importer(name).suffixes) if name in plugins.names(plugins.IMPORTERS) else [],
                "writes": plugins.exporter(name).suffix if name in plugins.names(plugins.EXPORTERS) else None,
                "engine": None if runtime is None else ("installed" if runtime.installed() else "missing"),
                "extra": None if runtime is None else runtime.extra,
            }
        )
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from modelhub.equivalence.render import show_formats

    show_formats(rows)
