"""The HTTP filter chain: what every request passes, in which order, and why in that order."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from google.protobuf.message import Message

from controlplane import protos
from controlplane.config.model import Auth, Cors, GatewayConfig, SecurityHeaders
from controlplane.topology import AUTHZ_CLUSTER, RATELIMIT_CLUSTER
from controlplane.translate import filter_matcher, jwt_authn, leases, local_rate_limit, lua_filter, rate_limit_quota
from controlplane.translate.jwt_authn import EnvoyKeys

HttpFilter = protos.hcm.HttpFilter
HeaderMutation = protos.mutation_rules.HeaderMutation
HeaderValueOption = protos.base.HeaderValueOption
Actions = protos.route_components.RateLimit.Action

FRONT = "envoy.filters.http.lua"
VERIFIER = "mgw.verifier"
HEADERS = "envoy.filters.http.header_mutation"
CORS = "envoy.filters.http.cors"
REFUSALS = "envoy.filters.http.fault"
EXT_AUTHZ = "envoy.filters.http.ext_authz"
BODY_LIMIT = "envoy.filters.http.body_size_limit"
BUFFER = "envoy.filters.http.buffer"
RATE_LIMIT = "envoy.filters.http.ratelimit"
ROUTER = "envoy.filters.http.router"

DOMAIN = "mgw"
AUTHZ_TIMEOUT_SECONDS = 0.2
"""With the connect time-out this keeps the refusal of a dead authz service under 250 ms."""
RATELIMIT_TIMEOUT_SECONDS = 0.1

IDENTITY, SETTLED, UNVERIFIED = "x-mgw-identity", "settled", "unverified"
"""The front door's word on the caller: authz is not asked; or there is a token that Envoy may be able to verify."""
INTERNAL_HEADERS = (
    IDENTITY,
    rate_limit_quota.CALLER,
    rate_limit_quota.COUNTER,
    leases.LEASED,
    leases.REPORT,
    leases.REFUSED,
)
"""Request headers for the chain alone, which go before the upstream. `early_mutations` takes a client's own away."""

EXPOSED_HEADERS = "X-Request-ID,X-Correlation-ID,X-RateLimit-Limit,X-RateLimit-Remaining,X-RateLimit-Reset,Retry-After"

RESERVED_REQUEST_HEADERS = r"x[-_]user[-_](id|tier)|x[-_]mgw[-_].*|x[-_]gateway[-_].*|x[-_]envoy[-_].*"
"""Names whose value is ours. Upstreams often read `_` as `-`, so both spellings go."""

