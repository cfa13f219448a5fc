"""The HTTP filter chain: what every request passes, in which order, and why in that order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from google.protobuf.message import Message

from controlplane import protos
from controlplane.config.model import Auth, GatewayConfig, SecurityHeaders
from controlplane.topology import AUTHZ_CLUSTER, RATELIMIT_CLUSTER
from controlplane.translate import (
    bodies,
    client_addresses,
    filter_matcher,
    forwarded_for,
    jwt_authn,
    leases,
    local_rate_limit,
    lua_filter,
    rate_limit_quota,
    rejections,
)
from controlplane.translate.formats import first_of, valid_id
from controlplane.translate.headers import Header, Key, Mark, Namespace, ResponseHeader
from controlplane.translate.jwt_authn import EnvoyKeys
from controlplane.translate.mutations import Action, remove, write

HttpFilter = protos.hcm.HttpFilter
Actions = protos.route_components.RateLimit.Action

REQUEST_FILTER: str = Namespace.SCRIPT
VERIFIER = "mgw.verifier"
CLIENT_IDS = "mgw.client_ids"
HEADERS = "envoy.filters.http.header_mutation"
CORS = "envoy.filters.http.cors"
FAULT = "envoy.filters.http.fault"
EXT_AUTHZ: str = Namespace.AUTHZ
RATE_LIMIT: str = Namespace.RATE_LIMIT
ROUTER = "envoy.filters.http.router"

DOMAIN = "mgw"
AUTHZ_TIMEOUT_SECONDS = 0.2
"""With the connect timeout this keeps the 503 for a dead authz service under 250 ms."""
RATELIMIT_TIMEOUT_SECONDS = 0.1


HOP_BY_HOP = (
    *("te", "trailer", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"),
    "http2-settings",
)
"""The hop-by-hop headers that Envoy would forward (RFC 9110, section 7.6.1; RFC 2616, section 13.5.1; RFC 7540, section
3.2.1)."""


def http_filters(config: GatewayConfig, keys: EnvoyKeys) -> list[protos.hcm.HttpFilter]:
    """The chain. A request goes down this list, its response comes back up."""
    return [
        # Gives every request one path and valid ids, so that all filters below see the same request.
        http_filter(REQUEST_FILTER, _script(lua_filter.request_filter(config))),
        # On the way back up this is the last but one, so the ids are on every response, our own errors included.
        http_filter(HEADERS, _headers(config.security_headers, forwarded_for.last_hop(config.listener))),
        # Before authz: a preflight carries no token. Before all that rejects: a browser reads no error without CORS
        # headers.
        http_filter(CORS, protos.cors_filter.Cors()),
        # Ends what the request filter rejects. After CORS, so that a browser can read the error.
        http_filter(FAULT, rejections.reject()),
        # Before anybody is asked who calls from there.
        http_filter(client_addresses.RBAC, client_addresses.rbac()),
        # Before the limiter: the limit depends on the caller.
        http_filter(EXT_AUTHZ, _identity(config, keys)),
        # After authz, whose metadata says whom to charge.
        *_limiter(config),
        # After all that decide on the headers: nothing of a refused request's body is kept or counted.
        http_filter(bodies.BODY, bodies.body()),
        http_filter(ROUTER, protos.router_filter.Router(suppress_envoy_headers=True)),
    ]


def health_filters(config: GatewayConfig) -> list[protos.hcm.HttpFilter]:
    """The chain of the listener for health: ids, headers, authz for `/health/ready`, and the router."""
    return [
        http_filter(CLIENT_IDS, _ids_of_client()),
        http_filter(HEADERS, _headers(config.security_headers, forwarded_for.last_hop(config.listener))),
        http_filter(EXT_AUTHZ, _ext_authz(config.auth)),
        http_filter(ROUTER, protos.router_filter.Router(suppress_envoy_headers=True)),
    ]


def _identity(config: GatewayConfig, keys: EnvoyKeys) -> Message:
    """Who finds out who calls. Nobody if the request filter knows the caller; else authz, and before it Envoy's own
    verifier if it may have the key. The verifier only ever allows, so every denial is authz's."""
    authz = _ext_authz(config.auth)
    unless_known = filter_matcher.unless(Header.IDENTITY, Mark.KNOWN, EXT_AUTHZ, authz)
    verifier = jwt_authn.jwt_authn(config, keys) if jwt_authn.is_used(config) else None
    if verifier is None:
        return unless_known
    in_turn = [
        (jwt_authn.JWT_AUTHN, verifier),
        (VERIFIER, _script(lua_filter.verifier(config, keys))),
        (EXT_AUTHZ, unless_known),
    ]
    cases: dict[str, filter_matcher.Action] = {
        Mark.KNOWN: filter_matcher.skip(),
        Mark.UNVERIFIED: filter_matcher.made_in_turn(in_turn),
    }
    return filter_matcher.switch(Header.IDENTITY, cases, filter_matcher.made(EXT_AUTHZ, authz))


