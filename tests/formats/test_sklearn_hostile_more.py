"""Damage to rarer estimators, to Boosters inside, to whole archives; and pickles that would run code."""

from __future__ import annotations

import io
import json
import pickle
import random
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_sklearn_hostile import damage, nodes, put, written

from modelhub.errors import ModelhubError, UnreadableFile, Unsupported
from modelhub.protocols import ReadOptions
from modelhub_sklearn import Importer, Runtime
from modelhub_sklearn.reader import read

more = pytest.importorskip("sklearn_more_models", exc_type=ImportError)
skops = pytest.importorskip("skops.io")

CHOSEN = {
    "members": ("svc_probability_three", "hard_three", "pairs_trees_three", "rest_labels", "quadratic_two", "code_two"),
    "targets": ("forest_names", "chain", "neighbours", "rest_labels"),
    "shapes": (
        "spline_linear_3",
        "one_hot_rare_ignore_first",
        "target_encoder_three",
        "knn_imputer",
        "kernel_components_rbf",
        "choice_5_SelectFromModel",
    ),
}


@pytest.fixture(scope="module")
def members() -> dict[str, dict[str, bytes]]:
    """The members of sound files by the name of the model."""
    found = {}
    for group, names in CHOSEN.items():
        models = getattr(more, group)()
        for name in names:
            if name in models:
                estimator, data, target = models[name]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found[name] = unpacked(estimator.fit(data, target))
    return found


def unpacked(estimator: Any) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(skops.dumps(estimator))) as archive:
        return {member: archive.read(member) for member in archive.namelist()}


def boosted(kind: str) -> dict[str, bytes]:
    if kind == "xgboost":
        estimator = pytest.importorskip("xgboost").XGBClassifier(n_estimators=3, max_depth=3, n_jobs=1)
    else:
        estimator = pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=3, num_leaves=5, n_jobs=1, verbosity=-1)
    return unpacked(estimator.fit(more.X, more.FOUR))


def refusal(files: dict[str, bytes], path: Path) -> str:
    with pytest.raises((UnreadableFile, Unsupported)) as caught:
        read(written(files, path), ReadOptions())
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400 + len(str(path))
    return text


def test_random_damage_gives_no_other_error(members, tmp_path: Path) -> None:
    chance = random.Random(5)
    for name, sound in members.items():
        for _ in range(25):
            files = dict(sound)
            schema = json.loads(files["schema.json"])
            for _ in range(chance.randint(1, 3)):
                damage(schema, chance)
            files["schema.json"] = json.dumps(schema).encode()
            with suppress(ModelhubError):
                read(written(files, tmp_path / f"{name}.skops"), ReadOptions())


def test_random_numbers_give_no_other_error(members, tmp_path: Path) -> None:
    """Arrays of another size, and numbers out of range, wherever an array stands."""
    chance, numbers = random.Random(6), np.random.default_rng(6)
    for name, sound in members.items():
        for _ in range(15):
            files = dict(sound)
            schema = json.loads(files["schema.json"])
            arrays = [node for node in nodes(schema, "NdArrayNode") if node.get("type") == "numpy"]
            node = chance.choice(arrays)
            value = np.load(io.BytesIO(files[node["file"]]))
            if value.dtype.names or not value.size:
                continue
            if chance.random() < 0.5:
                value = value.reshape(-1)[: chance.randrange(value.size + 1)]
            elif value.dtype.kind in "if":
                value = value.copy()
                value.reshape(-1)[numbers.integers(0, value.size)] = chance.choice([-1, 10**6, 0])
            put(files, node, value)
            files["schema.json"] = json.dumps(schema).encode()
            with suppress(ModelhubError):
                read(written(files, tmp_path / f"{name}.skops"), ReadOptions())


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_flipped_bits_in_a_booster_give_no_other_error(kind: str, tmp_path: Path) -> None:
    chance, sound = random.Random(7), boosted(kind)
    place = "schema.json" if kind == "lightgbm" else next(name for name in sound if name.endswith(".bin"))
    for _ in range(150):
        files = dict(sound)
        spoiled = bytearray(files[place])
        for _ in range(chance.randint(1, 3)):
            spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
        files[place] = bytes(spoiled)
        with suppress(ModelhubError):
            read(written(files, tmp_path / "bad.skops"), ReadOptions())


def test_an_archive_with_flipped_bits_or_cut_short_gives_no_other_error(members, tmp_path: Path) -> None:
    chance = random.Random(8)
    sound = written(members["spline_linear_3"], tmp_path / "sound.skops").read_bytes()
    path = tmp_path / "bad.skops"
    for _ in range(150):
        spoiled = bytearray(sound[: chance.randrange(len(sound))] if chance.random() < 0.4 else sound)
        for _ in range(chance.randint(1, 4)):
            if spoiled:
                spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
        path.write_bytes(spoiled)
        with suppress(ModelhubError):
            read(path, ReadOptions())


BOOSTERS = {
    "length_bomb": (b"{L" + (2**62).to_bytes(8, "big") + b"x", "ends|length|bytes|cut"),
    "array_bomb": (b"{U\x06Config[$Z#L" + (2**40).to_bytes(8, "big") + b"}", ""),
    "no_model": (b"{U\x06Config{}}", "other parts than"),
    "old": (b"CONFIG-offset:\x00\x00", "pickled by an old XGBoost"),
    "nothing": (b"", "without its bytes"),
}


@pytest.mark.parametrize("name", list(BOOSTERS))
def test_booster_bytes_that_are_none(name: str, tmp_path: Path) -> None:
    data, said = BOOSTERS[name]
    files = boosted("xgboost")
    files[next(member for member in files if member.endswith(".bin"))] = data
    import re

    assert re.search(said, refusal(files, tmp_path / "bad.skops"))


def test_a_booster_of_another_kind(tmp_path: Path) -> None:
    files = boosted("xgboost")
    schema = json.loads(files["schema.json"])
    for node in nodes(schema, "ObjectNode", "Booster"):
        node.update(__module__="evil", __class__="Booster")
    files["schema.json"] = json.dumps(schema).encode()
    assert "no Booster" in refusal(files, tmp_path / "bad.skops")


class Canary:
    """Runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".pkl", ".joblib", ".pickle", ".skops"])
def test_code_in_a_pickle_does_not_run_unless_trusted(suffix: str, tmp_path: Path) -> None:
    canary = tmp_path / "it_ran"
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Canary(canary)))
    from modelhub.graph.interface import Interface

    Importer().recognises(path)
    for attempt in (
        lambda: read(path, ReadOptions()),
        lambda: Runtime().load(path, Interface((), ()), "float64", ReadOptions()),
    ):
        with pytest.raises((Unsupported, UnreadableFile)):
            attempt()
    assert not canary.exists()
    if suffix == ".pkl":  # the canary sings where it may
        with suppress(ModelhubError):
            read(path, ReadOptions(trust=True))
        assert canary.exists()
