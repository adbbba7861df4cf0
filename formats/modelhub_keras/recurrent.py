"""SimpleRNN, GRU and LSTM of every Keras, and Bidirectional around them.

Gate orders: Keras's LSTM has i, f, c, o, ONNX i, o, f, c; both GRUs have z, r, h. Keras stacks gates along the
last axis of [in, gates·units], ONNX along the first of [gates·units, in].
(Keras: layers/rnn/lstm.py, gru.py, simple_rnn.py; Keras 1: layers/recurrent.py; ONNX: operators RNN, GRU and LSTM.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from modelhub.graph.blocks import compact_steps, spread_steps
from modelhub_keras.activations import RecurrentActivation, recurrent_activation
from modelhub_keras.config import Layer, parse_layer
from modelhub_keras.step import Step, Tensor, layer

__all__: list[str] = []

Array = NDArray[Any]


@dataclass(frozen=True)
class Cell:
    """A recurrent layer's arrays in ONNX's form and its choice of operator."""

    op_type: str
    units: int
    kernel: Array
    recurrent: Array
    bias: Array
    activations: tuple[RecurrentActivation, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """How a recurrent layer goes through the steps, and what it returns."""

    sequences: bool
    state: bool
    backwards: bool
    zeros: bool
    """Whether masked steps give 0 instead of the output before them."""


def _sweep(step: Step) -> Sweep:
    """The layer's sweep; its arrays are those of its cell from here on."""
    options = step.options
    step.all_weights = step.all_weights.part("cell")
    if options.flag("stateful", default=False):
        step.refuse("carries its state from one call to the next (stateful); train with stateful=False")
    return Sweep(
        options.flag("return_sequences", default=False),
        options.flag("return_state", default=False),
        options.flag("go_backwards", default=False),
        options.flag("zero_output_for_mask", default=False),
    )


@layer("SimpleRNN", masks="own", many=True)
def simple_rnn(step: Step, x: Tensor, *states: Tensor) -> list[Tensor]:
    sweep = _sweep(step)
    return _recurrent(step, x, states, _simple_cell(step, x), sweep)


@layer("GRU", masks="own", many=True)
def gru(step: Step, x: Tensor, *states: Tensor) -> list[Tensor]:
    sweep = _sweep(step)
    return _recurrent(step, x, states, _gru_cell(step, x), sweep)


@layer("LSTM", masks="own", many=True)
def lstm(step: Step, x: Tensor, *states: Tensor) -> list[Tensor]:
    sweep = _sweep(step)
    return _recurrent(step, x, states, _lstm_cell(step, x), sweep)


def _activations(step: Step) -> tuple[RecurrentActivation, RecurrentActivation]:
    """The activation of the gates, then that of what passes through them."""
    gates = step.options.get("recurrent_activation", "inner_activation")
    return recurrent_activation(step, gates), recurrent_activation(step, step.options.get("activation", default="tanh"))


def _units(step: Step) -> tuple[int, bool]:
    return step.options.whole("units", "output_dim"), step.options.flag("use_bias", default=True)


def _arrays(step: Step, x: Tensor, units: int, biased: bool, gates: str, bias: tuple[int, ...]) -> list[Array]:
    """Kernel, recurrent kernel and bias, their gates side by side in the order `gates`.

    Keras 1 may keep the three arrays of every gate apart (`consume_less` "cpu" or "mem").
    """
    width, many = step.size(x.width), len(gates)
    if step.version < (2,) and many > 1 and len(step.ranks()) == 3 * many:
        shapes: dict[str, tuple[int, ...] | None] = {}
        for gate in gates:
            shapes |= {f"W_{gate}": (width, units), f"U_{gate}": (units, units), f"b_{gate}": (units,)}
        apart = step.weights(**shapes)
        return [np.concatenate(apart[kind::3], axis=-1) for kind in range(3)]
    arrays = step.weights(
        kernel=(width, many * units), recurrent_kernel=(units, many * units), bias=bias if biased else None
    )
    return arrays if biased else [*arrays, np.zeros(bias, dtype=step.walk.dtype)]


