"""Leases on real Envoys: nobody else has anything of them, and what costs nothing costs none."""

from __future__ import annotations

import copy
import time

import pytest
import yaml

from tests.e2e.leases.busy import (
    HEAVY,
    PATH,
    TOLD,
    addresses,
    decisions,
    hammer_all,
    hammered,
    let_pass,
    passed,
    put_live,
    request_of,
    the_tier,
)
from tests.support.gateway import ORIGIN, Echo, Gateway, bearer, client_address, token, unique
from tests.support.wire import Answer, Connection

SPELLINGS = ("x-mgw-prepaid", "X-MGW-Prepaid", "x_mgw_prepaid", "x-mgw_prepaid")
REPORT_SPELLINGS = ("X_MGW-Lease-Report", "x-mgw-lease-report")


@pytest.mark.parametrize("name", SPELLINGS + REPORT_SPELLINGS)
@pytest.mark.parametrize("which", ["leasing", "without"])
def test_a_clients_own_lease_is_none(request: pytest.FixtureRequest, which: str, name: str) -> None:
    """However it is spelt, it gets nobody past the limiter, and no service sees it."""
    gateway: Gateway = request.getfixturevalue(which)
    for more in ([], [("Connection", name), ("X-Forwarded-For", client_address())]):
        who = [bearer(token(tier="free")), (name, "1"), *more]
        answers: list[Answer] = []
        began, silent = time.monotonic(), let_pass(gateway)

        # Asked one after another: a busy machine may be slow enough for the bucket to refill in between.
        while time.monotonic() < began + 20 and not (answers and answers[-1].status == 429):
            answers.append(gateway.ask(PATH, headers=who))

        most = 20 + 10 * (time.monotonic() - began) + 1 + let_pass(gateway) - silent
        assert answers[-1].status == 429
        assert len(answers) - 1 <= most
        assert not {seen for seen in Echo.of(answers[0]).names() if "mgw" in seen}


def test_callers_on_one_connection_are_kept_apart(leasing: Gateway) -> None:
    """Pipelined, under one request id, each answer tells its own caller's numbers, and spends no other lease."""
    heavy, free = unique(), unique()
    same = [("X-Request-ID", "the-same-for-all")]
    of_heavy = request_of(bearer(token(heavy, "heavy")), PATH, same)
    of_free = request_of(bearer(token(free, "free")), PATH, same)
    with hammered(leasing, of_heavy), Connection(leasing.address) as connection:
        # No refusal among them: after an answer of its own, Envoy reads no more of what was pipelined.
        connection.send((of_heavy + of_free) * 20)
        answers = [connection.receive() for _ in range(40)]

    limits = [answer.value("x-ratelimit-limit") if answer else None for answer in answers]
    assert set(limits[::2]) == {"60000"}
    assert set(limits[1::2]) == {"200"}
    assert the_tier(leasing, free, "free")["used"] == 20


KNOWN_BUT = [
    ("/t/required", "{0}", 200),
    ("/t/required", "{0}|{0}", 401),
    ("/t/required", "{0}, {0}", 401),
    ("/t/required", "{0},", 401),
    ("/t/required", "{0}x", 401),
    ("/t/required", "{0}|Basic abc", 401),
    ("/t/members", "{0}", 403),
    ("/t/scoped", "{0}", 403),
    ("/t/claimed", "{0}", 403),
]


@pytest.mark.parametrize("which", ["leasing", "inside"])
def test_being_known_opens_nothing_else(request: pytest.FixtureRequest, which: str) -> None:
    """A caller with leases whom Envoy knows is looked at anew for other conditions, and with any other credentials."""
    gateway: Gateway = request.getfixturevalue(which)
    name, value = bearer(token(tier="heavy"))

    said = []
    with hammered(gateway, request_of((name, value), PATH)):
        for path, credentials, _ in KNOWN_BUT * 2:
            sent = [(name, each) for each in credentials.format(value).split("|")]
            said.append((path, credentials, gateway.ask(path, headers=sent).status))

    assert said == KNOWN_BUT * 2


