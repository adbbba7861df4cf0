"""The two that the registry is measured beside: the least that must be done, and MLflow 3, each with the same verbs.

`registry_speed.py` runs this file with the Python that has MLflow; it prints one line of JSON. It needs nothing of
modelhub. Times are pairs: seconds by the clock, and seconds of this process's CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = 200_000
Times = list[tuple[float, float]]


class Limit:
    """Copy to a temporary name, hash, fsync, rename, fsync of the folder; one durable SQLite transaction; SELECTs."""

    def __init__(self, root: Path) -> None:
        self.blobs = root / "blobs"
        self.blobs.mkdir(parents=True)
        self.db = sqlite3.connect(root / "rows.sqlite", isolation_level=None)
        self.db.executescript(
            """PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
            CREATE TABLE versions (name TEXT, number INTEGER, sha256 TEXT, told TEXT, PRIMARY KEY (name, number));
            CREATE TABLE aliases (name TEXT, alias TEXT, number INTEGER, PRIMARY KEY (name, alias));
            CREATE TABLE tags (name TEXT, number INTEGER, key TEXT, value, PRIMARY KEY (name, number, key));
            CREATE INDEX tags_value ON tags (key, value);"""
        )

    def publish(self, path: Path) -> None:
        """One blob, one row, two tags."""
        hashed = hashlib.sha256()
        temporary = self.blobs / "incoming"
        with path.open("rb") as source, temporary.open("wb") as file:
            while piece := source.read(1 << 20):
                hashed.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.blobs / hashed.hexdigest())
        folder = os.open(self.blobs, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self.db.execute("BEGIN IMMEDIATE")
        (number,) = self.db.execute("SELECT max(number) FROM versions WHERE name = 'net'").fetchone()
        self._row((number or 0) + 1, hashed.hexdigest())
        self.db.execute("COMMIT")

    def _row(self, number: int, sha256: str) -> None:
        tags = {"run": number, "auc": 0.9}
        self.db.execute("INSERT INTO versions VALUES ('net', ?, ?, ?)", (number, sha256, json.dumps(tags)))
        self.db.executemany("INSERT INTO tags VALUES ('net', ?, ?, ?)", [(number, *tag) for tag in tags.items()])

    def fill(self, count: int) -> None:
        """Rows of versions, and an alias in the middle."""
        self.db.execute("BEGIN")
        for number in range(1, count + 1):
            self._row(number, hashlib.sha256(str(number).encode()).hexdigest())
        self.db.execute("INSERT INTO aliases VALUES ('net', 'best', ?)", (count // 2,))
        self.db.execute("COMMIT")

    def reads(self, count: int) -> dict[str, Callable[[], object]]:
        """What is asked of a model with so many versions."""
        found = "SELECT sha256 FROM versions JOIN aliases USING (name, number) WHERE name = 'net' AND alias = 'best'"
        return {
            "alias": lambda: self.db.execute(found).fetchone(),
            "list": lambda: self.db.execute("SELECT * FROM versions WHERE name = 'net' ORDER BY number").fetchall(),
            "search": lambda: self.db.execute(
                "SELECT * FROM versions JOIN tags USING (name, number) WHERE key = 'run' AND value = ?", (count // 2,)
            ).fetchall(),
        }


class Mlflow:
    """MLflow as it is quickest: one artifact and one version by its client, over a store in this process or a URL."""

    def __init__(self, root: Path, url: str | None = None) -> None:
        import mlflow

        root.mkdir(parents=True)
        self.file = root / "mlflow.sqlite"
        self.client = mlflow.MlflowClient(url or f"sqlite:///{self.file}", url or f"sqlite:///{self.file}")
        experiment = self.client.create_experiment("models", None if url else f"file://{root}/artifacts")
        self.run = self.client.create_run(experiment).info
        self.client.create_registered_model("net")
        self.count = 0

    def publish(self, path: Path) -> None:
        """One artifact, one version, two tags."""
        self.count += 1
        folder = f"v{self.count}"
        self.client.log_artifact(self.run.run_id, str(path), folder)
        tags = {"run": str(self.count), "auc": "0.9"}
        self.client.create_model_version("net", f"{self.run.artifact_uri}/{folder}", self.run.run_id, tags=tags)

    def fill(self, count: int) -> None:
        """The first version by the client, the others as copies of its rows; an alias in the middle."""
        self.client.create_model_version("net", self.run.artifact_uri, self.run.run_id, tags={"run": "1", "auc": "0.9"})
        db = sqlite3.connect(self.file)
        for table in ("model_versions", "model_version_tags"):
            cursor = db.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in cursor.description]
            rows = [dict(zip(columns, row, strict=True)) for row in cursor]
            copies = [{**row, "version": number} for number in range(2, count + 1) for row in rows]
            for copy in copies:
                if copy.get("key") == "run":
                    copy["value"] = str(copy["version"])
            marks = ", ".join(f":{column}" for column in columns)
            db.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)
        db.commit()
        db.close()
        self.client.set_registered_model_alias("net", "best", str(max(1, count // 2)))

    def reads(self, count: int) -> dict[str, Callable[[], object]]:
        """What is asked of a model with so many versions."""
        return {
            "alias": lambda: self.client.get_model_version_by_alias("net", "best"),
            "list": lambda: self._found("name = 'net'"),
            "search": lambda: self._found(f"name = 'net' and tags.run = '{count // 2}'"),
        }

    def _found(self, question: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.client.search_model_versions(question, max_results=1000, page_token=token)
            found += page
            if not (token := page.token):
                return found


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of CPU."""
    cpu, start = time.process_time(), time.perf_counter()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def repeated(work: Callable[[], object]) -> Times:
    """Times of a work: 300, or 5 where one takes over 50 ms."""
    work()
    return [timed(work) for _ in range(5 if timed(work)[0] > 0.05 else 300)]


