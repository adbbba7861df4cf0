"""SQLite made dependable: WAL, writers one at a time from the start, created in one step.

A commit waits for the disk (`synchronous=FULL`), but for one that only follows the log: that one is `NORMAL`, which a
kill cannot undo, but a power cut may; the file stays whole all the same. So the file remembers in which boot of the
machine it was last brought up to the logs, and the first to open it in another boot does so before anything else. (All
users of a WAL are on one machine.) Where the system tells no boot, every commit waits.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from modelhub.errors import RegistryError, safe_text
from modelhub_registry import migrations
from modelhub_registry.tables import boot

__all__ = ["DamagedIndexError", "Fill", "SQLite", "memory"]

Fill = Callable[[Connection], None]

PATIENCE = 60.0
"""Seconds to wait for another process's transaction."""


class DamagedIndexError(RegistryError):
    """The file of the index is no index any more."""


class SQLite:
    """The file of the index. It need not exist until `create`, and is opened when first used."""

    def __init__(self, path: Path, fill: Fill, follow: Fill) -> None:
        """`fill` puts into empty tables what the logs say, `follow` brings filled ones up to the logs."""
        self.path = path
        self.where = str(path)
        self._fill = fill
        self._follow = follow
        self._engine: Engine | None = None
        self._process = 0

    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def create(self) -> None:
        """Make the file, with its tables and what `fill` puts into them; nothing when it is there already.

        It is made under another name and renamed under a lock, so the very first users of a registry, however many
        at once, all find a whole index.
        """
        self._create(self._fill)

    def _create(self, fill: Fill) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path.with_suffix(".lock")):
                if self.path.exists():
                    return
                self._drop("-wal", "-shm")
                fresh = SQLite(self.path.with_suffix(".new"), fill, self._follow)
                fresh._drop("", "-wal", "-shm")  # left by a crash
                engine = fresh._open("rwc")
                with _told(self.path), _transaction(engine, True) as db:
                    migrations.migrate(db)
                    fill(db)
                    _remember(db)
                engine.dispose()
                fresh.path.replace(self.path)
        except OSError as error:
            raise RegistryError(f"{self.path}: cannot make the index: {error.strerror or error}") from error

    def renew(self, fill: Fill) -> None:
        """Empty the tables and fill them again; a file that is no database any more is set aside first."""
        try:
            if self.path.exists():
                with self.writing() as db:
                    migrations.clear(db)
                    fill(db)
                return
        except DamagedIndexError:
            self._set_aside()
        self._create(fill)

    def _set_aside(self) -> None:
        self.close()
        with _locked(self.path.with_suffix(".lock")), suppress(FileNotFoundError):
            self.path.replace(self.path.with_suffix(".damaged"))

    def _drop(self, *endings: str) -> None:
        for ending in endings:
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + ending).unlink()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the index. Raises `RegistryError`."""
        with _told(self.path), _transaction(self._ready(), False) as db:
            yield db

    @contextmanager
    def writing(self, *, logged: bool = False) -> Iterator[Connection]:
        """A transaction that holds the one write lock from its start. Raises `RegistryError`.

        Durable when it ends; where it is `logged`, all it writes can be had again from the logs.
        """
        with _told(self.path), _transaction(self._ready(), True, logged) as db:
            yield db

    def close(self) -> None:
        """Close all connections; they come back when needed."""
        if self._engine is not None:
            self._engine.dispose(close=self._process == os.getpid())
            self._engine = None

    def _ready(self) -> Engine:
        """The engine of this process (SQLite's connections do not survive a fork), its tables up to date."""
        if self._engine is None or self._process != os.getpid():
            self.close()
            engine = self._open("rw")
            with _transaction(engine, False) as db:
                done = migrations.done(db)
            if done == 0:
                raise DamagedIndexError(f"{self.path}: empty, so damaged; `modelhub registry reindex` makes it anew")
            if done < migrations.LATEST:
                with _transaction(engine, True) as db:
                    migrations.migrate(db)
                    migrations.clear(db)
                    self._fill(db)  # new tables want what only the log knows
                    _remember(db)
            elif self._writable() and _BOOT is not None:
                with _transaction(engine, False) as db:
                    known = db.execute(select(boot.c.id)).scalar_one_or_none()
                if known != _BOOT:
                    with _transaction(engine, True) as db:
                        self._follow(db)
                        _remember(db)
            self._engine, self._process = engine, os.getpid()
        return self._engine

    def _open(self, mode: str) -> Engine:
        """An engine; `mode` is "rwc" where SQLite may make the file, and "rw" where it must be there."""
        writable = self._writable() or mode == "rwc"

        def connect() -> sqlite3.Connection:
            uri = f"file:{quote(str(self.path))}?mode={mode if writable else self._readonly()}"
            connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            if mode == "rwc":
                connection.execute("PRAGMA journal_mode = WAL")  # the file remembers
            return connection

        # A reader that may not write keeps no connection: an immutable one would never see what others write.
        engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool if writable else NullPool)
        event.listen(engine, "begin", _begin)
        return engine

    def _writable(self) -> bool:
        return os.access(self.path.parent, os.W_OK) and os.access(self.path, os.W_OK)

    def _readonly(self) -> str:
        """Without the right to write, WAL needs the writer's files beside the index, or the word that nobody writes."""
        wal = self.path.with_name(self.path.name + "-wal")
        return "ro" if wal.exists() and wal.stat().st_size else "ro&immutable=1"


