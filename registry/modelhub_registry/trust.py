"""Trust, but verify: everything read and held against everything else; what can be mended is mended."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelhub.errors import RegistryError
from modelhub_registry import index, names, rebuild
from modelhub_registry.core import Core
from modelhub_registry.log import Head
from modelhub_registry.lookup import Lookup
from modelhub_registry.rebuild import Finding
from modelhub_registry.stores import Item, staged
from modelhub_registry.tables import Connection

__all__ = ["Swept", "Trust"]

DAY = 86_400.0


@dataclass(frozen=True)
class Swept:
    """What `gc` removed, or would remove: keys of unfinished uploads, and of blobs that no log knows."""

    unfinished: tuple[str, ...]
    orphans: tuple[str, ...]


class Trust(Lookup):
    """The verbs that doubt."""

    def verify(self, ref: str | None = None) -> Sequence[Finding]:
        """Everything that is not as it should be, in one version, or in all and the index; every file is read."""
        seen: dict[str, str] = {}
        if ref is not None:
            version = self.version(ref)
            return [*rebuild.examine(self._blobs, version.ref, version.judged, seen)]
        with self._reading() as db:
            findings = rebuild.compare(db, self._log, self._blobs)
            known = [(s, index.files_of(db, s.name, s.number), index.later(db, s)) for s in index.summaries(db, None)]
        for s, held, later in known:
            try:
                manifest = rebuild.manifest(self._blobs, s.name, s.digest)
            except RegistryError:  # told by `compare`
                findings += rebuild.survivors(self._blobs, s.ref, held, seen)
            else:
                findings += rebuild.examine(self._blobs, s.ref, manifest, seen)
                findings += rebuild.survivors(self._blobs, s.ref, [("report", r.sha256) for r in later], seen)
        return list(dict.fromkeys([*self._behind(), *findings]))

    def _behind(self) -> Iterator[Finding]:
        """Logs that are ahead of the index, and stay so: a publisher that is at work is given time to end."""
        for attempt in range(5):
            ahead = {name: self._log.length(name) for name in self._log.names()}
            with self._reading() as db:
                heads = index.heads(db)
            stands = {name: heads.get(name, Head()).entries for name in ahead}
            ahead = {name: length for name, length in ahead.items() if length > stands[name]}
            if not ahead:
                return
            time.sleep(0.1 * (attempt + 1))
        for name, length in ahead.items():
            what = f"the log has {length} entries, the index {stands[name]}"
            yield Finding(name, f"{what}; the next publish or reindex takes in the rest")

    def fsck(self, *, mend: bool = False, source: Core | None = None) -> Sequence[Finding]:
        """Every divergence of index, logs, manifests and blobs, and what crashes left over; told is what stays so.

        Args:
            mend: write lost log entries again from the index, make the index anew, remove what is left over.
            source: another registry, from which blobs that are damaged or missing here are taken again.

        """
        self._require()
        if source is not None:
            source._require()
        if mend:
            self._restore_log()
            for other in [] if source is None else [source, source]:  # manifests first, then what they name
                self._restore_blobs(other)
                self.reindex()
            with self._reading() as db:
                wrong = rebuild.compare(db, self._log, self._blobs)
            if all(finding.mended_by_reindex for finding in wrong):  # else the index knows what the manifests lost
                self.reindex()
            if not self.verify():
                self.gc()
        left = [*self.verify(), *self._strangers()]
        swept = self.gc(dry_run=True) if not left else Swept((), ())
        told = "was left over by a publisher that died; `modelhub registry gc` removes it"
        return [*left, *(Finding(key, told) for key in (*swept.unfinished, *swept.orphans))]

    def _strangers(self) -> Iterator[Finding]:
        """Keys where logs and blobs lie that are neither."""
        for name in self._store.list(self._blobs.folder):
            try:
                names.digest(name)
            except RegistryError as error:
                yield Finding(f"{self._blobs.folder}", f"holds what is no blob: {error}")
        known = set(self._log.names())
        for name in self._store.list(self._log.folder):
            if name not in known:
                yield Finding(self._log.folder, f"holds what is no log: {names.shown(name)}")

    def _restore_blobs(self, source: Core) -> None:
        with self._reading() as db:
            wanted = sorted(index.every_blob(db))
        for sha256 in wanted:
            try:
                self._blobs.verify(sha256)
            except RegistryError:
                try:
                    source._blobs.verify(sha256)
                except RegistryError:
                    continue
                with staged(self._store, source._store.read(source._blobs.key(sha256))) as blob:
                    self._put([self._blobs.item(blob)])

    def _restore_log(self) -> None:
        """Entries that are lost or damaged, from the index, which holds all they said; the digest proves it."""
        with self._reading() as db:
            heads = index.heads(db)
        for name, known in heads.items():
            head = Head()
            for _ in range(known.entries):
                try:
                    entry = self._log.next(name, head)
                except RegistryError:
                    with self._reading() as db:
                        found = index.entry(db, name, head.entries + 1, head.last)
                    if found is None:
                        break
                    entry = found
                    with staged(self._store, [entry.to_bytes()]) as ready:
                        self._put([(ready, self._log.key(entry))])
                head = entry.head(head)

    def _put(self, items: Sequence[Item]) -> None:
        self._store.prepare(items)()
        with self._database.writing():
            self._store.place(items)

    def reindex(self) -> Sequence[Finding]:
        """Make the index anew from log and manifests; returns what could not be read and is therefore not in it."""
        self._require()
        findings: builtins.list[Finding] = []

        def refill(db: Connection) -> None:
            findings[:] = self._fold(db)

        self._database.renew(refill)
        return findings

    def gc(self, *, dry_run: bool = False, grace: float = DAY) -> Swept:
        """Remove what publishers that died left over, and nothing else: versions, manifests and reports stay for ever.

        A blob gets its key while the write lock is held, together with the log entry that names it; so one that no log
        names, seen while holding that lock, belongs to nobody. Unfinished uploads of living publishers are left alone:
        on a local disk they are locked, on a server they are younger than `grace` seconds. A registry that is damaged
        is not touched, for a lost manifest cannot say what belongs to it.
        """
        self._require()
        with self._reading() as db:
            if rebuild.compare(db, self._log, self._blobs):
                raise RegistryError(
                    f"{self.address}: damaged, so nothing is removed; `modelhub registry fsck` says where"
                )
        with self._database.writing() as db:
            for name in self._log.names():
                self._follow(db, name)
            kept = index.every_blob(db)
            orphans = [self._blobs.key(sha256) for sha256 in self._blobs.list() if sha256 not in kept]
            unfinished = list(self._store.leftovers(grace))
            for key in () if dry_run else (*orphans, *unfinished):
                self._store.delete(key)
        return Swept(tuple(unfinished), tuple(orphans))
