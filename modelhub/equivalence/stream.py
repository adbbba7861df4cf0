"""Real data through all engines, block by block: memory stays flat, and the result does not depend on who read what.

                      ┌► blocks 0-7   ─► bench ─► Part ─┐
events.h5 ── cut ─────┼► blocks 8-15  ─► bench ─► Part ─┼─► merged, in any order ─► the report
                      └► blocks 16-23 ─► bench ─► Part ─┘

Blocks are counted from the start of the file, so each is compared as a whole whoever gets it: one process, the workers
of a local Dask cluster, or those of one that is already there. Workers are sent paths, and open the files themselves.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from modelhub.conversion import read
from modelhub.data import Batch, DataSpec, Events, open_events
from modelhub.equivalence.bench import Bench, bench
from modelhub.equivalence.pairing import keeps, narrow
from modelhub.equivalence.probes import Probe, Progress, probes
from modelhub.equivalence.report import Outcome, Report
from modelhub.errors import Inconclusive, Notice
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions

if TYPE_CHECKING:
    from modelhub.equivalence.bounds import Shape, Usual

__all__ = ["Job", "Part", "run", "stream"]

KIND = "data"
"""The class of probes that real data are."""

SIDES = 3
"""Sides of a check, each of which gets a thread."""

QUEUE = 2
"""Batches whose answers wait to be compared."""

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """Which models on which data: all that a worker is told.

    source:    path, format and reading options of one file.
    target:    path, format and the name to call it by of the other.
    interface: the record the source is read with; None for its own.
    learned:   what rounding usually does to these data (`Bench.learned`).
    """

    source: tuple[Path, str, ReadOptions]
    target: tuple[Path, str, str]
    interface: Interface | None
    data: DataSpec
    seed: int
    preset: str = ""
    learned: Mapping[Shape, Usual] = field(default_factory=dict)


@dataclass
class Part:
    """What some of the blocks showed.

    data:     the file: its name and size.
    content:  SHA-256 of the inputs of every block, as the engines get them.
    left_out: events that were cut or not used, by reason.
    """

    report: Report
    data: str
    content: dict[int, bytes] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    def merge(self, other: Part) -> None:
        """Take in what other blocks showed. Raises `Inconclusive` if other files or engines were at work there."""
        for mine, theirs in zip(self._identity, other._identity, strict=True):
            if mine != theirs:
                raise Inconclusive(f"a worker runs {theirs}, others {mine}")
        for leg, more in zip(self.report.legs, other.report.legs, strict=True):
            leg.missing = min(filter(None, (leg.missing, more.missing)), default="")
            for result in more.results:
                leg.add(result)
        self.report.reach.add(other.report.reach.seen)
        self.report.skipped += other.report.skipped
        self.content.update(other.content)
        for reason, count in other.left_out.items():
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    @property
    def _identity(self) -> list[str]:
        """What must be the same wherever the work is done: the files, and the engines."""
        parties = [
            f"{p.role} {p.file if p.role == 'graph' else p.sha256[:12]} on {', '.join(p.engines) or 'no engine'}"
            for p in self.report.parties
        ]
        return [self.data, *parties, *(f"{name} {version}" for name, version in sorted(self.report.software.items()))]


def stream(report: Report, job: Job, *, scheduler: str = "", progress: Progress = iter) -> None:
    """Run the data of `job` through its models, and add to `report`, made by a check of the same models, what came out.

    Args:
        report: of the seeded probes.
        job: the models and the data.
        scheduler: "" for this process, "local:2" for two processes, or the address of a Dask scheduler.
        progress: wraps the loop over the parts of the file.

    """
    with _ready(job) as (stand, events):
        whole = Part(stand.report(job.seed, events.interface), _named(job.data.path))
        for batch in next(iter(events.read(0, 1))):  # the same for all who share the work
            whole.report.reach.add(stand.learn(_probe(batch)))
        events.left_out.clear()
        if scheduler:
            from modelhub.equivalence.cluster import spread

            for part in spread(_abroad(job, stand.learned), events.blocks, scheduler, progress):
                whole.merge(part)
        else:
            whole.merge(_run(job, stand, events, range(events.blocks), progress))
    Part(report, whole.data).merge(whole)
    content = hashlib.sha256(b"".join(whole.content[index] for index in range(events.blocks)))
    report.data = {
        "file": job.data.path.name,
        "events": events.count,
        "block": job.data.block,
        "content": f"sha256:{content.hexdigest()}",
        "inputs": {feed.record.name: feed.to_json() for feed in events.feeds},
        "conversions": events.conversions,
        "left_out": dict(sorted(whole.left_out.items())),
    }


def run(job: Job, first: int, last: int) -> Part:
    """Blocks `first` up to but not including `last`, on a bench of their own: what a worker does."""
    with _ready(job) as (stand, events):
        return _run(job, stand, events, range(first, last))


@contextmanager
def _ready(job: Job) -> Iterator[tuple[Bench, Events]]:
    """The engines of `job`, and its data, both open."""
    path, format, options = job.source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # told where the files were first read
        model = read(path, format=format, interface=job.interface, options=options)
        other = read(job.target[0], format=job.target[1])
        narrow(model, other)
        events = open_events(job.data, model, Interface.of(model))
        wide = keeps(other, job.target[1])
        with bench(model, job.source, job.target, job.seed, job.preset, keeps=wide) as stand:
            stand.settle(probes(model, job.seed))
            stand.learned.update(job.learned)
            yield stand, events


def _run(job: Job, stand: Bench, events: Events, blocks: range, progress: Progress = iter) -> Part:
    """Reading, the engines of the sides and comparing go on side by side, in threads of their own."""
    part = Part(stand.report(job.seed, events.interface), _named(job.data.path), left_out=events.left_out)
    coming = ahead(_hashed(events, blocks))
    with ThreadPoolExecutor(1) as clerk, ThreadPoolExecutor(SIDES) as pool:
        waiting: deque[Future[None]] = deque()
        for index in progress(blocks):
            batches, part.content[index] = next(coming)
            for batch in batches:
                waiting.append(clerk.submit(_take, part.report, batch, stand.ask(_probe(batch), pool)))
                if len(waiting) > QUEUE:
                    waiting.popleft().result()
        for future in waiting:
            future.result()
    return part


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _hashed(events: Events, blocks: range) -> Iterator[tuple[list[Batch], bytes]]:
    """The batches of each block, and the SHA-256 of their inputs."""
    for batches in events.read(blocks.start, blocks.stop):
        digest = hashlib.sha256()
        for batch in batches:
            for array in batch.arrays.values():
                digest.update(np.ascontiguousarray(array).data)
        yield batches, digest.digest()


def _probe(batch: Batch) -> Probe:
    return Probe(KIND, batch.length, batch.arrays, KIND, batch.events)


def _take(report: Report, batch: Batch, compare: Callable[[], Outcome]) -> None:
    """Add one batch to `report`; rows repeated to fill a burnt-in batch are no events."""
    outcome = compare()
    if batch.count < len(batch.events):
        counted = (None if result is None else replace(result, events=batch.count) for result in outcome.results)
        outcome = replace(outcome, results=tuple(counted))
    report.take(outcome)


def _named(path: Path) -> str:
    return f"{path.name} of {path.stat().st_size} bytes"


def _abroad(job: Job, learned: Mapping[Shape, Usual]) -> Job:
    """The job for workers that stand in another folder, with what was learned here."""
    source, source_format, options = job.source
    target, target_format, name = job.target
    if options.weights is not None:
        options = replace(options, weights=options.weights.absolute())
    return replace(
        job,
        source=(source.absolute(), source_format, options),
        target=(target.absolute(), target_format, name),
        data=replace(job.data, path=job.data.path.absolute()),
        learned=learned,
    )
