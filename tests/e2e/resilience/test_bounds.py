"""Contract 4 and guarantee 17: time limits, pools, and how the gateway carries too much."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from contextlib import ExitStack

from tests.e2e.conftest import StartGateway
from tests.e2e.resilience.place import Place
from tests.support.gateway import Gateway, default_document, token, unique
from tests.support.waiting import eventually
from tests.support.wire import Connection

A_HUNDRED = range(100, 100 + (os.cpu_count() or 1))
"""A thread of Envoy that has no connection yet makes one, even where the others have all that there may be."""


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
