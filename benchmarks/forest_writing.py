"""How fast forests become ONNX, beside onnxmltools and skl2onnx.

    python benchmarks/forest_writing.py [FOLDER for the models, default a temporary one]

In process: CPU seconds from the file (or the live estimator) to the `.onnx` file, everything imported before; the two
sides take turns, and the median of the ratios is told. From a cold start: CPU seconds of a whole process, the
interpreter and all imports included. Time against nodes: the same, for forests of different sizes.
"""

from __future__ import annotations

import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from models import COLUMNS, boosted, grown, nodes_of

TURNS = 5


def xgboost_peer(source: Path, target: Path) -> None:
    """XGBoost's own reader, then onnxmltools."""
    import onnxmltools
    import xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = xgboost.Booster(model_file=source)
    model = onnxmltools.convert_xgboost(booster, initial_types=[("x", FloatTensorType([None, COLUMNS]))])
    target.write_bytes(model.SerializeToString())


def sklearn_peer(estimator: object, target: Path) -> None:
    """skl2onnx on a live estimator, probabilities as a tensor."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    options = {"zipmap": False} if hasattr(estimator, "classes_") else None
    kinds = [("x", FloatTensorType([None, COLUMNS]))]
    target.write_bytes(skl2onnx.convert_sklearn(estimator, initial_types=kinds, options=options).SerializeToString())


def skops_peer(source: Path, target: Path) -> None:
    """skops' own reader, then skl2onnx."""
    import skops.io

    sklearn_peer(skops.io.load(source, trusted=skops.io.get_untrusted_types(file=source)), target)


def from_file(source: Path, target: Path) -> None:
    """A file, by modelhub."""
    import modelhub

    modelhub.write(modelhub.read(source), target)


def from_estimator(estimator: object, target: Path) -> None:
    """A live estimator, by modelhub."""
    import modelhub
    from modelhub_sklearn import from_estimator

    modelhub.write(from_estimator(estimator), target)


def taken(work: Callable[[], None]) -> float:
    """CPU seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(ours: Callable[[], None], peer: Callable[[], None], turns: int = TURNS) -> tuple[float, float, float]:
    """Median CPU seconds of both, and the median of the ratios peer / ours."""
    ours()
    pairs = [(taken(ours), taken(peer)) for _ in range(turns)]
    return (
        *(statistics.median(column) for column in zip(*pairs, strict=True)),
        statistics.median(b / a for a, b in pairs),
    )


def cold(side: str, source: Path, target: Path) -> float:
    """CPU seconds of a process that does one conversion."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, __file__, side, str(source), str(target)]
    if side == "modelhub":
        command = [sys.executable, "-m", "modelhub", "convert", "--no-check", str(source), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def row(what: str, ours: float, peer: float, ratio: float, aim: float) -> None:
    """One line of the table."""
    met = "met" if ratio >= aim else "MISSED"
    print(f"| {what} | {ours:.2f} | {peer:.2f} | {ratio:.1f}x | {aim:g}x {met} |", flush=True)


def main(folder: Path) -> None:
    """Train, measure, print."""
    target = folder / "out.onnx"
    source, forest = boosted(folder), grown(folder, n_estimators=500)
    print("| | modelhub, CPU s | peer, CPU s | ratio | aim |\n|---|---|---|---|---|")
    ours, peer, ratio = in_turns(lambda: from_file(source, target), lambda: xgboost_peer(source, target))
    row("XGBoost JSON, 1000 trees of depth 6, in process", ours, peer, ratio, 10)
    pairs = [(cold("modelhub", source, target), cold("xgboost_peer", source, target)) for _ in range(3)]
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    row("the same from a cold start", *medians, statistics.median(b / a for a, b in pairs), 6)
    estimator = pickle.loads(forest.read_bytes())
    ours, peer, ratio = in_turns(lambda: from_estimator(estimator, target), lambda: sklearn_peer(estimator, target), 3)
    row("scikit-learn forest, 500 full-depth trees, live, in process", ours, peer, ratio, 10)
    skops = forest.with_suffix(".skops")
    ours, peer, ratio = in_turns(lambda: from_file(skops, target), lambda: skops_peer(skops, target), 3)
    row("scikit-learn forest, .skops file, in process", ours, peer, ratio, 10)
    print("\n| nodes | CPU s | µs per node |\n|---|---|---|")
    for count in (125, 250, 500):
        part = pickle.loads(grown(folder, n_estimators=count).read_bytes())
        seconds = statistics.median(taken(lambda: from_estimator(part, target)) for _ in range(TURNS))  # noqa: B023
        print(f"| {nodes_of(part)} | {seconds:.3f} | {seconds / nodes_of(part) * 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if len(sys.argv) > 2:
        globals()[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    elif len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
