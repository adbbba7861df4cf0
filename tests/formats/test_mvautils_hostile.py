"""ROOT files that are no forest, or a damaged or hostile one: one clear line each, and nothing of theirs is run."""

from __future__ import annotations

import lzma
import zlib
from contextlib import suppress
from pathlib import Path

import mvautils_writing as mva
import numpy as np
import pytest

from modelhub.data.unpacking import bounded
from modelhub.errors import ModelhubError, UnreadableFile, Unsupported
from modelhub.files import LIMITS
from modelhub.protocols import ReadOptions
from modelhub_mvautils import Importer

uproot = mva.uproot

TASK = ReadOptions(task="response")


def planted(folder: Path, columns: list, title: str = "creator=xgboost", weights: list | None = None) -> Path:
    with uproot.recreate(folder / "x.root") as file:
        mva.plant(file, "BDT", columns, title, weights)
    return folder / "x.root"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ([([0, -1], [1.0, 2.0], [True, True])], "ends before its last leaf"),
        ([([0], [1.0], [True])], "ends before its last leaf"),
        ([([-1, -1], [1.0, 2.0], [True, True])], "goes on behind its last leaf"),
        ([([-1], [1.0], [True]), ([0, -1, -1, -1], [1.0] * 4, [True] * 4)], "tree 1 goes on"),
        ([([-1], [1.0], [True]), ([], [], [])], "tree 1 ends"),
        ([([0, -1, -1], [1.0, 2.0], [True] * 3)], "vars and values are not equally long"),
        ([([0, -1, -1], [1.0, 2.0, 3.0], [True] * 2)], "vars and default_left are not equally long"),
        ([([-7], [1.0], [True])], "variable is below -1"),
        ([([0, -1, -1], [float("nan"), 2.0, 3.0], [True] * 3)], "no finite number"),
        ([([-1], [float("inf")], [True])], "no finite number"),
    ],
)
def test_nodes_that_are_no_trees(columns: list, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        Importer().read(planted(tmp_path, columns), TASK)


def test_beyond_the_integers_of_mvautils(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="variable 128; the index of a variable is an int8"):
        Importer().read(planted(tmp_path, [([128, -1, -1], [1.0, 2.0, 3.0], [True] * 3)]), TASK)
    comb: mva.Node = 1.0
    for _ in range(16384):
        comb = (0, 0.5, True, comb, 2.0)
    with pytest.raises(Unsupported, match=r"32768 nodes behind its parent; the distance is an int16"):
        Importer().read(planted(tmp_path, [mva.preorder(comb)]), TASK)


@pytest.mark.parametrize(
    ("title", "weights", "reason"),
    [
        ("creator=lgbm;node_type=new", None, "node_type 'new'"),
        ("creator=lgbm", None, "node_type ''"),
        ("creator=xgboost;creator=lgbm", None, "'creator' twice"),
        ("", None, "without the branch offset"),
        ("creator=TMVA", [-1.0], "do not sum to a positive number"),
    ],
)
def test_titles_and_weights(title: str, weights: list | None, reason: str, tmp_path: Path) -> None:
    path = planted(tmp_path, [([-1], [1.0], [True])], title, weights)
    with pytest.raises(ModelhubError, match=reason):
        Importer().read(path, ReadOptions(task="classification"))


def test_files_without_a_forest(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "e.root") as file:
        file.mktree("events", {"pt": "float32", "vars": "float32", "values": "float32"}).extend(
            {"pt": np.ones(2, np.float32), "vars": np.ones(2, np.float32), "values": np.ones(2, np.float32)}
        )
    with pytest.raises(UnreadableFile, match="vars holds no vectors"):
        Importer().read(tmp_path / "e.root", TASK)
    with uproot.recreate(tmp_path / "f.root") as file:
        file.mktree("events", {"pt": "float32"}).extend({"pt": np.ones(2, np.float32)})
    with pytest.raises(Unsupported, match="no TTree with the branches vars and values, among events"):
        Importer().read(tmp_path / "f.root", TASK)
    with uproot.recreate(tmp_path / "g.root") as file:
        mva.plant(file, "BDT", [([-1], [1.0], [True])], "creator=xgboost")
        file.mktree("none", {"vars": "var * int32", "values": "var * float32"})
    with pytest.raises(UnreadableFile, match="holds no trees"):
        Importer().read(tmp_path / "g.root", ReadOptions(task="none:response"))


def test_every_cut_and_every_changed_byte_is_one_line(tmp_path: Path) -> None:
    """Truncated anywhere, or with a byte turned round: read as something, or an error of ours."""
    whole = mva.written(tmp_path / "x.root", [(0, 0.5, True, 1.0, 2.0)] * 3, "creator=xgboost").read_bytes()
    random = np.random.default_rng(4)
    path = tmp_path / "y.root"
    for place in random.integers(4, len(whole), 60).tolist():
        for data in (whole[:place], whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]):
            path.write_bytes(data)
            with suppress(ModelhubError):
                Importer().read(path, TASK)


def test_nothing_of_the_file_becomes_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of TTree that uproot does not know, and would write Python for from the file's own description."""
    path = mva.written(tmp_path / "x.root", [(0, 0.5, True, 1.0, 2.0)], "creator=xgboost")
    compiled = []
    real = uproot.deserialization._actually_compile
    monkeypatch.setattr(uproot.deserialization, "_actually_compile", lambda *a: (compiled.append(a), real(*a)))
    monkeypatch.setattr(uproot.models.TTree.Model_TTree, "known_versions", {})
    with uproot.open(path) as file:
        assert file["BDT"].num_entries == 1
    assert compiled
    compiled.clear()
    monkeypatch.setattr(uproot.models.TTree.Model_TTree, "known_versions", {})
    with pytest.raises(UnreadableFile):
        Importer().read(path, TASK)
    assert not compiled


@pytest.mark.parametrize(("name", "pack"), [("ZLIB", zlib.compress), ("LZMA", lzma.compress)])
def test_a_block_unpacks_to_what_it_announces(name: str, pack: object) -> None:
    bomb = pack(bytes(1 << 24))
    decompressor = getattr(uproot.compression, f"_decompress_{name}")
    with bounded(LIMITS.expanded):
        assert len(decompressor.decompress(bomb, 1000)) == 1001  # one more than announced, which uproot refuses
        with pytest.raises(UnreadableFile, match="expands beyond the limit"):
            decompressor.decompress(bomb, LIMITS.expanded)
    assert len(decompressor.decompress(bomb, 1 << 24)) == 1 << 24
