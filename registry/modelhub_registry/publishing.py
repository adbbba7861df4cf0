"""Publishing versions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from modelhub.errors import RegistryError
from modelhub_registry import index, intake, names
from modelhub_registry.log import Publish
from modelhub_registry.lookup import Lookup
from modelhub_registry.records import Manifest, Version
from modelhub_registry.settings import Settings
from modelhub_registry.stores import Item, Wait, staged

__all__ = ["Publishing"]


class Publishing(Lookup):
    """The verb that makes versions. A version is never changed and never deleted."""

    def init(self, settings: Settings) -> None:
        """Make a registry that is set up otherwise than `push` would; nothing may be there yet."""
        if self._place.settings() is not None:
            raise RegistryError(f"{self.address}: there is a registry already; its registry.json may be edited")
        self._make(settings)

    def push(
        self,
        name: str,
        artifacts: Iterable[intake.Given],
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
            content = intake.collect(stack, self._blobs, artifacts, reports)
            draft = Manifest(
                name,
                content.artifacts,
                self._provenance(),
                content.reports,
                content.interface() if interface is None else intake.interface(interface),
                dict(metadata or {}),
            )
            manifest = Manifest.from_bytes(draft.ordered().to_bytes(), f"{name} cannot be published")
            return self._publish(manifest, content.items, content.waits, again)

    def _publish(self, manifest: Manifest, items: Sequence[Item], waits: Sequence[Wait], again: bool) -> Version:
        """Under the write lock: blobs and manifest, then the log, then the index; nothing of it for known content."""
        name = manifest.name
        with staged(self._store, [manifest.to_bytes()]) as blob:
            last = self._blobs.item(blob)
            for wait in (self._store.prepare([last]), *waits):
                wait()
            with self._database.writing(logged=True) as db:
                head = self._follow(db, name)
                newest, exact = index.same(db, name, manifest.content, blob.sha256)
                number = None if again else newest
                if number is not None:
                    self._store.place(items)  # mends what was damaged
                elif exact is None:
                    event = Publish(head.versions + 1, blob.sha256)
                    self._record(db, head, name, manifest.provenance, event, found=manifest, first=[*items, last])
                    return Version(event.number, blob.sha256, manifest, new=True)
        if number is None:  # the same again, in the same microsecond
            return self._publish(replace(manifest, provenance=self._provenance()), items, waits, again)
        return self.version(f"{name}@{number}")