def _limiter(config: GatewayConfig) -> list[protos.hcm.HttpFilter]:
    """Who enforces the limits, and the local fallback limit."""
    fallback = http_filter(local_rate_limit.LOCAL_RATE_LIMIT, local_rate_limit.idle())
    if not rate_limit_quota.is_used(config):
        # After the service: it applies to what the service did not decide.
        unless_prepaid = filter_matcher.unless(Header.PREPAID, Mark.PREPAID, RATE_LIMIT, _rate_limit())
        return [http_filter(RATE_LIMIT, unless_prepaid), fallback]
    # Before the quotas: what it rejects is not taken from them.
    return [fallback, http_filter(rate_limit_quota.RATE_LIMIT_QUOTA, rate_limit_quota.rate_limit_quota(config))]


def http_filter(name: str, message: Message) -> protos.hcm.HttpFilter:
    """A filter under the name that its settings of a route and its metadata use."""
    return HttpFilter(name=name, typed_config=protos.any_of(message))


def _script(source: str) -> Message:
    return protos.lua_filter.Lua(
        default_source_code=protos.base.DataSource(inline_string=source),
        # A script clears it itself if it changed the path. Matching every request twice would be wasted.
        clear_route_cache=protos.boolean(False),
    )


def _headers(security: SecurityHeaders, last_hop: str) -> Message:
    """To the upstream: the client's address, nothing of Envoy's own. To the client: the ids and security headers."""
    response = [
        # An error of Envoy's has an id that is valid whatever failed; see `local_replies`.
        write(Header.REQUEST_ID, _error_id_or(Header.REQUEST_ID)),
        # The router has removed an upstream's.
        write(Header.CORRELATION_ID, _error_id_or(Header.CORRELATION_ID), Action.ADD_IF_ABSENT),
        remove(ResponseHeader.ERROR_ID),
        *(remove(name) for name in HOP_BY_HOP),
    ]
    if security.enabled:
        response += [write(name, value, Action.ADD_IF_ABSENT) for name, value in _security_headers(security).items()]
    return protos.header_mutation.HeaderMutation(
        mutations=protos.header_mutation.Mutations(
            request_mutations=[
                write(Header.FORWARDED_FOR, last_hop, Action.APPEND_IF_EXISTS_OR_ADD),
                remove("x-envoy-external-address"),
                write(Header.CORRELATION_ID, "%REQ(X-REQUEST-ID)%", Action.ADD_IF_ABSENT),
            ],
            response_mutations=response,
        )
    )


def _error_id_or(header: str) -> str:
    return first_of(("RESP", ResponseHeader.ERROR_ID), ("REQ", header))


def _ids_of_client() -> Message:
    """What `lua/request_ids.lua` does, where there is no script: the client's ids if they are valid."""
    client = remove(Header.CLIENT_REQUEST_ID)
    return protos.header_mutation.HeaderMutation(
        mutations=protos.header_mutation.Mutations(
            request_mutations=[
                write(Header.REQUEST_ID, first_of(valid_id(Header.CLIENT_REQUEST_ID))),
                client,
                write(Header.CORRELATION_ID, first_of(valid_id(Header.CORRELATION_ID), ("REQ", Header.REQUEST_ID))),
            ]
        )
    )


def _security_headers(security: SecurityHeaders) -> dict[str, str]:
    headers = {"x-content-type-options": "nosniff"}
    if security.frame_options:
        headers["x-frame-options"] = security.frame_options
    if security.referrer_policy:
        headers["referrer-policy"] = security.referrer_policy
    return headers


