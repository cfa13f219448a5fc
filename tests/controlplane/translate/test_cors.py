"""CORS in Envoy's words: one policy for all routes, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from controlplane import protos
from controlplane.config.model import Auth, Cors, GatewayConfig
from controlplane.translate import cors, filters
from controlplane.translate.routes import route_configuration
from tests.support.configs import a_config, a_route, rich_config, values

DOCUMENT = {"allow_origins": ["https://app.example.com"]}
OWN = {"allow_origins": ["https://own.example.com"]}
KEY = {"name": "batch", "sha256": "a" * 64, "subject": "batch"}


def a_policy(**keys: Any) -> dict[str, Any]:
    """The filter's policy as values, for a document without API keys."""
    return protos.message_to_dict(cors.policy(Cors.model_validate(keys), a_config().auth))


def host_of(config: GatewayConfig) -> protos.route_components.VirtualHost:
    (host,) = route_configuration(config).virtual_hosts
    return host


def origin_of(target: Any) -> str | None:
    """The first origin of a host's or route's own policy; `off` if it is turned off, None if it has none."""
    if filters.CORS not in target.typed_per_filter_config:
        return None
    policy = protos.cors_filter.CorsPolicy()
    assert target.typed_per_filter_config[filters.CORS].Unpack(policy)
    if not policy.allow_origin_string_match:
        assert policy.filter_enabled.default_value.numerator == 0
        return "off"
    first = policy.allow_origin_string_match[0]
    return first.exact or first.safe_regex.regex


def mutations_of(target: Any) -> list[tuple[str, str]]:
    around = protos.header_mutation.HeaderMutationPerRoute()
    target.typed_per_filter_config[filters.HEADERS].Unpack(around)
    return [(m.append.header.key, m.append.header.value) for m in around.mutations.response_mutations]


def test_a_policy() -> None:
    """Origins are exact, but for the subdomains of a wildcard; the ids, the limits and Retry-After are exposed."""
    found = a_policy(allow_origins=["https://a.example", "https://*.b.example"], allow_methods=["GET", "POST"])

    assert found["allow_origin_string_match"] == [
        {"exact": "https://a.example"},
        {"safe_regex": {"regex": r"https://([a-z0-9_-]+\.)+b\.example"}},
    ]
    assert (found["allow_credentials"], found["allow_methods"], found["max_age"]) == (True, "GET,POST", "3600")
    assert found["expose_headers"].split(",") == list(cors.EXPOSED)


def test_any_origin() -> None:
    """`*` beside others is `*`."""
    found = a_policy(allow_origins=["https://a.example", "*"], allow_credentials=False)

    assert found["allow_origin_string_match"] == [{"safe_regex": {"regex": ".*"}}]
    assert found["allow_credentials"] is False


def test_headers_are_named_once() -> None:
    """A header that is exposed anyway is not named again; `*` for request headers stands alone."""
    found = a_policy(
        allow_origins=["https://a.example"],
        expose_headers=["x-total", "retry-after", "X-Total"],
        allow_headers=["x-a", "X-A", "*"],
    )

    assert found["expose_headers"].split(",") == [*cors.EXPOSED, "x-total"]
    assert found["allow_headers"] == "*"


@pytest.mark.parametrize(
    ("keys", "listed", "allowed"),
    [
        ([KEY], ["content-type"], "content-type,x-partner-key"),
        ([KEY], ["X-Partner-Key"], "X-Partner-Key"),
        ([], ["content-type"], "content-type"),
    ],
)
def test_the_api_key_header_is_allowed_if_there_are_keys(
    keys: list[dict[str, str]], listed: list[str], allowed: str
) -> None:
    """A page that may call with a key may send it."""
    auth = Auth.model_validate(values()["auth"] | {"api_key_header": "x-partner-key", "api_keys": keys})

    found = cors.policy(Cors(allow_origins=["https://a.example"], allow_headers=listed), auth)

    assert found.allow_headers == allowed


def test_one_policy_is_the_hosts() -> None:
    """If no route has its own, the host has the document's: the answer varies, and services' own headers go."""
    host = host_of(a_config(cors=DOCUMENT))

    assert origin_of(host) == "https://app.example.com"
    assert mutations_of(host) == [("vary", "Origin")]
    assert list(host.response_headers_to_remove) == list(cors.OURS)
    assert {origin_of(route) for route in host.routes} == {None}


