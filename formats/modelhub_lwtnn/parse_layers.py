"""One layer out of lwtnn's JSON, checked against the width of what it reads.

The file does not say how many inputs a layer has: lwtnn takes it from the node before, and what comes out from the
number of weights (lwtnn: generic/Stack.tcc). What lwtnn leaves unchecked there is checked here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from modelhub.errors import notice, safe_text
from modelhub_lwtnn.cursor import Cursor
from modelhub_lwtnn.schema import (
    ALPHA,
    Activation,
    Array,
    Conv1d,
    Dense,
    Embedding,
    EmbeddingTable,
    Gate,
    Gru,
    Highway,
    Layer,
    Lstm,
    Maxout,
    Normalization,
    SimpleRnn,
)

__all__ = ["FEED_FORWARD", "SEQUENCE", "layer"]

FEED_FORWARD = frozenset({"dense", "normalization", "maxout", "highway"})
"""Architectures that a feed_forward or time_distributed node takes."""

SEQUENCE = frozenset({"lstm", "gru", "simplernn", "conv1d", "embedding"})
"""Architectures that a sequence node takes."""

FUNCTIONS = frozenset({"linear", "rectified", "sigmoid", "tanh", "softmax", "hard_sigmoid", "abs"}) | ALPHA

LEGACY = {f"{name}_legacy": name for name in ("sigmoid", "hard_sigmoid", "tanh", "rectified")}
"""Older spellings of the same functions (lwtnn: get_activation)."""

FIELD = 1 << 20
"""The widest reach of a convolution, in steps, that we take for meant."""


def layer(at: Cursor, width: int) -> tuple[Layer, int]:
    """The layer at `at` over vectors (or steps) of `width` components, and the width of what it gives."""
    architecture = at["architecture"].text()
    try:
        read = READERS[architecture]
    except KeyError:
        raise at["architecture"].fault(f"is {safe_text(architecture)!r}, which lwtnn has not") from None
    return read(at, width)


def _dense(at: Cursor, width: int) -> tuple[Layer, int]:
    bias = at["bias"].numbers()
    weights = _matrix(at["weights"], width) if at["weights"].value != [] else None
    out = width if weights is None else len(weights)
    if bias.size not in (0, out):
        raise at["bias"].fault(f"has {bias.size} numbers, must have {out} (or none)")
    return Dense(weights, bias if bias.size else None, _activation(at["activation"])), out


def _normalization(at: Cursor, width: int) -> tuple[Layer, int]:
    _ignored(at)
    return Normalization(_vector(at["weights"], width), _vector(at["bias"], width)), width


def _maxout(at: Cursor, width: int) -> tuple[Layer, int]:
    _ignored(at)
    pieces = at["sublayers"].elements()
    if not pieces:
        raise at["sublayers"].fault("is empty")
    weights = [_matrix(piece["weights"], width) for piece in pieces]
    out = len(weights[0])
    for piece, matrix in zip(pieces, weights, strict=True):
        _ignored(piece)
        if len(matrix) != out:
            raise piece["weights"].fault(f"gives {len(matrix)} components, the first sublayer {out}")
    bias = [_vector(piece["bias"], out) for piece in pieces]
    return Maxout(np.stack(weights), np.stack(bias)), out


def _highway(at: Cursor, width: int) -> tuple[Layer, int]:
    parts = at["components"]
    return (
        Highway(
            _square(parts["t"]["weights"], width),
            _vector(parts["t"]["bias"], width),
            _square(parts["carry"]["weights"], width),
            _vector(parts["carry"]["bias"], width),
            _activation(at["activation"]),
        ),
        width,
    )


def _lstm(at: Cursor, width: int) -> tuple[Layer, int]:
    gates, units = _gates(at["components"], "ifco", width)
    return Lstm(gates, _activation(at["activation"]), _activation(at["inner_activation"])), units


def _gru(at: Cursor, width: int) -> tuple[Layer, int]:
    gates, units = _gates(at["components"], "zrh", width)
    return Gru(gates, _activation(at["activation"]), _activation(at["inner_activation"])), units


def _simple_rnn(at: Cursor, width: int) -> tuple[Layer, int]:
    gates, units = _gates(at["components"], "h", width)
    return SimpleRnn(gates["h"], _activation(at["activation"])), units


def _gates(at: Cursor, names: str, width: int) -> tuple[dict[str, Gate], int]:
    """The gates called `names`, all over as many units as the first; that number."""
    units = len(_matrix(at[names[0]]["weights"], width))
    gates = {}
    for name in names:
        gate = at[name]
        weights = _matrix(gate["weights"], width)
        if len(weights) != units:
            raise gate["weights"].fault(f"is for {len(weights)} units, those of gate {names[0]!r} for {units}")
        gates[name] = Gate(weights, _square(gate["U"], units), _vector(gate["bias"], units))
    return gates, units


def _conv1d(at: Cursor, width: int) -> tuple[Layer, int]:
    bias = at["bias"].numbers()
    weights = at["weights"].numbers()
    if bias.size == 0:
        raise at["bias"].fault("is empty; lwtnn takes the number of channels from it")
    if weights.size == 0 or weights.size % (width * bias.size):
        raise at["weights"].fault(
            f"has {weights.size} numbers, must have a multiple of {width} inputs times {bias.size} channels"
        )
    kernel = weights.size // (width * bias.size)
    padding = at["padding"].text()
    if padding not in ("valid", "same", "causal"):
        raise at["padding"].fault(f"is {safe_text(padding)!r}, must be valid, same or causal")
    dilation = at["dilation_rate"].integer(least=1)
    if (kernel - 1) * dilation > FIELD:
        raise at["dilation_rate"].fault(f"makes the kernel reach over {(kernel - 1) * dilation} steps")
    shaped = weights.reshape(bias.size, width, kernel)
    return Conv1d(shaped, bias, padding, dilation, _activation(at["activation"])), bias.size


def _embedding(at: Cursor, width: int) -> tuple[Layer, int]:
    _ignored(at)
    tables = []
    parts = at["sublayers"].elements()
    if not parts:
        raise at["sublayers"].fault("is empty")
    for part in parts:
        out = part["n_out"].integer(least=1)
        index = part["index"].integer()
        if index != width - 1:
            # EmbeddingLayer::scan copies the rows below with the number of steps for the number of rows.
            raise part["index"].fault(f"is {index}, must be {width - 1}: lwtnn embeds only the last variable right")
        flat = part["weights"].numbers()
        if flat.size == 0 or flat.size % out:
            raise part["weights"].fault(f"has {flat.size} numbers, must have a multiple of n_out = {out}")
        tables.append(EmbeddingTable(index, flat.reshape(out, -1)))
        width += out - 1
    return Embedding(tuple(tables)), width


READERS: dict[str, Callable[[Cursor, int], tuple[Layer, int]]] = {
    "dense": _dense,
    "normalization": _normalization,
    "maxout": _maxout,
    "highway": _highway,
    "lstm": _lstm,
    "gru": _gru,
    "simplernn": _simple_rnn,
    "conv1d": _conv1d,
    "embedding": _embedding,
}


def _matrix(at: Cursor, width: int) -> Array:
    """Weights [out, width], out >= 1."""
    flat = at.numbers()
    if flat.size == 0 or flat.size % width:
        raise at.fault(f"has {flat.size} numbers, must have a multiple of the {width} inputs")
    return flat.reshape(-1, width)


def _square(at: Cursor, width: int) -> Array:
    flat = at.numbers()
    if flat.size != width * width:
        raise at.fault(f"has {flat.size} numbers, must have {width} x {width}")
    return flat.reshape(width, width)


def _vector(at: Cursor, width: int) -> Array:
    vector = at.numbers()
    if vector.size != width:
        raise at.fault(f"has {vector.size} numbers, must have {width}")
    return vector


def _activation(at: Cursor) -> Activation:
    """A name, or `function` and `alpha`; of the three that need an alpha only elu may come without (alpha 1)."""
    if isinstance(at.value, dict):
        alpha = at["alpha"].number()
        at = at["function"]
        name = at.text()
    else:
        name = at.text()
        if name in ("leakyrelu", "swish"):
            raise at.fault(f'is {name} without alpha, which is NaN to lwtnn: write {{"function", "alpha"}}')
        alpha = 1.0
    name = LEGACY.get(name, name)
    if name not in FUNCTIONS:
        hint = ": lwtnn calls it rectified" if name == "relu" else ""
        raise at.fault(f"is {safe_text(name)!r}, which is no activation of lwtnn{hint}")
    return Activation(name, alpha if name in ALPHA else None)


def _ignored(at: Cursor) -> None:
    """Tell of an activation that the engine leaves out here."""
    if "activation" in at and at["activation"].value not in ("linear", ""):
        notice(f"{at.document}: {at.path}.activation has no effect in lwtnn: the layer has none")
