"""Whole documents: each mistake is found at its place, and all of them at once."""

from __future__ import annotations

import contextlib
import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.config import document, load, repair, rules
from controlplane.config.model import GatewayConfig
from controlplane.errors import ConfigRejected, Problem
from tests.support.configs import (
    ENVIRONMENT,
    a_config,
    a_route,
    a_service,
    default_text,
    rich_config,
    rich_text,
    values,
)


def problems(text: str, internal: tuple[str, ...] = (), **environment: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigRejected) as caught:
        load.load(text, environment, internal)
    return caught.value.problems


def changed(old: str, new: str) -> tuple[str, int]:
    """The default document with `old` replaced, and the line where that is (at `!` if `new` has one)."""
    text = default_text()
    assert old in text
    before, _, after = text.partition(old)
    at = new.partition("!")[0] if "!" in new else ""
    line = (before + at).count("\n") + 1
    return before + new.replace("!", "") + after, line


SONA = 'endpoints: [{url: "${SONA_SERVICE_URL:-http://localhost:8082}", weight: 1}]'
LAST = "match: {path: /api/v1/recommendations, methods: [GET]}, service: sona, auth: optional}"
PLATFORM = "    - name: platform\n"
SECRET = '      secret: "${JWT_SECRET}"\n'
OF_LIMITS = "  enforced_by: ratelimit_service\n  anonymous_key: client_ip\n  on_store_failure: share\n  tiers:\n"

SONA_CHECK = "half_open_requests: 1}\n    health_check: {path: /health}\n    critical: false\n  - name: sync"

