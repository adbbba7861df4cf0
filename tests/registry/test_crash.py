"""Many publishers at once, also the very first; and publishers that die at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelhub_registry import Registry
from modelhub_registry.stores import NEWBORN

PUBLISHER = """
import json, pathlib, sys, time
from modelhub_registry import Registry
root, ident, each, go = sys.argv[1:]
path = pathlib.Path(root).parent / f"net-{ident}.bin"
while not pathlib.Path(go).exists():
    time.sleep(0.005)
done = []
registry = Registry(root)
for k in range(int(each)):
    path.write_text(f"weights {ident} {k}")
    done.append(registry.push("btag", [path], metadata={"by": ident}).number)
    if k == 0:
        registry.alias(f"btag@{done[0]}", f"of-{ident}")
print(json.dumps(done))
"""


@pytest.mark.parametrize("each", [10, pytest.param(50, marks=pytest.mark.heavy)])
def test_eight_first_publishers(tmp_path: Path, each: int) -> None:
    """Into a registry that nobody made before: all acknowledged, all stored, all numbers distinct."""
    root, go = tmp_path / "registry", tmp_path / "go"
    command = [sys.executable, "-c", PUBLISHER, str(root)]
    started = [
        subprocess.Popen(
            [*command, str(i), str(each), str(go)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for i in range(8)
    ]
    time.sleep(1.5)  # all stand at the line
    go.touch()
    ended = [process.communicate(timeout=300) for process in started]
    assert [error for _, error in ended] == [""] * 8
    acknowledged = [number for out, _ in ended for number in json.loads(out)]
    assert sorted(acknowledged) == list(range(1, 8 * each + 1))
    with Registry(root) as registry:
        assert [s.number for s in registry.list("btag")] == list(range(1, 8 * each + 1))
        for ident, (out, _) in enumerate(ended):
            for number in json.loads(out):
                assert registry.version(f"btag@{number}").manifest.metadata == {"by": str(ident)}
            assert registry.aliases("btag")[f"of-{ident}"] == json.loads(out)[0]
        assert registry.verify() == []


def test_threads_share_a_registry(registry: Registry, tmp_path: Path) -> None:
    def publish(k: int) -> int:
        path = tmp_path / f"net-{k}.bin"
        path.write_text(f"weights {k}")
        return registry.push("btag", [path]).number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(publish, range(24))) == list(range(1, 25))
    assert registry.verify() == []


def test_a_registry_goes_through_a_fork(registry: Registry, files) -> None:
    registry.push("btag", files(a_bin="parent"))
    child = files("child", a_bin="child")
    inherited = registry._database._idle[0]

    def publish() -> None:
        registry.push("btag", child)
        assert inherited not in registry._database._idle  # SQLite forbids to carry a connection through a fork

    assert in_child(publish) == 0
    assert registry.push("btag", files("after", a_bin="after")).number == 3
    assert registry.verify() == []


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; its exit status."""
    process = os.fork()
    if process == 0:
        status = 99
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def die_at(count: int) -> None:
    """End this process, without a word, at its `count`-th fsync or rename: before it takes place."""
    left = [count]

    def watched(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    os.fsync = watched(os.fsync)  # type: ignore[assignment]
    os.replace = watched(os.replace)  # type: ignore[assignment]


def check_after_crash(registry: Registry, before: list[str]) -> None:
    """Nothing acknowledged is lost, nothing is torn, the next publish gets a number of its own, gc leaves all sound."""
    with registry:
        there = [s.ref for s in registry.list()]
        assert there[: len(before)] == before
        for ref in there:
            assert registry.verify(ref) == []
        # All that may be left over is an entry of the log that the index does not know yet.
        if (registry.root / "registry.json").exists():
            assert all("entries, the index" in finding.what for finding in registry.verify())
        path = registry.root.parent / "next.bin"
        path.write_text("next")
        number = registry.push("btag", [path]).number
        there = [s.ref for s in registry.list()]
        assert there == [f"btag@{n}" for n in range(1, number + 1)]
        assert registry.verify() == []
        registry.gc()
        assert registry.fsck() == []
        assert [s.ref for s in registry.list()] == there


def test_death_at_every_sync_and_rename(tmp_path: Path, files) -> None:
    """Also while the registry is being made: settings, index, blobs, manifest, log."""
    for known in (False, True):
        for count in range(1, 100):
            root = tmp_path / f"registry-{known}-{count}"
            before = []
            if known:
                with Registry(root) as registry:
                    before = [registry.push("btag", files(a_bin="0")).ref]
            source = files("child", b_bin="weights")

            def publish(root: Path = root, count: int = count, source: list[Path] = source) -> None:
                die_at(count)
                Registry(root).push("btag", source)

            status = in_child(publish)
            check_after_crash(Registry(root), before)
            if status == 0:
                break
            assert status == 9
        assert count > 5  # it did die somewhere


def test_death_at_every_sync_and_rename_of_other_writes(tmp_path: Path, files, report) -> None:
    """Moving an alias, removing it, attaching a report, gc, reindex: before or after, never between."""
    source, exported = files(net_pt="weights", net_json="{}")
    told = report(source, exported)
    writes: dict[str, Callable[[Registry], object]] = {
        "alias": lambda r: r.alias("btag@1", "best"),
        "unalias": lambda r: r.unalias("btag", "first"),
        "attach": lambda r: r.attach("btag@1", [told]),
        "gc": lambda r: r.gc(),
        "reindex": lambda r: r.reindex(),
        "fsck": lambda r: r.fsck(mend=True),
    }
    for name, write in writes.items():
        for count in range(1, 100):
            root = tmp_path / f"{name}-{count}"
            with Registry(root) as registry:
                registry.push("btag", [source, exported])
                registry.alias("btag@1", "first")

            def work(root: Path = root, count: int = count, write: Callable[[Registry], object] = write) -> None:
                die_at(count)
                write(Registry(root))

            status = in_child(work)
            check_after_crash(Registry(root), ["btag@1"])
            with Registry(root) as registry:
                assert registry.aliases("btag") in ({"first": 1}, {"first": 1, "best": 1}, {})
                assert registry.version("btag@1").verdict in ("unchecked", "equivalent")
            if status == 0:
                break
            assert status == 9


def test_death_between_log_and_index(registry: Registry, files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry is in the log, so the version is there: the next writer adopts it, with its number and its alias."""
    from modelhub_registry import index

    registry.push("btag", files(a_bin="0"))
    registry.close()
    source = files("child", b_bin="weights")

    def die(*args: object) -> None:
        os._exit(9)

    def publish() -> None:
        index.apply = die
        registry.push("btag", source)

    def point() -> None:
        index.apply = die
        registry.alias("btag@1", "best")

    assert in_child(publish) == 9
    assert registry.version("btag").number == 1
    assert registry.push("btag", source).ref == "btag@2"  # the same content: adopted, not doubled
    registry.close()
    assert in_child(point) == 9
    assert registry.aliases("btag") == {}
    assert registry.push("btag", files("next", b_bin="next")).ref == "btag@3"
    assert registry.aliases("btag") == {"best": 1}
    assert registry.verify() == []


KILLED = """
import os, pathlib, sys
from modelhub_registry import Registry
root = sys.argv[1]
registry = Registry(root)
path = pathlib.Path(root).parent / f"net-{os.getpid()}.bin"
print("ready", flush=True)
k = 0
while True:
    k += 1
    path.write_bytes(f"{os.getpid()} {k}".encode() * 100_000)
    print(registry.push("btag", [path]).number, flush=True)
"""


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.heavy)])
def test_kill_in_mid_publish(tmp_path: Path, kills: int) -> None:
    root = tmp_path / "registry"
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    acknowledged: list[int] = []
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.01, 0.3))
        process.send_signal(signal.SIGKILL)
        acknowledged += map(int, process.stdout.read().split())
        process.wait()
    assert len(set(acknowledged)) == len(acknowledged), seed
    with Registry(root) as registry:
        numbers = {s.number for s in registry.list()}
        assert set(acknowledged) <= numbers, seed
        assert registry.reindex() == []
        assert registry.verify() == [], seed
        assert {s.number for s in registry.list()} >= numbers
        time.sleep(NEWBORN)  # so young a file may be one that a publisher is about to lock
        registry.gc()
        assert registry.fsck() == [], seed
        assert set(acknowledged) <= {s.number for s in registry.list()}, seed
