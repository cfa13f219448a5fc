"""All resources together: what moves with what, and that they hold together."""

from __future__ import annotations

import pytest

from controlplane.errors import TranslationInconsistent
from controlplane.topology import Address, Topology
from controlplane.translate import assemble
from controlplane.xds import resources as types
from tests.support.configs import TOPOLOGY, WIDE_TOPOLOGY, a_config, a_service, rich_config


@pytest.mark.parametrize("topology", [TOPOLOGY, WIDE_TOPOLOGY])
def test_every_cluster_is_there(topology: Topology) -> None:
    """Clusters hold our own parts and the operator's services; endpoints, those that travel by EDS."""
    snapshot = assemble.snapshot(rich_config(), topology)

    assert set(snapshot.resources[types.CLUSTER]) == {
        "mgw-authz",
        "mgw-ratelimit",
        "mgw-health",
        "library",
        "partner",
        "sona",
    }
    assert set(snapshot.resources[types.ENDPOINT]) == {"library", "sona"}


def test_a_route_to_nowhere_is_our_own_fault() -> None:
    """A route to a cluster that does not exist stops the publication: Envoy itself would take it."""
    config = a_config()
    broken = config.model_copy(update={"routes": [config.routes[0].model_copy(update={"service": "gone"})]})

    with pytest.raises((TranslationInconsistent, KeyError)):
        assemble.snapshot(broken, TOPOLOGY)


@pytest.mark.parametrize(("urls", "others"), [("a", "b"), ("ab", "abc"), ("abc", "bc")])
def test_an_endpoint_changes_nothing_else(urls: str, others: str) -> None:
    """Another address, one more or one less moves the version of endpoints alone; another route, that of routes."""
    addresses = {"a": "http://10.0.0.1:8081", "b": "http://10.0.0.2:8081", "c": "http://10.0.0.3:8081"}
    services = [[a_service("demo", *(addresses[name] for name in names))] for names in (urls, others)]
    before, moved = (assemble.snapshot(a_config(services=listed), TOPOLOGY) for listed in services)
    rerouted = assemble.snapshot(a_config(services=services[0], routes=[]), TOPOLOGY)

    assert [kind for kind in types.ORDER if moved.version(kind) != before.version(kind)] == [types.ENDPOINT]
    assert [kind for kind in types.ORDER if rerouted.version(kind) != before.version(kind)] == [types.ROUTE]


def test_an_envoy_may_say_where_it_listens() -> None:
    """The address in a node's metadata comes before the document's; nothing else differs."""
    documents = assemble.snapshot(a_config(), TOPOLOGY)
    own = assemble.snapshot(a_config(), TOPOLOGY, Address("127.0.0.1", 9999))

    assert [kind for kind in types.ORDER if own.version(kind) != documents.version(kind)] == [types.LISTENER]
    assert b"127.0.0.1" in own.resources[types.LISTENER]["gateway"]
