"""Services: endpoints, connections, breakers, health checks and retries."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, AliasChoices, Field

from controlplane.config.fields import Model, Name, Percent, RetryReason, Seconds, check_upstream_url


class Endpoint(Model):
    """One address of a service."""

    url: Annotated[str, AfterValidator(check_upstream_url)]
    """`http://HOST:PORT` or `https://HOST:PORT`, without a path. A host name is resolved again and again."""
    weight: Annotated[int, Field(ge=1, le=128)] = 1
    """How much of the service's traffic it gets, beside the other endpoints' weights."""


class Pool(Model):
    """Connections to each host of a service."""

    max_connections: Annotated[int, Field(ge=1)] = 100
    """Connections to each endpoint, for each Envoy."""
    idle_timeout_seconds: Seconds = 90
    """After how many idle seconds a connection is closed."""
    max_pending_requests: Annotated[int, Field(ge=1)] = 1024
    """Requests that may wait for a connection. One more is 503, and no failure of the service."""


class Breaker(Model):
    """When a service counts as broken, and for how long."""

    failures: Annotated[int, Field(ge=1, le=10_000)] = 10
    """So many failures in a row open the breaker. A failure is no connection, a reset, a time-out or a 5xx."""
    error_rate_percent: Percent = 50
    """The breaker opens as well when, of at least `failures` requests, so many percent failed."""
    open_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 2
    """How long nothing is let through after opening, in seconds."""
    half_open_requests: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many requests at once may try whether the service is back."""


class HealthCheck(Model):
    """How a service is asked whether it is well: by the control plane for /health, by every Envoy where it steers."""

    path: Annotated[str, Field(pattern=r"^/[^\s]*$")] = "/health"
    """The path that is asked. A status from 200 to 499 is good."""
    steer: bool = False
    """Whether each Envoy asks every endpoint by itself and passes over those that are not well."""
    interval_seconds: Annotated[float, Field(ge=0.1, le=300)] = 5
    """How often Envoy asks, in seconds. Only with `steer`."""
    timeout_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1
    """How long Envoy waits for a response, in seconds. Only with `steer`."""
    unhealthy_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """How many failed checks in a row make an endpoint unhealthy. Only with `steer`."""
    healthy_threshold: Annotated[int, Field(ge=1, le=100)] = 2
    """How many good checks in a row make it healthy again. Only with `steer`."""
    closes_breaker: bool = False
    """Whether one good check lets an endpoint back before the breaker's open time is over. Only with `steer`."""


class Retries(Model):
    """How often a failed request is sent again. Only GET, HEAD, OPTIONS, PUT and DELETE ever are."""

    attempts: Annotated[int, Field(ge=0, le=5)]
    """How many more times a failed request is sent; 0 is none."""
    on: Annotated[
        list[RetryReason],
        # YAML 1.1 takes the plain word for a boolean; our reader does not, but other tools on the way here do (Helm).
        Field(min_length=1, validation_alias=AliasChoices("on", "true")),
    ] = ["connect-failure", "reset", "gateway-error"]
    """What is sent again, in Envoy's words (`retry_on`): `connect-failure`, `reset`, `gateway-error` (502, 503, 504),
    `5xx`.
    """
    per_try_timeout_seconds: Seconds | None = None
    """How long one try may take, in seconds. The route's or service's time limit holds for all of them together."""


class ServiceRetries(Retries):
    """The same for all routes of a service, which share one budget."""

    budget_percent: Percent = 20
    """Of the requests under way to the service, at most so many percent may be repetitions. Three are always allowed.
    """


class Service(Model):
    """What the gateway protects and forwards to."""

    name: Name
    """The service's name: in routes, breakers, health and the log. Names that begin with `mgw-` are the gateway's own.
    """
    endpoints: Annotated[list[Endpoint], Field(min_length=1)]
    """Where the service is. All of them speak the same scheme."""
    timeout_seconds: Seconds = 30
    """How long a request may take, retries included, in seconds; then 504. A route may have its own."""
    connect_timeout_seconds: Seconds = 5
    """How long opening a connection may take, in seconds; then 502."""
    pool: Pool = Pool()
    """Connections to the service."""
    breaker: Breaker = Breaker()
    """When the service counts as broken."""
    health_check: HealthCheck | None = HealthCheck()
    """How the service is asked for its health; null asks never."""
    retries: ServiceRetries | None = None
    """Whether failed requests are sent again; null never does."""
    slow_start_seconds: Seconds | None = None
    """How many seconds an endpoint that is new, or well again by its check, takes to get its whole share."""
    critical: bool = False
    """Whether `/health` is 503 when all services with this flag are down."""
