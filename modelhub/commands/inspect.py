"""`modelhub inspect`: what is in a model file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from modelhub.commands.options import PATH, Reading, reading

__all__ = ["inspect"]


@click.command()
@click.argument("source", type=PATH)
@reading
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def inspect(source: Path, reading: Reading, as_json: bool) -> None:
    """Show what is in a model file: layers, shapes, parameters, inputs and outputs.

    \b
    modelhub inspect net.pt2
    modelhub inspect net.json --json | jq .interface
    """
    from modelhub.inspection import inspect as run

    found = run(source, format=reading.format, interface=reading.interface, options=reading.options)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
    else:
        from modelhub.equivalence.render import show_inspection

        show_inspection(found)
