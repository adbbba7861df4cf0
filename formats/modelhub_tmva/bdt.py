"""Boosted decision trees: what the trees of a `<Weights>` answer, and how the answers make the response (MethodBDT)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, UsageError, notice, safe_text
from modelhub.graph.forest import Compare, Forest, Link
from modelhub_tmva.setup import CLASSIFICATION, MULTICLASS, REGRESSION, Setup, integer, number, unsupported
from modelhub_tmva.stream import Grove

__all__ = ["BDT", "Cut", "Fisher", "bdt_of", "strict"]

BOOSTS = ("AdaBoost", "RealAdaBoost", "AdaCost", "Bagging", "Grad", "AdaBoostR2")

EPSILON = float(np.finfo(np.float64).eps)
"""Weights that sum to this or less count as none (MethodBDT::PrivateGetMvaValue)."""

REGRESSION_TREES = 1
"""Types::kRegression in the AnalysisType of `<Weights>`: the leaves answer with their response."""


@dataclass(frozen=True)
class Cut:
    """One cut of the preselection: ``x[feature] < value``, or ``>``, answers `answer`."""

    feature: int
    below: bool
    value: float
    answer: float


@dataclass(frozen=True, eq=False)
class Fisher:
    """Cuts on linear combinations, ``offset + x · weights > cut`` in float64; their outcomes are columns for the forest.

    The columns stand behind the variables and hold 1 or 0; the nodes ask whether they are above a half.
    """

    weights: NDArray[np.float64]
    """[variables, cuts]"""
    offset: NDArray[np.float64]
    """[cuts]"""
    cut: NDArray[np.float64]
    """[cuts]"""


@dataclass(frozen=True, eq=False)
class BDT:
    """A forest of TMVA. Where `median` is set, `forest` gives the response of every tree and not their sum."""

    forest: Forest
    fisher: Fisher | None
    cuts: tuple[Cut, ...]
    """Of the preselection; the last one that answers overrides the forest."""
    median: NDArray[np.float64] | None
    """[trees] the weights of AdaBoostR2's trimmed mean about the weighted median."""


def strict(setup: Setup, tie: str | None) -> bool:
    """Whether a value that equals a cut stays on the left (``x > cut``) or passes (``x >= cut``, TMVA::Reader today).

    `tie` is None or "reader" for the latter, ">" or ">=" to say it outright, "training" for the rule of the ROOT that trained:
    ``>=`` came with 5.34/20 and 6.02/00 (CommonTools/MVAUtils/src/GBRForestTools.cc in CMSSW).
    """
    if tie in (None, "reader", ">="):
        return False
    if tie == ">":
        return True
    if tie != "training":
        raise UsageError(f"the rule for ties is one of reader, training, '>' and '>=', not {safe_text(tie)!r}")
    release = setup.release("ROOT")
    if release is None:
        raise UsageError(f"{setup.where}: does not say which ROOT trained it; choose the rule for ties by name")
    return not ((5, 34, 20) <= release < (6, 0, 0) or release >= (6, 2, 0))


def bdt_of(setup: Setup, tie: str | None) -> BDT:
    """The trees of a BDT. Raises `UnreadableFile`, `Unsupported`."""
    grove = setup.weights.grove
    if grove is None:
        raise UnreadableFile(f"{setup.where}: the BDT {safe_text(setup.title)} has no trees")
    announced = integer(setup.weights, "NTrees", setup.where, len(grove.roots))
    if announced != len(grove.roots):
        notice(f"{setup.where}: announces {announced} trees and holds {len(grove.roots)}, which count")
    boost = _boost(setup)
    values = _answers(setup, grove, boost)
    nodes = _Nodes(grove, setup, strict(setup, tie))
    median = None
    weight = np.array(grove.weight, np.float64)
    trees, output, outputs, divisor, link = np.ones(len(weight)), np.zeros(len(weight), np.int64), 1, 1.0, Link()
    if not np.isfinite(weight).all():
        raise UnreadableFile(f"{setup.where}: a boostWeight that is no finite number")
    if setup.analysis == MULTICLASS:
        outputs, link = len(setup.classes), Link("softmax")
        output = np.arange(len(weight)) % max(outputs, 1)
    elif boost == "Grad" and setup.analysis == CLASSIFICATION:
        link = Link("tanh")
    elif boost == "Grad":
        values = nodes.constant(values, float(weight[0]))
        trees, output = np.ones(len(weight) + 1), np.zeros(len(weight) + 1, np.int64)
    elif boost == "AdaBoostR2" and setup.analysis == REGRESSION:
        outputs, output, median = len(weight), np.arange(len(weight)), weight
        if not weight.sum() > 0:
            raise UnreadableFile(f"{setup.where}: the boost weights do not sum to a positive number")
    else:
        total = sum(weight.tolist())
        if total > EPSILON:
            trees, divisor = weight, total
        elif setup.analysis == REGRESSION:
            raise UnreadableFile(f"{setup.where}: the boost weights do not sum to a positive number")
        else:
            trees = np.zeros(len(weight))
    forest = nodes.forest(values, trees, output, outputs, divisor, link).checked(setup.where)
    return BDT(forest, nodes.fisher, _preselection(setup), median)


