"""SQLite made dependable: WAL, writers one at a time from the start, created in one step.

A commit waits for the disk (`synchronous=FULL`), but for one that only follows the log: that one is `NORMAL`, which a
kill cannot undo, but a power cut may; the file stays whole all the same. So the file remembers in which boot of the
machine it was last brought up to the logs, and the first to open it in another boot does so before anything else. (All
users of a WAL are on one machine.) Where the system tells no boot, every commit waits.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modelhub.errors import RegistryError, safe_text
from modelhub_registry import migrations
from modelhub_registry.tables import Connection, Values

__all__ = ["DamagedIndexError", "Fill", "SQLite", "memory"]

Fill = Callable[[Connection], None]

PATIENCE = 60.0
"""Seconds to wait for another process's transaction."""
IDLE = 5
"""Connections that are kept for the next transaction."""
_INHERITED: list[object] = []
"""Connections of a parent process, which its child must neither use nor close."""


class DamagedIndexError(RegistryError):
    """The file of the index is no index any more."""


class _Connection:
    """A connection to SQLite. See `tables.Connection`.

    One that may not write does not last: an immutable one would never see what others write.
    """

    def __init__(self, raw: sqlite3.Connection, *, lasting: bool) -> None:
        self.raw = raw
        self.lasting = lasting
        self._synchronous = ""

    def rows(self, sql: str, values: Values = {}) -> list[tuple[Any, ...]]:  # noqa: B006 (nobody changes it)
        """What a SELECT finds."""
        return self.raw.execute(sql, values).fetchall()

    def run(self, sql: str, values: Values = {}) -> int:  # noqa: B006
        """Change something."""
        return self.raw.execute(sql, values).rowcount

    def run_many(self, sql: str, values: Sequence[Values]) -> None:
        """The same change several times."""
        self.raw.executemany(sql, values)

    def has_table(self, name: str) -> bool:
        """Whether there is such a table."""
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :name", {"name": name}))

    @contextmanager
    def transaction(self, writes: bool, logged: bool = False) -> Iterator[Connection]:
        """Writers lock at once: one that reads first and locks later can fail half-way for no fault of its own."""
        wanted = "NORMAL" if logged and _BOOT is not None else "FULL"
        if writes and self._synchronous != wanted:
            self.raw.execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted
        self.raw.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            yield self
            self.raw.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self.raw.rollback()
            raise


