"""Commands for a registry that others reach over HTTP: serve, token."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelhub.errors import RegistryError, UsageError
from modelhub_registry.commands import command, emit, registry, say

if TYPE_CHECKING:
    from modelhub_registry.catalog import Registry
    from modelhub_registry.tokens import Tokens

__all__: list[str] = []

_TOKENS = click.option(
    "--tokens",
    type=click.Path(path_type=Path),
    envvar="MODELHUB_TOKENS",
    help="The file of tokens; else $MODELHUB_TOKENS, else tokens.json in the registry's folder.",
)


def _file(opened: Registry, given: Path | None, name: str) -> Path:
    if given is not None:
        return given
    if opened.root is None:
        raise RegistryError(f"{opened.address} is no local folder: name a file with --{name.partition('.')[0]}")
    return opened.root / name


@command
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: any that is free.")
@click.option("--name", "hosts", multiple=True, help="A host name people reach it by; once for each.")
@click.option("--private", is_flag=True, help="Reading needs a token too.")
@click.option("--largest", type=click.IntRange(1), default=4096, show_default=True, help="Megabytes of an upload.")
@_TOKENS
@click.option("--audit", type=click.Path(path_type=Path), help="The log of writes; else audit.jsonl in the folder.")
def serve(
    opened: Registry,
    as_json: bool,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    private: bool,
    largest: int,
    tokens: Path | None,
    audit: Path | None,
) -> None:
    """Serve the registry over HTTP: pages for people, an API for programs. Reading is free, writing takes a token.

    \b
    Examples:
      modelhub registry serve
      modelhub registry serve --host 0.0.0.0 --name models.example.org --private
      modelhub registry --registry http://127.0.0.1:8765 list          (on the other side)
    """
    try:
        from modelhub_registry.server.running import run
    except ImportError as error:
        raise UsageError(f'serving needs {error.name}: pip install "modelhub-hep[server]"') from None
    from modelhub_registry.server.guard import Options

    options = Options(
        _file(opened, tokens, "tokens.json"),
        _file(opened, audit, "audit.jsonl"),
        private,
        (*Options.hosts, host, *hosts),
        largest << 20,
    )

    def ready(url: str) -> None:
        if as_json:
            emit({"url": url})
        else:
            say(f"{opened.address} at {url} (Ctrl-C ends it)")

    run(opened, options, host, port, ready)


@registry.group()
def token() -> None:
    """Make, list and end the tokens by which others may write through the server."""


def _tokens(opened: Registry, given: Path | None) -> Tokens:
    from modelhub_registry.tokens import Tokens

    return Tokens(_file(opened, given, "tokens.json"))


@partial(command, group=token)
@click.argument("label")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(["read", "publish", "promote"]), required=True)
@click.option("--days", type=float, help="When it expires; never if left out.")
@_TOKENS
def create(
    opened: Registry, as_json: bool, label: str, scopes: tuple[str, ...], days: float | None, tokens: Path | None
) -> None:
    """Make a token for LABEL (a person, a CI job) and print it, once: only its hash is kept.

    \b
    Example:
      export MODELHUB_TOKEN=$(modelhub registry token create ci --scope publish --days 90)
    """
    shown, made = _tokens(opened, tokens).create(label, scopes, days)
    if as_json:
        emit({"token": shown, "id": made.id, "label": made.label, "scopes": made.scopes, "expires": made.expires})
        return
    click.echo(shown)
    say(f"{made.id} for {made.label}: {', '.join(made.scopes)}, {_until(made.expires)}; it is not shown again")


@partial(command, group=token)
@_TOKENS
def _list(opened: Registry, as_json: bool, tokens: Path | None) -> None:
    """List the tokens, without their secrets."""
    known = _tokens(opened, tokens).list()
    if as_json:
        emit([{key: value for key, value in vars(token).items() if key != "sha256"} for token in known])
    elif known:
        for one in known:
            state = "revoked" if one.revoked else _until(one.expires)
            click.echo(f"{one.id}  {one.label:<20}  {', '.join(one.scopes):<24}  {state}")
    else:
        say("no tokens; `modelhub registry token create` makes one")


@partial(command, group=token)
@click.argument("token_id", metavar="ID")
@_TOKENS
def revoke(opened: Registry, as_json: bool, token_id: str, tokens: Path | None) -> None:
    """End the token ID at once and for ever."""
    ended = _tokens(opened, tokens).revoke(token_id)
    if as_json:
        emit({"id": ended.id, "label": ended.label, "revoked": True})
    else:
        say(f"{ended.id} ({ended.label}) is no good any more")


def _until(expires: str | None) -> str:
    return f"until {expires[:10]}" if expires else "for ever"
