"""Routes: which request goes to which service, and what the filters do with it on the way."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import groupby
from typing import NamedTuple

from controlplane import protos
from controlplane.config.fields import with_head
from controlplane.config.model import Auth, GatewayConfig, Method, Route, Service
from controlplane.topology import HEALTH_CLUSTER, NO_CLUSTER
from controlplane.translate import (
    bodies,
    client_addresses,
    cors,
    decision_cache,
    filters,
    hosts,
    jwt_authn,
    leases,
    local_rate_limit,
    mutations,
    policies,
    rate_limit_quota,
    retries,
)
from controlplane.translate.headers import (
    REMOVED_BEFORE_UPSTREAM,
    Header,
    Key,
    Namespace,
    ResponseHeader,
    Setting,
)
from controlplane.translate.jwt_authn import NO_KEYS, EnvoyKeys

RouteMatch = protos.route_components.RouteMatch
RouteAction = protos.route_components.RouteAction

ROUTE_CONFIG = "gateway"
HEALTH = "health"
HEALTH_TIMEOUT_SECONDS = 2.0

OURS_ALONE = (*ResponseHeader, Header.CORRELATION_ID)
"""Response headers whose value is the gateway's: an upstream's own copies are removed."""


def route_configuration(config: GatewayConfig, keys: EnvoyKeys = NO_KEYS) -> protos.route.RouteConfiguration:
    """All routes as a list, the most specific path first, so that the order in the document has no meaning."""
    host = protos.route_components.VirtualHost(name=ROUTE_CONFIG, domains=["*"])
    host.routes.extend(routes(config, keys))
    host.typed_per_filter_config[bodies.BODY].CopyFrom(bodies.of_all_routes(config))
    cors.put_on_host(host, config)
    host.typed_per_filter_config[local_rate_limit.LOCAL_RATE_LIMIT].CopyFrom(
        local_rate_limit.policy(config.limits, policies.exempt_callers(config))
    )
    host.virtual_clusters.extend(_ai_agents())
    if rate_limit_quota.is_used(config):
        _leave_our_own_uncounted(host)
    return protos.route.RouteConfiguration(
        name=ROUTE_CONFIG,
        virtual_hosts=[host],
        response_headers_to_remove=OURS_ALONE,
        request_headers_to_remove=[*REMOVED_BEFORE_UPSTREAM, *_credentials_kept_here(config.auth)],
        validate_clusters=protos.boolean(False),
    )


def _credentials_kept_here(auth: Auth) -> Iterator[str]:
    """The headers with credentials that no upstream gets. Without API keys their header may be one of an upstream's."""
    if not auth.forward_credentials.authorization:
        yield "authorization"
    if auth.api_keys and not auth.forward_credentials.api_key:
        yield auth.api_key_header


def health_route_configuration() -> protos.route.RouteConfiguration:
    """Health alone, for a listener of its own."""
    host = protos.route_components.VirtualHost(name=HEALTH, domains=["*"])
    host.routes.append(
        _rejection(Rejection.BAD_REQUEST, "mgw-bad-request", RouteMatch(prefix="/", headers=[hosts.malformed()]))
    )
    host.routes.extend(_health_routes())
    host.routes.append(_rejection(Rejection.NOT_FOUND, "mgw-not-found", RouteMatch(prefix="/")))
    return protos.route.RouteConfiguration(
        name=HEALTH,
        virtual_hosts=[host],
        response_headers_to_remove=OURS_ALONE,
        request_headers_to_remove=REMOVED_BEFORE_UPSTREAM,
        validate_clusters=protos.boolean(False),
    )


def _ai_agents() -> Iterator[protos.route_components.VirtualCluster]:
    """Counts agents' requests: Envoy's metric `vhost.gateway.vcluster.ai_agent.upstream_rq`. Either header will do."""
    for header in ("x-ai-agent", "ai-agent-id"):
        pattern = protos.route_components.HeaderMatcher(name=header, present_match=True)
        yield protos.route_components.VirtualCluster(name="ai_agent", headers=[pattern])


