"""Retries, health checks that steer, and what else keeps a service going: as Envoy is told."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.config.model import IDEMPOTENT
from controlplane.translate import assemble, clusters, endpoints, listeners, retries
from controlplane.xds import resources as types
from tests.support.configs import TOPOLOGY, a_config, a_route, a_service, default_config

CA = "/etc/ssl/certs/ca-certificates.crt"


def cluster(*urls: str, **changes: Any) -> dict[str, Any]:
    return protos.message_to_dict(clusters.service_cluster(a_service("demo", *urls, **changes), CA))


def policy(route: dict[str, Any] | None, service: dict[str, Any] | None, *methods: str) -> dict[str, Any] | None:
    found = retries.policy(a_route(methods=methods or ("GET",), retries=route), a_service(retries=service))
    return None if found is None else protos.message_to_dict(found)


def methods_of(found: dict[str, Any]) -> list[str]:
    return [header["string_match"]["exact"] for header in found["retriable_request_headers"]]


@pytest.mark.parametrize(
    ("route", "service", "times"),
    [
        (None, None, None),
        (None, {"attempts": 2}, 2),
        ({"attempts": 1}, None, 1),
        ({"attempts": 1}, {"attempts": 2}, 1),
        ({"attempts": 0}, {"attempts": 2}, None),
        (None, {"attempts": 0}, None),
    ],
)
def test_who_decides_on_retries(
    route: dict[str, Any] | None, service: dict[str, Any] | None, times: int | None
) -> None:
    """The route, else its service, else nobody: then Envoy is told nothing and repeats nothing."""
    found = policy(route, service)

    assert (found and found["num_retries"]) == times


@pytest.mark.parametrize(
    ("methods", "repeated"),
    [
        (("GET",), ["GET", "HEAD"]),
        (("GET", "POST"), ["GET", "HEAD"]),
        (("PUT", "PATCH", "DELETE"), ["DELETE", "PUT"]),
        (("OPTIONS", "HEAD"), ["HEAD", "OPTIONS"]),
    ],
)
def test_only_idempotent_methods_are_repeated(methods: tuple[str, ...], repeated: list[str]) -> None:
    """Envoy asks for one of these methods before it repeats; a route of others alone has no policy at all."""
    found = policy({"attempts": 1}, None, *methods)

    assert found is not None
    assert methods_of(found) == repeated
    assert {header["name"] for header in found["retriable_request_headers"]} == {":method"}
    assert policy({"attempts": 1}, None, "POST", "PATCH") is None
    assert {"POST", "PATCH"}.isdisjoint(IDEMPOTENT)


def test_how_it_is_repeated() -> None:
    """On the reasons given, each try in its own time, on an endpoint that was not tried if there is one."""
    found = policy({"attempts": 3, "on": ["reset", "5xx"], "per_try_timeout_seconds": 0.25}, None)

    assert found is not None
    assert (found["retry_on"], found["per_try_timeout"]) == ("5xx,reset", "0.250s")
    assert [predicate["name"] for predicate in found["retry_host_predicate"]] == [
        "envoy.retry_host_predicates.previous_hosts"
    ]
    default = policy({"attempts": 3}, None)
    assert default is not None
    assert default["retry_on"] == "connect-failure,gateway-error,reset"
    assert "per_try_timeout" not in default


def test_other_readers_of_yaml_may_take_on_for_true() -> None:
    """`on: [reset]` has gone through Helm, say, when it arrives as `true: [reset]`."""
    found = policy({"attempts": 1, "true": ["reset"]}, None)

    assert found is not None
    assert found["retry_on"] == "reset"


@pytest.mark.parametrize(
    ("given", "percent"), [(None, 20), ({"attempts": 1}, 20), ({"attempts": 1, "budget_percent": 5}, 5)]
)
def test_a_service_has_one_budget(given: dict[str, Any] | None, percent: int) -> None:
    """It is there without retries too: a route may ask for them on its own."""
    (threshold,) = cluster(retries=given)["circuit_breakers"]["thresholds"]

    assert threshold["retry_budget"] == {"budget_percent": {"value": percent}, "min_retry_concurrency": 3}


def test_a_check_does_not_steer_by_default() -> None:
    """Envoy is told nothing of a health path: it would ask services that have none."""
    for found in (cluster(), cluster(health_check={"path": "/healthz"}), cluster(health_check=None)):
        assert "health_checks" not in found
        assert "successful_active_health_check_uneject_host" not in found["outlier_detection"]
    for service in default_config().services:
        assert "health_checks" not in protos.message_to_dict(clusters.service_cluster(service, CA))


def test_a_check_that_steers() -> None:
    """Its rhythm is the operator's, with traffic and without; the breaker keeps its open time unless told otherwise."""
    check = {"path": "/healthz", "steer": True, "interval_seconds": 2, "timeout_seconds": 0.5}
    found = cluster(health_check=check | {"unhealthy_threshold": 4, "healthy_threshold": 1})
    (asked,) = found["health_checks"]

    assert asked["interval"] == asked["no_traffic_interval"] == "2s"
    assert (asked["timeout"], asked["unhealthy_threshold"], asked["healthy_threshold"]) == ("0.500s", 4, 1)
    assert asked["http_health_check"]["path"] == "/healthz"
    assert asked["http_health_check"]["expected_statuses"] == [{"start": "200", "end": "500"}]
    assert found["ignore_health_on_host_removal"] is True
    assert found["outlier_detection"]["successful_active_health_check_uneject_host"] is False
    closing = cluster(health_check=check | {"closes_breaker": True})
    assert closing["outlier_detection"]["successful_active_health_check_uneject_host"] is True


def test_each_endpoint_is_asked_by_its_own_name() -> None:
    """As the control plane asks it; Envoy would send the name of the service as Host."""
    urls = ("http://10.0.0.1:81", "http://Demo")
    service = a_service("demo", *urls, health_check={"steer": True})

    members = endpoints.service_assignment(service).endpoints[0].lb_endpoints
    unasked = endpoints.service_assignment(a_service("demo", *urls)).endpoints[0].lb_endpoints

    assert [member.endpoint.health_check_config.hostname for member in members] == ["10.0.0.1:81", "Demo"]
    assert not any(member.endpoint.HasField("health_check_config") for member in unasked)


def test_slow_start() -> None:
    """A new endpoint gets its share by and by, where the service says so."""
    assert "least_request_lb_config" not in cluster()
    assert cluster(slow_start_seconds=30) == cluster()
    found = cluster("http://10.0.0.1", "http://10.0.0.2", slow_start_seconds=30)

    assert found["lb_policy"] == "LEAST_REQUEST"
    assert found["least_request_lb_config"]["slow_start_config"] == {"slow_start_window": "30s"}


def test_connections_of_clients_follow_the_configuration() -> None:
    """The cap is the listener's, so that it changes while Envoy runs, and changes nothing else."""
    few = a_config(listener={"max_connections": 7})
    before, after = (assemble.snapshot(config, TOPOLOGY) for config in (a_config(), few))
    first = listeners.listener(few).filter_chains[0].filters[0]
    limit = protos.connection_limit.ConnectionLimit()

    assert first.typed_config.Unpack(limit)
    assert limit.max_connections.value == 7
    assert [kind for kind in types.ORDER if after.version(kind) != before.version(kind)] == [types.LISTENER]
