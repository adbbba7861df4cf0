"""Real events shared out: it does not matter who does the work, and a cluster that cannot is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import LocalCluster
from stream_files import BLOCK, EVENTS, checked, job, results

from modelhub.data import DataSpec
from modelhub.equivalence import stream as room
from modelhub.errors import Inconclusive, UsageError
from modelhub.protocols import ReadOptions


def test_parts_merge_in_any_order_to_what_one_process_finds(folder: Path) -> None:
    alone = checked(folder / "late.onnx")
    shared = checked(folder / "late.onnx")
    room.stream(alone, job(folder, "late.onnx"))
    with room._ready(job(folder, "late.onnx")) as (stand, events):
        for batch in next(events.read(0, 1)):
            stand.learn(room._probe(batch))
        learned = dict(stand.learned)
    told = replace(job(folder, "late.onnx"), learned=learned)
    pieces = [room.run(told, first, min(first + 2, 6)) for first in (4, 0, 2)]
    whole = room.Part(shared, pieces[0].data)
    for piece in pieces:
        whole.merge(piece)
    assert sorted(whole.content) == [0, 1, 2, 3, 4, 5]
    coarse = [
        (key, precision, r.key, r.events, r.worst.event, r.worst.largest, r.worst.verdict, r.ulps)
        for key, precision, r in sorted(results(alone), key=str)
    ]
    again = [
        (key, precision, r.key, r.events, r.worst.event, r.worst.largest, r.worst.verdict, r.ulps)
        for key, precision, r in sorted(results(shared), key=str)
    ]
    assert coarse == again
    assert shared.verdict == alone.verdict == "different"


def test_two_dask_workers_give_the_same_digest(folder: Path, modelhub) -> None:
    digests = []
    for scheduler in ((), ("--scheduler", "local:2")):
        done = modelhub(
            "check", folder / "net.onnx", folder / "net.json", "--data", f"{folder / 'events.h5'}:jets,tracks",
            "--batch", BLOCK, "--json", *scheduler,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert sum(p["events"] for p in report["legs"][0]["probes"] if p["kind"] == "data") == EVENTS
        digests.append((report["digest"], report["data"]))
    assert digests[0] == digests[1]


def test_a_cluster_that_is_there_already(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers elsewhere are told paths that do not depend on the folder the user stands in."""
    alone = checked(folder / "late.onnx")
    room.stream(alone, job(folder, "late.onnx"))
    monkeypatch.chdir(folder)
    here = room.Job(
        (Path("net.onnx"), "onnx", ReadOptions()),
        (Path("late.onnx"), "onnx", "late.onnx"),
        None,
        DataSpec(Path("events.h5"), block=BLOCK),
        seed=1,
    )
    report = checked(folder / "late.onnx")
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        room.stream(report, here, scheduler=cluster.scheduler_address)
    assert report.to_json()["digest"] == alone.to_json()["digest"]
    sent = room._abroad(here, {})
    assert all(path.is_absolute() for path in (sent.source[0], sent.target[0], sent.data.path))


def test_a_cluster_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub.equivalence.cluster.PATIENCE", 1.0)
    report = checked(folder / "net.onnx")
    for scheduler, told in (
        ("tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("local:many", "takes a number of processes, not 'many'"),
        ("local:0", "takes a number of processes"),
        ("nonsense", "no Dask scheduler answers at nonsense"),
    ):
        with pytest.raises(UsageError, match=told):
            room.stream(report, job(folder, "net.onnx"), scheduler=scheduler)


def test_a_cluster_without_workers_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub.equivalence.cluster.PATIENCE", 1.0)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        pytest.raises(UsageError, match="has no workers"),
    ):
        room.stream(checked(folder / "net.onnx"), job(folder, "net.onnx"), scheduler=cluster.scheduler_address)


def test_workers_with_other_files_or_engines_are_not_merged(folder: Path) -> None:
    part, other = room.run(job(folder), 0, 1), room.run(job(folder), 1, 2)
    other.report.software["numpy"] = "1.0"
    with pytest.raises(Inconclusive, match=r"a worker runs numpy 1\.0, others numpy"):
        part.merge(other)
    with pytest.raises(Inconclusive, match="a worker runs target"):
        room.run(job(folder, "net.onnx"), 0, 1).merge(room.run(job(folder, "late.onnx"), 1, 2))
    with pytest.raises(Inconclusive, match=r"a worker runs events\.root of"):
        room.run(job(folder), 0, 1).merge(room.run(job(folder, data="events.root"), 1, 2))
