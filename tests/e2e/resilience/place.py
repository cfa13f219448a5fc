"""A gateway with services that fail, wait and get well as a test says."""

from __future__ import annotations

import socket
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from tests.support.gateway import Gateway, a_route, a_service, bearer, default_document, token
from tests.support.ports import closed_port
from tests.support.upstream import Upstream
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
