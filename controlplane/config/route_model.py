"""Routes: which requests, to which service, and what is asked of the caller."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from controlplane.config.cors_model import Cors
from controlplane.config.fields import (
    AuthMode,
    Cidr,
    ClaimName,
    Method,
    Model,
    Name,
    Seconds,
    Status,
    StoreFailure,
    check_path_template,
)
from controlplane.config.limits_model import RouteLimit
from controlplane.config.service_model import Retries


class Match(Model):
    """Which requests a route takes."""

    path: Annotated[str, AfterValidator(check_path_template)]
    """The path: plain text, with `{name}` for one segment that is not empty, and `{name=**}` for the rest. A trailing
    slash is significant.
    """
    methods: Annotated[list[Method], Field(min_length=1)]
    """The methods. `HEAD` is served wherever `GET` is."""


class Ip(Model):
    """From which client addresses a route may be called, after trusted hops. Others get 403 `FORBIDDEN`."""

    allow: Annotated[list[Cidr], Field(max_length=1000)] = []
    """The addresses that may call, such as `203.0.113.7` or `10.0.0.0/8`. Empty: every address."""
    deny: Annotated[list[Cidr], Field(max_length=1000)] = []
    """The addresses that may not, also if they are allowed."""


class Route(Model):
    """A path and methods, the service behind them, and what is asked of the caller."""

    name: Name
    """The route's name: in the log, in metrics and in counters."""
    match: Match
    """Which requests the route takes."""
    service: Name
    """The service that the requests go to."""
    auth: AuthMode = "required"
    """`required`: 401 without a good token. `optional`: anonymous without one. `none`: nobody is asked who calls."""
    tiers: list[Name] = []
    """The tiers that may call; any other is 403. Empty: every tier."""
    scopes: list[Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]] = []
    """Scopes that a token must have, all of them; else 403."""
    claims: dict[ClaimName, str | int | bool] = {}
    """Claims that a token must have with these very values, or as a list that holds them; else 403. A name that begins
    with `/` is a JSON pointer (RFC 6901), such as `/organization/id`.
    """
    providers: list[Name] = []
    """The providers whose tokens count here; `apikey` stands for API keys. Empty: every provider."""
    ip: Ip | None = None
    """From which addresses the route may be called."""
    timeout_seconds: Seconds | None = None
    """How long a request may take, in seconds, instead of the service's."""
    retries: Retries | None = None
    """Instead of the service's."""
    max_request_bytes: Annotated[int, Field(ge=1, le=1 << 30)] | None = None
    """The largest request body, in bytes, instead of the listener's."""
    buffer_request: bool = False
    """Whether the body is held until it is complete, so that the upstream sees all of it or nothing. A body streams
    otherwise. Held bodies cost memory: up to `max_request_bytes` for each request in progress. Limits count a request
    when its headers come. The upstream sees a held one later: `listener.request_timeout_seconds` bounds by how much.
    """
    cost: Annotated[int, Field(ge=0, le=10_000)] = 1
    """How many requests one request counts as. With 0 it charges nothing, and is refused while nothing is left."""
    cost_from_response_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """A header of the upstream's response that holds a whole number. So much is charged after the response, beside
    `cost`; it never makes a request fail.
    """
    cost_from_response_status: Annotated[
        dict[Status, Annotated[int, Field(ge=1, le=10_000)]], Field(json_schema_extra={"additionalProperties": False})
    ] = {}
    """What a response costs by its status, if it is the upstream's own. So much is charged after the response, beside
    `cost`; it never makes a request fail. `{"401": 1}` with `cost: 0` counts failed logins alone.
    """
    limits: RouteLimit | None = None
    """Numbers of the route's own, for each caller, instead of the tier's. `{unlimited: true}`: none."""
    tier_limits: dict[Name, RouteLimit] = {}
    """Numbers (or none) for callers of these tiers on this route, instead of `limits` and the tier's."""
    on_store_failure: StoreFailure | None = None
    """Instead of the document's."""
    cors: Cors | None = None
    """Instead of the document's, as a whole: what is not said here has its default. `{}`: the gateway takes no part."""
