"""After an outage the store holds what every replica let pass, each hit once, whoever comes first."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratelimit_service.counters.scripts import Script, decide_arguments, operate_arguments, read_reply
from ratelimit_service.limits import TOKEN, WINDOW_US
from tests.support.replicas import START_US, Replica, Store, a_charge, counted
from tests.support.valkey import run_script

REPLICAS = 3


@pytest.fixture
def store(shared_valkey: Any) -> Store:
    return Store(shared_valkey.client())


def level(store: Store) -> int:
    reply = read_reply(store.run("decide.lua", decide_arguments([a_charge(0)], store.now_us)), 1)
    return -(-reply.readings[0].level // TOKEN)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_an_empty_store_hears_from_all(store: Store, order: tuple[int, ...]) -> None:
    """Each tells of its own hits, once, though each had also seen those of others; so the order does not matter."""
    replicas = [Replica(store) for _ in range(REPLICAS)]
    spent = sum(replica.ask(a_charge(), REPLICAS) for replica in replicas * 20)
    store.lose_all()
    for replica in replicas:
        replica.is_linked = False
    spent += sum(replica.ask(a_charge(), REPLICAS) for replica in replicas[:2] * 3)

    for number in order:
        replicas[number].settle()

    assert spent == 66
    assert counted(store) == spent
    for number in order:  # a connection that breaks again changes nothing
        replicas[number].settle()
    assert counted(store) == spent


def test_who_is_first_stands_for_the_others(store: Store) -> None:
    """Until the others tell, the first one's knowledge of them counts: nobody has a second quota meanwhile."""
    one, other = Replica(store), Replica(store)
    for _ in range(40):
        one.ask(a_charge(), 2)
    other.ask(a_charge(), 2)
    store.lose_all()

    other.settle()
    assert counted(store) == 41
    one.settle()
    assert counted(store) == 41


def test_a_replica_that_is_gone_is_spoken_for(store: Store) -> None:
    """What a restarted replica let pass is held by the one that had seen it."""
    one, other = Replica(store), Replica(store)
    for _ in range(40):
        one.ask(a_charge(), 2)
    other.ask(a_charge(), 2)
    store.lose_all()
    one.restart()

    one.settle()
    other.settle()

    assert counted(store) == 41


def test_the_bucket_is_as_full_as_all_left_it(store: Store) -> None:
    """What the first did not know of comes on top of the level that it told."""
    one, other = Replica(store), Replica(store)
    slow = a_charge(rps=0.001)
    for replica in (one, other) * 10 + (one,) * 5:
        replica.ask(slow, 2)
    store.lose_all()

    other.settle()
    one.settle()

    assert level(store) == 25


@pytest.mark.parametrize(("verb", "values", "kept"), [("reset", (), 0), ("grant", (10,), 20)])
def test_what_was_forgiven_is_not_told_again(store: Store, verb: Any, values: Any, kept: int) -> None:
    """An operator took hits away while a replica was cut off: it does not take that for a loss."""
    replica = Replica(store)
    for _ in range(30):
        replica.ask(a_charge(), 1)
    script = Script("operate.lua")
    store.client.script_load(script.source)
    store.tick()
    run_script(store.client, script.sha, operate_arguments(a_charge().key, verb, values, store.now_us))

    replica.settle()

    assert counted(store) == kept


def test_a_clock_that_went_back_is_no_loss(store: Store) -> None:
    """What was spent by the later clock is still there, though at another time."""
    replica = Replica(store)
    for _ in range(30):
        replica.ask(a_charge(), 1)
    store.now_us -= 3_600_000_000
    replica.ask(a_charge(), 1)

    replica.settle()

    assert counted(store) == 31


def test_many_hits_are_told_by_the_second(store: Store) -> None:
    """However many there are, the message is bounded, and nothing is told twice."""
    replica = Replica(store)
    spent = 0
    for _ in range(600):
        store.tick(20_000)
        spent += replica.ask(a_charge(), 1)
    store.lose_all()

    replica.settle()
    assert counted(store) == spent == 600
    replica.settle()
    assert counted(store) == spent


steps = st.one_of(
    st.tuples(st.just("call"), st.integers(0, REPLICAS - 1), st.integers(1, 3), st.integers(0, 400_000)),
    st.tuples(st.just("call"), st.integers(0, REPLICAS - 1), st.integers(1, 3), st.integers(0, 400_000)),
    st.tuples(st.sampled_from(["cut", "save", "lose some", "lose all"])),
    st.tuples(st.just("settle"), st.integers(0, REPLICAS - 1)),
)


@given(
    st.lists(steps, max_size=60),
    st.permutations(range(REPLICAS)),
    st.lists(st.integers(-2_000_000, 2_000_000), min_size=REPLICAS, max_size=REPLICAS),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_history_is_told_once(
    shared_valkey: Any, history: list[Any], order: list[int], skews_us: list[int]
) -> None:
    """Over random losses and outages: once all have told, the store counts exactly what passed."""
    store = Store(shared_valkey.client())
    replicas = [Replica(store, skew_us) for skew_us in skews_us]
    passed = 0
    for step in history:
        match step:
            case "call", number, hits, wait_us:
                store.tick(wait_us)
                passed += replicas[number].ask(a_charge(hits), REPLICAS)
            case "settle", number:
                replicas[number].settle()
            case ("save",):
                store.save()
            case (loss,):
                if loss != "cut":
                    store.lose_all() if loss == "lose all" else store.lose_since_save()
                for replica in replicas:
                    replica.is_linked = False
    for number in order:
        replicas[number].settle()

    assert store.now_us - START_US < WINDOW_US
    assert counted(store) == passed
