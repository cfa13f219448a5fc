"""Keys from a `jwks_uri`: fetched in the background, once for all who wait, and kept while the source is away."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from authz_service.errors import AuthzError, PolicyRejected
from authz_service.ignored_keys import IgnoredKeys
from authz_service.keys import KeySet, read_key_set
from authz_service.metrics import JwksMetrics
from authz_service.tokens import Key
from service_kit.files import write_atomically
from service_kit.jwk import KeyUnreadable, fingerprint
from service_kit.jwks_fetch import Copy, FetchFailed

Fetch = Callable[[Copy | None], Awaitable[Copy]]
"""Returns what the source publishes; its argument itself if that is still what it publishes."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JwksTimes:
    """How long things may take, and how often they may happen. All in seconds."""

    refresh_seconds: float = 60.0
    """From the start of a fetch that succeeded to the start of the next one, at most."""
    retry_seconds: float = 5.0
    """From the end of a fetch that failed to the next one, at most."""
    floor_seconds: float = 1.0
    """The least time between two fetches because of unknown kids."""
    wait_seconds: float = 0.15
    """How long a request waits for a fetch. Envoy waits 250 ms for us."""
    fetch_seconds: float = 5.0
    """How long a fetch may take."""
    keep_seconds: float = 24 * 3600.0
    """How long a key set may be used after its fetch."""
    grace_seconds: float = 1.0
    """How long a decision may be kept after the time for the next fetch has come."""