class Epochs(NamedTuple):
    """Names of the policy, the limits and what Envoy verifies with. What it kept under others is not found any more."""

    policy: str
    limits: str
    verifier: str


def routes(config: GatewayConfig, keys: EnvoyKeys = NO_KEYS) -> Iterator[protos.route_components.Route]:
    """The gateway's own paths, the operator's routes, 405 for known paths, and 404 for all others."""
    for wrong in (leases.has(Header.BAD_REQUEST), hosts.malformed()):
        yield _rejection(Rejection.BAD_REQUEST, "mgw-bad-request", RouteMatch(prefix="/", headers=[wrong]))
    yield from _health_routes()
    if config.listener.http10:
        nameless = RouteMatch(prefix="/", headers=[hosts.absent()])
        yield _rejection(Rejection.BAD_REQUEST, "mgw-bad-request", nameless)
    services = {service.name: service for service in config.services}
    epochs = Epochs(decision_cache.epoch(config), leases.epoch(config), jwt_authn.version(config, keys))
    ordered = sorted(config.routes, key=lambda route: _specificity(route.match.path))
    for path, group in groupby(ordered, key=lambda route: _shape(route.match.path)):
        members = sorted(group, key=lambda route: route.name)
        forwards = [_forward(route, services[route.service], config, epochs) for route in members]
        refusal = _method_not_allowed(members[0].match.path, path, _allowed(members))
        yield from cors.put_on_path(members, forwards, refusal, config)
        yield from (*forwards, refusal)
    yield _rejection(Rejection.NOT_FOUND, "mgw-not-found", RouteMatch(prefix="/"))


def _shape(template: str) -> str:
    """The template without its parameters' names."""
    return re.sub(r"\{[^}]*?(=\*\*)?\}", r"{\1}", template)


def _specificity(template: str) -> tuple[list[tuple[int, str]], str]:
    """Orders templates: at the first segment that differs, plain text before a parameter before a rest of path."""
    ranks = [
        (2 if "=**" in segment else 1 if segment.startswith("{") else 0, _shape(segment))
        for segment in template.split("/")[1:]
    ]
    return ranks, _shape(template)


def _matcher(template: str) -> RouteMatch:
    """Envoy's matcher for a template: one or more characters that are not a slash for each parameter."""
    if "{" not in template:
        return RouteMatch(path=template)
    pieces = re.split(r"(\{[^}]*\})", template)
    regex = "".join(_piece(piece) for piece in pieces)
    return RouteMatch(safe_regex=protos.regex_matcher.RegexMatcher(regex=regex))


def _piece(piece: str) -> str:
    if not piece.startswith("{"):
        return re.escape(piece)
    return ".+" if piece.endswith("=**}") else "[^/]+"


def _allowed(members: Sequence[Route]) -> str:
    return ", ".join(sorted(with_head(method for route in members for method in route.match.methods)))


def _forward(route: Route, service: Service, config: GatewayConfig, epochs: Epochs) -> protos.route_components.Route:
    match = _matcher(route.match.path)
    match.headers.append(_method_matcher(route.match.methods))
    lease = leases.route_settings(config, route, epochs.limits)
    result = protos.route_components.Route(
        name=route.name,
        match=match,
        route=RouteAction(
            cluster=service.name,
            timeout=protos.duration(route.timeout_seconds or service.timeout_seconds),
            rate_limits=[filters.rate_limit_actions(route.name, *lease.values())],
        ),
        metadata=_metadata(service),
    )
    if (again := retries.policy(route, service)) is not None:
        result.route.retry_policy.CopyFrom(again)
        result.request_body_buffer_limit.CopyFrom(bodies.kept_for_retries(route, config))
    if late := list(_late_hits(route)):
        (asked,) = result.route.rate_limits
        post_charged = filters.post_charge(asked, late)
        result.typed_per_filter_config[filters.RATE_LIMIT].CopyFrom(post_charged)
        del result.route.rate_limits[:]
    settings = _script_settings(route, config, epochs)
    lines = "\n".join(f"{name}={value}" for name, value in settings.items())
    result.metadata.filter_metadata[Namespace.SCRIPT][Key.SETTINGS] = lines
    if rate_limit_quota.is_used(config):
        _spend_from_quotas(result, route, config)
    elif local_rate_limit.is_unlimited_for_some(route):
        result.typed_per_filter_config[local_rate_limit.LOCAL_RATE_LIMIT].CopyFrom(
            local_rate_limit.of_route(route, config)
        )
    if route.ip:
        result.typed_per_filter_config[client_addresses.RBAC].CopyFrom(client_addresses.of_route(route.ip))
    if (body := bodies.of_route(route, config)) is not None:
        result.typed_per_filter_config[bodies.BODY].CopyFrom(body)
    result.typed_per_filter_config[filters.EXT_AUTHZ].CopyFrom(
        filters.no_authz() if route.auth == "none" else filters.authz_policy(authz_context(route))
    )
    return result


