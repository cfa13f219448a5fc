"""Remote key sets: kept when the source is away, closed when too old, asked for once by all who wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from authz_service.jwks import JwksTimes, RemoteKeys, last_good_path
from authz_service.metrics import JwksMetrics
from service_kit.jwks_fetch import Copy, FetchFailed, fetch_key_set
from tests.support.waiting import is_waiting

TIMES = JwksTimes(refresh_seconds=300, retry_seconds=300, floor_seconds=10, wait_seconds=2)


class Source:
    """Answers with a key set, or fails, or makes the caller wait; counts its calls."""

    def __init__(self) -> None:
        self.body = b""
        self.fails = False
        self.why = "down"
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, known: Copy | None) -> Copy:
        self.calls += 1
        await self.gate.wait()
        if self.fails:
            raise FetchFailed(self.why)
        return known if known is not None and known.body == self.body else Copy(self.body, '"v"')


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def key_set(private_keys: Any, jwk: Any) -> Any:
    """A key set with these kids."""

    def make(*kids: str) -> bytes:
        return json.dumps({"keys": [jwk(private_keys["ES256"], kid, "ES256") for kid in kids]}).encode()

    return make


class Rig:
    """Remote keys with a clock of their own, and what they reported."""

    def __init__(self, source: Any, clock: Any, last_good: Path | None = None, times: JwksTimes = TIMES) -> None:
        self.clock, self.changes = clock, 0
        self.registry = CollectorRegistry()
        self.keys = RemoteKeys(
            "idp",
            frozenset({"ES256"}),
            source,
            self.changed,
            JwksMetrics(self.registry),
            times=times,
            last_good=last_good,
            clock=clock,
            ticks=clock,
        )

    def changed(self) -> None:
        self.changes += 1

    def knows(self, kid: str) -> bool:
        return bool(self.keys.find(kid, "ES256"))

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"provider": "idp", **labels})


@pytest.fixture
async def rigs(clock: Any) -> AsyncIterator[Any]:
    made: list[Rig] = []

    def make(source: Any, **options: Any) -> Rig:
        rig = Rig(source, clock, **options)
        made.append(rig)
        rig.keys.start()
        return rig

    yield make
    for rig in made:
        await rig.keys.close()


async def test_keys_are_fetched_at_once(rigs: Any, source: Source, key_set: Any, eventually: Any, now: float) -> None:
    """Before anybody asks; whoever verified with older keys is told."""
    source.body = key_set("k1")
    rig = rigs(source)
    assert rig.keys.good_until == 0

    await eventually(lambda: rig.knows("k1"))
    assert (rig.changes, rig.keys.good_until, rig.keys.is_stale) == (1, now + 24 * 3600, False)
    assert rig.sample("mgw_authz_jwks_fetches_total", result="success") == 1


async def test_the_last_good_set_outlives_its_source_for_a_day(
    rigs: Any, source: Source, key_set: Any, eventually: Any, clock: Any, now: float
) -> None:
    """A failed fetch drops nothing, and the age shows; after 24 h nothing verifies any more."""
    source.body = key_set("k1")
    rig = rigs(source)
    await eventually(lambda: rig.knows("k1"))

    source.fails = True
    clock.now = now + 3600
    await rig.keys.refresh("k2")

    assert rig.knows("k1")
    assert (rig.keys.is_stale, rig.keys.good_until) == (True, now + 24 * 3600)
    assert rig.sample("mgw_authz_jwks_age_seconds") == 3600
    assert rig.sample("mgw_authz_jwks_fetches_total", result="failure") == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"keys":[]}', b'{"keys":[{"kty":"oct","k":"AAAA"}]}'])
async def test_a_key_set_without_usable_keys_is_a_failure(
    body: bytes, rigs: Any, source: Source, key_set: Any, eventually: Any
) -> None:
    """An error page or an empty set must not lock everybody out."""
    source.body = key_set("k1")
    rig = rigs(source)
    await eventually(lambda: rig.knows("k1"))

    source.body = body
    await rig.keys.refresh("k2")
    assert (rig.knows("k1"), rig.keys.is_stale) == (True, True)


async def test_a_withdrawn_key_is_forgotten(rigs: Any, source: Source, key_set: Any, eventually: Any) -> None:
    """And so is everything that was verified with it."""
    source.body = key_set("k1", "k2")
    rig = rigs(source)
    await eventually(lambda: rig.knows("k1"))

    source.body = key_set("k2")
    await rig.keys.refresh("k3")
    assert (rig.knows("k1"), rig.knows("k2"), rig.changes) == (False, True, 2)


async def test_an_unchanged_set_disturbs_nobody(
    rigs: Any, source: Source, key_set: Any, eventually: Any, clock: Any, now: float
) -> None:
    """It is younger, and that is all."""
    source.body = key_set("k1")
    rig = rigs(source)
    await eventually(lambda: rig.knows("k1"))

    clock.now = now + 100
    await rig.keys.refresh("k2")
    assert (rig.changes, rig.keys.good_until) == (1, now + 100 + 24 * 3600)


async def test_an_unknown_kid_asks_once_for_all_who_wait(
    rigs: Any, source: Source, key_set: Any, eventually: Any
) -> None:
    """A thousand tokens with a new key cost one fetch, and all of them find it."""
    source.body = key_set("k1")
    rig = rigs(source)
    await eventually(lambda: rig.knows("k1"))

    source.body = key_set("k1", "k2")
    source.gate.clear()
    waiters = [asyncio.create_task(rig.keys.refresh("k2")) for _ in range(1_000)]
    await eventually(lambda: source.calls == 2)
    source.gate.set()
    await asyncio.gather(*waiters)

    assert rig.knows("k2")
    assert source.calls == 2


async def test_random_kids_cost_one_fetch_a_floor_interval(
    rigs: Any, source: Source, key_set: Any, eventually: Any, clock: Any, now: float
) -> None:
    """Ten thousand of them, and again in the next interval."""
    source.body = key_set("k1")
    rig = rigs(source)
    await eventually(lambda: rig.knows("k1"))

    for interval in range(2):
        clock.now = now + interval * TIMES.floor_seconds
        assert rig.keys.can_refresh
        for number in range(10_000):
            if rig.keys.can_refresh:
                await rig.keys.refresh(f"random-{number}")
        assert source.calls == 2 + interval
        assert not rig.keys.can_refresh


async def test_a_fetch_that_began_before_the_request_is_not_enough(
    rigs: Any, source: Source, key_set: Any, eventually: Any
) -> None:
    """It may have missed the key, so one more is made, at once."""
    source.body = key_set("k1")
    source.gate.clear()
    rig = rigs(source)
    await eventually(lambda: source.calls == 1)

    question = asyncio.create_task(rig.keys.refresh("k2"))
    await eventually(lambda: is_waiting(question))
    source.gate.set()
    await question
    assert source.calls == 2


async def test_a_request_waits_a_short_time_only(rigs: Any, source: Source, key_set: Any) -> None:
    """A source that hangs holds no request, and is asked no second time meanwhile."""
    source.gate.clear()
    rig = rigs(source, times=JwksTimes(wait_seconds=0.02))

    await rig.keys.refresh("k1")
    assert (source.calls, rig.knows("k1"), rig.keys.can_refresh) == (1, False, True)
    assert rig.sample("mgw_authz_jwks_waits_given_up_total") == 1


async def test_a_source_that_raises_anything_is_only_failing(rigs: Any, key_set: Any, eventually: Any) -> None:
    """Whatever the client library makes of a strange response, the task lives."""
    outcomes: list[Any] = [RuntimeError("?"), key_set("k1")]

    async def fetch(known: Copy | None) -> Copy:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return Copy(outcome)

    rig = rigs(fetch, times=JwksTimes(retry_seconds=0.01))
    await eventually(lambda: rig.knows("k1"))
    assert rig.sample("mgw_authz_jwks_fetches_total", result="failure") == 1


async def test_a_new_process_starts_from_what_the_old_one_kept(
    rigs: Any, source: Source, key_set: Any, eventually: Any, clock: Any, now: float, tmp_path: Path
) -> None:
    """With its age, so that a restart makes no key younger."""
    path = last_good_path(tmp_path, "idp", "https://idp/keys")
    source.body = key_set("k1")
    rig = rigs(source, last_good=path)
    await eventually(path.exists)
    assert path.stat().st_mode & 0o777 == 0o600

    source.fails = True
    clock.now = now + 3600
    rig = rigs(source, last_good=path)
    assert rig.knows("k1")
    assert rig.keys.good_until == now + 24 * 3600


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"fetched_at":1,"body":"{}"}', '{"fetched_at":"x","body":5}']
)
async def test_what_was_kept_badly_is_not_used(text: str, rigs: Any, source: Source, tmp_path: Path) -> None:
    """The source is asked instead."""
    path = last_good_path(tmp_path, "idp", "https://idp/keys")
    path.write_text(text)
    source.fails = True

    assert rigs(source, last_good=path).keys.good_until == 0
    assert path != last_good_path(tmp_path, "idp", "https://other/keys")


async def test_what_was_kept_with_other_algorithms_is_not_used(
    rigs: Any, source: Source, private_keys: Any, jwk: Any, tmp_path: Path
) -> None:
    """A set without a key that the provider may use now is ignored, and the start goes on."""
    path = last_good_path(tmp_path, "idp", "https://idp/keys")
    body = json.dumps({"keys": [jwk(private_keys["RS256"], "k1", "RS256")]})
    path.write_text(json.dumps({"fetched_at": 1, "body": body}))
    source.fails = True

    assert rigs(source, last_good=path).keys.good_until == 0


async def test_against_a_real_server(
    rigs: Any, key_source: Any, key_set: Any, eventually: Any, clock: Any, now: float
) -> None:
    """Fetched, rotated, gone with a 500, and back."""
    key_source.body = key_set("k1")
    rig = rigs(partial(fetch_key_set, key_source.url))
    await eventually(lambda: rig.knows("k1"))

    key_source.body = key_set("k2")
    await rig.keys.refresh("k2")
    assert rig.knows("k2")

    key_source.status = 500
    clock.now = now + 20
    await rig.keys.refresh("k3")
    assert (rig.knows("k2"), rig.keys.is_stale) == (True, True)

    key_source.status, key_source.body = 200, key_set("k3")
    clock.now = now + 40
    await rig.keys.refresh("k3")
    assert (rig.knows("k3"), rig.keys.is_stale) == (True, False)


async def test_what_has_not_changed_is_only_asked_about(
    rigs: Any, key_source: Any, key_set: Any, eventually: Any, clock: Any, now: float
) -> None:
    """The source's 304 makes the set younger; a copy that was rejected is never asked about."""
    key_source.body, key_source.headers = key_set("k1"), {"etag": '"one"'}
    rig = rigs(partial(fetch_key_set, key_source.url))
    await eventually(lambda: rig.knows("k1"))

    key_source.status, key_source.body = 304, b""
    clock.now = now + 100
    await rig.keys.refresh("k2")
    assert key_source.asked[-1]["if-none-match"] == '"one"'
    assert (rig.knows("k1"), rig.changes, rig.keys.good_until) == (True, 1, now + 100 + 24 * 3600)

    key_source.status, key_source.body, key_source.headers = 200, b'{"keys":[]}', {"etag": '"two"'}
    clock.now = now + 200
    await rig.keys.refresh("k2")
    clock.now = now + 300
    await rig.keys.refresh("k2")
    assert key_source.asked[-1]["if-none-match"] == '"one"'


