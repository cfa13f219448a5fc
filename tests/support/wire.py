"""HTTP/1.1 byte by byte: what a client library would tidy up before it is sent, or after it is received."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A response as it came over the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float = 0.0

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """The one value of a header; None where it is absent, and more than one is a mistake."""
        values = self.values(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of one of the gateway's own errors; None for anything else."""
        try:
            return self.json()["error"]["code"]  # type: ignore[no-any-return] # text, by the contract
        except (ValueError, LookupError, TypeError):
            return None


class Connection:
    """One connection to a server, to send bytes on and take answers from."""

    def __init__(self, address: str, timeout_seconds: float = 10) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=timeout_seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
            self._socket.sendall(data)

    def receive(self, *, head: bool = False) -> Answer | None:
        """The next final response; None where the connection is closed instead. Raises TimeoutError."""
        while True:
            start = self._until(b"\r\n\r\n")
            if start is None:
                return None
            lines = start.decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            if status >= 200 or status == 101:
                break
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        bodiless = head or status in (101, 204, 304)
        return Answer(
            status, headers, b"" if bodiless else self._body({name.lower(): value for name, value in headers})
        )

    def read_head(self) -> bytes:
        """A response's status line and headers; its body is left."""
        found = self._until(b"\r\n\r\n")
        assert found is not None, "the connection ended before a response"
        return found

    def is_closed(self) -> bool:
        """Whether the other side ends the connection. Raises TimeoutError where it does not."""
        while self._read():
            pass
        return True

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            return self._chunks()
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        rest = self._buffer
        while data := self._read():
            rest += data
        return rest

    def _chunks(self) -> bytes:
        body = b""
        while True:
            line = self._until(b"\r\n")
            assert line is not None, "the connection ended in the middle of a body"
            size = int(line, 16)
            body += self._exactly(size)
            assert self._exactly(2) == b"\r\n"
            if size == 0:
                return body

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._buffer:
            data = self._read()
            if not data:
                assert not self._buffer, f"the connection ended in the middle of an answer: {self._buffer!r}"
                return None
            self._buffer += data
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self._read()
            assert data, "the connection ended in the middle of a body"
            self._buffer += data
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _read(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except ConnectionResetError:
            return b""


def exchange(address: str, data: bytes, *, head: bool = False, timeout_seconds: float = 10) -> Answer | None:
    """Send bytes over a new connection and take the answer; None where it is closed without one."""
    with Connection(address, timeout_seconds) as connection:
        began = time.monotonic()
        connection.send(data)
        answer = connection.receive(head=head)
        if answer is None:
            return None
        return Answer(answer.status, answer.headers, answer.body, time.monotonic() - began)
