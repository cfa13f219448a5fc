"""Counters in Redis: one script a request, the requests of one loop turn in one write, and a breaker.

The breaker is the connection itself. While it is up, every answer comes within the timeout; at the first failure it is
dropped, everyone waiting is told at once, and nobody waits again until a new one has connected, loaded the scripts,
passed a write test and told the store what was spent meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, Protocol

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from ratelimit_service.counters.base import Verb
from ratelimit_service.counters.connect import CONNECT_SECONDS, Connect
from ratelimit_service.counters.memory import MemoryCounters, Tally, wall_clock_us
from ratelimit_service.descriptors import TAG_LENGTH
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.leases import NO_LEASE, LeaseRequest
from ratelimit_service.limits import SECOND_US, TOKEN, Charge, Override, Reading, drained, limit_of

_RETRY_SECONDS = (0.1, 0.2)
_RECONCILE_SECONDS = 1.0
_RECONCILE_AT_ONCE = 64
# A store that says one of these cannot count for anyone. What it says of one caller's key concerns that caller alone.
_STORE_IS_OUT = (
    "READONLY", "OOM", "MISCONF", "NOREPLICAS", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY", "NOAUTH", "NOPERM",
)  # fmt: skip


_LATE_SECONDS = 0.002
_INCOMPLETE = object()


class StoreMetrics(Protocol):
    """Counts the store's state and speed."""

    def store_up(self) -> None: ...
    def store_down(self, reason: str) -> None: ...
    def store_error(self, reason: str) -> None: ...
    def batch_sent(self, requests: int) -> None: ...
    def batch_answered(self, seconds: float) -> None: ...
    def reconciled(self, callers: int, left_out: int) -> None: ...


class Script:
    """A Lua file behind the prelude that all of them share, as one text that is called by its hash."""

    def __init__(self, name: str) -> None:
        folder = Path(__file__).parent
        self.source = (folder / "prelude.lua").read_text("utf-8") + (folder / name).read_text("utf-8")
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class RedisCounters:
    """Exact counters, shared by all replicas. `run` must be running; until it has connected, `decide` raises."""

    def __init__(
        self,
        connect: Connect,
        metrics: StoreMetrics,
        local: MemoryCounters | None = None,
        timeout_seconds: float = 0.02,
        owns: Callable[[str], bool] = lambda key: True,
    ) -> None:
        """`owns` tells which keys are this server's, where there are several."""
        self._connect = connect
        self._metrics = metrics
        self._local = local
        self._timeout_seconds = timeout_seconds
        self._owns = owns
        self._decide = Script("decide.lua")
        self._reconcile = Script("reconcile.lua")
        self._operate = Script("operate.lua")
        self._link: Link | None = None
        self._reason = "not connected yet"

    @property
    def is_up(self) -> bool:
        """Whether the store counts."""
        return self._link is not None and not self._link.has_failed

    async def decide(self, charges: Sequence[Charge], now_us: int = 0) -> tuple[int, list[Reading]]:
        """One decision. `now_us` replaces the server's clock, in tests only."""
        now_us, _, readings = await self.lease(charges, NO_LEASE, now_us)
        return now_us, readings

    async def lease(
        self, charges: Sequence[Charge], lease_request: LeaseRequest, now_us: int = 0
    ) -> tuple[int, int, list[Reading]]:
        """One decision, and how many more requests it prepaid."""
        link = self._link
        if link is None:
            raise CountersUnavailable(self._reason)
        arguments = decide_arguments(charges, now_us, lease_request)
        return read_reply(await self._ask(link, self._decide, arguments), len(charges))

    async def operate(self, tag: str, rule_name: str, verb: Verb, *values: int | str, now_us: int = 0) -> int:
        """One operator's change of one counter; see operate.lua."""
        link = self._link
        if link is None:
            raise CountersUnavailable(self._reason)
        answer: int = await self._ask(link, self._operate, operate_arguments(tag, rule_name, verb, values, now_us))
        return answer

    async def call(self, script: Script, arguments: tuple[str | int, ...]) -> Any:
        """What another script answers; the server learns it with its first call."""
        if self._link is None:
            raise CountersUnavailable(self._reason)
        return await self._ask(self._link, script, arguments)

    async def note(self, tag: str, rule_name: str) -> str:
        """What was written beside the override, after its four numbers."""
        link = self._link
        if link is None:
            raise CountersUnavailable(self._reason)
        held: bytes = await link.ask("GET", override_key(tag, rule_name)) or b""
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
            await running
        finally:
            self._link = None
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError, CountersUnavailable):
                await running

    def _lost(self, reason: str) -> None:
        self._reason = reason
        self._metrics.store_down(reason)

    async def _prepare(self, link: Link) -> None:
        """Scripts, a write test, then what was spent meanwhile. A store that cannot do these is not back."""
        async with asyncio.timeout(CONNECT_SECONDS):
            for script in (self._decide, self._reconcile, self._operate):
                await link.ask("SCRIPT", "LOAD", script.source)
            await link.ask("SET", self._probe_key(), "1", "PX", "1000")
        if self._local is not None:
            await self._reconcile_all(link, self._local)

    def _probe_key(self) -> str:
        return next(key for number in itertools.count() if self._owns(key := f"mgw:probe:{number}"))

    def _active(self, local: MemoryCounters) -> list[tuple[str, Tally]]:
        return [(key, tally) for key, tally in local.active() if self._owns(keys(key[:TAG_LENGTH], "")[0])]

    async def _reconcile_all(self, link: Link, local: MemoryCounters) -> None:
        """Tell the store of every caller that counts. Bounded in time: the least recently seen are left out."""
        deadline = time.monotonic() + _RECONCILE_SECONDS
        waiting = self._active(local)
        told = 0
        while waiting and time.monotonic() < deadline:
            batch, waiting = waiting[:_RECONCILE_AT_ONCE], waiting[_RECONCILE_AT_ONCE:]
            outcomes = await asyncio.gather(
                *(self._reconcile_one(link, key, tally) for key, tally in batch), return_exceptions=True
            )
            if link.has_failed:
                raise CountersUnavailable("lost again while it was told what was spent")
            told += sum(not isinstance(outcome, BaseException) for outcome in outcomes)
            if not waiting:
                waiting = [(key, tally) for key, tally in self._active(local) if tally.unconfirmed]
        self._metrics.reconciled(told, len(waiting))

    async def _reconcile_one(self, link: Link, key: str, tally: Tally) -> None:
        arguments = reconcile_arguments(key, tally, wall_clock_us())
        tally.confirm_all()
        await self._ask(link, self._reconcile, arguments)

    async def _ask(self, link: Link, script: Script, arguments: tuple[str | int, ...]) -> Any:
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


