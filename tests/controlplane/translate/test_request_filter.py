"""The request filter in a real Envoy: one path for authorisation, matching and forwarding, and two valid ids."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from controlplane import protos
from controlplane.topology import Address
from controlplane.translate import assemble
from tests.support.configs import TOPOLOGY, a_config, a_route, a_service
from tests.support.paths import NORMALISED, REJECTED, UNCHANGED
from tests.support.ports import free_port, is_reachable
from tests.support.waiting import eventually


class Upstream(socketserver.StreamRequestHandler):
    """Answers with the request's head, byte for byte as it came."""

    def handle(self) -> None:
        lines = []
        while (line := self.rfile.readline().rstrip(b"\r\n").decode("latin-1")) != "":
            lines.append(line)
        if lines:
            body = json.dumps(lines).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            self.wfile.write(head.encode() + body)


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def path(self) -> str | None:
        """The path that the upstream got."""
        return self.body[0].split(" ")[1] if isinstance(self.body, list) else None

    @property
    def error(self) -> str | None:
        """The code of an error."""
        return self.body["error"]["code"] if isinstance(self.body, dict) and "error" in self.body else None

    def forwarded(self, name: str) -> list[str]:
        """The values of a header that the upstream got."""
        pairs = (line.partition(": ") for line in self.body[1:])
        return [value for key, _, value in pairs if key.lower() == name]


Ask = Callable[..., Answer]


def read_answer(client: socket.socket) -> Answer:
    stream = client.makefile("rb")
    status, *lines = [line.decode("latin-1").rstrip() for line in iter(stream.readline, b"\r\n")]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = stream.read(int(headers.get("content-length", "0")))  # not to the end: Envoy closes a second later
    try:
        return Answer(int(status.split()[1]), headers, json.loads(body))
    except ValueError:
        return Answer(int(status.split()[1]), headers, body)


