"""The control plane's good copies of published key sets, for Envoy to verify with (`auth.verified_by: envoy`).

A copy is as old as authz's own, at most: both ask the source at least every `jwks_refresh_seconds`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from controlplane.config.jwks import pinned
from controlplane.config.model import GatewayConfig, Provider
from service_kit import jwk
from service_kit.jwks_fetch import Copy, FetchFailed, fetch_key_set

log = structlog.get_logger()

LOOK_SECONDS = 0.5
"""How soon a provider that a new configuration names is asked."""
RETRY_SECONDS = 5.0
"""After a fetch that failed."""
KEEP_SECONDS = 24 * 3600.0
"""A rotation must not be an outage, but a stolen key must age out; then only the authz service decides."""

KeySets = Mapping[str, Mapping[str, Any]]
Fetch = Callable[[Provider, Copy | None], Awaitable[Copy]]


async def fetch(provider: Provider, known: Copy | None) -> Copy:
    """What the provider publishes; `known` itself if it is still that. Raises FetchFailed."""
    return await fetch_key_set(provider.jwks_uri or "", known, ca_file=provider.ca_file)


class KeySetFetcher:
    """Asks each `jwks_uri` in the background and reports what changed. A failed attempt changes nothing.

    `clock` returns monotonic seconds. A source that is slow delays no other one: each has a task of its own.
    """

    def __init__(
        self,
        config: Callable[[], GatewayConfig | None],
        report: Callable[[KeySets], None],
        fetch: Fetch = fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._report, self._fetch, self._clock = config, report, fetch, clock
        self._sources: dict[tuple[str, str], _Source] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self.look()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._asking:
                task.cancel()

    def look(self) -> None:
        """Begin to ask those whose turn it is, forget those that are no longer named, report the good copies."""
        wanted = {(provider.name, provider.jwks_uri or ""): provider for provider in self._wanted()}
        self._sources = {key: self._sources.get(key) or _Source(provider) for key, provider in wanted.items()}
        for key, provider in wanted.items():
            source = self._sources[key]
            source.follow(provider)
            if not source.is_asked and self._clock() >= source.due:
                source.is_asked = True
                task = asyncio.create_task(self._ask(source), name=f"jwks {provider.name}")
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
        self._tell()

    async def settle(self) -> None:
        """Wait for those that are being asked."""
        await asyncio.gather(*self._asking)

    def _wanted(self) -> list[Provider]:
        config = self._config()
        if config is None or config.auth.verified_by != "envoy":
            return []
        return [provider for provider in config.auth.providers if provider.jwks_uri]

    async def _ask(self, source: _Source) -> None:
        began = self._clock()
        try:
            source.accept(await self._fetch(source.provider, source.copy), began, self._clock())
        except (FetchFailed, jwk.KeyUnreadable) as error:
            source.fail(str(error), self._clock())
        except Exception:  # whatever it was, the copies stay and the next look asks again
            log.exception("keys.fetch_crashed", provider=source.provider.name)
            source.fail("a fault of the gateway's own", self._clock())
        finally:
            source.is_asked = False
        self._tell()

    def _tell(self) -> None:
        now = self._clock()
        good = {key: source.keys for key, source in self._sources.items() if now < source.good_until}
        self._report({name: keys for (name, _), keys in good.items()})


class _Source:
    """One provider's `jwks_uri`: what it said last, and when it is asked again."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.copy: Copy | None = None
        self.keys: Mapping[str, Any] = {}
        self.due = self.good_until = float("-inf")
        self.is_asked = False
        self._said = self._failure = ""

    def follow(self, provider: Provider) -> None:
        """Be asked in this way from now on: at once if that is another way."""
        old, self.provider = self.provider, provider
        if (old.jwks_refresh_seconds, old.ca_file) != (provider.jwks_refresh_seconds, provider.ca_file):
            self.due = float("-inf")

    def accept(self, copy: Copy, began: float, now: float) -> None:
        """Use what was fetched. Raises KeyUnreadable for a set that nobody could verify with: its source is at fault.

        Another order of the same keys changes nothing.
        """
        if copy is not self.copy:
            said = jwk.fingerprint(copy.body)
            if said != self._said:
                self.keys, self._said = _usable(copy.body, self.provider), said
            self.copy = copy
        if self._failure:
            log.info("keys.fetched_again", provider=self.provider.name)
        self._failure = ""
        self.good_until = now + KEEP_SECONDS
        self.due = began + (self.provider.jwks_refresh_seconds - LOOK_SECONDS) * random.uniform(0.8, 0.95)

    def fail(self, why: str, now: float) -> None:
        """Keep what is there, and say so: once for each outage, and for each cause in it."""
        if why != self._failure:
            log.warning("keys.not_fetched", provider=self.provider.name, error=why)
        self._failure = why
        self.due = now + min(RETRY_SECONDS, self.provider.jwks_refresh_seconds)


def _usable(body: bytes, provider: Provider) -> Mapping[str, Any]:
    keys = {"keys": jwk.members(body)}
    if not pinned(keys, provider)["keys"]:
        raise jwk.KeyUnreadable("the key set holds no usable key")
    return keys
