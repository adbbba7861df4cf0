"""Boosted decision trees: what the trees of a `<Weights>` answer, and how the answers make the response (MethodBDT)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, UsageError, notice, safe_text
from modelhub.graph.forest import Compare, Forest, Link
from modelhub_tmva.grove import Grove
from modelhub_tmva.setup import CLASSIFICATION, MULTICLASS, REGRESSION, Setup, integer, number, unsupported

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
    """Cuts on linear combinations, ``offset + x · weights > cut`` in float64, whose outcomes are columns of the forest.

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

    `tie` is None or "reader" for the latter, ">" or ">=" to say it outright, "training" for the rule of the ROOT that
    trained: ``>=`` came with 5.34/20 and 6.02/00 (CommonTools/MVAUtils/src/GBRForestTools.cc in CMSSW).
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


@dataclass(frozen=True, eq=False)
class Plan:
    """How the answers of the trees become the margins of a `Forest`."""

    output: NDArray[np.int64]
    """[trees, and one more for a constant]"""
    weight: NDArray[np.float64]
    """[trees, and one more for a constant]"""
    outputs: int = 1
    divisor: float = 1.0
    link: Link = field(default_factory=Link)
    constant: float | None = None
    """Added to the sum in float64, as a tree of one leaf."""


def bdt_of(setup: Setup, tie: str | None) -> BDT:
    """The trees of a BDT. Raises `UnreadableFile`, `Unsupported`."""
    grove = setup.weights.grove
    if grove is None:
        raise UnreadableFile(f"{setup.where}: the BDT {safe_text(setup.title)} has no trees")
    announced = integer(setup.weights, "NTrees", setup.where, len(grove.roots))
    if announced != len(grove.roots):
        notice(f"{setup.where}: announces {announced} trees and holds {len(grove.roots)}, which count")
    boost = _boost(setup)
    weight = np.array(grove.weight, np.float64)
    if not np.isfinite(weight).all():
        raise UnreadableFile(f"{setup.where}: a boostWeight that is no finite number")
    answers = _answers(setup, grove, boost)
    nodes = _Nodes(grove, setup, strict(setup, tie))
    forest, fisher = nodes.forest(answers, _plan(setup, boost, weight)), nodes.fisher
    del nodes, answers  # room for the check
    median = weight if setup.analysis == REGRESSION and boost == "AdaBoostR2" else None
    return BDT(forest.checked(setup.where), fisher, _preselection(setup), median)


def _plan(setup: Setup, boost: str, weight: NDArray[np.float64]) -> Plan:
    """The sum of a boost type: GetMvaValue, GetRegressionValues and GetMulticlassValues of MethodBDT."""
    trees = len(weight)
    ones, zeros = np.ones(trees), np.zeros(trees, np.int64)
    if setup.analysis == MULTICLASS:
        classes = len(setup.classes)
        return Plan(np.arange(trees) % classes, ones, classes, link=Link("softmax"))
    if boost == "Grad" and setup.analysis == CLASSIFICATION:
        return Plan(zeros, ones, link=Link("tanh"))
    if boost == "Grad":
        return Plan(np.append(zeros, 0), np.append(ones, 1), constant=float(weight[0]))
    total = sum(weight.tolist())
    if setup.analysis == REGRESSION and not total > 0:
        raise UnreadableFile(f"{setup.where}: the boost weights do not sum to a positive number")
    if boost == "AdaBoostR2" and setup.analysis == REGRESSION:
        return Plan(np.arange(trees), ones, trees)
    return Plan(zeros, weight, divisor=total) if total > EPSILON else Plan(zeros, np.zeros(trees))


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
    """[leaves] what each of them answers (DecisionTree::CheckEvent): response, or class, or purity."""
    weights = setup.weights
    name = "TreeType" if "TreeType" in weights.attributes else "AnalysisType"
    kind = integer(weights, name, setup.where, None if boost == "Grad" else 0)
    if kind not in (0, 1, 2):
        raise unsupported(setup.where, f"trees of {name} {kind}")
    if setup.analysis != CLASSIFICATION and kind != REGRESSION_TREES:
        raise unsupported(setup.where, f"{setup.analysis} by trees that do not hold responses ({name} {kind})")
    yes_no = setup.switch("UseYesNoLeaf", True)
    if boost == "RealAdaBoost" and yes_no:
        notice(f"{setup.where}: RealAdaBoost with UseYesNoLeaf; purities are taken, as RealAdaBoost is defined")
        yes_no = False
    if kind == REGRESSION_TREES:
        answers, what = np.frombuffer(grove.response, np.float32), "res"
    elif yes_no:
        answers, what = np.frombuffer(grove.type, np.int8)[grove.leaves()].astype(np.float32), "nType"
    else:
        answers, what = np.frombuffer(grove.purity, np.float32), "purity"
    if not np.isfinite(answers).all():
        raise UnreadableFile(f"{setup.where}: a leaf whose {what} is missing or no finite number")
    return np.asarray(answers, np.float64)


