"""What a layer's function gets to work with, and the table it is entered in.

    @layer("Dense", pointwise=True)
    def dense(step: Step, x: Tensor) -> Tensor:
        ...

A function takes the layer's input tensors and returns its output tensor, or a list of them. It asks for its options and
weights through `step`, writes operators through `step.b`, and refuses by `step.refuse`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.graph.builder import Builder
from modelhub_keras.config import Layer
from modelhub_keras.options import Options
from modelhub_keras.weights import Weights

if TYPE_CHECKING:
    from modelhub_keras.reader import Walk

__all__ = [
    "LARGEST",
    "LAYERS",
    "Dim",
    "Entry",
    "Lengths",
    "NeedsLength",
    "Step",
    "Tensor",
    "is_order",
    "layer",
    "numbered",
    "single",
]

LARGEST = 1 << 24
"""No axis is longer: architectures may claim any length where no array has to be there."""

Dim = int | str
"""The length of an axis: a number, or the name of a symbol."""


@dataclass(frozen=True)
class Tensor:
    """A value of the graph, with its shape ("N" first), numpy kind ("f", "i" or "b") and Keras mask [N, T], if any."""

    value: ir.Value
    shape: tuple[Dim, ...]
    kind: str = "f"
    mask: ir.Value | None = None

    @property
    def rank(self) -> int:
        """How many axes, that of events among them."""
        return len(self.shape)

    @property
    def width(self) -> Dim:
        """The length of the last axis."""
        return self.shape[-1]


def numbered(layer: str, index: int) -> str:
    """What the result number `index` of a layer is called where results are held side by side (`modelhub diff`)."""
    return f"{layer}:{index}" if index else layer


class NeedsLength(Exception):
    """A layer needs the number of steps as a number: the inputs named here must keep their fixed length."""

    def __init__(self, inputs: frozenset[str]) -> None:
        self.inputs = inputs


@dataclass(frozen=True)
class _Origin:
    """Where a symbol comes from: the inputs behind it, and how many steps of its parent give `n` of it."""

    inputs: frozenset[str]
    parent: str | None = None
    needs: Callable[[int], int] = lambda n: n


class Lengths:
    """The symbols that stand for numbers of steps, and how many steps each input must have at least."""

    def __init__(self) -> None:
        self._origins: dict[str, _Origin] = {}
        self.least: dict[str, int] = {}

    def root(self, name: str) -> str:
        """The symbol for the steps of the input called `name`."""
        symbol = f"T_{name}"
        self._origins[symbol] = _Origin(frozenset([name]))
        return symbol

    def derived(self, parents: Sequence[Dim], needs: Callable[[int], int] = lambda n: n) -> str:
        """A symbol for a length computed from others; `needs(n)` steps of the first give `n` of it."""
        symbols = [parent for parent in parents if isinstance(parent, str)]
        inputs = frozenset().union(*(self.inputs(symbol) for symbol in symbols))
        symbol = f"L{len(self._origins)}"
        self._origins[symbol] = _Origin(inputs, symbols[0], needs)
        return symbol

    def inputs(self, symbol: Dim) -> frozenset[str]:
        """The inputs whose lengths `symbol` depends on."""
        origin = self._origins.get(symbol) if isinstance(symbol, str) else None
        return origin.inputs if origin else frozenset()

    def require(self, symbol: Dim, steps: int) -> None:
        """Note that there must be at least `steps` steps of `symbol`."""
        while isinstance(symbol, str) and symbol in self._origins:
            origin = self._origins[symbol]
            if origin.parent is None:
                for name in origin.inputs:
                    self.least[name] = max(steps, self.least.get(name, 0))
                return
            symbol, steps = origin.parent, origin.needs(steps)


class Step:
    """One call of one layer."""

    def __init__(self, walk: Walk, layer: Layer, weights: Weights, kwargs: dict[str, Any] | None = None) -> None:
        self.walk = walk
        self.b: Builder = walk.b
        self.layer = layer
        self.kwargs = kwargs or {}
        self.all_weights = weights
        self.options = Options(layer.config, layer.where)

    @property
    def version(self) -> tuple[int, ...]:
        """The Keras that wrote the file, e.g. ``(2, 2, 4)``."""
        return self.walk.version

    @property
    def lengths(self) -> Lengths:
        """The symbols of the walk."""
        return self.walk.lengths

    def refuse(self, reason: str) -> NoReturn:
        """Give up: this layer cannot be expressed."""
        raise Unsupported(f"{self.layer.where}: {reason}")

    def damaged(self, reason: str) -> NoReturn:
        """Give up: the file contradicts itself."""
        raise UnreadableFile(f"{self.walk.where}, {self.layer.where}: {reason}")

    def weights(self, **shapes: tuple[int, ...] | None) -> list[NDArray[Any]]:
        """The layer's arrays in Keras's order, in the network's precision; a shape None stands for no such array."""
        wanted = {name: shape for name, shape in shapes.items() if shape is not None}
        try:
            arrays = self.all_weights.take(wanted)
        except UnreadableFile as error:
            raise UnreadableFile(f"{self.layer.where}: {error}") from None
        return [array.astype(self.walk.dtype, copy=False) for array in arrays]

    def ranks(self) -> list[int]:
        """How many axes each of the layer's arrays has."""
        return self.all_weights.ranks()

    @contextmanager
    def inside(self, layer: Layer, part: str, scope: str = "") -> Iterator[Step]:
        """The step of a layer inside this one, its weights under `part`."""
        if layer.stranger is not None:
            self.refuse(f"holds a {layer.kind} from {safe_text(layer.stranger)}, not from Keras")
        inner = Step(self.walk, layer, self.all_weights.part(part), self.kwargs)
        if scope:
            with self.b.scope(scope):
                yield inner
        else:
            yield inner

    def filled(self, number: float, shape: tuple[int, ...]) -> NDArray[Any]:
        """Weights that the layer goes without, in the network's precision."""
        if math.prod(shape) > LARGEST:
            self.damaged(f"asks for {math.prod(shape)} numbers that are not in the file")
        return np.full(shape, number, dtype=self.walk.dtype)

    def zero(self, x: Tensor) -> ir.Value:
        """A 0-d zero of the type of `x`."""
        return self.b.op("CastLike", self.b.constant(np.array(0, dtype=np.int64), "zero"), x.value)

    def scalar(self, value: float) -> ir.Value:
        """A 0-d constant. One that float32 cannot hold is kept as a double, so that a float64 graph has it exactly."""
        exact = np.array(value, dtype=np.float64)
        rounded = exact.astype(self.walk.dtype)
        if rounded == exact:
            return self.b.constant(rounded, "number")
        return self.b.op("Cast", self.b.constant(exact, "number"), to=ir.DataType.FLOAT.value)

    def constant(self, array: NDArray[Any], name: str) -> ir.Value:
        """An initializer holding `array`."""
        return self.b.constant(array, name)

    def size(self, dim: Dim) -> int:
        """A length as a number. Where it is symbolic, the walk starts again with its inputs' lengths fixed."""
        if isinstance(dim, int):
            return dim
        inputs = self.lengths.inputs(dim)
        if not inputs or not inputs <= self.walk.fixable - self.walk.fixed:
            self.refuse("needs a fixed number of steps, but the file leaves it open")
        raise NeedsLength(inputs)

    def common(self, *dims: Dim) -> Dim:
        """The length of axes that are combined element by element, 1 being stretched."""
        known = {dim for dim in dims if dim != 1}
        if len(known) < 2:
            return known.pop() if known else 1
        if all(isinstance(dim, int) for dim in known):
            self.damaged(f"axes of lengths {', '.join(map(str, dims))} do not fit together")
        fixable = frozenset().union(*(self.lengths.inputs(dim) for dim in known)) & (
            self.walk.fixable - self.walk.fixed
        )
        if fixable:
            raise NeedsLength(fixable)
        return next((dim for dim in known if isinstance(dim, int)), next(dim for dim in dims if dim in known))

    def reshape(self, x: Tensor, shape: Sequence[Dim]) -> Tensor:
        """`x` with the axes after the first as in `shape`, of which at most one may be symbolic."""
        shape = tuple(shape)
        symbols = [dim for dim in shape if isinstance(dim, str)]
        if len(symbols) > 1:
            self.size(symbols[1])
        # 0 keeps the axis at the same place; -1 is computed.
        target = [0, *(-1 if isinstance(dim, str) else dim for dim in shape)]
        value = self.b.op("Reshape", x.value, self.b.ints(*target))
        return replace(x, value=value, shape=("N", *shape), mask=None)

    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
        """`x` with its axes in another order."""
        value = self.b.op("Transpose", x.value, perm=list(order))
        return replace(x, value=value, shape=tuple(x.shape[axis] for axis in order), mask=None)

    def volume(self, dims: Sequence[Dim]) -> int:
        """How many numbers axes of these lengths hold."""
        return math.prod(self.size(dim) for dim in dims)


