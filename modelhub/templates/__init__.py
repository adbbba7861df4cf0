"""Files for a user's repository: modelhub.yaml and the CI job that runs it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from modelhub import plugins
from modelhub.errors import ModelhubError, UsageError
from modelhub.files import atomic_write

__all__ = ["write"]

HERE = Path(__file__).parent


def write(
    folder: Path, pairs: Sequence[tuple[Path, Path]], *, github: bool, gitlab: bool, force: bool
) -> tuple[list[Path], list[str]]:
    """Write the files for `pairs` (source and target) below `folder`.

    Returns what was written and what is left for the user to do. Raises `UsageError`, and writes nothing, when a file
    is there already and not `force`, or when a pair's file is not below the folder.
    """
    files = {folder / "modelhub.yaml": _config(folder, pairs)}
    advice = [] if pairs else ["modelhub.yaml names an example pair: put your own files there"]
    extras = _extras(pairs)
    if github:
        files[folder / ".github/workflows/equivalence.yml"] = _template("github.yml", extras)
    if gitlab:
        files[folder / ".gitlab/equivalence.yml"] = _template("gitlab.yml", extras)
        include = "include:\n  - local: .gitlab/equivalence.yml\n"
        if (folder / ".gitlab-ci.yml").exists():
            advice.append(f"add to .gitlab-ci.yml:\n{include.rstrip()}")
        else:
            files[folder / ".gitlab-ci.yml"] = include
    there = [str(path) for path in files if path.exists()]
    if there and not force:
        raise UsageError(f"there already: {', '.join(there)}; --force overwrites")
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {path.parent}: {error.strerror or error}") from error
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(files), advice


def _config(folder: Path, pairs: Sequence[tuple[Path, Path]]) -> str:
    names: list[str] = []
    entries = []
    for source, target in pairs:
        names.append(_name(target.stem, names))
        lines = [f"  - name: {_quoted(names[-1])}"]
        lines += [
            f"    {key}: {_quoted(_below(folder, path))}" for key, path in (("source", source), ("target", target))
        ]
        entries.append("\n".join(lines))
    example = "  - name: tagger\n    source: net.pt2\n    target: net.json"
    return (HERE / "modelhub.yaml").read_text(encoding="utf-8").replace("@PAIRS@", "\n".join(entries) or example)


def _name(stem: str, taken: Sequence[str]) -> str:
    """A name for the pair of a file called `stem` that no other pair has, whatever its capitals."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")[:70] or "pair"
    known = {other.lower() for other in taken}
    candidates = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate.lower() not in known)


def _below(folder: Path, path: Path) -> str:
    """`path` as it is written in the file: relative to the folder, with forward slashes."""
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise UsageError(f"{path} is not below {folder.resolve()}; a CI job would not find it") from None


def _quoted(text: str) -> str:
    """A YAML scalar that is read as this text: bare where that is plain to see, else as JSON, which YAML contains."""
    import yaml

    bare = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) and isinstance(yaml.safe_load(text), str)
    return text if bare else json.dumps(text)


def _extras(pairs: Sequence[tuple[Path, Path]]) -> str:
    """The extras that install the engines of the pairs' files, as pip wants them: "[keras,torch]" or ""."""
    found = set()
    for path in (path for pair in pairs for path in pair):
        try:
            runtime = plugins.runtime(plugins.detect(path))
        except ModelhubError:
            continue  # the check itself will tell
        if runtime is not None:
            found.add(runtime.extra)
    return f"[{','.join(sorted(found))}]" if found else ""


def _template(name: str, extras: str) -> str:
    return (HERE / name).read_text(encoding="utf-8").replace("@EXTRAS@", extras)
