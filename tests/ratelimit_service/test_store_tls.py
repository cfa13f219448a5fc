"""TLS, logins and IPv6 on the way to the store, with real servers and certificates of our own authority."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratelimit_service.counters.cluster import ClusterCounters, open_counters
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.redis import RedisCounters
from service_kit.store_url import read_store_url
from tests.ratelimit_service.conftest import StartServer
from tests.ratelimit_service.test_topologies import a_charge
from tests.support.authority import Authority, an_authority
from tests.support.tls_relay import TlsRelay, tls_relay
from tests.support.valkey import ValkeyProcess

HUSH = "hush-%2F%40-hush"
"""As it stands in a URL."""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return an_authority()


@pytest.fixture
def ca_file(authority: Authority, tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.certificate)
    return file


@pytest.fixture
def relay(valkey: ValkeyProcess, authority: Authority) -> Iterator[TlsRelay]:
    with tls_relay(str(valkey.socket), authority.server_context("127.0.0.1")) as relay:
        yield relay


@contextlib.asynccontextmanager
async def opened(url: str, recorder: Any) -> AsyncIterator[RedisCounters | ClusterCounters]:
    counters = open_counters(read_store_url(url), recorder, MemoryCounters(), 0.5)
    running = asyncio.create_task(counters.run())
    try:
        yield counters
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def used(counters: RedisCounters | ClusterCounters, number: int = 0) -> int:
    reply = await counters.decide([a_charge(number)])
    return reply.readings[0].used


async def test_rediss(relay: TlsRelay, ca_file: Path, recorder: Any, until: Any) -> None:
    """Decisions over TLS, verified by an authority of one's own."""
    async with opened(f"rediss://127.0.0.1:{relay.port}?ssl_ca_certs={ca_file}", recorder) as counters:
        await until(lambda: counters.is_up)
        counts = [await used(counters) for _ in range(3)]
        many = await asyncio.gather(*(used(counters, number) for number in range(200)))

    assert counts == [0, 1, 2]
    assert len(many) == 200
    assert relay.encrypted == 1


@pytest.mark.parametrize("options", ["", "?ssl_check_hostname=false"])
async def test_unknown_authority(relay: TlsRelay, recorder: Any, until: Any, options: str) -> None:
    """A server that nobody vouches for is not the store."""
    async with opened(f"rediss://u:{HUSH}@127.0.0.1:{relay.port}{options}", recorder) as counters:
        await until(lambda: recorder.states)

        assert not counters.is_up
    assert "certificate verify failed" in recorder.states[0]
    assert "hush" not in " ".join(recorder.states)


async def test_another_name(
    valkey: ValkeyProcess, authority: Authority, ca_file: Path, recorder: Any, until: Any
) -> None:
    """A certificate for another address is refused, unless names are not to be looked at."""
    with tls_relay(str(valkey.socket), authority.server_context("127.0.0.9")) as relay:
        url = f"rediss://127.0.0.1:{relay.port}?ssl_ca_certs={ca_file}"
        async with opened(url, recorder) as counters:
            await until(lambda: recorder.states)
            assert not counters.is_up
        async with opened(f"{url}&ssl_check_hostname=false", recorder) as counters:
            await until(lambda: counters.is_up)
    assert "certificate verify failed" in recorder.states[0]


async def test_client_certificate(
    valkey: ValkeyProcess, authority: Authority, ca_file: Path, recorder: Any, until: Any
) -> None:
    """A server that asks for a certificate gets ours; without one it does not serve."""
    context = authority.server_context("127.0.0.1")
    context.load_verify_locations(cafile=str(ca_file))
    context.verify_mode = ssl.CERT_REQUIRED
    certificate, key = (ca_file.with_name(name) for name in ("client.pem", "client.key"))
    for file, content in zip((certificate, key), authority.certify("127.0.0.7"), strict=True):
        file.write_bytes(content)
    with tls_relay(str(valkey.socket), context) as relay:
        url = f"rediss://127.0.0.1:{relay.port}?ssl_ca_certs={ca_file}"
        async with opened(url, recorder) as counters:
            await until(lambda: recorder.states)
            assert not counters.is_up
        async with opened(f"{url}&ssl_certfile={certificate}&ssl_keyfile={key}", recorder) as counters:
            await until(lambda: counters.is_up)


async def test_login(start_server: StartServer, free_port: Any, recorder: Any, until: Any) -> None:
    """A user and a password with characters of URLs open the store, and another password is not repeated."""
    port = free_port()
    start_server(port, "--user", "limits", "on", ">hush-/@-hush", "~*", "&*", "+@all")
    async with opened(f"redis://limits:{HUSH}@127.0.0.1:{port}/1", recorder) as counters:
        await until(lambda: counters.is_up)
        assert await used(counters) == 0
    async with opened(f"redis://limits:{HUSH}-other@127.0.0.1:{port}", recorder) as counters:
        await until(lambda: len(recorder.states) > 1)
        assert not counters.is_up
    assert "hush" not in " ".join(recorder.states)


