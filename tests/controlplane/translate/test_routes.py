"""Routes: which one Envoy takes for a request, and what it is told to do with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import protos
from controlplane.config.model import GatewayConfig, Route
from controlplane.translate import filters, leases
from controlplane.translate.headers import REMOVED_BEFORE_UPSTREAM
from controlplane.translate.routes import route_configuration
from tests.support.configs import a_config, a_route, a_service, default_config, rich_config

EnvoyRoute = protos.route_components.Route


def routes_of(config: GatewayConfig) -> list[EnvoyRoute]:
    (host,) = route_configuration(config).virtual_hosts
    return list(host.routes)


def route_named(config: GatewayConfig, name: str) -> EnvoyRoute:
    (found,) = [route for route in routes_of(config) if route.name == name]
    return found


def first_match(routes: Iterable[EnvoyRoute], method: str, path: str, **headers: str) -> EnvoyRoute:
    """What Envoy does: the first route whose matcher fits (config.route.v3.RouteMatch)."""
    present = {":method": method, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return next(route for route in routes if _matches(route.match, path, present))


def _matches(match: protos.route_components.RouteMatch, path: str, headers: dict[str, str]) -> bool:
    kind = match.WhichOneof("path_specifier")
    fits = {
        "prefix": lambda: path.startswith(match.prefix),
        "path": lambda: path == match.path,
        "safe_regex": lambda: re.fullmatch(match.safe_regex.regex, path) is not None,
    }[str(kind)]()
    return fits and all(_has(matcher, headers) for matcher in match.headers)


def _has(matcher: protos.route_components.HeaderMatcher, headers: dict[str, str]) -> bool:
    value = headers.get(matcher.name)
    if matcher.present_match:
        return value is not None
    if matcher.string_match.HasField("safe_regex"):
        return value is not None and re.fullmatch(matcher.string_match.safe_regex.regex, value) is not None
    return value == matcher.string_match.exact


def metadata(route: EnvoyRoute) -> dict[str, Any]:
    return protos.message_to_dict(route.metadata.filter_metadata["mgw"])


def authz(route: EnvoyRoute) -> dict[str, str] | None:
    """What the authz service is told of a route; None where it is not asked."""
    settings = protos.ext_authz.ExtAuthzPerRoute()
    assert route.typed_per_filter_config[filters.EXT_AUTHZ].Unpack(settings)
    return None if settings.disabled else dict(settings.check_settings.context_extensions)


NOT_FOUND, NOT_ALLOWED, BAD = "mgw-not-found", "mgw-method-not-allowed", "mgw-bad-request"

REQUESTS = [
    ("GET", "/api/v1/content/42", "content"),
    ("GET", "/api/v1/content/trending", "content-trending"),
    ("GET", "/api/v1/content/trending/availability", "content-availability"),
    ("GET", "/api/v1/content/42/availability", "content-availability"),
    ("GET", "/api/v1/content/", NOT_FOUND),
    ("GET", "/api/v1/content", NOT_FOUND),
    ("GET", "/api/v1/content/42/", NOT_FOUND),
    ("GET", "/api/v1/content/42/other", NOT_FOUND),
    ("POST", "/api/v1/search", "search"),
    ("POST", "/api/v1/search/semantic", "search-semantic"),
    ("GET", "/api/v1/search/autocomplete", "search-autocomplete"),
    ("GET", "/api/v1/search", NOT_ALLOWED),
    ("GET", "/api/v1/user/watchlist", "watchlist"),
    ("POST", "/api/v1/user/watchlist", "watchlist"),
    ("DELETE", "/api/v1/user/watchlist/7", "watchlist-item"),
    ("GET", "/api/v1/user/watchlist/7", NOT_ALLOWED),
    ("PUT", "/api/v1/user/preferences", "user-preferences"),
    ("HEAD", "/api/v1/user/profile", "user-profile"),
    ("HEAD", "/api/v1/search", NOT_ALLOWED),
    ("TRACE", "/api/v1/genres", NOT_ALLOWED),
    ("get", "/api/v1/genres", NOT_ALLOWED),
    ("GET", "/API/v1/genres", NOT_FOUND),
    ("GET", "/", NOT_FOUND),
    ("GET", "/health", "health"),
    ("HEAD", "/health/ready", "health-ready"),
    ("GET", "/health/live", "health-live"),
    ("POST", "/health", NOT_ALLOWED),
    ("GET", "/health/", NOT_FOUND),
    ("GET", "/healthy", NOT_FOUND),
]


@pytest.mark.parametrize(("method", "path", "name"), REQUESTS)
def test_default_routes(method: str, path: str, name: str) -> None:
    """Each request of the published table takes its route, any other one is rejected as unknown or not allowed."""
    assert first_match(routes_of(default_config()), method, path).name.split()[0] == name


@pytest.mark.parametrize("path", ["/", "/health", "/api/v1/genres", "/nowhere"])
def test_a_rejected_path_takes_no_other_route(path: str) -> None:
    """The request filter's mark comes before everything else."""
    assert first_match(routes_of(default_config()), "GET", path, x_mgw_bad_request="path").name == BAD


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/books/best", "best"),
        ("GET", "/books/7", "books"),
        ("POST", "/books/7", "book-add"),
        ("POST", "/books/best", NOT_ALLOWED),
        ("HEAD", "/files/", "file-index"),
        ("GET", "/files/", NOT_ALLOWED),
        ("GET", "/files/a/b/c", "files"),
        ("OPTIONS", "/files/a", "files"),
        ("GET", "/files", NOT_FOUND),
        ("GET", "/odd/~a.b+c:d@e!$&'()*,;=/1", "odd"),
        ("GET", "/odd/~axb+c:d@e!$&'()*,;=/1", NOT_FOUND),
    ],
)
def test_rich_routes(method: str, path: str, name: str) -> None:
    """Plain text wins over a parameter, a parameter over a rest of path, and punctuation means itself."""
    assert first_match(routes_of(rich_config()), method, path).name.split()[0] == name