@pytest.mark.parametrize("which", ["leasing", "inside"])
def test_a_revoked_token_spends_no_lease(request: pytest.FixtureRequest, which: str) -> None:
    """Once the revocation is live the token is none, whatever its caller holds; another of the caller still passes."""
    gateway: Gateway = request.getfixturevalue(which)
    caller, revoked = unique(), unique("jti")
    document = yaml.safe_load(gateway.api("GET", "/v1/config").text)
    changed = copy.deepcopy(document)
    changed["auth"]["revocations"] = {"jti": [revoked]}
    try:
        with hammered(gateway, request_of(bearer(token(caller, "heavy")), PATH)):
            before = [gateway.ask("/t/required", bearer_token=token(caller, "heavy", jti=revoked)).status for _ in "ab"]
            put_live(gateway, changed)
            after = [gateway.ask("/t/required", bearer_token=token(caller, "heavy", jti=revoked)).status for _ in "ab"]
            other = gateway.ask("/t/required", bearer_token=token(caller, "heavy", jti="another")).status
    finally:
        put_live(gateway, document)

    assert (before, after, other) == ([200, 200], [401, 401], 200)


def test_no_service_sees_a_lease(leasing: Gateway) -> None:
    """Neither the request's mark nor the worker's report, whether it asked or not."""
    passages = passed(hammer_all(addresses(leasing), request_of(bearer(token(tier="heavy")), PATH), 4, requests=100))

    assert {
        name for passage in passages for name in Echo.of(passage.answer).names() if name.startswith("x-mgw")
    } == set()
    assert {name for passage in passages for name, _ in passage.answer.headers if name.startswith("x-mgw")} == set()


def test_turned_off_every_request_is_asked_about(without: Gateway) -> None:
    """And each is told the exact rest."""
    caller, before, silent = unique(), decisions(without), let_pass(without)
    share_before = decisions(without, mode='mode="share"')

    passages = hammer_all(addresses(without), request_of(bearer(token(caller, "heavy")), PATH), 4, requests=100)

    # A request for which the service or the store was late may be charged twice, or told nothing.
    late = let_pass(without) - silent + int(decisions(without, mode='mode="share"') - share_before)
    assert abs(decisions(without) - before - 400) <= late
    assert abs(the_tier(without, caller, "heavy")["used"] - 400) <= late
    told = {passage.answer.value("x-ratelimit-remaining") for passage in passages}
    exact = {str(HEAVY["rpm"] - number) for number in range(1, 401)}
    assert len(passed(passages)) == 400
    assert len(exact - told) <= late
    assert {
        name for passage in passages for name in Echo.of(passage.answer).names() if name.startswith("x-mgw")
    } == set()


def test_what_costs_nothing_costs_no_lease(leasing: Gateway) -> None:
    """A body that is too large is refused by the gateway itself; the answer says nothing of limits, as always."""
    caller = unique()
    credential = bearer(token(caller, "heavy"))
    with hammered(leasing, request_of(credential, PATH)):
        answers = [leasing.ask("/t/small", "POST", [credential], b"x" * 101) for _ in range(50)]

    assert {answer.status for answer in answers} == {413}
    assert {answer.value(name) for answer in answers for name in TOLD} == {None}


def test_a_preflight_costs_no_lease(leasing: Gateway) -> None:
    """Nor does it where a route has the method itself, and whatever credentials it carries."""
    credential = bearer(token(tier="heavy"))
    preflight = [credential, ("Origin", ORIGIN), ("Access-Control-Request-Method", "GET")]
    with hammered(leasing, request_of(credential, PATH)):
        answers = [leasing.ask("/t/browsed", "OPTIONS", preflight) for _ in range(20)]

    assert {answer.value("access-control-allow-origin") for answer in answers} == {ORIGIN}
    assert {answer.value(name) for answer in answers for name in TOLD} == {None}


@pytest.mark.parametrize(
    ("target", "method", "status"), [("/nowhere", "GET", 404), (PATH, "DELETE", 405), ("/t/busy%2f", "GET", 400)]
)
def test_what_has_no_route_costs_no_lease(leasing: Gateway, target: str, method: str, status: int) -> None:
    """Refused before anybody looks at who asks."""
    credential = bearer(token(tier="heavy"))
    with hammered(leasing, request_of(credential, PATH)):
        answers = [leasing.ask(target, method, [credential]) for _ in range(20)]

    assert {answer.status for answer in answers} == {status}
    assert {answer.value(name) for answer in answers for name in TOLD} == {None}
