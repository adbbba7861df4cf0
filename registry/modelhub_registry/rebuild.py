"""The index from the log, and the log, the index and the blobs held against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from modelhub.errors import RegistryError, safe_text
from modelhub_registry import index, sqlite
from modelhub_registry.blobs import Blobs
from modelhub_registry.evidence import LIMIT as REPORT_LIMIT
from modelhub_registry.evidence import evidence
from modelhub_registry.log import Attach, Entry, Event, Head, Log, Publish
from modelhub_registry.names import Reference
from modelhub_registry.records import LIMIT, Evidence, Manifest
from modelhub_registry.tables import Connection

__all__ = ["Finding", "compare", "examine", "fold", "follow", "manifest", "told_by"]


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be: where (a reference, or a place in the registry), and what."""

    where: str
    what: str

    @property
    def mended_by_reindex(self) -> bool:
        """Whether the truth is in log and manifests, and the index only does not say it."""
        return "reindex" in self.what


def manifest(blobs: Blobs, name: str, digest: str) -> Manifest:
    """The manifest with this digest, which must be of model `name`. Raises `RegistryError`."""
    found = Manifest.from_bytes(blobs.get(digest, LIMIT), f"manifest sha256:{digest}")
    if found.name != name:
        raise RegistryError(f"manifest sha256:{digest} is of {found.name}, not of {name}: the log was changed")
    return found


def told_by(blobs: Blobs, name: str, event: Event) -> Manifest | Evidence | None:
    """The manifest or report an event speaks of, verified; None for an alias move. Raises `RegistryError`."""
    if isinstance(event, Publish):
        return manifest(blobs, name, event.manifest)
    if isinstance(event, Attach):
        return evidence(blobs.get(event.report, REPORT_LIMIT), f"report sha256:{event.report}")
    return None


def follow(db: Connection, blobs: Blobs, head: Head, entry: Entry, found: Manifest | Evidence | None) -> Head:
    """Take one entry into the index; a report that came later changes what its version is judged by."""
    after = index.apply(db, head, entry, found)
    if isinstance(entry.event, Attach) and isinstance(found, Evidence):
        try:
            number, digest, later = index.find(db, Reference(entry.name, number=entry.event.number))
            judged = manifest(blobs, entry.name, digest).judged_by(index.attached(later))
        except RegistryError:  # the version is lost, which is told elsewhere
            return after
        index.judge(db, entry.name, number, judged.verdict)
    return after


def fold(db: Connection, log: Log, blobs: Blobs, name: str, entries: int) -> list[Finding]:
    """Follow the first `entries` of one log into an index without it; what cannot be read is told and stepped over."""
    findings = []
    head = Head()
    for _ in range(entries):
        try:
            entry = log.next(name, head)
        except RegistryError as error:
            findings.append(Finding(f"{name}, log entry {head.entries + 1}", str(error)))
            head = index.skip(db, name, head)
            continue
        found = None
        try:
            found = told_by(blobs, name, entry.event)
        except RegistryError as error:
            findings.append(Finding(f"{name}@{entry.event.number}", str(error)))
        head = follow(db, blobs, head, entry, found)
    return findings


def compare(disk: Connection, log: Log, blobs: Blobs) -> list[Finding]:
    """Whether the index says what the log and the manifests say: a second index is made in memory and compared.

    Only as far as the index has come: others may be publishing.
    """
    heads = index.heads(disk)
    findings: list[Finding] = []
    lost: set[str] = set()
    with sqlite.memory() as fresh:
        for name in sorted({*heads, *log.names()}):
            entries = heads.get(name, Head()).entries
            if wrong := fold(fresh, log, blobs, name, entries):
                findings += wrong
                lost.add(name)
        ours, theirs = Counter(index.rows(disk)), Counter(index.rows(fresh))
    for rows, what in ((ours - theirs, "is not what log and manifests say"), (theirs - ours, "is missing")):
        findings += [
            Finding(f"index, table {table}", f"{safe_text(row, 160)} {what}; `modelhub registry reindex` mends it")
            for table, row in rows
            if row[0] not in lost  # told already
        ]
    return findings


def examine(blobs: Blobs, ref: str, version: Manifest, seen: dict[str, str]) -> Iterator[Finding]:
    """What is wrong with a version's files and reports. `seen` remembers between calls what was wrong with a blob."""
    for artifact in version.artifacts:
        if wrong := _wrong(blobs, artifact.sha256, seen):
            yield Finding(f"{ref}, {artifact.role} {artifact.filename}", wrong)
    for report in version.reports:
        if wrong := _wrong(blobs, report.sha256, seen):
            yield Finding(f"{ref}, {version.report_name(report)}", wrong)
            continue
        try:
            told = evidence(blobs.get(report.sha256, REPORT_LIMIT), version.report_name(report))
            if told != report:
                raise RegistryError("the manifest tells of another verdict or other files than the report")
        except RegistryError as error:
            yield Finding(f"{ref}, {version.report_name(report)}", str(error))


def survivors(blobs: Blobs, ref: str, held: list[tuple[str, str]], seen: dict[str, str]) -> Iterator[Finding]:
    """What is wrong with the files of a version whose manifest is lost, by what the index remembers of them."""
    for role, sha256 in held:
        if role != "manifest" and (wrong := _wrong(blobs, sha256, seen)):
            yield Finding(f"{ref}, {role}", wrong)


def _wrong(blobs: Blobs, sha256: str, seen: dict[str, str]) -> str:
    if sha256 not in seen:
        try:
            blobs.verify(sha256)
            seen[sha256] = ""
        except RegistryError as error:
            seen[sha256] = str(error)
    return seen[sha256]
