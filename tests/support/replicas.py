"""Replicas of the rate-limit service on one store, with a clock that the test moves: real scripts, no sockets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import redis

from ratelimit_service.counters.digest import digest_arguments, read_digest
from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.counters.scripts import Script, decide_arguments, read_reply, reconcile_arguments, store_keys
from ratelimit_service.limits import WINDOW_US, Charge, Limit, Rule, request_passes
from tests.support.valkey import run_script

START_US = 1_800_000_000_000_000


class Store:
    """One server, which can go away, and come back with all, some or none of what it held."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.reset()
        self._shas = {
            name: client.script_load(Script(name).source) for name in ("decide.lua", "digest.lua", "reconcile.lua")
        }

    def reset(self) -> None:
        """A new one."""
        self.now_us, self.mark = START_US, 0
        self._saved: dict[Any, Any] = {}
        self.client.flushdb()

    def run(self, script: str, arguments: Any) -> Any:
        return run_script(self.client, self._shas[script], arguments)

    def tick(self, wait_us: int = 0) -> None:
        """Time passes: no two things happen in one microsecond."""
        self.now_us += 1 + wait_us

    def save(self) -> None:
        """What a replica of the server has."""
        self._saved = {key: self.client.dump(key) for key in self.client.scan_iter()}

    def lose_since_save(self) -> None:
        self.client.flushdb()
        for key, value in self._saved.items():
            self.client.restore(key, 600_000, value)

    def lose_all(self) -> None:
        self.client.flushdb()
        self._saved = {}
        self.mark += 1


@dataclass
class Replica:
    """One replica. `skew_us` is how far its clock is ahead of the store's."""

    store: Store
    skew_us: int = 0
    local: MemoryCounters = field(init=False)
    is_linked: bool = True

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """It forgets everything. A store that is there is asked what it knows."""
        self.local = MemoryCounters(clock=lambda: self.store.now_us + self.skew_us)
        self.mark, self.read = self.store.mark, 0
        if self.is_linked:
            self.exchange()

    def exchange(self) -> None:
        """Tell the others who has spent much, and hear from them."""
        self.store.tick()
        news = list(self.local.take_news().items())
        told = self.store.run("digest.lua", digest_arguments("mgw:{store:0}", self.read, news, self.store.now_us))
        reply = read_digest(told)
        self.read = reply.last
        self.local.learn(reply.news, reply.store_now_us)

    def ask(self, charge: Charge, replicas: int) -> int:
        """How many hits passed."""
        self.store.tick()
        if not self.is_linked:
            readings = self.local.decide_share([charge], replicas).readings
        else:
            reply = read_reply(self.store.run("decide.lua", decide_arguments([charge], self.store.now_us)), 1)
            readings = reply.readings
            self.local.observe([charge], reply.now_us, readings, replicas)
        return charge.hits if request_passes([charge], readings) else 0

    def settle(self) -> None:
        """It has a connection again."""
        is_emptied = self.mark != self.store.mark
        for key, tally in list(self.local.active()):
            self.store.tick()
            tally.log.gather()
            now_us = self.store.now_us + self.skew_us
            told = reconcile_arguments(key, tally, now_us, -self.skew_us, is_emptied, self.store.now_us)
            tally.log.confirm_all(-self.skew_us)
            self.store.run("reconcile.lua", told)
        self.mark, self.is_linked, self.read = self.store.mark, True, 0
        self.exchange()


def a_charge(hits: int = 1, rpm: int = 1_000, rps: float = 1000, burst: int = 1_000) -> Charge:
    return Charge("c" * 22, Rule("tier", Limit(rps, rpm, burst)), hits)


def counted(store: Store) -> int:
    """The hits that the store counts now."""
    return store.client.zcount(store_keys(a_charge().key).log, f"({store.now_us - WINDOW_US}", "+inf")
