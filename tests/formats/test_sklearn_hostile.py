"""Damaged and hostile `.skops` files: one clear line, whatever was done to them."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelhub.errors import ModelhubError, UnreadableFile, Unsupported
from modelhub.protocols import ReadOptions
from modelhub_sklearn import Importer

sklearn_models = pytest.importorskip("sklearn_models", exc_type=ImportError)
skops = pytest.importorskip("skops.io")

Change = Callable[[dict[str, Any], dict[str, bytes]], None]


@pytest.fixture(scope="module")
def members() -> dict[str, dict[str, bytes]]:
    """The members of sound files by the name of the model."""
    found = {}
    chosen = {**sklearn_models.forests(), **sklearn_models.histograms(), **sklearn_models.deciding()}
    for name in ("forest_two", "hist_categories", "columns", "log1p", "imputed", "isotonic"):
        estimator, data, target = chosen[name]
        with zipfile.ZipFile(io.BytesIO(skops.dumps(estimator.fit(data, target)))) as archive:
            found[name] = {member: archive.read(member) for member in archive.namelist()}
    return found


def written(files: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def nodes(value: Any, loader: str, kind: str = "") -> list[dict[str, Any]]:
    """Every node of the schema with this loader and class."""
    found: list[dict[str, Any]] = []
    if isinstance(value, dict):
        if value.get("__loader__") == loader and kind in ("", value.get("__class__")):
            found.append(value)
        for item in value.values():
            found += nodes(item, loader, kind)
    elif isinstance(value, list):
        for item in value:
            found += nodes(item, loader, kind)
    return found


def attributes(schema: dict[str, Any]) -> dict[str, Any]:
    return schema["content"]["content"]


def array(files: dict[str, bytes], node: dict[str, Any]) -> np.ndarray:
    return np.load(io.BytesIO(files[node["file"]]))


def put(files: dict[str, bytes], node: dict[str, Any], value: np.ndarray) -> None:
    file = io.BytesIO()
    np.save(file, value)
    node["file"], node["__id__"] = f"changed_{len(files)}.npy", random.getrandbits(60)
    files[node["file"]] = file.getvalue()


def tree_nodes(field: str, at: int, value: float) -> Change:
    """Change one number of the first tree."""

    def change(schema: dict[str, Any], files: dict[str, bytes]) -> None:
        node = nodes(schema, "TreeNode")[0]["content"]["content"]["nodes"]
        table = array(files, node)
        table[field][at] = value
        put(files, node, table)

    return change


def leaf_infinite(schema: dict[str, Any], files: dict[str, bytes]) -> None:
    node = nodes(schema, "TreeNode")[0]["content"]["content"]["values"]
    put(files, node, array(files, node) + np.inf)


def header(text: str, rest: bytes = b"") -> Change:
    """A `.npy` member with a header of its own."""

    def change(schema: dict[str, Any], files: dict[str, bytes]) -> None:
        padded = text.encode() + b"\n"
        name = attributes(schema)["classes_"]["file"]
        files[name] = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + rest

    return change


def drop(key: str) -> Change:
    return lambda schema, _: attributes(schema).pop(key)


def deep(schema: dict[str, Any], _: dict[str, bytes]) -> None:
    node: dict[str, Any] = {"__loader__": "ListNode", "__class__": "list", "__module__": "builtins", "content": []}
    for _ in range(450):
        node = {**node, "content": [node]}
    attributes(schema)["classes_"] = node


def itself(schema: dict[str, Any], _: dict[str, bytes]) -> None:
    attributes(schema)["classes_"] = {**attributes(schema)["classes_"], "__id__": schema["__id__"]}


def scalar(text: str) -> Change:
    return lambda schema, _: attributes(schema)["n_features_in_"].update(content=text, __id__=1)


def loader(name: object) -> Change:
    return lambda schema, _: attributes(schema)["classes_"].update(__loader__=name, __id__=2)


FOREST: dict[str, tuple[Change, str]] = {
    "no_protocol": (lambda schema, _: schema.pop("protocol"), "not a skops file"),
    "future_protocol": (lambda schema, _: schema.update(protocol=99), "skops protocol 99"),
    "protocol_true": (lambda schema, _: schema.update(protocol=True), "not a skops file"),
    "unknown_loader": (loader("EvilNode"), "unknown loader 'EvilNode'"),
    "loader_of_another_kind": (loader(["ListNode"]), "unknown loader"),
    "no_class": (lambda schema, _: schema.pop("__class__"), "without class and module"),
    "another_class": (
        lambda schema, _: schema.update(__class__="Popen", __module__="subprocess"),
        "Popen.*no converter",
    ),
    "class_of_that_name": (
        lambda schema, _: schema.update(__module__="evil"),
        "evil.RandomForestClassifier.*no converter",
    ),
    "deep": (deep, "nested too deeply"),
    "holds_itself": (itself, "holds itself"),
    "scalar_list": (scalar("[1]"), "no scalar"),
    "scalar_broken": (scalar("{"), "is not JSON"),
    "scalar_long": (scalar("9" * 5000), "is not JSON|no scalar"),
    "features_infinite": (scalar("1e400"), "features|n_features_in_"),
    "features_many": (scalar("2000000000"), "2000000000 features"),
    "features_other": (scalar("3"), "not 3 features|not fit"),
    "no_classes": (drop("classes_"), "no attribute 'classes_'"),
    "no_trees": (drop("estimators_"), "no attribute 'estimators_'"),
    "length_bomb": (header("{'descr': '<f8', 'fortran_order': False, 'shape': (9000000000000,), }"), "0 bytes for"),
    "shape_overflow": (header("{'descr': '<f8', 'fortran_order': False, 'shape': (2**62, 4), }"), "not a .npy array"),
    "negative_shape": (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", bytes(8)), "shape"),
    "empty_items": (header("{'descr': '<U0', 'fortran_order': False, 'shape': (9000000000000,), }"), "array of"),
    "objects": (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n."), "array of"),
    "object_fields": (
        header("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", bytes(8)),
        "array of",
    ),
    "code_in_header": (header("__import__('os').system('true')"), "not a .npy array"),
    "deep_header": (header("(" * 9000), "not a .npy array"),
    "no_member": (lambda _, files: files.pop(next(n for n in files if n.endswith(".npy"))), "has no member"),
    "child_far_away": (tree_nodes("left_child", 0, 10**9), "not there"),
    "child_negative": (tree_nodes("right_child", 0, -7), "not there"),
    "child_of_two": (tree_nodes("left_child", 0, 2), "child of two|not reached"),
    "circle": (tree_nodes("left_child", 1, 0), "root|circle|child of two"),
    "feature_far_away": (tree_nodes("feature", 0, 10**12), "no known feature"),
    "feature_negative": (tree_nodes("feature", 0, -3), "no known feature"),
    "threshold_nan": (tree_nodes("threshold", 0, np.nan), "no number"),
    "leaf_infinite": (leaf_infinite, "not finite"),
}


@pytest.mark.parametrize("name", list(FOREST))
def test_damage_to_a_forest_is_told_in_one_line(name: str, members, tmp_path: Path) -> None:
    change, said = FOREST[name]
    files = dict(members["forest_two"])
    schema = json.loads(files["schema.json"])
    change(schema, files)
    files["schema.json"] = json.dumps(schema).encode()
    with pytest.raises((UnreadableFile, Unsupported), match=said) as caught:
        Importer().read(written(files, tmp_path / "bad.skops"), ReadOptions())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def bitset(schema: dict[str, Any], files: dict[str, bytes]) -> None:
    for predictor in nodes(schema, "ObjectNode", "TreePredictor"):
        node = predictor["content"]["content"]["nodes"]
        table = array(files, node)
        table["bitset_idx"] = 10**6
        put(files, node, table)


def disagree(schema: dict[str, Any], files: dict[str, bytes]) -> None:
    node = nodes(schema, "ObjectNode", "_BinMapper")[0]["content"]["content"]["is_categorical_"]
    put(files, node, ~(array(files, node) != 0))


def function(module: str, name: str) -> Change:
    def change(schema: dict[str, Any], _: dict[str, bytes]) -> None:
        for node in nodes(schema, "FunctionNode"):
            node.update(__module__=module, __class__=name)

    return change


def knots(schema: dict[str, Any], files: dict[str, bytes]) -> None:
    node = nodes(schema, "ObjectNode", "IsotonicRegression")[0]["content"]["content"]["X_thresholds_"]
    put(files, node, array(files, node)[::-1])


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        ("hist_categories", bitset, "set of categories that is not there"),
        ("hist_categories", disagree, "disagree about what is categorical"),
        ("log1p", function("os", "system"), "func=os.system"),
        ("log1p", function("evil.numpy", "log1p"), "func=evil.numpy.log1p"),
        ("log1p", function("numpy", "load"), "func=numpy.load"),
        ("isotonic", knots, "do not rise"),
    ],
)
def test_damage_to_others(model: str, change: Change, said: str, members, tmp_path: Path) -> None:
    files = dict(members[model])
    schema = json.loads(files["schema.json"])
    change(schema, files)
    files["schema.json"] = json.dumps(schema).encode()
    with pytest.raises((UnreadableFile, Unsupported), match=said):
        Importer().read(written(files, tmp_path / "bad.skops"), ReadOptions())


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip", b"\x80\x04\x95pickle"])
def test_what_is_no_archive(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(data)
    with pytest.raises(UnreadableFile):
        Importer().read(path, ReadOptions())


def test_an_archive_cut_short(members, tmp_path: Path) -> None:
    path = written(members["forest_two"], tmp_path / "model.skops")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnreadableFile):
        Importer().read(path, ReadOptions())


@pytest.mark.parametrize("model", ["forest_two", "hist_categories", "columns", "imputed", "isotonic"])
def test_random_damage_gives_no_other_error(model: str, members, tmp_path: Path) -> None:
    chance = random.Random(3)
    for _ in range(60):
        files = dict(members[model])
        schema = json.loads(files["schema.json"])
        for _ in range(chance.randint(1, 3)):
            damage(schema, chance)
        files["schema.json"] = json.dumps(schema).encode()
        if chance.random() < 0.3:
            name = chance.choice(list(files))
            spoiled = bytearray(files[name])
            spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
            files[name] = bytes(spoiled)
        with suppress(ModelhubError):
            Importer().read(written(files, tmp_path / "bad.skops"), ReadOptions())


def damage(value: Any, chance: random.Random) -> None:
    """Change one entry somewhere below `value`, in place."""
    while True:
        inner = [
            item for item in (value.values() if isinstance(value, dict) else value) if isinstance(item, dict | list)
        ]
        if not inner or chance.random() < 0.15:
            break
        value = chance.choice(inner)
    if not value:
        return
    key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
    value[key] = chance.choice([None, -1, 10**12, "", "NaN", [], {}, True, "[]", 0.5, "estimators_"])
