"""Leases on real Envoys: a busy caller is asked about seldom, and no limit gives way for it."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NamedTuple

import pytest
import yaml

from controlplane.translate.headers import Header
from ratelimit_service.leases import MAX_REQUESTS, RISK, SPAN_US
from tests.e2e.conftest import StartGateway
from tests.support.gateway import (
    ORIGIN,
    Echo,
    Gateway,
    a_route,
    bearer,
    client_address,
    default_document,
    token,
    unique,
)
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection

PATH = "/t/busy"
HEAVY = {"rps": 4000, "rpm": 60_000, "burst": 4000}
TIGHT = {"rps": 1, "rpm": 6000, "burst": 6000}
LOW = {"rps": 1, "rpm": 5, "burst": 5}
TOLD = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "ratelimit-policy")
INTERNAL = (Header.LEASE_REPORT, Header.PREPAID)
SPAN_SECONDS = SPAN_US / 1_000_000
HELD = 2 * MAX_REQUESTS
"""What one Envoy worker may hold of a caller: the lease it spends, and the one that follows."""
Document = dict[str, Any]


class Passage(NamedTuple):
    """One request: when it was sent and answered, and the answer."""

    sent: float
    at: float
    answer: Answer


def the_document(**limits: Any) -> Document:
    document = default_document()
    document["listener"]["trusted_hops"] = 1
    document["limits"]["tiers"] |= {"heavy": dict(HEAVY), "tight": dict(TIGHT)}
    document["limits"] |= limits
    document["services"].append(
        {
            "name": "patient",
            "endpoints": [{"url": "${DISCOVERY_SERVICE_URL}"}],
            "health_check": None,
            "breaker": {"failures": 10_000, "error_rate_percent": 100},
        }
    )
    browsed = {"path": "/t/browsed", "methods": ["GET", "OPTIONS"]}
    document["routes"] += [
        a_route("busy", "patient"),
        a_route("small", "patient", max_request_bytes=100),
        a_route("browsed", "patient") | {"match": browsed},
        a_route("required", "patient", auth="required"),
        a_route("members", "patient", auth="required", tiers=["pro"]),
        a_route("scoped", "patient", auth="required", scopes=["admin"]),
        a_route("claimed", "patient", auth="required", claims={"plan": "gold"}),
    ]
    return document


@pytest.fixture(scope="module")
def leasing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One Envoy and one replica; every test has callers of its own."""
    with Gateway(tmp_path_factory.mktemp("leases") / "run", document=the_document()) as running:
        yield running


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One whose Envoy verifies tokens itself."""
    document = the_document()
    document["auth"]["verified_by"] = "envoy"
    with Gateway(tmp_path_factory.mktemp("inside") / "run", document=document) as running:
        yield running


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two Envoys and two replicas on one store."""
    options = ("--envoy", "2", "--ratelimit", "2")
    with Gateway(tmp_path_factory.mktemp("wide") / "run", *options, document=the_document()) as running:
        yield running


# -- asking much


def request_of(credential: tuple[str, str], path: str, more: Sequence[tuple[str, str]] = ()) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: gateway.test", *(f"{name}: {value}" for name, value in (credential, *more))]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def hammer(
    address: str,
    data: bytes,
    requests: int = 1_000_000,
    seconds: float = 60,
    stop: threading.Event | None = None,
    seen: list[Passage] | None = None,
) -> list[Passage]:
    """Ask over one connection without a pause, so many times or for so long; `seen` has all answers so far."""
    passages: list[Passage] = []
    began = time.monotonic()
    with Connection(address) as connection:
        while len(passages) < requests and time.monotonic() - began < seconds and not (stop and stop.is_set()):
            sent = time.monotonic()
            connection.send(data)
            answer = connection.receive()
            assert answer is not None, "the connection was closed"
            passages.append(Passage(sent, time.monotonic(), answer))
            if seen is not None:
                seen.append(passages[-1])
    return passages


def hammer_all(addresses: Sequence[str], data: bytes, connections: int, **how: Any) -> list[Passage]:
    """The same over many connections at once, spread over the addresses; in the order of the answers."""
    with ThreadPoolExecutor(connections) as threads:
        asked = [threads.submit(hammer, addresses[n % len(addresses)], data, **how) for n in range(connections)]
        return sorted((passage for each in asked for passage in each.result()), key=lambda passage: passage.at)


@contextlib.contextmanager
def hammered(gateway: Gateway, data: bytes, connections: int = 4) -> Iterator[list[Passage]]:
    """A busy caller meanwhile, who has leases when this begins; the list grows with every answer."""
    seen: list[Passage] = []
    stop = threading.Event()
    before = decisions(gateway)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(hammer_all, addresses(gateway), data, connections, stop=stop, seen=seen)
        try:
            assert eventually(lambda: len(seen) > max(HELD, 2 * (decisions(gateway) - before)), 20), "no leases"
            yield seen
        finally:
            stop.set()
            asked.result()
            seen.sort(key=lambda passage: passage.at)


