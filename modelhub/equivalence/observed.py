"""The range that each variable has in an event file, for probes that are to stay within what is real."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.data import DataSpec, open_events
from modelhub.graph.interface import Feature, Input, Interface

__all__ = ["FIRST", "observed"]

FIRST = 10_000
"""Events that are looked at, whatever the size of blocks: the same whoever does the work."""


def observed(data: DataSpec, model: ir.Model) -> tuple[Interface, int]:
    """The record of `model` with the ranges seen in the first events, where it declares none; and how many these are.

    Raises as `open_events` does.
    """
    interface = Interface.of(model)
    events = open_events(replace(data, events=min(data.events or FIRST, FIRST), block=FIRST), model, interface)
    seen = {record.tensor: _nothing(record) for record in interface.inputs}
    for batch in next(events.read()):
        for record in interface.inputs:
            x = batch.arrays[record.tensor]
            if x.shape[-1] == len(record.features) and x.size and x.dtype.kind == "f":
                rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
                low = np.where(np.isfinite(rows), rows, np.inf).min(axis=0)
                high = np.where(np.isfinite(rows), rows, -np.inf).max(axis=0)
                before = seen[record.tensor]
                seen[record.tensor] = np.minimum(before[0], low), np.maximum(before[1], high)
    inputs = (
        replace(record, features=tuple(map(_ranged, record.features, *seen[record.tensor])))
        for record in interface.inputs
    )
    return replace(interface, inputs=tuple(inputs)), events.count


def _nothing(record: Input) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.full(len(record.features), np.inf), np.full(len(record.features), -np.inf)


def _ranged(feature: Feature, low: float, high: float) -> Feature:
    if not low <= high or feature.categories is not None:
        return feature
    low = float(low) if feature.minimum is None else feature.minimum
    return replace(feature, minimum=low, maximum=float(high) if feature.maximum is None else feature.maximum)