def test_the_order_of_matching() -> None:
    """Malformed requests, health, requests without a host, the operator's routes with a 405 each, and 404."""
    names = [route.name for route in routes_of(rich_config())]

    assert names[:2] == [BAD, BAD]
    assert names[2:5] == ["health-live", "health-ready", "health"]
    assert names[8] == BAD
    assert names[9:12] == ["best", f"{NOT_ALLOWED} /books/best", "book-add"]
    assert names[-1] == NOT_FOUND


@pytest.mark.parametrize(
    ("config", "path", "allow"),
    [
        (default_config(), "/api/v1/search", "POST"),
        (default_config(), "/api/v1/genres", "GET, HEAD"),
        (default_config(), "/api/v1/user/watchlist", "GET, HEAD, POST"),
        (default_config(), "/api/v1/user/watchlist/1", "DELETE"),
        (default_config(), "/health/live", "GET, HEAD"),
        (rich_config(), "/books/1", "DELETE, GET, HEAD, POST"),
        (rich_config(), "/files/x", "GET, HEAD, OPTIONS, PATCH, PUT"),
    ],
)
def test_a_method_that_is_not_allowed_names_the_others(config: GatewayConfig, path: str, allow: str) -> None:
    """405 lists what the path takes, over all its routes."""
    rejection = first_match(routes_of(config), "TRACE", path)

    assert metadata(rejection)["allow"] == allow
    assert rejection.route.cluster_not_found_response_code == protos.route_components.RouteAction.INTERNAL_SERVER_ERROR


@pytest.mark.parametrize("config", [default_config(), rich_config()], ids=["default", "rich"])
def test_rejections_ask_and_cost_nothing(config: GatewayConfig) -> None:
    """A rejection leads nowhere, asks no authz and counts against nobody."""
    rejections = [route for route in routes_of(config) if route.name.startswith("mgw-")]

    assert {route.route.cluster for route in rejections} == {"mgw-refusal"}
    assert [authz(route) for route in rejections] == [None] * len(rejections)
    assert [list(route.route.rate_limits) for route in rejections] == [[]] * len(rejections)