def wait_for_answers(passages: Sequence[Passage], since: float, number: int = 100, status: int | None = None) -> None:
    """Until so many requests that were sent after `since` are answered, with this status where one is given."""

    def answered() -> int:
        return sum(each.sent > since and status in (None, each.answer.status) for each in tuple(passages))

    assert eventually(lambda: answered() >= number, 30), f"{answered()} of {number} answers"


def passed(passages: Sequence[Passage]) -> list[Passage]:
    """Those that the service answered; whatever else there is must be a refusal of the limiter."""
    statuses = Counter(passage.answer.status for passage in passages)
    assert statuses.keys() <= {200, 429}, statuses
    return [passage for passage in passages if passage.answer.status == 200]


def addresses(gateway: Gateway, envoys: int = 1) -> list[str]:
    return [gateway.component("envoy", index)["address"] for index in range(envoys)]


def decisions(gateway: Gateway, replicas: int = 1, mode: str = "") -> float:
    """How many requests the service has been asked about."""
    lines = [line for index in range(replicas) for line in gateway.metrics("ratelimit", index).splitlines()]
    counted = [line for line in lines if line.startswith("mgw_ratelimit_decisions_total{") and mode in line]
    return sum(float(line.split()[-1]) for line in counted)


def let_pass(gateway: Gateway) -> int:
    """How many requests Envoy let pass by itself, because the service did not answer in the time that it has."""
    stats = gateway.read(gateway.component("envoy")["admin"] + "/stats?filter=ratelimit.failure_mode_allowed").split(
        "\n"
    )
    return sum(int(line.rpartition(":")[2]) for line in stats if line)


def telling(gateway: Gateway, passages: Sequence[Passage], let_pass_before: int) -> list[Passage]:
    """Those whose answer tells all that answers tell of limits: every one but those that Envoy let pass by itself."""
    found = [passage for passage in passages if all(passage.answer.value(name) is not None for name in TOLD)]
    silent = [passage for passage in passages if all(passage.answer.value(name) is None for name in TOLD)]
    assert len(found) + len(silent) == len(passages), "an answer tells half of it"
    assert len(silent) <= let_pass(gateway) - let_pass_before
    return found


def the_tier(gateway: Gateway, caller: str, tier: str) -> Any:
    """The caller's own budget, as an operator sees it."""
    told = gateway.operate("GET", caller, f"limits?tier={tier}")
    return next(rule for rule in told["rules"] if rule["rule"] == "tier")


_numbers = count(1)


def put_live(gateway: Gateway, document: Document) -> None:
    """Make a document current, and wait until workers and the service have it: a path and a tier that only it has."""
    document, number = copy.deepcopy(document), next(_numbers)
    document["limits"]["tiers"]["marker"] = HEAVY | {"rpm": 90_000 + number}
    document["routes"].append(a_route(f"revision-{number}", "patient"))
    assert gateway.put_config(document).status_code == 200

    def holds() -> bool:
        answers = [gateway.ask(f"/t/revision-{number}", bearer_token=token(tier="marker")) for _ in range(5)]
        told = {(answer.status, answer.value("x-ratelimit-limit")) for answer in answers}
        return told == {(200, str(90_000 + number))}

    assert eventually(holds, every=0), "the change did not come into force"


def most_within(moments: Sequence[float], seconds: float) -> int:
    """The most moments that any span of this length holds."""
    first = most = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


# -- they are used


def test_a_busy_caller_is_asked_about_seldom(leasing: Gateway) -> None:
    """Most requests pass without a question; every answer says what is left, and what passed was charged."""
    caller = unique()
    data = request_of(bearer(token(caller, "heavy")), PATH)
    before, silent = decisions(leasing), let_pass(leasing)

    passages = hammer_all(addresses(leasing), data, 8, requests=400)

    through = telling(leasing, passed(passages), silent)
    asked = decisions(leasing) - before
    assert asked < len(passages) / 2, f"asked about {asked:.0f} of {len(passages)}"
    assert {passage.answer.value("x-ratelimit-limit") for passage in through} == {"60000"}
    used = the_tier(leasing, caller, "heavy")["used"]
    assert len(through) <= used <= 1.25 * len(passed(passages)) + HELD


