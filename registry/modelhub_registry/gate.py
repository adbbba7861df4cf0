"""Aliases and the evidence that opens the gate to the protected ones; reports that come after a version."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from modelhub.errors import RegistryError
from modelhub.files import read_bytes
from modelhub_registry import evidence, index, names, rebuild
from modelhub_registry.errors import GateError
from modelhub_registry.log import Attach, Move
from modelhub_registry.lookup import Lookup
from modelhub_registry.records import Manifest, Version, text
from modelhub_registry.stores import staged

__all__ = ["Gate"]


class Gate(Lookup):
    """The verbs that move aliases and add evidence. Each is an entry of the log, for ever."""

    def alias(self, ref: str, alias: str, *, force: bool = False, reason: str | None = None) -> Version:
        """Let `alias` point to the version `ref`, and return it.

        A protected alias (`prod`, see registry.json) moves only to a sound version that passes the gate (see `gaps`);
        `force` with a `reason` moves it all the same, and both are in the log for ever.
        """
        names.alias(alias)
        _reasoned(reason, force)
        version = self.version(ref)
        protected = alias.lower() in self._settings.protected
        gaps = self.gaps(version) if protected else []
        if gaps and not force:
            raise GateError(
                "\n".join([f"{version.ref} may not become {alias!r}:", *(f"  - {gap}" for gap in gaps)])
                + "\nAttach passing reports of `modelhub check`, or force it with a reason, kept for ever."
            )
        with self._database.writing(logged=True) as db:
            head = self._follow(db, version.name)
            previous = index.alias_of(db, version.name, alias)
            if previous == version.number:
                return version
            if protected and not gaps:
                later = index.find(db, names.Reference(version.name, number=version.number))[2]
                if index.attached(later) != version.attached:
                    raise RegistryError(f"{version.ref} got another report meanwhile; look at it, then try again")
            move = Move(alias, version.number, previous, bool(gaps), reason)
            self._record(db, head, version.name, self._provenance(), move)
        return version

    def unalias(self, name: str, alias: str, *, reason: str | None = None) -> int:
        """Remove an alias; the log keeps that it was there. Returns the number it pointed to.

        A protected alias needs a reason: whoever reads it gets an error from now on.
        """
        names.name(name)
        names.alias(alias)
        _reasoned(reason, False)
        if reason is None and alias.lower() in self._require().protected:
            raise RegistryError(f"{alias!r} is protected: to remove it, give a reason; it is kept for ever")
        self._make_index()
        with self._database.writing(logged=True) as db:
            head = self._follow(db, name)
            previous = index.alias_of(db, name, alias)
            if previous is None:
                index.find(db, names.Reference(name, alias=alias))  # says why not
                raise RegistryError(f"there is no {name}@{alias}")
            self._record(db, head, name, self._provenance(), Move(alias, None, previous, False, reason))
        return previous

    def attach(self, ref: str, reports: Iterable[str | os.PathLike[str]]) -> Version:
        """Add reports of `modelhub check` to a published version; of several on one pair of files the last counts.

        They must speak of exactly this version's files. A report it has already changes nothing.
        """
        version = self.version(ref)
        for path in map(names.path, reports):
            data = read_bytes(path, evidence.LIMIT)
            told = evidence.evidence(data, str(path))
            judged = version.manifest.judged_by([*version.attached, told])
            Manifest.from_bytes(judged.to_bytes(), f"{path} cannot be attached to {version.ref}")
            if told in version.judged.reports:
                continue
            with ExitStack() as stack:
                item = self._blobs.item(stack.enter_context(staged(self._store, [data])))
                self._store.prepare([item])()
                with self._database.writing(logged=True) as db:
                    head = self._follow(db, version.name)
                    event = Attach(version.number, told.sha256)
                    self._record(db, head, version.name, self._provenance(), event, found=told, first=[item])
            version = self.version(f"{version.name}@{version.number}")
        return version

    def gaps(self, version: Version) -> Sequence[str]:
        """Why a version does not pass the gate, one line each; [] if it does.

        It passes when every file of it is sound, every export has a report that counts, covers exactly the version's
        source and this export, and passes, and none of these is older than `report_days` in registry.json.
        """
        judged = version.judged
        wrong = [finding.what for finding in rebuild.examine(self._blobs, version.ref, judged, {})]
        return [*judged.gaps(), *wrong, *(self._expired(judged) if not wrong else ())]

    def _expired(self, judged: Manifest) -> Iterable[str]:
        days, now = self._settings.report_days, datetime.now(UTC)
        for report in judged.reports:
            name = judged.report_name(report)
            created = evidence.created(self._blobs.get(report.sha256, evidence.LIMIT), name)
            if created is None:
                yield f"{name} does not say when it was made"
            elif created > now + timedelta(days=1):
                yield f"{name} was made in the future ({created:%Y-%m-%d}): a clock is wrong"
            elif days is not None and now - created > timedelta(days=days):
                yield f"{name} of {created:%Y-%m-%d} has expired after {days} days; `reverify` renews it"


def _reasoned(reason: str | None, force: bool) -> None:
    if reason is not None:
        text(reason, "a reason")
    if force and reason is None:
        raise RegistryError("to force an alias, give a reason; it is kept for ever")
