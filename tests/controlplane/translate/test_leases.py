"""Leases: what the request filter is told of a route, and what Envoy does with a prepaid request."""

from __future__ import annotations

from controlplane.translate import leases
from controlplane.translate.policies import ratelimit_policy
from tests.support.configs import a_config, a_route, rich_config


def test_a_route_without_leases_names_none() -> None:
    """Where leases are turned off, or a route's cost comes with the answer, nobody is told under which to grant one."""
    late = a_config(routes=[a_route(cost_from_response_header="x-cost")])
    values = {"tiers": {"anonymous": {"rps": 1, "rpm": 10, "burst": 2}, "free": {"rps": 1, "rpm": 10, "burst": 2}}}
    off = a_config(limits=values | {"leases": {"enabled": False}})

    assert [leases.route_settings(config, config.routes[0], "e1") for config in (late, off)] == [{}, {}]
    (limit,) = route_named(off, "all").route.rate_limits
    assert limit.actions[0].header_value_match.descriptor_value == "yes"


def test_changed_numbers_have_another_name() -> None:
    """Any change of a limit, wherever it is; the number of replicas is none."""
    before = rich_config()
    tiers = {name: limit.model_copy(update={"rpm": limit.rpm + 1}) for name, limit in before.limits.tiers.items()}
    after = before.model_copy(update={"limits": before.limits.model_copy(update={"tiers": tiers})})

    assert leases.epoch(before) == ratelimit_policy(before, 3)["epoch"] != leases.epoch(after)
