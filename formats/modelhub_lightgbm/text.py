"""The text of a LightGBM model, cut into its header and its trees (src/boosting/gbdt_model_text.cpp, src/io/tree.cpp).

::

    tree                            the header: a line `key=value` or a bare flag each
    version=v4
    ...
                                    a blank line
    Tree=0                          a tree: `key=value`, lists separated by spaces
    num_leaves=31
    ...
                                    blank lines
    end of trees                    what follows describes the training and is left alone
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported, safe_text

__all__ = ["Fields", "Text", "split"]

_HEADER = {
    "average_output", "feature_infos", "feature_names", "label_index", "max_feature_idx", "monotone_constraints",
    "num_class", "num_tree_per_iteration", "objective", "tree", "tree_sizes", "version",
}  # fmt: skip
_TREE = {
    "Tree", "cat_boundaries", "cat_threshold", "decision_type", "internal_count", "internal_value", "internal_weight",
    "is_linear", "leaf_coeff", "leaf_const", "leaf_count", "leaf_features", "leaf_parent", "leaf_value", "leaf_weight",
    "left_child", "num_cat", "num_features", "num_leaves", "right_child", "shrinkage", "split_feature", "split_gain",
    "threshold",
}  # fmt: skip
_ENDS = ("\nend of trees", "\nfeature importances:", "\nfeature_importances:")
"""What follows the last tree; before version 2.2.4 that is the table of importances."""
_VERSIONS = ("v2", "v3", "v4")


@dataclass(frozen=True)
class Fields:
    """The lines of one part; `where` names it in errors."""

    lines: dict[str, str]
    where: str

    def __contains__(self, key: str) -> bool:
        return key in self.lines

    def text(self, key: str) -> str:
        """The value of `key`."""
        if key not in self.lines:
            raise UnreadableFile(f"{self.where}: {key} is missing")
        return self.lines[key]

    def integer(self, key: str, default: int | None = None) -> int:
        """A count from 0 to 2^31."""
        text = self.lines.get(key, "") if default is not None else self.text(key)
        if default is not None and not text:
            return default
        if not (text.isascii() and text.isdecimal() and len(text) < 11 and int(text) < 1 << 31):
            raise UnreadableFile(f"{self.where}: {key}={safe_text(text, 40)} is not a count")
        return int(text)

    def integers(self, key: str, count: int) -> NDArray[np.int64]:
        """`count` whole numbers."""
        return self._numbers(key, count, np.int64)

    def floats(self, key: str, count: int) -> NDArray[np.float64]:
        """`count` numbers."""
        return self._numbers(key, count, np.float64)

    def _numbers(self, key: str, count: int, dtype: type) -> NDArray[Any]:
        words = self.text(key).split()
        if len(words) != count:
            raise UnreadableFile(f"{self.where}: {key} has {len(words)} numbers instead of {count}")
        try:
            return np.array(words, np.str_).astype(dtype) if words else np.zeros(0, dtype)
        except (ValueError, OverflowError):
            raise UnreadableFile(f"{self.where}: {key} holds something that is not a number") from None


@dataclass(frozen=True)
class Text:
    """Header and trees."""

    header: Fields
    trees: list[Fields]


def split(data: bytes, where: str) -> Text:
    """Cut `data` into its parts. Raises `UnreadableFile`, and `Unsupported` for a key that is not known."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{where}: not UTF-8 text (byte {error.start})") from None
    for mark in _ENDS:
        body, end, _ = text.partition(mark)
        if end:
            break
    else:
        raise UnreadableFile(f"{where}: the file ends before its trees do ('end of trees' is missing)")
    head, *blocks = body.split("\nTree=")
    header = _fields(head, _HEADER, f"{where}, header")
    version = header.text("version")
    if version not in _VERSIONS:
        raise Unsupported(f"{where}: LightGBM model version {safe_text(version)!r}; known are {', '.join(_VERSIONS)}")
    if "tree_sizes" in header and len(header.text("tree_sizes").split()) != len(blocks):
        raise UnreadableFile(f"{where}: {len(blocks)} trees, and the header tells of another number")
    return Text(header, [_fields(f"Tree={block}", _TREE, f"{where}, tree {i}") for i, block in enumerate(blocks)])


def _fields(block: str, known: set[str], where: str) -> Fields:
    lines: dict[str, str] = {}
    for line in block.splitlines():
        if not line.strip():
            continue
        key, _, value = line.partition("=")
        if key in lines:
            raise UnreadableFile(f"{where}: {safe_text(key)} is given twice")
        if key not in known:
            raise Unsupported(f"{where}: the line {safe_text(key, 40)!r} is unknown; what it means is not known here")
        lines[key] = value.strip()
    return Fields(lines, where)