def memory() -> Engine:
    """An index in memory, with its tables, to hold against the one on disk."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"isolation_level": None})
    event.listen(engine, "begin", _begin)
    with _transaction(engine, True) as db:
        migrations.migrate(db)
    return engine


@contextmanager
def _transaction(engine: Engine, writes: bool, logged: bool = False) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.execution_options(writes=writes, logged=logged)
        with connection.begin():
            yield connection


def _begin(connection: Connection) -> None:
    """Writers lock at once: one that reads first and locks later can fail half-way for no fault of its own."""
    options = connection.get_execution_options()
    raw = connection.connection.driver_connection  # SQLAlchemy's own way costs a third of a look-up
    assert isinstance(raw, sqlite3.Connection)
    if not options.get("writes"):
        raw.execute("BEGIN")
        return
    wanted = "NORMAL" if options.get("logged") and _BOOT is not None else "FULL"
    if connection.info.get("synchronous") != wanted:
        raw.execute(f"PRAGMA synchronous = {wanted}")
        connection.info["synchronous"] = wanted
    raw.execute("BEGIN IMMEDIATE")


def _boot_id() -> str | None:
    """What names this run of the machine's kernel; None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


_BOOT = _boot_id()


def _remember(db: Connection) -> None:
    """Note that the index has been brought up to the logs in this boot."""
    db.execute(delete(boot))
    if _BOOT is not None:
        db.execute(insert(boot).values(id=_BOOT))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever SQLite has to say, as one `RegistryError`."""
    try:
        yield
    except (DatabaseError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        reason = str(cause)
        if isinstance(cause, sqlite3.OperationalError) and "locked" in reason:
            advice = f"another process has kept it busy for over {PATIENCE:.0f} s; try again"
        elif "readonly" in reason or "unable to open" in reason:
            advice = "it is missing, or may not be written here"
        elif "malformed" in reason or "not a database" in reason or "no such" in reason:
            advice = "it is damaged; `modelhub registry reindex` makes it anew from the log, which is the truth"
            raise DamagedIndexError(f"{path}: {safe_text(reason)}: {advice}") from error
        else:
            advice = "look at the disk, then try again"
        raise RegistryError(f"{path}: {safe_text(reason)}: {advice}") from error
    except SQLAlchemyError as error:
        raise RegistryError(f"{path}: {safe_text(error)}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on `path` that ends with the process, however it ends."""
    import fcntl

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
