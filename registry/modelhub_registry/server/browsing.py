"""What the pages ask the index: one page at a time, however many versions there are in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import and_, func, not_, select

from modelhub_registry import index, names, query
from modelhub_registry.index import SHOWN, Found, History, Summary, summarise
from modelhub_registry.log import Move
from modelhub_registry.search import statement
from modelhub_registry.tables import aliases, files, log, models, versions

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

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


_OTHERS = versions.alias()
_NEWEST_NUMBER = (
    select(func.max(_OTHERS.c.number)).where(_OTHERS.c.name == models.c.name).correlate(models).scalar_subquery()
)


def model_list(registry: Served, page: int) -> Page[ModelLine]:
    """Models by name, with their newest version."""
    with registry.looking() as db:
        if db is None:
            return Page((), page, 0)
        total = db.execute(select(func.count()).select_from(models)).scalar_one()
        counts = dict(map(tuple, db.execute(_page(_MODELS, page))))
        newest = SHOWN.join(models, models.c.name == versions.c.name).where(
            models.c.name.in_(list(counts)), versions.c.number == _NEWEST_NUMBER
        )
        found = summarise(db, newest.order_by(models.c.name)) if counts else []
        held = _pointers(db, list(counts)) if counts else {}
        return Page([ModelLine(v, counts[v.name], tuple(held.get(v.name, ()))) for v in found], page, total)


_MODELS = select(models.c.name, models.c.versions).order_by(models.c.name)


def _pointers(db: Connection, wanted: list[str]) -> dict[str, list[Pointer]]:
    same = (aliases.c.name == versions.c.name) & (aliases.c.number == versions.c.number)
    rows = db.execute(
        select(aliases.c.name, aliases.c.alias, aliases.c.number, versions.c.verdict)
        .join(versions, same)
        .where(aliases.c.name.in_(wanted))
        .order_by(aliases.c.name, aliases.c.alias)
    )
    held: dict[str, list[Pointer]] = {}
    for name, alias, number, verdict in rows:
        held.setdefault(name, []).append(Pointer(alias, number, verdict))
    return held


def by_question(registry: Served, question: str, page: int) -> Page[Summary]:
    """The versions a question of `query.py` is true of; a lone word asks for models with it in their name."""
    tree = query.parse(_whole(question))
    with registry.looking() as db:
        return Page((), page, 0) if db is None else _summaries(db, statement(tree), page)


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
        found = _summaries(db, SHOWN.where(versions.c.name == name).order_by(versions.c.number.desc()), page)
        return found, _pointers(db, [name]).get(name, [])


def _summaries(db: Connection, asked: Select[Any], page: int) -> Page[Summary]:
    total = db.execute(select(func.count()).select_from(asked.order_by(None).subquery())).scalar_one()
    return Page(summarise(db, _page(asked, page)), page, total)


def _page(asked: Select[Any], page: int) -> Select[Any]:
    return asked.limit(PAGE).offset((page - 1) * PAGE)


def moves_of(registry: Served, name: str, page: int = 1) -> Page[History]:
    """The moves of a model's aliases, newest first."""
    columns = (log.c.created, log.c.author, log.c.alias, log.c.number, log.c.previous, log.c.forced, log.c.reason)
    asked = select(*columns).where(log.c.name == name, log.c.type == "alias")
    with registry.looking() as db:
        if db is None:
            return Page((), page, 0)
        total = db.execute(select(func.count()).select_from(asked.subquery())).scalar_one()
        rows = db.execute(_page(asked.order_by(log.c.sequence.desc()), page))
        return Page([History(row[0], row[1], Move(row[2], row[3] or None, *row[4:])) for row in rows], page, total)


def sharing(registry: Served, name: str, number: int, digests: Sequence[str]) -> Page[Found]:
    """The first other versions that hold one of these files, and as what."""
    same = and_(files.c.name == name, files.c.number == number)
    asked = select(files.c.name, files.c.number, files.c.role).where(files.c.sha256.in_(list(digests)), not_(same))
    with registry.looking() as db:
        if db is None or not digests:
            return Page((), 1, 0)
        total = db.execute(select(func.count()).select_from(asked.subquery())).scalar_one()
        found = []
        for model, version, role in db.execute(_page(asked.order_by(files.c.name, files.c.number, files.c.role), 1)):
            one = SHOWN.where(versions.c.name == model, versions.c.number == version)
            found += [Found(summary, role) for summary in summarise(db, one)]
        return Page(found, 1, total)
