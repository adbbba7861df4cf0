"""How long the pages of a large registry take: one model with 10 000 versions, and 10 000 models beside it.

    python benchmarks/registry_pages.py

Each page is asked for as a browser does, of the server in a process of its own, on this machine, over one connection.
Times in milliseconds, median (greatest) of 15; the aim is 300 for each.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

from registry_speed import serving

from modelhub_registry import Registry, log, records
from modelhub_registry.settings import Settings

AIM = 300.0


def fill(root: Path, count: int) -> None:
    """`net` with `count` versions and 20 aliases, and as many models of one version, all with real manifests."""
    registry = Registry(root)
    registry.init(Settings())
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    made = records.Provenance("2026-01-01T00:00:00.000000Z", "me", "0.1.0")
    data = b"weights"
    source = records.Artifact("source", "onnx", "net.onnx", records.sha256(data), len(data))
    (blobs / source.sha256).write_bytes(data)
    for name, versions in [("net", count), *((f"model{i:05d}", 1) for i in range(count))]:
        entries = root / "log" / name
        entries.mkdir(parents=True)
        head = log.Head()
        for number in range(1, versions + 1):
            metadata = {"run": number, "auc": number / count, "training": {"dataset": "mc23a"}}
            manifest = records.Manifest(name, (source,), made, metadata=metadata).to_bytes()
            digest = records.sha256(manifest)
            (blobs / digest).write_bytes(manifest)
            entry = log.Entry(name, number, head.last, made.created, made.by, log.Publish(number, digest))
            (entries / f"{number:06d}.json").write_bytes(entry.to_bytes())
            head = entry.head(head)
    registry.reindex()
    for number in range(20):
        registry.alias(f"net@{number + 1}", f"alias{number}")
    registry.close()


def pages(count: int) -> dict[str, str]:
    """What is asked for."""
    last = -(-count // 50)
    asked = {
        "search, a word in 10 000 names": "model",
        "search, every version": "auc > 0",
        "search, 1 hit": f"run = {count // 2}",
        "search, a key within a key": "training.dataset like 'mc23%' and auc > 0.5",
        "search, no hit": "nothing = 1",
        "search, an alias": "alias = alias3",
    }
    return {
        "models": "/",
        "models, last page": f"/?p={-(-(count + 1) // 50)}",
        **{what: f"/?where={quote(question)}" for what, question in asked.items()},
        "search, every version, last page": f"/?where={quote('auc > 0')}&p={2 * last}",
        "a model of 10 000 versions": "/models/net",
        "the same, last page": f"/models/net?p={last}",
        "a version that shares its file with all": f"/models/net/{count // 2}",
        "two versions side by side": f"/compare?a=net@1&b=net@{count}",
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "registry"
        start = time.perf_counter()
        fill(root, count)
        print(f"filled in {time.perf_counter() - start:.0f} s\n\n| page | ms | kB |\n|---|---|---|")
        with serving(root) as url:
            connection = http.client.HTTPConnection(urlsplit(url).netloc)
            for what, path in pages(count).items():
                times = []
                for _ in range(15):
                    start = time.perf_counter()
                    connection.request("GET", path, headers={"Accept": "text/html"})
                    answer = connection.getresponse()
                    body = answer.read()
                    times.append(1e3 * (time.perf_counter() - start))
                    assert answer.status == 200, (path, answer.status)
                over = "" if max(times) < AIM else f", over {AIM:.0f}"
                print(
                    f"| {what} | {statistics.median(times):.0f} ({max(times):.0f}){over} | {len(body) / 1e3:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
