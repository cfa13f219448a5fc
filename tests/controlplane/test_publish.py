"""The one write path: all of a change, or nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from prometheus_client import REGISTRY

from controlplane.errors import ConfigRejected, EnvoyUnavailable, RevisionConflict, TranslationInconsistent
from controlplane.publish import Change, Publisher
from controlplane.store.base import Revision
from controlplane.store.memory import MemoryStore
from controlplane.translate import assemble
from controlplane.xds.cache import Group, SnapshotCache
from controlplane.xds.resources import CLUSTER, LISTENER, ROUTE
from tests.support.configs import TOPOLOGY, default_text

TEXT = default_text()
OTHER = TEXT.replace("trusted_hops: 0", "trusted_hops: 1")
BAD = TEXT.replace("trusted_hops: 0", "trusted_hobs: 0").replace("service: sona, auth", "service: sonar, auth")
REFUSES = "echo 'no listener like that'; exit 1"


class World:
    """A publisher with its store and the cache that nodes are told from."""

    def __init__(self, envoy_binary: Path | None = None, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.cache = SnapshotCache()
        self.environment: dict[str, str] = {}
        internal = frozenset({"127.0.0.1:18001"})
        self.publisher = Publisher(self.store, self.cache, TOPOLOGY, self.environment, internal, envoy_binary)

    async def publish(self, text: str, expected: int | None = None) -> int:
        change = Change(text, "application/yaml", author="editor", reason="a test", expected=expected)
        return (await self.publisher.publish(change)).revision.number

    @property
    def versions(self) -> dict[str, str]:
        return dict(self.cache.snapshot(Group()).versions)

    async def state(self) -> tuple[object, ...]:
        return self.publisher.published, self.versions, await self.store.current()


@pytest.fixture
def world() -> World:
    return World()


async def test_the_first_change_becomes_revision_one(world: World) -> None:
    """What is published is stored as it was written, and nodes are told."""
    woken = world.cache.next_change()

    number = await world.publish(TEXT)

    stored = await world.store.current()
    assert number == 1
    assert stored is not None
    assert (stored.text, stored.media_type, stored.author, stored.reason) == (
        TEXT,
        "application/yaml",
        "editor",
        "a test",
    )
    assert woken.is_set()
    assert world.versions == assemble.snapshot(world.publisher.published.config, TOPOLOGY).versions  # type: ignore[union-attr]
    assert REGISTRY.get_sample_value("mgw_config_revision") == 1


async def test_a_warning_is_logged(world: World) -> None:
    """What is accepted and probably not meant is in the log, at its place in the document."""
    with structlog.testing.capture_logs() as logged:
        await world.publish(TEXT.replace("tier: tier", "tier: app.tier"))

    (warning,) = [line for line in logged if line["event"] == "config.warning"]
    assert (warning["log_level"], warning["path"]) == ("warning", "auth.providers.0.claims.tier")


async def test_a_group_is_told_its_own(world: World) -> None:
    """An Envoy that listens elsewhere differs in its listener alone."""
    await world.publish(TEXT)

    own = world.cache.snapshot(Group(("127.0.0.1", 9999)))

    assert {kind for kind, version in own.versions.items() if version != world.versions[kind]} == {LISTENER}


async def test_a_change_moves_only_what_it_changes(world: World) -> None:
    """Another number of hops is another listener, and the same clusters and routes."""
    await world.publish(TEXT)
    before = world.versions

    assert await world.publish(OTHER, expected=1) == 2

    after = world.versions
    assert after[LISTENER] != before[LISTENER]
    assert (after[CLUSTER], after[ROUTE]) == (before[CLUSTER], before[ROUTE])


async def test_no_change_is_no_revision(world: World) -> None:
    """The same document again wakes nobody and is the same revision."""
    await world.publish(TEXT)
    woken = world.cache.next_change()

    assert await world.publish(TEXT, expected=1) == 1
    assert not woken.is_set()


async def test_a_comment_is_a_revision_that_no_node_notices(world: World) -> None:
    """A document that says the same in other words is kept, and every version stays."""
    await world.publish(TEXT)
    before = world.versions

    assert await world.publish(TEXT + "# and a comment\n", expected=1) == 2
    assert world.versions == before


async def test_the_same_text_in_another_environment_is_a_change(world: World) -> None:
    """A reference's new value is published."""
    await world.publish(TEXT)
    before = world.versions
    world.environment["DISCOVERY_SERVICE_URL"] = "http://10.0.0.9:1"

    assert await world.publish(TEXT, expected=1) == 2
    assert world.versions[CLUSTER] != before[CLUSTER]


