"""Contract 2, 3 and 7: what clients notice when a part of the gateway is gone, and that it is over when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.gateway import ORIGIN, Echo, Gateway, bearer, token
from tests.support.mgw import runs
from tests.support.waiting import eventually

PATH = "/api/v1/genres"
BACK_SECONDS = 3.0


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose parts may be killed, by tests that start them again."""
    with Gateway(tmp_path_factory.mktemp("parts") / "run") as running:
        yield running


def recovers(ask: Callable[[], bool], seconds: float = BACK_SECONDS) -> None:
    assert eventually(ask, seconds), f"not well {seconds} s after it is back"


class TestAuthz:
    """The authz service is gone."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def gone(cls, gateway: Gateway) -> Iterator[None]:
        assert gateway.ask("/api/v1/user/profile", bearer_token=token()).status == 200
        gateway.kill("authz")
        yield
        if not _alive(gateway, "authz"):
            gateway.revive("authz")

    @pytest.mark.parametrize("path", ["/api/v1/user/profile", PATH])
    @pytest.mark.parametrize("headers", [[], [bearer(token(tier="pro"))], [bearer("nonsense")]])
    def test_it_is_closed(self, gateway: Gateway, path: str, headers: list[tuple[str, str]]) -> None:
        """Required and optional routes answer 503 with Retry-After within 250 ms, and nothing reaches a service."""
        before = gateway.hits()

        answers = [
            gateway.ask(path, headers=[*headers, ("Origin", ORIGIN), ("X-Request-ID", "mine")]) for _ in range(3)
        ]

        answer = answers[0]
        # Without any credential there is nothing to ask.
        nobody = path != PATH and not headers
        assert (answer.status, answer.code) == ((401, "UNAUTHORIZED") if nobody else (503, "SERVICE_UNAVAILABLE"))
        assert nobody or int(answer.value("retry-after") or 0) >= 1
        assert (answer.value("x-request-id"), answer.value("access-control-allow-origin")) == ("mine", ORIGIN)
        assert min(answer.seconds for answer in answers) < 0.25  # a busy machine may delay one
        assert gateway.hits() == before

    def test_what_asks_nobody_goes_on(self, gateway: Gateway) -> None:
        """Life, health, unknown paths, other methods and preflights do not notice."""
        preflight = [("Origin", ORIGIN), ("Access-Control-Request-Method", "GET")]

        asked = [
            gateway.ask("/health/live").status,
            gateway.ask("/health").status,
            gateway.ask("/nowhere").status,
            gateway.ask(PATH, "DELETE").status,
            gateway.ask(PATH, "OPTIONS", preflight).status,
        ]

        assert asked == [200, 200, 404, 405, 200]

    def test_it_is_not_ready(self, gateway: Gateway) -> None:
        """Readiness is 503 with `ready: false`; health says which dependency it is."""
        answer = eventually(lambda: (got := gateway.ask("/health/ready")).status == 503 and got)

        assert answer
        assert answer.json()["ready"] is False
        assert answer.json()["dependencies"]["authz"] is False
        health = eventually(
            lambda: (body := gateway.ask("/health").json())["dependencies"]["authz"] == "unhealthy" and body
        )
        assert health["status"] == "degraded"

    def test_it_comes_back(self, gateway: Gateway) -> None:
        """Started again, callers are known again, soon, and it is ready."""
        gateway.revive("authz")

        recovers(lambda: gateway.ask("/api/v1/user/profile", bearer_token=token()).status == 200, 1)
        recovers(lambda: gateway.ask("/health/ready").status == 200)
        assert gateway.ask("/api/v1/user/profile").status == 401


class TestRatelimit:
    """The rate-limit service is gone."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def gone(cls, gateway: Gateway) -> Iterator[None]:
        gateway.kill("ratelimit")
        yield
        if not _alive(gateway, "ratelimit"):
            gateway.revive("ratelimit")

    def test_requests_are_served(self, gateway: Gateway) -> None:
        """Callers with a token get their answers, unlimited by name but known by name."""
        answers = [gateway.ask("/api/v1/user/profile", bearer_token=token(tier="pro")) for _ in range(10)]

        assert {answer.status for answer in answers} == {200}
        assert Echo.of(answers[0]).value("x-user-tier") == "pro"
        assert max(answer.seconds for answer in answers) < 1

    async def test_there_is_a_ceiling(self, gateway: Gateway) -> None:
        """Envoy's own limit stands in: very many requests at once are 200 or 429, never a 5xx."""
        statuses = await _many(gateway, 300, [])

        assert statuses <= {200, 429}
        assert 200 in statuses

    def test_ready_all_the_same(self, gateway: Gateway) -> None:
        """Readiness stays; health is degraded and says why."""
        body = eventually(
            lambda: (got := gateway.ask("/health").json())["dependencies"]["ratelimit"] == "unhealthy" and got
        )

        assert body["status"] == "degraded"
        assert gateway.ask("/health/ready").status == 200

    def test_it_comes_back(self, gateway: Gateway) -> None:
        """Started again, it limits again."""
        gateway.revive("ratelimit")
        caller = token(tier="pro")

        recovers(lambda: gateway.ask(PATH, bearer_token=caller).value("x-ratelimit-limit") == "1000")


