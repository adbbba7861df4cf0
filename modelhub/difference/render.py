"""What `modelhub diff` found, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelhub.equivalence.render import show as show_report
from modelhub.equivalence.render import summary
from modelhub.errors import safe_text
from modelhub.graph.interface import Interface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelhub.difference.bisect import Match
    from modelhub.difference.diff import Diff
    from modelhub.difference.layers import Layers
    from modelhub.difference.minimise import Minimal, Place

__all__ = ["show", "to_json"]

HUGE = 1e30
"""Numbers that only stand for a decision, in trees as lwtnn has them, are larger."""

SHOWN, SOME = 8, 3
"""How many lines of one kind are shown before the rest is counted; of numbers, where the cause is known."""


def show(found: Diff) -> None:
    """The finding on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if found.report is not None:
        show_report(found.report)
        said = f"the graphs of both files agree on {found.probes} probes"
        if found.missing and not found.probes:
            said = f"the graphs of the files cannot be followed node by node ({'; '.join(found.missing)})"
        console.print(f"{said}; {summary(found.report)}", markup=False)
    else:
        _show_graphs(console, found)
    for layers in found.layers:
        _show_layers(console, found, layers)
    if found.minimal is not None:
        _show_minimal(console, found, found.minimal)
    if found.answers:
        console.print("\nwhat each engine answers to it", style="bold")
        apart, spelling = _apart_in(found.answers)
        told = [
            (who, safe_text(output), " ".join(format(value, spelling) for value in values))
            for who, output, values in found.answers
            if output in apart
        ]
        _rows(console, told)
    for doubt in found.doubts:
        console.print(f"  {doubt}", style="red", markup=False)
    for reason in dict.fromkeys(found.missing if found.probes else ()):
        console.print(f"  not asked: {reason}", style="yellow", markup=False)


def _show_graphs(console: Console, found: Diff) -> None:
    """Where the graphs of the two files part."""
    source, target = safe_text(found.source), safe_text(found.target)
    names = ", ".join(found.failing[:4]) + (", …" if len(found.failing) > 4 else "")
    failing = f"{len(found.failing)} of {found.probes} probes ({names})"
    console.print(f"{target} differs from {source} on {failing}", style="red", markup=False)
    console.print(f"  output {safe_text(found.output)}: {_apart(found.match)}", markup=False)
    if found.place is not None:
        place = found.place
        console.print("\nfirst node that diverges", style="bold")
        source_layer = place.source_layer or "nothing alike"
        _rows(
            console,
            [("target", place.target_layer, place.target_node), ("source", source_layer, place.source_node)],
        )
        agreeing = f"{place.agreeing} of the target's {place.nodes} nodes compute what the source computes"
        known = 0 < place.match.difference < HUGE
        console.print("  " + (f"{_apart(place.match)}; " if known else "") + agreeing, markup=False)
    _list(console, "likely cause", found.causes)
    _list(console, "names and labels", found.record)
    _list(console, "numbers that differ", found.parameters, SOME if found.causes else SHOWN)


def _show_layers(console: Console, found: Diff, layers: Layers) -> None:
    """Whether the graph speaks for its file; if not, from which layer on."""
    file = safe_text(found.source if layers.role == "source" else found.target)
    parting = layers.parting
    if parting is None:
        count = (
            f"{layers.agreeing} of {layers.compared}" if layers.agreeing < layers.compared else f"all {layers.compared}"
        )
        console.print(f"\n{file} in {layers.engine} and as modelhub reads it: {count} layers agree", markup=False)
        return
    console.print(f"\nfirst layer in which {layers.engine} and the graph read from {file} part", style="bold red")
    _rows(console, [("layer", parting.where), ("graph", _some(parting.nodes) or "has no node for it")])
    agreeing = f"{layers.agreeing} of {layers.compared} layers that were compared agree"
    console.print(f"  {_apart(parting.match)}; {agreeing}", markup=False)
    console.print(
        "  modelhub's graph is not what the file's own framework computes: no converter is at fault", markup=False
    )
    rest = "agrees" if parting.alone else "still differs: there are more faults behind it"
    console.print(f"  given the numbers of {layers.engine} here, the rest of the graph {rest}", markup=False)
    _list(console, "likely cause", parting.hints)


def _apart_in(answers: Sequence[tuple[str, str, list[float]]]) -> tuple[set[str], str]:
    """The outputs in which the first answer and the last differ visibly, and how to spell them.

    Source and target these are, or an engine and its graph. Where no output differs visibly: all, with every digit.
    """
    by_output: dict[str, list[list[float]]] = {}
    for _, output, values in answers:
        by_output.setdefault(output, []).append(values)
    apart = {
        output
        for output, said in by_output.items()
        if len(said[0]) != len(said[-1]) or not np.allclose(said[0], said[-1], rtol=1e-6, atol=0, equal_nan=True)
    }
    return (apart, ".7g") if apart else (set(by_output), "")


def _some(operators: Sequence[str]) -> str:
    return " ".join(operators[:SHOWN]) + (f" and {len(operators) - SHOWN} more" if len(operators) > SHOWN else "")


