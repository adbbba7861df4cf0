"""Which check sees which fault of a converter? Ours beside the fixed tolerances in use, over many seeds.

    python benchmarks/equivalence_faults.py [--seeds 20]

Networks: DL1-like (44-72-60-48-36-24-12-8-3, ReLU, softmax), the fault seeded into the written ONNX file. Fixed
tolerances look at the softmax on 5000 events of N(0, 1): 1e-5/1e-5 is Polygraphy's default, 1e-3/1e-7 that of ONNX's
backend tests, decimal=5 that of sklearn-onnx's. "numbers" is `modelhub check` without its comparison of parameters.

Trees: scikit-learn's GradientBoostingRegressor (100 trees of depth 4) and RandomForestRegressor (50 of depth 8) on ten
features in GeV-like units; a row sees a fault when the prediction changes.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from equivalence_bounds import dense, inputs, measure
from onnx import numpy_helper

import modelhub
from modelhub.equivalence.probes import Probe
from modelhub.protocols import WriteOptions

Array = np.ndarray[Any, Any]


def one_weight(relative: float) -> Callable[[str, Array, np.random.Generator], Array]:
    """A weight of the first layer, its sign kept."""

    def fault(_: str, w: Array, rng: np.random.Generator) -> Array:
        if w.shape == (44, 72):
            w[rng.integers(44), rng.integers(72)] *= 1 + relative
        return w

    return fault


def printed(form: str) -> Callable[[str, Array, np.random.Generator], Array]:
    """Every number printed and read back."""
    return lambda _, w, __: np.array([float(form % v) for v in w.ravel()], w.dtype).reshape(w.shape)


def ignored(_: str, w: Array, __: np.random.Generator) -> Array:
    """The last input of the first layer."""
    if w.shape == (44, 72):
        w[43] = 0
    return w


NETWORK: dict[str, Callable[[str, Array, np.random.Generator], Array]] = {
    "none": lambda _, w, __: w,
    "one weight off by 1e-4 relative": one_weight(1e-4),
    "all weights printed %.6g": printed("%.6g"),
    "printed %.9g (exact)": printed("%.9g"),
    "one weight off by 1e-5 relative": one_weight(1e-5),
    "one input ignored": ignored,
    "weights through fp16": lambda _, w, __: w.astype(np.float16).astype(w.dtype),
}


def damaged(good: Path, bad: Path, fault: Callable[[str, Array, np.random.Generator], Array], seed: int) -> None:
    """The file with a fault seeded into its weights."""
    proto = onnx.load(good)
    rng = np.random.default_rng(seed)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(fault(tensor.name, array.copy(), rng), tensor.name))
    onnx.save(proto, bad)


def networks(seeds: int) -> None:
    """The table of networks: in how many of the seeds each check fails."""
    import onnxruntime

    def softmax(path: Path, x: Array) -> Array:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(["p"], {"x": x})[0])

    failed: dict[str, Counter[str]] = {name: Counter() for name in NETWORK}
    largest: dict[str, list[float]] = {name: [] for name in NETWORK}
    with tempfile.TemporaryDirectory() as folder:
        good, bad = Path(folder) / "good.onnx", Path(folder) / "bad.onnx"
        for seed in range(seeds):
            model = dense(seed)
            modelhub.write(model, good)
            probe = inputs(model, "N(0,1)", seed, 5000)
            (x,) = probe.arrays.values()
            right = softmax(good, x)
            for name, fault in NETWORK.items():
                damaged(good, bad, fault, seed)
                p = softmax(bad, x)
                largest[name].append(float(np.abs(p - right).max()))
                report = modelhub.check(good, bad)
                count = failed[name]
                count["1e-5/1e-5"] += not np.allclose(p, right, 1e-5, 1e-5)
                count["1e-3/1e-7"] += not np.allclose(p, right, 1e-3, 1e-7)
                count["decimal=5"] += bool((np.abs(p - right) >= 1.5e-5).any())
                count["numbers"] += any(
                    leg.verdict != "equivalent" and leg.verdict != "identical" for leg in report.legs
                )
                count["modelhub check"] += report.verdict in ("different", "suspect")
    columns = ("1e-5/1e-5", "1e-3/1e-7", "decimal=5", "numbers", "modelhub check")
    print(f"| fault, {seeds} seeds | median max\\|dp\\| | {' | '.join(columns)} |")
    print("|" + "---|" * (len(columns) + 2))
    for name, count in failed.items():
        told = " | ".join(f"{count[column]}" for column in columns)
        print(f"| {name} | {np.median(largest[name]):.1e} | {told} |")


def raw(seeds: int) -> None:
    """No false alarm where inputs come as they are, in GeV: 10^U(-3, 6)."""
    alarms: Counter[str] = Counter()
    worst = 0.0
    for seed in range(seeds):
        model = dense(seed)
        probe = inputs(model, "10^U(-3,6)", seed, 2000)
        found = measure(model, probe, seed)
        worst = max(worst, *(found[engine][0] for engine in ("onnxruntime", "numpy")))
        alarms["modelhub check"] += found["violations"] > 0
        low, high = logits(model, probe)
        alarms["1e-5/1e-5"] += not np.allclose(low, high, 1e-5, 1e-5)
        alarms["1e-3/1e-7"] += not np.allclose(low, high, 1e-3, 1e-7)
        alarms["decimal=5"] += bool((np.abs(low - high) >= 1.5e-5).any())
    told = ", ".join(f"{name} {alarms[name]}" for name in ("1e-5/1e-5", "1e-3/1e-7", "decimal=5", "modelhub check"))
    print(f"\nfalse alarms on the logits of raw-GeV inputs, of {seeds}: {told} (largest ratio {worst:.2f})")


def logits(model: Any, probe: Probe) -> tuple[Array, Array]:
    """In float32 and in float64."""
    import onnxruntime

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "float64"):
            path = Path(folder) / f"{precision}.onnx"
            modelhub.write(model, path, options=WriteOptions(precision=precision))
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            x = {name: value.astype(precision) for name, value in probe.arrays.items()}
            found.append(np.asarray(session.run(["z"], x)[0], np.float64))
    return found[0], found[1]


def down(t: Array) -> Array:
    """The largest float32 up to t: what ``x <= t`` needs."""
    near = t.astype(np.float32)
    return np.where(near.astype(float) > t, np.nextafter(near, np.float32(-np.inf)), near).astype(float)


def strict(t: Array) -> Array:
    """``x < t``, said with ``<=``."""
    near = t.astype(np.float32)
    return np.where(near.astype(float) >= t, np.nextafter(near, np.float32(-np.inf)), near).astype(float)


TREES: dict[str, Callable[[Array], Array]] = {
    "exact (round down)": down,
    "threshold to nearest float32": lambda t: t.astype(np.float32).astype(float),
    "`<` instead of `<=`": strict,
    "thresholds printed %.6g": lambda t: np.array([float(f"{v:.6g}") for v in t]),
}


def forests(seeds: int) -> None:
    """The table of trees: in how many of the seeds each kind of row, and the check, sees the fault."""
    from sklearn.datasets import make_classification
    from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

    from modelhub_sklearn import from_estimator

    seen: dict[tuple[str, str], Counter[str]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        data, y = make_classification(2000, 10, n_informative=8, random_state=seed)
        data = (data * 100 + rng.standard_normal(data.shape)).astype(np.float32)
        low, high = data.min(0), data.max(0)
        rows = {
            "U(0,1) n=10 000": rng.random((10_000, 10)).astype(np.float32),
            "U(range) n=20 000": (low + rng.random((20_000, 10)) * (high - low)).astype(np.float32),
            "data n=2000": data,
        }
        for model in (
            GradientBoostingRegressor(n_estimators=100, max_depth=4, random_state=seed),
            RandomForestRegressor(n_estimators=50, max_depth=8, random_state=seed),
        ):
            model.fit(data, y.astype(float))
            trees = [tree.tree_ for tree in np.ravel(model.estimators_)]
            kept = [tree.threshold.copy() for tree in trees]
            right = {name: model.predict(x) for name, x in rows.items()}
            with tempfile.TemporaryDirectory() as folder:
                good, bad = Path(folder) / "good.onnx", Path(folder) / "bad.onnx"
                modelhub.write(from_estimator(model), good, options=WriteOptions(precision="float64"))
                for name, fault in TREES.items():
                    for tree, before in zip(trees, kept, strict=True):
                        tree.threshold[:] = np.where(tree.feature >= 0, fault(before), before)
                    count = seen.setdefault((type(model).__name__, name), Counter())
                    for kind, x in rows.items():
                        count[kind] += bool((np.abs(model.predict(x) - right[kind]) > 1e-9).any())
                    modelhub.write(from_estimator(model), bad, options=WriteOptions(precision="float64"))
                    report = modelhub.check(good, bad)
                    count["numbers"] += any(leg.verdict in ("different", "suspect") for leg in report.legs)
                    count["modelhub check"] += report.verdict in ("different", "suspect")
                    for tree, before in zip(trees, kept, strict=True):
                        tree.threshold[:] = before
    columns = (*rows, "numbers", "modelhub check")
    print(f"\n| trees | fault, {seeds} seeds | {' | '.join(columns)} |")
    print("|" + "---|" * (len(columns) + 2))
    for (kind, name), count in sorted(seen.items()):
        print(f"| {kind} | {name} | {' | '.join(str(count[column]) for column in columns)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    networks(seeds)
    raw(seeds)
    forests(seeds)


if __name__ == "__main__":
    main()
