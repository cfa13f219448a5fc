"""The policy: read strictly from what the control plane sent, compiled into the tables that a request looks up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .descriptors import ANONYMOUS
from .errors import PolicyRefused
from .limits import MAX_NUMBER, Limit, Rule

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


class RouteOverride(_Part):
    """How one route departs from the default."""

    cost: Annotated[Whole, Field(ge=0, le=MAX_NUMBER)] = 1
    limits: LimitNumbers | None = None
    tier_limits: dict[str, LimitNumbers] = {}
    on_store_failure: OnStoreFailure | None = None


class RatelimitPolicy(_Part):
    """The document, as in docs/agreements.md."""

    anonymous_key: Literal["client_ip", "shared"] = "client_ip"
    on_store_failure: OnStoreFailure = "share"
    replicas: Annotated[Whole, Field(ge=1, le=1000)] = 1
    tiers: Annotated[dict[str, LimitNumbers], Field(min_length=1)]
    routes: dict[str, RouteOverride] = {}


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """What a request on this route costs, per tier, and what holds while the store is away."""

    cost: int
    on_store_failure: OnStoreFailure
    by_tier: Mapping[str, Rule]
    unknown_tier: Rule

    def rule(self, tier: str) -> Rule:
        return self.by_tier.get(tier) or self.unknown_tier


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled policy."""

    anonymous_key: str
    replicas: int
    routes: Mapping[str, RoutePlan]
    default: RoutePlan
    tiers: tuple[str, ...]

    def route(self, name: str) -> RoutePlan:
        return self.routes.get(name) or self.default


def read_policy(document: Mapping[str, Any]) -> Plan:
    """Check and compile a policy document; PolicyRefused names every problem with its path."""
    try:
        policy = RatelimitPolicy.model_validate(document)
    except ValidationError as error:
        raise PolicyRefused("; ".join(_problem(each) for each in error.errors())) from error
    return _compile(policy)


def _problem(error: Any) -> str:
    path = "/".join(str(part) for part in error["loc"]) or "policy"
    return f"{path}: {error['msg']}"


def _compile(policy: RatelimitPolicy) -> Plan:
    by_tier = {tier: Rule("tier", numbers.limit()) for tier, numbers in sorted(policy.tiers.items())}
    default = RoutePlan(1, policy.on_store_failure, by_tier, by_tier.get(ANONYMOUS) or _strictest(by_tier))
    return Plan(
        anonymous_key=policy.anonymous_key,
        replicas=policy.replicas,
        routes={name: _compile_route(name, route, default) for name, route in policy.routes.items()},
        default=default,
        tiers=tuple(by_tier),
    )


def _compile_route(name: str, route: RouteOverride, default: RoutePlan) -> RoutePlan:
    """A tier's own numbers on the route come before the route's, those before the tier's.

    A route with numbers of its own has one counter per caller, whatever the caller's tier: what was spent on it stays
    spent when the tier changes.
    """
    counter = f"route:{name}"
    route_rule = Rule(counter, route.limits.limit()) if route.limits else None
    by_tier = {tier: route_rule or rule for tier, rule in default.by_tier.items()}
    by_tier |= {tier: Rule(counter, numbers.limit()) for tier, numbers in route.tier_limits.items()}
    return RoutePlan(
        cost=route.cost,
        on_store_failure=route.on_store_failure or default.on_store_failure,
        by_tier=by_tier,
        unknown_tier=by_tier.get(ANONYMOUS) or route_rule or default.unknown_tier,
    )


def _strictest(by_tier: Mapping[str, Rule]) -> Rule:
    """Without a tier `anonymous`, an unknown tier gets the smallest numbers there are."""
    return min(by_tier.values(), key=lambda rule: (rule.limit.rpm, rule.limit.rps, rule.limit.burst))
