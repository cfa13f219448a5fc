"""Fetching a key set from a real HTTP server, one that may be broken or hostile."""

import socket
from threading import Event
from typing import Any

import pytest

from authz_service.fetch import FetchFailed, http_fetch


async def test_a_key_set_is_fetched(key_source: Any) -> None:
    """The body as it was sent."""
    assert await http_fetch(key_source.url)() == b'{"keys":[]}'


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 500, 503])
async def test_other_statuses_fail(status: int, key_source: Any) -> None:
    """An error page is no key set."""
    key_source.status = status
    with pytest.raises(FetchFailed, match=f"status {status}"):
        await http_fetch(key_source.url)()


async def test_a_large_answer_fails(key_source: Any) -> None:
    """Before it is held in memory."""
    key_source.body = b"x" * 10_001
    with pytest.raises(FetchFailed, match="larger than 10000"):
        await http_fetch(key_source.url, max_bytes=10_000)()


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
        await http_fetch(key_source.url, timeout_seconds=0.1)()
    given_up.set()


async def test_redirects_within_the_scheme_are_followed(key_source: Any) -> None:
    """A few of them."""

    def redirect(source: Any, handler: Any) -> bool:
        hops = int(handler.path.partition("?")[2] or 0)
        if hops >= source.hops:
            return False
        handler.send_response(302)
        handler.send_header("location", f"/keys?{hops + 1}")
        handler.send_header("content-length", "0")
        handler.end_headers()
        return True

    key_source.answers = redirect
    key_source.hops = 3
    assert await http_fetch(key_source.url)() == b'{"keys":[]}'
    key_source.hops = 4
    with pytest.raises(FetchFailed, match="too many redirects"):
        await http_fetch(key_source.url)()


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/keys", "https://127.0.0.1:1/keys", "gopher://x", ""]
)
async def test_redirects_never_leave_the_scheme(target: str, key_source: Any) -> None:
    """Nor loop on an empty one."""
    key_source.status, key_source.headers = 302, {"location": target}
    with pytest.raises(FetchFailed, match=r"another scheme|too many"):
        await http_fetch(key_source.url)()


async def test_nobody_there() -> None:
    """A refused connection fails, and the message holds neither user nor path."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(FetchFailed) as failure:
        await http_fetch(f"http://user:hunter2@127.0.0.1:{port}/path?token=hunter2")()
    assert str(failure.value) == "ConnectError at http://127.0.0.1"
