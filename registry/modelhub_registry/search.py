"""A question (`query.py`) as one statement of SQL, every value of it a parameter, and what the index answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, false, not_, or_, select, tuple_
from sqlalchemy.sql.elements import KeyedColumnElement

from modelhub.errors import RegistryError
from modelhub_registry.facts import LONGEST
from modelhub_registry.index import SHOWN, Summary, summarise
from modelhub_registry.query import And, Compare, Not, Or, Question, Value
from modelhub_registry.tables import aliases, facts, files, versions

__all__ = ["search", "statement"]

Test = Callable[[ColumnElement[Any]], ColumnElement[bool]]

_COLUMNS: dict[str, KeyedColumnElement[Any]] = {
    "name": versions.c.name,
    "version": versions.c.number,
    "verdict": versions.c.verdict,
    "source": versions.c.source,
    "created": versions.c.created,
    "by": versions.c.author,
    "digest": versions.c.digest,
}
_KEY = tuple_(versions.c.name, versions.c.number)


def search(db: Connection, question: Question, limit: int | None = None) -> list[Summary]:
    """The versions of which the question is true, by name and number."""
    query = statement(question)
    return summarise(db, query.limit(limit) if limit is not None else query)


def statement(question: Question) -> Select[Any]:
    """The question in SQL. Every condition on metadata is answered from an index of the table of facts."""
    return SHOWN.where(_where(question)).order_by(versions.c.name, versions.c.number)


def _where(question: Question) -> ColumnElement[bool]:
    if isinstance(question, And):
        return and_(*map(_where, question.parts))
    if isinstance(question, Or):
        return or_(*map(_where, question.parts))
    if isinstance(question, Not):
        return not_(_where(question.part))
    field = question.field
    if field in _COLUMNS:
        return _column(question)
    if field == "alias":
        return _KEY.in_(_other(select(aliases.c.name, aliases.c.number), aliases.c.alias, question))
    if field == "sha256":
        return _KEY.in_(_other(select(files.c.name, files.c.number), files.c.sha256, question))
    if field == "role":
        return _KEY.in_(_other(select(files.c.name, files.c.number), files.c.role, question))
    if field == "export":
        return _export(question)
    return _fact(question)


def _column(question: Compare) -> ColumnElement[bool]:
    column = _COLUMNS[question.field]
    wanted: type = float if question.field == "version" else str
    values = [_fitting(question, value, wanted) for value in question.values]
    return _test(question.operator, values)(column)


def _other(query: Select[Any], column: ColumnElement[Any], question: Compare) -> Select[Any]:
    values = [_fitting(question, value, str) for value in question.values]
    return query.where(_test(question.operator, values)(column))


def _export(question: Compare) -> ColumnElement[bool]:
    """Exports are asked for by what they are: ``export = onnx`` for the role export:onnx."""
    values = [f"export:{_fitting(question, value, str)}" for value in question.values]
    return _KEY.in_(select(files.c.name, files.c.number).where(_test(question.operator, values)(files.c.role)))


def _fitting(question: Compare, value: Value, wanted: type) -> Any:
    """The value, which the field can be compared with."""
    if wanted is str and isinstance(value, float):
        return f"{value:.17g}"  # a model may be called 2026
    if not isinstance(value, wanted) or isinstance(value, bool):
        kind = "a number" if wanted is float else "a text"
        raise RegistryError(f"{question.field} is {kind}, it cannot be compared with {value!r}")
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    if len(value) > LONGEST:
        raise RegistryError(f"only the first {LONGEST} characters of a text can be asked for")
    return value


def _fact(question: Compare) -> ColumnElement[bool]:
    key = question.field.removeprefix("meta.")
    conditions = [_fact_test(question, value) for value in question.values]
    rows = select(facts.c.name, facts.c.number).where(facts.c.key == key)
    if question.operator == "!=":
        return and_(_KEY.in_(rows), _KEY.not_in(rows.where(conditions[0])))
    if question.operator == "has":
        rows = rows.where(facts.c.place > 0)
    return _KEY.in_(rows.where(or_(*conditions)))


def _fact_test(question: Compare, value: Value) -> ColumnElement[bool]:
    """What a row of the table of facts must be, to fit one value: of the value's kind, and compare as asked."""
    operator = "=" if question.operator in ("!=", "has", "in") else question.operator
    if isinstance(value, str):
        return _test(operator, [_text(value)])(facts.c.text)
    kind = "truth" if isinstance(value, bool) else "number"
    return and_(_test(operator, [float(value)])(facts.c.real), facts.c.kind == kind)


def _test(operator: str, values: list[Any]) -> Test:
    value = values[0]
    tests: dict[str, Test] = {
        "=": lambda column: column == value,
        "has": lambda column: column == value,
        "!=": lambda column: column != value,
        "<": lambda column: column < value,
        "<=": lambda column: column <= value,
        ">": lambda column: column > value,
        ">=": lambda column: column >= value,
        "in": lambda column: column.in_(values) if values else false(),
        "like": lambda column: column.ilike(str(value), escape="\\"),
    }
    return tests[operator]