def _stacked(array: Array, units: int, order: Sequence[int]) -> Array:
    """Gates along the first axis, in `order`: [gates·units, in] from Keras's [in, gates·units]."""
    gates = [array[..., gate * units : (gate + 1) * units] for gate in order]
    return np.ascontiguousarray(np.concatenate(gates, axis=-1).T)


def _simple_cell(step: Step, x: Tensor) -> Cell:
    """One gate: act(W x + U h' + b)."""
    units, biased = _units(step)
    activation = recurrent_activation(step, step.options.get("activation", default="tanh"))
    kernel, recurrent, bias = _arrays(step, x, units, biased, "h", (units,))
    both = np.concatenate([bias, np.zeros_like(bias)])
    return Cell("RNN", units, kernel.T, recurrent.T, both, (activation,), {})


def _gru_cell(step: Step, x: Tensor) -> Cell:
    """Two gates: h = z h' + (1-z) act(W x + b + U (r h')), or with `reset_after` act(W x + b + r (U h' + b')).

    Old configurations do not say which; a bias of two rows does.
    """
    units, biased = _units(step)
    gates, activation = _activations(step)
    ranks = step.ranks()
    after = biased and len(ranks) == 3 and ranks[2] == 2
    said = step.options.get("reset_after", default=None)
    if biased and said is not None and said is not after:
        step.damaged(f"reset_after is {said}, but the bias has {ranks[-1:]} axes")
    if not biased:
        after = step.options.flag("reset_after", default=step.version >= (3,))
    kernel, recurrent, bias = _arrays(step, x, units, biased, "zrh", (2, 3 * units) if after else (3 * units,))
    rows = bias if after else np.stack([bias, np.zeros_like(bias)])
    order = (0, 1, 2)
    return Cell(
        "GRU",
        units,
        _stacked(kernel, units, order),
        _stacked(recurrent, units, order),
        rows.reshape(-1),
        (gates, activation),
        {"linear_before_reset": int(after)},
    )


def _lstm_cell(step: Step, x: Tensor) -> Cell:
    """C = f C' + i act(c), h = o act(C); i, f, o and c are affine in x and h'."""
    units, biased = _units(step)
    gates, activation = _activations(step)
    kernel, recurrent, bias = _arrays(step, x, units, biased, "ifco", (4 * units,))
    order = (0, 3, 1, 2)
    stacked = _stacked(bias[None], units, order)[:, 0]
    return Cell(
        "LSTM",
        units,
        _stacked(kernel, units, order),
        _stacked(recurrent, units, order),
        np.concatenate([stacked, np.zeros_like(stacked)]),
        (gates, activation, activation),
        {},
    )


def _recurrent(step: Step, x: Tensor, states: Sequence[Tensor], cell: Cell, sweep: Sweep) -> list[Tensor]:
    """The operator, with what ONNX asks for around it.

    Without a mask a backward sweep is the operator's own. Under a mask the kept steps are moved together first: the
    operator then sees what Keras's loop sees, which holds its state over masked steps (Keras: backend rnn()).
    """
    b = step.b
    if x.rank != 3:
        step.refuse(f"needs [events, steps, features], and gets {x.rank} axes")
    states = [*states, *_given_states(step)]
    if len(states) not in (0, 2 if cell.op_type == "LSTM" else 1):
        step.refuse(f"starts from {len(states)} states")
    steps, lengths, slot = x.value, None, None
    keep = x.mask
    if keep is not None:
        if sweep.backwards and sweep.sequences:
            steps, keep = _flip(step, steps), _flip(step, keep)
        steps, lengths, slot = b.block(compact_steps(), steps, keep, outputs=3)
    flipped = sweep.backwards and keep is not None and sweep.sequences
    sequence, last, *more = b.ops(
        cell.op_type,
        b.op("Transpose", steps, perm=[1, 0, 2]),
        step.constant(cell.kernel[None], "kernel"),
        step.constant(cell.recurrent[None], "recurrent_kernel"),
        step.constant(cell.bias[None], "bias"),
        lengths,
        *(b.op("Unsqueeze", state.value, b.ints(0)) for state in states),
        outputs=3 if cell.op_type == "LSTM" else 2,
        hidden_size=cell.units,
        direction="reverse" if sweep.backwards and not flipped else "forward",
        activations=[a.name for a in cell.activations],
        activation_alpha=[v for a in cell.activations for v in a.alpha] or None,
        activation_beta=[v for a in cell.activations for v in a.beta] or None,
        **cell.attributes,
    )
    wanted = [last, *more] if sweep.state else [] if sweep.sequences else [last]
    final = [Tensor(b.op("Squeeze", state, b.ints(0)), ("N", cell.units)) for state in wanted]
    if not sweep.sequences:
        return [final[0], *(final if sweep.state else [])]
    now = b.op("Transpose", b.op("Squeeze", sequence, b.ints(1)), perm=[1, 0, 2])
    if keep is not None:
        (now,) = b.block(spread_steps(), now, slot)
        if sweep.zeros:
            now = b.op("Where", b.op("Unsqueeze", keep, b.ints(2)), now, step.scalar(0.0))
    elif sweep.backwards:
        now = _flip(step, now)
    return [Tensor(now, ("N", x.shape[1], cell.units), mask=x.mask), *final]


