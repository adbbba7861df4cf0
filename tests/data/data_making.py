"""Event files made on the spot, and models that take them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import onnx_ir as ir

from modelhub.graph.builder import Builder
from modelhub.graph.interface import Feature, Input, Interface, Output

TRACK = np.dtype([("d0", "f4"), ("pt", "f2"), ("hits", "i4"), ("valid", "?")])


def features(*names: str) -> tuple[Feature, ...]:
    return tuple(Feature(name) for name in names)


def model(*inputs: Input, dims: dict[str, list[str | int]] | None = None, dtype: type = np.float32) -> ir.Model:
    """A graph whose inputs are `inputs`; what it computes does not matter here."""
    b = Builder()
    for record in inputs:
        steps: list[str | int] = [f"T_{record.name}"] if record.sequence else []
        shape = (dims or {}).get(record.tensor, ["N", *steps, len(record.features)])
        value = b.input(record.tensor, shape, np.dtype(dtype).name)
        b.output(b.op("Identity", value), f"out_{record.tensor}", shape, np.dtype(dtype).name)
    outputs = tuple(Output(f"out_{r.tensor}", ("y",), sequence=r.sequence) for r in inputs)
    return b.finish(Interface(tuple(inputs), outputs))


def jets(events: int, seed: int = 1) -> np.ndarray:
    """A structured array as ATLAS's writer makes them: more fields than are used, of many types."""
    rng = np.random.default_rng(seed)
    array = np.zeros(
        events, [("flavour", "i4"), ("pt", "f4"), ("eta", "f8"), ("n", "i8"), ("name", "S4"), ("tag", "?")]
    )
    array["pt"], array["eta"] = rng.standard_normal(events), rng.standard_normal(events)
    array["n"], array["tag"] = rng.integers(0, 9, events), rng.integers(0, 2, events)
    return array


def tracks(counts: np.ndarray, steps: int, seed: int = 2) -> np.ndarray:
    """Padded sequences with a `valid` field; what lies behind it must never be seen."""
    rng = np.random.default_rng(seed)
    array = np.zeros((len(counts), steps), TRACK)
    array["d0"] = rng.standard_normal(array.shape)
    array["pt"] = rng.standard_normal(array.shape)
    array["hits"] = rng.integers(0, 20, array.shape)
    array["valid"] = np.arange(steps) < counts[:, np.newaxis]
    array["d0"][~array["valid"]] = np.nan
    return array


def write_h5(path: Path, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            chunks = (max(len(data) // 3, 1), *data.shape[1:])
            file.create_dataset(name, data=data, chunks=chunks, compression="gzip", shuffle=True)
    return path
