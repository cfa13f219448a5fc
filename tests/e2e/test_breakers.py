"""Contract 4: a service that fails is left alone for a while, at once, by itself, and only it."""

from __future__ import annotations

import time

import pytest

from tests.support.gateway import Gateway, bearer, token
from tests.support.waiting import during, eventually
from tests.support.wire import Answer

SLACK_SECONDS = 1.5


class Caller:
    """Somebody with a budget that no test uses up."""

    def __init__(self, gateway: Gateway, path: str) -> None:
        self.gateway = gateway
        self.path = path
        self.token = token(tier="enterprise")

    def ask(self, *headers: tuple[str, str]) -> Answer:
        return self.gateway.ask(self.path, headers=[*headers, bearer(self.token)])

    def fail(self, times: int, status: int = 500) -> list[int]:
        return [self.ask(("X-Demo-Status", str(status))).status for _ in range(times)]

    def is_refused(self) -> bool:
        """Whether the breaker opens now: Envoy's threads tell each other of it a moment after the last failure."""
        return bool(eventually(lambda: self.ask().code == "CIRCUIT_BREAKER_OPEN", 0.25, every=0.01))

    def heals(self, open_seconds: float) -> float:
        """How long it takes until the service is asked again; fails where that is too long."""
        began = time.monotonic()
        healed = eventually(lambda: self.ask().status == 200, open_seconds + SLACK_SECONDS)
        assert healed, f"still open after {open_seconds + SLACK_SECONDS} s"
        return time.monotonic() - began


DEFAULTS = [
    ("auth", "/api/v1/user/profile", 10, 2),
    ("sync", "/api/v1/user/history", 10, 2),
    ("sona", "/api/v1/recommendations", 10, 2),
    ("discovery", "/api/v1/genres", 20, 3),
]


@pytest.mark.parametrize(("service", "path", "failures", "open_seconds"), DEFAULTS)
def test_consecutive_failures_open_the_breaker(
    gateway: Gateway, service: str, path: str, failures: int, open_seconds: int
) -> None:
    """After N failures in a row nothing more reaches the service; others do not notice; it is asked again later."""
    caller = Caller(gateway, path)
    demo = gateway.demo(service)
    assert caller.ask().status == 200

    assert caller.fail(failures) == [500] * failures
    opened = time.monotonic()
    assert caller.is_refused()
    hits = demo.hits()
    refused = [caller.ask() for _ in range(20)]

    assert {(answer.status, answer.code) for answer in refused} == {(503, "CIRCUIT_BREAKER_OPEN")}
    assert demo.hits() == hits
    assert refused[0].json()["error"]["message"] == f"Circuit breaker open for service: {service}"
    assert {answer.value("retry-after") for answer in refused} <= {str(n) for n in range(1, open_seconds + 1)}
    assert sorted(answer.seconds for answer in refused)[-2] < 0.1
    others = [(name, other) for name, other, _, _ in DEFAULTS if name != service]
    assert {Caller(gateway, other).ask().status for _, other in others} == {200}
    caller.heals(open_seconds)
    assert time.monotonic() - opened >= open_seconds - 0.5


def test_one_failure_less_does_not_open_it(gateway: Gateway) -> None:
    """A success in between starts the count again, and N-1 failures in a row are not enough."""
    caller = Caller(gateway, "/t/frail")

    for _ in range(3):
        assert caller.fail(4) == [500] * 4
        assert caller.ask().status == 200


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 499])
def test_a_4xx_is_no_failure(gateway: Gateway, status: int) -> None:
    """However many of them come, the service is fine: the client is wrong."""
    caller = Caller(gateway, "/t/frail")

    assert caller.fail(12, status) == [status] * 12
    assert caller.ask().status == 200


FAILURES = {
    "500": [("X-Demo-Status", "500")],
    "502": [("X-Demo-Status", "502")],
    "503": [("X-Demo-Status", "503")],
    "504": [("X-Demo-Status", "504")],
    "close": [("X-Demo-Close", "1")],
    "reset": [("X-Demo-Reset", "1")],
}


