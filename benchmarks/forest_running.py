"""How fast onnxruntime runs the forests we write, beside those of onnxmltools and skl2onnx; how large the files are.

    python benchmarks/forest_running.py [FOLDER for the models, default a temporary one]

One thread, CPU time, batches of 1 and of 1000 rows, the sides in turns; the median of the ratios ours / peer is told:
below 1 we are faster. "NaN" tells on how many of 1000 rows with a few NaN the peer's model is more than 0.01 off the
framework's answer: trees that send NaN where the framework sends it ask one question more at every node.
"""

from __future__ import annotations

import pickle
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
from forest_writing import from_estimator, from_file, sklearn_peer, xgboost_peer
from models import boosted, events, grown

TURNS = 15

SKLEARN: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("forest, 2 classes, 500 full trees", "RandomForestClassifier", {"n_estimators": 500}),
    ("forest, 2 classes, 200 trees of depth 8", "RandomForestClassifier", {"n_estimators": 200, "max_depth": 8}),
    ("forest, 3 classes, depth 8", "RandomForestClassifier", {"n_estimators": 200, "max_depth": 8, "classes": 3}),
    ("forest, 3 classes, full trees", "RandomForestClassifier", {"n_estimators": 200, "classes": 3}),
    ("forest, regression", "RandomForestRegressor", {"n_estimators": 100, "max_features": 0.3}),
    ("gradient boosting, 3 classes", "GradientBoostingClassifier", {"n_estimators": 50, "classes": 3}),
)


def session(path: Path) -> onnxruntime.InferenceSession:
    """One thread, quiet."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def taken(engine: onnxruntime.InferenceSession, x: np.ndarray, repeat: int) -> float:
    """CPU seconds of one run."""
    name = engine.get_inputs()[0].name
    start = time.process_time()
    for _ in range(repeat):
        engine.run(None, {name: x})
    return (time.process_time() - start) / repeat


def answer(path: Path, x: np.ndarray) -> np.ndarray:
    """Probabilities or predictions: the last output."""
    engine = session(path)
    return np.asarray(engine.run(None, {engine.get_inputs()[0].name: x})[-1], np.float64)


def compare(what: str, ours: Path, peer: Path, expected: np.ndarray | None, broken: np.ndarray) -> None:
    """One line of the table."""
    engines = session(ours), session(peer)
    x = events(1000, 1)[0]
    cells = []
    for rows, repeat in ((1, 300), (1000, 2)):
        pairs = [tuple(taken(engine, x[:rows], repeat) for engine in engines) for _ in range(TURNS)]
        own, other = (statistics.median(column) * 1e6 for column in zip(*pairs, strict=True))
        cells.append(f"{own:.0f} / {other:.0f} = {statistics.median(a / b for a, b in pairs):.2f}")
    sizes = ours.stat().st_size, peer.stat().st_size
    cells.append(f"{sizes[0] / 1e6:.2f} / {sizes[1] / 1e6:.2f} = {sizes[0] / sizes[1]:.2f}")
    wrong = "-"
    if expected is not None:
        off = [np.abs(answer(path, broken).reshape(expected.shape) - expected) > 0.01 for path in (ours, peer)]
        wrong = " / ".join(str(int(np.asarray(part).reshape(len(broken), -1).any(axis=1).sum())) for part in off)
    print(f"| {what} | {' | '.join(cells)} | {wrong} |", flush=True)


def main(folder: Path) -> None:
    """Train, write, run, print."""
    ours, peer = folder / "ours.onnx", folder / "peer.onnx"
    print("| model | batch 1: ours / peer, µs | batch 1000, µs | size, MB | NaN: rows off, ours / peer |")
    print("|---|---|---|---|---|")
    broken = events(1000, 2)[0]
    broken[np.random.default_rng(0).random(broken.shape) < 0.05] = np.nan
    source = boosted(folder)
    from_file(source, ours)
    xgboost_peer(source, peer)
    compare("XGBoost, 2 classes, 1000 trees of depth 6", ours, peer, None, broken)
    for what, kind, settings in SKLEARN:
        estimator = pickle.loads(grown(folder, kind, **settings).read_bytes())
        from_estimator(estimator, ours)
        sklearn_peer(estimator, peer)
        expected = None
        if kind.startswith("Random"):
            expected = (estimator.predict_proba if hasattr(estimator, "classes_") else estimator.predict)(broken)
        compare(what, ours, peer, expected, broken)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    onnxruntime.set_default_logger_severity(4)
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
