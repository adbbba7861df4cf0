"""The index's tables as `migrations.py` leaves them, and how all SQL of the index is spoken.

The SQL is written as text that SQLite and PostgreSQL read alike, with values by name (``:name``), never put in
themselves. SQLite gets it as it stands (`sqlite.py`), which costs least; a database server through SQLAlchemy
(`database_server.py`).

All in the tables of `TABLES` can be had again from the log and the manifests, and `reindex` empties them first. What
only the database knows stands in `KEPT`, which a reindex leaves alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["KEPT", "TABLES", "Connection", "inserting", "listed"]

Values = Mapping[str, Any]


class Connection(Protocol):
    """A transaction on the index."""

    def rows(self, sql: str, values: Values = ..., /) -> list[tuple[Any, ...]]:
        """What a SELECT finds."""

    def run(self, sql: str, values: Values = ..., /) -> int:
        """Change something; the number of rows that were changed."""

    def run_many(self, sql: str, values: Sequence[Values], /) -> None:
        """The same change with one set of values after the other."""

    def has_table(self, name: str, /) -> bool:
        """Whether there is such a table."""


TABLES: dict[str, tuple[str, ...]] = {
    # One row per model. `folded` is the name in lower case: no two models may differ in case only, for the sake of
    # file systems that do not either. `entries`, `last` and `versions` are the head of its log.
    "models": ("name", "folded", "entries", "last", "versions"),
    # One row per entry of a log, all that is needed to write the entry again. `type` is publish, report or alias;
    # `blob` is the manifest or the report. Only an alias move fills alias to reason; its number is 0 where the alias is
    # removed.
    "log": (
        "name",
        "sequence",
        "digest",
        "type",
        "number",
        "alias",
        "previous",
        "forced",
        "reason",
        "created",
        "author",
        "blob",
    ),
    # One row per version: what a list shows, the digest a version is found by, and its `content`, which repeats tell.
    # `attached` are the reports that came later, as JSON; the verdict counts them.
    "versions": (
        "name",
        "number",
        "digest",
        "content",
        "verdict",
        "source",
        "exports",
        "created",
        "author",
        "attached",
    ),
    # One row per file of a version; its reports have the role `report`, its manifest the role `manifest`.
    "files": ("name", "number", "role", "sha256"),
    # Where each alias points now.
    "aliases": ("name", "alias", "number"),
    # What can be asked of the metadata: one row per value, and one per item of a list (`place` counts from 1). A key
    # within an object is told with dots. Numbers and truth values are in `real`, the beginning of a text is in `text`.
    "facts": ("name", "number", "key", "place", "kind", "text", "real"),
}

KEPT: dict[str, tuple[str, ...]] = {
    # One row, which every writing transaction on a server updates first: so there is one at a time (`database.py`).
    "writer": ("turn",),
    # At most one row: the boot of the machine in which SQLite's file was last brought up to the logs (`sqlite.py`).
    "boot": ("id",),
}


def inserting(table: str) -> str:
    """The statement that adds a row to one of `TABLES`, every column a value of its name."""
    columns = TABLES[table]
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f':{column}' for column in columns)})"


def listed(key: str, items: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """What stands after IN for some items, at least one, and their values, whose names begin with `key`."""
    values = {f"{key}{k}": item for k, item in enumerate(items)}
    return f"({', '.join(f':{name}' for name in values)})", values
