"""The classes of probes in words, for reports; light, as pages are made without numpy."""

from __future__ import annotations

__all__ = ["KINDS"]

KINDS = {
    "normal": "standard normal after offset and scale: what a network sees in training",
    "wide": "log-uniform, ±10^U(-3, 3) after offset and scale, for branches, saturation and cancellation",
    "zero": "all zero after offset and scale",
    "missing": "normal, with NaN in a third of the variables that have a default",
    "padded": "normal, with zeros after offset and scale (or what the network masks) in the last steps of sequences",
    "uniform": "uniform in the range of each variable that is declared or seen in the data, else in ±3 after offset "
    "and scale",
    "corners": "at either end of that range",
    "raw": "log-uniform, 10^U(-3, 6) before offset and scale, as energies in MeV and GeV are",
    "odd": "zeros of either sign, denormal, tiny and huge numbers among normal ones",
    "nonfinite": "NaN and infinities among normal numbers; what comes out is told, not judged",
    "long": "normal, in longer sequences than elsewhere",
    "every": "normal, in sequences of each length",
    "beyond": "normal, in sequences longer than the longest declared; what comes out is told, not judged",
    "padding": "normal; sides that know masks get masked steps behind each sequence, others do not",
    "pieces": "normal, one event at a time and in odd sizes",
    "order": "normal, events in another order, inputs given in another order",
    "threads": "normal, in engines that take several threads",
    "threshold": "on, just below and just above every threshold of trees",
    "data": "events of the data file",
}
"""Class -> what its numbers are."""
