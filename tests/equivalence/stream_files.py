"""What the tests of real events share: networks, one sample in HDF5 and in ROOT, and the reports of checks on them."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import awkward as ak
import h5py
import numpy as np
import onnx_ir as ir
import uproot

import modelhub
from modelhub.data import DataSpec
from modelhub.equivalence import stream as room
from modelhub.equivalence.report import Report
from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output
from modelhub.graph.naming import attach
from modelhub.protocols import ReadOptions

EVENTS = 3000
BLOCK = 512
RARE = 2345
"""An event unlike all others."""

RECORD = Interface(
    (
        Input("jet", (Feature("pt", offset=-50.0, scale=0.02), Feature("eta", default=0.5))),
        Input("tracks", (Feature("d0"), Feature("z0"), Feature("hits", scale=0.1)), sequence=True, max_length=5),
    ),
    (Output("tagger", ("pu", "pc", "pb")),),
)


def network(late: float = 0.0, record: Interface = RECORD) -> ir.Model:
    """A deep set beside a dense layer. `late` is added to its first output for jets above pt = 1000."""
    rng = np.random.default_rng(4)
    b = Builder()
    jet, tracks = b.input("jet", ["N", 2]), b.input("tracks", ["N", "T_tracks", 3])

    def dense(x: ir.Value, name: str, into: int, out: int) -> ir.Value:
        with b.scope(name):
            y = b.op("MatMul", x, b.constant(rng.standard_normal((into, out)).astype("f4") * 0.5, "weight"))
            return b.op("Add", y, b.constant(rng.standard_normal(out).astype("f4") * 0.1, "bias"))

    phi = b.op("Relu", dense(tracks, "phi", 3, 8))
    summed = b.op("ReduceSum", phi, b.ints(1), keepdims=0)
    both = b.op("Concat", summed, b.op("Tanh", dense(jet, "jets", 2, 4)), axis=1)
    y = dense(both, "head", 12, 3)
    if late:
        high = b.op("Gather", jet, b.constant(np.array(0), "first"), axis=1)
        high = b.op("Relu", b.op("Sub", high, b.constant(np.float32((1000 - 50) * 0.02), "edge")))
        high = b.op("Unsqueeze", high, b.ints(1))
        y = b.op("Add", y, b.op("Mul", high, b.constant(np.array([late, 0, 0], "f4"), "late")))
    b.output(y, "tagger", ["N", 3])
    model = b.finish()
    attach(model, record)
    return model


def written(folder: Path) -> Path:
    """Networks, and one sample in HDF5 and in ROOT."""
    modelhub.write(network(), folder / "net.onnx")
    modelhub.write(network(), folder / "net.json")
    modelhub.write(network(late=1e-4), folder / "late.onnx")
    rng = np.random.default_rng(8)
    jets = np.zeros(EVENTS, [("flavour", "i4"), ("pt", "f8"), ("eta", "f4")])
    jets["pt"], jets["eta"] = rng.exponential(60, EVENTS).clip(0, 900), rng.standard_normal(EVENTS)
    jets["eta"][::7] = np.nan
    jets["pt"][RARE] = 1234.0
    counts = rng.integers(0, 8, EVENTS)
    tracks = np.zeros((EVENTS, 7), [("d0", "f4"), ("z0", "f2"), ("hits", "i2"), ("valid", "?")])
    for name in ("d0", "z0"):
        tracks[name] = rng.standard_normal(tracks.shape)
    tracks["hits"] = rng.integers(0, 20, tracks.shape)
    tracks["valid"] = np.arange(7) < counts[:, np.newaxis]
    with h5py.File(folder / "events.h5", "w") as file:
        file.create_dataset("jets", data=jets, chunks=(100,), compression="lzf")
        file.create_dataset("tracks", data=tracks, chunks=(100, 7), compression="gzip")
    valid = tracks["valid"]
    with uproot.recreate(folder / "events.root") as root:
        columns = {n: ak.unflatten(tracks[n][valid].astype("f4"), counts) for n in ("d0", "z0", "hits")}
        tree = root.mktree("events", {"pt": "float64", "eta": "float32", **dict.fromkeys(columns, "var * float32")})
        tree.extend({"pt": jets["pt"], "eta": jets["eta"], **columns})
    return folder


def job(folder: Path, target: str = "net.json", data: str = "events.h5", **spec) -> room.Job:
    format = "lwtnn" if target.endswith("json") else "onnx"
    return room.Job(
        (folder / "net.onnx", "onnx", ReadOptions()),
        (folder / target, format, target),
        None,
        DataSpec(folder / data, block=BLOCK, **spec),
        seed=1,
    )


@cache
def _checked(target: Path) -> Report:
    return modelhub.check(target.with_name("net.onnx"), target)


def checked(target: Path) -> Report:
    """The report of the seeded probes, as it was before any real event."""
    return copy.deepcopy(_checked(target))


def results(report) -> list[tuple]:
    return [
        (leg.between, leg.precision, result) for leg in report.legs for result in leg.results if result.kind == "data"
    ]
