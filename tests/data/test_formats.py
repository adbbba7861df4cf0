"""One event sample in every kind of file gives one and the same numbers."""

from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from data_making import features, jets, model, tracks, write_h5

from modelhub.data import DataSpec, open_events
from modelhub.errors import UnreadableFile, UsageError
from modelhub.graph.interface import Input, Interface

EVENTS = 700
COUNTS = np.random.default_rng(7).integers(0, 6, EVENTS)
JET = Input("jet", features("pt", "eta", "n", "tag"))
TRACKS = Input("tracks", features("d0", "hits"), sequence=True)


def read(path: Path, *inputs: Input, block: int = 256, first: int = 0, **spec):
    graph = model(*inputs)
    events = open_events(DataSpec(path, block=block, **spec), graph, Interface.of(graph))
    return [batch for blocks in events.read(first) for batch in blocks]


def jagged(name: str) -> ak.Array:
    sample = tracks(COUNTS, 5)
    return ak.unflatten(sample[name][sample["valid"]], COUNTS)


def h5(path: Path) -> Path:
    return write_h5(path, jets=jets(EVENTS), tracks=tracks(COUNTS, 5))


def plain_h5(path: Path) -> Path:
    sample = jets(EVENTS)
    return write_h5(path, jet=np.stack([sample[n].astype("f4") for n in ("pt", "eta", "n", "tag")], axis=1))


def columns() -> dict[str, ak.Array]:
    sample = jets(EVENTS)
    flat = {n: sample[n] for n in ("pt", "eta", "n", "tag")}
    return {**flat, **{f"tracks_{n}": jagged(n) for n in ("d0", "hits")}}


def ttree(path: Path) -> Path:
    """A TTree in several clusters that fit no block."""
    with uproot.recreate(path) as file:
        given = columns()
        kinds = {k: v.dtype if isinstance(v, np.ndarray) else str(v.type).split("* ", 1)[1] for k, v in given.items()}
        tree = file.mktree("events", kinds)
        for first in range(0, EVENTS, 111):
            tree.extend({k: v[first : first + 111] for k, v in given.items()})
    return path


def rntuple(path: Path) -> Path:
    with uproot.recreate(path) as file:
        file.mkrntuple("events", columns())
    return path


def parquet(path: Path) -> Path:
    table = pa.table(
        {
            k: pa.array(v) if isinstance(v, np.ndarray) else ak.to_arrow(v, extensionarray=False)
            for k, v in columns().items()
        }
    )
    pq.write_table(table, path, row_group_size=97)
    return path


def npz(path: Path) -> Path:
    sample = jets(EVENTS)
    np.savez_compressed(path, tracks=tracks(COUNTS, 5), **{n: sample[n] for n in ("pt", "eta", "n", "tag")})
    return path


WHOLE = {"ttree.root": ttree, "rntuple.root": rntuple, "a.parquet": parquet, "a.npz": npz}


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("name", WHOLE)
def test_same_numbers_as_hdf5(tmp_path: Path, name: str, first: int) -> None:
    expected = read(h5(tmp_path / "a.h5"), JET, TRACKS, first=first)
    got = read(WHOLE[name](tmp_path / name), JET, TRACKS, first=first)
    assert len(got) == len(expected) > 3
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a.events, b.events)
        assert a.length == b.length
        for tensor, x in a.arrays.items():
            assert x.dtype == np.float32
            np.testing.assert_array_equal(x, b.arrays[tensor])


@pytest.mark.parametrize("name", WHOLE)
def test_vectors_alone(tmp_path: Path, name: str) -> None:
    expected = np.concatenate([b.arrays["jet"] for b in read(plain_h5(tmp_path / "a.h5"), JET)])
    got = np.concatenate([b.arrays["jet"] for b in read(WHOLE[name](tmp_path / name), JET)])
    np.testing.assert_array_equal(got, expected)
    assert len(got) == EVENTS


@pytest.mark.parametrize("name", ["a.h5", *WHOLE])
def test_a_column_may_feed_two_variables(tmp_path: Path, name: str) -> None:
    path = {"a.h5": h5, **WHOLE}[name](tmp_path / name)
    batches = read(path, Input("jet", features("pt", "again")), columns={"again": "pt"})
    x = np.concatenate([b.arrays["jet"] for b in batches])
    np.testing.assert_array_equal(x[:, 0], x[:, 1])
    np.testing.assert_array_equal(x[:, 0], jets(EVENTS)["pt"])


def test_nulls_are_nan_in_parquet(tmp_path: Path) -> None:
    table = pa.table({"pt": pa.array([1, None, 3]), "d0": pa.array([[1.5, None], None, []], pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "a.parquet")
    batches = read(tmp_path / "a.parquet", Input("jet", features("pt")), Input("t", features("d0"), sequence=True))
    found = {int(e): (b.arrays["jet"][i], b.arrays["t"][i]) for b in batches for i, e in enumerate(b.events)}
    np.testing.assert_array_equal(found[0][0], [1])
    np.testing.assert_array_equal(found[0][1], [[1.5], [np.nan]])
    np.testing.assert_array_equal(found[1][0], [np.nan])
    assert found[1][1].shape == found[2][1].shape == (0, 1)


def test_fixed_size_branches_are_sequences(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "a.root") as file:
        tree = file.mktree("t", {"x": np.dtype((np.float64, (3,)))})
        tree.extend({"x": np.arange(12.0).reshape(4, 3)})
    (batch,) = read(tmp_path / "a.root", Input("s", features("x"), sequence=True))
    np.testing.assert_array_equal(batch.arrays["s"][..., 0], np.arange(12).reshape(4, 3))


def test_branches_of_one_input_must_be_equally_long(tmp_path: Path) -> None:
    given = {"d0": ak.Array([[1.0], [1.0, 2.0]]), "hits": ak.Array([[1.0], [1.0]])}
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mkrntuple("t", given)
    pq.write_table(
        pa.table({k: ak.to_arrow(v, extensionarray=False) for k, v in given.items()}), tmp_path / "a.parquet"
    )
    for name in ("a.root", "a.parquet"):
        with pytest.raises(UnreadableFile, match="event 1 has 2 steps in d0 and 1 in hits"):
            read(tmp_path / name, TRACKS)


def test_trees_of_a_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tree 'jets'; the trees there: events"):
        read(ttree(tmp_path / "a.root"), JET, tables=("jets",))


def test_sequences_without_names_in_npz_and_hdf5(tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((20, 4, 2)).astype("f4")
    np.savez(tmp_path / "a.npz", tracks=x)
    for path in (tmp_path / "a.npz", write_h5(tmp_path / "a.h5", tracks=x)):
        (batch,) = read(path, TRACKS)
        np.testing.assert_array_equal(batch.arrays["tracks"], x)


def test_datasets_larger_than_a_slab_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = h5(tmp_path / "a.h5")
    whole = read(path, JET, TRACKS)
    monkeypatch.setattr("modelhub.data.hdf5.SLAB", 20_000)
    pieces = read(path, JET, TRACKS)
    for a, b in zip(pieces, whole, strict=True):
        for tensor, x in a.arrays.items():
            np.testing.assert_array_equal(x, b.arrays[tensor])
