"""Limits under an operator's hands: changed live, looked at, reset, given back, overridden, tried out as a shadow."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx2
import pytest

from tests.support.gateway import Gateway, a_route, bearer, client_address, default_document, token, unique
from tests.support.waiting import eventually
from tests.support.wire import Answer

PATH = "/t/plain"
WIDE = {"rps": 1000, "rpm": 100_000, "burst": 100_000}
Document = dict[str, Any]


def a_limit(rpm: int, **more: Any) -> dict[str, Any]:
    """Numbers of which only the minute rule is ever felt."""
    return WIDE | {"rpm": rpm} | more


def the_document() -> Document:
    document = default_document()
    document["listener"]["trusted_hops"] = 1
    document["limits"]["tiers"] = {tier: a_limit(100) for tier in ("anonymous", "free")} | {"pro": a_limit(200)}
    document["limits"]["global"] = [
        {"name": "club", "routes": ["t-club"], **a_limit(30)},
        {"name": "trial", "routes": ["t-tried"], **a_limit(5), "shadow": True},
    ]
    document["routes"] += [
        a_route("plain", "discovery"),
        a_route("club", "discovery"),
        a_route("tried", "discovery"),
        a_route("metered", "sync", cost_from_response_header="x-cost"),
        a_route("scarce", "discovery", limits=a_limit(40)),
    ]
    return document


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two replicas of the rate-limit service on one store: what is true is true on both at once."""
    with Gateway(tmp_path_factory.mktemp("live") / "run", "--ratelimit", "2", document=the_document()) as running:
        yield running


def spend(gateway: Gateway, asked: int, credential: tuple[str, str], path: str = PATH) -> int:
    """How many of so many requests pass, one after the other."""
    with httpx2.Client(base_url=gateway.url, trust_env=False, headers=[credential]) as client:
        statuses = [client.get(path).status_code for _ in range(asked)]
    assert set(statuses) <= {200, 429}
    return statuses.count(200)


def the_rule(told: Any, name: str = "tier") -> Any:
    return next(rule for rule in told["rules"] if rule["rule"] == name)


_markers = count(1)


def put_live(gateway: Gateway, document: Document) -> None:
    """Make a document current, and wait until both replicas have it: its tier `marker` shows in ten answers running."""
    document = copy.deepcopy(document)
    rpm = 90_000 + next(_markers)
    document["limits"]["tiers"]["marker"] = a_limit(rpm)
    assert gateway.put_config(document).status_code == 200

    def holds() -> bool:
        told = [gateway.ask(PATH, bearer_token=token(tier="marker")).value("x-ratelimit-limit") for _ in range(10)]
        return told == [str(rpm)] * 10

    assert eventually(holds), "the change did not come into force"


@pytest.fixture
def changed(live: Gateway) -> Iterator[Document]:
    """A document to change; afterwards everything is as before."""
    yield the_document()
    put_live(live, the_document())


def test_lowered_and_raised(live: Gateway, changed: Document) -> None:
    """60 of 100 spent: lowered to 80, 20 are left; raised to 200, 120 more; nothing is reset."""
    who = bearer(token(tier="free"))
    assert spend(live, 60, who) == 60

    changed["limits"]["tiers"]["free"] = a_limit(80)
    put_live(live, changed)
    assert spend(live, 30, who) == 20

    changed["limits"]["tiers"]["free"] = a_limit(200)
    put_live(live, changed)
    assert spend(live, 130, who) == 120


def test_raised_from_sixty(live: Gateway, changed: Document) -> None:
    """60 of 100 spent, raised to 200: 140 are left."""
    who = bearer(token(tier="free"))
    assert spend(live, 60, who) == 60

    changed["limits"]["tiers"]["free"] = a_limit(200)
    put_live(live, changed)

    assert spend(live, 150, who) == 140


def test_moved_between_tiers(live: Gateway) -> None:
    """A caller who moves to a wider tier keeps what it spent, and so on the way back."""
    caller = unique()
    free, pro = (bearer(token(caller, tier)) for tier in ("free", "pro"))

    assert [spend(live, 110, who) for who in (free, pro, free)] == [100, 100, 0]


def test_renamed_and_reordered(live: Gateway, changed: Document) -> None:
    """While routes are reordered and one with its own limit is renamed, nothing is reset and nothing is unlimited.

    Envoy and the service learn the new name some milliseconds apart; meanwhile the tier's own rule holds, so a request
    or two may be charged there.
    """
    who = bearer(token(tier="free"))
    passed, stop = list[int](), threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            passed.append(spend(live, 5, who, "/t/scarce"))

    hammering = threading.Thread(target=hammer)
    hammering.start()
    try:
        changed["routes"].reverse()
        put_live(live, changed)
        scarce = next(route for route in changed["routes"] if route["name"] == "t-scarce")
        scarce["name"] = "t-rare"
        scarce["limits"]["counter"] = "t-scarce"
        put_live(live, changed)
    finally:
        stop.set()
        hammering.join()

    assert 40 <= sum(passed) + spend(live, 45, who, "/t/scarce") <= 45


