"""Batches of an event file: every event once, in blocks that do not depend on who reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_making import TRACK, features, jets, model, tracks, write_h5

from modelhub.data import DataSpec, open_events
from modelhub.errors import UnreadableFile, UsageError
from modelhub.graph.interface import Input, Interface

JET = Input("jet", features("pt", "eta", "n"))
TRACKS = Input("tracks", features("d0", "pt", "hits"), sequence=True)


def opened(path: Path | str, *inputs: Input, dims=None, dtype=np.float32, **spec):
    graph = model(*inputs, dims=dims, dtype=dtype)
    data = DataSpec.parse(path, **spec) if isinstance(path, str) else DataSpec(path, **spec)
    return open_events(data, graph, Interface.of(graph))


def everything(events, first: int = 0, last: int | None = None):
    return [batch for block in events.read(first, last) for batch in block]


def test_structured_columns_arrive_in_the_order_of_the_record(tmp_path: Path) -> None:
    data = jets(1000)
    events = opened(write_h5(tmp_path / "a.h5", jets=data), JET, block=300)
    batches = everything(events)
    assert [b.count for b in batches] == [300, 300, 300, 100]
    x = np.concatenate([b.arrays["jet"] for b in batches])
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, np.stack([data[n].astype("f4") for n in ("pt", "eta", "n")], axis=1))
    np.testing.assert_array_equal(np.concatenate([b.events for b in batches]), np.arange(1000))
    assert events.conversions == ["jet: float64 to float32: eta", "jet: int64 to float32: n"]


def test_padded_tracks_come_in_groups_of_one_length(tmp_path: Path) -> None:
    counts = np.random.default_rng(3).integers(0, 9, 500)
    jet, track = jets(500), tracks(counts, 8)
    events = opened(write_h5(tmp_path / "a.h5", jets=jet, tracks=track), JET, TRACKS, block=200)
    seen = []
    for batch in everything(events):
        x = batch.arrays["tracks"]
        assert x.shape == (batch.count, batch.length, 3)
        for row, event in enumerate(batch.events):
            real = track[event][track[event]["valid"]]
            np.testing.assert_array_equal(
                x[row], np.stack([real[n].astype("f4") for n in ("d0", "pt", "hits")], axis=1)
            )
            assert batch.arrays["jet"][row, 0] == jet["pt"][event]
        seen += list(batch.events)
    assert sorted(seen) == list(range(500))
    assert len(everything(events, 0, 1)) <= 9


def test_blocks_do_not_depend_on_who_reads_them(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", jets=jets(500), tracks=tracks(np.arange(500) % 7, 6))
    whole = everything(opened(path, JET, TRACKS, block=64))
    events = opened(path, JET, TRACKS, block=64)
    assert events.blocks == 8
    for k in (5, 0, 3):
        expected = [batch for batch in whole if batch.events[0] // 64 == k]
        parts = everything(events, k, k + 1)
        assert len(parts) == len(expected) > 1
        for a, b in zip(parts, expected, strict=True):
            np.testing.assert_array_equal(a.events, b.events)
            for name, x in a.arrays.items():
                np.testing.assert_array_equal(x, b.arrays[name])


def test_two_sequences_are_grouped_by_both_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = write_h5(
        tmp_path / "a.h5", tracks=tracks(rng.integers(0, 4, 300), 3), hits=tracks(rng.integers(0, 3, 300), 2, seed=9)
    )
    second = Input("hits", features("d0"), sequence=True)
    batches = everything(opened(path, TRACKS, second))
    assert sum(b.count for b in batches) == 300
    shapes = {(b.arrays["tracks"].shape[1], b.arrays["hits"].shape[1]) for b in batches}
    assert len(shapes) == len(batches) == 12
    assert all(
        b.length == (0 if 0 in (lengths := [x.shape[1] for x in b.arrays.values()]) else max(lengths)) for b in batches
    )
    assert all(np.isfinite(b.arrays["tracks"]).all() and np.isfinite(b.arrays["hits"]).all() for b in batches)


def test_limits_of_the_record_cut_and_leave_out_and_count(tmp_path: Path) -> None:
    counts = np.array([0, 1, 2, 3, 4, 5])
    record = Input("tracks", TRACKS.features, sequence=True, min_length=1, max_length=3)
    track = tracks(counts, 5)
    events = opened(write_h5(tmp_path / "a.h5", tracks=track), record)
    batches = everything(events)
    assert {b.length: list(b.events) for b in batches} == {1: [1], 2: [2], 3: [3, 4, 5]}
    np.testing.assert_array_equal(batches[-1].arrays["tracks"][2, :, 0], track["d0"][5, :3])
    assert events.left_out == {
        "tracks: events cut to the first 3 steps": 2,
        "tracks: events left out, of fewer than 1 steps": 1,
    }


def test_burnt_in_batch_repeats_rows_and_counts_none_twice(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", jets=jets(25))
    batches = everything(opened(path, JET, dims={"jet": [10, 3]}, block=20))
    assert [(b.count, len(b.events)) for b in batches] == [(20, 20), (5, 10)]
    assert list(batches[1].events) == [20, 21, 22, 23, 24] * 2


def test_steps_in_one_call_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelhub.data.events.STEPS", 100)
    batches = everything(opened(write_h5(tmp_path / "a.h5", tracks=tracks(np.full(90, 8), 8)), TRACKS))
    assert [b.count for b in batches] == [12] * 7 + [6]


def test_sequence_of_one_variable_without_an_axis_for_it(tmp_path: Path) -> None:
    record = Input("tracks", features("hits"), sequence=True)
    data = tracks(np.array([2, 2]), 3)
    path = write_h5(tmp_path / "a.h5", tracks=data)
    (batch,) = everything(opened(path, record, dims={"tracks": ["N", "T"]}, dtype=np.int64))
    assert batch.arrays["tracks"].dtype == np.int64
    np.testing.assert_array_equal(batch.arrays["tracks"], data["hits"][:, :2])


def test_index_must_be_whole(tmp_path: Path) -> None:
    record = Input("tracks", features("d0"), sequence=True)
    path = write_h5(tmp_path / "a.h5", tracks=tracks(np.array([2, 2]), 3))
    with pytest.raises(UnreadableFile, match="where the model takes an index"):
        everything(opened(path, record, dtype=np.int64))


def test_events_limit_takes_the_first(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", jets=jets(100))
    assert [list(b.events[[0, -1]]) for b in everything(opened(path, JET, events=30, block=20))] == [[0, 19], [20, 29]]
    assert opened(path, JET, events=1000).count == 100


@pytest.mark.parametrize(
    ("text", "name", "tables", "chosen"),
    [
        ("a.h5", "a.h5", (), {}),
        ("a.h5:jets", "a.h5", ("jets",), {}),
        ("a.h5:jets,tracks", "a.h5", ("jets", "tracks"), {}),
        ("d/a.h5:jet=g/jets,tracks", "d/a.h5", ("g/jets", "tracks"), {"jet": "g/jets"}),
    ],
)
def test_what_the_user_types(text: str, name: str, tables: tuple[str, ...], chosen: dict[str, str]) -> None:
    spec = DataSpec.parse(text, ["pt=pt_corr"])
    assert (str(spec.path), spec.tables, spec.chosen, spec.columns) == (name, tables, chosen, {"pt": "pt_corr"})


def test_path_with_a_colon(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a:b.h5", jets=jets(3))
    assert DataSpec.parse(str(path)).path == path
    assert DataSpec.parse(f"{path}:jets") == DataSpec(path, ("jets",))


@pytest.mark.parametrize("text", ["pt", "=x", "pt="])
def test_map_needs_both_ends(text: str) -> None:
    with pytest.raises(UsageError, match="VARIABLE=COLUMN"):
        DataSpec.parse("a.h5", [text])


@pytest.mark.parametrize("numbers", [{"events": 0}, {"block": 0}])
def test_no_events_is_no_data(numbers: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        DataSpec(Path("a.h5"), **numbers)


def test_valid_is_a_mask_not_a_count(tmp_path: Path) -> None:
    data = np.zeros((1, 4), TRACK)
    data["d0"], data["valid"] = [[1, 2, 3, 4]], [[True, False, True, False]]
    (batch,) = everything(opened(write_h5(tmp_path / "a.h5", tracks=data), Input("t", features("d0"), sequence=True)))
    assert batch.arrays["t"].tolist() == [[[1.0], [3.0]]]
