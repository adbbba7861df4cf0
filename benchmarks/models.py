"""The models of the benchmarks: trained once from fixed seeds, kept in a folder."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

COLUMNS = 20


def events(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows [count, COLUMNS] float32 and a score [count] to be learned."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, COLUMNS)).astype(np.float32)
    return x, x[:, 0] * x[:, 1] + x[:, 2] + random.normal(size=count) * 0.5


def boosted(folder: Path, trees: int = 1000) -> Path:
    """XGBoost, depth 6, two classes."""
    path = folder / f"boosted{trees}.json"
    if not path.exists():
        import xgboost

        x, score = events(5000)
        settings = {"max_depth": 6, "eta": 0.05, "objective": "binary:logistic", "min_child_weight": 0, "nthread": 2}
        xgboost.train(settings, xgboost.DMatrix(x, score > 0), trees).save_model(path)
    return path


def grown(folder: Path, kind: str = "RandomForestClassifier", **settings: object) -> Path:
    """A pickle of a scikit-learn ensemble; `.skops` beside it."""
    words = "_".join(f"{key}{value}" for key, value in sorted(settings.items()))
    path = folder / f"{kind}_{words}.pkl"
    if not path.exists():
        import skops.io
        from sklearn import ensemble

        x, score = events(5000)
        classes = int(str(settings.pop("classes", 2)))
        target = score if kind.endswith("Regressor") else np.digitize(score, np.linspace(-1, 1, classes + 1)[1:-1])
        model = getattr(ensemble, kind)(random_state=0, **settings).fit(x, target)
        path.write_bytes(pickle.dumps(model))
        skops.io.dump(model, path.with_suffix(".skops"))
    return path


def nodes_of(model: object) -> int:
    """Nodes of a scikit-learn forest."""
    return sum(tree.tree_.node_count for tree in np.ravel(model.estimators_))  # type: ignore[attr-defined]
