"""The environment of the rate-limit service, read once and checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service_kit import settings as kit
from service_kit.errors import StartFailed
from service_kit.settings import ServiceSettings, variable
from service_kit.store_url import StoreUrl, read_store_url
from service_kit.tls_files import check_files


@dataclass(frozen=True)
class Settings(ServiceSettings):
    """The environment of the rate-limit service."""

    listen: str = variable("MGW_LISTEN", kit.address, "127.0.0.1:9002")
    """Where it serves gRPC: `host:port`, or `unix:PATH`."""
    node_id: str = variable("MGW_NODE_ID", kit.text, "ratelimit-0")
    """Its name to the control plane. Each replica needs its own."""
    policy_file: Path | None = variable("MGW_POLICY_FILE", kit.path, None)
    """A policy from a file, not from a control plane: JSON, or envoyproxy/ratelimit's YAML (a file or a folder)."""
    redis_url: StoreUrl = variable(
        "REDIS_URL", read_store_url, read_store_url("redis://127.0.0.1:6379/0"), may_hold_password=True
    )
    """The store: `redis://`, `rediss://` (TLS), `unix://`, `redis+sentinel://`, `redis+cluster://`, `rediss+sentinel://`
    and `rediss+cluster://` (TLS), or `none` to count in memory.
    """
    store_timeout_seconds: float = variable("MGW_STORE_TIMEOUT_SECONDS", kit.number, 0.02)
    """How long a decision waits for the store, in seconds."""
    drain_seconds: float = variable("MGW_DRAIN_SECONDS", kit.number, 5.0)
    """How long running calls may take to end after SIGTERM, in seconds."""
    max_identities: int = variable("MGW_MAX_IDENTITIES", kit.whole, 200_000)
    """How many counters a replica keeps while the store is away."""

    @property
    def last_good_policy(self) -> Path | None:
        """The file that keeps the last good policy; None without a `state_dir`."""
        return self.last_good("ratelimit-policy.json")


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from the environment. Raises StartFailed, in one line, with every variable that does not fit."""
    settings = kit.read(Settings, environment)
    settings.check_policy_source()
    try:
        check_files(settings.redis_url)
    except ValueError as error:
        raise StartFailed(f"REDIS_URL: {error}") from error
    return settings
