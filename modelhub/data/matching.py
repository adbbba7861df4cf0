"""Which column of which table feeds which variable: by name, exactly; what is missing is refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelhub.data.table import Table
from modelhub.errors import UsageError, safe_text
from modelhub.graph.interface import Input, Interface

__all__ = ["Feed", "match"]

SHOWN = 30
"""How many names are listed before the rest is counted."""


@dataclass(frozen=True)
class Feed:
    """What fills one input of the model: columns of a table, in the order of the input's variables."""

    record: Input
    table: Table
    columns: tuple[str, ...]
    dtype: np.dtype[np.generic]

    @property
    def conversions(self) -> list[str]:
        """How the file's numbers change on their way in, one line per pair of types; empty where they do not."""
        found: dict[str, list[str]] = {}
        for name in self.columns:
            have = self.table.columns[name].dtype
            if have is not None and have != self.dtype and not np.can_cast(have, self.dtype):
                found.setdefault(f"{have} to {self.dtype}", []).append(safe_text(name))
        return [f"{safe_text(self.record.name)}: {kinds}: {_listed(names)}" for kinds, names in found.items()]

    def to_json(self) -> dict[str, object]:
        """The table, and the columns that are not called as the variables are."""
        names = [f.name for f in self.record.features]
        other = {name: column for name, column in zip(names, self.columns, strict=True) if name != column}
        return {"table": self.table.name, **({"columns": other} if other else {})}


def match(
    tables: Sequence[Table],
    interface: Interface,
    dtypes: Mapping[str, np.dtype[np.generic]],
    chosen: Mapping[str, str],
    columns: Mapping[str, str],
) -> list[Feed]:
    """A feed for every input of `interface`.

    Args:
        tables: what the file holds.
        interface: the record whose variables are looked for.
        dtypes: the element type of each input by tensor.
        chosen: input name -> table name, where the user says so.
        columns: variable (or ``input/variable``) -> column, where the user says so.

    Raises `UsageError` where a variable has no column, with what there is instead.

    """
    _known(chosen, [r.name for r in interface.inputs], "input")
    features = [f.name for r in interface.inputs for f in r.features]
    qualified = [f"{r.name}/{f.name}" for r in interface.inputs for f in r.features]
    _known(columns, [*features, *qualified], "variable")
    feeds = []
    for record in interface.inputs:
        names = [columns.get(f"{record.name}/{f.name}", columns.get(f.name, f.name)) for f in record.features]
        wanted = chosen.get(record.name)
        candidates = [t for t in tables if wanted is None or t.name == wanted]
        table, found = _table(candidates, record, names, invented=interface.invented)
        feeds.append(Feed(record, table, found, dtypes[record.tensor]))
    counts = {feed.table.where: feed.table.events for feed in feeds}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{where} has {count}" for where, count in counts.items())
        raise UsageError(f"the tables hold different numbers of events: {told}")
    return feeds


def _table(
    candidates: Sequence[Table], record: Input, names: Sequence[str], *, invented: bool
) -> tuple[Table, tuple[str, ...]]:
    """The table that holds every one of `names`, and its columns for them."""
    if not names:
        raise UsageError(f"input {safe_text(record.name)} names no variables; give them with --interface")
    fits = [(table, found) for table in candidates if (found := _columns(table, record, names)) is not None]
    if len(fits) > 1:
        fits = [fit for fit in fits if fit[0].name in (record.name, record.tensor)] or fits
    if len(fits) > 1:
        fits = [fit for fit in fits if fit[0].named] or fits
    if len(fits) == 1:
        return fits[0]
    if fits:
        told = ", ".join(safe_text(table.name) for table, _ in fits)
        raise UsageError(
            f"input {safe_text(record.name)} fits more than one table ({told}): "
            f"say which, --data FILE:{safe_text(record.name)}=TABLE"
        )
    raise UsageError(_missing(candidates, record, names, invented=invented))


def _columns(table: Table, record: Input, names: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of `table` that stand for `names`: called so, or so behind the input's name; None if one is missing.

    Columns without names are taken in their order, if there are as many as variables.
    """
    kind = {name for name, column in table.columns.items() if column.sequence == record.sequence and column.dtype}
    if not table.named:
        return tuple(table.columns) if kind and len(table.columns) == len(names) else None
    for prefix in ("", f"{record.name}_", f"{record.name}.", f"{record.name}/{record.name}."):
        if all(prefix + name in kind for name in names):
            return tuple(prefix + name for name in names)
    return None


def _missing(candidates: Sequence[Table], record: Input, names: Sequence[str], *, invented: bool) -> str:
    """What to say of the table that comes closest."""
    title = f"input {safe_text(record.name)}{' (a sequence)' if record.sequence else ''}"
    best = max(candidates, key=lambda t: len(set(names) & set(t.columns)), default=None)
    if best is None:
        return f"{title}: there is no such table"
    if not best.named:
        return (
            f"{title} takes {len(names)} variables; {best.where} has {len(best.columns)} columns without names"
            f"{'' if next(iter(best.columns.values())).sequence == record.sequence else ' of the other kind'}"
        )
    lines = []
    for name in names:
        column = best.columns.get(name)
        if column is None:
            near = _nearest(name, best.columns)
            lines.append(safe_text(name) + (f" (nearest: {safe_text(near)})" if near else ""))
        elif column.dtype is None:
            lines.append(f"{safe_text(name)} (holds {column.type}, not numbers)")
        elif column.sequence != record.sequence:
            lines.append(f"{safe_text(name)} (is {'a sequence' if column.sequence else 'one number per event'})")
    advice = "; the model has no names of its own, give them with --interface" if invented else ""
    return (
        f"{title}: {best.where} has no column for {_listed(lines)}{advice}. "
        f"It holds: {_listed([safe_text(c, 40) for c in best.columns])}. Say --map VARIABLE=COLUMN where a name differs"
    )


def _known(given: Mapping[str, str], names: Sequence[str], what: str) -> None:
    for name in given:
        if name not in names:
            near = _nearest(name, names)
            hint = f"; did you mean {safe_text(near)}?" if near else ""
            raise UsageError(f"the model has no {what} {safe_text(name)!r}{hint}")


def _nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like `name`: but for the case, else by difflib."""
    known = list(names)
    same = [other for other in known if other.lower() == name.lower()]
    return next(iter(same or difflib.get_close_matches(name, known, n=1, cutoff=0.5)), None)


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