MISTAKES: dict[str, tuple[str, str, str, str]] = {
    "unknown key at the top": ("version: 1", "version: 1\n!verison: 1", "verison", "no such key"),
    "unknown key below": ("trusted_hops: 0", "trusted_hobs: 0", "listener.trusted_hobs", "no such key"),
    "missing section": ("limits:\n", "limit:\n", "limits", "is required"),
    "wrong version": ("version: 1", "version: 2", "version", "should be 1"),
    "not a number": ("trusted_hops: 0", "trusted_hops: many", "listener.trusted_hops", "valid integer"),
    "out of range": ("trusted_hops: 0", "trusted_hops: 17", "listener.trusted_hops", "less than or equal to 16"),
    "no failures at all": (
        "  providers:\n",
        "!  max_failures_per_minute: 0\n  providers:\n",
        "auth.max_failures_per_minute",
        "greater than or equal to 1",
    ),
    "a pointer that means nothing": (
        "claims: {subject: sub, tier: tier}",
        "claims: {subject: sub, tier: /a~b}",
        "auth.providers.0.claims.tier",
        "write ~ in it as ~0",
    ),
    "no name of a claim": (
        "claims: {subject: sub, tier: tier}",
        'claims: {subject: "", tier: tier}',
        "auth.providers.0.claims.subject",
        "at least 1 character",
    ),
    "a route's pointer that means nothing": (
        LAST,
        LAST[:-1] + ', claims: {"/a~": 1}}',
        "routes.16.claims./a~",
        "write ~ in it as ~0",
    ),
    "both ways to trust": (
        "trusted_hops: 0",
        "trusted_hops: 1\n  !trusted_cidrs: [10.0.0.0/8]",
        "listener.trusted_cidrs",
        "either trusted_hops or trusted_cidrs",
    ),
    "health on the gateway's own port": (
        "trusted_hops: 0",
        "trusted_hops: 0\n  !health_port: 8080",
        "listener.health_port",
        "the port of the gateway itself",
    ),
    "PROXY headers of anybody": (
        "trusted_hops: 0",
        "trusted_hops: 0\n  !proxy_protocol: true",
        "listener.proxy_protocol",
        "name the proxies in trusted_cidrs",
    ),
    "PROXY headers and hops": (
        "trusted_hops: 0",
        "trusted_hops: 1\n  !proxy_protocol: true",
        "listener.proxy_protocol",
        "name the proxies in trusted_cidrs",
    ),
    "no network": (
        "trusted_hops: 0",
        "!trusted_cidrs: [10.0.0.1/8]",
        "listener.trusted_cidrs.0",
        "the network is 10.0.0.0/8",
    ),
    "no address": (
        "trusted_hops: 0",
        "!trusted_cidrs: [proxy.local]",
        "listener.trusted_cidrs.0",
        "neither an address",
    ),
    "literal secret": (SECRET, '      secret: "hunter2"\n', "auth.providers.0.secret", "never written here"),
    "no key": (SECRET, "", "auth.providers.0", "exactly one of"),
    "mixed algorithms": ("[HS256]", "[HS256, RS256]", "auth.providers.0", "never mix"),
    "unknown algorithm": ("[HS256]", "[none]", "auth.providers.0.algorithms.0", "Input should be"),
    "unreadable key": (
        "      algorithms: [HS256]\n" + SECRET,
        "      algorithms: [ES256]\n!      pem: no key\n",
        "auth.providers.0.pem",
        "not a public key in PEM",
    ),
    "an interval without a source": (
        SECRET,
        SECRET + "!      jwks_refresh_seconds: 30\n",
        "auth.providers.0.jwks_refresh_seconds",
        "goes with jwks_uri alone",
    ),
    "an interval under a second": (
        "      algorithms: [HS256]\n" + SECRET,
        "      algorithms: [ES256]\n      jwks_uri: https://idp/keys\n!      jwks_refresh_seconds: 0.5\n",
        "auth.providers.0.jwks_refresh_seconds",
        "greater than or equal to 1",
    ),
    "authorities of plain text": (
        "      algorithms: [HS256]\n" + SECRET,
        "      algorithms: [ES256]\n      jwks_uri: http://idp/keys\n!      ca_file: /ca.pem\n",
        "auth.providers.0.ca_file",
        "begins with https:",
    ),
    "a URL that is none": (
        "      algorithms: [HS256]\n" + SECRET,
        "      algorithms: [ES256]\n!      jwks_uri: https://idp:99999/keys\n",
        "auth.providers.0.jwks_uri",
        "https://HOST",
    ),
    "reserved provider": (PLATFORM, "    - name: apikey\n", "auth.providers.0.name", "stands for callers"),
    "unknown default tier": ("default_tier: free", "default_tier: gold", "auth.providers.0.default_tier", "'gold'"),
    "no anonymous tier": ("    anonymous: {", "    nobody: {", "limits.tiers", "'anonymous' is required"),
    "bad tier": ("pro: {rps: 50,", "pro: {rps: -1,", "limits.tiers.pro.rps", "greater than or equal to 0.001"),
    "too fine a rate": ("pro: {rps: 50,", "pro: {rps: 0.0625,", "limits.tiers.pro.rps", "three decimals"),
    "numbers, and none": ("pro: {rps: 50,", "pro: {unlimited: true, rps: 50,", "limits.tiers.pro.rps", "no such key"),
    "unlimited, or not": ("pro: {rps: 50,", "pro: {unlimited: no, rps: 50,", "limits.tiers.pro.unlimited", "True"),
    "tier with a bad name": ("    pro: {", "    Pro: {", "limits.tiers.Pro", "match pattern"),
    "any origin with credentials": (
        'allow_origins: "${ALLOWED_ORIGINS:-}"',
        'allow_origins: ["*"]',
        "cors.allow_origins",
        "allow_credentials: false",
    ),
    "bad origin": ("${ALLOWED_ORIGINS:-}", "app.example", "cors.allow_origins.0", "SCHEME://HOST"),
    "origin with a path": (
        '"${ALLOWED_ORIGINS:-}"',
        '["https://a.example", "https://b.example/app"]',
        "cors.allow_origins.1",
        "nothing behind it: https://b.example",
    ),
    "service twice": ("- name: sona", "- name: sync", "services.2.name", "'sync' is taken"),
    "service of ours": ("- name: sona", "- name: mgw-sona", "services.1.name", "the gateway's own"),
    "endpoint with a path": ("localhost:8082", "localhost:8082/v2", "services.1.endpoints.0.url", "no path"),
    "mixed schemes": (
        SONA,
        'endpoints: [{url: "http://a"}, {url: "https://b"}]',
        "services.1.endpoints.1.url",
        "do not mix",
    ),
    "route twice": ("name: tv-popular", "name: search", "routes.5.name", "'search' is taken"),
    "route of ours": ("name: tv-popular", "name: mgw-tv", "routes.4.name", "the gateway's own"),
    "unknown service": ("service: sona, auth", "service: sonar, auth", "routes.16.service", "no service named 'sonar'"),
    "path taken": (
        "/api/v1/content/{id}/availability",
        "/api/v1/content/{other}",
        "routes.1.match",
        "GET /api/v1/content/{other} is taken by route 'content'",
    ),
    "path of ours": ("path: /api/v1/genres", "path: /health/x", "routes.10.match.path", "answers /health itself"),
    "bad path": ("path: /api/v1/genres", "path: api/v1/genres", "routes.10.match.path", "begins with /"),
    "unknown method": (
        "/api/v1/genres, methods: [GET]",
        "/api/v1/genres, methods: [TRACE]",
        "routes.10.match.methods.0",
        "",
    ),
    "unknown tier": (LAST, f"{LAST[:-1]}, tiers: [free, gold]}}", "routes.16.tiers.1", "no tier named 'gold'"),
    "unknown tier limit": (
        LAST,
        f"{LAST[:-1]}, tier_limits: {{gold: {{rps: 1, rpm: 1, burst: 1}}}}}}",
        "routes.16.tier_limits.gold",
        "no tier named 'gold'",
    ),
    "unknown provider": (LAST, f"{LAST[:-1]}, providers: [idp]}}", "routes.16.providers.0", "no provider named 'idp'"),
    "conditions on nobody": (
        LAST,
        LAST.replace("auth: optional", "auth: none, scopes: [a]"),
        "routes.16.scopes",
        "asks nobody",
    ),
    "cost above a tier": (LAST, f"{LAST[:-1]}, cost: 11}}", "routes.16.cost", "tier 'anonymous' ever has (burst 10)"),
    "global rule on no service": (
        "  tiers:\n",
        "!  global: [{name: all, service: sonar, rps: 1, rpm: 10, burst: 10}]\n  tiers:\n",
        "limits.global.0.service",
        "no service named 'sonar'",
    ),
    "global rule on no route": (
        "  tiers:\n",
        "!  global: [{name: all, routes: [nowhere], rps: 1, rpm: 10, burst: 10}]\n  tiers:\n",
        "limits.global.0.routes.0",
        "no route named 'nowhere'",
    ),
    "global rule without numbers": (
        "  tiers:\n",
        "!  global: [{name: all, rps: 1, rpm: 10}]\n  tiers:\n",
        "limits.global.0.burst",
        "is required",
    ),
    "global rule inside envoy": (
        "enforced_by: ratelimit_service\n",
        "enforced_by: envoy\n!  global: [{name: all, rps: 1, rpm: 10, burst: 10}]\n",
        "limits.global",
        "need limits.enforced_by: ratelimit_service",
    ),
    "a cost of no status": (
        LAST,
        f'{LAST[:-1]}, cost_from_response_status: {{"4xx": 1}}}}',
        "routes.16.cost_from_response_status.4xx",
        "match pattern",
    ),
    "a cost by status of nothing": (
        LAST,
        f"{LAST[:-1]}, cost_from_response_status: {{!401: 0}}}}",
        "routes.16.cost_from_response_status.401",
        "greater than or equal to 1",
    ),
    "a rate too slow for quotas": (
        OF_LIMITS + "    anonymous: {rps: 5,",
        OF_LIMITS.replace("ratelimit_service", "envoy") + "    anonymous: {!rps: 0.016,",
        "limits.tiers.anonymous.rps",
        "under one request a minute",
    ),
    "rhythm of a check that does not steer": (
        SONA_CHECK,
        SONA_CHECK.replace("/health}", "/health, !interval_seconds: 2}"),
        "services.1.health_check.interval_seconds",
        "steer: true",
    ),
    "retries without a number": (
        LAST,
        f"{LAST[:-1]}, retries: {{on: [reset]}}}}",
        "routes.16.retries.attempts",
        "is required",
    ),
    "too many retries": (
        LAST,
        f"{LAST[:-1]}, retries: {{attempts: 6}}}}",
        "routes.16.retries.attempts",
        "less than or equal to 5",
    ),
    "retries on what Envoy has no word for": (
        LAST,
        f"{LAST[:-1]}, retries: {{attempts: 1, on: [timeout]}}}}",
        "routes.16.retries.on.0",
        "'connect-failure'",
    ),
    "retries on nothing": (
        LAST,
        f"{LAST[:-1]}, retries: {{attempts: 1, on: []}}}}",
        "routes.16.retries.on",
        "at least 1",
    ),
    "retries on the same twice": (
        LAST,
        f"{LAST[:-1]}, retries: {{attempts: 1, on: [reset, reset]}}}}",
        "routes.16.retries.on.1",
        "there twice",
    ),
    "a route's own retry budget": (
        LAST,
        f"{LAST[:-1]}, retries: {{attempts: 1, budget_percent: 10}}}}",
        "routes.16.retries.budget_percent",
        "no such key",
    ),
    "a try as long as all of them": (
        LAST,
        f"{LAST[:-1]}, timeout_seconds: 2, retries: {{attempts: 1, per_try_timeout_seconds: 2}}}}",
        "routes.16.retries.per_try_timeout_seconds",
        "all attempts together have 2 s",
    ),
    "retries of a POST": (
        "match: {path: /api/v1/search, methods: [POST]}, service: discovery, auth: optional}",
        "match: {path: /api/v1/search, methods: [POST]}, service: discovery, auth: optional, retries: {attempts: 1}}",
        "routes.5.retries",
        "never sent twice",
    ),
    "missing reference": (
        "${SONA_SERVICE_URL:-http://localhost:8082}",
        "${NO_URL}",
        "services.1.endpoints.0.url",
        "no NO_URL",
    ),
    "private reference": ("${SONA_SERVICE_URL:-", "${MGW_API_TOKEN:-", "services.1.endpoints.0.url", "is private"),
    "key twice": ("trusted_hops: 0", "trusted_hops: 0\n  !trusted_hops: 0", "listener.trusted_hops", "twice"),
}


