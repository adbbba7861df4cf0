"""The exported program in `models/model.json`, checked and typed: nodes, arguments, signature, names.

The schema is torch/_export/serde/schema.py, major version 8. Stack traces and other metadata are left behind;
only the layer's path is taken from `nn_module_stack`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from modelhub.errors import UnreadableFile, Unsupported, safe_text
from modelhub_torch.archive import Hopeless, need
from modelhub_torch.sizes import Size, evaluate, parse

__all__ = ["Argument", "DType", "Meta", "Node", "Parameter", "Program", "Ref", "SizeRef", "UserInput"]

MAJOR = 8
"""The schema's major version; a change of it breaks readers."""


@dataclass(frozen=True)
class Ref:
    """An argument that is a tensor value of the graph."""

    name: str


@dataclass(frozen=True)
class SizeRef:
    """An argument that is a symbolic number of the graph."""

    name: str


@dataclass(frozen=True)
class DType:
    """An argument that is a dtype, by its code in the export schema."""

    code: int


@dataclass(frozen=True)
class Setting:
    """An argument that says where or how a tensor lies in memory: device, layout, memory format."""

    kind: str


Argument: TypeAlias = "bool | int | float | str | Ref | SizeRef | DType | Setting | list[Argument] | None"


@dataclass(frozen=True)
class Node:
    """One call of an operator. `outputs` are names of values, or a list of them where the operator returns a list."""

    target: str
    name: str
    layer: str
    args: Mapping[str, Argument]
    outputs: tuple[str | tuple[str, ...], ...]


@dataclass(frozen=True)
class Meta:
    """What the file records about a tensor value: dtype code of the schema and sizes (None: not understood)."""

    code: int
    sizes: tuple[Size | None, ...]


@dataclass(frozen=True)
class Parameter:
    """A graph input that is filled from the archive: parameter, buffer or (`lifted`) a constant of forward()."""

    value: str
    tensor: str
    lifted: bool


@dataclass(frozen=True)
class UserInput:
    """A graph input that the caller fills. `name` is what the author of the model called it."""

    value: str
    name: str


@dataclass
class Program:
    """A whole exported program."""

    nodes: list[Node]
    parameters: list[Parameter]
    inputs: list[UserInput]
    outputs: list[tuple[str, str]]
    """Value and name of every output."""
    metas: dict[str, Meta]
    size_values: dict[str, Size]
    hints: dict[str, int]
    """The example's value of every symbol."""
    ranges: dict[str, tuple[int | None, int | None]]
    guards: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, data: Any, where: str) -> Program:
        """The program in the JSON object `data`; `where` names its place. Raises `UnreadableFile`, `Unsupported`."""
        version = need(data, "schema_version", dict, where)
        if version.get("major") != MAJOR:
            raise Unsupported(
                f"{where}: schema version {safe_text(version.get('major'), 20)}, known is {MAJOR}; "
                "export the model again with torch 2.8 or newer"
            )
        reader = _Reader(where)
        module = need(data, "graph_module", dict, where)
        graph = need(module, "graph", dict, where)
        metas = {k: reader.meta(v) for k, v in need(graph, "tensor_values", dict, where).items()}
        size_values = {}
        for name, value in need(graph, "sym_int_values", dict, where).items():
            size = reader.size(value)
            if size is not None:
                size_values[name] = size
        if graph.get("custom_obj_values"):
            raise Unsupported(f"{where}: the program uses custom objects; only tensors are known")
        nodes = [reader.node(n) for n in need(graph, "nodes", list, where)]
        signature = need(module, "signature", dict, where)
        parameters, inputs = reader.inputs(need(signature, "input_specs", list, where))
        calls = module.get("module_call_graph") or [{}]
        call = (calls[0] if isinstance(calls, list) and isinstance(calls[0], dict) else {}).get("signature") or {}
        inputs = _named(inputs, call.get("forward_arg_names") if isinstance(call, dict) else None)
        outputs = reader.outputs(need(signature, "output_specs", list, where))
        names = _output_names(call.get("out_spec") if isinstance(call, dict) else None, len(outputs))
        ranges = {
            str(k): (_bound(v.get("min_val")), _bound(v.get("max_val")))
            for k, v in need(data, "range_constraints", dict, where).items()
            if isinstance(v, dict)
        }
        given = data.get("guards_code")
        guards = [g for g in given if isinstance(g, str)] if isinstance(given, list) else []
        return cls(
            nodes, parameters, inputs, list(zip(outputs, names, strict=True)),
            metas, size_values, reader.hints, ranges, guards,
        )  # fmt: skip


def _bound(value: Any) -> int | None:
    return value if isinstance(value, int) and abs(value) < 2**40 else None


