"""The real lwtnn on this machine: where it is, which version, and `driver.cc` compiled against it.

The driver is compiled when it is first needed, into ``$XDG_CACHE_HOME/modelhub/lwtnn/<key>/driver``; the key changes
with the driver, the library and the compiler.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from modelhub.errors import Inconclusive, safe_text

__all__ = ["Library", "driver", "find", "mentioned"]

HEADER = "include/lwtnn/LightweightGraph.hh"
LIBRARIES = ("lib/liblwtnn.so", "lib64/liblwtnn.so", "lib/liblwtnn.dylib", "lib/liblwtnn-stat.a", "lib/liblwtnn.a")
FLAGS = ("-O2", "-std=c++17")
PATIENCE = 300
"""Seconds that the compiler may take; it needs about ten."""


@dataclass(frozen=True)
class Library:
    """An installed lwtnn: its prefix, its library file, and its version as far as its files tell it."""

    prefix: Path
    file: Path
    version: str


def mentioned() -> Path | None:
    """The prefix that the user names: ``LWTNN_PREFIX``, else that of ``lwtnn-config`` on the path."""
    named = os.environ.get("LWTNN_PREFIX")
    if named:
        return Path(named)
    script = shutil.which("lwtnn-config")
    if script is None:
        return None
    beside = Path(script).absolute().parent.parent
    return beside if (beside / HEADER).is_file() else Path(script).resolve().parent.parent


@cache
def find(prefix: Path) -> Library:
    """The lwtnn under `prefix`. Raises `Inconclusive` where there is none."""
    prefix = prefix.absolute()
    libraries = [prefix / name for name in LIBRARIES if (prefix / name).is_file()]
    if not (prefix / HEADER).is_file() or not libraries:
        raise Inconclusive(
            f"there is no lwtnn in {prefix}, where LWTNN_PREFIX or lwtnn-config says it is: "
            f"that needs {HEADER} and lib/liblwtnn.so"
        )
    return Library(prefix, libraries[0], _version(prefix))


def _version(prefix: Path) -> str:
    """As lwtnn's CMake files say it, those of the installation or of the sources; else what the library's bytes are."""
    for name, pattern in (
        ("cmake/lwtnnConfig-version.cmake", r'PACKAGE_VERSION "([\w.+-]+)"'),
        ("CMakeLists.txt", r"project\(\s*lwtnn\s+VERSION\s+([\w.+-]+)"),
    ):
        file = prefix / name
        if file.is_file() and (found := re.search(pattern, file.read_text(encoding="utf-8", errors="replace"))):
            return found[1]
    return "of unknown version"


@cache
def driver(library: Library) -> Path:
    """The driver, compiled against `library`. Raises `Inconclusive` with the compiler's first complaint."""
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    source = files("modelhub_lwtnn").joinpath("driver.cc").read_text(encoding="utf-8")
    folder = _cache() / _key(source, library, compiler)
    ready = folder / "driver"
    if not ready.is_file():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            code, program = Path(scratch) / "driver.cc", Path(scratch) / "driver"
            code.write_text(source, encoding="utf-8")
            include, runpath = f"-I{library.prefix / 'include'}", f"-Wl,-rpath,{library.file.parent}"
            _ran([*compiler, *FLAGS, include, str(code), str(library.file), runpath, "-o", str(program)])
            program.replace(ready)
    return ready


def _key(source: str, library: Library, compiler: list[str]) -> str:
    """A name for what comes of compiling `source`: another one for another library or compiler."""
    status = library.file.stat()
    file = f"{library.file.resolve()} {status.st_size} {status.st_mtime_ns}"
    parts = [source, file, library.version, *FLAGS, *compiler, _ran([*compiler, "--version"]).splitlines()[0]]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "modelhub" / "lwtnn"


def _ran(command: list[str]) -> str:
    """What `command` prints."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=False, env=_english()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Inconclusive(
            f"the driver of lwtnn cannot be compiled: {safe_text(error, 200)} (CXX names the compiler)"
        ) from None
    if done.returncode != 0:
        lines = done.stderr.splitlines() or ["the compiler failed without a word"]
        told = next((line for line in lines if "error" in line.lower()), lines[0])
        raise Inconclusive(f"the driver of lwtnn cannot be compiled: {safe_text(told, 300)}")
    return done.stdout or "\n"


def _english() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}
