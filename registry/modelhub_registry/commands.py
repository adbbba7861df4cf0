"""`modelhub registry`: publish models with their evidence, look them up, fetch them, promote them.

Data goes to stdout, talk to stderr. Everything but click is imported when a command runs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from modelhub.errors import RegistryError, UnreadableFile, UsageError, safe_text
from modelhub.files import parse_json, read_bytes
from modelhub_registry import names

if TYPE_CHECKING:
    from modelhub_registry.catalog import Registry
    from modelhub_registry.rebuild import Finding

__all__ = ["registry"]

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


def _command(work: Callable[..., None]) -> click.Command:
    """A command of the group with the options all have; `work` gets the opened registry and `as_json` first."""

    @registry.command(name=work.__name__.strip("_"), help=work.__doc__)
    @_PLACE
    @_DATABASE
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
    @click.pass_context
    @functools.wraps(work)
    def run(
        context: click.Context, /, place: str | None, database: str | None, as_json: bool, **arguments: Any
    ) -> None:
        from modelhub_registry.catalog import Registry

        before, beside = context.obj
        with Registry(before if place is None else place, beside if database is None else database) as opened:
            work(opened, as_json, **arguments)

    return run


def _say(text: str) -> None:
    click.echo(text, err=True)


def _emit(document: Any) -> None:
    click.echo(json.dumps(document, indent=1))


@_command
@click.argument("name")
@click.argument("files", nargs=-1, required=True, metavar="[ROLE=]FILE...")
@click.option("--report", "reports", multiple=True, metavar="FILE", help="Report of modelhub check.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="Metadata; a VALUE that is JSON is taken as JSON.")
@click.option("--interface", metavar="FILE", help="Interface record, or lwtnn's variables file.")
@click.option("--again", is_flag=True, help="A new version even if the same content is there.")
def push(
    opened: Registry,
    as_json: bool,
    name: str,
    files: tuple[str, ...],
    reports: tuple[str, ...],
    meta: tuple[str, ...],
    interface: str | None,
    again: bool,
) -> None:
    """Publish files as the next version of NAME.

    The first FILE is the source, the others are its exports, unless the reports know better or ROLE= says so.
    The version is complete and on disk when the command ends, or there is none.

    \b
    Examples:
      modelhub registry push btag net.pt2 net.json --report report.json --meta auc=0.93
      modelhub registry push btag source=net.json source:weights=net.h5 export:onnx=net.onnx
    """
    version = opened.push(
        name,
        [_file(item) for item in files],
        reports,
        metadata=dict(map(_pair, meta)),
        interface=None if interface is None else parse_json(read_bytes(names.path(interface)), interface),
        again=again,
    )
    same = f"nothing new: {version.ref} has the same content; --again makes a new version all the same"
    _say(f"{version.ref} published" if version.new else same)
    if as_json:
        from modelhub_registry.render import version_json

        _emit(version_json(version) | {"new": version.new})
    else:
        from modelhub_registry.render import print_files

        print_files(version)


def _file(item: str) -> str | tuple[str, str]:
    """A path, or the pair in role=path; a file of that whole name comes first."""
    role, equals, path = item.partition("=")
    return (role, path) if equals and not names.path(item).exists() else item


def _pair(item: str) -> tuple[str, Any]:
    """Key and value of key=value."""
    key, equals, value = item.partition("=")
    if not equals:
        raise UsageError(f"--meta wants KEY=VALUE, not {safe_text(item)!r}")
    try:
        return key, parse_json(value.encode(), key)
    except (UnreadableFile, UnicodeEncodeError):
        return key, value


@_command
@click.argument("name", required=False)
def _list(opened: Registry, as_json: bool, name: str | None) -> None:
    """List all versions, or those of NAME.

    \b
    Examples:
      modelhub registry list
      modelhub registry list btag --json
    """
    from modelhub_registry import render

    found = opened.list(name)
    if as_json:
        _emit([render.summary_json(summary) for summary in found])
    elif found:
        render.print_list(found)
    else:
        _say(f"{opened.where}: no versions yet; `modelhub registry push` publishes the first")


@_command
@click.argument("ref")
def show(opened: Registry, as_json: bool, ref: str) -> None:
    """Show all about the version REF: files, evidence, interface, metadata, and every alias move.

    \b
    Examples:
      modelhub registry show btag@prod
      modelhub registry show btag@sha256:1f2e3d4c --json
    """
    from modelhub_registry import render

    details = opened.show(ref)
    if as_json:
        _emit(render.details_json(details))
    else:
        render.print_details(details)


@_command
@click.argument("ref")
@click.option("--role", help="Only the file of this role, e.g. export:onnx.")
@click.option("--to", metavar="FOLDER", default=".", show_default=True, help="Where to write the files.")
def get(opened: Registry, as_json: bool, ref: str, role: str | None, to: str) -> None:
    """Fetch the files of the version REF, verified, and its reports.

    \b
    Examples:
      modelhub registry get btag@prod --to models/
      modelhub registry get btag@3 --role export:json
    """
    paths = [str(path) for path in opened.get(ref, role, to)]
    if as_json:
        _emit(paths)
    else:
        click.echo("\n".join(paths))


@_command
@click.argument("ref")
@click.argument("alias")
@click.option("--force", is_flag=True, help="Move a protected alias without the evidence. Needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the log for ever.")
def _alias(opened: Registry, as_json: bool, ref: str, alias: str, force: bool, reason: str | None) -> None:
    """Let ALIAS point to the version REF.

    A protected alias (prod) moves only to a version whose reports prove every export of it.

    \b
    Examples:
      modelhub registry alias btag@3 candidate
      modelhub registry alias btag@3 prod
      modelhub registry alias btag@2 prod --force --reason "beam test tonight, check follows"
    """
    version = opened.alias(ref, alias, force=force, reason=reason)
    if as_json:
        _emit({"name": version.name, "alias": alias, "number": version.number, "digest": f"sha256:{version.digest}"})
    else:
        _say(f"{version.name}@{alias} is {version.ref}")


@_command
@click.argument("ref", required=False)
def verify(opened: Registry, as_json: bool, ref: str | None) -> None:
    """Read every file of the version REF, or of the whole registry, and tell what is damaged, missing or changed.

    \b
    Examples:
      modelhub registry verify
      modelhub registry verify btag@prod
    """
    _told(opened.verify(ref), as_json, "as it should be")


@_command
def reindex(opened: Registry, as_json: bool) -> None:
    """Make the index anew from the log and the manifests.

    \b
    Example:
      modelhub registry reindex
    """
    _told(opened.reindex(), as_json, "the index is made anew")


def _told(findings: Sequence[Finding], as_json: bool, fine: str) -> None:
    """Print findings; any makes the command fail."""
    if as_json:
        _emit([vars(finding) for finding in findings])
    for finding in findings if not as_json else ():
        click.echo(f"{safe_text(finding.where, 400)}: {finding.what}")
    if findings:
        raise RegistryError(f"{len(findings)} finding{'s' if len(findings) > 1 else ''}")
    _say(fine)


@_command
@click.argument("file", metavar="FILE|SHA256")
def which(opened: Registry, as_json: bool, file: str) -> None:
    """Tell which versions a file belongs to: a model, an export, a report, by its bytes alone.

    Exits with 7 when it belongs to none.

    \b
    Examples:
      modelhub registry which network.json
      modelhub registry which sha256:9c56cc51
    """
    from modelhub_registry import render

    found = opened.which(file)
    if as_json:
        _emit([render.found_json(hit) for hit in found])
    if not found:
        raise RegistryError(f"{safe_text(file)}: no version holds this file")
    if not as_json:
        render.print_found(found)
