"""Multi-head attention (Vaswani et al., 1706.03762; Keras: layers/attention/multi_head_attention.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from modelhub.errors import safe_text
from modelhub_keras.step import Step, Tensor, layer, single

__all__: list[str] = []

FAR, FARTHEST = -1e9, -0.7 * 3.38953e38
"""The scores that Keras gives to masked keys: where it computes with layers (layers/activations/softmax.py), and where
with one fused operation (backend/tensorflow/nn.py, _get_large_negative). Older Keras adds -1e9 to the score instead."""


@layer("MultiHeadAttention", masks="own", many=True)
def multi_head_attention(step: Step, query: Tensor, *others: Tensor) -> list[Tensor]:
    """For every head softmax(query·key / sqrt(width)) times the values, then a linear layer over all heads."""
    b, options = step.b, step.options
    heads, width = options.whole("num_heads"), options.whole("key_dim")
    deep = width if options.get("value_dim", default=None) is None else options.whole("value_dim")
    biased = options.flag("use_bias", default=True)
    for name in ("attention_axes", "output_shape", "key_shape", "query_shape", "value_shape", "flash_attention"):
        given = options.get(name, default=None)
        usual = given is None or (name == "attention_axes" and given == [1])
        if name in ("attention_axes", "output_shape") and not usual:
            step.refuse(f"uses {name} = {safe_text(given)}, which is not read")
    if options.get("use_gate", default=False):
        step.refuse("gates its attention, which is not read")
    value, key = _others(step, others)
    key = value if key is None else key
    if any(x.rank != 3 for x in (query, key, value)):
        step.refuse("needs [events, steps, features] everywhere")
    step.common(key.shape[1], value.shape[1])
    q = _heads(step, query, "query", heads, width, biased)
    k = _heads(step, key, "key", heads, width, biased)
    v = _heads(step, value, "value", heads, deep, biased)
    # [N, heads, T, width] times [N, heads, width, S].
    scaled = b.op("Mul", q, step.scalar(single(1.0 / math.sqrt(width))))
    scores = b.op("MatMul", scaled, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    keep, told = _keep(step, query, key, value), step.kwargs.pop("return_attention_scores", None)
    fused = not told and not options.number("dropout", default=0.0)  # layers/attention/multi_head_attention.py
    if keep is not None:
        scores = b.op("Where", keep, scores, step.scalar(FARTHEST if fused else FAR))
    weights = b.op("Softmax", scores, axis=-1)
    if keep is not None and not fused:
        weights = b.op("Where", keep, weights, step.scalar(0.0))  # of a query without any key
    mixed = b.op("Transpose", b.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    flat = b.op("Reshape", mixed, b.ints(0, 0, heads * deep))
    out = step.size(query.width)
    with step.inside(step.layer, "output_dense", "attention_output") as part:
        kernel, *bias = part.weights(kernel=(heads, deep, out), bias=(out,) if biased else None)
        now = b.op("MatMul", flat, step.constant(kernel.reshape(heads * deep, out), "kernel"))
        now = b.op("Add", now, step.constant(bias[0], "bias")) if bias else now
    result = Tensor(now, ("N", query.shape[1], out), mask=query.mask)
    if told:
        return [result, Tensor(weights, ("N", heads, query.shape[1], key.shape[1]))]
    return [result]


def _others(step: Step, others: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Value and key, by place or by name."""
    named = [step.kwargs.pop(name, None) for name in ("value", "key")]
    value, key = ([*others, *[None] * 2][place] or named[place] for place in range(2))
    if not isinstance(value, Tensor) or not isinstance(key, Tensor | None) or len(others) > 2:
        step.damaged("gets no value to attend to")
    return value, key


def _heads(step: Step, x: Tensor, name: str, heads: int, width: int, biased: bool) -> ir.Value:
    """[N, T, F] to [N, heads, T, width]."""
    b, features = step.b, step.size(x.width)
    with step.inside(step.layer, f"{name}_dense", name) as part:
        kernel, *bias = part.weights(kernel=(features, heads, width), bias=(heads, width) if biased else None)
        now = b.op("MatMul", x.value, step.constant(kernel.reshape(features, heads * width), "kernel"))
        now = b.op("Add", now, step.constant(bias[0].reshape(-1), "bias")) if bias else now
        return b.op("Transpose", b.op("Reshape", now, b.ints(0, 0, heads, width)), perm=[0, 2, 1, 3])


def _keep(step: Step, query: Tensor, key: Tensor, value: Tensor) -> ir.Value | None:
    """Which pairs of query and key count, [N, heads or 1, T, S] (Keras: _compute_attention_mask)."""
    b = step.b
    masks: list[ir.Value] = []

    def told(name: str, x: Tensor) -> ir.Value | None:
        given: Any = step.kwargs.pop(name, None)
        return given.value if isinstance(given, Tensor) else x.mask

    query_mask = told("query_mask", query)
    if query_mask is not None:
        masks.append(b.op("Unsqueeze", query_mask, b.ints(1, 3)))
    for name, x in (("value_mask", value), ("key_mask", key)):
        mask = told(name, x)
        if mask is not None and not (name == "key_mask" and x.value is value.value):
            masks.append(b.op("Unsqueeze", mask, b.ints(1, 2)))
    given = step.kwargs.pop("attention_mask", None)
    if isinstance(given, Tensor):
        keep = given.value if given.kind == "b" else b.op("Cast", given.value, to=ir.DataType.BOOL.value)
        masks.append(b.op("Unsqueeze", keep, b.ints(1)) if given.rank == 3 else keep)
    if step.kwargs.pop("use_causal_mask", None):
        masks.append(_causal(step, query, value))
    together: ir.Value | None = None
    for mask in masks:
        together = mask if together is None else b.op("And", together, mask)
    return together


def _causal(step: Step, query: Tensor, value: Tensor) -> ir.Value:
    """True where the key comes no later than the query, [1, 1, T, S]."""
    b = step.b
    zero, one = (step.constant(np.array(n, np.int64), "number") for n in (0, 1))

    def steps(x: Tensor) -> ir.Value:
        return b.op("Range", zero, b.op("Squeeze", b.op("Shape", x.value, start=1, end=2)), one)

    rows = b.op("Unsqueeze", steps(query), b.ints(0, 1, 3))
    return b.op("GreaterOrEqual", rows, b.op("Unsqueeze", steps(value), b.ints(0, 1, 2)))