async def test_another_order_rebuilds_nothing(
    rigs: Any, source: Source, key_set: Any, eventually: Any, clock: Any, now: float
) -> None:
    """Of keys, or of their members: whoever verified goes on."""
    source.body = key_set("k1", "k2")
    rig = rigs(source)
    await eventually(lambda: rig.knows("k1"))

    turned = [dict(reversed(key.items())) for key in reversed(json.loads(source.body)["keys"])]
    for number, body in enumerate([json.dumps({"keys": turned}, indent=1).encode(), source.body] * 2, 1):
        source.body, clock.now = body, now + number * 100
        await rig.keys.refresh("k3")
    assert (source.calls, rig.changes) == (5, 1)


async def test_decisions_are_kept_until_the_next_fetch(
    rigs: Any, source: Source, key_set: Any, eventually: Any, clock: Any, now: float
) -> None:
    """So that whoever keeps one for longer than we do has forgotten it by then; an outage says nothing of keys."""
    source.body = key_set("k1")
    rig = rigs(source, times=JwksTimes(refresh_seconds=60, retry_seconds=5, fetch_seconds=5))
    assert rig.keys.decisions_until == 0, "nothing is fetched yet"
    await eventually(lambda: rig.knows("k1"))
    assert rig.keys.decisions_until == now + 61

    source.fails, clock.now = True, now + 100
    await rig.keys.refresh("k2")
    assert rig.keys.decisions_until == now + 111


