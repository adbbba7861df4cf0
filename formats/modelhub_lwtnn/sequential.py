"""A folded draft as a sequential file (lwtnn: parse_json), where it is one chain.

LightweightRNN runs all recurrent layers first and the others on the last step, whatever the order in the file
(Stack.tcc, ReductionStack): only a chain that has them in this order may be written.
"""

from __future__ import annotations

from modelhub.errors import Unsupported, safe_text
from modelhub_lwtnn.draft import Draft
from modelhub_lwtnn.folding import network
from modelhub_lwtnn.schema import Conv1d, SequentialNetwork

__all__ = ["sequential"]


def sequential(draft: Draft, what: str) -> SequentialNetwork:
    """The chain in `draft`. Raises `Unsupported`, with all that a sequential file has no room for."""
    reasons = _reasons(draft)
    if reasons:
        raise Unsupported(f"{what} of the sequential form", [f"{reason} Write the form graph." for reason in reasons])
    graph = network(draft)
    (output,) = graph.outputs.values()
    entrance = draft.steps[0].entrance
    assert entrance is not None
    (group,) = (*graph.inputs, *graph.input_sequences)
    chain = [node.layer for node in graph.nodes if node.layer is not None]
    sort = entrance.record.sort
    return SequentialNetwork(
        group.variables,
        tuple(graph.layers[layer] for layer in chain),
        output.labels,
        {} if sort is None else {"sort_order": sort},
    )


def _reasons(draft: Draft) -> list[str]:
    """What keeps `draft` from being one chain: recurrent layers, then layers on vectors."""
    reasons = []
    inputs = [step for step in draft.steps if step.entrance is not None]
    if len(inputs) != 1:
        reasons.append(f"has {len(inputs)} inputs, a sequential file one.")
    if len(draft.outputs) != 1:
        reasons.append(f"has {len(draft.outputs)} outputs, a sequential file one.")
    for output, number in draft.outputs:
        if output.sequence or draft.steps[number].kind == "input_sequence":
            reasons.append(f"output {safe_text(output.name)}: is a sequence; a sequential file gives vectors.")
        if number != len(draft.steps) - 1 and len(draft.outputs) == 1:
            reasons.append(f"output {safe_text(output.name)}: is not the end of the chain.")
    for place, step in enumerate(draft.steps):
        if step.kind in ("concatenate", "add", "sum", "time_distributed"):
            reasons.append(f"{step.origin}: needs a node of type {step.kind}.")
        elif isinstance(step.layer, Conv1d):
            reasons.append(f"{step.origin}: LightweightRNN knows no convolutions.")
        elif step.sources and step.sources != (place - 1,):
            reasons.append(f"{step.origin}: does not take the result of the layer before.")
    return reasons
