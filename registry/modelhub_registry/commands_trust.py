"""Commands that doubt: verify, reverify, fsck, gc, reindex."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from modelhub.errors import RegistryError, safe_text
from modelhub_registry.commands import command, emit, say

if TYPE_CHECKING:
    from modelhub_registry.catalog import Registry
    from modelhub_registry.rebuild import Finding


@command
@click.argument("ref", required=False)
def verify(opened: Registry, as_json: bool, ref: str | None) -> None:
    """Read every file of the version REF, or of the whole registry, and tell what is damaged, missing or changed.

    \b
    Examples:
      modelhub registry verify
      modelhub registry verify btag@prod
    """
    _told(opened.verify(ref), as_json, "as it should be")


@command
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
        emit([vars(finding) for finding in findings])
    for finding in findings if not as_json else ():
        click.echo(f"{safe_text(finding.where, 400)}: {finding.what}")
    if findings:
        raise RegistryError(f"{len(findings)} finding{'s' if len(findings) > 1 else ''}")
    say(fine)


@command
@click.option("--mend", is_flag=True, help="Mend what can be mended: log entries from the index, the index, leftovers.")
@click.option("--from", "source", metavar="PLACE", help="With --mend: another registry to take damaged files from.")
def fsck(opened: Registry, as_json: bool, mend: bool, source: str | None) -> None:
    """Hold index, logs, manifests, reports and files against each other, every byte of them.

    Exits with 7 when something is wrong, with one line for each.

    \b
    Examples:
      modelhub registry fsck
      modelhub registry fsck --mend --from /backup/registry
    """
    from modelhub_registry.catalog import Registry

    other = None if source is None else Registry(source)
    _told(opened.fsck(mend=mend, source=other), as_json, "as it should be")


@command
@click.option("--dry-run", is_flag=True, help="Tell what would be removed.")
@click.option(
    "--grace",
    metavar="HOURS",
    type=click.FloatRange(0),
    default=24,
    show_default=True,
    help="On a server, how old an unfinished upload must be.",
)
def gc(opened: Registry, as_json: bool, dry_run: bool, grace: float) -> None:
    """Remove what publishers that died left over. Versions are never removed.

    Safe while others publish.

    \b
    Examples:
      modelhub registry gc --dry-run
      modelhub registry gc
    """
    swept = opened.gc(dry_run=dry_run, grace=grace * 3600)
    if as_json:
        emit({"unfinished": list(swept.unfinished), "orphans": list(swept.orphans), "removed": not dry_run})
        return
    for key in (*swept.unfinished, *swept.orphans):
        click.echo(key)
    say(f"{len(swept.unfinished) + len(swept.orphans)} {'would be ' if dry_run else ''}removed")


@command
@click.argument("question", required=False)
@click.option("--attach", is_flag=True, help="The new reports count from now on.")
@click.option("--data", multiple=True, metavar="PATH", help="A file of real events that checks had, or its folder.")
def reverify(opened: Registry, as_json: bool, question: str | None, attach: bool, data: tuple[str, ...]) -> None:
    """Run the checks of all versions again, or of those QUESTION is true of, with the engines installed now.

    Same files, same record, same seeds, and with --data the same real events. Exits with 1 when a verdict is another
    one.

    \b
    Examples:
      modelhub registry reverify
      modelhub registry reverify "alias=prod" --attach --data jets.h5
    """
    from modelhub.errors import Different

    found = []
    for one in opened.reverify(question, attach=attach, data=data):
        found.append(one)
        if not as_json:
            verdicts = one.now if one.now == one.then else f"{one.then} -> {one.now}"
            click.echo("; ".join([f"{one.ref} {one.target}: {verdicts}", *(safe_text(c, 300) for c in one.changes)]))
    if as_json:
        emit([vars(one) for one in found])
    if other := [one for one in found if one.now != one.then]:
        raise Different(f"{len(other)} of {len(found)} verdicts changed", None)
    say(f"{len(found)} checks, every verdict as before" if found else "nothing was run: none of these has a report")
