"""LightGBM files that lie: one clear line each."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from modelhub.errors import UnreadableFile, Unsupported
from modelhub.protocols import ReadOptions
from modelhub_lightgbm import Importer

TEXT = """tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=binary sigmoid:1
feature_names=a b
feature_infos=[0:1] 0:1:2
tree_sizes=300

Tree=0
num_leaves=3
num_cat=1
split_feature=0 1
split_gain=1 1
threshold=0.5 0
decision_type=2 1
left_child=1 -1
right_child=-2 -3
leaf_value=1 2 3
leaf_weight=1 1 1
leaf_count=1 1 1
internal_value=0 0
internal_weight=0 0
internal_count=3 2
cat_boundaries=0 1
cat_threshold=5
is_linear=0
shrinkage=1


end of trees

feature_importances:
a=1
"""


def read(text: str, folder: Path) -> None:
    path = folder / "model.txt"
    path.write_text(text)
    Importer().read(path, ReadOptions())


def test_the_model_itself_is_fine(tmp_path: Path) -> None:
    read(TEXT, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("left_child=1 -1", "left_child=9 -1", "outside of its tree"),
        ("left_child=1 -1", "left_child=1 -9", "outside of its tree"),
        ("left_child=1 -1", "left_child=0 -1", "child of two nodes"),
        ("left_child=1 -1", "left_child=1 1", "child of two nodes"),
        ("left_child=1 -1", "left_child=1", "1 numbers instead of 2"),
        ("left_child=1 -1", "left_child=1 1e99", "not a number"),
        ("left_child=1 -1", f"left_child=1 {'9' * 40}", "not a number"),
        ("left_child=1 -1", "left_child=-1 -1", "child of two nodes"),
        ("split_feature=0 1", "split_feature=0 2", "feature that is not there"),
        ("split_feature=0 1", "split_feature=0 -1", "feature that is not there"),
        ("threshold=0.5 0", "threshold=nan 0", "no number"),
        ("threshold=0.5 0", "threshold=x 0", "not a number"),
        ("threshold=0.5 0", "threshold=0.5 3", "name every set once"),
        ("leaf_value=1 2 3", "leaf_value=1 inf 3", "not all are finite"),
        ("leaf_value=1 2 3", "leaf_value=1 2", "2 numbers instead of 3"),
        ("num_leaves=3", "num_leaves=2000000000", "leaves announced"),
        ("num_leaves=3", "num_leaves=0", "leaves announced"),
        ("num_leaves=3", "num_leaves=-3", "not a count"),
        ("num_cat=1", "num_cat=9", "9 sets of categories"),
        ("cat_boundaries=0 1", "cat_boundaries=0 7", "cat_boundaries"),
        ("cat_boundaries=0 1", "cat_boundaries=1 1", "cat_boundaries"),
        ("cat_threshold=5", "cat_threshold=-5", "32 bits"),
        ("cat_threshold=5", "cat_threshold=5000000000", "32 bits"),
        ("max_feature_idx=1", "max_feature_idx=100000000", "features"),
        ("max_feature_idx=1", "max_feature_idx=3", "feature names"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=2", "1 trees for 2 outputs"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=0", "outputs"),
        ("sigmoid:1", "sigmoid:-1", "sigmoid"),
        ("tree_sizes=300", "tree_sizes=300 400", "another number"),
        ("num_leaves=3\n", "num_leaves=3\nnum_leaves=3\n", "given twice"),
        ("end of trees", "", "ends before its trees do"),
        ("is_linear=0", "is_linear=1", "leaf_const is missing"),
    ],
)
def test_what_is_no_forest_is_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = TEXT.replace(old, new, 1).replace("\nfeature_importances", "\nnone" if not new else "\nfeature_importances")
    tracemalloc.start()
    with pytest.raises(UnreadableFile, match=words) as caught:
        read(text, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("objective=binary sigmoid:1", "objective=my_own", "my_own"),
        ("version=v4", "version=v9", "v9"),
        ("is_linear=0", "is_oblique=1", "is_oblique"),
        ("label_index=0", "label_index=0\nscale_output=2", "scale_output"),
        ("decision_type=2 1", "decision_type=12 1", "decision type"),
        ("decision_type=2 1", "decision_type=64 1", "decision type"),
        ("split_feature=0 1", "split_feature=1 1", "treat one feature differently"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        read(TEXT.replace(old, new, 1), tmp_path)


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    for end in range(1, TEXT.index("end of trees"), 7):
        with pytest.raises((UnreadableFile, Unsupported)):
            read(TEXT[:end], tmp_path)


def test_a_tree_as_deep_as_it_has_leaves(tmp_path: Path) -> None:
    depth = 20_000
    chain = {
        "num_leaves": depth + 1,
        "num_cat": 0,
        "split_feature": "0 " * depth,
        "threshold": " ".join(map(str, range(depth))),
        "decision_type": "2 " * depth,
        "left_child": " ".join(str(-1 - i) for i in range(depth)),
        "right_child": " ".join([*map(str, range(1, depth)), str(-1 - depth)]),
        "leaf_value": " ".join(map(str, range(depth + 1))),
    }
    head = TEXT[: TEXT.index("Tree=0")]
    with pytest.raises(Unsupported, match="splits below each other"):
        read(head + "Tree=0\n" + "".join(f"{k}={v}\n" for k, v in chain.items()) + "\nend of trees\n", tmp_path)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (b"tree\nversion=v4\n", True),
        (b"tree\r\nversion=v3\r\n", True),
        (b"trees\nversion=v4\n", False),
        (b"tree", False),
    ],
)
def test_recognises(tmp_path: Path, start: bytes, expected: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(start)
    assert Importer().recognises(path) is expected
