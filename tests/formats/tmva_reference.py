"""What TMVA::Reader answers to a weight file of a BDT, node by node out of ElementTree: shares nothing with modelhub.

From DecisionTreeNode::GoesRight, DecisionTree::CheckEvent and MethodBDT (GetMvaValue, GetGradBoostMVA,
GetRegressionValues, GetMulticlassValues) of ROOT 6.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np


class Reference:
    def __init__(self, path: Path) -> None:
        self.root = ElementTree.parse(path).getroot()
        assert self.root.tag == "MethodSetup"
        assert self.root.attrib["Method"].startswith("BDT::")
        self.info = {e.attrib["name"]: e.attrib["value"] for e in self.root.find("GeneralInfo")}
        self.options = {e.attrib["name"]: e.text for e in self.root.find("Options")}
        self.weights = self.root.find("Weights")
        self.trees = list(self.weights)
        assert int(self.weights.attrib["NTrees"]) == len(self.trees)
        assert [int(t.attrib["itree"]) for t in self.trees] == list(range(len(self.trees)))
        self.responses = self.weights.attrib["AnalysisType"] == "1"
        self.classes = [e.attrib["Name"] for e in self.root.find("Classes")]
        self.variables = [e.attrib["Expression"] for e in self.root.find("Variables")]

    def leaves(self, x: np.ndarray) -> np.ndarray:
        """[N, trees] the number of the leaf, counted through each tree, and -1 where there is none."""
        return np.stack([self._walk(tree, x)[0] for tree in self.trees], axis=1)

    def _walk(self, tree: ElementTree.Element, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert x.dtype == np.float32
        leaf, value = np.full(len(x), -1), np.zeros(len(x))
        (top,) = tree
        assert top.attrib["pos"] == "s"
        going, count = [(top, np.arange(len(x)))], 0
        while going:
            node, rows = going.pop()
            if node.attrib["nType"] != "0":
                leaf[rows], count = count, count + 1
                if self.responses:
                    value[rows] = np.float32(node.attrib["res"])
                else:
                    assert self.options["UseYesNoLeaf"] == "False"
                    value[rows] = np.float32(node.attrib["purity"])
                continue
            below = {child.attrib["pos"]: child for child in node}
            cut = np.float32(node.attrib["Cut"])
            assert np.isfinite(cut)
            right = x[rows, int(node.attrib["IVar"])] >= cut
            if node.attrib["cType"] == "0":
                right = ~right
            going += [(below["l"], rows[~right]), (below["r"], rows[right])]
        return leaf, value

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """EvaluateMVA, EvaluateRegression or EvaluateMulticlass, [N, ...] in double."""
        values = [self._walk(tree, x)[1] for tree in self.trees]
        weights = [float(np.float32(tree.attrib["boostWeight"])) for tree in self.trees]
        analysis = self.info["AnalysisType"]
        if analysis == "Multiclass":
            sums = np.stack([sum(values[c :: len(self.classes)]) for c in range(len(self.classes))], axis=1)
            return np.stack([1 / np.exp(sums - sums[:, c : c + 1]).sum(axis=1) for c in range(sums.shape[1])], axis=1)
        if analysis == "Regression":
            assert self.options["BoostType"] == "Grad"
            return (sum(values) + weights[0])[:, np.newaxis]
        if self.options["BoostType"] == "Grad":
            return (2 / (1 + np.exp(-2 * sum(values))) - 1)[:, np.newaxis]
        return (sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))[:, np.newaxis]
