"""Starts the authorization service: `python -m authz_service`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

from authz_service.enforcement import Enforcement, read_file
from authz_service.errors import PolicyRejected
from authz_service.keys import warm_up
from authz_service.metrics import Metrics
from authz_service.policy import read_policy, read_policy_text
from authz_service.server import SERVICE, AuthorizationServer
from authz_service.settings import SECRET, Settings, check_secret, read_settings, secret_missing
from service_kit import process
from service_kit.ads_client import AdsClient
from service_kit.errors import StartFailed
from service_kit.file_watch import FileWatch
from service_kit.grpc_server import GrpcServer
from service_kit.log import configure_log

log = structlog.get_logger()

TYPE_URL = "type.googleapis.com/mgw.policy.v1.AuthzPolicy"


def main() -> None:
    """Run the service until SIGTERM or SIGINT."""
    process.run("authz_service", _start)


async def _start() -> None:
    settings = read_settings(os.environ)
    has_secret = check_secret(os.environ)
    configure_log(settings.log_level, "authz")
    await Authz(settings, os.environ, has_secret).run()


class Authz:
    """The process: its parts, in the order in which they start and end."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], has_secret: bool) -> None:
        self._settings, self._has_secret = settings, has_secret
        self._metrics = Metrics()
        self._ready = asyncio.Event()
        self._enforcement = Enforcement(environ, self._metrics, state_dir=settings.state_dir, on_swap=self._on_swap)
        self._watch = FileWatch(self._on_file_change)
        self._masked = settings.shown(environ)

    async def run(self) -> None:
        """Start, serve until told to stop, and drain. Raises StartFailed."""
        settings = self._settings
        stop = process.stop_signal()
        log.info("authz.starting", settings=self._masked)
        server = AuthorizationServer(self._enforcement, self._metrics)
        immediate = {f"/{SERVICE}/Check": server.check_now}
        serving = GrpcServer(settings.listen, [server.handler()], [SERVICE], settings.transport, immediate=immediate)
        await serving.start()
        tasks: list[asyncio.Task[None]] = []
        try:
            metrics = process.serve_metrics(settings.metrics_listen, self._metrics.registry)
            tasks.append(asyncio.create_task(self._announce(serving, metrics), name="announce"))
            client = self._take_first_policy()
            if client is not None:
                tasks.append(asyncio.create_task(client.run(), name="ads"))
                await asyncio.sleep(0)  # the client sends its request first; meanwhile:
                warm_up()
            await stop.wait()
            log.info("authz.draining")
        finally:
            await serving.drain(settings.drain_seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._watch.close()
            await self._enforcement.close()
        log.info("authz.stopped")

    def _take_first_policy(self) -> AdsClient | None:
        """Take the policy of the file or of the last run. The client that is returned has still to run: it gets others
        from the control plane.
        """
        settings = self._settings
        if settings.policy_file is not None:
            self._take_policy_file(settings.policy_file)
            return None
        client = AdsClient(
            settings.controlplane or "", settings.node_id, TYPE_URL, self._on_policy, settings.last_good_policy
        )
        is_started = client.load_last_good()
        if not (is_started or self._has_secret or settings.is_secretless):
            raise secret_missing()
        return client

    def _take_policy_file(self, path: Path) -> None:
        rejection = self._offer_policy_file(path)
        if rejection is not None and rejection.missing_secret == SECRET:
            raise secret_missing()
        if rejection is not None:
            raise StartFailed(f"MGW_POLICY_FILE={path} cannot be used: {rejection}")

    def _offer_policy_file(self, path: Path) -> PolicyRejected | None:
        return self._enforcement.offer(lambda: read_policy_text(read_file(str(path))))

    def _on_policy(self, document: Mapping[str, object]) -> str | None:
        rejection = self._enforcement.offer(lambda: read_policy(document))
        return str(rejection) if rejection is not None else None

    def _on_swap(self) -> None:
        current, policy_file = self._enforcement.current, self._settings.policy_file
        files = current.document.files() if current is not None else []
        self._watch.follow([*files, policy_file] if policy_file is not None else files)
        self._ready.set()

    def _on_file_change(self) -> None:
        if self._settings.policy_file is not None:
            self._offer_policy_file(self._settings.policy_file)
        else:
            self._enforcement.recheck_files()

    async def _announce(self, serving: GrpcServer, metrics: str | None) -> None:
        """Be ready once a policy is in force: until then every request gets a 503."""
        await self._ready.wait()
        await serving.set_ready()
        process.freeze_heap()
        log.info("authz.ready", address=serving.address, metrics=metrics)


if __name__ == "__main__":
    main()
