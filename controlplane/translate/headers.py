"""Names by which the gateway's parts tell each other about a request inside Envoy.

Each name is written here and nowhere else in this package. The scripts get the same names as constants (`for_lua`), so
a name cannot be changed on one side only. What the two services set or read is agreed in docs/agreements.md.

A client can send none of the request headers: every name that begins with `x-mgw-`, and the three of the user, are
removed in any spelling before anything looks at the request (`early_headers.mutations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Header(StrEnum):
    """Request headers that the gateway sets."""

    CLIENT_REQUEST_ID = "x-mgw-client-request-id"
    """The client's own X-Request-ID, out of the way while Envoy makes one.
    Set: early header mutation. Read and removed: request_filter.lua."""

    BAD_REQUEST = "x-mgw-bad-request"
    """The path is malformed or hides something; the value is `Mark.PATH`.
    Set: request_filter.lua. Read: the first route and the local reply, which make it a 400. Reaches no upstream."""

    FORWARDED_FOR_KEPT = "x-mgw-xff"
    """The client's X-Forwarded-For, out of the way while all that begins with `x-forwarded-` is removed.
    Set, read and removed: early header mutation."""

    UNFIT = "x-mgw-unfit"
    """What is wrong with the header fields as a whole: `Mark.FIELDS` or `Mark.PATH`; usually absent.
    Set: early header mutation. Read: request_filter.lua, which rejects the request. Reaches no upstream."""

    REJECTED = "x-mgw-rejected"
    """Why the request filter ends the request: `Mark.NO_TOKEN`, `BODY`, `FIELDS` or `OVER_LIMIT`.
    Set: the scripts. Read: the condition of the fault filter, the local replies. Reaches no upstream."""

    ABORT = "x-envoy-fault-abort-request"
    """The status that a request with `REJECTED` ends with.
    Set: the scripts. Read: the fault filter (Envoy's own name). Reaches no upstream."""

    IDENTITY = "x-mgw-identity"
    """What the scripts know of the caller: `Mark.KNOWN` or `Mark.UNVERIFIED`; absent if authz has to be asked.
    Set: request_filter.lua, verify.lua. Read: the conditions of ext_authz and jwt_authn. Removed: router."""

    CALLER = "x-mgw-caller"
    """Who is charged, `TIER PROVIDER/SUBJECT`; absent for an anonymous caller.
    Set: authz, and the scripts in quota mode. Read: rate_limit_quota, the local rate limit. Removed: router."""

    ADDRESS = "x-mgw-address"
    """The client's address after trusted hops, on a request with an API key: ext_authz itself tells authz of the
    connection's alone. Set: request_filter.lua. Read: authz. Removed: router."""

    NETWORK = "x-mgw-network"
    """Who the caller is if nobody verifies it: the first address of its network. Absent if the scripts know the caller.
    Set: request_filter.lua. Read: rate_limit_quota, the local rate limit. Removed: router."""

    COUNTER = "x-mgw-counter"
    """The route, if it has limits of its own; in quota mode only.
    Set: request_filter.lua. Read: rate_limit_quota. Removed: router."""

    PREPAID = "x-mgw-prepaid"
    """`Mark.PREPAID`: a lease pays for the request, so the rate-limit service is not asked.
    Set: leases.lua. Read: the condition of ratelimit, the local rate limit. Removed: router."""

    LEASE_REPORT = "x-mgw-lease-report"
    """What this worker spent of its last leases, and whether it wants another.
    Set: leases.lua. Read: ratelimit, as the descriptor's entry `lease`. Removed: router."""

    OVER_LIMIT = "x-mgw-over-limit"
    """The caller is over its limit, and a request would pass after this many seconds.
    Set: leases.lua. Read: the local reply with 429. Reaches no upstream."""

    USER_ID = "x-user-id"
    """The verified caller's subject. Set: authz and the scripts. Read: upstreams, the access log."""

    USER_TIER = "x-user-tier"
    """The verified caller's tier. Set: authz and the scripts. Read: upstreams, the access log, the local rate limit."""

    USER_ISSUER = "x-user-issuer"
    """Who vouches for the caller: the provider's name, or `apikey`. Set: authz and the scripts. Read: upstreams, the
    access log."""

    REQUEST_ID = "x-request-id"
    """The client's if it is a valid id, else Envoy's. Read: upstreams, clients, the access log."""

    CORRELATION_ID = "x-correlation-id"
    """The client's if it is a valid id, else the request id. Read: upstreams, clients, the access log."""

    FORWARDED_FOR = "x-forwarded-for"
    """Every address on the way: what was there, and the connection's. Set: header_mutation. Read: Envoy, upstreams."""

    FORWARDED_PROTO = "x-forwarded-proto"
    """`http` or `https`. Set: Envoy, and forwarded.lua where a trusted hop said neither. Read: upstreams."""


REMOVED_BEFORE_UPSTREAM = (
    Header.IDENTITY,
    Header.CALLER,
    Header.ADDRESS,
    Header.NETWORK,
    Header.COUNTER,
    Header.PREPAID,
    Header.LEASE_REPORT,
)
"""What the router removes. `CLIENT_REQUEST_ID` is gone by then, and no rejected request gets so far."""


RESERVED_PREFIXES = ("x-mgw-", "x-gateway-", "x-envoy-")
"""No client's header begins so. The three of the user are reserved by name."""


class ResponseHeader(StrEnum):
    """Response headers that the gateway sets. An upstream's own copies are removed."""

    ERROR = "x-gateway-error"
    """The code of an error that the gateway made. Set: authz, ratelimit, local replies. Read: clients, the log."""

    ERROR_ID = "x-mgw-error-id"
    """A valid request id. Set: local replies. Read and removed: header_mutation, which gives the response its ids."""

    LIMIT = "x-ratelimit-limit"
    REMAINING = "x-ratelimit-remaining"
    RESET = "x-ratelimit-reset"
    STATE = "ratelimit"
    POLICY = "ratelimit-policy"
    """Set: ratelimit; leases.lua for a request that it decided. Read: clients; leases.lua, when it takes a lease."""


class Mark(StrEnum):
    """Values of the headers above."""

    KNOWN = "known"
    UNVERIFIED = "unverified"
    PREPAID = "1"
    PATH = "path"
    NO_TOKEN = "no_token"
    BODY = "body"
    FIELDS = "fields"
    OVER_LIMIT = "over_limit"


class Namespace(StrEnum):
    """Namespaces of metadata. Envoy keeps a filter's dynamic metadata under the filter's name."""

    GATEWAY = "mgw"
    """Our own: of routes, of the listener, and of a request (set by the scripts)."""

    SCRIPT = "envoy.filters.http.lua"
    """Of routes: what the scripts read."""

    AUTHZ = "envoy.filters.http.ext_authz"
    """Of a request: what authz said of the caller, or the scripts in its place."""

    RATE_LIMIT = "envoy.filters.http.ratelimit"
    """Of a request: what the rate-limit service decided, or leases.lua in its place."""

    JWT_AUTHN = "envoy.filters.http.jwt_authn"
    """Of a request: one entry, named for the provider whose key verified the token."""


class Key(StrEnum):
    """Keys of metadata."""

    # mgw, of a request
    PATH = "path"
    """The path without what may be a token. Set: request_filter.lua, if it has any. Read: the access log."""
    QUERY = "query"
    """The query without what may be a token. Set: request_filter.lua. Read: the access log."""
    UNREAD = "forwarded_for_unread"
    """A trusted hop's X-Forwarded-For names no client. Set: forwarded.lua. Read: the counter in `forwarded_for`."""
    IN_FLIGHT = "in_flight"
    """What in_flight.lua keeps for the response is found by this number. Set and read: in_flight.lua."""

    # mgw, of a route
    SERVICE = "service"
    """The route's service. Read: local replies, the access log."""
    RETRY_AFTER = "retry_after"
    """Seconds until an open breaker is worth another try. Read: local replies."""
    ALLOW = "allow"
    """The methods that a path has. Read: the local reply with 405."""

    # mgw, of the listener
    ANONYMOUS = "anonymous"
    """The word for nobody: a log format cannot hold text. Read: the access log."""

    # envoy.filters.http.lua, of a route
    SETTINGS = "settings"
    """Lines of NAME=VALUE; see `Setting`. Read: route_settings.lua."""

    # envoy.filters.http.ext_authz
    SUBJECT = "subject"
    TIER = "tier"
    """Set: authz, for a refused caller too; the scripts in its place. Read: ratelimit, the access log."""
    CALLER = "caller"
    """Set: authz; the scripts in its place. Read: decision_cache.lua, ratelimit, the local rate limit."""
    PROVIDER = "provider"
    """Who vouches for a caller that is refused. Set: authz. Read: the access log."""
    REASON = "reason"
    """Why the request is refused with 401 or 403. Set: authz; request_filter.lua in its place. Read: the access log."""
    MISSING = "missing"
    """The scopes, or the names of the claims, that a verified caller lacks. Set: authz. Read: the access log."""
    UNTIL = "until"
    EPOCH = "epoch"
    """How long, and under which policy, the decision may be kept. Set: authz, verify.lua. Read: decision_cache.lua."""

    # envoy.filters.http.ratelimit
    DECIDED = "decided"
    """The service decided: the local fallback limit does not apply. Set: ratelimit. Read: the local rate limit."""
    RULE = "rule"
    """The rule that was exceeded. Set: ratelimit, leases.lua. Read: the access log."""
    SHADOW = "shadow"
    """The rules that would have been exceeded if they were enforced. Set: ratelimit. Read: the access log."""
    LEASE = "lease"
    """A lease: `REPLICA SERIAL REQUESTS HITS MILLISECONDS`. Set: ratelimit. Read: leases.lua."""
    OVER_LIMIT_MS = "over_limit_ms"
    """For how many milliseconds every such request would be over limit. Set: ratelimit. Read: leases.lua."""


class Setting(StrEnum):
    """What the scripts are told of a route. The scripts read these as fields: `settings.auth`."""

    AUTH = "auth"
    """The route's `auth`; absent if it is `none`."""
    ANONYMOUS = "anonymous"
    """An anonymous caller may pass without authz being asked."""
    MAX_BODY = "max_body"
    """The largest body, in bytes."""
    COUNTER = "counter"
    """The value of `Header.COUNTER`."""
    POLICY = "policy"
    """Names what the route asks of a caller: a part of the decision cache's key."""
    EPOCH = "epoch"
    """Names the policy that authz enforces."""
    LIMITS = "limits"
    """Names what the route charges: a part of a lease account's key. Absent if the route has no leases."""
    VERIFIER = "verifier"
    """Names the version of Envoy's own verifier that may vouch; an earlier one leaves it to authz."""
    ASK = "ask"
    """Only authz can decide."""
    REVOKED_IDS = "revoked_ids"
    """There are revoked token ids, so a token that has one goes to authz."""
    REVOKED = "revoked"
    """Providers with revoked subjects, `,a,b,`."""
    TIERS = "tiers"
    """The tiers that may pass, `,a,b,`; absent: all."""
    PROVIDERS = "providers"
    """The providers that may vouch, `,a,b,`; absent: all."""


def for_lua() -> dict[str, Mapping[str, str]]:
    """The names that the scripts use, as tables: `names.header.IDENTITY`."""
    groups: dict[str, type[StrEnum]] = {
        "header": Header,
        "response_header": ResponseHeader,
        "mark": Mark,
        "namespace": Namespace,
        "key": Key,
    }
    return {group: {member.name: member.value for member in members} for group, members in groups.items()}
