"""What we say about missing values is what scikit-learn does: it refuses the row, or a tree may see it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from forest_rows import run

from modelhub.graph.forest_forms import forests
from modelhub_sklearn import from_estimator

sklearn_models = pytest.importorskip("sklearn_models", exc_type=ImportError)
more = pytest.importorskip("sklearn_more_models", exc_type=ImportError)

GROUPS = {
    name: getattr(module, name)()
    for module, names in (
        (sklearn_models, ("forests", "histograms", "smooth", "deciding")),
        (more, ("targets", "members", "shapes")),
    )
    for name in names
}


@pytest.mark.parametrize("group", list(GROUPS))
def test_no_row_that_gets_an_answer_is_said_to_be_refused(group: str) -> None:
    from modelhub_sklearn.live import snapshot
    from modelhub_sklearn.missing import refuses_missing

    refused = 0
    for name, (estimator, data, target) in GROUPS[group].items():
        x = np.array(data[:3], np.float64)
        x[1, 0] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(data, target)
            try:
                getattr(estimator, "predict" if hasattr(estimator, "predict") else "transform")(x)
            except ValueError:
                refused += refuses_missing(snapshot(estimator, name))
                continue
        assert not refuses_missing(snapshot(estimator, name)), name
    assert refused or group in ("histograms", "targets")


def test_where_a_member_refuses_missing_values_no_tree_routes_them() -> None:
    from sklearn.ensemble import RandomForestClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression

    x, y = sklearn_models.X, sklearn_models.TWO
    forest = RandomForestClassifier(4, max_depth=4, random_state=1)
    alone = from_estimator(forest.fit(x, y))
    assert forests(alone)[0].forest.missing.any()
    hole = np.where(np.arange(4) == 0, np.nan, x[:40]).astype(np.float32)
    np.testing.assert_allclose(run(alone, hole), forest.predict_proba(hole.astype(np.float64)), atol=1e-6)
    voting = from_estimator(VotingClassifier([("f", forest), ("l", LogisticRegression())], voting="soft").fit(x, y))
    assert not any(found.forest.missing.any() for found in forests(voting))
