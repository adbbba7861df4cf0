"""A question (`query.py`) as a condition in SQL, every value of it a parameter, and what the index answers."""

from __future__ import annotations

from typing import Any

from modelhub.errors import RegistryError
from modelhub_registry.facts import LONGEST
from modelhub_registry.index import Asked, Summary, summarise
from modelhub_registry.query import And, Compare, Not, Or, Question, Value
from modelhub_registry.tables import Connection

__all__ = ["asked", "search"]

_COLUMNS = {
    "name": "name",
    "version": "number",
    "verdict": "verdict",
    "source": "source",
    "created": "created",
    "by": "author",
    "digest": "digest",
}
_ELSEWHERE = {"alias": ("aliases", "alias"), "sha256": ("files", "sha256"), "role": ("files", "role")}
_JOINED = {And: " AND ", Or: " OR "}


def search(db: Connection, question: Question, limit: int | None = None) -> list[Summary]:
    """The versions of which the question is true, by name and number."""
    return summarise(db, asked(question), limit)


def asked(question: Question) -> Asked:
    """The question in SQL. Every condition on metadata is answered from an index of the table of facts."""
    condition = _Condition()
    return Asked(condition.of(question), condition.values)


class _Condition:
    """Writes a condition; the values go into `values`, each with a name of its own."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def of(self, question: Question) -> str:
        if isinstance(question, Compare):
            return self._compare(question)
        if isinstance(question, Not):
            return f"NOT ({self.of(question.part)})"
        return f"({_JOINED[type(question)].join(map(self.of, question.parts))})"

    def _value(self, value: Any) -> str:
        name = f"value{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def _compare(self, question: Compare) -> str:
        field = question.field
        if field in _COLUMNS:
            wanted: type = float if field == "version" else str
            return self._test(_COLUMNS[field], question, [_fitting(question, v, wanted) for v in question.values])
        if field in _ELSEWHERE:
            table, column = _ELSEWHERE[field]
            return _held(table, self._test(column, question, [_fitting(question, v, str) for v in question.values]))
        if field == "export":  # asked for by what they are: ``export = onnx`` for the role export:onnx
            roles = [f"export:{_fitting(question, v, str)}" for v in question.values]
            return _held("files", self._test("role", question, roles))
        return self._fact(question)

    def _fact(self, question: Compare) -> str:
        key = f"key = {self._value(question.field.removeprefix('meta.'))}"
        fits = " OR ".join(self._fits(question, value) for value in question.values)
        there = _held("facts", f"{key} AND ({fits})")
        if question.operator == "!=":
            return f"({_held('facts', key)} AND NOT {there})"
        return _held("facts", f"{key} AND ({fits}) AND place > 0") if question.operator == "has" else there

    def _fits(self, question: Compare, value: Value) -> str:
        """What a row of the table of facts must be, to fit one value: of the value's kind, and compare as asked."""
        single = Compare(question.field, _SINGLE.get(question.operator, question.operator), (value,))
        if isinstance(value, str):
            return self._test("text", single, [_text(value)])
        kind = "truth" if isinstance(value, bool) else "number"
        return f"({self._test('real', single, [float(value)])} AND kind = '{kind}')"

    def _test(self, column: str, question: Compare, values: list[Any]) -> str:
        if question.operator == "in":
            return f"{column} IN ({', '.join(map(self._value, values))})"
        value = self._value(values[0])
        if question.operator == "like":  # CAST, for a server that asks of what type the value is
            return f"lower({column}) LIKE lower(CAST({value} AS TEXT)) ESCAPE '\\'"
        return f"{column} {_SIGNS.get(question.operator, question.operator)} {value}"


_SINGLE = {"!=": "=", "has": "=", "in": "="}
"""What each of the values is compared with; the whole says the rest."""
_SIGNS = {"has": "=", "!=": "<>"}


def _held(table: str, condition: str) -> str:
    return f"(name, number) IN (SELECT name, number FROM {table} WHERE {condition})"


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