class _Nodes:
    """The nodes of a grove as a forest has them: what hangs below a leaf is gone, cuts on combinations have columns."""

    def __init__(self, grove: Grove, setup: Setup, strictly: bool) -> None:
        self.variables = len(setup.variables)
        self.leaf = grove.leaves()
        self.roots = np.array(grove.roots, np.int64)
        self.feature = np.array(grove.feature, np.int32)
        self.threshold = np.array(grove.cut, np.float64)
        self.compare = np.full(len(self.feature), Compare.GT if strictly else Compare.GE, np.uint8)
        left, right = grove.children(setup.where)
        if ((left[~self.leaf] < 0) | (right[~self.leaf] < 0)).any():
            raise UnreadableFile(f"{setup.where}: a node of a tree goes on (nType 0) and has not two children")
        left[self.leaf] = right[self.leaf] = -1
        turned = np.zeros(len(self.leaf), np.bool_)
        turned[~self.leaf] = np.frombuffer(grove.negated, np.bool_)
        self.true_child, self.false_child = np.where(turned, left, right), np.where(turned, right, left)
        self.alive = self._reached()
        own = self.alive[~self.leaf]
        own[list(grove.fisher)] = False
        if (own & ((self.feature < 0) | (self.feature >= self.variables))).any():
            raise UnreadableFile(f"{setup.where}: a node cuts on a variable beyond the {self.variables} there are")
        if not np.isfinite(self.threshold).all():
            raise UnreadableFile(f"{setup.where}: a node with a cut that is no finite number")
        self.fisher = self._combinations(grove, setup)

    def _combinations(self, grove: Grove, setup: Setup) -> Fisher | None:
        """A column for every node that cuts on a Fisher discriminant; there TMVA has asked ``>`` in every version."""
        if not grove.fisher:
            return None
        splits = np.array(list(grove.fisher), np.int64)
        table = np.zeros((len(splits), self.variables + 1))
        for row, coefficients in zip(table, grove.fisher.values(), strict=True):
            if len(coefficients) != len(row):
                raise UnreadableFile(
                    f"{setup.where}: a node with {len(coefficients)} Fisher coefficients, not {len(row)}: "
                    "one per variable and the offset"
                )
            row[:] = coefficients
        if not np.isfinite(table).all():
            raise UnreadableFile(f"{setup.where}: a Fisher coefficient that is no finite number")
        cut = self.threshold[splits]
        self.feature[splits] = self.variables + np.arange(len(splits))
        self.compare[splits] = Compare.GT
        self.threshold[splits] = 0.5
        return Fisher(np.ascontiguousarray(table[:, :-1].T), table[:, -1], cut)

    def _reached(self) -> NDArray[np.bool_]:
        """[nodes] which nodes are not below a leaf, level by level from the roots."""
        alive = np.zeros(len(self.leaf), np.bool_)
        level = self.roots
        while len(level):
            alive[level] = True
            level = np.concatenate([self.true_child[level], self.false_child[level]])
            level = level[level >= 0]
        return alive

    def forest(self, answers: NDArray[np.float64], plan: Plan) -> Forest:
        """The living nodes, numbered anew; a constant of the plan becomes a tree of one leaf."""
        living = slice(None) if self.alive.all() else self.alive
        kept = slice(None) if self.alive.all() else self.alive[~self.leaf]
        place = np.cumsum(self.alive, dtype=np.int32) - np.int32(1)
        leaf, roots, answers = self.leaf[living], place[self.roots], answers[self.alive[self.leaf]]
        more = 0 if plan.constant is None else 1
        if plan.constant is not None:
            leaf, answers, roots = np.append(leaf, True), np.append(answers, plan.constant), np.append(roots, len(leaf))

        def of_splits(values: NDArray[Any], dtype: type, filler: int = 0) -> NDArray[Any]:
            """[nodes] `values` [splits], and at leaves the filler."""
            column: NDArray[Any] = np.full(len(leaf), filler, dtype)
            column[~leaf] = values[kept]
            return column

        def of_nodes(child: NDArray[np.int32]) -> NDArray[np.int64]:
            """[nodes] children by their new numbers."""
            column = np.full(len(leaf), -1, np.int64)
            old = child[living]
            column[: len(leaf) - more] = np.where(old < 0, np.int32(-1), place[old])
            return column

        return Forest(
            features=self.variables + (0 if self.fisher is None else len(self.fisher.offset)),
            feature=of_splits(self.feature, np.int32, -1),
            compare=of_splits(self.compare, np.uint8),
            threshold=of_splits(self.threshold, np.float64),
            true_child=of_nodes(self.true_child),
            false_child=of_nodes(self.false_child),
            missing=np.zeros(len(leaf), np.bool_),
            leaf=np.where(leaf, np.cumsum(leaf) - 1, -1),
            values=answers[:, np.newaxis],
            roots=roots.astype(np.int64),
            tree_output=plan.output,
            tree_weight=plan.weight,
            base=np.zeros(plan.outputs),
            divisor=plan.divisor,
            link=plan.link,
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
