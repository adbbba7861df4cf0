"""Which of its answers MVAUtils is asked for. The file says it for LightGBM; otherwise only the calling code knows.

    response        GetResponse          the sum of the trees; with TMVA's, plus the weight of the first
    classification  GetClassification    sigmoid of the sum; with TMVA's, the mean weighted by `offset`
    gradboost       GetGradBoostMVA      2 / (1 + exp(-2 sum)) - 1
    multiclass=N    GetMultiResponse     softmax of N sums; tree i belongs to class i modulo N

XGBoost's base_score is in none of them (BDT.h).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from modelhub.errors import UnreadableFile, UsageError, safe_text
from modelhub.graph.forest import Forest, Link
from modelhub_mvautils.root import Stored
from modelhub_mvautils.trees import Flavour

__all__ = ["Answer", "answer_of", "answered", "split_task"]

CLASSES = 10_000

OBJECTIVES = {
    "binary": "classification",
    "cross_entropy": "classification",
    "multiclass": "multiclass",
    "regression": "response",
    "regression_l1": "response",
    "huber": "response",
    "fair": "response",
    "quantile": "response",
    "mape": "response",
}
"""LightGBM's objectives that MVAUtils answers; the others have links that it does not know."""


@dataclass(frozen=True)
class Answer:
    """An answer, and for multiclass the number of classes."""

    name: str
    classes: int = 1


def split_task(task: str | None) -> tuple[str, str]:
    """The TTree and the answer that ``--task [TREE:]ANSWER`` names, each empty where it does not."""
    if not task:
        return "", ""
    tree, colon, answer = task.rpartition(":")
    return (tree, answer) if colon else ("", task)


def answer_of(stored: Stored, wanted: str) -> Answer:
    """The answer that is wanted, else the one the title tells. Raises `UsageError` where neither does.

    Besides LightGBM's objective that is `task`, which modelhub writes; MVAUtils passes over what it does not know.
    """
    wanted = wanted or stored.title.get("task", "")
    name, _, count = wanted.partition("=")
    if name == "multiclass" and count.isascii() and count.isdecimal() and 2 <= int(count[:9]) <= CLASSES:
        return Answer(name, int(count[:9]))
    if name in ("response", "classification", "gradboost") and not count:
        return Answer(name)
    choices = "response, classification, gradboost or multiclass=N"
    if wanted:
        raise UsageError(f"the answer of MVAUtils is one of {choices}, not {safe_text(wanted)!r}")
    objective, *settings = stored.title.get("objective", "").split(" ")
    if stored.title.get("creator") == "lgbm" and objective in OBJECTIVES:
        if any(setting not in ("", "sigmoid:1") and not setting.startswith("num_class:") for setting in settings):
            raise UsageError(
                f"{stored.where}: the objective is {safe_text(stored.title['objective'])!r}, for which MVAUtils has no "
                f"answer of its own; say with --task which one is meant: {choices}"
            )
        known = OBJECTIVES[objective]
        return answer_of(stored, f"multiclass={stored.title.get('num_class', '')}" if known == "multiclass" else known)
    raise UsageError(
        f"{stored.where}: does not say which answer of MVAUtils is meant, the code that calls it knows; "
        f"say it with --task: {choices}"
    )


def answered(forest: Forest, stored: Stored, flavour: Flavour, answer: Answer) -> Forest:
    """The forest of one answer. Raises `UnreadableFile` where weights do not allow it."""
    weight = stored.weight if flavour.name == "TMVA" else None
    match answer.name:
        case "multiclass":
            return replace(
                forest,
                tree_output=np.arange(forest.trees) % answer.classes,
                base=np.zeros(answer.classes),
                link=Link("softmax"),
            )
        case "gradboost":
            return replace(forest, link=Link("tanh"))
        case "response":
            return forest if weight is None else replace(forest, base=np.array([weight[0]], np.float64))
        case _ if weight is None:
            return replace(forest, link=Link("sigmoid"))
    total = float(weight.astype(np.float64).sum())
    if not (np.isfinite(weight).all() and total > 0):
        raise UnreadableFile(f"{stored.where}: the weights (branch offset) do not sum to a positive number")
    return replace(forest, tree_weight=weight.astype(np.float64), divisor=total)
