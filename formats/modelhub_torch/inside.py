"""What every operator of an exported program computes, taken down while it runs."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import torch

__all__ = ["Overheard"]


class Overheard(torch.fx.Interpreter):  # type: ignore[misc]
    """The program run node by node; `found` gets the tensors called for in `wanted`.

    They are copied at once: a later operator may write into the same memory.
    """

    def __init__(self, program: torch.fx.GraphModule, wanted: Container[str]) -> None:
        super().__init__(program)
        self._wanted = wanted
        self.found: list[tuple[str, np.ndarray]] = []

    def run_node(self, n: torch.fx.Node) -> Any:
        """The result of one node, as always."""
        result = super().run_node(n)
        if n.name in self._wanted and isinstance(result, torch.Tensor):
            self.found.append((n.name, result.numpy().copy()))
        return result
