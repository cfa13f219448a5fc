"""Contract 1: what is no proper request is the client's fault: a 4xx or a closed connection, never a 5xx or a hit."""

from __future__ import annotations

import re

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Gateway, default_document, unique
from tests.support.wire import Connection

GET = b"GET /api/v1/genres HTTP/1.1\r\n"
POST = b"POST /api/v1/search HTTP/1.1\r\n"
HOST = b"Host: gateway.test\r\n"

REFUSED = {
    "a header of 70 KB": GET + HOST + b"X-A: " + b"a" * 70_000 + b"\r\n\r\n",
    "a cookie of 200 KB": GET + HOST + b"Cookie: " + b"a" * 200_000 + b"\r\n\r\n",
    "150 headers": GET + HOST + b"".join(b"X-%d: 1\r\n" % number for number in range(150)) + b"\r\n",
    "a path of 70 KB": b"GET /api/v1/content/" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in a name": GET + HOST + b"X A: 1\r\n\r\n",
    "a bracket in a name": GET + HOST + b"X(A): 1\r\n\r\n",
    "a name of a foreign letter": GET + HOST + "X-é: 1\r\n\r\n".encode(),
    "no name": GET + HOST + b": 1\r\n\r\n",
    "no colon": GET + HOST + b"X-A\r\n\r\n",
    "a space before the colon": GET + HOST + b"X-A : 1\r\n\r\n",
    "NUL in a value": GET + HOST + b"X-A: a\0b\r\n\r\n",
    "a control character in a value": GET + HOST + b"X-A: a\x01b\r\n\r\n",
    "length and chunks": POST + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two lengths that differ": POST + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
    "two lengths in one": POST + HOST + b"Content-Length: 2, 3\r\n\r\nabc",
    "a negative length": POST + HOST + b"Content-Length: -1\r\n\r\n",
    "a length with a sign": POST + HOST + b"Content-Length: +2\r\n\r\nab",
    "a length in hex": POST + HOST + b"Content-Length: 0x2\r\n\r\nab",
    "a length that overflows": POST + HOST + b"Content-Length: 99999999999999999999999\r\n\r\nab",
    "a chunk size that is none": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a negative chunk size": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk size that overflows": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n\r\n",
    "no host": GET + b"\r\n",
    "two hosts": GET + HOST + b"Host: other.test\r\n\r\n",
    "the same host twice": GET + HOST + HOST + b"\r\n",
    "a host with a user": GET + b"Host: u@x\r\n\r\n",
    "a host with escapes": GET + b"Host: x%0d%0a\r\n\r\n",
    "a host with a path": GET + b"Host: x/y\r\n\r\n",
    "a host with a port that is none": GET + b"Host: x:y\r\n\r\n",
    "a host with brackets in it": GET + b"Host: [::1].x\r\n\r\n",
    "a host with a space": GET + b"Host: a b\r\n\r\n",
    "an unknown transfer encoding": POST + HOST + b"Transfer-Encoding: gzip\r\n\r\n",
    "an unknown encoding before chunked": POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "nearly chunked": POST + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": POST + HOST + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab",
    "HTTP/1.0 without a host": b"GET /api/v1/genres HTTP/1.0\r\n\r\n",
    "HTTP/1.0 in chunks": b"POST /api/v1/search HTTP/1.0\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "HTTP/0.9": b"GET /api/v1/genres\r\n\r\n",
    "no version": b"GET /api/v1/genres FTP\r\n" + HOST + b"\r\n",
    "another scheme": b"GET ftp://gateway.test/api/v1/genres HTTP/1.1\r\n" + HOST + b"\r\n",
    "https in plain text": b"GET https://gateway.test/api/v1/genres HTTP/1.1\r\n" + HOST + b"\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "GET *": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT gateway.test:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"BREW /api/v1/genres HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method in lower case": b"get /api/v1/genres HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that is no token": b"G@T /api/v1/genres HTTP/1.1\r\n" + HOST + b"\r\n",
    "no leading slash": b"GET api/v1/genres HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the path": b"GET /api/v1/content/a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a control character in the path": b"GET /api/v1/content/a\x01 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a raw foreign letter in the path": "GET /api/v1/content/é HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "a fragment": b"GET /api/v1/content/a#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "noise": bytes(range(1, 256)) + b"\r\n\r\n",
    "a Connection header that names Host": GET + HOST + b"Connection: Host\r\n\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_malformed_is_a_4xx(plain: Gateway, data: bytes) -> None:
    """It is answered at once with a 4xx in the shape of every other error, or the connection is closed."""
    before = plain.hits()

    answer = plain.send(data, timeout=3)

    assert plain.hits() == before
    if answer is not None:
        assert 400 <= answer.status < 500
        assert (answer.value("content-type"), bool(answer.code)) == ("application/json", True)
        assert answer.value("x-request-id")
        assert answer.value("x-correlation-id") == answer.value("x-request-id")


SERVED_OR_REFUSED = {
    "a folded header": GET + HOST + b"X-A: 1\r\n  2\r\n\r\n",
    "a lone CR in a value": GET + HOST + b"X-A: a\rb\r\n\r\n",
    "lines that end in LF": b"GET /api/v1/genres HTTP/1.1\nHost: x\n\n",
    "a letter of Latin-1 in a value": GET + HOST + b"X-A: a\xffb\r\n\r\n",
    "two lengths that agree": POST + HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "an empty host": GET + b"Host: \r\n\r\n",
    "absolute form": b"GET http://gateway.test/api/v1/genres?a=b HTTP/1.1\r\nHost: gateway.test\r\n\r\n",
    "an unknown expectation": POST + HOST + b"Expect: nonsense\r\nContent-Length: 2\r\n\r\nab",
    "an upgrade to WebSocket": GET
    + HOST
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: YQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "an upgrade to h2c": GET
    + HOST
    + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    "a POST without a length": POST + HOST + b"\r\n",
    "a GET with a body": GET + HOST + b"Content-Length: 3\r\n\r\nabc",
    "60 headers": GET + HOST + b"".join(b"X-%d: 1\r\n" % number for number in range(60)) + b"\r\n",
    "a Connection header that names our own": GET + HOST + b"Connection: X-Request-ID, X-Forwarded-For\r\n\r\n",
    "empty lines first": b"\r\n\r\n" + GET + HOST + b"\r\n",
}


@pytest.mark.parametrize("data", SERVED_OR_REFUSED.values(), ids=SERVED_OR_REFUSED)
def test_what_is_odd_is_never_a_5xx(plain: Gateway, data: bytes) -> None:
    """What a proxy may mend or refuse is a 200 or a 4xx with the usual body."""
    answer = plain.send(data, timeout=3)

    if answer is not None:
        assert answer.status == 200 or (400 <= answer.status < 500 and answer.code), answer


def test_a_second_request_behind_a_refused_one_is_not_served(plain: Gateway) -> None:
    """After a request whose end cannot be known, the connection is closed: nothing behind it is read as a request."""
    smuggled = POST + HOST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET + HOST + b"\r\n"
    before = plain.hits()

    with Connection(plain.address, 3) as connection:
        connection.send(smuggled)
        first = connection.receive()
        assert first is None or first.status == 400
        assert connection.receive() is None
    assert plain.hits() == before


@pytest.mark.parametrize(
    "data",
    [
        b"GET /api/v1/genres HTTP/1.0\r\nHost: gateway.test\r\n\r\n",
        b"GET /api/v1/genres HTTP/1.0\r\nHost: gateway.test\r\nConnection: close\r\n\r\n",
        b"POST /api/v1/search HTTP/1.0\r\nHost: gateway.test\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /health/live HTTP/1.0\r\n\r\n",
        b"GET /health/ready HTTP/1.0\r\n\r\n",
    ],
)
def test_http10_is_served(plain: Gateway, data: bytes) -> None:
    """As nginx speaks it to upstreams by default; health even without a host, as load balancers ask for it."""
    answer = plain.send(data)

    assert answer is not None
    assert answer.status == 200


def test_http10_can_be_forbidden(start: StartGateway) -> None:
    """Then it is 426, whatever the path."""
    document = default_document()
    document["listener"]["http10"] = False
    gateway = start(document=document)

    for path in ("/api/v1/genres", "/health/live"):
        answer = gateway.send(f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
        assert answer is not None
        assert (answer.status, answer.code) == (426, "BAD_REQUEST")


EARLY = {
    "no host": GET,
    "a fragment": b"GET /a#b HTTP/1.1\r\n" + HOST,
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\n" + HOST,
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\n" + HOST,
    "a host with a user": GET + b"Host: u@x\r\n",
    "a hidden dot segment": b"GET /%2e%2e/a HTTP/1.1\r\n" + HOST,
    "an absolute https URL": b"GET https://a/b HTTP/1.1\r\n" + HOST,
    "too many fields": GET + HOST + b"".join(b"X-%d: 1\r\n" % number for number in range(120)),
    "an unknown path": b"GET /nowhere HTTP/1.1\r\n" + HOST,
}
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@pytest.mark.parametrize("given", ['<script>"', "a b", "x" * 129, "é", "good-1", None])
@pytest.mark.parametrize("start_of", EARLY.values(), ids=EARLY)
def test_ids_are_valid_whatever_failed(plain: Gateway, start_of: bytes, given: str | None) -> None:
    """A request that fails before the filters has its own ids back only if they are valid."""
    ids = f"X-Request-ID: {given}\r\nX-Correlation-ID: {given}\r\n".encode() if given else b""

    answer = plain.send(start_of + ids + b"\r\n")

    assert answer is not None
    found = [answer.value(name) or "" for name in ("x-request-id", "x-correlation-id")]
    assert all(VALID_ID.fullmatch(each) for each in found)
    assert found[0] == found[1]
    is_read = b"https://" not in start_of  # of which Envoy's codec keeps no header
    assert (found[0] == "good-1") is (given == "good-1" and is_read)


def test_ids_in_the_log_are_valid_whatever_failed(plain: Gateway) -> None:
    """The line has the ids of the response, and no trace of the client's."""
    marker = unique("early")
    answers = [
        plain.send(start_of + f'X-Request-ID: <{marker}>"\r\nX-Correlation-ID: <{marker}>\r\n\r\n'.encode())
        for start_of in EARLY.values()
    ]

    for answer in answers:
        assert answer is not None
        mine = answer.value("x-request-id") or ""
        line = plain.log_line(mine)
        assert (line["request_id"], line["correlation_id"], line["level"]) == (mine, mine, "WARN")
    assert not [line for line in plain.log_lines() if f"<{marker}>" in str(line)]
