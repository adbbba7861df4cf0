"""Looking up: versions by reference, lists, aliases, and whose file this is; and fetching what was found, verified."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelhub.errors import RegistryError
from modelhub.files import atomic_write
from modelhub_registry import index, intake, names, query, rebuild
from modelhub_registry.core import Core
from modelhub_registry.index import Found, History, Summary
from modelhub_registry.records import Version
from modelhub_registry.search import search as found_by

if TYPE_CHECKING:
    from modelhub_registry.running import Model

__all__ = ["Details", "Lineage", "Lookup", "Step", "steps_of"]

_DIGEST = re.compile(r"(sha256:)?([0-9a-f]{8,64})")


@dataclass(frozen=True)
class Details:
    """A version, the aliases that point to it now, and every alias move to or from it, oldest first."""

    version: Version
    aliases: tuple[str, ...]
    moves: tuple[History, ...]


@dataclass(frozen=True)
class Step:
    """A conversion: from the file of one role to that of another, the report about it and its verdict.

    `graph` is the SHA-256 of the common graph between the two, where the report tells it.
    """

    source: str
    target: str
    report: str
    verdict: str
    graph: str | None


@dataclass(frozen=True)
class Lineage:
    """A version, its conversions, and the other versions that hold one of its files."""

    version: Version
    steps: tuple[Step, ...]
    shared: tuple[Found, ...]


def steps_of(version: Version) -> tuple[Step, ...]:
    """The conversions of a version that a report tells of."""
    judged = version.judged
    sources = {a.sha256: a for a in judged.artifacts if a.is_source}
    return tuple(
        Step(source.role, a.role, judged.report_name(report), report.verdict, report.covers.get("graph"))
        for report in judged.reports
        for a in judged.artifacts
        if a.sha256 == report.covers["target"] and (source := sources.get(report.covers["source"])) and a is not source
    )


class Lookup(Core):
    """The verbs that read."""

    def version(self, ref: str) -> Version:
        """The version a reference names, from its verified manifest."""
        reference = names.reference(ref)
        with self._reading() as db:
            number, digest, later = index.find(db, reference)
        return Version(number, digest, rebuild.manifest(self._blobs, reference.name, digest), index.attached(later))

    def show(self, ref: str) -> Details:
        """A version with the aliases that point to it now and every alias move it was part of."""
        version = self.version(ref)
        with self._reading() as db:
            held = [alias for alias, number in index.aliases_of(db, version.name).items() if number == version.number]
            return Details(version, tuple(held), tuple(index.history(db, version.name, version.number)))

    def list(self, name: str | None = None) -> Sequence[Summary]:
        """All versions, none where no registry is yet; or those of one model, which must be there. By name, number."""
        if name is None and self._place.settings() is None:
            return []
        with self._reading() as db:
            found = index.summaries(db, None if name is None else names.name(name))
            if name is not None and not found:
                index.find(db, names.Reference(name))
        return found

    def search(self, question: str, limit: int | None = None) -> Sequence[Summary]:
        """The versions a question is true of, as in ``epoch=2026 and auc>0.9``; the language stands in `query.py`."""
        tree = query.parse(question)
        if self._place.settings() is None:
            return []
        with self._reading() as db:
            return found_by(db, tree, limit)

    def sharing(self, ref: str) -> Sequence[Found]:
        """Other versions that hold a file of this one (source, graph, export), of any model, and as what."""
        version = self.version(ref)
        with self._reading() as db:
            found = [hit for a in version.manifest.artifacts for hit in index.which(db, a.sha256)]
        return [hit for hit in dict.fromkeys(found) if hit.version.ref != version.ref]

    def lineage(self, ref: str) -> Lineage:
        """Source, graph and exports of a version, what proves each step, and where else the same files are."""
        version = self.version(ref)
        return Lineage(version, steps_of(version), tuple(self.sharing(ref)))

    def aliases(self, name: str) -> dict[str, int]:
        """The aliases of a model and the version numbers they point to."""
        with self._reading() as db:
            index.find(db, names.Reference(names.name(name)))
            return index.aliases_of(db, name)

    def which(self, file: str | os.PathLike[str]) -> Sequence[Found]:
        """Versions that hold a file: given as a path, or as its SHA-256 or the first 8 digits of it or more."""
        path = names.path(file)
        digest = _DIGEST.fullmatch(str(path))
        named = digest is not None and (digest[1] is not None or not path.exists())
        sha256 = digest[2] if digest is not None and named else intake.digest(path)
        return self._holding(sha256)

    def _holding(self, sha256: str) -> Sequence[Found]:
        with self._reading() as db:
            return index.which(db, sha256)

    def load(self, ref: str, *, providers: Sequence[str] = (), batch: int = 8192) -> Model:
        """The version ready to compute, in onnxruntime: see `running.py`.

        Args:
            ref: the version; its ``export:onnx`` is taken, else a source that is ONNX.
            providers: of onnxruntime, in order of preference, as ("CUDAExecutionProvider", "CPUExecutionProvider").
            batch: events computed at once.

        """
        from modelhub_registry.running import Model, record_of

        version = self.version(ref)
        files = [a for a in version.manifest.artifacts if a.format == "onnx"]
        files.sort(key=lambda a: (a.role != "export:onnx", not a.is_export, a.role))
        if not files:
            raise RegistryError(
                f"{version.ref} holds no ONNX file; `modelhub convert` its source to ONNX, and push both together"
            )
        where = f"{version.ref}, {files[0].filename}"
        record = record_of(version.manifest.interface, where)
        return Model(self._blobs.get(files[0].sha256), record, where, providers=providers, batch=batch)

    def raw(self, sha256: str) -> Iterator[bytes]:
        """The bytes of a file, report or manifest in pieces; the end raises `RegistryError` if they were not the right
        ones, so no piece is to be used before.
        """
        return self._blobs.pieces(sha256)

    def open(self, ref: str, role: str) -> bytes:
        """The verified bytes of the file of that role."""
        return self._blobs.get(self.version(ref).manifest.artifact(role).sha256)

    def get(self, ref: str, role: str | None = None, to: str | os.PathLike[str] = ".") -> Sequence[Path]:
        """Write a version's files and reports, or the file of one role, into the folder `to`; returns their paths.

        Nothing is written unless every file is sound. A file that lies there with other content is an error.
        """
        manifest = self.version(ref).judged
        wanted = {a.filename: a.sha256 for a in manifest.artifacts if role in (None, a.role)}
        if role is None:
            wanted |= {manifest.report_name(r): r.sha256 for r in manifest.reports}
        if role is not None:
            manifest.artifact(role)
        folder = names.path(to)
        return self._write({folder / filename: sha256 for filename, sha256 in wanted.items()})

    def _write(self, wanted: dict[Path, str]) -> Sequence[Path]:
        """Blobs under their paths, all checked before the first is given its name."""
        try:
            with ExitStack() as stack:
                for path, sha256 in wanted.items():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if path.exists() and intake.digest(path) == sha256:
                        continue
                    if os.path.lexists(path):
                        raise RegistryError(f"{path} is there with other content; move it away, or name another folder")
                    self._blobs.save(sha256, stack.enter_context(atomic_write(path)))
        except OSError as error:
            raise RegistryError(f"cannot write {error.filename or 'the files'}: {error.strerror or error}") from error
        return list(wanted)
