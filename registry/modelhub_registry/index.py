"""What the index answers and how it follows the log. All functions work within a transaction of `database.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelhub.errors import RegistryError
from modelhub_registry.errors import AbsentError
from modelhub_registry.facts import facts_of
from modelhub_registry.log import Attach, Entry, Event, Head, Move, Publish
from modelhub_registry.names import Reference
from modelhub_registry.records import PASSING, Evidence, Manifest, evidence_of
from modelhub_registry.tables import TABLES, Connection, inserting, listed

__all__ = ["Asked", "Found", "History", "Summary"]


@dataclass(frozen=True)
class Summary:
    """A version as a list shows it. `source` and `exports` are formats and roles; `aliases` point to it now."""

    name: str
    number: int
    digest: str
    verdict: str
    source: str
    exports: tuple[str, ...]
    created: str
    by: str
    aliases: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """The reference by number, ``btag@3``."""
        return f"{self.name}@{self.number}"


@dataclass(frozen=True)
class Found:
    """A version that holds some file, and as what: a role, ``report`` or ``manifest``."""

    version: Summary
    role: str


@dataclass(frozen=True)
class History:
    """A move of an alias, as the log has it for ever."""

    created: str
    by: str
    move: Move


@dataclass(frozen=True)
class Asked:
    """Which versions, as a condition in SQL on the table `versions` with its values, and in which order."""

    where: str = "1 = 1"
    values: dict[str, Any] = field(default_factory=dict)
    order: str = "name, number"


_HEAD = "SELECT entries, last, versions FROM models WHERE name = :name"
_MOVE_HEAD = "UPDATE models SET entries = :entries, last = :last, versions = :versions WHERE name = :name"
_FIND = "SELECT number, digest, attached FROM versions WHERE name = :name"
_BY_NUMBER = f"{_FIND} AND number = :number"
_BY_DIGEST = f"{_FIND} AND digest >= :low AND digest < :high LIMIT 2"
_NEWEST = f"{_FIND} ORDER BY number DESC LIMIT 1"
_NEWEST_PASSING = f"{_FIND} AND verdict IN {PASSING!r} ORDER BY number DESC LIMIT 1"
_BY_ALIAS = f"{_FIND} AND number = (SELECT number FROM aliases WHERE name = :name AND alias = :alias)"
_HELD = "SELECT name, number, role FROM files WHERE sha256 >= :low AND sha256 < :high"
_SAME = """SELECT (SELECT max(number) FROM versions WHERE name = :name AND content = :content),
                  (SELECT number FROM versions WHERE name = :name AND digest = :digest)"""
_ALIAS_OF = "SELECT number FROM aliases WHERE name = :name AND alias = :alias"
_OF_NUMBER = "name = :name AND number = :number"
_INSERT = {table: inserting(table) for table in TABLES}


def head(db: Connection, name: str) -> Head:
    """Where the index stands in the log of a model."""
    found = db.rows(_HEAD, {"name": name})
    return Head(*found[0]) if found else Head()


def admit(db: Connection, name: str) -> None:
    """Refuse a new name that differs from another in capital letters only."""
    same = db.rows("SELECT name FROM models WHERE folded = :folded", {"folded": name.lower()})
    if same and same[0][0] != name:
        raise RegistryError(f"{name!r} differs from {same[0][0]!r} in capital letters only: use that name, or another")


def apply(db: Connection, before: Head, entry: Entry, found: Manifest | Evidence | None) -> Head:
    """Follow the log by one entry, with the manifest or report it speaks of.

    A version whose manifest is lost (None) keeps its number but cannot be found.
    """
    event = entry.event
    row = {"name": entry.name, "sequence": entry.sequence, "digest": entry.digest, "created": entry.created}
    row |= {"author": entry.by, "alias": None, "previous": None, "forced": None, "reason": None, "blob": None}
    if isinstance(event, Publish):
        db.run(_INSERT["log"], row | {"type": "publish", "number": event.number, "blob": event.manifest})
        if isinstance(found, Manifest):
            add_version(db, event, found)
    elif isinstance(event, Attach):
        db.run(_INSERT["log"], row | {"type": "report", "number": event.number, "blob": event.report})
        if isinstance(found, Evidence):
            _attach(db, entry.name, event, found)
    else:
        db.run(_INSERT["log"], row | {"type": "alias", **vars(event), "number": event.number or 0})
        _point(db, entry.name, event)
    after = entry.head(before)
    _set_head(db, entry.name, before, after)
    return after


def skip(db: Connection, name: str, before: Head) -> Head:
    """Step over an entry that cannot be read."""
    after = before.skip()
    _set_head(db, name, before, after)
    return after


def _set_head(db: Connection, name: str, before: Head, after: Head) -> None:
    row = {"entries": after.entries, "last": after.last, "versions": after.versions}
    if before == Head():
        db.run(_INSERT["models"], {"name": name, "folded": name.lower(), **row})
    else:
        db.run(_MOVE_HEAD, {"name": name, **row})


def add_version(db: Connection, event: Publish, manifest: Manifest) -> None:
    """Put a version into the tables that answer questions."""
    key = {"name": manifest.name, "number": event.number}
    sources = [a.format for a in manifest.artifacts if a.role == "source"]
    exports = [a.role.partition(":")[2] or a.format for a in manifest.artifacts if a.is_export]
    row = {
        **key,
        "digest": event.manifest,
        "content": manifest.content,
        "verdict": manifest.verdict,
        "source": sources[0] if sources else "",
        "exports": ",".join(exports),
        "created": manifest.provenance.created,
        "author": manifest.provenance.by,
        "attached": "",
    }
    db.run(_INSERT["versions"], row)
    held = {(a.role, a.sha256) for a in manifest.artifacts} | {("report", r.sha256) for r in manifest.reports}
    held.add(("manifest", event.manifest))
    db.run_many(_INSERT["files"], [{**key, "role": role, "sha256": sha256} for role, sha256 in sorted(held)])
    if told := list(facts_of(manifest.metadata)):
        db.run_many(_INSERT["facts"], [{**key, **fact} for fact in told])


def _attach(db: Connection, name: str, event: Attach, report: Evidence) -> None:
    """A report that came later; the version's verdict is for `judge`."""
    key = {"name": name, "number": event.number}
    known = db.rows(_BY_NUMBER, key)
    if not known:  # its manifest is lost
        return
    reports = [*attached(known[0][2]), report]
    told = json.dumps([vars(r) for r in reports], sort_keys=True)
    db.run(f"UPDATE versions SET attached = :attached WHERE {_OF_NUMBER}", {**key, "attached": told})
    row = {**key, "role": "report", "sha256": report.sha256}
    if not db.rows(f"SELECT role FROM files WHERE {_OF_NUMBER} AND role = :role AND sha256 = :sha256", row):
        db.run(_INSERT["files"], row)