@pytest.mark.parametrize("expected", [0, 2, 99])
async def test_a_change_to_another_revision_is_a_conflict(world: World, expected: int) -> None:
    """Who did not see the current revision hears its number, and nothing changes."""
    await world.publish(TEXT)
    before = await world.state()

    with pytest.raises(RevisionConflict) as caught:
        await world.publish(OTHER, expected=expected)

    assert (caught.value.expected, caught.value.current) == (expected, 1)
    assert await world.state() == before


async def test_a_refused_document_leaves_the_previous_in_force(world: World) -> None:
    """Every problem is named, and store, cache and configuration are as before."""
    await world.publish(TEXT)
    before = await world.state()

    with pytest.raises(ConfigRejected) as caught:
        await world.publish(BAD, expected=1)

    assert [problem.path for problem in caught.value.problems] == ["listener.trusted_hobs", "routes.16.service"]
    assert await world.state() == before


async def test_our_own_addresses_are_refused(world: World) -> None:
    """A service that leads into the gateway is refused."""
    with pytest.raises(ConfigRejected, match="own parts"):
        await world.publish(TEXT.replace("localhost:8082", "localhost:18001"))


async def test_envoys_refusal_is_a_problem(executable: Callable[[str], Path]) -> None:
    """What Envoy would not run is refused in Envoy's words."""
    world = World(executable(REFUSES))

    with pytest.raises(ConfigRejected) as caught:
        await world.publish(TEXT)

    assert [problem.message for problem in caught.value.problems] == ["Envoy rejects it: no listener like that"]
    assert await world.state() == (None, {}, None)


async def test_a_judge_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    """Without a verdict nothing is published."""
    world = World(tmp_path / "gone")

    with pytest.raises(EnvoyUnavailable):
        await world.publish(TEXT)

    assert await world.state() == (None, {}, None)


async def test_the_real_envoy_lets_the_default_document_pass(envoy_binary: Path) -> None:
    """The whole path with its real judge."""
    assert await World(envoy_binary).publish(TEXT) == 1


async def test_a_snapshot_that_does_not_hold_together_is_not_published(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own mistake, too, leaves the previous configuration in force."""
    await world.publish(TEXT)
    before = await world.state()

    def inconsistent(*_: object, **__: object) -> None:
        raise TranslationInconsistent("a route leads nowhere")

    monkeypatch.setattr(assemble, "snapshot", inconsistent)
    with pytest.raises(TranslationInconsistent):
        await world.publish(OTHER, expected=1)

    assert await world.state() == before


async def test_a_store_that_fails_changes_nothing() -> None:
    """What could not be kept is not told to anybody."""

    class FullDisk(MemoryStore):
        async def save(self, revision: Revision) -> None:
            raise OSError(28, "No space left on device")

    world = World(store=FullDisk())
    with pytest.raises(OSError, match="No space"):
        await world.publish(TEXT)

    assert await world.state() == (None, {}, None)


async def test_of_changes_at_once_exactly_one_wins(world: World) -> None:
    """Many writers who saw the same revision: one makes the next, the others conflict, and nothing is lost."""
    await world.publish(TEXT)
    texts = [TEXT.replace("max_connections: 25000", f"max_connections: {n}") for n in range(1, 13)]

    results = await asyncio.gather(*(world.publish(text, expected=1) for text in texts), return_exceptions=True)

    assert sorted(map(str, results)).count("2") == 1
    assert sum(isinstance(result, RevisionConflict) for result in results) == len(texts) - 1
    assert world.publisher.published is not None
    assert world.publisher.published.revision.text == texts[results.index(2)]


async def test_two_control_planes_on_one_store(world: World) -> None:
    """A change that another control plane made in between is a conflict, even for one that did not hear of it."""
    other = World(store=world.store)
    await world.publish(TEXT)
    await other.publish(OTHER, expected=1)

    with pytest.raises(RevisionConflict):
        await world.publish(TEXT + "# mine\n", expected=1)


async def test_equal_configurations_are_told_alike(world: World) -> None:
    """Two control planes with one document give the same versions."""
    other = World()
    await world.publish(TEXT)
    await other.publish(TEXT)

    assert world.versions == other.versions


async def test_checking_changes_nothing(world: World) -> None:
    """A document can be tried."""
    await world.publish(TEXT)
    before = await world.state()

    _, config = await world.publisher.check(OTHER)

    assert config.listener.trusted_hops == 1
    assert await world.state() == before
    assert replace(before[0], config=config) != before[0]  # type: ignore[type-var]
