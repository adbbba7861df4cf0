"""Which sum of TMVA's gives the outputs of a graph with one forest (`modelhub.graph.forest_sums`).

What TMVA can say (MethodBDT: GetMvaValue, GetRegressionValues, GetMulticlassValues), s being the sum of the trees::

    sigmoid(m), alone or as [1 - p, p]    Grad classification of s = m / 2, whose response tanh(s) is 2 p - 1
    tanh(m)                               Grad classification
    softmax(m)                            Grad multiclass: tree k belongs to class k modulo the number of classes
    [1 - p, p] of a mean p                AdaBoost classification with purities for leaves: their weighted mean
    m                                     Grad regression

All else is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.forest import tree_of
from modelhub.graph.forest_sums import Sums, refusal, sums_of
from modelhub_tmva.answer import COMPLEMENT, PROBABILITIES, PROBABILITY, RESPONSE
from modelhub_tmva.setup import CLASSIFICATION, MULTICLASS, REGRESSION

__all__ = ["FILE", "Lowered", "lowered"]

Array = NDArray[np.float64]

ONE = 1e-9
"""How far shares may be from adding up to 1; they were added in float64."""

FILE = "a TMVA weight file"


@dataclass(frozen=True, eq=False)
class Lowered:
    """What a weight file is to hold.

    sums: of the trees as TMVA adds them, before its own formula.
    kind: what the outputs are, in the words of `answer`.
    """

    analysis: str
    boost: str
    sums: Sums
    kind: str = RESPONSE


def lowered(model: ir.Model) -> Lowered:
    """The BDT that computes what `model` does. Raises `Unsupported` with everything TMVA cannot say."""
    s = sums_of(model, "TMVA", FILE)
    if s.link == "Softmax" and s.outputs > 1 and not s.pair:
        return Lowered(MULTICLASS, "Grad", s)
    if s.link == "Sigmoid" and s.outputs == 1:
        half = replace(s, values=s.values / 2, base=s.base / 2)
        return Lowered(CLASSIFICATION, "Grad", half, PROBABILITIES if s.pair else PROBABILITY)
    if s.link == "Tanh" and s.outputs == 1 and not s.pair:
        return Lowered(CLASSIFICATION, "Grad", s)
    if not s.link and s.outputs == 1:
        return Lowered(CLASSIFICATION, "AdaBoost", s, COMPLEMENT) if s.pair else Lowered(REGRESSION, "Grad", s)
    if not s.link and s.outputs == 2 and _shares(s):
        second = replace(s, values=s.values[:, 1:], base=s.base[1:])
        return Lowered(CLASSIFICATION, "AdaBoost", second, COMPLEMENT)
    how = f"the {s.link.lower()} of " if s.link else ""
    reason = (
        f"it gives {s.outputs} outputs, {how}the sums of its trees; TMVA has several only as softmax of sums, "
        "and one weight file for one output elsewhere. Write ONNX"
    )
    raise refusal(model, FILE, [reason])


def _shares(s: Sums) -> bool:
    """Whether the two outputs are shares that add up to 1 for every event, tree by tree."""
    if s.values.shape[1] != 2:
        return False
    forest = s.forest
    ends = np.flatnonzero(~forest.splits)
    total, tree = s.values[forest.leaf[ends]].sum(axis=1), tree_of(forest)[ends]
    low, high = np.full(forest.trees, np.inf), np.full(forest.trees, -np.inf)
    np.minimum.at(low, tree, total)
    np.maximum.at(high, tree, total)
    return bool((high - low).sum() <= ONE and abs(high.sum() + s.base.sum() - 1) <= ONE)
