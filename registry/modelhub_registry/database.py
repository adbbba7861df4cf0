"""The index's database: SQLite in a file (`sqlite.py`), or any server that SQLAlchemy knows, by URL.

Who publishes holds a *writing* transaction, of which there is one at a time in a registry, whatever the database:
SQLite locks its file, on a server every writing transaction begins with an update of the one row of the table `writer`.
So the database decides the order: within such a transaction a publisher reads the head of the log, places its blobs,
writes the next entry of the log and takes it into the index, in this order. The log may be an entry ahead of the index,
where a publisher died in between, and the next writer adopts it. All writers of a registry must share one database.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, create_engine, make_url, update
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from modelhub.errors import RegistryError, safe_text
from modelhub_registry import migrations
from modelhub_registry.sqlite import Fill, SQLite
from modelhub_registry.tables import writer

__all__ = ["Database", "Fill", "Server", "open_database"]


class Database(Protocol):
    """A database for the index, opened when first used. Every method raises `RegistryError`."""

    where: str
    """For messages: the file or the URL, without the password."""

    def exists(self) -> bool:
        """Whether there is an index."""

    def create(self) -> None:
        """Make the index, filled; nothing when it is there already. Any number of processes may do so at once."""

    def renew(self, fill: Fill) -> None:
        """Empty the index and fill it again, also when it is damaged."""

    def reading(self) -> AbstractContextManager[Connection]:
        """A transaction that sees one state of the index."""

    def writing(self, *, logged: bool = False) -> AbstractContextManager[Connection]:
        """A transaction that holds the one write lock from its start, durable when it ends.

        `logged` promises that all it writes can be had again from the logs, so the commit need not wait for the disk.
        """

    def close(self) -> None:
        """Close all connections; they come back when needed."""


def open_database(url: str, fill: Fill, follow: Fill) -> Database:
    """The database with that URL, ``sqlite:////folder/index.sqlite`` or ``postgresql://host/name`` for example."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise RegistryError("the database must be given as a URL, as in postgresql://user@host/name") from None
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise RegistryError("an index in memory is lost at once: name a file, as in sqlite:////folder/index.sqlite")
        return SQLite(Path(parsed.database), fill, follow)
    return Server(url, fill)


class Server:
    """A database server, by SQLAlchemy URL. Tested on PostgreSQL; a driver that is missing is told."""

    def __init__(self, url: str, fill: Fill) -> None:
        self._url = make_url(url)
        if self._url.drivername == "postgresql":  # SQLAlchemy would look for the older psycopg2
            self._url = self._url.set(drivername="postgresql+psycopg")
        self.where = safe_text(self._url.render_as_string(hide_password=True), 300)
        self._fill = fill
        self._engine: Engine | None = None
        self._process = 0
        self._ready = False

    def _open(self) -> Engine:
        """The engine of this process: connections do not survive a fork."""
        if self._engine is None or self._process != os.getpid():
            self.close()
            try:
                self._engine = create_engine(self._url, pool_pre_ping=True, isolation_level="READ COMMITTED")
            except ImportError as error:
                raise RegistryError(
                    f"{self.where}: this database needs the Python package {safe_text(error.name)}; install it"
                ) from error
            except SQLAlchemyError as error:
                raise RegistryError(f"{self.where}: {safe_text(error, 200)}") from error
            self._process = os.getpid()
        return self._engine

    def exists(self) -> bool:
        """Whether the tables are there."""
        if not self._ready:
            with self._told(), self._open().connect() as db:
                self._ready = migrations.done(db) == migrations.LATEST
        return self._ready

    def create(self) -> None:
        """Make the tables or bring them up to date. Where two do so at once, one fails and finds them made."""
        for attempt in range(10):
            try:
                with self._told(), self._open().begin() as db:
                    if migrations.done(db) < migrations.LATEST:
                        migrations.migrate(db)
                        migrations.clear(db)
                        self._fill(db)
                self._ready = True
            except RegistryError as error:
                if not isinstance(error.__cause__, DBAPIError) or attempt == 9:
                    raise
                time.sleep(0.1 * (attempt + 1))
            else:
                return

    def renew(self, fill: Fill) -> None:
        """Empty and fill again, in one transaction."""
        self.create()
        with self.writing() as db:
            migrations.clear(db)
            fill(db)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction."""
        with self._told(), self._open().begin() as db:
            yield db

    @contextmanager
    def writing(self, *, logged: bool = False) -> Iterator[Connection]:  # noqa: ARG002 (a server syncs as it is told)
        """A transaction that begins with the one row that all writers want."""
        with self._told(), self._open().begin() as db:
            db.execute(update(writer).values(turn=writer.c.turn + 1))
            yield db

    def close(self) -> None:
        """Close all connections."""
        if self._engine is not None:
            self._engine.dispose(close=self._process == os.getpid())
            self._engine = None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever the server has to say, as one `RegistryError`."""
        try:
            yield
        except DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            raise RegistryError(f"{self.where}: {safe_text(reason, 300)}") from error
        except SQLAlchemyError as error:
            raise RegistryError(f"{self.where}: {safe_text(error, 200)}") from error