@pytest.fixture(scope="module")
def ask(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Sends one raw request to an Envoy whose routes lead everything to one upstream."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upstream) as upstream:
        upstream.daemon_threads = True
        threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        port = free_port()
        everything = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
        config = a_config(
            limits={"tiers": {tier: {"rps": 10000, "rpm": 100000, "burst": 10000} for tier in ("anonymous", "free")}},
            cors={"allow_origins": ["https://app.example"]},
            services=[a_service("demo", f"http://127.0.0.1:{upstream.server_address[1]}")],
            routes=[
                a_route("root", "/", everything, auth="none"),
                a_route("rest", "/{rest=**}", everything, auth="none"),
                a_route("secret", "/secret/{x}", ("GET",), auth="required"),
            ],
        )
        path = tmp_path_factory.mktemp("front") / "bootstrap.json"
        path.write_text(
            json.dumps(protos.message_to_dict(assemble.static_bootstrap(config, TOPOLOGY, Address("127.0.0.1", port))))
        )
        command = [str(envoy_binary), "-c", str(path), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

        def send(path: str, method: str = "GET", headers: Sequence[str] = ()) -> Answer:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                lines = [f"{method} {path} HTTP/1.1", "host: gateway.example", "connection: close", *headers]
                client.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
                return read_answer(client)

        try:
            until_it_listens(port, process)
            yield send
        finally:
            process.terminate()
            process.wait(10)
            upstream.shutdown()


def until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    def listens() -> bool:
        assert process.poll() is None, "Envoy ended"
        return is_reachable(f"127.0.0.1:{port}")

    assert eventually(listens, 20), "Envoy did not listen in time"


@pytest.mark.parametrize("path", UNCHANGED)
def test_a_plain_path_is_forwarded_byte_for_byte(ask: Ask, path: str) -> None:
    """What needs no normalisation reaches the upstream as it was sent, query included."""
    assert (ask(path).status, ask(path).path) == (200, path)


@pytest.mark.parametrize(("path", "forwarded"), NORMALISED)
def test_a_path_is_normalised_once(ask: Ask, path: str, forwarded: str) -> None:
    """Dot segments and empty segments go, unreserved characters are written plainly, and the query stays."""
    assert (ask(path).status, ask(path).path) == (200, forwarded)


@pytest.mark.parametrize("path", REJECTED)
def test_what_hides_something_is_rejected(ask: Ask, path: str) -> None:
    """Encoded slashes, backslashes, NUL and dot segments, however deep the encoding, never reach an upstream."""
    answer = ask(path)

    assert (answer.status, answer.error, answer.headers["x-gateway-error"]) == (400, "BAD_REQUEST", "BAD_REQUEST")


@pytest.mark.parametrize("path", ["/secret/1", "/a/../secret/1", "//secret/1", "/s%65cret/1", "/./secret//1"])
def test_the_path_that_is_matched_is_the_normalised_one(ask: Ask, path: str) -> None:
    """No spelling of a path goes around its route: here, authz is asked and is not there."""
    answer = ask(path, headers=["authorization: Bearer a"])

    assert (answer.status, answer.error) == (503, "SERVICE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("path", ["/health/live", "//health//live", "/x/../health/live", "/h%65alth/live"])
def test_health_is_answered_here(ask: Ask, path: str) -> None:
    """`/health/live` is Envoy's own word, however it is written."""
    assert (ask(path).status, ask(path).body) == (200, {"status": "alive"})


@pytest.mark.parametrize(
    ("path", "method", "status", "code"),
    [
        ("/secret/1", "POST", 405, "METHOD_NOT_ALLOWED"),
        ("/health", "DELETE", 405, "METHOD_NOT_ALLOWED"),
        ("*", "OPTIONS", 404, "NOT_FOUND"),
        ("gateway.example:80", "CONNECT", 400, "BAD_REQUEST"),
        ("/a#b", "GET", 400, "BAD_REQUEST"),
    ],
)
def test_odd_requests_get_the_common_shape(ask: Ask, path: str, method: str, status: int, code: str) -> None:
    """Whatever is asked, an error has the gateway's shape."""
    answer = ask(path, method)

    assert (answer.status, answer.error) == (status, code)


UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 128])
def test_a_clients_own_ids_are_kept(ask: Ask, given: str) -> None:
    """1 to 128 characters of letters, digits, dot, underscore and hyphen are the request's id everywhere."""
    answer = ask("/a", headers=[f"X-Request-ID: {given}", f"X-Correlation-ID: {given[::-1]}"])

    assert (answer.headers["x-request-id"], answer.headers["x-correlation-id"]) == (given, given[::-1])
    assert answer.forwarded("x-request-id") == [given]
    assert answer.forwarded("x-correlation-id") == [given[::-1]]


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "é", "a,b", '"a"', "a\tb", None])
def test_any_other_id_is_replaced(ask: Ask, given: str | None) -> None:
    """Otherwise the id is a new UUID, and the correlation id is the request's."""
    answer = ask("/a", headers=[] if given is None else [f"x-request-id: {given}", f"x-correlation-id: {given}"])

    assert UUID4.fullmatch(answer.headers["x-request-id"])
    assert answer.headers["x-correlation-id"] == answer.headers["x-request-id"]
    assert answer.forwarded("x-request-id") == [answer.headers["x-request-id"]]


def test_an_error_has_ids_and_cors_headers(ask: Ask) -> None:
    """A browser can read an error, and a user can name it."""
    answer = ask("/a%2fb", headers=["origin: https://app.example", "x-request-id: mine"])

    assert answer.headers["x-request-id"] == answer.headers["x-correlation-id"] == "mine"
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "name",
    [
        "X-User-ID",
        "x_user_id",
        "X-USER_TIER",
        "X-User-Issuer",
        "x_user_issuer",
        "x-mgw-bad-request",
        "X_MGW_Client_Request_Id",
        "x-gateway-error",
        "X-Envoy-Max-Retries",
    ],
)
def test_reserved_names_never_reach_an_upstream(ask: Ask, name: str) -> None:
    """A client's own copy of what only the gateway says is gone, however it is written."""
    answer = ask("/a", headers=[f"{name}: forged"])

    assert answer.status == 200
    assert "forged" not in str(answer.body)
