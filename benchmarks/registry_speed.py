"""How fast the registry is, beside what the machine can do at best and, where it is installed, MLflow 3.

    python benchmarks/registry_speed.py                                     the registry beside the limit
    python benchmarks/registry_speed.py --mlflow /opt/mlflow/bin/python     and MLflow, in its own environment

The limit of a publish is: copy to a temporary name, hash, fsync, rename, fsync of the folder, one durable SQLite
transaction. All publishes are taken in turn, one of each after another, so that a busy disk is busy for all; every file
is new. Times in milliseconds, median (least).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SIZE = 200_000


class Limit:
    """One blob and one row, and nothing else."""

    def __init__(self, root: Path) -> None:
        self.blobs = root / "blobs"
        self.blobs.mkdir(parents=True)
        self.db = sqlite3.connect(root / "rows.sqlite", isolation_level=None)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("CREATE TABLE versions (name TEXT, number INTEGER, sha256 TEXT, PRIMARY KEY (name, number))")

    def publish(self, path: Path) -> None:
        """One blob, one row."""
        temporary = self.blobs / "incoming"
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.blobs / sha256)
        folder = os.open(self.blobs, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self.db.execute("BEGIN IMMEDIATE")
        (number,) = self.db.execute("SELECT count(*) FROM versions WHERE name = 'net'").fetchone()
        self.db.execute("INSERT INTO versions VALUES ('net', ?, ?)", (number + 1, sha256))
        self.db.execute("COMMIT")


class Ours:
    """The registry."""

    def __init__(self, root: Path) -> None:
        from modelhub_registry import Registry

        self.registry = Registry(root)

    def publish(self, path: Path) -> None:
        """One version."""
        self.registry.push("net", [("source", path)], metadata={"epoch": 2026})


class Mlflow:
    """MLflow as it is quickest: its store in this process, SQLite, one artifact and one version."""

    def __init__(self, root: Path) -> None:
        import mlflow

        root.mkdir(parents=True)
        mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.sqlite")
        mlflow.set_registry_uri(f"sqlite:///{root}/mlflow.sqlite")
        self.client = mlflow.MlflowClient()
        experiment = self.client.create_experiment("models", artifact_location=f"file://{root}/artifacts")
        self.run = self.client.create_run(experiment)
        self.client.create_registered_model("net")
        self.count = 0

    def publish(self, path: Path) -> None:
        """One artifact, one version."""
        self.count += 1
        folder = f"v{self.count}"
        run = self.run.info
        self.client.log_artifact(run.run_id, str(path), folder)
        self.client.create_model_version("net", f"{run.artifact_uri}/{folder}", run.run_id)


def told(times: Sequence[float]) -> str:
    """Median (least) in milliseconds."""
    return f"{1e3 * statistics.median(times):9.3f} ({1e3 * min(times):.3f})"


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def publishes(kinds: dict[str, type], rounds: int) -> dict[str, list[float]]:
    """Seconds of every publish, by kind, taken in turn."""
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(dir=".") as name:
        made = {kind: make(Path(name).resolve() / kind) for kind, make in kinds.items()}
        path = Path(name).resolve() / "net.onnx"
        for _ in range(rounds + 3):
            for kind, one in made.items():
                path.write_bytes(os.urandom(SIZE))
                times[kind].append(timed(lambda one=one: one.publish(path)))
    return {kind: all_[3:] for kind, all_ in times.items()}


def look_ups(counts: Sequence[int]) -> None:
    """What a look-up costs among so many versions of one model."""
    from modelhub_registry import Registry

    print("\nlook-ups                  N   alias      version    list       search, 1 hit")
    for count in counts:
        with tempfile.TemporaryDirectory(dir=".") as name, Registry(Path(name).resolve()) as registry:
            filled(registry, count)
            middle = f"net@{count // 2}"
            registry.alias(middle, "best")
            works: list[Callable[[], object]] = [
                lambda registry=registry: registry.version("net@best"),
                lambda registry=registry, middle=middle: registry.version(middle),
                lambda registry=registry: registry.list("net"),
                lambda registry=registry, count=count: registry.search(f"name = net and run = {count // 2}"),
            ]
            line = []
            for work in works:
                work()
                once = timed(work)
                line.append(told([timed(work) for _ in range(3 if once > 0.05 else 300)]))
            print(f"{count:27d} {' '.join(line)}")


def filled(registry: object, count: int) -> None:
    """Versions whose manifests and log entries are real, written without waiting for the disk."""
    from modelhub_registry import log, records

    registry._make()  # type: ignore[attr-defined]
    root: Path = registry.root  # type: ignore[attr-defined]
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (root / "log" / "net").mkdir(parents=True)
    data = b"weights"
    sha256 = records.sha256(data)
    (blobs / sha256).write_bytes(data)
    head = log.Head()
    made = records.Provenance("2026-01-01T00:00:00.000000Z", "me", "0.1.0")
    for number in range(1, count + 1):
        artifact = records.Artifact("source", "onnx", "net.onnx", sha256, len(data))
        manifest = records.Manifest("net", (artifact,), made, metadata={"run": number, "auc": 0.9}).to_bytes()
        digest = records.sha256(manifest)
        (blobs / digest).write_bytes(manifest)
        entry = log.Entry("net", number, head.last, made.created, made.by, log.Publish(number, digest))
        (root / "log" / "net" / f"{number:06d}.json").write_bytes(entry.to_bytes())
        head = entry.head(head)
    registry.reindex()  # type: ignore[attr-defined]


START = """
import time
a = time.perf_counter()
import modelhub_registry
b = time.perf_counter()
registry = modelhub_registry.Registry("new")
c = time.perf_counter()
registry._make()
print(b - a, c - b, time.perf_counter() - c)
"""


def starts() -> None:
    """Importing, opening and making a registry, each in a process of its own."""
    columns = []
    for _ in range(7):
        with tempfile.TemporaryDirectory(dir=".") as name:
            done = subprocess.run([sys.executable, "-c", START], cwd=name, capture_output=True, text=True, check=True)
        columns.append([float(word) for word in done.stdout.split()])
    imports, opens, makes = zip(*columns, strict=True)
    print(f"\nimport modelhub_registry                {told(imports)}")
    print(f"opening a registry, SQLAlchemy loaded   {told(opens)}")
    print(f"making a registry                       {told(makes)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--mlflow", metavar="PYTHON", help="a Python that has MLflow")
    parser.add_argument("--counts", type=int, nargs="*", default=[10, 1000, 10_000])
    parser.add_argument("--only-mlflow", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_mlflow:
        with contextlib.redirect_stdout(sys.stderr):
            times = publishes({"limit": Limit, "MLflow": Mlflow}, options.rounds)
        print(json.dumps(times))
        return
    times = publishes({"limit": Limit, "registry": Ours}, options.rounds)
    print(f"publish of {SIZE // 1000} kB")
    for kind, all_ in times.items():
        ratio = statistics.median(all_) / statistics.median(times["limit"])
        print(f"  {kind:10s} {told(all_)}   {ratio:.2f} x limit")
    if options.mlflow:
        command = [options.mlflow, __file__, "--only-mlflow", "--rounds", str(min(options.rounds, 50))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        other = json.loads(done.stdout.splitlines()[-1])
        ratio = statistics.median(other["MLflow"]) / statistics.median(other["limit"])
        print(f"  {'MLflow':10s} {told(other['MLflow'])}   {ratio:.2f} x limit in its own turn, {told(other['limit'])}")
    starts()
    look_ups(options.counts)


if __name__ == "__main__":
    main()