SEGMENTS = st.sampled_from(["a", "b", "c", "{x}"])
PATHS = st.builds(
    lambda segments, end: "/" + "/".join([*segments, *end]),
    st.lists(SEGMENTS, min_size=1, max_size=3),
    st.sampled_from([[], [""], ["{rest=**}"]]),
)
METHODS = st.sets(st.sampled_from(["GET", "POST", "PUT"]), min_size=1).map(sorted)
ASKED = st.tuples(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]), st.lists(st.sampled_from("abcd"), max_size=5)
)


def shape(template: str) -> str:
    return template.replace("{x}", "{}").replace("{rest=**}", "{**}")


def most_specific(routes: list[Route], method: str, path: str) -> str:
    """The model: of all templates that fit, the one that is plainest at the first segment that differs decides."""

    def fits(template: str) -> bool:
        pieces = [
            "[^/]+" if piece == "{x}" else ".+" if piece == "{rest=**}" else piece for piece in template.split("/")
        ]
        return re.fullmatch("/".join(pieces), path) is not None

    def plainness(template: str) -> list[int]:
        return [{"{x}": 1, "{rest=**}": 2}.get(piece, 0) for piece in template.split("/")]

    fitting = [route for route in routes if fits(route.match.path)]
    if not fitting:
        return NOT_FOUND
    best = shape(min(fitting, key=lambda route: plainness(route.match.path)).match.path)
    for route in fitting:
        taken = {*route.match.methods, "HEAD"} if "GET" in route.match.methods else set(route.match.methods)
        if shape(route.match.path) == best and method in taken:
            return route.name
    return NOT_ALLOWED


@given(
    st.lists(st.tuples(PATHS, METHODS), min_size=1, max_size=8), st.lists(ASKED, min_size=1, max_size=20), st.booleans()
)
def test_the_most_specific_route_wins(
    written: list[tuple[str, list[str]]], asked: list[tuple[str, list[str]]], slash: bool
) -> None:
    """For any routes in any order, Envoy's first match is what a reader of the templates would choose."""
    taken: set[tuple[str, str]] = set()
    routes = []
    for number, (path, methods) in enumerate(written):
        free = [method for method in methods if (shape(path), method) not in taken]
        taken |= {(shape(path), method) for method in free}
        if free:
            routes.append(a_route(f"r{number}", path, tuple(free)))
    config = a_config(routes=routes)

    for method, segments in asked:
        path = "/" + "/".join(segments) + ("/" if slash and segments else "")
        assert first_match(routes_of(config), method, path).name.split()[0] == most_specific(routes, method, path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "books",
            {"route": "books", "auth": "required", "scopes": "books:read admin", "tiers": "free,pro"},
        ),
        (
            "book-add",
            {"route": "book-add", "auth": "required", "claims": '{"level": 3, "plan": "gold", "verified": true}'},
        ),
        ("best", {"route": "best", "auth": "optional"}),
        ("odd", {"route": "odd", "auth": "required", "providers": "idp,apikey"}),
        ("files", None),
        ("health", None),
        ("health-live", None),
        ("health-ready", {"route": "health-ready", "auth": "optional"}),
    ],
)
def test_what_authz_is_told(name: str, told: dict[str, str] | None) -> None:
    """A route sends its own policy to authz, as agreed; one with `auth: none` asks nobody."""
    assert authz(route_named(rich_config(), name)) == told


def test_every_operators_route_is_limited_alike() -> None:
    """One descriptor a request: route, tier, caller and address, each with a value whoever calls.

    It is dropped if the request is prepaid, and reports what became of the last lease if there was one.
    """
    epoch = leases.epoch(rich_config())
    for name in ("books", "files", "generate"):
        (limit,) = route_named(rich_config(), name).route.rate_limits
        assert [protos.message_to_dict(action) for action in limit.actions] == [
            {
                "header_value_match": {
                    "descriptor_key": "asked",
                    "descriptor_value": f"{epoch}/{name}",
                    "expect_match": False,
                    "headers": [{"name": "x-mgw-prepaid", "present_match": True}],
                }
            },
            {"generic_key": {"descriptor_key": "route", "descriptor_value": name}},
            {"metadata": metadata_action("tier", "anonymous")},
            {"metadata": metadata_action("caller", "-")},
            {"remote_address": {}},
            {
                "request_headers": {
                    "header_name": "x-mgw-lease-report",
                    "descriptor_key": "lease",
                    "skip_if_absent": True,
                }
            },
        ]


