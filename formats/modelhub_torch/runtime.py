"""Torch as reference engine: the archive loaded by `torch.export.load` and run without the example's guards.

Loading a file in torch runs what the file says: size expressions are evaluated as Python, operator names looked up as
attributes of torch, sample inputs unpickled. So torch gets a copy of the archive without all that: the program with
operators of our table alone, expressions of our grammar alone, no guards and no metadata, the raw weights, and no
pickles. The original file is loaded only where a user vouches for it (`--trust`) and the copy is not possible.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Container, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelhub.errors import Inconclusive, ModelhubError, Unsupported, safe_text
from modelhub.graph.interface import Interface
from modelhub.protocols import ReadOptions
from modelhub_torch.archive import Pt2
from modelhub_torch.program import Program

if TYPE_CHECKING:
    from modelhub.protocols import Arrays
    from modelhub_torch.inside import Overheard

__all__ = ["TorchEngine", "clean", "load"]


def load(path: Path, interface: Interface, precision: str, options: ReadOptions) -> TorchEngine:
    """The program in `path`, ready to run in `precision`. Raises `Inconclusive` where torch cannot do that."""
    try:
        import torch
    except ImportError as error:
        raise Inconclusive(f'torch is not installed: pip install "modelhub-hep[torch]" ({safe_text(error)})') from None
    from modelhub_torch.fallback import quiet

    batch, source = _source(path, options)
    with quiet():
        try:
            exported = torch.export.load(source)
            guards = {"check_guards": False} if "check_guards" in signature(exported.module).parameters else {}
            program = exported.module(**guards)
        except Exception as error:  # torch raises errors of many kinds here
            raise Inconclusive(f"torch {torch.__version__} cannot load {path.name}: {safe_text(error, 200)}") from None
        _convert(program, getattr(torch, precision))
    return TorchEngine(program, exported, interface, precision, batch)


def _source(path: Path, options: ReadOptions) -> tuple[int | None, Any]:
    """The burnt-in number of events, and what torch is to load: a clean copy, or the file itself if trusted."""
    try:
        archive = Pt2(path)
        try:
            program = Program.of(archive.program, str(path))
            return _burnt_in(program), clean(archive, program)
        finally:
            archive.close()
    except ModelhubError as error:
        if not options.trust:
            raise Inconclusive(f"{error}; torch itself runs it with --trust") from None
        return None, str(path)


def _burnt_in(program: Program) -> int | None:
    sizes = [program.metas[item.value].sizes[:1] for item in program.inputs if item.value in program.metas]
    first = sizes[0][0] if sizes and sizes[0] else None
    return first if isinstance(first, int) and first > 0 else None


def clean(archive: Pt2, program: Program) -> io.BytesIO:
    """A copy of the archive with nothing in it that torch would execute. Raises `Unsupported` where there is none."""
    from modelhub_torch.reader import unknown

    foreign = [*unknown(program), *(f"{safe_text(name)} is a pickle" for name in archive.pickled)]
    if foreign:
        raise Unsupported(f"{archive.path}: torch would have to run code from the file", foreign)
    data = json.loads(json.dumps(archive.program))
    module = data["graph_module"]
    data["guards_code"] = []
    module["metadata"] = {}
    module["module_call_graph"] = module["module_call_graph"][:1]
    for node in module["graph"]["nodes"]:
        node["metadata"] = {}
    _check_expressions(data, str(archive.path))
    _on_cpu(data)
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as target:
        target.writestr("model/archive_format", "pt2")
        target.writestr("model/archive_version", "0")
        target.writestr("model/byteorder", "little")
        target.writestr("model/.data/version", "6\n")
        target.writestr("model/models/model.json", json.dumps(data))
        for name, content in archive.members().items():
            new = _renamed(archive, name)
            target.writestr(new, json.dumps(_on_cpu(json.loads(content))) if new.endswith(".json") else content)
        target.writestr("model/data/sample_inputs/model.pt", b"")
    copy.seek(0)
    return copy


def _renamed(archive: Pt2, name: str) -> str:
    folder, _, last = name.rpartition("/")
    return "model" + f"/{folder}/"[len(archive.root) :] + last.replace(f"{archive.model}_", "model_", 1)


def _check_expressions(item: Any, where: str) -> None:
    """Refuse expressions outside the grammar of `sizes`: torch would evaluate them."""
    from modelhub_torch.sizes import parse

    todo = [item]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            if "expr_str" in item:
                try:
                    parse(str(item["expr_str"]))
                except ValueError as error:
                    raise Unsupported(
                        f"{where}: the size {safe_text(item['expr_str'])} is not understood: {error}"
                    ) from None
            todo += item.values()
        elif isinstance(item, list):
            todo += item


def _on_cpu(item: Any) -> Any:
    """Every device named in `item` made the CPU, in place: weights are raw bytes, wherever they were trained."""
    todo = [item]
    while todo:
        part = todo.pop()
        if isinstance(part, dict) and part.keys() == {"type", "index"} and isinstance(part["type"], str):
            part.update(type="cpu", index=None)
        elif isinstance(part, (dict, list)):
            todo += part.values() if isinstance(part, dict) else part
    return item


def _convert(program: Any, dtype: Any) -> None:
    """Weights, constants and every floating-point dtype named in the graph turned into `dtype`, in place."""
    import torch

    floats = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    program.to(dtype)
    for name, value in list(vars(program).items()):
        if isinstance(value, torch.Tensor) and value.dtype in floats:
            setattr(program, name, value.to(dtype))
    graph = program.graph
    for node in list(graph.nodes):
        if "_assert_tensor_metadata" in str(node.target):
            graph.erase_node(node)
            continue
        if "rms_norm" in str(node.target) and "eps" not in node.kwargs and len(node.args) < 4:
            node.kwargs = {**node.kwargs, "eps": torch.finfo(torch.float32).eps}  # its default would follow the dtype
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default  # the strides of the example may not be those of other sizes
        node.args = torch.fx.node.map_aggregate(node.args, lambda a: dtype if a in floats else a)
        node.kwargs = torch.fx.node.map_aggregate(node.kwargs, lambda a: dtype if a in floats else a)
    program.recompile()


@dataclass(frozen=True)
class _Constant:
    """An argument of the program that is no tensor: fixed when it was exported."""

    value: Any


class TorchEngine:
    """An exported program in torch. Where the example's number of events is burnt in, events go in such portions."""

    name = "torch"

    def __init__(self, program: Any, exported: Any, interface: Interface, precision: str, batch: int | None) -> None:
        import torch

        self.version = torch.__version__
        self.precision = precision
        self._program = program
        self._exported = exported
        self._interface = interface
        self._batch = batch

    def __call__(self, arrays: Arrays) -> Arrays:
        """Outputs for raw inputs by tensor name. Raises `Inconclusive` where torch refuses them."""
        ready = self._interface.prepare(arrays, self.precision)
        inputs = [ready[record.tensor] for record in self._interface.inputs]
        results = self._run(inputs) if self._batch is None else self._in_portions(inputs, self._batch)
        if len(results) != len(self._interface.outputs):
            raise Inconclusive(
                f"torch returns {len(results)} outputs, the interface names {len(self._interface.outputs)}"
            )
        return {
            record.tensor: array.astype(self.precision) if np.issubdtype(array.dtype, np.floating) else array
            for record, array in zip(self._interface.outputs, results, strict=True)
        }

    def _in_portions(self, inputs: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
        """The events `size` at a time; the last portion is filled up with copies of its last event."""
        count = len(inputs[0])
        if not count:
            raise Inconclusive(f"the file was made for {size} events and cannot run with none")
        portions = []
        for start in range(0, count, size):
            chosen = np.minimum(np.arange(start, start + size), count - 1)
            portions.append(self._run([array[chosen] for array in inputs]))
        joined = []
        for pieces in zip(*portions, strict=True):
            if any(piece.ndim == 0 or len(piece) != size for piece in pieces):
                raise Inconclusive(
                    f"an output does not have the {size} events on its first axis that the file was made for"
                )
            joined.append(np.concatenate(pieces)[:count])
        return joined

    def layers(self, arrays: Arrays, wanted: Container[str]) -> list[tuple[str, np.ndarray]]:
        """What the operators in `wanted`, named by their results in the program, compute, in order."""
        from modelhub_torch.inside import Overheard

        ready = self._interface.prepare(arrays, self.precision)
        overheard = Overheard(self._program, wanted)
        self._run([ready[record.tensor] for record in self._interface.inputs], overheard)
        return overheard.found

    def _run(self, inputs: Sequence[np.ndarray], overheard: Overheard | None = None) -> list[np.ndarray]:
        import torch
        from torch.utils import _pytree as pytree

        plain = [a.astype(self.precision) if a.dtype.name == "bfloat16" else a for a in inputs]
        tensors = iter([torch.from_numpy(np.ascontiguousarray(array)) for array in plain])
        leaves = [next(tensors) if slot is None else slot.value for slot in self._slots()]
        before = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, self.precision))
        try:
            with torch.no_grad():
                if overheard is None:
                    args, kwargs = pytree.tree_unflatten(leaves, self._exported.call_spec.in_spec)
                    results = self._program.forward(*args, **kwargs)  # not __call__: its hooks want the example's sizes
                else:
                    results = overheard.run(*leaves, enable_io_processing=False)
        except Exception as error:  # a shape the file was not made for, an empty sequence, ...
            shapes = " and ".join(str(list(array.shape)) for array in inputs)
            raise Inconclusive(f"torch does not run the file on {shapes}: {safe_text(error, 200)}") from None
        finally:
            torch.set_default_dtype(before)
        return [leaf.numpy() for leaf in pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]

    def _slots(self) -> list[_Constant | None]:
        """One entry per argument leaf of the program: None for a tensor."""
        from torch.export.graph_signature import ConstantArgument, InputKind

        specs = self._exported.graph_signature.input_specs
        arguments = [spec.arg for spec in specs if spec.kind is InputKind.USER_INPUT]
        return [_Constant(arg.value) if isinstance(arg, ConstantArgument) else None for arg in arguments]
