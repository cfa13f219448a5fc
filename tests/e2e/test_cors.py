"""Contract 6: which origins may read answers in a browser, and what a preflight is told."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import (
    ORIGIN,
    OTHER_ORIGIN,
    Gateway,
    a_service,
    bearer,
    client_address,
    default_document,
    token,
)
from tests.support.wire import Answer

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
    assert answer.values("vary") == ["Origin"]


@pytest.mark.parametrize("origin", FOREIGN)
def test_any_other_origin_may_not(gateway: Gateway, origin: str) -> None:
    """The request is served, since no browser is bound by us, but nothing allows a script to read the answer."""
    answer = gateway.ask(PATH, headers=[("Origin", origin)], bearer_token=token(tier="pro"))

    assert answer.status == 200
    assert answer.value("access-control-allow-origin") is None
    assert answer.value("access-control-allow-credentials") is None


OF_A_SERVICE = [
    ("X-Demo-Set-Header", f"{name}: {value}")
    for name, value in {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "TRACE",
        "Access-Control-Allow-Headers": "x-secret",
        "Access-Control-Allow-Private-Network": "true",
        "Access-Control-Expose-Headers": "x-secret",
        "Access-Control-Max-Age": "86400",
        "Vary": "Accept-Encoding",
    }.items()
]
"""A service that takes part in CORS itself."""


def cors_headers(answer: Answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers if name.lower().startswith("access-control-")}


def varies_by(answer: Answer) -> set[str]:
    return {word for value in answer.values("vary") for word in words(value)}


@pytest.mark.parametrize("origin", [None, *FOREIGN])
def test_a_service_cannot_let_a_foreign_origin_in(gateway: Gateway, origin: str | None) -> None:
    """Nothing of a service's own leave remains; and a cache is told that the origin decided, even without one."""
    asking = [("Origin", origin)] if origin else []

    answer = gateway.ask(PATH, headers=[*asking, *OF_A_SERVICE], bearer_token=token(tier="pro"))

    assert answer.status == 200
    assert cors_headers(answer) == {}
    assert varies_by(answer) == {"accept-encoding", "origin"}


def test_a_services_own_cors_headers_do_not_widen_ours(gateway: Gateway) -> None:
    """A listed origin is told what the gateway says, once, whatever the service says."""
    listed = gateway.ask(PATH, headers=[("Origin", ORIGIN), *OF_A_SERVICE], bearer_token=token(tier="pro"))

    assert listed.values("access-control-allow-origin") == [ORIGIN]
    assert cors_headers(listed).keys() == {
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-expose-headers",
    }
    assert "x-secret" not in words(listed.value("access-control-expose-headers"))
    assert varies_by(listed) == {"accept-encoding", "origin"}


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
    assert varies_by(answer) == {"origin"}
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
    assert varies_by(answer) == {"origin"}


KEY = "partner-key-1"
OWN = "https://own.example.net"
EVERY = {"allow_origins": ["*"], "allow_credentials": False, "expose_headers": ["*"], "allow_headers": ["*"]}