class Link(asyncio.Protocol):
    """One connection that many requests share: replies come in the order of the requests.

    redis-py opens it (address, TLS, login) and closes it. In between, this is the transport's protocol: redis-py's
    streams and its coroutine per answer would cost a decision more than everything else does.
    """

    def __init__(self, connection: AbstractConnection, timeout_seconds: float, metrics: StoreMetrics) -> None:
        self._connection = connection
        self._metrics = metrics
        # A late answer is looked for twice, with a turn of the loop in between: when it is our own loop that was
        # blocked, the answer is in the socket by then.
        self._timeout = timeout_seconds
        self._patience = timeout_seconds * 0.75
        self._grace = timeout_seconds * 0.25
        self._loop = asyncio.get_running_loop()
        self._unsent: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._suspect: asyncio.Future[Any] | None = None
        self._look_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=ResponseError, notEnoughData=_INCOMPLETE
        )
        assert connection._writer is not None  # it has just connected
        self._transport = connection._writer.transport
        self._transport.set_protocol(self)

    def ask(self, *command: str | int) -> asyncio.Future[Any]:
        """The answer to a command; CountersUnavailable if the connection fails before it comes."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._failure.done():
            answer.set_exception(CountersUnavailable("the connection has failed"))
            return answer
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub says one element
        self._waiting.append((answer, time.monotonic()))
        if self._timer is None:
            self._look_after(self._patience)
        return answer

    @property
    def has_failed(self) -> bool:
        """Whether it answers no more."""
        return self._failure.done()

    def fail(self, error: CountersUnavailable) -> None:
        """Give the connection up and tell everyone who waits."""
        if not self._failure.done():
            self._failure.set_exception(error)
        while self._waiting:
            answer, _ = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(error)

    async def run(self) -> None:
        """Until the connection fails."""
        try:
            await self._failure
        finally:
            self.fail(CountersUnavailable("closing"))
            if self._timer is not None:
                self._timer.cancel()
            self._transport.abort()  # a stalled server takes nothing more, so there is nothing to wait for
            with contextlib.suppress(RedisError, OSError):
                await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (result := self._reader.gets()) is not _INCOMPLETE:
                self._answer(result)
        except (InvalidResponse, IndexError) as error:  # no Redis, or one answer too many
            self.fail(CountersUnavailable(f"{type(error).__name__}: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(CountersUnavailable(f"connection lost: {error or 'closed by the server'}"))

    def _send(self) -> None:
        """All that was asked in this turn of the loop, in one write."""
        batch, self._unsent = self._unsent, []
        self._metrics.batch_sent(len(batch))
        if not self._failure.done():
            self._transport.write(b"".join(batch))

    def _answer(self, result: Any) -> None:
        answer, asked_at = self._waiting.popleft()
        if not self._waiting:
            self._metrics.batch_answered(time.monotonic() - asked_at)
        if answer.done():  # its request was cancelled
            return
        if isinstance(result, ResponseError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def _look_after(self, seconds: float) -> None:
        self._look_due = time.monotonic() + seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Is the oldest request overdue? Suspect it first, give up if it is still there after the grace.

        A look that comes late itself says that the machine is busy: then the store gets up to twice the time.
        """
        self._timer = None
        if not self._waiting:
            return
        now = time.monotonic()
        oldest, asked_at = self._waiting[0]
        age, is_late = now - asked_at, now - self._look_due > _LATE_SECONDS
        if age < self._patience:
            self._look_after(self._patience - age)
        elif oldest is not self._suspect or (is_late and age < 2 * self._timeout):
            self._suspect = oldest
            self._look_after(self._grace)
        else:
            self.fail(CountersUnavailable(f"no answer within {age * 1000:.0f} ms"))


