"""What graphs do about values and steps that are not there: defaults for NaN, and masks of padded steps.

lwtnn replaces NaN at its inputs and nowhere else. It has no masks, because it takes every sequence at its true length:
where no step is padding, a mask keeps all steps, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from modelhub.errors import notice
from modelhub.graph.builder import DOMAIN
from modelhub_lwtnn.draft import Default
from modelhub_lwtnn.meaning import Mark, Meaning, Record, Refusal, lowers
from modelhub_lwtnn.op import Op

MASK = "{}: lwtnn has no masks, so this one is left out of the file; give lwtnn true-length sequences without padding"


@lowers("CompactSteps", domain=DOMAIN, reads=(0,))
def compact_steps(op: Op) -> Sequence[Meaning]:
    """Without padding, the sequence itself (`modelhub.graph.blocks.compact_steps`)."""
    x = op.data(0)
    notice(MASK.format(op.origin))
    return x, Mark("lengths"), Mark("slots")


@lowers("SpreadSteps", domain=DOMAIN, reads=(0,))
def spread_steps(op: Op) -> Record:
    """The way back from `compact_steps`."""
    if op.maker(1) != "CompactSteps":
        raise Refusal("spreads steps to positions that are not those of a mask. Write ONNX.")
    return op.data(0)


@lowers("Where", reads=(1, 2))
def where(op: Op) -> Record:
    """Where(IsNaN(x), default, x) at an input is lwtnn's `default`; Where(mask, x, 0) is x without padding."""
    condition = op.input(0)
    test = None if condition is None else condition.producer()
    if test is not None and test.op_type == "IsNaN" and test.inputs[0] is op.input(2) and op.array(1) is not None:
        return _default(op)
    if condition is not None and op.zeros(2) and _is_mask(op, condition):
        x = op.data(1)
        notice(MASK.format(op.origin))
        return x
    raise Refusal("chooses between values; lwtnn can only replace a NaN at its inputs. Write ONNX.")


def _default(op: Op) -> Record:
    x, value, default = op.data(2), op.input(2), op.weights(1)
    assert value is not None
    assert default is not None
    if op.steps[x.step].entrance is None or x.columns is not None:
        raise Refusal("replaces NaN after other arithmetic; lwtnn replaces it at its inputs, first. Write ONNX.")
    if any(user is not op.node for user in op.users(value)):
        raise Refusal("replaces NaN for one of several uses of an input; lwtnn replaces it for all. Write ONNX.")
    return op.pointwise(x, Default(op.per_feature(default, x)))


def _is_mask(op: Op, condition: ir.Value) -> bool:
    """Whether a condition says which steps are kept: one that masks a recurrent layer, or Keras's Masking.

    The latter is "any feature of the step differs from a constant": Not(Equal(x, c)), then the maximum over features.
    """
    value = _behind(condition, "Cast", "Identity", "Squeeze", "Unsqueeze")
    if any(use.node.domain == DOMAIN and use.node.op_type == "CompactSteps" for use in value.uses()):
        return True
    for op_type in ("ReduceMax", "Not", "Equal"):
        node = _behind(value, "Cast").producer()
        if node is None or node.op_type != op_type or node.inputs[0] is None:
            return False
        value = node.inputs[0]
        if op_type == "Equal" and (node.inputs[1] is None or op.constant(node.inputs[1]) is None):
            return False
    return "time" in (op.axes_of(value) or ())


def _behind(value: ir.Value, *op_types: str) -> ir.Value:
    """The value behind operators that only change its type or axes."""
    node = value.producer()
    while node is not None and node.op_type in op_types and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value
