"""Commands that write: init, push, attach, alias, unalias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modelhub.errors import UnreadableFile, UsageError, safe_text
from modelhub.files import parse_json, read_bytes
from modelhub_registry import names
from modelhub_registry.commands import command, emit, say

if TYPE_CHECKING:
    from modelhub_registry.catalog import Registry


@command
@click.option("--protect", multiple=True, metavar="ALIAS", help="Moves only on passing reports. Else: prod.")
@click.option("--report-days", type=click.IntRange(1), default=365, show_default=True, help="How long a report counts.")
@click.option("--blobs", metavar="URL", help="Where files and logs are to lie, if not beside registry.json.")
@click.option("--index", metavar="URL", help="The database of the index, if not SQLite beside registry.json.")
def init(
    opened: Registry, as_json: bool, protect: tuple[str, ...], report_days: int, blobs: str | None, index: str | None
) -> None:
    """Make an empty registry that is set up otherwise than the first push would. What is said here is in registry.json.

    \b
    Examples:
      modelhub registry init --protect prod --protect online --report-days 180
      modelhub registry --registry here init --blobs s3://models/prod --index postgresql://db.cern.ch/models
    """
    from modelhub_registry.settings import Settings

    protected = tuple(names.alias(word).lower() for word in protect or ("prod",))
    opened.init(Settings(protected, blobs, index, report_days))
    if as_json:
        emit({"registry": opened.address, "protected": list(protected)})
    else:
        say(f"{opened.address}: made")


@command
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
    say(f"{version.ref} published" if version.new else same)
    if as_json:
        from modelhub_registry.render import version_json

        emit(version_json(version) | {"new": version.new})
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


@command
@click.argument("ref")
@click.argument("reports", nargs=-1, required=True, metavar="REPORT...")
def attach(opened: Registry, as_json: bool, ref: str, reports: tuple[str, ...]) -> None:
    """Add reports of modelhub check to the published version REF; the last one on a pair of files counts.

    \b
    Example:
      modelhub registry attach btag@3 net.json.report.json
    """
    version = opened.attach(ref, reports)
    if as_json:
        from modelhub_registry.render import version_json

        emit(version_json(version))
    else:
        say(f"{version.ref}: {version.verdict}")


@command
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
        emit({"name": version.name, "alias": alias, "number": version.number, "digest": f"sha256:{version.digest}"})
    else:
        say(f"{version.name}@{alias} is {version.ref}")


@command
@click.argument("name")
@click.argument("alias")
@click.option("--reason", metavar="TEXT", help="Why; kept in the log for ever. A protected alias wants one.")
def unalias(opened: Registry, as_json: bool, name: str, alias: str, reason: str | None) -> None:
    """Remove ALIAS from the model NAME. The log keeps that it was there.

    \b
    Example:
      modelhub registry unalias btag candidate
    """
    previous = opened.unalias(name, alias, reason=reason)
    if as_json:
        emit({"name": name, "alias": alias, "previous": previous})
    else:
        say(f"{name}@{alias} is no more; it was {name}@{previous}")
