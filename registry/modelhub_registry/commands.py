"""`modelhub registry`: publish models with their evidence, look them up, fetch them, promote them.

Data goes to stdout, talk to stderr. Everything but click is imported when a command runs. The commands are in files by
what they are for: `commands_publish.py`, `commands_lookup.py`, `commands_trust.py`, `commands_transfer.py`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    pass

__all__ = ["command", "emit", "registry", "say"]

_PLACE = click.option(
    "--registry",
    "place",
    metavar="PLACE",
    help="The registry, a folder or a URL; else $MODELHUB_REGISTRY, else ~/.modelhub/registry.",
)
_DATABASE = click.option(
    "--database",
    metavar="URL",
    help="Where its index is, if not in the folder; else $MODELHUB_DATABASE, else as its registry.json says.",
)


@click.group()
@_PLACE
@_DATABASE
@click.pass_context
def registry(context: click.Context, place: str | None, database: str | None) -> None:
    """Keep models, what was made from them, and the evidence.

    \b
    A version is named by a reference:
      btag                     the newest version
      btag@3                   version 3
      btag@prod                the version the alias points to
      btag@sha256:1f2e3d4c     the version whose manifest's digest begins so

    \b
    Examples:
      modelhub registry push btag net.pt2 net.json --report report.json
      modelhub registry alias btag@1 prod
      modelhub registry get btag@prod --to models/
      modelhub registry which network.json
      modelhub registry --registry s3://models/prod --database postgresql://db.cern.ch/models list
    """
    context.obj = (place, database)


def command(work: Callable[..., None], group: click.Group = registry) -> click.Command:
    """A command of the group with the options all have; `work` gets the opened registry and `as_json` first."""

    @group.command(name=work.__name__.strip("_"), help=work.__doc__)
    @_PLACE
    @_DATABASE
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
    @click.pass_context
    @functools.wraps(work)
    def run(
        context: click.Context, /, place: str | None, database: str | None, as_json: bool, **arguments: Any
    ) -> None:
        from modelhub_registry.opening import open_registry

        before, beside = context.obj or (None, None)  # `modelhub which` stands without the group
        with open_registry(before if place is None else place, beside if database is None else database) as opened:
            work(opened, as_json, **arguments)

    return run


def say(text: str) -> None:
    """Talk to the person at the terminal."""
    click.echo(text, err=True)


def emit(document: Any) -> None:
    """Print JSON."""
    click.echo(json.dumps(document, indent=1))


from modelhub_registry import (  # noqa: E402 (they add to the group)
    commands_lookup,  # noqa: F401
    commands_publish,  # noqa: F401
    commands_server,  # noqa: F401
    commands_transfer,  # noqa: F401
    commands_trust,  # noqa: F401
)
