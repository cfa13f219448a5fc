"""Leases on real Envoys: they follow what changes."""

from __future__ import annotations

import time

from tests.e2e.leases.busy import LOW, PATH, hammered, passed, put_live, request_of, the_document, wait_for_answers
from tests.support.gateway import Gateway, bearer, token, unique


def test_lowered_numbers_hold_when_they_are_live(leasing: Gateway) -> None:
    """Once a revision is live nothing passes that its numbers do not let pass, lease or not."""
    callers = [unique() for _ in range(3)]
    lowered = the_document()
    lowered["limits"]["tiers"]["heavy"] = dict(LOW)
    for caller in callers:
        with hammered(leasing, request_of(bearer(token(caller, "heavy")), PATH)) as passages:
            put_live(leasing, lowered)
            live = time.monotonic()
            wait_for_answers(passages, live)
        put_live(leasing, the_document())

        assert len(passed(passages)) > 10 * LOW["rpm"], "the caller was not busy before"
        assert [passage for passage in passed(passages) if passage.sent > live] == []


def test_an_override_holds_when_it_is_answered(leasing: Gateway) -> None:
    """A caller in the middle of a lease is stopped: after the answer nothing passes."""
    for caller in (unique(), unique(), unique()):
        with hammered(leasing, request_of(bearer(token(caller, "heavy")), PATH)) as passages:
            leasing.operate("PUT", caller, "override", LOW | {"expires_in_seconds": 60, "reason": "a crawler"})
            answered = time.monotonic()
            wait_for_answers(passages, answered)

        assert len(passed(passages)) > 10 * LOW["rpm"], "the caller was not busy before"
        assert [passage for passage in passed(passages) if passage.sent > answered] == []


def test_a_reset_gives_no_more_than_the_limit(leasing: Gateway) -> None:
    """Leases that are out at that moment are part of the new budget."""
    caller = unique()
    document = the_document()
    document["limits"]["tiers"]["quick"] = numbers = {"rps": 1, "rpm": 60_000, "burst": 1400}
    put_live(leasing, document)
    with hammered(leasing, request_of(bearer(token(caller, "quick")), PATH)) as passages:
        leasing.operate("POST", caller, "reset", {"reason": "to begin again"})
        answered = time.monotonic()
        wait_for_answers(passages, answered, number=20, status=429)

    since = [passage for passage in passed(passages) if passage.sent > answered]
    assert len(passed(passages)) > numbers["burst"] >= 0.5 * len(since), "it began again"
    assert len(since) <= numbers["burst"] + numbers["rps"] * (passages[-1].at - answered)


def test_a_token_of_another_tier_spends_no_lease_of_the_first(leasing: Gateway) -> None:
    """The tier's numbers hold from its first request on, though the caller's other token has leases."""
    caller = unique()
    document = the_document()
    document["limits"]["tiers"]["low"] = dict(LOW)
    put_live(leasing, document)
    with hammered(leasing, request_of(bearer(token(caller, "heavy")), PATH)) as passages:
        answers = [leasing.ask(PATH, bearer_token=token(caller, "low")) for _ in range(20)]

    assert len(passed(passages)) > 10 * LOW["rpm"]
    assert [answer.status for answer in answers] == [429] * 20