class RemoteKeys:
    """One provider's keys: a `tokens.Keys`. `find` reads from memory; a task of its own fetches.

    `last_good` is the file that keeps the key set over a restart. `clock` returns Unix seconds, `ticks` monotonic ones.
    """

    def __init__(
        self,
        provider: str,
        algorithms: frozenset[str],
        fetch: Fetch,
        on_change: Callable[[], None],
        metrics: JwksMetrics,
        *,
        times: JwksTimes | None = None,
        ignored: IgnoredKeys | None = None,
        last_good: Path | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider, self._algorithms, self._fetch = provider, algorithms, fetch
        self._on_change, self._metrics, self._last_good = on_change, metrics, last_good
        self._times = times or JwksTimes()
        self._ignored = ignored or IgnoredKeys()
        self._clock, self._ticks = clock, ticks
        self._set = KeySet(())
        self._copy: Copy | None = None
        self._fingerprint = ""
        self._fetched_at = 0.0
        self._decisions_until = 0.0
        self._failure = ""
        self._floor_until = 0.0
        self._tuned = asyncio.Event()
        self._fetching: asyncio.Task[bool] | None = None
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def good_until(self) -> float:
        """Until when the key set may be used, in Unix seconds; 0 where there is none."""
        return self._fetched_at + self._times.keep_seconds if self._set else 0.0

    @property
    def decisions_until(self) -> float:
        """Until when a decision by these keys may be kept, in Unix seconds: about when they are fetched again."""
        return self._decisions_until

    @property
    def can_refresh(self) -> bool:
        """Whether a fetch is running, or may be started now."""
        return self._fetching is not None or self._ticks() >= self._floor_until

    @property
    def is_stale(self) -> bool:
        """Whether the last fetch failed."""
        return bool(self._failure)

    def age(self) -> float:
        """Seconds since the key set in use was fetched; NaN where there is none."""
        return max(0.0, self._clock() - self._fetched_at) if self._set else float("nan")

    def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys that may have signed a token with this `kid` and algorithm."""
        return self._set.find(kid, algorithm)

    def start(self) -> None:
        """Load what an earlier process kept, and fetch from now on."""
        self._metrics.watch(self._provider, self.age)
        self._load()
        self._loop_task = asyncio.create_task(self._keep_fresh(), name=f"jwks {self._provider}")

    def tune(self, fetch: Fetch, times: JwksTimes) -> None:
        """Fetch in this way, and so often, from now on. The keys stay."""
        if times == self._times and fetch == self._fetch:
            return
        self._fetch, self._times = fetch, times
        self._tuned.set()

    async def close(self) -> None:
        """Stop fetching."""
        tasks = [task for task in (self._loop_task, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._metrics.forget(self._provider, self.age)

    async def refresh(self, kid: str | None) -> None:
        """Fetch the keys, because `kid` is missing, and wait at most `wait_seconds`.

        All requests that wait share one fetch, and there is at most one in `floor_seconds`.
        """
        try:
            async with asyncio.timeout(self._times.wait_seconds):
                if self._fetching is not None:  # it began before, so it may lack the kid
                    await asyncio.shield(self._fetching)
                    if self._set.has(kid):
                        return
                if self._fetching is not None:
                    await asyncio.shield(self._fetching)
                elif self._ticks() >= self._floor_until:
                    self._floor_until = self._ticks() + self._times.floor_seconds
                    await asyncio.shield(self._start_fetch())
        except TimeoutError:
            self._metrics.wait_given_up(self._provider)

    async def _keep_fresh(self) -> None:
        while True:
            began = self._ticks()
            succeeded = await asyncio.shield(self._fetching or self._start_fetch())
            await self._pause(self._ticks() - began, succeeded)

    async def _pause(self, taken: float, succeeded: bool) -> None:
        """Until the next fetch is due, or it is to be made in another way.

        Replicas that started together drift apart, and the next fetch has time to end before it was promised.
        """
        times = self._times
        pause = times.refresh_seconds - taken if succeeded else min(times.retry_seconds, times.refresh_seconds)
        try:
            async with asyncio.timeout(max(0.0, pause) * random.uniform(0.8, 0.95)):
                await self._tuned.wait()
        except TimeoutError:
            return
        self._tuned.clear()

    def _start_fetch(self) -> asyncio.Task[bool]:
        self._fetching = asyncio.create_task(self._fetch_once(), name=f"jwks fetch {self._provider}")
        return self._fetching

    async def _fetch_once(self) -> bool:
        began = self._clock()
        try:
            # `fetch` keeps the time itself, and then says whose fault it was. This holds if it does not.
            async with asyncio.timeout(self._times.fetch_seconds + self._times.grace_seconds):
                copy = await self._fetch(self._copy)
            self._accept(copy, began)
        except (FetchFailed, PolicyRejected, TimeoutError) as error:
            self._note_failure(str(error) or "time-out")
        except Exception as error:  # whatever it was, the keys that are held go on serving
            log.exception("jwks.fetch_crashed", provider=self._provider)
            self._note_failure(type(error).__name__)
        finally:
            self._fetching = None
        return not self._failure

    def _note_failure(self, why: str) -> None:
        if why != self._failure:  # one line for each outage, and for each cause in it
            log.warning("jwks.fetch_failed", provider=self._provider, error=why)
        self._failure = why
        self._metrics.fetched(self._provider, False)
        times = self._times
        self._decisions_until = self._clock() + times.retry_seconds + times.fetch_seconds + times.grace_seconds

    def _accept(self, copy: Copy, began: float) -> None:
        if copy is not self._copy:
            self._swap(copy.body)
            self._copy = copy
        if self._failure:
            log.info("jwks.fetch_recovered", provider=self._provider)
        self._fetched_at, self._failure = self._clock(), ""
        self._decisions_until = began + self._times.refresh_seconds + self._times.grace_seconds
        self._metrics.fetched(self._provider, True)
        self._keep()

    def _swap(self, body: bytes) -> None:
        """A set without a usable key counts as a failed fetch: a mistake at the source must not lock everybody out.

        A set that says the same in another order is no other set.
        """
        try:
            said = fingerprint(body)
        except KeyUnreadable as error:
            raise PolicyRejected(str(error)) from error
        if said == self._fingerprint:
            return
        keys, ignored = read_key_set(body, self._algorithms)
        self._ignored.note(self._provider, ignored)
        if not keys:
            raise PolicyRejected("the key set holds no usable key")
        self._set, self._fingerprint = keys, said
        log.info("jwks.swapped", provider=self._provider, keys=len(keys))
        self._on_change()

    def _keep(self) -> None:
        """Public keys only. With them a service that starts while the source is away can verify tokens."""
        if self._last_good is None or self._copy is None:
            return
        try:
            text = json.dumps({"fetched_at": self._fetched_at, "body": self._copy.body.decode("utf-8")})
            write_atomically(self._last_good, text)
        except (OSError, ValueError) as error:
            log.warning("jwks.not_kept", provider=self._provider, error=str(error))

    def _load(self) -> None:
        if self._last_good is None or not self._last_good.exists():
            return
        try:
            document = json.loads(self._last_good.read_bytes())
            self._swap(document["body"].encode("utf-8"))
            self._fetched_at = min(float(document["fetched_at"]), self._clock())
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AuthzError) as error:
            log.warning("jwks.kept_unreadable", provider=self._provider, error=type(error).__name__)


def last_good_path(directory: Path, provider: str, uri: str) -> Path:
    """Where a provider's key set is kept. The source is in the name, so that another source's keys are never used."""
    digest = hashlib.sha256(f"{provider}\n{uri}".encode()).hexdigest()[:16]
    return directory / f"authz-jwks-{digest}.json"
