"""Contract 3: who an anonymous caller is behind proxies, however these write its address."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartGateway
from tests.support.gateway import Echo, Gateway, client_address, default_document, token, unique
from tests.support.waiting import eventually

PATH = "/api/v1/genres"
V2 = b"\r\n\r\n\0\r\nQUIT\n"


def client_of(gateway: Gateway, *headers: tuple[str, str]) -> str:
    """The address that the log names for a request."""
    request_id = unique("address")
    answer = gateway.ask(PATH, headers=[("X-Request-ID", request_id), *headers], bearer_token=token(tier="pro"))
    assert answer.status == 200, answer.body
    return str(gateway.log_line(request_id)["client"])


def forwarded_for(value: str) -> tuple[str, str]:
    return "X-Forwarded-For", value


ONE_HOP = [
    ("203.0.113.2", "203.0.113.2"),
    ("203.0.113.2:4711", "203.0.113.2"),
    ("203.0.113.2:", "203.0.113.2"),
    ("203.0.113.2,", "203.0.113.2"),
    ("203.0.113.2 , ,", "203.0.113.2"),
    ("203.0.113.2:4711,", "203.0.113.2"),
    ("2001:db8::1", "2001:db8::1"),
    ("[2001:db8::1]", "2001:db8::1"),
    ("[2001:db8::1]:4711", "2001:db8::1"),
    ('"[2001:db8::1]:4711"', "2001:db8::1"),
    ("[2001:DB8:0::1]:4711,", "2001:db8::1"),
    ("198.51.100.7, 203.0.113.2:4711", "203.0.113.2"),
    ("198.51.100.7:80, [2001:db8::1]:4711", "2001:db8::1"),
    ("unknown, 203.0.113.2:4711", "203.0.113.2"),
    ("unknown", "127.0.0.1"),
    ("203.0.113.999", "127.0.0.1"),
    ("203.0.113.2, unknown", "127.0.0.1"),
    ("203.0.113.2:80:90", "127.0.0.1"),
    ("[nonsense]:80", "127.0.0.1"),
    ("", "127.0.0.1"),
]


@pytest.mark.parametrize(("sent", "client"), ONE_HOP)
def test_one_hop_in_every_form(gateway: Gateway, sent: str, client: str) -> None:
    """Ports, brackets, quotes and empty members are read as what they mean; what names nobody is the connection's."""
    assert client_of(gateway, forwarded_for(sent)) == client


def test_two_headers_are_one_list(gateway: Gateway) -> None:
    """The last member of the last header counts."""
    assert client_of(gateway, forwarded_for("198.51.100.7:1"), forwarded_for("203.0.113.2:2")) == "203.0.113.2"


def test_a_port_is_no_other_caller(gateway: Gateway) -> None:
    """Whatever its port, an address has one budget."""
    address = client_address()

    left = [
        int(gateway.ask(PATH, headers=[forwarded_for(sent)]).value("x-ratelimit-remaining") or 0)
        for sent in (address, f"{address}:1", f"{address}:2,", f"198.51.100.7, {address}:3")
    ]

    assert left == [99, 98, 97, 96]


def unread(gateway: Gateway) -> int:
    found = re.search(r"^envoy_gateway_forwarded_for_unread\S* (\d+)$", gateway.metrics("envoy"), re.M)
    return int(found[1]) if found else 0


def told(gateway: Gateway) -> list[dict[str, Any]]:
    lines = Path(gateway.component("controlplane")["log"]).read_text().splitlines()
    return [json.loads(line) for line in lines if "forwarded_for.unread" in line]


@pytest.fixture(scope="module")
def two_hops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    document = default_document()
    document["listener"]["trusted_hops"] = 2
    with Gateway(tmp_path_factory.mktemp("hops") / "run", document=document) as running:
        yield running


TWO_HOPS = [
    ("203.0.113.2:1, 198.51.100.7:2", "203.0.113.2"),
    ("203.0.113.2, 198.51.100.7:2", "203.0.113.2"),
    ("[2001:db8::1]:1, 198.51.100.7", "2001:db8::1"),
    ("9.9.9.9, 203.0.113.2:1, [2001:db8::7]:2,", "203.0.113.2"),
    ("203.0.113.2,, 198.51.100.7", "203.0.113.2"),
    ("203.0.113.2, , 198.51.100.7", "203.0.113.2"),
    ("203.0.113.2", "127.0.0.1"),
    ("203.0.113.2:80,", "127.0.0.1"),
]


@pytest.mark.parametrize(("sent", "client"), TWO_HOPS)
def test_two_hops_in_every_form(two_hops: Gateway, sent: str, client: str) -> None:
    """Each hop may write in a way of its own; empty members do not count as hops."""
    assert client_of(two_hops, forwarded_for(sent)) == client


