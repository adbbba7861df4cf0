"""MVAUtils's rules in numpy: the reference the graph is checked against, as no MVAUtils runs without Athena.

Node after node by the distance to the right child, as its nodes keep it, and sums in float32 (Forest.icc,
ForestTMVA.cxx, BDT.cxx): from the last tree to the first for the plain sum, from the first on for the others. No
`Forest` is behind it. What both share is the reading of the TTree.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import modelhub
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_mvautils.answers import answer_of, split_task
from modelhub_mvautils.root import stored
from modelhub_mvautils.trees import flavour_of, right_children

if TYPE_CHECKING:
    from modelhub.protocols import Arrays

__all__ = ["Engine", "load"]

Single = NDArray[np.float32]


class Engine:
    """One answer of MVAUtils::BDT."""

    name = "modelhub MVAUtils evaluator"
    version = modelhub.__version__
    precision = "float32"

    def __init__(self, path: Path, interface: Interface, options: ReadOptions) -> None:
        tree, wanted = split_task(options.task)
        self.stored = stored(path, tree)
        self.answer, self.flavour = answer_of(self.stored, wanted), flavour_of(self.stored)
        self.interface = interface
        self.jump = right_children(self.stored) - np.arange(len(self.stored.variable))
        self.roots = np.cumsum(self.stored.sizes) - self.stored.sizes

    def __call__(self, arrays: Arrays) -> Arrays:
        """The answer by the name of the graph's output."""
        (x,) = self.interface.prepare(arrays, self.precision).values()
        with np.errstate(over="ignore", invalid="ignore"):
            result = self._answer(np.asarray(x, np.float32))
        return {self.interface.outputs[0].tensor: result.astype(np.float32)}

    def _answer(self, x: Single) -> Single:
        responses = [self._tree(x, int(root)) for root in self.roots]
        weights = self.stored.weight
        if self.answer.name == "multiclass":
            sums = np.stack(
                [_added(x, responses[c :: self.answer.classes]) for c in range(self.answer.classes)], axis=1
            )
            shares = np.exp(sums - sums.max(axis=1, keepdims=True))
            return np.asarray(shares / shares.sum(axis=1, keepdims=True))
        weighted = self.flavour.name == "TMVA" and weights is not None
        if weighted and weights is not None and self.answer.name == "classification":
            total = np.float32(0)
            for weight in weights:
                total = total + weight
            products = [weight * response for weight, response in zip(weights, responses, strict=True)]
            return np.asarray((_added(x, products) / total)[:, np.newaxis])
        raw = _added(x, responses[::-1])
        match self.answer.name:
            case "response":
                result = raw + weights[0] if weighted and weights is not None else raw
            case "gradboost":
                result = (2.0 / (1.0 + np.exp(np.float64(-2.0) * raw)) - 1).astype(np.float32)
            case _:
                result = (1.0 / (1.0 + np.exp(-raw.astype(np.float64)))).astype(np.float32)
        return np.asarray(result[:, np.newaxis])

    def _tree(self, x: Single, root: int) -> Single:
        """What one tree answers to each event."""
        variable, value, flags = self.stored.variable, self.stored.value, self.stored.default_left
        node = np.full(len(x), root)
        going = np.flatnonzero(variable[node] >= 0)
        while len(going):
            here = node[going]
            feature, cut = x[going, variable[here]], value[here]
            if self.flavour.name == "TMVA":
                left = feature >= cut
            elif self.flavour.name == "xgboost":
                left = feature < cut
            else:
                left = feature <= cut
            if self.flavour.flags and flags is not None:
                left = np.where(np.isnan(feature), flags[here], left)
            node[going] = here + np.where(left, 1, self.jump[here])
            going = going[variable[node[going]] >= 0]
        return np.asarray(value[node])


def _added(x: Single, responses: list[Single]) -> Single:
    total = np.zeros(len(x), np.float32)
    for response in responses:
        total = total + response
    return total


def load(path: Path, interface: Interface, options: ReadOptions) -> Engine:
    """The evaluator for the ROOT file `path`."""
    return Engine(path, interface, options)
