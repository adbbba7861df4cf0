"""What an interface record asks of an lwtnn file: which arrays fill its inputs, and which of its nodes answer.

A file may be the source of the record or be written from it, and the user may have renamed things in between: inputs,
variables, outputs and labels are matched by name where all names are known, else by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from modelhub.errors import Inconclusive, safe_text
from modelhub.graph.interface import Input, Interface, Output
from modelhub_lwtnn.schema import Array, GraphNetwork, Group
from modelhub_lwtnn.wiring import SERIES, VECTOR, Answer, answers

if TYPE_CHECKING:
    from modelhub.protocols import Arrays

__all__ = ["Questions"]


@dataclass(frozen=True)
class _Feed:
    """What fills a group of the file: the columns of a tensor, and whether the file leaves their scaling to us."""

    record: Input
    columns: list[int]
    bare: bool


class Questions:
    """The way from the tensors of a record into `network` and back. Raises `Inconclusive` where they do not fit."""

    def __init__(self, network: GraphNetwork, interface: Interface) -> None:
        self._interface = interface
        records = [r for r in interface.inputs if not r.sequence]
        series = [r for r in interface.inputs if r.sequence]
        self._vectors = _feeds(network.inputs, records, "scalar inputs")
        self._sequences = _feeds(network.input_sequences, series, "input sequences")
        self.wanted = _asked(network, interface.outputs)
        """The answers that the outputs of the record mean, in their order."""
        self._columns = [
            _columns(output.labels or answer.labels, answer.labels, f"output {safe_text(output.name)}")
            for output, answer in zip(interface.outputs, self.wanted, strict=True)
        ]

    def inputs(self, arrays: Arrays) -> tuple[list[Array], list[Array]]:
        """The raw inputs of the file, scalars and sequences, from those of the record."""
        return [self._fill(f, arrays) for f in self._vectors], [self._fill(f, arrays) for f in self._sequences]

    def outputs(self, results: Sequence[Array]) -> dict[str, Array]:
        """The outputs of the record by tensor, from the answers to `wanted`."""
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
