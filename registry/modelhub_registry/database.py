"""The index's database: SQLite in a file (`sqlite.py`), or a server by its URL (`database_server.py`).

Who publishes holds a *writing* transaction, of which there is one at a time in a registry, whatever the database:
SQLite locks its file, on a server every writing transaction begins with an update of the one row of the table `writer`.
So the database decides the order: within such a transaction a publisher reads the head of the log, places its blobs,
writes the next entry of the log and takes it into the index, in this order. The log may be an entry ahead of the index,
where a publisher died in between, and the next writer adopts it. All writers of a registry must share one database.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from modelhub.errors import RegistryError
from modelhub_registry.sqlite import Fill, SQLite
from modelhub_registry.tables import Connection

__all__ = ["Database", "Fill", "open_database"]


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
    if url.startswith("sqlite:"):
        kind, _, path = url.partition(":///")
        if kind != "sqlite" or path in ("", ":memory:"):
            raise RegistryError(
                "an index in SQLite is a file: the URL names a file, as in sqlite:////folder/index.sqlite"
            )
        return SQLite(Path(path), fill, follow)
    try:
        from modelhub_registry.database_server import Server
    except ImportError as error:
        raise RegistryError(f'an index on a server needs {error.name}: pip install "modelhub-hep[servers]"') from error
    return Server(url, fill)