def judge(db: Connection, name: str, number: int, verdict: str) -> None:
    """Note the verdict of a version, its later reports counted."""
    row = {"name": name, "number": number, "verdict": verdict}
    db.run(f"UPDATE versions SET verdict = :verdict WHERE {_OF_NUMBER}", row)


def attached(told: str) -> tuple[Evidence, ...]:
    """The reports that came later, from a version's row."""
    return tuple(map(evidence_of, json.loads(told))) if told else ()


def _point(db: Connection, name: str, move: Move) -> None:
    key = {"name": name, "alias": move.alias}
    if move.number is None:
        db.run("DELETE FROM aliases WHERE name = :name AND alias = :alias", key)
        return
    row = {**key, "number": move.number}
    if not db.run("UPDATE aliases SET number = :number WHERE name = :name AND alias = :alias", row):
        db.run(_INSERT["aliases"], row)


def find(db: Connection, reference: Reference) -> tuple[int, str, str]:
    """Number, manifest digest and later reports (see `attached`) of the version a reference names.

    Raises `RegistryError` for none, and for two.
    """
    key = {"name": reference.name}
    if reference.number is not None:
        rows = db.rows(_BY_NUMBER, {**key, "number": reference.number})
    elif reference.alias is not None:
        rows = db.rows(_BY_ALIAS, {**key, "alias": reference.alias})
    elif reference.digest is not None:
        rows = db.rows(_BY_DIGEST, {**key, **_range(reference.digest)})
    elif reference.passing:
        rows = db.rows(_NEWEST_PASSING, key)
    else:
        rows = db.rows(_NEWEST, key)
    if len(rows) == 1:
        return rows[0][0], rows[0][1], rows[0][2]
    if rows:
        raise RegistryError(f"{reference}: several versions begin so; give more digits")
    raise AbsentError(_absent(db, reference))


