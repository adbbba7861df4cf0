"""What an ONNX value means to the writer of lwtnn files, and the table of functions that lower operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelhub_lwtnn.schema import Array

if TYPE_CHECKING:
    from modelhub_lwtnn.op import Op

__all__ = [
    "RULES",
    "Category",
    "Integers",
    "Mark",
    "Meaning",
    "Poisoned",
    "Record",
    "Refusal",
    "Rule",
    "Stack",
    "lowers",
]


@dataclass(frozen=True)
class Record:
    """What an ONNX value is: some columns of a step, with a meaning for each axis.

    axes: of "batch", "time", "feature", "one" (an axis of length 1), and "time*feature" or "feature*time" (both of a
          sequence of fixed length in one axis). Without a feature axis there is one column.
    columns: which features of the step, in order; None for all as they are.
    """

    step: int
    axes: tuple[str, ...]
    columns: tuple[int, ...] | None = None

    @property
    def sequence(self) -> bool:
        """Whether there are steps in time."""
        return any("time" in axis for axis in self.axes)


@dataclass(frozen=True)
class Integers:
    """A record truncated to integers: good as an index, and for nothing else lwtnn knows."""

    record: Record


@dataclass(frozen=True)
class Stack:
    """Records of the same shape one after the other along `axis`: the last states of several layers, in torch."""

    records: tuple[Record, ...]
    axis: int


@dataclass(frozen=True)
class Mark:
    """What a mask leaves behind: "lengths" or "slots" of steps that lwtnn never gets to see."""

    what: str


@dataclass(frozen=True, eq=False)
class Category:
    """A column of integers of a sequence, looked up in a table [categories, n_out]. `record.axes` are the result's."""

    record: Record
    table: Array

    @property
    def axes(self) -> tuple[str, ...]:
        """Meaning of each axis, as in `Record`."""
        return self.record.axes

    @property
    def column(self) -> int:
        """Which feature of the step holds the integers."""
        return self.record.columns[0] if self.record.columns is not None else 0


Meaning = Record | Integers | Stack | Mark | Category


class Refusal(Exception):
    """lwtnn cannot say this; the text is the reason and the nearest form that fits."""


class Poisoned(Exception):
    """An input of the operator was refused already: nothing more to tell here."""


@dataclass(frozen=True)
class Rule:
    """How an operator is lowered."""

    lower: Callable[[Op], Meaning | Sequence[Meaning | None]]
    reads: tuple[int, ...] | None
    """Which inputs hold data of the network; None for all. The others are read as constants, or not at all."""


RULES: dict[tuple[str, str], Rule] = {}


def lowers(
    *op_types: str, domain: str = "", reads: tuple[int, ...] | None = None
) -> Callable[[Callable[[Op], Any]], Callable[[Op], Any]]:
    """Register a function for operators; `reads` are the inputs that hold data of the network, None for all."""

    def register(function: Callable[[Op], Any]) -> Callable[[Op], Any]:
        for op_type in op_types:
            RULES[domain, op_type] = Rule(function, reads)
        return function

    return register
