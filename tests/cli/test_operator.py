"""Verbs that call the operator's API: which one, with what, and what its answers mean for the shell."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli.operator import call
from controlplane.local.exits import FAILED, UNAVAILABLE, USAGE, Failure
from controlplane.local.runfile import RunDirectory, write_run
from tests.support.ports import closed_port


class Api:
    """Answers every request alike, and remembers them."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b"{}"
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                api.asked.append((self.command, self.path, headers, content))
                self.send_response(api.status)
                for name, value in {"content-length": str(len(api.body)), **api.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(api.body)

            do_GET = do_PUT = answer

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing on standard error."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """An API; nothing in the environment leads to it or to another."""
    monkeypatch.delenv("MGW_API_URL", raising=False)
    monkeypatch.delenv("MGW_API_TOKEN", raising=False)
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield api
    api.server.shutdown()
    api.server.server_close()
    thread.join()


def a_run(folder: Path, api: str) -> Path:
    directory = RunDirectory(folder / "run")
    directory.create()
    write_run(directory, {"api": api, "api_token": "of the directory"})
    return directory.path


def test_the_gateway_of_a_directory_is_asked(api: Api, tmp_path: Path) -> None:
    """With its own token, and with what there is to say as JSON."""
    directory = a_run(tmp_path, api.url)
    api.body = b'{"a": [1]}'

    assert call("GET", "/v1/breakers", directory) == {"a": [1]}
    call("PUT", "/v1/breakers/x%2Fy", directory, {"reason": "ü"})

    (method, path, headers, content), (other, deeper, _, said) = api.asked
    assert (method, path, content) == ("GET", "/v1/breakers", b"")
    assert headers["authorization"] == "Bearer of the directory"
    assert (other, deeper, json.loads(said)) == ("PUT", "/v1/breakers/x%2Fy", {"reason": "ü"})


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_environment_goes_first(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slash: str) -> None:
    """Where MGW_API_URL is set the directory is not looked at, nor its token sent elsewhere."""
    monkeypatch.setenv("MGW_API_URL", api.url + slash)
    call("GET", "/v1/nodes", a_run(tmp_path, "http://127.0.0.1:9"))
    monkeypatch.setenv("MGW_API_TOKEN", "of the environment")
    call("GET", "/v1/nodes", tmp_path / "none")

    assert [path for _, path, _, _ in api.asked] == ["/v1/nodes"] * 2
    assert [headers["authorization"].strip() for _, _, headers, _ in api.asked] == [
        "Bearer",
        "Bearer of the environment",
    ]


def test_a_proxy_of_the_environment_is_not_asked(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator's token goes to the API alone."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")

    assert call("GET", "/v1/nodes", a_run(tmp_path, api.url)) == {}


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, {"detail": "there is no service named 'x'"}, "there is no service named 'x'"),
        (
            422,
            {"detail": "2 problem(s)", "problems": [{"path": "a", "message": "b"}, {"path": "c.0", "message": "d"}]},
            "2 problem(s); a: b; c.0: d",
        ),
        (500, {"title": "no detail"}, "the API answered 500"),
        (401, [], "the API answered 401"),
        (503, {"detail": "x", "problems": [1]}, "the API answered 503"),
        (502, None, "the API answered 502"),
    ],
)
def test_what_the_api_refuses_is_told_in_its_own_words(
    api: Api, tmp_path: Path, status: int, body: Any, says: str
) -> None:
    """Status 1; where it has no words that we know, the HTTP status."""
    api.status, api.body = status, b"<html>" if body is None else json.dumps(body).encode()

    with pytest.raises(Failure) as caught:
        call("GET", "/v1/breakers/x", a_run(tmp_path, api.url))

    assert (str(caught.value), caught.value.status) == (says, FAILED)


def test_a_redirect_is_not_followed(api: Api, tmp_path: Path) -> None:
    """The token would go along to wherever it leads."""
    api.status = 307
    api.headers = {"location": f"{api.url}/elsewhere"}

    with pytest.raises(Failure, match="the API answered 307"):
        call("GET", "/v1/nodes", a_run(tmp_path, api.url))

    assert len(api.asked) == 1


def test_where_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 69, with the two ways to name a gateway."""
    monkeypatch.delenv("MGW_API_URL", raising=False)

    with pytest.raises(Failure, match="name a gateway's --dir, or set MGW_API_URL") as caught:
        call("GET", "/v1/nodes", tmp_path / "none")

    assert caught.value.status == UNAVAILABLE


@pytest.mark.parametrize("url", ["foo", "localhost:18001", "file:///etc/passwd", "//a", "ftp://a"])
def test_what_is_no_url_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Status 64: the variable is named, with what it should look like."""
    monkeypatch.setenv("MGW_API_URL", url)

    with pytest.raises(Failure) as caught:
        call("GET", "/v1/nodes", tmp_path)

    assert str(caught.value) == f"MGW_API_URL is {url!r}, and not http://HOST:PORT"
    assert caught.value.status == USAGE


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "http://a b", "http://127.0.0.1:x", "http://nowhere.invalid"]
)
def test_a_url_that_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Status 69, and never a traceback."""
    monkeypatch.setenv("MGW_API_URL", url)

    with pytest.raises(Failure, match="does not answer") as caught:
        call("GET", "/v1/nodes", tmp_path)

    assert caught.value.status == UNAVAILABLE
    assert str(caught.value).startswith(url)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"\0\0\x12\x04\0\0\0\0\0",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff",
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
    ],
)
def test_what_is_not_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    """Another port of the gateway, or a page: it does not answer as the API does, and that is said."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("MGW_API_URL", f"http://127.0.0.1:{server.server_address[1]}")
        try:
            with pytest.raises(Failure, match="does not answer") as caught:
                call("GET", "/v1/nodes", tmp_path)
        finally:
            server.shutdown()
            thread.join()

    assert caught.value.status == UNAVAILABLE
