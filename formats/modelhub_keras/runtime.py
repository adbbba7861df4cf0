"""Keras itself as the referee of a check: Keras 3 with any backend, tf_keras where it is installed for older files.

Precision is chosen by rewriting the dtypes in a copy of the configuration before loading: weights of float32 are exact
in float64. In the same copy, sequence inputs whose number of steps no layer needs lose their fixed length.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import Inconclusive, ModelhubError, UnreadableFile, safe_text
from modelhub_keras import BACKENDS
from modelhub_keras.adapted import rebuild
from modelhub_keras.archive import KerasFile, architecture, open_file
from modelhub_keras.inside import overheard
from modelhub_keras.merging import OR_SINCE
from modelhub_keras.reader import survey
from modelhub_keras.rewriting import rewritten

if TYPE_CHECKING:
    from modelhub.graph.interface import Interface
    from modelhub.protocols import Arrays, ReadOptions

__all__ = ["KerasEngine", "load"]

ADAPTED = "keras (config adapted)"
"""The engine's name where the model was rebuilt."""


def load(path: Path, interface: Interface, precision: str, options: ReadOptions) -> KerasEngine:
    """The model in `path` as Keras runs it. Raises `Inconclusive` where Keras cannot."""
    try:
        with open_file(path, options.weights) as file:
            free, joins_masks = survey(file)
            model, library, name = _model(path, file, precision, free, joins_masks, options)
            if precision == "float64" and not _computes_in_double(library):
                raise Inconclusive(f"{name} multiplies matrices in float32 with this backend, whatever the dtype")
            if precision == "float64" and "gelu" in json.dumps(file.config).lower() and not _exact_gelu(library):
                raise Inconclusive(f"{name} has the constants of gelu in float32 with this backend, whatever the dtype")
    except UnreadableFile:
        raise
    except ModelhubError as error:
        raise error if isinstance(error, Inconclusive) else Inconclusive(str(error)) from None
    return KerasEngine(model, library, name, precision, interface)


class KerasEngine:
    """A Keras model ready to run."""

    def __init__(self, model: Any, library: Any, name: str, precision: str, interface: Interface) -> None:
        self.name = name
        self.version = str(library.__version__)
        self.precision = precision
        self._model = model
        self._library = library
        self._interface = interface

    def __call__(self, arrays: Arrays) -> dict[str, NDArray[np.generic]]:
        """Outputs for a batch of events; raw inputs are scaled here, as the file knows nothing of the interface."""
        outputs = self._run(arrays)
        if any(y.dtype.kind == "f" and y.dtype.name != self.precision for y in outputs):
            raise Inconclusive(f"{self.name} computed in {outputs[0].dtype}, not in {self.precision}")
        return {record.tensor: y for record, y in zip(self._interface.outputs, outputs, strict=True)}

    def layers(self, arrays: Arrays, wanted: Container[str]) -> list[tuple[str, NDArray[np.generic]]]:
        """What the layers in `wanted` compute, in the order in which they run, those left out that run repeatedly."""
        found: dict[str, list[NDArray[np.generic]]] = {}

        def take(name: str, tensor: Any) -> None:
            if name in wanted:
                found.setdefault(name, []).append(_numpy(self._library, tensor).copy())

        kind = self._library.layers.Layer if self.name == ADAPTED else object  # rebuilt operations get names anew
        with overheard(self._library, self._model, take, kind):
            self._run(arrays)
        return [(name, results[0]) for name, results in found.items() if len(results) == 1]

    def _run(self, arrays: Arrays) -> list[NDArray[np.generic]]:
        ready = self._interface.prepare(arrays, self.precision)
        wanted = [_dtype(tensor.dtype) for tensor in self._model.inputs]
        xs = [
            np.asarray(ready[record.tensor], dtype=self.precision if dtype.startswith("float") else dtype)
            for record, dtype in zip(self._interface.inputs, wanted, strict=True)
        ]
        try:
            with _floats(self._library, self.precision):
                results = _flat(self._model(_packed(self._model, xs), training=False))
                return [_numpy(self._library, result) for result in results]
        except Exception as error:
            raise Inconclusive(f"{self.name} does not compute this: {_first_line(error)}") from error


def _model(
    path: Path, file: KerasFile, precision: str, free: frozenset[str], joins_masks: bool, options: ReadOptions
) -> tuple[Any, Any, str]:
    """The model, the library that runs it, and what to call the engine.

    Keras 3 loads its own files, and older ones in which nothing changed its meaning. Whatever it cannot load, or would
    load wrongly, is rebuilt layer by layer from the configuration: that is said in the engine's name.
    """
    problems: list[str] = []
    if file.version < (3,) and find_spec("tf_keras") is not None:
        library = _import("tf_keras")
        try:
            return _loaded(library, path, precision, free, options), library, "tf_keras"
        except Exception as error:
            problems.append(f"tf_keras: {_first_line(error)}")
    if joins_masks and file.version < OR_SINCE:
        problems.append("Keras joins masks otherwise since 3.4")
        raise Inconclusive(f"{path}: Keras cannot run this file ({'; '.join(problems)})")
    library = _keras()
    reason = _changed_meaning(file)
    if reason is None:
        try:
            return _loaded(library, path, precision, free, options), library, "keras"
        except Exception as error:
            reason = _first_line(error)
    problems.append(f"keras {library.__version__}: {reason}")
    try:
        with _floats(library, precision):
            return rebuild(library, file, precision, free), library, ADAPTED
    except Exception as error:
        problems.append(f"rebuilt: {_first_line(error)}")
    raise Inconclusive(f"{path}: Keras cannot run this file ({'; '.join(problems)})")


