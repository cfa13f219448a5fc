"""Contract 1: what the gateway passes on, adds and leaves out, in both directions."""

from __future__ import annotations

import pytest

from tests.support.gateway import Echo, Gateway, client_address, token
from tests.support.wire import Connection

PATH = "/api/v1/genres"


def sends(*pairs: tuple[str, str]) -> list[tuple[str, str]]:
    """What tells a demo upstream to answer with these headers."""
    return [("X-Demo-Set-Header", f"{name}: {value}") for name, value in pairs]


STATUSES = [
    200,
    201,
    202,
    203,
    206,
    301,
    302,
    303,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    409,
    410,
    413,
    418,
    422,
    429,
    451,
]
STATUSES += [500, 501, 502, 503, 504, 511, 599]


@pytest.mark.parametrize("status", STATUSES)
def test_an_upstreams_status_and_body_pass_as_they_are(gateway: Gateway, status: int) -> None:
    """Whatever status a service answers with, errors and redirects included, the client gets it with its body."""
    marks = sends(("Location", "http://elsewhere.test/a?b=c"), ("X-Own", "1"))

    answer = gateway.ask("/t/dear", headers=[("X-Demo-Status", str(status)), *marks], bearer_token=token(tier="pro"))

    assert (answer.status, answer.json()["service"]) == (status, "discovery")
    assert (answer.value("location"), answer.value("x-own")) == ("http://elsewhere.test/a?b=c", "1")
    assert answer.value("x-gateway-error") is None


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_stays_without(gateway: Gateway, status: int) -> None:
    """204 and 304 pass with their headers and nothing after them."""
    headers = [("X-Demo-Status", str(status)), *sends(("ETag", '"1"'))]

    answer = gateway.ask(PATH, headers=headers, bearer_token=token(tier="pro"))

    assert (answer.status, answer.value("etag"), answer.body) == (status, '"1"', b"")


def test_cookies_keep_their_number_and_order(gateway: Gateway) -> None:
    """Each Set-Cookie reaches the client as a field of its own, in the service's order."""
    cookies = ["b=2; Path=/; HttpOnly", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=3"]

    answer = gateway.ask(
        PATH, headers=sends(*(("Set-Cookie", each) for each in cookies)), bearer_token=token(tier="pro")
    )

    assert answer.values("set-cookie") == cookies


KEPT = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "max-age=60, stale-while-revalidate=30"),
    ("ETag", 'W/"abc"'),
    ("Server", "demo/1.0"),
    ("Content-Encoding", "identity"),
    ("Link", "</a>; rel=next"),
    ("X-Custom_Header", "1"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Strict-Transport-Security", "max-age=1"),
    ("Via", "1.1 other"),
    ("Date", "Tue, 15 Nov 1994 08:12:31 GMT"),
    ("X-Powered-By", "x"),
    ("WWW-Authenticate", 'Basic realm="x"'),
    ("Retry-After", "120"),
    ("Allow", "GET"),
]


@pytest.mark.parametrize(("name", "value"), KEPT)
def test_an_upstreams_header_is_kept(gateway: Gateway, name: str, value: str) -> None:
    """A service's own header reaches the client once, with its value."""
    answer = gateway.ask(PATH, headers=sends((name, value)), bearer_token=token(tier="pro"))

    assert answer.values(name) == [value]


@pytest.mark.parametrize("value", ["Accept-Encoding", "Accept-Encoding, Origin", "*"])
def test_what_an_upstream_varies_by_is_kept(gateway: Gateway, value: str) -> None:
    """The gateway adds Origin, because its own answer depends on that."""
    answer = gateway.ask(PATH, headers=sends(("Vary", value)), bearer_token=token(tier="pro"))

    found = {name.strip() for each in answer.values("vary") for name in each.split(",")}
    assert found == {name.strip() for name in value.split(",")} | {"Origin"}


