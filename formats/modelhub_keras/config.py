"""Model configurations of every Keras, from 1.0 to 3, as one topology.

What differs: Sequential as a bare list (Keras 1, 2.0 to 2.2) or with a name; calls as lists of
``[layer, call, tensor, kwargs]`` (Keras 1 and 2) or as arguments that hold `__keras_tensor__` (Keras 3);
networks inside networks, whose calls count from 1 in the first and from 0 in the last.
(Keras 1: engine/topology.py; Keras 2: engine/functional.py; Keras 3: models/functional.py.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelhub.errors import UnreadableFile, Unsupported, safe_text

__all__ = ["FUNCTIONAL", "NETWORKS", "Call", "Layer", "Network", "Ref", "flat", "parse_layer", "parse_network"]

FUNCTIONAL = ("Functional", "Model")
NETWORKS = ("Sequential", *FUNCTIONAL)
DEEPEST = 16
"""How many networks may lie within one another."""

MODULES = re.compile(r"(tf_keras|keras|keras_core|tensorflow\.(python\.)?keras|tensorflow\.keras|builtins)(\..*)?")


@dataclass(frozen=True)
class Ref:
    """One tensor: output number `tensor` of call number `call` of the layer called `layer`."""

    layer: str
    call: int
    tensor: int


@dataclass(frozen=True)
class Call:
    """One application of a layer: its arguments, with `Ref` wherever a tensor goes in."""

    args: list[Any]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Layer:
    """One layer as the file describes it. `network` is there where the layer is a network itself."""

    name: str
    kind: str
    config: dict[str, Any]
    where: str
    """For messages: the layer's name, class and index."""
    network: Network | None = None
    calls: list[Call] = field(default_factory=list)
    shared: int | None = None
    """A number that layers which are one and the same have in common (Keras 3: `shared_object_id`)."""
    stranger: str | None = None
    """Where its class comes from, if not from Keras."""
    operation: bool = False
    """One of Keras 3's functions on tensors (`keras.ops`), which is no layer."""


@dataclass(frozen=True)
class Network:
    """A graph of layers. `order` lists all calls so that every tensor is made before it is used."""

    name: str
    kind: str
    layers: dict[str, Layer]
    order: list[tuple[str, int]]
    inputs: list[Ref]
    outputs: list[Ref]
    places: dict[str, str]
    """Keras 3's name of each layer among its fellows: `dense_1` is the second Dense."""


def parse_network(data: Any, where: str, depth: int = 0) -> Network:
    """The network in a model configuration (`{"class_name": ..., "config": ...}`)."""
    kind, config = _classed(data, where)
    if depth > DEEPEST:
        raise UnreadableFile(f"{where}: more than {DEEPEST} networks lie within one another")
    if kind not in NETWORKS or _stranger(data) is not None:
        raise Unsupported(
            f"{where}: the model is a {safe_text(kind)}, a class of its own whose graph is in no file; "
            f"rebuild it with the functional API, or bring it as ONNX"
        )
    if kind == "Sequential":
        return _sequential(config, where, depth)
    return _functional(_object(config, where), where, depth)


def parse_layer(data: Any, index: int, where: str, depth: int, name: str | None = None) -> Layer:
    """One entry of a list of layers, without its calls."""
    kind, config = _classed(data, f"{where}, layer {index}")
    given = config.get("name") if isinstance(config, dict) else None
    name = name if name is not None else given
    name = name if isinstance(name, str) and name else f"{kind.lower()}_{index}"
    place = f"{safe_text(name)} ({safe_text(kind)}, layer {index})"
    shared = data.get("shared_object_id")
    shared = shared if isinstance(shared, int) else None
    if kind in NETWORKS:
        network = parse_network(data, f"{where}, {place}", depth + 1)
        return Layer(name, kind, {}, place, network, shared=shared)
    config = _object(config, f"{where}, {place}")
    return Layer(name, kind, config, place, shared=shared, stranger=_stranger(data))


def _stranger(data: dict[str, Any]) -> str | None:
    """Where a class comes from that is no more than a namesake of one of Keras's own."""
    registered, module = data.get("registered_name"), data.get("module")
    if isinstance(module, str) and not MODULES.fullmatch(module):
        return module
    return registered if isinstance(registered, str) and ">" in registered else None


