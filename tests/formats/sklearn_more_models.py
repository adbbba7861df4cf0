"""More estimators, trained here in a moment: of many targets, of many members, and transformers that are rarer."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn import (
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    impute,
    linear_model,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn_models import COUNTS, HOLES, RANDOM, SCORE, SORTS, THREE, TWO, X

Models = dict[str, tuple[Any, np.ndarray, np.ndarray | None]]

SEVERAL_LABELS = np.stack([X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 0.3], 1).astype(int)
SEVERAL_NAMES = np.stack([TWO, np.where(X[:, 3] > 0, "up", "down")], 1)
SEVERAL_CLASSES = np.stack([THREE, SEVERAL_LABELS[:, 0]], 1)
SEVERAL_NUMBERS = np.stack([SCORE, X[:, 3]], 1)
FOUR = np.digitize(SCORE, [-1, 0, 1])
RARE = np.stack([RANDOM.choice([0, 1, 2, 5], 300, p=[0.6, 0.3, 0.05, 0.05]), RANDOM.choice([3, 4], 300)], 1).astype(
    float
)
CODES = np.stack([np.resize(np.arange(4), 300), RANDOM.integers(0, 3, 300)], 1).astype(float)

warnings.filterwarnings("ignore", "The `probability` parameter", FutureWarning)


def targets() -> Models:
    """Classifiers and regressors of several targets."""
    logistic, few = linear_model.LogisticRegression(), {"n_estimators": 5, "max_depth": 5, "random_state": 1}
    m = multioutput
    return {
        "forest_names": (ensemble.RandomForestClassifier(**few), HOLES, SEVERAL_NAMES),
        "extra_trees_labels": (ensemble.ExtraTreesClassifier(**few), X, SEVERAL_LABELS),
        "tree_classes": (tree.DecisionTreeClassifier(max_depth=5), X, SEVERAL_CLASSES),
        "neighbours": (neighbors.KNeighborsClassifier(3, algorithm="brute"), X, SEVERAL_CLASSES),
        "one_each": (m.MultiOutputClassifier(logistic), X, SEVERAL_NAMES),
        "one_each_regression": (m.MultiOutputRegressor(linear_model.Ridge()), X, SEVERAL_NUMBERS),
        "chain": (m.ClassifierChain(logistic, order=[2, 0, 1]), X, SEVERAL_LABELS),
        "chain_probabilities": (m.ClassifierChain(logistic, chain_method="predict_proba"), X, SEVERAL_LABELS),
        "chain_decisions": (m.ClassifierChain(svm.LinearSVC()), X, SEVERAL_LABELS),
        "chain_regression": (m.RegressorChain(linear_model.Ridge(), order=[1, 0]), X, SEVERAL_NUMBERS),
        "network_labels": (neural_network.MLPClassifier((5,), max_iter=50, random_state=1), X, SEVERAL_LABELS),
        "ridge_labels": (linear_model.RidgeClassifier(), X, SEVERAL_LABELS),
        "rest_labels": (multiclass.OneVsRestClassifier(logistic), X, SEVERAL_LABELS),
        "behind_a_scaler": (
            pipeline.make_pipeline(preprocessing.StandardScaler(), ensemble.RandomForestClassifier(**few)),
            X,
            SEVERAL_NAMES,
        ),
    }


def members() -> Models:
    """Classifiers made of others, and those that couple pairs of classes."""
    logistic, stump = linear_model.LogisticRegression(), tree.DecisionTreeClassifier(max_depth=3, random_state=1)
    trio = [("a", logistic), ("b", stump), ("c", svm.SVC(decision_function_shape="ovo"))]
    models: Models = {}
    for name, y in (("two", TWO), ("three", THREE)):
        models |= {
            f"svc_probability_{name}": (svm.SVC(probability=True, random_state=1), X, y),
            f"nu_svc_probability_{name}": (svm.NuSVC(probability=True, nu=0.2, random_state=1), X, y),
            f"rest_{name}": (multiclass.OneVsRestClassifier(logistic), X, y),
            f"rest_trees_{name}": (multiclass.OneVsRestClassifier(stump), X, y),
            f"rest_decision_{name}": (multiclass.OneVsRestClassifier(svm.LinearSVC()), X, y),
            f"pairs_{name}": (multiclass.OneVsOneClassifier(logistic), X, y),
            f"pairs_trees_{name}": (multiclass.OneVsOneClassifier(stump), X, y),
            f"code_{name}": (multiclass.OutputCodeClassifier(logistic, random_state=1), X, y),
            f"hard_{name}": (ensemble.VotingClassifier(trio), X, y),
            f"hard_weighted_{name}": (ensemble.VotingClassifier(trio, weights=[0.6, 0.25, 0.3]), X, y),
            f"bagging_svc_{name}": (ensemble.BaggingClassifier(svm.SVC(), 4, random_state=1), X, y),
            f"search_{name}": (model_selection.GridSearchCV(logistic, {"C": [0.1, 1]}, cv=2), X, y),
            f"quadratic_{name}": (discriminant_analysis.QuadraticDiscriminantAnalysis(), X, y),
            f"discriminant_{name}": (discriminant_analysis.LinearDiscriminantAnalysis(), X, y),
            f"centroid_{name}": (neighbors.NearestCentroid(), X, y),
        }
    stump_forest = ensemble.RandomForestClassifier(5, max_depth=3, random_state=1)
    rest = multiclass.OneVsRestClassifier(stump)
    return models | {
        "svc_probability_four": (svm.SVC(probability=True, kernel="poly", random_state=1), X, FOUR),
        "hard_of_rests": (ensemble.VotingClassifier([("r", rest), ("l", logistic), ("s", stump)]), X, THREE),
        "stacked_svc": (
            ensemble.StackingClassifier([("s", svm.SVC(break_ties=True)), ("r", rest)], stack_method="predict", cv=2),
            X,
            THREE,
        ),
        **{
            f"start_{name}": (
                ensemble.GradientBoostingClassifier(init=stump_forest, n_estimators=4, loss=loss, random_state=1),
                X,
                y,
            )
            for name, loss, y in (
                ("two", "log_loss", TWO),
                ("exponential", "exponential", TWO),
                ("three", "log_loss", THREE),
            )
        },
        "start_regression": (
            ensemble.GradientBoostingRegressor(init=tree.DecisionTreeRegressor(max_depth=3), n_estimators=4),
            X,
            SCORE,
        ),
        "threshold": (model_selection.FixedThresholdClassifier(logistic, threshold=0.3), X, TWO),
        "one_class": (svm.OneClassSVM(), X, None),
        "one_class_line": (linear_model.SGDOneClassSVM(random_state=1), X, None),
        "categorical_bayes": (naive_bayes.CategoricalNB(), CODES, THREE),
    }


def shapes() -> Models:
    """Rarer linear models, neighbours in other metrics, and transformers."""
    lm, fs, pre, pipe = linear_model, feature_selection, preprocessing, pipeline.make_pipeline
    logistic = lm.LogisticRegression()
    neighbours, regressor = neighbors.KNeighborsClassifier, neighbors.KNeighborsRegressor
    models: Models = {
        **{
            name.lower(): (getattr(lm, name)(), X, SCORE)
            for name in ("Lars", "LassoLars", "OrthogonalMatchingPursuit", "TheilSenRegressor", "QuantileRegressor")
        },
        "tweedie": (lm.TweedieRegressor(power=1.5), X, COUNTS),
        "tweedie_identity": (lm.TweedieRegressor(power=0), X, SCORE),
        "multi_task": (lm.MultiTaskLasso(0.01), X, SEVERAL_NUMBERS),
        **{
            f"metric_{metric}": (neighbours(4, metric=metric, algorithm="brute"), X, THREE)
            for metric in ("chebyshev", "canberra", "cosine", "l2")
        },
        "metric_minkowski": (regressor(4, p=3, weights="distance", algorithm="brute"), X, SCORE),
        "knn_imputer": (pipe(impute.KNNImputer(), lm.Ridge()), HOLES, SCORE),
        "far_knn_imputer_distance": (
            pipe(impute.KNNImputer(weights="distance", add_indicator=True), lm.Ridge()),
            HOLES,
            SCORE,
        ),
        **{
            f"kernel_components_{kernel}": (decomposition.KernelPCA(3, kernel=kernel), X, None)
            for kernel in ("linear", "poly", "rbf", "sigmoid", "cosine")
        },
        **{
            f"spline_{kind}_{degree}": (
                pre.SplineTransformer(4, extrapolation=kind, degree=degree, include_bias=degree > 2),
                X,
                None,
            )
            for kind in ("constant", "linear", "continue", "periodic")
            for degree in (2, 3)
        },
        "spline_quantiles": (pre.SplineTransformer(5, degree=1, knots="quantile"), X, None),
        "target_encoder": (pipe(pre.TargetEncoder(random_state=1), logistic), RARE, TWO),
        "target_encoder_three": (pipe(pre.TargetEncoder(random_state=1), logistic), RARE, THREE),
        "ordinal_rare": (pre.OrdinalEncoder(max_categories=3), RARE, None),
        "discriminant_axes": (pipe(discriminant_analysis.LinearDiscriminantAnalysis(), logistic), X, THREE),
        "search_of_columns": (fs.RFE(logistic, n_features_to_select=2), X, TWO),
    }
    for unknown in ("ignore", "infrequent_if_exist"):
        for drop in (None, "first", "if_binary"):
            encoder = pre.OneHotEncoder(handle_unknown=unknown, drop=drop, min_frequency=40)
            models[f"one_hot_rare_{unknown}_{drop}"] = (pipe(encoder, logistic), RARE, TWO)
    choices = (
        fs.SelectPercentile(percentile=50),
        fs.SelectFpr(),
        fs.SelectFdr(),
        fs.SelectFwe(),
        fs.GenericUnivariateSelect(mode="k_best", param=2),
        fs.SelectFromModel(logistic),
        fs.SelectFromModel(logistic, threshold="1.1*median"),
        fs.SequentialFeatureSelector(logistic, n_features_to_select=2, cv=2),
    )
    return models | {f"choice_{i}_{type(c).__name__}": (pipe(c, logistic), X, TWO) for i, c in enumerate(choices)}


def rows(name: str, data: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows like `data`, in float32 numbers: new mixtures of its columns, moved by a rounding, some far outside.

    Categories stay what they are; where an encoder takes unknown ones, there are some.
    """
    random = np.random.default_rng(seed)
    x = np.stack([random.choice(column, count) for column in data.T], axis=1).astype(np.float32)
    if data is RARE or data is CODES or data is SORTS:
        unknown = 0.05 if name.startswith(("one_hot", "target")) else 0
        return np.where(random.random(x.shape) < unknown, 77, x).astype(np.float32)
    if name.startswith("far"):  # of rows next to those of the training scikit-learn's distances keep half their digits
        return (x * np.float32(1.1) + np.float32(0.05)).astype(np.float32)
    moved = np.nextafter(x, random.choice(np.array([-np.inf, np.inf], np.float32), x.shape))
    x = np.where(random.random(x.shape) < 0.3, moved, x)
    return np.where(random.random(x.shape) < 0.05, 3 * x, x).astype(np.float32)


__all__ = ["members", "rows", "shapes", "targets"]
