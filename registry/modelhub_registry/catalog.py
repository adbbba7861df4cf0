"""The registry: publish, look up, fetch, point aliases, verify, on one page; the parts are in the files beside it."""

from __future__ import annotations

import builtins
import getpass
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

import modelhub
from modelhub.errors import RegistryError, notice
from modelhub.files import atomic_write
from modelhub_registry import index, intake, names, rebuild
from modelhub_registry.blobs import Blobs, Store, open_store, staged
from modelhub_registry.database import DamagedIndexError, Database
from modelhub_registry.index import Found, History, Summary
from modelhub_registry.log import Entry, Head, Log, Move, Publish
from modelhub_registry.rebuild import Finding
from modelhub_registry.records import Manifest, Provenance, Version, text
from modelhub_registry.settings import Settings, default_root

__all__ = ["Details", "Registry"]

_DIGEST = re.compile(r"(sha256:)?([0-9a-f]{8,64})")


@dataclass(frozen=True)
class Details:
    """A version, the aliases that point to it now, and every alias move to or from it, oldest first."""

    version: Version
    aliases: tuple[str, ...]
    moves: tuple[History, ...]


class Registry:
    """The registry in a folder, by default $MODELHUB_REGISTRY, else ~/.modelhub/registry.

    Nothing is set up before: the first `push` makes it. The folder must lie on a file system on which SQLite can
    lock (a local disk, not AFS). Safe for any number of processes at once. A reference is ``name``, ``name@3``,
    ``name@alias`` or ``name@sha256:<hex>``. Every method raises `RegistryError`, with what to do about it.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = default_root() if root is None else names.path(root)
        self._database = Database(self.root / "index.sqlite")

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index; it is opened again when needed."""
        self._database.close()

    # What it is made of

    @cached_property
    def _settings(self) -> Settings:
        return self._require()

    @cached_property
    def _store(self) -> Store:
        return open_store(self.root, self._settings.blobs)

    @property
    def _blobs(self) -> Blobs:
        return Blobs(self._store)

    @property
    def _log(self) -> Log:
        return Log(self._store)

    def _require(self) -> Settings:
        settings = Settings.load(self.root)
        if settings is None:
            raise RegistryError(
                f"there is no registry in {self.root}; `modelhub registry push` makes one, "
                "MODELHUB_REGISTRY or --registry names another place"
            )
        return settings

    def _make(self) -> None:
        """Make what is not there yet: settings, and the index."""
        if Settings.load(self.root) is None:
            Settings().store(self.root)
        self._make_index()

    def _make_index(self) -> None:
        """An index that is missing is made from the log."""
        if not self._database.path.exists():
            self._database.create(self._fill)

    def _fill(self, db: Connection) -> None:
        for finding in self._fold(db):
            notice(f"the index was made anew without what is damaged: {finding.where}: {finding.what}")

    def _fold(self, db: Connection) -> builtins.list[Finding]:
        log = self._log
        return [f for name in log.names() for f in rebuild.fold(db, log, self._blobs, name, log.length(name))]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        if not self._database.path.exists():
            self._require()
            self._make_index()
        with self._database.reading() as db:
            yield db

    @staticmethod
    def _provenance() -> Provenance:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # no name for this user id, as in some containers
            user = f"uid {os.getuid()}"
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return Provenance(now, user, modelhub.__version__)

    # Publishing

    def push(
        self,
        name: str,
        artifacts: Iterable[intake.Item],
        reports: Iterable[str | os.PathLike[str]] = (),
        *,
        metadata: Mapping[str, Any] | None = None,
        interface: Mapping[str, Any] | None = None,
        again: bool = False,
    ) -> Version:
        """Publish files as the next version of `name`: all of it or nothing, on disk when this returns.

        Args:
            name: the model's name.
            artifacts: paths, the source first and exports after it, or pairs (role, path).
            reports: reports of `modelhub check` about a source and an export among these files.
            metadata: JSON values by key.
            interface: the interface record as JSON, or an lwtnn variables file's content; else that of the reports.
            again: make a new version even if one with the same content is there; without, that one is returned.

        """
        names.name(name)
        self._make()
        with ExitStack() as stack:
            content = intake.collect(stack, self._store, artifacts, reports)
            draft = Manifest(
                name,
                content.artifacts,
                self._provenance(),
                content.reports,
                content.interface() if interface is None else intake.interface(interface),
                dict(metadata or {}),
            )
            manifest = Manifest.from_bytes(draft.ordered().to_bytes(), f"{name} cannot be published")
            for blob in content.blobs:
                self._blobs.put(blob)
            return self._publish(manifest, again)

    def _publish(self, manifest: Manifest, again: bool) -> Version:
        """The manifest's blob, then the log, then the index; nothing of it for content that is there already."""
        name = manifest.name
        with self._database.reading() as db:
            number = None if again else index.newest_with(db, name, manifest.content)
        if number is not None:
            self._store.settle()
            return self.version(f"{name}@{number}")
        with staged(self._store, [manifest.to_bytes()]) as blob:
            self._blobs.put(blob)
        self._store.settle()
        with self._database.writing() as db:
            head = self._follow(db, name)
            number = None if again else index.newest_with(db, name, manifest.content)
            if number is None and not index.holds(db, name, blob.sha256):
                number = head.versions + 1
                self._record(db, name, manifest.provenance, Publish(number, blob.sha256), manifest)
                return Version(number, blob.sha256, manifest, new=True)
        if number is None:  # the same again, in the same microsecond
            return self._publish(replace(manifest, provenance=self._provenance()), again)
        return self.version(f"{name}@{number}")

    def alias(self, ref: str, alias: str, *, force: bool = False, reason: str | None = None) -> Version:
        """Let `alias` point to the version `ref`, and return it.

        A protected alias (`prod`, see registry.json) moves only to a sound version whose reports prove every export
        of it; `force` with a `reason` moves it all the same, and both are in the log for ever.
        """
        names.alias(alias)
        if reason is not None:
            text(reason, "a reason")
        if force and reason is None:
            raise RegistryError("to force an alias, give a reason; it is kept for ever")
        version = self.version(ref)
        protected = alias.lower() in self._settings.protected
        gaps = self._gaps(version) if protected else []
        if gaps and not force:
            raise RegistryError(
                "\n".join([f"{version.ref} may not become {alias!r}:", *(f"  - {gap}" for gap in gaps)])
                + "\nPush it again with passing reports of `modelhub check`, or force it with a reason, kept for ever."
            )
        with self._database.writing() as db:
            self._follow(db, version.name)
            previous = index.alias_of(db, version.name, alias)
            if previous == version.number:
                return version
            move = Move(alias, version.number, previous, bool(gaps), reason)
            self._record(db, version.name, self._provenance(), move)
        return version

    def _gaps(self, version: Version) -> Sequence[str]:
        """Why a version may not be protected, one line each: gaps in its evidence, damage to what it consists of."""
        damage = rebuild.examine(self._blobs, version.ref, version.manifest, {})
        return [*version.manifest.gaps(), *(finding.what for finding in damage)]

    def _follow(self, db: Connection, name: str) -> Head:
        """Bring the index up to the log, which a crash may have left one entry ahead."""
        head = index.head(db, name)
        if head == Head():
            index.admit(db, name)
        for entry in self._log.after(name, head):
            event = entry.event
            manifest = rebuild.manifest(self._blobs, name, event.manifest) if isinstance(event, Publish) else None
            head = index.apply(db, head, entry, manifest)
        if head.entries and head.last is None:
            raise RegistryError(
                f"the end of the log of {name} is damaged; put it back from a copy, then `modelhub registry reindex`"
            )
        return head

    def _record(
        self, db: Connection, name: str, made: Provenance, event: Publish | Move, manifest: Manifest | None = None
    ) -> None:
        """Write an event to the log and take it into the index, which has followed the log so far."""
        head = index.head(db, name)
        entry = Entry(name, head.entries + 1, head.last, made.created, made.by, event)
        self._log.append(entry)
        index.apply(db, head, entry, manifest)

    # Looking up

    def version(self, ref: str) -> Version:
        """The version a reference names, from its verified manifest."""
        reference = names.reference(ref)
        with self._reading() as db:
            number, digest = index.find(db, reference)
        return Version(number, digest, rebuild.manifest(self._blobs, reference.name, digest))

    def show(self, ref: str) -> Details:
        """A version with the aliases that point to it now and every alias move it was part of."""
        version = self.version(ref)
        with self._reading() as db:
            held = [alias for alias, number in index.aliases_of(db, version.name).items() if number == version.number]
            return Details(version, tuple(held), tuple(index.history(db, version.name, version.number)))

    def list(self, name: str | None = None) -> Sequence[Summary]:
        """All versions, none where no registry is yet; or those of one model, which must be there. By name, number."""
        if name is None and Settings.load(self.root) is None:
            return []
        with self._reading() as db:
            found = index.summaries(db, None if name is None else names.name(name))
            if name is not None and not found:
                index.find(db, names.Reference(name))
        return found

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
        with self._reading() as db:
            return index.which(db, sha256)

    # Fetching

    def open(self, ref: str, role: str) -> bytes:
        """The verified bytes of the file of that role."""
        return self._blobs.get(self.version(ref).manifest.artifact(role).sha256)

    def get(self, ref: str, role: str | None = None, to: str | os.PathLike[str] = ".") -> Sequence[Path]:
        """Write a version's files and reports, or the file of one role, into the folder `to`; returns their paths.

        Nothing is written unless every file is sound. A file that lies there with other content is an error.
        """
        manifest = self.version(ref).manifest
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

    # Trust

    def verify(self, ref: str | None = None) -> Sequence[Finding]:
        """Everything that is not as it should be, in one version, or in all and the index; every file is read."""
        seen: dict[str, str] = {}
        if ref is not None:
            version = self.version(ref)
            return [*rebuild.examine(self._blobs, version.ref, version.manifest, seen)]
        with self._reading() as db:
            findings = rebuild.compare(db, self._log, self._blobs)
            known = [(s.name, s.ref, s.digest, index.files_of(db, s.name, s.number)) for s in index.summaries(db, None)]
        for name, ref, digest, held in known:
            try:
                manifest = rebuild.manifest(self._blobs, name, digest)
            except RegistryError:  # told by `compare`
                findings += rebuild.survivors(self._blobs, ref, held, seen)
            else:
                findings += rebuild.examine(self._blobs, ref, manifest, seen)
        return findings

    def reindex(self) -> Sequence[Finding]:
        """Make the index anew from log and manifests; returns what could not be read and is therefore not in it."""
        self._require()
        findings: builtins.list[Finding] = []

        def refill(db: Connection) -> None:
            index.clear(db)
            findings[:] = self._fold(db)

        try:
            if self._database.path.exists():
                with self._database.writing() as db:
                    refill(db)
                return findings
        except DamagedIndexError:
            self._database.set_aside()
        self._database.create(refill)
        return findings
