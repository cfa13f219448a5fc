"""Contract 5: every answer that the gateway makes itself has one shape, the ids, CORS headers, and no secrets."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.gateway import ORIGIN, Gateway, bearer, client_address, token
from tests.support.waiting import eventually
from tests.support.wire import Answer

Make = Callable[[Gateway, list[tuple[str, str]]], Answer]
PRO = ("pro",)


def use_up(gateway: Gateway, headers: list[tuple[str, str]]) -> Answer:
    caller = [*headers, bearer(token(tier="free"))]
    answer = eventually(lambda: (got := gateway.ask("/t/scarce", headers=caller)).status == 429 and got, every=0)
    assert answer
    return answer


def break_frail(gateway: Gateway, headers: list[tuple[str, str]]) -> Answer:
    caller = bearer(token(tier="enterprise"))
    failing = [("X-Demo-Status", "500"), caller]
    assert eventually(lambda: gateway.ask("/t/frail", headers=failing).status == 503, every=0)
    answer = gateway.ask("/t/frail", headers=[*headers, caller])
    healed = eventually(lambda: gateway.ask("/t/frail", headers=[caller]).status == 200)
    assert healed
    return answer


def asks(target: str, method: str = "GET", *more: tuple[str, str], tier: str | None = None) -> Make:
    def make(gateway: Gateway, headers: list[tuple[str, str]]) -> Answer:
        caller = bearer(token(tier=tier)) if tier else ("X-Forwarded-For", client_address())
        return gateway.ask(target, method, [*headers, *more, caller])

    return make


ERRORS: list[tuple[int, str, Make]] = [
    (400, "BAD_REQUEST", asks("/api/v1/content/a%2fb")),
    (401, "UNAUTHORIZED", asks("/api/v1/user/profile")),
    (401, "AUTH_FAILED", asks("/api/v1/user/profile", "GET", bearer("nonsense"))),
    (403, "FORBIDDEN", asks("/t/pro-only", tier="free")),
    (404, "NOT_FOUND", asks("/nowhere")),
    (405, "METHOD_NOT_ALLOWED", asks("/api/v1/genres", "DELETE")),
    (413, "PAYLOAD_TOO_LARGE", asks("/api/v1/search", "POST", ("Content-Length", "99999999"))),
    (429, "RATE_LIMITED", use_up),
    (502, "PROXY_ERROR", asks("/t/dead")),
    (502, "PROXY_ERROR", asks("/t/hasty", "GET", ("X-Demo-Close", "1"))),
    (502, "PROXY_ERROR", asks("/t/hasty", "GET", ("X-Demo-Reset", "1"))),
    (503, "CIRCUIT_BREAKER_OPEN", break_frail),
    (504, "TIMEOUT", asks("/t/hasty", "GET", ("X-Demo-Hang", "1"))),
    (504, "TIMEOUT", asks("/t/hasty", "GET", ("X-Demo-Delay", "2"))),
]
IDS = [
    "path",
    "no-token",
    "bad-token",
    "tier",
    "404",
    "405",
    "413",
    "429",
    "dead",
    "close",
    "reset",
    "open",
    "hang",
    "slow",
]


@pytest.mark.parametrize(("status", "code", "make"), ERRORS, ids=IDS)
def test_the_shape_of_an_error(gateway: Gateway, status: int, code: str, make: Make) -> None:
    """`{"error":{"code","message"}}` as JSON, with both ids, CORS headers, and `retry_after` on 429 alone."""
    mine = f"shape-{code.lower()}"

    answer = make(gateway, [("X-Request-ID", mine), ("X-Correlation-ID", "chain.1"), ("Origin", ORIGIN)])

    assert (answer.status, answer.code) == (status, code)
    error = answer.json()["error"]
    assert list(answer.json()) == ["error"]
    assert set(error) == {"code", "message"} | ({"retry_after"} if status == 429 else set())
    assert error["message"]
    assert answer.value("content-type") == "application/json"
    assert (answer.value("x-request-id"), answer.value("x-correlation-id")) == (mine, "chain.1")
    assert answer.value("access-control-allow-origin") == ORIGIN
    assert "X-Request-ID" in (answer.value("access-control-expose-headers") or "")
    assert bool(answer.value("retry-after")) == (status in (429, 503))
    assert answer.value("x-content-type-options") == "nosniff"


@pytest.mark.parametrize(("status", "code", "make"), ERRORS, ids=IDS)
def test_an_error_tells_nothing_of_the_inside(gateway: Gateway, status: int, code: str, make: Make) -> None:
    """No host, port, URL, file or name of a part stands in a body or a header of an error."""
    answer = make(gateway, [])

    text = answer.body.decode() + "".join(f"{name}: {value}\n" for name, value in answer.headers)
    addresses = [component["address"] for component in gateway.run["components"]]
    ports = [address.rpartition(":")[2] for address in addresses]
    assert [port for port in ports if re.search(rf"\b{port}\b", text)] == []
    assert not re.search(r"127\.0\.0\.1|localhost|https?://|envoy|traceback|\.py\b|upstream|grpc", text, re.IGNORECASE)


def test_no_body_on_the_error_of_a_head(gateway: Gateway) -> None:
    """A refused HEAD has the error's headers alone."""
    answer = gateway.ask("/nowhere", "HEAD")

    assert (answer.status, answer.value("content-type"), answer.body) == (404, "application/json", b"")


def test_an_upstreams_own_error_passes_as_it_is(gateway: Gateway) -> None:
    """A service's 503 keeps its body, its type and its Retry-After, and is not marked as the gateway's."""
    marks = [("X-Demo-Set-Header", "Content-Type: text/plain"), ("X-Demo-Set-Header", "Retry-After: 77")]

    answer = gateway.ask("/t/dear", headers=[("X-Demo-Status", "503"), *marks], bearer_token=token(tier="pro"))

    assert (answer.status, answer.value("content-type"), answer.value("retry-after")) == (503, "text/plain", "77")
    assert answer.json()["service"] == "discovery"
    assert answer.value("x-gateway-error") is None


def test_a_services_claim_to_be_the_gateway_is_dropped(gateway: Gateway) -> None:
    """X-Gateway-Error is the gateway's word: a service's own is taken away."""
    answer = gateway.ask(
        "/t/dear",
        headers=[("X-Demo-Status", "500"), ("X-Demo-Set-Header", "X-Gateway-Error: NOT_FOUND")],
        bearer_token=token(tier="pro"),
    )

    assert (answer.status, answer.value("x-gateway-error")) == (500, None)
