"""Replicas know who has spent much before the store goes away; and what passes without it stays within the bound."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from ratelimit_service.counters.digest import read_digest
from ratelimit_service.errors import CountersUnavailable
from ratelimit_service.limits import SECOND_US, WINDOW_US
from tests.support.replicas import Replica, Store, a_charge

RPM = 30


@pytest.fixture
def store(shared_valkey: Any) -> Store:
    return Store(shared_valkey.client())


def ask(replica: Replica, replicas: int = 2, times: int = 1) -> int:
    return sum(replica.ask(a_charge(rpm=RPM), replicas) for _ in range(times))


def cut(*replicas: Replica) -> None:
    for replica in replicas:
        replica.is_linked = False


def exchange(*replicas: Replica) -> None:
    """Everyone tells, and then everyone has heard."""
    for replica in replicas * 2:
        replica.exchange()


@pytest.mark.parametrize("spent", [0, 10, 15, 16, 25, 30])
def test_an_informed_replica_gives_no_second_quota(store: Store, spent: int) -> None:
    """Of what one replica let pass the other knows: together they pass the limit at most by one.

    One that was over its share passes nothing more. The other passes its share of what is left.
    """
    one, other = Replica(store), Replica(store)
    passed = ask(one, times=spent)
    exchange(one, other)
    cut(one, other)

    passed += ask(one, times=50) + ask(other, times=50)

    assert spent + (RPM - spent) // 2 <= passed <= RPM + 1


def test_a_replica_that_starts_learns_at_once(store: Store) -> None:
    """A restarted replica hears of all that was told in the last minute."""
    one, other = Replica(store), Replica(store)
    ask(one, times=RPM)
    exchange(one)

    other.restart()
    cut(other)

    assert ask(other) == 0


def test_nobody_is_refused_for_being_unknown(store: Store) -> None:
    """A caller of whom nothing is known has its share."""
    one = Replica(store)
    cut(one)

    assert ask(one, times=50) == RPM // 2


def test_news_end_with_the_minute(store: Store) -> None:
    """What was told is forgotten once it does not count; so the store's digest stays small."""
    one, other = Replica(store), Replica(store)
    ask(one, times=RPM)
    exchange(one)
    store.tick(WINDOW_US)
    exchange(other)

    assert [key for key in store.client.scan_iter("mgw:{store*") if store.client.type(key) != b"string"] == []
    cut(other)
    assert ask(other) == 1


def test_later_news_win(store: Store) -> None:
    """One that tells late of what it heard early takes nothing back."""
    one, other, third = (Replica(store) for _ in range(3))
    ask(other, times=16)
    ask(one, times=14)
    one.exchange()
    other.exchange()
    third.exchange()
    cut(third)

    assert ask(third, replicas=2) == 0


def test_news_survive_a_clock_that_goes_back(store: Store) -> None:
    """What was told by the later clock does not silence what is told now."""
    one, other = Replica(store), Replica(store)
    ask(one, times=16)
    exchange(one, other)
    store.now_us -= 3600 * SECOND_US
    ask(one, times=14)
    exchange(one, other)
    cut(other)

    assert ask(other) == 0


@pytest.mark.parametrize("text", [b"", b"1 2", b"1 2 3 x", None])
def test_a_spoilt_digest(text: bytes | None) -> None:
    """What somebody else wrote there is an error like any other of the store."""
    with pytest.raises(CountersUnavailable, match="digest"):
        read_digest([1, 1, b"tag tier", text])


@dataclass
class World:
    """A history: what passed and when; and what the bound allows beside the limit, and from when."""

    store: Store
    replicas: list[Replica]
    told_us: int
    passed_us: list[int] = field(default_factory=list)
    allowed: list[tuple[int, int]] = field(default_factory=list)
    unheard: int = 0
    """Hits that passed since everyone had told and heard."""
    is_up: bool = True

    @property
    def share(self) -> int:
        return -(-RPM // len(self.replicas))

    def call(self, number: int) -> None:
        passed = ask(self.replicas[number], len(self.replicas))
        self.passed_us += [self.store.now_us] * passed
        self.unheard += passed * self.is_up

    def wait(self, wait_us: int) -> None:
        self.store.tick(wait_us)
        if self.is_up and self.store.now_us - self.told_us >= SECOND_US:
            exchange(*self.replicas)
            self.told_us, self.unheard = self.store.now_us, 0

    def kill(self) -> None:
        if self.is_up:
            self.is_up = False
            self.allow(min(self.unheard, self.share * len(self.replicas)))
            cut(*self.replicas)

    def revive(self, is_empty: bool) -> None:
        if self.is_up:
            return
        if is_empty:
            self.store.lose_all()
        for replica in self.replicas:
            replica.settle()
        self.is_up = True

    def restart(self, number: int) -> None:
        self.allow(self.share)
        self.replicas[number].restart()

    def allow(self, hits: int) -> None:
        self.allowed.append((self.store.now_us, hits))

    def excess(self) -> list[tuple[int, int]]:
        """Of each minute that ends with a hit: how many passed, and how many may."""
        return [
            (
                sum(end - WINDOW_US < at <= end for at in self.passed_us),
                RPM + len(self.replicas) - 1 + sum(hits for at, hits in self.allowed if end - WINDOW_US < at <= end),
            )
            for end in self.passed_us
        ]


STEPS = ("calls", "calls", "calls", "calls", "kill", "kill", "revive", "revive empty", "restart")


def step(world: World, random: Random) -> None:
    """What may happen next, at random: a few values that matter rather than all that there are."""
    number = random.randrange(len(world.replicas))
    kind = random.choice(STEPS)
    if kind in ("calls", "kill"):
        world.wait(random.choice([0, 0, 1_500_000, 1_500_000, 20_000_000]))
    if kind == "calls":
        for _ in range(random.choice([1, 8, RPM // 2 + 1, RPM + 10])):
            world.call(number)
    elif kind == "kill":
        world.kill()
    elif kind == "restart":
        world.restart(number)
    else:
        world.revive(is_empty=kind == "revive empty")


@pytest.mark.parametrize("seed", range(8))
def test_every_history_stays_within_the_bound(store: Store, seed: int) -> None:
    """In each minute: the limit and replicas - 1, and a share for each that restarted or could not yet know."""
    random = Random(seed)
    for _ in range(40):
        store.reset()
        world = World(store, [Replica(store) for _ in range(random.choice([1, 2, 2, 3]))], store.now_us)
        for _ in range(12):
            step(world, random)
        for passed, at_most in world.excess():
            assert passed <= at_most
