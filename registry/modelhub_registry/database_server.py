"""The index in a database server, reached through SQLAlchemy by its URL. Tested on PostgreSQL."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import sqlalchemy
from sqlalchemy import Engine, create_engine, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from modelhub.errors import RegistryError, safe_text
from modelhub_registry import migrations
from modelhub_registry.sqlite import Fill
from modelhub_registry.tables import Connection, Values

__all__ = ["Server"]

_text = lru_cache(256)(sqlalchemy.text)


class _Connection:
    """A transaction of SQLAlchemy's. See `tables.Connection`."""

    def __init__(self, db: sqlalchemy.Connection) -> None:
        self._db = db

    def rows(self, sql: str, values: Values = {}) -> list[tuple[Any, ...]]:  # noqa: B006 (nobody changes it)
        """What a SELECT finds."""
        return [tuple(row) for row in self._db.execute(_text(sql), values)]

    def run(self, sql: str, values: Values = {}) -> int:  # noqa: B006
        """Change something."""
        return self._db.execute(_text(sql), values).rowcount

    def run_many(self, sql: str, values: Sequence[Values]) -> None:
        """The same change several times."""
        self._db.execute(_text(sql), values)

    def has_table(self, name: str) -> bool:
        """Whether there is such a table."""
        return inspect(self._db).has_table(name)


class Server:
    """A database server. A driver that is missing is told."""

    def __init__(self, url: str, fill: Fill) -> None:
        try:
            self._url = make_url(url)
        except (ArgumentError, ValueError):
            raise RegistryError("the database must be given as a URL, as in postgresql://user@host/name") from None
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
                self._ready = migrations.done(_Connection(db)) == migrations.LATEST
        return self._ready

    def create(self) -> None:
        """Make the tables or bring them up to date. Where two do so at once, one fails and finds them made."""
        for attempt in range(10):
            try:
                with self._transaction() as db:
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
        with self._transaction() as db:
            yield db

    @contextmanager
    def writing(self, *, logged: bool = False) -> Iterator[Connection]:  # noqa: ARG002 (a server syncs as it is told)
        """A transaction that begins with the one row that all writers want."""
        with self._transaction() as db:
            db.run("UPDATE writer SET turn = turn + 1")
            yield db

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._told(), self._open().begin() as db:
            yield _Connection(db)

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
