"""How layers are wired: shared layers, networks in networks, several inputs and outputs, functions between layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_making import TORCH, L, check, in_double, keras, randomise, read, run, saved

from modelhub.graph.interface import Interface

ops = keras.ops

KINDS = ["keras", "h5", "json", "json and whole h5"]


def shared() -> Any:
    """A layer at three places, two of them at different depths."""
    a, c = keras.Input((4,), name="a"), keras.Input((4,), name="c")
    layer = L.Dense(4, activation="tanh")
    return keras.Model([a, c], L.Concatenate()([layer(layer(a)), layer(c)]))


def nested() -> Any:
    """A functional network with two inputs and outputs and a chain, each called twice, one inside another."""
    a, c = keras.Input((4,)), keras.Input((3,))
    inner = keras.Model([a, c], [L.Dense(3)(L.Concatenate()([a, c])), L.Dense(4, activation="tanh")(a)], name="inner")
    chain = keras.Sequential([keras.Input((4,)), L.Dense(4), L.BatchNormalization(), L.ReLU()], name="chain")
    x, y = keras.Input((4,), name="x"), keras.Input((3,), name="y")
    p, q = inner([chain(x), y])
    r, s = inner([chain(q), p])
    middle = keras.Input((4,))
    wrapper = keras.Model(middle, chain(middle), name="wrapper")
    return keras.Model([x, y], [r, wrapper(s), inner([x, y])[0]])


def many_outputs() -> Any:
    """Outputs that share a trunk; one of them is an input's own layer, and given twice."""
    x = keras.Input((4,), name="x")
    trunk = L.Dense(5, activation="relu", name="trunk")(x)
    return keras.Model(x, [L.Dense(2, name="p")(trunk), trunk, L.Dense(1, name="q")(trunk), trunk])


def tables() -> Any:
    """Inputs and outputs by name."""
    a, z = keras.Input((4,), name="zeta"), keras.Input((3,), name="alpha")
    x = L.Concatenate()([a, z])
    return keras.Model({"zeta": a, "alpha": z}, {"second": L.Dense(2)(x), "first": L.Dense(1)(x)})


def residual() -> Any:
    x = inputs = keras.Input((4,), name="in")
    for _ in range(3):
        x = L.Add()([x, L.Dense(4, activation="relu")(x)])
    return keras.Model(inputs, x)


def deep_set() -> Any:
    tracks = keras.Input((None, 4), name="tracks")
    phi = keras.Sequential([keras.Input((4,)), L.Dense(6, activation="relu"), L.Dense(5)])
    x = L.TimeDistributed(phi)(tracks)
    return keras.Model(tracks, L.Dense(2, activation="softmax")(ops.sum(x, axis=1)))


def chain_of_chains() -> Any:
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3), L.Dense(3)])
    return keras.Sequential([inner, L.Dense(3), keras.Sequential([L.Dense(2), L.Softmax()])])


NETWORKS = {f.__name__: f for f in (shared, nested, many_outputs, tables, residual, deep_set, chain_of_chains)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, kind: str, tmp_path: Path) -> None:
    model = randomise(NETWORKS[name]())
    arrays = None
    if name == "nested" and kind == "json":
        pytest.skip("to_json forgets which layers several networks share; Keras cannot load the weights either")
    if name == "tables":  # Keras sorts names
        rng = np.random.default_rng(0)
        arrays = [rng.normal(size=(5, width)).astype("float32") for width in (3, 4)]
        answers = model({"alpha": arrays[0], "zeta": arrays[1]})
        flat = [keras.ops.convert_to_numpy(answers[key]) for key in ("first", "second")]
        for ours, theirs in zip(run(read(*saved(model, tmp_path, kind)), arrays), flat, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        return
    check(model, tmp_path, kind, arrays)


OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "arithmetic": lambda t, j, k: 1 - (j * 2 + k) / 3 - j / (k * k + 1.1) - abs(j),
    "powers": lambda t, j, k: ops.sqrt(ops.square(j) + 0.1) + ops.exp(-k) + ops.log(ops.abs(j) + 1) + (j * j) ** 1.5,
    "maximum": lambda t, j, k: ops.maximum(j, k) + ops.minimum(j, 0.1) + ops.clip(k, -0.3, 0.3),
    "where": lambda t, j, k: ops.where(ops.logical_and(j > 0, k < 1), j, k * 2),
    "cast": lambda t, j, k: ops.cast(j >= k, "float32") + ops.zeros_like(j) + ops.ones_like(k) * 3,
    "activations": lambda t, j, k: ops.relu(j) + ops.sigmoid(k) * ops.tanh(j) + ops.leaky_relu(k, 0.1),
    "gelu": lambda t, j, k: ops.gelu(j) + ops.gelu(k, approximate=False) + ops.silu(j) + ops.hard_sigmoid(k),
    "softmax over steps": lambda t, j, k: ops.sum(ops.softmax(t, axis=1) * t, axis=1),
    "reductions": lambda t, j, k: ops.concatenate([ops.mean(t, 1), ops.max(t, -1), ops.min(t, 1)], axis=-1),
    "keepdims": lambda t, j, k: t - ops.mean(t, axis=[1, 2], keepdims=True),
    "stack": lambda t, j, k: ops.stack([j, k], axis=1),
    "expand": lambda t, j, k: ops.squeeze(ops.expand_dims(j, 1) + ops.expand_dims(k, -2), axis=1),
    "reshape": lambda t, j, k: ops.reshape(t, (-1, 15)),
    "transpose": lambda t, j, k: ops.matmul(t, ops.transpose(t, (0, 2, 1))),
    "einsum": lambda t, j, k: ops.einsum("nij,nkj->nik", t, t),
    "first step": lambda t, j, k: t[:, 0] + t[:, -1, :],
    "slices": lambda t, j, k: t[..., 1:] + t[:, :, :2],
    "steps": lambda t, j, k: ops.concatenate([t[:, 1:4], t[:, ::2], t[:, ::-1]], axis=1),
    "new axis": lambda t, j, k: j[:, None, :] * k[:, :, None],
}


