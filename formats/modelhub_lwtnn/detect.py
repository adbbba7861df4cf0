"""Whose file is this? A look at the keys at the top of a JSON object, without parsing what hangs below them."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from modelhub.files import LIMITS, head

__all__ = ["is_lwtnn"]

TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[\]{}:]', re.DOTALL)
"""A text, or a mark that shapes the document. Possessive: an endless text costs one pass."""

MARKS = 1 << 21
"""How many tokens to look at before giving up: above any lwtnn file's that is meant to be recognised."""


def is_lwtnn(path: Path) -> bool:
    """Whether `path` holds an object with `layers` and `inputs` at its top, and nothing that other formats put there.

    Interface records and lwtnn's variables files have no `layers`; Keras has its own below `config`.
    """
    start = head(path).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith(b"{") or not start[1:].lstrip().startswith(b'"'):  # UBJSON begins with a brace, too
        return False
    wanted = {b'"layers"', b'"inputs"'}
    for key in _top_keys(path):
        if key in (b'"class_name"', b'"config"', b'"learner"', b'"schema_version"'):
            return False
        wanted.discard(key)
        if not wanted:
            return True
    return False


def _top_keys(path: Path) -> Iterator[bytes]:
    """The keys of the object at the top, quoted as in the file, as far as `MARKS` tokens go."""
    if path.stat().st_size > LIMITS.json:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        depth, last = 0, b""
        for count, match in enumerate(TOKEN.finditer(text)):
            token = text[match.start() : min(match.end(), match.start() + 64)]
            if count > MARKS:
                return
            if token in (b"{", b"["):
                depth += 1
            elif token in (b"}", b"]"):
                depth -= 1
            elif token == b":" and depth == 1:
                yield last
            last = token
