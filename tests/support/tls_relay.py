"""TLS before a server that has none, on a port that takes plain connections too, as a Redis with both ports would."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

_HANDSHAKE = b"\x16"
"""The first byte of TLS; no command of Redis begins so."""


class TlsRelay:
    """Passes bytes on to a TCP port or a unix socket."""

    def __init__(self, listener: socket.socket, target: int | str, context: ssl.SSLContext) -> None:
        self._listener = listener
        self._target = target
        self._context = context
        self._open: set[socket.socket] = set()
        self.port: int = listener.getsockname()[1]
        self.encrypted = 0
        """How many connections came with TLS."""

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve_one, args=(client,), daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve_one(self, client: socket.socket) -> None:
        self._open.add(client)
        with contextlib.suppress(OSError):
            if client.recv(1, socket.MSG_PEEK) == _HANDSHAKE:
                client = self._context.wrap_socket(client, server_side=True)
                self._open.add(client)
                self.encrypted += 1
            server = self._connect()
            self._open.add(server)
            threading.Thread(target=_pass_on, args=(server, client), daemon=True).start()
            _pass_on(client, server)

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            return socket.create_connection(("127.0.0.1", self._target))
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._target)
        return server


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tls_relay(
    target: int | str, context: ssl.SSLContext, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[TlsRelay]:
    """A relay for as long as this lasts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    relay = TlsRelay(socket.create_server((host, port), family=family), target, context)
    thread = threading.Thread(target=relay.serve, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.close()
        thread.join(5)