@pytest.mark.parametrize("kind", ["keras", "h5"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name: str, kind: str, tmp_path: Path) -> None:
    if name == "steps" and TORCH:
        pytest.skip("torch has no slices with a negative step")
    t, j, k = keras.Input((5, 3), name="t"), keras.Input((4,), name="j"), keras.Input((4,), name="k")
    model = keras.Model([t, j, k], [L.Dense(2)(L.Flatten()(OPERATIONS[name](t, j, k)))])
    check(randomise(model), tmp_path, kind)


def test_names(tmp_path: Path) -> None:
    graph = check(randomise(nested()), tmp_path, "keras")
    interface = Interface.of(graph)
    assert [record.name for record in interface.inputs] == ["x", "y"]
    assert [record.name for record in interface.outputs] == ["inner_1", "wrapper_0", "inner_2"]
    assert interface.outputs[0].labels == ("out_0", "out_1", "out_2")
    assert [feature.name for feature in interface.inputs[1].features] == ["y_0", "y_1", "y_2"]
    assert any(node.name is not None and node.name.startswith("chain/batch_normalization") for node in graph.graph)


def test_what_acts_on_single_steps_is_not_folded(tmp_path: Path) -> None:
    """TimeDistributed around dense layers is a product over the sequence as it is, which writers know again."""
    graph = check(randomise(deep_set()), tmp_path, "keras")
    assert [node.op_type for node in graph.graph][:5] == ["MatMul", "Add", "Relu", "MatMul", "Add"]


def test_an_output_given_twice_has_two_names(tmp_path: Path) -> None:
    interface = Interface.of(check(randomise(many_outputs()), tmp_path, "keras"))
    assert [output.name for output in interface.outputs] == ["p_0", "trunk_0", "q_0", "trunk_0_2"]


def test_an_output_called_like_an_input(tmp_path: Path) -> None:
    x = keras.Input((4,), name="score_0")
    model = keras.Model(x, L.Dense(2, name="score")(x))
    assert [output.name for output in Interface.of(check(randomise(model), tmp_path, "keras")).outputs] == ["score_0_2"]


def test_what_is_looked_up_has_categories(tmp_path: Path) -> None:
    ids = keras.Input((3,), name="ids")
    graph = check(randomise(keras.Model(ids, L.Embedding(5, 2)(ids))), tmp_path, "keras", [np.eye(3, dtype="float32")])
    assert [feature.categories for feature in Interface.of(graph).inputs[0].features] == [5, 5, 5]


def steps_of(graph: Any) -> list[object]:
    dims = [value.shape[1] for value in graph.graph.inputs]
    return [dim if isinstance(dim, int) else str(dim.value) for dim in dims]


def test_steps_that_no_layer_needs_are_open(tmp_path: Path) -> None:
    """A network trained on 8 steps takes any number, unless a layer counts them."""
    x = keras.Input((8, 3), name="tracks")
    free = check(keras.Model(x, L.LSTM(2)(L.Dense(4)(x))), tmp_path, "keras")
    assert steps_of(free) == ["T_tracks"]
    counted = check(keras.Model(x, L.Dense(2)(L.Flatten()(L.Dense(4)(x)))), tmp_path, "keras")
    assert steps_of(counted) == [8]
    record = Interface.of(counted).inputs[0]
    assert (record.sequence, record.min_length, record.max_length) == (True, 8, 8)


def test_only_the_counted_sequence_keeps_its_length(tmp_path: Path) -> None:
    a, c = keras.Input((8, 3), name="a"), keras.Input((5, 3), name="c")
    x = L.Concatenate()([L.GRU(2)(a), L.Flatten()(c)])
    assert steps_of(check(keras.Model([a, c], L.Dense(2)(x)), tmp_path, "keras")) == ["T_a", 5]


def test_a_window_sets_the_least_number_of_steps(tmp_path: Path) -> None:
    x = keras.Input((9, 3), name="tracks")
    y = L.GlobalMaxPooling1D()(L.Conv1D(2, 2)(L.MaxPooling1D(2)(L.Conv1D(2, 3)(x))))
    graph = check(keras.Model(x, y), tmp_path, "keras")
    assert Interface.of(graph).inputs[0].min_length == 6  # 6 -> 4 -> 2 -> 1


@in_double
def test_a_float64_network_stays_in_float64(tmp_path: Path) -> None:
    x = keras.Input((4,), dtype="float64", name="in")
    model = keras.Model(x, L.Dense(2, dtype="float64")(L.Dense(3, activation="tanh", dtype="float64")(x)))
    graph = check(randomise(model), tmp_path, "keras", tolerance=1e-12)
    assert graph.graph.inputs[0].dtype.numpy() == "float64"
