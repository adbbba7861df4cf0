"""Layers: matrix products, convolutions, pooling, embeddings, attention."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from modelhub_torch.call import Call
from modelhub_torch.operators_pointwise import BOOL, binary
from modelhub_torch.operators_reduce import reduce
from modelhub_torch.sizes import Size, add, floordiv
from modelhub_torch.translate import Tensor, Translation, aten
from modelhub_torch.views import reshape, transpose

# Matrix products


def matmul(t: Translation, a: Tensor, b: Tensor) -> Tensor:
    """The matrix product of stacks of matrices, with broadcasting of the stack; 1-d operands as numpy has them."""
    if a.rank > 2 and b.rank > 2:
        a, b = t.soften(a, b)
    inner = t.unify(a.shape[-1], b.shape[-2 if b.rank > 1 else -1])
    t.mixes(inner)
    stack = t.broadcast(a.shape[:-2], b.shape[:-2])
    rows, columns = a.shape[-2:-1], b.shape[-1:] if b.rank > 1 else ()
    return t.op("MatMul", a, b, shape=(*stack, *rows, *columns))


def _gemm(
    t: Translation, x: Tensor, weight: Tensor, bias: Tensor | None, alpha: float = 1.0, beta: float = 1.0
) -> Tensor:
    """The sum alpha · x · weight + beta · bias of matrices; a weight [in, out] kept as [out, in] is used as it is."""
    t.mixes(t.unify(x.shape[-1], weight.shape[0]))
    matrix, turned = weight, 0
    if weight.array is not None and weight.array.T.flags.c_contiguous and not weight.array.flags.c_contiguous:
        matrix, turned = transpose(t, weight, (1, 0)), 1
    columns = weight.shape[1]
    scale = {key: value for key, value in (("alpha", alpha), ("beta", beta)) if value != 1}
    if bias is not None:
        t.broadcast((x.shape[0], columns), bias.shape)
    y = t.op("Gemm", x, matrix, bias, shape=(x.shape[0], columns), transB=turned or None, **scale)
    if x.stacked is not None and not scale and (bias is None or bias.rank == 1):
        y.spread = partial(_dense, t, x.stacked, weight, bias)
    return y


def _dense(t: Translation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product x · weight + bias over the last axis of x; weight is [in, out]."""
    y = matmul(t, x, weight)
    return y if bias is None else binary(t, "Add", y, bias, y.dtype)


@aten("linear.default")
def linear(t: Translation, c: Call) -> Tensor:
    """Gives x · weightᵀ + bias over the last axis; weight is [out, in]."""
    x, weight, bias = c.tensor("input"), c.tensor("weight"), c.optional("bias")
    if weight.rank != 2 or x.rank < 1:
        raise c.refuse("the weight must be a matrix")
    turned = transpose(t, weight, (1, 0))
    if x.rank == 2:
        return _gemm(t, x, turned, bias)
    return _dense(t, x, turned, bias)


@aten("addmm.default")
def addmm(t: Translation, c: Call) -> Tensor:
    """Beta · self + alpha · mat1 · mat2."""
    bias, alpha, beta = c.tensor("self"), c.number("alpha", 1.0), c.number("beta", 1.0)
    return _gemm(t, c.tensor("mat1"), c.tensor("mat2"), bias, alpha, beta)


@aten("baddbmm.default")
def baddbmm(t: Translation, c: Call) -> Tensor:
    """Beta · self + alpha · batch1 · batch2."""
    product = matmul(t, c.tensor("batch1"), c.tensor("batch2"))
    alpha, beta = c.number("alpha", 1.0), c.number("beta", 1.0)
    if alpha != 1:
        product = binary(t, "Mul", product, alpha, product.dtype)
    if beta == 0:
        return product
    bias = c.tensor("self") if beta == 1 else binary(t, "Mul", c.tensor("self"), beta, product.dtype)
    return binary(t, "Add", bias, product, product.dtype)


@aten("mm.default", "bmm.default", "matmul.default", "mv.default", "dot.default")
def mm(t: Translation, c: Call) -> Tensor:
    """The matrix product."""
    a = c.tensor("self")
    b = c.tensor(next(name for name in ("mat2", "other", "vec", "tensor") if name in c.node.args))
    if a.rank == 2 and b.rank == 2 and b.array is not None:
        return _gemm(t, a, b, None)
    return matmul(t, a, b)


@aten("outer.default")
def outer(t: Translation, c: Call) -> Tensor:
    """Every entry of one vector times every entry of another."""
    a, b = c.tensor("self"), c.tensor("vec2")
    return binary(t, "Mul", reshape(t, a, (a.shape[0], 1)), reshape(t, b, (1, b.shape[0])), c.result())