def _given_states(step: Step) -> list[Tensor]:
    """The tensors in the argument `initial_state`."""
    given = step.kwargs.pop("initial_state", None)
    found = given if isinstance(given, list) else [given] if given is not None else []
    if not all(isinstance(state, Tensor) for state in found):
        step.refuse("starts from a state that is no tensor")
    return found


def _flip(step: Step, value: ir.Value) -> ir.Value:
    """`value` [N, T, ...] with its steps in reverse order."""
    b = step.b
    return b.op("Slice", value, b.ints(-1), b.ints(-(2**62)), b.ints(1), b.ints(-1))


CELLS = {"LSTM": lstm, "GRU": gru, "SimpleRNN": simple_rnn}


@layer("Bidirectional", masks="own", many=True)
def bidirectional(step: Step, x: Tensor, *states: Tensor) -> list[Tensor]:
    """One sweep forwards, one backwards, both in the order of the steps (Keras: rnn/bidirectional.py)."""
    b, options = step.b, step.options
    mode = options.get("merge_mode", default="concat")
    if mode not in ("concat", "sum", "mul", "ave", None):
        step.damaged("merge_mode must be concat, sum, mul, ave or null")
    if states or step.kwargs.get("initial_state") is not None:
        step.refuse("starts from given states")
    forward = parse_layer(options.get("layer"), 0, step.walk.where, 0)
    given = options.get("backward_layer", default=None)
    backward = forward if given is None else parse_layer(given, 1, step.walk.where, 0)
    if forward.kind not in CELLS or backward.kind != forward.kind:
        step.refuse(f"wraps {forward.kind} and {backward.kind}; LSTM, GRU and SimpleRNN are read")
    if given is None:
        turned = {"go_backwards": not forward.config.get("go_backwards", False)}
        backward = replace(forward, config={**forward.config, **turned})
    ahead = _one_way(step, forward, "forward_layer", x)
    astern = _one_way(step, backward, "backward_layer", x)
    sequences = ahead[0].rank == 3
    if sequences:
        astern[0] = replace(astern[0], value=_flip(step, astern[0].value))
    first, second = ahead[0], astern[0]
    rest = [*ahead[1:], *astern[1:]]
    if mode is None:
        return [first, second, *rest]
    width = step.size(first.width)
    if mode == "concat":
        merged = replace(
            first, value=b.op("Concat", first.value, second.value, axis=-1), shape=(*first.shape[:-1], 2 * width)
        )
    else:
        value = b.op("Mul" if mode == "mul" else "Add", first.value, second.value)
        value = b.op("Mul", value, step.scalar(0.5)) if mode == "ave" else value
        merged = replace(first, value=value)
    return [merged, *rest]


def _one_way(step: Step, inner: Layer, part: str, x: Tensor) -> list[Tensor]:
    if step.version >= (2, 4) and inner.config.get("return_sequences"):
        inner = replace(inner, config={**inner.config, "zero_output_for_mask": True})
    with step.inside(inner, part, part) as way:
        result = CELLS[inner.kind](way, x)
        way.options.finish()
    assert isinstance(result, list)
    return result
