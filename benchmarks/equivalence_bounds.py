"""Does the rounding bound of the check hold? Float32 against float64 over seeds, architectures and inputs.

    python benchmarks/equivalence_bounds.py [--seeds 20] [--events 400]

Every model is run in float32 by onnxruntime and by numpy (onnx.reference), and compared with float64 on inputs as they
are after scaling, N(0, 1), and as they are before it, 10^U(-3, 6) ("raw GeV"). A ratio above 1 is a false alarm.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from modelhub.equivalence.bounds import bound
from modelhub.equivalence.parties import graph_side
from modelhub.equivalence.probes import Probe
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Interface

Array = np.ndarray[Any, Any]


class Net:
    """A builder with random weights."""

    def __init__(self, seed: int) -> None:
        self.b = Builder()
        self.rng = np.random.default_rng(seed)

    def weight(self, *shape: int, fan: int) -> ir.Value:
        """He-initialised."""
        return self.b.constant((self.rng.standard_normal(shape) * np.sqrt(2 / fan)).astype("f4"), "weight")

    def dense(self, x: ir.Value, inside: int, outside: int, activation: str = "Relu") -> ir.Value:
        """Dense layer."""
        y = self.b.op("MatMul", x, self.weight(inside, outside, fan=inside))
        y = self.b.op("Add", y, self.b.constant((self.rng.standard_normal(outside) * 0.1).astype("f4"), "bias"))
        return self.b.op(activation, y) if activation else y

    def norm(self, x: ir.Value, width: int) -> ir.Value:
        """BatchNormalization with moments that are not 0 and 1."""
        parts = [self.rng.normal(1, 0.2, width), self.rng.normal(0, 1, width), self.rng.normal(0, 3, width)]
        parts.append(self.rng.uniform(0.1, 4, width))
        return self.b.op("BatchNormalization", x, *[self.b.constant(p.astype("f4"), "norm") for p in parts])

    def recurrent(self, kind: str, x: ir.Value, inside: int, units: int, gates: int, **attributes: Any) -> ir.Value:
        """The last state of a recurrent layer."""
        b = self.b
        across = b.op("Transpose", x, perm=[1, 0, 2])
        w, r = self.weight(1, gates * units, inside, fan=inside), self.weight(1, gates * units, units, fan=2 * units)
        bias = b.constant((self.rng.standard_normal((1, 2 * gates * units)) * 0.1).astype("f4"), "bias")
        last = b.ops(kind, across, w, r, bias, outputs=2, hidden_size=units, **attributes)[1]
        return b.op("Squeeze", last, b.ints(0))

    def finish(self, x: ir.Value, width: int, classes: int = 3) -> ir.Model:
        """Logits and their softmax."""
        z = self.dense(x, width, classes, "")
        self.b.output(self.b.op("Softmax", z, axis=-1), "p", ["N", classes])
        self.b.output(z, "z", ["N", classes])
        return self.b.finish()


def dense(seed: int) -> ir.Model:
    """DL1-like: 44-72-60-48-36-24-12-8-3."""
    n = Net(seed)
    x = n.b.input("x", ["N", 44])
    sizes = [44, 72, 60, 48, 36, 24, 12, 8]
    for a, b in pairwise(sizes):
        x = n.dense(x, a, b)
    return n.finish(x, 8)


def batch_norm(seed: int) -> ir.Model:
    """BatchNormalization on inputs and after every layer."""
    n = Net(seed)
    x = n.norm(n.b.input("x", ["N", 20]), 20)
    for a, b, activation in ((20, 64, "Relu"), (64, 64, "Elu"), (64, 32, "Tanh")):
        x = n.norm(n.dense(x, a, b, activation), b)
    return n.finish(x, 32)


def lstm(seed: int) -> ir.Model:
    """LSTM over tracks."""
    n = Net(seed)
    return n.finish(n.recurrent("LSTM", n.b.input("x", ["N", "T", 6]), 6, 25, 4), 25)


def gru(seed: int) -> ir.Model:
    """GRU over tracks, either form of the reset gate."""
    n = Net(seed)
    x = n.recurrent("GRU", n.b.input("x", ["N", "T", 6]), 6, 25, 3, linear_before_reset=seed % 2)
    return n.finish(x, 25)


def convolution(seed: int) -> ir.Model:
    """Two convolutions with strides."""
    n = Net(seed)
    x = n.b.input("x", ["N", 1, 12, 12])
    for a, c in ((1, 8), (8, 16)):
        bias = n.b.constant((n.rng.standard_normal(c) * 0.1).astype("f4"), "bias")
        x = n.b.op("Relu", n.b.op("Conv", x, n.weight(c, a, 3, 3, fan=9 * a), bias, pads=[1, 1, 1, 1], strides=[2, 2]))
    return n.finish(n.b.op("Reshape", x, n.b.ints(-1, 144)), 144)


def attention(seed: int) -> ir.Model:
    """One encoder layer over tracks with LayerNormalization, then a mean."""
    n = Net(seed)
    x = n.dense(n.b.input("x", ["N", "T", 6]), 6, 32, "")
    q, k, v = (n.dense(x, 32, 32, "") for _ in range(3))
    scores = n.b.op("MatMul", q, n.b.op("Transpose", k, perm=[0, 2, 1]))
    weights = n.b.op("Softmax", n.b.op("Mul", scores, n.b.constant(np.float32(32**-0.5), "scale")), axis=-1)
    x = n.b.op("Add", x, n.dense(n.b.op("MatMul", weights, v), 32, 32, ""))
    ones, zeros = n.b.constant(np.ones(32, "f4"), "gamma"), n.b.constant(np.zeros(32, "f4"), "beta")
    x = n.b.op("LayerNormalization", x, ones, zeros, axis=-1, epsilon=1e-5)
    x = n.b.op("Add", x, n.dense(n.dense(x, 32, 64), 64, 32, ""))
    return n.finish(n.b.op("ReduceMean", x, n.b.ints(1), keepdims=0), 32)


def deep_sets(seed: int) -> ir.Model:
    """A network on every track, a sum, a network with sigmoids."""
    n = Net(seed)
    x = n.dense(n.dense(n.b.input("x", ["N", "T", 6]), 6, 40), 40, 40)
    return n.finish(n.dense(n.b.op("ReduceSum", x, n.b.ints(1), keepdims=0), 40, 40, "Sigmoid"), 40)


ARCHITECTURES: dict[str, Callable[[int], ir.Model]] = {
    "dense": dense,
    "BatchNorm": batch_norm,
    "LSTM": lstm,
    "GRU": gru,
    "Conv": convolution,
    "attention": attention,
    "deep sets": deep_sets,
}

INPUTS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "N(0,1)": lambda rng, shape: rng.standard_normal(shape),
    "10^U(-3,6)": lambda rng, shape: 10 ** rng.uniform(-3, 6, shape),
}


def inputs(model: ir.Model, draw: str, seed: int, events: int, steps: int = 12) -> Probe:
    """One batch for a model with one input."""
    value = model.graph.inputs[0]
    dims = list(value.shape or ())
    shape = (events, *(dim if isinstance(dim, int) else steps for dim in dims[1:]))
    x = INPUTS[draw](np.random.default_rng(seed + 1000), shape).astype("f4")
    return Probe(draw, steps if "T" in map(str, dims) else None, {value.name or "": x})


def measure(model: ir.Model, probe: Probe, seed: int) -> dict[str, Any]:
    """Ratios of difference to tolerance of two float32 engines, and by how much the limit is wider."""
    interface = Interface.of(model)
    with tempfile.TemporaryDirectory() as folder:
        side = graph_side(model, interface, Path(folder))
        shaken = bound(model, interface, Path(folder), seed)
        assert shaken is not None
        reference = side.engines["float64"](probe.arrays)
        spread = shaken.of(probe, reference)
        low = ReferenceEvaluator(onnx.load(Path(folder) / "graph.float32.onnx"))
        answers = {
            "onnxruntime": side.engines["float32"](probe.arrays),
            "numpy": dict(zip(reference, low.run(None, dict(probe.arrays)), strict=True)),
        }
    allowed = spread.allowed(reference, "float32")
    found: dict[str, Any] = {"limit": spread.limit, "numbers": 0, "violations": 0}
    for engine, answer in answers.items():
        parts = [np.abs(answer[n] - reference[n]) / allowed[n].tolerance for n in reference]
        ratio = np.concatenate([part.ravel() for part in parts])
        found[engine] = (float(ratio.max()), float(np.median(ratio)))
        found["numbers"] += ratio.size
        found["violations"] += int((ratio > 1).sum())
    return found


def first_order(model: ir.Model, x: Array) -> tuple[Array, Array]:
    """What propagating each layer's rounding by its derivative gives for the logits of `dense`: the alternative.

    Probabilistic, 6 √(Σ J² d²) with d = u √K √(Σt²) + u |z|, and deterministic, Σ |J| γ (|W| |a| + |b|); shapes [N, 3].
    """
    u = 2.0**-24
    tensors = [v.const_value.numpy().astype(np.float64) for v in model.graph.initializers.values() if v.const_value]
    layers = list(zip(tensors[::2], tensors[1::2], strict=True))
    a, on, rounding = x.astype(np.float64), [], []
    for index, (w, b) in enumerate(layers):
        k, z = len(w) + 1, a @ w + b
        walk = u * np.sqrt(k * ((a**2) @ (w**2) + b**2)) + u * np.abs(z)
        rounding.append((walk, k * u / (1 - k * u) * (np.abs(a) @ np.abs(w) + np.abs(b))))
        on.append(z > 0)
        a = np.maximum(z, 0) if index < len(layers) - 1 else z
    j = np.broadcast_to(np.eye(a.shape[1]), (len(x), a.shape[1], a.shape[1]))
    squares, total = np.zeros_like(a), np.zeros_like(a)
    for index in reversed(range(len(layers))):
        squares += np.einsum("noi,ni->no", j**2, rounding[index][0] ** 2)
        total += np.einsum("noi,ni->no", np.abs(j), rounding[index][1])
        if index:
            j = (j @ layers[index][0].T) * on[index - 1][:, np.newaxis]
    return 6 * np.sqrt(squares), total


def alternative(seeds: int) -> None:
    """Compare the two ways on the logits of the dense network."""
    for draw in INPUTS:
        ratios = []
        for seed in range(seeds):
            model = dense(seed)
            probe = inputs(model, draw, seed, 400)
            interface = Interface.of(model)
            with tempfile.TemporaryDirectory() as folder:
                side = graph_side(model, interface, Path(folder))
                shaken = bound(model, interface, Path(folder), seed)
                assert shaken is not None
                reference, low = (side.engines[p](probe.arrays)["z"] for p in ("float64", "float32"))
                spread = shaken.of(probe, side.engines["float64"](probe.arrays))
            likely, certain = first_order(model, probe.arrays["x"])
            ours = spread.deviation["z"]
            error = np.abs(low - reference)
            ratios.append([np.median(ours / likely), np.median(spread.limit * ours / certain),
                           (error / likely).max(), (error / certain).max(), (error / ours).max()])  # fmt: skip
        told = [f"{x:.2g}" for x in (*np.median(ratios, axis=0)[:2], *np.max(ratios, axis=0)[2:])]
        print(f"dense, {draw}: shaken / first order {told[0]}, its limit / deterministic {told[1]}; "
              f"largest error over first order {told[2]}, deterministic {told[3]}, shaken {told[4]}")  # fmt: skip


def main() -> None:
    """Print one line per architecture and kind of input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--events", type=int, default=400)
    arguments = parser.parse_args()
    np.seterr(all="ignore")
    alternative(arguments.seeds)
    print("| model | inputs | numbers | violations | largest ratio: onnxruntime | numpy | median | limit |")
    print("|---|---|---|---|---|---|---|---|")
    total = [0, 0]
    for name, build in ARCHITECTURES.items():
        for draw in INPUTS:
            rows = [
                measure(model, inputs(model, draw, seed, arguments.events), seed)
                for seed in range(arguments.seeds)
                for model in [build(seed)]
            ]
            counts = [sum(row[key] for row in rows) for key in ("numbers", "violations")]
            total = [a + b for a, b in zip(total, counts, strict=True)]
            largest = [max(row[engine][0] for row in rows) for engine in ("onnxruntime", "numpy")]
            median = np.median([row["onnxruntime"][1] for row in rows])
            limit = np.median([row["limit"] for row in rows])
            print(f"| {name} | {draw} | {counts[0]} | {counts[1]} | {largest[0]:.2f} | {largest[1]:.2f} "
                  f"| {median:.1e} | {limit:.0f} |", flush=True)  # fmt: skip
    print(f"\n{total[1]} violations in {total[0]} comparisons")


if __name__ == "__main__":
    main()
