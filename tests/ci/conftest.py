"""The models that the tests of CI check, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from ci_models import write_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of `ci_models.write_models`; tests may write a modelhub.yaml into it."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder
