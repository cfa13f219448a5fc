"""The measurement of the store is of the real script, and would notice a key that stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.limits import a_store, by_callers, by_hits, check_expiry, spend


def test_each_caller_has_two_keys_and_both_expire(tmp_path: Path) -> None:
    """A bucket and a log; a second request adds no key."""
    with a_store(tmp_path) as store:
        for _ in range(2):
            spend(store, range(50))

        assert check_expiry(store, 50) == 100


def test_a_key_that_stays_is_noticed(tmp_path: Path) -> None:
    """One key without a lifetime fails the measurement."""
    with a_store(tmp_path) as store:
        spend(store, range(50))
        store.persist(store.keys("*")[0])

        with pytest.raises(RuntimeError, match="100 keys, 99 of which expire"):
            check_expiry(store, 50)


def test_callers_that_are_missing_are_noticed(tmp_path: Path) -> None:
    """Bytes a caller are not divided by callers that were never there."""
    with a_store(tmp_path) as store:
        spend(store, range(50))

        with pytest.raises(RuntimeError, match="for 51 callers"):
            check_expiry(store, 51)


def test_more_hits_take_more_memory(tmp_path: Path) -> None:
    """The log has a member a hit, so a hundred hits take more than one."""
    with a_store(tmp_path) as store:
        few, many = by_hits(store, 1)["bytes"], by_hits(store, 30)["bytes"]
        grown = by_callers(store, [2_000, 4_000])

    assert 50 < few < many
    assert 50 < grown["bytes_each"] < 2_000
    assert [row["keys"] for row in grown["rows"].values()] == [4_000, 8_000]
