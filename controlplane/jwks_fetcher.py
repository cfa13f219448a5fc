"""The control plane's good copies of published key sets, for Envoy to verify with (`auth.verified_by: envoy`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from controlplane.config.model import GatewayConfig
from service_kit import jwk
from service_kit.jwks_fetch import FetchFailed, fetch_key_set

log = structlog.get_logger()

INTERVAL_SECONDS = 15.0
LOOK_SECONDS = 1.0
"""How soon a provider that a new configuration names is asked."""
KEEP_SECONDS = 24 * 3600.0
"""A rotation must not be an outage, but a stolen key must age out; then only the authz service decides."""


class KeySetFetcher:
    """Asks each `jwks_uri` in the background and reports what changed. A failed attempt changes nothing."""

    def __init__(
        self,
        config: Callable[[], GatewayConfig | None],
        report: Callable[[Mapping[str, Mapping[str, Any]]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._report = report
        self._clock = clock
        self._copies: dict[tuple[str, str], tuple[float, Mapping[str, Any]]] = {}
        self._asked: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:  # the next look may not crash, and the copies stay
                log.exception("keys.look_crashed")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask those whose turn it is, side by side, and report the copies that are good."""
        wanted = self._wanted()
        now = self._clock()
        due = [each for each in wanted if now - self._asked.get(each, float("-inf")) >= INTERVAL_SECONDS]
        await asyncio.gather(*(self._ask(*each) for each in due))
        good = {
            name: self._copies[name, uri][1]
            for name, uri in wanted
            if (name, uri) in self._copies and self._clock() - self._copies[name, uri][0] < KEEP_SECONDS
        }
        self._report(good)

    def _wanted(self) -> list[tuple[str, str]]:
        config = self._config()
        if config is None or config.auth.verified_by != "envoy":
            return []
        return [(provider.name, provider.jwks_uri) for provider in config.auth.providers if provider.jwks_uri]

    async def _ask(self, name: str, uri: str) -> None:
        self._asked[name, uri] = self._clock()
        try:
            keys = _key_set(await fetch_key_set(uri))
        except (FetchFailed, jwk.KeyUnreadable) as error:
            log.warning("keys.not_fetched", provider=name, error=str(error))
            return
        self._copies[name, uri] = (self._clock(), keys)


def _key_set(body: bytes) -> Mapping[str, Any]:
    """What was fetched. An empty set is taken for a fault at the source. Raises KeyUnreadable."""
    members = jwk.members(body)
    if not members:
        raise jwk.KeyUnreadable("the key set is empty")
    return {"keys": members}
