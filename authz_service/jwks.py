"""Keys from a `jwks_uri`: fetched in the background, kept while the source is away, asked for once by all who wait."""

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from authz_service.errors import AuthzError, PolicyRefused
from authz_service.keys import KeySet, read_key_set
from authz_service.metrics import JwksMetrics
from authz_service.tokens import Key
from service_kit.files import write_atomically
from service_kit.jwks_fetch import FetchFailed

Fetch = Callable[[], Awaitable[bytes]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JwksTimes:
    """How long things may take, and how often they may happen."""

    refresh_seconds: float = 300.0
    retry_seconds: float = 5.0
    floor_seconds: float = 1.0  # between two fetches that unknown kids ask for
    wait_seconds: float = 0.15  # a request's patience; Envoy's own for us is 250 ms
    fetch_seconds: float = 5.0
    keep_seconds: float = 24 * 3600.0


class RemoteKeys:
    """One provider's keys. Reads (`find`) are in memory; one task of its own does the fetching."""

    def __init__(
        self,
        provider: str,
        algorithms: frozenset[str],
        fetch: Fetch,
        on_change: Callable[[], None],
        metrics: JwksMetrics,
        *,
        times: JwksTimes | None = None,
        kept: Path | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider, self._algorithms, self._fetch = provider, algorithms, fetch
        self._on_change, self._metrics, self._kept = on_change, metrics, kept
        self._times = times or JwksTimes()
        self._clock, self._ticks = clock, ticks
        self._set = KeySet(())
        self._body = b""
        self._fetched_at = 0.0
        self._failed = False
        self._floor_until = 0.0
        self._flight: asyncio.Task[bool] | None = None
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def good_until(self) -> float:
        return self._fetched_at + self._times.keep_seconds if self._set else 0.0

    @property
    def can_refresh(self) -> bool:
        return self._flight is not None or self._ticks() >= self._floor_until

    @property
    def is_stale(self) -> bool:
        return self._failed

    def age(self) -> float:
        """Seconds since the key set in use was fetched; NaN where there is none."""
        return max(0.0, self._clock() - self._fetched_at) if self._set else float("nan")

    def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        return self._set.find(kid, algorithm)

    def start(self) -> None:
        """Begin from what an earlier process kept, and keep fresh from now on."""
        self._metrics.watch(self._provider, self.age)
        self._load()
        self._loop_task = asyncio.create_task(self._keep_fresh(), name=f"jwks {self._provider}")

    async def close(self) -> None:
        tasks = [task for task in (self._loop_task, self._flight) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._metrics.forget(self._provider, self.age)

    async def refresh(self, kid: str | None) -> None:
        """Ask for keys that may be new: one fetch for all who wait, one a floor interval, a short wait for each."""
        try:
            async with asyncio.timeout(self._times.wait_seconds):
                if self._flight is not None:  # begun before we knew of the kid, so it may miss it
                    await asyncio.shield(self._flight)
                    if self._set.has(kid):
                        return
                if self._flight is not None:
                    await asyncio.shield(self._flight)
                elif self._ticks() >= self._floor_until:
                    self._floor_until = self._ticks() + self._times.floor_seconds
                    await asyncio.shield(self._take_off())
        except TimeoutError:
            self._metrics.gave_up(self._provider)

    async def _keep_fresh(self) -> None:
        while True:
            succeeded = await asyncio.shield(self._flight or self._take_off())
            pause = self._times.refresh_seconds if succeeded else self._times.retry_seconds
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))

    def _take_off(self) -> "asyncio.Task[bool]":
        self._flight = asyncio.create_task(self._fly(), name=f"jwks fetch {self._provider}")
        return self._flight

    async def _fly(self) -> bool:
        try:
            async with asyncio.timeout(self._times.fetch_seconds):
                body = await self._fetch()
            self._accept(body)
        except (FetchFailed, PolicyRefused, TimeoutError) as error:
            self._note_failure(error)
        except Exception as error:
            log.exception("jwks.fetch_crashed", provider=self._provider)
            self._note_failure(error)
        finally:
            self._flight = None
        return not self._failed

    def _note_failure(self, error: Exception) -> None:
        if not self._failed:  # once an outage
            log.warning("jwks.fetch_failed", provider=self._provider, error=str(error) or type(error).__name__)
        self._failed = True
        self._metrics.fetched(self._provider, "failure")

    def _accept(self, body: bytes) -> None:
        if body != self._body:
            self._swap(body)
        if self._failed:
            log.info("jwks.fetch_recovered", provider=self._provider)
        self._fetched_at, self._failed = self._clock(), False
        self._metrics.fetched(self._provider, "success")
        self._keep()

    def _swap(self, body: bytes) -> None:
        """An empty set is taken for a fault at the source: a mistake there must not lock everybody out."""
        keys, ignored = read_key_set(body, self._algorithms)
        for key in ignored:
            log.warning("jwks.key_ignored", provider=self._provider, kid=key.kid, why=key.why)
        if not keys:
            raise FetchFailed("the key set holds no usable key")
        self._set, self._body = keys, body
        log.info("jwks.swapped", provider=self._provider, keys=len(keys))
        self._on_change()

    def _keep(self) -> None:
        """Public keys only, so a service that starts while the source is away still knows its callers."""
        if self._kept is None:
            return
        try:
            kept = {"fetched_at": self._fetched_at, "body": self._body.decode("utf-8")}
            write_atomically(self._kept, json.dumps(kept))
        except (OSError, ValueError) as error:
            log.warning("jwks.not_kept", provider=self._provider, error=str(error))

    def _load(self) -> None:
        if self._kept is None or not self._kept.exists():
            return
        try:
            kept = json.loads(self._kept.read_bytes())
            self._swap(kept["body"].encode("utf-8"))
            self._fetched_at = min(float(kept["fetched_at"]), self._clock())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AuthzError) as error:
            log.warning("jwks.kept_unreadable", provider=self._provider, error=type(error).__name__)


def kept_path(directory: Path, provider: str, uri: str) -> Path:
    """Named by the source too: another source's keys must never be taken for this one's."""
    digest = hashlib.sha256(f"{provider}\n{uri}".encode()).hexdigest()[:16]
    return directory / f"authz-jwks-{digest}.json"
