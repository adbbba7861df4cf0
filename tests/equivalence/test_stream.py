"""Real events through the engines: what is compared, and how it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from stream_files import BLOCK, EVENTS, RARE, RECORD, checked, job, network, results

import modelhub
from modelhub.cli import cli
from modelhub.data import DataSpec
from modelhub.equivalence import stream as room
from modelhub.equivalence.bounds import Bound
from modelhub.equivalence.observed import observed
from modelhub.equivalence.probes import Probe, probes
from modelhub.equivalence.render import show
from modelhub.equivalence.report import schema
from modelhub.errors import UsageError
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.protocols import ReadOptions


def test_every_event_is_compared_on_every_leg(folder: Path) -> None:
    report = modelhub.check(folder / "net.onnx", folder / "net.json", data=DataSpec(folder / "events.h5", block=BLOCK))
    assert report.verdict == "equivalent"
    for leg in report.legs:
        assert sum(result.events for result in leg.results if result.kind == "data") == EVENTS
        assert {result.length for result in leg.results if result.kind == "data"} == {0, 1, 2, 3, 4, 5}
    data = report.to_json()
    jsonschema.Draft202012Validator(schema()).validate(json.loads(report.dumps()))
    assert data["data"]["events"] == EVENTS
    assert data["data"]["inputs"] == {"jet": {"table": "jets"}, "tracks": {"table": "tracks"}}
    assert data["data"]["conversions"] == ["jet: float64 to float32: pt"]
    ((reason, count),) = data["data"]["left_out"].items()
    assert reason == "tracks: events cut to the first 5 steps"
    with h5py.File(folder / "events.h5") as file:
        assert count == (file["tracks"]["valid"].sum(axis=1) > 5).sum()


def test_events_come_in_the_length_that_the_target_fixes(folder: Path, tmp_path: Path) -> None:
    model = network()
    model.graph.inputs[1].shape[1] = 4
    ir.save(model, tmp_path / "fixed.onnx")
    data = DataSpec(folder / "events.h5", block=BLOCK)
    report = modelhub.check(folder / "net.onnx", tmp_path / "fixed.onnx", data=data)
    assert report.verdict == "equivalent"
    assert {result.length for *_, result in results(report)} == {4}
    with h5py.File(folder / "events.h5") as file:
        counts = file["tracks"]["valid"].sum(axis=1)
    assert report.data["left_out"] == {
        "tracks: events cut to the first 4 steps": (counts > 4).sum(),
        "tracks: events left out, of fewer than 4 steps": (counts < 4).sum(),
    }


def test_one_sample_in_two_forms_has_one_content(folder: Path) -> None:
    found = []
    for name in ("events.h5", "events.root"):
        report = modelhub.check(folder / "net.onnx", folder / "net.json", data=DataSpec(folder / name, block=BLOCK))
        found.append((report.data["content"], [(key, p, replace(r, rows=())) for key, p, r in results(report)]))
    assert found[0] == found[1]


def test_content_changes_with_any_number(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "events.h5").write_bytes((folder / "events.h5").read_bytes())
    with h5py.File(tmp_path / "events.h5", "r+") as file:
        jets = file["jets"][:]
        jets["eta"][2000] = np.nextafter(jets["eta"][2000], np.float32(9))
        file["jets"][:] = jets
    found = set()
    for path in (folder, tmp_path):
        part = replace(job(folder), data=DataSpec(path / "events.h5", block=BLOCK))
        report = checked(folder / "net.onnx")
        room.stream(report, replace(part, target=(folder / "net.onnx", "onnx", "net.onnx")))
        found.add(report.data["content"])
    assert len(found) == 2


def test_a_rare_event_is_found_by_its_place_in_the_file(folder: Path) -> None:
    part = room.run(job(folder, "late.onnx"), 0, 6)
    worst = {leg.between: leg.worst for leg in part.report.legs}[("source", "target")]
    assert worst is not None
    assert worst.worst.verdict == "different"
    assert (worst.worst.event, worst.worst.component) == (RARE, (0,))
    others = [r for *_, r in results(part.report) if r.length != worst.length]
    assert all(r.worst.verdict in ("identical", "equivalent") for r in others)


def test_probes_keep_to_the_range_of_the_data(folder: Path) -> None:
    """Jets above 1000 are three scales away from what uniform probes draw where nothing is known."""
    found = {}
    for data in (None, DataSpec(folder / "events.h5", block=BLOCK), DataSpec(folder / "events.h5", events=RARE)):
        report = modelhub.check(folder / "net.onnx", folder / "late.onnx", data=data)
        leg = next(leg for leg in report.legs if leg.between == ("source", "target"))
        found[report.data.get("observed", 0)] = {r.kind for r in leg.results if r.worst.excessive}
    assert {events: {"uniform", "corners"} & kinds for events, kinds in found.items()} == {
        0: set(),
        EVENTS: {"uniform", "corners"},
        RARE: set(),
    }


def test_ranges_are_those_of_the_first_events_and_of_finite_numbers(folder: Path) -> None:
    model = network()
    for name in ("events.h5", "events.root"):
        ranges, events = observed(DataSpec(folder / name, block=7), model)
        assert events == EVENTS
        pt, eta = ranges.inputs[0].features
        assert (pt.minimum, pt.maximum) == (pytest.approx(0, abs=0.1), 1234.0)
        assert eta.minimum < -2 < 2 < eta.maximum
        hits = ranges.inputs[1].features[2]
        assert (hits.minimum, hits.maximum) == (0, 19)
        (uniform,) = (probe for probe in probes(model, 1, ranges=ranges) if probe.name == "uniform")
        assert 900 < uniform.arrays["jet"][:, 0].max() <= 1234
        assert uniform.arrays["tracks"][..., 2].min() >= 0
    declared = replace(RECORD.inputs[0], features=(Feature("pt", minimum=20.0, maximum=30.0), Feature("eta")))
    narrow = network(record=replace(RECORD, inputs=(declared, RECORD.inputs[1])))
    assert observed(DataSpec(folder / "events.h5"), narrow)[0].inputs[0].features[0].maximum == 30


def shaken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of events that were shaken, as they are."""
    counted: list[int] = []
    whole = Bound.of

    def of(self: Bound, probe: Probe, answer: dict[str, np.ndarray]):
        counted.append(probe.events)
        return whole(self, probe, answer)

    monkeypatch.setattr(Bound, "of", of)
    return counted


