"""Contract 6: request and correlation ids, the flag of AI agents, and headers that tell browsers to be careful."""

from __future__ import annotations

import re

import pytest

from tests.support.gateway import Echo, Gateway, token, unique
from tests.support.waiting import eventually

PATH = "/api/v1/genres"
VALID = ["a", "A-b_c.9", "0", "x" * 128, "a.b.c", "0b9ac7d4-3b0e-4c6f-9a53-6f1d1e0f7c11", "-", "..."]
INVALID = ["", "x" * 129, "a b", "a,b", "a/b", "a:b", 'a"b', "é", "a;b", "<script>", "a\tb", "{}", "a%20b", "x" * 4000]


def is_uuid4(text: str | None) -> bool:
    return bool(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", text or ""))


@pytest.mark.parametrize("path", [PATH, "/nowhere", "/t/required", "/health/live", "/health"])
@pytest.mark.parametrize("given", VALID)
def test_a_valid_request_id_is_kept(gateway: Gateway, given: str, path: str) -> None:
    """Up to 128 letters, digits, dots, underscores and hyphens are the client's to choose, on answers of every kind."""
    answer = gateway.ask(path, headers=[("X-Request-ID", given)], bearer_token=token(tier="pro"))

    assert (answer.value("x-request-id"), answer.value("x-correlation-id")) == (given, given)
    if path == PATH:
        echo = Echo.of(answer)
        assert (echo.values("x-request-id"), echo.values("x-correlation-id")) == ([given], [given])


@pytest.mark.parametrize("path", [PATH, "/nowhere"])
@pytest.mark.parametrize("given", INVALID)
def test_an_invalid_request_id_is_replaced(gateway: Gateway, given: str, path: str) -> None:
    """Anything else makes way for a new UUIDv4, which the service and the client both get."""
    answer = gateway.ask(path, headers=[("X-Request-ID", given)], bearer_token=token(tier="pro"))

    new = answer.value("x-request-id")
    assert is_uuid4(new)
    assert answer.value("x-correlation-id") == new
    if path == PATH:
        echo = Echo.of(answer)
        assert (echo.values("x-request-id"), echo.values("x-correlation-id")) == ([new], [new])


def test_two_request_ids_are_none(gateway: Gateway) -> None:
    """A request with two ids gets one that is neither."""
    answer = gateway.ask(PATH, headers=[("X-Request-ID", "a"), ("X-Request-ID", "b")], bearer_token=token(tier="pro"))

    assert is_uuid4(answer.value("x-request-id"))


def test_new_ids_differ(gateway: Gateway) -> None:
    """Each request without an id gets one of its own."""
    ids = {gateway.ask(PATH, bearer_token=token(tier="pro")).value("x-request-id") for _ in range(10)}

    assert len(ids) == 10
    assert all(is_uuid4(each) for each in ids)


@pytest.mark.parametrize("given", VALID)
def test_a_valid_correlation_id_is_kept(gateway: Gateway, given: str) -> None:
    """The correlation id is the client's under the same rule, beside a request id of its own."""
    answer = gateway.ask(PATH, headers=[("X-Correlation-ID", given)], bearer_token=token(tier="pro"))

    assert answer.value("x-correlation-id") == given
    assert is_uuid4(answer.value("x-request-id"))
    assert Echo.of(answer).values("x-correlation-id") == [given]


@pytest.mark.parametrize("given", INVALID)
def test_an_invalid_correlation_id_becomes_the_request_id(gateway: Gateway, given: str) -> None:
    """Otherwise it is the request id."""
    headers = [("X-Correlation-ID", given), ("X-Request-ID", "mine")]

    answer = gateway.ask(PATH, headers=headers, bearer_token=token(tier="pro"))

    assert (answer.value("x-request-id"), answer.value("x-correlation-id")) == ("mine", "mine")


def test_a_services_ids_do_not_replace_ours(gateway: Gateway) -> None:
    """Each id comes once, and it is the request's, whatever the service answers with."""
    marks = [("X-Demo-Set-Header", "X-Request-ID: other"), ("X-Demo-Set-Header", "X-Correlation-ID: other")]

    answer = gateway.ask(PATH, headers=[("X-Request-ID", "mine"), *marks], bearer_token=token(tier="pro"))

    assert (answer.values("x-request-id"), answer.values("x-correlation-id")) == (["mine"], ["mine"])


def agents(gateway: Gateway) -> float:
    """How many requests of AI agents Envoy has counted."""
    found = re.findall(
        r"^envoy_vhost_vcluster_upstream_rq_total\{[^}]*ai_agent[^}]*\} (\d+)", gateway.metrics("envoy"), re.M
    )
    return sum(map(float, found))


@pytest.mark.parametrize("name", ["X-AI-Agent", "AI-Agent-ID", "x-ai-agent"])
def test_an_ai_agent_is_flagged(gateway: Gateway, name: str) -> None:
    """Its header is forwarded, and the request is flagged in the log and counted in a metric."""
    mine = unique("agent")
    before = agents(gateway)

    answer = gateway.ask(PATH, headers=[(name, "bot/1"), ("X-Request-ID", mine)], bearer_token=token(tier="pro"))

    assert Echo.of(answer).value(name) == "bot/1"
    assert gateway.log_line(mine)["ai_agent"] is True
    assert eventually(lambda: agents(gateway) == before + 1)


def test_nobody_else_is_flagged(gateway: Gateway) -> None:
    """A request without these headers has no flag that is true."""
    mine = unique("person")

    gateway.ask(PATH, headers=[("X-Request-ID", mine)], bearer_token=token(tier="pro"))

    assert gateway.log_line(mine).get("ai_agent", False) is False


CAREFUL = [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer")]


@pytest.mark.parametrize("path", [PATH, "/nowhere", "/t/required", "/health/live", "/api/v1/content/a%2fb"])
def test_security_headers_are_on_every_answer(gateway: Gateway, path: str) -> None:
    """They are on by default, on answers of services and of the gateway alike; HSTS is not, in plain text."""
    answer = gateway.ask(path, headers=[("X-Forwarded-For", "198.51.100.77")])

    assert [(name, answer.value(name)) for name, _ in CAREFUL] == CAREFUL
    assert answer.value("strict-transport-security") is None
