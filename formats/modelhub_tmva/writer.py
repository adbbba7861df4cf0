"""The common graph as a weight file that TMVA::Reader reads (`*.weights.xml`).

Every float32 event takes the way through the trees that it took in the source (`cuts`), in ROOT from 6.02 on and from
5.34/20 on in version 5: older ones keep an event that equals a cut on the left. Leaves are Float_t in TMVA, so each is
rounded once; sums are double there. What is added to all trees stands in trees of one leaf, in three parts whose sum
is that double. `lowering` says which models can be written, `answer` what the response stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import modelhub
from modelhub.errors import Unsupported, UsageError, notice, safe_text
from modelhub.files import atomic_write
from modelhub.graph.forest import Forest
from modelhub.graph.forest_sums import refusal
from modelhub.graph.interface import Feature, Interface
from modelhub.protocols import WriteOptions
from modelhub_tmva.answer import INFO, Answer
from modelhub_tmva.cuts import Cuts, cuts_of
from modelhub_tmva.grove import MAX_DEPTH
from modelhub_tmva.lowering import FILE, Lowered, lowered
from modelhub_tmva.setup import CLASSIFICATION, MULTICLASS, REGRESSION

__all__ = ["write"]

RELEASES = (("TMVA Release", "4.2.1 [262657]"), ("ROOT Release", "6.02/00 [393728]"))
"""The layout of the file, and the first ROOT 6 whose trees ask ``x >= cut``: some look here for the rule for ties."""

LARGEST_INDEX = 32767
"""DecisionTreeNode keeps the index of a variable as Short_t."""

UNSET = "-9.9000000000000000e+01"
"""What TMVA writes for a response that was never set."""


def write(model: ir.Model, path: Path, options: WriteOptions) -> None:
    """Write the forest in `model` to `path`. Raises `Unsupported` with everything TMVA cannot say."""
    if options.form is not None or options.opset is not None or options.precision not in (None, "float32"):
        raise UsageError("TMVA weight files have one form, in float32")
    bdt = lowered(model)
    interface = Interface.of(model)
    features, labels = interface.inputs[0].features, interface.outputs[0].labels
    reasons: list[str] = []
    cuts = cuts_of(bdt.sums.forest, [feature.name for feature in features], bdt.sums.defaults, reasons)
    answer = Answer(bdt.kind, labels if bdt.analysis == CLASSIFICATION else (), _any(cuts.missing))
    names = [*(feature.name for feature in features), *labels]
    reasons += [
        f"the name {safe_text(name)!r} is empty, or holds what an attribute of TMVA's XML cannot or ':=', which TMVA "
        "takes for a definition. Give another with --interface"
        for name in dict.fromkeys(names)
        if not name or not name.isprintable() or ":=" in name
    ]
    if len(set(labels)) < len(labels):
        reasons.append("two outputs have one label; TMVA keeps classes by name. Give others with --interface")
    if len(features) > LARGEST_INDEX:
        reasons.append(f"it has {len(features)} variables; TMVA counts them up to {LARGEST_INDEX}")
    trees = _Trees(bdt, cuts, reasons)
    if reasons:
        raise refusal(model, FILE, reasons)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_head(bdt, features, labels, answer, len(trees.planned)))
        file.writelines(trees.text())
        file.write("  </Weights>\n</MethodSetup>\n")
    _tell(bdt, answer, features, trees.bound)


def _any(missing: tuple[float | None, ...]) -> tuple[float | None, ...]:
    return missing if any(number is not None for number in missing) else ()


def _tell(bdt: Lowered, answer: Answer, features: tuple[Feature, ...], bound: float) -> None:
    """What the code that calls TMVA::Reader has to know; NaN too, where it is nothing to the source."""
    asked = {CLASSIFICATION: "EvaluateMVA", REGRESSION: "EvaluateRegression", MULTICLASS: "EvaluateMulticlass"}
    text = f"TMVA::Reader computes this BDT with {asked[bdt.analysis]}"
    if answer.kind != "response":
        text += f"; the outputs are {answer.formula}"
    if answer.missing:
        shown = [f"{safe_text(f.name)}: {n!r}" for f, n in zip(features, answer.missing, strict=True) if n is not None]
        more = f" and {len(shown) - 5} more (all are in the file)" if len(shown) > 5 else ""
        text += f"; replace NaN first ({', '.join(shown[:5])}{more}), as TMVA answers -999 to it"
    else:
        text += "; keep NaN out, of which TMVA knows nothing"
    if bound:
        text += f"; leaves are rounded to float32, which moves the sum of the trees by at most {bound:.1e}"
    notice(text)


def _head(
    bdt: Lowered, features: tuple[Feature, ...], labels: tuple[str, ...], answer: Answer, trees: int
) -> Iterator[str]:
    """Everything in front of the trees, a line at a time (MethodBase::WriteStateToXML)."""
    info = [*RELEASES, ("Creator", f"modelhub {modelhub.__version__}"), ("AnalysisType", bdt.analysis.capitalize())]
    if answer != Answer():
        info.append((INFO, answer.info()))
    yield '<?xml version="1.0"?>\n<MethodSetup Method="BDT::BDT">\n  <GeneralInfo>\n'
    yield from (f"    <Info name={quoteattr(name)} value={_quoted(value)}/>\n" for name, value in info)
    yield "  </GeneralInfo>\n  <Options>\n"
    options = {"NTrees": trees, "BoostType": bdt.boost, "UseYesNoLeaf": False, "Shrinkage": "1.000000e+00"}
    options |= {"UseFisherCuts": False, "DoPreselection": False, "VarTransform": "None"}
    yield from (f'    <Option name="{name}" modified="Yes">{escape(str(v))}</Option>\n' for name, v in options.items())
    yield f'  </Options>\n  <Variables NVar="{len(features)}">\n'
    for index, feature in enumerate(features):
        yield f"    <Variable VarIndex={_quoted(index)} {_variable(feature.name, feature.minimum, feature.maximum)}/>\n"
    yield '  </Variables>\n  <Spectators NSpec="0"/>\n'
    classes = {CLASSIFICATION: ("Signal", "Background"), REGRESSION: ("Regression",), MULTICLASS: labels}[bdt.analysis]
    yield f'  <Classes NClass="{len(classes)}">\n'
    yield from (f"    <Class Name={_quoted(name)} Index={_quoted(index)}/>\n" for index, name in enumerate(classes))
    yield "  </Classes>\n"
    if bdt.analysis == REGRESSION:
        yield f'  <Targets NTrgt="1">\n    <Target TargetIndex="0" {_variable(labels[0], None, None)}/>\n  </Targets>\n'
    yield '  <Transformations NTransformations="0"/>\n  <MVAPdfs/>\n'
    yield f'  <Weights NTrees="{trees}" AnalysisType="{int(bdt.boost == "Grad")}">\n'


def _quoted(value: object) -> str:
    """An attribute, always between double quotes: TXMLEngine knows no others."""
    return '"' + escape(str(value), {'"': "&quot;"}) + '"'


def _variable(name: str, minimum: float | None, maximum: float | None) -> str:
    """The attributes of a variable or target (VariableInfo::AddToXML)."""
    text = " ".join(f"{key}={_quoted(name)}" for key in ("Expression", "Label", "Title"))
    internal = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f'{text} Unit="" Internal="{internal}" Type="F" Min="{minimum or 0:.8e}" Max="{maximum or 0:.8e}"'


@dataclass(frozen=True)
class _Planned:
    """One tree of the file: a tree of the forest and the column of its leaves that counts, or one number."""

    root: int
    column: int = 0
    number: float = 0.0


class _Trees:
    """The trees in the order in which TMVA counts them: of a sum of several, each in turn."""

    def __init__(self, bdt: Lowered, cuts: Cuts, reasons: list[str]) -> None:
        s = bdt.sums
        self.forest, self.cuts, self.mean = s.forest, cuts, bdt.boost == "AdaBoost"
        # The mean of n trees, each n times as much; of n + 3 where a base comes in.
        self.factor = s.forest.trees + (3 if s.base.any() else 0) if self.mean else 1
        groups = []
        for trees, base in zip(s.columns, s.base.tolist(), strict=True):
            parts = _parts(base * self.factor)
            if self.mean and base:
                parts += [0.0] * (3 - len(parts))
            groups.append([*(_Planned(-1, number=part) for part in parts), *(_Planned(*tree) for tree in trees)])
        longest = max(map(len, groups))
        for group in groups:
            group += [_Planned(-1)] * (longest - len(group))
        self.planned = [planned for turn in zip(*groups, strict=True) for planned in turn]
        exact = s.values * self.factor
        with np.errstate(over="ignore"):
            self.values = exact.astype(np.float32)
        if not np.isfinite(self.values).all():
            reasons.append("a leaf is too large for float32, in which TMVA keeps it")
        self.bound = self._bound(np.abs(exact - self.values.astype(np.float64)) / self.factor, groups)

    def _bound(self, error: NDArray[np.float64], groups: list[list[_Planned]]) -> float:
        """The largest sum of roundings over the trees of a sum: the worst leaf of every tree."""
        if not error.any():
            return 0.0
        worst = np.zeros((self.forest.nodes, error.shape[1]))
        ends = np.flatnonzero(~self.forest.splits)
        worst[ends] = error[self.forest.leaf[ends]]
        tops = {root: worst[self._nodes(root)].max(axis=0) for root in self.forest.roots.tolist()}
        return float(max(sum(tops[p.root][p.column] for p in group if p.root >= 0) for group in groups))

    def _nodes(self, root: int) -> list[int]:
        found, going = [], [root]
        splits, right, left = self.forest.splits, self.cuts.right, self.cuts.left
        while going:
            node = going.pop()
            found.append(node)
            if splits[node]:
                going += [int(right[node]), int(left[node])]
        return found

    def text(self) -> Iterator[str]:
        """Every `<BinaryTree>`. Regression adds the boostWeight of the first tree, which is none here."""
        weight = f"{float(self.mean):.16e}"
        table = _Table(self.forest, self.cuts, self.mean)
        for index, planned in enumerate(self.planned):
            yield f'    <BinaryTree type="DecisionTree" boostWeight="{weight}" itree="{index}">\n'
            if planned.root < 0:
                yield f"      {table.leaf('s', 0, planned.number)}\n"
            else:
                yield from table.tree(planned.root, self.values[:, planned.column].astype(np.float64).tolist())
            yield "    </BinaryTree>\n"


class _Table:
    """Nodes as text (Node::AddXMLTo, DecisionTreeNode::AddAttributesToNode), from plain lists."""

    def __init__(self, forest: Forest, cuts: Cuts, mean: bool) -> None:
        self.mean = mean
        self.row = forest.leaf.tolist()
        self.right, self.left = cuts.right.tolist(), cuts.left.tolist()
        self.feature = forest.feature.tolist()
        self.cut = cuts.cut.astype(np.float64).tolist()

    def leaf(self, pos: str, depth: int, value: float) -> str:
        """A leaf: the value is its purity where purities are averaged, else its response."""
        response, purity = (UNSET, f"{value:.16e}") if self.mean else (f"{value:.16e}", "5.0000000000000000e-01")
        kind = 1 if value >= (0.5 if self.mean else 0) else -1
        return (
            f'<Node pos="{pos}" depth="{depth}" NCoef="0" IVar="-1" Cut="0.0000000000000000e+00" cType="1" '
            f'res="{response}" rms="0.0000000000000000e+00" purity="{purity}" nType="{kind}"/>'
        )

    def tree(self, root: int, values: list[float]) -> Iterator[str]:
        """The nodes of a tree, a line each. Raises `Unsupported` where they nest too deeply."""
        going: list[tuple[int, str, int]] = [(root, "s", 0)]
        while going:
            node, pos, depth = going.pop()
            if node < 0:
                yield f"{'  ' * min(depth, 20)}      </Node>\n"
                continue
            while self.row[node] < 0 and self.left[node] == self.right[node]:  # a split that asks nothing
                node = self.left[node]
            indent = "  " * min(depth, 20) + "      "
            if self.row[node] >= 0:
                yield f"{indent}{self.leaf(pos, depth, values[self.row[node]])}\n"
                continue
            if depth >= MAX_DEPTH:
                raise Unsupported(f"the forest has a tree deeper than {MAX_DEPTH} levels")
            yield (
                f'{indent}<Node pos="{pos}" depth="{depth}" NCoef="0" IVar="{self.feature[node]}" '
                f'Cut="{self.cut[node]:.16e}" cType="1" res="{UNSET}" rms="0.0000000000000000e+00" '
                'purity="5.0000000000000000e-01" nType="0">\n'
            )
            going += [(-1, "", depth), (self.right[node], "r", depth + 1), (self.left[node], "l", depth + 1)]


def _parts(number: float) -> list[float]:
    """At most three float32 numbers whose sum in double is `number`, none for 0."""
    parts: list[float] = []
    while number and len(parts) < 3:
        with np.errstate(over="ignore"):
            part = float(np.float32(number))
        if not part or not np.isfinite(part):
            break
        parts.append(part)
        number -= part
    return parts
