"""The three kinds of Keras file: `.keras` archives, whole-model HDF5, and architecture JSON with weights HDF5."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelhub.errors import UnreadableFile, Unsupported, UsageError, safe_text
from modelhub.files import LIMITS, Archive, head, parse_json, read_bytes
from modelhub_keras.config import Layer, Network, parse_network
from modelhub_keras.hdf5 import SIGNATURE, Hdf5
from modelhub_keras.weights import Weights, named, paths

__all__ = ["WEIGHTS", "KerasFile", "architecture", "open_file"]

WEIGHTS = "model.weights.h5"
"""The member of a `.keras` archive that holds the weights."""

NEWEST = (3, 15)
"""What a file of Keras 3 without a version number is taken for: `to_json` and `save_weights` write none."""


@dataclass(frozen=True)
class KerasFile:
    """A file once it is open: the topology, and where the weights are."""

    where: str
    config: dict[str, Any]
    network: Network
    weights: Weights
    version: tuple[int, ...]
    backend: str | None
    precision: str
    notices: list[str] = field(default_factory=list)


@contextmanager
def open_file(path: Path, weights: Path | None) -> Iterator[KerasFile]:
    """The Keras model at `path`, for as long as the block lasts."""
    start = head(path, len(SIGNATURE))
    if start[:2] == b"PK":
        _alone(path, weights, "a .keras archive")
        with Archive(path) as archive:
            metadata = archive.json("metadata.json") if "metadata.json" in archive else {}
            config = archive.json("config.json")
            if WEIGHTS not in archive:
                held = ", ".join(safe_text(name) for name in archive.names[:6])
                raise UnreadableFile(f"{path}: the archive has no {WEIGHTS} (it holds {held})")
            data = archive.read(WEIGHTS)
        said = metadata.get("keras_version") if isinstance(metadata, dict) else None
        with Hdf5(data, f"{path}, {WEIGHTS}") as store:
            yield _opened(str(path), config, store, "", said)
    elif start == SIGNATURE:
        with Hdf5(path, str(path)) as store:
            text = store.text("model_config")
            if text is None:
                raise UsageError(
                    f"{path} holds weights only: give the architecture JSON as the file, and this one with --weights"
                )
            _alone(path, weights, "a whole model")
            config = parse_json(text.encode(), f"{path}@model_config")
            yield _opened(str(path), config, store, "model_weights", store.text("keras_version"))
    elif start.lstrip()[:1] in (b"{", b'"', b"\xef"):
        if weights is None:
            raise UsageError(
                f"{path} is an architecture without weights: add the weights file with --weights weights.h5"
            )
        config = _json(path)
        if head(weights, len(SIGNATURE)) != SIGNATURE:
            raise UsageError(f"{weights} is no HDF5 file; --weights takes what Keras's save_weights writes")
        with Hdf5(weights, str(weights)) as store:
            root = "model_weights" if store.has("model_weights") else ""
            yield _opened(str(path), config, store, root, config.get("keras_version"))
    else:
        raise UnreadableFile(f"{path}: neither a .keras archive, nor HDF5, nor JSON (begins with {safe_text(start)})")


def architecture(path: Path) -> dict[str, Any]:
    """The model configuration in a file of any kind."""
    start = head(path, len(SIGNATURE))
    if start[:2] == b"PK":
        with Archive(path) as archive:
            config = archive.json("config.json")
    elif start == SIGNATURE:
        with Hdf5(path, str(path)) as store:
            config = parse_json((store.text("model_config") or "").encode(), f"{path}@model_config")
    else:
        config = _json(path)
    if not isinstance(config, dict):
        raise UnreadableFile(f"{path}: an architecture is a JSON object with class_name and config")
    return config


def _alone(path: Path, weights: Path | None, what: str) -> None:
    if weights is not None:
        raise UsageError(f"{path} is {what} and has its weights; leave --weights out")


def _json(path: Path) -> dict[str, Any]:
    """The architecture; one that was saved as JSON inside a JSON string is met in the wild."""
    config = parse_json(read_bytes(path, LIMITS.json), str(path))
    if isinstance(config, str):
        config = parse_json(config.encode(), str(path))
    if not isinstance(config, dict):
        raise UnreadableFile(f"{path}: an architecture is a JSON object with class_name and config")
    return config


def _opened(where: str, config: Any, store: Hdf5, root: str, said: Any) -> KerasFile:
    if not isinstance(config, dict):
        raise UnreadableFile(f"{where}: an architecture is a JSON object with class_name and config")
    version = _version(said if said is not None else store.text("keras_version", root), config)
    said_backend = store.text("backend", root) or config.get("backend")
    try:
        network = parse_network(config, where)
    except RecursionError:
        raise UnreadableFile(f"{where}: nested too deeply") from None
    weights = named(store, root) or paths(store, network)
    if weights is None:
        raise UnreadableFile(f"{store.where}: no weights in any layout of Keras (neither layer_names nor layers)")
    notices: list[str] = []
    precision = _precision(network, where, notices)
    backend = said_backend if isinstance(said_backend, str) else None
    return KerasFile(where, config, network, weights, version, backend, precision, notices)


def _version(said: Any, config: dict[str, Any]) -> tuple[int, ...]:
    """The version of Keras as numbers. TensorFlow's own of 2019 (`2.2.4-tf`) counts as 2.4, which it became."""
    if isinstance(said, str) and (found := re.match(r"\d+(\.\d+)*", said)):
        numbers = tuple(int(part) for part in found[0].split("."))
        return max(numbers, (2, 4)) if said.endswith("-tf") else numbers
    if "module" in config:
        return NEWEST
    text = str(config)
    return (1, 2) if "'output_dim'" in text or "'nb_filter'" in text or "'W_regularizer'" in text else (2,)


def _precision(network: Network, where: str, notices: list[str]) -> str:
    """The precision all layers compute in, as their dtype or dtype policy says."""
    said, entrances = set(), set()
    for layer in _every(network):
        name = _dtype_name(layer.config.get("dtype"))
        if layer.kind == "InputLayer":
            entrances.add(name)
        elif name is not None:
            said.add(name)
    reals = {name for name in said if not re.fullmatch(r"u?int\d+|bool|string", name)}
    reals = reals or {name for name in entrances if name in ("float32", "float64")} or {"float32"}
    if reals == {"float64"}:
        return "float64"
    halves = reals - {"float32", "float64"}
    if not halves <= {"float16", "bfloat16", "mixed_float16", "mixed_bfloat16"}:
        raise Unsupported(f"{where}: the precision {safe_text(', '.join(sorted(halves)))} is not read")
    if "float64" in reals:
        raise Unsupported(
            f"{where}: some layers compute in float64, others in {', '.join(sorted(reals - {'float64'}))}"
        )
    if halves:
        notices.append(
            f"{where}: Keras computes this network in {', '.join(sorted(halves))}; the graph computes in float32, "
            f"which is more exact"
        )
    return "float32"


def _dtype_name(given: Any) -> str | None:
    """The name in a layer's `dtype`: a plain name, or a policy with one."""
    if isinstance(given, dict):
        config = given.get("config")
        given = config.get("name") if isinstance(config, dict) else None
    return given if isinstance(given, str) else None


def _every(network: Network) -> Iterator[Layer]:
    waiting = [network]
    while waiting:
        for layer in waiting.pop().layers.values():
            yield layer
            if layer.network is not None:
                waiting.append(layer.network)
