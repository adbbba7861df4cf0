"""MVAUtils forests out: a ROOT macro that writes the TTree, to be run once where ROOT is.

MVAUtils reads std::vector branches of a TTree (SetBranchAddress with a pointer to a vector). No library but ROOT writes
these: uproot 5.7 writes counted arrays, which ROOT gives to no std::vector pointer (TTree::CheckBranchAddressType), and
vectors only in RNTuple, which MVAUtils does not read. So the numbers go into a macro as text, and ROOT makes the file::

    root -l -b -q bdt.cxx      writes bdt.root beside it
    modelhub check model.json bdt.root --task classification

Every tree is one of XGBoost's flavour, ``value < cut ? left : right`` with a side for NaN: all others can be said so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import modelhub
from modelhub.errors import UnreadableFile, UsageError, notice, safe_text
from modelhub.files import atomic_write, read_bytes
from modelhub.graph.forest import Compare, Forest
from modelhub.graph.forest_onnx import narrowed
from modelhub.graph.forest_sums import Sums, refusal, sums_of
from modelhub.graph.interface import Interface
from modelhub.protocols import WriteOptions
from modelhub_mvautils.root import Stored, options_of
from modelhub_mvautils.trees import right_children

__all__ = ["stored_in_macro", "write"]

FILE = "a forest of MVAUtils"

METHODS = {"response": "GetResponse", "classification": "GetClassification", "gradboost": "GetGradBoostMVA"}

UNSAID = set('",;\\')
"""What a name may not hold: it goes into a text of C++ and into lists."""

Tree = tuple[list[int], list[float], list[int]]
"""vars, values and default_left of a tree in preorder."""


def write(model: ir.Model, path: Path, options: WriteOptions) -> None:
    """Write the forest in `model` as a macro to `path`. Raises `Unsupported` with everything MVAUtils cannot say."""
    if options.form is not None or options.opset is not None or options.precision not in (None, "float32"):
        raise UsageError("MVAUtils macros have one form, in float32")
    sums = sums_of(model, "MVAUtils", FILE)
    reasons: list[str] = []
    task = _task(sums, reasons)
    trees = list(_trees(sums, task, reasons))
    interface = Interface.of(model)
    names = [feature.name for feature in interface.inputs[0].features]
    labels = interface.outputs[0].labels
    reasons += [
        f"the name {safe_text(name)!r} cannot stand in the file. Give another with --interface"
        for name in dict.fromkeys([*names, *labels])
        if not name or not name.isprintable() or not name.isascii() or UNSAID & set(name) or ":=" in name
    ]
    if reasons:
        raise refusal(model, FILE, reasons)
    title = f"creator=xgboost;task={task};labels={','.join(labels)}"
    right_children(_stored(trees, title, tuple(names), safe_text(model.graph.name)))  # within MVAUtils's integers
    with atomic_write(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(_text(trees, title, names))
    method = METHODS.get(task, "GetMultiResponse")
    notice(f"run the macro where ROOT is: it writes the TTree, of which MVAUtils::BDT gives {method}, added in float32")


def _task(sums: Sums, reasons: list[str]) -> str:
    """The answer that is the graph's output, in the words of `answers`."""
    if sums.link == "Softmax" and sums.outputs > 1 and not sums.pair:
        return f"multiclass={sums.outputs}"
    if sums.outputs == 1 and sums.link == "Sigmoid":
        return "multiclass=2" if sums.pair else "classification"
    if sums.outputs == 1 and not sums.pair and sums.link in ("", "Tanh"):
        return "gradboost" if sums.link else "response"
    what = f"{sums.link.lower() or 'plain'} sums of its trees{', and 1 minus that' if sums.pair else ''}"
    reasons.append(
        f"it gives {sums.outputs} {what}; MVAUtils gives one sum, its sigmoid or tanh, or softmax. Write ONNX"
    )
    return ""


def _trees(sums: Sums, task: str, reasons: list[str]) -> Iterator[Tree]:
    """The trees in MVAUtils's order: of several sums, each in turn. The base of a sum is a tree of one leaf."""
    planter = _Planter(sums, reasons)
    groups = []
    for planted, base in zip(sums.columns, sums.base.tolist(), strict=True):
        start = [_leaf(float(np.float32(base)))] if base else []
        groups.append([*start, *(planter.tree(root, column) for root, column in planted)])
    if task == "multiclass=2" and len(groups) == 1:
        groups.insert(0, [])  # softmax of 0 and m is 1 - sigmoid(m) and sigmoid(m)
    for turn in range(max(map(len, groups))):
        yield from (group[turn] if turn < len(group) else _leaf(0.0) for group in groups)


def _leaf(value: float) -> Tree:
    return [-1], [value], [1]


