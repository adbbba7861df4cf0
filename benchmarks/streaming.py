"""How long a check over real data takes beside its engines alone, and how much memory it needs.

    python benchmarks/streaming.py [--events 1000000] [--net dl1|two_inputs] [--scheduler local:2]

Makes an ONNX file and an lwtnn file of one of the shipped networks, and event files in HDF5 (as ATLAS's H5Utils lays
them out, compressed) and ROOT (a TTree). Every measurement is a process of its own; memory is its VmHWM. The engines'
own time is that of the calls into onnxruntime (source, graph in float32 and float64) and the lwtnn evaluator (target)
on the same batches, already in memory. "CPU" is the ratio of CPU times, stream over engines, which a busy machine
changes less; with a scheduler it counts this process only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent.parent / "fixtures" / "torch"
PIECE = 50_000
MOST = 20


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--net", choices=["dl1", "two_inputs"], action="append")
    parser.add_argument("--scheduler", default="local:2", help="also run with this; empty: do not")
    parser.add_argument("--only", choices=["h5", "root"])
    parser.add_argument("--own", nargs=3, metavar=("SOURCE", "TARGET", "DATA"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.own:
        print(json.dumps(_own(*map(Path, given.own))))
        return
    columns = {"events": 9, "engines": 9, "stream": 9, "ratio": 7, "CPU": 7, "check": 9, "wall": 7, "memory": 9}
    print(" " * 26 + "".join(f"{name:>{width}}" for name, width in columns.items()) + "  digest")
    for net in given.net or ["dl1", "two_inputs"]:
        with tempfile.TemporaryDirectory(prefix="modelhub-bench-") as folder:
            _net(net, Path(folder), given)


def _net(net: str, folder: Path, given: argparse.Namespace) -> None:
    source, target = _models(net, folder)
    for kind, data in _files(folder, given.events).items():
        if given.only and kind != given.only:
            continue
        own = json.loads(_child([__file__, "--own", source, target, data])[0])
        engines, own_cpu = (sum(column) for column in zip(*own.values(), strict=True))
        for scheduler in ("", given.scheduler) if given.scheduler else ("",):
            started = time.perf_counter()
            extra = ["--scheduler", scheduler] if scheduler else []
            report = folder / "report.json"
            arguments = ["check", source, target, "--data", data, *extra, "--report", report]
            errors = _child(["-c", MEASURE, *arguments])[1]
            wall = time.perf_counter() - started
            found = json.loads(report.read_text())
            memory = int(re.findall(r"VmHWM (\d+)", errors)[-1]) / 1024
            seconds, cpu = map(float, re.findall(r"stream (\S+) (\S+)", errors)[-1])
            print(
                f"{net + ' ' + kind + ' ' + scheduler:26}{found['data']['events']:9}{engines:8.1f}s"
                f"{seconds:8.1f}s{seconds / engines:7.2f}{cpu / own_cpu:7.2f}{wall:8.1f}s{wall / engines:7.2f}"
                f"{memory:6.0f} MB  {found['digest'][7:19]} {found['verdict']}",
                flush=True,
            )
        print("    " + ", ".join(f"{name} {wall:.1f} s" for name, (wall, _) in own.items()), flush=True)
        print(f"    engines, CPU: {own_cpu:.1f} s; load of the machine: {os.getloadavg()[0]:.1f}", flush=True)


MEASURE = """
import atexit, sys, time
from modelhub.cli import main
from modelhub.equivalence import stream as room
whole = room.stream
def timed(*args, **kwargs):
    started = time.perf_counter(), time.process_time()
    whole(*args, **kwargs)
    print('stream', time.perf_counter() - started[0], time.process_time() - started[1], file=sys.stderr)
def peak():
    print('VmHWM', next(line for line in open('/proc/self/status') if 'VmHWM' in line).split()[1], file=sys.stderr)
