"""The policy: read strictly from what the control plane sent, compiled into the tables that a request looks up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ratelimit_service.descriptors import ANONYMOUS, shared_tag
from ratelimit_service.errors import PolicyRejected
from ratelimit_service.limits import MAX_NUMBER, Limit, Rule
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


class RuleNumbers(LimitNumbers):
    """The numbers of a further rule. `counter` is the name it counts under, if not its own."""

    shadow: bool = False
    counter: Annotated[str, Field(min_length=1)] | None = None

    def rule(self, kind: str, name: str, shared_tag: str = "") -> Rule:
        return Rule(f"{kind}:{self.counter or name}", self.limit(), self.shadow, shared_tag)


class RouteOverride(_Part):
    """How one route departs from the default."""

    cost: Annotated[Whole, Field(ge=0, le=MAX_NUMBER)] = 1
    limits: RuleNumbers | None = None
    tier_limits: dict[str, RuleNumbers] = {}
    on_store_failure: OnStoreFailure | None = None


class GlobalNumbers(RuleNumbers):
    """A rule that all callers share, on some routes or, where none are named, on all."""

    name: Annotated[str, Field(min_length=1)]
    routes: list[str] | None = None

    def shared_rule(self) -> Rule:
        return self.rule("global", self.name, shared_tag(self.counter or self.name))


class RatelimitPolicy(_Part):
    """The document, as in docs/agreements.md."""

    anonymous_key: Literal["client_ip", "shared"] = "client_ip"
    ipv4_prefix: Annotated[Whole, Field(ge=1, le=32)] = 32
    ipv6_prefix: Annotated[Whole, Field(ge=1, le=128)] = 64
    on_store_failure: OnStoreFailure = "share"
    replicas: Annotated[Whole, Field(ge=1, le=1000)] = 1
    tiers: Annotated[dict[str, LimitNumbers], Field(min_length=1)]
    routes: dict[str, RouteOverride] = {}
    shared: Annotated[list[GlobalNumbers], Field(alias="global")] = []
    epoch: str = ""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What a request on this route costs, per tier, and what holds while the store is away."""

    cost: int
    on_store_failure: OnStoreFailure
    by_tier: Mapping[str, tuple[Rule, ...]]
    unknown_tier: tuple[Rule, ...]

    def rules(self, tier: str) -> tuple[Rule, ...]:
        """What a request is charged to. The first is the caller's own budget, and is enforced."""
        return self.by_tier.get(tier) or self.unknown_tier

    def rule(self, tier: str) -> Rule:
        """The caller's own budget."""
        return self.rules(tier)[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled policy."""

    anonymous_key: str
    prefixes: Prefixes
    replicas: int
    routes: Mapping[str, RoutePlan]
    default: RoutePlan
    tiers: tuple[str, ...]
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
    path = "/".join(str(part) for part in error["loc"]) or "policy"
    return f"{path}: {error['msg']}"


def _compile(policy: RatelimitPolicy) -> Plan:
    own = {tier: Rule("tier", numbers.limit()) for tier, numbers in sorted(policy.tiers.items())}
    unknown = own.get(ANONYMOUS) or _strictest(own)
    everywhere = tuple(numbers.shared_rule() for numbers in policy.shared if numbers.routes is None)
    on_route: dict[str, list[Rule]] = {}
    for numbers in policy.shared:
        for name in dict.fromkeys(numbers.routes or ()):
            on_route.setdefault(name, []).append(numbers.shared_rule())
    default = RoutePlan(
        1, policy.on_store_failure, {tier: (rule,) for tier, rule in own.items()}, unknown_tier=(unknown,)
    )
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
    route_rule = route.limits.rule("route", name) if route.limits else None
    own = {tier: numbers.rule("route", name) for tier, numbers in route.tier_limits.items()}
    by_tier = {
        tier: _rules(own.get(tier, route_rule), default.rule(tier)) for tier in (*default.by_tier, *route.tier_limits)
    }
    unknown = by_tier.get(ANONYMOUS) or _rules(route_rule, *default.unknown_tier)
    return RoutePlan(route.cost, route.on_store_failure or default.on_store_failure, by_tier, unknown)


def _rules(own: Rule | None, tier: Rule) -> tuple[Rule, ...]:
    if own is None:
        return (tier,)
    return (tier, own) if own.is_shadow else (own,)


def _strictest(by_tier: Mapping[str, Rule]) -> Rule:
    """Without a tier `anonymous`, an unknown tier gets the smallest numbers there are."""
    return min(by_tier.values(), key=lambda rule: (rule.limit.rpm, rule.limit.rps, rule.limit.burst))
