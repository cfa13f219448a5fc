"""Starts the rate-limit service: `python -m ratelimit_service`."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import structlog
import uvloop
from google.protobuf.internal import api_implementation

from .adsclient import AdsClient
from .counters.memory import MemoryCounters
from .errors import PolicyRefused, StartRefused
from .limiter import Limiter
from .log import configure_log
from .metrics import Metrics
from .operations import Operations
from .operator import OperatorServer
from .policy import read_policy
from .quotaserver import QuotaServer
from .rls_policy import is_rls, load
from .server import SERVICE, RateLimitServer
from .serving import Serving, serve_metrics, stop_signal
from .settings import Settings, read_settings
from .storewatch import StoreWatch

if TYPE_CHECKING:
    from .rlsserver import RlsServer

log = structlog.get_logger()

TYPE_URL = "type.googleapis.com/mgw.policy.v1.RatelimitPolicy"


def main() -> None:
    try:
        settings = read_settings(os.environ)
        if api_implementation.Type() != "upb":
            raise StartRefused("protobuf runs without its C implementation, 80 times slower: install it from a wheel")
        configure_log(settings.log_level, "ratelimit")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Ratelimit(settings).run())
    except StartRefused as refusal:
        print(f"ratelimit_service: {refusal}", file=sys.stderr)  # noqa: T201 - the one line for the operator
        sys.exit(1)


class Ratelimit:
    """The process: its parts, in the order in which they start and end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._server = RateLimitServer(self._metrics)
        self._operator = OperatorServer(self._server, self._metrics)
        self._quotas = QuotaServer(self._metrics)
        self._rls = _open_rls(settings, self._metrics)
        decider = self._rls or self._server
        handlers = [decider.handler(), self._operator.handler(), self._quotas.handler()]
        self._serving = Serving(settings.listen, handlers, [SERVICE], settings.transport)
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._has_failed = False

    async def run(self) -> None:
        settings = self._settings
        self._stop = stop_signal()
        log.info("ratelimit.starting", settings=settings.shown())
        await self._serving.start()
        metrics = serve_metrics(settings.metrics_listen, self._metrics.registry) if settings.metrics_listen else None
        try:
            self._server.limiter = await self._open_limiter()
            client = self._take_first_policy()
            if client is not None:
                self._start(client.run())
            self._start(self._quotas.run())
            self._start(self._announce(metrics))
            await self._stop.wait()
            log.info("ratelimit.draining")
        finally:
            await self._serving.drain(settings.drain_seconds)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        log.info("ratelimit.stopped")
        if self._has_failed:
            raise SystemExit(1)

    async def _open_limiter(self) -> Limiter:
        """A store that cannot be reached is no reason not to start: decisions degrade until it is there."""
        settings = self._settings
        local = MemoryCounters(settings.max_identities)
        self._metrics.identities.set_function(lambda: len(local))
        if settings.redis_url == "none":
            await self._serving.set_store(True)
            self._metrics.store_up.set(1)
            self._operator.operations = Operations(local)
            return Limiter(local, None, self._metrics)
        from .counters.cluster import open_counters  # redis-py takes a tenth of a second; the port is open by now
        from .counters.redis import RedisCounters

        watch = StoreWatch(self._metrics, self._serving.set_store)
        counters = open_counters(settings.redis_url, watch, local, settings.store_timeout_seconds)
        self._start(counters.run())
        self._operator.operations = Operations(counters)
        if self._rls is not None and isinstance(counters, RedisCounters):  # `_open_rls` takes no cluster
            self._rls.use_store(counters)
        return Limiter(counters, local, self._metrics)

    def _take_first_policy(self) -> AdsClient | None:
        """From the file or from the last run; then from the control plane, which the answered client asks."""
        settings = self._settings
        if self._rls is not None:
            self._ready.set()
            return None
        if settings.policy_file is not None:
            try:
                document = json.loads(settings.policy_file.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise StartRefused(f"{settings.policy_file}: cannot be read as JSON: {error}") from error
            problem = self._on_policy(document)
            if problem is not None:
                raise StartRefused(f"{settings.policy_file}: {problem}")
            return None
        client = AdsClient(
            settings.controlplane, settings.node_id, TYPE_URL, self._on_policy, settings.last_good_policy
        )
        if not client.load_kept():
            log.warning("policy.none", effect="requests pass unlimited until the control plane sends one")
        return client

    def _on_policy(self, document: Mapping[str, Any]) -> str | None:
        try:
            plan = read_policy(document)
        except PolicyRefused as refusal:
            self._metrics.policy_refused.inc()
            return str(refusal)
        self._server.plan = plan
        self._quotas.adopt(plan)
        self._metrics.policy_accepted.inc()
        self._ready.set()
        return None

    async def _announce(self, metrics: str | None) -> None:
        """Ready means that answers are decisions: the port is open and a policy is in force."""
        await self._ready.wait()
        await self._serving.set_ready()
        # What is alive now stays alive: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        log.info("ratelimit.ready", address=self._serving.address, metrics=metrics)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._stop_if_failed)
        self._tasks.append(task)

    def _stop_if_failed(self, task: asyncio.Task[None]) -> None:
        """Half a service is worse than none: whoever watches the process starts it again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task.failed", exc_info=error)
            self._has_failed = True
            self._stop.set()


def _open_rls(settings: Settings, metrics: Metrics) -> RlsServer | None:
    """What answers where the policy is a file of envoyproxy/ratelimit's form."""
    if settings.policy_file is None or not is_rls(settings.policy_file):
        return None
    if settings.redis_url.startswith("redis+cluster://"):
        raise StartRefused("REDIS_URL: a YAML policy counts on one Redis, not on a cluster")
    from .rlsserver import RlsServer  # it brings redis-py along, which the usual start puts off

    try:
        return RlsServer(metrics, load(settings.policy_file), settings.max_identities, settings.redis_url == "none")
    except PolicyRefused as refusal:
        raise StartRefused(str(refusal)) from refusal


if __name__ == "__main__":
    main()
