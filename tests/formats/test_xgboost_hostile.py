"""XGBoost files that lie: one clear line each, and no more memory than the file is worth."""

from __future__ import annotations

import copy
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelhub.errors import ModelhubError, UnreadableFile, Unsupported
from modelhub.protocols import ReadOptions
from modelhub_xgboost import Importer
from modelhub_xgboost.ubjson import parse


def model() -> dict[str, Any]:
    """The smallest forest: one split, two leaves."""
    tree = {
        "base_weights": [0, 0, 0],
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": [0, 0, 0],
        "id": 0,
        "left_children": [1, -1, -1],
        "loss_changes": [0, 0, 0],
        "parents": [2147483647, 0, 0],
        "right_children": [2, -1, -1],
        "split_conditions": [0.5, -1, 1],
        "split_indices": [0, 0, 0],
        "split_type": [0, 0, 0],
        "sum_hessian": [0, 0, 0],
        "tree_param": {"num_deleted": "0", "num_feature": "2", "num_nodes": "3", "size_leaf_vector": "1"},
    }
    return {
        "learner": {
            "attributes": {},
            "feature_names": [],
            "feature_types": [],
            "gradient_booster": {
                "model": {
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": "1"},
                    "iteration_indptr": [0, 1],
                    "tree_info": [0],
                    "trees": [tree],
                },
                "name": "gbtree",
            },
            "learner_model_param": {"base_score": "5E-1", "num_class": "0", "num_feature": "2", "num_target": "1"},
            "objective": {"name": "reg:squarederror"},
        },
        "version": [2, 0, 0],
    }


def tree_of(document: dict[str, Any]) -> dict[str, Any]:
    return document["learner"]["gradient_booster"]["model"]["trees"][0]


def read(document: Any, folder: Path) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(document))
    Importer().read(path, ReadOptions())