def decide_arguments(
    charges: Sequence[Charge], now_us: int = 0, lease_request: LeaseRequest = NO_LEASE
) -> tuple[str | int, ...]:
    """Keys and arguments of decide.lua."""
    if len(charges) == 1:  # the usual case, spelt out
        tag, rule, hits, _ = charges[0]
        limit, name = rule.limit, rule.name
        numbers = (now_us, *lease_request, hits, limit.capacity, limit.refill, limit.rpm, mode_of(charges[0]))
        return (3, f"mgw:{{{tag}}}b:{name}", f"mgw:{{{tag}}}m:{name}", f"mgw:{{{tag}}}o:{name}", *numbers)
    names: list[str] = []
    values: list[int] = []
    for charge in charges:
        limit = charge.rule.limit
        names += (*keys(charge.tag, charge.rule.name), override_key(charge.tag, charge.rule.name))
        values += (charge.hits, limit.capacity, limit.refill, limit.rpm, mode_of(charge))
    return (len(names), *names, now_us, *lease_request, *values)


def mode_of(charge: Charge) -> int:
    """How decide.lua takes a charge: 0 is enforced, 1 is a shadow, 2 is a post-charge."""
    return 2 if charge.is_post_charge else int(charge.rule.is_shadow)


def read_reply(reply: list[int], charges: int) -> tuple[int, int, list[Reading]]:
    """What decide.lua replies: the time, the requests leased, five numbers a charge, and five for each override."""
    end = 2 + 5 * charges
    readings = [Reading._make((*reply[at : at + 5], None)) for at in range(2, end, 5)]
    for at in range(end, len(reply), 5):
        nth, until_us, capacity, refill, rpm = reply[at : at + 5]
        override = Override(limit_of(refill, rpm, capacity // TOKEN), until_us)
        readings[nth - 1] = readings[nth - 1]._replace(override=override)
    return reply[0], reply[1], readings


def operate_arguments(
    tag: str, rule_name: str, verb: Verb, values: Sequence[int | str], now_us: int = 0
) -> tuple[str | int, ...]:
    """Keys and arguments of operate.lua."""
    return (3, *keys(tag, rule_name), override_key(tag, rule_name), now_us, verb, *values)


def reconcile_arguments(key: str, tally: Tally, now_us: int) -> tuple[str | int, ...]:
    """Keys and arguments of reconcile.lua. Entries of one second go together, at the latest time among them."""
    slots: dict[int, tuple[int, int]] = {}
    for at_us, confirmed, unconfirmed in tally.entries():
        age = max(0, now_us - at_us) // SECOND_US * SECOND_US
        before = slots.get(age, (0, 0))
        slots[age] = (before[0] + confirmed, before[1] + unconfirmed)
    entries = [number for age, hits in sorted(slots.items(), reverse=True) for number in (age, *hits)]
    level = drained(tally.level, now_us - tally.stamp_us, tally.refill)
    return (2, *keys(key[:TAG_LENGTH], key[TAG_LENGTH:]), 0, tally.refill, level, tally.seen_us, *entries)


def keys(tag: str, rule_name: str) -> tuple[str, str]:
    """The bucket and the log of a counter. The braces keep a caller's keys on one node of a cluster."""
    return f"mgw:{{{tag}}}b:{rule_name}", f"mgw:{{{tag}}}m:{rule_name}"


def override_key(tag: str, rule_name: str) -> str:
    """The key of a counter's override."""
    return f"mgw:{{{tag}}}o:{rule_name}"
