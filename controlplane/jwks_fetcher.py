"""The control plane's good copies of published key sets, for Envoy to verify with (`auth.verified_by: envoy`)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from controlplane.config.model import GatewayConfig

if TYPE_CHECKING:
    import httpx2

log = structlog.get_logger()

INTERVAL_SECONDS = 15.0
LOOK_SECONDS = 1.0
"""How soon a provider that a new configuration names is asked."""
TIMEOUT_SECONDS = 5.0
MAX_BYTES = 1 << 20
# Uncompressed, so that the bound on what we read is the bound on what we hold.
HEADERS = {"accept": "application/jwk-set+json, application/json", "accept-encoding": "identity"}
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
        self._client: httpx2.AsyncClient | None = None

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except Exception:
                    log.exception("keys.look_crashed")  # the next one may not
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            if self._client is not None:
                await self._client.aclose()

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
        import httpx2  # only here: most configurations never get here

        self._asked[name, uri] = self._clock()
        try:
            keys = await asyncio.wait_for(self._get(uri), TIMEOUT_SECONDS)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError, RecursionError) as error:
            log.warning("keys.not_fetched", provider=name, error=str(error) or type(error).__name__)
            return
        self._copies[name, uri] = (self._clock(), keys)

    async def _get(self, uri: str) -> Mapping[str, Any]:
        """The key set. Redirects are not followed: the operator names the place itself."""
        import httpx2

        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=False)
        body = bytearray()
        async with self._client.stream("GET", uri, headers=HEADERS) as response:
            if response.status_code != 200:
                raise ValueError(f"the answer has status {response.status_code}")
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_BYTES:
                    raise ValueError(f"the answer is larger than {MAX_BYTES} bytes")
        keys = json.loads(bytes(body))
        if not isinstance(keys, dict) or not isinstance(keys.get("keys"), list) or not keys["keys"]:
            raise ValueError("the answer is no key set")
        return keys
