"""The control plane's copies of published key sets: fetched in time, kept in outages, reported when they change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane.config.model import GatewayConfig, Provider
from controlplane.jwks_fetcher import KEEP_SECONDS, RETRY_SECONDS, KeySetFetcher, fetch
from service_kit.jwks_fetch import Copy, FetchFailed
from tests.support.clock import FakeClock
from tests.support.configs import a_config
from tests.support.waiting import next_turn, until

ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
ONE, OTHER = (ED25519 | {"kid": kid} for kid in ("one", "other"))
UNUSABLE = {"kty": "oct", "kid": "secret", "k": "AAAA"}
IDP = "https://idp.example/keys"


def the_config(*providers: dict[str, Any], verified_by: str = "envoy") -> GatewayConfig:
    """Providers with keys from a source: `idp`, unless others are named."""
    given = {"algorithms": ["EdDSA"], "jwks_uri": IDP, "jwks_refresh_seconds": 60}
    made = [given | each for each in providers or ({"name": "idp"},)]
    return a_config(auth={"verified_by": verified_by, "providers": made})


class World:
    """Sources by URL, a clock, a configuration, and what was reported."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.config: GatewayConfig | None = the_config()
        self.sources: dict[str, Copy | str] = {}
        """What each source sends, or why it fails."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.slow: str | None = None
        self.asked: list[tuple[str, Copy | None]] = []
        self.reports: list[Mapping[str, Any]] = []
        self.fetcher = KeySetFetcher(lambda: self.config, self._report, self._fetch, clock)

    def publish(self, *keys: Any, uri: str = IDP) -> None:
        self.sources[uri] = Copy(json.dumps({"keys": keys}).encode())

    async def look(self, after: float = 0.0) -> Mapping[str, Any]:
        """What is reported once everybody who was due answered."""
        self.clock.advance(after)
        self.fetcher.look()
        await self.fetcher.settle()
        return self.reports[-1]

    def _report(self, keys: Mapping[str, Any]) -> None:
        self.reports.append(keys)

    async def _fetch(self, provider: Provider, known: Copy | None) -> Copy:
        uri = provider.jwks_uri or ""
        self.asked.append((uri, known))
        if uri == self.slow:
            await self.gate.wait()
        said = self.sources[uri]
        if isinstance(said, str):
            raise FetchFailed(said)
        return known if known == said else said


@pytest.fixture
def world(clock: FakeClock) -> World:
    return World(clock)


async def test_keys_are_fetched_at_once_and_then_in_time(world: World) -> None:
    """At the interval that the provider has, or a little earlier, and never twice in it."""
    world.publish(ONE)
    assert await world.look() == {"idp": {"keys": [ONE]}}

    world.publish(OTHER)
    assert await world.look(after=45) == {"idp": {"keys": [ONE]}}, "it is too early"
    assert await world.look(after=15) == {"idp": {"keys": [OTHER]}}
    assert len(world.asked) == 2


async def test_each_provider_has_its_own_interval(world: World) -> None:
    """One that is asked every second does not make the others busy."""
    eager = {"name": "eager", "jwks_refresh_seconds": 1, "jwks_uri": "https://eager/keys"}
    world.config = the_config({"name": "idp"}, eager)
    world.publish(ONE)
    world.publish(ONE, uri="https://eager/keys")
    for _ in range(5):
        await world.look(after=1)

    assert [uri for uri, _ in world.asked].count("https://eager/keys") == 5
    assert [uri for uri, _ in world.asked].count(IDP) == 1


async def test_a_changed_interval_holds_at_once(world: World) -> None:
    """Whoever shortens it need not wait for the end of the old one."""
    world.publish(ONE)
    world.config = the_config({"name": "idp", "jwks_refresh_seconds": 3600})
    await world.look()

    world.publish(OTHER)
    world.config = the_config({"name": "idp", "jwks_refresh_seconds": 5})
    assert await world.look() == {"idp": {"keys": [OTHER]}}


async def test_the_source_is_told_what_is_known(world: World) -> None:
    """So that it need not send it again; what was rejected is not known."""
    world.publish(ONE)
    first = world.sources[IDP]
    await world.look()
    await world.look(after=60)
    world.publish()
    await world.look(after=60)
    await world.look(after=60)

    assert [known for _, known in world.asked] == [None, first, first, first]


async def test_a_failure_changes_nothing_and_is_logged_once_for_each_cause(world: World) -> None:
    """The copy stays, the source is asked again soon, and the log says why, and when it is over."""
    world.publish(ONE)
    await world.look()
    with capture_logs() as events:
        for why in ("https://idp.example: connection refused", "https://idp.example: status 500"):
            world.sources[IDP] = why
            assert await world.look(after=60) == {"idp": {"keys": [ONE]}}
            assert await world.look(after=RETRY_SECONDS) == {"idp": {"keys": [ONE]}}
        world.publish(OTHER)
        assert await world.look(after=RETRY_SECONDS) == {"idp": {"keys": [OTHER]}}

    assert len(world.asked) == 6
    assert [(event["event"], event.get("error", "").rpartition(": ")[2]) for event in events] == [
        ("keys.not_fetched", "connection refused"),
        ("keys.not_fetched", "status 500"),
        ("keys.fetched_again", ""),
    ]


@pytest.mark.parametrize("keys", [[], [UNUSABLE], [ONE | {"use": "enc"}]], ids=["empty", "a secret", "encryption"])
async def test_a_set_that_nobody_could_verify_with_is_a_fault_of_its_source(keys: list[Any], world: World) -> None:
    """As for the authz service: a mistake there must not lock everybody out."""
    world.publish(ONE)
    await world.look()

    world.publish(*keys)
    assert await world.look(after=60) == {"idp": {"keys": [ONE]}}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"keys":{}}', b"\xff"])
async def test_what_is_no_key_set_changes_nothing(body: bytes, world: World) -> None:
    """An error page with status 200 is one."""
    world.publish(ONE)
    await world.look()

    world.sources[IDP] = Copy(body)
    assert await world.look(after=60) == {"idp": {"keys": [ONE]}}


async def test_another_order_is_no_change(world: World) -> None:
    """The same object is reported, so that nothing is translated again."""
    world.publish(ONE, OTHER)
    first = (await world.look())["idp"]
    for keys in ([OTHER, ONE], [dict(reversed(ONE.items())), OTHER]) * 2:
        world.publish(*keys)
        assert (await world.look(after=60))["idp"] is first

    assert len(world.asked) == 5


async def test_a_copy_is_good_for_a_day(world: World) -> None:
    """Then Envoy has no keys of this provider, and the authz service decides alone."""
    world.publish(ONE)
    await world.look()
    world.sources[IDP] = "down"

    assert await world.look(after=KEEP_SECONDS - 1) == {"idp": {"keys": [ONE]}}
    assert await world.look(after=1) == {}


async def test_a_slow_source_delays_no_other(world: World) -> None:
    """Each is asked by a task of its own, and never twice at once."""
    world.config = the_config({"name": "slow", "jwks_uri": "https://slow/keys"}, {"name": "idp"})
    world.slow = "https://slow/keys"
    world.gate.clear()
    world.publish(ONE, uri="https://slow/keys")
    world.publish(ONE)
    for keys in (ONE, OTHER):
        world.publish(keys)
        world.clock.advance(60)
        world.fetcher.look()
        await until(lambda expected=keys: world.reports[-1] == {"idp": {"keys": [expected]}})  # type: ignore[misc] # a loop's own
    assert [uri for uri, _ in world.asked] == ["https://slow/keys", IDP, IDP]

    world.gate.set()
    await world.fetcher.settle()
    assert set(world.reports[-1]) == {"idp", "slow"}


async def test_a_crash_is_only_a_failure(world: World) -> None:
    """Whatever a client library makes of a strange answer, the next look asks again."""
    assert await world.look() == {}, "there is no such source, which is a KeyError here"

    world.publish(ONE)
    assert await world.look(after=RETRY_SECONDS) == {"idp": {"keys": [ONE]}}


@pytest.mark.parametrize(
    "config",
    [None, the_config(verified_by="authz_service"), the_config({"name": "idp", "jwks_uri": None, "pem": "x"})],
    ids=["none", "by authz", "no source"],
)
async def test_nobody_is_asked_where_envoy_needs_nothing(config: GatewayConfig | None, world: World) -> None:
    """The authz service asks for itself."""
    world.config = config

    assert await world.look() == {}
    assert world.asked == []


async def test_a_provider_that_goes_takes_its_keys_along(world: World) -> None:
    """And another source's keys are never taken for the provider's."""
    world.publish(ONE)
    await world.look()

    world.sources["https://other/keys"] = "down"
    world.config = the_config({"name": "idp", "jwks_uri": "https://other/keys"})
    assert await world.look() == {}
    world.config = the_config({"name": "renamed", "jwks_uri": "https://other/keys"})
    assert await world.look() == {}


async def test_keys_that_come_after_their_provider_is_gone_are_not_used(world: World) -> None:
    """Its answer was on the way."""
    world.slow = IDP
    world.gate.clear()
    world.publish(ONE)
    world.fetcher.look()
    await next_turn()
    world.config = None
    world.fetcher.look()
    world.gate.set()
    await world.fetcher.settle()

    assert world.reports[-1] == {}


async def test_it_runs_until_it_is_cancelled(world: World) -> None:
    """And nobody is asked after that."""
    world.slow = IDP
    world.gate.clear()
    world.publish(ONE)
    running = asyncio.create_task(world.fetcher.run())
    await until(lambda: world.asked)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("jwks ")])

    assert world.reports[-1] == {}


async def test_the_provider_says_how_it_is_asked(tls_source: Any, tmp_path: Any) -> None:
    """A real source behind TLS of an authority that only the provider's `ca_file` knows."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(tls_source.authority)
    trusting, other = (
        the_config({"name": "idp", "jwks_uri": tls_source.url} | more).auth.providers[0]
        for more in ({"ca_file": str(ca_file)}, {})
    )

    assert (await fetch(trusting, None)).body == tls_source.body
    with pytest.raises(FetchFailed, match="TLS"):
        await fetch(other, None)
