"""The blocks of an event file spread over Dask workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from modelhub.equivalence.probes import Progress
from modelhub.equivalence.stream import Job, Part, run
from modelhub.errors import Inconclusive, ModelhubError, UsageError, safe_text

__all__ = ["spread"]

SHARES = 4
"""Pieces of work per worker: enough that none waits long for the last."""

MOST = 64
"""The most blocks in one piece of work."""

PATIENCE = 30.0
"""Seconds to wait for a scheduler, and for a first worker."""


def spread(job: Job, blocks: int, scheduler: str, progress: Progress) -> Iterator[Part]:
    """Every part of the file as it gets done, in any order.

    Args:
        job: sent to the workers; its paths must mean the same files there.
        blocks: how many blocks the file is cut into.
        scheduler: "local:N" for N processes on this machine, else the address of a Dask scheduler.
        progress: wraps the loop over pieces of work.

    """
    try:
        from distributed import as_completed
    except ImportError:
        raise UsageError('--scheduler needs Dask: pip install "modelhub-hep[dask]"') from None
    with ExitStack() as stack:
        client = _client(scheduler, stack)
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise UsageError(f"the cluster at {safe_text(scheduler)} has no workers") from None
        workers = max(len(client.nthreads()), 1)
        size = min(max(-(-blocks // (SHARES * workers)), 1), MOST)
        starts = range(0, blocks, size)
        futures = [client.submit(run, job, at, min(at + size, blocks), pure=False) for at in starts]
        done = as_completed(futures)
        for _ in progress(starts):
            try:
                part: Part = next(done).result()
            except ModelhubError:
                raise
            except Exception as error:  # a worker that died, or has another modelhub
                raise Inconclusive(f"a worker failed: {type(error).__name__}: {safe_text(error, 160)}") from None
            yield part


def _client(scheduler: str, stack: ExitStack) -> Any:
    """A client of the cluster that is there, or of one started for this check; `stack` closes both."""
    from distributed import Client, LocalCluster

    kind, _, count = scheduler.partition(":")
    if kind == "local":
        if not count.isdecimal() or not int(count):
            raise UsageError(f"--scheduler local:N takes a number of processes, not {safe_text(count)!r}")
        cluster: Any = stack.enter_context(
            LocalCluster(n_workers=int(count), threads_per_worker=1, processes=True, dashboard_address=None)
        )
        return stack.enter_context(Client(cluster))
    try:
        return stack.enter_context(Client(scheduler, timeout=PATIENCE))
    except (OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {safe_text(scheduler)}: {safe_text(error, 120)}") from None
