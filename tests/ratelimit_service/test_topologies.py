"""Sentinel and Cluster, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis

from ratelimit_service.counters.cluster import open_counters
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.limits import Charge, Limit, Rule
from service_kit.store_url import read_store_url
from tests.ratelimit_service.conftest import StartServer


@contextlib.asynccontextmanager
async def counting(url: str, recorder: Any, until: Any) -> Any:
    counters = open_counters(read_store_url(url), recorder, MemoryCounters(), 0.1)
    running = asyncio.create_task(counters.run())
    try:
        await until(lambda: counters.is_up, 10)
        yield counters
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def a_charge(number: int = 0) -> Charge:
    return Charge(f"{number:022}", Rule("tier", Limit(1000, 5, 1000)), 1)


async def test_sentinel_failover(
    start_server: StartServer, free_port: Any, recorder: Any, until: Any, tmp_path: Path
) -> None:
    """A Sentinel failover costs at most five seconds, and what was spent stays spent."""
    port, replica_port, sentinel_port = free_port(), free_port(), free_port()
    master, client = start_server(port, "--save", "")
    start_server(replica_port, "--save", "", "--replicaof", f"127.0.0.1 {port}", "--repl-diskless-sync-delay", "0")
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"sentinel monitor mymaster 127.0.0.1 {port} 1\n"
        "sentinel down-after-milliseconds mymaster 300\n"
        "sentinel failover-timeout mymaster 1000\n"
    )
    _, sentinel = start_server(sentinel_port, str(configuration), "--sentinel")
    await until(lambda: _replicas(sentinel) == 1, 15)

    url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel_port}/mymaster"
    async with counting(url, recorder, until) as counters:
        for _ in range(3):
            await counters.decide([a_charge()])
        await until(lambda: client.wait(1, 100) == 1)
        master.kill()
        await until(lambda: not counters.is_up)
        assert await until(lambda: counters.is_up, 10) < 5
        assert (await counters.decide([a_charge()]))[1][0].used == 3


def _replicas(sentinel: redis.Redis) -> int:
    state: Any = sentinel.sentinel_master("mymaster")
    return int(state["num-slaves"])


@pytest.fixture
async def cluster(
    start_server: StartServer, free_port: Any, until: Any
) -> tuple[list[subprocess.Popen[bytes]], list[int]]:
    ports = [free_port() for _ in range(3)]
    bus_ports = [free_port() for _ in range(3)]
    nodes = [
        start_server(port, "--save", "", "--cluster-enabled", "yes", "--cluster-port", str(bus))
        for port, bus in zip(ports, bus_ports, strict=True)
    ]
    for index, (_, client) in enumerate(nodes):
        first = index * 5461
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, 16383 if index == 2 else first + 5460)  # type: ignore[no-untyped-call] # redis has no types there
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], bus_ports[0])  # type: ignore[no-untyped-call] # redis has no types there

    def is_whole() -> bool:
        return all(b"cluster_state:ok" in raw_info(client) for _, client in nodes)

    await until(is_whole, 15)
    return [process for process, _ in nodes], ports


def raw_info(client: redis.Redis) -> bytes:
    answer = client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call] # redis has no types there
    return repr(answer).replace("'", "").replace(": ", ":").encode() if isinstance(answer, dict) else bytes(answer)


async def test_cluster(cluster: Any, recorder: Any, until: Any) -> None:
    """Callers are spread over the primaries, each counted exactly; one that dies degrades its own callers alone."""
    processes, ports = cluster
    async with counting(f"redis+cluster://127.0.0.1:1,127.0.0.1:{ports[1]}", recorder, until) as counters:
        for _ in range(7):
            answers = await asyncio.gather(*(counters.decide([a_charge(number)]) for number in range(60)))
        assert all(readings[0].used == 5 and not readings[0].passes for _, readings, _ in answers)
        assert all(redis.Redis(port=port).dbsize() > 20 for port in ports)

        both = [a_charge(0), a_charge(1000)]
        assert [reading.used for reading in (await counters.decide(both))[1]] == [5, 0]

        processes[2].kill()
        await until(lambda: not counters.is_up)
        outcomes = await asyncio.gather(
            *(counters.decide([a_charge(number)]) for number in range(60)), return_exceptions=True
        )
        away = sum(isinstance(outcome, CountersUnavailable) for outcome in outcomes)
        assert 5 < away < 40
        assert sum(isinstance(outcome, tuple) for outcome in outcomes) == 60 - away


async def test_cluster_gives_back(cluster: Any, recorder: Any, until: Any) -> None:
    """What earlier slots charged is given back when a later one is over limit; an operator reaches each slot."""
    _, ports = cluster
    async with counting(f"redis+cluster://127.0.0.1:{ports[0]}", recorder, until) as counters:
        pairs = [[a_charge(number), a_charge(1000)] for number in range(8)]
        passed = [all(r.passes for r in (await counters.decide(pair))[1]) for pair in pairs]
        own = [(await counters.decide([pair[0]._replace(hits=0)]))[1][0].used for pair in pairs]

        assert passed == [True] * 5 + [False] * 3
        assert own == [1] * 5 + [0] * 3
        assert await counters.operate(pairs[0][1].key, "reset") == 5
        assert await counters.note(pairs[0][1].key) == ""
