"""How this process runs: read once from the environment, checked, printed with secrets masked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from service_kit.errors import StartFailed

Transport = Literal["native", "grpcio"]

_LOG_LEVELS = ("debug", "info", "warning", "error")
_STORES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment of docs/agreements.md. Defaults are safe for production."""

    listen: str = "127.0.0.1:9002"
    metrics_listen: str = ""
    controlplane: str = ""
    node_id: str = "ratelimit-0"
    state_dir: Path | None = None
    policy_file: Path | None = None
    log_level: str = "info"
    transport: Transport = "native"
    redis_url: str = "redis://127.0.0.1:6379/0"
    store_timeout_seconds: float = 0.02
    drain_seconds: float = 5.0
    max_identities: int = 200_000

    @property
    def last_good_policy(self) -> Path | None:
        """Where the last good policy is kept, if there is a place."""
        return self.state_dir / "ratelimit-policy.json" if self.state_dir is not None else None

    def shown(self) -> dict[str, str]:
        """Every setting as text, without the passwords."""
        shown = {name: str(value) for name, value in asdict(self).items()}
        shown["redis_url"] = mask_password(self.redis_url)
        return shown


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from the environment; StartFailed names the variable that is wrong."""

    def get(name: str, default: object) -> str:
        return environment.get(name, "").strip() or str(default)

    default = Settings()
    if not (get("MGW_CONTROLPLANE", "") or get("MGW_POLICY_FILE", "")):
        raise StartFailed("no policy: set MGW_CONTROLPLANE to host:port or MGW_POLICY_FILE to a path")
    return Settings(
        listen=_address("MGW_LISTEN", get("MGW_LISTEN", default.listen)),
        metrics_listen=_host_port("MGW_METRICS_LISTEN", get("MGW_METRICS_LISTEN", "")),
        controlplane=get("MGW_CONTROLPLANE", ""),
        node_id=get("MGW_NODE_ID", default.node_id),
        state_dir=_optional_path(get("MGW_STATE_DIR", "")),
        policy_file=_optional_path(get("MGW_POLICY_FILE", "")),
        transport=_transport(get("MGW_TRANSPORT", default.transport)),
        log_level=_one_of("LOG_LEVEL", get("LOG_LEVEL", default.log_level).lower(), _LOG_LEVELS),
        redis_url=_store(get("REDIS_URL", default.redis_url)),
        store_timeout_seconds=_number("MGW_STORE_TIMEOUT_SECONDS", get, default.store_timeout_seconds),
        drain_seconds=_number("MGW_DRAIN_SECONDS", get, default.drain_seconds),
        max_identities=int(_number("MGW_MAX_IDENTITIES", get, default.max_identities)),
    )


def mask_password(url: str) -> str:
    """A store's URL with its password hidden."""
    return re.sub(r"([?&]password=)[^&]*", r"\1***", re.sub(r"(://[^/@]*?:)[^/]*@", r"\1***@", url))


def _optional_path(text: str) -> Path | None:
    return Path(text) if text else None


def _address(name: str, text: str) -> str:
    return text if text.startswith("unix:") and len(text) > len("unix:") else _host_port(name, text)


def _host_port(name: str, text: str) -> str:
    host, _, port = text.rpartition(":")
    if text and not (host and port.isdigit() and int(port) < 65536):
        raise StartFailed(f"{name}={text!r}: give it as host:port")
    return text


def _transport(text: str) -> Transport:
    return "grpcio" if _one_of("MGW_TRANSPORT", text, ("native", "grpcio")) == "grpcio" else "native"


def _one_of(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise StartFailed(f"{name}={text!r}: use one of {', '.join(allowed)}")
    return text


def _store(url: str) -> str:
    if url != "none" and url.partition("://")[0] not in _STORES:
        schemes = ", ".join(f"{scheme}://" for scheme in _STORES)
        raise StartFailed(f"REDIS_URL={mask_password(url)!r}: use one of {schemes}, or none to count in memory")
    return url


def _number(name: str, get: Callable[[str, object], str], default: float) -> float:
    text = get(name, default)
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise StartFailed(f"{name}={text!r}: give a number above 0")
    return number
