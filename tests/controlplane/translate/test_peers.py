"""Trusted proxies and everybody else: a filter chain for each."""

from __future__ import annotations

import os
from typing import Any

import pytest

from controlplane import protos
from controlplane.config import envoy_validate
from controlplane.translate import assemble, listeners
from tests.support.configs import TOPOLOGY, a_config

CIDRS = ["10.0.0.0/8", "2001:db8::/32", "10.0.0.0/8"]
RANGES = [{"address_prefix": "10.0.0.0", "prefix_len": 8}, {"address_prefix": "2001:db8::", "prefix_len": 32}]


def chains(**listener: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each chain's match, and its connection manager."""
    found = protos.message_to_dict(listeners.listener(a_config(listener=listener)))
    return [
        (each.get("filter_chain_match", {}), each["filters"][-1]["typed_config"]) for each in found["filter_chains"]
    ]


def believes(manager: dict[str, Any]) -> bool:
    """Whether it looks for the client in X-Forwarded-For."""
    return "original_ip_detection_extensions" in manager and not manager["use_remote_address"]


def test_without_a_list_there_is_one_chain() -> None:
    """For everybody."""
    ((match, manager),) = chains(trusted_hops=1)

    assert match == {}
    assert manager["use_remote_address"]
    assert not believes(manager)


def test_with_a_list_there_are_two() -> None:
    """Proxies are believed, others are as with a document that trusts nobody."""
    (proxies, trusting), (others, wary) = chains(trusted_cidrs=CIDRS)
    ((_, nobody),) = chains()

    assert (proxies, others) == ({"direct_source_prefix_ranges": RANGES}, {})
    assert believes(trusting)
    assert wary == nobody


def test_behind_a_proxy_protocol_nobody_else_has_a_chain() -> None:
    """A proxy behind the proxy is believed, a client is not, and no other connection is served."""
    (proxies, trusting), (clients, wary) = chains(trusted_cidrs=CIDRS, proxy_protocol=True)
    direct = {"direct_source_prefix_ranges": RANGES}

    assert (proxies, clients) == (direct | {"source_prefix_ranges": RANGES}, direct)
    assert (believes(trusting), believes(wary)) == (True, False)


@pytest.mark.parametrize("listener", [{"trusted_cidrs": CIDRS}, {"trusted_cidrs": CIDRS, "proxy_protocol": True}])
@pytest.mark.parametrize("verified_by", ["authz_service", "envoy"])
async def test_envoy_takes_it(listener: dict[str, Any], verified_by: str) -> None:
    """The pinned Envoy accepts every form."""
    config = a_config(listener=listener | {"keep_underscores": True, "host": "::"})
    config = config.model_copy(update={"auth": config.auth.model_copy(update={"verified_by": verified_by})})

    bootstrap = assemble.static_bootstrap(config, TOPOLOGY)

    assert await envoy_validate.judge(envoy_validate.find(os.environ), bootstrap) is None
