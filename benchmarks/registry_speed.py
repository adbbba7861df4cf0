"""How fast the registry is, beside the least that must be done and, where it is installed, MLflow 3.

    python benchmarks/registry_speed.py                                     the registry beside the limit
    python benchmarks/registry_speed.py --mlflow /opt/mlflow/bin/python     and MLflow, in an environment of its own

What the two do that it is measured beside stands in `registry_peers.py`. Times in milliseconds, median (least); of
publishes also the CPU time, which a busy disk does not change. Over HTTP, server and client are on one machine, and a
connection is kept.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from registry_peers import SIZE, Limit, Times, in_turn, publishes, read_times

from modelhub_registry import Registry, log, records
from modelhub_registry.client import Client


class Ours:
    """The registry, with the verbs of the peers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = Registry(root)
        self.count = 0

    def publish(self, path: Path) -> None:
        """One version."""
        self.count += 1
        self.registry.push("net", [("source", path)], metadata={"run": self.count, "auc": 0.9})

    def fill(self, count: int) -> None:
        """Versions whose manifests and log entries are real, written without waiting for the disk; then an alias."""
        self.registry._make()
        blobs, entries = self.root / "blobs" / "sha256", self.root / "log" / "net"
        for folder in (blobs, entries):
            folder.mkdir(parents=True)
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
            (entries / f"{number:06d}.json").write_bytes(entry.to_bytes())
            head = entry.head(head)
        self.registry.reindex()
        self.registry.alias(f"net@{count // 2}", "best")

    def reads(self, count: int) -> dict[str, Callable[[], object]]:
        """What is asked of a model with so many versions; a version comes with its verified manifest."""
        return {
            "alias": lambda: self.registry.version("net@best"),
            "list": lambda: self.registry.list("net"),
            "search": lambda: self.registry.search(f"name = net and run = {count // 2}"),
        }


START = """
import json, time
def now():
    return time.perf_counter(), time.process_time()
start = now()
import modelhub_registry
package = now()
from modelhub_registry import Registry
loaded = now()
from modelhub_registry.settings import Settings
Registry("new").init(Settings())
made = now()
print(json.dumps([[b - a for a, b in zip(*pair)] for pair in ((start, package), (start, loaded), (loaded, made))]))
"""


def starts(folder: Path) -> None:
    """Importing, and making a registry, each in a process of its own."""
    times: list[Times] = [[], [], []]
    for _ in range(15):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            done = subprocess.run([sys.executable, "-c", START], cwd=name, capture_output=True, text=True, check=True)
        for all_, (clock, cpu) in zip(times, json.loads(done.stdout), strict=True):
            all_.append((clock, cpu))
    row("import modelhub_registry", times[0], "150 ms")
    row("from modelhub_registry import Registry", times[1], "150 ms")
    row("make a registry", times[2], "100 ms")


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The registry in a folder, served by the command in a process of its own; its URL."""
    command = [sys.executable, "-m", "modelhub", "registry", "serve", "--registry", str(root), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads("".join(islice(process.stdout, 3)))["url"]
        finally:
            process.terminate()


def over_http(folder: Path) -> None:
    """Looking up through the server: by the client, and by a bare connection."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        ours = Ours(Path(name) / "served")
        ours.fill(10)
        with serving(ours.root) as url, Client(url) as client:
            connection = http.client.HTTPConnection(urlsplit(url).netloc)

            def bare() -> None:
                connection.request("GET", "/api/v1/versions/net@best/version")
                connection.getresponse().read()

            works: dict[str, Callable[[], object]] = {
                "alias over HTTP, modelhub's client": lambda: client.version("net@best"),
                "alias over HTTP, http.client": bare,
                "search, 1 hit, over HTTP, modelhub's client": lambda: client.search("run = 5"),
            }
            for what, times in in_turn(works).items():
                row(what, times, "2 ms")


def mlflow(python: str, options: argparse.Namespace) -> None:
    """MLflow's times, from its own Python; over HTTP from its server, with two workers."""
    url = "http://127.0.0.1:5055"
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        served = [python, "-m", "mlflow", "server", "--port", "5055", "--workers", "2"]
        served += ["--backend-store-uri", f"sqlite:///{name}/served.sqlite", "--artifacts-destination", f"{name}/art"]
        with (
            Path(name, "log").open("w") as told,
            subprocess.Popen(served, stdout=told, stderr=told, cwd=name) as server,
        ):
            try:
                start = time.perf_counter()
                answers(f"{url}/health")
                waited = time.perf_counter() - start
                counts = [count for count in options.counts if count <= 10_000]
                asked = {"folder": name, "rounds": min(options.rounds, 50), "counts": counts, "url": url}
                command = [python, str(Path(__file__).with_name("registry_peers.py")), json.dumps(asked)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            finally:
                server.terminate()
    found = json.loads(done.stdout.splitlines()[-1])
    row("import, MLflow", [found["import"]])
    row("make a registry, MLflow", [found["make"]])
    shown(found["publish"])
    row("until the server answers, MLflow", [(waited, 0.0)])
    row("alias over HTTP, MLflow", found["HTTP"])
    for count, times in found["reads"].items():
        for what, all_ in times.items():
            row(f"{what}, {count} versions, MLflow", all_)


def answers(url: str) -> None:
    """Wait for a server."""
    for _ in range(600):
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


def row(what: str, times: Sequence[tuple[float, float]], aim: str = "") -> None:
    """A line of the table, in milliseconds."""
    clock, cpu = zip(*times, strict=True)
    told = f"{1e3 * statistics.median(clock):.3g} ({1e3 * min(clock):.3g}) | {1e3 * statistics.median(cpu):.3g}"
    print(f"| {what} | {told} | {aim} |", flush=True)


def shown(times: dict[str, Times]) -> None:
    """Publishes beside the limit: the median of the ratios of each turn, and the ratio of the CPU times."""
    limit = times["limit"]
    for kind, all_ in times.items():
        ratio = statistics.median(pair[0] / least[0] for pair, least in zip(all_, limit, strict=True))
        cpu = statistics.median(pair[1] for pair in all_) / statistics.median(pair[1] for pair in limit)
        told = "" if kind == "limit" else f": {ratio:.2f} x limit (CPU {cpu:.2f})"
        row(f"publish {SIZE // 1000} kB, {kind}{told}", all_, "2 x limit" if kind == "modelhub" else "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="publishes of each kind")
    parser.add_argument("--mlflow", metavar="PYTHON", help="a Python that has MLflow")
    parser.add_argument(
        "--counts", type=int, nargs="*", default=[10, 1000, 10_000, 100_000], help="versions of a model"
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    parser.add_argument("--filled", type=Path, help="for the registries to look up in, which are many small files")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.filled = (options.filled or options.folder).resolve()
    print("| | ms, median (least) | CPU ms | aim |\n|---|---|---|---|")
    shown(publishes({"limit": Limit, "modelhub": Ours}, options.rounds, options.folder))
    starts(options.folder)
    over_http(options.folder)
    kinds: dict[str, Callable[[Path], Any]] = {"modelhub": Ours, "limit": Limit}
    aims = {("modelhub", "alias"): "0.2 ms", ("modelhub", "search"): "0.5 ms", ("modelhub", "list"): "200 ms at 10 000"}
    for count in options.counts:
        for kind, make in kinds.items():
            for what, times in read_times(make, count, options.filled).items():
                row(f"{what}, {count} versions, {kind}", times, aims.get((kind, what), ""))
    if options.mlflow:
        mlflow(options.mlflow, options)


if __name__ == "__main__":
    main()
