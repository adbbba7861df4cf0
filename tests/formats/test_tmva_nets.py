"""MLP, DNN, DL, Fisher and LD against their formulas, and Category."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tmva_writing import both, events, forest, leaf, session, setup, split, tree, written

from modelhub.errors import Notice, UnreadableFile, Unsupported
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_tmva import Importer

RNG = np.random.default_rng(3)
A, B = RNG.normal(size=(4, 5)).astype(np.float32), RNG.normal(size=(6, 2)).astype(np.float32)
"""Weights that leave the layers of an MLP, the bias neuron last."""

X = events(4, 60, 3)
X[np.isnan(X)] = 0.5


def mlp(*layers: np.ndarray, outputs: int | None = None) -> str:
    sizes = [*(len(layer) for layer in layers), layers[-1].shape[1] if outputs is None else outputs]
    blocks = []
    for index, size in enumerate(sizes):
        neurons = [
            f'<Neuron NSynapses="{layers[index].shape[1]}">{" ".join(repr(float(w)) for w in row)}</Neuron>'
            for row in (layers[index] if index < len(layers) else ())
        ] or ['<Neuron NSynapses="0"/>'] * size
        blocks.append(f'<Layer Index="{index}" NNeurons="{size}">{"".join(neurons)}</Layer>')
    return f'<Weights><Layout NLayers="{len(sizes)}">{"".join(blocks)}</Layout></Weights>'


def agree(folder: Path, text: str, want: np.ndarray, x: np.ndarray = X) -> None:
    graph, evaluator = both(written(folder, text), x)
    for y in (graph, evaluator):
        np.testing.assert_allclose(y, want, rtol=2e-7, atol=1e-7)


@pytest.mark.parametrize("way", ["sum", "sqsum", "abssum"])
@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("linear", lambda z: z),
        ("sigmoid", lambda z: 1 / (1 + np.exp(-z))),
        ("tanh", np.tanh),
        ("radial", lambda z: np.exp(-z * z / 2)),
        ("ReLU", lambda z: np.maximum(z, 0)),
    ],
)
def test_mlp_neurons(tmp_path: Path, kind: str, function, way: str) -> None:
    def layer(x: np.ndarray, table: np.ndarray) -> np.ndarray:
        terms = np.concatenate([x, np.ones((len(x), 1))], axis=1)[:, :, np.newaxis] * table.astype(np.float64)
        return {"sum": terms, "sqsum": terms**2, "abssum": np.abs(terms)}[way].sum(axis=1)

    want = layer(function(layer(X.astype(np.float64), A)), B)
    options = {"NeuronType": kind, "NeuronInputType": way, "EstimatorType": "MSE"}
    text = setup(mlp(A, B), 3, "MLP::M", "Regression", options, targets=["a", "b"])
    agree(tmp_path, text, want)


def test_mlp_of_classes(tmp_path: Path) -> None:
    z = np.tanh(X.astype(np.float64) @ A[:-1] + A[-1]) @ B[:-1] + B[-1]
    power = np.exp(z.astype(np.float32).astype(np.float64))
    options = {"NeuronType": "tanh", "EstimatorType": "MSE"}
    agree(tmp_path, setup(mlp(A, B), 3, "MLP::M", "Multiclass", options), power / power.sum(axis=1, keepdims=True))


def test_mlp_trained_on_cross_entropy_ends_in_a_sigmoid(tmp_path: Path) -> None:
    z = np.tanh(X.astype(np.float64) @ A[:-1] + A[-1]) @ B[:-1, :1] + B[-1, :1]
    options = {"NeuronType": "tanh", "EstimatorType": "CE"}
    text = setup(mlp(A, B[:, :1]), 3, "MLP::M", options=options)
    agree(tmp_path, text, 1 / (1 + np.exp(-z)))
    old = text.replace("<Layout", "<Weights").replace("</Layout>", "</Weights>")
    old = old.replace("<Weights><Weights", "<Weights").replace("</Weights></Weights>", "</Weights>")
    agree(tmp_path, old, 1 / (1 + np.exp(-z)))


def test_mlp_tells_of_the_tanh_that_tmva_approximates(tmp_path: Path) -> None:
    text = setup(mlp(A, B[:, :1]), 3, "MLP::M", options={"NeuronType": "tanh"})
    with pytest.warns(Notice, match="tanh"):
        Importer().read(written(tmp_path, text.replace("262656", "262657")), ReadOptions())


def matrices(layer: str, weights: np.ndarray, bias: np.ndarray, names: tuple[str, str]) -> str:
    rows, columns = names
    return (
        f'<{layer}><Weights {rows}="{len(weights)}" {columns}="{weights.shape[1]}">'
        f"{' '.join(repr(float(w)) for w in weights.ravel())}</Weights>"
        f'<Biases {rows}="{len(bias)}" {columns}="1">{" ".join(repr(float(w)) for w in bias)}</Biases>'
        f"</{layer.split()[0]}>"
    )


W, V = RNG.normal(size=(4, 3)), RNG.normal(size=(1, 4))
C, D = RNG.normal(size=4), RNG.normal(size=1)

FUNCTIONS = [
    lambda z: z,
    lambda z: np.maximum(z, 0),
    lambda z: 1 / (1 + np.exp(-z)),
    np.tanh,
    np.abs,
    lambda z: z / (1 + np.abs(z)),
    lambda z: np.exp(-z * z),
]


def dnn(code: int | str, output: str = "S") -> str:
    layers = matrices(f'Layer ActivationFunction="{code}"', W, C, ("rows", "cols"))
    layers += matrices('Layer ActivationFunction="0"', V, D, ("rows", "cols"))
    return f'<Weights InputWidth="3" Depth="2" LossFunction="C" OutputFunction="{output}">{layers}</Weights>'


def dl(code: int | str, output: str = "S") -> str:
    layers = matrices(f'DenseLayer Width="4" ActivationFunction="{code}"', W, C, ("Rows", "Columns"))
    layers += matrices('DenseLayer Width="1" ActivationFunction="0"', V, D, ("Rows", "Columns"))
    return (
        '<Weights NetDepth="2" InputDepth="1" InputHeight="1" InputWidth="3" BatchSize="30" BatchDepth="1" '
        f'LossFunction="C" OutputFunction="{output}">{layers}</Weights>'
    )


@pytest.mark.parametrize("code", range(7))
@pytest.mark.parametrize(("method", "body"), [("DNN::D", dnn), ("DL::D", dl)])
def test_dense_layers(tmp_path: Path, method: str, body, code: int) -> None:
    z = FUNCTIONS[code](X.astype(np.float64) @ W.T + C) @ V.T + D
    agree(tmp_path, setup(body(code), 3, method), 1 / (1 + np.exp(-z)))
    agree(tmp_path, setup(body(code, "I"), 3, method), z)


@pytest.mark.parametrize("code", [0, 3])
def test_activations_once_written_as_characters(tmp_path: Path, code: int) -> None:
    z = FUNCTIONS[code](X.astype(np.float64) @ W.T + C) @ V.T + D
    text = setup(dnn(chr(code) if code else "").replace('"0"', '""'), 3, "DNN::D")
    agree(tmp_path, text, 1 / (1 + np.exp(-z)))


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        (setup(dnn(7), 3, "DNN::D"), Unsupported, "activation function 7"),
        (setup(dnn(0, "X"), 3, "DNN::D"), Unsupported, "OutputFunction 'X'"),
        (setup(dnn("x"), 3, "DNN::D"), UnreadableFile, "'x'"),
        (setup(dnn(0), 2, "DNN::D"), UnreadableFile, "takes 3 numbers and is given 2"),
        (setup(dl(0).replace('InputHeight="1"', 'InputHeight="8"'), 3, "DL::D"), Unsupported, "image"),
        (setup(dl(0).replace('NetDepth="2"', 'NetDepth="3"'), 3, "DL::D"), UnreadableFile, "3 layers announced"),
        (setup(dl(0).replace("DenseLayer", "ConvLayer"), 3, "DL::D"), Unsupported, "ConvLayer"),
        (setup(dl(0).replace('Rows="4"', 'Rows="99999999"'), 3, "DL::D"), UnreadableFile, "matrix of 99999999"),
        (setup(mlp(A, B), 3, "MLP::M"), Unsupported, "2 outputs for a classification of 1"),
        (setup(mlp(A, B[:, :1]), 3, "MLP::M", options={"NeuronType": "cosh"}), Unsupported, "cosh"),
        (setup(mlp(A, B[:, :1]), 3, "MLP::M", options={"EstimatorType": "MAD"}), Unsupported, "MAD"),
        (setup(mlp(A, B[:, :1]).replace('NSynapses="1"', 'NSynapses="2"'), 3, "MLP::M"), UnreadableFile, "synapses"),
        (setup(mlp(A, B[:, :1]).replace('NNeurons="4"', 'NNeurons="9"'), 3, "MLP::M"), UnreadableFile, "9 neurons"),
        (setup(mlp(A * np.float32(np.nan), B[:, :1]), 3, "MLP::M"), UnreadableFile, "finite"),
        (setup("<Weights/>", 3, "MLP::M"), UnreadableFile, "0 layers"),
        (setup("<Weights/>", 3, "KNN::K"), Unsupported, "method KNN"),
        (setup("<Weights/>", 3, "BDT::K"), UnreadableFile, "no trees"),
        (setup("<Weights/>", 3, "Fisher::F"), UnreadableFile, "0 coefficients, not 4"),
    ],
)
def test_what_is_wrong_or_unknown_is_refused(tmp_path: Path, text: str, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        Importer().read(written(tmp_path, text), ReadOptions())


COEFFICIENTS = (0.5, 1.25, -3.1, 1e-3)


def coefficients(names: str, rows: Sequence[Sequence[float]]) -> str:
    return "".join(
        f'<Coefficient {names.format(out, index)} Value="{value}"/>'
        for out, row in enumerate(rows)
        for index, value in enumerate(row)
    )


def test_fisher(tmp_path: Path) -> None:
    body = coefficients('Index="{1}"', [COEFFICIENTS])
    want = X.astype(np.float64) @ COEFFICIENTS[1:] + COEFFICIENTS[0]
    agree(tmp_path, setup(f'<Weights NCoeff="4">{body}</Weights>', 3, "Fisher::F"), want[:, np.newaxis])


def test_ld_rounds_after_every_term(tmp_path: Path) -> None:
    rows = [COEFFICIENTS, (1e7, 1.3, -1.7, 2.9)]
    body = coefficients('IndexOut="{0}" IndexCoeff="{1}"', rows)
    text = setup(f'<Weights NOut="2" NCoeff="4">{body}</Weights>', 3, "LD::L", "Regression", targets=["a", "b"])
    graph, evaluator = both(written(tmp_path, text), X)
    total = np.tile(np.array([row[0] for row in rows], np.float32), (len(X), 1))
    for i in range(3):
        step = total.astype(np.float64) + X[:, i : i + 1].astype(np.float64) * [row[i + 1] for row in rows]
        total = step.astype(np.float32)
    assert graph.tolist() == evaluator.tolist() == total.tolist()


def category(*parts: str, spectators: Sequence[str] = ()) -> str:
    body = f'<Weights NSubMethods="{len(parts)}">{"".join(parts)}</Weights>'
    return setup(body, ["pt", "eta"], "Category::Cat", spectators=spectators)


def part(index: int, cut: float, names: Sequence[str], variables: str | None = None) -> str:
    body = forest([tree(split(0, cut, leaf(kind=-1), leaf(kind=1)))])
    listed = ":".join(names) if variables is None else variables
    more = f' Index="{index}" Cut="abs(eta)&lt;{index + 1}" Variables="{listed}"'
    return setup(body, names, f"BDT::sub{index}", tag="SubMethod", more=more)


def test_category_asks_the_method_whose_flag_is_up(tmp_path: Path) -> None:
    text = category(part(0, 1.0, ["pt"]), part(1, 5.0, ["eta", "pt"]))
    path = written(tmp_path, text)
    with pytest.warns(Notice, match=r"Cat_cat1 is abs\(eta\)<1; Cat_cat2"):
        model = Importer().read(path, ReadOptions())
    record = Interface.of(model)
    assert [feature.name for feature in record.inputs[1].features] == ["Cat_cat1", "Cat_cat2"]
    x = np.array([[2, 2], [2, 9], [2, 9], [0, 9], [2, 9]], np.float32)
    flags = np.array([[1, 0], [0, 1], [0, 0], [0.51, 0.5], [1, 1]], np.float32)
    want = [[1], [1], [0], [-1], [np.nan]]
    np.testing.assert_array_equal(session(model)(x, flags), want)
    np.testing.assert_array_equal(both(path, x, flags)[1], want)


def test_category_may_look_at_spectators(tmp_path: Path) -> None:
    path = written(tmp_path, category(part(0, 1.0, ["mass"]), part(1, 1.0, ["pt", "eta"], ""), spectators=["mass"]))
    x = np.array([[0, 0], [2, 0]], np.float32)
    mass, flags = np.array([[3], [0]], np.float32), np.array([[1, 0], [0, 1]], np.float32)
    graph, evaluator = both(path, x, mass, flags)
    assert graph.tolist() == evaluator.tolist() == [[1], [1]]


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        (category(), UnreadableFile, "0 categories"),
        (category(part(1, 1.0, ["pt"])), UnreadableFile, "not in order"),
        (category(part(0, 1.0, ["mass"])), UnreadableFile, "'mass'"),
        (category(part(0, 1.0, ["pt"], "pt:eta")), UnreadableFile, "names 2 variables"),
        (category(part(0, 1.0, ["pt"]).replace("BDT::sub0", "Cuts::sub0")), Unsupported, "method Cuts"),
        (category(part(0, 1.0, ["pt"]).replace("BDT::sub0", "Category::sub0")), Unsupported, "as a category"),
    ],
)
@pytest.mark.filterwarnings("ignore::modelhub.errors.Notice")
def test_categories_that_are_refused(tmp_path: Path, text: str, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        Importer().read(written(tmp_path, text), ReadOptions())