def test_what_cannot_be_read_is_counted_and_told(two_hops: Gateway) -> None:
    """Each request counts; the control plane's log says so once."""
    before = unread(two_hops)
    for sent in ("unknown, 198.51.100.7", "203.0.113.2", "203.0.113.2, 198.51.100.7", ""):
        two_hops.ask(PATH, headers=[forwarded_for(sent)], bearer_token=token(tier="pro"))

    assert eventually(lambda: unread(two_hops) == before + 2)
    assert eventually(lambda: told(two_hops))
    assert [(line["node"], line["level"]) for line in told(two_hops)] == [("envoy-0", "warning")]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two trusted networks, one of which the tests connect from."""
    document = default_document()
    document["listener"] |= {"trusted_cidrs": ["127.0.0.1", "10.0.0.0/8", "2001:db8:ffff::/48"]}
    with Gateway(tmp_path_factory.mktemp("listed") / "run", document=document) as running:
        yield running


LISTED = [
    ("203.0.113.2", "203.0.113.2"),
    ("203.0.113.2:4711", "203.0.113.2"),
    ("9.9.9.9, 203.0.113.2, 10.0.0.1", "203.0.113.2"),
    ("9.9.9.9:1, 203.0.113.2:2, 10.0.0.1:3, [2001:db8:ffff::1]:4, 10.1.1.1:5,", "203.0.113.2"),
    ("[2001:db8::1]:2,, 10.0.0.1", "2001:db8::1"),
    ("unknown, 203.0.113.2", "203.0.113.2"),
    ("203.0.113.2, unknown", "127.0.0.1"),
    ("10.0.0.9", "10.0.0.9"),
    ("", "127.0.0.1"),
]


@pytest.mark.parametrize(("sent", "client"), LISTED)
def test_trusted_addresses(listed: Gateway, sent: str, client: str) -> None:
    """The client is the last that is no trusted proxy, however many these are."""
    assert client_of(listed, forwarded_for(sent)) == client


def from_address(gateway: Gateway, source: str, data: bytes) -> bytes:
    """What comes back when a connection from this address sends something; nothing where it is closed."""
    with closing(socket.socket()) as connection:
        connection.settimeout(20)
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", int(gateway.address.rpartition(":")[2])))
        received = b""
        try:
            connection.sendall(data)
            while more := connection.recv(65536):
                received += more
        except ConnectionError:
            pass
        return received


def request(*headers: tuple[str, str]) -> bytes:
    pairs = [
        ("Host", "gateway.test"),
        ("Connection", "close"),
        ("Authorization", f"Bearer {token(tier='pro')}"),
        *headers,
    ]
    return "\r\n".join([f"GET {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in pairs), "", ""]).encode()


def echoed(response: bytes) -> dict[str, str]:
    """The headers that the service got."""
    return {name.lower(): value for name, value in json.loads(response.partition(b"\r\n\r\n")[2])["headers"]}


TOLD = [("X-Forwarded-For", "203.0.113.2"), ("X-Forwarded-Proto", "https"), ("X-Real-IP", "203.0.113.2")]
TOLD += [("X-Forwarded-Host", "evil.test")]


def test_another_address_is_not_believed(listed: Gateway) -> None:
    """Who is no trusted proxy is a client, whatever it says."""
    proxy, other = (echoed(from_address(listed, source, request(*TOLD))) for source in ("127.0.0.1", "127.0.0.9"))

    assert proxy["x-forwarded-for"].replace(" ", "") == "203.0.113.2,127.0.0.1"
    assert (proxy["x-forwarded-proto"], proxy["x-real-ip"], proxy["x-forwarded-host"]) == (
        *("https", "203.0.113.2"),
        "evil.test",
    )
    assert other["x-forwarded-for"].replace(" ", "") == "203.0.113.2,127.0.0.9"
    assert other["x-forwarded-proto"] == "http"
    assert {"x-real-ip", "x-forwarded-host"} & other.keys() == set()


def test_another_address_is_the_client(listed: Gateway) -> None:
    """Its X-Forwarded-For says nothing about who calls."""
    request_id = unique("other")
    from_address(listed, "127.0.0.9", request(("X-Request-ID", request_id), *TOLD))

    assert listed.log_line(request_id)["client"] == "127.0.0.9"


@pytest.fixture(scope="module")
def told_by_tcp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Connections begin with a PROXY header."""
    document = default_document()
    document["listener"] |= {"trusted_cidrs": ["127.0.0.1/32", "10.0.0.0/8"], "proxy_protocol": True}
    with Gateway(tmp_path_factory.mktemp("tcp") / "run", document=document) as running:
        yield running