def _range(digest: str) -> dict[str, str]:
    """The bounds between which all digests lie that begin with `digest`: every index serves them, unlike LIKE."""
    return {"low": digest, "high": digest + "g"}


def _absent(db: Connection, reference: Reference) -> str:
    """Why a reference leads nowhere, and what there is instead."""
    known = head(db, reference.name)
    if known == Head():
        return f"there is no model {reference.name!r}; `modelhub registry list` shows what there is"
    if reference.passing:
        return f"there is no {reference}: no version of {reference.name} has passing reports of every export"
    number = reference.number if reference.alias is None else alias_of(db, reference.name, reference.alias)
    if number is not None and number <= known.versions:
        return f"{reference}: the index has lost this version; `modelhub registry verify` tells why"
    there = ", ".join(aliases_of(db, reference.name)) or "none"
    return f"there is no {reference}; versions go up to {known.versions}, aliases: {there}"


def same(db: Connection, name: str, content: str, digest: str) -> tuple[int | None, int | None]:
    """The numbers of the newest version with this content (`Manifest.content`), and of that with this manifest."""
    newest, exact = db.rows(_SAME, {"name": name, "content": content, "digest": digest})[0]
    return newest, exact


def summaries(db: Connection, name: str | None) -> list[Summary]:
    """All versions, or those of one model, by name and number."""
    return summarise(db, Asked() if name is None else Asked("name = :name", {"name": name}, "number"))


def one(name: str, number: int) -> Asked:
    """One version."""
    return Asked(_OF_NUMBER, {"name": name, "number": number})


def count(db: Connection, asked: Asked) -> int:
    """How many versions are asked for."""
    return int(db.rows(f"SELECT count(*) FROM versions WHERE {asked.where}", asked.values)[0][0])


_SHOWN = "SELECT name, number, digest, verdict, source, exports, created, author FROM versions"
_POINTING = "SELECT name, alias, number FROM aliases"


def summarise(db: Connection, asked: Asked, limit: int | None = None, offset: int = 0) -> list[Summary]:
    """The versions asked for, at most `limit` of them, with the aliases that point to them."""
    query, part = f"{_SHOWN} WHERE {asked.where} ORDER BY {asked.order}", {}
    if limit is not None:
        query, part = f"{query} LIMIT :limit OFFSET :offset", {"limit": limit, "offset": offset}
    rows = db.rows(query, {**asked.values, **part})
    names = sorted({row[0] for row in rows})
    pointing: str = _POINTING
    values: dict[str, Any] = {}
    if 0 < len(names) <= 100:
        those, values = listed("name", names)
        pointing = f"{_POINTING} WHERE name IN {those}"
    held: dict[tuple[str, int], tuple[str, ...]] = {}
    for model, alias, number in db.rows(f"{pointing} ORDER BY alias", values) if rows else ():
        held[model, number] = (*held.get((model, number), ()), alias)
    return [
        Summary(
            name,
            number,
            digest,
            verdict,
            source,
            tuple(exports.split(",")) if exports else (),
            created,
            by,
            held.get((name, number), ()),
        )
        for name, number, digest, verdict, source, exports, created, by in rows
    ]