def a_path(name: str, methods: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Routes of `/t/NAME`, one for each method, with what each has of its own."""
    for method, own in methods.items():
        match = {"path": f"/t/{name}", "methods": [method]}
        yield {"name": f"t-{name}-{method.lower()}", "match": match, "service": "patient", "auth": "optional", **own}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose routes differ in what they let pages do."""
    document = default_document()
    document["listener"]["trusted_hops"] = 1
    document["auth"]["api_key_header"] = "x-partner-key"
    key = {"name": "partner", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "subject": "partner", "tier": "pro"}
    document["auth"]["api_keys"] = [key]
    document["cors"] = {
        "allow_origins": ["HTTPS://App.Example.COM:443", "https://*.example.org"],
        "expose_headers": ["x-total-count"],
    }
    document["services"] += [a_service("patient", "${DISCOVERY_SERVICE_URL}", breaker={"failures": 10_000})]
    own: dict[str, Any] = {"cors": {"allow_origins": [OWN]}}
    off: dict[str, Any] = {"cors": {}}
    document["routes"] += [
        *a_path("usual", {"GET": {}}),
        *a_path("own", {"GET": own}),
        *a_path("off", {"GET": off, "OPTIONS": off}),
        *a_path("every", {"GET": {"cors": EVERY}}),
        *a_path("mixed", {"GET": own, "POST": {}, "PUT": off}),
    ]
    with Gateway(tmp_path_factory.mktemp("policies") / "run", document=document) as running:
        yield running


def told(gateway: Gateway, path: str, origin: str, *, preflight_for: str | None = None) -> Answer:
    """The answer to a page of this origin, or to its browser's question whether the page may."""
    headers = [("Origin", origin), ("X-Forwarded-For", client_address())]
    if preflight_for is None:
        return gateway.ask(path, headers=headers)
    return gateway.ask(path, "OPTIONS", [*headers, ("Access-Control-Request-Method", preflight_for)])


@pytest.mark.parametrize(
    ("origin", "may"),
    [
        ("https://app.example.com", True),
        ("https://a.example.org", True),
        ("https://a.b.example.org", True),
        ("https://example.org", False),
        ("https://a.example.org.evil.test", False),
        ("https://evilexample.org", False),
        ("http://a.example.org", False),
        ("https://app.example.com:443", False),
    ],
)
def test_an_origin_matches_as_browsers_send_it(policies: Gateway, origin: str, may: bool) -> None:
    """However the document writes it: capital letters and the usual port are read away, `*.` is every subdomain."""
    for answer in (told(policies, "/t/usual", origin), told(policies, "/t/usual", origin, preflight_for="GET")):
        assert answer.value("access-control-allow-origin") == (origin if may else None)
        assert varies_by(answer) == {"origin"}


def test_more_headers_can_be_exposed(policies: Gateway) -> None:
    """`cors.expose_headers` stand beside the gateway's own."""
    answer = told(policies, "/t/usual", ORIGIN)

    assert words(answer.value("access-control-expose-headers")) == {*EXPOSED, "x-total-count"}


def test_a_page_may_send_an_api_key(policies: Gateway) -> None:
    """If there are keys, their header is among those that a preflight allows, though nobody listed it."""
    preflight = told(policies, "/t/usual", ORIGIN, preflight_for="GET")
    answer = policies.ask("/t/usual", headers=[("Origin", ORIGIN), ("X-Partner-Key", KEY)])

    assert "x-partner-key" in words(preflight.value("access-control-allow-headers"))
    assert answer.json()["service"] == "discovery"
    assert answer.value("x-ratelimit-limit") == "1000"


def test_any_origin_is_answered_with_a_star(policies: Gateway) -> None:
    """The answer is the same for all pages, so it does not vary, and it goes without credentials."""
    answer = policies.ask("/t/every", headers=[("Origin", "https://anyone.test"), *OF_A_SERVICE])
    preflight = told(policies, "/t/every", "https://anyone.test", preflight_for="GET")

    for each in (answer, preflight):
        assert each.status == 200
        assert each.values("access-control-allow-origin") == ["*"]
        assert each.value("access-control-allow-credentials") is None
        assert "origin" not in varies_by(each)
    assert words(answer.value("access-control-expose-headers")) == {*EXPOSED, "*"}
    assert cors_headers(policies.ask("/t/every")) == {}


def test_a_route_may_have_its_own_policy(policies: Gateway) -> None:
    """It holds instead of the document's, for preflights and refusals too."""
    for path, may, may_not in (("/t/own", OWN, ORIGIN), ("/t/usual", ORIGIN, OWN)):
        for origin, named in ((may, may), (may_not, None)):
            refused = policies.ask(path, "DELETE", [("Origin", origin)])
            assert refused.status == 405
            answers = [told(policies, path, origin), told(policies, path, origin, preflight_for="GET"), refused]
            assert [each.value("access-control-allow-origin") for each in answers] == [named] * 3
    assert "x-total-count" not in words(told(policies, "/t/own", OWN).value("access-control-expose-headers"))


def test_where_the_gateway_takes_no_part_the_services_headers_pass(policies: Gateway) -> None:
    """Without origins its answers reach the page as they are, and a preflight is a request like any other."""
    asked = [("Origin", "https://anyone.test"), ("Access-Control-Request-Method", "GET"), *OF_A_SERVICE]

    for method in ("GET", "OPTIONS"):
        answer = policies.ask("/t/off", method, asked)
        assert answer.status == 200
        sent = dict(value.split(": ") for _, value in OF_A_SERVICE)
        assert {name.title(): answer.values(name) for name in sent} == {name: [value] for name, value in sent.items()}
    assert policies.ask("/t/off", headers=[("Origin", ORIGIN)]).value("vary") is None


@pytest.mark.parametrize(
    ("method", "origin", "may"),
    [("GET", OWN, True), ("GET", ORIGIN, False), ("POST", ORIGIN, True), ("POST", OWN, False), ("PUT", ORIGIN, False)],
)
def test_a_preflight_is_answered_for_the_method_that_it_asks_for(
    policies: Gateway, method: str, origin: str, may: bool
) -> None:
    """Routes of one path may have different policies."""
    answer = told(policies, "/t/mixed", origin, preflight_for=method)

    assert answer.value("access-control-allow-origin") == (origin if may else None)
    assert answer.status == (200 if may else 405)


def test_without_origins_in_the_document_nothing_is_added(tmp_path: Path) -> None:
    """No ALLOWED_ORIGINS: the gateway says nothing of CORS, and what a service says passes."""
    with Gateway(tmp_path / "run", environment={"ALLOWED_ORIGINS": None}) as silent:
        of_service = silent.ask(PATH, headers=[("Origin", ORIGIN), *OF_A_SERVICE])
        of_ours = silent.ask("/nowhere", headers=[("Origin", ORIGIN)])

    assert of_service.values("access-control-allow-origin") == ["*"]
    assert len(cors_headers(of_service)) == 7
    assert varies_by(of_service) == {"accept-encoding"}
    assert (cors_headers(of_ours), of_ours.values("vary")) == ({}, [])
