"""Contract 3: how much each caller may ask, what the answers say about it, and what costs nothing."""

from __future__ import annotations

import asyncio
import time

import httpx2
import pytest

from tests.support.gateway import Gateway, bearer, client_address, token, unique
from tests.support.waiting import eventually
from tests.support.wire import Answer

PATH = "/api/v1/genres"
TIERS = [("anonymous", 5, 100, 10), ("free", 10, 200, 20), ("pro", 50, 1000, 100), ("enterprise", 200, 5000, 400)]


def caller(tier: str) -> list[tuple[str, str]]:
    """The headers of a caller whom no other test knows."""
    return [("X-Forwarded-For", client_address())] if tier == "anonymous" else [bearer(token(tier=tier))]


async def at_once(gateway: Gateway, number: int, headers: list[tuple[str, str]]) -> tuple[list[httpx2.Response], float]:
    """The answers to many requests sent side by side, and how long all of them took."""
    async with gateway.client(headers=headers) as client:
        await client.get("/health/live")
        began = time.monotonic()
        answers = await asyncio.gather(*(client.get(PATH) for _ in range(number)))
        return list(answers), time.monotonic() - began


@pytest.mark.parametrize(("tier", "rps", "rpm", "burst"), TIERS)
async def test_a_tiers_burst_is_exact(gateway: Gateway, tier: str, rps: int, rpm: int, burst: int) -> None:
    """`burst` requests pass at once, and beyond them no more than `rps` refilled meanwhile; the rest are 429."""
    answers, seconds = await at_once(gateway, burst + 5 + rps // 4, caller(tier))

    passed = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert burst <= len(passed) <= burst + rps * seconds + 1
    assert {answer.status_code for answer in refused} <= {429}
    assert {answer.headers["x-ratelimit-limit"] for answer in passed} == {str(rpm)}
    remaining = sorted(int(answer.headers["x-ratelimit-remaining"]) for answer in passed)
    assert remaining == list(range(rpm - len(passed), rpm)), "each request that passed was counted once"


def use_up(gateway: Gateway, headers: list[tuple[str, str]], path: str = PATH) -> Answer:
    """Ask until refused."""
    refused = eventually(lambda: (answer := gateway.ask(path, headers=headers)).status == 429 and answer, every=0)
    assert refused, "nothing was ever refused"
    answer: Answer = refused
    return answer


def test_a_refusal_says_when_to_come_back(gateway: Gateway) -> None:
    """A 429 has the documented body, Retry-After equal to it, and the numbers of the rule that refused."""
    before = int(time.time())

    answer = use_up(gateway, caller("free"))

    retry_after = answer.json()["error"]["retry_after"]
    assert answer.json() == {
        "error": {"code": "RATE_LIMITED", "message": "Too many requests", "retry_after": retry_after}
    }
    assert answer.value("content-type") == "application/json"
    assert (retry_after, answer.value("retry-after")) == (1, "1")
    assert (answer.value("x-ratelimit-limit"), answer.value("x-ratelimit-remaining")) == ("20", "0")
    assert before <= int(answer.value("x-ratelimit-reset") or 0) <= before + 10
    assert answer.value("ratelimit")
    assert answer.value("ratelimit-policy")


def test_waiting_as_told_is_enough(gateway: Gateway) -> None:
    """After Retry-After seconds the next request passes."""
    headers = caller("free")
    answer = use_up(gateway, headers)
    come_back = time.monotonic() + int(answer.value("retry-after") or 0)

    assert eventually(lambda: time.monotonic() >= come_back)

    assert gateway.ask(PATH, headers=headers).status == 200


def test_an_answer_that_passed_says_what_is_left(gateway: Gateway) -> None:
    """X-RateLimit-* describe the minute rule; Reset is in Unix seconds, at most a minute ahead."""
    headers = caller("pro")
    before = int(time.time())

    answers = [gateway.ask(PATH, headers=headers) for _ in range(3)]

    assert [answer.value("x-ratelimit-limit") for answer in answers] == ["1000"] * 3
    assert [answer.value("x-ratelimit-remaining") for answer in answers] == ["999", "998", "997"]
    assert all(before < int(answer.value("x-ratelimit-reset") or 0) <= before + 62 for answer in answers)
    assert all(answer.value("ratelimit") and answer.value("ratelimit-policy") for answer in answers)


def test_one_budget_over_all_routes(gateway: Gateway) -> None:
    """Every route and every service draw on the same budget of a caller."""
    headers = caller("pro")
    paths = [PATH, "/api/v1/content/1", "/api/v1/recommendations", "/api/v1/user/profile", "/api/v1/user/history"]

    left = [gateway.ask(path, headers=headers).value("x-ratelimit-remaining") for path in paths]

    assert left == ["999", "998", "997", "996", "995"]


def test_callers_do_not_share(gateway: Gateway) -> None:
    """One caller's spending does not touch another's, and a subject's tokens all draw on one budget."""
    ann, other_token_of_ann = token(sub="ann-of-limits", tier="pro"), token(sub="ann-of-limits", tier="pro", jti="2")

    first = gateway.ask(PATH, bearer_token=ann)
    second = gateway.ask(PATH, bearer_token=other_token_of_ann)
    of_bob = gateway.ask(PATH, headers=caller("pro"))

    spent = [1000 - int(answer.value("x-ratelimit-remaining") or 0) for answer in (first, second, of_bob)]
    assert (spent[1] - spent[0], spent[2]) == (1, 1)


def test_anonymous_callers_are_told_apart_by_address(gateway: Gateway) -> None:
    """Each address has a budget; behind one trusted hop only the address that the hop saw counts, none before it."""
    address = client_address()

    first = gateway.ask(PATH, headers=[("X-Forwarded-For", address)])
    forged = gateway.ask(PATH, headers=[("X-Forwarded-For", f"{client_address()}, {address}")])
    other = gateway.ask(PATH, headers=[("X-Forwarded-For", client_address())])

    assert [answer.value("x-ratelimit-remaining") for answer in (first, forged, other)] == ["99", "98", "99"]


def test_a_direct_client_cannot_choose_its_address(plain: Gateway) -> None:
    """Without trusted hops X-Forwarded-For says nothing about who calls."""
    left = [
        int(plain.ask(PATH, headers=[("X-Forwarded-For", client_address())]).value("x-ratelimit-remaining") or 0)
        for _ in range(2)
    ]

    assert left[1] == left[0] - 1


FREE_OF_CHARGE = [
    ("health", "GET", "/health", [], 200),
    ("live", "GET", "/health/live", [], 200),
    ("ready", "GET", "/health/ready", [], 200),
    ("unknown path", "GET", "/nowhere", [], 404),
    ("another method", "POST", PATH, [("Content-Length", "0")], 405),
    ("hidden path", "GET", "/api/v1/content/a%2fb", [], 400),
    ("too large", "POST", "/api/v1/search", [("Content-Length", "9999999")], 413),
    (
        "preflight",
        "OPTIONS",
        PATH,
        [("Origin", "https://app.example.com"), ("Access-Control-Request-Method", "GET")],
        200,
    ),
]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"), [row[1:] for row in FREE_OF_CHARGE], ids=[row[0] for row in FREE_OF_CHARGE]
)
def test_what_costs_nothing(
    gateway: Gateway, method: str, path: str, headers: list[tuple[str, str]], status: int
) -> None:
    """Health, preflight, 400, 404, 405 and 413 charge nobody, and say nothing of limits."""
    who = caller("pro")

    answers = [gateway.ask(path, method, [*headers, *who]) for _ in range(3)]

    assert {answer.status for answer in answers} == {status}
    assert {answer.value("x-ratelimit-limit") for answer in answers} == {None}
    assert gateway.ask(PATH, headers=who).value("x-ratelimit-remaining") == "999"