class TestRedis:
    """The store is gone."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def gone(cls, gateway: Gateway) -> Iterator[None]:
        assert eventually(lambda: gateway.ask(PATH, bearer_token=token(tier="pro")).value("x-ratelimit-limit"))
        gateway.kill("redis")
        yield
        if not _alive(gateway, "redis"):
            gateway.revive("redis")

    async def test_each_caller_keeps_a_limit(self, gateway: Gateway) -> None:
        """The replica's own share holds: no 5xx, and no more than the tier's burst passes at once."""
        caller = bearer(token(tier="free"))
        began = time.monotonic()

        answers = await _answers(gateway, 60, [caller])

        statuses = [status for status, _ in answers]
        assert set(statuses) <= {200, 429}
        assert 15 <= statuses.count(200) <= 20 + 10 * (time.monotonic() - began) + 2
        assert all(limit for _, limit in answers)

    def test_answers_stay_quick(self, gateway: Gateway) -> None:
        """A dead store adds next to nothing to an answer."""
        seconds = sorted(gateway.ask(PATH, bearer_token=token(tier="enterprise")).seconds for _ in range(30))

        assert seconds[len(seconds) // 2] < 0.03
        assert seconds[-1] < 0.5

    def test_it_is_told(self, gateway: Gateway) -> None:
        """Health is degraded, still ready, and a metric counts decisions without the store."""
        body = eventually(
            lambda: (got := gateway.ask("/health").json())["dependencies"]["redis"] == "unhealthy" and got
        )

        assert body["status"] == "degraded"
        # A probe of authz, too, may be late on a busy machine: what is asked here is what the store's loss alone does.
        alone = {"redis": False, "authz": True, "ratelimit": True}
        ready = eventually(lambda: (got := gateway.ask("/health/ready")).json()["dependencies"] == alone and got)
        assert ready and ready.status == 200
        degraded = [line for line in gateway.metrics("ratelimit").splitlines() if "share" in line or "degraded" in line]
        assert any(line.rpartition(" ")[2] not in ("0", "0.0") for line in degraded if not line.startswith("#"))

    def test_it_comes_back(self, gateway: Gateway) -> None:
        """Started again, counting is exact again within two seconds."""
        gateway.revive("redis")

        def exact() -> bool:
            caller = token(tier="pro")
            return [gateway.ask(PATH, bearer_token=caller).value("x-ratelimit-remaining") for _ in range(2)] == [
                "999",
                "998",
            ]

        recovers(exact)
        recovers(lambda: gateway.ask("/health").json()["dependencies"]["redis"] == "healthy")


class TestControlPlane:
    """The control plane is gone."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def gone(cls, gateway: Gateway) -> Iterator[None]:
        gateway.kill("controlplane")
        yield
        if not _alive(gateway, "controlplane"):
            gateway.revive("controlplane")

    def test_traffic_goes_on(self, gateway: Gateway) -> None:
        """Requests are routed, authorised and limited as before."""
        answer = gateway.ask("/api/v1/user/profile", bearer_token=token(tier="pro"))

        assert (answer.status, answer.value("x-ratelimit-limit")) == (200, "1000")
        assert gateway.ask("/api/v1/user/profile").status == 401
        assert gateway.ask("/nowhere").status == 404

    def test_health_goes_on(self, gateway: Gateway) -> None:
        """It lives, it is ready, and health is JSON that says it is degraded."""
        live, ready, health = (gateway.ask(path) for path in ("/health/live", "/health/ready", "/health"))

        assert (live.status, live.json()) == (200, {"status": "alive"})
        assert (ready.status, ready.json()["ready"]) == (200, True)
        assert (health.status, health.json()["status"]) == (200, "degraded")
        assert {answer.value("content-type") for answer in (live, ready, health)} == {"application/json"}

    def test_parts_start_without_it(self, gateway: Gateway) -> None:
        """A service that is started again meanwhile works from what it knew last."""
        gateway.kill("authz")
        gateway.revive("authz")

        recovers(lambda: gateway.ask("/api/v1/user/profile", bearer_token=token()).status == 200)
        assert gateway.ask("/api/v1/user/profile").status == 401

    def test_it_comes_back(self, gateway: Gateway) -> None:
        """Started again, every node is back in step with it within seconds."""
        gateway.revive("controlplane")

        recovers(lambda: gateway.ask("/health").json()["status"] == "healthy", 5)
        assert eventually(lambda: {node["id"] for node in gateway.api("GET", "/v1/nodes").json()["nodes"]} >= NODES)