def _late_hits(route: Route) -> Iterator[str]:
    """What a response costs, as formats of which each gives a number or nothing."""
    if route.cost_from_response_header:
        yield f"%RESP({route.cost_from_response_header})%"
    if route.cost_from_response_status:
        costs = sorted(route.cost_from_response_status.items())
        from_upstream = "response.code_details == 'via_upstream'"
        cases = "".join(f"{from_upstream} && response.code == {status} ? '{cost}' : " for status, cost in costs)
        yield f"%CEL({cases}'')%"


def _script_settings(route: Route, config: GatewayConfig, epochs: Epochs) -> dict[str, str]:
    """What the scripts are told of the route. It is not in the scripts, so that a change needs no new listener."""
    settings = bodies.route_settings(route, config) | rate_limit_quota.route_settings(route, config)
    if route.auth == "none":
        return settings
    settings[Setting.AUTH] = route.auth
    if route.auth == "optional" and not (route.tiers or route.scopes or route.claims):
        settings[Setting.ANONYMOUS] = "yes"
    settings |= decision_cache.route_settings(config, authz_context(route), epochs.policy, epochs.verifier)
    settings |= leases.route_settings(config, route, epochs.limits)
    return settings | jwt_authn.route_settings(route, config, epochs.verifier)


def _leave_our_own_uncounted(host: protos.route_components.VirtualHost) -> None:
    """Health and errors: what has no local fallback limit has no quota either."""
    no_limit = protos.any_of(local_rate_limit.idle())
    for route in host.routes:
        if route.typed_per_filter_config.get(local_rate_limit.LOCAL_RATE_LIMIT) == no_limit:
            route.typed_per_filter_config[rate_limit_quota.RATE_LIMIT_QUOTA].CopyFrom(rate_limit_quota.uncounted())


def _spend_from_quotas(result: protos.route_components.Route, route: Route, config: GatewayConfig) -> None:
    del result.route.rate_limits[:]  # the service is not asked
    if rate_limit_quota.has_own_counter(route):
        result.typed_per_filter_config[local_rate_limit.LOCAL_RATE_LIMIT].CopyFrom(
            local_rate_limit.of_route(route, config)
        )


def authz_context(route: Route) -> dict[str, str]:
    """What the authz service is told of this route; see docs/agreements.md."""
    asked = {
        "tiers": ",".join(route.tiers),
        "scopes": " ".join(route.scopes),
        "claims": json.dumps(route.claims, sort_keys=True) if route.claims else "",
        "providers": ",".join(route.providers),
    }
    return {"route": route.name, "auth": route.auth} | {key: value for key, value in asked.items() if value}


def _metadata(service: Service) -> protos.base.Metadata:
    """What error responses and the log need to know of the service."""
    values: dict[str, object] = {
        Key.SERVICE: service.name,
        Key.RETRY_AFTER: str(math.ceil(service.breaker.open_seconds)),
    }
    return protos.base.Metadata(filter_metadata={Namespace.GATEWAY: protos.struct(values)})


