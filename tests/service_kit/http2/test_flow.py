"""Windows and patience, without a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_kit.http2.flow import Allowance, Patience, ReceiveWindow, widened
from service_kit.http2.frames import ENHANCE_YOUR_CALM, LARGEST_WINDOW, ConnectionFailure


def test_a_window_ends_at_two_gibibytes() -> None:
    """Section 6.9.1: an increment beyond 2^31-1 is none."""
    assert widened(LARGEST_WINDOW - 1, 1) == LARGEST_WINDOW
    assert widened(LARGEST_WINDOW, 1) is None
    assert widened(-10, 5) == -5, "after smaller settings a window may be below zero"


@given(st.lists(st.integers(0, 2_000), max_size=60))
def test_what_is_let_go_is_given_back(sizes: list[int]) -> None:
    """The peer may always send what it had at first, but for what is held or not yet worth an update."""
    window, announced, owed = ReceiveWindow(4_000), 4_000, 0
    for size in sizes:
        fits = size <= announced
        assert window.take(size) == fits
        if not fits:
            return
        increment = window.release(size)
        announced, owed = announced - size + increment, owed + size - increment
        assert increment == 0 or increment >= 1_000
        assert announced + owed == 4_000


def test_patience_ends_and_comes_back_with_time_and_with_calls() -> None:
    """A burst is free, then a rate; calls that end earn more."""
    now = 0.0
    patience = Patience(Allowance(burst=10, per_second=2, per_call=3), lambda: now)
    patience.spend(10)
    with pytest.raises(ConnectionFailure) as failure:
        patience.spend(1)
    assert failure.value.code == ENHANCE_YOUR_CALM

    now = 5.0
    patience.spend(5)
    patience.calls += 2
    patience.spend(9)
