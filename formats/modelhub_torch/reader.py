"""From an exported program to the common graph.

A file exported without dynamic shapes has the example's sizes burnt in. Where the operators show that the number of
events (and of steps) does not matter, those axes are made dynamic all the same: the program is translated with a
symbol in place of the number, and the number stays only if that fails (`Clash`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelhub.errors import UnreadableFile, Unsupported, notice, safe_text
from modelhub_torch import (  # noqa: F401  (filling the table)
    operators_activations,
    operators_create,
    operators_index,
    operators_layers,
    operators_norms,
    operators_pointwise,
    operators_recurrent,
    operators_reduce,
    operators_shape,
)
from modelhub_torch.archive import Hopeless, Pt2, dtype_of
from modelhub_torch.call import Call
from modelhub_torch.program import Node, Program, Ref, UserInput
from modelhub_torch.sizes import Expr, Size, rename, symbol, symbols
from modelhub_torch.translate import BATCH, TABLE, Clash, Operator, Tensor, Translation, Value

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["free_axes", "read", "translate", "unknown"]

ATEN = "torch.ops.aten."


def read(path: Path) -> ir.Model:
    """The model in the `.pt2` file `path`. Raises `UnreadableFile` and `Unsupported`; imports no torch."""
    archive = Pt2(path)
    try:
        program = Program.of(archive.program, str(path))
        foreign = unknown(program)
        if foreign:
            raise Unsupported(f"{path} uses operators that modelhub does not know", foreign)
        model, free = translate(archive, program)
    finally:
        archive.close()
    _tell(path, program, free)
    return model


def translate(archive: Pt2, program: Program) -> tuple[ir.Model, frozenset[str]]:
    """The graph, and the symbols that stand where the file has the example's sizes."""
    reason: Clash | None = None
    for free in free_axes(program):
        try:
            attempt = _Attempt(archive, program, free)
            model = attempt.run()
        except Clash as clash:
            reason = clash
            continue
        for remark in attempt.t.remarks:
            notice(f"{archive.path.name}: {safe_text(remark, 300)}")
        if attempt.t.mixed:
            notice(f"{archive.path.name} combines different events: its answers depend on which are asked together")
        return model, free
    raise Unsupported(f"{archive.path}: {reason}")


def _tell(path: Path, program: Program, free: frozenset[str]) -> None:
    if BATCH in free:
        notice(f"{path.name} was exported for {_first(program)} events at a time; its operators take any number")
    elif program.inputs and isinstance(_first(program), int):
        notice(
            f"{path.name} was exported for exactly {_first(program)} events at a time and depends on that; "
            "export it with dynamic_shapes to have any number"
        )
    for item in program.inputs:
        if f"T_{item.name}" in free:
            notice(f"{path.name} was exported for one length of {item.name}; its operators take any length")
        elif _sequence(program, item) and (steps := _static(program, item, 1)) is not None:
            notice(f"{path.name}: the second axis of {item.name} stays {steps} long, as it was exported")
    for name, (low, high) in program.ranges.items():
        if high is not None or (low or 0) > 2:
            notice(f"{path.name} was exported for {safe_text(name)} between {low} and {high} only")
    for guard in program.guards:
        if re.fullmatch(r"L\[[^=<>%]*\]\.size\(\)\[\d+\] == (\d+|L\[[^=<>%]*\]\.size\(\)\[\d+\])", guard) is None:
            notice(f"{path.name} was exported under the condition {safe_text(guard)}")


def _first(program: Program) -> Size | None:
    meta = program.metas.get(program.inputs[0].value)
    return meta.sizes[0] if meta and meta.sizes else None


def unknown(program: Program) -> list[str]:
    """The operators that are not in the table, each with how often it is used."""
    count: dict[str, int] = {}
    for node in program.nodes:
        if _operator(node.target) is None:
            count[node.target] = count.get(node.target, 0) + 1
    hint = "; run_decompositions() on the exported program dissolves most of this kind"
    return [
        f"{safe_text(target)} ({times}x){hint if target.startswith('torch.ops.higher_order.') else ''}"
        for target, times in count.items()
    ]


def _operator(target: str) -> tuple[Operator, bool] | None:
    """The function of an operator, and whether it also writes its result in place of its first argument."""
    if not target.startswith(ATEN):
        function = TABLE.get(target) if target.startswith(("_operator.", "torch.sym", "torch._sym", "math.")) else None
        return None if function is None else (function, False)
    name = target[len(ATEN) :]
    if name in TABLE:
        return TABLE[name], False
    base, _, overload = name.partition(".")
    if base.endswith("_") and not base.endswith("__"):
        function = TABLE.get(f"{base[:-1]}.{overload}")
        return None if function is None else (function, True)
    return None


# Which axes can be dynamic


def _static(program: Program, item: UserInput, axis: int) -> int | None:
    """The burnt-in size of an axis of an input."""
    meta = program.metas.get(item.value)
    size = meta.sizes[axis] if meta and len(meta.sizes) > axis else None
    return size if isinstance(size, int) and size > 0 else None