room.stream = timed
atexit.register(peak)
main()
"""
"""The command line, with a clock on the streaming and a look at the memory behind it."""


def _child(arguments: list[object]) -> tuple[str, str]:
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=dict(os.environ))
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout, done.stderr


def _models(net: str, folder: Path) -> tuple[Path, Path]:
    """The network as ONNX and as lwtnn JSON."""
    import modelhub

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        variables = FIXTURES / net / "variables.json"
        model = modelhub.read(FIXTURES / net / "net.pt2", interface=variables if variables.exists() else None)
        paths = folder / "net.onnx", folder / "net.json"
        for path in paths:
            modelhub.write(model, path)
    return paths


def _files(folder: Path, events: int) -> dict[str, Path]:
    """The same events in HDF5 and ROOT, written piece by piece."""
    import awkward as ak
    import h5py
    import uproot

    import modelhub
    from modelhub.graph.interface import Interface

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = Interface.of(modelhub.read(folder / "net.onnx"))
    rng = np.random.default_rng(1)
    jet = next(r for r in record.inputs if not r.sequence)
    tracks = next((r for r in record.inputs if r.sequence), None)
    jets_type = np.dtype([(f.name, "f4") for f in jet.features] + [("flavour", "i4"), ("weight", "f4")])
    track_type = np.dtype([(f.name, "f4") for f in tracks.features] + [("valid", "?")]) if tracks else None
    paths = {"h5": folder / "events.h5", "root": folder / "events.root"}
    with h5py.File(paths["h5"], "w") as h5, uproot.recreate(paths["root"]) as root:
        options = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        h5_jets = h5.create_dataset("jets", (events,), jets_type, chunks=(2048,), **options)
        kinds = {name: jets_type[name] for name in jets_type.names or ()}
        if tracks:
            h5_tracks = h5.create_dataset("tracks", (events, MOST), track_type, chunks=(512, MOST), **options)
            kinds |= {f.name: "var * float32" for f in tracks.features}
        tree = root.mktree("events", kinds)
        for first in range(0, events, PIECE):
            count = min(PIECE, events - first)
            rows = np.zeros(count, jets_type)
            for f in jet.features:
                rows[f.name] = rng.standard_normal(count) / f.scale - f.offset
                if f.default is not None:
                    rows[f.name][rng.random(count) < 0.1] = np.nan
            rows["flavour"] = rng.integers(0, 3, count)
            h5_jets[first : first + count] = rows
            columns = {name: rows[name] for name in jets_type.names or ()}
            if tracks:
                counts = rng.poisson(5, count).clip(1, MOST)
                padded = np.zeros((count, MOST), track_type)
                padded["valid"] = np.arange(MOST) < counts[:, np.newaxis]
                for f in tracks.features:
                    padded[f.name] = rng.standard_normal(padded.shape) * padded["valid"]
                    columns[f.name] = ak.unflatten(padded[f.name][padded["valid"]], counts)
                h5_tracks[first : first + count] = padded
            tree.extend(columns)
    return paths


def _own(source: Path, target: Path, data: Path) -> dict[str, list[float]]:
    """Wall and CPU seconds in each engine, on the batches of the check."""
    from modelhub.conversion import read
    from modelhub.data import DataSpec, open_events
    from modelhub.equivalence.bench import bench
    from modelhub.equivalence.probes import probes
    from modelhub.graph.interface import Interface
    from modelhub.protocols import ReadOptions

    model = read(source)
    events = open_events(DataSpec(data), model, Interface.of(model))
    spent: dict[str, list[float]] = {}
    with bench(model, (source, "onnx", ReadOptions()), (target, "lwtnn", target.name), 1) as stand:
        stand.settle(probes(model, 1))
        for batches in events.read():
            for batch in batches:
                for side in stand.sides:
                    for precision, engine in side.engines.items():
                        started = time.perf_counter(), time.process_time()
                        engine(batch.arrays)
                        took = time.perf_counter() - started[0], time.process_time() - started[1]
                        before = spent.setdefault(f"{side.party.role} ({engine.name} {precision})", [0.0, 0.0])
                        before[:] = [before[0] + took[0], before[1] + took[1]]
    return spent


if __name__ == "__main__":
    main()
