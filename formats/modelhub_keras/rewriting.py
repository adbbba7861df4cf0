"""A configuration changed so that Keras loads it in another precision, and for sequences of any length."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["rewritten"]

REALS = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")


def rewritten(config: dict[str, Any], precision: str, free: frozenset[str]) -> dict[str, Any]:
    """A copy of `config` that computes in `precision`; the inputs named in `free` take any number of steps."""
    config = copy.deepcopy(config)
    waiting: list[Any] = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            for key in ("dtype", "input_dtype"):
                if item.get(key) in REALS:
                    item[key] = precision
            policy = item.get("config")
            if (
                str(item.get("class_name")).endswith("Policy")
                and isinstance(policy, dict)
                and policy.get("name") in REALS
            ):
                policy["name"] = precision
    inner = config.get("config")
    entries = inner.get("layers") if isinstance(inner, dict) else inner
    for index, entry in enumerate(entries or []):
        _free_steps(entry.get("config"), entry.get("class_name"), index, free)
    if isinstance(inner, dict) and free:
        _open(inner, "build_input_shape")
    return config


def _free_steps(config: Any, kind: Any, index: int, free: frozenset[str]) -> None:
    """Open the step axis of an input layer, or of the input that the first layer of a chain implies."""
    if not isinstance(config, dict):
        return
    name = config.get("name")
    if (kind == "InputLayer" and name in free) or (index == 0 and f"{name}_input" in free):
        _open(config, "batch_shape")
        _open(config, "batch_input_shape")


def _open(config: dict[str, Any], key: str) -> None:
    shape = config.get(key)
    if isinstance(shape, list) and len(shape) == 3:
        config[key] = [shape[0], None, shape[2]]
