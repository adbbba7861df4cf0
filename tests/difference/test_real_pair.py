"""A pair that an experiment made: a Keras tagger of CMS, and the ONNX file that its authors converted it to.

The Keras file takes any number of particles; the ONNX file takes 60, 40 and 5, and folds constants in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from modelhub.difference.diff import diff
from modelhub.equivalence.check import check
from modelhub.errors import Inconclusive

pytest.importorskip("keras")


@pytest.fixture
def pair(cases: Path) -> tuple[Path, Path]:
    folder = cases / "real" / "keras" / "cms_DeepDoubleX_102X_CvL"
    return folder / "CvL.h5", folder / "CvL.onnx"


@pytest.mark.heavy
def test_the_pair_is_compared_at_the_lengths_that_both_take(pair: tuple[Path, Path]) -> None:
    report = check(*pair)
    assert report.verdict == "equivalent"
    assert {leg.between for leg in report.legs} == {("source", "graph"), ("source", "target"), ("graph", "target")}
    assert all(leg.worst is not None and leg.worst.length == 60 for leg in report.legs)


@pytest.mark.heavy
def test_exchanged_gates_are_found_behind_constants_that_were_folded(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, target = pair
    model = onnx.load(target)
    node = next(node for node in model.graph.node if node.name == "pf_gru")
    kernel = next(entry for entry in model.graph.initializer if entry.name == node.input[1])
    update, reset, new = np.split(numpy_helper.to_array(kernel), 3, axis=1)
    kernel.CopyFrom(numpy_helper.from_array(np.concatenate([reset, update, new], axis=1), kernel.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    found = diff(source, tmp_path / "wrong.onnx")
    assert found.place is not None
    assert (found.place.source_layer, found.place.source_node) == ("pf_gru", "GRU")
    assert (found.place.target_layer, found.place.target_node) == ("pf_gru", "GRU")
    (cause,) = found.causes
    assert cause.startswith("the gates of the kernel are in another order: reset where update belongs")
    assert [layers.parting for layers in found.layers] == [None]


def test_a_length_that_does_not_fit_is_told_in_full(pair: tuple[Path, Path]) -> None:
    from modelhub.conversion import read
    from modelhub.graph.interface import Interface
    from modelhub.protocols import ReadOptions
    from modelhub_onnx.runtime import load

    record = Interface.of(read(pair[1]))
    engine = load(pair[1], record, "float32", ReadOptions())
    short = {entry.tensor: np.zeros((2, 1, len(entry.features)), np.float32) for entry in record.inputs}
    with pytest.raises(Inconclusive, match=r"invalid dimensions for input: input_[234] .* Got: 1 Expected: "):
        engine(short)
