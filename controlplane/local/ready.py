"""When a gateway is ready: its parts answer, every node acknowledged every type, and a real request went through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from controlplane.errors import ControlPlaneError
from controlplane.local.plan import Part, Plan

POLL_SECONDS = 0.02
CALL_SECONDS = 2.0
T = TypeVar("T")

PROXY_HEADER = b"PROXY UNKNOWN\r\n"
"""From a proxy itself, about nobody else (PROXY protocol, section 2.1)."""

ENVOY_TYPES = ("Cluster", "Listener", "RouteConfiguration")


class NotReady(ControlPlaneError):
    """One part is not ready; the message says what it waits for."""

    def __init__(self, part: Part, message: str) -> None:
        super().__init__(f"{part.id} is not ready: {message}")
        self.part = part


async def wait_ready(
    plan: Plan, started: Sequence[Part], is_alive: Callable[[Part], bool], timeout_seconds: float
) -> None:
    """Wait until the started parts serve. Raises NotReady for a part that died, or for one that is late."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    checks = Checks(plan, started, is_alive)
    while True:
        for part in started:
            if not is_alive(part):
                raise NotReady(part, "it ended")
        late = await checks.first_late()
        if late is None:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise late
        await asyncio.sleep(POLL_SECONDS)


class Checks:
    """The questions still open. Each is asked until it is answered once, so that a round costs little."""

    def __init__(self, plan: Plan, started: Sequence[Part], is_alive: Callable[[Part], bool]) -> None:
        self._plan = plan
        self._started = started
        self._is_alive = is_alive
        self._listening: set[str] = set()

    async def first_late(self) -> NotReady | None:
        """What is not ready, in the order in which the parts need each other; None when all is."""
        for part in self._started:
            if part.id not in self._listening:
                if not await listens(part):
                    return NotReady(part, f"nothing answers at {part.address}")
                self._listening.add(part.id)
        return await self._unacknowledged() or await self._unserved()

    async def _unacknowledged(self) -> NotReady | None:
        control_planes = [p for p in self._plan.parts if p.name == "controlplane" and self._is_alive(p)]
        if not control_planes:
            return None  # they start from the last good configuration
        nodes: dict[str, Any] = {}
        for control_plane in control_planes:
            answer = await get(f"{control_plane.admin}/v1/nodes", self._plan.api_token)
            if answer is None or answer[0] != 200:
                said = f"status {answer[0]}" if answer else "no answer"
                return NotReady(control_plane, f"GET {control_plane.admin}/v1/nodes: {said}")
            nodes |= {node["id"]: node for node in json.loads(answer[1])["nodes"]}
        for part in self._started:
            waits_for = missing(part, nodes)
            if waits_for:
                return NotReady(part, waits_for)
        return None

    async def _unserved(self) -> NotReady | None:
        for part in self._started:
            if part.name != "envoy":
                continue
            for path in self._probes():
                answer = await ask_gateway(part, path)
                if answer is None and await turns_away(part):
                    continue  # it serves trusted proxies alone, and none is here
                if answer is None or answer[0] != 200:
                    said = f"{answer[0]} {answer[1][:300]}" if answer else "no answer"
                    return NotReady(part, f"GET {base_url(part)}{path}: {said}")
        return None

    def _probes(self) -> tuple[str, ...]:
        """Readiness asks for all of the gateway; where a part was left out or is dead on purpose, life must do."""
        whole = all(self._is_alive(part) for part in self._plan.parts)
        return ("/health/live", "/health/ready") if whole else ("/health/live",)


def missing(part: Part, nodes: Mapping[str, Any]) -> str | None:
    """What a part has yet to acknowledge, by the control plane's view of it; None when nothing."""
    if part.name not in ("authz", "ratelimit", "envoy"):
        return None
    node = nodes.get(part.id)
    if node is None or not node["types"]:
        return "it has not asked the control plane yet"
    for entry in node["types"]:
        if entry.get("rejected"):
            return f"it refused {entry['type_url']}: {entry['rejected']}"
        if not entry["version_sent"] or entry["version_sent"] != entry["version_acknowledged"]:
            return f"it has not acknowledged {entry['type_url']}"
    known = {entry["type_url"].rpartition(".")[2] for entry in node["types"]}
    lacking = [name for name in ENVOY_TYPES if part.name == "envoy" and name not in known]
    return f"it has no {', '.join(lacking)} yet" if lacking else None


async def listens(part: Part) -> bool:
    """Whether a part answers at all, in its own protocol where that is quick to speak."""
    if part.name == "redis":
        return await exchange(part.address, b"PING\r\n", _read_line) == b"+PONG\r\n"
    if part.name == "envoy":
        answer = await get(f"{part.admin}/ready")
        return answer is not None  # LIVE comes with the listener, which the nodes tell
    return await exchange(part.address, b"", _read_nothing) is not None


async def ask_gateway(envoy: Part, path: str) -> tuple[int, str] | None:
    """The gateway's answer, also where its connections begin with a PROXY header."""
    url = f"{base_url(envoy)}{path}"
    return await get(url) or await get(url, before=PROXY_HEADER)


async def turns_away(envoy: Part) -> bool:
    """Whether the gateway takes connections and closes them without a word."""
    host, _, port = envoy.address.rpartition(":")
    try:
        async with asyncio.timeout(CALL_SECONDS):
            reader, writer = await asyncio.open_connection(_callable_host(host), int(port))
            try:
                writer.write(PROXY_HEADER + b"GET /health/live HTTP/1.1\r\nHost: gateway\r\n\r\n")
                return not await reader.read(1)
            except ConnectionError:
                return True
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def get(url: str, token: str | None = None, method: str = "GET", before: bytes = b"") -> tuple[int, str] | None:
    """Status and body, or None where nobody answers. Small on purpose: an HTTP library takes 100 ms to import."""
    address, _, path = url.removeprefix("http://").partition("/")
    lines = [f"{method} /{path} HTTP/1.1", f"Host: {address}", "Connection: close", "User-Agent: mgw"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return await exchange(address, before + request, _read_response)


async def exchange(address: str, data: bytes, read: Callable[[asyncio.StreamReader], Awaitable[T]]) -> T | None:
    """Send, and read the answer; None where nobody listens, or nobody answers in time."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CALL_SECONDS):
            reader, writer = await asyncio.open_connection(_callable_host(host), int(port))
            try:
                writer.write(data)
                return await read(reader)
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError, ValueError):  # ValueError: it speaks something else
        return None


async def _read_response(reader: asyncio.StreamReader) -> tuple[int, str]:
    """A response by its own framing: Envoy keeps a connection open for a second after it said `close`."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if fields.get("transfer-encoding") == "chunked":
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(fields.get("content-length", 0)))
    return int(head.split(" ", 2)[1]), body.decode(errors="replace")


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    return b"".join(chunks)


async def _read_line(reader: asyncio.StreamReader) -> bytes:
    return await reader.readline()


async def _read_nothing(_reader: asyncio.StreamReader) -> bytes:
    return b""


def base_url(envoy: Part) -> str:
    host, _, port = envoy.address.rpartition(":")
    called = _callable_host(host)
    return f"http://{f'[{called}]' if ':' in called else called}:{port}"


def _callable_host(host: str) -> str:
    """The host to call for one that is listened on."""
    return "127.0.0.1" if host in ("0.0.0.0", "[::]") else host.strip("[]")
