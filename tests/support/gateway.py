"""A whole gateway for tests: started by `mgw up --demo --detach`, asked from outside, broken part by part."""

from __future__ import annotations

import base64
import copy
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import httpx2
import jwt
import yaml

from tests.support.mgw import Mgw, runs
from tests.support.waiting import eventually
from tests.support.wire import Answer, exchange

ROOT = Path(__file__).parents[2]
DEFAULT_CONFIG = ROOT / "deploy" / "config" / "gateway.yaml"
SECRET = "a-secret-of-the-tests-that-is-long-enough"
ORIGIN = "https://app.example.com"
OTHER_ORIGIN = "http://localhost:3000"
SERVICES = ("discovery", "sona", "sync", "auth")

_WRITE_LOG_AT_ONCE = (
    """sh -c 'case "$*" in *flush-interval*) exec "$@";; esac; exec "$@" --file-flush-interval-msec 100' sh"""
)
"""Envoy keeps its log back for 10 s unless it is told otherwise."""

_opener = build_opener(ProxyHandler({}))
_numbers = count(1)
Headers = Sequence[tuple[str, str]]


def unique(prefix: str = "user") -> str:
    """A name that no other test has, in this worker or another."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


def client_address() -> str:
    """An address that no other test calls from, for `X-Forwarded-For` at a gateway that trusts one hop."""
    number = next(_numbers)
    return f"203.{os.getpid() % 250}.{number // 250}.{number % 250 + 1}"


def token(
    sub: str | None = None, tier: str | None = None, *, secret: str = SECRET, ttl: float = 600, **more: Any
) -> str:
    """A signed token. Without `sub`, of a caller nobody else is; a claim given as None is left out."""
    now = int(time.time())
    claims = {"sub": sub or unique(), "tier": tier, "iat": now, "exp": now + int(ttl)} | more
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, algorithm="HS256")


def bearer(value: str) -> tuple[str, str]:
    """The header that carries a token."""
    return "Authorization", f"Bearer {value}"


def default_document() -> dict[str, Any]:
    """The shipped configuration, as values that a test may change."""
    document: dict[str, Any] = copy.deepcopy(_default_document())
    return document


def _default_document() -> Any:
    return yaml.load(DEFAULT_CONFIG.read_text(), Loader=yaml.CSafeLoader)


def a_route(name: str, service: str, auth: str = "optional", **more: Any) -> dict[str, Any]:
    """One more route at `/t/NAME`, for all methods that tests use."""
    match = {"path": f"/t/{name}", "methods": ["GET", "POST"]}
    return {"name": f"t-{name}", "match": match, "service": service, "auth": auth, **more}


def a_service(name: str, url: str, **more: Any) -> dict[str, Any]:
    """One more service with one endpoint, which health does not ask about."""
    return {"name": name, "endpoints": [{"url": url}], "health_check": None, **more}


@dataclass(frozen=True)
class Echo:
    """What a demo upstream says it received."""

    service: str
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def of(cls, answer: Answer) -> Echo:
        said = answer.json()
        pairs = [(name, value) for name, value in said["headers"]]
        return cls(said["service"], said["method"], said["target"], pairs, base64.b64decode(said["body_base64"]))

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        values = self.values(name)
        return values[0] if values else None

    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}


class Demo:
    """The control side of one demo upstream."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.url = f"http://{address}"

    def _call(self, method: str, path: str, value: Any = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        with _opener.open(Request(f"{self.url}/_demo/{path}", data, method=method), timeout=5) as answer:
            return json.load(answer)

    def hits(self) -> int:
        hits: int = self._call("GET", "hits")["hits"]
        return hits

    def requests(self) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = self._call("GET", "requests")["requests"]
        return requests

    def misbehave(self, **mode: Any) -> None:
        self._call("PUT", "mode", mode)

    def behave(self) -> None:
        self._call("DELETE", "mode")


STORE_TIMEOUT_SECONDS = "0.08"
"""A machine that runs several gateways at once is late now and then, and then limits are shares instead of exact. It is
below the 100 ms that Envoy waits for the service."""


class Gateway:
    """One gateway in a directory. A context manager: up on entry, down on exit."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        document: Mapping[str, Any] | None = None,
        environment: Mapping[str, str | None] | None = None,
        demo: bool = True,
    ) -> None:
        self.directory = directory
        self.options = options
        self.demo_wanted = demo
        self.config: Path | None = None
        if document is not None:
            directory.parent.mkdir(parents=True, exist_ok=True)
            self.config = directory.with_name(f"{directory.name}.yaml")
            self.config.write_text(yaml.safe_dump(document, sort_keys=False))
        wanted: dict[str, str | None] = {"JWT_SECRET": SECRET, "ALLOWED_ORIGINS": f"{ORIGIN}, {OTHER_ORIGIN}"}
        wanted["MGW_STORE_TIMEOUT_SECONDS"] = STORE_TIMEOUT_SECONDS
        wanted |= dict(environment or {})
        self.mgw = Mgw(directory, {name: value for name, value in wanted.items() if value is not None})

    def __enter__(self) -> Gateway:
        up = self.up()
        if up.returncode:
            raise AssertionError(f"mgw up ended with {up.returncode}:\n{up.stderr}")
        return self

    def __exit__(self, *_: object) -> None:
        self.mgw("down")

    def up(self) -> subprocess.CompletedProcess[str]:
        """`mgw up` with this gateway's options."""
        words = ["up", "--detach", "--wrap", f"envoy={_WRITE_LOG_AT_ONCE}", *self.options]
        words += ["--demo"] if self.demo_wanted else []
        words += ["--config", str(self.config)] if self.config else []
        return self.mgw(*words)

    # -- what run.json says

    @property
    def run(self) -> dict[str, Any]:
        return self.mgw.run

    @cached_property
    def url(self) -> str:
        url: str = self.run["gateway"]
        return url

    @cached_property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def component(self, name: str, index: int = 0) -> dict[str, Any]:
        return self.mgw.component(name, index)

    # -- requests

    def ask(
        self,
        target: str,
        method: str = "GET",
        headers: Headers = (),
        body: bytes | None = None,
        *,
        bearer_token: str | None = None,
        address: str | None = None,
        timeout: float = 10,
    ) -> Answer:
        """One request over a connection of its own, its target and headers as given."""
        lines = [f"{method} {target} HTTP/1.1", "Host: gateway.test"]
        if bearer_token is not None:
            lines.append(f"Authorization: Bearer {bearer_token}")
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        data = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
        answer = self.send(data, head=method == "HEAD", address=address, timeout=timeout)
        assert answer is not None, f"the connection was closed without an answer to {method} {target}"
        return answer

    def send(
        self, data: bytes, *, head: bool = False, address: str | None = None, timeout: float = 10
    ) -> Answer | None:
        """Exact bytes over a new connection; None where it is closed without an answer."""
        return exchange(address or self.address, data, head=head, timeout_seconds=timeout)

    def client(self, **more: Any) -> httpx2.AsyncClient:
        """A client with a pool, for many requests at once."""
        limits = httpx2.Limits(max_connections=32, max_keepalive_connections=32)
        settings: dict[str, Any] = {"base_url": self.url, "trust_env": False, "timeout": 10, "limits": limits}
        return httpx2.AsyncClient(**(settings | more))

    def api(self, method: str, path: str, *, content: str | None = None, headers: Headers = ()) -> httpx2.Response:
        """One request to the operator's API, with its token."""
        run = self.run
        sent = [("Authorization", f"Bearer {run['api_token']}"), *headers]
        with httpx2.Client(trust_env=False, timeout=20) as client:
            return client.request(method, run["api"] + path, content=content, headers=sent)

    def operate(self, method: str, caller: str, verb: str, body: Mapping[str, Any] | None = None) -> Any:
        """What an operator does with one caller; again if the store is late on a machine that is out of breath."""
        content = None if body is None else json.dumps(body)
        path, headers = f"/v1/callers/{caller}/{verb}", [("Content-Type", "application/json")]

        def told() -> httpx2.Response | None:
            answer = self.api(method, path, content=content, headers=headers)
            return None if answer.status_code == 503 else answer

        answer = eventually(told, every=0.2)
        assert answer is not None, "the store does not answer"
        assert answer.status_code == 200, answer.text
        return answer.json()

    def put_config(self, document: Mapping[str, Any]) -> httpx2.Response:
        """Replace the whole document, whatever the current revision is."""
        etag = self.api("GET", "/v1/config").headers["etag"]
        headers = [("If-Match", etag), ("Content-Type", "application/yaml")]
        return self.api("PUT", "/v1/config", content=yaml.safe_dump(document, sort_keys=False), headers=headers)

    # -- upstreams, metrics, logs

    def demo(self, service: str) -> Demo:
        return Demo(self.component("demo", SERVICES.index(service))["address"])

    def hits(self) -> dict[str, int]:
        """How many requests each upstream has seen."""
        return {service: self.demo(service).hits() for service in SERVICES}

    def metrics(self, name: str, index: int = 0) -> str:
        """A component's metrics, as text."""
        return self.read(self.component(name, index)["metrics"])

    def read(self, url: str) -> str:
        with _opener.open(url, timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def log_lines(self, index: int = 0) -> Iterator[dict[str, Any]]:
        """The access log so far."""
        for line in Path(self.component("envoy", index)["log"]).read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # half a line
            if "status" in entry:
                yield entry

    def log_line(self, request_id: str, seconds: float = 12) -> dict[str, Any]:
        """The line of one request; Envoy writes the log a little later."""

        def find() -> dict[str, Any] | None:
            return next((line for line in self.log_lines() if line.get("request_id") == request_id), None)

        line: dict[str, Any] | None = eventually(find, seconds)
        assert line is not None, f"no log line of {request_id}"
        return line

    # -- faults

    def kill(self, name: str, index: int = 0) -> None:
        """Kill one part, and see it gone."""
        pid = self.component(name, index)["pid"]
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not runs(pid)), f"{name}-{index} is still there"

    @contextmanager
    def stalled(self, name: str, index: int = 0) -> Iterator[None]:
        """One part hangs: it keeps its connections and answers nothing."""
        pid = self.component(name, index)["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def revive(self, *names: str) -> None:
        """Start dead parts again, at their old addresses."""
        up = self.mgw("up", "--only", ",".join(names))
        assert up.returncode == 0, up.stderr
