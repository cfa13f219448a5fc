"""decision_cache.lua: authz's decisions, kept for a moment."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lua.support.worker import Worker, python

SAID = {"subject": "u1", "tier": "pro", "caller": "idp/u1", "until": 2000.0, "epoch": "e1"}
ASKED = {"policy": "e1/r", "authorization": "Bearer a", "epoch": "e1"}


@pytest.fixture
def cache() -> Worker:
    return Worker("decision_cache", {"cache_seconds": 5, "cache_entries": 3, "in_quotas": False})


def remember(cache: Worker, now: float = 1000, said: dict[str, Any] | None = SAID, **asked: str) -> None:
    metadata = cache.metadata() if said is None else cache.metadata(ext_authz=said)
    cache.remember(metadata, cache.table(ASKED | asked), now)


def recalled(cache: Worker, policy: str = "e1/r", authorization: str = "Bearer a", now: float = 1000) -> Any:
    found = cache.recall(policy, authorization, now)
    return found and python(found)["name"]


def test_a_decision_is_kept(cache: Worker) -> None:
    """The caller is as authz said."""
    remember(cache)
    found = python(cache.recall("e1/r", "Bearer a", 1001))

    assert (found["subject"], found["tier"], found["name"], found["ends"]) == ("u1", "pro", "idp/u1", 1005)


@pytest.mark.parametrize(("until", "now", "known"), [(2000, 1004.9, True), (2000, 1005, False), (1002, 1002, False)])
def test_how_long(cache: Worker, until: float, now: float, known: bool) -> None:
    """For the time that is set, and never beyond the token's end."""
    remember(cache, said=SAID | {"until": until})

    assert (recalled(cache, now=now) is not None) is known


@pytest.mark.parametrize("back", [1, 3600])
def test_a_clock_that_was_set_back(cache: Worker, back: float) -> None:
    """Nothing tells how long a decision was kept, so authz is asked; what it says then is kept as ever."""
    remember(cache)
    assert recalled(cache, now=1003) == "idp/u1"

    assert recalled(cache, now=1003 - back) is None
    remember(cache, now=1003 - back)
    assert recalled(cache, now=1007.9 - back) == "idp/u1"
    assert recalled(cache, now=1008 - back) is None


@pytest.mark.parametrize(
    "said",
    [
        None,
        {"tier": "anonymous"},
        {"subject": "u1", "tier": "pro", "caller": "idp/u1", "epoch": "e1"},
        SAID | {"epoch": "e2"},
        SAID | {"epoch": None},
    ],
    ids=["denied", "anonymous", "without an end", "under another policy", "under none"],
)
def test_what_is_not_kept(cache: Worker, said: dict[str, Any] | None) -> None:
    """A denial, an anonymous caller, an API key, and what authz said under another policy than the route's."""
    remember(cache, said=said and {key: value for key, value in said.items() if value is not None})

    assert recalled(cache) is None


def test_who_asks_elsewhere(cache: Worker) -> None:
    """Another token, and a route that asks something else of a caller, find nothing."""
    remember(cache)

    assert recalled(cache, authorization="Bearer b") is recalled(cache, policy="e2/r") is None
    assert recalled(cache) == "idp/u1"


def test_the_size_is_bounded(cache: Worker) -> None:
    """Two generations of so many entries: what is asked for stays, what is not is forgotten."""
    remember(cache)
    for number in range(7):
        remember(cache, authorization=f"Bearer {number}")
        assert recalled(cache) == "idp/u1"

    assert recalled(cache, authorization="Bearer 0") is None
    assert recalled(cache, authorization="Bearer 6") == "idp/u1"


def test_a_huge_token_is_not_kept(cache: Worker) -> None:
    """authz rejects it anyway."""
    remember(cache, authorization="Bearer " + "a" * 8300)

    assert recalled(cache, authorization="Bearer " + "a" * 8300) is None