def test_hop_by_hop_headers_of_a_request_end_here(gateway: Gateway) -> None:
    """Hop-by-hop headers, and those that Connection names, do not reach the service."""
    headers = [
        ("Connection", "keep-alive, X-Hop, x-other-hop"),
        ("X-Hop", "1"),
        ("X-Other-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "trailers"),
        ("Trailer", "X-T"),
        ("X-Kept", "1"),
    ]

    echo = Echo.of(gateway.ask(PATH, headers=headers, bearer_token=token(tier="pro")))

    gone = {name.lower() for name, _ in headers} - {"x-kept"}
    assert echo.names() & gone == set()
    assert echo.value("x-kept") == "1"


def test_hop_by_hop_headers_of_an_answer_end_here(gateway: Gateway) -> None:
    """Nor do a service's own reach the client."""
    hops = [("X-Hop", "1"), ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"), ("Trailer", "X-T")]
    hops += [("Proxy-Authenticate", "Basic"), ("Upgrade", "h2c")]

    answer = gateway.ask(
        PATH, headers=sends(("Connection", "keep-alive, X-Hop"), *hops, ("X-Kept", "1")), bearer_token=token(tier="pro")
    )

    assert {name.lower() for name, _ in answer.headers} & {name.lower() for name, _ in hops} == set()
    assert answer.value("x-kept") == "1"


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ([], ["127.0.0.1"]),
        (["203.0.113.9"], ["203.0.113.9", "127.0.0.1"]),
        (["198.51.100.1, 203.0.113.9"], ["198.51.100.1", "203.0.113.9", "127.0.0.1"]),
        (["198.51.100.1", "203.0.113.9"], ["198.51.100.1", "203.0.113.9", "127.0.0.1"]),
    ],
)
def test_the_clients_address_is_appended(gateway: Gateway, sent: list[str], seen: list[str]) -> None:
    """X-Forwarded-For keeps what was there and ends with whoever is connected."""
    headers = [("X-Forwarded-For", value) for value in sent]

    echo = Echo.of(gateway.ask(PATH, headers=headers, bearer_token=token(tier="pro")))

    assert [part.strip() for part in ",".join(echo.values("x-forwarded-for")).split(",")] == seen
    assert echo.value("x-forwarded-proto") == "http"


def test_a_forged_protocol_is_replaced(plain: Gateway) -> None:
    """X-Forwarded-Proto says how the client came, whatever an untrusted client says of itself."""
    answer = plain.ask(PATH, headers=[("X-Forwarded-Proto", "https")], bearer_token=token(tier="pro"))

    assert Echo.of(answer).value("x-forwarded-proto") == "http"


def test_ordinary_headers_and_the_token_pass(gateway: Gateway) -> None:
    """Authorization and every ordinary header reach the service, repeated ones with each of their values."""
    caller = token(tier="pro")
    sent = [("Cookie", "a=1; b=2"), ("Accept", "application/json, text/*;q=0.5"), ("X-Many", "1"), ("X-Many", "2")]
    sent += [
        ("Content-Type", "application/json"),
        ("User-Agent", "tests/1.0"),
        ("If-None-Match", '"x"'),
        ("X-Empty", ""),
    ]
    sent += [("Range", "bytes=0-1"), ("Accept-Encoding", "gzip, br"), ("Origin", "https://elsewhere.test")]

    echo = Echo.of(gateway.ask(PATH, headers=sent, bearer_token=caller))

    assert echo.value("authorization") == f"Bearer {caller}"
    assert echo.value("host") == "gateway.test"
    for name in {name for name, _ in sent}:
        assert ",".join(echo.values(name)) == ",".join(value for key, value in sent if key == name), name


def test_nothing_of_ours_leaks_either_way(gateway: Gateway) -> None:
    """Neither the service nor the client sees Envoy's own headers or the gateway's internal ones."""
    answer = gateway.ask(PATH, headers=[("X-Forwarded-For", client_address())])

    names = Echo.of(answer).names() | {name.lower() for name, _ in answer.headers}
    assert {name for name in names if name.startswith(("x-envoy", "x-mgw"))} == set()


def test_requests_share_a_connection(gateway: Gateway) -> None:
    """A client keeps its connection over answers of every kind, the gateway's own refusals included."""
    head = f"Host: x\r\nAuthorization: Bearer {token(tier='pro')}\r\n\r\n"
    asked = [(PATH, 200), ("/nowhere", 404), ("/api/v1/content/a%2fb", 400), ("/t/pro-only", 200), (PATH, 200)]

    with Connection(gateway.address) as connection:
        for path, status in asked:
            connection.send(f"GET {path} HTTP/1.1\r\n{head}".encode())
            answer = connection.receive()
            assert answer is not None
            assert answer.status == status
