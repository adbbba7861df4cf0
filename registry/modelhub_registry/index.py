"""What the index answers and how it follows the log. All functions work within a transaction of `database.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, bindparam, delete, func, insert, or_, select, update

from modelhub.errors import RegistryError
from modelhub_registry.errors import AbsentError
from modelhub_registry.facts import facts_of
from modelhub_registry.log import Attach, Entry, Event, Head, Move, Publish
from modelhub_registry.names import Reference
from modelhub_registry.records import PASSING, Evidence, Manifest, evidence_of
from modelhub_registry.tables import METADATA, aliases, facts, files, log, models, versions

__all__ = ["Found", "History", "Summary"]


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


# The statements of every publish and look-up, built once: building them costs more than SQLite takes to answer.
_NAME: BindParameter[str] = bindparam("name_")
_NUMBER: BindParameter[int] = bindparam("number_")
_ALIAS: BindParameter[str] = bindparam("alias_")
_CONTENT: BindParameter[str] = bindparam("content_")
_DIGEST: BindParameter[str] = bindparam("digest_")
_LOW: BindParameter[str] = bindparam("low")
_HIGH: BindParameter[str] = bindparam("high")
_OF_NAME = versions.c.name == _NAME
_HEAD = select(models.c.entries, models.c.last, models.c.versions).where(models.c.name == _NAME).with_for_update()
_MOVE_HEAD = update(models).where(models.c.name == _NAME)
_FIND = select(versions.c.number, versions.c.digest, versions.c.attached)
_BY_NUMBER = _FIND.where(_OF_NAME, versions.c.number == _NUMBER)
_BY_DIGEST = _FIND.where(_OF_NAME, versions.c.digest >= _LOW, versions.c.digest < _HIGH).limit(2)
_NEWEST = _FIND.where(_OF_NAME).order_by(versions.c.number.desc()).limit(1)
_NEWEST_PASSING = _NEWEST.where(versions.c.verdict.in_(PASSING))
_BY_ALIAS = _FIND.join(aliases, (aliases.c.name == versions.c.name) & (aliases.c.number == versions.c.number)).where(
    aliases.c.name == _NAME, aliases.c.alias == _ALIAS
)
_HELD = select(files.c.name, files.c.number, files.c.role).where(files.c.sha256 >= _LOW, files.c.sha256 < _HIGH)
_INSERT_LOG, _INSERT_VERSION, _INSERT_FILE = (insert(log), insert(versions), insert(files))
_INSERT_MODEL, _INSERT_FACT = insert(models), insert(facts)
_SAME = select(
    select(func.max(versions.c.number)).where(_OF_NAME, versions.c.content == _CONTENT).scalar_subquery(),
    select(versions.c.number).where(_OF_NAME, versions.c.digest == _DIGEST).scalar_subquery(),
)
_ALIAS_OF = select(aliases.c.number).where(aliases.c.name == _NAME, aliases.c.alias == _ALIAS)
_SET_ALIAS = update(aliases).where(aliases.c.name == _NAME, aliases.c.alias == _ALIAS).values(number=_NUMBER)


def head(db: Connection, name: str) -> Head:
    """Where the index stands in the log of a model. Locked until the transaction ends, where the database can."""
    row = db.execute(_HEAD, {"name_": name}).one_or_none()
    return Head() if row is None else Head(*row)


def admit(db: Connection, name: str) -> None:
    """Refuse a new name that differs from another in capital letters only."""
    same = db.execute(select(models.c.name).where(models.c.folded == name.lower())).scalar_one_or_none()
    if same not in (None, name):
        raise RegistryError(f"{name!r} differs from {same!r} in capital letters only: use that name, or another")


def apply(db: Connection, before: Head, entry: Entry, found: Manifest | Evidence | None) -> Head:
    """Follow the log by one entry, with the manifest or report it speaks of.

    A version whose manifest is lost (None) keeps its number but cannot be found.
    """
    event = entry.event
    row = {"name": entry.name, "sequence": entry.sequence, "digest": entry.digest, "created": entry.created}
    row |= {"author": entry.by, "alias": None, "previous": None, "forced": None, "reason": None, "blob": None}
    if isinstance(event, Publish):
        db.execute(_INSERT_LOG, row | {"type": "publish", "number": event.number, "blob": event.manifest})
        if isinstance(found, Manifest):
            add_version(db, event, found)
    elif isinstance(event, Attach):
        db.execute(_INSERT_LOG, row | {"type": "report", "number": event.number, "blob": event.report})
        if isinstance(found, Evidence):
            _attach(db, entry.name, event, found)
    else:
        db.execute(_INSERT_LOG, row | {"type": "alias", **vars(event), "number": event.number or 0})
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
        db.execute(_INSERT_MODEL, {"name": name, "folded": name.lower(), **row})
    else:
        db.execute(_MOVE_HEAD, {"name_": name, **row})


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
    db.execute(_INSERT_VERSION, row)
    held = {(a.role, a.sha256) for a in manifest.artifacts} | {("report", r.sha256) for r in manifest.reports}
    held.add(("manifest", event.manifest))
    db.execute(_INSERT_FILE, [{**key, "role": role, "sha256": sha256} for role, sha256 in sorted(held)])
    if told := list(facts_of(manifest.metadata)):
        db.execute(_INSERT_FACT, [{**key, **fact} for fact in told])


def _attach(db: Connection, name: str, event: Attach, report: Evidence) -> None:
    """A report that came later; the version's verdict is for `judge`."""
    known = db.execute(_BY_NUMBER, {"name_": name, "number_": event.number}).one_or_none()
    if known is None:  # its manifest is lost
        return
    reports = [*attached(known[2]), report]
    told = json.dumps([vars(r) for r in reports], sort_keys=True)
    where = (versions.c.name == name) & (versions.c.number == event.number)
    db.execute(update(versions).where(where).values(attached=told))
    row = {"name": name, "number": event.number, "role": "report", "sha256": report.sha256}
    there = (files.c.name == name) & (files.c.number == event.number) & (files.c.sha256 == report.sha256)
    if db.execute(select(files.c.role).where(there, files.c.role == "report")).first() is None:
        db.execute(_INSERT_FILE, row)


