"""The old binary (`.model`, written up to XGBoost 2, readable by none since 3.1), little-endian throughout.

Layout, from src/learner.cc, src/gbm/gbtree_model.h, src/tree/tree_model.cc and src/gbm/gblinear_model.h of XGBoost 1::

    [binf] learner 136   objective name   booster name
    gbtree:   model 160   trees x (header 148, nodes x 20, statistics x 16)   trees x int32 group
    dart:     gbtree, then uint64 count, count x float32
    gblinear: 136, uint64 count, count x float32
    attributes, where the learner says so: uint64 count, count x (text, text)

A text is a uint64 length and so many bytes.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub_xgboost.model import Model, Trees

__all__ = ["learner"]

_NODE = np.dtype([("parent", "<i4"), ("left", "<i4"), ("right", "<i4"), ("index", "<u4"), ("value", "<f4")])
_STATISTICS = 16


def learner(data: bytes, where: str) -> Model:
    """The model in `data`. Raises `UnreadableFile` where the bytes do not fit."""
    reader = _Bytes(data, where)
    if data.startswith(b"binf"):
        reader.take(4)
    base, features, classes, extra, _, major, minor, targets = struct.unpack_from("<fIiiiIII", reader.take(136))
    objective, booster = reader.text(), reader.text()
    if not 0 <= classes < 1 << 20 or targets >= 1 << 20 or features >= 1 << 31:
        raise UnreadableFile(f"{where}: a model of {features} features, {classes} classes, {targets} targets")
    outputs = max(classes, targets, 1)  # targets: since version 1.6, 0 before
    if booster in ("gbtree", "dart"):
        parts = _trees(reader)
        if booster == "dart":
            parts["drop"] = reader.floats()
        parts["per_round"] = 0
    elif booster == "gblinear":
        reader.take(136)
        weights = reader.floats()
        if len(weights) != (features + 1) * outputs:
            raise UnreadableFile(f"{where}: {len(weights)} weights for {features} features, {outputs} outputs")
        parts = {"weights": weights.reshape(features + 1, outputs)}
    else:
        raise Unsupported(f"{where}: the booster {safe_text(booster)!r} is not gbtree, dart or gblinear")
    return Model(
        version=(major, minor),
        booster=booster,
        objective=objective,
        features=features,
        outputs=outputs,
        base_score=np.array([base], np.float64),
        base_is_margin=major == 0,  # version 0 stored the margin, version 1 what the user gave
        attributes=reader.attributes() if extra else {},
        feature_names=(),
        feature_types=(),
        **parts,
    )


def _trees(reader: _Bytes) -> dict[str, Any]:
    (count,) = struct.unpack_from("<i", reader.take(160))
    nodes, sizes = [], []
    if count < 0:
        raise UnreadableFile(f"{reader.where}: {count} trees")
    for tree in range(count):
        roots, size, _, _, _, vector = struct.unpack_from("<6i", reader.take(148))
        if roots != 1 or vector > 1:
            raise Unsupported(f"{reader.where}: tree {tree} has {roots} roots and leaves of {vector} values")
        nodes.append(np.frombuffer(reader.take(size * _NODE.itemsize), _NODE))
        reader.take(size * _STATISTICS)
        sizes.append(size)
    flat = np.concatenate(nodes) if nodes else np.zeros(0, _NODE)
    index = flat["index"]
    trees = Trees(
        sizes=np.array(sizes, np.int64),
        left=flat["left"].astype(np.int64),
        right=flat["right"].astype(np.int64),
        feature=(index & Trees.DELETED).astype(np.int64),
        condition=flat["value"].astype(np.float32),
        default_left=(index >> 31).astype(np.bool_),
        group=np.frombuffer(reader.take(4 * count), "<i4").astype(np.int64),
    )
    return {"trees": trees}


class _Bytes:
    """The file, taken piece by piece."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.at = 0

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            raise UnreadableFile(
                f"{self.where}: {count} bytes announced at byte {self.at}, {len(self.data) - self.at} left"
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def count(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self) -> str:
        return self.take(self.count()).decode("utf-8", "replace")

    def floats(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.frombuffer(self.take(4 * self.count()), "<f4").astype(np.float64)

    def attributes(self) -> dict[str, str]:
        return {self.text(): self.text() for _ in range(self.count())}