async def test_an_ignored_key_is_logged_once_a_change(
    rigs: Any, source: Source, key_set: Any, eventually: Any, clock: Any, now: float
) -> None:
    """However often the set is read, rejected ones included."""
    good = json.loads(key_set("k1"))["keys"]
    odd, other = ({"kty": "EC", "kid": kid, "use": "enc"} for kid in ("odd", "other"))
    with capture_logs() as events:
        source.body = json.dumps({"keys": [*good, odd]}).encode()
        rig = rigs(source)
        await eventually(lambda: rig.knows("k1"))
        for number, keys in enumerate([[odd], [odd], [*good, odd], [odd, *good], [*good, odd, other]], 1):
            source.body, clock.now = json.dumps({"keys": keys}).encode(), now + number * 100
            await rig.keys.refresh("k9")

    ignored = [event["kid"] for event in events if event["event"] == "jwks.key_ignored"]
    assert (source.calls, ignored) == (6, ["odd", "other"])


async def test_an_outage_is_logged_once_and_a_new_cause_again(
    rigs: Any, source: Source, eventually: Any, clock: Any, now: float
) -> None:
    """With the reason."""
    source.fails = True
    with capture_logs() as events:
        rig = rigs(source)
        await eventually(lambda: rig.keys.is_stale)
        for number, why in enumerate(["down", "down", "still down"], 1):
            source.why, clock.now = why, now + number * 100
            await rig.keys.refresh("k1")

    assert source.calls == 4
    assert [event["error"] for event in events if event["event"] == "jwks.fetch_failed"] == ["down", "still down"]


async def test_another_way_to_fetch_is_used_at_once(rigs: Any, source: Source, key_set: Any, eventually: Any) -> None:
    """The keys stay meanwhile; the same way again asks nobody."""
    source.body = key_set("k1")
    rig = rigs(source)
    await eventually(lambda: rig.knows("k1"))
    rig.keys.tune(source, TIMES)

    other = Source()
    other.body = key_set("k2")
    rig.keys.tune(other, TIMES)
    assert rig.knows("k1")
    await eventually(lambda: rig.knows("k2"))
    assert (source.calls, other.calls) == (1, 1)


async def test_a_source_is_asked_again_and_again(rigs: Any, source: Source, key_set: Any, eventually: Any) -> None:
    """At the interval that the provider has."""
    source.body = key_set("k1")
    rig = rigs(source, times=JwksTimes(refresh_seconds=0.01))
    await eventually(lambda: rig.knows("k1"))

    source.body = key_set("k2")
    await eventually(lambda: rig.knows("k2"))
    assert not rig.knows("k1")
