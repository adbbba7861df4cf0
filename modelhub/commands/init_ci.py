"""`modelhub init-ci`: the files that make a user's repository check its models."""

from __future__ import annotations

from pathlib import Path

import click

from modelhub.commands.options import PATH

__all__ = ["init_ci"]


@click.command("init-ci")
@click.option("--github", is_flag=True, help="Write .github/workflows/equivalence.yml.")
@click.option("--gitlab", is_flag=True, help="Write .gitlab/equivalence.yml, and .gitlab-ci.yml where there is none.")
@click.option(
    "--pair", "pairs", type=(PATH, PATH), multiple=True, metavar="SOURCE TARGET", help="Two files; may be repeated."
)
@click.option("--into", type=PATH, default=Path(), help="The repository's folder; default: here.")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def init_ci(github: bool, gitlab: bool, pairs: tuple[tuple[Path, Path], ...], into: Path, force: bool) -> None:
    """Write modelhub.yaml and a CI job that runs `modelhub check --config modelhub.yaml`.

    \b
    modelhub init-ci --github --pair net.pt2 net.json
    modelhub init-ci --gitlab

    Nothing is written when any of the files is there already, unless --force; an existing .gitlab-ci.yml is never
    touched: the line to add is told.
    """
    from modelhub.templates import write

    if not (github or gitlab):
        raise click.UsageError("say where it runs: --github, --gitlab or both")
    written, advice = write(into, pairs, github=github, gitlab=gitlab, force=force)
    for path in written:
        click.echo(path)
    for line in advice:
        click.echo(line, err=True)
