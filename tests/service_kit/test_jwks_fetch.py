"""Fetching a key set from a real HTTP server, one that may be broken or hostile."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from service_kit.jwks_fetch import Copy, FetchFailed, fetch_key_set
from tests.support.authority import an_authority
from tests.support.ports import closed_port

DATE = "Thu, 26 Nov 2026 10:00:00 GMT"


@pytest.fixture
def says() -> Iterator[Any]:
    """Starts a peer that says these bytes to whoever asks it something, and closes; returns its address."""
    with ExitStack() as running:

        def start(said: bytes) -> str:
            server = running.enter_context(socket.create_server(("127.0.0.1", 0)))

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(said)

            Thread(target=answer, daemon=True).start()
            return f"127.0.0.1:{server.getsockname()[1]}"

        yield start


async def test_a_key_set_is_fetched(key_source: Any) -> None:
    """The body as it was sent."""
    assert await fetch_key_set(key_source.url) == Copy(b'{"keys":[]}')


@pytest.mark.parametrize(
    ("sent", "asked"),
    [
        ({"etag": '"v1"'}, {"if-none-match": '"v1"'}),
        ({"etag": 'W/"v1"', "last-modified": DATE}, {"if-none-match": 'W/"v1"'}),
        ({"last-modified": DATE}, {"if-modified-since": DATE}),
    ],
    ids=["etag", "both", "date"],
)
async def test_what_has_not_changed_is_not_sent_again(
    sent: dict[str, str], asked: dict[str, str], key_source: Any
) -> None:
    """The source is told what is known (RFC 9110, section 13.1), and with 304 the copy stays."""
    key_source.headers = sent
    copy = await fetch_key_set(key_source.url)

    key_source.status, key_source.body = 304, b""
    assert await fetch_key_set(key_source.url, copy) is copy
    conditions = {name: value for name, value in key_source.asked[-1].items() if name.startswith("if-")}
    assert conditions == asked


@pytest.mark.parametrize("etag", ["", "x" * 2000, "caf\u00e9"])
async def test_a_strange_etag_is_not_sent_back(etag: str, key_source: Any) -> None:
    """What cannot be sent as it came is as none."""
    key_source.headers = {"etag": etag}
    copy = await fetch_key_set(key_source.url)

    assert await fetch_key_set(key_source.url, copy) == copy
    assert "if-none-match" not in key_source.asked[-1]


async def test_nothing_is_known_and_nothing_changed(key_source: Any) -> None:
    """A 304 that nobody asked for is no key set."""
    key_source.status = 304
    for known in (None, Copy(b"{}")):
        with pytest.raises(FetchFailed, match="status 304"):
            await fetch_key_set(key_source.url, known)


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 500, 503])
async def test_other_statuses_fail(status: int, key_source: Any) -> None:
    """An error page is no key set."""
    key_source.status = status
    with pytest.raises(FetchFailed, match=f"status {status}$"):
        await fetch_key_set(key_source.url)


async def test_a_large_answer_fails(key_source: Any) -> None:
    """Before it is held in memory."""
    key_source.body = b"x" * 10_001
    with pytest.raises(FetchFailed, match="larger than 10000"):
        await fetch_key_set(key_source.url, max_bytes=10_000)


async def test_a_compressed_answer_fails(key_source: Any) -> None:
    """It was not asked for, and a small one could be a large one."""
    key_source.headers = {"content-encoding": "gzip"}
    with pytest.raises(FetchFailed, match="compressed"):
        await fetch_key_set(key_source.url)


async def test_a_slow_answer_fails(key_source: Any) -> None:
    """After the time that a fetch has."""
    given_up = Event()

    def stall(source: Any, handler: Any) -> bool:
        handler.send_response(200)
        handler.end_headers()
        given_up.wait(5)
        return True

    key_source.answers = stall
    with pytest.raises(FetchFailed, match=r"time-out after 0\.1 s$"):
        await fetch_key_set(key_source.url, timeout_seconds=0.1)
    given_up.set()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["/elsewhere", "https://127.0.0.1:1/keys", "file:///etc/passwd", ""])
async def test_redirects_are_not_followed(target: str, status: int, key_source: Any) -> None:
    """The operator names the place; whoever can redirect could name another one. The failure says so."""
    key_source.status, key_source.headers = status, {"location": target}
    with pytest.raises(FetchFailed, match=f"status {status}, a redirect, and redirects are not followed$"):
        await fetch_key_set(key_source.url)
    assert len(key_source.calls) == 1


async def test_nobody_there() -> None:
    """A refused connection fails, and the message holds neither user nor path."""
    port = closed_port()
    with pytest.raises(FetchFailed) as failure:
        await fetch_key_set(f"http://user:hunter2@127.0.0.1:{port}/path?token=hunter2")
    assert str(failure.value) == f"http://127.0.0.1:{port}: connection refused"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://no-such-name.invalid/keys", "http://no-such-name.invalid: the name does not resolve"),
        ("http://127.0.0.1:99999/keys", "nobody can connect to such a URL"),
        ("http://[::1/keys", "nobody can connect to such a URL"),
    ],
)
async def test_a_url_that_leads_nowhere(url: str, why: str) -> None:
    """The message says what is wrong with it."""
    with pytest.raises(FetchFailed, match=re.escape(why)):
        await fetch_key_set(url)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is not HTTP"),
        (b"", "the connection ended before an answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", "the connection ended before an answer"),
    ],
    ids=["other protocol", "nothing", "a part"],
)
async def test_a_peer_that_is_no_source(said: bytes, why: str, says: Any) -> None:
    """The message says what it did instead."""
    with pytest.raises(FetchFailed, match=f"{why}$"):
        await fetch_key_set(f"http://{says(said)}/keys")


async def test_plain_text_where_tls_was_asked(key_source: Any) -> None:
    """The message says that it is TLS that fails."""
    with pytest.raises(FetchFailed, match=r"^https://127\.0\.0\.1:\d+: TLS: "):
        await fetch_key_set(key_source.url.replace("http:", "https:"))


# -- TLS


async def test_a_certificate_of_an_unknown_authority(tls_source: Any) -> None:
    """The machine's authorities are the ones that are trusted; the message says what is wrong."""
    with pytest.raises(FetchFailed, match=r": TLS: the certificate is not trusted: "):
        await fetch_key_set(tls_source.url)


async def test_a_private_authority(tls_source: Any, tmp_path: Path) -> None:
    """With its certificate in `ca_file` the source is trusted; the file is read again each time."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(tls_source.authority)
    assert await fetch_key_set(tls_source.url, ca_file=str(ca_file)) == Copy(b'{"keys":[]}')

    ca_file.write_bytes(an_authority().certificate)
    with pytest.raises(FetchFailed, match="not trusted"):
        await fetch_key_set(tls_source.url, ca_file=str(ca_file))


async def test_a_certificate_for_another_name(tls_source: Any, tmp_path: Path) -> None:
    """Trusted, and still not the one that was asked for."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(tls_source.authority)
    with pytest.raises(FetchFailed, match=r"not trusted: Hostname mismatch"):
        await fetch_key_set(tls_source.url.replace("127.0.0.1", "localhost"), ca_file=str(ca_file))


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"", "no certificate"), (b"no PEM", "no certificate")]
)
async def test_a_ca_file_that_cannot_be_used(content: bytes | None, why: str, key_source: Any, tmp_path: Path) -> None:
    """The failure names it, and nobody is asked."""
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(FetchFailed, match=f"ca_file {ca_file}.*{why}"):
        await fetch_key_set(key_source.url, ca_file=str(ca_file))
    assert key_source.calls == []
