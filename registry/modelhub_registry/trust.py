"""Trust, but verify: everything read and held against everything else, and the index made anew."""

from __future__ import annotations

import builtins
from collections.abc import Sequence

from sqlalchemy import Connection

from modelhub.errors import RegistryError
from modelhub_registry import index, rebuild
from modelhub_registry.lookup import Lookup
from modelhub_registry.rebuild import Finding

__all__ = ["Trust"]


class Trust(Lookup):
    """The verbs that doubt."""

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
            findings[:] = self._fold(db)

        self._database.renew(refill)
        return findings
