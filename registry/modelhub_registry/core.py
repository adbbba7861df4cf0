"""What all verbs stand on: place, settings, store, log and index, and how the index follows the log."""

from __future__ import annotations

import builtins
import getpass
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, cached_property

import modelhub
from modelhub.errors import RegistryError, notice
from modelhub_registry import index, rebuild
from modelhub_registry.blobs import Blobs
from modelhub_registry.database import Database
from modelhub_registry.log import Entry, Event, Head, Log
from modelhub_registry.place import Place, default_place
from modelhub_registry.rebuild import Finding
from modelhub_registry.records import Evidence, Manifest, Provenance
from modelhub_registry.settings import Settings
from modelhub_registry.stores import Item, Store
from modelhub_registry.tables import Connection

__all__ = ["Core"]


class Core:
    """An opened registry, without verbs."""

    def __init__(self, place: str | os.PathLike[str] | None = None, database: str | None = None) -> None:
        self._place = Place.of(default_place() if place is None else place, database)
        self.root = self._place.folder
        """The folder of the registry, None where it is at a URL."""
        self.address = self._place.home.where
        """The folder or the URL, for messages."""

    def close(self) -> None:
        """Close the index; it is opened again when needed."""
        if "_database" in self.__dict__:
            self._database.close()

    # Its parts

    @cached_property
    def _settings(self) -> Settings:
        return self._require()

    @cached_property
    def _store(self) -> Store:
        return self._place.store(self._settings)

    @cached_property
    def _blobs(self) -> Blobs:
        return Blobs(self._store)

    @cached_property
    def _log(self) -> Log:
        return Log(self._store)

    @cached_property
    def _database(self) -> Database:
        return self._place.index(self._place.settings(), self._fill, self._catch_up)

    def _require(self) -> Settings:
        settings = self._place.settings()
        if settings is None:
            raise RegistryError(
                f"there is no registry in {self.address}; `modelhub registry push` makes one, "
                "MODELHUB_REGISTRY or --registry names another place"
            )
        return settings

    def _make(self, settings: Settings | None = None) -> None:
        """Make what is not there yet: settings, and the index."""
        if "_settings" not in self.__dict__ and self._place.settings() is None:
            wanted = settings or Settings()
            self._place.store(wanted)  # says at once what cannot be
            self._place.index(wanted, self._fill, self._catch_up)
            wanted.save(self._place.home)
        self._make_index()

    def _make_index(self) -> None:
        """An index that is missing is made from the log."""
        if not self._database.exists():
            self._require()
            self._database.create()

    def _fill(self, db: Connection) -> None:
        for finding in self._fold(db):
            notice(f"the index was made anew without what is damaged: {finding.where}: {finding.what}")

    def _catch_up(self, db: Connection) -> None:
        for name in self._log.names():
            try:
                self._follow(db, name)
            except RegistryError as error:
                notice(f"the index could not follow a log: {error}")

    def _fold(self, db: Connection) -> builtins.list[Finding]:
        log = self._log
        return [f for name in log.names() for f in rebuild.fold(db, log, self._blobs, name, log.length(name))]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        self._make_index()
        with self._database.reading() as db:
            yield db

    @staticmethod
    def _provenance() -> Provenance:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return Provenance(now, _user(os.getuid()), modelhub.__version__)

    # The log and the index, within a writing transaction

    def _follow(self, db: Connection, name: str) -> Head:
        """Bring the index up to the log, which a crash may have left one entry ahead."""
        head = index.head(db, name)
        if head == Head():
            index.admit(db, name)
        for entry in self._log.after(name, head):
            head = rebuild.follow(db, self._blobs, head, entry, rebuild.told_by(self._blobs, name, entry.event))
        if head.entries and head.last is None:
            raise RegistryError(
                f"the end of the log of {name} is damaged; put it back from a copy, then `modelhub registry reindex`"
            )
        return head

    def _record(
        self,
        db: Connection,
        head: Head,
        name: str,
        made: Provenance,
        event: Event,
        *,
        found: Manifest | Evidence | None = None,
        first: Sequence[Item] = (),
    ) -> None:
        """Place prepared blobs, then write an event to the log, then take it into the index, which stands at `head`."""
        entry = Entry(name, head.entries + 1, head.last, made.created, made.by, event)
        self._log.append(entry, first)
        rebuild.follow(db, self._blobs, head, entry, found)


@cache
def _user(uid: int) -> str:
    """The name of the user this process runs as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        return f"uid {uid}"
