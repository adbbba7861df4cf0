"""Trees that ask about categories are refused in words of trees, once, not in operators nobody wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

import modelhub
from modelhub.errors import Unsupported


@pytest.mark.parametrize(
    "name",
    [
        "lightgbm/treelite_toy_categorical/toy_categorical_model.txt",
        "xgboost/jpmml_BinomialClassificationAudit/BinomialClassificationAudit.json",
    ],
)
def test_the_refusal_speaks_of_trees(name: str, cases: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as refused:
        modelhub.convert(cases / "real" / name, tmp_path / "net.json", check=False)
    (reason,) = refused.value.reasons
    assert reason.startswith("the trees ask about categories")