@aten("einsum.default")
def einsum(t: Translation, c: Call) -> Tensor:
    """Einstein's summation over named axes; ellipses are not known."""
    equation, parts = c.text("equation", "").replace(" ", ""), c.tensors("tensors")
    c.get("path")
    match = re.fullmatch(r"([A-Za-z]+(?:,[A-Za-z]+)*)->([A-Za-z]*)", equation)
    if match is None or len(match[1].split(",")) != len(parts):
        raise c.refuse("the equation is not of the form ab,bc->ac")
    sizes: dict[str, Size] = {}
    for letters, part in zip(match[1].split(","), parts, strict=True):
        if len(letters) != part.rank:
            raise c.refuse("the equation does not fit the tensors")
        for letter, size in zip(letters, part.shape, strict=True):
            sizes[letter] = t.unify(sizes.get(letter, 1), size)
    t.mixes(*(size for letter, size in sizes.items() if letter not in match[2]))
    if not set(match[2]) <= set(sizes):
        raise c.refuse("the equation names an axis that no tensor has")
    return t.op("Einsum", *parts, shape=tuple(sizes[letter] for letter in match[2]), equation=equation)


# Convolutions and pooling


def _each(c: Call, name: str, count: int, default: Sequence[int]) -> list[int]:
    """A setting per spatial axis; one number stands for all of them, an empty list for the default."""
    values = c.integers(name, default) or list(default)
    values = values * count if len(values) == 1 else values
    if len(values) != count or min(values) < 0:
        raise c.refuse(f"{name} does not fit the tensor")
    return values


def _window(size: Size, kernel: int, stride: int, pad: int, dilation: int) -> Size:
    return add(floordiv(add(size, pad - dilation * (kernel - 1) - 1), stride), 1)


