"""Files that more than one module asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from stream_files import written


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, and one sample in HDF5 and in ROOT (`stream_files`)."""
    return written(tmp_path_factory.mktemp("stream"))
