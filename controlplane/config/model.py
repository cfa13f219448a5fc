"""The operator's configuration, as strict models: what a document may say, with every default.

The text below each field is its reference: `docs/reference/configuration.md` and `mgw schema` are made of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controlplane.config.auth_model import (
    ApiKey,
    Auth,
    Claims,
    DecisionCache,
    Provider,
    Revocations,
    RevokedSubject,
    SigningSecret,
)
from controlplane.config.cors_model import Cors
from controlplane.config.fields import (
    IDEMPOTENT,
    Algorithm,
    Cidr,
    HeaderName,
    Method,
    Model,
    ParameterName,
    RequestLines,
    Seconds,
    ShownQuery,
)
from controlplane.config.limits_model import (
    Exempt,
    GlobalLimit,
    Leases,
    Limit,
    Limits,
    RouteLimit,
    RuleLimit,
    TierLimit,
    Unlimited,
)
from controlplane.config.route_model import Ip, Match, Route
from controlplane.config.service_model import Breaker, Endpoint, HealthCheck, Pool, Retries, Service, ServiceRetries

__all__ = [
    "IDEMPOTENT",
    "Algorithm",
    "ApiKey",
    "Auth",
    "Breaker",
    "Claims",
    "Cors",
    "DecisionCache",
    "Endpoint",
    "Exempt",
    "GatewayConfig",
    "GlobalLimit",
    "HeaderName",
    "HealthCheck",
    "Http2",
    "Ip",
    "Leases",
    "Limit",
    "Limits",
    "Listener",
    "Log",
    "Match",
    "Method",
    "Model",
    "Pool",
    "Provider",
    "RequestLines",
    "Retries",
    "Revocations",
    "RevokedSubject",
    "Route",
    "RouteLimit",
    "RuleLimit",
    "SecurityHeaders",
    "Service",
    "ServiceRetries",
    "SigningSecret",
    "TierLimit",
    "Unlimited",
]


class Http2(Model):
    """What one HTTP/2 connection of a client may use. Windows bound what Envoy holds of bodies that nobody reads."""

    max_concurrent_streams: Annotated[int, Field(ge=1, le=100_000)] = 128
    """Requests at once on one connection."""
    stream_window_bytes: Annotated[int, Field(ge=65_535, le=2_147_483_647)] = 65_536
    """How much of one request's body may be on its way, in bytes. Uploads over a long line want more: at most one
    window a round trip.
    """
    connection_window_bytes: Annotated[int, Field(ge=65_535, le=2_147_483_647)] = 1_048_576
    """The same for all requests of a connection together."""


class Listener(Model):
    """Where Envoy listens, and what it takes from a client before anyone looks at the request."""

    host: str = "0.0.0.0"
    """The address to listen on. `0.0.0.0` is every IPv4 address of the machine, `::` every address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    """The TCP port to listen on."""
    trusted_hops: Annotated[int, Field(ge=0, le=16)] = 0
    """How many proxies in front of the gateway may be believed. With N, the client's address is the Nth from the right
    in `X-Forwarded-For` (Envoy's `xff_num_trusted_hops`); with 0 it is the connection's. Only with one or more do
    `Forwarded`, `X-Real-IP`, `X-Forwarded-Host` and the like reach services.
    """
    trusted_cidrs: list[Cidr] = []
    """Instead of `trusted_hops`: the addresses of the proxies that may be believed, such as `10.0.0.0/8`. The client is
    the last in `X-Forwarded-For` that is none of them. What another address sends is read as from a client.
    """
    proxy_protocol: bool = False
    """Whether connections begin with a PROXY protocol header, version 1 or 2, that names the client. It needs
    `trusted_cidrs`: connections from other addresses, and those without the header, are closed.
    """
    keep_underscores: bool = False
    """Whether request headers with `_` in their name reach services. Many servers read `_` as `-`, so such a header
    can pose as another. Reserved names, and other spellings of headers that the gateway sets or reads, never pass.
    """
    max_connections: Annotated[int, Field(ge=1)] = 25_000
    """Client connections at once, for each Envoy. One more is closed as soon as it is there. Changes live."""
    max_request_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 1_048_576
    """The largest request body, in bytes. A larger one is 413. A route may have its own."""
    max_headers: Annotated[int, Field(ge=1, le=1000)] = 100
    """How many header fields a request may have. More are 431, more than twice as many over HTTP/2 a reset."""
    max_header_kib: Annotated[int, Field(ge=1, le=1024)] = 60
    """How large a request's header fields may be together, in KiB. Larger ones are 431, more than twice as large over
    HTTP/2 a reset.
    """
    headers_timeout_seconds: Seconds = 10.0
    """How long a request's headers may take to arrive, in seconds. Then it is 408."""
    request_timeout_seconds: Seconds | Literal["none"] = 300.0
    """How long a whole request may take to arrive, in seconds, or `none`. Then it is 408. It ends when the response
    begins (Envoy's `request_timeout`). One for the listener: a route cannot have its own.
    """
    health_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """A port for `/health`, `/health/live` and `/health/ready` alone, on the same host. It answers whatever the load:
    when Envoy's heap is full, the gateway's own port is 503, health included. Absent: none.
    """
    http10: bool = True
    """Whether HTTP/1.0 is served, as nginx speaks it to upstreams by default. Otherwise it is 426."""
    http2: Http2 = Http2()
    """What a client's HTTP/2 connection may use."""


class SecurityHeaders(Model):
    """Headers that tell browsers to be careful with answers."""

    enabled: bool = True
    """Whether `X-Content-Type-Options: nosniff` and the two below are sent. A header that the upstream sends stays."""
    frame_options: Literal["DENY", "SAMEORIGIN"] | None = "DENY"
    """`X-Frame-Options`; null sends none."""
    referrer_policy: Annotated[str, Field(pattern=r"^[a-z-]+(, ?[a-z-]+)*$")] | None = "no-referrer"
    """`Referrer-Policy`; null sends none."""


class Log(Model):
    """The access log: which requests get a line on standard output, and what it shows of their queries."""

    requests: RequestLines = "all"
    """`all`, or `failed`: only requests with a status of 400 or more."""
    query: ShownQuery = "masked"
    """`masked`: what may be a credential is `***`. `none`: no query is logged. `full`: queries are logged as they came,
    credentials too. Paths are masked whatever is said here.
    """
    mask_parameters: Annotated[list[ParameterName], Field(max_length=100)] = []
    """Further parameters whose values are never shown, such as `customer_number`. `-`, `_` and case do not count."""


class GatewayConfig(Model):
    """The whole document."""

    version: Literal[1]
    """The version of the document's form."""
    listener: Listener = Listener()
    """Where clients connect."""
    auth: Auth
    """Who callers are."""
    limits: Limits
    """How much callers may ask."""
    cors: Cors = Cors()
    """Which web pages may read responses. A route may have its own."""
    security_headers: SecurityHeaders = SecurityHeaders()
    """Headers that make browsers careful."""
    log: Log = Log()
    """The access log."""
    services: Annotated[list[Service], Field(min_length=1)]
    """What the gateway protects."""
    routes: list[Route] = []
    """Which request goes where. The most specific path wins, whatever the order here."""
