"""Damaged, foreign and hostile event files: one clear line, nothing read from elsewhere, nothing run."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from data_making import features, jets, model, tracks, write_h5

from modelhub.data import DataSpec, open_events
from modelhub.errors import ModelhubError, UnreadableFile, UsageError
from modelhub.graph.interface import Input, Interface

JET = Input("jet", features("pt", "eta"))


def read(path: Path, *inputs: Input, tables: tuple[str, ...] = ()) -> int:
    graph = model(*(inputs or (JET,)))
    events = open_events(DataSpec(path, tables), graph, Interface.of(graph))
    return sum(batch.count for block in events.read() for batch in block)


def refusal(path: Path) -> str:
    """What is said of a file that is refused; anything but a `ModelhubError` is a fault."""
    try:
        read(path)
    except ModelhubError as error:
        return str(error)
    return ""


def root(path: Path) -> Path:
    with uproot.recreate(path) as file:
        tree = file.mktree("t", {"pt": "float32", "eta": "float64"})
        tree.extend({"pt": np.arange(5000, dtype="f4"), "eta": np.random.default_rng(1).standard_normal(5000)})
    return path


def rntuple(path: Path) -> Path:
    with uproot.recreate(path) as file:
        file.mkrntuple("t", {"pt": np.arange(5000, dtype="f4"), "eta": np.random.default_rng(1).standard_normal(5000)})
    return path


def parquet(path: Path) -> Path:
    rows = np.random.default_rng(1).standard_normal(5000)
    pq.write_table(pa.table({"pt": rows, "eta": rows[::-1].copy()}), path)
    return path


def npz(path: Path) -> Path:
    np.savez_compressed(path, **{n: jets(5000)[n] for n in ("pt", "eta")})
    return path


def h5(path: Path) -> Path:
    return write_h5(path, jets=jets(5000))


MAKERS: dict[str, Callable[[Path], Path]] = {
    "a.h5": h5,
    "a.root": root,
    "b.root": rntuple,
    "a.parquet": parquet,
    "a.npz": npz,
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_truncated_files_are_one_line(tmp_path: Path, name: str, keep: float) -> None:
    path = MAKERS[name](tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ModelhubError) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize("name", MAKERS)
def test_flipped_bytes_give_numbers_or_one_line(tmp_path: Path, name: str) -> None:
    path = MAKERS[name](tmp_path / name)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(5)
    for _ in range(25):
        damaged = data.copy()
        damaged[rng.integers(8, len(data), 6)] ^= rng.integers(1, 256, 6).astype(np.uint8)
        path.write_bytes(damaged.tobytes())
        assert "\n" not in refusal(path)


def test_what_is_no_event_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("pt eta\n1 2\n")
    (tmp_path / "empty.h5").touch()
    os.mkfifo(tmp_path / "pipe.h5")
    for name, told in (
        ("a.txt", "neither HDF5, ROOT, Parquet nor npz"),
        ("empty.h5", "empty"),
        ("pipe.h5", "not a regular file"),
        ("none.h5", "No such file"),
        (".", "not a regular file"),
    ):
        with pytest.raises(UnreadableFile, match=told):
            read(tmp_path / name)


def test_hdf5_links_lead_nowhere(tmp_path: Path) -> None:
    other = h5(tmp_path / "secret.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["jets"] = h5py.ExternalLink(str(other), "/jets")
        file["soft"] = h5py.SoftLink("/elsewhere")
    for table in ("jets", "soft"):
        with pytest.raises(UnreadableFile, match="a link that may lead out of the file"):
            read(tmp_path / "a.h5", tables=(table,))
    with pytest.raises(UnreadableFile, match="no dataset at the root"):
        read(tmp_path / "a.h5")


def test_hdf5_data_stay_in_the_file(tmp_path: Path) -> None:
    other = write_h5(tmp_path / "secret.h5", x=np.zeros((5, 2), "f4"))
    (tmp_path / "raw").write_bytes(bytes(40))
    layout = h5py.VirtualLayout((5, 2), "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", shape=(5, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (5, 2), "f4", external=[(str(tmp_path / "raw"), 0, 40)])
    for table in ("virtual", "raw"):
        with pytest.raises(UnreadableFile, match="keeps its data in other files"):
            read(tmp_path / "a.h5", tables=(table,))


def test_hdf5_filters_that_are_code_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((50, 2), "f4"), scaleoffset=2)
    with pytest.raises(UnreadableFile, match="h5repack"):
        read(tmp_path / "a.h5")


def test_hdf5_that_asks_for_too_much_memory(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("event", (10, 30_000_000, 2), "f4", chunks=(1, 1000, 2))
        file.create_dataset("chunk", (10**9, 2), "f4", chunks=(30_000_000, 2))
    for table in ("event", "chunk"):
        with pytest.raises(UnreadableFile, match="bytes, more than"):
            read(tmp_path / "a.h5", tables=(table,))


def test_hdf5_names_and_shapes_that_do_not_fit(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/jets"] = jets(5)
        file["cube"] = np.zeros((2, 2, 2, 2))
        file["line"] = np.zeros(5)
        file["scalar"] = 1.0
    with pytest.raises(UsageError, match="holds no dataset 'jets'; at its root: cube, group, line, scalar"):
        read(tmp_path / "a.h5", tables=("jets",))
    with pytest.raises(UsageError, match="group is a group, not a dataset; it holds: jets"):
        read(tmp_path / "a.h5", tables=("group",))
    for table in ("cube", "line", "scalar"):
        with pytest.raises(UnreadableFile, match="neither events nor events with a sequence"):
            read(tmp_path / "a.h5", tables=(table,))
    assert read(tmp_path / "a.h5", tables=("group/jets",)) == 5


def test_npz_unpickles_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "boom",))

    np.savez(tmp_path / "a.npz", pt=np.array([Bomb()], dtype=object))
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file:
        file.writestr("pt.npy", pickle.dumps(Bomb()))
    with pytest.raises(UnreadableFile, match="Python objects"):
        read(tmp_path / "a.npz")
    with pytest.raises(UnreadableFile, match="not a numpy array"):
        read(tmp_path / "b.npz")
    assert not (tmp_path / "boom").exists()


def test_npz_that_does_not_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pt=np.zeros(3), eta=np.zeros(4))
    with pytest.raises(UnreadableFile, match="eta has 4 rows, others 3"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", jet=np.asfortranarray(np.zeros((5, 2))))
    with pytest.raises(UnreadableFile, match="column by column"):
        read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", pt=np.float32(1))
    with pytest.raises(UnreadableFile, match="no array with events"):
        read(tmp_path / "c.npz")
    with pytest.raises(UsageError, match="holds no array 'x'; the arrays there: pt, eta"):
        read(tmp_path / "a.npz", tables=("x",))


def test_root_file_without_a_tree(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "a.root") as file:
        file["text"] = "hello"
    with pytest.raises(UnreadableFile, match="holds no tree"):
        read(tmp_path / "a.root")


def test_root_blocks_unpack_to_what_they_announce(tmp_path: Path) -> None:
    """A block that says 400 kB and holds 256 MB is refused without them."""
    path = tmp_path / "bomb.root"
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        noise = np.random.default_rng(0).standard_normal(50_000)
        file["t"] = {"pt": noise, "eta": noise}
    data = path.read_bytes()
    at = data.index(b"ZL\x08") + 9
    packed = zlib.compress(bytes(1 << 28), 9)
    assert len(packed) < int.from_bytes(data[at - 6 : at - 3], "little")
    path.write_bytes(data[:at] + packed + data[at + len(packed) :])
    tracemalloc.start()
    said = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "not readable ROOT data" in said
    assert peak < 1 << 25


def test_root_columns_that_are_no_numbers(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mkrntuple("t", {"pt": ak.Array(["a", "b"]), "eta": ak.Array([[[1.0]], [[2.0]]])})
    with pytest.raises(UsageError, match=r"pt \(holds std::string, not numbers\)"):
        read(tmp_path / "a.root")


def test_parquet_is_one_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out ':events'"):
        read(parquet(tmp_path / "a.parquet"), tables=("events",))


def test_no_events_at_all(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["jets"] = jets(5)[:0]
    with pytest.raises(UnreadableFile, match="holds no events"):
        read(tmp_path / "a.h5")


def test_events_without_a_single_step_are_events(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "b.h5", t=tracks(np.zeros(4, int), 3))
    assert read(path, Input("t", features("d0"), sequence=True)) == 4