def _functional(config: dict[str, Any], where: str, depth: int) -> Network:
    layers: dict[str, Layer] = {}
    modern = False
    for index, entry in enumerate(_list(config, "layers", where)):
        name = entry.get("name") if isinstance(entry, dict) else None
        layer = parse_layer(entry, index, where, depth, name if isinstance(name, str) else None)
        nodes = [node for node in _list(entry, "inbound_nodes", f"{where}, {layer.where}") if node]
        if any(isinstance(node, dict) and {"args", "kwargs"} <= set(node) for node in nodes):
            modern = True
            layer = replace(layer, operation=_is_operation(layer))
        _add(layers, layer, where).calls.extend(_call(node, f"{where}, {layer.where}") for node in nodes)
        if not nodes:
            layer.calls.append(Call([], {}))
    inputs = [_ref(item, where) for item in _leaves(config.get("input_layers"), where)]
    outputs = [_ref(item, where) for item in _leaves(config.get("output_layers"), where)]
    if not inputs or not outputs:
        raise UnreadableFile(f"{where}: a network needs at least one input and one output")
    inside, outside = _first_calls(layers, outputs, modern)
    for layer in layers.values():
        layer.calls[:] = [Call(_from_zero(call.args, inside), _from_zero(call.kwargs, inside)) for call in layer.calls]
    return _settled(str(config.get("name", "model")), "Functional", layers, inputs, _from_zero(outputs, outside), where)


def _is_operation(layer: Layer) -> bool:
    """Whether this is one of Keras 3's functions on tensors, which it lists among the layers.

    All layers have a `trainable`, but for SpatialDropout, which forgets it.
    """
    return layer.network is None and "trainable" not in layer.config and not layer.kind.startswith("SpatialDropout")


def _sequential(config: Any, where: str, depth: int) -> Network:
    """A chain, with the input layers that Keras puts before it where the file has none."""
    entries = config if isinstance(config, list) else _list(_object(config, where), "layers", where)
    if not entries:
        raise UnreadableFile(f"{where}: the network has no layers")
    name = config.get("name", "sequential") if isinstance(config, dict) else "sequential"
    shape = config.get("build_input_shape") if isinstance(config, dict) else None
    layers: dict[str, Layer] = {}
    inputs: list[Ref] = []
    now: Any = None
    for index, entry in enumerate(entries):
        layer = parse_layer(entry, index, where, depth)
        if now is None and layer.kind == "Merge":
            now = [_branch(layers, inputs, branch, where, depth) for branch in _list(layer.config, "layers", where)]
        elif now is None and layer.kind != "InputLayer":
            now = _input(layers, inputs, _implied_input(layer, shape), where)
        _add(layers, layer, where).calls.append(Call([] if now is None else [now], {}))
        now = Ref(layer.name, 0, 0)
        if layer.kind == "InputLayer":
            inputs.append(now)
    return _settled(str(name), "Sequential", layers, inputs, [now], where)


def _branch(layers: dict[str, Layer], inputs: list[Ref], data: Any, where: str, depth: int) -> Ref:
    """One of the networks that Keras 1's Merge joins at the start of a chain, with an input of its own."""
    branch = parse_layer(data, len(layers), where, depth)
    start = _input(layers, inputs, _implied_input(branch, None), where)
    _add(layers, branch, where).calls.append(Call([start], {}))
    return Ref(branch.name, 0, 0)


def _input(layers: dict[str, Layer], inputs: list[Ref], layer: Layer, where: str) -> Ref:
    _add(layers, layer, where).calls.append(Call([], {}))
    inputs.append(Ref(layer.name, 0, 0))
    return inputs[-1]


def _implied_input(first: Layer, build_shape: Any) -> Layer:
    """The input layer that the first layer of a chain stands for: Keras calls it `<layer>_input`."""
    config = {"dtype": first.config.get("input_dtype") or first.config.get("dtype") or "float32"}
    if first.network is not None:
        inner = first.network.layers[first.network.inputs[0].layer]
        config = dict(inner.config)
        return Layer(inner.name, "InputLayer", config, f"{safe_text(inner.name)} (InputLayer)")
    for shape in (first.config.get("batch_input_shape"), first.config.get("batch_shape"), build_shape):
        if shape is not None:
            config["batch_shape"] = shape
            break
    name = f"{first.name}_input"
    return Layer(name, "InputLayer", config, f"{safe_text(name)} (InputLayer)")