HOP_BY_HOP = ("te", "trailer", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization")
"""RFC 9110, section 7.6.1, and RFC 2616, section 13.5.1: what Envoy would pass on of them. It sees to Connection."""


def http_filters(config: GatewayConfig, keys: EnvoyKeys) -> list[protos.hcm.HttpFilter]:
    """The chain. A request goes down this list, its answer comes back up it."""
    default = config.listener.max_request_bytes
    largest = max([default, *(route.max_request_bytes or 0 for route in config.routes)])
    return [
        # Gives every request one path and valid ids, so that all below speak of the same request.
        http_filter(FRONT, _script(lua_filter.front_door(config))),
        # On the way back up this is the last but one, so the ids are on every answer, our own refusals included.
        http_filter(HEADERS, _headers(config.security_headers)),
        # Before authz: a preflight carries no token. Before all that refuses: a refusal needs CORS headers to be read.
        http_filter(CORS, protos.cors_filter.Cors()),
        # After CORS, so that a browser can read the refusal.
        *([http_filter(REFUSALS, leases.refuse())] if leases.are_used(config) else []),
        # Refuses a body that is too large: by its Content-Length at once, else at the byte that exceeds the limit. It
        # knows no routes, so it has the largest limit of all, and the buffer the route's own.
        http_filter(BODY_LIMIT, protos.body_size_limit.BodySizeLimit(max_request_bytes=protos.uint64(largest))),
        # Holds the body until it is whole, so that a refused one costs nothing and no upstream sees half of it. Before
        # authz: behind a filter that waits for an answer it would be handed the whole body unchecked.
        http_filter(BUFFER, protos.buffer_filter.Buffer(max_request_bytes=protos.uint32(default))),
        # Before the limiter: who it is decides what the limit is.
        http_filter(EXT_AUTHZ, _identity(config, keys)),
        # After authz, whose metadata says whom to charge.
        *_limiter(config),
        http_filter(ROUTER, protos.router_filter.Router(suppress_envoy_headers=True)),
    ]


def _identity(config: GatewayConfig, keys: EnvoyKeys) -> Message:
    """Whoever finds out who calls: nobody where the front door knows; else authz, and before it Envoy's own verifier
    where it may have the key. That one only ever says yes, so nobody is refused but by authz."""
    authz = _ext_authz(config.auth)
    unless_settled = filter_matcher.unless(IDENTITY, SETTLED, EXT_AUTHZ, authz)
    verifier = jwt_authn.jwt_authn(config, keys) if jwt_authn.is_used(config) else None
    if verifier is None:
        return unless_settled
    in_turn = [
        (jwt_authn.JWT_AUTHN, verifier),
        (VERIFIER, _script(lua_filter.verifier(config, keys))),
        (EXT_AUTHZ, unless_settled),
    ]
    cases = {SETTLED: filter_matcher.skip(), UNVERIFIED: filter_matcher.made_in_turn(in_turn)}
    return filter_matcher.switch(IDENTITY, cases, filter_matcher.made(EXT_AUTHZ, authz))


def _limiter(config: GatewayConfig) -> list[protos.hcm.HttpFilter]:
    """Whoever enforces the limits, and the ceiling."""
    over = http_filter(local_rate_limit.LOCAL_RATE_LIMIT, local_rate_limit.idle())
    if not rate_limit_quota.is_used(config):
        # The ceiling comes after the service, for what it did not answer.
        unless_covered = filter_matcher.unless(leases.LEASED, leases.COVERED, RATE_LIMIT, _rate_limit())
        return [http_filter(RATE_LIMIT, unless_covered), over]
    # The ceiling comes before the quotas: what it refuses is not taken from them.
    return [over, http_filter(rate_limit_quota.RATE_LIMIT_QUOTA, rate_limit_quota.rate_limit_quota(config))]


def http_filter(name: str, message: Message) -> protos.hcm.HttpFilter:
    """A filter under the name that its per-route settings and metadata use."""
    return HttpFilter(name=name, typed_config=protos.any_of(message))


def _script(source: str) -> Message:
    return protos.lua_filter.Lua(
        default_source_code=protos.base.DataSource(inline_string=source),
        # A script says itself when the path changed; matching every request twice would cost for nothing.
        clear_route_cache=protos.boolean(False),
    )


def _set(name: str, value: str, *, only_if_absent: bool = False) -> HeaderMutation:
    action = HeaderValueOption.ADD_IF_ABSENT if only_if_absent else HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return HeaderMutation(
        append=HeaderValueOption(header=protos.base.HeaderValue(key=name, value=value), append_action=action)
    )


def early_mutations() -> list[HeaderMutation]:
    """What happens to a request's headers before routing: reserved names go, a client's request id steps aside.

    Envoy makes an id of its own for every request; the front door puts the client's back if it is a valid one.
    """
    reserved = protos.string_matcher.StringMatcher(
        safe_regex=protos.regex_matcher.RegexMatcher(regex=RESERVED_REQUEST_HEADERS)
    )
    return [
        HeaderMutation(remove_on_match=HeaderMutation.RemoveOnMatch(key_matcher=reserved)),
        _set("x-mgw-client-request-id", "%REQ(X-REQUEST-ID)%"),
        HeaderMutation(remove="x-request-id"),
        *(HeaderMutation(remove=name) for name in HOP_BY_HOP),
    ]


def _headers(security: SecurityHeaders) -> Message:
    """To the upstream: where the request came from, and nothing of Envoy's own. To the client: ids and caution."""
    client = protos.base.HeaderValue(key="x-forwarded-for", value="%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%")
    appended = HeaderValueOption(header=client, append_action=HeaderValueOption.APPEND_IF_EXISTS_OR_ADD)
    answer = [
        _set("x-request-id", "%REQ(X-REQUEST-ID)%"),
        _set("x-correlation-id", "%REQ(X-CORRELATION-ID)%"),
        # A request too malformed to have ids gets one with its refusal; see `answers`.
        _set("x-correlation-id", "%RESP(X-REQUEST-ID)%", only_if_absent=True),
        *(HeaderMutation(remove=name) for name in HOP_BY_HOP),
    ]
    if security.enabled:
        answer += [_set(name, value, only_if_absent=True) for name, value in _security_headers(security).items()]
    return protos.header_mutation.HeaderMutation(
        mutations=protos.header_mutation.Mutations(
            request_mutations=[
                HeaderMutation(append=appended),
                HeaderMutation(remove="x-envoy-external-address"),
                _set("x-correlation-id", "%REQ(X-REQUEST-ID)%", only_if_absent=True),
            ],
            response_mutations=answer,
        )
    )


def _security_headers(security: SecurityHeaders) -> dict[str, str]:
    headers = {"x-content-type-options": "nosniff"}
    if security.frame_options:
        headers["x-frame-options"] = security.frame_options
    if security.referrer_policy:
        headers["referrer-policy"] = security.referrer_policy
    return headers


def cors_policy(cors: Cors) -> Message:
    """The policy of all routes. Without origins the filter adds nothing."""
    any_origin = "*" in cors.allow_origins
    origins = (
        [protos.string_matcher.StringMatcher(safe_regex=protos.regex_matcher.RegexMatcher(regex=".*"))]
        if any_origin
        else [protos.string_matcher.StringMatcher(exact=origin) for origin in cors.allow_origins]
    )
    return protos.cors_filter.CorsPolicy(
        allow_origin_string_match=origins,
        allow_methods=",".join(cors.allow_methods),
        allow_headers=",".join(cors.allow_headers),
        expose_headers=EXPOSED_HEADERS,
        max_age=str(cors.max_age_seconds),
        allow_credentials=protos.boolean(cors.allow_credentials and not any_origin),
    )


def _grpc(cluster: str, timeout_seconds: float) -> protos.grpc_service.GrpcService:
    return protos.grpc_service.GrpcService(
        envoy_grpc=protos.grpc_service.GrpcService.EnvoyGrpc(cluster_name=cluster),
        timeout=protos.duration(timeout_seconds),
    )


def _ext_authz(auth: Auth) -> Message:
    """Fail closed, with 503: a client takes 403 as final. Only the headers that carry credentials are sent."""
    credentials = ("authorization", auth.api_key_header)
    return protos.ext_authz.ExtAuthz(
        grpc_service=_grpc(AUTHZ_CLUSTER, AUTHZ_TIMEOUT_SECONDS),
        transport_api_version=protos.config_source.ApiVersion.V3,
        failure_mode_allow=False,
        status_on_error=protos.http_status.HttpStatus(code=protos.http_status.StatusCode.ServiceUnavailable),
        allowed_headers=protos.string_matcher.ListStringMatcher(
            patterns=[protos.string_matcher.StringMatcher(exact=name) for name in credentials]
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


def body_limit(max_bytes: int) -> protos.Any:
    """A route's own largest body. On HTTP/2 its last frame (16 KiB) may exceed it: Envoy does not count that one."""
    buffer = protos.buffer_filter.Buffer(max_request_bytes=protos.uint32(max_bytes))
    return protos.any_of(protos.buffer_filter.BufferPerRoute(buffer=buffer))


def _rate_limit() -> Message:
    """Fail open: the service itself handles a store that fails; a service that is gone must not stop traffic."""
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
    """One descriptor a request, always whole: an action without a value would drop all of it, so each has a default."""
    return protos.route_components.RateLimit(
        actions=[
            leases.asked(lease),
            Actions(generic_key=Actions.GenericKey(descriptor_key="route", descriptor_value=route)),
            Actions(metadata=_from_authz("tier", "anonymous")),
            Actions(metadata=_from_authz("caller", "-")),
            Actions(remote_address=Actions.RemoteAddress()),
            leases.report(),
        ]
    )


def late_charge(asked: protos.route_components.RateLimit, header: str) -> protos.Any:
    """The descriptor that is asked about, and once more when the stream is done, with the answer's header as its hits.

    Without a number there nothing is told. Envoy 1.40 reads hits only from the filter's own settings of the route.
    """
    late = protos.route_components.RateLimit(actions=asked.actions, apply_on_stream_done=True)
    late.actions.append(Actions(generic_key=Actions.GenericKey(descriptor_key="charge", descriptor_value="late")))
    late.hits_addend.format = f"%RESP({header})%"
    return protos.any_of(protos.ratelimit_filter.RateLimitPerRoute(rate_limits=[asked, late]))


def _from_authz(key: str, default: str) -> Actions.MetaData:
    segment = protos.metadata_key.MetadataKey.PathSegment(key=key)
    return Actions.MetaData(
        descriptor_key=key,
        metadata_key=protos.metadata_key.MetadataKey(key=EXT_AUTHZ, path=[segment]),
        default_value=default,
        source=Actions.MetaData.DYNAMIC,
    )
