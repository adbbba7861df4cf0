"""The index's tables as `migrations.py` leaves them.

All in the tables of `METADATA` can be had again from the log and the manifests, and `reindex` empties them first. What
only the database knows stands in `KEPT`, which a reindex leaves alone.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, Integer, MetaData, Table, Text

__all__ = ["KEPT", "METADATA", "aliases", "boot", "facts", "files", "log", "models", "versions", "writer"]

METADATA = MetaData()
KEPT = MetaData()

# One row per model. `folded` is the name in lower case: no two models may differ in case only, for the sake of file
# systems that do not either. `entries`, `last` and `versions` are the head of its log.
models = Table(
    "models",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("folded", Text, nullable=False, unique=True),
    Column("entries", Integer, nullable=False),
    Column("last", Text),
    Column("versions", Integer, nullable=False),
)

# One row per entry of a log, all that is needed to write the entry again. `type` is publish, report or alias; `blob` is
# the manifest or the report. Only an alias move fills alias to reason; its number is 0 where the alias is removed.
log = Table(
    "log",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("alias", Text),
    Column("previous", Integer),
    Column("forced", Boolean),
    Column("reason", Text),
    Column("created", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("blob", Text),
)

# One row per version: what a list shows, the digest a version is found by, and its `content`, which repeats tell.
# `attached` are the reports that came later, as JSON; the verdict counts them.
versions = Table(
    "versions",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("exports", Text, nullable=False),
    Column("created", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("attached", Text, nullable=False),
)

# One row per file of a version; its reports have the role `report`, its manifest the role `manifest`.
files = Table(
    "files",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
)

# Where each alias points now.
aliases = Table(
    "aliases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("number", Integer, nullable=False),
)

# What can be asked of the metadata: one row per value, and one per item of a list (`place` counts from 1). A key within
# an object is told with dots. Numbers and truth values are in `real`, the beginning of a text is in `text`.
facts = Table(
    "facts",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("text", Text),
    Column("real", Double),
)

# One row, which every writing transaction on a server updates first: so there is one at a time (`database.py`).
writer = Table("writer", KEPT, Column("turn", Integer, nullable=False))

# At most one row: the boot of the machine in which SQLite's file was last brought up to the logs (`sqlite.py`).
boot = Table("boot", KEPT, Column("id", Text, nullable=False))
