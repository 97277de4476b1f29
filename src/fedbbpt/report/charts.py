"""Small charts as inline SVG. Lines stretch with the page; what is written beside them does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from fedbbpt.report.markup import NOTHING, Markup, tag, together

TONES = 8
"""Colours that most people can tell apart (Okabe and Ito 2008); behind them lines are dashed."""
APART = 6.5
"""Least distance between two labels at the ends of lines, in per cent of the chart's height."""


class Curve(NamedTuple):
    """One line.

    Attributes:
        name: written at its end; nothing if empty.
        points: (x, y) in ascending x.
        half: half the width of a band around each point; nothing for none.
        tone: number of its colour, from 0.
        faint: thin and pale, behind the others.
        level: it is the same everywhere; only the first point counts.
    """

    name: str
    points: Sequence[tuple[float, float]]
    half: Sequence[float] = ()
    tone: int = 0
    faint: bool = False
    level: bool = False


class Frame(NamedTuple):
    """Which numbers the edges of a chart are."""

    left: float
    right: float
    bottom: float
    top: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Per cent from the left, and from the top."""
        across = (x - self.left) / ((self.right - self.left) or 1.0)
        up = (y - self.bottom) / ((self.top - self.bottom) or 1.0)
        return 100 * across, 100 * (1 - up)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within a range, at most so many: 1, 2, 2.5 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    power = 10 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [number * step for number in range(first, last + 1)]
    return [low, high]


def plain(value: float) -> str:
    """A number of an axis: no more digits than it has, thousands set apart."""
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value / 1e6:,.6g} M"


def money(value: float) -> str:
    """The same in dollars."""
    return f"${value:,.6g}"


def chart(
    title: str,
    curves: Sequence[Curve],
    across: str,
    described: str,
    key: str = "",
    mark: tuple[float, float] | None = None,
    steps: bool = False,
    dots: bool = False,
    wide: bool = False,
    tick: Callable[[float], str] = plain,
) -> Markup:
    """Lines over one axis; nothing if no line has a point.

    Args:
        title: what goes up.
        curves: what is drawn, what comes first behind the rest.
        across: what the axis is.
        described: a sentence for those who cannot see it.
        key: what is dotted, ringed or pale.
        mark: a point to ring.
        steps: a value holds until the next one.
        dots: points are shown.
        wide: over the whole width.
        tick: writes the numbers of the axis.
    """
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return NOTHING
    frame = _frame(curves)
    lines = (_line(curve, frame, steps, dots) for curve in curves)
    grid = (tag("path", d=f"M0 {_n(y)}H100", cls="grid") for y, _ in _rows(frame))
    box = {"viewBox": "0 0 100 100", "preserveAspectRatio": "none", "aria_hidden": "true"}
    named = " named" * any(curve.name for curve in curves)
    plot = tag(
        "div",
        tag("svg", *grid, *lines, **box),
        *_beside(curves, frame, tick),
        NOTHING if mark is None else _ring(mark, frame),
        cls="plot" + named,
    )
    return tag(
        "figure",
        tag("figcaption", title, tag("small", key) if key else NOTHING),
        tag("div", plot, role="img", aria_label=described),
        tag("p", across, cls="across" + named, aria_hidden="true"),
        cls="chart" + " wide" * wide,
    )


def _beside(
    curves: Sequence[Curve], frame: Frame, tick: Callable[[float], str]
) -> Iterator[Markup]:
    """What is written: the numbers of both axes, and the names of lines."""
    for y, text in _rows(frame):
        yield tag("span", text, cls="ty", style=f"top:{_n(y)}%")
    for x in ticks(frame.left, frame.right, 4):
        yield tag("span", tick(x), cls="tx", style=f"left:{_n(frame.at(x, 0)[0])}%")
    yield from _ends(curves, frame)


def _frame(curves: Sequence[Curve]) -> Frame:
    spans = [p for curve in curves if not curve.level for p in curve.points] or [
        p for curve in curves for p in curve.points
    ]
    lows, highs = [], []
    for curve in curves:
        half = curve.half or [0.0] * len(curve.points)
        lows += [y - h for (_, y), h in zip(curve.points, half, strict=True)]
        highs += [y + h for (_, y), h in zip(curve.points, half, strict=True)]
    low, high = min(lows), max(highs)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return Frame(min(x for x, _ in spans), max(x for x, _ in spans), low - room, high + room)


def _rows(frame: Frame) -> list[tuple[float, str]]:
    """(per cent from the top, text) of the numbers at the left."""
    values = [round(y, 10) for y in ticks(frame.bottom, frame.top)]
    digits = max(len(f"{y:.6g}".partition(".")[2]) for y in values)
    return [(frame.at(0, y)[1], f"{y:,.{digits}f}") for y in values]


def _line(curve: Curve, frame: Frame, steps: bool, dots: bool) -> Markup:
    style = f"tone t{curve.tone % TONES}" + " dashed" * (curve.tone >= TONES)
    if curve.level:
        y = frame.at(0, curve.points[0][1])[1]
        return tag("path", d=f"M0 {_n(y)}H100", cls=f"{style} level")
    turn = _stairs if steps else list
    parts = []
    if any(curve.half):
        upper, lower = (
            turn([(x, y + sign * h) for (x, y), h in zip(curve.points, curve.half, strict=True)])
            for sign in (1, -1)
        )
        around = _path([*upper, *lower[::-1]], frame)
        parts.append(tag("path", d=f"{around}Z", cls=f"{style} band"))
    path = _path(turn(curve.points), frame)
    parts.append(tag("path", d=path, cls=style + " faint" * curve.faint))
    if dots:
        places = (frame.at(*point) for point in curve.points)
        spots = "".join(f"M{_n(x)} {_n(y)}h0" for x, y in places)
        parts.append(tag("path", d=spots, cls=f"{style} dots"))
    return together(*parts)


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """With a corner where a value ends and the next one begins."""
    corners = [(x, y) for (_, y), (x, _) in pairwise(points)]
    return [points[0], *(one for both in zip(corners, points[1:], strict=True) for one in both)]


def _path(points: Sequence[tuple[float, float]], frame: Frame) -> str:
    places = (frame.at(*point) for point in points)
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in places)


def _ring(mark: tuple[float, float], frame: Frame) -> Markup:
    across, down = frame.at(*mark)
    return tag("span", cls="ring", style=f"left:{_n(across)}%;top:{_n(down)}%")


def _ends(curves: Sequence[Curve], frame: Frame) -> list[Markup]:
    """The names of lines at their ends, moved apart where they would overlap."""
    named = [curve for curve in curves if curve.name]
    wanted = sorted((frame.at(*curve.points[-1])[1], i) for i, curve in enumerate(named))
    places = [max(0.0, min(100.0, y)) for y, _ in wanted]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + APART)
    if places and places[-1] > 100:
        places[-1] = 100.0
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - APART)
    return [
        tag("span", named[i].name, cls=f"end e{named[i].tone % TONES}", style=f"top:{_n(y)}%")
        for y, (_, i) in zip(places, wanted, strict=True)
    ]


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


# --- bars and intervals in a line ----------------------------------------------------------------


class Scale(NamedTuple):
    """What the ends of a bar's cell are; zero lies within."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Scale:
        """From the least to the largest, and zero."""
        low, high = min([0.0, *values]), max([0.0, *values])
        room = 0.04 * (high - low) or 1.0
        return cls(low - room * (low < 0 or high == 0), high + room * (high > 0 or low == 0))

    def at(self, value: float) -> float:
        """Per cent from the left."""
        return 100 * (value - self.low) / (self.high - self.low)


