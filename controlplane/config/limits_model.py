"""Limits: the tier table, rules that callers share, and what holds without the store."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from controlplane.config.fields import Cidr, Model, Name, Rate, StoreFailure, check_subject


class Limit(Model):
    """The numbers of a tier: at most `burst` at once, refilled at `rps`, and at most `rpm` in any 60 seconds."""

    rps: Rate
    """Requests a second at which the burst is refilled, to three decimals. `0.2` is one request every five seconds."""
    rpm: Annotated[int, Field(ge=1, le=1_000_000)]
    """Requests in any 60 seconds, counted exactly."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)]
    """Requests at once."""


class Unlimited(Model):
    """No numbers: nothing limits these callers, and nothing counts what they ask. Rules that all callers share hold."""

    unlimited: Literal[True]
    """Only `true`. Otherwise there are numbers, and no such key."""


class CountedLimit(Limit):
    """The numbers of a rule beside the tiers. A shadow only counts, and reports what it would have refused."""

    shadow: bool = False
    """Whether the rule only counts, and reports what would have been over limit."""
    counter: Name | None = None
    """The name that the rule counts under, if not its own. What was spent then stays spent when the rule is renamed."""


class RuleLimit(CountedLimit):
    """The numbers of a route's own rule. A shadow only counts, and reports what it would have refused."""

    by: Literal["caller", "address", "both"] = "caller"
    """Who is charged. `caller`: the verified caller, or an anonymous one's address. `address`: the client's address,
    whoever calls. `both`: the caller and the address each have these numbers, and both must have room.
    """


def _which(value: Any) -> str:
    """The tag of what a value is meant to be. Tags are in brackets, and no problem's path shows them."""
    is_unlimited = "unlimited" in value if isinstance(value, dict) else isinstance(value, Unlimited)
    return UNLIMITED if is_unlimited else NUMBERS


ExemptCaller = Annotated[str, Field(min_length=1), AfterValidator(check_subject)]
NUMBERS, UNLIMITED = "[numbers]", "[unlimited]"
TierLimit = Annotated[Annotated[Limit, Tag(NUMBERS)] | Annotated[Unlimited, Tag(UNLIMITED)], Discriminator(_which)]
"""What a tier may ask: numbers, or as much as it likes."""
RouteLimit = Annotated[Annotated[RuleLimit, Tag(NUMBERS)] | Annotated[Unlimited, Tag(UNLIMITED)], Discriminator(_which)]
"""The same for callers of one route."""


class GlobalLimit(CountedLimit):
    """A rule that all callers share: on a service's routes, on the routes named, or on every route."""

    name: Name
    """The rule's name, in metrics and in the log."""
    service: Name | None = None
    """The service whose routes the rule is for."""
    routes: list[Name] = []
    """The routes that the rule is for, by name. Without `service` and `routes` it is for every route."""

    @model_validator(mode="after")
    def one_place(self) -> GlobalLimit:
        if self.service is not None and self.routes:
            raise ValueError("give either a service or routes; neither means every route")
        return self


class Leases(Model):
    """Whether Envoy may let a busy caller's next requests pass unasked, prepaid at the rate-limit service."""

    enabled: bool = True
    """Whether there are leases."""


class Exempt(Model):
    """Whom no limit holds for, the shared ones included. Nothing is counted for them."""

    cidrs: Annotated[list[Cidr], Field(max_length=1000)] = []
    """Client addresses, after trusted hops: `203.0.113.7`, or `10.0.0.0/8`. Whoever calls from there is exempt."""
    callers: Annotated[list[ExemptCaller], Field(max_length=1000)] = []
    """Verified callers: `PROVIDER/SUBJECT`, `apikey/SUBJECT`, or a subject of the first provider."""


class Limits(Model):
    """How much each tier may ask, and what holds while the store does not answer."""

    enforced_by: Literal["ratelimit_service", "envoy"] = "ratelimit_service"
    """Who enforces limits. `ratelimit_service`: exact, over all replicas. `envoy`: quota mode, in which each Envoy
    spends its share of a limit without a call.
    """
    anonymous_key: Literal["client_ip", "shared"] = "client_ip"
    """What an anonymous caller is charged by: its address, or one budget that all of them share."""
    ipv4_prefix: Annotated[int, Field(ge=1, le=32)] = 32
    """How many bits of an IPv4 address tell anonymous callers apart. 24: all of a `/24` share one budget."""
    ipv6_prefix: Annotated[int, Field(ge=1, le=128)] = 64
    """The same for IPv6, where one subscriber usually has a whole `/64`."""
    on_store_failure: StoreFailure = "share"
    """What holds while Redis does not answer. `share`: each replica enforces its share of the limit. `open`: everything
    passes. `closed`: 429.
    """
    leases: Leases = Leases()
    """Requests of busy callers that are charged in advance and pass inside Envoy."""
    exempt: Exempt = Exempt()
    """Addresses and callers that are not limited."""
    tiers: dict[Name, TierLimit]
    """The tier table: numbers by tier name, or `{unlimited: true}`. `anonymous` is required."""
    shared: Annotated[list[GlobalLimit], Field(alias="global")] = []
    """Rules that all callers share."""