def v2(family: int, source: bytes, target: bytes) -> bytes:
    """A header of version 2 (section 2.2 of the PROXY protocol)."""
    body = source + target + b"\x12\x34\x01\xbb"
    return V2 + bytes((0x21, family)) + len(body).to_bytes(2, "big") + body


IPV6 = bytes.fromhex("20010db8000000000000000000000001")
PROXIED = {
    "v1, IPv4": (b"PROXY TCP4 203.0.113.2 10.0.0.1 4711 443\r\n", "203.0.113.2"),
    "v1, IPv6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", "2001:db8::1"),
    "v1, unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v2, IPv4": (v2(0x11, bytes((203, 0, 113, 2)), bytes((10, 0, 0, 1))), "203.0.113.2"),
    "v2, IPv6": (v2(0x21, IPV6, IPV6), "2001:db8::1"),
    "v2, local": (V2 + b"\x20\0\0\0", "127.0.0.1"),
}


@pytest.mark.parametrize(("header", "client"), PROXIED.values(), ids=PROXIED)
def test_a_proxy_header_names_the_client(told_by_tcp: Gateway, header: bytes, client: str) -> None:
    """Both versions, both families; a header that names nobody leaves the connection's address."""
    request_id = unique("tcp")

    answer = from_address(told_by_tcp, "127.0.0.1", header + request(("X-Request-ID", request_id)))

    assert answer.startswith(b"HTTP/1.1 200")
    assert told_by_tcp.log_line(request_id)["client"] == client
    assert echoed(answer)["x-forwarded-for"] == client


def test_a_client_behind_a_tcp_proxy_is_a_client(told_by_tcp: Gateway) -> None:
    """What it says of itself is not believed, though the proxy is."""
    header = b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 443\r\n"

    seen = echoed(from_address(told_by_tcp, "127.0.0.1", header + request(*TOLD)))

    assert seen["x-forwarded-for"].replace(" ", "") == "203.0.113.2,198.51.100.7"
    assert seen["x-forwarded-proto"] == "http"
    assert {"x-real-ip", "x-forwarded-host"} & seen.keys() == set()


def test_a_proxy_behind_a_tcp_proxy_is_believed(told_by_tcp: Gateway) -> None:
    """Where the PROXY header names a trusted address, that one wrote X-Forwarded-For."""
    request_id = unique("behind")
    header = b"PROXY TCP4 10.0.0.5 10.0.0.1 4711 443\r\n"

    seen = echoed(from_address(told_by_tcp, "127.0.0.1", header + request(("X-Request-ID", request_id), *TOLD)))

    assert told_by_tcp.log_line(request_id)["client"] == "203.0.113.2"
    assert (seen["x-forwarded-proto"], seen["x-real-ip"]) == ("https", "203.0.113.2")


@pytest.mark.parametrize("header", [b"", PROXIED["v1, IPv4"][0], PROXIED["v2, IPv4"][0], PROXIED["v2, local"][0]])
def test_other_peers_are_closed(told_by_tcp: Gateway, header: bytes) -> None:
    """Nobody else may say who it is, or come without saying."""
    assert from_address(told_by_tcp, "127.0.0.9", header + request()) == b""


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 nonsense\r\n", V2 + b"\x31\0\0\0"])
def test_a_connection_without_a_good_header_is_closed(told_by_tcp: Gateway, header: bytes) -> None:
    """From a trusted proxy too."""
    assert from_address(told_by_tcp, "127.0.0.1", header + request()) == b""


def test_a_gateway_for_proxies_elsewhere_becomes_ready(start: StartGateway) -> None:
    """Where no trusted proxy is on this machine nobody here is answered, and `mgw up` knows."""
    document = default_document()
    document["listener"] |= {"trusted_cidrs": ["10.0.0.0/8"], "proxy_protocol": True}

    running = start(document=document)

    assert from_address(running, "127.0.0.1", PROXIED["v1, IPv4"][0] + request()) == b""


def has_ipv6() -> bool:
    with closing(socket.socket(socket.AF_INET6)) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6")
def test_a_gateway_on_every_address(start: StartGateway) -> None:
    """`::` is every address of the machine, of both families; the gateway becomes ready, and its URL works."""
    running = start(environment={"API_GATEWAY_HOST": "::"})
    port = running.address.rpartition(":")[2]

    seen = {
        own: Echo.of(running.ask(PATH, address=f"{own}:{port}")).value("x-forwarded-for")
        for own in ("127.0.0.1", "::1")
    }

    assert seen == {"127.0.0.1": "127.0.0.1", "::1": "::1"}
    assert running.run["gateway"] == f"http://127.0.0.1:{port}"
    assert running.component("envoy")["address"] == f"[::]:{port}"
