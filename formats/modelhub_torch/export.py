"""A `torch.nn.Module` in memory as a common graph: exported by torch, saved, and read like any other file."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from modelhub.errors import Unsupported, UsageError, safe_text

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["from_module"]


def from_module(module: Any, example: Any, dynamic: Any = None) -> ir.Model:
    """The common graph of `module` in inference mode. The module is left as it was, training mode included.

    Args:
        module: a `torch.nn.Module`.
        example: its input tensor, or a tuple of them, or a dict by argument name; first axis events, and in
            tensors with three axes the second one steps. Their values do not matter, their sizes do not stay.
        dynamic: `dynamic_shapes` of `torch.export.export`; None makes events and steps dynamic.

    Raises `Unsupported` where torch cannot export the module or neither we nor torch can translate it.

    """
    import torch

    from modelhub_torch.fallback import quiet, translate

    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"from_module takes a torch.nn.Module, not {type(module).__name__}")
    args, kwargs = _arguments(module, example)
    if dynamic is None:
        args, kwargs = _doubled((args, kwargs))
    with _inference(module), quiet():
        program = _export(module, args, kwargs, dynamic)
    return translate(program, type(module).__name__)


def _arguments(module: Any, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        order = [name for name in inspect.signature(module.forward).parameters if name in example]
        return (), {name: example[name] for name in [*order, *(name for name in example if name not in order)]}
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}


def _doubled(example: Any) -> Any:
    """The example with no event or step axis of size 1: torch takes such sizes for constants.

    There will be seven steps: the reader frees steps only if no number in the program looks made of theirs.
    """
    import torch
    from torch.utils import _pytree as pytree

    def double(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        for axis, times in ((0, 2), (1, 7))[: 2 if leaf.ndim == 3 else min(leaf.ndim, 1)]:
            if leaf.shape[axis] == 1:
                leaf = torch.cat([leaf] * times, axis)
        return leaf

    return pytree.tree_map(double, example)


def _export(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic: Any) -> Any:
    """The exported program, with events and steps dynamic unless `dynamic` says otherwise.

    Torch freezes the steps of recurrent layers all the same; the reader makes them dynamic again. Where torch
    refuses dynamic axes it gets the plain example, and the reader does what it can.
    """
    import torch

    attempts = [dynamic] if dynamic is not None else [_all_dynamic(module, args, kwargs), None]
    problem: Exception | None = None
    for shapes in attempts:
        try:
            return torch.export.export(module, tuple(args), dict(kwargs), dynamic_shapes=shapes)
        except Exception as error:  # torch raises errors of many kinds here
            problem = problem or error
    raise Unsupported(f"torch cannot export {type(module).__name__}", [safe_text(problem, 300)])


def _all_dynamic(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Dim.AUTO for the events of every tensor and the steps of every sequence, in the structure of the arguments."""
    import torch
    from torch.utils import _pytree as pytree

    auto = torch.export.Dim.AUTO

    def shapes(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.ndim:
            return None
        return {0: auto, 1: auto} if leaf.ndim == 3 else {0: auto}

    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    return pytree.tree_map(shapes, dict(bound.arguments))


@contextmanager
def _inference(module: Any) -> Iterator[None]:
    """`module` in inference mode; afterwards every layer is as it was."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