class SQLite:
    """The file of the index. It need not exist until `create`, and is opened when first used."""

    def __init__(self, path: Path, fill: Fill, follow: Fill) -> None:
        """`fill` puts into empty tables what the logs say, `follow` brings filled ones up to the logs."""
        self.path = path
        self.where = str(path)
        self._fill = fill
        self._follow = follow
        self._idle: list[_Connection] = []
        self._process = 0
        """Which process has found the tables up to date; SQLite's connections do not survive a fork."""

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
                with _told(self.path), closing((db := fresh._connect("rwc")).raw):
                    with db.transaction(True):
                        migrations.migrate(db)
                        fill(db)
                        _remember(db)
                    db.rows(
                        "PRAGMA wal_checkpoint(TRUNCATE)"
                    )  # SQLite does so by itself, but says nothing if it cannot
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
        with _told(self.path), self._connected(False) as one, one.transaction(False) as db:
            yield db

    @contextmanager
    def writing(self, *, logged: bool = False) -> Iterator[Connection]:
        """A transaction that holds the one write lock from its start. Raises `RegistryError`.

        Durable when it ends; where it is `logged`, all it writes can be had again from the logs.
        """
        with _told(self.path), self._connected(True) as one, one.transaction(True, logged) as db:
            yield db

    def close(self) -> None:
        """Close all connections; they come back when needed."""
        idle, self._idle = self._idle, []
        if self._process != os.getpid():
            _INHERITED.extend(idle)
            return
        self._process = 0
        for one in idle:
            one.raw.close()

    @contextmanager
    def _connected(self, writes: bool) -> Iterator[_Connection]:
        """A connection nobody else has in the meantime, to tables that are up to date."""
        known = self._process == os.getpid()
        if not known:
            self.close()
        try:
            one = self._idle.pop()
        except IndexError:
            one = self._connect("rw") if writes else self._reader()
        try:
            if not known:
                self._bring_up(one)
                if one.lasting or not self._writable():
                    self._process = os.getpid()
            yield one
        finally:
            if one.lasting and not one.raw.in_transaction and self._process == os.getpid() and len(self._idle) < IDLE:
                self._idle.append(one)
            else:
                one.raw.close()

    def _bring_up(self, one: _Connection) -> None:
        """Tables of an older modelhub, and an index that a power cut may have set back, are brought up to the logs."""
        with one.transaction(False) as db:
            done = migrations.done(db)
        if done == 0:
            raise DamagedIndexError(f"{self.path}: empty, so damaged; `modelhub registry reindex` makes it anew")
        if done < migrations.LATEST:
            with one.transaction(True) as db:
                migrations.migrate(db)
                migrations.clear(db)
                self._fill(db)  # new tables want what only the log knows
                _remember(db)
        elif one.lasting and _BOOT is not None:
            with one.transaction(False) as db:
                known = db.rows("SELECT id FROM boot")
            if known != [(_BOOT,)]:
                with one.transaction(True) as db:
                    self._follow(db)
                    _remember(db)

    def _reader(self) -> _Connection:
        """A new connection to read by: where the disk has no room for what WAL lays beside the file, it needs none."""
        one = self._connect("rw")
        try:
            one.rows("PRAGMA schema_version")
        except sqlite3.OperationalError as error:
            one.raw.close()
            full = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
            if not full or self._readonly() == "ro":
                raise
            return self._connect("ro")
        return one

    def _connect(self, mode: str) -> _Connection:
        """A new connection; `mode`: "rwc" where SQLite may make the file, "rw" where it is there, "ro" to read only."""
        writable = mode == "rwc" or (mode == "rw" and self._writable())
        uri = f"file:{quote(str(self.path))}?mode={mode if writable else self._readonly()}"
        raw = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        if mode == "rwc":
            try:
                raw.execute("PRAGMA journal_mode = WAL")  # the file remembers
            except sqlite3.Error:
                raw.close()
                raise
        return _Connection(raw, lasting=writable)

    def _writable(self) -> bool:
        return os.access(self.path.parent, os.W_OK) and os.access(self.path, os.W_OK)

    def _readonly(self) -> str:
        """Without the right to write, WAL needs the writer's files beside the index, or the word that nobody writes."""
        wal = self.path.with_name(self.path.name + "-wal")
        return "ro" if wal.exists() and wal.stat().st_size else "ro&immutable=1"


@contextmanager
def memory() -> Iterator[Connection]:
    """An index in memory, with its tables, to hold against the one on disk."""
    one = _Connection(sqlite3.connect(":memory:", isolation_level=None), lasting=False)
    with closing(one.raw), one.transaction(True) as db:
        migrations.migrate(db)
        yield db


def _boot_id() -> str | None:
    """What names this run of the machine's kernel; None where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


_BOOT = _boot_id()


def _remember(db: Connection) -> None:
    """Note that the index has been brought up to the logs in this boot."""
    db.run("DELETE FROM boot")
    if _BOOT is not None:
        db.run("INSERT INTO boot VALUES (:id)", {"id": _BOOT})


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever SQLite has to say, as one `RegistryError`."""
    try:
        yield
    except sqlite3.Error as error:
        reason = str(error)
        if isinstance(error, sqlite3.OperationalError) and "locked" in reason:
            advice = f"another process has kept it busy for over {PATIENCE:.0f} s; try again"
        elif "readonly" in reason or "unable to open" in reason:
            advice = "it is missing, or may not be written here"
        elif "malformed" in reason or "not a database" in reason or "no such" in reason:
            advice = "it is damaged; `modelhub registry reindex` makes it anew from the log, which is the truth"
            raise DamagedIndexError(f"{path}: {safe_text(reason)}: {advice}") from error
        else:
            advice = "look at the disk, then try again"
        raise RegistryError(f"{path}: {safe_text(reason)}: {advice}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on `path` that ends with the process, however it ends."""
    import fcntl

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
