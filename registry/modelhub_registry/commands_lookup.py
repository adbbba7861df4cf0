"""Commands that read: list, show, get, which, where, lineage, compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelhub.errors import RegistryError, safe_text
from modelhub_registry.commands import command, emit, say

if TYPE_CHECKING:
    from modelhub_registry.catalog import Registry


@command
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
        emit([render.summary_json(summary) for summary in found])
    elif found:
        render.print_list(found)
    else:
        say(f"{opened.address}: no versions yet; `modelhub registry push` publishes the first")


@command
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
        emit(render.details_json(details))
    else:
        render.print_details(details)


@command
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
        emit(paths)
    else:
        click.echo("\n".join(paths))


@command
@click.argument("file", metavar="FILE|SHA256")
@click.option("--tree", metavar="FOLDER", help="Ask an exported tree, not the registry.")
def which(opened: Registry, as_json: bool, file: str, tree: str | None) -> None:
    """Tell which versions a file belongs to: a model, an export, a report, by its bytes alone.

    Exits with 7 when it belongs to none.

    \b
    Examples:
      modelhub registry which network.json
      modelhub registry which sha256:9c56cc51
      modelhub registry which network.json --tree /cvmfs/atlas.cern.ch/GroupData
    """
    from modelhub_registry import render

    if tree is not None:
        _which_in_tree(as_json, file, tree)
        return
    found = opened.which(file)
    if as_json:
        emit([render.found_json(hit) for hit in found])
    if not found:
        raise RegistryError(f"{safe_text(file)}: no version holds this file")
    if not as_json:
        render.print_found(found)


def _which_in_tree(as_json: bool, file: str, folder: str) -> None:
    from modelhub_registry import intake, names, tree

    path = names.path(file)
    held = tree.which(names.path(folder), intake.digest(path) if path.exists() else file.removeprefix("sha256:"))
    if as_json:
        emit([vars(one) for one in held])
    if not held:
        raise RegistryError(f"{safe_text(file)}: no version in this tree holds this file")
    for one in held if not as_json else ():
        click.echo(f"{one.ref}  {one.role}  {safe_text(one.verdict)}  sha256:{one.digest}")


@command
@click.argument("question")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
def where(opened: Registry, as_json: bool, question: str, limit: int | None) -> None:
    """List the versions of which QUESTION is true.

    \b
    Fields: name, version, verdict, source, created, by, digest, alias, export, role, sha256, and every key of the
    metadata. Compare with = != < <= > >= in (a, b) has like; join with and, or, not, ( ).

    \b
    Examples:
      modelhub registry where "epoch=2026 and auc>0.9"
      modelhub registry where "name=btag and not (verdict in (different, suspect))"
      modelhub registry where "tags has calibrated and created>=2026-06-01"
    """
    from modelhub_registry import render

    found = opened.search(question, limit)
    if as_json:
        emit([render.summary_json(summary) for summary in found])
    elif found:
        render.print_list(found)
    else:
        say("none")


@command
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
def compare(opened: Registry, as_json: bool, a: str, b: str) -> None:
    """Show two versions side by side: files and sizes, verdicts and figures of the reports, interface, metadata.

    \b
    Examples:
      modelhub registry compare btag@3 btag@prod
      modelhub registry compare btag@1 btag@2 --json
    """
    from modelhub_registry import render

    found = opened.compare(a, b)
    if as_json:
        emit(render.comparison_json(found))
    else:
        render.print_comparison(found)


@command
@click.argument("ref")
def lineage(opened: Registry, as_json: bool, ref: str) -> None:
    """Show what the version REF was made from and into, what proves it, and who else holds the same files.

    \b
    Examples:
      modelhub registry lineage btag@prod
      modelhub registry lineage btag@3 --json
    """
    from modelhub_registry import render

    found = opened.lineage(ref)
    if as_json:
        emit(render.lineage_json(found))
    else:
        render.print_lineage(found)