def _changed_meaning(file: KerasFile) -> str | None:
    """Why Keras 3 would load this file without complaint, and compute something else."""
    if file.version >= (3,):
        return None
    if "hard_sigmoid" in json.dumps(file.config):
        return "hard_sigmoid means another function since Keras 3"
    if file.backend == "theano":
        return "Keras 3 does not turn round the kernels that Theano saved"
    if file.version < (2,):
        return "the file is of Keras 1"
    return None


def _keras() -> Any:
    """Keras 3, with the backend the user chose, else one that is there."""
    if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ and find_spec("tensorflow") is None:
        os.environ["KERAS_BACKEND"] = next(name for name in BACKENDS if find_spec(name) is not None)
    library = _import("keras")
    if not str(library.__version__).startswith("3"):
        raise Inconclusive(f"keras {library.__version__} is installed; the check needs Keras 3")
    return library


def _import(name: str) -> Any:
    """Import a library built on TensorFlow without the page of remarks its C++ part writes to stderr at start-up."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a file
        os.dup2(nowhere.fileno(), 2)
        try:
            return import_module(name)
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _loaded(library: Any, path: Path, precision: str, free: frozenset[str], options: ReadOptions) -> Any:
    """The model by the library's own loader, from a copy with the configuration rewritten."""
    config = rewritten(architecture(path), precision, free)
    trusting = {"safe_mode": False} if options.trust else {}
    with tempfile.TemporaryDirectory(prefix="modelhub-") as folder, _floats(library, precision):
        copy = Path(folder) / path.name
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
                for name in old.namelist():
                    new.writestr(name, json.dumps(config) if name == "config.json" else old.read(name))
            return library.models.load_model(copy, compile=False, **trusting)
        if options.weights is not None:
            model = library.models.model_from_json(json.dumps(config))
            model.load_weights(options.weights)
            return model
        import h5py

        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(config)
        return library.models.load_model(copy, compile=False, **trusting)


def _computes_in_double(library: Any) -> bool:
    """Whether a product of float64 matrices is one: Keras 3.15 on torch rounds it to float32 without a word."""
    x = np.random.default_rng(0).standard_normal((8, 8))
    ops = getattr(library, "ops", None)
    if ops is None:  # tf_keras is TensorFlow alone
        return True
    with _floats(library, "float64"):
        layer = library.layers.Dense(8, use_bias=False, dtype="float64")
        layer.build((None, 8))
        layer.set_weights([x])
        product = _numpy(library, layer(ops.convert_to_tensor(x, dtype="float64")))
    return bool(np.allclose(product, x @ x, rtol=1e-13, atol=1e-13))


def _exact_gelu(library: Any) -> bool:
    """Whether gelu of float64 numbers is one, by either formula: TensorFlow rounds its constants to float32."""
    x = np.linspace(-3, 3, 13)
    curve = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])
    other = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    convert = library.ops.convert_to_tensor if hasattr(library, "ops") else np.asarray
    return all(
        np.allclose(_numpy(library, library.activations.gelu(convert(x), approximate=near)), wanted, rtol=1e-12, atol=0)
        for near, wanted in ((False, curve), (True, other))
    )


@contextmanager
def _floats(library: Any, precision: str) -> Iterator[None]:
    """Let layers that name no dtype, and Keras's own casts, use `precision`."""
    settings = getattr(library, "config", None)
    if settings is None or not hasattr(settings, "set_floatx"):
        settings = library.backend
    before = settings.floatx()
    # Keras 3 makes its policy of the float type of the moment when it is first asked for it, and keeps it from then on.
    policy = settings.dtype_policy() if hasattr(settings, "set_dtype_policy") else None
    settings.set_floatx(precision)
    if policy is not None:
        settings.set_dtype_policy(precision)
    try:
        yield
    finally:
        settings.set_floatx(before)
        if policy is not None:
            settings.set_dtype_policy(policy)


def _packed(model: Any, xs: list[NDArray[Any]]) -> Any:
    """Inputs in the structure the model was made with: one, a list, or a table by sorted names."""
    struct = getattr(model, "_inputs_struct", None)
    if isinstance(struct, dict):
        return dict(zip(sorted(struct), xs, strict=True))
    return xs[0] if len(xs) == 1 else xs


def _flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):
        return [leaf for key in sorted(outputs) for leaf in _flat(outputs[key])]
    if isinstance(outputs, list | tuple):
        return [leaf for part in outputs for leaf in _flat(part)]
    return [outputs]


def _numpy(library: Any, tensor: Any) -> NDArray[np.generic]:
    ops = getattr(library, "ops", None)
    return np.asarray(ops.convert_to_numpy(tensor) if ops is not None else tensor.numpy())


def _dtype(dtype: Any) -> str:
    """A dtype's name, from Keras 3's texts or TensorFlow's objects."""
    return str(getattr(dtype, "name", dtype))


def _first_line(error: Exception) -> str:
    """What an engine complains of, on one line."""
    lines = [line.strip() for line in str(error).replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()]
    told = [line for line in lines if line and not line.startswith(("Exception encountered", "Arguments received"))]
    return safe_text(told[0] if told else type(error).__name__, 200)
