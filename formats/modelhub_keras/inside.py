"""What every layer of a Keras model computes, taken down while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modelhub_keras.step import numbered

__all__ = ["overheard"]

Take = Callable[[str, Any], None]


@contextmanager
def overheard(library: Any, model: Any, take: Take, kind: type = object) -> Iterator[None]:
    """While this lasts, each layer of `model`, if a `kind`, gives what it computes to `take` too, under its name.

    Networks inside the model are gone into; layers inside wrappers, which may run many times in one call, are not.
    """
    stack: list[str] = []
    changed = [operation for operation in _operations(library, model) if isinstance(operation, kind)]
    for operation in changed:
        operation.__dict__["call"] = _told(operation, take, stack)
    try:
        yield
    finally:
        for operation in changed:
            operation.__dict__.pop("call", None)


def _operations(library: Any, model: Any) -> list[Any]:
    """All layers, and operations that are none, each once."""
    found: dict[int, Any] = {}
    todo = [model]
    while todo:
        inner = todo.pop()
        for operation in getattr(inner, "operations", None) or inner.layers:
            if id(operation) not in found and "call" not in vars(operation):
                found[id(operation)] = operation
                todo += [operation] if isinstance(operation, library.Model) else []
    return list(found.values())


def _told(operation: Any, take: Take, stack: list[str]) -> Callable[..., Any]:
    """The `call` of one layer, that tells `take` of its results."""
    call = operation.call

    def telling(*args: Any, **kwargs: Any) -> Any:
        stack.append(operation.name)
        try:
            result = call(*args, **kwargs)
            path = "/".join(stack)
        finally:
            stack.pop()
        for index, tensor in enumerate(result if isinstance(result, list | tuple) else [result]):
            take(numbered(path, index), tensor)
        return result

    return telling
