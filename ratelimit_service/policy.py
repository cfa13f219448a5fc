"""The policy: read strictly from what the control plane sent, compiled into the tables that a request looks up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator

from ratelimit_service.descriptors import ANONYMOUS, shared_tag
from ratelimit_service.errors import PolicyRejected
from ratelimit_service.exempt import Exempt
from ratelimit_service.limits import MAX_NUMBER, Charged, Limit, Rule
from service_kit.networks import Prefixes

OnStoreFailure = Literal["share", "open", "closed"]


def _whole(value: object) -> object:
    """A protobuf Struct has no whole numbers: 200 arrives as 200.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(ge=1, le=MAX_NUMBER)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LimitNumbers(_Part):
    """The numbers of one tier."""

    rps: Annotated[float, Field(ge=0.001, le=MAX_NUMBER)]
    rpm: Count
    burst: Count

    def limit(self) -> Limit:
        return Limit(self.rps, self.rpm, self.burst)

    def tier_rules(self) -> tuple[Rule, ...]:
        return (Rule("tier", self.limit()),)


class Unlimited(_Part):
    """No numbers."""

    unlimited: Literal[True]

    def tier_rules(self) -> tuple[Rule, ...]:
        return ()


class RuleNumbers(LimitNumbers):
    """The numbers of a further rule. `counter` is the name it counts under, if not its own; `by` is who is charged."""

    shadow: bool = False
    counter: Annotated[str, Field(min_length=1)] | None = None
    by: Charged = "caller"

    def rule(self, kind: str, name: str, shared_tag: str = "") -> Rule:
        return Rule(f"{kind}:{self.counter or name}", self.limit(), self.shadow, shared_tag, self.by)


def _which(value: Any) -> str:
    is_unlimited = "unlimited" in value if isinstance(value, dict) else isinstance(value, Unlimited)
    return _UNLIMITED if is_unlimited else _NUMBERS


_NUMBERS, _UNLIMITED = "[numbers]", "[unlimited]"
TierLimit = Annotated[
    Annotated[LimitNumbers, Tag(_NUMBERS)] | Annotated[Unlimited, Tag(_UNLIMITED)], Discriminator(_which)
]
RuleLimit = Annotated[
    Annotated[RuleNumbers, Tag(_NUMBERS)] | Annotated[Unlimited, Tag(_UNLIMITED)], Discriminator(_which)
]


class RouteOverride(_Part):
    """How one route departs from the default."""

    cost: Annotated[Whole, Field(ge=0, le=MAX_NUMBER)] = 1
    limits: RuleLimit | None = None
    tier_limits: dict[str, RuleLimit] = {}
    on_store_failure: OnStoreFailure | None = None


class GlobalNumbers(RuleNumbers):
    """A rule that all callers share, on some routes or, where none are named, on all."""

    name: Annotated[str, Field(min_length=1)]
    routes: list[str] | None = None

    def shared_rule(self) -> Rule:
        return self.rule("global", self.name, shared_tag(self.counter or self.name))


class ExemptNames(_Part):
    """Whom no rule holds for."""

    cidrs: list[str] = []
    callers: list[str] = []

    @field_validator("cidrs")
    @classmethod
    def networks(cls, cidrs: list[str]) -> list[str]:
        for cidr in cidrs:
            ip_network(cidr)
        return cidrs


