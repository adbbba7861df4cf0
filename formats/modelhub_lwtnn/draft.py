"""A network on its way to lwtnn: lwtnn's nodes, and some of our own that live until they are folded away.

`lowering.py` drafts one node for each ONNX operator and thinks no further; `folding.py` then joins what lwtnn can
say in one layer and spells the rest. So every rule of either is a few lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from modelhub.graph.interface import Input, Output
from modelhub_lwtnn import schema
from modelhub_lwtnn.schema import Activation, Array, Dense

__all__ = ["LINEAR", "Affine", "Default", "Draft", "Layer", "Step", "affine", "only_activation"]

LINEAR = Activation("linear")


@dataclass(frozen=True, eq=False)
class Affine:
    """(x + offset) * scale + shift, feature by feature; all [n]."""

    offset: Array
    scale: Array
    shift: Array

    def plus(self, other: Affine) -> Affine:
        """`other` after this one. A sum before any product stays an offset, so that no digit of it is lost."""
        if not self.shift.any() and (self.scale == 1).all():
            return Affine(self.offset + other.offset, other.scale, other.shift)
        return Affine(self.offset, self.scale * other.scale, (self.shift + other.offset) * other.scale + other.shift)

    def only_scales(self) -> bool:
        """Whether nothing is added: such a layer goes into the weights after it without loss of digits."""
        return not self.offset.any() and not self.shift.any()

    def without_shift(self) -> tuple[Array, Array] | None:
        """Offset and scale of the same function as (x + offset) * scale; None where a scale of 0 forbids it."""
        with np.errstate(all="ignore"):
            offset = np.where(self.shift == 0, self.offset, self.offset + self.shift / self.scale)
        return (offset, self.scale) if np.isfinite(offset).all() else None


def affine(width: int, offset: Array | float = 0.0, scale: Array | float = 1.0, shift: Array | float = 0.0) -> Affine:
    """An `Affine` of `width` features from numbers or arrays [width]."""
    columns = (np.broadcast_to(np.asarray(part, dtype=np.float64), width).copy() for part in (offset, scale, shift))
    return Affine(*columns)


@dataclass(frozen=True, eq=False)
class Default:
    """values [n] where the input is NaN; a NaN in `values` leaves it as it is."""

    values: Array


Layer = schema.Layer | Affine | Default


def only_activation(layer: Layer | None) -> Activation | None:
    """The activation of a layer that is nothing else."""
    if isinstance(layer, Dense) and layer.weights is None and layer.bias is None:
        return layer.activation
    return None


@dataclass(frozen=True, eq=False)
class Step:
    """One drafted node.

    kind:    lwtnn's node type, or "last" for the last step in time of a sequence.
    sources: numbers of other steps; none for inputs.
    width:   features that come out.
    origin:  the ONNX node it stands for, as told to the user.
    layer:   for feed_forward, time_distributed and sequence.
    length:  the number of steps in time where it is fixed.
    entrance: for input and input_sequence, offset, scale and default in one `Entrance`.
    """

    kind: str
    sources: tuple[int, ...]
    width: int
    origin: str
    layer: Layer | None = None
    length: int | None = None
    entrance: Entrance | None = None


@dataclass(frozen=True, eq=False)
class Entrance:
    """What happens to an input before the network: NaN -> default, then (x + offset) * scale. NaN: no default."""

    record: Input
    dtype: np.dtype[np.generic]
    default: Array
    offset: Array
    scale: Array


@dataclass
class Draft:
    """Steps in an order in which every source comes before its user, and the outputs."""

    steps: list[Step] = field(default_factory=list)
    outputs: list[tuple[Output, int]] = field(default_factory=list)

    def add(self, step: Step) -> int:
        """Append a step; its number."""
        self.steps.append(step)
        return len(self.steps) - 1
