"""Contract 8: the environment's names, honoured by a gateway that is started with nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Gateway, token
from tests.support.ports import free_port

SECRET = "a-second-secret-that-is-long-enough-too"
ORIGIN = "https://only.example.com"
PORT = free_port()
MOVED = {"discovery": "auth", "sona": "sync", "sync": "sona", "auth": "discovery"}
"""Which demo upstream each service's URL is pointed at."""


@pytest.fixture(scope="module")
def started(plain: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that uses another one's upstreams and store, as its environment says."""
    urls = {f"{service.upper()}_SERVICE_URL": plain.demo(other).url for service, other in MOVED.items()}
    environment = urls | {
        "API_GATEWAY_HOST": "127.0.0.1",
        "API_GATEWAY_PORT": str(PORT),
        "REDIS_URL": plain.run["redis_url"],
        "JWT_SECRET": SECRET,
        "ALLOWED_ORIGINS": ORIGIN,
        "LOG_LEVEL": "error",
    }
    with Gateway(tmp_path_factory.mktemp("environment") / "run", environment=environment, demo=False) as running:
        yield running


def test_host_and_port(started: Gateway) -> None:
    """It listens where API_GATEWAY_HOST and API_GATEWAY_PORT say."""
    assert started.run["gateway"] == f"http://127.0.0.1:{PORT}"
    assert started.component("envoy")["address"] == f"127.0.0.1:{PORT}"
    assert started.ask("/health/live").status == 200


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("discovery", "/api/v1/genres"),
        ("sona", "/api/v1/recommendations"),
        ("sync", "/api/v1/user/history"),
        ("auth", "/api/v1/user/profile"),
    ],
)
def test_each_services_url(started: Gateway, service: str, path: str) -> None:
    """Requests go where the service's own variable points."""
    answer = started.ask(path, bearer_token=token(secret=SECRET))

    assert (answer.status, answer.value("x-demo-service")) == (200, MOVED[service])


def test_the_secret(started: Gateway) -> None:
    """Tokens are good by JWT_SECRET and by no other."""
    assert started.ask("/api/v1/user/profile", bearer_token=token(secret=SECRET)).status == 200
    assert started.ask("/api/v1/user/profile", bearer_token=token()).code == "AUTH_FAILED"


def test_the_store(started: Gateway, plain: Gateway) -> None:
    """REDIS_URL's store is used: no other is started, and two gateways on one store share a caller's budget."""
    subject = "of-two-gateways"

    here = started.ask("/api/v1/genres", bearer_token=token(sub=subject, tier="pro", secret=SECRET))
    there = plain.ask("/api/v1/genres", bearer_token=token(sub=subject, tier="pro"))

    assert started.run["redis_url"] == plain.run["redis_url"]
    assert [part for part in started.run["components"] if part["name"] == "redis"] == []
    assert (here.value("x-ratelimit-remaining"), there.value("x-ratelimit-remaining")) == ("999", "998")


def test_the_origins(started: Gateway) -> None:
    """ALLOWED_ORIGINS alone may read."""
    allowed, other = (
        started.ask("/nowhere", headers=[("Origin", origin)]) for origin in (ORIGIN, "http://localhost:3000")
    )

    assert allowed.value("access-control-allow-origin") == ORIGIN
    assert other.value("access-control-allow-origin") is None


def test_the_log_level(started: Gateway) -> None:
    """At LOG_LEVEL=error the parts that are well say nothing."""
    said = [
        line
        for name in ("authz", "ratelimit", "controlplane")
        for line in Path(started.component(name)["log"]).read_text().splitlines()
    ]

    assert [line for line in said if re.search(r'"level": ?"(debug|info|warning)"', line)] == []


@pytest.mark.parametrize("secret", ["tiny-secret", "x" * 31])
def test_a_weak_secret_is_refused(tmp_path: Path, secret: str) -> None:
    """A secret under 32 bytes ends the start with status 1 and a line that says what to do."""
    gateway = Gateway(tmp_path / "run", environment={"JWT_SECRET": secret})
    try:
        up = gateway.up()
    finally:
        gateway.mgw("down")

    assert up.returncode == 1
    assert "JWT_SECRET" in up.stderr
    assert "32" in up.stderr
    assert secret not in up.stderr


def test_without_a_secret_one_is_made(start: StartGateway) -> None:
    """`mgw up` alone makes a random secret that only its owner may read, says so, and `mgw token` uses it."""
    gateway = start(environment={"JWT_SECRET": None})
    secret = gateway.directory / "jwt_secret"

    made = gateway.mgw("token", "--sub", "ann", "--tier", "pro").stdout.strip()

    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_text().strip()) >= 32
    assert gateway.ask("/api/v1/user/profile", bearer_token=made).status == 200
    assert gateway.ask("/api/v1/user/profile", bearer_token=token()).status == 401
    assert secret.read_text().strip() not in json.dumps(gateway.run)
