"""What a demo upstream does with a request: echo it, or misbehave as it was told to.

One request is told by its headers `x-demo-status`, `x-demo-delay` (seconds), `x-demo-hang`, `x-demo-close`,
`x-demo-reset` and `x-demo-set-header: Name: value` (repeatable). All requests, or those under a `path_prefix`, are told
by `PUT /_demo/mode` with the same names in JSON, until `DELETE /_demo/mode`; `/health` obeys a mode only where the mode
says `"health": true`. `GET /_demo/hits`, `GET /_demo/requests` and `POST /_demo/reset` tell and forget what was seen.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from collections import deque
from typing import Any

from controlplane.local.demo.wire import Answer, Request

ANSWER, HANG, CLOSE, RESET = "answer", "hang", "close", "reset"
KEPT_REQUESTS = 1000
_FLAGS = (RESET, CLOSE, HANG)
_MODE_KEYS = {"status", "delay", "headers", "path_prefix", "health", *_FLAGS}


class Plan:
    """What to do with one request: the act, after how many seconds, and the answer where there is one."""

    __slots__ = ("act", "answer", "delay_seconds")

    def __init__(self, act: str, delay_seconds: float, answer: Answer) -> None:
        self.act = act
        self.delay_seconds = delay_seconds
        self.answer = answer


class Echo:
    """One demo service: its name, its mode, and what it has seen."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.hits = 0
        self._seen: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self._mode: dict[str, Any] = {}

    def plan(self, request: Request) -> Plan:
        """Decide what becomes of a request, and count it."""
        path = request.target.partition("?")[0]
        if path.startswith("/_demo/"):
            return Plan(ANSWER, 0, self._control(request, path))
        health = path == "/health"
        if not health:
            self.hits += 1
            self._seen.append({"method": request.method, "target": request.target, "headers": request.headers})
        try:
            told = self._told(request, path, health)
        except ValueError as error:
            return Plan(ANSWER, 0, self._json(400, {"error": str(error)}))
        body = {"status": "ok"} if health else self._echo(request)
        answer = self._json(told.get("status", 200), body, told.get("headers", []))
        act = next((flag for flag in _FLAGS if told.get(flag)), ANSWER)
        return Plan(act, told.get("delay", 0), answer)

    def _told(self, request: Request, path: str, health: bool) -> dict[str, Any]:
        """The lasting mode where it covers this path, overruled by the request's own headers."""
        told: dict[str, Any] = {}
        if path.startswith(self._mode.get("path_prefix", "/")) and (not health or self._mode.get("health")):
            told |= self._mode
        for name, read in (("status", _status), ("delay", _seconds)):
            value = request.value(f"x-demo-{name}")
            if value is not None:
                told[name] = read(value)
        for flag in _FLAGS:
            value = request.value(f"x-demo-{flag}")
            if value is not None:
                told[flag] = value.lower() not in ("", "0", "false")
        asked = [_pair(value) for value in request.values("x-demo-set-header")]
        return told | {"headers": [*told.get("headers", []), *asked]}

    def _echo(self, request: Request) -> dict[str, Any]:
        path, mark, query = request.target.partition("?")
        return {
            "service": self.service,
            "method": request.method,
            "path": path,
            "query": query if mark else None,
            "target": request.target,
            "headers": request.headers,
            "body": _text(request.body),
            "body_base64": b2a_base64(request.body, newline=False).decode(),
            "hits": self.hits,
        }

    def _control(self, request: Request, path: str) -> Answer:
        match request.method, path:
            case "GET", "/_demo/hits":
                return self._json(200, {"hits": self.hits})
            case "GET", "/_demo/requests":
                return self._json(200, {"requests": list(self._seen)})
            case "POST", "/_demo/reset":
                self.hits, self._mode = 0, {}
                self._seen.clear()
                return self._json(200, {"hits": 0})
            case "GET", "/_demo/mode":
                return self._json(200, self._mode)
            case "DELETE", "/_demo/mode":
                self._mode = {}
                return self._json(200, {})
            case "PUT", "/_demo/mode":
                return self._set_mode(request.body)
        return self._json(404, {"error": f"no {request.method} {path} here"})

    def _set_mode(self, body: bytes) -> Answer:
        try:
            self._mode = _mode(json.loads(body))
        except (ValueError, TypeError) as error:
            return self._json(400, {"error": str(error)})
        return self._json(200, self._mode)

    def _json(self, status: int, value: object, headers: list[tuple[str, str]] | None = None) -> Answer:
        own = [("content-type", "application/json"), ("x-demo-service", self.service)]
        replaced = {name.lower() for name, _ in headers or ()}
        kept = [(name, text) for name, text in own if name not in replaced]
        return Answer(status, [*kept, *(headers or ())], json.dumps(value, ensure_ascii=False).encode())


def _mode(value: object) -> dict[str, Any]:
    """A checked mode. Raises ValueError or TypeError with what is wrong."""
    if not isinstance(value, dict):
        raise TypeError("a mode is a JSON object")
    mode = {key: entry for key, entry in value.items() if entry is not None}
    unknown = sorted(mode.keys() - _MODE_KEYS)
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(_MODE_KEYS))}")
    if "status" in mode:
        mode["status"] = _status(mode["status"])
    if "delay" in mode:
        mode["delay"] = _seconds(mode["delay"])
    if "headers" in mode:
        mode["headers"] = [(str(name), str(text)) for name, text in mode["headers"]]
    return mode


def _status(value: Any) -> int:
    status = int(value)
    if not 200 <= status <= 599:
        raise ValueError(f"no status to answer with: {value}")
    return status


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds <= 3600:
        raise ValueError(f"no delay: {value}")
    return seconds


def _pair(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"x-demo-set-header wants `Name: value`, not {text!r}")
    return name.strip(), value.strip()


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