def _boost(setup: Setup) -> str:
    """The boost type, checked against what the file asks of it."""
    boost = setup.option("BoostType", "AdaBoost")
    if boost not in BOOSTS:
        raise unsupported(setup.where, f"BoostType {safe_text(boost)!r}; known: {', '.join(BOOSTS)}")
    if not setup.switch("UseWeightedTrees", True):
        raise unsupported(setup.where, "UseWeightedTrees=False, which today's TMVA ignores and the old one did not")
    if setup.analysis == MULTICLASS and (boost != "Grad" or len(setup.classes) < 2):
        raise unsupported(setup.where, f"a multiclass BDT of BoostType {boost} and {len(setup.classes)} classes")
    if setup.analysis == REGRESSION and len(setup.targets) > 1:
        raise unsupported(setup.where, f"a BDT of {len(setup.targets)} regression targets; TMVA has one")
    return boost


def _answers(setup: Setup, grove: Grove, boost: str) -> NDArray[np.float64]:
    """[nodes] what each leaf answers (DecisionTree::CheckEvent): response, or class, or purity."""
    weights = setup.weights
    name = "TreeType" if "TreeType" in weights.attributes else "AnalysisType"
    kind = integer(weights, name, setup.where, 0)
    if kind not in (0, 1, 2):
        raise unsupported(setup.where, f"trees of {name} {kind}")
    if setup.analysis != CLASSIFICATION and kind != REGRESSION_TREES:
        raise unsupported(setup.where, f"{setup.analysis} by trees that do not hold responses ({name} {kind})")
    yes_no = setup.switch("UseYesNoLeaf", True)
    if boost == "RealAdaBoost" and yes_no:
        notice(f"{setup.where}: RealAdaBoost with UseYesNoLeaf; purities are taken, as RealAdaBoost is defined")
        yes_no = False
    if kind == REGRESSION_TREES:
        answers, what = np.array(grove.response, np.float64), "res"
    elif yes_no:
        answers, what = np.array(grove.type, np.float64), "nType"
    else:
        answers, what = np.array(grove.purity, np.float64), "purity"
    leaves = np.array(grove.type) != 0
    if not np.isfinite(answers[leaves]).all():
        raise UnreadableFile(f"{setup.where}: a leaf whose {what} is missing or no finite number")
    return answers


