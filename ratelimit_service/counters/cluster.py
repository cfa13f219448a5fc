"""Counters on a Redis Cluster: every primary has a connection, and so a breaker, of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from ratelimit_service.counters.base import CounterReply, StoreMetrics, Verb
from ratelimit_service.counters.connect import connector, node_connector, read_slots, slot_of
from ratelimit_service.counters.eviction import Eviction, together
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.redis import RedisCounters
from ratelimit_service.counters.scripts import store_keys
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.leases import NO_LEASE, LeaseRequest
from ratelimit_service.limits import Charge, CounterKey, Reading, request_passes
from service_kit.store_url import Address, StoreUrl, show_address

_REFRESH_SECONDS = 1.0
_SLOTS = 16_384


def open_counters(
    url: StoreUrl, metrics: StoreMetrics, local: MemoryCounters | None, timeout_seconds: float
) -> RedisCounters | ClusterCounters:
    """The counters that the URL names."""
    if url.kind != "cluster":
        return RedisCounters(connector(url), metrics, local, timeout_seconds)

    def open_node(address: Address, node_metrics: StoreMetrics, owns: Callable[[str], bool]) -> RedisCounters:
        return RedisCounters(node_connector(address, url), node_metrics, local, timeout_seconds, owns)

    return ClusterCounters(url, open_node, metrics)


class ClusterCounters:
    """Sends each caller to the primary that has its slot. A primary that is away degrades its own callers alone.

    Charges of one request may live on several slots: a caller's and a global rule's. They are made one after the other,
    and given back if a later one is over limit. So no more is admitted than the rules say; for a moment perhaps less.
    """

    def __init__(
        self,
        url: StoreUrl,
        open_node: Callable[[Address, StoreMetrics, Callable[[str], bool]], RedisCounters],
        metrics: StoreMetrics,
    ) -> None:
        self._url = url
        self._open_node = open_node
        self._metrics = metrics
        self._nodes: dict[Address, RedisCounters] = {}
        self._running: dict[Address, asyncio.Task[None]] = {}
        self._by_slot: list[Address | None] = [None] * _SLOTS
        self._evictions: dict[Address, Eviction | None] = {}
        self._moved = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Whether every slot is counted."""
        return None not in self._by_slot and all(node.is_up for node in self._nodes.values())

    async def decide(self, charges: Sequence[Charge], lease_request: LeaseRequest = NO_LEASE) -> CounterReply:
        """One decision. Nothing is prepaid where the charges live on several slots."""
        if len({charge.tag for charge in charges}) == 1:
            return await self._node(charges[0].key).decide(charges, lease_request)
        now_us, passes, readings = 0, True, dict[CounterKey, Reading]()
        for tag in _tags_in_order(charges):
            asked = [
                charge if passes or charge.is_post_charge else charge._replace(hits=0)
                for charge in charges
                if charge.tag == tag
            ]
            now_us, held, _ = await self._node(asked[0].key).decide(asked)
            readings |= {charge.key: reading for charge, reading in zip(asked, held, strict=True)}
            if passes and not request_passes(asked, held):
                passes = False
                await self._give_back(charges, readings, tag)
        return CounterReply(now_us, [readings[charge.key] for charge in charges])

    async def _give_back(self, charges: Sequence[Charge], readings: dict[CounterKey, Reading], over_limit: str) -> None:
        """Undo what earlier slots charged for a request that is over limit under this tag."""
        for charge in charges:
            reading = readings.get(charge.key)
            is_charged = reading is not None and reading.passes and charge.hits and charge.tag != over_limit
            if is_charged and not charge.is_post_charge:
                await self._node(charge.key).operate(charge.key, "grant", charge.hits)

    async def operate(self, key: CounterKey, verb: Verb, *values: int | str) -> int:
        return await self._node(key).operate(key, verb, *values)

    async def note(self, key: CounterKey) -> str:
        return await self._node(key).note(key)

    async def run(self) -> None:
        """Follow the cluster's slots, until cancelled."""
        try:
            while True:
                await self._refresh()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._moved.wait(), _REFRESH_SECONDS)
                self._moved.clear()
        finally:
            await self._close(list(self._nodes))

    def _node(self, key: CounterKey) -> RedisCounters:
        address = self._by_slot[slot_of(store_keys(key).bucket)]
        if address is None:
            raise CountersUnavailable("no node has this slot")
        return self._nodes[address]

    async def _refresh(self) -> None:
        """Ask the nodes in turn until one replies; keep what is known if none does."""
        reason = "no node is known"
        for address in dict.fromkeys((*self._nodes, *self._url.hosts)):
            try:
                slots = await read_slots(address, self._url)
            except CountersUnavailable as error:
                reason = str(error)
                continue
            await self._follow(slots)
            return
        self._metrics.store_down(reason)

    async def _follow(self, slots: dict[Address, list[tuple[int, int]]]) -> None:
        by_slot: list[Address | None] = [None] * _SLOTS
        for address, ranges in slots.items():
            for first, last in ranges:
                by_slot[first : last + 1] = [address] * (last + 1 - first)
        self._by_slot = by_slot
        for address in slots.keys() - self._nodes.keys():
            node = self._open_node(address, _NodeMetrics(self, address), self._owner(address))
            self._nodes[address] = node
            self._running[address] = asyncio.create_task(node.run())
        await self._close([address for address in self._nodes if address not in slots])

    def _owner(self, address: Address) -> Callable[[str], bool]:
        return lambda key: self._by_slot[slot_of(key)] == address

    async def _close(self, addresses: Sequence[Address]) -> None:
        tasks = [self._running.pop(address) for address in addresses]
        for address in addresses:
            del self._nodes[address]
            self._evictions.pop(address, None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def node_up(self) -> None:
        if self.is_up:
            self._metrics.store_up()

    def node_down(self, address: Address, reason: str) -> None:
        self._metrics.store_down(f"{show_address(address)}: {reason}")
        self._moved.set()

    def node_error(self, reason: str) -> None:
        self._metrics.store_error(reason)
        self._moved.set()

    def node_eviction(self, address: Address, found: Eviction | None) -> None:
        self._evictions[address] = found
        # Of the others only the policy: what they evicted anew was told when they said so.
        others = [each and each._replace(newly_evicted=0) for at, each in self._evictions.items() if at != address]
        self._metrics.eviction(together([found, *others]))

    @property
    def metrics(self) -> StoreMetrics:
        return self._metrics


def _tags_in_order(charges: Sequence[Charge]) -> list[str]:
    """What is enforced comes first: once it is over limit, the rest is only read."""
    enforced = {charge.tag for charge in charges if charge.is_enforced}
    return sorted({charge.tag: None for charge in charges}, key=lambda tag: tag not in enforced)


class _NodeMetrics:
    """What one node reports. The cluster is up when all its nodes are."""

    def __init__(self, cluster: ClusterCounters, address: Address) -> None:
        self._cluster = cluster
        self._address = address
        self.batch_sent = cluster.metrics.batch_sent
        self.batch_answered = cluster.metrics.batch_answered
        self.reconciled = cluster.metrics.reconciled

    def store_up(self) -> None:
        self._cluster.node_up()

    def store_down(self, reason: str) -> None:
        self._cluster.node_down(self._address, reason)

    def store_error(self, reason: str) -> None:
        self._cluster.node_error(reason)

    def eviction(self, found: Eviction | None) -> None:
        self._cluster.node_eviction(self._address, found)
