"""TMVA's rules in numpy: the reference that the graph is checked against, as no TMVA runs without ROOT.

Written from MethodBDT, MethodANNBase and their kin, function by function, and on the file's own arrays: no graph and no
`Forest` is behind it. What both share is only the parsing of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelhub_tmva.bdt import strict
from modelhub_tmva.category import parts_of
from modelhub_tmva.grove import Grove
from modelhub_tmva.nets import Line, Net, fisher_of, ld_of, mlp_of, net_of
from modelhub_tmva.setup import CLASSIFICATION, MULTICLASS, REGRESSION, Setup, number, setup_of
from modelhub_tmva.stream import parse
from modelhub_tmva.transforms import Cumulative, Linear, Normalize, Pdf, Transform, chain

__all__ = ["Evaluator"]

Single: TypeAlias = NDArray[np.float32]
Double: TypeAlias = NDArray[np.float64]

PAIRS = 1 << 20
"""How many (event, tree) pairs walk at once."""


class Evaluator:
    """The method of a weight file. Called with its inputs [N, ...], the variables first, it gives [N, outputs]."""

    def __init__(self, path: Path, tie: str | None) -> None:
        self.setup = setup_of(parse(path)[0], str(path))
        self.tie = tie
        self.parts = parts_of(self.setup) if self.setup.method == "Category" else ()
        self.methods = [_Method(part.setup, tie) for part in self.parts] or [_Method(self.setup, tie)]

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> Double:
        """The response; inputs are rounded to float32 as TMVA::Reader takes them."""
        with np.errstate(all="ignore"):
            arrays = [np.asarray(array).astype(np.float32) for array in inputs]
            if not self.parts:
                return self.methods[0](arrays[0])
            return self._by_category(np.concatenate(arrays[:-1], axis=1), arrays[-1])

    def _by_category(self, event: Single, flags: Single) -> Double:
        """MethodCategory::GetMvaValue; where several categories hold, on which TMVA stops, NaN."""
        result = np.zeros((len(event), 1))
        passed = flags > np.float32(0.5)
        for place, (part, method) in enumerate(zip(self.parts, self.methods, strict=True)):
            rows = passed[:, place]
            result[rows] = method(event[rows][:, part.columns])
        result[passed.sum(axis=1) > 1] = np.nan
        return result


class _Method:
    """One method with its transformations (MethodBase::GetEvent, TransformationHandler)."""

    def __init__(self, setup: Setup, tie: str | None) -> None:
        self.setup = setup
        self.transforms = chain(setup)
        self.respond = _responses[setup.method](setup, tie)

    def __call__(self, x: Single) -> Double:
        for transform in self.transforms:
            x = _transformed(transform, x)
        y = self.respond(x)
        if self.setup.analysis == CLASSIFICATION:
            return y
        single = y.astype(np.float32)
        if self.setup.analysis == REGRESSION:
            single = _inverse(self.transforms, single)
        return single.astype(np.float64)


def _transformed(transform: Transform, x: Single) -> Single:
    take, put = transform.selection.take, transform.selection.put
    part = x[:, take]
    match transform:
        case Normalize():
            part = _normalized(transform, part)
        case Linear():
            wide = part.astype(np.float64) - transform.mean
            part = np.stack([_dot(wide, row) for row in transform.matrix], axis=1).astype(np.float32)
        case Cumulative():
            columns = [_cumulant(pdf, part[:, i], transform.flat) for i, pdf in enumerate(transform.pdfs)]
            part = np.stack(columns, axis=1)
    result = x.copy()
    result[:, put] = part
    return result


def _dot(x: Double, row: Double) -> Double:
    total = np.zeros(len(x))
    for column, factor in zip(x.T, row, strict=True):
        total = total + factor * column
    return total


def _normalized(transform: Normalize, x: Single) -> Single:
    result = np.empty_like(x)
    for i in range(x.shape[1]):
        low, high = transform.low[i], transform.high[i]
        if transform.offset:
            scale = np.float32(np.float64(1) / np.float64(high - low))
            result[:, i] = ((x[:, i] - low) * scale) * np.float32(2) - np.float32(1)
        else:
            result[:, i] = x[:, i] / (abs(high) if abs(high) > abs(low) else abs(low))
    return result


def _inverse(transforms: Sequence[Transform], y: Single) -> Single:
    """TransformationHandler::InverseTransform: each step starts from the same event, so the first listed wins."""
    result = y
    for transform in reversed(transforms):
        if not isinstance(transform, Normalize) or not transform.selection.targets:
            continue
        result = y.copy()
        for place, target in enumerate(transform.selection.targets):
            low = transform.low[transform.selection.width + place]
            high = transform.high[transform.selection.width + place]
            if transform.offset:
                scale = np.float32(np.float64(1) / np.float64(high - low))
                result[:, target] = low + (y[:, target] + np.float32(1)) / (scale * np.float32(2))
            else:
                result[:, target] = y[:, target] * (abs(high) if abs(high) > abs(low) else abs(low))
    return result


def _cumulant(pdf: Pdf, x: Single, flat: bool) -> Single:
    """VariableGaussTransform::Transform for one variable."""
    values, back = np.unique(x, return_inverse=True)
    c = np.array([_value(pdf, float(value)) for value in values])
    c = np.maximum(np.minimum(c, 1 - 10e-10), 10e-10)
    if not flat:
        argument = np.clip(2 * c - 1, -0.99999999, 0.99999999)
        c = np.array([1.414213562 * _erf_inverse(float(a)) for a in argument])
    return np.asarray(c.astype(np.float32)[back.ravel()])


def _value(pdf: Pdf, x: float) -> float:
    """PDF::GetVal."""
    bins = len(pdf.table)
    width = (pdf.high - pdf.low) / bins
    if x < pdf.low:
        place = 0
    elif not x < pdf.high:
        place = bins - 1
    else:
        place = min(int(bins * (x - pdf.low) / (pdf.high - pdf.low)), bins - 1)
    here = float(pdf.table[place])
    if pdf.interpolated:

        def centre(i: int) -> float:
            return pdf.low + i * width + 0.5 * width

        beside = place + 1 if (x > centre(place) and place != bins - 1) or place == 0 else place - 1
        rise, run = here - float(pdf.table[beside]), centre(place) - centre(beside)
        here = here + (x - centre(place)) * rise / run
    return here if here >= 1e-12 else 1e-12


def _erf_inverse(x: float) -> float:
    """TMath::ErfInverse: secant steps on erf."""
    half_root_pi, close = 0.8862269254527579, 1e-14
    size = abs(x)
    if size <= close:
        return half_root_pi * x
    guess = half_root_pi * size
    before, step = math.erf(0.9 * guess), 0.1 * guess
    for _ in range(50):
        now = 1.0 - math.erfc(guess)
        missing = size - now
        if abs(missing) < close:
            return math.copysign(guess, x)
        step *= missing / (now - before)
        before = now
        guess += step
        if abs(step / guess) < close:
            return math.copysign(guess, x)
    return 0.0


def _bdt(setup: Setup, tie: str | None) -> Callable[[Single], Double]:
    """MethodBDT: GetMvaValue, GetRegressionValues, GetMulticlassValues."""
    grove = setup.weights.grove
    assert grove is not None
    walk = _Walk(grove, strict(setup, tie), setup.where)
    boost = setup.option("BoostType", "AdaBoost")
    answers = _answers(setup, grove, boost)
    weight = np.array(grove.weight, np.float64)

    def respond(x: Single) -> Double:
        t = answers[walk(x)]
        if setup.analysis == MULTICLASS:
            return _multiclass(t, len(setup.classes))
        if setup.analysis == REGRESSION and boost == "Grad":
            return np.asarray((_added(t) + weight[0])[:, np.newaxis])
        if setup.analysis == REGRESSION and boost == "AdaBoostR2":
            return np.array([[_near_median(row, weight)] for row in t]).reshape(-1, 1)
        if boost == "Grad":
            y = np.asarray(2.0 / (1.0 + np.exp(-2.0 * _added(t))) - 1)
        else:
            norm = sum(weight.tolist())
            y = _added(t * weight) / norm if norm > np.finfo(np.float64).eps else np.zeros(len(x))
        if setup.switch("DoPreselection", False):
            y = _preselected(setup, x, y)
        return np.asarray(y[:, np.newaxis])

    return respond


def _answers(setup: Setup, grove: Grove, boost: str) -> Double:
    """[nodes] what DecisionTree::CheckEvent gives for a walk that ends there."""
    leaves = grove.leaves()
    answers = np.full(len(leaves), np.nan)
    kind = setup.weights.attributes.get("AnalysisType", setup.weights.attributes.get("TreeType", "0"))
    if float(kind) == 1:
        answers[leaves] = grove.response
    elif setup.switch("UseYesNoLeaf", True) and boost != "RealAdaBoost":
        answers[:] = grove.type
    else:
        answers[leaves] = grove.purity
    return answers


def _added(t: Double) -> Double:
    total = np.zeros(len(t))
    for column in t.T:
        total = total + column
    return total


def _multiclass(t: Double, classes: int) -> Double:
    total = np.stack([_added(t[:, c::classes]) for c in range(classes)], axis=1)
    columns = [1.0 / np.exp(total - total[:, c : c + 1]).sum(axis=1) for c in range(classes)]
    return np.stack(columns, axis=1)


def _near_median(response: Double, weight: Double) -> float:
    """The trimmed mean of AdaBoostR2."""
    order = np.argsort(response, kind="stable")
    half, reached, t = sum(weight.tolist()) / 2, 0.0, 0
    while reached <= half:
        reached += weight[order[t]]
        t += 1
    reach = len(weight) // 6
    low = int(t - reach - 0.5) if t > reach else 0
    high = min(len(weight), int(t + reach + 0.5))
    return float(sum(response[order[low:high]].tolist()) / (high - low))


def _preselected(setup: Setup, x: Single, y: Double) -> Double:
    """MethodBDT::ApplyPreselectionCuts."""
    result = np.zeros(len(x))
    for i in range(x.shape[1]):
        column = x[:, i].astype(np.float64)
        for side, kind, answer in (("Low", "Bkg", -1), ("Low", "Sig", 1), ("High", "Bkg", -1), ("High", "Sig", 1)):
            name = f"Preselection{side}{kind}Var{i}"
            if setup.weights.attributes.get(name, "0") == "1":
                value = number(setup.weights, f"{name}Value", setup.where)
                result[column < value if side == "Low" else column > value] = answer
    return np.where(np.abs(result) > 0.05, result, y)


class _Walk:
    """DecisionTree::CheckEvent and DecisionTreeNode::GoesRight for many events and all trees at once."""

    def __init__(self, grove: Grove, strictly: bool, where: str) -> None:
        self.stops = grove.leaves()
        self.split = np.cumsum(~self.stops) - 1
        self.feature, self.cut = np.array(grove.feature), np.array(grove.cut, np.float32)
        self.negated = np.array(grove.negated, np.bool_)
        self.left, self.right = grove.children(where)
        self.roots = np.array(grove.roots)
        self.strictly = strictly
        self.row = np.full(len(self.feature), -1)
        self.row[list(grove.fisher)] = np.arange(len(grove.fisher))
        self.coefficients = np.array(list(grove.fisher.values()), np.float64)

    def __call__(self, x: Single) -> NDArray[np.int64]:
        """The node [N, trees] where every event stops."""
        step = max(1, PAIRS // len(self.roots))
        parts = [self._ends(x[first : first + step]) for first in range(0, len(x), step)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.roots)), np.int64)

    def _ends(self, x: Single) -> NDArray[np.int64]:
        node = np.tile(self.roots, (len(x), 1)).ravel()
        event = np.repeat(np.arange(len(x)), len(self.roots))
        going = np.flatnonzero(~self.stops[node])
        while len(going):
            here = node[going]
            split = self.split[here]
            right = self._passes(x, event[going], split) ^ self.negated[split]
            node[going] = np.where(right, self.right[here], self.left[here])
            going = going[~self.stops[node[going]]]
        return node.reshape(len(x), -1)

    def _passes(self, x: Single, event: NDArray[np.int64], split: NDArray[np.int64]) -> NDArray[np.bool_]:
        plain = self.row[split] < 0
        value = x[event, np.where(plain, self.feature[split], 0)]
        passes = value > self.cut[split] if self.strictly else value >= self.cut[split]
        if not plain.all():
            row, events = self.row[split[~plain]], event[~plain]
            f = self.coefficients[row, -1]
            for i in range(x.shape[1]):
                f = f + self.coefficients[row, i] * x[events, i].astype(np.float64)
            passes[~plain] = f > self.cut[split[~plain]].astype(np.float64)
        return np.asarray(passes)


def _network(net: Net, x: Single) -> Double:
    """MethodANNBase::ForceNetworkCalculations, DNN::Net::Prediction."""
    h = x.astype(np.float64)
    for layer in net.layers:
        z = np.zeros((len(h), layer.weights.shape[1]))
        terms = (*(h[:, i : i + 1] * row for i, row in enumerate(layer.weights)), layer.bias)
        for term in terms:
            z = z + {"sum": term, "sqsum": term**2, "abssum": np.abs(term)}[net.input]
        h = _ACTIVATIONS[layer.activation](z)
    if net.output == "softmax32":
        h = h.astype(np.float32).astype(np.float64)
    if net.output.startswith("softmax"):
        return np.stack([1 / np.exp(h - h[:, c : c + 1]).sum(axis=1) for c in range(h.shape[1])], axis=1)
    return _ACTIVATIONS[net.output](h)


_ACTIVATIONS: dict[str, Callable[[Double], Double]] = {
    "identity": lambda z: z,
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "absolute": np.abs,
    "softsign": lambda z: z / (1 + np.abs(z)),
    "radial": lambda z: np.exp(-z * z / 2),
    "gauss": lambda z: np.exp(-z * z),
}


def _discriminant(line: Line, x: Single) -> Double:
    """MethodFisher::GetMvaValue, MethodLD::GetRegressionValues."""
    total = np.tile(line.offset, (len(x), 1))
    if line.single:
        total = total.astype(np.float32).astype(np.float64)
    for i, row in enumerate(line.weights):
        total = total + x[:, i : i + 1].astype(np.float64) * row
        if line.single:
            total = total.astype(np.float32).astype(np.float64)
    return total


_responses: dict[str, Callable[[Setup, str | None], Callable[[Single], Double]]] = {
    "BDT": _bdt,
    "MLP": lambda setup, _: (lambda net: lambda x: _network(net, x))(mlp_of(setup)),
    "DNN": lambda setup, _: (lambda net: lambda x: _network(net, x))(net_of(setup)),
    "DL": lambda setup, _: (lambda net: lambda x: _network(net, x))(net_of(setup)),
    "Fisher": lambda setup, _: (lambda line: lambda x: _discriminant(line, x))(fisher_of(setup)),
    "LD": lambda setup, _: (lambda line: lambda x: _discriminant(line, x))(ld_of(setup)),
}