def _method_matcher(methods: Sequence[Method]) -> protos.route_components.HeaderMatcher:
    every = sorted(with_head(methods))
    if len(every) == 1:
        value = protos.string_matcher.StringMatcher(exact=every[0])
    else:
        value = protos.string_matcher.StringMatcher(safe_regex=protos.regex_matcher.RegexMatcher(regex="|".join(every)))
    return protos.route_components.HeaderMatcher(name=":method", string_match=value)


class Rejection(Enum):
    """A request that no service gets, by the status that Envoy sends for a cluster that does not exist.

    Why not a direct response: the CORS filter ignores requests whose route has no cluster, so a browser could not read
    the error, and a preflight would be rejected itself. `local_replies` turns the status into the right one.
    """

    BAD_REQUEST = RouteAction.SERVICE_UNAVAILABLE
    NOT_FOUND = RouteAction.NOT_FOUND
    METHOD_NOT_ALLOWED = RouteAction.INTERNAL_SERVER_ERROR


def _rejection(kind: Rejection, name: str, match: RouteMatch, allow: str = "") -> protos.route_components.Route:
    """A route that nobody is asked about and that costs nothing."""
    result = protos.route_components.Route(
        name=name,
        match=match,
        route=RouteAction(cluster=NO_CLUSTER, cluster_not_found_response_code=kind.value),
        metadata=protos.base.Metadata(filter_metadata={Namespace.GATEWAY: protos.struct({Key.ALLOW: allow})}),
    )
    _ask_nobody(result)
    return result


def _ask_nobody(route: protos.route_components.Route) -> None:
    route.typed_per_filter_config[bodies.BODY].CopyFrom(bodies.of_no_service())
    route.typed_per_filter_config[filters.EXT_AUTHZ].CopyFrom(filters.no_authz())
    route.typed_per_filter_config[local_rate_limit.LOCAL_RATE_LIMIT].CopyFrom(protos.any_of(local_rate_limit.idle()))


def _method_not_allowed(template: str, shape: str, allow: str) -> protos.route_components.Route:
    return _rejection(Rejection.METHOD_NOT_ALLOWED, f"mgw-method-not-allowed {shape}", _matcher(template), allow)


def _health_routes() -> Iterator[protos.route_components.Route]:
    """The gateway's own health. Envoy alone decides on live. For ready, authz has to be there to check the request."""
    get = _method_matcher(["GET"])
    yield _live(RouteMatch(path="/health/live", headers=[get]))
    for name, path in (("health-ready", "/health/ready"), ("health", "/health")):
        action = RouteAction(cluster=HEALTH_CLUSTER, timeout=protos.duration(HEALTH_TIMEOUT_SECONDS))
        action.retry_policy.CopyFrom(protos.route_components.RetryPolicy(retry_on="connect-failure"))
        result = protos.route_components.Route(
            name=name, match=RouteMatch(path=path, headers=[get]), route=action, metadata=_own_metadata()
        )
        check = name == "health-ready"
        result.typed_per_filter_config[filters.EXT_AUTHZ].CopyFrom(
            filters.authz_policy({"route": name, "auth": "optional"}) if check else filters.no_authz()
        )
        result.typed_per_filter_config[local_rate_limit.LOCAL_RATE_LIMIT].CopyFrom(
            protos.any_of(local_rate_limit.idle())
        )
        yield result
    for path in ("/health", "/health/live", "/health/ready"):
        yield _method_not_allowed(path, path, "GET, HEAD")


def _own_metadata() -> protos.base.Metadata:
    own = protos.struct({Key.SERVICE: "gateway", Key.RETRY_AFTER: "1"})
    return protos.base.Metadata(filter_metadata={Namespace.GATEWAY: own})


def _live(match: RouteMatch) -> protos.route_components.Route:
    result = protos.route_components.Route(
        name="health-live",
        match=match,
        direct_response=protos.route_components.DirectResponseAction(
            status=200, body=protos.base.DataSource(inline_string='{"status":"alive"}')
        ),
        response_headers_to_add=[mutations.option("content-type", "application/json")],
    )
    _ask_nobody(result)
    return result
