"""The environment of the authz service, read once and checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service_kit import settings as kit
from service_kit.errors import StartFailed
from service_kit.settings import ServiceSettings, variable

SECRET = "JWT_SECRET"
MIN_SECRET_BYTES = 32
HOW_TO_MAKE_ONE = f"for example: export {SECRET}=$(openssl rand -base64 48)"


@dataclass(frozen=True)
class Settings(ServiceSettings):
    """The environment of the authz service."""

    listen: str = variable("MGW_LISTEN", kit.address, "127.0.0.1:9001")
    """Where it serves gRPC: `host:port`, or `unix:PATH`."""
    node_id: str = variable("MGW_NODE_ID", kit.text, "authz-0")
    """Its name to the control plane. Each replica needs its own."""
    state_dir: Path | None = variable("MGW_STATE_DIR", kit.path, None)
    """Where the last good policy and key sets are kept, so that it starts without the control plane."""
    drain_seconds: float = variable("AUTHZ_DRAIN_SECONDS", kit.number, 10.0)
    """How long running calls may take to end after SIGTERM, in seconds."""
    is_secretless: bool = variable("AUTHZ_SECRETLESS", kit.switch, False)
    """`1` where no provider needs `JWT_SECRET`: it then starts without."""

    @property
    def last_good_policy(self) -> Path | None:
        """The file that keeps the last good policy; None without a `state_dir`."""
        return self.last_good("authz-policy.json")

    def shown(self, environ: Mapping[str, str]) -> dict[str, str | None]:
        """The settings as they may be printed: of a secret, only whether it is set."""
        return kit.shown(self) | {SECRET.lower(): "***" if environ.get(SECRET) else None}


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from the environment. Raises StartFailed, in one line, with every variable that does not fit."""
    settings = kit.read(Settings, environ)
    settings.check_policy_source()
    return settings


def check_secret(environ: Mapping[str, str]) -> bool:
    """Whether there is a secret. Raises StartFailed for one that is too short, whether or not a policy uses it."""
    secret = environ.get(SECRET, "")
    size = len(secret.encode("utf-8", "surrogateescape"))
    if 0 < size < MIN_SECRET_BYTES:
        raise StartFailed(f"{SECRET} has {size} bytes: export at least {MIN_SECRET_BYTES}, {HOW_TO_MAKE_ONE}")
    return size > 0


def secret_missing() -> StartFailed:
    """The error for a policy that needs a secret where there is none."""
    return StartFailed(
        f"{SECRET} is not set: export at least {MIN_SECRET_BYTES} random bytes, {HOW_TO_MAKE_ONE}"
        " (AUTHZ_SECRETLESS=1 where no provider needs it)"
    )
