"""CORS: which pages a browser lets read an answer, by the document's policy or a route's own.

Envoy's filter names the origin back and answers preflights. What it leaves out is done around it: the router removes a
service's own headers before the filter sets ours, and the header mutation filter adds `Vary` and writes `*` after it.
A policy without origins does none of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from controlplane import protos
from controlplane.config.fields import with_head
from controlplane.config.model import Auth, Cors, GatewayConfig, Route
from controlplane.config.origins import ANY, pattern
from controlplane.translate import filters
from controlplane.translate.mutations import Action, write

EnvoyRoute = protos.route_components.Route
StringMatcher = protos.string_matcher.StringMatcher

ALLOW_ORIGIN = "access-control-allow-origin"
OURS = (
    ALLOW_ORIGIN,
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
)
"""A service's own copies would widen what the policy allows."""

NEVER = protos.base.RuntimeFractionalPercent(default_value=protos.percent.FractionalPercent(numerator=0))
EXPOSED = (
    "X-Request-ID",
    "X-Correlation-ID",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Retry-After",
)
"""What scripts may read of every answer."""


def put_on_host(host: protos.route_components.VirtualHost, config: GatewayConfig) -> None:
    """The document's policy: on the host if all routes have it, else on each route that has none yet.

    Settings of a host reach all its routes, and no route can take them back.
    """
    if all(route.cors is None for route in config.routes):
        if config.cors.allow_origins:
            _put(host, config.cors, config.auth)
        return
    for route in host.routes:
        if filters.CORS not in route.typed_per_filter_config:
            _put(route, config.cors, config.auth)


def put_on_path(
    members: Sequence[Route],
    forwards: Sequence[protos.route_components.Route],
    refusal: protos.route_components.Route,
    config: GatewayConfig,
) -> Iterator[protos.route_components.Route]:
    """The routes of one path with policies of their own: those that forward, and the one that refuses other methods.

    Yields routes for preflights, to be tried first. A preflight asks for another method than its own, so if policies
    differ, that method's route decides.
    """
    if all(member.cors is None for member in members):
        return
    policies = [member.cors or config.cors for member in members]
    if all(policy == policies[0] for policy in policies):
        _put(refusal, policies[0], config.auth)
    else:
        answers = next((f for m, f in zip(members, forwards, strict=True) if "OPTIONS" in m.match.methods), refusal)
        plain = EnvoyRoute()
        plain.CopyFrom(answers)
        for member, policy in zip(members, policies, strict=True):
            yield _preflight(plain, member, policy, config.auth)
    for forward, policy in zip(forwards, policies, strict=True):
        _put(forward, policy, config.auth)


def _preflight(
    answers: protos.route_components.Route, member: Route, policy: Cors, auth: Auth
) -> protos.route_components.Route:
    """What takes OPTIONS anyway, for preflights that ask for the member's methods."""
    result = EnvoyRoute()
    result.CopyFrom(answers)
    methods = sorted(with_head(member.match.methods))
    result.match.headers.extend([_header(":method", ["OPTIONS"]), _header("access-control-request-method", methods)])
    _put(result, policy, auth)
    return result


def _header(name: str, values: Sequence[str]) -> protos.route_components.HeaderMatcher:
    regex = protos.regex_matcher.RegexMatcher(regex="|".join(values))
    return protos.route_components.HeaderMatcher(name=name, string_match=StringMatcher(safe_regex=regex))


def _put(target: protos.route_components.VirtualHost | protos.route_components.Route, cors: Cors, auth: Auth) -> None:
    target.typed_per_filter_config[filters.CORS].CopyFrom(protos.any_of(policy(cors, auth)))
    if not cors.allow_origins:
        return
    target.response_headers_to_remove.extend(OURS)
    around = protos.header_mutation.HeaderMutationPerRoute()
    target.typed_per_filter_config[filters.HEADERS].Unpack(around)  # a route may change other headers too
    around.mutations.response_mutations.append(_any_origin() if ANY in cors.allow_origins else _vary())
    target.typed_per_filter_config[filters.HEADERS].CopyFrom(protos.any_of(around))


def _any_origin() -> protos.mutation_rules.HeaderMutation:
    """The same answer for everybody, so that it may be kept for everybody."""
    return write(ALLOW_ORIGIN, ANY, Action.OVERWRITE_IF_EXISTS)


def _vary() -> protos.mutation_rules.HeaderMutation:
    """On answers without an origin too, or a cache would hand them to a page that asks from one."""
    return write("vary", "Origin", Action.APPEND_IF_EXISTS_OR_ADD)


def policy(cors: Cors, auth: Auth) -> protos.cors_filter.CorsPolicy:
    """What the filter is told. Without origins it is turned off."""
    if not cors.allow_origins:
        return protos.cors_filter.CorsPolicy(filter_enabled=NEVER)
    return protos.cors_filter.CorsPolicy(
        allow_origin_string_match=_origins(cors),
        allow_methods=",".join(cors.allow_methods),
        allow_headers=_allowed_headers(cors, auth),
        expose_headers=",".join(_once([*EXPOSED, *cors.expose_headers])),
        max_age=str(cors.max_age_seconds),
        allow_credentials=protos.boolean(cors.allow_credentials),
    )


def _origins(cors: Cors) -> list[protos.string_matcher.StringMatcher]:
    if ANY in cors.allow_origins:
        return [StringMatcher(safe_regex=protos.regex_matcher.RegexMatcher(regex=".*"))]
    return [_origin(origin) for origin in cors.allow_origins]


def _origin(origin: str) -> protos.string_matcher.StringMatcher:
    subdomains = pattern(origin)
    if subdomains is None:
        return StringMatcher(exact=origin)
    return StringMatcher(safe_regex=protos.regex_matcher.RegexMatcher(regex=subdomains))


def _allowed_headers(cors: Cors, auth: Auth) -> str:
    """To `*` alone the filter answers with whatever headers were asked for."""
    if "*" in cors.allow_headers:
        return "*"
    keys = [auth.api_key_header] if auth.api_keys else []
    return ",".join(_once([*cors.allow_headers, *keys]))


def _once(names: Sequence[str]) -> list[str]:
    """The names without those that are there already, in any case."""
    kept: dict[str, str] = {}
    for name in names:
        kept.setdefault(name.lower(), name)
    return list(kept.values())