NODES = {"envoy-0", "authz-0", "ratelimit-0"}


async def _answers(gateway: Gateway, number: int, headers: list[tuple[str, str]]) -> list[tuple[int, str | None]]:
    async with gateway.client(headers=headers) as client:
        answers = await asyncio.gather(*(client.get(PATH) for _ in range(number)))
    return [(answer.status_code, answer.headers.get("x-ratelimit-limit")) for answer in answers]


async def _many(gateway: Gateway, number: int, headers: list[tuple[str, str]]) -> set[int]:
    return {status for status, _ in await _answers(gateway, number, headers)}


def _alive(gateway: Gateway, name: str) -> bool:
    return runs(gateway.component(name)["pid"])


class TestStalled:
    """A part is there and does not answer."""

    def test_authz(self, gateway: Gateway) -> None:
        """A hanging authz service is refused for like a dead one: 503 within 250 ms, nothing reaches a service."""
        assert eventually(lambda: gateway.ask(PATH, bearer_token=token()).status == 200)
        before = gateway.hits()
        with gateway.stalled("authz"):
            answers = [gateway.ask("/api/v1/user/profile", bearer_token=token()) for _ in range(5)]
            live = gateway.ask("/health/live")

        assert {(answer.status, answer.code) for answer in answers} == {(503, "SERVICE_UNAVAILABLE")}
        assert max(answer.seconds for answer in answers) < 0.28
        assert live.status == 200
        assert gateway.hits() == before
        recovers(lambda: gateway.ask("/api/v1/user/profile", bearer_token=token()).status == 200, 1)

    def test_ratelimit(self, gateway: Gateway) -> None:
        """A hanging rate-limit service holds nobody up for long."""
        with gateway.stalled("ratelimit"):
            answers = [gateway.ask(PATH, bearer_token=token(tier="pro")) for _ in range(5)]

        assert {answer.status for answer in answers} == {200}
        assert max(answer.seconds for answer in answers) < 0.5
        recovers(lambda: gateway.ask(PATH, bearer_token=token(tier="pro")).value("x-ratelimit-limit") == "1000")

    def test_redis(self, gateway: Gateway) -> None:
        """A hanging store is noticed, and then costs next to nothing; each caller keeps a limit."""
        with gateway.stalled("redis"):
            gateway.ask(PATH, bearer_token=token(tier="pro"))
            answers = [gateway.ask(PATH, bearer_token=token(tier="pro")) for _ in range(20)]

        assert {answer.status for answer in answers} == {200}
        assert sorted(answer.seconds for answer in answers)[10] < 0.03
        assert {answer.value("x-ratelimit-limit") for answer in answers} == {"1000"}
        recovers(lambda: gateway.ask("/health").json()["status"] == "healthy")
