"""scikit-learn as the reference engine, in float64; in float32 where XGBoost computes a part of the model.

A `.skops` file is read and checked by our own reader first, and then built by skops with nothing trusted beyond the
classes that a model of our table needs: trees whose nodes are sound cannot lead scikit-learn out of its memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelhub.errors import Inconclusive, safe_text
from modelhub.files import head
from modelhub.protocols import ReadOptions
from modelhub_sklearn import reader
from modelhub_sklearn.estimator import Estimator
from modelhub_sklearn.pickles import unpickled
from modelhub_sklearn.table import known, method_of
from modelhub_sklearn.wrapped import SINGLE, check_engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelhub.graph.interface import Interface
    from modelhub.protocols import Arrays, Engine

__all__ = ["load"]

TRUSTED = {
    "collections.OrderedDict",
    "functools.partial",
    "numpy.dtype",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.preprocessing._function_transformer._identity",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",
}
"""What skops does not build unasked, and estimators of our table hold.

Not the search trees of nearest neighbours: compiled code follows their indices, and no reader of ours looks at those.
"""


def load(path: Path, interface: Interface, precision: str, options: ReadOptions) -> Engine:
    """The estimator in `path`. Raises `Inconclusive` where scikit-learn cannot load it."""
    import sklearn

    data = reader.load(path, options)
    single = sorted({inside.short for inside in data.walk() if inside.name in SINGLE})
    if precision != ("float32" if single else "float64"):
        why = f"{single[0]} inside computes in float32" if single else "scikit-learn computes in float64"
        raise Inconclusive(f"{why}, not in {precision}")
    reader.graph(data)  # finds every index in range
    check_engine(data)
    method = method_of(data)
    estimator = _built(path) if head(path).startswith(b"PK\x03\x04") else unpickled(path)
    names = reader.names_of(data)[0] if _chooses_by_name(data) else None
    return _Engine(estimator, interface, method, names, sklearn.__version__, precision)


def _chooses_by_name(data: Estimator) -> bool:
    """Whether a ColumnTransformer inside finds its columns by their names."""
    for inside in data.walk():
        if inside.short == "ColumnTransformer":
            columns = [item[2] for item in inside.items("transformers") if isinstance(item, tuple) and len(item) == 3]
            firsts = [column[0] if isinstance(column, list) and column else column for column in columns]
            if any(isinstance(first, str) for first in firsts):
                return True
    return False


def _built(path: Path) -> Any:
    """The estimator in a skops file, built by skops."""
    try:
        import skops.io
    except ImportError:
        raise Inconclusive(f'{path}: to run it takes skops: pip install "modelhub-hep[sklearn]"') from None
    allowed = TRUSTED | set(known())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            strange = sorted(set(skops.io.get_untrusted_types(file=path)) - allowed)
            if not strange:
                return skops.io.load(path, trusted=sorted(allowed))
    except Exception as error:
        raise Inconclusive(
            f"{path}: skops cannot build it here ({type(error).__name__}: {safe_text(error, 120)}); "
            "was it written by another scikit-learn?"
        ) from None
    raise Inconclusive(f"{path} holds {safe_text(', '.join(strange), 160)}, which is not built from a file")


@dataclass
class _Engine:
    estimator: Any
    interface: Interface
    method: str
    names: list[str] | None
    """The columns, where scikit-learn wants a table with names."""
    version: str
    precision: str
    name: str = "scikit-learn"

    def __call__(self, arrays: Arrays) -> Arrays:
        y = self._asked(lambda x: getattr(self.estimator, self.method)(x), arrays)
        if self.method == "predict" and hasattr(self.estimator, "classes_"):
            y = np.asarray(y)[:, np.newaxis] == np.asarray(self.estimator.classes_)
        parts = y if isinstance(y, list) else [y.toarray() if hasattr(y, "toarray") else y]
        return {
            output.tensor: np.asarray(part, self.precision).reshape(len(part), -1)
            for output, part in zip(self.interface.outputs, parts, strict=True)
        }

    def leaves(self, arrays: Arrays) -> NDArray[np.int64]:
        """The node [events, trees] each event ends in, by `apply` of the estimator itself or of its trees."""
        ends = np.asarray(self._asked(self._apply(), arrays))
        return ends.reshape(len(ends), -1).astype(np.int64)

    def _apply(self) -> Callable[[Any], Any]:
        """What makes of rows the nodes they end in. Raises `Inconclusive` where the estimator is not made of trees."""
        if hasattr(self.estimator, "apply"):
            apply: Callable[[Any], Any] = self.estimator.apply
            return apply
        trees = list(getattr(self.estimator, "estimators_", []))
        if not trees or not all(hasattr(tree, "tree_") for tree in trees):
            raise Inconclusive(f"{type(self.estimator).__name__} does not tell leaves")
        columns = getattr(self.estimator, "estimators_features_", [slice(None)] * len(trees))
        return lambda x: np.stack([t.apply(x[:, c]) for t, c in zip(trees, columns, strict=True)], axis=1)

    def _asked(self, method: Callable[[Any], Any], arrays: Arrays) -> Any:
        """What a method of the estimator says of the rows."""
        x = self.interface.prepare(arrays, "float64")[self.interface.inputs[0].tensor]
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # names it was fitted with, divisions by zero
                return method(self._rows(np.asarray(x, np.float64)))
        except Exception as error:
            raise Inconclusive(f"scikit-learn refuses the rows: {safe_text(error, 160)}") from None

    def _rows(self, x: NDArray[np.float64]) -> Any:
        """The rows as the estimator wants them."""
        if self.names is None:
            return x
        try:
            import pandas
        except ImportError:
            raise Inconclusive(
                "the model finds its columns by name; to run it takes pandas: pip install pandas"
            ) from None
        return pandas.DataFrame(x, columns=self.names)
