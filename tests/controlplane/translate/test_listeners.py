"""The listener: where clients connect, how many, and what of HTTP is decided before the filters."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.translate import assemble, listeners
from controlplane.xds import resources as types
from tests.support.configs import TOPOLOGY, a_config, default_config, rich_config


def manager(**changes: Any) -> dict[str, Any]:
    return protos.message_to_dict(listeners.connection_manager(a_config(**changes)))


def test_the_listener() -> None:
    """The client's address is the connection's, nobody is internal, and Envoy's name stays out of responses."""
    found = manager(listener={"trusted_hops": 2})

    assert found["use_remote_address"] is True
    assert found["xff_num_trusted_hops"] == 2
    assert found["server_header_transformation"] == "PASS_THROUGH"
    assert found["internal_address_config"]["cidr_ranges"] == [{"address_prefix": "255.255.255.255", "prefix_len": 32}]
    assert found["rds"]["route_config_name"] == "gateway"


@pytest.mark.parametrize("config", [default_config(), rich_config()], ids=["default", "rich"])
def test_the_listener_is_where_the_document_says(config: Any) -> None:
    """Host and port are the document's."""
    address = listeners.listener(config).address.socket_address

    assert (address.address, address.port_value) == (config.listener.host, config.listener.port)


def test_connections_of_clients_follow_the_configuration() -> None:
    """The cap is the listener's, so that it changes while Envoy runs, and changes nothing else."""
    few = a_config(listener={"max_connections": 7})
    before, after = (assemble.snapshot(config, TOPOLOGY) for config in (a_config(), few))
    first = listeners.listener(few).filter_chains[0].filters[0]
    limit = protos.connection_limit.ConnectionLimit()

    assert first.typed_config.Unpack(limit)
    assert limit.max_connections.value == 7
    assert [kind for kind in types.ORDER if after.version(kind) != before.version(kind)] == [types.LISTENER]
