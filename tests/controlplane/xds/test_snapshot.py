"""Snapshots and their versions: content and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.xds.cache import Group, SnapshotCache
from controlplane.xds.resources import CLUSTER, ORDER, ROUTE
from controlplane.xds.snapshot import EMPTY, Snapshot, content_version

RESOURCES = st.dictionaries(st.text(max_size=4), st.binary(max_size=4), max_size=4)


@given(RESOURCES, RESOURCES)
def test_versions_tell_contents_apart(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """Equal contents have equal versions, and different ones different versions."""
    assert (content_version(one) == content_version(other)) == (one == other)


@given(RESOURCES)
def test_the_order_of_resources_means_nothing(resources: dict[str, bytes]) -> None:
    """A version does not depend on the order in which resources were made."""
    assert content_version(resources) == content_version(dict(reversed(resources.items())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"ab": b"c"}, {"a": b"bc"}),
        ({"a": b"b", "c": b"d"}, {"a": b"bcd"}),
        ({"": b"a"}, {"a": b""}),
        ({}, {"": b""}),
        ({"a": b"\0"}, {"a": b""}),
    ],
)
def test_parts_are_kept_apart(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """Names and bytes that would read alike one after the other are not alike."""
    assert content_version(one) != content_version(other)


def test_select() -> None:
    """Resources come in the order of their names; all of them, or those that are named and there."""
    snapshot = Snapshot({CLUSTER: {"b": b"2", "a": b"1"}})

    assert snapshot.select(CLUSTER, frozenset()) == [b"1", b"2"]
    assert snapshot.select(CLUSTER, frozenset({"b", "gone"})) == [b"2"]
    assert snapshot.select(ROUTE, frozenset()) == []


def test_an_empty_snapshot_has_no_versions() -> None:
    """A type that is not there has the empty version."""
    assert [EMPTY.version(type_url) for type_url in ORDER] == [""] * len(ORDER)
    assert Snapshot({CLUSTER: {}}).version(CLUSTER) != ""


def test_the_cache_makes_a_snapshot_once_a_group() -> None:
    """Nodes of a group share a snapshot, which is made when the first of them asks."""
    asked: list[Group] = []
    cache = SnapshotCache()

    def make(group: Group) -> Snapshot:
        asked.append(group)
        return Snapshot({CLUSTER: {"a": repr(group).encode()}})

    cache.set(make)
    own = Group(("127.0.0.1", 8080))

    shared = [cache.snapshot(Group()), cache.snapshot(own), cache.snapshot(Group())]

    assert asked == [Group(), own]
    assert shared[0] is shared[2]


def test_a_new_snapshot_wakes_everyone_who_waits() -> None:
    """The event of the old snapshot is set, that of the new one is not."""
    cache = SnapshotCache()
    before = cache.next_change()

    cache.set(lambda _group: EMPTY)

    assert before.is_set()
    assert not cache.next_change().is_set()


def test_without_a_configuration_there_is_nothing() -> None:
    """Before the first publication nodes are told nothing, rather than that nothing is to be."""
    assert SnapshotCache().snapshot(Group()) is EMPTY
