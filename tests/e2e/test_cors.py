"""Contract 6: which origins may read answers in a browser, and what a preflight is told."""

from __future__ import annotations

import pytest

from tests.support.gateway import ORIGIN, OTHER_ORIGIN, Gateway, bearer, client_address, token

PATH = "/api/v1/genres"
EXPOSED = {
    "x-request-id",
    "x-correlation-id",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "retry-after",
}
FOREIGN = [
    "https://evil.test",
    "https://app.example.com.evil.test",
    "https://evilapp.example.com",
    "http://app.example.com",
    "https://app.example.com:444",
    "null",
    "https://app.example.com/",
    "HTTPS://APP.EXAMPLE.COM",
]


def words(text: str | None) -> set[str]:
    return {word.strip().lower() for word in (text or "").split(",") if word.strip()}


@pytest.mark.parametrize("origin", [ORIGIN, OTHER_ORIGIN])
def test_a_listed_origin_may_read(gateway: Gateway, origin: str) -> None:
    """ALLOWED_ORIGINS is a list; each of them is named back, with credentials and what scripts may see."""
    answer = gateway.ask(PATH, headers=[("Origin", origin)], bearer_token=token(tier="pro"))

    assert answer.status == 200
    assert answer.value("access-control-allow-origin") == origin
    assert answer.value("access-control-allow-credentials") == "true"
    assert words(answer.value("access-control-expose-headers")) >= EXPOSED


@pytest.mark.parametrize("origin", FOREIGN)
def test_any_other_origin_may_not(gateway: Gateway, origin: str) -> None:
    """The request is served, since no browser is bound by us, but nothing allows a script to read the answer."""
    answer = gateway.ask(PATH, headers=[("Origin", origin)], bearer_token=token(tier="pro"))

    assert answer.status == 200
    assert answer.value("access-control-allow-origin") is None
    assert answer.value("access-control-allow-credentials") is None


def test_a_services_own_cors_headers_do_not_widen_ours(gateway: Gateway) -> None:
    """A foreign origin gets no leave from a service either, and a listed one is named once."""
    mark = ("X-Demo-Set-Header", "Access-Control-Allow-Origin: *")

    listed = gateway.ask(PATH, headers=[("Origin", ORIGIN), mark], bearer_token=token(tier="pro"))

    assert listed.values("access-control-allow-origin") == [ORIGIN]


PREFLIGHTS = [
    ("/api/v1/genres", "GET"),
    ("/api/v1/search", "POST"),
    ("/api/v1/user/profile", "GET"),
    ("/api/v1/user/preferences", "PUT"),
    ("/api/v1/user/watchlist/1", "DELETE"),
    ("/t/required", "POST"),
]


@pytest.mark.parametrize(("path", "method"), PREFLIGHTS)
def test_a_preflight_needs_no_token(gateway: Gateway, path: str, method: str) -> None:
    """It is answered by the gateway itself with methods, headers and how long that holds."""
    before = gateway.hits()
    headers = [
        ("Origin", ORIGIN),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", "authorization,content-type"),
        ("X-Request-ID", "preflight"),
    ]

    answer = gateway.ask(path, "OPTIONS", headers)

    assert answer.status in (200, 204)
    assert answer.value("access-control-allow-origin") == ORIGIN
    assert answer.value("access-control-allow-credentials") == "true"
    assert answer.value("access-control-max-age") == "3600"
    assert words(answer.value("access-control-allow-methods")) >= {"get", "post", "put", "delete", "options"}
    assert "trace" not in words(answer.value("access-control-allow-methods"))
    assert words(answer.value("access-control-allow-headers")) >= {"authorization", "content-type"}
    assert (answer.value("x-request-id"), answer.value("x-ratelimit-limit")) == ("preflight", None)
    assert gateway.hits() == before


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_foreign_preflight_is_told_nothing(gateway: Gateway, origin: str) -> None:
    """No leave for an origin that is not listed, and no upstream is asked."""
    before = gateway.hits()

    answer = gateway.ask("/api/v1/search", "OPTIONS", [("Origin", origin), ("Access-Control-Request-Method", "POST")])

    assert answer.status < 500
    assert answer.value("access-control-allow-origin") is None
    assert gateway.hits() == before


def test_preflights_are_never_limited(gateway: Gateway) -> None:
    """However many come from one address, each is answered, and its budget stays whole."""
    address = ("X-Forwarded-For", client_address())
    headers = [address, ("Origin", ORIGIN), ("Access-Control-Request-Method", "POST")]

    statuses = {gateway.ask("/api/v1/search", "OPTIONS", headers).status for _ in range(15)}

    assert len(statuses) == 1
    assert statuses <= {200, 204}
    assert gateway.ask(PATH, headers=[address]).value("x-ratelimit-remaining") == "99"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/nowhere", [], 404),
        ("/api/v1/user/profile", [], 401),
        ("/api/v1/user/profile", [bearer("nonsense")], 401),
        ("/api/v1/content/a%2fb", [], 400),
        ("/t/dead", [], 502),
    ],
)
def test_refusals_can_be_read_by_a_listed_origin(
    gateway: Gateway, path: str, headers: list[tuple[str, str]], status: int
) -> None:
    """A script that was refused can see why."""
    answer = gateway.ask(path, headers=[*headers, ("Origin", ORIGIN), ("X-Forwarded-For", client_address())])

    assert (answer.status, answer.value("access-control-allow-origin")) == (status, ORIGIN)
