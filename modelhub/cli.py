"""The command line. Data goes to stdout, talk to stderr; every refusal is one message and an exit code.

Nothing heavy is imported here: each command has a module of its own, which imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from modelhub import __version__, plugins
from modelhub.errors import ModelhubError, Notice, safe_text
from modelhub.startup import quick_start

__all__ = ["cli", "main"]


BUILT_IN = ("convert", "check", "diff", "report", "inspect", "formats", "init-ci")
"""Each is the function of its name in the module of its name in `modelhub.commands`, with _ for -."""


LONGEST = 500
"""Characters of what is said of a wrong call."""


class _Commands(click.Group):
    """The built-in commands, and those that plug-ins add, looked up when they are wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click hands it over
        return [*BUILT_IN, *plugins.names(plugins.COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        command: click.Command | None = None
        if cmd_name in BUILT_IN:
            name = cmd_name.replace("-", "_")
            command = getattr(import_module(f"modelhub.commands.{name}"), name)
        elif cmd_name in plugins.names(plugins.COMMANDS):
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
    if sys.argv[1:] and sys.argv[1] in BUILT_IN:  # a plug-in's command may be a server, with threads
        quick_start()
    try:
        with _notices():
            code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        if len(error.message) <= LONGEST:
            error.show()
        else:  # it quotes what was given
            click.echo(f"Error: {safe_text(error.message, LONGEST)}", err=True)
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