class _Reader:
    """Turns pieces of the JSON into the classes above."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.hints: dict[str, int] = {}

    def bad(self, what: str, item: Any) -> UnreadableFile:
        return UnreadableFile(f"{self.where}: {what} is not as torch writes it: {safe_text(item)}")

    def one(self, item: Any, what: str) -> tuple[str, Any]:
        """Tag and content of a tagged union."""
        if not isinstance(item, dict) or len(item) != 1:
            raise self.bad(what, item)
        ((tag, value),) = item.items()
        return tag, value

    def name(self, item: Any, key: str = "name") -> str:
        value: str = need(item, key, str, self.where)
        return value

    def size(self, item: Any) -> Size | None:
        """A SymInt; None when its expression is outside the grammar."""
        tag, value = self.one(item, "a size")
        if tag == "as_int" and isinstance(value, int) and not isinstance(value, bool):
            return value
        if tag != "as_expr":
            raise self.bad("a size", item)
        try:
            size = parse(self.name(value, "expr_str"))
        except ValueError:
            return None
        hint = value.get("hint")
        if isinstance(hint, dict) and isinstance(hint.get("as_int"), int):
            terms = [] if isinstance(size, int) else list(size.terms)
            if len(terms) == 1 and len(terms[0][0]) == 1 and terms[0][1] == 1 and isinstance(terms[0][0][0], str):
                self.hints.setdefault(terms[0][0][0], hint["as_int"])
        return size

    def meta(self, item: Any) -> Meta:
        code = need(item, "dtype", int, self.where)
        return Meta(code, tuple(self.size(s) for s in need(item, "sizes", list, self.where)))

    def node(self, item: Any) -> Node:
        target = self.name(item, "target")
        args: dict[str, Argument] = {}
        higher = target.startswith("torch.ops.higher_order.")  # takes whole graphs; the table knows none of these
        for given in [] if higher else need(item, "inputs", list, self.where):
            name = self.name(given)
            if name in args:
                raise self.bad(f"argument {safe_text(name)!r} of {safe_text(target)}", given)
            args[name] = self.argument(given.get("arg"), target)
        outputs = tuple(self.output(o, target) for o in need(item, "outputs", list, self.where))
        name = item.get("name")
        first = next((o for o in outputs if isinstance(o, str)), target)
        metadata = item.get("metadata")
        stack = metadata.get("nn_module_stack") if isinstance(metadata, dict) else None
        return Node(target, name if isinstance(name, str) else first, _layer(stack), args, outputs)

    def output(self, item: Any, target: str) -> str | tuple[str, ...]:
        tag, value = self.one(item, f"an output of {safe_text(target)}")
        if tag == "as_tensor":
            return self.name(value)
        if tag == "as_tensors" and isinstance(value, list):
            return tuple(self.name(v) for v in value)
        if tag in ("as_sym_int", "as_sym_bool", "as_sym_float"):
            return self.name(value, "as_name")
        if tag == "as_none":
            return ""
        raise Unsupported(f"{self.where}: {safe_text(target)} returns {safe_text(tag)}, which is not known")

    def argument(self, item: Any, target: str) -> Argument:
        tag, value = self.one(item, f"an argument of {safe_text(target)}")
        if tag == "as_none":
            return None
        if tag == "as_tensor":
            return Ref(self.name(value))
        if tag == "as_optional_tensor":
            return self.optional(value)
        if tag in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return self.number(value)
        if tag == "as_scalar_type" and isinstance(value, int):
            return DType(value)
        if tag in ("as_device", "as_layout", "as_memory_format"):
            return Setting(tag)
        if tag in ("as_int", "as_bool", "as_float", "as_string") and isinstance(value, (int, float, str)):
            return self.real(value) if tag == "as_float" else value
        if isinstance(value, list):
            if tag == "as_tensors":
                return [Ref(self.name(v)) for v in value]
            if tag == "as_optional_tensors":
                return [self.optional(v) for v in value]
            if tag in ("as_sym_ints", "as_sym_floats"):
                return [self.number(v) for v in value]
            if tag in ("as_ints", "as_bools") and all(isinstance(v, int) for v in value):
                return list(value)
            if tag == "as_floats":
                return [self.real(v) for v in value]
        raise Unsupported(f"{self.where}: {safe_text(target)} has an argument of kind {safe_text(tag)}, not known here")

    def optional(self, item: Any) -> Ref | None:
        tag, value = self.one(item, "a tensor or None")
        if tag not in ("as_tensor", "as_none"):
            raise self.bad("a tensor or None", item)
        return Ref(self.name(value)) if tag == "as_tensor" else None

    def number(self, item: Any) -> Argument:
        tag, value = self.one(item, "a symbolic number")
        if tag == "as_name" and isinstance(value, str):
            return SizeRef(value)
        if tag == "as_float":
            return self.real(value)
        if tag in ("as_int", "as_bool") and isinstance(value, int):
            return int(value)
        raise self.bad("a symbolic number", item)

    def real(self, value: Any) -> float:
        """A float; infinities and NaN are written as texts."""
        if value in ("Infinity", "-Infinity", "NaN") or (
            isinstance(value, (int, float)) and not isinstance(value, bool)
        ):
            return float(value)
        raise self.bad("a number", value)

    def inputs(self, specs: list[Any]) -> tuple[list[Parameter], list[UserInput]]:
        parameters, users = [], []
        for spec in specs:
            tag, value = self.one(spec, "an input of the program")
            key = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
            if tag in key:
                name = self.name(need(value, "arg", dict, self.where))
                parameters.append(Parameter(name, self.name(value, key[tag]), lifted=tag == "tensor_constant"))
            elif tag == "user_input":
                kind, arg = self.one(need(value, "arg", dict, self.where), "an input of the program")
                if kind == "as_none":
                    continue
                if kind != "as_tensor":
                    raise Unsupported(f"{self.where}: an input is {safe_text(kind)}; only tensors can be inputs")
                users.append(UserInput(self.name(arg), self.name(arg)))
            elif tag != "constant_input":
                raise Unsupported(f"{self.where}: the program has an input of kind {safe_text(tag)}, not known here")
        return parameters, users

    def outputs(self, specs: list[Any]) -> list[str]:
        values = []
        for spec in specs:
            tag, value = self.one(spec, "an output of the program")
            if tag != "user_output":
                raise Hopeless(
                    f"{self.where}: the program writes to its own state ({safe_text(tag)}); "
                    "export it in inference mode (model.eval()), without running statistics"
                )
            kind, arg = self.one(need(value, "arg", dict, self.where), "an output of the program")
            if kind == "as_none":
                continue
            if kind != "as_tensor":
                raise Unsupported(f"{self.where}: an output is {safe_text(kind)}; only tensors can be outputs")
            values.append(self.name(arg))
        return values


def _layer(stack: Any) -> str:
    """The layer's path in the author's model from ``"key,path,class;key,path,class"``: that of the innermost module."""
    if not isinstance(stack, str):
        return ""
    fields = stack.split(";")[-1].split(",")
    path = fields[1] if len(fields) >= 3 else ""
    if path.startswith("_empty_nn_module_stack"):
        return ""
    path = re.sub(r"^L\['self'\]\.?|^L__self__\.?", "", path)
    return re.sub(r"[^\w.-]+", "_", path, flags=re.A)[:120].strip("_.")


def _named(inputs: list[UserInput], names: Any) -> list[UserInput]:
    """The inputs under the names of forward()'s arguments, where each is one tensor."""
    if isinstance(names, list) and len(names) == len(inputs) and all(isinstance(n, str) and n for n in names):
        inputs = [UserInput(i.value, n) for i, n in zip(inputs, names, strict=True)]
    return [UserInput(i.value, re.sub(r"[^\w.-]+", "_", i.name)[:120] or "input") for i in inputs]


