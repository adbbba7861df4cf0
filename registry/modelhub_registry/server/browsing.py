"""What the pages ask the index: one page at a time, however many versions there are in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from modelhub_registry import index, names, query
from modelhub_registry.index import MOVED, Asked, Found, History, Summary, summarise
from modelhub_registry.search import asked
from modelhub_registry.tables import Connection, listed

if TYPE_CHECKING:
    from modelhub_registry.server.guard import Served

__all__ = ["PAGE", "ModelLine", "Page", "Pointer", "by_question", "model_list", "moves_of", "sharing", "versions_of"]

PAGE = 50
"""Lines of a page."""
LAST = 1_000_000
"""The highest number of a page."""

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some lines of a long list: those of page `number`, counted from 1."""

    lines: Sequence[T]
    number: int
    total: int

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.total // PAGE))


@dataclass(frozen=True)
class Pointer:
    """An alias, the number it points to, and the verdict of that version."""

    alias: str
    number: int
    verdict: str


@dataclass(frozen=True)
class ModelLine:
    """A model in the list: its newest version, how many it has, and where its aliases point."""

    newest: Summary
    versions: int
    aliases: tuple[Pointer, ...]


_PAGE = "LIMIT :limit OFFSET :offset"
_NEWEST = "number = (SELECT max(others.number) FROM versions AS others WHERE others.name = versions.name)"


def model_list(registry: Served, page: int) -> Page[ModelLine]:
    """Models by name, with their newest version."""
    with registry.looking() as db:
        if db is None:
            return Page((), page, 0)
        total = db.rows("SELECT count(*) FROM models")[0][0]
        counts = dict(db.rows(f"SELECT name, versions FROM models ORDER BY name {_PAGE}", _part(page)))
        if not counts:
            return Page((), page, total)
        those, values = listed("name", list(counts))
        found = summarise(db, Asked(f"name IN {those} AND {_NEWEST}", values, "name"))
        held = _pointers(db, list(counts))
        return Page([ModelLine(v, counts[v.name], tuple(held.get(v.name, ()))) for v in found], page, total)


def _part(page: int) -> dict[str, int]:
    return {"limit": PAGE, "offset": (page - 1) * PAGE}


def _pointers(db: Connection, wanted: list[str]) -> dict[str, list[Pointer]]:
    those, values = listed("name", wanted)
    rows = db.rows(
        f"""SELECT aliases.name, aliases.alias, aliases.number, versions.verdict
            FROM aliases JOIN versions ON aliases.name = versions.name AND aliases.number = versions.number
            WHERE aliases.name IN {those} ORDER BY aliases.name, aliases.alias""",
        values,
    )
    held: dict[str, list[Pointer]] = {}
    for name, alias, number, verdict in rows:
        held.setdefault(name, []).append(Pointer(alias, number, verdict))
    return held


def by_question(registry: Served, question: str, page: int) -> Page[Summary]:
    """The versions a question of `query.py` is true of; a lone word asks for models with it in their name."""
    tree = query.parse(_whole(question))
    with registry.looking() as db:
        return Page((), page, 0) if db is None else _summaries(db, asked(tree), page)


def _whole(question: str) -> str:
    word = question.strip()
    if not names.is_name(word):
        return question
    return "name like '%{}%'".format(word.replace("_", "\\_"))


def versions_of(registry: Served, name: str, page: int) -> tuple[Page[Summary], list[Pointer]]:
    """The versions of a model, newest first, and its aliases. Raises `AbsentError` where there is no such model."""
    with registry.looking() as db:
        if db is None:
            registry.version(name)  # says why not
        assert db is not None
        index.find(db, names.Reference(names.name(name)))
        found = _summaries(db, Asked("name = :name", {"name": name}, "number DESC"), page)
        return found, _pointers(db, [name]).get(name, [])


def _summaries(db: Connection, wanted: Asked, page: int) -> Page[Summary]:
    return Page(summarise(db, wanted, **_part(page)), page, index.count(db, wanted))


def moves_of(registry: Served, name: str, page: int = 1) -> Page[History]:
    """The moves of a model's aliases, newest first."""
    moves = "FROM log WHERE name = :name AND type = 'alias'"
    values = {"name": name}
    with registry.looking() as db:
        if db is None:
            return Page((), page, 0)
        total = db.rows(f"SELECT count(*) {moves}", values)[0][0]
        rows = db.rows(f"SELECT {MOVED} {moves} ORDER BY sequence DESC {_PAGE}", {**values, **_part(page)})
        return Page(list(map(index.history_of, rows)), page, total)


def sharing(registry: Served, name: str, number: int, digests: Sequence[str]) -> Page[Found]:
    """The first other versions that hold one of these files, and as what."""
    with registry.looking() as db:
        if db is None or not digests:
            return Page((), 1, 0)
        those, values = listed("sha256_", digests)
        held = f"FROM files WHERE sha256 IN {those} AND NOT (name = :name AND number = :number)"
        values |= {"name": name, "number": number}
        total = db.rows(f"SELECT count(*) {held}", values)[0][0]
        query = f"SELECT name, number, role {held} ORDER BY name, number, role {_PAGE}"
        found = [
            Found(summary, role)
            for model, version, role in db.rows(query, {**values, **_part(1)})
            for summary in summarise(db, index.one(model, version))
        ]
        return Page(found, 1, total)