def test_the_response_may_say_what_a_request_cost() -> None:
    """Such a route has further descriptors, sent with the response, with its header or its status as their hits."""
    packed = route_named(rich_config(), "best").typed_per_filter_config["envoy.filters.http.ratelimit"]
    settings = protos.ratelimit_filter.RateLimitPerRoute()
    packed.Unpack(settings)
    first, by_header, by_status = settings.rate_limits

    assert by_header.hits_addend.format == "%RESP(X-Cost)%"
    assert by_status.hits_addend.format.endswith(
        "response.code_details == 'via_upstream' && response.code == 410 ? '2' : '')%"
    )
    for late in (by_header, by_status):
        assert late.apply_on_stream_done
        assert list(late.actions)[:-1] == list(first.actions)
        assert late.actions[-1].generic_key.descriptor_value == "late"


def metadata_action(key: str, default: str) -> dict[str, Any]:
    source = {"key": "envoy.filters.http.ext_authz", "path": [{"key": key}]}
    return {"descriptor_key": key, "metadata_key": source, "default_value": default}


def test_health_is_not_limited() -> None:
    """The gateway's own routes cost nothing, and lead to the control plane or nowhere."""
    config = rich_config()

    assert [list(route_named(config, name).route.rate_limits) for name in ("health", "health-ready")] == [[], []]
    assert route_named(config, "health").route.cluster == "mgw-health"
    assert json.loads(route_named(config, "health-live").direct_response.body.inline_string) == {"status": "alive"}
    assert not route_named(config, "health-live").HasField("route")


@pytest.mark.parametrize(("name", "seconds"), [("best", 0.5), ("books", 2.5), ("odd", 30)])
def test_time_limits(name: str, seconds: float) -> None:
    """A route's own time-out comes before its service's, and that before the default."""
    assert route_named(rich_config(), name).route.timeout.ToTimedelta().total_seconds() == seconds


@pytest.mark.parametrize(("open_seconds", "retry_after"), [(0.1, "1"), (1, "1"), (1.5, "2"), (60, "60")])
def test_errors_know_the_service(open_seconds: float, retry_after: str) -> None:
    """A route says whose it is, and when an open breaker is worth another try: whole seconds, at least one."""
    service = a_service(breaker={"open_seconds": open_seconds})
    found = metadata(route_named(a_config(services=[service]), "all"))

    assert (found["service"], found["retry_after"]) == ("demo", retry_after)


def test_upstreams_cannot_speak_for_the_gateway() -> None:
    """Headers that are the gateway's are removed from every upstream's response."""
    assert set(route_configuration(rich_config()).response_headers_to_remove) == {
        "x-gateway-error",
        "x-mgw-error-id",
        "x-correlation-id",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "ratelimit",
        "ratelimit-policy",
    }


KEYS = [{"name": "k", "sha256": "0" * 64, "subject": "s"}]


@pytest.mark.parametrize(
    ("auth", "kept_here"),
    [
        ({}, set()),
        ({"api_keys": KEYS}, {"x-api-key"}),
        ({"api_keys": KEYS, "api_key_header": "X-Key"}, {"x-key"}),
        ({"api_keys": KEYS, "forward_credentials": {"api_key": True}}, set()),
        ({"api_keys": KEYS, "forward_credentials": {"authorization": False}}, {"authorization", "x-api-key"}),
    ],
)
def test_credentials_that_no_upstream_gets(auth: dict[str, Any], kept_here: set[str]) -> None:
    """API keys, unless the document says otherwise; tokens, if it does."""
    provider = {"name": "p", "algorithms": ["HS256"], "secret": "${S}"}
    found = route_configuration(a_config(auth={"providers": [provider]} | auth))

    assert set(found.request_headers_to_remove) - set(REMOVED_BEFORE_UPSTREAM) == kept_here