def _output_names(spec: Any, count: int) -> list[str]:
    """Names for the outputs: the keys of a returned dict where there are any, else "output", "output_1", ..."""
    plain = [f"output_{i}" if i else "output" for i in range(count)]
    if not isinstance(spec, str) or len(spec) > 1 << 20:
        return plain
    try:
        tree = json.loads(spec)
        paths = _leaves(tree[1], [], 0) if isinstance(tree, list) and len(tree) == 2 else []
    except (ValueError, TypeError, KeyError, RecursionError):
        return plain
    if len(paths) != count:
        return plain
    names = ["_".join(path) if path else default for path, default in zip(paths, plain, strict=True)]
    names = [re.sub(r"[^\w.-]+", "_", name)[:120] for name in names]
    return names if len(set(names)) == count and all(names) else plain


def _leaves(node: Any, path: list[str], depth: int) -> list[list[str]]:
    """The path of keys to every leaf of a serialised pytree; places in tuples count only below a key."""
    if depth > 32:
        raise ValueError
    if node["type"] is None:
        return [path]
    keys = json.loads(node["context"]) if node["type"] == "builtins.dict" else None
    found: list[list[str]] = []
    children = node["children_spec"]
    for index, child in enumerate(children):
        step = [str(keys[index])] if keys is not None else [str(index)] if path and len(children) > 1 else []
        found += _leaves(child, [*path, *step], depth + 1)
    return found


def hint_of(size: Size | None, hints: Mapping[str, int]) -> int | None:
    """The example's value of `size`."""
    return None if size is None else evaluate(size, hints)
