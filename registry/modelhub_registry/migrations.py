"""The index's tables, step by step: each migration is run once, in order, in one transaction.

A step is never changed once released; the next one is added below. `tables.py` describes where all steps lead
(a test holds the two together).
"""

from __future__ import annotations

from modelhub.errors import RegistryError
from modelhub_registry.tables import TABLES, Connection

__all__ = ["LATEST", "clear", "done", "migrate"]

_STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE models (
            name TEXT NOT NULL PRIMARY KEY,
            folded TEXT NOT NULL UNIQUE,
            entries INTEGER NOT NULL,
            last TEXT,
            versions INTEGER NOT NULL)""",
        """CREATE TABLE log (
            name TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            digest TEXT NOT NULL,
            type TEXT NOT NULL,
            number INTEGER NOT NULL,
            alias TEXT,
            previous INTEGER,
            forced BOOLEAN,
            reason TEXT,
            created TEXT NOT NULL,
            author TEXT NOT NULL,
            PRIMARY KEY (name, sequence))""",
        """CREATE TABLE versions (
            name TEXT NOT NULL,
            number INTEGER NOT NULL,
            digest TEXT NOT NULL,
            content TEXT NOT NULL,
            verdict TEXT NOT NULL,
            source TEXT NOT NULL,
            exports TEXT NOT NULL,
            created TEXT NOT NULL,
            author TEXT NOT NULL,
            PRIMARY KEY (name, number),
            UNIQUE (name, digest))""",
        "CREATE INDEX versions_content ON versions (name, content)",
        """CREATE TABLE files (
            name TEXT NOT NULL,
            number INTEGER NOT NULL,
            role TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            PRIMARY KEY (name, number, role, sha256))""",
        "CREATE INDEX files_sha256 ON files (sha256)",
        """CREATE TABLE aliases (
            name TEXT NOT NULL,
            alias TEXT NOT NULL,
            number INTEGER NOT NULL,
            PRIMARY KEY (name, alias))""",
    ),
    (
        "CREATE TABLE writer (turn INTEGER NOT NULL)",
        "INSERT INTO writer VALUES (0)",
        "CREATE TABLE boot (id TEXT NOT NULL)",
        "DROP INDEX versions_content",
        "CREATE INDEX versions_content ON versions (name, content, number)",
    ),
    (
        "ALTER TABLE log ADD COLUMN blob TEXT",
        "ALTER TABLE versions ADD COLUMN attached TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE facts (
            name TEXT NOT NULL,
            number INTEGER NOT NULL,
            key TEXT NOT NULL,
            place INTEGER NOT NULL,
            kind TEXT NOT NULL,
            text TEXT,
            real DOUBLE PRECISION,
            PRIMARY KEY (name, number, key, place))""",
        "CREATE INDEX facts_text ON facts (key, text)",
        "CREATE INDEX facts_real ON facts (key, real)",
        "CREATE INDEX versions_digest ON versions (digest)",
    ),
)

LATEST = len(_STEPS)


def done(db: Connection) -> int:
    """How many steps were taken; 0 for an empty database. Raises `RegistryError` when it is more than we know."""
    if not db.has_table("migrations"):
        return 0
    number = int(db.rows("SELECT max(number) FROM migrations")[0][0])
    if number > LATEST:
        raise RegistryError(
            f"the index is of version {number}, made by a newer modelhub; this one knows {LATEST}: upgrade it"
        )
    return number


def migrate(db: Connection) -> None:
    """Take the missing steps, in the transaction of `db`, which must hold the write lock."""
    taken = done(db)
    if taken == 0:
        db.run("CREATE TABLE migrations (number INTEGER NOT NULL PRIMARY KEY)")
    for number, statements in enumerate(_STEPS[taken:], start=taken + 1):
        for statement in statements:
            db.run(statement)
        db.run("INSERT INTO migrations VALUES (:number)", {"number": number})


def clear(db: Connection) -> None:
    """Forget all that the log and the manifests can tell again."""
    for table in TABLES:
        db.run(f"DELETE FROM {table}")