def _sequence(program: Program, item: UserInput) -> bool:
    """Whether an input holds floating-point numbers on three axes: events, steps, features."""
    meta = program.metas.get(item.value)
    return meta is not None and len(meta.sizes) == 3 and meta.code in (6, 7, 8, 13)


def free_axes(program: Program) -> list[frozenset[str]]:
    """Sets of symbols to try in place of burnt-in numbers, the freest first, none at all last."""
    batch = {_static(program, item, 0) for item in program.inputs}
    events = frozenset({BATCH}) if len(batch) == 1 and None not in batch else frozenset()
    steps = frozenset(
        f"T_{item.name}"
        for item in program.inputs
        if _sequence(program, item) and (size := _static(program, item, 1)) is not None and not _mentions(program, size)
    )
    tries = [events | steps, *(events | (steps - {name}) for name in sorted(steps)), events, steps, frozenset[str]()]
    return list(dict.fromkeys(tries))


def _mentions(program: Program, size: int) -> bool:
    """Whether a number in the program could be made of the number of steps: then that is no mere size of an axis."""
    names = ("other", "self", "value", "exponent", "min", "max", "alpha", "beta", "scale", "fill_value")
    values = (node.args.get(name) for node in program.nodes for name in names)
    return any(isinstance(value, (int, float)) and _made_of(value, size) for value in values)


def _made_of(value: float, size: int) -> bool:
    """Whether `value` is a usual function of `size`, as the divisor of a mean or the scale of attention are."""
    bases = (size, size - 1, size + 1)
    usual = [f for n in bases if n > 0 for f in (n, 1 / n, math.sqrt(n), 1 / math.sqrt(n))]
    return any(math.isclose(abs(value), number, rel_tol=1e-6) for number in usual)


# One attempt