def _grpc(cluster: str, timeout_seconds: float) -> protos.grpc_service.GrpcService:
    return protos.grpc_service.GrpcService(
        envoy_grpc=protos.grpc_service.GrpcService.EnvoyGrpc(cluster_name=cluster),
        timeout=protos.duration(timeout_seconds),
    )


def _ext_authz(auth: Auth) -> Message:
    """Fails closed with 503: clients take a 403 as final. Only credentials are sent, and whose an API key is."""
    read = ("authorization", auth.api_key_header, Header.ADDRESS)
    return protos.ext_authz.ExtAuthz(
        grpc_service=_grpc(AUTHZ_CLUSTER, AUTHZ_TIMEOUT_SECONDS),
        transport_api_version=protos.config_source.ApiVersion.V3,
        failure_mode_allow=False,
        status_on_error=protos.http_status.HttpStatus(code=protos.http_status.StatusCode.ServiceUnavailable),
        allowed_headers=protos.string_matcher.ListStringMatcher(
            patterns=[protos.string_matcher.StringMatcher(exact=name) for name in read]
        ),
    )


def authz_policy(context: Mapping[str, str]) -> protos.Any:
    """A route's own policy, for the authz service to read."""
    settings = protos.ext_authz.CheckSettings(context_extensions=context)
    return protos.any_of(protos.ext_authz.ExtAuthzPerRoute(check_settings=settings))


@cache
def no_authz() -> protos.Any:
    """The authz service is not asked."""
    return protos.any_of(protos.ext_authz.ExtAuthzPerRoute(disabled=True))


def _rate_limit() -> Message:
    """Fails open: the service itself handles a store that fails, and a service that is gone must not stop traffic."""
    return protos.ratelimit_filter.RateLimit(
        domain=DOMAIN,
        timeout=protos.duration(RATELIMIT_TIMEOUT_SECONDS),
        failure_mode_deny=False,
        disable_x_envoy_ratelimited_header=True,
        rate_limit_service=protos.rls_config.RateLimitServiceConfig(
            grpc_service=_grpc(RATELIMIT_CLUSTER, RATELIMIT_TIMEOUT_SECONDS),
            transport_api_version=protos.config_source.ApiVersion.V3,
        ),
    )


def rate_limit_actions(route: str, lease: str = leases.ASKED[1]) -> protos.route_components.RateLimit:
    """One descriptor a request. An action without a value would drop all of it, so each has a default."""
    return protos.route_components.RateLimit(
        actions=[
            leases.asked(lease),
            Actions(generic_key=Actions.GenericKey(descriptor_key="route", descriptor_value=route)),
            Actions(metadata=_from_authz(Key.TIER, "anonymous")),
            Actions(metadata=_from_authz(Key.CALLER, "-")),
            Actions(remote_address=Actions.RemoteAddress()),
            leases.report(),
        ]
    )


def post_charge(asked: protos.route_components.RateLimit, late_hits: Sequence[str]) -> protos.Any:
    """The route's descriptor before the request, and again for each of the formats when the stream is done, with what
    it says of the response as its hits.

    Where a format gives no number its descriptor is not sent. Envoy 1.40 reads hits from the filter's own settings of
    a route only.
    """
    rate_limits = [asked]
    for hits in late_hits:
        post = protos.route_components.RateLimit(actions=asked.actions, apply_on_stream_done=True)
        post.actions.append(Actions(generic_key=Actions.GenericKey(descriptor_key="charge", descriptor_value="late")))
        post.hits_addend.format = hits
        rate_limits.append(post)
    return protos.any_of(protos.ratelimit_filter.RateLimitPerRoute(rate_limits=rate_limits))


def _from_authz(key: str, default: str) -> Actions.MetaData:
    segment = protos.metadata_key.MetadataKey.PathSegment(key=key)
    return Actions.MetaData(
        descriptor_key=key,
        metadata_key=protos.metadata_key.MetadataKey(key=EXT_AUTHZ, path=[segment]),
        default_value=default,
        source=Actions.MetaData.DYNAMIC,
    )
