"""The language of `where`: a question about versions, read into a tree and nothing more.

    question    = and_part { "or" and_part }
    and_part    = part { "and" part }
    part        = "not" part | "(" question ")" | comparison
    comparison  = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
                | field "in" "(" value { "," value } ")"
                | field "has" value            a list that holds the value
                | field "like" text            % stands for any characters, _ for one, \\ before them for themselves;
                                               capital and small letters are the same
    field       = name, version, verdict, source, created, by, digest, alias, export, role, sha256,
                  or a key of the metadata (``auc``, ``training.epochs``; ``meta.name`` for a key that is a field)
    value       = 2026, -1.5e3     a number: compared with numbers only
                | 'GN2' "GN2"      a text; a word of letters, digits and . _ - : + needs no quotes
                | true, false
                | 2026-11-23       a day, or with T12:30:00Z a time: a text in the order of time

    epoch = 2026 and auc > 0.9
    name = btag and not (verdict in (different, suspect) or created < 2026-01-01)
    tags has calibrated and training.dataset like 'mc23%'

Values are compared with their own kind: ``auc > 0.9`` is false where auc is a text or not there. ``!=`` is true where
the field is there with another value. Of a list, ``=`` and the like ask whether any item fits, as ``has`` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from modelhub.errors import RegistryError, safe_text

__all__ = ["And", "Compare", "Not", "Or", "Question", "Value", "parse"]

Value = bool | float | str
LIMIT = 4000
"""Characters of a question."""
DEPTH = 40
"""Brackets within brackets."""


@dataclass(frozen=True)
class Compare:
    """`field` compared by `operator` (=, !=, <, <=, >, >=, in, has, like) with one value, or several of ``in``."""

    field: str
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Not:
    """What is not so."""

    part: Question


@dataclass(frozen=True)
class And:
    """What is all so."""

    parts: tuple[Question, ...]


@dataclass(frozen=True)
class Or:
    """Of which some is so."""

    parts: tuple[Question, ...]


Question = Compare | Not | And | Or

_TOKEN = re.compile(
    r"\s*(?:(?P<quoted>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")|(?P<sign><=|>=|!=|[=<>(),])|(?P<word>[\w.:+-]+))", re.ASCII
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,399}")
_SIGNS = ("=", "!=", "<", "<=", ">", ">=")
_WORDS = ("and", "or", "not", "in", "has", "like")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    place: int


def parse(text: str) -> Question:
    """The tree of a question. Raises `RegistryError`, which says where it cannot be understood."""
    return _Parser(text).whole()


class _Parser:
    """Recursive descent, one method a rule."""

    def __init__(self, text: str) -> None:
        if len(text) > LIMIT:
            raise RegistryError(f"a question has at most {LIMIT} characters")
        text = " ".join(text.splitlines()).replace("\t", " ")
        if not text.isprintable():
            raise RegistryError(f"{safe_text(text, 200)!r} is no question: use characters that can be printed")
        self.text = text
        self.tokens = [*self._split(), _Token("end", "", len(text))]
        self.at = 0
        self.depth = 0

    def _split(self) -> Iterator[_Token]:
        place = 0
        while place < len(self.text) and not self.text[place:].isspace():
            found = _TOKEN.match(self.text, place)
            if found is None:
                raise self._wrong(
                    _Token("", self.text[place:].lstrip()[:1], place), "a word, a number or a quoted text"
                )
            kind = str(found.lastgroup)
            word = found[kind]
            if kind == "quoted":
                word = word[1:-1].replace(word[0] * 2, word[0])
            elif kind == "word" and word.lower() in _WORDS:
                kind, word = "key", word.lower()
            yield _Token(kind, word, found.start(str(found.lastgroup)))
            place = found.end()

    def _wrong(self, token: _Token, wanted: str) -> RegistryError:
        found = f"{safe_text(token.text)!r}" if token.text else "the end"
        return RegistryError(
            f"cannot understand {safe_text(self.text, 200)!r} at {found} (character {token.place + 1}): "
            f"{wanted} should stand here. For example: epoch=2026 and auc>0.9"
        )

    def _next(self) -> _Token:
        token = self.tokens[self.at]
        self.at += token.kind != "end"
        return token

    def _took(self, kind: str, text: str) -> bool:
        token = self.tokens[self.at]
        if (token.kind, token.text) != (kind, text):
            return False
        self.at += 1
        return True

    def whole(self) -> Question:
        question = self._or()
        if (token := self._next()).kind != "end":
            raise self._wrong(token, "'and', 'or' or the end")
        return question

    def _or(self) -> Question:
        parts = [self._and()]
        while self._took("key", "or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Question:
        parts = [self._part()]
        while self._took("key", "and"):
            parts.append(self._part())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _part(self) -> Question:
        self.depth += 1
        if self.depth > DEPTH:
            raise RegistryError(f"a question has at most {DEPTH} brackets within brackets")
        try:
            if self._took("key", "not"):
                return Not(self._part())
            if self._took("sign", "("):
                question = self._or()
                self._want(")")
                return question
            return self._compare()
        finally:
            self.depth -= 1

    def _want(self, sign: str) -> None:
        token = self._next()
        if (token.kind, token.text) != ("sign", sign):
            raise self._wrong(token, repr(sign))

    def _compare(self) -> Compare:
        token = self._next()
        if token.kind != "word" or _FIELD.fullmatch(token.text) is None:
            raise self._wrong(token, "the name of a field")
        field, operator = token.text, self._next()
        if operator.kind == "sign" and operator.text in _SIGNS:
            return Compare(field, operator.text, (self._value(),))
        if operator.kind == "key" and operator.text in ("has", "like"):
            place = self.tokens[self.at]
            value = self._value()
            if operator.text == "like" and not isinstance(value, str):
                raise self._wrong(place, "a text")
            return Compare(field, operator.text, (value,))
        if operator.kind == "key" and operator.text == "in":
            self._want("(")
            values = [self._value()]
            while self._took("sign", ","):
                values.append(self._value())
            self._want(")")
            return Compare(field, "in", tuple(values))
        raise self._wrong(operator, "one of = != < <= > >= in has like")

    def _value(self) -> Value:
        token = self._next()
        if token.kind == "quoted":
            return token.text
        if token.kind != "word":
            raise self._wrong(token, "a number, a text, true or false")
        if token.text.lower() in ("true", "false"):
            return token.text.lower() == "true"
        if _NUMBER.fullmatch(token.text):
            number = float(token.text)
            if number in (float("inf"), float("-inf")):
                raise self._wrong(token, "a number that fits a double")
            return number
        return token.text
