"""Which processes a gateway is made of, with their commands and environments. Pure: options and ports in, parts out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.local.options import DEMO_SERVICES, EMBEDDED, NAMES, Options
from controlplane.local.ports import LOOPBACK
from controlplane.local.resources import PACKAGES
from controlplane.local.runfile import RunDirectory

DRAIN_SECONDS = 5
LOG_FLUSH_MILLISECONDS = 500
ENVOY_LOG_FORMAT = '{"timestamp":"%Y-%m-%dT%T.%e","level":"%l","logger":"%n","event":"%j"}'


@dataclass(frozen=True)
class Part:
    """One process of the gateway."""

    name: str
    index: int
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)  # it holds secrets
    address: str
    log: Path
    admin: str | None = None
    metrics: str | None = None

    @property
    def id(self) -> str:
        return f"{self.name}-{self.index}"

    def matches(self, selection: frozenset[str]) -> bool:
        """Whether a selection of kinds and single parts means this one; an empty selection means all."""
        return not selection or self.name in selection or self.id in selection


@dataclass(frozen=True)
class Surroundings:
    """What the machine and this run add to the options."""

    environment: Mapping[str, str] = field(repr=False)
    envoy: Path
    valkey: Path | None
    jwt_secret: str = field(repr=False)
    api_token: str = field(repr=False)
    processors: int
    key_sets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For Envoy: the key set of each provider that signs with a secret."""


@dataclass(frozen=True)
class Plan:
    """A gateway that could run: its parts in the order of their start, and the addresses that people want to know."""

    directory: RunDirectory
    gateway: str
    api: str
    api_token: str = field(repr=False)
    redis_url: str
    parts: tuple[Part, ...]
    log_bytes: int
    """How long a part's log may be."""

    def run(self, pids: Mapping[str, int]) -> dict[str, Any]:
        """The content of run.json: the parts that were started, with their pids."""
        components = [
            {
                "name": part.name,
                "index": part.index,
                "pid": pids[part.id],
                "address": part.address,
                "admin": part.admin,
                "metrics": part.metrics,
                "log": str(part.log),
            }
            for part in self.parts
            if part.id in pids
        ]
        return {
            "gateway": self.gateway,
            "api": self.api,
            "api_token": self.api_token,
            "redis_url": self.redis_url,
            "state_dir": str(self.directory.path),
            "components": components,
        }


def port_names(options: Options) -> Iterator[str]:
    """The ports that the parts need: one by its part's name, and a second one where it has a side door."""
    for name in NAMES:
        for index in range(options.count(name)):
            yield f"{name}-{index}"
            if name not in ("redis", "demo"):
                yield f"{name}-{index}.side"


def variable(provider: str) -> str:
    """Envoy's environment variable for a provider's key set; the translation says the same."""
    return f"MGW_JWKS_{provider.upper().replace('-', '_')}"


def fixed_ports(options: Options) -> dict[str, tuple[str, int]]:
    return {"envoy-0": (options.host, options.port)} if options.port is not None else {}


def plan(options: Options, ports: Mapping[str, int], around: Surroundings) -> Plan:
    """Lay out the gateway."""
    return _Layout(options, ports, around).plan()


