"""Commands that cross borders: export, import, pull, mirror."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from modelhub.errors import UsageError
from modelhub_registry.commands import command, emit, say

if TYPE_CHECKING:
    from modelhub_registry.catalog import Registry
    from modelhub_registry.transfer import Arrived


@command
@click.argument("to", metavar="FOLDER")
@click.option("--layout", type=click.Choice(["groupdata", "oci"]), default="groupdata", show_default=True)
@click.option("--where", "question", metavar="QUESTION", help="Only the versions of which this is true.")
@click.option("--area", default="models", show_default=True, help="First folder, where the metadata have no `area`.")
@click.option("--zip", "archive", metavar="FILE", help="Also as one zip file.")
def export(
    opened: Registry, as_json: bool, to: str, layout: str, question: str | None, area: str, archive: str | None
) -> None:
    """Write the registry as a tree of plain files that C++ reads with no server and no library.

    Repeated, it gives the same bytes, and writes only what is new. Nothing is removed.

    \b
    Layouts:
      groupdata    <area>/<name>/<version>/network.{json,onnx}, index.json, SHA256SUMS, by-hash/
      oci          an OCI image layout, as oras and skopeo read it

    \b
    Examples:
      modelhub registry export GroupData --area BTagging
      modelhub registry export GroupData --where "alias=prod" --zip prod.zip
      modelhub registry export models.oci --layout oci
    """
    if layout == "oci":
        done = opened.export_oci(to, question)
    else:
        done = opened.export(to, question, area=area, archive=archive)
    if as_json:
        emit(vars(done))
    else:
        say(f"{done.files} files, {done.written} of them written")


@command
@click.argument("folder")
def _import(opened: Registry, as_json: bool, folder: str) -> None:
    """Take in a tree or an OCI layout that export wrote: versions with their identity, reports and aliases.

    \b
    Example:
      modelhub registry import GroupData
    """
    from modelhub_registry import names

    oci = (names.path(folder) / "oci-layout").exists()
    _told(opened.import_oci(folder) if oci else opened.import_tree(folder), as_json)


@command
@click.argument("source", metavar="PLACE")
@click.argument("models", nargs=-1)
@click.option("--no-aliases", is_flag=True, help="Leave aliases alone.")
def pull(opened: Registry, as_json: bool, source: str, models: tuple[str, ...], no_aliases: bool) -> None:
    """Take MODELS, or all, from the registry at PLACE. Versions keep their identity, aliases pass this gate.

    \b
    Examples:
      modelhub registry pull /eos/experiment/registry btag
      modelhub registry --registry /eos/experiment/registry pull ~/.modelhub/registry btag
      modelhub registry pull oci://registry.cern.ch/atlas btag
    """
    from modelhub_registry.catalog import Registry

    if source.startswith("oci"):
        if not models:
            raise UsageError("name the models to pull: a server of containers need not tell what it has")
        _told([one for model in models for one in opened.pull_oci(source, model)], as_json)
        return
    with Registry(source) as other:
        _told(opened.pull(other, models, aliases=not no_aliases), as_json)


@command
@click.argument("to", metavar="PLACE")
@click.argument("models", nargs=-1)
def mirror(opened: Registry, as_json: bool, to: str, models: tuple[str, ...]) -> None:
    """Bring MODELS, or all, to the registry at PLACE: another one of ours, or a server of containers (oci://).

    Where a server of containers, or the server of tokens it names, asks who you are, $MODELHUB_OCI_AUTH tells it:
    user:password.

    \b
    Examples:
      modelhub registry mirror /eos/experiment/registry btag
      modelhub registry mirror oci://registry.cern.ch/atlas
    """
    from modelhub_registry.catalog import Registry

    if not to.startswith("oci"):
        with Registry(to) as other:
            _told(other.pull(opened, models), as_json)
        return
    pushed = opened.push_oci(to, models)
    if as_json:
        emit(list(pushed))
    else:
        click.echo("\n".join(pushed))


def _told(arrived: Sequence[Arrived], as_json: bool) -> None:
    if as_json:
        emit([vars(one) for one in arrived])
        return
    for one in arrived:
        say(f"{one.there} is {one.here}{'' if one.new else ', as before'}")
