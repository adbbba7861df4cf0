"""Versions from one registry to another, directly or by a tree of files; a version keeps its identity on the way.

What travels is the manifest, byte for byte, with its files and reports, and the reports that came later. Numbers are
given anew where it arrives, in the same order. Aliases are set by the receiving registry, so a protected one has to
pass its gate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from modelhub.errors import RegistryError
from modelhub.files import head
from modelhub_registry import index, names, tree
from modelhub_registry.evidence import LIMIT, evidence
from modelhub_registry.gate import Gate
from modelhub_registry.intake import prepared
from modelhub_registry.log import Attach, Publish
from modelhub_registry.lookup import Lookup
from modelhub_registry.records import LIMIT as MANIFEST
from modelhub_registry.records import Evidence, Manifest, Version
from modelhub_registry.stores import chunks
from modelhub_registry.tree import Exported

__all__ = ["Arrived", "Transfer"]

Fetch = Callable[[str], Iterator[bytes]]
"""The bytes with a SHA-256, not to be trusted."""


@dataclass(frozen=True)
class Arrived:
    """A version that came in: what it was called there, what it is here, and whether it is new here."""

    there: str
    here: str
    new: bool


class Transfer(Gate):
    """The verbs that cross borders."""

    def export(
        self,
        to: str | os.PathLike[str],
        question: str | None = None,
        *,
        area: str = "models",
        archive: str | os.PathLike[str] | None = None,
    ) -> Exported:
        """Write all versions, or those a question is true of, as a tree of plain files: see `tree.py`.

        Args:
            to: the folder; what it holds of an earlier export stays.
            question: as for `search`.
            area: the first folder, for versions whose metadata have no `area`; may hold ``/``.
            archive: also write the tree into this zip file.

        """
        root = names.path(to)
        found = self.list() if question is None else self.search(question)
        versions = (self.version(s.ref) for s in found)
        pointing = {name: self.aliases(name) for name in sorted({s.name for s in found})}
        done = tree.write_tree(self._blobs, versions, pointing, root, area)
        if archive is not None:
            tree.write_zip(root, names.path(archive))
        return done

    def import_tree(self, root: str | os.PathLike[str]) -> Sequence[Arrived]:
        """Take in a tree that `export` wrote. Every file is verified; what is here already is left as it is."""
        folder = names.path(root)
        document = tree.read_index(folder)
        arrived = []
        numbers: dict[tuple[str, int], int] = {}
        for entry in document["versions"]:
            paths = {file["sha256"]: folder / file["path"] for file in entry["files"]}
            later = [names.digest(report["sha256"]) for report in entry["attached"]]

            def fetch(sha256: str, paths: dict[str, Path] = paths) -> Iterator[bytes]:
                if sha256 not in paths:
                    raise RegistryError(f"{folder}: the tree does not hold sha256:{sha256}")
                head(paths[sha256])  # a regular file
                return chunks(paths[sha256])

            version = self.adopt(entry["digest"], fetch, later)
            numbers[entry["name"], entry["number"]] = version.number
            arrived.append(Arrived(f"{entry['name']}@{entry['number']}", version.ref, version.new))
        for name, pointing in document["aliases"].items():
            for alias, number in pointing.items():
                if (name, number) in numbers:
                    self._point(f"{name}@{numbers[name, number]}", alias)
        return arrived

    def pull(self, source: Lookup, names_: Iterable[str] = (), *, aliases: bool = True) -> Sequence[Arrived]:
        """Take models, or all, from another registry: their versions, later reports and aliases."""
        wanted = set(map(names.name, names_))
        arrived = []
        here: dict[tuple[str, int], int] = {}
        found = source.list()
        if missing := wanted - {s.name for s in found}:
            raise RegistryError(f"{source.address} has no model {', '.join(sorted(missing))}")
        for summary in found:
            if wanted and summary.name not in wanted:
                continue
            there = source.version(summary.ref)
            version = self.adopt(there.digest, source.raw, [r.sha256 for r in there.attached])
            here[there.name, there.number] = version.number
            arrived.append(Arrived(there.ref, version.ref, version.new))
        for name in sorted({name for name, _ in here}) if aliases else ():
            for alias, number in source.aliases(name).items():
                self._point(f"{name}@{here[name, number]}", alias)
        return arrived

    def _point(self, ref: str, alias: str) -> None:
        if self.aliases(ref.partition("@")[0]).get(alias) != int(ref.partition("@")[2]):
            self.alias(ref, alias)

    def adopt(self, digest: str, fetch: Fetch, later: Sequence[str] = ()) -> Version:
        """The version with that manifest, taken in as it is with files from `fetch`, and reports that came later."""
        self._make()
        with ExitStack() as stack:
            data = _within(MANIFEST, fetch(names.digest(digest)), f"manifest sha256:{digest}")
            items, waits = prepared(stack, self._blobs, [lambda: iter([data])], [digest])
            manifest = Manifest.from_bytes(data, f"manifest sha256:{digest}")
            wanted = dict.fromkeys([a.sha256 for a in manifest.artifacts] + [r.sha256 for r in manifest.reports])
            lacking = [sha256 for sha256 in wanted if not self._sound(sha256)]
            more, further = prepared(stack, self._blobs, [lambda s=s: fetch(s) for s in lacking], lacking)  # type: ignore[misc]
            for wait in (*waits, *further):
                wait()
            with self._database.writing(logged=True) as db:
                stands = self._follow(db, manifest.name)
                _, exact = index.same(db, manifest.name, manifest.content, digest)
                if exact is not None:
                    self._store.place(more)
                    number, new = exact, False
                else:
                    number, new = stands.versions + 1, True
                    event = Publish(number, digest)
                    first = [*more, *items]
                    self._record(db, stands, manifest.name, self._provenance(), event, found=manifest, first=first)
        for sha256 in later:
            self._adopt_report(f"{manifest.name}@{number}", sha256, fetch)
        found = self.version(f"{manifest.name}@{number}")
        return Version(found.number, found.digest, found.manifest, found.attached, new=new)

    def _sound(self, sha256: str) -> bool:
        try:
            self._blobs.verify(sha256)
        except RegistryError:
            return False
        return True

    def _adopt_report(self, ref: str, sha256: str, fetch: Fetch) -> None:
        version = self.version(ref)
        if any(report.sha256 == sha256 for report in version.attached):
            return
        data = _within(LIMIT, fetch(sha256), f"report sha256:{sha256}")
        told: Evidence = evidence(data, f"report sha256:{sha256}")
        judged = version.manifest.judged_by([*version.attached, told])
        Manifest.from_bytes(judged.to_bytes(), f"report sha256:{sha256} does not belong to {ref}")
        with ExitStack() as stack:
            items, waits = prepared(stack, self._blobs, [lambda: iter([data])], [sha256])
            for wait in waits:
                wait()
            with self._database.writing(logged=True) as db:
                stands = self._follow(db, version.name)
                event = Attach(version.number, sha256)
                self._record(db, stands, version.name, self._provenance(), event, found=told, first=items)


def _within(limit: int, pieces: Iterator[bytes], what: str) -> bytes:
    data = b""
    for piece in pieces:
        data += piece
        if len(data) > limit:
            raise RegistryError(f"{what} is larger than the limit of {limit} bytes")
    return data
