"""Contract 4 and guarantee 17: time limits, pools, endpoints, retries, and how the gateway carries too much."""

from __future__ import annotations

import copy
import os
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Gateway, a_route, a_service, bearer, default_document, token, unique
from tests.support.ports import closed_port
from tests.support.upstream import Upstream
from tests.support.waiting import eventually
from tests.support.wire import Answer, Connection

NEVER = {"failures": 10_000, "error_rate_percent": 100}
"""A breaker that stays out of the way."""
CHECK: dict[str, Any] = {"path": "/health", "steer": True, "interval_seconds": 0.1, "timeout_seconds": 0.2}
SLOW_START_SECONDS = 4
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Place:
    """A gateway with services of its own, and what stands behind them."""

    def __init__(
        self, gateway: Gateway, one: Upstream, other: Upstream, pooled: Upstream, document: dict[str, Any]
    ) -> None:
        self.gateway = gateway
        self.one = one
        self.other = other
        self.pooled = pooled
        self.document = document
        self.token = token(tier="enterprise")
        self.began = time.monotonic()

    def ask(self, route: str, query: str = "", method: str = "GET", body: bytes | None = None) -> Answer:
        """One request, of a caller who is somebody else each time."""
        headers = [bearer(token(tier="enterprise"))]
        return self.gateway.ask(f"/t/{route}?{query}", method, headers, body, timeout=15)

    def who(self, route: str, times: int) -> Counter[str]:
        """Who answers how often; a refusal counts under its code."""
        answers = [self.ask(route) for _ in range(times)]
        return Counter(answer.code or answer.body.decode() for answer in answers)

    def ejected(self, service: str) -> int:
        """How many endpoints Envoy leaves alone."""
        gauge = f"cluster.{service}.outlier_detection.ejections_active"
        said = self.gateway.read(f"{self.gateway.component('envoy')['admin']}/stats?filter={gauge}")
        return int(said.rpartition(":")[2])

    def at_once(self, route: str, queries: list[str]) -> list[Answer]:
        """Many requests side by side, each on a connection of its own."""
        headers = f"Host: gateway.test\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        with ExitStack() as connections:
            asked = [connections.enter_context(Connection(self.gateway.address, 15)) for _ in queries]
            for connection, query in zip(asked, queries, strict=True):
                connection.send(f"GET /t/{route}?{query} HTTP/1.1\r\n{headers}".encode())
            answers = [connection.receive() for connection in asked]
        assert None not in answers
        return [answer for answer in answers if answer is not None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One gateway for this file: tests leave its services as they found them, or use some of their own."""
    with ExitStack() as running:
        one, other, pooled = (running.enter_context(Upstream(name)) for name in ("one", "other", "pooled"))
        full = running.enter_context(FullBacklog())
        document = the_document(one.url, other.url, pooled.url, full.url)
        directory: Path = tmp_path_factory.mktemp("resilience") / "run"
        gateway = running.enter_context(Gateway(directory, document=document))
        yield Place(gateway, one, other, pooled, document)


def the_document(one: str, other: str, pooled: str, full: str) -> dict[str, Any]:
    document = default_document()
    both = [{"url": one}, {"url": other}]
    retries = {"attempts": 2}
    services = [
        a_service("plain", one, breaker=NEVER, timeout_seconds=0.4, health_check={"path": "/health"}),
        a_service("weighted", one, breaker=NEVER) | {"endpoints": [{"url": one, "weight": 3}, {"url": other}]},
        a_service("pair", one, breaker={"failures": 3, "open_seconds": 3600}) | {"endpoints": both},
        a_service("growing", one, breaker={"failures": 3, "open_seconds": 3600}, slow_start_seconds=SLOW_START_SECONDS)
        | {"endpoints": both},
        a_service("steered", one, breaker=NEVER, health_check=CHECK) | {"endpoints": both},
        a_service("steered-one", one, breaker=NEVER, health_check=CHECK),
        a_service("well-but-failing", one, breaker={"failures": 3, "open_seconds": 1.5}, health_check=CHECK),
        a_service(
            "let-back",
            one,
            breaker={"failures": 3, "open_seconds": 60},
            health_check=CHECK | {"closes_breaker": True},
        ),
        a_service("again", one, breaker=NEVER, retries=retries | {"per_try_timeout_seconds": 0.3}, timeout_seconds=3),
        a_service("elsewhere", one, breaker=NEVER, retries=retries | {"on": ["5xx"]}) | {"endpoints": both},
        a_service("half-dead", one, breaker=NEVER, retries={"attempts": 1, "on": ["connect-failure"]})
        | {"endpoints": [{"url": one}, {"url": f"http://127.0.0.1:{closed_port()}"}]},
        a_service("pooled", pooled, breaker=NEVER),
        a_service("idle", other, breaker=NEVER, pool={"idle_timeout_seconds": 1}),
        a_service("narrow", one, breaker={"failures": 3}, pool={"max_connections": 2, "max_pending_requests": 3}),
        a_service("full", full, breaker=NEVER, connect_timeout_seconds=0.3),
    ]
    document["services"] += services
    routes = [a_route(service["name"], service["name"]) for service in services]
    routes += [a_route("again-never", "again", retries={"attempts": 0})]
    routes += [a_route("plain-again", "plain", retries={"attempts": 1, "on": ["5xx"]}, timeout_seconds=2)]
    routes += [a_route("again-large", "again", max_request_bytes=3 << 20)]
    for route in routes:
        route["match"]["methods"] = METHODS
    document["routes"] += routes
    return document


class FullBacklog:
    """A port that takes no further connection and refuses none: a connection to it is never made."""

    def __enter__(self) -> FullBacklog:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._waiting = [socket.socket() for _ in range(4)]
        for client in self._waiting:
            client.setblocking(False)
            client.connect_ex(self._listener.getsockname())
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (*self._waiting, self._listener):
            sock.close()


# -- endpoints


def test_weights_are_respected(place: Place) -> None:
    """Of two endpoints, the one with three times the weight gets about three quarters."""
    found = place.who("weighted", 200)

    assert set(found) == {"one", "other"}
    assert 0.65 <= found["one"] / 200 <= 0.85


def test_one_sick_endpoint_is_left_alone_and_the_service_goes_on(place: Place) -> None:
    """An endpoint that fails is ejected by itself; the breaker of the service stays closed."""
    with place.one.failing():
        assert eventually(lambda: place.who("pair", 10) == {"other": 10})
        tried = len(place.one.seen)
        found = place.who("pair", 40)

    assert found == {"other": 40}
    assert len(place.one.seen) == tried
    assert place.gateway.ask("/health").json()["checks"]["pair"]["circuit_breaker"] == "closed"


def test_a_further_endpoint_starts_slowly_and_disturbs_nobody(place: Place) -> None:
    """It gets its share by and by; who was ejected stays so, because the others are the same as before."""
    document = copy.deepcopy(place.document)
    (growing,) = [service for service in document["services"] if service["name"] == "growing"]
    assert eventually(lambda: time.monotonic() >= place.began + SLOW_START_SECONDS, SLOW_START_SECONDS + 1), "still new"
    with Upstream("third") as third:
        growing["endpoints"] = [*growing["endpoints"], {"url": third.url}]
        with place.one.failing():
            assert eventually(lambda: place.who("growing", 10) == {"other": 10} and place.ejected("growing") == 1)
        assert place.gateway.put_config(document).status_code == 200
        assert eventually(lambda: third.seen or not place.who("growing", 1))
        early = place.who("growing", 50)
        late = eventually(lambda: (found := place.who("growing", 50))["third"] >= 20 and found, SLOW_START_SECONDS + 3)
        assert place.gateway.put_config(place.document).status_code == 200

    assert set(early) == {"other", "third"}
    assert early["third"] < 20
    assert late
    assert set(late) == {"other", "third"}


# -- health checks that steer


def test_a_service_is_not_asked_unless_it_is_to_steer(place: Place) -> None:
    """A health path alone is the control plane's: Envoy sends nothing of its own accord."""
    place.one.health_checks.clear()
    assert eventually(lambda: len(place.one.health_checks) >= 10)

    asked = {headers["host"] for headers in place.one.health_checks}
    steered = [service for service in place.document["services"] if (service["health_check"] or {}).get("steer")]
    rate = len(steered) / CHECK["interval_seconds"]  # checks a second, of all that have this endpoint
    place.one.health_checks.clear()
    began = time.monotonic()
    assert eventually(lambda: len(place.one.health_checks) >= rate)
    assert len(place.one.health_checks) <= rate * 1.3 * (time.monotonic() - began)
    assert asked == {place.one.url.removeprefix("http://")}


def test_an_ill_endpoint_is_passed_over_and_comes_back(place: Place) -> None:
    """No request goes to an endpoint whose check fails, before any request failed; well again, it has its share."""
    assert set(place.who("steered", 20)) == {"one", "other"}

    with place.one.ill():
        assert eventually(lambda: place.who("steered", 10) == {"other": 10})
        assert place.who("steered", 40) == {"other": 40}

    assert eventually(lambda: set(place.who("steered", 10)) == {"one", "other"})


def test_a_check_may_begin_to_steer_under_load(place: Place) -> None:
    """No request fails while a service is told to be asked, and told no longer."""
    document = copy.deepcopy(place.document)
    (weighted,) = [service for service in document["services"] if service["name"] == "weighted"]
    weighted["health_check"] = CHECK
    found: Counter[str] = Counter()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            found.update(place.who("weighted", 1))

    with ThreadPoolExecutor() as threads:
        asking = threads.submit(ask)
        try:
            changes = [place.gateway.put_config(changed).status_code for changed in (document, place.document)]
            began = sum(found.values())
            assert eventually(lambda: sum(found.values()) > began + 20)
        finally:
            done.set()
        asking.result()

    assert changes == [200, 200]
    assert set(found) == {"one", "other"}


def test_a_status_below_500_is_well(place: Place) -> None:
    """A service without such a path (404) is not ill: the same rule as for /health."""
    with place.one.ill(404):
        place.one.health_checks.clear()
        assert eventually(lambda: len(place.one.health_checks) >= 30)
        assert place.who("steered-one", 10) == {"one": 10}


def test_a_service_without_a_well_endpoint_is_refused(place: Place) -> None:
    """As with an open breaker: 503 at once, nothing reaches it, and it is back within moments of being well."""
    with place.one.ill():
        assert eventually(lambda: place.ask("steered-one").status == 503)
        tried = len(place.one.seen)
        refused = place.ask("steered-one")
        assert len(place.one.seen) == tried

    assert refused.code == "CIRCUIT_BREAKER_OPEN"
    assert refused.value("retry-after") == "2"
    assert eventually(lambda: place.ask("steered-one").status == 200, 2)


@pytest.mark.parametrize(("route", "least", "most"), [("well-but-failing", 1.0, 4.0), ("let-back", 0.0, 3.0)])
def test_a_good_check_does_not_close_a_breaker_unless_it_is_told_to(
    place: Place, route: str, least: float, most: float
) -> None:
    """The health path may be fine while the service fails: its open time (1.5 s, and 60 s) holds, or is cut short."""
    with place.one.failing():
        assert eventually(lambda: place.ask(route).code == "CIRCUIT_BREAKER_OPEN", every=0)
        opened = time.monotonic()

    assert eventually(lambda: place.ask(route).status == 200, most), f"still open after {most} s"
    assert least <= time.monotonic() - opened <= most


# -- retries


def test_nothing_is_repeated_unless_asked_for(place: Place) -> None:
    """By default, and on a route that says 0, a failure is passed on after one try."""
    for route in ("plain", "again-never"):
        key = unique()
        assert place.ask(route, f"key={key}&acts=503,200").status == 503
        assert len(place.one.tries(key)) == 1


def test_a_client_cannot_ask_for_it(place: Place) -> None:
    """Envoy's own request headers mean nothing from outside."""
    asked = [("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "3"), ("x-envoy-hedge-on-per-try-timeout", "true")]
    for route, method in (("plain", "GET"), ("again", "POST")):
        key = unique()
        place.gateway.ask(f"/t/{route}?key={key}&acts=503", method, [*asked, bearer(token(tier="enterprise"))])
        assert len(place.one.tries(key)) == 1


@pytest.mark.parametrize("act", ["503", "502", "close"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_idempotent_requests_are_sent_again_whole(place: Place, method: str, act: str) -> None:
    """A failed try is followed by another with the same body, and the client sees only the good answer."""
    key = unique()
    body = b"x" * 100_000 if method == "PUT" else None

    answer = place.gateway.ask(f"/t/again?key={key}&acts={act},200", method, [bearer(token(tier="enterprise"))], body)

    assert answer.status == 200
    assert [(seen.method, seen.body) for seen in place.one.tries(key)] == [(method, body or b"")] * 2


def test_a_large_body_is_sent_again_too(place: Place) -> None:
    """As large as the route takes: nothing of it is lost, the first time or the second."""
    key = unique()
    body = bytes(range(256)) * (8 << 10)

    assert place.ask("again-large", f"key={key}&acts=503,200", "PUT", body).status == 200
    assert [seen.body == body for seen in place.one.tries(key)] == [True, True]


@pytest.mark.parametrize(("act", "status"), [("503", 503), ("close", 502), ("hang", 504)])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_others_never_are(place: Place, method: str, act: str, status: int) -> None:
    """RFC 9110, section 9.2.2: a POST that failed may have been done."""
    key = unique()

    assert place.ask("again", f"key={key}&acts={act},200", method, b"pay").status == status
    assert len(place.one.tries(key)) == 1


@pytest.mark.parametrize(
    ("route", "acts", "status", "tries"),
    [
        ("again", "503", 503, 3),
        ("again", "500,200", 500, 1),
        ("again", "404,200", 404, 1),
        ("again", "hang,200", 200, 2),
        ("again", "part,200", 200, 1),
        ("plain-again", "500,200", 200, 2),
        ("plain-again", "500,500,200", 500, 2),
        ("half-dead", "503,200", 503, 1),
    ],
)
def test_what_is_repeated_how_often(place: Place, route: str, acts: str, status: int, tries: int) -> None:
    """So many attempts and no more, on the reasons given, each within its own time; never once an answer has begun."""
    key = unique()

    if acts.startswith("part"):
        with pytest.raises(AssertionError, match="middle of a body"):
            place.ask(route, f"key={key}&acts={acts}")
    else:
        assert place.ask(route, f"key={key}&acts={acts}").status == status
    assert len(place.one.tries(key)) == tries


def test_another_endpoint_is_tried(place: Place) -> None:
    """A repetition goes where the request was not yet; an endpoint that nobody listens at costs no client anything."""
    tried = len(place.one.seen)
    with place.one.failing():
        assert place.who("elsewhere", 30) == {"other": 30}
    assert len(place.one.seen) > tried
    assert place.who("half-dead", 30) == {"one": 30}


@pytest.mark.parametrize(("act", "code"), [("503", None), ("close", "PROXY_ERROR")])
def test_repetitions_have_a_budget(place: Place, act: str, code: str | None) -> None:
    """When everything fails, at most a fifth of it (and three) is sent again, and the failure stays what it is."""
    key = unique()

    answers = place.at_once("elsewhere", [f"key={key}&acts={act}&delay=0.5"] * 60)

    assert {answer.code for answer in answers} == {code}
    assert 60 < len(place.one.tries(key)) + len(place.other.tries(key)) <= 60 + 12 + 3


# -- time limits


def test_a_service_has_its_time(place: Place) -> None:
    """The service's limit holds on its routes, a route's own instead of it: 504 TIMEOUT, and not before."""
    answer = place.ask("plain", "delay=1")

    assert (answer.status, answer.code) == (504, "TIMEOUT")
    assert 0.35 <= answer.seconds < 1
    assert place.ask("plain-again", "delay=1").status == 200


def test_a_connection_that_is_not_made_in_time(place: Place) -> None:
    """502 PROXY_ERROR after the connect timeout, well before the request's own."""
    answer = place.ask("full")

    assert (answer.status, answer.code) == (502, "PROXY_ERROR")
    assert 0.25 <= answer.seconds < 2


# -- pools

A_HUNDRED = range(100, 100 + (os.cpu_count() or 1))
"""A thread of Envoy that has no connection yet makes one, even where the others have all that there may be."""


def test_a_host_has_at_most_a_hundred_connections(place: Place) -> None:
    """Of 150 requests at once 100 are under way and the others wait for their turn; all are answered."""
    answers = place.at_once("pooled", ["delay=0.5"] * 150)

    assert {answer.status for answer in answers} == {200}
    assert place.pooled.peak in A_HUNDRED


def test_idle_connections_are_closed(place: Place) -> None:
    """A connection that nobody needs is gone after its idle time; 90 s by default."""
    before = place.other.open
    assert place.ask("idle").status == 200
    assert place.other.open == before + 1

    assert eventually(lambda: place.other.open == before, 4)


def test_too_many_waiting_requests_are_refused_and_are_no_failure(place: Place) -> None:
    """Beyond the connections and the queue: 503 at once. The service did nothing wrong, and goes on being asked."""
    answers = place.at_once("narrow", ["delay=0.5"] * 30)

    counted = Counter(answer.code for answer in answers)
    assert set(counted) == {None, "CIRCUIT_BREAKER_OPEN"}
    assert 3 <= counted[None] <= 8  # 3 wait, until 2 connections are made; a thread of Envoy has at least one
    refused = [answer for answer in answers if answer.code]
    assert {(answer.status, answer.value("retry-after")) for answer in refused} == {(503, "2")}
    assert {place.ask("narrow").status for _ in range(5)} == {200}


# -- clients


def test_health_answers_while_the_gateway_is_flooded(place: Place) -> None:
    """Guarantee 17: with 400 requests that wait for a slow service, /health/live answers within 100 ms."""
    key = unique()
    with ExitStack() as flood:
        for _ in range(400):
            connection = flood.enter_context(Connection(place.gateway.address))
            start = f"GET /t/pooled?key={key}&delay=30 HTTP/1.1\r\nHost: gateway.test"
            connection.send(f"{start}\r\nAuthorization: Bearer {token(tier='enterprise')}\r\n\r\n".encode())
        answers = [place.gateway.ask("/health/live") for _ in range(100)]
        assert eventually(lambda: len(place.pooled.tries(key)) in A_HUNDRED)

    assert {answer.status for answer in answers} == {200}
    assert statistics.median(answer.seconds for answer in answers) < 0.1
    assert (
        max(answer.seconds for answer in answers) < 5
    )  # on a busy machine one may be late; none waits for the service


def test_clients_have_so_many_connections(start: StartGateway) -> None:
    """One more is closed at once; those that are there go on, health included; the number may change live."""
    document = default_document()
    document["listener"]["max_connections"] = 10
    gateway = start(document=document)

    with ExitStack() as clients:
        held = [clients.enter_context(Connection(gateway.address)) for _ in range(10)]
        assert {live(connection) for connection in held} == {200}
        with Connection(gateway.address) as extra:
            assert live(extra) is None
        assert {live(connection) for connection in held} == {200}
    assert eventually(lambda: admitted(gateway, 13) == 10)

    document["listener"]["max_connections"] = 12
    assert gateway.put_config(document).status_code == 200
    assert eventually(lambda: admitted(gateway, 13) == 12)


def admitted(gateway: Gateway, clients: int) -> int:
    """How many of so many clients at once are served."""
    with ExitStack() as stack:
        held = [stack.enter_context(Connection(gateway.address)) for _ in range(clients)]
        return [live(connection) for connection in held].count(200)


def live(connection: Connection) -> int | None:
    """The status of /health/live on this connection; None where it was closed."""
    connection.send(b"GET /health/live HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
    answer = connection.receive()
    return answer.status if answer else None
