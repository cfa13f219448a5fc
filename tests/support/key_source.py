"""A real HTTP server that publishes a key set, and can be told to misbehave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest


@dataclass
class KeySource:
    """What it returns, and what it was asked."""

    status: int = 200
    body: bytes = b'{"keys":[]}'
    headers: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    answers: Callable[[KeySource, BaseHTTPRequestHandler], bool] | None = None
    url: str = ""

    def publish(self, *jwks: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": jwks}).encode()


@pytest.fixture
def key_source() -> Iterator[KeySource]:
    source = KeySource()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source.calls.append(self.path)
            if source.answers is not None and source.answers(source, self):
                return
            self.send_response(source.status)
            for name, value in {**source.headers, "content-length": str(len(source.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(source.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    source.url = f"http://127.0.0.1:{server.server_port}/keys"
    yield source
    server.shutdown()
    server.server_close()
