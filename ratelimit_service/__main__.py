"""Starts the rate-limit service: `python -m ratelimit_service`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import structlog

from ratelimit_service.counters.memory import MemoryCounters
from ratelimit_service.errors import PolicyRejected
from ratelimit_service.limiter import Limiter
from ratelimit_service.metrics import Metrics
from ratelimit_service.operations import Operations
from ratelimit_service.operator_server import OperatorServer
from ratelimit_service.policy import read_policy
from ratelimit_service.quota_server import QuotaServer
from ratelimit_service.rate_limit_server import SERVICE, RateLimitServer
from ratelimit_service.rls_policy import is_rls, load
from ratelimit_service.settings import Settings, read_settings
from ratelimit_service.store_monitor import EVICTS, STORE, StoreMonitor
from service_kit import process
from service_kit import settings as kit_settings
from service_kit.ads_client import AdsClient
from service_kit.errors import StartFailed
from service_kit.grpc_server import GrpcServer
from service_kit.log import configure_log

if TYPE_CHECKING:
    from ratelimit_service.rls_server import RlsServer

log = structlog.get_logger()

TYPE_URL = "type.googleapis.com/mgw.policy.v1.RatelimitPolicy"


def main() -> None:
    process.run("ratelimit_service", _start)


async def _start() -> None:
    settings = read_settings(os.environ)
    configure_log(settings.log_level, "ratelimit")
    await Ratelimit(settings).run()


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
        self._serving = GrpcServer(
            settings.listen, handlers, [SERVICE], settings.transport, dependencies=[STORE, EVICTS]
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._has_failed = False

    async def run(self) -> None:
        settings = self._settings
        self._stop = process.stop_signal()
        log.info("ratelimit.starting", settings=kit_settings.shown(settings))
        await self._serving.start()
        metrics = process.serve_metrics(settings.metrics_listen, self._metrics.registry)
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
        if settings.redis_url.kind == "none":
            await self._serving.set_dependency(STORE, True)
            self._metrics.store_up.set(1)
            self._operator.operations = Operations(local)
            return Limiter(local, None, self._metrics)
        from ratelimit_service.counters.cluster import (
            open_counters,  # redis-py takes a tenth of a second; the port is open by now
        )
        from ratelimit_service.counters.redis import RedisCounters

        monitor = StoreMonitor(self._metrics, self._serving.set_dependency)
        counters = open_counters(settings.redis_url, monitor, local, settings.store_timeout_seconds)
        self._start(counters.run())
        self._operator.operations = Operations(counters)
        if self._rls is not None and isinstance(counters, RedisCounters):  # `_open_rls` takes no cluster
            self._rls.use_store(counters)
        return Limiter(counters, local, self._metrics)

    def _take_first_policy(self) -> AdsClient | None:
        """From the file or from the last run; then from the control plane, which the returned client asks."""
        settings = self._settings
        if self._rls is not None:
            self._ready.set()
            return None
        if settings.policy_file is not None:
            try:
                document = json.loads(settings.policy_file.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise StartFailed(f"{settings.policy_file}: cannot be read as JSON: {error}") from error
            problem = self._on_policy(document)
            if problem is not None:
                raise StartFailed(f"{settings.policy_file}: {problem}")
            return None
        client = AdsClient(
            settings.controlplane or "", settings.node_id, TYPE_URL, self._on_policy, settings.last_good_policy
        )
        if not client.load_last_good():
            log.warning("policy.none", effect="requests pass unlimited until the control plane sends one")
        return client

    def _on_policy(self, document: Mapping[str, Any]) -> str | None:
        try:
            plan = read_policy(document)
        except PolicyRejected as rejection:
            self._metrics.policy_rejected.inc()
            return str(rejection)
        self._server.plan = plan
        self._quotas.adopt(plan)
        self._metrics.policy_accepted.inc()
        self._ready.set()
        return None

    async def _announce(self, metrics: str | None) -> None:
        """Ready means that responses are decisions: the port is open and a policy is in force."""
        await self._ready.wait()
        await self._serving.set_ready()
        process.freeze_heap()
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
    """The server for a policy of envoyproxy/ratelimit's form; None for any other policy."""
    if settings.policy_file is None or not is_rls(settings.policy_file):
        return None
    if settings.redis_url.kind == "cluster":
        raise StartFailed("REDIS_URL: a YAML policy counts on one Redis, not on a cluster")
    from ratelimit_service.rls_server import RlsServer  # it brings redis-py along, which the usual start puts off

    try:
        policy = load(settings.policy_file)
    except PolicyRejected as rejection:
        raise StartFailed(str(rejection)) from rejection
    return RlsServer(metrics, policy, settings.max_identities, is_alone=settings.redis_url.kind == "none")


if __name__ == "__main__":
    main()
