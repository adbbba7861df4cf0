"""`modelhub diff`: where one model file begins to compute something else than another, and why."""

from __future__ import annotations

import json
from pathlib import Path

import click

from modelhub.commands.options import PATH, Reading, reading
from modelhub.errors import Different, Inconclusive

__all__ = ["diff"]


@click.command()
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@reading
@click.option("--to", "target_format", metavar="FORMAT", help="Format of TARGET; recognised if left out.")
@click.option("--seed", type=int, help="Seed of the probes.")
@click.option("--data", metavar="FILE[:TABLE,...]", help="Real events, HDF5, ROOT, Parquet or npz: the first 2000.")
@click.option("--map", "columns", multiple=True, metavar="VARIABLE=COLUMN", help="Where names differ; repeatable.")
@click.option("--repro", type=PATH, metavar="DIR", help="Write a folder that shows the difference without modelhub.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def diff(
    source: Path,
    target: Path,
    reading: Reading,
    target_format: str | None,
    seed: int | None,
    data: str | None,
    columns: tuple[str, ...],
    repro: Path | None,
    as_json: bool,
) -> None:
    """Where does TARGET part from SOURCE? The first node that diverges, a likely cause, and the smallest input.

    \b
    modelhub diff net.pt2 net.json
    modelhub diff model.keras net.json --interface variables.json --data jets.h5:jets --repro repro

    Exit codes: 0 no difference, 1 different, 6 inconclusive.
    """
    from modelhub.data import DataSpec
    from modelhub.difference.diff import diff as run
    from modelhub.difference.render import show, to_json
    from modelhub.difference.repro import write_repro
    from modelhub.equivalence.check import SEED
    from modelhub.equivalence.render import progress

    found = run(
        source,
        target,
        source_format=reading.format,
        target_format=target_format,
        interface=reading.interface,
        options=reading.options,
        seed=SEED if seed is None else seed,
        data=None if data is None else DataSpec.parse(data, columns),
        progress=progress,
    )
    if as_json:
        click.echo(json.dumps(to_json(found), indent=1, allow_nan=False))
    else:
        show(found)
    if repro is not None and found.verdict == "different":
        weights = reading.options.weights
        files = [("source", source), *([("source", weights)] if weights else []), ("target", target)]
        names = write_repro(found, repro, files)
        click.echo(f"{repro}: {', '.join(names)}; run it with: cd {repro} && python repro.py", err=True)
    if found.verdict == "different":
        raise Different(f"{target.name} does not compute what {source.name} computes", found)
    if found.verdict == "inconclusive":
        missing = dict.fromkeys([*found.missing, *(found.report.missing if found.report is not None else ())])
        raise Inconclusive(f"no difference was found, but the check is incomplete: {'; '.join(missing)}")
