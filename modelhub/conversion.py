"""Read, write, and the whole trip: read -> canonical -> write -> check -> keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelhub import plugins
from modelhub.errors import Different, Inconclusive, UsageError, notice
from modelhub.files import atomic_write, parse_json, read_bytes
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions, WriteOptions

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelhub.equivalence.probes import Progress
    from modelhub.equivalence.report import Report

__all__ = ["convert", "load_interface", "read", "write"]


def read(
    path: str | Path,
    *,
    format: str | None = None,
    interface: str | Path | Interface | None = None,
    options: ReadOptions = ReadOptions(),
) -> ir.Model:
    """The model in `path` as a canonical graph that carries an interface record.

    Args:
        path: the file.
        format: name of the importer; None asks every importer whether it recognises the file.
        interface: names, scales and labels to attach: our record or an lwtnn variables file (path or object).
        options: the second file, or trust.

    """
    from modelhub.graph.canonical import canonical
    from modelhub.graph.naming import attach

    path = Path(path)
    importer = plugins.importer(format or plugins.detect(path))
    model = importer.read(path, options)
    model.graph.name = path.name  # what refusals and the written file call the model
    if interface is not None:
        attach(model, interface if isinstance(interface, Interface) else load_interface(Path(interface)))
    elif (record := Interface.of(model)).invented:
        record.store(model)
        notice(f"{path.name} names no variables; they are called {_example(record)} (give names with --interface)")
    return canonical(model)


def _example(record: Interface) -> str:
    names = [feature.name for entry in record.inputs for feature in entry.features]
    return ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]}"


def load_interface(path: Path) -> Interface:
    """The interface record in a file: our own JSON, or an lwtnn variables file as it is."""
    return Interface.from_json(parse_json(read_bytes(path), str(path)), str(path))


def write(
    model: ir.Model,
    path: str | Path,
    *,
    format: str | None = None,
    options: WriteOptions = WriteOptions(),
) -> None:
    """Write a graph that `read` gave; the suffix of `path` says the format where `format` does not.

    The exporter works on a copy. Nothing is left behind when it refuses.
    """
    path = Path(path)
    plugins.exporter(format or plugins.format_of_suffix(path)).write(model.clone(), path, options)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    source_format: str | None = None,
    target_format: str | None = None,
    interface: str | Path | Interface | None = None,
    read_options: ReadOptions = ReadOptions(),
    write_options: WriteOptions = WriteOptions(),
    check: bool = True,
    require_check: bool = False,
    progress: Progress = iter,
) -> Report | None:
    """Convert `source` into `target` and prove it: the report of the check, None without one.

    Raises `Different` when the check finds a difference; then nothing is written. When the check could not be
    completed (the source's own engine is not installed) the file is written and the report says so, unless
    `require_check`: then `Inconclusive` is raised and nothing is written. `progress` wraps the loop over probes.
    """
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError(f"{target}: source and target are the same file")
    source_format = source_format or plugins.detect(source)
    target_format = target_format or plugins.format_of_suffix(target)
    exporter = plugins.exporter(target_format)
    model = read(source, format=source_format, interface=interface, options=read_options)
    with atomic_write(target) as temporary:
        exporter.write(model.clone(), temporary, write_options)
        if not check:
            return None
        from modelhub.equivalence.check import check_written

        report = check_written(
            model,
            source=(source, source_format, read_options),
            target=(temporary, plugins.canonical(target_format), target.name),
            progress=progress,
        )
        if report.verdict == "different":
            raise Different(f"{target.name} does not compute what {source.name} computes; nothing was written", report)
        if report.verdict == "inconclusive" and require_check:
            raise Inconclusive(f"the check is incomplete: {'; '.join(report.missing)}; nothing was written")
    return report
