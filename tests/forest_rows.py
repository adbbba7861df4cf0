"""What the tests of all tree readers share: rows on thresholds, and onnxruntime telling which leaf it reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime

from modelhub.graph.forest import Compare, Forest, Link, tree_of
from modelhub.graph.forest_classic import classic
from modelhub.graph.forest_onnx import to_graph
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.precision import to_precision

FORMS = ("common", "float32", "classic", "float64")


def threshold_rows(forest: Forest, count: int, seed: int, *, nan: float = 0.05, dtype: str = "float32") -> np.ndarray:
    """`count` rows [count, features] in `dtype`: half of the values random, half at thresholds or a neighbour of one.

    A categorical feature gets categories in and out of the sets, negative and broken ones; `nan` is the share of NaN.
    """
    random = np.random.default_rng(seed)
    x = (random.normal(size=(count, forest.features)) * 2).astype(dtype)
    splits = forest.splits
    member = splits & (forest.compare == Compare.MEMBER)
    for column in range(forest.features):
        here = forest.threshold[splits & ~member & (forest.feature == column)]
        if len(here):
            with np.errstate(over="ignore"):
                at = random.choice(here, count).astype(dtype)
                step = random.choice(np.array([-np.inf, np.nan, np.inf], dtype), count)
                at = np.where(np.isnan(step), at, np.nextafter(at, step))
            x[:, column] = np.where(random.random(count) < 0.5, at, x[:, column])
        if (member & (forest.feature == column)).any():
            assert forest.sets is not None
            top = int(forest.sets.members.max(initial=0)) + 40
            broken = random.choice([0, 0, 0, 0, 0, 0.5, -0.5, -3], count)
            x[:, column] = random.integers(0, top, count) % random.choice([8, top], count) + broken
    x[random.random(x.shape) < 0.02] = 0
    x[random.random(x.shape) < nan] = np.nan
    return x


def interface(forest: Forest) -> Interface:
    return Interface(
        (Input("inputs", tuple(Feature(f"x{i}") for i in range(forest.features))),),
        (Output("outputs", tuple(f"y{i}" for i in range(forest.outputs))),),
    )


def naming_leaves(forest: Forest) -> Forest:
    """The same trees, each with an output of its own that says at which node a row ended."""
    ends = np.flatnonzero(~forest.splits)
    leaf = np.full(forest.nodes, -1)
    leaf[ends] = np.arange(len(ends))
    return replace(
        forest,
        leaf=leaf,
        values=(ends - np.asarray(forest.roots)[tree_of(forest)[ends]])[:, np.newaxis].astype(np.float64),
        base=np.zeros(forest.trees),
        tree_output=np.arange(forest.trees),
        tree_weight=np.ones(forest.trees),
        divisor=1.0,
        link=Link(),
        linear=None,
    )


def written(model: ir.Model, form: str) -> ir.Model:
    """A common graph in one of `FORMS`."""
    if form != "common":
        to_precision(model, "float64" if form == "float64" else "float32")
    if form == "classic":
        classic(model)
    return model


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    """The only output of a graph for rows `x`, in onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (entry,) = session.get_inputs()
    dtype = np.float64 if entry.type == "tensor(double)" else np.float32
    return np.asarray(session.run(None, {entry.name: x.astype(dtype)})[0])


def reached(forest: Forest, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """For every form, the node [N, trees] onnxruntime ends at, counted from the root."""
    named = naming_leaves(forest)
    for form in FORMS:
        yield form, run(written(to_graph(named, interface(named)), form), x).astype(np.int64)


def rounding_bound(forest: Forest, x: np.ndarray) -> float:
    """How far a float32 sum of the trees may be from the exact one: every addition errs by half an ulp of the sum."""
    largest = np.abs(forest.values).max(initial=0) * np.abs(forest.tree_weight).max(initial=0) / forest.divisor
    total = forest.trees * largest + np.abs(forest.base).max(initial=0)
    return float((forest.trees + 2) * total * 2.0**-24)
