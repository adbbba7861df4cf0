"""The parts of a report, read from its JSON as it was stored: parties, legs, cases, coverage.

The readers raise KeyError, TypeError or ValueError for what is not as the schema says; `view.View` makes one of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Case",
    "Coverage",
    "Leaves",
    "Leg",
    "Party",
    "Row",
    "read_coverage",
    "read_events",
    "read_feature",
    "read_leaves",
    "read_leg",
    "read_party",
    "read_text",
]


@dataclass(frozen=True)
class Party:
    """One side of the check."""

    role: str
    format: str
    file: str
    sha256: str
    engines: tuple[str, ...]
    missing: str


@dataclass(frozen=True)
class Row:
    """One event that is among the worst of a leg, or undecidable."""

    probe: str
    event: int
    place: str
    a: float
    b: float
    difference: float
    tolerance: float
    inputs: Any
    """Tensor name -> its numbers, nested as they went in; None where they are too many."""


@dataclass(frozen=True)
class Case:
    """One probe on one leg: its worst output."""

    probe: str
    length: int | None
    events: int
    place: str
    """Output and component, as in ``tagger[2]``."""
    event: int
    a: float
    b: float
    difference: float
    tolerance: float
    ratio: float
    """Difference over tolerance, the worst of the probe."""
    limit: float
    """The ratio at which rounding cannot explain the difference; between 1 and it a probe is suspect."""
    undecidable: int
    """Events so near a hard decision that rounding may turn them: counted, not failed."""
    undecided: tuple[Row, ...] = ()
    """The first of these."""

    @property
    def name(self) -> str:
        """The probe, and the length of its sequences."""
        return self.probe + _steps(self.length)

    @property
    def verdict(self) -> str:
        """identical, equivalent, suspect or different."""
        if not self.ratio <= self.limit:
            return "different"
        if self.ratio > 1:
            return "suspect"
        return "identical" if self.difference == 0 else "equivalent"


@dataclass(frozen=True)
class Leaves:
    """The leaves of trees in which two parties put the rows."""

    rows: int
    trees: int
    elsewhere: int
    """How many times, over rows and trees, the second has a row in another leaf."""
    cases: tuple[str, ...]
    """Some of these in words."""

    @property
    def told(self) -> str:
        """In one line."""
        found = f"{self.elsewhere:,} times in another leaf" if self.elsewhere else "always in the same leaf"
        return f"{self.rows:,} rows in {self.trees:,} tree{'' if self.trees == 1 else 's'}, {found}"


@dataclass(frozen=True)
class Leg:
    """Two parties on every probe, at one precision."""

    between: tuple[str, str]
    precision: str
    verdict: str
    missing: str
    cases: tuple[Case, ...]
    ulps: tuple[int, ...]
    """How many numbers lie 0, 1, 2-3, 4-7, ... units in the last place apart."""
    scatter: tuple[tuple[float, float], ...]
    """Size of an output and its difference over tolerance, a sample."""
    rows: tuple[Row, ...]
    engine: str = ""
    """The engine of the second party, where several of its are compared at this precision."""
    bands: tuple[tuple[float, float], ...] = ()
    """With a preset: a difference, and the share of events with an output that differs by more."""
    leaves: Leaves | None = None
    """None where an engine does not tell."""
    number: int = 1
    """Counts legs of the same parties, engine and precision, which older reports have."""

    @property
    def name(self) -> str:
        """The two roles, as waivers call them: ``source-target``."""
        return "-".join(self.between)

    @property
    def title(self) -> str:
        """The leg with its engine, where that is told, and its precision: no two legs share it."""
        return f"{' – '.join(self.between)}, {self.run}"

    @property
    def run(self) -> str:
        """Engine, where that is told, and precision."""
        run = f"{self.engine}, {self.precision}" if self.engine else self.precision
        return run if self.number == 1 else f"{run} ({self.number})"

    def told(self, number: float) -> str:
        """An output in as many digits as it has at the leg's precision."""
        return f"{number:.9g}" if self.precision == "float32" else f"{number:.17g}"

    @property
    def worst(self) -> Case | None:
        """The case that is worst against its tolerance."""
        return max(self.cases, key=lambda case: case.ratio, default=None)

    @property
    def max_ulp(self) -> int | None:
        """The largest distance in units in the last place, to a power of two: the lower edge of its bin."""
        filled = [place for place, count in enumerate(self.ulps) if count]
        return None if not filled else (0 if filled[-1] == 0 else 2 ** (filled[-1] - 1))


@dataclass(frozen=True)
class Coverage:
    """What the probes reached of something: nodes, leaves, units of a layer."""

    what: str
    reached: int | None
    of: int | None
    floor: float

    @property
    def share(self) -> float | None:
        """Between 0 and 1; None where the report gives words only (its first version)."""
        return None if self.reached is None or self.of is None else (self.reached / self.of if self.of else 1.0)

    @property
    def low(self) -> bool:
        """Whether it is below its floor."""
        return self.share is not None and self.share < self.floor