def in_turn(works: dict[str, Callable[[], object]]) -> dict[str, Times]:
    """Times of works that are quick, 300 of each, one after another, once all are warm."""
    for _ in range(50):
        for work in works.values():
            work()
    times: dict[str, Times] = {what: [] for what in works}
    for _ in range(300):
        for what, work in works.items():
            times[what].append(timed(work))
    return times


def publishes(kinds: dict[str, Callable[[Path], Any]], rounds: int, folder: Path) -> dict[str, Times]:
    """Times of every publish, by kind, one of each in turn, so that a busy disk is busy for all; every file is new."""
    times: dict[str, Times] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        made = {kind: make(Path(name) / kind) for kind, make in kinds.items()}
        path = Path(name) / "net.onnx"
        for _ in range(rounds + 5):
            for kind, one in made.items():
                path.write_bytes(os.urandom(SIZE))
                times[kind].append(timed(lambda one=one: one.publish(path)))
    return {kind: all_[5:] for kind, all_ in times.items()}


def read_times(make: Callable[[Path], Any], count: int, folder: Path) -> dict[str, Times]:
    """Times of every look-up in a registry filled with so many versions."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        one = make(Path(name) / "filled")
        one.fill(count)
        return {what: repeated(work) for what, work in one.reads(count).items()}


def of_mlflow(folder: Path, rounds: int, counts: list[int], url: str) -> dict[str, Any]:
    """MLflow's times: publishes beside the limit, look-ups, over HTTP too where a server is named."""
    found: dict[str, Any] = {"import": timed(lambda: __import__("mlflow"))}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        found["make"] = timed(lambda: Mlflow(Path(name) / "first"))
    found["publish"] = publishes({"limit": Limit, "MLflow": Mlflow}, rounds, folder)
    found["reads"] = {str(count): read_times(Mlflow, count, folder) for count in counts}
    if url:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            served = Mlflow(Path(name) / "served", url)
            served.client.create_model_version("net", served.run.artifact_uri, served.run.run_id)
            served.client.set_registered_model_alias("net", "best", "1")
            found["HTTP"] = repeated(served.reads(1)["alias"])
    return found


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    with contextlib.redirect_stdout(sys.stderr):
        answer = of_mlflow(Path(asked["folder"]), asked["rounds"], asked["counts"], asked["url"])
    print(json.dumps(answer))
