"""Look-ups in tables, as lwtnn can do them: on the last row of a sequence only.

The engine copies the rows below an embedded one wrongly (lwtnn: EmbeddingLayer::scan takes x.cols() for x.rows()), so
that row must be the last. Matrices of zeros and ones move columns there and back, which is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelhub_lwtnn.meaning import Category, Record, Refusal
from modelhub_lwtnn.schema import Embedding, EmbeddingTable

if TYPE_CHECKING:
    from modelhub_lwtnn.op import Op

__all__ = ["embed"]


Atom = tuple[int, ...]
"""A column (c,) of the original sequence, or output i of the look-up number k: (k, i)."""


def embed(op: Op, parts: Sequence[Record | Category]) -> Record:
    """Columns and look-ups of one sequence side by side."""
    steps = {part.record.step if isinstance(part, Category) else part.step for part in parts}
    if len(steps) != 1:
        raise Refusal(
            "joins sequences; lwtnn joins vectors only. Give the index and all other variables in one input sequence, "
            "or write ONNX."
        )
    categories = [part for part in parts if isinstance(part, Category)]
    wanted = _wanted(op, parts)
    sequence = Record(steps.pop(), parts[0].axes)
    have: list[Atom] = [(c,) for c in range(op.width(sequence))]
    for k, category in enumerate(categories):
        later = {(other.column,) for other in categories[k + 1 :]}
        kept = [atom for atom in have if atom in wanted or atom in later]
        sequence = _choose(op, sequence, have, [*kept, (category.column,)])
        table = category.table.T
        layer = Embedding((EmbeddingTable(len(kept), np.ascontiguousarray(table)),))
        length = op.steps[sequence.step].length
        sequence = op.add(
            "sequence", [sequence.step], len(kept) + len(table), sequence.axes, layer=layer, length=length
        )
        have = [*kept, *((k, i) for i in range(len(table)))]
    return _choose(op, sequence, have, wanted)


def _wanted(op: Op, parts: Sequence[Record | Category]) -> list[Atom]:
    """The columns of the result."""
    wanted: list[Atom] = []
    k = 0
    for part in parts:
        if isinstance(part, Category):
            wanted += [(k, i) for i in range(part.table.shape[1])]
            k += 1
        else:
            wanted += [(c,) for c in part.columns or range(op.width(part))]
    return wanted


def _choose(op: Op, sequence: Record, have: list[Atom], wanted: list[Atom]) -> Record:
    """`sequence` with the columns `wanted` of those it has."""
    columns = tuple(have.index(atom) for atom in wanted)
    return op.whole(Record(sequence.step, sequence.axes, columns))