def _add(layers: dict[str, Layer], layer: Layer, where: str) -> Layer:
    if layer.name in layers:
        raise UnreadableFile(f"{where}: two layers are called {safe_text(layer.name)!r}")
    layers[layer.name] = layer
    return layer


def _settled(
    name: str, kind: str, layers: dict[str, Layer], inputs: list[Ref], outputs: list[Ref], where: str
) -> Network:
    for ref in [*inputs, *outputs]:
        _known(ref, layers, where)
    return Network(name, kind, layers, _order(layers, where), inputs, outputs, _places(layers))


def _first_calls(layers: dict[str, Layer], outputs: list[Ref], modern: bool) -> tuple[dict[str, int], dict[str, int]]:
    """From which number the calls of each network inside count: among the layers, and in the list of outputs.

    Keras 1 and 2 count from 1 where the making of the inner network was a call itself, else from 0; as each call has
    a user, the lowest number seen tells. Keras 3 counts from 0 among the layers, but from 1 in the outputs.
    """
    inner = {name: layer.kind for name, layer in layers.items() if layer.network is not None}
    if modern:
        return {}, {name: 1 for name, kind in inner.items() if kind in FUNCTIONAL}
    lowest: dict[str, int] = {}
    used = [ref for layer in layers.values() for call in layer.calls for ref in flat([call.args, call.kwargs])]
    for ref in [*outputs, *used]:
        if ref.layer in inner:
            lowest[ref.layer] = min(ref.call, lowest.get(ref.layer, ref.call))
    return lowest, lowest


def _from_zero(item: Any, first: dict[str, int]) -> Any:
    return _mapped(item, lambda ref: Ref(ref.layer, ref.call - first.get(ref.layer, 0), ref.tensor))


def _order(layers: dict[str, Layer], where: str) -> list[tuple[str, int]]:
    """All calls, each after the calls whose tensors it takes."""
    waiting: dict[tuple[str, int], int] = {}
    users: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for layer in layers.values():
        for number, call in enumerate(layer.calls):
            needs = {(ref.layer, ref.call) for ref in flat([call.args, call.kwargs])}
            for ref in flat([call.args, call.kwargs]):
                _known(ref, layers, f"{where}, {layer.where}")
            waiting[layer.name, number] = len(needs)
            for need in needs:
                users.setdefault(need, []).append((layer.name, number))
    order = [key for key, count in waiting.items() if count == 0]
    for key in order:  # grows while it is walked
        for user in users.get(key, []):
            waiting[user] -= 1
            if waiting[user] == 0:
                order.append(user)
    if len(order) != len(waiting):
        stuck = sorted({name for (name, number) in waiting.keys() - set(order)})
        raise UnreadableFile(
            f"{where}: layers feed each other in a circle: {', '.join(safe_text(name) for name in stuck[:5])}"
        )
    return order


def _known(ref: Ref, layers: dict[str, Layer], where: str) -> None:
    if ref.layer not in layers:
        raise UnreadableFile(f"{where}: there is no layer called {safe_text(ref.layer)!r}")
    if not 0 <= ref.call < len(layers[ref.layer].calls) or ref.tensor < 0:
        raise UnreadableFile(f"{where}: the layer {safe_text(ref.layer)!r} is never called a {ref.call + 1}. time")


def _places(layers: dict[str, Layer]) -> dict[str, str]:
    """Keras 3's names by class and count (saving_lib.py, _save_container_state; utils/naming.py, to_snake_case)."""
    seen: dict[str, int] = {}
    places = {}
    for layer in layers.values():
        if layer.operation:
            continue
        kind = "Functional" if layer.kind == "Model" else layer.kind
        snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
        snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
        count = seen.get(snake, 0)
        seen[snake] = count + 1
        places[layer.name] = f"{snake}_{count}" if count else snake
    return places


def _call(node: Any, where: str) -> Call:
    """One entry of `inbound_nodes`, of any Keras."""
    if isinstance(node, dict) and {"args", "kwargs"} <= set(node):
        args, named = _revived(node["args"], where), _revived(node["kwargs"], where)
        if not isinstance(args, list) or not isinstance(named, dict):
            raise UnreadableFile(f"{where}: a call is not a list of arguments with a table of named ones")
        return Call(args, named)
    kwargs: dict[str, Any] = {}
    if isinstance(node, dict):
        return Call([{key: _old_input(value, kwargs, where) for key, value in node.items()}], kwargs)
    if not isinstance(node, list):
        raise UnreadableFile(f"{where}: a call is neither a list nor a table")
    entries = [node] if node and isinstance(node[0], str) else node
    inputs = [_old_input(entry, kwargs, where) for entry in entries]
    return Call([inputs[0] if len(inputs) == 1 else inputs], kwargs)


