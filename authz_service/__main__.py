"""Starts the authorization service: `python -m authz_service`."""

import asyncio
import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog
import uvloop
from google.protobuf.internal import api_implementation

from .adsclient import AdsClient
from .enforcement import Enforcement, read_file
from .errors import StartRefused
from .keys import warm_up
from .log import configure_log
from .metrics import Metrics
from .policy import read_policy, read_policy_text
from .server import SERVICE, AuthorizationServer
from .serving import Serving, serve_metrics, stop_signal
from .settings import SECRET, Settings, check_secret, read_settings, secret_missing
from .watch import FileWatch

log = structlog.get_logger()

TYPE_URL = "type.googleapis.com/mgw.policy.v1.AuthzPolicy"


def main() -> None:
    try:
        settings = read_settings(os.environ)
        has_secret = check_secret(os.environ)
        if api_implementation.Type() != "upb":
            raise StartRefused("protobuf runs without its C implementation, 80 times slower: install it from a wheel")
        configure_log(settings.log_level, "authz")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(Authz(settings, os.environ, has_secret).run())
    except StartRefused as refusal:
        print(f"authz_service: {refusal}", file=sys.stderr)  # noqa: T201 - the one line for the operator
        sys.exit(1)


class Authz:
    """The process: its parts, in the order in which they start and end."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], has_secret: bool) -> None:
        self._settings, self._has_secret = settings, has_secret
        self._metrics = Metrics()
        self._ready = asyncio.Event()
        self._enforcement = Enforcement(environ, self._metrics, state_dir=settings.state_dir, on_swap=self._on_swap)
        self._watch = FileWatch(self._on_file_change)
        self._masked = settings.masked(environ)

    async def run(self) -> None:
        settings = self._settings
        stop = stop_signal()
        log.info("authz.starting", settings=self._masked)
        server = AuthorizationServer(self._enforcement, self._metrics.decisions)
        serving = Serving(
            settings.listen, [server.handler()], SERVICE, settings.transport, {f"/{SERVICE}/Check": server.check_now}
        )
        await serving.start()
        tasks: list[asyncio.Task[None]] = []
        try:
            door = settings.metrics_listen
            metrics = serve_metrics(door, self._metrics.registry) if door is not None else None
            tasks.append(asyncio.create_task(self._announce(serving, metrics), name="announce"))
            client = self._take_first_policy()
            if client is not None:
                tasks.append(asyncio.create_task(client.run(), name="ads"))
                await asyncio.sleep(0)  # the client asks first, and meanwhile
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
        """From the file or from the last run; then from the control plane, which the answered client asks."""
        settings = self._settings
        if settings.policy_file is not None:
            self._take_policy_file(settings.policy_file)
            return None
        client = AdsClient(
            settings.controlplane or "", settings.node_id, TYPE_URL, self._on_policy, settings.kept_policy
        )
        is_started = client.load_kept()
        if not (is_started or self._has_secret or settings.is_secretless):
            raise secret_missing()
        return client

    def _take_policy_file(self, path: Path) -> None:
        problem = self._offer_policy_file(path)
        if problem is not None and f"{SECRET} is not set" in problem:
            raise secret_missing()
        if problem is not None:
            raise StartRefused(f"MGW_POLICY_FILE={path} cannot be used: {problem}")

    def _offer_policy_file(self, path: Path) -> str | None:
        return self._enforcement.offer(lambda: read_policy_text(read_file(str(path))))

    def _on_policy(self, document: Mapping[str, object]) -> str | None:
        return self._enforcement.offer(lambda: read_policy(document))

    def _on_swap(self) -> None:
        document = self._enforcement.current
        files = document.document.files() if document is not None else []
        self._watch.follow([*files, *([self._settings.policy_file] if self._settings.policy_file else [])])
        self._ready.set()

    def _on_file_change(self) -> None:
        if self._settings.policy_file is not None:
            self._offer_policy_file(self._settings.policy_file)
        else:
            self._enforcement.recheck_files()

    async def _announce(self, serving: Serving, metrics: str | None) -> None:
        """Ready means that answers are decisions: the port is open and a policy is in force."""
        await self._ready.wait()
        await serving.set_ready()
        # What is alive now stays alive: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        log.info("authz.ready", address=serving.address, metrics=metrics)


if __name__ == "__main__":
    main()