def bar(value: float, scale: Scale, ends: tuple[float, float] | None, described: str) -> Markup:
    """A bar from zero to a value, with an interval across its end."""
    zero, end = scale.at(0.0), scale.at(value)
    kind = "up" if value > 0 else "down"
    shapes = [
        tag("path", d=f"M{_n(zero)} 50H{_n(end)}", cls=f"bar {kind}"),
        tag("path", d=f"M{_n(zero)} 0V100", cls="zero"),
    ]
    if ends is not None:
        low, high = (scale.at(one) for one in ends)
        shapes.append(tag("path", d=f"M{_n(low)} 50H{_n(high)}", cls="whisker"))
    return _strip(shapes, described)


def spread(value: float, ends: tuple[float, float], described: str) -> Markup:
    """Where a value and its interval lie, seen from zero."""
    scale = Scale.over([value, *ends])
    low, high, middle, zero = (scale.at(x) for x in (*ends, value, 0.0))
    kind = "up" if ends[0] > 0 else "down" if ends[1] < 0 else "open"
    shapes = [
        tag("path", d="M0 50H100", cls="grid"),
        tag("path", d=f"M{_n(zero)} 10V90", cls="zero"),
        tag("path", d=f"M{_n(low)} 50H{_n(high)}", cls=f"range {kind}"),
        tag("path", d=f"M{_n(middle)} 50h0", cls=f"point {kind}"),
    ]
    side = "first" if zero < 20 else "last" if zero > 80 else "middle"
    below = tag("span", "no change", cls=side, style=f"left:{_n(zero)}%")
    return tag("div", _strip(shapes, described), tag("p", below, aria_hidden="true"), cls="spread")


def _strip(shapes: Sequence[Markup], described: str) -> Markup:
    return tag(
        "svg",
        tag("title", described),
        *shapes,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        role="img",
        cls="strip",
    )