@pytest.mark.parametrize("replicas", [2, 3])
def test_several_replicas_are_asked_as_seldom(start: StartGateway, replicas: int) -> None:
    """However many there are: together they hear of few requests, and next to nothing is charged in vain."""
    document = the_document()
    document["limits"]["tiers"]["vast"] = {"rps": 20_000, "rpm": 1_000_000, "burst": 20_000}
    gateway = start("--ratelimit", str(replicas), document=document)
    caller = unique()
    data = request_of(bearer(token(caller, "vast")), PATH)
    first = passed(hammer_all(addresses(gateway), data, 8, requests=400))
    before = decisions(gateway, replicas)

    passages = hammer_all(addresses(gateway), data, 8, requests=400)

    asked = decisions(gateway, replicas) - before
    # On a machine so slow that leases end before they are spent, one replica is asked as often.
    most = len(passages) / 4
    if asked >= most:
        most = 1.5 * questions_of_one(start, document, data)
    assert asked < most, f"asked about {asked:.0f} of {len(passages)}"
    through = len(first) + len(passed(passages))
    used = the_tier(gateway, caller, "vast")["used"]
    assert through <= used <= 1.1 * through + HELD


def questions_of_one(start: StartGateway, document: Document, data: bytes) -> float:
    """How often a single replica is asked about the same requests of a busy caller."""
    one = start(document=document, name="one")
    hammer_all(addresses(one), data, 8, requests=400)
    before = decisions(one)
    hammer_all(addresses(one), data, 8, requests=400)
    return decisions(one) - before


def test_who_is_verified_in_envoy_has_leases_too(inside: Gateway) -> None:
    """With `auth.verified_by: envoy` leases are the same."""
    before, silent = decisions(inside), let_pass(inside)

    passages = hammer_all(addresses(inside), request_of(bearer(token(tier="heavy")), PATH), 4, requests=200)

    assert len(passed(passages)) == len(passages) == 800
    assert decisions(inside) - before < len(passages) / 2
    assert len(telling(inside, passages, silent)) > len(passages) / 2


def test_addresses_have_leases_of_their_own(leasing: Gateway) -> None:
    """An anonymous caller is charged by its address, asked about or not; another address has its own budget."""
    document = the_document()
    document["limits"]["tiers"]["anonymous"] = dict(HEAVY)
    put_live(leasing, document)
    one, other = client_address(), client_address()
    before = decisions(leasing)

    passages = hammer_all(addresses(leasing), request_of(("X-Forwarded-For", one), PATH), 4, requests=300)
    answer = leasing.ask(PATH, headers=[("X-Forwarded-For", other)])
    put_live(leasing, the_document())

    assert len(passed(passages)) == len(passages)
    assert decisions(leasing) - before < len(passages) / 2
    assert len(passages) <= the_tier(leasing, one, "anonymous")["used"] <= 1.1 * len(passages)
    assert answer.value("x-ratelimit-remaining") == str(HEAVY["rpm"] - 1)


def test_remaining_is_never_far_from_the_truth(leasing: Gateway) -> None:
    """It is wrong by no more than what the other worker holds and what is on its way; it never goes below zero."""
    caller = unique()
    connections, workers, silent = 8, 2, let_pass(leasing)
    through = passed(
        hammer_all(addresses(leasing), request_of(bearer(token(caller, "heavy")), PATH), connections, requests=300)
    )
    passages = telling(leasing, through, silent)

    slack = HELD * workers + connections
    told = [int(passage.answer.value("x-ratelimit-remaining") or -1) for passage in passages]
    assert min(told) >= HEAVY["rpm"] - the_tier(leasing, caller, "heavy")["used"]
    over = [number + nth - HEAVY["rpm"] for nth, number in enumerate(told)]
    assert max(over) <= slack, "more was told to be left than there was"
    for passage in passages[-20:]:
        reset = int(passage.answer.value("x-ratelimit-reset") or 0)
        assert 0 <= reset - time.time() <= 61


# -- they are exact


def test_no_window_holds_more_than_the_limit(wide: Gateway) -> None:
    """7,200 requests over two Envoys and two replicas: 6,000 pass in the minute, and next to none is lost in leases."""
    caller = unique()
    data = request_of(bearer(token(caller, "tight")), PATH)
    before, share_before = decisions(wide, 2), decisions(wide, 2, 'mode="share"')

    passages = hammer_all(addresses(wide, 2), data, 16, requests=450)

    through = passed(passages)
    seconds = passages[-1].at - min(passage.sent for passage in passages)
    assert seconds < 60
    # On a machine that is out of breath the service or the store may be too slow to say: then others than they decide.
    unsaid = sum(passage.answer.value("x-ratelimit-limit") is None for passage in through)
    unsaid += int(decisions(wide, 2, 'mode="share"') - share_before)
    exact, used = len(through) - unsaid, the_tier(wide, caller, "tight")["used"]
    assert exact <= TIGHT["rpm"], f"{unsaid} more were not decided exactly"
    assert TIGHT["rpm"] - unsaid <= used <= TIGHT["rpm"], "the minute was used up"
    assert exact <= used <= (1 + 1 / RISK) * len(through) + unsaid, "more was lost in leases than may be"
    assert decisions(wide, 2) - before < len(passages), "there were no leases"


