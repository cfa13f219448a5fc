"""Contract 1: bodies stream through byte for byte, up to their limit, and nothing is kept of a refused request's."""

from __future__ import annotations

import pytest

from tests.support.gateway import Echo, Gateway, token
from tests.support.wire import Answer

DEFAULT_LIMIT = 1 << 20
LIMITS = [("/api/v1/search", DEFAULT_LIMIT), ("/t/small", 100), ("/t/large", 3 << 20)]

BODIES = {
    "empty": b"",
    "text": b'{"q":"h\xc3\xa9llo"}',
    "every byte": bytes(range(256)) * 8,
    "line ends": b"a\r\nb\nc\r\r\n\r\n0\r\n\r\n",
    "200 KiB": bytes(range(250)) * 800,
}


def post(gateway: Gateway, path: str, framed: bytes, caller: str) -> Answer | None:
    """A POST whose framing headers and body are given together."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {caller}\r\n"
    return gateway.send(head.encode() + framed)


def with_length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def in_chunks(body: bytes, size: int = 60_000) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize("frame", [with_length, in_chunks])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_is_untouched(gateway: Gateway, body: bytes, frame: object) -> None:
    """A body reaches the service byte for byte, by length or in chunks, the empty one included."""
    assert callable(frame)
    answer = post(gateway, "/api/v1/search", frame(body), token(tier="pro"))

    assert answer is not None
    assert (answer.status, Echo.of(answer).body) == (200, body)


def test_chunk_extensions_and_trailers_do_not_harm(gateway: Gateway) -> None:
    """Chunk extensions and trailers are legal, and are no part of the body."""
    framed = b"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3;a=b\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"

    answer = post(gateway, "/api/v1/search", framed, token(tier="pro"))

    assert answer is not None
    assert (answer.status, Echo.of(answer).body) == (200, b"abc")


def test_a_client_that_waits_is_told_to_continue(gateway: Gateway) -> None:
    """`Expect: 100-continue` is answered, and the body then arrives."""
    framed = b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"

    answer = post(gateway, "/api/v1/search", framed, token(tier="pro"))

    assert answer is not None
    assert (answer.status, Echo.of(answer).body) == (200, b"abc")


@pytest.mark.parametrize("frame", [with_length, in_chunks])
@pytest.mark.parametrize(("path", "limit"), LIMITS)
def test_the_limit_is_exact(gateway: Gateway, path: str, limit: int, frame: object) -> None:
    """A body of exactly the route's limit passes; one more byte is 413: by its length free, in chunks charged."""
    assert callable(frame)
    caller = token(tier="pro")
    before = gateway.hits()["discovery"]

    fits = post(gateway, path, frame(b"a" * limit), caller)
    refused = post(gateway, path, frame(b"a" * (limit + 1)), caller)
    after = gateway.ask("/api/v1/genres", bearer_token=caller)

    assert fits is not None
    assert fits.status == 200
    assert len(Echo.of(fits).body) == limit
    assert refused is not None
    assert (refused.status, refused.code) == (413, "PAYLOAD_TOO_LARGE")
    is_free = frame is with_length
    assert (refused.value("x-ratelimit-limit") is None) is is_free
    assert after.value("x-ratelimit-remaining") == ("998" if is_free else "997")
    assert gateway.hits()["discovery"] == before + 2


def test_a_declared_length_is_believed(gateway: Gateway) -> None:
    """A Content-Length over the limit is refused before the body is sent."""
    answer = post(gateway, "/api/v1/search", b"Content-Length: 999999999999\r\n\r\n", token(tier="pro"))

    assert answer is not None
    assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")


def test_a_large_body_needs_no_token_to_be_refused(gateway: Gateway) -> None:
    """413 or 401: a large body without a token on a protected route never reaches the service."""
    before = gateway.hits()

    answer = gateway.send(
        b"PUT /api/v1/user/preferences HTTP/1.1\r\nHost: x\r\n" + with_length(b"a" * (DEFAULT_LIMIT + 1))
    )

    assert answer is not None
    assert answer.code in ("PAYLOAD_TOO_LARGE", "UNAUTHORIZED")
    assert gateway.hits() == before
