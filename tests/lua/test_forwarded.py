"""forwarded.lua: what trusted hops told of a client."""

from __future__ import annotations

import pytest

from tests.lua.support.worker import Worker

FORWARDED = Worker("forwarded")
PEER, READ = "192.0.2.1:4000", "203.0.113.9:0"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("http", "http"),
        ("https", "https"),
        ("HTTPS", "https"),
        ("wss", "https"),
        ("ws", "http"),
        ("ftp", "http"),
        ("https,http", "http"),
        ("", "http"),
    ],
)
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_the_protocol_is_one_of_two(said: str, kept: str, is_encrypted: bool) -> None:
    """What is neither makes way for how the connection came."""
    stream = FORWARDED.stream({"x-forwarded-proto": said}, is_encrypted=is_encrypted)

    FORWARDED.check(stream, stream.request)

    own = "https" if is_encrypted else "http"
    assert stream.request.get("x-forwarded-proto") == (kept if said.lower() in ("http", "https", "ws", "wss") else own)


@pytest.mark.parametrize(
    ("said", "address", "is_marked"),
    [
        ("203.0.113.9", READ, False),
        ("unknown", PEER, True),
        ("203.0.113.9", "[2001:db8::1]:4000", True),
        ("2001:db8::1", "[2001:db8::1]:0", False),
        ("", PEER, False),
        (None, PEER, False),
    ],
)
def test_an_address_that_could_not_be_read_is_marked(said: str | None, address: str, is_marked: bool) -> None:
    """There is a header, and yet the client is whatever is connected."""
    headers = {"x-forwarded-proto": "http"} | ({} if said is None else {"x-forwarded-for": said})
    stream = FORWARDED.stream(headers, address=address)

    FORWARDED.check(stream, stream.request)

    assert stream.dynamic == ({"mgw": {"forwarded_for_unread": True}} if is_marked else {})