def judge(db: Connection, name: str, number: int, verdict: str) -> None:
    """Note the verdict of a version, its later reports counted."""
    where = (versions.c.name == name) & (versions.c.number == number)
    db.execute(update(versions).where(where).values(verdict=verdict))


def attached(told: str) -> tuple[Evidence, ...]:
    """The reports that came later, from a version's row."""
    return tuple(map(evidence_of, json.loads(told))) if told else ()


def _point(db: Connection, name: str, move: Move) -> None:
    if move.number is None:
        db.execute(delete(aliases).where(aliases.c.name == name, aliases.c.alias == move.alias))
        return
    if not db.execute(_SET_ALIAS, {"name_": name, "alias_": move.alias, "number_": move.number}).rowcount:
        db.execute(insert(aliases), {"name": name, "alias": move.alias, "number": move.number})


def find(db: Connection, reference: Reference) -> tuple[int, str, str]:
    """Number, manifest digest and later reports (see `attached`) of the version a reference names.

    Raises `RegistryError` for none, and for two.
    """
    if reference.number is not None:
        found = db.execute(_BY_NUMBER, {"name_": reference.name, "number_": reference.number})
    elif reference.alias is not None:
        found = db.execute(_BY_ALIAS, {"name_": reference.name, "alias_": reference.alias})
    elif reference.digest is not None:
        found = db.execute(_BY_DIGEST, {"name_": reference.name, **_range(reference.digest)})
    elif reference.passing:
        found = db.execute(_NEWEST_PASSING, {"name_": reference.name})
    else:
        found = db.execute(_NEWEST, {"name_": reference.name})
    rows = found.all()
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
    newest, exact = db.execute(_SAME, {"name_": name, "content_": content, "digest_": digest}).one()
    return newest, exact


def summaries(db: Connection, name: str | None) -> list[Summary]:
    """All versions, or those of one model, by name and number."""
    query = SHOWN.order_by(versions.c.name, versions.c.number)
    return summarise(db, query if name is None else query.where(versions.c.name == name))


