"""Numbers out of numbers: medians of rounds, ratios of pairs, percentiles, verdicts. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """A target beside raw Envoy: the median of the rounds' ratios, and the rounds' extremes."""

    median: float
    lowest: float
    highest: float


def paired_ratio(raw: Sequence[float], target: Sequence[float]) -> Ratio:
    """Each round's target against the same round's raw figure: what slows the machine slows both."""
    ratios = sorted(ours / theirs for ours, theirs in zip(target, raw, strict=True))
    return Ratio(round(median(ratios), 3), round(ratios[0], 3), round(ratios[-1], 3))


def order_of_round(number: int, names: Sequence[str]) -> tuple[str, ...]:
    """Who is measured first changes from round to round, so that a slow drift of the machine favours nobody."""
    return tuple(names) if number % 2 == 0 else tuple(reversed(names))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed (nearest rank)."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each column."""
    return {name: round(median(row[name] for row in rows), 1) for name in rows[0]}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares: by how much y grows for each x."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
