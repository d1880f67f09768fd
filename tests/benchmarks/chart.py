"""Charts as SVG: lines on two logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final, TypeAlias

Series: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]
"""The points of each line, by its name."""

_WIDTH: Final = 760
_HEIGHT: Final = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 520, 50, 370
_COLOURS: Final = (
    "#5aa9e6",
    "#c0392b",
    "#bbbbbb",
    "#1b6ca8",
    "#e67e22",
    "#999999",
    "#0b3d66",
    "#8e44ad",
    "#666666",
    "#16a085",
    "#d35400",
    "#2c3e50",
)
_BETWEEN_LABELS: Final = 14
_FONT: Final = 'font-family="sans-serif" font-size="12"'


class _Axis:
    """A logarithmic axis from a power of ten to another one."""

    def __init__(self, values: Iterable[float], start: int, end: int) -> None:
        found = list(values)
        self.low = math.floor(math.log10(min(found)))
        self.high = max(math.ceil(math.log10(max(found))), self.low + 1)
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        """Return where a value is."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Return the powers of ten."""
        return [10.0**power for power in range(self.low, self.high + 1)]


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{escape(text)}</text>'


def _line(start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _grid(x: _Axis, y: _Axis) -> list[str]:
    lines = [
        _line((x.place(tick), _TOP), (x.place(tick), _BOTTOM), "#ddd")
        + _text(x.place(tick), _BOTTOM + 18, f"{tick:g}", 'text-anchor="middle"')
        for tick in x.ticks()
    ]
    lines += [
        _line((_LEFT, y.place(tick)), (_RIGHT, y.place(tick)), "#ddd")
        + _text(_LEFT - 8, y.place(tick) + 4, f"{tick:g}", 'text-anchor="end"')
        for tick in y.ticks()
    ]
    return lines


def _spread(wanted: Mapping[str, float]) -> dict[str, float]:
    """Return where the label of each line is: beside its last point, and below the label before."""
    placed: dict[str, float] = {}
    last = -math.inf
    for name, y in sorted(wanted.items(), key=lambda item: item[1]):
        last = placed[name] = max(y, last + _BETWEEN_LABELS)
    return placed


def chart(title: str, across: str, up: str, series: Series) -> str:
    """Return a chart. Each line has its name beside its last point."""
    drawn = {name: points for name, points in series.items() if points}
    x = _Axis((point[0] for points in drawn.values() for point in points), _LEFT, _RIGHT)
    y = _Axis((point[1] for points in drawn.values() for point in points), _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" {_FONT}>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 24, title, 'font-size="15" font-weight="bold"'),
        _text((_LEFT + _RIGHT) / 2, _BOTTOM + 40, across, 'text-anchor="middle"'),
        _text(18, (_TOP + _BOTTOM) / 2, up, f'text-anchor="middle" transform="rotate(-90 18 {(_TOP + _BOTTOM) / 2})"'),
        *_grid(x, y),
    ]
    labels = _spread({name: y.place(points[-1][1]) for name, points in drawn.items()})
    for (name, points), colour in zip(drawn.items(), _COLOURS, strict=False):
        path = " ".join(f"{x.place(across):.1f},{y.place(value):.1f}" for across, value in points)
        dash = ' stroke-dasharray="5 4"' if name.startswith("floor") else ""
        end = x.place(points[-1][0])
        parts += [
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>',
            *(f'<circle cx="{x.place(a):.1f}" cy="{y.place(b):.1f}" r="3" fill="{colour}"/>' for a, b in points),
            _line((end + 5, y.place(points[-1][1])), (_RIGHT + 14, labels[name]), colour),
            _text(_RIGHT + 18, labels[name] + 4, name, f'fill="{colour}"'),
        ]
    return "\n".join([*parts, "</svg>", ""])
