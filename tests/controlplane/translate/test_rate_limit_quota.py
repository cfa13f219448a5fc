"""`limits.enforced_by: envoy`: the quota filter, what stays free of it, and the local fallback limit before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane import protos
from controlplane.config import envoy_validate
from controlplane.config.model import GatewayConfig
from controlplane.topology import RATELIMIT_CLUSTER
from controlplane.translate import (
    assemble,
    clusters,
    filters,
    local_rate_limit,
    rate_limit_quota,
    routes,
)
from controlplane.translate.headers import Header
from controlplane.translate.jwt_authn import NO_KEYS
from tests.support.configs import TOPOLOGY, WIDE_TOPOLOGY, a_config, values
from tests.support.early import is_removed

NUMBERS = {"rps": 1, "rpm": 10, "burst": 2}


def quota_config(**limits: Any) -> GatewayConfig:
    """Two routes, the second with numbers of its own."""
    first = values()["routes"][0]
    own = {"name": "own", "match": {"path": "/own", "methods": ["GET"]}, "service": "demo", "limits": NUMBERS}
    return a_config(limits=values()["limits"] | {"enforced_by": "envoy"} | limits, routes=[first, own])


def routes_of(config: GatewayConfig) -> dict[str, Any]:
    (host,) = routes.route_configuration(config).virtual_hosts
    return {route.name: route for route in host.routes}


def test_the_quota_filter_takes_the_rate_limit_filters_place() -> None:
    """The local fallback limit comes first: what it rejects is taken from no quota."""
    names = [each.name for each in filters.http_filters(quota_config(), NO_KEYS)]

    assert filters.RATE_LIMIT not in names
    assert names[-4:-2] == [local_rate_limit.LOCAL_RATE_LIMIT, rate_limit_quota.RATE_LIMIT_QUOTA]


def test_a_changed_table_moves_no_listener() -> None:
    """No number and no tier is in the filter chain: limits change without a connection noticing."""
    changed = {"anonymous": NUMBERS, "free": NUMBERS, "gold": NUMBERS | {"burst": 9}}

    assert filters.http_filters(quota_config(), NO_KEYS) == filters.http_filters(quota_config(tiers=changed), NO_KEYS)


@pytest.mark.parametrize("name", ["health", "health-live", "health-ready", "mgw-not-found", "mgw-bad-request"])
def test_our_own_answers_are_free(name: str) -> None:
    """Health and errors skip the filter, and the local fallback limit too."""
    policies = routes_of(quota_config())[name].typed_per_filter_config
    unpacked = protos.route_components.FilterConfig()

    assert policies[rate_limit_quota.RATE_LIMIT_QUOTA].Unpack(unpacked) and unpacked.disabled
    assert policies[local_rate_limit.LOCAL_RATE_LIMIT] == protos.any_of(local_rate_limit.idle())


def test_an_operators_route_is_counted() -> None:
    """It asks no rate-limit service, and only numbers of its own give it a counter of its own."""
    found = routes_of(quota_config())

    assert (
        not found["all"].route.rate_limits
        and rate_limit_quota.RATE_LIMIT_QUOTA not in found["all"].typed_per_filter_config
    )
    assert "counter=" not in settings_of(found["all"])
    assert "counter=own" in settings_of(found["own"]).splitlines()


def settings_of(route: Any) -> str:
    """What the request filter is told of a route."""
    return str(route.metadata.filter_metadata[filters.REQUEST_FILTER]["settings"])


def kinds_of(config: GatewayConfig) -> list[dict[str, str]]:
    """The parts of each kind of bucket's id, with the type of what they are read by."""
    message = protos.message_to_dict(rate_limit_quota.rate_limit_quota(config))["bucket_matchers"]
    found = [each["on_match"] for each in message["matcher_list"]["matchers"]] + [message["on_no_match"]]
    parts = [each["action"]["typed_config"]["bucket_id_builder"]["bucket_id_builder"] for each in found]
    return [{name: how_read(value) for name, value in each.items()} for each in parts]


def how_read(value: dict[str, Any]) -> str:
    if "string_value" in value:
        return f"'{value['string_value']}'"
    config = value["custom_value"]["typed_config"]
    return str(config.get("header_name") or config["@type"].rpartition(".")[2])


def test_who_spends_is_read_from_the_cheapest_place() -> None:
    """A bucket is a caller's, or an anonymous client's address; on a route with numbers of its own also the route's."""
    caller, counter, address = (
        {"caller": Header.CALLER},
        {"counter": Header.COUNTER},
        {"address": Header.NETWORK},
    )

    assert kinds_of(quota_config()) == [counter | caller, counter | address, caller, address]


@pytest.mark.parametrize("name", [Header.CALLER, Header.NETWORK, Header.COUNTER])
def test_what_names_a_bucket_is_nobodys_to_send_or_see(name: str) -> None:
    """The request filter's own headers: removed from clients' requests, and removed before the upstream."""
    assert is_removed(quota_config(), name)
    assert name in routes.route_configuration(quota_config()).request_headers_to_remove


def test_a_routes_own_limits_are_its_fallback_limit() -> None:
    """Otherwise the tier's fallback limit would reject requests to a route that allows more."""
    policy = protos.local_ratelimit.LocalRateLimit()
    assert routes_of(quota_config())["own"].typed_per_filter_config[local_rate_limit.LOCAL_RATE_LIMIT].Unpack(policy)

    assert {each.token_bucket.max_tokens for each in policy.descriptors} == {NUMBERS["burst"]}


def test_a_shared_anonymous_budget_has_one_bucket() -> None:
    """With anonymous_key: shared no address gets into a bucket's id."""
    (*_, anonymous) = kinds_of(quota_config(anonymous_key="shared"))

    assert anonymous == {"address": "'shared'"}


def test_all_envoys_go_to_the_first_replica_that_lives() -> None:
    """Quotas are split by one replica; the others stand by, in order."""
    cluster = next(each for each in clusters.clusters(quota_config(), WIDE_TOPOLOGY) if each.name == RATELIMIT_CLUSTER)

    assert [locality.priority for locality in cluster.load_assignment.endpoints] == [0, 1]
    assert len(cluster.health_checks) == 1


@pytest.mark.parametrize("verified_by", ["authz_service", "envoy"])
@pytest.mark.parametrize("topology", [TOPOLOGY, WIDE_TOPOLOGY], ids=["one", "many"])
async def test_envoy_takes_it(envoy_binary: Path, verified_by: str, topology: Any) -> None:
    """Real Envoy accepts the mode with either way to verify identity."""
    config = quota_config()
    config = config.model_copy(update={"auth": config.auth.model_copy(update={"verified_by": verified_by})})

    assert await envoy_validate.judge(envoy_binary, assemble.static_bootstrap(config, topology)) is None