def refused(document: Any, folder: Path, kind: type[ModelhubError] = UnreadableFile) -> str:
    with pytest.raises(kind) as caught:
        read(document, folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_the_model_itself_is_fine(tmp_path: Path) -> None:
    read(model(), tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("left_children", [99, -1, -1], "outside of its tree"),
        ("right_children", [10**12, -1, -1], "outside of its tree"),
        ("right_children", [-5, -1, -1], "outside of its tree"),
        ("left_children", [0, -1, -1], "child of two nodes"),
        ("left_children", [2, -1, -1], "child of two nodes"),
        ("left_children", [1, 2, -1], "child"),
        ("left_children", [10**30, -1, -1], "left_children"),
        ("left_children", ["a", -1, -1], "left_children"),
        ("left_children", [[1], -1, -1], "left_children"),
        ("left_children", [1.5, -1, -1], "left_children"),
        ("left_children", None, "left_children"),
        ("left_children", [1, -1], "for other than all"),
        ("split_indices", [7, 0, 0], "no known feature"),
        ("split_indices", [-1, 0, 0], "no known feature"),
        ("split_conditions", [1e300, -1, 1e300], "not all are finite"),
        ("split_conditions", {}, "split_conditions"),
        ("split_type", [1, 0, 0], "categories"),
        ("tree_param", {"size_leaf_vector": "3"}, "base_weights"),
        ("tree_param", {"size_leaf_vector": "-3"}, "size_leaf_vector"),
        ("tree_param", {"size_leaf_vector": "9" * 5000}, "size_leaf_vector"),
    ],
)
def test_trees_that_are_none(tmp_path: Path, key: str, value: Any, words: str) -> None:
    document = model()
    tree_of(document)[key] = value
    assert words in refused(document, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["learner"].pop("gradient_booster"), "gradient_booster"),
        (lambda d: d["learner"].update(gradient_booster=[]), "gradient_booster"),
        (lambda d: d["learner"]["gradient_booster"]["model"].update(trees={}), "trees"),
        (lambda d: d["learner"]["gradient_booster"]["model"].update(trees=[7]), "missing"),
        (lambda d: d["learner"]["gradient_booster"]["model"].update(tree_info=[0, 0]), "tree_info"),
        (lambda d: d["learner"]["gradient_booster"]["model"].update(tree_info=[5]), "output that is not there"),
        (lambda d: d["learner"]["gradient_booster"]["model"].update(weight_drop=[1, 2]), "dart weights"),
        (lambda d: d["learner"]["learner_model_param"].update(num_feature="999999999"), "features"),
        (lambda d: d["learner"]["learner_model_param"].update(num_class="999999999"), "outputs"),
        (lambda d: d["learner"]["learner_model_param"].update(base_score="nan"), "base score"),
        (lambda d: d["learner"]["learner_model_param"].update(base_score="[1,2,3]"), "base score"),
        (lambda d: d["learner"]["learner_model_param"].update(base_score="x"), "base_score"),
        (lambda d: d["learner"].update(feature_names=["a"]), "feature names"),
        (lambda d: d["learner"].update(feature_names=[1, 2]), "feature_names"),
        (lambda d: d.update(version="3"), "version"),
    ],
)
def test_documents_that_are_none(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    document = model()
    change(document)
    assert words in refused(document, tmp_path)


def test_what_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    for path, key in ((("learner",), "novelty"), (("learner", "gradient_booster", "model"), "tree_scales")):
        document = copy.deepcopy(model())
        place = document
        for step in path:
            place = place[step]
        place[key] = [1]
        assert repr(key) in refused(document, tmp_path, Unsupported)
    document = model()
    tree_of(document)["oblique"] = []
    assert "'oblique'" in refused(document, tmp_path, Unsupported)
    document = model()
    document["learner"]["objective"]["name"] = "my:own\x1b[31m"
    message = refused(document, tmp_path, Unsupported)
    assert "my:own" in message
    assert "\x1b" not in message
    document = model()
    document["learner"]["gradient_booster"]["name"] = "gbforest"
    assert "gbforest" in refused(document, tmp_path, Unsupported)


def size(count: int) -> bytes:
    return b"L" + struct.pack(">q", count)


BOMBS = {
    "a typed array longer than the file": b"{" + size(7) + b"learner[$d#" + size(1 << 40),
    "a typed array of nothing": b"[$Z#" + size(20),
    "typed booleans": b"[$T#" + size(1 << 40),
    "an array of arrays by type": b"[$[#" + size(3) + b"]]]",
    "an untyped count": b"[#" + size(1 << 50),
    "a negative length": b"[$d#" + size(-4),
    "a text longer than the file": b"S" + size(1 << 60),
    "nested arrays": b"[" * 100_000,
    "nested objects": (b"{" + b"i\x01a") * 50_000,
    "only no-ops": b"N" * 100_000,
    "high precision": b"Hi\x05 1e99",
    "a typed object": b"{$i#i\x01i\x01a\x05",
    "doubled keys": b"{i\x01ai\x01i\x01ai\x02}",
    "text that is no text": b"Si\x02\xff\xfe",
    "more behind it": b"i\x05i\x06",
    "half a number": b"L\x00\x00",
    "nothing": b"",
    "an unknown mark": b"\x80",
    "a length that is a float": b"[$d#d\x00\x00\x00\x00",
}


@pytest.mark.parametrize("name", BOMBS)
def test_ubjson_bombs(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableFile) as caught:
            parse(BOMBS[name], "bomb.ubj")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("bomb.ubj: ")
    assert peak < 5_000_000


def test_ubjson_values() -> None:
    data = (
        b"{" + b"i\x01a" + b"[#i\x03i\xffU\xffI\x01\x00" + b"i\x01b" + b"[$l#i\x02" + struct.pack(">ii", -1, 7)
        + b"i\x01c" + b"[d" + struct.pack(">f", 0.5) + b"ND" + struct.pack(">d", 0.1) + b"]"
        + b"i\x01d" + b"[TFZ]" + b"i\x01e" + b"Si\x02hi" + b"i\x01f" + b"[$d#L" + bytes(8) + b"i\x01g" + b"{}" + b"}"
    )  # fmt: skip
    value = parse(data, "x")
    assert value["a"] == [-1, 255, 256]
    assert value["b"].tolist() == [-1, 7]
    assert value["c"] == [0.5, 0.1]
    assert value["d"] == [True, False, None]
    assert value["e"] == "hi"
    assert value["f"].tolist() == []
    assert value["g"] == {}


def old_binary(
    objective: bytes = b"reg:squarederror", booster: bytes = b"gbtree", trees: int = 1, nodes: int = 3
) -> bytes:
    """The same forest in the old layout."""
    data = struct.pack("<fIiiiIII", 0.5, 2, 0, 0, 0, 1, 7, 1) + bytes(104)
    for text in (objective, booster):
        data += struct.pack("<Q", len(text)) + text
    data += struct.pack("<i", trees) + bytes(156)
    data += struct.pack("<6i", 1, nodes, 0, 0, 2, 0) + bytes(124)
    for left, right, index, value in ((1, 2, 0, 0.5), (-1, -1, 0, -1.0), (-1, -1, 0, 1.0)):
        data += struct.pack("<iiiIf", 0, left, right, index, value)
    return data + bytes(48) + struct.pack("<i", 0)


def test_old_binaries_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "model.model"
    path.write_bytes(old_binary())
    assert Importer().recognises(path)
    Importer().read(path, ReadOptions())
    for data in (
        old_binary()[:-30],
        old_binary(trees=2**31 - 1),
        old_binary(trees=-1),
        old_binary(nodes=2**31 - 1),
        old_binary(nodes=-1),
        old_binary()[:144] + b"\xff" * 8 + old_binary()[152:],
        old_binary(booster=b"dart") + struct.pack("<Q", 1 << 61),
    ):
        path.write_bytes(data)
        tracemalloc.start()
        with pytest.raises((UnreadableFile, Unsupported)) as caught:
            Importer().read(path, ReadOptions())
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        tracemalloc.stop()
        assert "\n" not in str(caught.value)


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    for whole in (json.dumps(model()).encode(), old_binary()):
        for end in range(1, len(whole), 37):
            path.write_bytes(whole[:end])
            with pytest.raises((UnreadableFile, Unsupported)):
                Importer().read(path, ReadOptions())


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b'{"learner":{', True),
        (b'{\n  "learner": {', True),
        (b'{"version":[', True),
        (b"{L\0\0\0\0\0\0\0\x07learner{", True),
        (old_binary(), True),
        (b"binf" + old_binary(), True),
        (b'{"layers": [', False),
        (b"PK\x03\x04", False),
        (b"tree\nversion=v4\n", False),
        (b"{", False),
        (b"\x08\x0a", False),
        (bytes(300), False),
    ],
)
def test_recognises(tmp_path: Path, start: bytes, expected: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(start)
    assert Importer().recognises(path) is expected
