"""The methods that multiply and add: MLP, DNN and DL (dense layers), Fisher and LD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, notice, safe_text
from modelhub_tmva.setup import MULTICLASS, REGRESSION, Setup, integer, number, numbers, unsupported
from modelhub_tmva.stream import Element

__all__ = ["Dense", "Line", "Net", "fisher_of", "ld_of", "mlp_of", "net_of"]

MLP_ACTIVATIONS = {
    "linear": "identity",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "radial": "radial",
    "ReLU": "relu",
}
"""NeuronType to activation; radial is exp(-x²/2)."""

DNN_ACTIVATIONS = {0: "identity", 1: "relu", 2: "sigmoid", 3: "tanh", 4: "absolute", 5: "softsign", 6: "gauss"}
"""DNN::EActivationFunction (inc/TMVA/DNN/Functions.h); 7 is a fast tanh that differs between architectures."""

DNN_OUTPUTS = {"I": "identity", "S": "sigmoid", "M": "softmax"}
"""DNN::EOutputFunction."""

INPUTS = ("sum", "sqsum", "abssum")
"""NeuronInputType: sums of products, of their squares, of their absolute values."""

MAX_WEIGHTS = 1 << 27
"""Weights of one layer."""


@dataclass(frozen=True, eq=False)
class Dense:
    """``activation(x · weights + bias)`` in float64."""

    weights: NDArray[np.float64]
    """[in, out]"""
    bias: NDArray[np.float64]
    """[out]"""
    activation: str


@dataclass(frozen=True, eq=False)
class Net:
    """Dense layers one after the other and a function of the outputs."""

    layers: tuple[Dense, ...]
    output: str
    """"identity", "sigmoid", "softmax", or "softmax32": of the outputs rounded to float32."""
    input: str = "sum"
    """How products are added, one of `INPUTS`."""


@dataclass(frozen=True, eq=False)
class Line:
    """Linear discriminants: offset + x · weights, the terms added in order."""

    weights: NDArray[np.float64]
    """[in, out]"""
    offset: NDArray[np.float64]
    """[out]"""
    single: bool
    """Whether the sum is rounded to float32 after each term (LD); else it is float64 (Fisher)."""


def outputs_of(setup: Setup) -> int:
    """How many numbers the response has."""
    if setup.analysis == MULTICLASS:
        return len(setup.classes)
    return max(len(setup.targets), 1) if setup.analysis == REGRESSION else 1


def mlp_of(setup: Setup) -> Net:
    """An MLP (MethodANNBase::ReadWeightsFromXML, BuildNetwork): weights are float32, the arithmetic is float64."""
    where = setup.where
    layout = setup.weights.find("Layout") or setup.weights
    layers = layout.all("Layer")
    announced = integer(layout, "NLayers", where, len(layers))
    if announced != len(layers) or len(layers) < 2:
        raise UnreadableFile(f"{where}: line {layout.line}: {announced} layers announced, {len(layers)} there")
    kind, way = setup.option("NeuronType", "sigmoid"), setup.option("NeuronInputType", "sum")
    if kind not in MLP_ACTIVATIONS or way not in INPUTS:
        raise unsupported(where, f"an MLP of NeuronType {safe_text(kind)}, NeuronInputType {safe_text(way)}")
    estimator = setup.option("EstimatorType", "MSE")
    if estimator not in ("MSE", "CE"):
        raise unsupported(where, f"an MLP of EstimatorType {safe_text(estimator)}")
    if kind == "tanh" and (setup.release("TMVA") or (4, 2, 1)) >= (4, 2, 1):
        notice(f"{where}: read with the exact tanh; TMVA 4.2.1 approximates it, up to 2e-4 off")
    dense = []
    for index, layer in enumerate(layers[:-1]):
        if integer(layer, "Index", where, index) != index:
            raise UnreadableFile(f"{where}: line {layer.line}: the layers of the MLP are not in order")
        last = index == len(layers) - 2
        table = _synapses(layer, len(layers[index + 1].children) - (0 if last else 1), where)
        dense.append(Dense(table[:-1], table[-1], "identity" if last else MLP_ACTIVATIONS[kind]))
    output = "sigmoid" if estimator == "CE" else "identity"
    if setup.analysis == MULTICLASS:
        if output != "identity":
            dense[-1] = Dense(dense[-1].weights, dense[-1].bias, output)
        output = "softmax32"
    return _fitting(Net(tuple(dense), output, way), setup)


def _synapses(layer: Element, width: int, where: str) -> NDArray[np.float64]:
    """[neurons with the bias last, width] the weights that leave a layer, as the float32 they are read into."""
    neurons = layer.all("Neuron")
    announced = integer(layer, "NNeurons", where, len(neurons))
    if announced != len(neurons) or len(neurons) < 2 or width < 1 or len(neurons) * width > MAX_WEIGHTS:
        raise UnreadableFile(f"{where}: line {layer.line}: {announced} neurons announced, {len(neurons)} there")
    for neuron in neurons:
        if integer(neuron, "NSynapses", where, width) != width:
            raise UnreadableFile(f"{where}: line {neuron.line}: a neuron whose synapses are not {width}")
    table = np.array([numbers(neuron, width, where) for neuron in neurons])
    with np.errstate(over="ignore"):
        return table.astype(np.float32).astype(np.float64)


def net_of(setup: Setup) -> Net:
    """A DNN or a DL of dense layers (MethodDNN, MethodDL: ReadWeightsFromXML)."""
    where = setup.where
    body = setup.weights.find("Weights") or setup.weights
    if any(child.name not in ("Layer", "DenseLayer") for child in body.children):
        other = next(child for child in body.children if child.name not in ("Layer", "DenseLayer"))
        raise unsupported(where, f"line {other.line}: <{safe_text(other.name)}> in a {setup.method}")
    announced = integer(body, "NetDepth" if "NetDepth" in body.attributes else "Depth", where, len(body.children))
    if announced != len(body.children) or not body.children:
        raise UnreadableFile(f"{where}: line {body.line}: {announced} layers announced, {len(body.children)} there")
    output = body.attributes.get("OutputFunction", "")
    if output not in DNN_OUTPUTS:
        raise unsupported(where, f"a {setup.method} of OutputFunction {safe_text(output)!r}")
    for name in ("InputDepth", "InputHeight"):
        if integer(body, name, where, 1) > 1:
            raise unsupported(where, f"a {setup.method} whose input is an image ({name} is not 1)")
    return _fitting(Net(tuple(_dense(child, where) for child in body.children), DNN_OUTPUTS[output]), setup)


def _dense(layer: Element, where: str) -> Dense:
    old = layer.name == "Layer" and layer.attributes.get("ActivationFunction") == ""
    code = 0 if old else integer(layer, "ActivationFunction", where)  # old files hold the number as a character
    if code not in DNN_ACTIVATIONS:
        raise unsupported(where, f"line {layer.line}: activation function {code}")
    weights, biases = layer.find("Weights"), layer.find("Biases")
    if weights is None or biases is None:
        raise UnreadableFile(f"{where}: line {layer.line}: a layer without weights or biases")
    rows, columns = _shape(weights, where)
    if _shape(biases, where) != (rows, 1) or integer(layer, "Width", where, rows) != rows:
        raise UnreadableFile(f"{where}: line {layer.line}: weights, biases and width of a layer do not fit together")
    table = numbers(weights, rows * columns, where).reshape(rows, columns)
    return Dense(np.ascontiguousarray(table.T), numbers(biases, rows, where), DNN_ACTIVATIONS[code])


def _shape(element: Element, where: str) -> tuple[int, int]:
    small = "rows" in element.attributes
    rows = integer(element, "rows" if small else "Rows", where)
    columns = integer(element, "cols" if small else "Columns", where)
    if rows < 1 or columns < 1 or rows * columns > MAX_WEIGHTS:
        raise UnreadableFile(f"{where}: line {element.line}: a matrix of {rows} by {columns}")
    return rows, columns


def _fitting(net: Net, setup: Setup) -> Net:
    """`net`, if its layers fit each other, the variables and the response, and all its weights are numbers."""
    width = len(setup.variables)
    for layer in net.layers:
        if layer.weights.shape[0] != width:
            raise UnreadableFile(f"{setup.where}: a layer takes {layer.weights.shape[0]} numbers and is given {width}")
        if not (np.isfinite(layer.weights).all() and np.isfinite(layer.bias).all()):
            raise UnreadableFile(f"{setup.where}: a weight that is no finite number")
        width = layer.weights.shape[1]
    if width != outputs_of(setup):
        raise unsupported(setup.where, f"{width} outputs for a {setup.analysis} of {outputs_of(setup)}")
    return net


def fisher_of(setup: Setup) -> Line:
    """Fisher: coefficient 0 is the offset (MethodFisher::GetMvaValue)."""
    entries = setup.weights.all("Coefficient")
    table = _coefficients(setup, [(integer(entry, "Index", setup.where), entry) for entry in entries])
    return _line(setup, table[np.newaxis], single=False)


def ld_of(setup: Setup) -> Line:
    """LD: as Fisher, once per output; the sum is a Float_t all the way (MethodLD::GetRegressionValues)."""
    where = setup.where
    outputs = integer(setup.weights, "NOut", where, 1)
    if outputs != outputs_of(setup) or setup.analysis == MULTICLASS:
        raise unsupported(where, f"an LD of {outputs} outputs for a {setup.analysis}")
    entries = setup.weights.all("Coefficient")
    rows = [
        [(integer(e, "IndexCoeff", where), e) for e in entries if integer(e, "IndexOut", where, 0) == output]
        for output in range(outputs)
    ]
    if sum(map(len, rows)) != len(entries):
        raise UnreadableFile(f"{where}: a coefficient of an output that is not there")
    return _line(setup, np.array([_coefficients(setup, row) for row in rows]), single=True)


def _coefficients(setup: Setup, indexed: list[tuple[int, Element]]) -> NDArray[np.float64]:
    """[1 + variables] coefficients in the order of their indices."""
    width = len(setup.variables) + 1
    if sorted(index for index, _ in indexed) != list(range(width)):
        raise UnreadableFile(
            f"{setup.where}: {len(indexed)} coefficients, not {width}: one per variable and the offset"
        )
    result = np.empty(width)
    for index, element in indexed:
        result[index] = number(element, "Value", setup.where)
    return result


def _line(setup: Setup, table: NDArray[np.float64], single: bool) -> Line:
    if not np.isfinite(table).all():
        raise UnreadableFile(f"{setup.where}: a coefficient that is no finite number")
    return Line(np.ascontiguousarray(table[:, 1:].T), table[:, 0], single)
