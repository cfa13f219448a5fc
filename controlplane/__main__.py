"""The control plane's process: `python -m controlplane`."""

from __future__ import annotations

import os

# gRPC reads it when it is imported. The judge is exec'd at once, so nothing of gRPC needs to survive a fork.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import asyncio
import contextlib
import gc
import importlib
import signal
import sys
import time
from typing import Any

import structlog
import uvloop

from controlplane.breakers.controller import BreakerController
from controlplane.breakers.override_file import OverrideFile
from controlplane.breakers.registry import BreakerRegistry
from controlplane.config import envoy_validate
from controlplane.errors import ConfigRejected, ControlPlaneError, EnvoyUnavailable
from controlplane.health.checker import HealthChecker
from controlplane.health.probes import GrpcProbe, ServiceProbe
from controlplane.health.unread_addresses import UnreadAddresses
from controlplane.jwks_fetcher import KeySetFetcher
from controlplane.limits_client import CallerLimits
from controlplane.protos import require_upb
from controlplane.publish import Change, Publisher
from controlplane.settings import Settings
from controlplane.store.memory import MemoryStore
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.runtime import RuntimeLayers
from controlplane.xds.server import DiscoveryServer
from controlplane.xds.status import NodeRegistry
from service_kit import settings as kit_settings
from service_kit.errors import StartFailed
from service_kit.log import configure_log

logger = structlog.get_logger()

STOP_GRACE_SECONDS = 1.0


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status; what cannot start says why in one line."""
    require_upb()
    try:
        settings = Settings.from_environment(os.environ)
    except StartFailed as error:
        print(f"the control plane cannot start: {error}", file=sys.stderr)  # noqa: T201
        return 1
    configure_log(settings.log_level, "controlplane")
    logger.info("controlplane.starting", settings=kit_settings.shown(settings))
    try:
        uvloop.run(_run(settings))
    except ConfigRejected as error:
        for problem in error.problems:
            print(problem.at(str(settings.config)), file=sys.stderr)  # noqa: T201
        return 1
    except (ControlPlaneError, OSError, RuntimeError, UnicodeDecodeError) as error:
        print(f"the control plane cannot start: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _run(settings: Settings) -> None:
    cache, registry, layers = SnapshotCache(), NodeRegistry(), RuntimeLayers()
    publisher = Publisher(MemoryStore(), cache, settings.topology, os.environ, settings.internal, _judge())
    breaker_registry, override_file = BreakerRegistry(time.monotonic), OverrideFile(settings.state_dir)
    breakers = BreakerController(
        breaker_registry, layers, override_file, publisher.current_config, publisher.use_forces
    )
    server = DiscoveryServer(cache, registry, layers, breakers, [UnreadAddresses()])
    await server.start(str(settings.xds_listen))
    probes, service_probe = _dependency_probes(settings), ServiceProbe()
    callers = CallerLimits(settings.ratelimit_addresses)
    faults = {"redis": GrpcProbe(settings.ratelimit_addresses, service="store.evicts")}
    checker = HealthChecker(service_probe, probes, probe_faults=faults)
    try:
        importing = asyncio.create_task(asyncio.to_thread(_import_api))  # while Envoy judges the document
        await publisher.publish(_first_change(settings))
        breakers.restore()
        await importing
        serving = asyncio.create_task(_serve_api(settings, publisher, registry, checker, breakers, callers))
        gc.collect()
        gc.freeze()  # what lives now lives for ever: the collector need not look at it again
        fetching = asyncio.create_task(KeySetFetcher(publisher.current_config, publisher.use_key_sets).run())
        breaker_task = asyncio.create_task(breakers.run())
        try:
            await _until_stopped(serving)
        finally:
            fetching.cancel()
            breaker_task.cancel()
    finally:
        await server.stop(STOP_GRACE_SECONDS)
        for probe in (*probes.values(), *faults.values()):
            await probe.close()
        await service_probe.close()
        await callers.close()


def _judge() -> Any:
    """The Envoy that judges documents; without one, the nodes' own NACK is the only judge, and that is said."""
    try:
        return envoy_validate.find(os.environ)
    except EnvoyUnavailable as error:
        logger.warning("envoy.no_judge", error=str(error))
        return None


def _first_change(settings: Settings) -> Change:
    text = settings.config.read_text(encoding="utf-8")
    media_type = "application/json" if settings.config.suffix == ".json" else "application/yaml"
    return Change(text, media_type, author="file", reason=f"started from {settings.config}", expected=None)


def _dependency_probes(settings: Settings) -> dict[str, GrpcProbe]:
    return {
        "redis": GrpcProbe(settings.ratelimit_addresses, service="store"),
        "authz": GrpcProbe(settings.authz_addresses),
        "ratelimit": GrpcProbe(settings.ratelimit_addresses),
    }


def _import_api() -> None:
    for name in ("uvicorn", "controlplane.api.app"):
        importlib.import_module(name)  # these two take longer to import than all the rest


async def _serve_api(
    settings: Settings,
    publisher: Publisher,
    registry: NodeRegistry,
    checker: HealthChecker,
    breakers: BreakerController,
    callers: CallerLimits,
) -> None:
    import uvicorn

    from controlplane.api.app import create_app
    from controlplane.api.auth import Operators, Role

    tokens = {settings.api_token: Role.ADMIN}
    for secret, role in ((settings.api_token_editor, Role.EDITOR), (settings.api_token_viewer, Role.VIEWER)):
        if secret:
            tokens[secret] = role
    app = create_app(publisher, registry, checker, breakers, Operators(tokens), callers)
    config = uvicorn.Config(
        app,
        host=settings.api_listen.host,
        port=settings.api_listen.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment] # signals are ours
    try:
        await server.serve()
    except asyncio.CancelledError:
        await server.shutdown()
        raise
    except SystemExit as error:  # uvicorn's way to say that it cannot listen
        raise RuntimeError(f"the API cannot listen on {settings.api_listen}: is the address taken?") from error


async def _until_stopped(serving: asyncio.Task[None]) -> None:
    """Wait for a signal, or for the API to fail, which is raised."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    logger.info("controlplane.ready")
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if serving.done():
        serving.result()
        raise RuntimeError("the API has stopped by itself")
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    sys.exit(main())
