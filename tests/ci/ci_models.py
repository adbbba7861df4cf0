"""Pairs of files for the tests of CI: right ones, a wrong one, and one whose source's framework is wanted."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import modelhub

FIXTURES = Path(__file__).parents[2] / "fixtures"


def write_models(folder: Path) -> None:
    """bdt.xml, its export bdt.onnx, and wrong.onnx, whose leaves are a thousandth off; net.pt2 and its export."""
    shutil.copy(FIXTURES / "tmva" / "grad" / "model.weights.xml", folder / "bdt.xml")
    modelhub.convert(folder / "bdt.xml", folder / "bdt.onnx", check=False)
    proto = onnx.load(folder / "bdt.onnx")
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "leaf_weights":
                leaves = numpy_helper.to_array(attribute.t)
                attribute.t.CopyFrom(numpy_helper.from_array((leaves * 1.001).astype(leaves.dtype), attribute.t.name))
    onnx.save(proto, folder / "wrong.onnx")
    assert not np.array_equal((folder / "bdt.onnx").read_bytes(), (folder / "wrong.onnx").read_bytes())
    shutil.copy(FIXTURES / "torch" / "two_inputs" / "net.pt2", folder / "net.pt2")
    modelhub.convert(folder / "net.pt2", folder / "net.onnx", check=False)


PAIRS = {"bdt": ("bdt.xml", "bdt.onnx"), "wrong": ("bdt.xml", "wrong.onnx"), "net": ("net.pt2", "net.onnx")}


def config(*names: str, more: str = "") -> str:
    """A modelhub.yaml of these pairs."""
    pairs = (f"  - {{name: {name}, source: {PAIRS[name][0]}, target: {PAIRS[name][1]}}}" for name in names)
    return "\n".join(["version: 1", "pairs:", *pairs, more, ""])
