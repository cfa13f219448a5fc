"""Contract 1: which requests reach which service, and which reach none."""

from __future__ import annotations

import pytest

from tests.support.gateway import Echo, Gateway, client_address, token

ROUTES = [
    ("GET", "/api/v1/content/tt0111161", "discovery", "optional"),
    ("GET", "/api/v1/content/tt0111161/availability", "discovery", "optional"),
    ("GET", "/api/v1/content/trending", "discovery", "optional"),
    ("GET", "/api/v1/movies/popular", "discovery", "optional"),
    ("GET", "/api/v1/tv/popular", "discovery", "optional"),
    ("POST", "/api/v1/search", "discovery", "optional"),
    ("POST", "/api/v1/search/semantic", "discovery", "optional"),
    ("GET", "/api/v1/search/autocomplete", "discovery", "optional"),
    ("GET", "/api/v1/discover/movies", "discovery", "optional"),
    ("GET", "/api/v1/discover/tv", "discovery", "optional"),
    ("GET", "/api/v1/genres", "discovery", "optional"),
    ("GET", "/api/v1/user/profile", "auth", "required"),
    ("PUT", "/api/v1/user/preferences", "auth", "required"),
    ("GET", "/api/v1/user/watchlist", "sync", "required"),
    ("POST", "/api/v1/user/watchlist", "sync", "required"),
    ("DELETE", "/api/v1/user/watchlist/42", "sync", "required"),
    ("GET", "/api/v1/user/history", "sync", "required"),
    ("GET", "/api/v1/recommendations", "sona", "optional"),
]
KNOWN = sorted({path for _, path, _, _ in ROUTES})
ALLOWED = {path: {method for method, other, _, _ in ROUTES if other == path} for path in KNOWN}
HEALTH = ["/health", "/health/ready", "/health/live"]


@pytest.mark.parametrize(("method", "path", "service", "auth"), ROUTES)
def test_a_route_reaches_its_service(gateway: Gateway, method: str, path: str, service: str, auth: str) -> None:
    """Each documented route reaches its service with method, path, query and body as they were sent."""
    target = f"{path}?b=2&a=1"
    body = b'{"q":"x"}' if method in ("POST", "PUT") else None

    answer = gateway.ask(target, method, body=body, bearer_token=token(tier="pro"))

    echo = Echo.of(answer)
    assert answer.status == 200
    assert (echo.service, echo.method, echo.target, echo.body) == (service, method, target, body or b"")


@pytest.mark.parametrize(("method", "path", "service", "auth"), ROUTES)
def test_who_may_come_without_a_token(gateway: Gateway, method: str, path: str, service: str, auth: str) -> None:
    """Optional routes serve anybody; required ones answer 401 without asking their service."""
    before = gateway.hits()

    answer = gateway.ask(path, method, [("X-Forwarded-For", client_address())])

    reached = {name for name, hits in gateway.hits().items() if hits != before[name]}
    assert (answer.status, reached) == ((200, {service}) if auth == "optional" else (401, set()))


@pytest.mark.parametrize("path", [path for method, path, _, _ in ROUTES if method == "GET"])
def test_head_is_served_where_get_is(gateway: Gateway, path: str) -> None:
    """HEAD reaches the service as HEAD and has GET's headers without a body."""
    caller = token(tier="pro")

    head = gateway.ask(path, "HEAD", bearer_token=caller)
    get = gateway.ask(path, bearer_token=caller)

    assert (head.status, head.value("content-type")) == (200, get.value("content-type"))
    assert int(head.value("content-length") or 0) > 0
    service = head.value("x-demo-service")
    assert service is not None
    assert gateway.demo(service).requests()[-2]["method"] == "HEAD"


@pytest.mark.parametrize("path", HEALTH)
def test_head_of_health(gateway: Gateway, path: str) -> None:
    """HEAD is served on the health paths too."""
    answer = gateway.ask(path, "HEAD")

    assert (answer.status, answer.value("content-type")) == (200, "application/json")


UNKNOWN = [
    "/",
    "/api",
    "/api/v1",
    "/api/v1/content",
    "/api/v1/content/",
    "/api/v1/content/1/",
    "/api/v1/content/1/nothing",
    "/api/v1/content/1/availability/",
    "/api/v1/content/trending/",
    "/api/v1/genres/",
    "/api/v1/genresx",
    "/api/v1/Genres",
    "/API/v1/genres",
    "/api/v2/genres",
    "/api/v1/user/profile/",
    "/api/v1/user/watchlist/",
    "/api/v1/user/watchlist/1/2",
    "/health/",
    "/health/live/",
    "/health/other",
    "/healthz",
    "/metrics",
    "/stats",
    "/config_dump",
    "/v1/config",
    "/api/v1/genres;a=b",
    "/api/v1/genres%20",
]


@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_path_is_404(gateway: Gateway, path: str) -> None:
    """Any other path, one more or one less trailing slash included, is 404 NOT_FOUND and touches no upstream."""
    before = gateway.hits()

    answer = gateway.ask(path, bearer_token=token(tier="pro"))

    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert gateway.hits() == before


@pytest.mark.parametrize("path", [*KNOWN, *HEALTH])
def test_another_method_is_405(gateway: Gateway, path: str) -> None:
    """A known path with another method is 405 with the allowed ones, whoever asks, and touches no upstream."""
    allowed = ALLOWED.get(path, {"GET"})
    allowed = allowed | {"HEAD"} if "GET" in allowed else allowed
    before = gateway.hits()

    for method in sorted({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} - allowed):
        answer = gateway.ask(path, method, [("Content-Length", "0")])

        assert answer.status == 405, method
        assert method == "HEAD" or answer.code == "METHOD_NOT_ALLOWED"
        assert {name.strip() for name in (answer.value("allow") or "").split(",")} == allowed
    assert gateway.hits() == before


IDS = ["1", "a.b", "a:b", "tt-1_2~3", "%C3%A9", "a%20b", "a;v=1", "a=b&c", "trendingx", "-", "...", "%2525"]


@pytest.mark.parametrize("name", IDS)
def test_an_id_is_one_segment(gateway: Gateway, name: str) -> None:
    """`{id}` is any one non-empty segment, and reaches the service as it was sent."""
    echo = Echo.of(gateway.ask(f"/api/v1/content/{name}", bearer_token=token(tier="pro")))

    assert (echo.service, echo.target) == ("discovery", f"/api/v1/content/{name}")


QUERIES = [
    "?",
    "",
    "?a=1&b=2",
    "?b=2&a=1",
    "?a=1&a=2&a=1",
    "?a",
    "?a=",
    "?=a",
    "?a=%2F&b=%2f",
    "?a=%2e%2e%2f..",
    "?a=b+c%20d",
    "?a=b?c",
    "??",
    "?&&",
    "?q=%C3%A9",
    "?q=%zz",
    "?path=//a/./b",
    "?a[]=1&a[]=2",
    "?q='\"<>|^`{}",
    "?q=" + "a" * 4000,
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_untouched(gateway: Gateway, query: str) -> None:
    """The raw query reaches the service byte for byte: no `?` is added, and a lone one is kept."""
    target = f"/api/v1/genres{query}"

    assert Echo.of(gateway.ask(target, bearer_token=token(tier="pro"))).target == target