def test_only_a_sample_is_shaken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = checked(folder / "net.onnx")
    counted = shaken(monkeypatch)
    room.stream(report, job(folder, "net.onnx"))
    assert len(counted) == 6  # one per length, of the first block
    assert sum(counted) <= BLOCK


def test_events_that_give_nan_need_no_shaking(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "events.h5").write_bytes((folder / "events.h5").read_bytes())
    with h5py.File(tmp_path / "events.h5", "r+") as file:
        jets = file["jets"][:]
        jets["pt"][::2] = np.nan
        file["jets"][:] = jets
    report = checked(folder / "net.onnx")
    counted = shaken(monkeypatch)
    room.stream(report, replace(job(folder, "net.onnx"), data=DataSpec(tmp_path / "events.h5", block=BLOCK)))
    assert report.verdict == "equivalent"
    assert sum(counted) <= BLOCK


def test_events_of_a_limit_are_the_first(folder: Path) -> None:
    report = checked(folder / "net.onnx")
    room.stream(report, job(folder, "net.onnx", events=700))
    assert report.data["events"] == 700
    assert all(sum(r.events for r in leg.results if r.kind == "data") == 700 for leg in report.legs)


def test_a_bar_counts_the_blocks(folder: Path) -> None:
    seen: list[object] = []

    def progress(steps):
        for step in steps:
            seen.append(step)
            yield step

    report = checked(folder / "net.onnx")
    room.stream(report, job(folder, "net.onnx"), progress=progress)
    assert seen == [0, 1, 2, 3, 4, 5]


