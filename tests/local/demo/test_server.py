"""A demo upstream as a process, over real connections."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, RemoteDisconnected
from pathlib import Path

import pytest

from tests.support.ports import free_port

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    port = free_port()
    command = [sys.executable, "-S", "-m", "controlplane.local.demo", "discovery", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()  # it says so when it listens
    yield "127.0.0.1", port
    process.terminate()
    assert process.wait(5) == 0


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(*address, timeout=5)
    yield connection
    connection.close()


def test_one_connection_serves_many_requests(client: HTTPConnection) -> None:
    """Keep-alive, HEAD and bodies in chunks follow each other on one connection."""
    client.request("HEAD", "/a")
    head = client.getresponse()
    assert (head.status, head.read(), int(head.headers["content-length"]) > 100) == (200, b"", True)
    sock = client.sock

    client.request("POST", "/b", body=iter([b"x" * 100_000, b"y"]), encode_chunked=True)
    echo = json.loads(client.getresponse().read())

    assert (len(echo["body"]), client.sock is sock) == (100_001, True)


def test_requests_that_arrive_together_are_answered_in_order(address: tuple[str, int]) -> None:
    """A delayed answer holds back the next one of its connection, and nobody else's."""
    with socket.create_connection(address, timeout=5) as slow, socket.create_connection(address, timeout=5) as quick:
        slow.sendall(b"GET /1 HTTP/1.1\r\nx-demo-delay: 1\r\n\r\nGET /2 HTTP/1.1\r\nconnection: close\r\n\r\n")
        quick.sendall(b"GET /3 HTTP/1.1\r\nconnection: close\r\n\r\n")
        assert b'"/3"' in quick.makefile("rb").read()
        unanswered, _, _ = select.select([slow], [], [], 0)
        answers = slow.makefile("rb").read()

    assert answers.index(b'"/1"') < answers.index(b'"/2"')
    assert unanswered == []


def test_expect_continue(address: tuple[str, int]) -> None:
    """A client that waits for permission to send its body gets it."""
    with socket.create_connection(address, timeout=5) as sock:
        sock.sendall(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"ok")
        assert b'"body": "ok"' in sock.makefile("rb").read()


def test_close_ends_the_connection_without_an_answer(client: HTTPConnection) -> None:
    """`x-demo-close` looks to the client like a crash after the request."""
    client.request("GET", "/", headers={"x-demo-close": "1"})

    with pytest.raises(RemoteDisconnected):
        client.getresponse()


def test_reset_aborts_the_connection(client: HTTPConnection) -> None:
    """`x-demo-reset` sends a RST, not a FIN."""
    client.request("GET", "/", headers={"x-demo-reset": "1"})

    with pytest.raises(ConnectionResetError):
        client.getresponse()


def test_hang_never_answers(address: tuple[str, int]) -> None:
    """`x-demo-hang` keeps the connection open and silent, and the server serves on."""
    with socket.create_connection(address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nx-demo-hang: 1\r\n\r\n")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_nonsense_gets_a_400_and_is_cut_off(address: tuple[str, int]) -> None:
    """What is not HTTP is answered once."""
    with socket.create_connection(address, timeout=5) as sock:
        sock.sendall(b"nonsense\r\n\r\n")

        assert sock.makefile("rb").read().startswith(b"HTTP/1.1 400 ")