class RatelimitPolicy(_Part):
    """The document, as in docs/agreements.md."""

    anonymous_key: Literal["client_ip", "shared"] = "client_ip"
    ipv4_prefix: Annotated[Whole, Field(ge=1, le=32)] = 32
    ipv6_prefix: Annotated[Whole, Field(ge=1, le=128)] = 64
    on_store_failure: OnStoreFailure = "share"
    replicas: Annotated[Whole, Field(ge=1, le=1000)] = 1
    tiers: Annotated[dict[str, TierLimit], Field(min_length=1)]
    routes: dict[str, RouteOverride] = {}
    shared: Annotated[list[GlobalNumbers], Field(alias="global")] = []
    exempt: ExemptNames = ExemptNames()
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What a request on this route costs, per tier, and what holds while the store is away."""

    cost: int
    on_store_failure: OnStoreFailure
    by_tier: Mapping[str, tuple[Rule, ...]]
    unknown_tier: tuple[Rule, ...]

    def rules(self, tier: str) -> tuple[Rule, ...]:
        """What a request is charged to. Those of the caller alone come first, and the first of them is enforced."""
        return self.by_tier.get(tier, self.unknown_tier)

    def rule(self, tier: str) -> Rule | None:
        """The caller's own budget; None where nothing limits it."""
        return next((rule for rule in self.rules(tier) if not rule.shared_tag), None)


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled policy."""

    anonymous_key: str
    prefixes: Prefixes
    replicas: int
    routes: Mapping[str, RoutePlan]
    default: RoutePlan
    tiers: tuple[str, ...]
    exempt: Exempt
    epoch: str = ""
    """Names the numbers. Leases are granted to whoever asks under the same name, so to nobody where there is none."""

    def route(self, name: str) -> RoutePlan:
        return self.routes.get(name) or self.default

    def all_rules(self, tier: str) -> dict[str, Rule]:
        """Every rule that a caller of this tier can meet, by name."""
        plans = (self.default, *self.routes.values())
        return {rule.name: rule for plan in plans for rule in plan.rules(tier)}


def read_policy(document: Mapping[str, Any]) -> Plan:
    """Check and compile a policy document; PolicyRejected names every problem with its path."""
    try:
        policy = RatelimitPolicy.model_validate(document)
    except ValidationError as error:
        raise PolicyRejected("; ".join(_problem(each) for each in error.errors())) from error
    return _compile(policy)


def _problem(error: Any) -> str:
    path = "/".join(str(part) for part in error["loc"] if part not in (_NUMBERS, _UNLIMITED)) or "policy"
    return f"{path}: {error['msg']}"


def _compile(policy: RatelimitPolicy) -> Plan:
    own = {tier: limit.tier_rules() for tier, limit in sorted(policy.tiers.items())}
    unknown = own[ANONYMOUS] if ANONYMOUS in own else _strictest(own)
    everywhere = tuple(numbers.shared_rule() for numbers in policy.shared if numbers.routes is None)
    on_route: dict[str, list[Rule]] = {}
    for numbers in policy.shared:
        for name in dict.fromkeys(numbers.routes or ()):
            on_route.setdefault(name, []).append(numbers.shared_rule())
    default = RoutePlan(1, policy.on_store_failure, own, unknown_tier=unknown)
    routes = {
        name: _with_shared(
            _compile_route(name, policy.routes.get(name) or RouteOverride(), default),
            (*everywhere, *on_route.get(name, ())),
        )
        for name in sorted(policy.routes.keys() | on_route.keys())
    }
    return Plan(
        anonymous_key=policy.anonymous_key,
        prefixes=Prefixes(policy.ipv4_prefix, policy.ipv6_prefix),
        replicas=policy.replicas,
        routes=routes,
        default=_with_shared(default, everywhere),
        tiers=tuple(own),
        exempt=Exempt.of(policy.exempt.cidrs, policy.exempt.callers),
        epoch=policy.epoch,
    )


def _with_shared(plan: RoutePlan, shared: tuple[Rule, ...]) -> RoutePlan:
    by_tier = {tier: rules + shared for tier, rules in plan.by_tier.items()}
    return replace(plan, by_tier=by_tier, unknown_tier=plan.unknown_tier + shared)


def _compile_route(name: str, route: RouteOverride, default: RoutePlan) -> RoutePlan:
    """A tier's own numbers on the route come before the route's, those before the tier's.

    A route with numbers of its own has one counter per caller, whatever the caller's tier: what was spent on it stays
    spent when the tier changes. Numbers that are only a shadow stand beside those that would hold without them.
    """
    own = {tier: _own(limit, name) for tier, limit in route.tier_limits.items()}
    of_all = None if route.limits is None else _own(route.limits, name)
    by_tier = {
        tier: _rules(own.get(tier, of_all), default.rules(tier)) for tier in (*default.by_tier, *route.tier_limits)
    }
    unknown = by_tier[ANONYMOUS] if ANONYMOUS in by_tier else _rules(of_all, default.unknown_tier)
    return RoutePlan(route.cost, route.on_store_failure or default.on_store_failure, by_tier, unknown)


def _own(limit: RuleNumbers | Unlimited, name: str) -> tuple[Rule, ...]:
    return () if isinstance(limit, Unlimited) else (limit.rule("route", name),)


def _rules(own: tuple[Rule, ...] | None, of_tier: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """What holds. A shadow stands beside the tier's."""
    if own is None:
        return of_tier
    return (*of_tier, *own) if own and own[0].is_shadow else own


def _strictest(by_tier: Mapping[str, tuple[Rule, ...]]) -> tuple[Rule, ...]:
    """Without a tier `anonymous`, an unknown tier gets the smallest numbers there are."""
    limited = [rules for rules in by_tier.values() if rules]
    return min(limited, key=lambda rules: _size(rules[0].limit), default=())


def _size(limit: Limit) -> tuple[int, float, int]:
    return limit.rpm, limit.rps, limit.burst