def _steps(length: int | None) -> str:
    """The length of a probe's sequences, in words that follow its name."""
    return "" if length is None else f", {length} step{'' if length == 1 else 's'}"


def read_party(role: str, data: dict[str, Any]) -> Party:
    """A party; its second file is told beside the first."""
    file, sha256 = read_text(data["file"]), read_text(data["sha256"])
    if "weights" in data:
        file += f" + {read_text(data['weights']['file'])}"
        sha256 += f" + {read_text(data['weights']['sha256'])}"
    engines = tuple(map(read_text, data["engines"]))
    return Party(read_text(role), read_text(data["format"]), file, sha256, engines, read_text(data.get("missing", "")))


def read_leg(data: dict[str, Any]) -> Leg:
    """A leg; one of the first version has no histogram, sample or rows."""
    between = (read_text(data["between"][0]), read_text(data["between"][1]))
    precision = read_text(data["precision"])
    return Leg(
        between,
        precision,
        read_text(data["verdict"]),
        read_text(data.get("missing", "")),
        tuple(map(_case, data["probes"])),
        tuple(map(int, data.get("ulps", []))),
        tuple((_number(size), _number(ratio)) for size, ratio in data.get("scatter", [])),
        tuple(_row(row) for row in data.get("rows", [])),
        read_text(data.get("engine", "")),
        tuple((_number(limit), _number(share)) for limit, share in data.get("bands", [])),
        read_leaves(data["leaves"]) if "leaves" in data else None,
    )


def read_leaves(data: dict[str, Any]) -> Leaves:
    """What a leg says of leaves."""
    return Leaves(int(data["rows"]), int(data["trees"]), int(data["elsewhere"]), tuple(map(_stray, data["cases"])))


def _stray(data: dict[str, Any]) -> str:
    probe = read_text(data["probe"]) + _steps(None if data["length"] is None else int(data["length"]))
    return (
        f"tree {int(data['tree'])}, {probe}, event {int(data['event'])}: leaf {int(data['a'])} against "
        f"{int(data['b'])}, where other rows come from leaf {int(data['usual'])}"
    )


def _case(data: dict[str, Any]) -> Case:
    difference, tolerance = _number(data["difference"]), _number(data["tolerance"])
    ratio = _number(data["ratio"]) if "ratio" in data else _over(difference, tolerance)
    return Case(
        read_text(data["probe"]),
        None if data["length"] is None else int(data["length"]),
        int(data["events"]),
        _place(data),
        int(data["event"]),
        _number(data["a"]),
        _number(data["b"]),
        difference,
        tolerance,
        ratio,
        _number(data.get("limit", 1.0)),
        int(data.get("undecidable", 0)),
        tuple(_row({**data, **event}) for event in data.get("undecided", [])),
    )


def _over(difference: float, tolerance: float) -> float:
    if difference == 0:
        return 0.0
    return difference / tolerance if tolerance > 0 else math.inf


def _row(data: dict[str, Any]) -> Row:
    return Row(
        read_text(data["probe"]) + _steps(None if data.get("length") is None else int(data["length"])),
        int(data["event"]),
        _place(data),
        _number(data["a"]),
        _number(data["b"]),
        _number(data["difference"]),
        _number(data["tolerance"]),
        data.get("inputs"),
    )


def read_coverage(data: Any) -> Coverage:
    """A figure of coverage; the first version has a sentence."""
    if isinstance(data, str):
        return Coverage(read_text(data), None, None, 0.0)
    return Coverage(read_text(data["what"]), int(data["reached"]), int(data["of"]), _number(data.get("floor") or 0.0))


def read_events(data: dict[str, Any]) -> tuple[str, ...]:
    """The real events that were run, in words."""
    left_out = (f"{int(count):,} events: {read_text(reason)}" for reason, count in data["left_out"].items())
    return (
        f"{read_text(data['file'])}: {int(data['events']):,} events, {read_text(data['content'])}",
        *map(read_text, data["conversions"]),
        *left_out,
    )


def read_feature(data: dict[str, Any]) -> tuple[str, str, str, str]:
    """Name, offset, scale and default of a variable, as they are shown."""
    default = data.get("default")
    return (
        read_text(data["name"]),
        f"{_number(data['offset']):.9g}",
        f"{_number(data['scale']):.9g}",
        "" if default is None else f"{_number(default):.9g}",
    )


def _place(data: dict[str, Any]) -> str:
    return read_text(data["output"]) + "".join(f"[{int(i)}]" for i in data["component"])


def read_text(value: Any) -> str:
    """A text, with what a terminal would obey escaped."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} where a text should be")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in value)


def _number(value: Any) -> float:
    if isinstance(value, str) and value not in ("nan", "inf", "-inf"):
        raise ValueError(f"{value!r:.40} where a number should be")
    return float(value)
