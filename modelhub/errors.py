"""Every error a user can meet, and the exit code of each.

    ModelhubError
    ├── Different           1   what was written does not compute what the source computes
    ├── UsageError          2   the call itself is off: unknown format name, missing option
    ├── UnknownFormat       3   no importer, or more than one, claims the file
    │   └── PluginError     3   a plug-in is broken, or two share a name
    ├── Unsupported         4   the model says something the target has no words for
    ├── UnreadableFile      5   truncated, corrupt, hostile or too large
    ├── Inconclusive        6   the check could not run to its end
    └── RegistryError       7   the registry refuses, or is damaged

Exit code 0 means fine or equal; 70 is a fault of modelhub itself.
A message says what is wrong, where, and what to do; it fits on one or a few lines.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

__all__ = [
    "Different",
    "Inconclusive",
    "ModelhubError",
    "Notice",
    "PluginError",
    "RegistryError",
    "UnknownFormat",
    "UnreadableFile",
    "Unsupported",
    "UsageError",
    "notice",
    "safe_text",
]


class ModelhubError(Exception):
    """Anything modelhub refuses to do. `exit_code` is what the command line returns."""

    exit_code = 70


class Different(ModelhubError):
    """A conversion whose check failed. `report` (a `modelhub.equivalence.report.Report`) says where."""

    exit_code = 1

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report


class UsageError(ModelhubError):
    """The call itself is off."""

    exit_code = 2


class UnknownFormat(ModelhubError):
    """No importer, or more than one, recognises the file."""

    exit_code = 3


class PluginError(UnknownFormat):
    """A plug-in fails to load, or two plug-ins share a name."""


class Unsupported(ModelhubError):
    """A model holds what the target cannot express.

    Args:
        what: the whole that failed, e.g. ``"net.pt2 cannot be written as lwtnn JSON"``.
        reasons: one line per offending node: its name, the reason, the nearest form that fits.

    """

    exit_code = 4

    def __init__(self, what: str, reasons: Sequence[str] = ()) -> None:
        self.what = what
        self.reasons = tuple(reasons)
        super().__init__(what, self.reasons)

    def __str__(self) -> str:
        if not self.reasons:
            return self.what
        return "\n".join([f"{self.what}:", *(f"  - {reason}" for reason in self.reasons)])


class UnreadableFile(ModelhubError):
    """A file is truncated, corrupt, hostile or beyond the limits."""

    exit_code = 5


class Inconclusive(ModelhubError):
    """The check could not run to its end, so it proves nothing."""

    exit_code = 6


class RegistryError(ModelhubError):
    """The registry refuses, or is damaged."""

    exit_code = 7


class Notice(UserWarning):
    """Something the user should know, though nothing is wrong: invented names, a dropped mask."""


def notice(text: str) -> None:
    """Tell the user `text` as a `Notice`; the command line shows it on stderr."""
    warnings.warn(text, Notice, stacklevel=3)


def safe_text(value: object, limit: int = 80) -> str:
    """Text from a file made fit to print: control and bidirectional characters escaped, cut at `limit`."""
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