def test_missing_names_are_told(folder: Path) -> None:
    arguments = ["check", folder / "net.onnx", folder / "net.onnx", "--data", f"{folder / 'events.h5'}:tracks"]
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert isinstance(done.exception, UsageError)
    assert "input jet: " in str(done.exception)
    assert "has no column for pt, eta" in str(done.exception)


def test_missing_names_are_told_before_any_engine_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("modelhub.equivalence.check.bench", never)
    with pytest.raises(UsageError, match="has no column"):
        modelhub.check(folder / "net.onnx", folder / "net.onnx", data=DataSpec(folder / "events.h5", ("tracks",)))


def test_the_terminal_tells_what_was_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = checked(folder / "net.onnx")
    room.stream(report, job(folder, "net.onnx", events=700))
    show(report)
    told = capsys.readouterr().err
    assert "700 of events.h5" in told
    assert "jet: float64 to float32: pt" in told
    assert "tracks: events cut to the first 5 steps: " in told


@pytest.mark.parametrize("option", [("--events", 5), ("--batch", 5), ("--map", "a=b"), ("--scheduler", "local:2")])
def test_options_of_data_need_data(folder: Path, option: tuple[object, ...]) -> None:
    done = CliRunner().invoke(cli, ["check", str(folder / "net.onnx"), str(folder / "net.json"), *map(str, option)])
    assert done.exit_code == 2
    assert "say how to read --data" in done.output


def test_ahead_makes_the_next_while_one_is_used_and_no_more() -> None:
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for i in range(1, 5):
            made.append(i)
            if i == 2:
                second.set()
            yield i

    coming = room.ahead(items())
    assert next(coming) == 1
    assert second.wait(5)
    assert made == [1, 2]
    assert list(coming) == [2, 3, 4]


def test_ahead_hands_on_errors() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise UsageError("no more")

    coming = room.ahead(items())
    assert next(coming) == 1
    with pytest.raises(UsageError, match="no more"):
        next(coming)


def test_rows_repeated_for_a_burnt_in_batch_are_no_events(folder: Path, tmp_path: Path) -> None:
    b = Builder()
    x = b.input("jet", [10, 2])
    b.output(b.op("MatMul", x, b.constant(np.eye(2, dtype="f4"), "weight")), "y", [10, 2])
    record = Interface((Input("jet", (Feature("pt"), Feature("eta", default=0.0))),), (Output("y", ("a", "b")),))
    modelhub.write(b.finish(record), tmp_path / "net.onnx")
    report = modelhub.check(
        tmp_path / "net.onnx", tmp_path / "net.onnx", data=DataSpec(folder / "events.h5", ("jets",), events=1234)
    )
    assert [r.events for *_, r in results(report)] == [1234] * len(report.legs)


def test_an_event_that_cancels_gets_a_tolerance_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    b = Builder()
    x = b.input("jet", ["N", 2])
    one, other = (b.op("Gather", x, b.constant(np.array([i]), f"place{i}"), axis=1) for i in range(2))
    b.output(b.op("Sub", b.op("Add", one, other), other), "y", ["N", 1])
    record = Interface((Input("jet", (Feature("pt"), Feature("eta"))),), (Output("y", ("a",)),))
    modelhub.write(b.finish(record), tmp_path / "net.onnx")
    rows = np.random.default_rng(3).standard_normal((2000, 2)).astype("f4")
    rows[777, 1] = 1e6 + 0.3
    np.savez(tmp_path / "events.npz", jet=rows)
    report = modelhub.check(tmp_path / "net.onnx", tmp_path / "net.onnx")
    counted = shaken(monkeypatch)
    spec = room.Job(
        (tmp_path / "net.onnx", "onnx", ReadOptions()),
        (tmp_path / "net.onnx", "onnx", "net.onnx"),
        None,
        DataSpec(tmp_path / "events.npz"),
        seed=1,
    )
    room.stream(report, spec)
    worst = next(r for (a, b), _, r in results(report) if (a, b) == ("source", "graph"))
    assert worst.worst.verdict == "equivalent"
    assert counted[0] == 128
    assert 1 <= sum(counted[1:]) < 200