ELSEWHERE = {
    "routes.16.retries.attempts",
    "limits",
    "limits.global.0.burst",
    "limits.tiers",
    "auth.providers.0",
    "services.2.name",
    "routes.5.name",
}
"""Problems that are not on the line that was changed: what is missing has no line, and the second of two is wrong."""


@pytest.mark.parametrize(("old", "new", "path", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_place(old: str, new: str, path: str, message: str) -> None:
    """Each mistake in the default document is a problem at its path and line, in words that help."""
    text, line = changed(old, new)

    found = [problem for problem in problems(text) if problem.path == path]

    assert [message in problem.message for problem in found] == [True]
    assert found[0].line == line or path in ELSEWHERE
    assert found[0].column > 0


GLOBAL = {"name": "all", "rps": 100, "rpm": 1000, "burst": 100}
AT_THE_WHOLE = {
    "api key twice": (
        {"auth": values()["auth"] | {"api_keys": [{"name": n, "sha256": "a" * 64, "subject": n} for n in ("a", "b")]}},
        "auth.api_keys.1.sha256",
        "has a name already",
    ),
    "api key name twice": (
        {"auth": values()["auth"] | {"api_keys": [{"name": "a", "sha256": c * 64, "subject": "s"} for c in "ab"]}},
        "auth.api_keys.1.name",
        "'a' is taken",
    ),
    "api key of an unknown tier": (
        {"auth": values()["auth"] | {"api_keys": [{"name": "a", "sha256": "a" * 64, "subject": "s", "tier": "x"}]}},
        "auth.api_keys.0.tier",
        "no tier named 'x'",
    ),
    "provider twice": ({"auth": {"providers": values()["auth"]["providers"] * 2}}, "auth.providers.1.name", "is taken"),
    "cost over a whole limit": (
        {"routes": [values()["routes"][0] | {"cost": 3}]},
        "routes.0.cost",
        "none could pass",
    ),
    "cost inside Envoy": (
        {"limits": values()["limits"] | {"enforced_by": "envoy"}, "routes": [values()["routes"][0] | {"cost": 2}]},
        "routes.0.cost",
        "needs limits.enforced_by: ratelimit_service",
    ),
    "shared rule inside Envoy": (
        {"limits": values()["limits"] | {"enforced_by": "envoy", "global": [GLOBAL]}},
        "limits.global",
        "rules that callers share",
    ),
    "shared rule twice": (
        {"limits": values()["limits"] | {"global": [GLOBAL, GLOBAL]}},
        "limits.global.1.name",
        "'all' is taken",
    ),
    "shared rule on an unknown service": (
        {"limits": values()["limits"] | {"global": [GLOBAL | {"service": "gone"}]}},
        "limits.global.0.service",
        "no service named 'gone'",
    ),
    "shared rule on an unknown route": (
        {"limits": values()["limits"] | {"global": [GLOBAL | {"routes": ["all", "gone"]}]}},
        "limits.global.0.routes.1",
        "no route named 'gone'",
    ),
    "two shared rules on one counter": (
        {"limits": values()["limits"] | {"global": [GLOBAL, GLOBAL | {"name": "more", "counter": "all"}]}},
        "limits.global.1.counter",
        "rule 'all' counts there",
    ),
    "a parameter to mask in a full log": (
        {"log": {"query": "full", "mask_parameters": ["iban"]}},
        "log.mask_parameters",
        "shows every parameter",
    ),
    "any exposed header with credentials": (
        {"cors": {"allow_origins": ["https://a.example"], "expose_headers": ["*"]}},
        "cors.expose_headers",
        "name the headers",
    ),
    "any origin with credentials on a route": (
        {"routes": [values()["routes"][0] | {"cors": {"allow_origins": ["*"]}}]},
        "routes.0.cors.allow_origins",
        "allow_credentials: false",
    ),
    "revocation of an unknown provider": (
        {
            "auth": values()["auth"]
            | {"revocations": {"subjects": [{"provider": "idp", "subject": "s", "issued_before": 1}]}}
        },
        "auth.revocations.subjects.0.provider",
        "no provider named 'idp'",
    ),
}


@pytest.mark.parametrize(("given_values", "path", "message"), AT_THE_WHOLE.values(), ids=AT_THE_WHOLE)
def test_rules_over_several_parts(given_values: dict[str, Any], path: str, message: str) -> None:
    """Names and keys are unique, what is referred to exists, and limits can be kept where they are enforced."""
    found = rules.check(a_config(**given_values))

    assert [(document.dotted(place), message in words) for place, words in found] == [(path, True)]


UNKNOWN_KIND = "-----BEGIN PUBLIC KEY-----\nMA0wBQYDKgMEAwQAYWJj\n-----END PUBLIC KEY-----\n"
ED25519 = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize(
    ("pem", "algorithm", "message"),
    [
        ("", "EdDSA", None),
        ("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", "ES256", "not a public key in PEM"),
        (UNKNOWN_KIND, "ES256", "not a public key in PEM"),
        (ED25519, "ES256", "fits none of the algorithms"),
    ],
)
def test_a_key_must_be_one_that_tokens_can_be_checked_with(pem: str, algorithm: str, message: str | None) -> None:
    """A key in the document is read at once: one that is none, or not for these algorithms, is refused."""
    provider = {"name": "p", "algorithms": [algorithm], "pem": pem or ED25519}

    found = rules.check(a_config(auth={"providers": [provider]}))

    assert [(path, message and message in words) for path, words in found] == (
        [(("auth", "providers", 0, "pem"), True)] if message else []
    )


def test_every_rule_has_a_mistake_here() -> None:
    """No rule of RULES finds nothing in all of these mistakes."""
    silent = set(rules.RULES)
    configs: list[GatewayConfig | None] = [a_config(**given_values) for given_values, _, _ in AT_THE_WHOLE.values()]
    for old, new, *_ in MISTAKES.values():
        with contextlib.suppress(ConfigRejected):
            configs.append(repair.shape(document.resolve(document.read(changed(old, new)[0]), {}))[0])
    for config in filter(None, configs):
        silent -= {rule for rule in silent if list(rule(config))}

    assert silent == set()


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_good_documents_break_no_rule(rule: rules.Rule) -> None:
    """The rich document, too, passes every rule."""
    assert list(rule(rich_config())) == []


def test_all_mistakes_are_reported_at_once() -> None:
    """Misspelt keys, unfit values and broken rules are found in one go, in the order of the text."""
    text = default_text()
    mistakes = {
        "listener.trusted_hobs": ("trusted_hops: 0", "trusted_hobs: 0"),
        "auth.providers.0.default_tier": ("default_tier: free", "default_tier: gold"),
        "limits.tiers.pro.rps": ("pro: {rps: 50", "pro: {rps: fifty"),
        "services.1.endpoints.0.url": ("http://localhost:8082", "ftp://localhost"),
        "routes.4.name": ("name: tv-popular", "name: movies-popular"),
        "routes.10.match.path": ("path: /api/v1/genres", "path: genres"),
        "routes.16.service": ("service: sona, auth", "service: sonar, auth"),
    }
    for old, new in mistakes.values():
        text = text.replace(old, new)

    found = problems(text)

    assert [problem.path for problem in found] == list(mistakes)
    assert [problem.line for problem in found] == sorted(problem.line for problem in found)


def test_two_routes_overlap_only_where_method_and_shape_are_equal() -> None:
    """Parameters' names do not tell routes apart; methods, plain segments and rests of path do."""
    paths = ["/a/{x}", "/a/{rest=**}", "/a/b", "/a/{x}/", "/{x}/b"]
    config = a_config(
        routes=[a_route(f"r{n}", path) for n, path in enumerate(paths)] + [a_route("post", "/a/{y}", ("POST", "PUT"))]
    )
    again = a_config(routes=[*config.routes, a_route("again", "/a/{other=**}", ("HEAD", "GET"))])

    assert rules.check(config) == []
    assert rules.check(again) == [(("routes", 6, "match"), "GET /a/{other=**} is taken by route 'r1'")]


@pytest.mark.parametrize(
    ("url", "internal"),
    [
        ("http://127.0.0.1:18001", "127.0.0.1:18001"),
        ("http://localhost:18001", "127.0.0.1:18001"),
        ("http://LOCALHOST.:18001", "127.0.0.1:18001"),
        ("http://a.localhost:18001", "127.0.0.1:18001"),
        ("http://127.0.0.1:18001", "localhost:18001"),
        ("http://127.9.9.9:18001", "127.0.0.1:18001"),
        ("http://127.1:18001", "127.0.0.1:18001"),
        ("http://2130706433:18001", "127.0.0.1:18001"),
        ("http://0x7f.1:18001", "127.0.0.1:18001"),
        ("http://0.0.0.0:18001", "127.0.0.1:18001"),
        ("http://[::1]:18001", "127.0.0.1:18001"),
        ("http://[::]:18001", "127.0.0.1:18001"),
        ("http://[::ffff:127.0.0.1]:18001", "127.0.0.1:18001"),
        ("http://127.0.0.1:18001", "0.0.0.0:18001"),
        ("http://[::1]:18001", "[::1]:18001"),
        ("http://[0:0::1]:18001", "[::]:18001"),
        ("http://controlplane:80", "controlplane:80"),
        ("http://ControlPlane", "controlplane:80"),
        ("https://controlplane.", "controlplane:443"),
        ("http://[fd00::0:5]:6379", "[fd00::5]:6379"),
        ("http://[::ffff:10.0.0.5]:6379", "10.0.0.5:6379"),
    ],
)
def test_services_stay_outside(url: str, internal: str) -> None:
    """No service leads to a part of the gateway, however its address is written."""
    config = a_config(services=[a_service("demo", "http://10.9.9.9:1", url)])

    assert [path for path, _ in rules.services_stay_outside(config, frozenset({internal}))] == [
        ("services", 0, "endpoints", 1, "url")
    ]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:18002", "http://10.0.0.1:18001", "http://localhost.example:18001", "https://localhost"],
)
def test_other_addresses_are_outside(url: str) -> None:
    """Another port or another machine is no part of the gateway."""
    config = a_config(services=[a_service("demo", url)])

    assert list(rules.services_stay_outside(config, frozenset({"127.0.0.1:18001", "127.0.0.1:80"}))) == []


def test_an_inside_address_is_a_problem_with_its_place() -> None:
    """The rule is part of loading a document."""
    (problem,) = problems(default_text(), internal=("127.0.0.1:8082",))

    assert (problem.path, problem.message) == (
        "services.1.endpoints.0.url",
        "this address is one of the gateway's own parts",
    )


def test_api_keys_are_a_provider_of_their_own() -> None:
    """A route that names providers can name `apikey` among them."""
    assert rules.check(a_config(routes=[a_route(auth="required", providers=["platform", "apikey"])])) == []


def test_a_refusal_never_shows_the_environment() -> None:
    """A private variable's value is in no message, whichever field refers to it."""
    for field in ("host: ", "port: "):
        text = re.sub(rf'{field}"[^"]*"', f'{field}"${{MGW_API_TOKEN}}"', default_text())

        assert "hush" not in str(problems(text, MGW_API_TOKEN="hush"))


PLACES = st.lists(st.integers(0, 30), min_size=1, max_size=6)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just("${X}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def mutate(values_: Any, place: list[int], junk: Any) -> Any:
    """Follow `place` into a tree, and put junk there."""
    if not place or not isinstance(values_, dict | list) or not values_:
        return junk
    keys = list(values_) if isinstance(values_, dict) else range(len(values_))
    key = keys[place[0] % len(keys)]
    values_[key] = mutate(values_[key], place[1:], junk)
    return values_


BASES = [document.read(default_text()).data, document.read(rich_text()).data]


@given(st.sampled_from(BASES), st.lists(st.tuples(PLACES, JUNK), min_size=1, max_size=4))
def test_no_document_raises_anything_else(base: Any, mutations: list[tuple[list[int], Any]]) -> None:
    """Good documents with junk anywhere in them are accepted or refused with places, and nothing else happens."""
    values_ = copy.deepcopy(base)
    for place, junk in mutations:
        values_ = mutate(values_, place, junk)

    try:
        load.load(json.dumps(values_, ensure_ascii=False), ENVIRONMENT)
    except ConfigRejected as refusal:
        assert refusal.problems
        assert all(problem.message and problem.line for problem in refusal.problems)


@pytest.mark.parametrize(
    ("limits", "route", "place"),
    [
        ({"exempt": {"cidrs": ["10.0.0.0/8"]}}, {}, ("limits", "exempt")),
        ({"exempt": {"callers": ["job"]}}, {}, ("limits", "exempt")),
        ({}, {"cost": 0}, ("routes", 0, "cost")),
        ({}, {"cost_from_response_status": {"401": 1}}, ("routes", 0, "cost_from_response_status")),
        ({}, {"limits": {"rps": 1, "rpm": 9, "burst": 1, "by": "address"}}, ("routes", 0, "limits", "by")),
        (
            {},
            {"tier_limits": {"free": {"rps": 1, "rpm": 9, "burst": 1, "by": "both"}}},
            ("routes", 0, "tier_limits", "free", "by"),
        ),
        ({}, {"limits": {"rps": 0.01, "rpm": 9, "burst": 1}}, ("routes", 0, "limits", "rps")),
    ],
)
def test_what_quota_mode_cannot_do(limits: Any, route: Any, place: Any) -> None:
    """It is a problem in that mode, at its place, and none in the other."""
    tiers = {tier: {"rps": 1, "rpm": 10, "burst": 2} for tier in ("anonymous", "free")}

    def found(enforced_by: str) -> list[Any]:
        whole = {"tiers": tiers, "enforced_by": enforced_by} | limits
        return [path for path, _ in rules.check(a_config(limits=whole, routes=[a_route(**route).model_dump()]))]

    assert found("envoy") == [place]
    assert found("ratelimit_service") == []
