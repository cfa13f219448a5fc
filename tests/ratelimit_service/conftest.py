"""A real Valkey of our own, and the small values that these tests share."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis

from ratelimit_service.counters.connect import connector
from ratelimit_service.counters.eviction import Eviction
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.redis import RedisCounters
from ratelimit_service.limits import Charge, Limit, Rule
from service_kit.store_url import read_store_url
from tests.support.clock import MicrosecondClock
from tests.support.ports import free_port
from tests.support.valkey import ValkeyProcess, running_valkey, start_valkey
from tests.support.waiting import until


@pytest.fixture
def clock() -> MicrosecondClock:
    """The time of counters in this process."""
    return MicrosecondClock()


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[ValkeyProcess]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def valkey(shared_valkey: ValkeyProcess) -> ValkeyProcess:
    """The server of this run, empty."""
    shared_valkey.client().flushall()
    return shared_valkey


@pytest.fixture
def own_valkey() -> Iterator[ValkeyProcess]:
    """A server that this test alone has, to be mistreated."""
    with running_valkey() as server:
        yield server


class Recorder:
    """Remembers what the counters report."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.reconciled_callers = 0
        self.batches: list[int] = []
        self.modes: list[str] = []
        self.evictions: list[Eviction | None] = []

    def store_up(self) -> None:
        self.states.append("up")

    def store_down(self, reason: str) -> None:
        self.states.append(reason)

    def store_error(self, reason: str) -> None:
        pass

    def batch_sent(self, requests: int) -> None:
        self.batches.append(requests)

    def batch_answered(self, seconds: float) -> None:
        pass

    def reconciled(self, callers: int, left_out: int) -> None:
        self.reconciled_callers += callers

    def eviction(self, found: Eviction | None) -> None:
        self.evictions.append(found)

    def degraded(self, mode: str) -> None:
        self.modes.append(mode)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


OpenCounters = Callable[..., "contextlib.AbstractAsyncContextManager[RedisCounters]"]


@pytest.fixture
def open_counters(recorder: Recorder) -> OpenCounters:
    """Counters on a server, connected, for the length of a `with`."""

    @contextlib.asynccontextmanager
    async def open_on(
        server: ValkeyProcess, local: MemoryCounters | None = None, timeout_seconds: float = 0.5
    ) -> AsyncIterator[RedisCounters]:
        counters = RedisCounters(connector(read_store_url(server.url)), recorder, local, timeout_seconds)
        running = asyncio.create_task(counters.run())
        try:
            await until(lambda: counters.is_up)
            yield counters
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return open_on


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., object]:
    return until


@pytest.fixture
def a_charge() -> Callable[..., Charge]:
    def make(
        hits: int = 1, caller: str = "c" * 22, rule: str = "tier", rps: float = 10, rpm: int = 200, burst: int = 20
    ) -> Charge:
        return Charge(caller, Rule(rule, Limit(rps, rpm, burst)), hits)

    return make


@pytest.fixture(name="free_port")
def free_port_fixture() -> Callable[[], int]:
    return free_port


StartServer = Callable[..., "tuple[subprocess.Popen[bytes], redis.Redis]"]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """A server on a port, with further arguments, and a client of it."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int, *arguments: str, password: str | None = None) -> tuple[subprocess.Popen[bytes], redis.Redis]:
        folder = tmp_path / str(port)
        folder.mkdir()
        client = redis.Redis(port=port, password=password)
        process = start_valkey(client, folder, *arguments, "--port", str(port))
        started.append(process)
        return process, client

    yield start
    for process in started:
        process.kill()
        process.wait()
