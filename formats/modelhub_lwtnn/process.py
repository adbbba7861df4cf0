"""The real lwtnn in a process of its own, asked batch by batch over pipes (`driver.cc` says how)."""

from __future__ import annotations

import signal
import struct
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from modelhub.errors import Inconclusive, safe_text
from modelhub_lwtnn.schema import Array, GraphNetwork, Network
from modelhub_lwtnn.wiring import recurrent

__all__ = ["Process"]

MEMORY = 4 << 30
"""Bytes it may take: lwtnn needs some 400 for each number of the file."""

START, EVENT = 120.0, 0.02
"""Seconds it may take: to read the file or begin a batch, and for each event."""


class Process:
    """One network in the real lwtnn. The process starts with the first batch, and anew after a crash.

    wanted: names of outputs in the file, and whether the sequence is asked for or the vector.
    """

    def __init__(self, driver: Path, network: Network, path: Path, wanted: Sequence[tuple[str, bool]]) -> None:
        self._command = [str(driver), _kind(network), str(path), str(MEMORY)]
        for name, sequence in wanted:
            self._command += ["scan" if sequence else "compute", name]
        self._sequences = [sequence for _, sequence in wanted]
        self._running: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._lock = threading.Lock()

    def __call__(self, vectors: Sequence[Array], sequences: Sequence[Array]) -> list[Array]:
        """Answers to raw inputs, as `engine.evaluate` gives them; raises `Inconclusive` where lwtnn refuses or crashes.

        vectors: [events, variables] per input of the file; sequences: [events, steps, variables].
        """
        events = len([*vectors, *sequences][0])
        head = struct.pack(f"={1 + len(sequences)}Q", events, *(x.shape[1] for x in sequences))
        batch = b"".join([head, *(np.ascontiguousarray(x, dtype=np.float64).tobytes() for x in [*vectors, *sequences])])
        with self._lock:
            return self._asked(batch, events)

    def _asked(self, batch: bytes, events: int) -> list[Array]:
        process = self._process()
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        limit = START + EVENT * events
        timer = threading.Timer(limit, stop)
        timer.start()
        try:
            assert process.stdin is not None
            process.stdin.write(batch)
            process.stdin.flush()
            return [self._answer(events, sequence=sequence) for sequence in self._sequences]
        except (OSError, EOFError):  # a closed pipe: it has ended, or is about to
            code = process.wait()
            self._running = None
            raise Inconclusive(f"lwtnn {self._last_words(code, limit if late.is_set() else None)}") from None
        finally:
            timer.cancel()

    def _process(self) -> subprocess.Popen[bytes]:
        """The process, started where it does not run."""
        if self._running is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
            self._running = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
            weakref.finalize(self, _end, self._running)
        return self._running

    def _answer(self, events: int, *, sequence: bool) -> Array:
        steps, labels = struct.unpack("=2Q", self._read(16))
        shape = (events, steps, labels) if sequence else (events, labels)
        return np.frombuffer(self._read(8 * events * steps * labels), dtype=np.float64).reshape(shape).copy()

    def _read(self, count: int) -> bytes:
        assert self._running is not None
        assert self._running.stdout is not None
        data = self._running.stdout.read(count)
        if len(data) != count:
            raise EOFError
        return data

    def _last_words(self, code: int, limit: float | None) -> str:
        if limit is not None:
            return f"gave no answer within {limit:.0f} s and was stopped"
        assert self._errors is not None
        self._errors.seek(0)
        words = self._errors.read(10_000).decode("utf-8", "replace").strip().splitlines()
        told = f": {safe_text(words[0], 300)}" if words else ""
        return f"crashed ({signal.Signals(-code).name}){told}" if code < 0 else f"refuses{told}"


def _kind(network: Network) -> str:
    """The class of lwtnn that reads `network`: a sequential file is for vectors (nn) or for sequences (rnn)."""
    if isinstance(network, GraphNetwork):
        return "graph"
    return "rnn" if any(recurrent(layer) for layer in network.layers) else "nn"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process with the engine it belongs to: a closed pipe tells it to go."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    if process.poll() is None:
        process.kill()
    process.wait()
