"""What things may be called, and the one grammar of references.

    btag                     the newest version
    btag@3                   version 3
    btag@prod                the version that alias points to
    btag@newest-passing      the newest version whose reports prove every export
    btag@sha256:<hex>        the version with that manifest digest, or the one whose digest begins so (8 digits or more)

Everything is checked here, once, before it comes near a path or a query; what does not fit is a `RegistryError`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from modelhub.errors import RegistryError, safe_text

__all__ = ["Reference", "alias", "digest", "filename", "is_name", "key", "name", "path", "reference", "role", "shown"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"sha256:([0-9a-f]{8,64})")
_ROLE = re.compile(r"[a-z][a-z0-9_-]{0,31}(:[A-Za-z0-9][A-Za-z0-9_-]{0,31}){0,3}")
_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=@() -]{0,127}")
# Words that would read as something else than an alias somebody set: `latest` is what no alias means.
_RESERVED = re.compile(r"[0-9]+|v[0-9]+|latest|newest|newest-passing|head|all|none|sha256", re.IGNORECASE)

_LETTERS = "ASCII letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 128"


def shown(text: str) -> str:
    """A text fit for a message, in quotes."""
    return repr(safe_text(text))


def is_name(text: str) -> bool:
    """Whether `text` may be the name of a model."""
    return _NAME.fullmatch(text) is not None


def _fits(pattern: re.Pattern[str], text: object, what: str, rule: str) -> str:
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        shown = safe_text(text) if isinstance(text, str) else type(text).__name__
        raise RegistryError(f"{shown!r} cannot be {what}: use {rule}")
    return text


def name(text: object) -> str:
    """The name of a model."""
    return _fits(_NAME, text, "the name of a model", _LETTERS)


def key(text: object) -> str:
    """The key of a metadata value."""
    return _fits(_NAME, text, "a metadata key", _LETTERS)


def role(text: object) -> str:
    """What a file is within its version: ``source``, ``graph``, ``export:onnx``, ..."""
    fitting = _fits(_ROLE, text, "a role", "source, graph, export:<what>, or another lower-case word")
    if fitting.partition(":")[0] in ("report", "manifest"):
        raise RegistryError(
            f"{fitting!r} cannot be a role: reports are attached as such, manifests made by the registry"
        )
    return fitting


def filename(text: object) -> str:
    """The name of a file, never a path."""
    rule = "ASCII letters, digits, spaces and . _ + = @ ( ) -, beginning with a letter, digit or _, at most 128"
    return _fits(_FILENAME, text, "the name of a file", rule)


def path(text: object) -> Path:
    """A path of the user's own, as it stands: one that can exist, and that can be printed in a message."""
    shown = os.fspath(text) if isinstance(text, str | os.PathLike) else ""
    if not isinstance(shown, str) or not 0 < len(shown) <= 4000 or not shown.isprintable():
        raise RegistryError(f"{safe_text(shown)!r} cannot be a path: use up to 4000 characters that can be printed")
    if any(len(part.encode()) > 255 for part in shown.split("/")):
        raise RegistryError(f"{safe_text(shown)!r} cannot be a path: the name of a file has at most 255 bytes")
    return Path(shown)


def digest(text: object) -> str:
    """A whole SHA-256, as 64 lower-case hexadecimal digits."""
    return _fits(_DIGEST, text, "a SHA-256", "64 lower-case hexadecimal digits")


def alias(text: object) -> str:
    """An alias: like a name, but not all digits and none of the reserved words."""
    fitting = _fits(_NAME, text, "an alias", _LETTERS)
    if _RESERVED.fullmatch(fitting):
        raise RegistryError(
            f"{safe_text(fitting)!r} cannot be an alias: it reads as a version number or a reserved word"
        )
    return fitting


@dataclass(frozen=True)
class Reference:
    """A version of `name`: by number, by alias, by (the beginning of) its digest, else the newest (`passing`) one."""

    name: str
    number: int | None = None
    alias: str | None = None
    digest: str | None = None
    passing: bool = False

    def __str__(self) -> str:
        if self.passing:
            return f"{self.name}@newest-passing"
        if self.digest is not None:
            return f"{self.name}@sha256:{self.digest}"
        which = self.number if self.number is not None else self.alias
        return self.name if which is None else f"{self.name}@{which}"


def reference(text: object) -> Reference:
    """`text` read as a reference; the grammar stands at the top of this file."""
    model, at, which = text.partition("@") if isinstance(text, str) else ("", "", "")
    if _NAME.fullmatch(model):
        if not at:
            return Reference(model)
        if _NUMBER.fullmatch(which):
            return Reference(model, number=int(which))
        if found := _PREFIX.fullmatch(which):
            return Reference(model, digest=found[1])
        if which == "newest-passing":
            return Reference(model, passing=True)
        if _NAME.fullmatch(which) and not _RESERVED.fullmatch(which):
            return Reference(model, alias=which)
    shown = safe_text(text) if isinstance(text, str) else type(text).__name__
    raise RegistryError(
        f"{shown!r} is no reference: write name, name@3, name@alias, name@newest-passing, or name@sha256: and 8 to 64 "
        "hex digits"
    )