class _Planter:
    """Trees of a forest in XGBoost's flavour."""

    def __init__(self, sums: Sums, reasons: list[str]) -> None:
        forest = sums.forest
        compare, t = narrowed(forest.compare, forest.threshold)
        closed = (compare == Compare.LE) | (compare == Compare.GT)
        with np.errstate(over="ignore"):
            cut = np.where(closed, np.nextafter(t, np.float32(np.inf)), t)
            values = sums.values.astype(np.float32)
        below = (compare == Compare.LE) | (compare == Compare.LT)
        left = np.where(below, forest.true_child, forest.false_child)
        self.splits, self.row = forest.splits.tolist(), forest.leaf.tolist()
        self.left, self.right = left.tolist(), np.where(below, forest.false_child, forest.true_child).tolist()
        self.variable, self.cut = forest.feature.tolist(), cut.astype(np.float64).tolist()
        self.flag = _nan_left(forest, cut, left == forest.true_child, sums.defaults).astype(int).tolist()
        self.values = values.astype(np.float64)
        if (forest.splits & (forest.compare > Compare.GT)).any() or not np.isfinite(cut[forest.splits]).all():
            reasons.append("trees ask for equality or infinity; MVAUtils asks for finite cuts. Write ONNX")
        if not np.isfinite(values).all():
            reasons.append("a leaf is too large for float32, in which MVAUtils keeps it")

    def tree(self, root: int, column: int) -> Tree:
        """One tree in preorder."""
        variables, values, flags = [], [], []
        going = [root]
        while going:
            node = going.pop()
            if self.splits[node]:
                variables.append(self.variable[node])
                values.append(self.cut[node])
                flags.append(self.flag[node])
                going += [self.right[node], self.left[node]]
            else:
                variables.append(-1)
                values.append(float(self.values[self.row[node], column]))
                flags.append(1)
        return variables, values, flags


def _nan_left(
    forest: Forest, cut: NDArray[np.float32], true_left: NDArray[np.bool_], defaults: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """[nodes] whether NaN goes left: where the forest sends it, or the number that replaces it before the trees."""
    default = np.where(forest.splits, defaults[np.maximum(forest.feature, 0)], np.nan)
    return np.where(np.isnan(default), forest.missing == true_left, default < cut)


def _text(trees: list[Tree], title: str, names: list[str]) -> Iterator[str]:
    """The macro. Numbers in C++ as `_NUMBERS` reads them back."""
    yield f"// MVAUtils forest, written by modelhub {modelhub.__version__}.\n"
    yield "// root -l -b -q THIS_FILE writes it as a TTree into a file of the same name that ends in .root.\n{\n"
    yield from _array("int", "sizes", [str(len(tree[0])) for tree in trees])
    yield from _array("int", "vars", [str(v) for tree in trees for v in tree[0]])
    yield from _array("float", "values", [f"{v:.8e}f" for tree in trees for v in tree[1]])
    yield from _array("bool", "default_left", [str(v) for tree in trees for v in tree[2]])
    listed = "".join(f"{name} := {name}," for name in names)
    yield f"""
  TString target = gInterpreter->GetCurrentMacroName();
  target.Remove(target.Last('.'));
  TFile output(target + ".root", "RECREATE");
  TTree *forest = new TTree("BDT", "{title}");
  std::vector<int> v;
  std::vector<float> c;
  std::vector<bool> d;
  forest->Branch("vars", &v);
  forest->Branch("values", &c);
  forest->Branch("default_left", &d);
  int node = 0;
  for (int size : sizes) {{
    v.assign(vars + node, vars + node + size);
    c.assign(values + node, values + node + size);
    d.assign(default_left + node, default_left + node + size);
    forest->Fill();
    node += size;
  }}
  forest->Write();
  TNamed("varList", "{listed}").Write();
  output.Close();
}}
"""


def _array(kind: str, name: str, numbers: list[str]) -> Iterator[str]:
    yield f"  static const {kind} {name}[] = {{\n"
    for first in range(0, len(numbers), 16):
        yield f"    {', '.join(numbers[first : first + 16])},\n"
    yield "  };\n"


_NUMBERS = re.compile(r"  static const (int|float|bool) (\w+)\[\] = \{([^{}]*)\};")
_TITLE = re.compile(r'TTree\("BDT", "([^"\\]*)"\);')
_LISTED = re.compile(r'TNamed\("varList", "([^"\\]*)"\)')


def stored_in_macro(path: Path) -> Stored:
    """The forest in a macro that `write` made. Raises `UnreadableFile`."""
    text = read_bytes(path).decode("ascii", "replace")
    title, listed = _TITLE.search(text), _LISTED.search(text)
    found: dict[str, NDArray[Any]] = {}
    try:
        for kind, name, numbers in _NUMBERS.findall(text):
            words = [word.strip() for word in numbers.rstrip().rstrip(",").split(",")]
            if kind == "float":
                found[name] = np.array([float(word.removesuffix("f")) for word in words]).astype(np.float32)
            else:
                found[name] = np.array([int(word) for word in words], np.int64)
        sizes, variable, value, flag = (found[name] for name in ("sizes", "vars", "values", "default_left"))
    except (ValueError, KeyError, OverflowError) as error:
        raise UnreadableFile(f"{path}: not a macro as modelhub writes it: {safe_text(error)}") from None
    whole = title is not None and listed is not None and len(variable) == len(value) == len(flag) == sizes.sum()
    if not whole or title is None or listed is None or (sizes < 1).any() or (np.abs(variable) > 1 << 20).any():
        raise UnreadableFile(f"{path}: not a macro as modelhub writes it: its lists do not fit together")
    names = tuple(entry.partition(" := ")[0] for entry in listed[1].split(",") if entry)
    return Stored(
        str(path),
        options_of(title[1], str(path)),
        names,
        sizes,
        variable.astype(np.int32),
        value,
        flag != 0,
        weight=None,
    )


def _stored(trees: list[Tree], title: str, names: tuple[str, ...], where: str) -> Stored:
    """The trees as they are found in a file."""
    return Stored(
        where,
        options_of(title, where),
        names,
        np.array([len(tree[0]) for tree in trees], np.int64),
        np.array([v for tree in trees for v in tree[0]], np.int32),
        np.array([v for tree in trees for v in tree[1]], np.float32),
        np.array([v for tree in trees for v in tree[2]], np.bool_),
        weight=None,
    )
