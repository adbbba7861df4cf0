"""The check: three parties, each in its own engine, compared pair by pair on every probe.

A leg that could not run makes the verdict inconclusive, never passed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modelhub import plugins
from modelhub.conversion import load_interface, read
from modelhub.equivalence.bench import bench
from modelhub.equivalence.coverage import FLOORS
from modelhub.equivalence.pairing import keeps, narrow
from modelhub.equivalence.parties import knows_masks
from modelhub.equivalence.presets import PRESETS
from modelhub.equivalence.probes import Probe, Progress, probes
from modelhub.equivalence.report import Report
from modelhub.equivalence.where import parameter_differences, record_differences
from modelhub.errors import Inconclusive, Notice, notice
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.data import DataSpec

__all__ = ["SEED", "Readings", "check", "check_written", "readings"]

SEED = 20260101


def check(
    source: str | Path,
    target: str | Path,
    *,
    source_format: str | None = None,
    target_format: str | None = None,
    interface: str | Path | Interface | None = None,
    options: ReadOptions = ReadOptions(),
    seed: int = SEED,
    data: DataSpec | None = None,
    scheduler: str = "",
    preset: str = "",
    floors: Mapping[str, float] = FLOORS,
    progress: Progress = iter,
) -> Report:
    """Compare two model files of any formats, on seeded probes and then on the real events of `data`, if given.

    Names and scaling come from `interface`; without one, a source that names nothing (a torch or Keras file) takes
    them from the target. Whether offsets and scales found there were given to the source or taken out of its network
    cannot be seen in the files: then both are tried, and the one that fits is reported.

    `scheduler` hands the events to Dask: "local:2", or the address of a cluster (`modelhub.equivalence.cluster`).
    `preset` names tolerances that stand in for the rounding bound (`modelhub.equivalence.presets`), `floors` the share
    of some kind of parts that must be reached for the check to mean something (`modelhub.equivalence.coverage`).
    """
    start = perf_counter()
    pair = readings(source, target, source_format, target_format, interface, options)
    source, source_format, options = pair.source
    target, target_format = pair.target
    if data is not None:
        from modelhub.equivalence.observed import observed
    reports: list[tuple[Report, Interface | None, ir.Model]] = []
    for record, model in pair.models:
        ranges, looked_at = (None, 0) if data is None else observed(data, model)
        report = check_written(
            model,
            source=(source, source_format, options),
            target=(target, target_format, target.name),
            other=pair.theirs,
            ranges=ranges,
            seed=seed,
            preset=preset,
            progress=progress,
        )
        reports.append((report, record, model))
        if report.verdict != "different":
            break
    report, record, model = min(reports, key=lambda r: (r[0].verdict == "different", r[0].largest))
    if data is not None:
        from modelhub.equivalence.stream import Job, stream

        job = Job((source, source_format, options), (target, target_format, target.name), record, data, seed, preset)
        stream(report, job, scheduler=scheduler, progress=progress)
        report.data["observed"] = looked_at
    report.coverage = report.reach.told(floors)
    if not report.parameters:  # a change too small for any probe shows nowhere else
        _compare_parameters(report, model, target, target_format)
    report.host["seconds"] = f"{perf_counter() - start:.3f}"
    return report


@dataclass(frozen=True, eq=False)
class Readings:
    """Two files read for a comparison.

    source: path, format and reading options; target: path and format.
    models: the source with every record it may be meant with, the likelier first, and that record.
    theirs: the target.
    """

    source: tuple[Path, str, ReadOptions]
    target: tuple[Path, str]
    models: tuple[tuple[Interface | None, ir.Model], ...]
    theirs: ir.Model


def readings(
    source: str | Path,
    target: str | Path,
    source_format: str | None,
    target_format: str | None,
    interface: str | Path | Interface | None,
    options: ReadOptions,
) -> Readings:
    """Both files as graphs under common names (see `check`)."""
    source, target = Path(source), Path(target)
    source_format = source_format or plugins.detect(source)
    target_format = plugins.canonical(target_format or plugins.detect(target))
    candidates: list[Interface | None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        other = read(target, format=target_format)
        theirs = Interface.of(other)
        if interface is not None:
            candidates = [interface if isinstance(interface, Interface) else load_interface(Path(interface))]
        elif theirs.invented or not Interface.of(plugins.importer(source_format).read(source, options)).invented:
            candidates = [None]
        else:
            candidates = [theirs, theirs.unscaled()] if theirs.scaled else [theirs]
        models = [read(source, format=source_format, interface=record, options=options) for record in candidates]
        for model in models:
            narrow(model, other)
    if interface is None and candidates != [None]:
        notice(
            f"{source.name} names no variables: names and labels are taken from {target.name}, and cannot be compared "
            "(give them with --interface)"
        )
    return Readings(
        (source, source_format, options), (target, target_format), tuple(zip(candidates, models, strict=True)), other
    )


def check_written(
    model: ir.Model,
    *,
    source: tuple[Path, str, ReadOptions],
    target: tuple[Path, str, str],
    other: ir.Model | None = None,
    ranges: Interface | None = None,
    seed: int = SEED,
    preset: str = "",
    progress: Progress = iter,
) -> Report:
    """The check of a graph against the file it came from and the file it was written to.

    Args:
        model: the canonical graph, with the record in force.
        source: path, format and reading options of the file it was read from.
        target: path, format and the name to call it by of the file that was written.
        other: the target as a graph; read from the file when None.
        ranges: the record with ranges of variables that the probes are to keep to; that of `model` when None.
        seed: of the probes.
        preset: name of the tolerances; "" for the rounding bound.
        progress: wraps the iteration over probes, e.g. in a progress bar.

    """
    interface, target_format = Interface.of(model), target[1]
    if other is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            other = read(target[0], format=target_format)
    lengths = PRESETS[preset].lengths if preset else 0
    every, unasked = [], ""
    try:
        every = list(probes(model, seed, masks=knows_masks(target_format), lengths=lengths, ranges=ranges))
    except Inconclusive as error:
        unasked = str(error)
    wide = keeps(other, target_format)
    with bench(model, source, target, seed, preset, leaves=True, keeps=wide) as stand:
        stand.settle(every)
        report = stand.report(seed, interface)
        for leg in report.legs:
            leg.missing = leg.missing or unasked
        report.record = record_differences(interface, Interface.of(other))
        for probe in progress(every):
            report.take(stand.run(probe))
        wanted = [p for p in every if p.judged and not p.padded and p.length not in stand.foreign]
        report.reach.add(_reached(model, report, wanted))
        report.coverage = report.reach.told({})
    if any(leg.verdict in ("different", "suspect") for leg in report.legs):
        _compare_parameters(report, model, target[0], target_format)
    return report


def _reached(model: ir.Model, report: Report, every: list[Probe]) -> dict[str, NDArray[np.bool_]]:
    """What follows from the probes that ran: operators, lengths of sequences, defaults."""
    ran = {result.key for leg in report.legs for result in leg.results}
    operators = {node.op_type for node in model.graph}
    found = {"operators": np.full(len(operators), bool(ran))}
    lengths = sorted({probe.length for probe in every if probe.length is not None})
    if lengths:
        found["sequence lengths"] = np.array([n in {length for _, length in ran} for n in lengths])
    defaults = [f for record in Interface.of(model).inputs for f in record.features if f.default is not None]
    if defaults:
        found["defaults put in for NaN"] = np.full(len(defaults), any(name == "missing" for name, _ in ran))
    return found


def _compare_parameters(report: Report, model: ir.Model, target: Path, target_format: str) -> None:
    """Note where the target holds other numbers than writing the model anew gives."""
    places = parameter_differences(model, target, target_format)
    report.parameters, report.altered = list(places.lines), not places.rounded
