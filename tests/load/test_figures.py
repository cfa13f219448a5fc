"""Numbers out of numbers: what the report's medians, ratios and percentiles mean."""

from __future__ import annotations

import math

import pytest

from tests.load.figures import medians, order_of_round, paired_ratio, percentile, slope


def test_a_round_is_compared_with_raw_envoy_in_the_same_round() -> None:
    """A machine that halves its speed in one round leaves the ratio as it was."""
    ratio = paired_ratio(raw=[20_000, 10_000, 20_000], target=[5_000, 2_500, 6_000])

    assert (ratio.median, ratio.lowest, ratio.highest) == (0.25, 0.25, 0.3)


def test_rounds_that_do_not_pair_are_a_mistake() -> None:
    """A missing round is not left out silently."""
    with pytest.raises(ValueError, match="argument"):
        paired_ratio([1.0, 2.0], [1.0])


def test_who_goes_first_alternates() -> None:
    """A machine that becomes slower and slower favours neither side."""
    assert [order_of_round(number, ("raw", "target"))[0] for number in range(4)] == ["raw", "target", "raw", "target"]


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(100, 50, 50), (100, 99, 99), (100, 100, 100), (10, 95, 10), (3, 50, 2), (1, 99, 1), (200, 0, 1)],
)
def test_percentile_is_the_nearest_rank(count: int, percent: float, expected: int) -> None:
    """No value is interpolated: the answer was measured."""
    assert percentile(range(1, count + 1), percent) == expected


def test_percentile_of_nothing_is_no_number() -> None:
    """Nothing measured is not 0 ms."""
    assert math.isnan(percentile([], 50))


def test_medians_are_taken_by_column() -> None:
    """Each component's own median, whatever round it comes from."""
    rows = [{"envoy": 1.0, "authz": 9.0}, {"envoy": 5.0, "authz": 7.0}, {"envoy": 3.0, "authz": 8.0}]

    assert medians(rows) == {"envoy": 3.0, "authz": 8.0}


def test_slope_ignores_what_is_there_at_rest() -> None:
    """Bytes an identity do not include the empty store."""
    assert slope([(0, 1_000), (10, 1_500), (20, 2_000)]) == pytest.approx(50)
