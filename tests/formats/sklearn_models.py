"""Estimators of every kind the reader knows, trained here in a moment, and rows to try them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import (
    calibration,
    compose,
    decomposition,
    ensemble,
    feature_selection,
    impute,
    linear_model,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

FEATURES = 4
RANDOM = np.random.default_rng(8)
X = RANDOM.normal(size=(300, FEATURES)).astype(np.float32).astype(np.float64)
SCORE = X[:, 0] - X[:, 1] * X[:, 2] + 0.3 * RANDOM.normal(size=300)
TWO, THREE = np.where(SCORE > 0, "signal", "background"), np.digitize(SCORE, [-0.6, 0.6]) * 10
COUNTS = np.floor(np.exp(SCORE / 2))
HOLES = np.where(RANDOM.random(X.shape) < 0.15, np.nan, X)
SOME = np.where([True, False, True, False], HOLES, X)
CATEGORIES = HOLES.copy()
CATEGORIES[:, 1] = RANDOM.choice([0, 1, 2, 5, 7, 9, 200, 1e6], 300)
CATEGORIES[:, 3] = RANDOM.integers(0, 4, 300)
CATEGORIES[::11, 1] = np.nan
SORTS = X.copy()
SORTS[:, 0], SORTS[:, 2] = RANDOM.integers(0, 3, 300), RANDOM.choice([-1.0, 0.5, 4.0], 300)
POSITIVE = np.abs(X)

Fitted = Callable[[], Any]


def forests() -> dict[str, tuple[Any, np.ndarray, np.ndarray]]:
    """Models whose leaves are compared one by one: estimator, rows to train on, targets."""
    e, small = ensemble, {"n_estimators": 7, "random_state": 1}
    return {
        "tree": (tree.DecisionTreeClassifier(max_depth=6, random_state=1), X, THREE),
        "tree_holes": (tree.DecisionTreeRegressor(max_depth=7, random_state=1), HOLES, SCORE),
        "tree_one_leaf": (tree.DecisionTreeClassifier(max_depth=1, min_samples_leaf=200), X, TWO),
        "extra_tree": (tree.ExtraTreeRegressor(random_state=1), HOLES, SCORE),
        "forest_two": (e.RandomForestClassifier(**small), X, TWO),
        "forest_holes": (e.RandomForestClassifier(**small), HOLES, THREE),
        "forest_regression": (e.RandomForestRegressor(**small), HOLES, SCORE),
        "forest_two_targets": (e.RandomForestRegressor(**small), HOLES, np.stack([SCORE, X[:, 3]], 1)),
        "extra_trees": (e.ExtraTreesClassifier(**small), HOLES, THREE),
        "extra_trees_regression": (e.ExtraTreesRegressor(**small, criterion="absolute_error", max_depth=5), X, SCORE),
        "boosting_two": (e.GradientBoostingClassifier(**small), X, TWO),
        "boosting_exponential": (e.GradientBoostingClassifier(**small, loss="exponential"), X, TWO),
        "boosting_three": (e.GradientBoostingClassifier(**small), X, THREE),
        "boosting_zero": (e.GradientBoostingClassifier(**small, init="zero"), X, THREE),
        "boosting_regression": (e.GradientBoostingRegressor(**small, loss="huber"), X, SCORE),
        "boosting_quantile": (e.GradientBoostingRegressor(**small, loss="quantile", alpha=0.8), X, SCORE),
        "ada_two": (e.AdaBoostClassifier(tree.DecisionTreeClassifier(max_depth=2), **small), X, TWO),
        "ada_three": (e.AdaBoostClassifier(tree.DecisionTreeClassifier(max_depth=3), **small), X, THREE),
        "bagging": (e.BaggingClassifier(**small, max_features=0.6), HOLES, THREE),
        "bagging_regression": (e.BaggingRegressor(**small, max_features=3, bootstrap_features=True), HOLES, SCORE),
        "isolation": (e.IsolationForest(**small, max_samples=64), X, None),
        "isolation_columns": (e.IsolationForest(**small, max_features=0.5, contamination=0.1), HOLES, None),
    }


def histograms() -> dict[str, tuple[Any, np.ndarray, np.ndarray]]:
    """Histogram gradient boosting."""
    small = {"max_iter": 8, "random_state": 1, "min_samples_leaf": 5}
    classifier, regressor = ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor
    return {
        "hist_two": (classifier(**small), X, TWO),
        "hist_holes": (classifier(**small), HOLES, TWO),
        "hist_three": (classifier(**small), HOLES, THREE),
        "hist_categories": (classifier(**small, categorical_features=[1, 3]), CATEGORIES, TWO),
        "hist_categories_three": (classifier(**small, categorical_features=[3]), CATEGORIES, THREE),
        "hist_regression": (regressor(**small), HOLES, SCORE),
        "hist_absolute": (regressor(**small, loss="absolute_error"), X, SCORE),
        "hist_quantile": (regressor(**small, loss="quantile", quantile=0.3), X, SCORE),
        "hist_poisson": (regressor(**small, loss="poisson"), HOLES, COUNTS),
        "hist_gamma": (regressor(**small, loss="gamma", categorical_features=[1]), CATEGORIES, COUNTS + 0.5),
    }


def smooth() -> dict[str, tuple[Any, np.ndarray, np.ndarray]]:
    """Models that decide nothing: a rounding of the input changes the output by as much."""
    lm, pre, pipe = linear_model, preprocessing, pipeline.make_pipeline
    network = {"hidden_layer_sizes": (6, 5), "max_iter": 60, "random_state": 1}
    logistic = lm.LogisticRegression()
    return {
        "linear": (lm.LinearRegression(), X, SCORE),
        "linear_two_targets": (lm.LinearRegression(), X, np.stack([SCORE, X[:, 3]], 1)),
        "ridge": (lm.Ridge(), X, SCORE),
        "ridge_cv": (lm.RidgeCV(), X, SCORE),
        "lasso": (lm.Lasso(0.05), X, SCORE),
        "lasso_cv": (lm.LassoCV(cv=3), X, SCORE),
        "elastic": (lm.ElasticNet(0.05), X, SCORE),
        "bayesian": (lm.BayesianRidge(), X, SCORE),
        "huber": (lm.HuberRegressor(), X, SCORE),
        "sgd_regression": (lm.SGDRegressor(random_state=1), X, SCORE),
        "poisson": (lm.PoissonRegressor(), X, COUNTS),
        "gamma": (lm.GammaRegressor(), X, COUNTS + 1),
        "logistic_two": (logistic, X, TWO),
        "logistic_three": (logistic, X, THREE),
        "logistic_cv": (lm.LogisticRegressionCV(cv=2, Cs=2), X, THREE),
        "sgd_log": (lm.SGDClassifier(loss="log_loss", random_state=1), X, THREE),
        "sgd_huber": (lm.SGDClassifier(loss="modified_huber", random_state=1), X, THREE),
        "sgd_huber_two": (lm.SGDClassifier(loss="modified_huber", random_state=1), X, TWO),
        "sgd_hinge": (lm.SGDClassifier(random_state=1), X, THREE),
        "perceptron": (lm.Perceptron(), X, TWO),
        "ridge_classifier": (lm.RidgeClassifier(), X, THREE),
        "linear_svc": (svm.LinearSVC(), X, TWO),
        "linear_svr": (svm.LinearSVR(), X, SCORE),
        "network_two": (neural_network.MLPClassifier(**network), X, TWO),
        "network_three": (neural_network.MLPClassifier(**network, activation="tanh"), X, THREE),
        "network_regression": (neural_network.MLPRegressor(**network, activation="logistic"), X, SCORE),
        "network_poisson": (neural_network.MLPRegressor(**network, loss="poisson"), X, COUNTS),
        "gaussian": (naive_bayes.GaussianNB(), X, THREE),
        "multinomial": (naive_bayes.MultinomialNB(), POSITIVE, THREE),
        "complement": (naive_bayes.ComplementNB(), POSITIVE, TWO),
        "svr_rbf": (svm.SVR(), X, SCORE),
        "svr_poly": (svm.NuSVR(kernel="poly", coef0=1.0), X, SCORE),
        "svr_linear": (svm.SVR(kernel="linear"), X, SCORE),
        "scaler": (pipe(pre.StandardScaler(), logistic), X, THREE),
        "robust": (pipe(pre.RobustScaler(), pre.MaxAbsScaler(), logistic), X, TWO),
        "min_max": (pipe(pre.MinMaxScaler((-1, 2), clip=True), logistic), X, TWO),
        "normalizer": (pipe(*(pre.Normalizer(n) for n in ("l2", "l1", "max")), logistic), X, TWO),
        "components": (pipe(decomposition.PCA(3, whiten=True), logistic), X, TWO),
        "components_alone": (decomposition.PCA(2), X, None),
        "ica": (pipe(decomposition.FastICA(3, random_state=1), logistic), X, TWO),
        "svd": (pipe(decomposition.TruncatedSVD(2, random_state=1), logistic), X, TWO),
        "polynomial": (pipe(pre.StandardScaler(), pre.PolynomialFeatures(3), lm.Ridge()), X, SCORE),
        "interactions": (
            pipe(pre.PolynomialFeatures((2, 3), interaction_only=True, include_bias=False), lm.Ridge()),
            X,
            SCORE,
        ),
        "power": (pipe(pre.PowerTransformer(), logistic), X, TWO),
        "box_cox": (pipe(pre.PowerTransformer(method="box-cox", standardize=False), logistic), POSITIVE + 0.1, TWO),
        "voting_regression": (
            ensemble.VotingRegressor([("a", lm.Ridge()), ("b", lm.LinearRegression())], weights=[2, 1]),
            X,
            SCORE,
        ),
        "target_log": (
            compose.TransformedTargetRegressor(lm.Ridge(), func=np.log1p, inverse_func=np.expm1),
            X,
            COUNTS,
        ),
        "target_scaled": (compose.TransformedTargetRegressor(lm.Ridge(), transformer=pre.StandardScaler()), X, SCORE),
        "target_power": (compose.TransformedTargetRegressor(lm.Ridge(), transformer=pre.PowerTransformer()), X, SCORE),
        "best": (pipe(feature_selection.SelectKBest(k=2), logistic), X, TWO),
        "varying": (pipe(feature_selection.VarianceThreshold(0.5), logistic), X, TWO),
        "union": (
            pipe(
                pipeline.FeatureUnion(
                    [("a", pre.StandardScaler()), ("b", decomposition.PCA(2))], transformer_weights={"b": 0.5}
                ),
                logistic,
            ),
            X,
            TWO,
        ),
    }


def deciding() -> dict[str, tuple[Any, np.ndarray, np.ndarray]]:
    """Models that decide about something computed."""
    e, lm, pre, pipe = ensemble, linear_model, preprocessing, pipeline.make_pipeline
    few = {"n_estimators": 5, "random_state": 1}
    forest, logistic = e.RandomForestClassifier(**few, max_depth=5), lm.LogisticRegression()
    pair = [("lr", logistic), ("rf", forest)]
    calibrated = calibration.CalibratedClassifierCV
    columns = compose.ColumnTransformer(
        [
            ("kinds", pre.OneHotEncoder(handle_unknown="ignore"), [2, 0]),
            ("scaled", pre.StandardScaler(), [1]),
        ],
        remainder="passthrough",
        transformer_weights={"scaled": 2.0},
    )
    return {
        "scaled_forest": (pipe(pre.StandardScaler(), forest), X, TWO),
        "components_forest": (pipe(impute.SimpleImputer(), decomposition.PCA(3), forest), HOLES, THREE),
        "imputed": (pipe(impute.SimpleImputer(strategy="median", add_indicator=True), logistic), SOME, TWO),
        "imputed_marker": (
            pipe(impute.SimpleImputer(missing_values=0, fill_value=7, strategy="constant"), logistic),
            SORTS,
            TWO,
        ),
        "ada_regression": (e.AdaBoostRegressor(**few), X, SCORE),
        "ada_linear_regression": (e.AdaBoostRegressor(lm.Ridge(), **few), X, SCORE),
        "ada_linear": (e.AdaBoostClassifier(logistic, **few), X, TWO),
        "ada_linear_three": (e.AdaBoostClassifier(logistic, **few), X, THREE),
        "bagging_linear": (e.BaggingClassifier(logistic, **few, max_features=0.5), X, THREE),
        "bagging_svc": (e.BaggingClassifier(svm.LinearSVC(), **few), X, THREE),
        "bagging_regression": (e.BaggingRegressor(lm.Ridge(), **few), X, SCORE),
        "isotonic": (calibrated(naive_bayes.GaussianNB(), method="isotonic", cv=2), X, TWO),
        "isotonic_line": (calibrated(svm.LinearSVC(), method="isotonic", cv=2), X, TWO),
        "isotonic_three": (calibrated(forest, method="isotonic", cv=2), X, THREE),
        "sigmoid": (calibrated(forest, cv=2), X, TWO),
        "sigmoid_svc": (calibrated(svm.LinearSVC(), cv=3), X, THREE),
        "temperature": (calibrated(logistic, method="temperature", cv=2), X, TWO),
        # (labels from 0 on: scikit-learn 1.9.1 takes them for indices there)
        "temperature_three": (calibrated(forest, method="temperature", cv=2), X, THREE // 10),
        "voting": (e.VotingClassifier(pair, voting="soft", weights=[1, 3]), X, THREE),
        "stacking": (e.StackingClassifier(pair, cv=2), X, TWO),
        "stacking_three": (e.StackingClassifier(pair, cv=2, passthrough=True), X, THREE),
        "stacking_predict": (e.StackingClassifier(pair, cv=2, stack_method="predict"), X, THREE),
        "stacking_regression": (
            e.StackingRegressor([("a", lm.Ridge()), ("b", tree.DecisionTreeRegressor(max_depth=4))], cv=2),
            X,
            SCORE,
        ),
        "svc": (svm.SVC(), X, TWO),
        "svc_three": (svm.SVC(kernel="poly"), X, THREE),
        "svc_pairs": (svm.SVC(decision_function_shape="ovo"), X, THREE),
        "svc_sigmoid": (svm.NuSVC(kernel="sigmoid", nu=0.1), X, TWO),
        "neighbours": (neighbors.KNeighborsClassifier(4), X, THREE),
        "neighbours_distance": (neighbors.KNeighborsClassifier(3, weights="distance"), X, TWO),
        "neighbours_manhattan": (neighbors.KNeighborsRegressor(4, weights="distance", p=1), X, SCORE),
        "neighbours_brute": (neighbors.KNeighborsRegressor(2, algorithm="brute"), X, SCORE),
        "bernoulli": (naive_bayes.BernoulliNB(binarize=0.1), X, THREE),
        "columns": (pipe(columns, forest), SORTS, THREE),
        "one_hot_drop": (
            pipe(
                compose.ColumnTransformer([("k", pre.OneHotEncoder(drop="first", sparse_output=False), slice(2, 3))]),
                logistic,
            ),
            SORTS,
            TWO,
        ),
        "ordinal": (
            pipe(
                compose.ColumnTransformer(
                    [
                        (
                            "k",
                            pre.OrdinalEncoder(
                                handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
                            ),
                            [1, 3],
                        )
                    ]
                ),
                forest,
            ),
            CATEGORIES,
            TWO,
        ),
        "bins": (pipe(pre.KBinsDiscretizer(4, encode="onehot"), logistic), X, TWO),
        "bins_ordinal": (pipe(pre.KBinsDiscretizer(4, encode="ordinal", strategy="uniform"), logistic), X, TWO),
        "binarizer": (pipe(pre.Binarizer(threshold=0.2), logistic), X, TWO),
        "quantile": (pipe(pre.QuantileTransformer(n_quantiles=20), logistic), X, TWO),
        "quantile_normal": (
            pipe(pre.QuantileTransformer(n_quantiles=20, output_distribution="normal"), logistic),
            X,
            TWO,
        ),
        "quantile_equal": (
            pipe(pre.QuantileTransformer(n_quantiles=20, output_distribution="normal"), logistic),
            SORTS,
            TWO,
        ),
        "log1p": (pipe(pre.FunctionTransformer(np.log1p), pre.FunctionTransformer(None), logistic), POSITIVE, TWO),
        "functions": (
            pipe(*(pre.FunctionTransformer(f) for f in (np.arcsinh, np.tanh, np.expm1, np.cbrt, np.square)), logistic),
            X,
            TWO,
        ),
    }


def rows(name: str, data: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows like `data`, in float32 numbers: new mixtures of its columns, some moved by a rounding, with its holes.

    A few lie far outside, or are no known category.
    """
    random = np.random.default_rng(seed)
    x = np.stack([random.choice(column, count) for column in data.T], axis=1).astype(np.float32)
    moved = np.nextafter(x, random.choice(np.array([-np.inf, np.inf], np.float32), x.shape))
    kinds = name.startswith(("columns", "one_hot", "ordinal", "imputed_marker"))
    if kinds:
        unknown = 0.02 if name.startswith(("columns", "ordinal")) else 0
        return np.where(random.random(x.shape) < unknown, 77, x).astype(np.float32)
    x = np.where(random.random(x.shape) < 0.3, moved, x)
    return np.where(random.random(x.shape) < 0.05, 5 * x, x).astype(np.float32)


def finite(x: np.ndarray) -> np.ndarray:
    """The same rows without infinities, which scikit-learn refuses; a split on NaN alone has an infinite threshold."""
    largest = np.finfo(np.float32).max
    return np.clip(x, -largest, largest)


__all__ = ["deciding", "finite", "forests", "histograms", "rows", "smooth"]
