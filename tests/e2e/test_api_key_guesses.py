"""Guessing API keys: bounded for each client's address, and nobody who has a key or a token notices."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.identity_cases import API_KEY, DEAR_KEY, JWT, MODES, claims, compact, document, scheme
from tests.support.gateway import Echo, Gateway, client_address, unique
from tests.support.waiting import eventually
from tests.support.wire import Answer

MOST = 60
"""What the shipped document allows."""


def wanted(mode: str, **auth: Any) -> dict[str, Any]:
    """The shipped bound, behind one trusted hop so that a test can be many clients."""
    made = document(mode)
    made["listener"]["trusted_hops"] = 1
    made["auth"] |= auth
    return made


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def gateway(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp(mode) / "guesses", document=wanted(mode)) as running:
        yield running


def send(gateway: Gateway, key: str, address: str, path: str = "/t/required", **more: str) -> Answer:
    headers = [("X-API-Key", key), ("X-Forwarded-For", address), *more.items()]
    return gateway.ask(path, headers=headers)


def guess(gateway: Gateway, address: str, times: int, path: str = "/t/required") -> Counter[int]:
    """So many wrong keys, each another one."""
    return Counter(send(gateway, unique("guess"), address, path).status for _ in range(times))


def assert_is_too_many(answer: Answer) -> None:
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["message"]) == (429, "RATE_LIMITED", "Too many requests")
    assert 1 <= error["retry_after"] <= 60
    assert answer.value("retry-after") == str(error["retry_after"])
    assert answer.value("content-type") == "application/json"
    assert answer.value("x-request-id")
    assert not [name for name, _ in answer.headers if re.match(r"(?i)(x-)?ratelimit", name)]


def test_two_hundred_guesses(gateway: Gateway) -> None:
    """As many as the bound allows are looked at; then every key that was not seen is 429, a right one too."""
    address, hits = client_address(), gateway.hits()

    assert guess(gateway, address, 200) == {401: MOST, 429: 200 - MOST}
    assert_is_too_many(send(gateway, unique("guess"), address))
    assert_is_too_many(send(gateway, DEAR_KEY, address))
    assert gateway.hits() == hits


def test_guesses_on_an_optional_route(gateway: Gateway) -> None:
    """There a wrong key is an anonymous caller, and would tell a right one as well: 429 after as many."""
    address = client_address()

    assert guess(gateway, address, MOST, "/t/optional") == {200: MOST}
    assert_is_too_many(send(gateway, unique("guess"), address, "/t/optional"))
    assert_is_too_many(send(gateway, unique("guess"), address, "/t/scoped"))
    assert gateway.ask("/t/optional", headers=[("X-Forwarded-For", address)]).status == 200


def test_a_key_that_was_good_goes_on(gateway: Gateway) -> None:
    """From the same address too: behind one address there are many callers."""
    address = client_address()
    assert send(gateway, API_KEY, client_address()).status == 200
    assert guess(gateway, address, MOST + 5) == {401: MOST, 429: 5}

    for path in ("/t/required", "/t/optional", "/t/keys-only"):
        assert Echo.of(send(gateway, API_KEY, address, path)).value("x-user-id") == "key:partner"


def test_tokens_do_not_notice(gateway: Gateway) -> None:
    """A bad token stays 401, however many there are, and a good one is believed where no key is looked at."""
    address = client_address()
    guess(gateway, address, MOST)
    forwarded = ("X-Forwarded-For", address)

    for _ in range(MOST + 5):
        answer = gateway.ask("/t/required", headers=[*scheme(unique("bad")), forwarded])
        assert (answer.status, answer.code) == (401, "AUTH_FAILED")
    good = scheme(compact(JWT, claims()))
    assert gateway.ask("/t/required", headers=[*good, forwarded]).status == 200
    assert gateway.ask("/t/required", headers=[*good, ("X-API-Key", "guess"), forwarded]).status == 200
    assert gateway.ask("/t/required", headers=[forwarded]).status == 401
    assert_is_too_many(send(gateway, unique("guess"), address))


@pytest.mark.parametrize(
    ("first", "same", "another"),
    [
        ("2001:db8:{n}:1::1", "2001:db8:{n}:1:ffff:eeee:dddd:cccc", "2001:db8:{n}:2::1"),
        ("198.18.{n}.1", "::ffff:198.18.{n}.1", "198.18.{n}.2"),
    ],
)
def test_whose_guesses_are_counted_together(gateway: Gateway, first: str, same: str, another: str) -> None:
    """An IPv6 /64 is one client, and so is an IPv4 address in both spellings."""
    number = str(int(unique().rsplit("-", 1)[1]) % 250)
    first, same, another = (address.replace("{n}", number) for address in (first, same, another))

    assert guess(gateway, first, MOST - 10) == {401: MOST - 10}
    assert guess(gateway, same, 15) == {401: 10, 429: 5}
    assert_is_too_many(send(gateway, unique("guess"), first))
    assert send(gateway, unique("guess"), another).status == 401


@pytest.mark.parametrize("name", ["X-Mgw-Address", "x_mgw_address", "X-Real-IP", "X-Envoy-External-Address"])
def test_a_client_cannot_say_where_it_is(gateway: Gateway, name: str) -> None:
    """Another address in a header of its own with every guess gives no more of them."""
    address = client_address()
    sent = [send(gateway, unique("guess"), address, **{name: client_address()}) for _ in range(MOST + 5)]

    assert Counter(answer.status for answer in sent) == {401: MOST, 429: 5}


def test_the_log_says_why(gateway: Gateway) -> None:
    """The line has the code, the reason and the address, and no key; a metric counts them."""
    address, mine, key = client_address(), unique("logged"), unique("guess")
    guess(gateway, address, MOST)

    assert_is_too_many(send(gateway, key, address, "/t/required?q=1", **{"X-Request-ID": mine}))
    line = gateway.log_line(mine)

    assert (line["status"], line["error"], line["reason"]) == (429, "RATE_LIMITED", "too_many_failures")
    assert (line["client"], line["user_id"], line["level"]) == (address, "anonymous", "WARN")
    assert key not in str(line)
    assert 'mgw_authz_decisions_total{outcome="deny",reason="too_many_failures"}' in gateway.metrics("authz")


def test_the_bound_changes_live(gateway: Gateway, mode: str) -> None:
    """Another number holds for the next guess, and what was wrong stays wrong."""
    address = client_address()
    assert guess(gateway, address, 5) == {401: 5}
    try:
        assert gateway.put_config(wanted(mode, max_failures_per_minute=3)).status_code == 200
        assert eventually(lambda: send(gateway, unique("guess"), address).status == 429)
        assert guess(gateway, client_address(), 10) == {401: 3, 429: 7}
    finally:
        assert gateway.put_config(wanted(mode)).status_code == 200
    assert eventually(lambda: send(gateway, unique("guess"), address).status == 401)


@pytest.mark.parametrize("most", [0, -1, 1001, 1.5, "none"])
def test_a_bound_that_is_none(gateway: Gateway, mode: str, most: object) -> None:
    """Refused when it is written."""
    answer = gateway.put_config(wanted(mode, max_failures_per_minute=most))

    assert answer.status_code == 422
    assert "auth.max_failures_per_minute" in answer.text