def test_a_401_costs_nothing(gateway: Gateway) -> None:
    """An anonymous caller's budget is untouched by what required a token."""
    who = caller("anonymous")

    assert {gateway.ask("/t/required", headers=who).status for _ in range(12)} == {401}
    assert gateway.ask(PATH, headers=who).value("x-ratelimit-remaining") == "99"


def test_a_refused_request_costs_nothing(gateway: Gateway) -> None:
    """429s do not push the moment of the next success away."""
    headers = caller("free")
    use_up(gateway, headers)
    for _ in range(10):
        gateway.ask(PATH, headers=headers)

    assert eventually(lambda: gateway.ask(PATH, headers=headers).status == 200, seconds=1.2)


def test_health_answers_whoever_is_over_the_limit(gateway: Gateway) -> None:
    """Nobody is ever refused a health path."""
    headers = caller("anonymous")
    use_up(gateway, headers)

    assert {gateway.ask("/health/live", headers=headers).status for _ in range(20)} == {200}


def test_an_upstreams_own_numbers_are_replaced(gateway: Gateway) -> None:
    """X-RateLimit-*, RateLimit and RateLimit-Policy are the gateway's, whatever the service says."""
    names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "RateLimit-Policy")
    marks = [("X-Demo-Set-Header", f"{name}: 424242") for name in names]

    answer = gateway.ask(PATH, headers=[*marks, *caller("pro")])

    assert [value for name in names for value in answer.values(name) if "424242" in value] == []
    assert answer.value("x-ratelimit-limit") == "1000"


def test_an_upstreams_numbers_do_not_pass_where_nobody_counts(gateway: Gateway) -> None:
    """Nor do they pass on an answer of a service's own error."""
    headers = [("X-Demo-Status", "500"), ("X-Demo-Set-Header", "X-RateLimit-Limit: 424242"), *caller("pro")]

    assert gateway.ask("/t/dear", headers=headers).value("x-ratelimit-limit") == "1000"