async def test_ipv6(start_server: StartServer, free_port: Any, recorder: Any, until: Any) -> None:
    """An IPv6 address in brackets, of a server and of a cluster whose nodes tell such addresses."""
    port, bus = free_port(), free_port()
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-announce-ip", "::1")
    _, client = start_server(port, "--bind", "127.0.0.1", "::1", *options)
    command: Any = client.execute_command
    command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    for number, scheme in enumerate(("redis", "redis+cluster")):
        async with opened(f"{scheme}://[::1]:{port}", recorder) as counters:
            await until(lambda: counters.is_up, 10)
            assert await used(counters) == number


async def test_sentinel_with_its_own_login_and_tls(
    start_server: StartServer, free_port: Any, authority: Authority, ca_file: Path, recorder: Any, until: Any
) -> None:
    """Sentinels and servers have logins of their own, TLS for both or for one; dead seeds are passed over."""
    port, sentinel_port = free_port(), free_port()
    start_server(port, "--requirepass", "servers", password="servers")
    context = authority.server_context("127.0.0.1")
    with (
        tls_relay(port, context) as server,
        tls_relay(sentinel_port, context) as sentinel,
        tls_relay(sentinel_port, authority.server_context("::1"), host="::1") as sentinel_by_ipv6,
    ):
        configuration = ca_file.with_name("sentinel.conf")
        configuration.write_text(
            f"sentinel monitor mymaster 127.0.0.1 {server.port} 1\n"
            "sentinel auth-pass mymaster servers\n"
            "requirepass sentinels\n"
        )
        start_server(sentinel_port, str(configuration), "--sentinel", password="sentinels")
        seeds = f"127.0.0.1:1,[::1]:1,127.0.0.1:{sentinel.port}"
        options = f"ssl_ca_certs={ca_file}&sentinel_password=sentinels"
        server.encrypted = 0
        async with opened(f"rediss+sentinel://:servers@{seeds}/mymaster?{options}", recorder) as counters:
            await until(lambda: counters.is_up, 10)
            assert await used(counters) == 0
        by_tls = server.encrypted, sentinel.encrypted
        assert min(by_tls) > 0

        by_ipv6 = f"127.0.0.1:1,[::1]:{sentinel_by_ipv6.port}"
        url = f"redis+sentinel://:servers@{by_ipv6}/mymaster?sentinel_tls=true&{options}"
        async with opened(url, recorder) as counters:
            await until(lambda: counters.is_up, 10)
            assert await used(counters) == 1
        assert (server.encrypted, sentinel_by_ipv6.encrypted > 0) == (by_tls[0], True)

        recorder.states.clear()
        wrong = options.replace("sentinels", "hush")
        async with opened(f"rediss+sentinel://:servers@{seeds}/mymaster?{wrong}", recorder) as counters:
            await until(lambda: any("AuthenticationError" in state for state in recorder.states), 10)
            assert not counters.is_up
    assert "hush" not in " ".join(recorder.states)
    assert "[::1]:1: ConnectionError" in recorder.states[0]


async def test_cluster_with_tls(
    start_server: StartServer, free_port: Any, authority: Authority, ca_file: Path, recorder: Any, until: Any
) -> None:
    """Every node of a cluster is reached by TLS, with the login, from seeds of which some are dead."""
    ports, bus_ports = [free_port() for _ in range(2)], [free_port() for _ in range(2)]
    context = authority.server_context("127.0.0.1")
    with contextlib.ExitStack() as stack:
        relays = [stack.enter_context(tls_relay(port, context)) for port in ports]
        clients = [
            start_server(port, "--cluster-enabled", "yes", "--cluster-port", str(bus), *_announcing(relay.port, bus))[1]
            for port, bus, relay in zip(ports, bus_ports, relays, strict=True)
        ]
        for index, client in enumerate(clients):
            command: Any = client.execute_command
            command("CLUSTER", "ADDSLOTSRANGE", index * 8192, index * 8192 + 8191)
            command("CLUSTER", "MEET", "127.0.0.1", ports[0], bus_ports[0])
        await until(lambda: all(_knows_all(client) for client in clients), 15)
        for client in clients:
            client.config_set("requirepass", "hush-/@-hush")
            client.connection_pool.disconnect()
        for relay in relays:
            relay.encrypted = 0
        seeds = f"127.0.0.1:1,[::1]:1,127.0.0.1:{relays[1].port}"
        async with opened(f"rediss+cluster://:{HUSH}@{seeds}?ssl_ca_certs={ca_file}", recorder) as counters:
            await until(lambda: counters.is_up, 10)
            await asyncio.gather(*(used(counters, number) for number in range(40)))
            counts = await asyncio.gather(*(used(counters, number) for number in range(40)))

        assert counts == [1] * 40
        assert all(relay.encrypted for relay in relays)
    assert "hush" not in " ".join(recorder.states)


def _announcing(port: int, bus: int) -> tuple[str, ...]:
    places = {"ip": "127.0.0.1", "port": str(port), "bus-port": str(bus)}
    return tuple(word for name, value in places.items() for word in (f"--cluster-announce-{name}", value))


def _knows_all(client: Any) -> bool:
    state = client.execute_command("CLUSTER", "INFO")
    return (
        "cluster_state:ok" in repr(state).replace("'", "").replace(": ", ":")
        and len(client.execute_command("CLUSTER", "SLOTS")) == 2
    )
