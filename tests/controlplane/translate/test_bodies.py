"""Bodies: what a route takes, and where Envoy counts it."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.config.model import GatewayConfig
from controlplane.translate import bodies
from controlplane.translate.routes import route_configuration
from tests.support.configs import a_config, a_route, rich_config


def inner(settings: protos.Any) -> list[tuple[str, int]]:
    """The filters of an inner chain, with the limit of each."""
    found: dict[str, Any] = protos.message_to_dict(settings)
    return [
        (each["name"].rpartition(".")[2], int(each["typed_config"]["max_request_bytes"]))
        for each in found["filter_chain"]["filters"]
    ]


def settings_of(config: GatewayConfig) -> dict[str, list[tuple[str, int]]]:
    """What each route says itself, and under "" what holds for the others."""
    (host,) = route_configuration(config).virtual_hosts
    own = {route.name: route.typed_per_filter_config for route in host.routes}
    own[""] = host.typed_per_filter_config
    names = {route.name for route in config.routes} | {""}
    return {name: inner(each[bodies.BODY]) for name, each in own.items() if name in names and bodies.BODY in each}


def test_limits_of_routes() -> None:
    """The document's holds for all routes; one with its own has that, and nothing is held."""
    assert settings_of(rich_config()) == {
        "": [("body_size_limit", 65_536)],
        "book-add": [("body_size_limit", 1_048_576)],
        "files": [("body_size_limit", 1000)],
    }


@pytest.mark.parametrize(("own", "limit"), [({}, 10), ({"max_request_bytes": 20}, 20)])
def test_a_held_body(own: dict[str, Any], limit: int) -> None:
    """The limit counts before the buffer, which holds as much."""
    config = a_config(listener={"max_request_bytes": 10}, routes=[a_route("r", "/r", buffer_request=True, **own)])

    assert settings_of(config)["r"] == [("body_size_limit", limit), ("buffer", limit)]


def test_a_changed_limit_moves_no_listener() -> None:
    """It is in the routes alone: connections and requests in progress do not notice."""
    chains = [
        bodies.body().SerializeToString()
        for _ in (a_config(listener={"max_request_bytes": 1}), a_config(listener={"max_request_bytes": 2}))
    ]

    assert chains[0] == chains[1] == b""


def test_what_does_not_exist_has_no_limit() -> None:
    """404 and 405 come before 413."""
    (host,) = route_configuration(a_config()).virtual_hosts
    off = protos.route_components.FilterConfig(disabled=True)

    own = [route for route in host.routes if route.route.cluster == "mgw-none" or route.name.startswith("mgw-")]
    assert own
    assert all(route.typed_per_filter_config[bodies.BODY] == protos.any_of(off) for route in own)


def test_a_repeated_request_has_its_whole_body_again() -> None:
    """Envoy keeps as much of it as the route takes, on routes with retries alone."""
    kept = {
        route.name: route.request_body_buffer_limit.value
        for route in route_configuration(rich_config()).virtual_hosts[0].routes
        if route.HasField("request_body_buffer_limit")
    }

    assert kept["files"] == 1000
    assert "book-add" not in kept
