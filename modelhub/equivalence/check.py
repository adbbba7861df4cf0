"""The check: three parties, each in its own engine, compared pair by pair on every probe.

A leg that could not run makes the verdict inconclusive, never passed.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelhub import __version__, plugins
from modelhub.conversion import load_interface, read
from modelhub.equivalence.compare import compare, noise_of, tolerance
from modelhub.equivalence.parties import Side, graph_side, load_side
from modelhub.equivalence.probes import Probe, Progress, probes
from modelhub.equivalence.report import Leg, ProbeResult, Report
from modelhub.equivalence.where import parameter_differences, record_differences
from modelhub.errors import Inconclusive, Notice
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.protocols import Arrays

__all__ = ["SEED", "check", "check_written"]

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
    progress: Progress = iter,
) -> Report:
    """Compare two model files of any formats.

    Names and scaling come from `interface`; without one, a source that names nothing (a torch or Keras file) takes
    them from the target. Whether offsets and scales found there were given to the source or taken out of its network
    cannot be seen in the files: then both are tried, and the one that fits is reported.
    """
    source, target = Path(source), Path(target)
    source_format = source_format or plugins.detect(source)
    target_format = plugins.canonical(target_format or plugins.detect(target))
    candidates: list[Interface | None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        theirs = Interface.of(read(target, format=target_format))
        if interface is not None:
            candidates = [interface if isinstance(interface, Interface) else load_interface(Path(interface))]
        elif theirs.invented or not Interface.of(plugins.importer(source_format).read(source, options)).invented:
            candidates = [None]
        else:
            candidates = [theirs, theirs.unscaled()] if theirs.scaled else [theirs]
        models = [read(source, format=source_format, interface=record, options=options) for record in candidates]
    reports = []
    for model in models:
        report = check_written(
            model,
            source=(source, source_format, options),
            target=(target, target_format, target.name),
            theirs=theirs,
            seed=seed,
            progress=progress,
        )
        reports.append(report)
        if report.verdict != "different":
            break
    return min(reports, key=lambda r: (r.verdict == "different", r.largest))


def check_written(
    model: ir.Model,
    *,
    source: tuple[Path, str, ReadOptions],
    target: tuple[Path, str, str],
    theirs: Interface | None = None,
    seed: int = SEED,
    progress: Progress = iter,
) -> Report:
    """The check of a graph against the file it came from and the file it was written to.

    Args:
        model: the canonical graph, with the record in force.
        source: path, format and reading options of the file it was read from.
        target: path, format and the name to call it by of the file that was written.
        theirs: the record of the target; read from the file when None.
        seed: of the probes.
        progress: wraps the iteration over probes, e.g. in a progress bar.

    """
    interface = Interface.of(model)
    source_path, source_format, options = source
    target_path, target_format, target_name = target
    if theirs is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)
            theirs = Interface.of(read(target_path, format=target_format))
    with tempfile.TemporaryDirectory(prefix="modelhub-") as folder:
        sides = [
            load_side("source", source_path, source_format, interface, options),
            graph_side(model, interface, Path(folder)),
            load_side("target", target_path, target_format, interface, ReadOptions(), target_name),
        ]
        report = Report(
            [s.party for s in sides], [], seed, interface.to_json(), record=record_differences(interface, theirs)
        )
        report.software = {"modelhub": __version__, "numpy": np.__version__}
        _run(report, sides, list(probes(model, seed, masks=_knows_masks(target_format))), progress)
    if any(leg.verdict == "different" for leg in report.legs):
        report.parameters = parameter_differences(model, target_path, target_format)
    return report


def _knows_masks(target_format: str) -> bool:
    names = plugins.names(plugins.EXPORTERS)
    return target_format not in names or plugins.exporter(target_format).masks


@dataclass
class _Pair:
    """Two sides, the precision each is taken at, and the leg their comparison is noted on."""

    a: Side
    b: Side
    low: str
    high: str
    leg: Leg


def _run(report: Report, sides: list[Side], every: list[Probe], progress: Progress) -> None:
    """Run every probe on every side and fill in the report's legs."""
    first = next(probe for probe in every if probe.length != 0)
    for side in sides:
        side.settle(first.arrays)
    pairs = [pair for a, b in combinations(sides, 2) for pair in _pairs(a, b)]
    report.legs = [pair.leg for pair in pairs]
    if not any(side.engines for side in sides):
        return
    for probe in progress(every):
        report.coverage += [probe.coverage] if probe.coverage else []
        try:
            # Not every engine has a meaning for an empty sequence.
            answers = {side.party.role: side.run(probe.arrays, lenient=probe.length == 0) for side in sides}
        except Inconclusive as error:
            if probe.length == 0:
                report.skipped.append(f"{probe.name} at length 0: {error}")
            else:
                for pair in pairs:
                    pair.leg.missing = pair.leg.missing or str(error)
            continue
        noise = _noise(sides, answers, probe)
        for pair in pairs:
            left, right = answers[pair.a.party.role].get(pair.high), answers[pair.b.party.role].get(pair.low)
            if not pair.leg.missing and left is not None and right is not None:
                pair.leg.results.append(_compared(probe, left, right, noise, pair.leg.precision))


def _pairs(a: Side, b: Side) -> list[_Pair]:
    """The best of `a` against every precision of `b`; the coarser of the two decides the tolerance."""
    roles = (a.party.role, b.party.role)
    if a.best is None or b.best is None:
        return [_Pair(a, b, "", "", Leg(roles, "float32", missing=a.party.missing or b.party.missing))]
    return [
        _Pair(a, b, precision, a.best, Leg(roles, "float32" if "float32" in (precision, a.best) else "float64"))
        for precision in b.engines
    ]


def _compared(probe: Probe, a: Arrays, b: Arrays, noise: Arrays, precision: str) -> ProbeResult:
    """The output that is worst against its tolerance."""
    differences = [compare(name, a[name], b[name], tolerance(a[name], noise[name], precision)) for name in a]
    worst = max(differences, key=lambda d: d.largest / max(d.tolerance, 5e-324))
    return ProbeResult(probe.name, probe.length, len(next(iter(probe.arrays.values()))), worst)


def _noise(sides: list[Side], answers: dict[str, dict[str, Arrays]], probe: Probe) -> dict[str, Any]:
    """The rounding noise of float32 per output: float32 against float64 in the graph's engine, or the source's.

    Where no engine runs in both, the answer to inputs moved by a rounding's worth stands in for it.
    """
    for role in ("graph", "source"):
        answer = answers[role]
        if len(answer) == 2:
            return {name: noise_of(answer["float32"][name], answer["float64"][name]) for name in answer["float64"]}
    side = next(side for side in sides if answers[side.party.role])
    precision = next(iter(answers[side.party.role]))
    rng = np.random.default_rng(0)
    moved = {
        name: (x * (1 + rng.choice([-1, 1], x.shape) * 2.0**-23)).astype(x.dtype)
        if np.issubdtype(x.dtype, np.floating)
        else x
        for name, x in probe.arrays.items()
    }
    before, after = answers[side.party.role][precision], side.engines[precision](moved)
    return {name: noise_of(after[name], before[name]) for name in before}
