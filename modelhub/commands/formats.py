"""`modelhub formats`: what is read, what is written, which engine is installed."""

from __future__ import annotations

import json

import click

from modelhub import plugins

__all__ = ["formats"]


@click.command()
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