def test_peek_spends_nothing(live: Gateway) -> None:
    """Looking at a caller tells what is spent and left, and changes neither."""
    caller = unique()
    spend(live, 7, bearer(token(caller, "pro")))

    for _ in range(5):
        told = live.operate("GET", caller, "limits?tier=pro")

    rule = the_rule(told)
    assert (told["caller"], told["tier"], told["tier_assumed"]) == (f"platform/{caller}", "pro", False)
    assert (rule["limit"], rule["used"], rule["remaining"], rule["override"]) == (200, 7, 193, None)


def test_a_caller_never_seen(live: Gateway) -> None:
    """A caller without requests has its tier's numbers, unspent; without a tier the default one is taken and said."""
    told = live.operate("GET", unique(), "limits")

    assert (told["tier"], told["tier_assumed"], the_rule(told)["remaining"]) == ("free", True, 100)


def test_an_anonymous_caller_is_its_address(live: Gateway) -> None:
    """The id of an anonymous caller is the address that the gateway took it from."""
    address = client_address()
    spend(live, 4, ("X-Forwarded-For", address))

    told = live.operate("GET", address, "limits")

    assert (told["address"], told["tier"], the_rule(told)["used"]) == (address, "anonymous", 4)


def test_reset_and_grant(live: Gateway) -> None:
    """A spent caller may go on after a grant, for that many; after a reset, for the whole limit."""
    caller = unique()
    who = bearer(token(caller, "free"))
    assert spend(live, 101, who) == 100

    assert live.operate("POST", caller, "grant", {"requests": 7, "reason": "our fault"})["granted"] == 7
    assert spend(live, 10, who) == 7

    assert live.operate("POST", caller, "reset", {"reason": "a new start"})["reset"] == 100
    assert spend(live, 101, who) == 100


def test_shadow_only_reports(live: Gateway) -> None:
    """A shadow rule refuses nothing; what it would have refused is in a metric and in the log."""
    answers = [live.ask("/t/tried", bearer_token=token(tier="free")) for _ in range(8)]

    assert {answer.status for answer in answers} == {200}
    series = 'mgw_ratelimit_shadow_refusals_total{counter="global:trial",rule="minute"}'
    counted = sum(
        float(line.split()[-1])
        for index in (0, 1)
        for line in live.metrics("ratelimit", index).splitlines()
        if line.startswith(series)
    )
    assert counted == 3
    last = answers[-1].value("x-request-id")
    assert last is not None
    assert live.log_line(last)["shadow"] == "global:trial/minute"


def test_callers_share_a_global_limit(live: Gateway) -> None:
    """Three callers together get what the global rule has, and pay nothing for what it refused."""
    callers = [unique() for _ in range(3)]
    passed = [spend(live, 20, bearer(token(caller, "free")), "/t/club") for caller in callers]

    assert passed == [20, 10, 0]
    assert [the_rule(live.operate("GET", caller, "limits"))["used"] for caller in callers] == passed
    assert the_rule(live.operate("GET", callers[0], "limits"), "global:club")["scope"] == "global"


def metered(live: Gateway, caller: str) -> Answer:
    return live.ask("/t/metered", bearer_token=token(caller, "free"))


def used_by(live: Gateway, caller: str) -> int:
    used: int = the_rule(live.operate("GET", caller, "limits"))["used"]
    return used


@pytest.mark.parametrize(
    ("told", "costs"), [("12", 13), ("0", 1), ("a lot", 1), ("-3", 1), ("1.5", 2), (None, 1), ("5000", 100)]
)
def test_the_answer_tells_the_cost(live: Gateway, told: str | None, costs: int) -> None:
    """The header's number, cut to a whole one, is charged beside the cost, at most to empty; nothing else is."""
    upstream, caller = live.demo("sync"), unique()
    upstream.misbehave(headers=[["x-cost", told]] if told else [])
    try:
        assert metered(live, caller).status == 200
    finally:
        upstream.behave()

    assert eventually(lambda: used_by(live, caller) == costs), used_by(live, caller)
    if costs == 100:
        assert metered(live, caller).status == 429


def test_an_override_holds_without_the_control_plane(start: Any) -> None:
    """Other numbers hold at once, on every replica, with the control plane gone; they end at their time."""
    gateway: Gateway = start("--ratelimit", "2", document=the_document())
    caller = unique()
    who = bearer(token(caller, "free"))
    assert spend(gateway, 10, who) == 10

    wish = {"rps": 1000, "rpm": 30, "burst": 1000, "expires_in_seconds": 8, "reason": "a crawler"}
    told = gateway.operate("PUT", caller, "override", wish)
    gateway.kill("controlplane")

    assert (the_rule(told)["override"]["reason"], the_rule(told)["remaining"]) == ("a crawler", 20)
    assert spend(gateway, 40, who) == 20
    assert gateway.ask(PATH, bearer_token=token(caller, "free")).value("x-ratelimit-limit") == "30"
    assert eventually(lambda: spend(gateway, 1, who) == 1, seconds=10, every=0.2), "it did not end"
    assert spend(gateway, 100, who) == 69
