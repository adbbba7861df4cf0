"""Boxes and arrows as inline SVG: layers from top to bottom, the same drawing every time, in time linear in its size.

    rank      every box one layer below the last of those it is fed by; what is fed by nothing, just above its reader
    way       an arrow over several layers passes through a gap in each of them
    order     within a layer by the mean place of those above, then below, then above (barycentres)
    place     below the mean of those above, pushed apart where boxes would touch

Colours come from the style sheet by class. To a screen reader a drawing is an image with a label: the page has the same
in a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from markupsafe import Markup

from modelhub.errors import safe_text

__all__ = ["Arrow", "Box", "draw"]

LETTER, SMALL = 7.4, 6.2
"""Widths of a letter of a title and of a small text, in pixels, on the safe side."""
HIGH, GAP, BETWEEN = 42.0, 44.0, 22.0
"""Height of a box, of the space between layers, and width of that between boxes."""
LETTERS = 34
"""Letters of a line of a box; the whole text is its tooltip."""
GAPS = 6000
"""Gaps for long arrows in all; the arrows after that go straight."""


@dataclass(frozen=True)
class Box:
    """A box of two lines. `kind` is its class in the style sheet."""

    key: str
    title: str
    text: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Arrow:
    """An arrow between two boxes, by their keys."""

    source: str
    target: str
    label: str = ""
    kind: str = ""


@dataclass(eq=False)
class _Item:
    """A box in its layer, or the gap that an arrow passes through."""

    rank: int
    width: float
    box: Box | None = None
    above: list[_Item] = field(default_factory=list)
    below: list[_Item] = field(default_factory=list)
    place: float = 0.0
    """Order within the layer at first, then the pixel of the middle."""


def draw(boxes: Sequence[Box], arrows: Sequence[Arrow], label: str) -> Markup:
    """The drawing. Arrows between boxes that are not there, and those that would close a circle, are left out."""
    ranks = _ranks(boxes, arrows)
    items = {box.key: _Item(ranks[box.key], _width(box), box) for box in boxes}
    ways = [
        (arrow, way)
        for arrow, way in zip(arrows, _ways(items, arrows), strict=True)
        if way  # a circle, or nothing at the other end
    ]
    layers: list[list[_Item]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
    for item in dict.fromkeys([*items.values(), *(item for _, way in ways for item in way)]):
        layers[item.rank].append(item)
    _order(layers)
    _spread(layers)
    labels = list(_labels(ways))
    spans = [(item.place - item.width / 2, item.place + item.width / 2) for layer in layers for item in layer]
    spans += [label.span for label in labels]
    left, right = min((span[0] for span in spans), default=0.0) - 8, max((span[1] for span in spans), default=0.0) + 8
    wide, high = right - left, len(layers) * (HIGH + GAP) - GAP + 16
    body = [*_arrows(ways), *(_box(item) for item in items.values()), *(label.svg() for label in labels)]
    return Markup(
        f'<svg class="drawing" viewBox="{left:.0f} 0 {wide:.0f} {high:.0f}" width="{wide:.0f}" height="{high:.0f}" '
        f'role="img" aria-label="{escape(label)}">{"".join(body)}</svg>'
    )


def _width(box: Box) -> float:
    return max(90.0, LETTER * len(_cut(box.title)), SMALL * len(_cut(box.text))) + 18


def _cut(text: str) -> str:
    return safe_text(text, LETTERS)


def _ranks(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> dict[str, int]:
    """The layer of every box, by the longest way to it; what lies on a circle keeps the layer it was reached in."""
    ranks = {box.key: 0 for box in boxes}
    below: dict[str, list[str]] = {key: [] for key in ranks}
    left = dict.fromkeys(ranks, 0)
    for arrow in arrows:
        if arrow.source in below and arrow.target in below:
            below[arrow.source].append(arrow.target)
            left[arrow.target] += 1
    fed = {key for key, count in left.items() if count}
    ready = [key for key, count in left.items() if not count]
    for key in ready:
        for target in below[key]:
            ranks[target] = max(ranks[target], ranks[key] + 1)
            left[target] -= 1
            if not left[target]:
                ready.append(target)
    for key, targets in below.items():
        if targets and key not in fed:
            ranks[key] = max(0, min(ranks[target] for target in targets) - 1)
    return ranks


def _ways(items: dict[str, _Item], arrows: Sequence[Arrow]) -> Iterable[list[_Item]]:
    """For every arrow the boxes and gaps it passes, joined to one another; [] for one that is not drawn."""
    gaps = 0
    for arrow in arrows:
        source, target = items.get(arrow.source), items.get(arrow.target)
        if source is None or target is None or target.rank <= source.rank:
            yield []
            continue
        between = range(source.rank + 1, target.rank) if gaps < GAPS else range(0)
        gaps += len(between)
        way = [source, *(_Item(rank, 10.0) for rank in between), target]
        for upper, lower in pairwise(way):
            upper.below.append(lower)
            lower.above.append(upper)
        yield way


def _order(layers: list[list[_Item]]) -> None:
    for layer in layers:
        _number(layer)
    for down in (True, False, True):
        for layer in layers if down else reversed(layers):
            mean = {id(item): _mean(item.above if down else item.below, item.place) for item in layer}
            layer.sort(key=lambda item, mean=mean: (mean[id(item)], item.place))  # type: ignore[misc]
            _number(layer)


def _number(layer: list[_Item]) -> None:
    for place, item in enumerate(layer):
        item.place = float(place)


def _mean(others: list[_Item], otherwise: float) -> float:
    return sum(other.place for other in others) / len(others) if others else otherwise


def _spread(layers: list[list[_Item]]) -> None:
    """From order to pixels: each layer side by side, then drawn towards the layer above, below, and above again."""
    for layer in layers:
        _settle(layer, [0.0] * len(layer))
    for down in (True, False, True):
        for layer in layers if down else reversed(layers):
            _settle(layer, [_mean(item.above if down else item.below, item.place) for item in layer])


def _settle(layer: list[_Item], wanted: list[float]) -> None:
    """Every item as near to where it is wanted as its neighbours let it, their order kept.

    The mean of packing from the left and packing from the right: neither has items that touch, so their mean has none.
    """
    lefts, edge = [], float("-inf")
    for item, want in zip(layer, wanted, strict=True):
        at = max(want, edge + item.width / 2)
        lefts.append(at)
        edge = at + item.width / 2 + BETWEEN
    rights, edge = [], float("inf")
    for item, want in zip(reversed(layer), reversed(wanted), strict=True):
        at = min(want, edge - item.width / 2)
        rights.append(at)
        edge = at - item.width / 2 - BETWEEN
    for item, left, right in zip(layer, lefts, reversed(rights), strict=True):
        item.place = (left + right) / 2


def _top(item: _Item) -> float:
    return 8 + item.rank * (HIGH + GAP)


def _box(item: _Item) -> str:
    box = item.box
    if box is None:
        return ""
    left, top, middle = item.place - item.width / 2, _top(item), item.place
    lines = [(box.title, "title", 18 if box.text else 26), *([(box.text, "text", 34)] if box.text else ())]
    texts = "".join(
        f'<text class="{kind}" x="{middle:.1f}" y="{top + down:.1f}" text-anchor="middle">{escape(_cut(line))}</text>'
        for line, kind, down in lines
    )
    told = escape(safe_text(" ".join(part for part in (box.title, box.text) if part), 300))
    return (
        f'<g class="box {escape(box.kind)}"><title>{told}</title><rect x="{left:.1f}" y="{top:.1f}" rx="6" '
        f'width="{item.width:.1f}" height="{HIGH:.0f}"/>{texts}</g>'
    )


def _arrows(ways: Sequence[tuple[Arrow, list[_Item]]]) -> Iterable[str]:
    for arrow, way in ways:
        x, y = way[0].place, _top(way[0]) + HIGH
        path = [f"M{x:.1f} {y:.1f}"]
        for item in way[1:]:
            top = _top(item) - (5 if item is way[-1] else 0)
            half = (top - y) / 2
            path.append(f"C{x:.1f} {y + half:.1f} {item.place:.1f} {top - half:.1f} {item.place:.1f} {top:.1f}")
            x, y = item.place, top
            if item is not way[-1]:
                y += HIGH
                path.append(f"V{y:.1f}")
        yield f'<path class="arrow {escape(arrow.kind)}" d="{"".join(path)}"/>'
        yield f'<path class="tip {escape(arrow.kind)}" d="M{x - 4:.1f} {y - 2:.1f}h8l-4 7z"/>'


@dataclass(frozen=True)
class _Label:
    """The text beside an arrow: on the left of one that turns left, where no other arrow of the box is."""

    x: float
    y: float
    text: str
    leftwards: bool

    @property
    def span(self) -> tuple[float, float]:
        """The pixels it lies between."""
        width = SMALL * len(self.text)
        return (self.x - width, self.x) if self.leftwards else (self.x, self.x + width)

    def svg(self) -> str:
        """The label."""
        anchor = "end" if self.leftwards else "start"
        place = f'x="{self.x:.1f}" y="{self.y:.1f}" text-anchor="{anchor}"'
        return f'<text class="label" {place}>{escape(self.text)}</text>'


def _labels(ways: Sequence[tuple[Arrow, list[_Item]]]) -> Iterable[_Label]:
    """The label of every arrow, beside its first stretch; of one box each label only once."""
    told: set[tuple[str, str]] = set()
    for arrow, (start, end, *_) in ways:
        if arrow.label and (arrow.source, arrow.label) not in told:
            told.add((arrow.source, arrow.label))
            leftwards = end.place < start.place - 1
            middle = (start.place + end.place) / 2 + (-6 if leftwards else 6)
            yield _Label(middle, _top(start) + HIGH + GAP / 2 + 4, _cut(arrow.label), leftwards)
