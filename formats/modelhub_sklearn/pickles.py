"""Pickles that the user vouches for (`--trust`): the one place where code from a file may run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from modelhub.errors import Inconclusive, UnreadableFile, safe_text
from modelhub.files import head

__all__ = ["unpickled"]


def unpickled(path: Path) -> Any:
    """The object in a pickle or joblib file. Runs code from it: only for files somebody vouches for."""
    head(path)  # a regular file within the limits
    try:
        import joblib
    except ImportError:
        raise Inconclusive(
            f'{path} is a pickle and needs scikit-learn itself: pip install "modelhub-hep[sklearn]"'
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's about its versions: the reader checks what it needs
            return joblib.load(path)
    except Exception as error:
        raise UnreadableFile(
            f"{path}: this Python cannot unpickle it ({type(error).__name__}: {safe_text(error, 120)}); "
            "load it with the scikit-learn that wrote it and save it with skops.io.dump"
        ) from None
