"""What is installed, and whose file is this? Plug-ins are found by entry point and only so."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from modelhub.errors import PluginError, UnknownFormat, UsageError, safe_text
from modelhub.files import beginning

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from modelhub.protocols import Exporter, Importer, Runtime

__all__ = ["commands", "detect", "exporter", "format_of_suffix", "further_runtimes", "importer", "names", "runtime"]

IMPORTERS = "modelhub.importers"
EXPORTERS = "modelhub.exporters"
RUNTIMES = "modelhub.runtimes"
COMMANDS = "modelhub.commands"


@cache
def _installed() -> Any:
    """All entry points: each look goes through every distribution that is installed."""
    from importlib.metadata import entry_points

    return entry_points()


@cache
def _entries(group: str) -> dict[str, EntryPoint]:
    """Entry points of `group` by name; two of one name are an error that names both distributions."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(_installed().select(group=group), key=lambda e: e.name):
        other = found.get(entry.name)
        if other is None:
            found[entry.name] = entry
        elif (other.value, _distribution(other)) != (entry.value, _distribution(entry)):
            raise PluginError(
                f"two plug-ins are called {entry.name!r} in {group}: {_distribution(other)} ({other.value}) and "
                f"{_distribution(entry)} ({entry.value}); uninstall one of them"
            )
    return found


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown distribution"


@cache
def _load(group: str, name: str) -> Any:
    """The object behind an entry point, instantiated where it is a class. Raises `PluginError`."""
    entry = _entries(group)[name]
    try:
        target = entry.load()
        return target() if isinstance(target, type) else target
    except Exception as error:
        raise PluginError(
            f"the plug-in {name!r} of {_distribution(entry)} ({entry.value}) does not load: "
            f"{type(error).__name__}: {safe_text(error, 200)}"
        ) from error


def names(group: str) -> list[str]:
    """Names of all plug-ins in `group`, sorted."""
    return list(_entries(group))


def _named(group: str, what: str, name: str) -> Any:
    if name not in _entries(group):
        raise UsageError(f"no {what} is called {safe_text(name)!r}; installed: {', '.join(names(group))}")
    return _load(group, name)


def importer(name: str) -> Importer:
    """The importer called `name`. Raises `UsageError` when there is none."""
    return cast("Importer", _named(IMPORTERS, "importer", name))


def exporter(name: str) -> Exporter:
    """The exporter called `name`. Raises `UsageError` when there is none."""
    return cast("Exporter", _named(EXPORTERS, "exporter", name))


def runtime(name: str) -> Runtime | None:
    """The runtime of format `name`, None when the format has none."""
    name = canonical(name)
    return cast("Runtime", _load(RUNTIMES, name)) if name in _entries(RUNTIMES) else None


def further_runtimes(name: str) -> list[Runtime]:
    """The runtimes beside the one of format `name`: those whose entry points are called ``<name>+<engine>``."""
    found = [entry for entry in _entries(RUNTIMES) if entry.startswith(f"{canonical(name)}+")]
    return [cast("Runtime", _load(RUNTIMES, entry)) for entry in found]


def canonical(name: str) -> str:
    """The first name of a format: `lwtnn` for its alias `json`.

    An alias is a second exporter entry point of the same object whose name is no importer.
    """
    entries = _entries(EXPORTERS)
    if name in _entries(IMPORTERS) or name not in entries:
        return name
    same = [other for other, entry in entries.items() if entry.value == entries[name].value]
    return next((other for other in same if other in _entries(IMPORTERS)), name)


def commands() -> Iterator[tuple[str, Any]]:
    """Name and click command of every command a plug-in adds."""
    for name in names(COMMANDS):
        yield name, _load(COMMANDS, name)


def detect(path: Path) -> str:
    """The one format whose importer recognises `path`. Raises `UnknownFormat` for none or several."""
    with beginning(path) as start:
        if not start:
            from modelhub.errors import UnreadableFile

            raise UnreadableFile(f"{path}: the file is empty")
        claims = [name for name in names(IMPORTERS) if importer(name).recognises(path)]
    if len(claims) == 1:
        return claims[0]
    if claims:
        raise UnknownFormat(f"{path}: claimed by {' and '.join(claims)}; say which with --from")
    raise UnknownFormat(
        f"{path}: no importer recognises this file (begins with {safe_text(start[:16])}); "
        f"say --from with one of {', '.join(names(IMPORTERS))}"
    )


def format_of_suffix(path: Path) -> str:
    """The exporter whose suffix `path` has. Raises `UsageError` for none or several."""
    suffix = path.suffix.lower()
    fitting = {canonical(name) for name in names(EXPORTERS) if exporter(name).suffix == suffix}
    if len(fitting) == 1:
        return fitting.pop()
    raise UsageError(
        f"{path}: the suffix {suffix!r} tells no format; say --to with one of {', '.join(names(EXPORTERS))}"
    )
