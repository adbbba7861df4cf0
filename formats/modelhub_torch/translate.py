"""The translation of one program into the common graph: values, sizes, and the table of operators.

A function that translates an operator stands in `operators_*.py` and looks like this::

    @aten("relu.default")
    def relu(t: Translation, c: Call) -> Tensor:
        x = c.tensor("self")
        return t.op("Relu", x, shape=x.shape)

Every value carries its symbolic shape, so nothing has to be guessed from the example's sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub.graph.builder import Builder
from modelhub_torch.sizes import Call as SizeCall
from modelhub_torch.sizes import Expr, Size, evaluate, product, rename, symbols

if TYPE_CHECKING:
    from modelhub_torch.call import Call

__all__ = ["TABLE", "Clash", "Operator", "Result", "Shape", "Tensor", "Translation", "Value", "aten"]

Array: TypeAlias = "NDArray[Any]"
Shape: TypeAlias = "tuple[Size, ...]"

BATCH = "N"
"""The symbol of the first axis of every input."""


class Clash(Exception):
    """A size that the example burnt into the graph cannot be made dynamic."""


@dataclass(eq=False)
class Tensor:
    """A value of the graph. Constants stay numpy arrays (`array`) or one number (`filled`) until they are used."""

    shape: Shape
    dtype: np.dtype[Any]
    value: ir.Value | None = None
    array: Array | None = None
    filled: float | int | bool | None = None
    wish: str = "constant"
    """The name a constant would like to have."""
    stacked: Tensor | None = None
    """The tensor with more axes that this matrix of rows was reshaped from."""
    spread: Callable[[], Tensor] | None = None
    """Computes the same as a product with `stacked`, in all its axes."""
    base: Tensor | None = None
    """The tensor whose memory this one shares in torch (a view), which is no view itself."""

    @property
    def rank(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def floating(self) -> bool:
        """Whether it holds floating-point numbers (bfloat16 too, which numpy does not count as such)."""
        return np.issubdtype(self.dtype, np.floating) or self.dtype.name == "bfloat16"

    @property
    def owner(self) -> Tensor:
        """The tensor whose memory this is."""
        return self if self.base is None else self.base


Value: TypeAlias = "Tensor | Expr | int | float | bool | str | list[Value] | None"
Result: TypeAlias = "Tensor | Size | Sequence[Tensor | Size | None] | None"
Operator: TypeAlias = "Callable[[Translation, Call], Result]"

TABLE: dict[str, Operator] = {}
"""Operator by name without ``torch.ops.aten.``; Python's and torch's own operators on sizes by full name."""


def aten(*names: str) -> Callable[[Operator], Operator]:
    """Enter a function into the table under `names`, e.g. ``"softmax.int"``."""

    def enter(function: Operator) -> Operator:
        for name in names:
            if name in TABLE:
                raise AssertionError(f"{name} is in the table already")
            TABLE[name] = function
        return function

    return enter


class Translation:
    """One attempt at a program. `free` names the symbols the reader put where the file has plain numbers."""

    def __init__(self, where: str, hints: Mapping[str, int], free: frozenset[str]) -> None:
        self.b = Builder()
        self.where = where
        self.hints = hints
        self.free = free
        self.sources: dict[str, tuple[ir.Value, int]] = {}
        """The input and axis that each symbol is the size of."""
        self.merged: dict[str, Shape] = {}
        """The factors, slowest first, of every axis that a reshape merged from several (`views`), by its symbol."""
        self.remarks: list[str] = []
        """What the user should know about this translation."""
        self.mixed = False
        """Whether an operator combines different events, which a file with dynamic axes may do."""
        self._singles: dict[Size, ir.Value] = {}
        self._stored: dict[tuple[Any, ...], ir.Value] = {}

    # Values

    def op(
        self, op_type: str, *inputs: Tensor | ir.Value | None, shape: Shape, dtype: Any = None, **attributes: Any
    ) -> Tensor:
        """The only output of a new ONNX node; its dtype is that of the first tensor unless given."""
        if dtype is None:
            dtype = next(i.dtype for i in inputs if isinstance(i, Tensor))
        return self.ops(op_type, *inputs, outputs=[(shape, np.dtype(dtype))], **attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: Tensor | ir.Value | None,
        outputs: Sequence[tuple[Shape, np.dtype[Any]]],
        **attributes: Any,
    ) -> list[Tensor]:
        """All outputs of a new ONNX node, given their shapes and dtypes."""
        for shape, _ in outputs:
            if BATCH in self.free and sum(BATCH in self.names(size) for size in shape) > 1:
                raise Clash(f"{op_type} pairs events with each other")
        given = [self.value(i) if isinstance(i, Tensor) else i for i in inputs]
        while given[-1] is None:
            given.pop()
        values = self.b.ops(op_type, *given, outputs=len(outputs), **attributes)
        results = []
        for value, (shape, dtype) in zip(values, outputs, strict=True):
            value.shape = ir.Shape([s if isinstance(s, int) else str(s) for s in shape])
            value.type = ir.TensorType(ir.DataType.from_numpy(dtype))
            results.append(Tensor(shape, dtype, value))
        return results

    def value(self, tensor: Tensor) -> ir.Value:
        """The graph value of `tensor`; a constant enters the graph when it is first used."""
        if tensor.value is None:
            if tensor.array is not None:
                tensor.value = self._initializer(tensor.array, tensor.wish)
            else:
                assert tensor.filled is not None
                one = self.value(self.scalar(tensor.filled, tensor.dtype))
                tensor.value = self.b.op("Expand", one, self.sizes(tensor.shape)) if tensor.shape else one
        return tensor.value

    def _initializer(self, array: Array, wish: str) -> ir.Value:
        """The initializer that holds `array`, one for all views of the same stored numbers."""
        key = (array.ctypes.data, array.shape, array.strides, array.dtype.str)
        if array.base is None or not array.size:
            return self.b.constant(array, wish)
        if key not in self._stored:
            self._stored[key] = self.b.constant(array, wish)
        return self._stored[key]

    def constant(self, array: Any, wish: str = "constant") -> Tensor:
        """A constant tensor."""
        array = np.asarray(array)
        return Tensor(tuple(array.shape), array.dtype, array=array, wish=wish)

    def scalar(self, number: float | int | bool, dtype: np.dtype[Any]) -> Tensor:
        """A number of the program as a 0-d tensor.

        Torch keeps such numbers as doubles. One that `dtype` would round is stored as a double behind a `Cast`,
        so that a graph promoted to float64 sees what torch sees in float64.
        """
        if dtype == np.float32 and float(np.float32(number)) != number and number == number:
            double = self.constant(np.array(number, np.float64), "number")
            return self.op("Cast", double, shape=(), dtype=dtype, to=ir.DataType.from_numpy(dtype))
        return self.constant(np.array(number, dtype), "number")

    def cast(self, tensor: Tensor, dtype: np.dtype[Any]) -> Tensor:
        """`tensor` as `dtype`; itself where it is that already."""
        if tensor.dtype == dtype:
            return tensor
        if tensor.filled is not None:
            return Tensor(tensor.shape, dtype, filled=np.array(tensor.filled).astype(dtype).item())
        return self.op("Cast", tensor, shape=tensor.shape, dtype=dtype, to=ir.DataType.from_numpy(dtype))

    def operand(self, value: Value, dtype: np.dtype[Any]) -> Tensor:
        """A tensor, number or symbolic number as an operand of `dtype`."""
        if isinstance(value, Tensor):
            return self.cast(value, dtype)
        if isinstance(value, (int, float)):
            return self.scalar(value, dtype)
        if isinstance(value, Expr):
            number = self.b.op("Squeeze", self.size(value))
            return self.cast(Tensor((), np.dtype(np.int64), number), dtype)
        raise UnreadableFile(f"{self.where}: {safe_text(value)} stands where a number or a tensor belongs")

    # Sizes

    def size(self, size: Size) -> ir.Value:
        """`size` as a value of the graph: int64 [1]."""
        if isinstance(size, int):
            return self.b.ints(size)
        if size not in self._singles:
            total: ir.Value | None = None
            for monomial, factor in size.terms:
                parts = [self._atom(atom) for atom in monomial]
                if factor != 1 or not parts:
                    parts.append(self.b.ints(factor))
                term = parts[0]
                for part in parts[1:]:
                    term = self.b.op("Mul", term, part)
                total = term if total is None else self.b.op("Add", total, term)
            assert total is not None
            self._singles[size] = total
        return self._singles[size]

    def _atom(self, atom: str | SizeCall) -> ir.Value:
        if isinstance(atom, str):
            if atom in self.merged:
                return self.size(product(self.merged[atom]))
            if atom not in self.sources:
                raise Unsupported(
                    f"{self.where}: the size {safe_text(atom)} depends on the data, which is not supported"
                )
            value, axis = self.sources[atom]
            return self.b.op("Shape", value, start=axis, end=axis + 1)
        name = {"FloorDiv": "Div", "Mod": "Mod", "Max": "Max", "Min": "Min"}[atom.name]
        return self.b.op(name, self.size(atom.args[0]), self.size(atom.args[1]))

    def sizes(self, shape: Shape) -> ir.Value:
        """`shape` as a value of the graph: int64 [rank]."""
        if all(isinstance(s, int) for s in shape):
            return self.b.ints(*(s for s in shape if isinstance(s, int)))
        if len(shape) == 1:
            return self.size(shape[0])
        return self.b.op("Concat", *(self.size(s) for s in shape), axis=0)

    def plain(self, size: Size) -> Size:
        """`size` in the symbols of the inputs alone."""
        while set(self.merged) & symbols(size):
            size = rename(size, {name: product(factors) for name, factors in self.merged.items()})
        return size

    def names(self, size: Size) -> set[str]:
        """The symbols of the inputs that `size` depends on."""
        return symbols(self.plain(size))

    def hint(self, size: Size) -> int | None:
        """What `size` was in the example."""
        return evaluate(self.plain(size), self.hints)

    def unify(self, a: Size, b: Size) -> Size:
        """The size of an axis that has size a in one operand and b in the other, by the rule of broadcasting."""
        if a == b or b == 1:
            return a
        if a == 1:
            return b
        if (self.names(a) | self.names(b)) & self.free:
            raise Clash(f"an axis of size {a} meets one of size {b}")
        if self.hint(a) is not None and self.hint(b) is not None and self.hint(a) != self.hint(b):
            raise UnreadableFile(f"{self.where}: an axis of size {safe_text(a)} meets one of size {safe_text(b)}")
        return a if isinstance(a, int) else b

    def broadcast(self, *shapes: Shape) -> Shape:
        """The shape of an element-wise operation on operands of `shapes`."""
        rank = max(map(len, shapes))
        result: list[Size] = [1] * rank
        for shape in shapes:
            for index, size in enumerate(shape, start=rank - len(shape)):
                result[index] = self.unify(result[index], size)
        return tuple(result)

    def soften(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Two operands that broadcast; where one is dynamic, axes along which the other repeats a constant shrink to 1.

        Core ATen repeats weights to the example's sizes before it multiplies by them.
        """
        if not self.free:
            return a, b
        return self._soft(a, b), self._soft(b, a)

    def _soft(self, x: Tensor, other: Tensor) -> Tensor:
        if x.array is None or 0 not in x.array.strides:
            return x
        cut = [slice(None)] * x.rank
        for back in range(1, min(x.rank, other.rank) + 1):
            if x.array.strides[-back] == 0 and self.names(other.shape[-back]) & self.free:
                cut[-back] = slice(0, 1)
        array = x.array[tuple(cut)]
        return Tensor(tuple(array.shape), x.dtype, array=array, wish=x.wish)

    def axis(self, shape: Shape, dim: int, extra: int = 0) -> int:
        """`dim`, perhaps negative, as an axis of `shape` (with `extra` axes more)."""
        rank = max(len(shape) + extra, 1)
        if not -rank <= dim < rank:
            raise UnreadableFile(f"{self.where}: axis {dim} of a tensor with {len(shape)} axes")
        return dim % rank

    def mixes(self, *sizes: Size) -> None:
        """Say that an operator combines the entries of axes of these sizes: a fault for events made dynamic."""
        if any(BATCH in self.names(size) for size in sizes):
            if BATCH in self.free:
                raise Clash("an operator combines different events")
            self.mixed = True

    def counts(self, *sizes: Size) -> None:
        """Say that an operator picks entries by number along axes of these sizes: forbidden where made dynamic."""
        if any(self.names(size) & self.free for size in sizes):
            raise Clash("an operator picks entries by number along an axis of the example's size")
