"""Models trained on float32 rows: scikit-learn then computes some of its constants in float32 at every call."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from forest_rows import written
from test_sklearn_more import own_answer, run

from modelhub.errors import Unsupported
from modelhub.graph.canonical import canonical
from modelhub_sklearn import from_estimator

sklearn_models = pytest.importorskip("sklearn_models", exc_type=ImportError)
more = pytest.importorskip("sklearn_more_models", exc_type=ImportError)

EVERY = {
    name: (module, model)
    for module, groups in (
        (sklearn_models, ("forests", "histograms", "smooth", "deciding")),
        (more, ("targets", "members", "shapes")),
    )
    for group in groups
    for name, model in getattr(module, group)().items()
}
FELL = (
    "gaussian",
    "components",
    "power",
    "target_power",
    "isotonic",
    "isotonic_three",
    "quadratic_two",
    "quadratic_three",
    "kernel_components_linear",
    "kernel_components_rbf",
    "logistic_three",
    "network_regression",
    "svc_probability_three",
    "forest_holes",
    "spline_linear_3",
)
"""Those that were off by 1e-8 and more once, and some others."""


def agrees(name: str) -> None:
    module, (estimator, data, target) = EVERY[name]
    single = target.astype(np.float32) if target is not None and target.dtype == np.float64 else target
    x = module.rows(name, data, 500, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(data.astype(np.float32), single)
        expected = own_answer(estimator, x.astype(np.float64))
    given: Any = run(written(canonical(from_estimator(estimator)), "float64"), x)
    for answer, wanted in zip(given, expected, strict=True):
        np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-12 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("name", FELL)
def test_some(name: str) -> None:
    agrees(name)


@pytest.mark.heavy
@pytest.mark.parametrize("name", [n for n in EVERY if n not in (*FELL, "neighbours_brute") and not n.startswith("far")])
def test_every_other(name: str) -> None:
    agrees(name)


def test_means_of_float32_targets_are_refused() -> None:
    _, (estimator, data, target) = EVERY["neighbours_brute"]
    with pytest.raises(Unsupported, match="train with float64 targets"):
        from_estimator(estimator.fit(data, target.astype(np.float32)))