@pytest.mark.parametrize("headers", FAILURES.values(), ids=FAILURES)
def test_what_counts_as_a_failure(gateway: Gateway, headers: list[tuple[str, str]]) -> None:
    """Any 5xx and any lost connection; the breaker closes again once the service is well."""
    caller = Caller(gateway, "/t/frail")

    for _ in range(5):
        assert caller.ask(*headers).code != "CIRCUIT_BREAKER_OPEN"

    assert caller.is_refused()
    caller.heals(1)


def test_time_outs_open_it_too(gateway: Gateway) -> None:
    """Requests that the service never answers count as failures."""
    caller = Caller(gateway, "/t/frail-hasty")

    assert [caller.ask(("X-Demo-Hang", "1")).code for _ in range(5)] == ["TIMEOUT"] * 5
    assert caller.is_refused()
    caller.heals(1)


def test_it_opens_again_while_the_service_is_ill(gateway: Gateway) -> None:
    """A failing service is asked little after each open time, not hammered, and is served once it is well.

    Once, where the machine is not busy; N failures in a row are what it comes to if nobody hears of the first in time.
    """
    caller = Caller(gateway, "/t/frail")
    gateway.demo("discovery").misbehave(status=500, path_prefix="/t/frail")
    try:
        assert eventually(lambda: caller.ask().code == "CIRCUIT_BREAKER_OPEN", every=0)
        hits = gateway.demo("discovery").hits()
        statuses = {caller.ask().status for _ in during(3.2)}
        tried = gateway.demo("discovery").hits() - hits
    finally:
        gateway.demo("discovery").behave()
    assert statuses <= {500, 503}
    assert 1 <= tried <= 3 * 5
    caller.heals(1)


def test_half_of_all_requests_failing_opens_it(gateway: Gateway) -> None:
    """Failures that are never N in a row open it by their rate, once there were N requests in the window."""
    caller = Caller(gateway, "/t/mixed")
    began = time.monotonic()
    statuses = []
    while time.monotonic() < began + 4 and 503 not in statuses:
        statuses += [caller.ask(("X-Demo-Status", "500")).status, caller.ask().status]

    assert 503 in statuses
    caller.heals(1)


def test_a_few_failures_among_many_do_not_open_it(gateway: Gateway) -> None:
    """Under the rate it stays closed, however many requests there are."""
    caller = Caller(gateway, "/t/mixed")
    statuses = []
    for number in range(100):
        statuses.append(caller.ask(("X-Demo-Status", "500" if number % 4 == 0 else "200")).status)

    assert set(statuses) == {200, 500}


def test_a_slow_answer_is_a_timeout(gateway: Gateway) -> None:
    """A route's own time limit holds: 504 TIMEOUT soon after it, and not before."""
    answer = gateway.ask("/t/hasty", headers=[("X-Demo-Delay", "5")], bearer_token=token(tier="pro"))

    assert (answer.status, answer.code) == (504, "TIMEOUT")
    # Envoy's timer counts whole milliseconds from when its loop last looked at the clock: a little before the request.
    assert 0.3 - 0.005 <= answer.seconds < 1.5


def test_a_dead_service_is_a_bad_gateway(gateway: Gateway) -> None:
    """Nobody listening is 502 PROXY_ERROR, at once."""
    answer = gateway.ask("/t/dead", bearer_token=token(tier="pro"))

    assert (answer.status, answer.code) == (502, "PROXY_ERROR")
    assert answer.seconds < 1


def test_nothing_is_sent_twice(gateway: Gateway) -> None:
    """A request that was lost on its way is not repeated behind the client's back."""
    before = gateway.demo("discovery").hits()

    answer = gateway.ask("/t/hasty", "POST", [("X-Demo-Close", "1")], b"pay", bearer_token=token(tier="pro"))

    assert answer.status == 502
    assert gateway.demo("discovery").hits() == before + 1