def test_no_span_holds_more_than_the_burst_and_what_refills(leasing: Gateway) -> None:
    """In any span of t seconds at most burst + rps·t of a caller pass who never stops asking."""
    caller = unique()
    document = the_document()
    document["limits"]["tiers"]["quick"] = numbers = {"rps": 400, "rpm": 60_000, "burst": 1400}
    put_live(leasing, document)
    data = request_of(bearer(token(caller, "quick")), PATH)
    before = decisions(leasing)

    passages = hammer_all(addresses(leasing), data, 8, seconds=3)

    through = passed(passages)
    assert decisions(leasing) - before < len(passages), "there were no leases"

    for seconds in (0.25, 0.5, 1.0, 2.0):
        # Recorded at the client: answers may bunch by what the slowest of them took.
        slack = max(passage.at - passage.sent for passage in through)
        most = most_within([passage.at for passage in through], seconds)
        assert most <= numbers["burst"] + numbers["rps"] * (seconds + slack) + 1
    allowed = numbers["burst"] + numbers["rps"] * (through[-1].at - through[0].sent)
    assert len(through) >= 0.9 * min(allowed, len(passages))


# -- they follow what changes


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


# -- nobody else has anything of them


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Leases turned off."""
    document = the_document(leases={"enabled": False})
    with Gateway(tmp_path_factory.mktemp("without") / "run", document=document) as running:
        yield running


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


# -- what is lost of them


@pytest.mark.parametrize("delay", ["0.05", "0.3"])
def test_a_slow_service_wastes_next_to_nothing(leasing: Gateway, delay: str) -> None:
    """Who cannot spend a lease in its life gets none that is larger: what is charged is what passed, and a little."""
    caller = unique()
    data = request_of(bearer(token(caller, "heavy")), PATH, [("X-Demo-Delay", delay)])

    through = passed(hammer_all(addresses(leasing), data, 8, seconds=3))

    used = the_tier(leasing, caller, "heavy")["used"]
    assert len(through) <= used <= 1.1 * len(through) + 10


def test_who_goes_away_leaves_no_answer_without_numbers(leasing: Gateway) -> None:
    """Requests that are given up leave nothing behind that others would feel."""
    credential = bearer(token(tier="heavy"))
    data, silent = request_of(credential, PATH, [("X-Demo-Delay", "0.05")]), let_pass(leasing)
    with hammered(leasing, request_of(credential, PATH)) as passages:
        for _ in range(200):
            with Connection(leasing.address) as connection:
                connection.send(data)

    telling(leasing, passed(passages), silent)


# -- when a part is gone


def test_without_the_service_the_fallback_limit_holds(start: Any) -> None:
    """Leases that are out end by themselves; then each Envoy gives the tier's burst and rate, as ever."""
    document = the_document()
    document["limits"]["tiers"]["quick"] = numbers = {"rps": 200, "rpm": 60_000, "burst": 1400}
    gateway: Gateway = start(document=document)
    data = request_of(bearer(token(tier="quick")), PATH)
    with hammered(gateway, data) as passages:
        gateway.kill("ratelimit")
        gone = time.monotonic()
        wait_for_answers(passages, gone, number=1, status=429)
        used_up = time.monotonic()
        wait_for_answers(passages, used_up, number=100, status=200)

    since = [passage.at for passage in passed(passages) if passage.sent > gone]
    seconds = passages[-1].at - gone
    assert numbers["burst"] <= len(since) <= numbers["burst"] + numbers["rps"] * (seconds + 1) + HELD * 2
    late = [at for at in since if at > used_up]
    assert len(late) <= numbers["rps"] * (passages[-1].at - used_up + 1), "the burst is there only once"


def test_without_the_store_the_share_holds(start: Any) -> None:
    """Redis killed among leases: one replica has the whole share, and what was leased counts as spent."""
    gateway: Gateway = start(document=the_document())
    caller = unique()
    data = request_of(bearer(token(caller, "tight")), PATH)
    with hammered(gateway, data, 8) as passages:
        gateway.kill("redis")
        refusals = "mgw_ratelimit_refusals_total{"
        assert eventually(lambda: refusals in gateway.metrics("ratelimit"), 30), "the share was never used up"

    seconds = passages[-1].at - passages[0].sent
    through = passed(passages)
    assert decisions(gateway, mode='mode="share"') > 0, "the store was not missed"
    assert 0.9 * TIGHT["rpm"] <= len(through) <= TIGHT["burst"] + TIGHT["rps"] * seconds + 1