def single(number: float) -> float:
    """`number` rounded to float32, as Keras keeps some options whatever the precision.

    TensorFlow's operators hold real attributes so, and Keras turns Python numbers into float32 tensors before it casts
    them (backend/tensorflow/core.py, cast); Keras 2 rounded the options themselves (K.cast_to_floatx).
    """
    return float(np.float32(number))


def is_order(given: Any, axes: range) -> bool:
    """Whether `given` lists each of `axes` once."""
    whole = isinstance(given, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in given)
    return whole and sorted(given) == list(axes)


Function = Callable[..., "Tensor | list[Tensor]"]


@dataclass(frozen=True)
class Entry:
    """One row of the table: the function of a layer class, and how masks and axes concern it.

    masks: "pass" (the output has the first input's mask), "own" (the function says) or "none" (Keras drops it).
    pointwise: acts on the last axis alone, so that it means the same on [N, F] and [N, T, F].
    many: takes a list of tensors instead of one.
    """

    function: Function
    masks: str = "pass"
    pointwise: bool = False
    many: bool = False


LAYERS: dict[str, Entry] = {}
"""Every layer class that is read."""


def layer(
    *kinds: str, masks: str = "pass", pointwise: bool = False, many: bool = False
) -> Callable[[Function], Function]:
    """Enter a function in the table under the classes `kinds`."""

    def enter(function: Function) -> Function:
        for kind in kinds:
            LAYERS[kind] = Entry(function, masks, pointwise, many)
        return function

    return enter
