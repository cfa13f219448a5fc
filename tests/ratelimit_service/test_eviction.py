"""A store that drops counters when its memory is full, with a real Valkey that does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ratelimit_service.counters.cluster import open_counters
from ratelimit_service.counters.connect import connector
from ratelimit_service.counters.eviction import Eviction, read_eviction, together
from ratelimit_service.counters.redis import RedisCounters
from service_kit.store_url import read_store_url
from tests.ratelimit_service.conftest import Recorder, StartServer
from tests.support.valkey import ValkeyProcess


@contextlib.asynccontextmanager
async def looking(server: ValkeyProcess, recorder: Recorder, look_seconds: float) -> AsyncIterator[RedisCounters]:
    connect = connector(read_store_url(server.url))
    counters = RedisCounters(connect, recorder, None, 1.0, look_seconds=look_seconds)
    running = asyncio.create_task(counters.run())
    try:
        yield counters
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("info", "before", "found"),
    [
        (b"maxmemory_policy:noeviction\r\nevicted_keys:7\r\n", None, Eviction("noeviction", 7, 0)),
        (b"# Memory\r\nmaxmemory_policy:volatile-lru\r\n\r\nevicted_keys:7", 5, Eviction("volatile-lru", 7, 2)),
        (b"maxmemory_policy:noeviction\r\nevicted_keys:1", 5, Eviction("noeviction", 1, 0)),  # it has started anew
        (b"maxmemory_policy:noeviction\r\n", None, None),
        (b"evicted_keys:1\r\n", None, None),
        (b"", None, None),
    ],
)
def test_what_is_read(info: bytes, before: int | None, found: Eviction | None) -> None:
    """The policy, and how many keys were evicted since the last look."""
    assert read_eviction(info, before) == found


@pytest.mark.parametrize(
    ("found", "drops"),
    [
        (Eviction("noeviction", 9), False),
        (Eviction("noeviction", 9, 1), True),
        (Eviction("allkeys-random", 0), True),
        (Eviction("volatile-ttl", 0), True),  # every counter expires
    ],
)
def test_which_drops_counters(found: Eviction, drops: bool) -> None:
    """Every policy but one, and any server that has just evicted something."""
    assert found.drops_counters is drops


def test_several_servers() -> None:
    """One bad policy is enough; keys add up; a server that does not say hides no other."""
    keeps, drops = Eviction("noeviction", 1), Eviction("allkeys-lfu", 2, 1)

    assert together([keeps, None, drops]) == Eviction("allkeys-lfu", 3, 1)
    assert together([keeps, None]) == keeps
    assert together([None]) is None


async def test_at_start_and_again(own_valkey: ValkeyProcess, recorder: Recorder, until: Any) -> None:
    """A store is asked when it is connected, and from then on again and again."""
    client = own_valkey.client()
    client.config_set("maxmemory-policy", "allkeys-lru")
    async with looking(own_valkey, recorder, 0.02):
        await until(lambda: recorder.evictions)
        assert recorder.evictions[0] == Eviction("allkeys-lru", 0)
        client.config_set("maxmemory-policy", "noeviction")
        await until(lambda: recorder.evictions[-1] == Eviction("noeviction", 0))


async def test_evicted_keys(own_valkey: ValkeyProcess, recorder: Recorder, until: Any) -> None:
    """What the store really evicts is seen, once."""
    client = own_valkey.client()
    async with looking(own_valkey, recorder, 0.02):
        await until(lambda: recorder.evictions)
        for number in range(200):
            client.set(f"k{number}", "x" * 10_000, px=60_000)
        client.config_set("maxmemory-policy", "volatile-random")
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 500_000)
        client.set("one-more", "x" * 10_000)
        client.config_set("maxmemory", 0)
        info: Any = client.info("stats")
        await until(lambda: (last := recorder.evictions[-1]) is not None and last.evicted_keys == info["evicted_keys"])
        evictions = [each for each in recorder.evictions if each is not None]

    assert info["evicted_keys"] > 10
    assert sum(each.newly_evicted for each in evictions) == info["evicted_keys"]


async def test_once_a_connection_by_default(own_valkey: ValkeyProcess, recorder: Recorder, until: Any) -> None:
    """A minute is long: what a test sees is one look for each connection."""
    async with looking(own_valkey, recorder, 60) as counters:
        await until(lambda: recorder.evictions)
        own_valkey.kill()
        await until(lambda: not counters.is_up)
        own_valkey.start()
        await until(lambda: len(recorder.evictions) == 2)


async def test_a_user_who_may_not_ask(own_valkey: ValkeyProcess, recorder: Recorder, until: Any) -> None:
    """Limits are counted all the same."""
    own_valkey.client().execute_command("ACL", "SETUSER", "default", "-info")  # type: ignore[no-untyped-call] # untyped
    async with looking(own_valkey, recorder, 0.02) as counters:
        await until(lambda: len(recorder.evictions) > 1)
        assert counters.is_up
    assert set(recorder.evictions) == {None}


async def test_a_cluster(start_server: StartServer, free_port: Any, recorder: Recorder, until: Any) -> None:
    """One node that evicts is enough, whichever of them speaks last."""
    ports, bus_ports = [free_port() for _ in range(2)], [free_port() for _ in range(2)]
    for index, (port, bus) in enumerate(zip(ports, bus_ports, strict=True)):
        options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--maxmemory-policy")
        _, client = start_server(port, *options, "noeviction" if index else "allkeys-lru")
        command: Any = client.execute_command
        command("CLUSTER", "ADDSLOTSRANGE", index * 8192, index * 8192 + 8191)
        command("CLUSTER", "MEET", "127.0.0.1", ports[0], bus_ports[0])
    counters = open_counters(read_store_url(f"redis+cluster://127.0.0.1:{ports[1]}"), recorder, None, 1.0)
    running = asyncio.create_task(counters.run())
    try:
        await until(lambda: len(recorder.evictions) >= 2, 20)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert recorder.evictions[-1] == Eviction("allkeys-lru", 0)
