"""Contract 6: who may tell upstreams of a client. Forwarding headers pass only from a trusted hop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service_kit.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, frame
from tests.support.gateway import Echo, Gateway, a_route, default_document, token
from tests.support.http2_peer import connected, field

PATH = "/api/v1/genres"
VALUE = "told-by-the-client"
FORWARDING = ["Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Uri"]
FORWARDING += ["X-Forwarded-Scheme", "X-Forwarded-Server", "X-Forwarded-Ssl", "True-Client-IP", "X-Client-IP"]
FORWARDING += ["CF-Connecting-IP", "X-Original-URL", "X-Original-Host", "X-Rewrite-URL", "x-forwarded-HOST"]
UNDERSCORES = ["X_Forwarded_For", "X_Forwarded-Proto", "X_Request_ID", "X-Request_ID", "X_Correlation_ID", "X_Real_IP"]
UNDERSCORES += ["X_User_ID", "X_Mgw_Caller", "X_Original_URL", "transfer_encoding", "content_length", "X_API_Key"]
UNDERSCORES += ["Proxy_Authorization", "X_Forwarded_Client_Cert"]


def received(gateway: Gateway, *headers: tuple[str, str]) -> Echo:
    answer = gateway.ask(PATH, headers=headers, bearer_token=token(tier="pro"))
    assert answer.status == 200, answer.body
    return Echo.of(answer)


@pytest.fixture(scope="module", params=[0, 1], ids=["nobody trusted", "one hop trusted"])
def keeping(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that keeps names with `_`."""
    document: dict[str, Any] = default_document()
    document["listener"] |= {"keep_underscores": True, "trusted_hops": request.param}
    document["routes"].append(a_route("open", "discovery", auth="none"))
    with Gateway(tmp_path_factory.mktemp("keeping") / "run", document=document) as running:
        yield running


@pytest.mark.parametrize("name", FORWARDING)
def test_a_client_cannot_say_where_it_comes_from(plain: Gateway, name: str) -> None:
    """Where nobody is trusted, no forwarding header of the client reaches a service."""
    assert received(plain, (name, VALUE)).values(name) == []


@pytest.mark.parametrize("name", FORWARDING)
def test_a_trusted_hop_can(gateway: Gateway, name: str) -> None:
    """From a trusted hop they pass as they are."""
    assert received(gateway, (name, VALUE)).values(name) == [VALUE]


@pytest.mark.parametrize("name", [*UNDERSCORES, "X_Anything", "_", "a_b-c"])
def test_names_with_underscores_are_dropped(plain: Gateway, gateway: Gateway, name: str) -> None:
    """Whoever sends them: a server may read them as the names with hyphens."""
    for each in (plain, gateway):
        echo = received(each, (name, VALUE), ("X-Kept", "1"))
        assert VALUE not in [value for _, value in echo.headers]
        assert echo.value("x-kept") == "1"


async def test_names_with_underscores_are_dropped_from_http2(plain: Gateway) -> None:
    """HTTP/2 is no way around."""
    pairs = [(":method", "GET"), (":scheme", "http"), (":path", PATH), (":authority", "gateway.test")]
    pairs += [("x_real_ip", VALUE), ("x-real-ip", VALUE), ("x_request_id", VALUE), ("x-kept", VALUE)]

    async with connected(int(plain.address.rpartition(":")[2])) as peer:
        block = b"".join(field(name, value) for name, value in pairs)
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
        body = (await peer.until(DATA, 1)).payload

    assert body.count(VALUE.encode()) == 1


@pytest.mark.parametrize("name", UNDERSCORES)
def test_reserved_names_with_underscores_are_never_kept(keeping: Gateway, name: str) -> None:
    """`keep_underscores` keeps ordinary names, not what poses as a header that the gateway sets or reads."""
    is_trusted = keeping.config is not None and "trusted_hops: 1" in keeping.config.read_text()
    passes = is_trusted and name in ("X_Real_IP", "X_Original_URL", "X_Forwarded_Client_Cert")

    assert received(keeping, (name, VALUE)).values(name) == ([VALUE] if passes else [])


def test_ordinary_names_with_underscores_are_kept_on_demand(keeping: Gateway) -> None:
    """Others pass."""
    echo = received(keeping, ("X_Anything", VALUE), ("a_b-c", "1"))

    assert (echo.value("x_anything"), echo.value("a_b-c")) == (VALUE, "1")


def test_a_body_is_what_the_headers_with_hyphens_say(keeping: Gateway) -> None:
    """A `content_length` or `transfer_encoding` of the client changes nothing about the body."""
    headers = [("content_length", "1"), ("transfer_encoding", "chunked")]

    answer = keeping.ask("/t/open", "POST", headers, b"0123456789")

    assert Echo.of(answer).body == b"0123456789"
    assert Echo.of(answer).value("content-length") == "10"


PROTOCOLS = [
    ("http", "http"),
    ("https", "https"),
    ("HTTPS", "https"),
    ("wss", "https"),
    ("ws", "http"),
    ("ftp", "http"),
    ("javascript", "http"),
    ("https, http", "http"),
    ("https://evil.test", "http"),
    ("", "http"),
]


@pytest.mark.parametrize(("sent", "seen"), PROTOCOLS)
def test_the_protocol_is_http_or_https(gateway: Gateway, sent: str, seen: str) -> None:
    """A trusted hop says one of the two; anything else makes way for how the connection came."""
    assert received(gateway, ("X-Forwarded-Proto", sent)).values("x-forwarded-proto") == [seen]


@pytest.mark.parametrize("sent", [["https"], ["ftp"], ["https", "https"], [""]])
def test_a_client_cannot_name_its_protocol(plain: Gateway, sent: list[str]) -> None:
    """Where nobody is trusted it is the connection's own, said once."""
    headers = [("X-Forwarded-Proto", value) for value in sent]

    assert received(plain, *headers).values("x-forwarded-proto") == ["http"]