def test_without_origins_nothing_is_done() -> None:
    """No policy, no Vary, and a service's own headers pass."""
    host = host_of(a_config())

    assert (origin_of(host), mutations_of(host), list(host.response_headers_to_remove)) == (None, [], [])
    assert {origin_of(route) for route in host.routes} == {None}


def test_any_origin_is_answered_as_such() -> None:
    """The filter names origins back, so `*` is written after it; then the answer does not vary."""
    host = host_of(a_config(cors={"allow_origins": ["*"], "allow_credentials": False}))

    assert mutations_of(host) == [("access-control-allow-origin", "*")]


def by_name(config: GatewayConfig) -> dict[str, Any]:
    return {route.name: route for route in host_of(config).routes}


def test_a_route_may_have_its_own() -> None:
    """Then every route has its policy, the gateway's own paths that of the document, and the host none."""
    config = a_config(
        cors=DOCUMENT,
        routes=[a_route("own", "/own", cors=OWN), a_route("off", "/off", cors={}), a_route("usual", "/usual")],
    )

    found = by_name(config)

    assert origin_of(host_of(config)) is None
    assert {name: origin_of(found[name]) for name in ("own", "off", "usual", "mgw-not-found", "health")} == {
        "own": "https://own.example.com",
        "off": "off",
        "usual": "https://app.example.com",
        "mgw-not-found": "https://app.example.com",
        "health": "https://app.example.com",
    }
    assert origin_of(found["mgw-method-not-allowed /own"]) == "https://own.example.com"
    assert (mutations_of(found["off"]), list(found["off"].response_headers_to_remove)) == ([], [])
    assert mutations_of(found["own"]) == mutations_of(found["usual"]) == [("vary", "Origin")]


def preflights(config: GatewayConfig, path: str) -> list[tuple[str, str, str | None]]:
    """The path's routes for preflights: name, methods asked for, and whose policy."""
    routes = [route for route in host_of(config).routes if route.match.path == path]
    asked = [[header for header in route.match.headers if header.name.startswith("access-")] for route in routes]
    return [
        (route.name, headers[0].string_match.safe_regex.regex, origin_of(route))
        for route, headers in zip(routes, asked, strict=True)
        if headers
    ]


@pytest.mark.parametrize(
    ("methods", "answers"), [(("DELETE",), "mgw-method-not-allowed /a"), (("DELETE", "OPTIONS"), "c")]
)
def test_a_preflight_gets_the_policy_of_the_method_that_it_asks_for(methods: Sequence[str], answers: str) -> None:
    """Routes of one path may differ. The one that takes OPTIONS takes what its policy does not answer."""
    members = [
        a_route("a", "/a", ("GET",), cors=OWN),
        a_route("b", "/a", ("POST",)),
        a_route("c", "/a", tuple(methods), cors={}),
    ]
    config = a_config(cors=DOCUMENT, routes=members)

    assert preflights(config, "/a") == [
        (answers, "GET|HEAD", "https://own.example.com"),
        (answers, "POST", "https://app.example.com"),
        (answers, "|".join(methods), "off"),
    ]
    assert origin_of(by_name(config)["mgw-method-not-allowed /a"]) == "https://app.example.com"


def test_routes_of_one_path_that_agree_need_no_more() -> None:
    """There are no routes for preflights if all of a path have one policy."""
    config = a_config(routes=[a_route(name.lower(), "/a", (name,), cors=OWN) for name in ("GET", "POST")])

    assert preflights(config, "/a") == []


def test_other_changes_of_a_routes_headers_stay() -> None:
    """What a route does to headers for another reason is kept."""
    route = protos.route_components.Route()
    kept = protos.header_mutation.HeaderMutationPerRoute()
    kept.mutations.response_mutations.add().append.header.key = "x-kept"
    route.typed_per_filter_config[filters.HEADERS].CopyFrom(protos.any_of(kept))

    host = protos.route_components.VirtualHost(routes=[route])
    cors.put_on_host(host, rich_config())

    assert mutations_of(host.routes[0]) == [("x-kept", ""), ("vary", "Origin")]
