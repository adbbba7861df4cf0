"""Symbolic sizes of tensors: integers, and polynomials in the names of dynamic axes.

`torch.export` records a size as an integer or as the `repr` of a sympy expression. Such text is read here by a
small grammar; it never reaches `sympify`, which evaluates what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

__all__ = [
    "Call",
    "Expr",
    "Size",
    "add",
    "divide",
    "evaluate",
    "floordiv",
    "mod",
    "mul",
    "parse",
    "product",
    "rename",
    "symbol",
    "symbols",
]


@dataclass(frozen=True)
class Call:
    """A function of sizes that is no polynomial: `FloorDiv`, `Mod`, `Max` or `Min` of two arguments."""

    name: str
    args: tuple[Size, Size]

    def __str__(self) -> str:
        return f"{self.name}({self.args[0]}, {self.args[1]})"


Atom: TypeAlias = "str | Call"
Monomial: TypeAlias = "tuple[Atom, ...]"


@dataclass(frozen=True)
class Expr:
    """A sum of terms coefficient · atom · atom ..., sorted, so that equal polynomials compare equal."""

    terms: tuple[tuple[Monomial, int], ...]

    def __str__(self) -> str:
        def term(monomial: Monomial, factor: int) -> str:
            names = [str(atom) for atom in monomial]
            return "*".join(names if factor == 1 and names else [str(factor), *names])

        return " + ".join(term(*t) for t in self.terms)


Size: TypeAlias = "int | Expr"


_TERMS, _DEGREE = 256, 32


def _terms(size: Size) -> dict[Monomial, int]:
    if isinstance(size, int):
        return {(): size} if size else {}
    return dict(size.terms)


def _size(terms: Mapping[Monomial, int]) -> Size:
    left = {monomial: factor for monomial, factor in terms.items() if factor}
    if not left:
        return 0
    if set(left) == {()}:
        return left[()]
    return Expr(tuple(sorted(left.items(), key=lambda t: [str(atom) for atom in t[0]])))


def symbol(name: str) -> Expr:
    """The size that is called `name`."""
    return Expr((((name,), 1),))


def add(a: Size, b: Size) -> Size:
    """The sum a + b."""
    terms = _terms(a)
    for monomial, factor in _terms(b).items():
        terms[monomial] = terms.get(monomial, 0) + factor
    return _size(terms)


def mul(a: Size, b: Size) -> Size:
    """The product a · b. Raises ValueError where it would be absurdly long."""
    terms: dict[Monomial, int] = {}
    lefts, rights = _terms(a), _terms(b)
    degree = max(map(len, lefts), default=0) + max(map(len, rights), default=0)
    if len(lefts) * len(rights) > _TERMS or degree > _DEGREE:
        raise ValueError("the expression is too long")
    for left, x in lefts.items():
        for right, y in rights.items():
            if abs(x * y) >= 1 << 63:
                raise ValueError("the number is too large")
            monomial = tuple(sorted((*left, *right), key=str))
            terms[monomial] = terms.get(monomial, 0) + x * y
    return _size(terms)


def product(sizes: Iterable[Size]) -> Size:
    """The product of `sizes`, 1 when there are none."""
    total: Size = 1
    for size in sizes:
        total = mul(total, size)
    return total


def divide(a: Size, b: Size) -> Size | None:
    """The quotient a / b where b is an integer or one term and divides every term of a; else None."""
    divisor = _terms(b)
    if len(divisor) != 1:
        return 1 if a == b and divisor else None
    ((monomial, factor),) = divisor.items()
    result: dict[Monomial, int] = {}
    for atoms, number in _terms(a).items():
        rest = list(atoms)
        for atom in monomial:
            if atom not in rest:
                return None
            rest.remove(atom)
        if number % factor:
            return None
        result[tuple(rest)] = number // factor
    return _size(result)


def floordiv(a: Size, b: Size) -> Size:
    """The quotient a / b rounded down."""
    if isinstance(a, int) and isinstance(b, int) and b:
        return a // b
    exact = divide(a, b)
    return exact if exact is not None else Expr((((Call("FloorDiv", (a, b)),), 1),))


def mod(a: Size, b: Size) -> Size:
    """The remainder of a / b."""
    if isinstance(a, int) and isinstance(b, int) and b:
        return a % b
    return 0 if divide(a, b) is not None else Expr((((Call("Mod", (a, b)),), 1),))


def _extreme(name: str, choose: Callable[[int, int], int]) -> Callable[[Size, Size], Size]:
    def extreme(a: Size, b: Size) -> Size:
        if isinstance(a, int) and isinstance(b, int):
            return choose(a, b)
        return a if a == b else Expr((((Call(name, (a, b)),), 1),))

    return extreme


maximum = _extreme("Max", max)
minimum = _extreme("Min", min)


def evaluate(size: Size, values: Mapping[str, int]) -> int | None:
    """The number `size` is when every symbol has its value; None when one has none."""
    if isinstance(size, int):
        return size
    total = 0
    for monomial, factor in size.terms:
        for atom in monomial:
            number = values.get(atom) if isinstance(atom, str) else _evaluate_call(atom, values)
            if number is None:
                return None
            factor *= number
        total += factor
    return total


def _evaluate_call(call: Call, values: Mapping[str, int]) -> int | None:
    a, b = (evaluate(arg, values) for arg in call.args)
    if a is None or b is None or (call.name in ("FloorDiv", "Mod") and b == 0):
        return None
    return {"FloorDiv": lambda: a // b, "Mod": lambda: a % b, "Max": lambda: max(a, b), "Min": lambda: min(a, b)}[
        call.name
    ]()


def symbols(size: Size) -> set[str]:
    """The names in `size`."""
    found: set[str] = set()
    for monomial in _terms(size):
        for atom in monomial:
            found |= {atom} if isinstance(atom, str) else symbols(atom.args[0]) | symbols(atom.args[1])
    return found


def rename(size: Size, names: Mapping[str, Size]) -> Size:
    """`size` with symbols replaced."""
    if isinstance(size, int):
        return size
    total: Size = 0
    for monomial, factor in size.terms:
        term: Size = factor
        for atom in monomial:
            if isinstance(atom, str):
                term = mul(term, names.get(atom, symbol(atom)))
            else:
                term = mul(term, FUNCTIONS[atom.name](rename(atom.args[0], names), rename(atom.args[1], names)))
        total = add(total, term)
    return total


FUNCTIONS: dict[str, Callable[[Size, Size], Size]] = {
    "Add": add,
    "Mul": mul,
    "FloorDiv": floordiv,
    "CleanDiv": floordiv,
    "Mod": mod,
    "PythonMod": mod,
    "Max": maximum,
    "Min": minimum,
}
"""Names of functions in recorded expressions (torch/utils/_sympy/functions.py and sympy's own)."""

_TOKEN = re.compile(r"\s*(?:\d{1,18}|[A-Za-z_]\w{0,63}|'[A-Za-z_]\w{0,63}'|//|\*\*|[-+*%(),=])", re.A)
_LONGEST, _DEEPEST = 4000, 40


class _Parser:
    """Recursive descent: sum := product (+|- product)*, product := power (*|//|% power)*, power := atom [** int]."""

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST:
            raise ValueError("too long")
        self.tokens: list[str] = []
        at = 0
        text = text.strip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ValueError(f"unexpected character at {at}")
            self.tokens.append(match.group().strip())
            at = match.end()
        self.at = 0
        self.depth = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise ValueError(f"{expected or 'more'} expected")
        self.at += 1
        return token

    def sum(self) -> Size:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError("nested too deeply")
        total = self.product()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            total = add(total, mul(sign, self.product()))
        self.depth -= 1
        return total

    def product(self) -> Size:
        value = self.power()
        while self.peek() in ("*", "//", "%"):
            operator = self.take()
            value = {"*": mul, "//": floordiv, "%": mod}[operator](value, self.power())
        return value

    def power(self) -> Size:
        value = self.atom()
        if self.peek() == "**":
            self.take()
            value = _power(value, self.atom())
        return value

    def atom(self) -> Size:
        token = self.take()
        if token.isdigit():
            return int(token)
        if token == "-":
            return mul(-1, self.power())
        if token == "(":
            value = self.sum()
            self.take(")")
            return value
        if not (token[0].isalpha() or token[0] == "_"):
            raise ValueError(f"unexpected {token}")
        return self.call(token) if self.peek() == "(" else symbol(token)

    def call(self, name: str) -> Size:
        self.take("(")
        if name == "Symbol":
            return self.symbol()
        args = [self.sum()]
        while self.peek() == ",":
            self.take()
            args.append(self.sum())
        self.take(")")
        if name == "Integer" and len(args) == 1:
            return args[0]
        if name == "Pow" and len(args) == 2:
            return _power(*args)
        if name not in FUNCTIONS or len(args) < 2 or (name not in ("Add", "Mul", "Max", "Min") and len(args) > 2):
            raise ValueError(f"{name} of {len(args)} is unknown")
        return reduce(FUNCTIONS[name], args)

    def symbol(self) -> Size:
        """The rest of Symbol('s72', positive=True, integer=True)."""
        name = self.take()
        if name[0] != "'":
            raise ValueError("a quoted name expected")
        while self.peek() == ",":
            self.take()
            self.take()
            self.take("=")
            if self.take() not in ("True", "False"):
                raise ValueError("True or False expected")
        self.take(")")
        return symbol(name[1:-1])


def _power(base: Size, exponent: Size) -> Size:
    if not isinstance(exponent, int) or not 0 <= exponent <= 8:
        raise ValueError("the exponent must be a small integer")
    return product([base] * exponent)


def parse(text: str) -> Size:
    """The size written in `text`, e.g. ``"Mul(Integer(2), Symbol('s0', integer=True))"`` or ``"2*s0 + 1"``.

    Raises ValueError for anything outside the grammar.
    """
    parser = _Parser(text)
    value = parser.sum()
    if parser.peek():
        raise ValueError(f"unexpected {parser.peek()}")
    return value