def test_a_route_can_cost_more(gateway: Gateway) -> None:
    """A cost of 5 takes five from the budget."""
    headers = caller("pro")

    left = [gateway.ask(path, headers=headers).value("x-ratelimit-remaining") for path in ("/t/dear", PATH)]

    assert left == ["995", "994"]


def test_a_route_can_have_a_limit_of_its_own(gateway: Gateway) -> None:
    """Its own budget is used up without touching the caller's other one."""
    headers = caller("pro")

    statuses = [gateway.ask("/t/scarce", headers=headers).status for _ in range(6)]

    assert statuses[:3] == [200] * 3
    assert 429 in statuses
    assert gateway.ask(PATH, headers=headers).value("x-ratelimit-remaining") == "999"


def test_a_429_reaches_no_upstream(gateway: Gateway) -> None:
    """A refused request is refused before its service."""
    headers = caller("pro")
    before = gateway.hits()["discovery"]

    statuses = [gateway.ask("/t/scarce", headers=headers).status for _ in range(8)]

    assert 429 in statuses
    assert gateway.hits()["discovery"] - before == statuses.count(200)


def spend_all(gateway: Gateway, who: tuple[str, str]) -> Answer:
    """The first refusal."""
    for _ in range(100):
        answer = gateway.ask(PATH, headers=[who])
        if answer.status == 429:
            return answer
    raise AssertionError("a hundred requests passed")


def refusals(gateway: Gateway) -> float:
    """How many requests the service has refused."""
    told = gateway.metrics("ratelimit").splitlines()
    return sum(float(line.split()[-1]) for line in told if line.startswith("mgw_ratelimit_refusals_total{"))


async def test_a_storm_of_refusals_is_answered_by_envoy(gateway: Gateway) -> None:
    """Once refused, a caller is told so without asking until it would pass; every answer looks as the first one did."""
    who = bearer(token(tier="free"))
    await at_once(gateway, 25, [who])
    before = refusals(gateway)

    answers, seconds = await at_once(gateway, 400, [who])

    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) >= 400 - 10 * (seconds + 1) - 1
    assert refusals(gateway) - before < len(refused) / 2
    for answer in refused:
        body = answer.json()["error"]
        assert body == {"code": "RATE_LIMITED", "message": "Too many requests", "retry_after": 1}
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/json"
        assert (answer.headers["x-ratelimit-limit"], answer.headers["x-ratelimit-remaining"]) == ("20", "0")
        assert answer.headers["ratelimit"] == '"burst";r=0;t=1'
        assert int(answer.headers["x-ratelimit-reset"]) - time.time() < 2
        assert answer.headers["ratelimit-policy"].startswith('"burst";q=20;w=2')
        assert answer.headers["x-request-id"]


def test_a_repeated_refusal_is_logged_as_the_first(gateway: Gateway) -> None:
    """With the caller, the tier, the route and the rule."""
    who = token(caller := unique(), "free")
    spend_all(gateway, bearer(who))
    answers = [gateway.ask(PATH, headers=[bearer(who)]) for _ in range(5)]

    lines = [gateway.log_line(answer.value("x-request-id") or "") for answer in answers if answer.status == 429]
    assert lines
    for line in lines:
        assert (line["user_id"], line["tier"], line["level"]) == (caller, "free", "WARN")
        assert (line["error"], line["rule"], line["status"]) == ("RATE_LIMITED", "tier/burst", 429)
        assert (line["route"], line["service"]) == ("genres", "discovery")


def test_refused_no_longer_than_needed(gateway: Gateway) -> None:
    """The next token of ten a second passes when it is there: what Envoy keeps in mind ends in time."""
    who = bearer(token(tier="free"))
    spend_all(gateway, who)
    began = time.monotonic()
    passed = 0
    while time.monotonic() < began + 3:
        passed += gateway.ask(PATH, headers=[who]).status == 200

    assert 26 <= passed <= 31


def test_what_an_operator_gives_back_can_be_spent(gateway: Gateway) -> None:
    """A reset is in force when it is answered, although Envoy had just been told to refuse."""
    caller = unique()
    who = bearer(token(caller, "free"))
    spend_all(gateway, who)
    assert gateway.ask(PATH, headers=[who]).status == 429

    gateway.operate("POST", caller, "reset")

    assert {gateway.ask(PATH, headers=[who]).status for _ in range(15)} == {200}


@pytest.mark.parametrize("name", ["X-Mgw-Over-Limit", "x_mgw_over_limit"])
def test_a_client_cannot_say_that_it_is_over_limit(gateway: Gateway, name: str) -> None:
    """The header by which Envoy's parts tell each other is taken from clients."""
    assert gateway.ask(PATH, headers=[(name, "5"), bearer(token(tier="free"))]).status == 200
