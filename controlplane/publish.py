"""The one write path: a document becomes what every node is told, or nothing changes at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from controlplane import metrics
from controlplane.breakers.registry import Force
from controlplane.config import envoy_validate, load
from controlplane.config.document import Document
from controlplane.config.model import GatewayConfig
from controlplane.errors import ConfigRejected, Problem, RevisionConflict
from controlplane.store.base import ConfigStore, Revision
from controlplane.topology import Address, Topology
from controlplane.translate import assemble
from controlplane.translate.jwt_authn import EnvoyKeys
from controlplane.translate.stand_in_keys import stand_in_environment, stand_in_keys
from controlplane.xds.cache import Group, SnapshotCache
from controlplane.xds.snapshot import Snapshot

log = structlog.get_logger()


@dataclass(frozen=True)
class Change:
    """What somebody wants to be current. `expected` is the revision it was based on; None at start only."""

    text: str
    media_type: str
    author: str
    reason: str
    expected: int | None


@dataclass(frozen=True)
class Published:
    """The configuration in force."""

    revision: Revision
    document: Document
    config: GatewayConfig


class Publisher:
    """Validates, translates, stores and tells: one change at a time."""

    def __init__(
        self,
        store: ConfigStore,
        cache: SnapshotCache,
        topology: Topology,
        environment: Mapping[str, str],
        internal: frozenset[str],
        envoy_binary: Path | None,
    ) -> None:
        self._store = store
        self._cache = cache
        self._topology = topology
        self._environment = environment
        self._internal = internal
        self._envoy = envoy_binary
        self._lock = asyncio.Lock()
        self._fetched: Mapping[str, Mapping[str, Any]] = {}
        self._forces: Mapping[str, Force] = {}
        self.published: Published | None = None

    async def publish(self, change: Change) -> Published:
        """Make a change current.

        Raises ConfigRejected with every problem, RevisionConflict if the change is based on an older revision, and
        EnvoyUnavailable where Envoy cannot judge. Whatever it raises, the previous configuration stays in force.
        """
        async with self._lock:
            with metrics.PUBLISH_SECONDS.time():
                return await self._publish(change)

    async def _publish(self, change: Change) -> Published:
        current = await self._store.current()
        number = current.number if current else 0
        if change.expected is not None and change.expected != number:
            raise RevisionConflict(change.expected, number)
        document, config = await self.check(change.text)
        if current and self.published and change.text == current.text and config == self.published.config:
            return self.published  # nothing changes: no new revision, and no node hears of it
        assemble.snapshot(config, self._topology)  # whole and consistent before anyone sees it
        revision = Revision(
            number + 1, change.text, change.media_type, change.author, change.reason, datetime.now(tz=UTC)
        )
        await self._store.save(revision)
        return self._tell(Published(revision, document, config))

    async def check(self, text: str) -> tuple[Document, GatewayConfig]:
        """Validate a document by the model, the rules and Envoy itself; nothing changes. Raises as `publish`."""
        try:
            document, config = load.load(text, self._environment, self._internal)
        except ConfigRejected:
            metrics.REJECTED.labels(stage="model").inc()
            raise
        if self._envoy is not None:
            try:
                await let_envoy_judge(config, self._topology, self._envoy)
            except ConfigRejected:
                metrics.REJECTED.labels(stage="envoy").inc()
                raise
        return document, config

    def current_config(self) -> GatewayConfig | None:
        """The configuration in force; None before the first."""
        return self.published.config if self.published else None

    def use_key_sets(self, fetched: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell Envoy of newly fetched key sets, by provider; the configuration stays as it is."""
        if fetched != self._fetched:
            self._fetched = fetched
            self._set_snapshots()

    def use_forces(self, forces: Mapping[str, Force]) -> None:
        """Hold services open or closed, by name; the configuration stays as it is."""
        if forces != self._forces:
            self._forces = dict(forces)
            self._set_snapshots()

    def _set_snapshots(self) -> None:
        if self.published:
            self._cache.set(self._snapshots(self.published.config))

    def _snapshots(self, config: GatewayConfig) -> Callable[[Group], Snapshot]:
        def make(group: Group) -> Snapshot:
            keys = EnvoyKeys(group.secrets, self._fetched)
            at = Address(*group.listener) if group.listener else None
            return assemble.snapshot(config, self._topology, at, keys, self._forces)

        return make

    def _tell(self, published: Published) -> Published:
        self.published = published
        self._set_snapshots()
        metrics.REVISION.set(published.revision.number)
        metrics.LAST_SUCCESS.set(time.time())
        log.info("config.published", revision=published.revision.number, author=published.revision.author)
        for found in load.warnings_of(published.document, published.config):
            log.warning("config.warning", path=found.path, message=found.message)
        return published


async def let_envoy_judge(config: GatewayConfig, topology: Topology, binary: Path) -> None:
    """Raises ConfigRejected with Envoy's own words where it would not run what nodes get, keys included.

    Raises EnvoyUnavailable where Envoy cannot judge.
    """
    bootstrap = assemble.static_bootstrap(config, topology, keys=stand_in_keys(config))
    words = await envoy_validate.judge(binary, bootstrap, stand_in_environment(config))
    if words:
        raise ConfigRejected([Problem("", f"Envoy rejects it: {words}")])
