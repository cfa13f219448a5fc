"""Wrong API keys: how many of a network are looked at in a minute, and what is remembered."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz_service.guesses import GOOD_SECONDS, WINDOW_SECONDS, Guesses, network_of

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("2001:db8:1:2::1", "20010db800010002"),
        ("2001:DB8:1:2:ffff:ffff:ffff:ffff", "20010db800010002"),
        ("2001:db8:1:3::1", "20010db800010003"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("::1", "0000000000000000"),
        ("", ""),
        ("@", "@"),
    ],
)
def test_whose_tries_are_counted_together(address: str, network: str) -> None:
    """An IPv6 client has its whole /64; an IPv4 address is one, however it is written."""
    assert network_of(address) == network


def test_so_many_in_any_minute() -> None:
    """The next is possible when the oldest of the last `most` is a minute old, and then one alone."""
    guesses = Guesses()
    for second in (0, 10, 20):
        assert guesses.wait("a", 3, NOW + second) == 0
        guesses.wrong("a", 3, NOW + second)

    assert guesses.wait("a", 3, NOW + 20) == 40
    assert guesses.wait("a", 3, NOW + 59.5) == 0.5
    assert guesses.wait("a", 3, NOW + 60) == 0
    guesses.wrong("a", 3, NOW + 60)
    assert guesses.wait("a", 3, NOW + 60) == 10
    assert guesses.wait("b", 3, NOW + 20) == 0


def test_another_bound_holds_at_once() -> None:
    """What was wrong stays wrong."""
    guesses = Guesses()
    for second in range(3):
        guesses.wrong("a", 3, NOW + second)

    assert guesses.wait("a", 5, NOW + 3) == 0
    assert guesses.wait("a", 2, NOW + 3) == WINDOW_SECONDS - 2


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    """What was wrong later than now is forgotten."""
    guesses = Guesses()
    for _ in range(3):
        guesses.wrong("a", 3, NOW)

    assert guesses.wait("a", 3, NOW - 3600) == 0


def test_a_good_key_is_known_for_ten_minutes() -> None:
    """Since it was seen last."""
    guesses = Guesses()
    assert not guesses.was_good(b"k", NOW)
    guesses.good(b"k", NOW)
    guesses.good(b"k", NOW + 60)

    assert guesses.was_good(b"k", NOW + 60 + GOOD_SECONDS - 1)
    assert not guesses.was_good(b"k", NOW + 60 + GOOD_SECONDS)
    assert not guesses.was_good(b"other", NOW)


def test_memory_is_bounded() -> None:
    """Over all networks; the one that was wrong last the longest ago is forgotten first."""
    guesses = Guesses(max_wrong=10)
    guesses.wrong("old", 1, NOW)
    guesses.wrong("tried again", 2, NOW)
    for number in range(8):
        guesses.wrong(f"n{number}", 1, NOW + 1)
    guesses.wrong("tried again", 2, NOW + 2)

    assert guesses.count == 10
    assert guesses.wait("old", 1, NOW + 2) == 0
    assert guesses.wait("tried again", 2, NOW + 2) > 0


def test_what_is_over_is_forgotten() -> None:
    """A minute later nothing of it is kept."""
    guesses = Guesses()
    for number in range(100):
        guesses.wrong(f"n{number}", 60, NOW)
    guesses.wrong("a", 60, NOW + WINDOW_SECONDS)

    assert guesses.count == 1


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from("ab")), max_size=60), st.integers(1, 5))
def test_never_more_than_the_bound_in_any_minute(steps: list[tuple[float, str]], most: int) -> None:
    """Of each network, whatever it and the others do; and who waits as long as told may try."""
    guesses, now = Guesses(), NOW
    looked_at: dict[str, list[float]] = {"a": [], "b": []}
    for pause, network in steps:
        now += pause
        wait = guesses.wait(network, most, now)
        recent = [time for time in looked_at[network] if now - time < WINDOW_SECONDS]
        assert (wait == 0) is (len(recent) < most)
        assert 0 <= wait <= WINDOW_SECONDS
        if wait == 0:
            guesses.wrong(network, most, now)
            looked_at[network].append(now)
        else:
            assert guesses.wait(network, most, now + math.ceil(wait)) == 0
    assert guesses.count <= sum(map(len, looked_at.values()))