@aten("conv1d.default", "conv2d.default", "conv3d.default", "convolution.default", "conv1d.padding", "conv2d.padding")
def conv(t: Translation, c: Call) -> Tensor:
    """A cross-correlation over the axes after the channels; weight is [out, in / groups, kernel ...]."""
    x, weight, bias = c.tensor("input"), c.tensor("weight"), c.optional("bias")
    count = weight.rank - 2
    kernel = [s for s in weight.shape[2:] if isinstance(s, int)]
    if c.flag("transposed") or x.rank != weight.rank or len(kernel) != count:
        raise c.refuse("transposed convolutions and tensors without a batch axis are not known")
    if any(c.integers("output_padding", [0])):
        raise c.refuse("output_padding is not known")
    stride, dilation = _each(c, "stride", count, [1]), _each(c, "dilation", count, [1])
    groups = c.integer("groups", 1)
    if c.node.target.endswith(".padding"):
        around = [
            d * (k - 1) if c.text("padding", "valid") == "same" else 0 for d, k in zip(dilation, kernel, strict=True)
        ]
        before = [p // 2 for p in around]
        pads = [*before, *(p - b for p, b in zip(around, before, strict=True))]
    else:
        pads = _each(c, "padding", count, [0]) * 2
    total = [a + b for a, b in zip(pads[:count], pads[count:], strict=True)]
    t.mixes(*x.shape[1:])
    t.unify(x.shape[1], weight.shape[1] * groups if isinstance(weight.shape[1], int) else weight.shape[1])
    spatial = map(_window, x.shape[2:], kernel, stride, total, dilation)
    return t.op(
        "Conv", x, weight, bias, shape=(x.shape[0], weight.shape[0], *spatial),
        kernel_shape=kernel, strides=stride, dilations=dilation, group=groups, pads=pads,
    )  # fmt: skip


def _pool(t: Translation, c: Call, op_type: str, **settings: int) -> Tensor:
    x = c.tensor("self")
    count = 2 if "2d" in c.node.target else 1
    kernel = _each(c, "kernel_size", count, [])
    stride, padding = _each(c, "stride", count, kernel), _each(c, "padding", count, [0])
    dilation = _each(c, "dilation", count, [1])
    if c.flag("ceil_mode") or x.rank != count + 2:
        raise c.refuse("ceil_mode, and tensors without a batch axis, are not known")
    t.mixes(*x.shape[2:])
    spatial = map(_window, x.shape[2:], kernel, stride, [2 * p for p in padding], dilation)
    return t.op(
        op_type, x, shape=(*x.shape[:2], *spatial), kernel_shape=kernel, strides=stride, pads=padding * 2,
        dilations=dilation if any(d != 1 for d in dilation) else None, **settings,
    )  # fmt: skip


@aten("max_pool1d.default", "max_pool2d.default")
def max_pool(t: Translation, c: Call) -> Tensor:
    """The greatest entry of each window."""
    return _pool(t, c, "MaxPool")


@aten("max_pool2d_with_indices.default")
def max_pool_indices(t: Translation, c: Call) -> list[Tensor | None]:
    """The same; where the entries stood is of no use."""
    return [_pool(t, c, "MaxPool"), None]


@aten("avg_pool1d.default", "avg_pool2d.default")
def avg_pool(t: Translation, c: Call) -> Tensor:
    """The mean of each window."""
    if c.has("divisor_override"):
        raise c.refuse("divisor_override is not known")
    return _pool(t, c, "AveragePool", count_include_pad=int(c.flag("count_include_pad", default=True)))


@aten("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default", "_adaptive_avg_pool2d.default")
def adaptive_avg_pool(t: Translation, c: Call) -> Tensor:
    """Means over windows that cover the axes evenly."""
    x, target = c.tensor("self"), c.integers("output_size")
    axes = list(range(x.rank - len(target), x.rank))
    if all(n == 1 for n in target):
        return reduce(t, "ReduceMean", x, axes, keep=True)
    spatial = [x.shape[a] for a in axes]
    t.counts(*spatial)
    if any(not isinstance(s, int) or s % n for s, n in zip(spatial, target, strict=True)):
        raise c.refuse("windows of unequal width are not known")
    kernel = [s // n for s, n in zip(spatial, target, strict=True) if isinstance(s, int)]
    return t.op("AveragePool", x, shape=(*x.shape[: axes[0]], *target), kernel_shape=kernel, strides=kernel)


# Embeddings and attention


@aten("embedding.default")
def embedding(t: Translation, c: Call) -> Tensor:
    """Rows of weight by number; padding_idx matters in training alone."""
    weight, indices = c.tensor("weight"), c.tensor("indices")
    for name in ("padding_idx", "scale_grad_by_freq", "sparse"):
        c.get(name)
    return t.op("Gather", weight, indices, shape=(*indices.shape, *weight.shape[1:]), axis=0)


def _causal(t: Translation, rows: Size, columns: Size) -> Tensor:
    """Where attention must not look: column > row; [rows, columns]."""
    int64 = np.dtype(np.int64)
    ends = [t.operand(size, int64) for size in (rows, columns)]
    zero, one = t.operand(0, int64), t.operand(1, int64)
    row, column = (
        t.op("Range", zero, end, one, shape=(size,)) for end, size in zip(ends, (rows, columns), strict=True)
    )
    row = t.op("Unsqueeze", row, t.b.ints(1), shape=(rows, 1))
    return binary(t, "Greater", column, row, int64, BOOL)


def _attention(t: Translation, c: Call) -> Tensor:
    """Gives softmax(query · keyᵀ · scale + mask) · value, as `_scaled_dot_product_attention_math` of ATen computes it.

    A row that the mask forbids everywhere gives zeros (`_safe_softmax`).
    """
    query, key, value = c.tensor("query"), c.tensor("key"), c.tensor("value")
    if c.number("dropout_p", 0.0) or c.flag("enable_gqa"):
        raise c.refuse("dropout and grouped queries are not known")
    width = query.shape[-1]
    if not isinstance(width, int):
        raise c.refuse("the width of the heads must be fixed")
    scale = c.number("scale") if c.has("scale") else 1 / math.sqrt(width)
    swap = (*range(key.rank - 2), key.rank - 1, key.rank - 2)
    scores = matmul(t, query, transpose(t, key, swap))
    scores = binary(t, "Mul", scores, scale, scores.dtype)
    t.mixes(scores.shape[-1])
    mask = c.optional("attn_mask")
    if c.flag("is_causal"):
        forbidden = _causal(t, scores.shape[-2], scores.shape[-1])
    elif mask is None:
        return matmul(t, t.op("Softmax", scores, shape=scores.shape, axis=-1), value)
    elif mask.dtype == BOOL:
        forbidden = t.op("Not", mask, shape=mask.shape)
    else:
        scores = binary(t, "Add", scores, mask, scores.dtype)
        forbidden = binary(t, "Equal", scores, float("-inf"), scores.dtype, BOOL)
    shape = t.broadcast(forbidden.shape, scores.shape)
    closed = t.scalar(float("-inf"), scores.dtype)
    scores = t.op("Where", forbidden, closed, scores, shape=shape, dtype=scores.dtype)
    every = t.op("Cast", binary(t, "Equal", scores, closed, scores.dtype, BOOL), shape=shape, dtype=np.int32, to=6)
    blind = reduce(t, "ReduceMin", every, [len(shape) - 1], keep=True)
    weights = t.op("Softmax", scores, shape=shape, axis=-1)
    nothing = t.scalar(0.0, scores.dtype)
    blind = t.op("Cast", blind, shape=blind.shape, dtype=BOOL, to=9)
    weights = t.op("Where", blind, nothing, weights, shape=shape, dtype=scores.dtype)
    return matmul(t, weights, value)


@aten("scaled_dot_product_attention.default")
def attention(t: Translation, c: Call) -> Tensor:
    """Attention, as programs straight from torch.export have it."""
    return _attention(t, c)


@aten("_scaled_dot_product_flash_attention_for_cpu.default")
def flash_attention(t: Translation, c: Call) -> list[Tensor | None]:
    """The same, as run_decompositions() leaves it on a CPU."""
    return [_attention(t, c), None]
