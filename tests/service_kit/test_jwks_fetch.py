"""Fetching a key set from a real HTTP server, one that may be broken or hostile."""

from __future__ import annotations

import socket
from threading import Event
from typing import Any

import pytest

from service_kit.jwks_fetch import FetchFailed, fetch_key_set


async def test_a_key_set_is_fetched(key_source: Any) -> None:
    """The body as it was sent."""
    assert await fetch_key_set(key_source.url) == b'{"keys":[]}'


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 500, 503])
async def test_other_statuses_fail(status: int, key_source: Any) -> None:
    """An error page is no key set."""
    key_source.status = status
    with pytest.raises(FetchFailed, match=f"status {status}"):
        await fetch_key_set(key_source.url)


async def test_a_large_answer_fails(key_source: Any) -> None:
    """Before it is held in memory."""
    key_source.body = b"x" * 10_001
    with pytest.raises(FetchFailed, match="larger than 10000"):
        await fetch_key_set(key_source.url, max_bytes=10_000)


async def test_a_slow_answer_fails(key_source: Any) -> None:
    """After the time that a fetch has."""
    given_up = Event()

    def stall(source: Any, handler: Any) -> bool:
        handler.send_response(200)
        handler.end_headers()
        given_up.wait(5)
        return True

    key_source.answers = stall
    with pytest.raises(FetchFailed, match="Timeout"):
        await fetch_key_set(key_source.url, timeout_seconds=0.1)
    given_up.set()


@pytest.mark.parametrize("target", ["/elsewhere", "https://127.0.0.1:1/keys", "file:///etc/passwd", ""])
async def test_redirects_are_not_followed(target: str, key_source: Any) -> None:
    """The operator names the place; whoever can redirect could name another one."""
    key_source.status, key_source.headers = 302, {"location": target}
    with pytest.raises(FetchFailed, match=r"redirects, which is not followed|status 302"):
        await fetch_key_set(key_source.url)


async def test_nobody_there() -> None:
    """A refused connection fails, and the message holds neither user nor path."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(FetchFailed) as failure:
        await fetch_key_set(f"http://user:hunter2@127.0.0.1:{port}/path?token=hunter2")
    assert str(failure.value) == "ConnectError at http://127.0.0.1"