def which(db: Connection, digest: str) -> list[Found]:
    """Versions that hold a file, a report or a manifest whose SHA-256 begins with `digest`."""
    return [
        Found(summary, role)
        for name, number, role in sorted(db.rows(_HELD, _range(digest)))
        for summary in summarise(db, one(name, number))
    ]


def files_of(db: Connection, name: str, number: int) -> list[tuple[str, str]]:
    """Role and SHA-256 of every file of a version, its reports and its manifest."""
    query = f"SELECT role, sha256 FROM files WHERE {_OF_NUMBER} ORDER BY role"
    return [(role, sha256) for role, sha256 in db.rows(query, {"name": name, "number": number})]


def every_blob(db: Connection) -> set[str]:
    """SHA-256 of every file, report and manifest, also of versions that are lost."""
    query = "SELECT sha256 FROM files UNION SELECT blob FROM log WHERE blob IS NOT NULL"
    return {sha256 for (sha256,) in db.rows(query)}


def later(db: Connection, version: Summary) -> tuple[Evidence, ...]:
    """The reports that came after a version was published."""
    return attached(db.rows(_BY_NUMBER, {"name": version.name, "number": version.number})[0][2])


MOVED = "created, author, alias, number, previous, forced, reason"
"""What `history_of` wants to know of an alias move, from the table `log`."""
_LOGGED = f"SELECT type, digest, blob, {MOVED} FROM log WHERE name = :name"


def entry(db: Connection, name: str, sequence: int, after: str | None) -> Entry | None:
    """An entry of the log as the index remembers it, None when that is not what was written."""
    rows = db.rows(f"{_LOGGED} AND sequence = :sequence", {"name": name, "sequence": sequence})
    if not rows:
        return None
    kind, digest, blob, *told = rows[0]
    event: Event
    if kind == "publish":
        event = Publish(told[3], blob)
    elif kind == "report":
        event = Attach(told[3], blob)
    else:
        event = history_of(told).move
    found = Entry(name, sequence, after, told[0], told[1], event)
    return found if found.digest == digest else None


def alias_of(db: Connection, name: str, alias: str) -> int | None:
    """The number an alias points to, None when there is no such alias."""
    found = db.rows(_ALIAS_OF, {"name": name, "alias": alias})
    return int(found[0][0]) if found else None


def aliases_of(db: Connection, name: str) -> dict[str, int]:
    """All aliases of a model and the numbers they point to."""
    return dict(db.rows("SELECT alias, number FROM aliases WHERE name = :name ORDER BY alias", {"name": name}))


def history(db: Connection, name: str, number: int) -> list[History]:
    """All moves of aliases to or from a version, oldest first."""
    about = "(number = :number OR previous = :number)"
    query = f"SELECT {MOVED} FROM log WHERE name = :name AND type = 'alias' AND {about} ORDER BY sequence"
    return list(map(history_of, db.rows(query, {"name": name, "number": number})))


def history_of(row: Sequence[Any]) -> History:
    """An alias move from the columns `MOVED` of its row; SQLite gives truth values as numbers."""
    created, by, alias, number, previous, forced, reason = row
    return History(created, by, Move(alias, number or None, previous, bool(forced), reason))


def heads(db: Connection) -> dict[str, Head]:
    """Where the index stands in the log of every model."""
    found = db.rows("SELECT name, entries, last, versions FROM models")
    return {name: Head(entries, last, count) for name, entries, last, count in found}


def rows(db: Connection) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every row of every table, with the table's name: what two indexes are compared by."""
    for table, columns in TABLES.items():
        for row in db.rows(f"SELECT {', '.join(columns)} FROM {table}"):
            yield table, row
