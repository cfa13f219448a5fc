"""HTTP/1.1 as a server reads and writes it: bytes in, requests out; no socket here."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

MAX_HEAD = 256 * 1024
MAX_BODY = 64 * 1024 * 1024


class BadRequest(Exception):
    """What arrived is not HTTP/1.1; the connection cannot go on."""


class Request:
    """One request, with its target and header names exactly as they arrived."""

    __slots__ = ("body", "headers", "method", "target", "version")

    def __init__(self, method: str, target: str, version: str, headers: list[tuple[str, str]]) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.body = b""

    def values(self, name: str) -> list[str]:
        """Every value of the header `name`, which is given in lower case."""
        return [value for header, value in self.headers if header.lower() == name]

    def value(self, name: str) -> str | None:
        values = self.values(name)
        return values[-1] if values else None

    @property
    def keeps_alive(self) -> bool:
        tokens = {token.strip().lower() for value in self.values("connection") for token in value.split(",")}
        return "close" not in tokens and (self.version == "HTTP/1.1" or "keep-alive" in tokens)


class Reader:
    """Collects what a client sends and yields whole requests, one `next_request` at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._request: Request | None = None
        self._chunks: list[bytes] | None = None
        self._announced = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next_request(self) -> Request | None:
        """The next request once all of it is here. Raises BadRequest."""
        if self._request is None:
            self._request = self._head()
        if self._request is None or not self._read_body(self._request):
            return None
        request, self._request, self._chunks, self._announced = self._request, None, None, False
        return request

    def wants_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body; true once a request."""
        request = self._request
        if request is None or self._announced or (request.value("expect") or "").lower() != "100-continue":
            return False
        self._announced = True
        return not self._buffer

    def _head(self) -> Request | None:
        while self._buffer.startswith(b"\r\n"):  # RFC 9112, 2.2: empty lines before a request are skipped
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                raise BadRequest("the head is too long")
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise BadRequest("no request line")
        return Request(words[0], words[1], words[2], [_header(line) for line in lines[1:]])

    def _read_body(self, request: Request) -> bool:
        if (request.value("transfer-encoding") or "").lower() == "chunked":
            return self._read_chunks(request)
        text = request.value("content-length") or "0"
        if not (text.isascii() and text.isdigit()) or int(text) > MAX_BODY:
            raise BadRequest("no usable content-length")
        if len(self._buffer) < int(text):
            return False
        request.body = self._take(int(text))
        return True

    def _read_chunks(self, request: Request) -> bool:
        if self._chunks is None:
            self._chunks = []
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return False
            size = _chunk_size(self._buffer[:end])
            if size == 0:
                return self._read_trailers(request, end)
            if len(self._buffer) < end + 2 + size + 2:
                return False
            self._take(end + 2)
            self._chunks.append(self._take(size))
            if self._take(2) != b"\r\n" or sum(map(len, self._chunks)) > MAX_BODY:
                raise BadRequest("a broken chunk, or too many")

    def _read_trailers(self, request: Request, last_chunk_end: int) -> bool:
        end = self._buffer.find(b"\r\n\r\n", last_chunk_end)
        if end < 0:
            return False
        self._take(end + 4)  # trailers are dropped, as most servers do
        request.body = b"".join(self._chunks or ())
        return True

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise BadRequest("a broken header line")
    return name, value.strip(" \t")


def _chunk_size(line: bytes | bytearray) -> int:
    digits = line.split(b";", 1)[0].strip()
    try:
        size = int(digits, 16)
    except ValueError:
        raise BadRequest("a broken chunk size") from None
    if not 0 <= size <= MAX_BODY:
        raise BadRequest("a chunk that is too long")
    return size


class Answer:
    """A response with headers in the order in which they go out."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


def encode(answer: Answer, *, head: bool, close: bool) -> bytes:
    """The answer's bytes; `head` leaves the body out but keeps its length, as a HEAD request wants it."""
    bodiless = answer.status in (204, 304)
    lines = [f"HTTP/1.1 {answer.status} {_reason(answer.status)}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += _framing(len(answer.body), bodiless=bodiless, close=close)
    start = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    return start if head or bodiless else start + answer.body


def _framing(length: int, *, bodiless: bool, close: bool) -> Iterator[str]:
    if not bodiless:
        yield f"content-length: {length}"
    if close:
        yield "connection: close"


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
