"""Where a layer's arrays lie: by name in the layout of Keras 1 and 2, by path in that of Keras 3.

Both hand out arrays in the order Keras creates a layer's weights, and check every shape before reading.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, safe_text
from modelhub_keras.config import Layer, Network
from modelhub_keras.hdf5 import Hdf5

__all__ = ["NamedWeights", "PathWeights", "Weights", "named", "paths"]

Shapes = dict[str, tuple[int, ...]]
Array = NDArray[np.generic]


class Weights(Protocol):
    """The arrays of one layer, or of all layers of a network."""

    def take(self, shapes: Shapes) -> list[Array]:
        """The arrays called so and shaped so, in this order: Keras's own order of this layer's weights.

        Raises `UnreadableFile` where the file holds more, fewer or differently shaped ones.
        """

    def all(self) -> list[Array]:
        """All arrays, as they are in the file."""

    def ranks(self) -> list[int]:
        """How many axes each array has, in order."""

    def part(self, name: str) -> Weights:
        """The arrays of a layer inside a layer: `cell`, `layer`, `forward_layer`, `query_dense`, ..."""

    def of(self, network: Network, layer: Layer) -> Weights:
        """The arrays of one layer of `network`, whose arrays these are."""


@dataclass
class NamedWeights:
    """The layout of `save_weights` before Keras 3: one group a top-level layer, its arrays in a flat list.

    entries: (name of the weight, its path) in the order of the attribute `weight_names`.
    (Keras 2: saving/hdf5_format.py, save_weights_to_hdf5_group.)
    """

    file: Hdf5
    entries: Sequence[tuple[str, str]]
    groups: dict[str, list[tuple[str, str]]] | None = None

    def take(self, shapes: Shapes) -> list[Array]:  # noqa: D102
        if len(self.entries) != len(shapes):
            raise UnreadableFile(
                f"{self.file.where}: the architecture asks for {len(shapes)} arrays ({', '.join(shapes) or 'none'}), "
                f"the file has {len(self.entries)} ({', '.join(safe_text(name) for name, _ in self.entries) or 'none'})"
            )
        by_role = {role: path for role in shapes for name, path in self.entries if _leaf_is(name, role)}
        if len(set(by_role.values())) == len(shapes):
            return [self.file.array(by_role[role], shape) for role, shape in shapes.items()]
        return [self.file.array(path, shape) for (_, path), shape in zip(self.entries, shapes.values(), strict=True)]

    def all(self) -> list[Array]:  # noqa: D102
        return [self.file.array(path, self.file.shape(path)) for _, path in self.entries]

    def ranks(self) -> list[int]:  # noqa: D102
        return [len(self.file.shape(path)) for _, path in self.entries]

    def part(self, name: str) -> Weights:  # noqa: D102
        half = len(self.entries) // 2
        if name == "forward_layer":
            return NamedWeights(self.file, self.entries[:half])
        if name == "backward_layer":
            return NamedWeights(self.file, self.entries[half:])
        if name in ("cell", "layer"):
            return self
        folder = "attention_output" if name == "output_dense" else name.removesuffix("_dense")
        return NamedWeights(self.file, [entry for entry in self.entries if entry[0].split("/")[-2:-1] == [folder]])

    def of(self, network: Network, layer: Layer) -> Weights:  # noqa: ARG002, D102
        if self.groups is not None:
            if layer.network is not None and layer.name not in self.groups:
                return self  # a branch of Keras 1's Merge, whose layers are listed among the others
            return NamedWeights(self.file, self.groups.get(layer.name, []))
        inside = [entry for entry in self.entries if _belongs(entry[0], layer.name)]
        # The names of weights in a network inside a network need not mention the inner network.
        return self if layer.network is not None and not inside else NamedWeights(self.file, inside)


OLD_ROLE = re.compile(r"(W|U|b)(_[a-z]+)?|gamma|beta|running_mean|running_std|alphas|p|q")
"""How Keras 1 ends the name of a weight, after the layer's name and an underscore."""


def _leaf(name: str) -> str:
    """The last part of a weight's name: `kernel` of `dense_1/kernel:0`."""
    return name.rsplit("/", 1)[-1].split(":", 1)[0]