def _rows(console: Console, rows: Sequence[tuple[str, ...]]) -> None:
    """Rows in columns, as wide as they are: a terminal wraps them, a log keeps them whole."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = "  ".join(cell.ljust(width) for cell, width in zip(others, widths[1:], strict=True))
        console.print(Text(f"  {first.ljust(widths[0])}", style="bold"), Text(cells.rstrip()), sep="  ")


def _apart(match: Match) -> str:
    if not np.isfinite(match.difference):
        return "a number on one side, none on the other"
    return f"largest difference {match.difference:.3g}, rounding explains {match.tolerance:.1e}"


def _list(console: Console, title: str, lines: Sequence[str], most: int = SHOWN) -> None:
    if not lines:
        return
    console.print(f"\n{title}", style="bold")
    for line in lines[:most]:
        console.print(f"  {line}", markup=False)
    if len(lines) > most:
        console.print("  and more" if lines[-1].startswith("and ") else f"  and {len(lines) - most} more")


def _show_minimal(console: Console, found: Diff, minimal: Minimal) -> None:
    console.print("\nsmallest input that shows it", style="bold")
    steps = [x.shape[0] for x in minimal.fails.values() if x.ndim == 2]
    length = f", {steps[0]} step{'s' * (steps[0] != 1)}" if steps else ""
    if minimal.passes is None:
        console.print(f"  any: zeros will do{length}")
        return
    record = Interface.of(found.graphs[0][1])
    table = Table(box=None, padding=(0, 1, 0, 1))
    for column in ("variable", "differs", "agrees", "turns between"):
        table.add_column(column, style="" if column != "variable" else "bold")
    turns = {place: (bad, good) for place, bad, good in minimal.edges}
    for place in minimal.changed[:SHOWN]:
        bad, good = (x[place[0]][place[1]] for x in (minimal.fails, minimal.passes))
        edge = " and ".join(str(bad.dtype.type(x)) for x in turns[place]) if place in turns else ""
        table.add_row(Text(_named(record, place)), f"{bad:.9g}", f"{good:.9g}", edge)
    console.print(table)
    if len(minimal.changed) > SHOWN:
        console.print(f"  and {len(minimal.changed) - SHOWN} more")
    others = sum(x.size for x in minimal.fails.values()) - len(minimal.changed)
    if others:
        console.print(f"  the other {others} numbers are those of an event that agrees{length}")


def _named(record: Interface, place: Place) -> str:
    """A number of an event by its variable and step."""
    tensor, index = place
    entry = record.input(tensor)
    name = entry.features[index[-1]].name if index and index[-1] < len(entry.features) else entry.name
    return safe_text(name) + (f" of step {index[0]}" if len(index) > 1 else "")


def to_json(found: Diff) -> dict[str, Any]:
    """The finding as JSON; "version" is that of this layout."""
    data: dict[str, Any] = {
        "version": 1,
        "verdict": found.verdict,
        "source": found.source,
        "target": found.target,
        "precision": found.precision,
        "probes": found.probes,
        "failing": list(found.failing),
    }
    data["layers"] = [_layers(layers) for layers in found.layers]
    if found.report is not None:
        data["report"] = found.report.to_json()
    else:
        data |= {"output": found.output, "difference": _match(found.match)}
        data |= {"causes": list(found.causes), "record": list(found.record), "parameters": list(found.parameters)}
    if found.place is not None:
        place = found.place
        data["place"] = {
            "target": {"layer": place.target_layer, "node": place.target_node},
            "source": {"layer": place.source_layer, "node": place.source_node},
            "difference": _match(place.match),
            "agreeing": place.agreeing,
            "nodes": place.nodes,
        }
    if found.minimal is not None:
        minimal, record = found.minimal, Interface.of(found.graphs[0][1])
        data["minimal"] = {
            "differs": {name: _numbers(x.tolist()) for name, x in minimal.fails.items()},
            "agrees": None if minimal.passes is None else {k: _numbers(x.tolist()) for k, x in minimal.passes.items()},
            "changed": [_named(record, place) for place in minimal.changed],
            "turns": [
                {"variable": _named(record, p), "differs": bad, "agrees": good} for p, bad, good in minimal.edges
            ],
        }
    data["answers"] = [{"engine": who, "output": name, "values": _numbers(x)} for who, name, x in found.answers]
    data |= {"doubts": list(found.doubts), "missing": list(found.missing)}
    return data


def _layers(layers: Layers) -> dict[str, Any]:
    data: dict[str, Any] = {
        "role": layers.role,
        "engine": layers.engine,
        "compared": layers.compared,
        "agreeing": layers.agreeing,
    }
    if layers.parting is not None:
        parting = layers.parting
        data["parting"] = {
            "result": parting.name,
            "layers": list(parting.layers),
            "nodes": list(parting.nodes),
            "difference": _match(parting.match),
            "hints": list(parting.hints),
            "alone": parting.alone,
        }
    return data


def _match(match: Match) -> dict[str, Any]:
    numbers = {name: _numbers(getattr(match, name)) for name in ("difference", "tolerance", "a", "b")}
    return {**numbers, "at": list(match.place)}


def _numbers(value: Any) -> Any:
    """Numbers as JSON has them; what it has no word for as text."""
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return value if not isinstance(value, float) or np.isfinite(value) else str(value)
