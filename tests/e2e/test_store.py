"""The store as REDIS_URL names it, seen through a whole gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.authority import an_authority
from tests.support.gateway import Gateway, token
from tests.support.tls_relay import TlsRelay, tls_relay
from tests.support.valkey import ValkeyProcess, running_valkey
from tests.support.waiting import eventually

PASSWORD, WRITTEN = "hush-/@-hush", "hush-%2F%40-hush"


@pytest.fixture(scope="module")
def store() -> Iterator[ValkeyProcess]:
    """A store that wants a password."""
    with running_valkey() as server:
        server.client().config_set("requirepass", PASSWORD)
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def relay(store: ValkeyProcess, folder: Path) -> Iterator[TlsRelay]:
    """The way to it, with a certificate of our own authority."""
    authority = an_authority()
    (folder / "ca.pem").write_bytes(authority.certificate)
    with tls_relay(str(store.socket), authority.server_context("127.0.0.1")) as relay:
        yield relay


@pytest.fixture(scope="module")
def gateway(relay: TlsRelay, folder: Path) -> Iterator[Gateway]:
    url = f"rediss://:{WRITTEN}@127.0.0.1:{relay.port}/2?ssl_ca_certs={folder / 'ca.pem'}"
    with Gateway(folder / "run", environment={"REDIS_URL": url}) as running:
        yield running


def test_a_store_over_tls(gateway: Gateway, relay: TlsRelay) -> None:
    """Limits are counted in a store that is reached by TLS, with a login."""
    caller = token(tier="pro")
    left = [
        int(gateway.ask("/api/v1/genres", bearer_token=caller).value("x-ratelimit-remaining") or -1) for _ in range(3)
    ]

    assert left == [999, 998, 997]
    assert relay.encrypted
    assert gateway.ask("/health").json()["dependencies"]["redis"] == "healthy"


def test_its_password_is_told_nowhere(gateway: Gateway) -> None:
    """Not in a log, and not by `mgw status`."""
    told = gateway.mgw("status", "--json").stdout
    logs = "".join(Path(part["log"]).read_text() for part in gateway.run["components"])

    assert "rediss://***@127.0.0.1" in told
    assert "rediss://***@127.0.0.1" in logs
    assert "hush" not in told + logs


def test_a_store_that_evicts(gateway: Gateway, store: ValkeyProcess) -> None:
    """When it connects, a replica sees that the store drops counters: health, log and metric say so."""
    assert gateway.ask("/health").json()["status"] == "healthy"
    client = store.client(password=PASSWORD)
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.client_kill_filter(_type="normal", skipme=True)  # so that it connects anew

    body = eventually(lambda: _health_if(gateway, "degraded"), 10, every=0.1)
    assert body is not None
    assert body["dependencies"]["redis"] == "degraded"
    assert "maxmemory-policy" in body["warnings"][0]
    assert "mgw_ratelimit_store_evicts 1.0" in gateway.metrics("ratelimit")
    assert "store.evicts" in Path(gateway.component("ratelimit")["log"]).read_text()
    assert gateway.ask("/health/ready").json()["ready"] is True


def _health_if(gateway: Gateway, status: str) -> dict[str, Any] | None:
    """The body once its store is back and the status is this one."""
    body: dict[str, Any] = gateway.ask("/health").json()
    return body if body["status"] == status and body["dependencies"]["redis"] != "unhealthy" else None


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hush@127.0.0.1:99999",
        "redis+sentinel://:hush@127.0.0.1",
        "rediss://hush#@h",
        "rediss://:hush@h?ssl_ca_certs=/nowhere.pem",
    ],
)
def test_a_store_that_cannot_be_is_one_line(tmp_path: Path, url: str) -> None:
    """`mgw up` starts nothing, and repeats nothing of it."""
    up = Gateway(tmp_path / "run", environment={"REDIS_URL": url}).up()

    assert up.returncode == 64
    assert up.stderr.startswith("mgw: REDIS_URL: ")
    assert up.stderr.count("\n") == 1
    assert "hush" not in up.stderr