def _leaf_is(name: str, role: str) -> bool:
    """Whether a weight plays `role`: `kernel` in `dense_1/kernel:0`, `W_i` in Keras 1's `lstm_1_W_i`."""
    leaf = _leaf(name)
    return leaf == role or (OLD_ROLE.fullmatch(role) is not None and leaf.endswith(f"_{role}"))


def _belongs(name: str, layer: str) -> bool:
    """Whether a weight's name places it in `layer`: `inner/dense_1/kernel:0`, or Keras 1's `dense_1_W`."""
    if layer in name.split("/")[:-1]:
        return True
    leaf = _leaf(name)
    return leaf.startswith(f"{layer}_") and OLD_ROLE.fullmatch(leaf[len(layer) + 1 :]) is not None


def named(file: Hdf5, root: str) -> NamedWeights | None:
    """The weights in a file of Keras 1 or 2, None where `root` holds no such layout."""
    layers = file.texts("layer_names", root)
    if layers is None:
        return None
    groups = {}
    for layer in layers:
        if layer in groups:
            raise UnreadableFile(f"{file.where}: the layer {safe_text(layer)!r} is listed twice")
        path = f"{root}/{layer}"
        groups[layer] = [(name, f"{path}/{name}") for name in file.texts("weight_names", path) or []]
    return NamedWeights(file, [], groups)


OLD_CONTAINER = "_layer_checkpoint_dependencies"


@dataclass
class PathWeights:
    """The layout of Keras 3: `layers/dense_1/vars/0`, where `dense_1` is the second Dense of its network.

    (Keras 3: saving/saving_lib.py, _save_state and _save_container_state; Keras 2.12 to 2.15 wrote nearly the same.)
    """

    file: Hdf5
    path: str = ""
    first: dict[int | None, str] = field(default_factory=dict)
    """Where the layers lie that several networks share, by the number they have in common."""

    def take(self, shapes: Shapes) -> list[Array]:  # noqa: D102
        have = self.file.names(f"{self.path}/vars")
        if sorted(have) != sorted(str(index) for index in range(len(shapes))):
            raise UnreadableFile(
                f"{self.file.where}, {safe_text(self.path, 200)}: the architecture asks for {len(shapes)} arrays "
                f"({', '.join(shapes) or 'none'}), the file has {len(have)}"
            )
        return [self.file.array(f"{self.path}/vars/{index}", shape) for index, shape in enumerate(shapes.values())]

    def all(self) -> list[Array]:  # noqa: D102
        places = [f"{self.path}/vars/{index}" for index in range(len(self.file.names(f"{self.path}/vars")))]
        return [self.file.array(place, self.file.shape(place)) for place in places]

    def ranks(self) -> list[int]:  # noqa: D102
        count = len(self.file.names(f"{self.path}/vars"))
        return [len(self.file.shape(f"{self.path}/vars/{index}")) for index in range(count)]

    def part(self, name: str) -> Weights:  # noqa: D102
        for candidate in (f"{self.path}/{name}", f"{self.path}/_{name}"):
            if self.file.has(candidate):
                return PathWeights(self.file, candidate, self.first)
        return PathWeights(self.file, f"{self.path}/{name}", self.first)

    def of(self, network: Network, layer: Layer) -> Weights:  # noqa: D102
        if layer.shared in self.first:
            return PathWeights(self.file, self.first[layer.shared], self.first)
        return PathWeights(self.file, f"{self.path}/{self.container}/{network.places[layer.name]}", self.first)

    @property
    def container(self) -> str:
        """What the list of layers is called: Keras 2.12 and 2.13 had another name for it."""
        return OLD_CONTAINER if self.file.has(f"{self.path}/{OLD_CONTAINER}") else "layers"


def paths(file: Hdf5, network: Network) -> PathWeights | None:
    """The weights of `network` in a file of Keras 3, None where the file has no such layout."""
    if not file.has("layers") and not file.has(OLD_CONTAINER):
        return None
    weights = PathWeights(file)
    waiting = [("", network)]
    while waiting:  # depth first, in the order Keras saves: what is shared lies where it comes first
        path, inner = waiting.pop()
        folder = f"{path}/{PathWeights(file, path).container}"
        nested = []
        for layer in inner.layers.values():
            place = f"{folder}/{inner.places.get(layer.name, '')}"
            if layer.shared in weights.first:
                continue
            if layer.shared is not None:
                weights.first[layer.shared] = place
            if layer.network is not None:
                nested.append((place, layer.network))
        waiting += reversed(nested)
    return weights