class _Layout:
    def __init__(self, options: Options, ports: Mapping[str, int], around: Surroundings) -> None:
        self._options = options
        self._ports = ports
        self._around = around
        self._directory = RunDirectory(options.directory)
        self._redis_url = f"redis://{self._address('redis-0')}/0" if options.redis == EMBEDDED else options.redis
        self._base = _base_environment(around.environment)
        self._secret = {"JWT_SECRET": around.jwt_secret, "REDIS_URL": self._redis_url}

    def plan(self) -> Plan:
        make = {
            "redis": self._redis,
            "controlplane": self._controlplane,
            "authz": self._authz,
            "ratelimit": self._ratelimit,
            "demo": self._demo,
            "envoy": self._envoy,
        }
        return Plan(
            directory=self._directory,
            gateway=f"http://{_url_host(self._options.host)}:{self._ports['envoy-0']}",
            api=f"http://{self._address('controlplane-0.side')}",
            api_token=self._around.api_token,
            redis_url=self._redis_url,
            parts=tuple(make[name](index) for name in NAMES for index in range(self._options.count(name))),
            log_bytes=self._options.log_mib << 20,
        )

    def _redis(self, index: int) -> Part:
        port = self._ports[f"redis-{index}"]
        argv = [str(self._around.valkey), "--bind", LOOPBACK, "--port", str(port), "--save", "", "--appendonly", "no"]
        argv += ["--maxmemory", "256mb", "--maxmemory-policy", "noeviction"]
        argv += ["--dir", str(self._directory.state(f"redis-{index}"))]
        return self._part("redis", index, argv, {})

    def _controlplane(self, index: int) -> Part:
        side = self._address(f"controlplane-{index}.side")
        env = (
            self._secret
            | self._service_urls()
            | {
                "MGW_CONFIG": str(self._options.config),
                "MGW_STATE_DIR": str(self._directory.state(f"controlplane-{index}")),
                "MGW_XDS_LISTEN": self._address(f"controlplane-{index}"),
                "MGW_API_LISTEN": side,
                "MGW_API_TOKEN": self._around.api_token,
                "MGW_AUTHZ_ADDRESSES": self._addresses("authz"),
                "MGW_RATELIMIT_ADDRESSES": self._addresses("ratelimit"),
                "MGW_HEALTH_ADDRESSES": self._addresses("controlplane", ".side"),
                "MGW_INTERNAL_ADDRESSES": self._internal_addresses(),
                "MGW_ENVOY_BIN": str(self._around.envoy),
            }
        )
        argv = [sys.executable, "-m", "controlplane"]
        return self._part("controlplane", index, argv, env, admin=f"http://{side}", metrics=f"http://{side}/metrics")

    def _authz(self, index: int) -> Part:
        return self._service("authz", index, {"JWT_SECRET": self._around.jwt_secret})

    def _ratelimit(self, index: int) -> Part:
        return self._service("ratelimit", index, {"REDIS_URL": self._redis_url})

    def _service(self, name: str, index: int, own: Mapping[str, str]) -> Part:
        side = self._address(f"{name}-{index}.side")
        env = {
            "MGW_LISTEN": self._address(f"{name}-{index}"),
            "MGW_METRICS_LISTEN": side,
            "MGW_CONTROLPLANE": self._addresses("controlplane"),
            "MGW_NODE_ID": f"{name}-{index}",
            "MGW_STATE_DIR": str(self._directory.state(f"{name}-{index}")),
            **own,
        }
        argv = [sys.executable, "-m", f"{name}_service"]
        return self._part(name, index, argv, env, metrics=f"http://{side}/metrics")

    def _demo(self, index: int) -> Part:
        # -S: without site-packages, of which it needs nothing, it listens 10 ms sooner.
        argv = [sys.executable, "-S", "-m", "controlplane.local.demo", DEMO_SERVICES[index]]
        return self._part("demo", index, [*argv, self._address(f"demo-{index}")], {})

    def _envoy(self, index: int) -> Part:
        admin = f"http://{self._address(f'envoy-{index}.side')}"
        argv = [str(self._around.envoy), "-c", str(self._directory.state(f"envoy-{index}") / "bootstrap.json")]
        argv += ["--disable-hot-restart", "--concurrency", str(self._around.processors)]
        argv += ["--file-flush-interval-msec", str(LOG_FLUSH_MILLISECONDS)]  # Envoy's own 10 s is late for a reader
        argv += ["--drain-time-s", str(DRAIN_SECONDS), "-l", "warning", "--log-format", ENVOY_LOG_FORMAT]
        address = f"{_bracketed(self._options.host)}:{self._ports[f'envoy-{index}']}"
        env = {variable(provider): key_set for provider, key_set in self._around.key_sets.items()}
        return self._part("envoy", index, argv, env, address=address, admin=admin, metrics=f"{admin}/stats/prometheus")

    def _part(
        self,
        name: str,
        index: int,
        argv: list[str],
        env: Mapping[str, str],
        *,
        address: str | None = None,
        admin: str | None = None,
        metrics: str | None = None,
    ) -> Part:
        identity = f"{name}-{index}"
        return Part(
            name=name,
            index=index,
            argv=(*wrap_of(self._options.wraps, identity), *argv),
            env={**self._base, **env},
            address=address or self._address(identity),
            log=self._directory.log(identity),
            admin=admin,
            metrics=metrics,
        )

    def _service_urls(self) -> dict[str, str]:
        """The demo's addresses under the names that the configuration asks for, unless the user gave their own."""
        if not self._options.count("demo"):
            return {}
        urls = {
            f"{name.upper()}_SERVICE_URL": f"http://{self._address(f'demo-{index}')}"
            for index, name in enumerate(DEMO_SERVICES)
        }
        return {name: url for name, url in urls.items() if name not in self._around.environment}

    def _internal_addresses(self) -> str:
        """Further addresses that no upstream URL may point at."""
        return ",".join(filter(None, (self._addresses("envoy", ".side"), self._addresses("redis"))))

    def _address(self, port_name: str) -> str:
        return f"{LOOPBACK}:{self._ports[port_name]}"

    def _addresses(self, name: str, suffix: str = "") -> str:
        return ",".join(self._address(f"{name}-{index}{suffix}") for index in range(self._options.count(name)))


def wrap_of(wraps: Mapping[str, tuple[str, ...]], identity: str) -> tuple[str, ...]:
    """The wrap of one part; that of its kind where it has none of its own."""
    return wraps.get(identity, wraps.get(identity.partition("-")[0], ()))


def _base_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The user's environment for a part: our sources found wherever we are, bytecode kept, secrets left out."""
    left_out = ("JWT_SECRET", "REDIS_URL", "MGW_API_TOKEN", "PYTHONDONTWRITEBYTECODE")
    base = {name: value for name, value in environment.items() if name not in left_out}
    paths = [str(PACKAGES), *([environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else [])]
    # PYTHONSAFEPATH: a `redis.py` in the user's current directory is not ours to import.
    return base | {"PYTHONPATH": ":".join(paths), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def _url_host(host: str) -> str:
    """The host to call for a host to listen on."""
    if host in ("0.0.0.0", "::", ""):
        return LOOPBACK
    return _bracketed(host)


def _bracketed(host: str) -> str:
    """As it stands before a port."""
    return f"[{host}]" if ":" in host else host
