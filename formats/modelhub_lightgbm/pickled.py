"""The state of a pickled Booster: the text model, and the best round (Booster.__getstate__ in lightgbm/basic.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from modelhub.errors import UnreadableFile
from modelhub.graph.forest import Link
from modelhub.graph.forest_onnx import to_graph
from modelhub_lightgbm.reader import parsed

__all__ = ["booster"]


def booster(state: Mapping[str, Any], where: str, *, margin: bool) -> ir.Model:
    """The common graph of a Booster in `state["_handle"]`, with the rounds up to `best_iteration` where it has one.

    With `margin` it gives the scores before the link.

    Its text holds every round, also those after the best, which `Booster.predict` leaves out.
    """
    text = state.get("_handle", state.get("handle"))
    if not isinstance(text, str) or not text:
        raise UnreadableFile(f"{where}: a Booster without its text; is it trained?")
    best = state.get("best_iteration", -1)
    if not isinstance(best, int):
        raise UnreadableFile(f"{where}: best_iteration is not a count")
    found, interface = parsed(text.encode(), where, rounds=max(best, 0))
    return to_graph(replace(found, link=Link()) if margin else found, interface)
