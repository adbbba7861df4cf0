"""One call of an operator: its arguments, resolved to values and checked for their kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub_torch.archive import dtype_of
from modelhub_torch.program import Argument, DType, Meta, Node, Ref, SizeRef
from modelhub_torch.sizes import Expr
from modelhub_torch.translate import Shape, Tensor, Value

__all__ = ["Call"]


class Call:
    """One call of an operator, with its arguments resolved. Arguments nobody asks for are refused by the reader."""

    IGNORED = frozenset({"device", "layout", "pin_memory", "memory_format", "non_blocking", "copy", "cudnn_enable",
                         "cudnn_enabled", "generator"})  # fmt: skip

    def __init__(self, node: Node, values: Mapping[str, Value], metas: Mapping[str, Meta], where: str) -> None:
        self.node = node
        self.where = where
        self._values = values
        self._metas = metas
        self._asked: set[str] = set()

    def _bad(self, name: str, what: str) -> UnreadableFile:
        return UnreadableFile(
            f"{self.where}: argument {safe_text(name)!r} of {safe_text(self.node.target)} is no {what}"
        )

    def _resolve(self, argument: Argument) -> Value:
        if isinstance(argument, (Ref, SizeRef)):
            if argument.name not in self._values:
                raise UnreadableFile(
                    f"{self.where}: {safe_text(self.node.name)} uses {safe_text(argument.name)!r} before it is computed"
                )
            return self._values[argument.name]
        if isinstance(argument, list):
            return [self._resolve(item) for item in argument]
        if isinstance(argument, DType):
            return f"dtype {argument.code}"
        if isinstance(argument, (bool, int, float, str)) or argument is None:
            return argument
        return None

    def get(self, name: str, default: Value = None) -> Value:
        """An argument of any kind; `default` where the file leaves it out."""
        self._asked.add(name)
        return self._resolve(self.node.args[name]) if name in self.node.args else default

    def has(self, name: str) -> bool:
        """Whether the argument is given and not None."""
        return self.get(name) is not None

    def tensor(self, name: str) -> Tensor:
        """A tensor argument that must be there."""
        value = self.get(name)
        if not isinstance(value, Tensor):
            raise self._bad(name, "tensor")
        return value

    def optional(self, name: str) -> Tensor | None:
        """A tensor argument that may be None."""
        return self.tensor(name) if self.has(name) else None

    def tensors(self, name: str) -> list[Tensor]:
        """A list of tensors."""
        value = self.get(name)
        if not isinstance(value, list) or not all(isinstance(v, Tensor) for v in value):
            raise self._bad(name, "list of tensors")
        return [v for v in value if isinstance(v, Tensor)]

    def integer(self, name: str, default: int | None = None) -> int:
        """A plain integer."""
        value = self.get(name, default)
        if not isinstance(value, int):
            raise self._bad(name, "integer")
        return int(value)

    def number(self, name: str, default: float | None = None) -> float:
        """A plain number."""
        value = self.get(name, default)
        if not isinstance(value, (int, float)):
            raise self._bad(name, "number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value."""
        value = self.get(name, default)
        if not isinstance(value, int):
            raise self._bad(name, "truth value")
        return bool(value)

    def text(self, name: str, default: str) -> str:
        """A text."""
        value = self.get(name, default)
        if not isinstance(value, str):
            raise self._bad(name, "text")
        return value

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """A list of plain integers; one integer counts as a list of one."""
        value = self.get(name, list(default) if default is not None else None)
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, int) for v in values):
            raise self._bad(name, "list of integers")
        return [v for v in values if isinstance(v, int)]

    def sizes(self, name: str) -> Shape:
        """A list of sizes, symbolic or not."""
        value = self.get(name)
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, (int, Expr)) for v in values):
            raise self._bad(name, "list of sizes")
        return tuple(v for v in values if isinstance(v, (int, Expr)))

    def dtype(self, name: str = "dtype") -> np.dtype[Any] | None:
        """A dtype argument, None where it is not given."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value.startswith("dtype "):
            raise self._bad(name, "dtype")
        return dtype_of(int(value[6:]), self.where)

    def result(self, index: int = 0) -> np.dtype[Any]:
        """The dtype the file records for an output of this call."""
        name = self.node.outputs[index] if index < len(self.node.outputs) else ""
        meta = self._metas.get(name if isinstance(name, str) else name[0])
        if meta is None:
            raise UnreadableFile(f"{self.where}: nothing is recorded about the result of {safe_text(self.node.name)}")
        return dtype_of(meta.code, self.where)

    def refuse(self, why: str) -> Unsupported:
        """An error that names this call."""
        layer = f"{safe_text(self.node.layer)}: " if self.node.layer else ""
        return Unsupported(self.where, [f"{layer}{safe_text(self.node.target)}: {why}"])

    def leftover(self) -> list[str]:
        """Arguments that are given and that the operator's function did not look at."""
        return [
            name
            for name, value in self.node.args.items()
            if name not in self._asked and name not in self.IGNORED and value is not None
        ]
