"""Counters in Redis: one script for each request, and a breaker.

The breaker is the connection itself. While it is up, every reply comes within the timeout. At the first failure it is
dropped and everyone who waits is told. Then nobody waits until a new connection has been opened, has loaded the
scripts, has passed a write test, and has told the store what was spent meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from ratelimit_service.counters import eviction
from ratelimit_service.counters.base import CounterReply, StoreMetrics, Verb
from ratelimit_service.counters.connect import CONNECT_SECONDS, Connect
from ratelimit_service.counters.digest import EVERY_SECONDS, Digest
from ratelimit_service.counters.link import Link
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.scripts import (
    Arguments,
    Script,
    decide_arguments,
    operate_arguments,
    read_reply,
    store_keys,
)
from ratelimit_service.counters.settlement import Settlement
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.leases import NO_LEASE, LeaseRequest
from ratelimit_service.limits import Charge, CounterKey

_RETRY_SECONDS = (0.1, 0.2)
# A store that says one of these cannot count for anyone. Any other error concerns one caller's key alone.
_STORE_IS_OUT = (
    "READONLY", "OOM", "MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "NOAUTH", "NOPERM",
)  # fmt: skip


class RedisCounters:
    """Exact counters, shared by all replicas. `run` must be running; until it has connected, `decide` raises."""

    def __init__(
        self,
        connect: Connect,
        metrics: StoreMetrics,
        local: MemoryCounters | None = None,
        timeout_seconds: float = 0.02,
        owns: Callable[[str], bool] = lambda key: True,
        look_seconds: float = eviction.LOOK_SECONDS,
    ) -> None:
        """`owns` tells whether a key of the store is on this server, where there are several.

        `look_seconds` is how often the server is asked whether it evicts.
        """
        self._connect = connect
        self._metrics = metrics
        self._digest = None if local is None else Digest(local, self._ask)
        self._settlement = None if local is None else Settlement(local, metrics, owns, self._ask)
        self._timeout_seconds = timeout_seconds
        self._owns = owns
        self._decide = Script("decide.lua")
        self._operate = Script("operate.lua")
        self._look_seconds = look_seconds
        self._evicted: int | None = None
        self._link: Link | None = None
        self._reason = "not connected yet"

    @property
    def is_up(self) -> bool:
        """Whether the store counts."""
        return self._link is not None and not self._link.has_failed

    async def decide(
        self, charges: Sequence[Charge], lease_request: LeaseRequest = NO_LEASE, *, now_us: int = 0
    ) -> CounterReply:
        """One decision. `now_us` replaces the server's clock, in tests only."""
        arguments = decide_arguments(charges, now_us, lease_request)
        return read_reply(await self._ask(self._open_link(), self._decide, arguments), len(charges))

    async def operate(self, key: CounterKey, verb: Verb, *values: int | str, now_us: int = 0) -> int:
        """Change one counter for an operator; see operate.lua."""
        number: int = await self._ask(self._open_link(), self._operate, operate_arguments(key, verb, values, now_us))
        return number

    async def call(self, script: Script, arguments: Arguments) -> Any:
        """The reply of another script; the server learns the script with its first call."""
        return await self._ask(self._open_link(), script, arguments)

    async def note(self, key: CounterKey) -> str:
        """The note beside the override, after its four numbers."""
        held: bytes = await self._open_link().ask("GET", store_keys(key).override) or b""
        return b"".join(held.split(b" ", 4)[4:]).decode()

    async def run(self) -> None:
        """Keep a connection, until cancelled."""
        while True:
            try:
                await self._serve_one_link()
            except Exception as error:  # noqa: BLE001 - whatever it was, the store is away; the reason is reported
                self._lost(f"{type(error).__name__}: {error}")
            await asyncio.sleep(random.uniform(*_RETRY_SECONDS))

    async def _serve_one_link(self) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await self._connect()
        link = Link(connection, self._timeout_seconds, self._metrics)
        running = asyncio.create_task(link.run())
        try:
            await self._prepare(link)
            self._link = link
            self._metrics.store_up()
            beside = [asyncio.create_task(work) for work in (self._watch_eviction(link), self._tell_others(link))]
            try:
                await running
            finally:
                for task in beside:
                    task.cancel()
        finally:
            self._link = None
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, CountersUnavailable):
                await running

    async def _watch_eviction(self, link: Link) -> None:
        """Whether the server forgets counters: now, and as long as the connection lasts."""
        with contextlib.suppress(CountersUnavailable):  # which others tell of
            while True:
                found = await self._ask_eviction(link)
                self._evicted = found.evicted_keys if found is not None else None
                self._metrics.eviction(found)
                await asyncio.sleep(self._look_seconds)

    async def _ask_eviction(self, link: Link) -> eviction.Eviction | None:
        try:
            sections = [await link.ask("INFO", section) for section in ("memory", "stats")]
        except ResponseError:  # such as NOPERM
            return None
        return eviction.read_eviction(b"\r\n".join(sections), self._evicted)

    async def _tell_others(self, link: Link) -> None:
        """Who has spent much, as long as the connection lasts."""
        while self._digest is not None:
            await asyncio.sleep(EVERY_SECONDS)
            with contextlib.suppress(CountersUnavailable):  # the link, or these keys alone, have failed: both are told
                await self._digest.exchange(link, self._own_prefix("store"))

    def _lost(self, reason: str) -> None:
        self._reason = reason
        self._metrics.store_down(reason)

    def _open_link(self) -> Link:
        if self._link is None:
            raise CountersUnavailable(self._reason)
        return self._link

    async def _prepare(self, link: Link) -> None:
        """Scripts, a write test, then what was spent meanwhile. A store that cannot do these is not back."""
        prefix = self._own_prefix("store")
        async with asyncio.timeout(CONNECT_SECONDS):
            for script in (self._decide, Settlement.script, Digest.script, self._operate):
                await link.ask("SCRIPT", "LOAD", script.source)
            await link.ask("SET", f"{prefix}probe", "1", "PX", "1000")
        if self._settlement is not None:
            await self._settlement.settle(link, f"{prefix}mark")
        if self._digest is not None:
            self._digest.begin()
            with contextlib.suppress(CountersUnavailable):
                await self._digest.exchange(link, prefix)

    def _own_prefix(self, name: str) -> str:
        """Keys that begin so are on this server, in one slot."""
        return next(key for number in itertools.count() if self._owns(key := f"mgw:{{{name}:{number}}}"))

    async def _ask(self, link: Link, script: Script, arguments: Arguments) -> Any:
        try:
            return await link.ask("EVALSHA", script.sha, *arguments)
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise self._rejected(link, error) from error
        try:  # someone flushed the scripts
            return await link.ask("EVAL", script.source, *arguments)
        except ResponseError as error:
            raise self._rejected(link, error) from error

    def _rejected(self, link: Link, error: ResponseError) -> CountersUnavailable:
        reason = str(error)
        self._metrics.store_error(reason)
        unavailable = CountersUnavailable(reason)
        if any(code in reason for code in _STORE_IS_OUT):
            link.fail(unavailable)
        return unavailable