_POINTING = select(aliases).order_by(aliases.c.alias)
_POINTING_SOME = _POINTING.where(aliases.c.name.in_(bindparam("names", expanding=True)))
SHOWN = select(
    versions.c.name,
    versions.c.number,
    versions.c.digest,
    versions.c.verdict,
    versions.c.source,
    versions.c.exports,
    versions.c.created,
    versions.c.author,
)
"""What `summarise` wants to know of a version."""


def summarise(db: Connection, query: Select[Any]) -> list[Summary]:
    """The versions a query finds, which must select what `SHOWN` does, with the aliases that point to them."""
    rows = db.execute(query).all()
    names = {row[0] for row in rows}
    pointing = _POINTING if len(names) > 100 else _POINTING_SOME
    held: dict[tuple[str, int], tuple[str, ...]] = {}
    for model, alias, number in db.execute(pointing, {"names": list(names)}) if rows else ():
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
    found = []
    for name, number, role in sorted(map(tuple, db.execute(_HELD, _range(digest)))):
        one = SHOWN.where(versions.c.name == name, versions.c.number == number)
        found += [Found(summary, role) for summary in summarise(db, one)]
    return found


def files_of(db: Connection, name: str, number: int) -> list[tuple[str, str]]:
    """Role and SHA-256 of every file of a version, its reports and its manifest."""
    query = select(files.c.role, files.c.sha256).where(files.c.name == name, files.c.number == number)
    return [(role, sha256) for role, sha256 in db.execute(query.order_by(files.c.role))]


def every_blob(db: Connection) -> set[str]:
    """SHA-256 of every file, report and manifest, also of versions that are lost."""
    blobs = set(db.execute(select(files.c.sha256).distinct()).scalars())
    return blobs | set(db.execute(select(log.c.blob).where(log.c.blob.is_not(None))).scalars())


def later(db: Connection, version: Summary) -> tuple[Evidence, ...]:
    """The reports that came after a version was published."""
    row = db.execute(_BY_NUMBER, {"name_": version.name, "number_": version.number}).one()
    return attached(row.attached)


def entry(db: Connection, name: str, sequence: int, after: str | None) -> Entry | None:
    """An entry of the log as the index remembers it, None when that is not what was written."""
    row = db.execute(select(log).where(log.c.name == name, log.c.sequence == sequence)).one_or_none()
    if row is None:
        return None
    event: Event
    if row.type == "publish":
        event = Publish(row.number, row.blob)
    elif row.type == "report":
        event = Attach(row.number, row.blob)
    else:
        event = Move(row.alias, row.number or None, row.previous, row.forced, row.reason)
    found = Entry(name, sequence, after, row.created, row.author, event)
    return found if found.digest == row.digest else None


def alias_of(db: Connection, name: str, alias: str) -> int | None:
    """The number an alias points to, None when there is no such alias."""
    return db.execute(_ALIAS_OF, {"name_": name, "alias_": alias}).scalar_one_or_none()


def aliases_of(db: Connection, name: str) -> dict[str, int]:
    """All aliases of a model and the numbers they point to."""
    rows = db.execute(select(aliases.c.alias, aliases.c.number).where(aliases.c.name == name).order_by(aliases.c.alias))
    return {row.alias: row.number for row in rows}


def history(db: Connection, name: str, number: int) -> list[History]:
    """All moves of aliases to or from a version, oldest first."""
    columns = (log.c.created, log.c.author, log.c.alias, log.c.number, log.c.previous, log.c.forced, log.c.reason)
    about = or_(log.c.number == number, log.c.previous == number)
    query = select(*columns).where(log.c.name == name, log.c.type == "alias", about).order_by(log.c.sequence)
    return [
        History(created, by, Move(alias, number or None, previous, forced, reason))
        for created, by, alias, number, previous, forced, reason in db.execute(query)
    ]


def heads(db: Connection) -> dict[str, Head]:
    """Where the index stands in the log of every model."""
    rows = db.execute(select(models.c.name, models.c.entries, models.c.last, models.c.versions))
    return {name: Head(entries, last, count) for name, entries, last, count in rows}


def rows(db: Connection) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every row of every table, with the table's name: what two indexes are compared by."""
    for table in METADATA.sorted_tables:
        for row in db.execute(select(table)):
            yield table.name, tuple(row)
