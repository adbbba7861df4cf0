"""The checks of versions that are published, run again as they were: same files, same record, same seed and tolerances.

A report names the file of real events it was made with, and the SHA-256 of what was read of it; the registry does not
hold that file. Where the user gives it, its events are run again too, and they must be the same.

What is worth it is a new engine: "which of the 400 models change when we move to the next onnxruntime?"
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelhub.errors import Inconclusive, ModelhubError, RegistryError, UnreadableFile
from modelhub.files import parse_json
from modelhub_registry import names
from modelhub_registry.evidence import LIMIT
from modelhub_registry.gate import Gate
from modelhub_registry.records import Evidence, Version

if TYPE_CHECKING:
    from modelhub.data import DataSpec
    from modelhub.graph.interface import Interface
    from modelhub.protocols import ReadOptions

__all__ = ["Again", "Reverifying"]


@dataclass(frozen=True)
class Again:
    """A check that was run again: the version, the role of its target, the verdicts then and now, and what changed.

    `attached` tells whether the new report counts for the version from now on. One without the real events that the
    first check had would count for less, and is not attached.
    """

    ref: str
    target: str
    then: str
    now: str
    changes: tuple[str, ...]
    attached: bool


class Reverifying(Gate):
    """The verb that checks again."""

    def reverify(
        self, question: str | None = None, *, attach: bool = False, data: Iterable[str | os.PathLike[str]] = ()
    ) -> Iterator[Again]:
        """Run the checks of all versions again, or of those a question is true of, one after the other.

        Needs the engines of the formats installed; a check that cannot run says so and is inconclusive. With `attach`
        the new reports count from now on, also for how old the evidence is. `data` are files of real events, or folders
        with them, for the checks that were made with such a file.
        """
        import tempfile

        self._require()
        places = tuple(map(names.path, data))
        found = self.list() if question is None else self.search(question)
        for summary in found:
            version = self.version(summary.ref)
            with tempfile.TemporaryDirectory(prefix="modelhub-") as name:
                for report in version.judged.reports:
                    yield self._again(version, report, Path(name), attach, places)

    def _again(
        self, version: Version, report: Evidence, folder: Path, attach: bool, places: Sequence[Path] = ()
    ) -> Again:
        from modelhub.equivalence.check import check
        from modelhub.reports.view import View

        artifacts = {a.sha256: a for a in version.manifest.artifacts}
        source, target = artifacts[report.covers["source"]], artifacts[report.covers["target"]]
        name = version.judged.report_name(report)
        stored = parse_json(self._blobs.get(report.sha256, LIMIT), name)
        try:
            View(stored, name)  # refuses what is no report
            paths = {
                a.sha256: self._fetched(folder / a.role.replace(":", "-"), a.sha256, a.filename)
                for a in (source, target)
            }
            options = self._options(version, report, folder)
            try:
                events = _events(stored, places)
            except (KeyError, TypeError, AttributeError) as error:
                raise UnreadableFile(f"{name}: not a report of modelhub: {type(error).__name__} {error}") from None
            fresh = check(
                paths[source.sha256],
                paths[target.sha256],
                source_format=source.format,
                target_format=target.format,
                interface=_record(stored, paths[source.sha256], source.format, options),
                options=options,
                seed=stored["seed"],
                data=events,
                preset=stored.get("preset") or "",
                floors={c["what"]: c["floor"] for c in stored.get("coverage", ()) if isinstance(c, dict)},
            )
            if events is not None and fresh.data["content"] != stored["data"]["content"]:
                was, now = stored["data"]["content"][:23], fresh.data["content"][:23]
                raise Inconclusive(f"{events.path} holds other events than the first check had: {now}…, not {was}…")
        except RegistryError:
            raise
        except ModelhubError as error:
            why = f"it cannot be run: {error}"
            return Again(version.ref, target.role, report.verdict, "inconclusive", (why,), False)
        told = fresh.to_json()
        changes = list(_changes(stored, told))
        if lacking := stored.get("data") if events is None else None:
            changes.append(
                f"the {lacking['events']:,} events of {lacking['file']} were not run again, only the seeded probes: "
                "give that file with --data" + ("; so the new report is not attached" if attach else "")
            )
            attach = False
        if attach:
            path = folder / "report.json"
            path.write_text(fresh.dumps(), encoding="utf-8")
            self.attach(version.ref, [path])
        return Again(version.ref, target.role, report.verdict, fresh.verdict, tuple(changes), attach)

    def _fetched(self, folder: Path, sha256: str, filename: str) -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / filename
        if not path.exists():
            self._blobs.save(sha256, path)
        return path

    def _options(self, version: Version, report: Evidence, folder: Path) -> ReadOptions:
        from modelhub.protocols import ReadOptions

        if "weights" not in report.covers:
            return ReadOptions()
        weights = next(a for a in version.manifest.artifacts if a.sha256 == report.covers["weights"])
        return ReadOptions(weights=self._fetched(folder / "weights", weights.sha256, weights.filename))


def _record(stored: dict[str, Any], source: Path, form: str, options: ReadOptions) -> Interface | None:
    """The record the check was made with, where the source itself names nothing."""
    from modelhub import plugins
    from modelhub.graph.interface import Interface

    if not stored.get("interface") or not Interface.of(plugins.importer(form).read(source, options)).invented:
        return None
    return Interface.from_json(stored["interface"], "the report's interface record")


def _events(stored: dict[str, Any], places: Sequence[Path]) -> DataSpec | None:
    """The real events of a report as they were read then, None where it has none or their file is not at hand."""
    from modelhub.data import DataSpec

    data = stored.get("data")
    if not data:
        return None
    paths = (place / data["file"] if place.is_dir() else place for place in places)
    path = next((path for path in paths if path.name == data["file"] and path.is_file()), None)
    if path is None:
        return None
    feeds = data["inputs"].items()
    return DataSpec(
        path,
        chosen={given: feed["table"] for given, feed in feeds},
        columns={f"{given}/{v}": column for given, feed in feeds for v, column in feed.get("columns", {}).items()},
        events=data["events"],
        block=data["block"],
    )


def _changes(then: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Engines and verdicts that are no longer what they were."""
    before, after = then.get("software") or {}, now.get("software") or {}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
    legs, others = _legs(then), _legs(now)
    for leg in sorted(legs.keys() | others.keys()):
        if legs.get(leg) != others.get(leg):
            yield f"{leg}: {legs.get(leg, 'not run')} -> {others.get(leg, 'not run')}"


def _legs(report: dict[str, Any]) -> dict[str, str]:
    """Verdicts by leg; of legs of one title, in their order."""
    found: dict[str, list[str]] = {}
    for leg in report.get("legs", ()):
        title = " ".join((*leg["between"], leg["precision"], leg.get("engine", ""))).strip()
        found.setdefault(title, []).append(leg["verdict"])
    return {title: ", ".join(verdicts) for title, verdicts in found.items()}
