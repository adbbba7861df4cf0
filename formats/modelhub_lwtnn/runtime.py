"""lwtnn files in the numpy evaluator of `engine.py`, asked by the tensors of an interface record.

A file may be the source of the record or be written from it, and the user may have renamed things in between: inputs,
variables, outputs and labels are matched by name where all names are known, else by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelhub import __version__
from modelhub.errors import Inconclusive, safe_text
from modelhub.graph.interface import Input, Interface, Output
from modelhub_lwtnn.engine import evaluate
from modelhub_lwtnn.parse import read
from modelhub_lwtnn.schema import Array, GraphNetwork, Group
from modelhub_lwtnn.wiring import SERIES, VECTOR, Answer, answers, as_graph

if TYPE_CHECKING:
    from modelhub.protocols import Arrays

__all__ = ["NumpyEngine", "load"]


def load(path: Path, interface: Interface, precision: str) -> NumpyEngine:
    """The network in `path`, asked by `interface`. Raises `Inconclusive` where the two do not fit together."""
    if precision != "float64":
        raise Inconclusive(f"lwtnn computes in float64 only, not in {precision}")
    return NumpyEngine(as_graph(read(path)), interface)


@dataclass(frozen=True)
class _Feed:
    """What fills a group of the file: the columns of a tensor, and whether the file leaves their scaling to us."""

    record: Input
    columns: list[int]
    bare: bool


class NumpyEngine:
    """One network, ready to run in float64."""

    name = "modelhub lwtnn evaluator"
    version = __version__
    precision = "float64"

    def __init__(self, network: GraphNetwork, interface: Interface) -> None:
        self._network = network
        self._interface = interface
        records = [r for r in interface.inputs if not r.sequence]
        series = [r for r in interface.inputs if r.sequence]
        self._vectors = _feeds(network.inputs, records, "scalar inputs")
        self._sequences = _feeds(network.input_sequences, series, "input sequences")
        self._answers = _asked(network, interface.outputs)
        self._columns = [
            _columns(output.labels or answer.labels, answer.labels, f"output {safe_text(output.name)}")
            for output, answer in zip(interface.outputs, self._answers, strict=True)
        ]

    def __call__(self, arrays: Arrays) -> Arrays:
        """Outputs by tensor name, float64: [N, components], [N, T, components] for sequences.

        `arrays` are the raw inputs by tensor name. Raises `Inconclusive` where lwtnn itself refuses the values.
        """
        results = evaluate(
            self._network,
            [self._fill(feed, arrays) for feed in self._vectors],
            [self._fill(feed, arrays) for feed in self._sequences],
            self._answers,
        )
        outputs = zip(self._interface.outputs, results, self._columns, strict=True)
        return {output.tensor: result[..., columns] for output, result, columns in outputs}

    def _fill(self, feed: _Feed, arrays: Arrays) -> Array:
        tensor = feed.record.tensor
        if tensor not in arrays:
            raise Inconclusive(f"no array is given for the input {safe_text(tensor)}")
        x = np.asarray(arrays[tensor], dtype=np.float64)
        if feed.record.sequence and x.ndim == 2 and len(feed.record.features) == 1:
            x = x[..., np.newaxis]  # [events, steps]: a sequence of one variable
        wanted = 3 if feed.record.sequence else 2
        if x.ndim != wanted or x.shape[-1] != len(feed.record.features):
            raise Inconclusive(f"the array for {safe_text(tensor)} has shape {x.shape}, which is not the record's")
        if feed.bare and feed.record.scaled:
            x = np.asarray(self._interface.prepare({tensor: x}, "float64")[tensor], dtype=np.float64)
        return x[..., feed.columns]


def _feeds(groups: Sequence[Group], records: Sequence[Input], what: str) -> list[_Feed]:
    """What fills each of `groups`."""
    by_name = {record.name: record for record in records}
    if (
        len(by_name) == len(records)
        and len({g.name for g in groups}) == len(groups)
        and {g.name for g in groups} <= set(by_name)
    ):
        chosen = [by_name[group.name] for group in groups]
    elif len(groups) == len(records):
        chosen = list(records)
    else:
        raise Inconclusive(f"the file has {len(groups)} {what}, the interface {len(records)}")
    feeds = []
    for group, record in zip(groups, chosen, strict=True):
        have, want = [f.name for f in record.features], [f.name for f in group.variables]
        bare = all((f.offset, f.scale, f.default) == (0.0, 1.0, None) for f in group.variables)
        feeds.append(_Feed(record, _columns(want, have, f"input {safe_text(group.name)}"), bare))
    return feeds


def _columns(want: Sequence[str], have: Sequence[str], what: str) -> list[int]:
    """Where in `have` the names of `want` stand: by name where all are known, else one for one."""
    if len(set(have)) == len(have) and set(want) <= set(have):
        place = {name: index for index, name in enumerate(have)}
        return [place[name] for name in want]
    if len(want) == len(have):
        return list(range(len(have)))
    raise Inconclusive(f"{what}: the file and the interface disagree, {len(want)} against {len(have)} components")


def _asked(network: GraphNetwork, outputs: Sequence[Output]) -> list[Answer]:
    """The answer that each of `outputs` means."""
    available = answers(network)
    named = [_named(network, available, output) for output in outputs]
    found = [answer for answer in named if answer is not None]
    if len(found) == len(outputs):
        return found
    if [a.sequence for a in available] == [o.sequence for o in outputs]:
        return available
    nodes = list(network.outputs.values())
    kinds = [SERIES if output.sequence else VECTOR for output in outputs]
    if len(nodes) == len(outputs) and all(
        network.nodes[node.node].type in kind for node, kind in zip(nodes, kinds, strict=True)
    ):
        return [
            Answer(output.name, node.labels, node.node, sequence=output.sequence)
            for output, node in zip(outputs, nodes, strict=True)
        ]
    names = ", ".join(safe_text(answer.name) for answer in available)
    raise Inconclusive(
        f"the file answers {names}; the interface asks for {', '.join(safe_text(o.name) for o in outputs)}"
    )


def _named(network: GraphNetwork, available: Sequence[Answer], output: Output) -> Answer | None:
    """The answer of the name of `output` and its kind."""
    for answer in available:
        if (answer.name, answer.sequence) == (output.name, output.sequence):
            return answer
    same = network.outputs.get(output.name)
    if same is None or network.nodes[same.node].type not in (SERIES if output.sequence else VECTOR):
        return None
    return Answer(output.name, same.labels, same.node, sequence=output.sequence)
