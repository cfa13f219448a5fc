"""A real HTTP server that publishes a key set, and can be told to misbehave."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.support.authority import an_authority


@dataclass
class KeySource:
    """What it returns, and what it was asked."""

    status: int = 200
    body: bytes = b'{"keys":[]}'
    headers: dict[str, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    """The headers of each call, by names in lower case."""
    authority: bytes = b""
    """The certificate, in PEM, of who signed the source's own; empty without TLS."""
    answers: Callable[[KeySource, BaseHTTPRequestHandler], bool] | None = None
    url: str = ""

    def publish(self, *jwks: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": jwks}).encode()


@pytest.fixture
def key_source() -> Iterator[KeySource]:
    with serving(KeySource()) as source:
        yield source


@pytest.fixture
def tls_source() -> Iterator[KeySource]:
    """The same behind TLS, with a certificate for 127.0.0.1 of an authority that nobody knows."""
    authority = an_authority()
    with serving(KeySource(authority=authority.certificate), authority.server_context("127.0.0.1")) as source:
        yield source


@contextmanager
def serving(source: KeySource, tls: ssl.SSLContext | None = None) -> Iterator[KeySource]:
    """Serve the source on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source.calls.append(self.path)
            source.asked.append({name.lower(): value for name, value in self.headers.items()})
            if source.answers is not None and source.answers(source, self):
                return
            self.send_response(source.status)
            for name, value in {**source.headers, "content-length": str(len(source.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(source.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    source.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}/keys"
    yield source
    server.shutdown()
    server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is what some tests are about."""