def _old_input(entry: Any, kwargs: dict[str, Any], where: str) -> Any:
    """One ``[layer, call, tensor, kwargs]``; the named arguments are put into `kwargs`."""
    if isinstance(entry, list) and len(entry) == 4 and isinstance(entry[3], dict):
        kwargs.update({key: _old_argument(value) for key, value in entry[3].items()})
    if isinstance(entry, list) and len(entry) >= 3 and entry[0] == "_CONSTANT_VALUE":
        return entry[2]
    return _ref(entry[:3] if isinstance(entry, list) else entry, where)


def _old_argument(value: Any) -> Any:
    """A named argument of Keras 2, where a tensor is written ``[layer, call, tensor]``."""
    if isinstance(value, list):
        if len(value) in (3, 4) and isinstance(value[0], str) and _counts(value[1:3]):
            return value[2] if value[0] == "_CONSTANT_VALUE" else Ref(*value[:3])
        return [_old_argument(item) for item in value]
    return {key: _old_argument(item) for key, item in value.items()} if isinstance(value, dict) else value


def _revived(value: Any, where: str) -> Any:
    """An argument of Keras 3 (serialization_lib.py): tensors become `Ref`, slices `slice`, the rest stays."""
    if isinstance(value, list):
        return [_revived(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    kind, config = value.get("class_name"), value.get("config")
    if kind == "__keras_tensor__" and isinstance(config, dict):
        return _ref(config.get("keras_history"), where)
    if kind == "__slice__" and isinstance(config, dict):
        return slice(*(_revived(config.get(key), where) for key in ("start", "stop", "step")))
    if kind == "__ellipsis__":
        return ...
    if kind in ("__tensor__", "__numpy__") and isinstance(config, dict):
        return config.get("value")
    if isinstance(kind, str) and "config" in value:
        raise Unsupported(f"{where}: an argument of class {safe_text(kind)} is not understood")
    return {key: _revived(item, where) for key, item in value.items()}


def flat(item: Any) -> Iterator[Ref]:
    """Every `Ref` in nested lists and tables, tables in the order of their sorted keys (as Keras flattens them)."""
    if isinstance(item, Ref):
        yield item
    elif isinstance(item, dict):
        for key in sorted(item):
            yield from flat(item[key])
    elif isinstance(item, list):
        for part in item:
            yield from flat(part)


def _mapped(item: Any, change: Callable[[Ref], Any]) -> Any:
    if isinstance(item, Ref):
        return change(item)
    if isinstance(item, dict):
        return {key: _mapped(part, change) for key, part in item.items()}
    return [_mapped(part, change) for part in item] if isinstance(item, list) else item


def _leaves(item: Any, where: str) -> list[Any]:
    """The ``[layer, call, tensor]`` entries of `input_layers` or `output_layers`: one, a list, or a table of them."""
    if isinstance(item, dict):
        return [leaf for key in sorted(item) for leaf in _leaves(item[key], where)]
    if isinstance(item, list):
        if len(item) >= 3 and isinstance(item[0], str):
            return [item]
        return [leaf for part in item for leaf in _leaves(part, where)]
    raise UnreadableFile(f"{where}: the list of inputs and outputs holds {safe_text(item)}")


def _ref(item: Any, where: str) -> Ref:
    if isinstance(item, list) and len(item) >= 3 and isinstance(item[0], str) and _counts(item[1:3]):
        return Ref(item[0], item[1], item[2])
    raise UnreadableFile(f"{where}: {safe_text(item)} is no [layer, call, tensor]")


def _counts(items: Sequence[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in items)


def _classed(data: Any, where: str) -> tuple[str, Any]:
    if not isinstance(data, dict) or not isinstance(data.get("class_name"), str) or "config" not in data:
        raise UnreadableFile(f"{where}: not a Keras configuration (an object with class_name and config)")
    return data["class_name"], data["config"]


def _object(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UnreadableFile(f"{where}: a configuration is a JSON object, not {safe_text(data)}")
    return data


def _list(data: dict[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list):
        raise UnreadableFile(f"{where}: {key!r} must be a list")
    return value