class _Nodes:
    """The nodes of a grove as a forest has them: what hangs below a leaf is gone, cuts on combinations have columns."""

    def __init__(self, grove: Grove, setup: Setup, strictly: bool) -> None:
        self.variables = len(setup.variables)
        self.feature = np.array(grove.feature, np.int32)
        self.threshold = np.array(grove.cut, np.float64)
        self.negated = np.array(grove.negated, np.bool_)
        self.left, self.right = np.array(grove.left, np.int64), np.array(grove.right, np.int64)
        self.leaf = np.array(grove.type) != 0
        self.roots = np.array(grove.roots, np.int64)
        self.compare = np.full(len(self.leaf), Compare.GT if strictly else Compare.GE, np.uint8)
        if (~self.leaf & ((self.left < 0) | (self.right < 0))).any():
            raise UnreadableFile(f"{setup.where}: a node of a tree goes on (nType 0) and has not two children")
        self.left[self.leaf] = self.right[self.leaf] = -1
        self.fisher = self._combinations(grove, setup)
        self._prune()
        own = self.alive & ~self.leaf & ~np.isin(np.arange(len(self.leaf)), list(grove.fisher))
        if (own & ((self.feature < 0) | (self.feature >= self.variables))).any():
            raise UnreadableFile(f"{setup.where}: a node cuts on a variable beyond the {self.variables} there are")

    def _combinations(self, grove: Grove, setup: Setup) -> Fisher | None:
        """A column for every node that cuts on a Fisher discriminant; there TMVA has asked ``>`` in every version."""
        if not grove.fisher:
            return None
        nodes = np.array(list(grove.fisher), np.int64)
        table = np.zeros((len(nodes), self.variables + 1))
        for row, coefficients in zip(table, grove.fisher.values(), strict=True):
            if len(coefficients) != len(row):
                raise UnreadableFile(
                    f"{setup.where}: a node with {len(coefficients)} Fisher coefficients, not {len(row)}: "
                    "one per variable and the offset"
                )
            row[:] = coefficients
        cut = self.threshold[nodes]
        if not (np.isfinite(table).all() and np.isfinite(cut).all()):
            raise UnreadableFile(f"{setup.where}: a Fisher coefficient or its cut is no finite number")
        self.feature[nodes] = self.variables + np.arange(len(nodes))
        self.compare[nodes] = Compare.GT
        self.threshold[nodes] = 0.5
        return Fisher(np.ascontiguousarray(table[:, :-1].T), table[:, -1], cut)

    def _prune(self) -> None:
        """Drop nodes below a leaf. A node comes after its parent, so one sweep by levels finds the living."""
        alive = np.zeros(len(self.leaf), np.bool_)
        level = self.roots
        while len(level):
            alive[level] = True
            level = np.concatenate([self.left[level], self.right[level]])
            level = level[level >= 0]
        self.alive = alive

    def constant(self, answers: NDArray[np.float64], value: float) -> NDArray[np.float64]:
        """Add a tree of one leaf that answers `value`; the answers with it."""
        for name, filler in (("feature", -1), ("threshold", 0), ("negated", False), ("left", -1), ("right", -1)):
            setattr(self, name, np.append(getattr(self, name), filler).astype(getattr(self, name).dtype))
        self.roots = np.append(self.roots, len(self.leaf))
        self.leaf, self.alive = np.append(self.leaf, True), np.append(self.alive, True)
        self.compare = np.append(self.compare, 0).astype(np.uint8)
        return np.append(answers, value)

    def forest(
        self,
        answers: NDArray[np.float64],
        trees: NDArray[np.float64],
        output: NDArray[np.int64],
        outputs: int,
        divisor: float,
        link: Link,
    ) -> Forest:
        """The living nodes, numbered anew."""
        alive = self.alive
        place = np.full(len(alive) + 1, -1, np.int64)  # the last entry stands for "no child"
        place[:-1][alive] = np.arange(alive.sum())
        leaf = self.leaf[alive]
        right, left = place[self.right[alive]], place[self.left[alive]]
        turned = self.negated[alive]
        rows = np.full(len(leaf), -1, np.int64)
        rows[leaf] = np.arange(leaf.sum())
        return Forest(
            features=self.variables + (0 if self.fisher is None else len(self.fisher.offset)),
            feature=self.feature[alive],
            compare=np.where(leaf, 0, self.compare[alive]).astype(np.uint8),
            threshold=self.threshold[alive],
            true_child=np.where(turned, left, right),
            false_child=np.where(turned, right, left),
            missing=np.zeros(len(leaf), np.bool_),
            leaf=rows,
            values=answers[alive][leaf][:, np.newaxis],
            roots=place[self.roots],
            tree_output=output,
            tree_weight=trees,
            base=np.zeros(outputs),
            divisor=divisor,
            link=link,
        )


def _preselection(setup: Setup) -> tuple[Cut, ...]:
    """The cuts of DoPreselection in the order they are asked (MethodBDT::ApplyPreselectionCuts)."""
    if not setup.switch("DoPreselection", False):
        return ()
    if setup.analysis != CLASSIFICATION:
        raise unsupported(setup.where, f"DoPreselection in a {setup.analysis}")
    cuts = []
    for feature in range(len(setup.variables)):
        for side, kind in (("Low", "Bkg"), ("Low", "Sig"), ("High", "Bkg"), ("High", "Sig")):
            name = f"Preselection{side}{kind}Var{feature}"
            if integer(setup.weights, name, setup.where, 0):
                value = number(setup.weights, f"{name}Value", setup.where)
                cuts.append(Cut(feature, side == "Low", value, 1.0 if kind == "Sig" else -1.0))
    return tuple(cuts)
