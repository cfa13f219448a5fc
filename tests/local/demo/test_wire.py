"""HTTP/1.1 as the demo upstream reads and writes it."""

from __future__ import annotations

import pytest

from controlplane.local.demo.wire import Answer, BadRequest, Reader, Request, encode


def read(*pieces: bytes) -> Request | None:
    reader = Reader()
    request = None
    for piece in pieces:
        reader.feed(piece)
        request = reader.next_request()
    return request


def test_a_request_keeps_its_raw_target_and_headers() -> None:
    """Target, header order, case and repeats are what the client sent."""
    request = read(b"GET /a%2Fb//?q=%20&q HTTP/1.1\r\nX-Two: 2\r\nhOst: x\r\nX-Two: 1\r\n\r\n")

    assert request is not None
    assert (request.method, request.target) == ("GET", "/a%2Fb//?q=%20&q")
    assert request.headers == [("X-Two", "2"), ("hOst", "x"), ("X-Two", "1")]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 5\r\n\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n"),
    ],
)
def test_a_body_is_whole_however_it_arrives(head: bytes, body: bytes) -> None:
    """By length or in chunks, byte by byte, the body is the same, and what follows it is the next request."""
    reader = Reader()
    reader.feed(b"POST / HTTP/1.1\r\n" + head)
    for i in range(len(body)):
        assert reader.next_request() is None
        reader.feed(body[i : i + 1])
    reader.feed(b"GET /next HTTP/1.1\r\n\r\n")

    first, second = reader.next_request(), reader.next_request()

    assert first is not None
    assert second is not None
    assert (first.body, second.target) == (b"hello", "/next")


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nName : value\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 300_000,
    ],
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    """Broken framing raises, rather than being guessed at."""
    with pytest.raises(BadRequest):
        read(data)


def test_expect_is_answered_once_while_the_body_is_awaited() -> None:
    """A client that waits for 100 Continue is told once, and only before its body."""
    reader = Reader()
    reader.feed(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")

    assert reader.next_request() is None
    assert [reader.wants_continue(), reader.wants_continue()] == [True, False]


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("HTTP/1.1", None, True),
        ("HTTP/1.1", "Close", False),
        ("HTTP/1.0", None, False),
        ("HTTP/1.0", "keep-alive", True),
    ],
)
def test_keep_alive(version: str, connection: str | None, kept: bool) -> None:
    """HTTP/1.1 keeps the connection unless told otherwise, HTTP/1.0 the other way round."""
    headers = [("Connection", connection)] if connection else []

    assert Request("GET", "/", version, headers).keeps_alive is kept


@pytest.mark.parametrize(
    ("status", "head", "expected"),
    [
        (200, False, b"HTTP/1.1 200 OK\r\na: 1\r\na: 2\r\ncontent-length: 2\r\n\r\nhi"),
        (200, True, b"HTTP/1.1 200 OK\r\na: 1\r\na: 2\r\ncontent-length: 2\r\n\r\n"),
        (204, False, b"HTTP/1.1 204 No Content\r\na: 1\r\na: 2\r\n\r\n"),
        (599, False, b"HTTP/1.1 599 Unknown\r\na: 1\r\na: 2\r\ncontent-length: 2\r\n\r\nhi"),
    ],
)
def test_an_answer_goes_out_with_its_headers_in_order(status: int, head: bool, expected: bytes) -> None:
    """Repeated headers stay apart and in order; HEAD and 204 have no body."""
    answer = Answer(status, [("a", "1"), ("a", "2")], b"hi")

    assert encode(answer, head=head, close=False) == expected
