"""Who is connected: a trusted proxy, or anybody.

With `trusted_cidrs` each kind has a filter chain of its own. Envoy takes a list of trusted addresses only together with
`use_remote_address: false`, which would let anybody else say how it came. So all others get the chain of a document
that trusts nobody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from controlplane import protos
from controlplane.config.model import GatewayConfig, Listener

Match = protos.listener_components.FilterChainMatch
HEADER_TIMEOUT_SECONDS = 10
"""So long a connection may take to say its PROXY header."""


class Peers(NamedTuple):
    """One kind of peer: how Envoy knows it, and the document that holds for it."""

    name: str
    match: protos.listener_components.FilterChainMatch
    config: GatewayConfig


def kinds(config: GatewayConfig) -> Iterator[Peers]:
    """All kinds. A connection that is of none is closed."""
    listener = config.listener
    if not listener.trusted_cidrs:
        yield Peers("", Match(), config)
        return
    proxies = ranges(listener.trusted_cidrs)
    anybody = _trusting_nobody(config)
    if listener.proxy_protocol:
        # The header's address is the source. If that is a proxy too, it has written X-Forwarded-For.
        yield Peers("proxies", Match(direct_source_prefix_ranges=proxies, source_prefix_ranges=proxies), config)
        yield Peers("clients", Match(direct_source_prefix_ranges=proxies), anybody)
    else:
        yield Peers("proxies", Match(direct_source_prefix_ranges=proxies), config)
        yield Peers("clients", Match(), anybody)


def _trusting_nobody(config: GatewayConfig) -> GatewayConfig:
    nobody: dict[str, object] = {"trusted_cidrs": [], "trusted_hops": 0}
    return config.model_copy(update={"listener": config.listener.model_copy(update=nobody)})


def ranges(cidrs: Sequence[str]) -> list[protos.address.CidrRange]:
    """Networks as Envoy has them, each once."""
    networks = [ipaddress.ip_network(each) for each in dict.fromkeys(cidrs)]
    return [
        protos.address.CidrRange(address_prefix=str(each.network_address), prefix_len=protos.uint32(each.prefixlen))
        for each in networks
    ]


def detection(listener: Listener) -> list[protos.extension.TypedExtensionConfig]:
    """How the client is found among trusted addresses."""
    if not listener.trusted_cidrs:
        return []
    trusted = protos.xff.XffTrustedCidrs(cidrs=ranges(listener.trusted_cidrs))
    config = protos.xff.XffConfig(xff_trusted_cidrs=trusted, skip_xff_append=protos.boolean(True))
    return [protos.named("envoy.http.original_ip_detection.xff", config)]


def listener_filters(listener: Listener) -> list[protos.listener_components.ListenerFilter]:
    """What reads a connection before it is known whose it is."""
    if not listener.proxy_protocol:
        return []
    name = "envoy.filters.listener.proxy_protocol"
    reader = protos.any_of(protos.proxy_protocol.ProxyProtocol())
    return [protos.listener_components.ListenerFilter(name=name, typed_config=reader)]
