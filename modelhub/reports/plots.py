"""The plots of the HTML page as SVG, drawn here: no library, nothing fetched, and the same bytes every time.

Colours come from the page's style sheet by class, so a plot follows light, dark and print. Every plot is an
image to a screen reader, with a label; the numbers stand in the tables beside it. Texts are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from modelhub.reports.records import Coverage, Leg

__all__ = ["coverage", "ratios", "ulps"]

SHOWN = 12
"""Decades of an axis that are shown at most; what lies below is drawn at its foot."""
LEFT, RIGHT = 60, 644
"""Pixels between which the plot of ratios lies; the name of its limit stands to the right."""


def ratios(legs: Sequence[Leg]) -> Markup:
    """Difference over tolerance against the size of the output, both logarithmic; empty where nothing differs."""
    points = [
        (number, size, ratio)
        for number, leg in enumerate(legs)
        for size, ratio in _points(leg)
        if ratio > 0 and math.isfinite(size) and not math.isnan(ratio)
    ]
    if not points:
        return Markup()
    x = _Axis([size for _, size, _ in points if size > 0] or [1.0], LEFT, RIGHT)
    finite = [ratio for *_, ratio in points if math.isfinite(ratio)]
    y = _Axis([*finite, 1.0, 10.0], 260, 16)
    marks = []
    for number, size, ratio in points:
        left, top = x.at(size), y.at(ratio)
        title = f"<title>{escape(legs[number].title)}: |output| {size:.3g}, {ratio:.3g} times the tolerance</title>"
        marks.append(f'<circle class="s{number % 6}" cx="{left:.1f}" cy="{top:.1f}" r="2.6">{title}</circle>')
    limit = y.at(1.0)
    body = [
        _rows(y, LEFT, RIGHT),
        _columns(x, 260),
        *marks,
        f'<line class="limit" x1="{LEFT}" x2="{RIGHT}" y1="{limit:.1f}" y2="{limit:.1f}"/>',
        f'<text class="limit-text" x="{RIGHT + 6}" y="{limit + 4:.1f}">tolerance</text>',
        f'<text x="{(LEFT + RIGHT) / 2}" y="296" text-anchor="middle">size of the output</text>',
        '<text transform="translate(14 138) rotate(-90)" text-anchor="middle">difference / tolerance</text>',
    ]
    return _svg(720, 304, "Difference over tolerance against the size of the output", body)


def ulps(leg: Leg, number: int) -> Markup:
    """How many numbers of a leg lie 0, 1, 2-3, 4-7, ... units in the last place apart; logarithmic in the count."""
    counts = list(leg.ulps)
    while counts and not counts[-1]:
        counts.pop()
    if not counts:
        return Markup()
    top = math.log10(max(counts)) + 0.3
    width, floor = 340.0, 140.0
    step = (width - 40) / max(len(counts), 6)
    body = [f'<line class="axis" x1="34" x2="{width:.0f}" y1="{floor:.0f}" y2="{floor:.0f}"/>']
    for decade in range(int(top) + 1):
        at = floor - 120 * decade / top
        body.append(f'<line class="grid" x1="34" x2="{width:.0f}" y1="{at:.1f}" y2="{at:.1f}"/>')
        if decade % max(1, round(top / 4)) == 0:
            body.append(f'<text x="30" y="{at + 4:.1f}" text-anchor="end">{_power(decade)}</text>')
    every = max(1, math.ceil(len(counts) * 26 / (width - 40)))
    for group, count in enumerate(counts):
        left = 38 + group * step
        if count:
            height = max(2.0, 120 * (math.log10(count) + 0.12) / (top + 0.12))
            title = f"<title>{_bin(group)} ulp: {count}</title>"
            body.append(
                f'<rect class="s{number % 6}" x="{left:.1f}" y="{floor - height:.1f}" width="{max(step - 2, 1):.1f}" '
                f'height="{height:.1f}">{title}</rect>'
            )
        if group % every == 0:
            low = 0 if group == 0 else 2 ** (group - 1)
            label = str(low) if low < 1000 else f"2{_superscript(group - 1)}"
            body.append(f'<text x="{left + step / 2 - 1:.1f}" y="155" text-anchor="middle">{label}</text>')
    body.append(f'<text x="{width / 2 + 17:.0f}" y="172" text-anchor="middle">units in the last place, at least</text>')
    return _svg(int(width) + 6, 178, f"Distances in units in the last place, {leg.title}", body)


def coverage(rows: Sequence[Coverage]) -> Markup:
    """A bar for each thing covered, with its floor as a tick; empty where no figures are known."""
    known = [row for row in rows if row.share is not None]
    if not known:
        return Markup()
    body = []
    for index, row in enumerate(known):
        top = 4 + 26 * index
        share = row.share or 0.0
        kind = "low" if row.low else "reached"
        text = row.what if len(row.what) <= 44 else row.what[:43] + "…"
        body += [
            f'<text x="290" y="{top + 14}" text-anchor="end">{escape(text)}</text>',
            f'<rect class="track" x="300" y="{top}" width="280" height="18"/>',
            f'<rect class="{kind}" x="300" y="{top}" width="{280 * min(share, 1):.1f}" height="18">'
            f"<title>{row.reached} of {row.of}</title></rect>",
            f'<text x="590" y="{top + 14}">{row.reached} of {row.of}</text>',
        ]
        if row.floor:
            at = 300 + 280 * row.floor
            body.append(
                f'<line class="floor" x1="{at:.1f}" x2="{at:.1f}" y1="{top - 3}" y2="{top + 21}">'
                f"<title>floor {row.floor:.0%}</title></line>"
            )
    return _svg(720, 26 * len(known) + 8, "Coverage", body)


class _Axis:
    """A logarithmic axis over whole decades, from pixel `first` to pixel `last`."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        high = math.ceil(math.log10(max(values)))
        low = math.floor(math.log10(min(value for value in values if value > 0)))
        self.low, self.high = max(low, high - SHOWN), max(high, max(low, high - SHOWN) + 1)
        self.first, self.last = first, last

    def at(self, value: float) -> float:
        """The pixel of `value`; what lies beyond an end is drawn there."""
        decade = self.high if math.isinf(value) else (math.log10(value) if value > 0 else self.low)
        share = (min(max(decade, self.low), self.high) - self.low) / (self.high - self.low)
        return self.first + share * (self.last - self.first)

    def decades(self) -> list[tuple[int, float]]:
        """The decades to label, at most eight, and their pixels."""
        step = math.ceil((self.high - self.low) / 8)
        return [(decade, self.at(10.0**decade)) for decade in range(self.low, self.high + 1, step)]


def _points(leg: Leg) -> Sequence[tuple[float, float]]:
    """The sample the report holds; the worst of each probe where it holds none (its first version)."""
    return leg.scatter or [(abs(case.a), case.ratio) for case in leg.cases]


def _rows(axis: _Axis, left: float, right: float) -> str:
    return "".join(
        f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text x="{left - 5}" y="{at + 4:.1f}" text-anchor="end">{_power(decade)}</text>'
        for decade, at in axis.decades()
    )


def _columns(axis: _Axis, bottom: float) -> str:
    return "".join(
        f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="16" y2="{bottom}"/>'
        f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{_power(decade)}</text>'
        for decade, at in axis.decades()
    )


def _power(decade: int) -> str:
    return {0: "1", 1: "10"}.get(decade, f"10{_superscript(decade)}")


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _bin(group: int) -> str:
    low, high = (0, 0) if group == 0 else (2 ** (group - 1), 2**group - 1)
    return str(low) if low == high else f"{low} to {high}"


def _svg(width: int, height: int, label: str, body: Sequence[str]) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(body)}</svg>'
    )