class _Attempt:
    """One walk over the program with some axes made dynamic."""

    def __init__(self, archive: Pt2, program: Program, free: frozenset[str]) -> None:
        self.archive = archive
        self.program = program
        self.where = str(archive.path)
        self.names = self._symbols()
        hints = {str(new): program.hints[old] for old, new in self.names.items() if old in program.hints}
        for item in program.inputs:
            for axis, name in ((0, BATCH), (1, f"T_{item.name}")):
                if name in free and (size := _static(program, item, axis)):
                    hints[name] = size
        self.t = Translation(self.where, {**program.hints, **hints}, free)
        self.values: dict[str, Value] = {}
        self.stored = {p.value: p for p in program.parameters}
        self.last_use = {name: i for i, node in enumerate(program.nodes) for name in _uses(node)}
        self.last_use |= {value: len(program.nodes) for value, _ in program.outputs}

    def _symbols(self) -> dict[str, Expr]:
        """New names for the file's own symbols: N for first axes, T_<input> for the steps of a sequence."""
        names: dict[str, Expr] = {}
        for axis, prefix in ((0, ""), (1, "T_")):
            for item in self.program.inputs:
                meta = self.program.metas.get(item.value)
                if meta is None or len(meta.sizes) <= axis or (axis and len(meta.sizes) < 3):
                    continue
                found = symbols(meta.sizes[axis] or 0)
                if len(found) == 1 and meta.sizes[axis] == symbol(name := found.pop()):
                    names.setdefault(name, symbol(f"{prefix}{item.name}" if axis else BATCH))
        return names

    def run(self) -> ir.Model:
        """The graph. Raises `Clash` where an axis cannot be dynamic after all."""
        self._inputs()
        for index, node in enumerate(self.program.nodes):
            with self.t.b.scope(node.layer) if node.layer else _no_scope():
                self._node(index, node)
        for value, name in self.program.outputs:
            self._output(value, name)
        return self.t.b.finish()

    def _inputs(self) -> None:
        for item in self.program.inputs:
            meta = self.program.metas.get(item.value)
            if meta is None or None in meta.sizes:
                raise UnreadableFile(
                    f"{self.where}: the shape of input {safe_text(item.name)!r} is not recorded readably"
                )
            shape = [rename(size, self.names) for size in meta.sizes if size is not None]
            for axis, name in ((0, BATCH), (1, f"T_{item.name}")):
                if (
                    name in self.t.free
                    and len(shape) > axis
                    and isinstance(shape[axis], int)
                    and (axis == 0 or len(shape) == 3)
                ):
                    shape[axis] = symbol(name)
            dtype = dtype_of(meta.code, self.where)
            value = self.t.b.input(item.name, [s if isinstance(s, int) else str(s) for s in shape], dtype.name)
            self.values[item.value] = Tensor(tuple(shape), dtype, value)
            for axis, size in enumerate(shape):
                if isinstance(size, Expr) and size == symbol(str(size)):
                    self.t.sources.setdefault(str(size), (value, axis))

    def _load(self, name: str) -> None:
        """Fetch a parameter when it is first used: most files hold some that the graph never uses."""
        parameter = self.stored.get(name)
        if parameter is None or name in self.values:
            return
        array = self.archive.tensor(parameter.tensor)
        if parameter.lifted and array.size == 1:
            self._number(float(array.item()))
        wish = re.sub(r"[^\w.-]+", "_", parameter.tensor.rpartition(".")[2], flags=re.A)[:80] or "constant"
        self.values[name] = Tensor(tuple(array.shape), array.dtype, array=array, wish=wish)

    def _number(self, value: float) -> None:
        """Object to a constant that may have been made of a number of steps that is dynamic now."""
        for item in self.program.inputs:
            steps = _static(self.program, item, 1)
            if f"T_{item.name}" in self.t.free and steps and _made_of(value, steps):
                raise Clash("a constant could be the number of steps")

    def _node(self, index: int, node: Node) -> None:
        found = _operator(node.target)
        assert found is not None
        function, in_place = found
        for name in _uses(node):
            self._load(name)
        call = Call(node, self.values, self.program.metas, self.where)
        try:
            result = function(self.t, call)
        except (ArithmeticError, AssertionError, LookupError, RecursionError, TypeError, ValueError) as error:
            what = f"the arguments of {safe_text(node.name)} do not fit {safe_text(node.target)}"
            raise UnreadableFile(f"{self.where}: {what} ({safe_text(error)})") from error
        leftover = call.leftover()
        if leftover:
            raise call.refuse(f"its argument {', '.join(map(safe_text, leftover))} is not known")
        if in_place:
            self._written(index, node, result)
        self._assign(node, result)

    def _assign(self, node: Node, result: Any) -> None:
        """Give the results their names in the program, and hold them against what the file records of them."""
        outputs: Sequence[str] = [n for o in node.outputs for n in ((o,) if isinstance(o, str) else o)]
        results = list(result) if isinstance(result, (list, tuple)) else [result]
        if len(results) < len(outputs) or (len(outputs) != len(results) and len(outputs) > 1):
            raise UnreadableFile(
                f"{self.where}: {safe_text(node.name)} has {len(outputs)} results, its operator {len(results)}"
            )
        for name, value in zip(outputs, results, strict=False):
            if isinstance(value, Tensor):
                self._compare(node, name, value)
                if value.value is not None:
                    self.t.b.result_of(name, value.value)
            self.values[name] = value

    def _compare(self, node: Node, name: str, value: Tensor) -> None:
        meta = self.program.metas.get(name)
        if meta is None:
            return
        recorded = [self.t.hint(size) if size is not None else None for size in meta.sizes]
        computed = [self.t.hint(size) for size in value.shape]
        fits = len(recorded) == len(computed) and all(
            None in (a, b) or a == b for a, b in zip(recorded, computed, strict=True)
        )
        dtype = dtype_of(meta.code, self.where)
        if not fits or dtype != value.dtype:
            raise UnreadableFile(
                f"{self.where}: the file records {safe_text(name)} as {dtype} {recorded}, but "
                f"{safe_text(node.target)} makes it {value.dtype} {computed}"
            )

    def _written(self, index: int, node: Node, result: Any) -> None:
        """Let the first argument stand for the result from here on; refuse where views of it are read later."""
        first = next(iter(node.args.values()))
        target = self.values.get(first.name) if isinstance(first, Ref) else None
        if not isinstance(first, Ref) or not isinstance(target, Tensor) or not isinstance(result, Tensor):
            raise UnreadableFile(f"{self.where}: {safe_text(node.target)} has nothing to write to")
        for name, value in self.values.items():
            if not isinstance(value, Tensor) or value.owner is not target.owner or name == first.name:
                continue
            if self.last_use.get(name, -1) > index:
                why = f"it writes into {safe_text(name)}, which is read again later under another name"
                way_out = "call run_decompositions() on the exported program before saving it"
                raise Unsupported(self.where, [f"{safe_text(node.target)}: {why}; {way_out}"])
        stored = [self.values.get(name) for name in self.stored]
        if any(isinstance(value, Tensor) and value.owner is target.owner for value in stored):
            raise Hopeless(self.where, [f"{safe_text(node.target)}: it changes the model's own weights"])
        self.values[first.name] = result

    def _output(self, name: str, wish: str) -> None:
        self._load(name)
        value = self.values.get(name)
        if not isinstance(value, Tensor):
            raise UnreadableFile(f"{self.where}: output {safe_text(name)!r} is not computed")
        places = [axis for axis, size in enumerate(value.shape) if BATCH in self.t.names(size)]
        if BATCH in self.t.free and (places not in ([], [0]) or (places and value.shape[0] != symbol(BATCH))):
            raise Clash(f"output {wish} does not have the events on its first axis")
        shape = [s if isinstance(s, int) else str(s) for s in map(self.t.plain, value.shape)]
        self.t.b.output(self.t.value(value), wish, shape, value.dtype.name)


def _uses(node: Node) -> Iterator[str]:
    for value in node.args.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Ref):
                yield item.name


def _no_scope() -> Any:
    from contextlib import nullcontext

    return nullcontext()
