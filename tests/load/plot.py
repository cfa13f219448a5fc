"""Two kinds of plots as SVG text: stacked bars and curves. Pure: the same figures give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 860
LABELS = 320
"""Where bars begin."""
ROW = 26
PALETTE = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#97bbf5", "#9c6b4e")
STYLE = "font-family:system-ui,sans-serif;font-size:12px"
Points = Sequence[tuple[float, float]]


def bars(
    title: str, rows: Mapping[str, Mapping[str, float]], unit: str, marks: Mapping[str, float] | None = None
) -> str:
    """A bar a row, made of its named parts; `marks` are named vertical lines."""
    marks = marks or {}
    parts = list(dict.fromkeys(name for row in rows.values() for name in row))
    most = max([*(sum(row.values()) for row in rows.values()), *marks.values()])
    scale = (WIDTH - LABELS - 90) / (most or 1)
    top = 54 if len(parts) > 1 else 34
    body = _legend(parts, 34) if len(parts) > 1 else []
    for index, (label, row) in enumerate(rows.items()):
        body += _bar(label, row, parts, top + index * ROW, scale, unit)
    bottom = top + len(rows) * ROW
    for name, value in marks.items():
        x = LABELS + value * scale
        body.append(
            f'<line x1="{x:.1f}" y1="{top - 4}" x2="{x:.1f}" y2="{bottom}" stroke="#555" stroke-dasharray="4 3"/>'
        )
        body.append(_text(x, bottom + 14, name, "middle"))
    return _svg(title, bottom + (24 if marks else 10), body)


def _bar(label: str, row: Mapping[str, float], parts: Sequence[str], y: float, scale: float, unit: str) -> list[str]:
    lines = [_text(LABELS - 8, y + 15, label, "end")]
    x = float(LABELS)
    for name, value in row.items():
        colour = PALETTE[parts.index(name) % len(PALETTE)]
        lines.append(f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="{ROW - 6}" fill="{colour}"/>')
        x += value * scale
    return [*lines, _text(x + 6, y + 15, f"{number(sum(row.values()))} {unit}".strip())]


def curves(title: str, series: Mapping[str, Points], across: str, up: str) -> str:
    """Lines through points. Across is logarithmic; up begins at 0."""
    left, right, top, bottom = 60, WIDTH - 20, 66, 306
    every = [point for points in series.values() for point in points]
    first, last = min(x for x, _ in every), max(x for x, _ in every)
    most = 4 * round_step(max(y for _, y in every) / 4)

    def place(x: float, y: float) -> tuple[float, float]:
        share = math.log(x / first) / math.log(last / first) if last > first else 0.5
        return left + 20 + share * (right - left - 60), bottom - y / most * (bottom - top)

    body = _legend(list(series), 34)
    for step in range(5):
        value = most * step / 4
        _, y = place(first, value)
        body.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
        body.append(_text(left - 6, y + 4, number(value), "end"))
    for x in dict.fromkeys(x for x, _ in every):
        body.append(_text(place(x, 0)[0], bottom + 16, number(x), "middle"))
    for index, points in enumerate(series.values()):
        colour = PALETTE[index % len(PALETTE)]
        placed = [place(x, y) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
    body += [_text((left + right) / 2, bottom + 34, across, "middle"), _text(left - 50, top - 12, up)]
    return _svg(title, bottom + 44, body)


def round_step(least: float) -> float:
    """The next step of an axis that people like to read: 1, 2, 2.5 or 5 times a power of ten."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 2.5, 5, 10) if power * digit >= least)


def number(value: float) -> str:
    """A figure for people: three digits that count, thousands grouped."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"


def _legend(names: Sequence[str], y: float) -> list[str]:
    lines, x = [], 20.0
    for index, name in enumerate(names):
        lines.append(f'<rect x="{x:.0f}" y="{y - 9}" width="10" height="10" fill="{PALETTE[index % len(PALETTE)]}"/>')
        lines.append(_text(x + 15, y, name))
        x += 35 + 7 * len(name)
    return lines


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222">{escape(words)}</text>'


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
            f'height="{height:.0f}" role="img" style="{STYLE}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>',
            f'<text x="20" y="18" font-size="14" font-weight="600" fill="#222">{escape(title)}</text>',
            *body,
            "</svg>",
            "",
        ]
    )
