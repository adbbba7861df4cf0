"""Reshaping: which symbolic shape a `view` means, and how to say it in ONNX."""

from __future__ import annotations

from collections.abc import Sequence

from modelhub.errors import UnreadableFile, safe_text
from modelhub_torch.sizes import Expr, Size, divide, floordiv, product, symbol
from modelhub_torch.translate import BATCH, Clash, Shape, Tensor, Translation

__all__ = ["reshape", "resolve", "transpose"]


def resolve(t: Translation, shape: Shape, target: Sequence[Size]) -> Shape:
    """The shape that `target` (with at most one -1) means for a tensor of `shape`.

    Where the file burnt the example's sizes into `target`, they are recognised as products of the dynamic
    axes by walking both shapes side by side (`_regroup`). Raises `Clash` where that is impossible.
    """
    total = product(shape)
    sizes = list(target)
    unknown = [i for i, s in enumerate(sizes) if s == -1]
    if len(unknown) > 1:
        raise UnreadableFile(f"{t.where}: a reshape leaves more than one size open")
    burnt = bool(t.names(total) & t.free)
    if unknown:
        others = product(s for s in sizes if s != -1)
        rest = divide(total, others)
        if burnt:
            rest = _hint(t, total) // _hint(t, others)
        elif rest is None and others != 0 and not isinstance(total, int):
            rest = floordiv(total, others)
        if rest is None:
            raise UnreadableFile(f"{t.where}: a tensor of shape {_text(shape)} cannot become {_text(target)}")
        sizes[unknown[0]] = rest
    if burnt:
        found = _regroup(t, shape, sizes)
        for place, (old, new) in enumerate(zip(target, found, strict=True)):
            if place not in unknown and isinstance(old, int) and t.names(new) & t.free - {BATCH}:
                raise Clash("a reshape counts the steps")  # torch itself could then run no other number
        return found
    if product(sizes) == total:
        return tuple(sizes)
    if None not in (t.hint(total), t.hint(product(sizes))) and t.hint(total) != t.hint(product(sizes)):
        raise UnreadableFile(f"{t.where}: a tensor of shape {_text(shape)} cannot become {_text(target)}")
    return tuple(sizes)


def _text(shape: Sequence[Size]) -> str:
    return safe_text("[" + ", ".join(map(str, shape)) + "]")


def _regroup(t: Translation, shape: Shape, target: Sequence[Size]) -> Shape:
    """`target` with the example's sizes replaced by the dynamic ones, walking along both shapes.

    With N = 2 and T = 7 in the example: [N, T, 4] -> [14, 4] means [N*T, 4], and [N*T, 4] -> [2, 7, 4] means
    [N, T, 4]. Fixed sizes may be cut and merged at will, dynamic ones only merged. Which factor of a merged axis runs
    slowest is remembered (`Translation.merged`): [T, N] merged is not [N, T] merged, and splitting it in the wrong
    order would mix events.
    """
    left = _factors(t, shape)
    result: list[Size] = []
    for size in target:
        want, group = _hint(t, size), list[Size]()
        if want == 1 and left and isinstance(left[0], Expr) and _hint(t, left[0]) == 1:
            group.append(left.pop(0))
        while want != 1:
            if not left:
                raise Clash("a reshape has the example's sizes in it")
            factor = left.pop(0)
            if isinstance(factor, int) and factor % want == 0:
                left.insert(0, factor // want)
                factor = want
            elif want % _hint(t, factor):
                raise Clash("a reshape splits a dynamic axis")
            group.append(factor)
            want //= _hint(t, factor)
        result.append(_merged(t, tuple(factor for factor in group if factor != 1)))
    if any(factor != 1 for factor in left):
        raise Clash("a reshape drops a dynamic axis")
    return tuple(result)


def _factors(t: Translation, shape: Shape) -> list[Size]:
    """What the axes were merged from, slowest first; neighbouring fixed sizes as one number."""
    found: list[Size] = []
    for size in shape:
        for factor in t.merged.get(str(size), (size,)):
            last = found[-1] if found else None
            if isinstance(factor, int) and isinstance(last, int):
                found[-1] = last * factor
            else:
                found.append(factor)
    return found


def _hint(t: Translation, size: Size) -> int:
    hint = t.hint(size)
    if not hint:
        raise Clash("a reshape has an unknown size in it")
    return hint


def _merged(t: Translation, factors: Shape) -> Size:
    """The size of an axis merged from `factors`: with dynamic ones among them a symbol that remembers their order."""
    if len(factors) < 2 or all(isinstance(factor, int) for factor in factors):
        return product(factors)
    name = "*".join(map(str, factors))
    t.merged[name] = factors
    return symbol(name)


def reshape(t: Translation, x: Tensor, shape: Shape) -> Tensor:
    """`x` with another shape of the same number of entries.

    Sizes at their old place become 0 and one other dynamic size -1, so that the node needs no arithmetic;
    two or more are computed from the inputs' shapes.
    """
    if shape == x.shape:
        return x
    if x.array is not None and all(isinstance(s, int) for s in shape):
        return Tensor(shape, x.dtype, array=x.array.reshape([s for s in shape if isinstance(s, int)]), wish=x.wish)
    if x.filled is not None:
        return Tensor(shape, x.dtype, filled=x.filled)
    plain: list[int] = []
    open_places = 0
    for place, size in enumerate(shape):
        if isinstance(size, int):
            plain.append(size)
        elif place < x.rank and x.shape[place] == size:
            plain.append(0)
        else:
            plain.append(-1)
            open_places += 1
    if open_places > 1 or (0 in [s for s in shape if isinstance(s, int)]):
        return t.op("Reshape", x, t.sizes(shape), shape=shape, allowzero=1 if 0 in shape else None)
    result = t.op("Reshape", x, t.b.ints(*plain), shape=shape)
    if len(shape) == 2 and x.rank > 2 and shape[-1] == x.shape[-1]:
        result.stacked = x
    return result


def transpose(t: Translation, x: Tensor, order: Sequence[int]) -> Tensor:
    """`x` with its axes in another order."""
    if list(order) == list(range(x.rank)):
        return x
    shape = tuple(x.shape[i] for i in order)
    if x.array is not None:
        return Tensor(shape, x.dtype, array=x.array.transpose(order), wish=x.wish)
    if x.filled is not None:
        return Tensor(shape, x.dtype, filled=x.filled)
    return t.op("Transpose", x, shape=shape, perm=list(order))
