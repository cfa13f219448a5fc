"""The listener: where clients connect, and what happens to HTTP before the filter chain."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from controlplane import __version__, protos
from controlplane.config.model import GatewayConfig, Listener
from controlplane.topology import Address
from controlplane.translate import (
    access_log,
    early_headers,
    filters,
    forwarded_for,
    hosts,
    local_replies,
    peers,
    rate_limit_quota,
)
from controlplane.translate.clusters import ads
from controlplane.translate.endpoints import socket_address
from controlplane.translate.headers import Namespace
from controlplane.translate.jwt_authn import NO_KEYS, EnvoyKeys
from controlplane.translate.routes import ROUTE_CONFIG

Hcm = protos.hcm.HttpConnectionManager

LISTENER = "gateway"
NOBODY = protos.address.CidrRange(address_prefix="255.255.255.255", prefix_len=protos.uint32(32))
"""An empty list would mean Envoy's own idea of internal addresses."""
OUR_FIELDS = 50
"""Room for the header fields that the gateway itself adds. ext_authz counts all against Envoy's limit."""
STREAM_IDLE_TIMEOUT_SECONDS = 300
CLIENT_IDLE_TIMEOUT_SECONDS = 600
CONNECTION_BUFFER_BYTES = 32 << 10
"""What Envoy holds of a body that nobody reads yet, and of a response that the client does not take."""


def listener(config: GatewayConfig, at: Address | None = None, keys: EnvoyKeys = NO_KEYS) -> protos.listener.Listener:
    """The one listener. `at` is where this Envoy wants it, the document's address if it does not say."""
    address = at or Address(config.listener.host, config.listener.port)
    result = protos.listener.Listener(
        name=LISTENER,
        address=bound(address),
        listener_filters=peers.listener_filters(config.listener),
        filter_chains=[_chain(each, keys) for each in peers.kinds(config)],
        metadata=metadata(),
        per_connection_buffer_limit_bytes=protos.uint32(CONNECTION_BUFFER_BYTES),
    )
    if config.listener.proxy_protocol:
        result.listener_filters_timeout.CopyFrom(protos.duration(peers.HEADER_TIMEOUT_SECONDS))
    return result


def metadata() -> protos.base.Metadata:
    """What the access log reads of a listener."""
    return protos.base.Metadata(filter_metadata={Namespace.GATEWAY: protos.struct(access_log.LISTENER_METADATA)})


def bound(address: Address) -> protos.address.Address:
    """Where to listen. `::` is every address of the machine, the IPv4 ones too."""
    result = socket_address(address)
    result.socket_address.ipv4_compat = address.host == "::"
    return result


def _chain(kind: peers.Peers, keys: EnvoyKeys) -> protos.listener_components.FilterChain:
    """What a connection of one kind of peer passes."""
    return protos.listener_components.FilterChain(
        name=kind.name,
        filter_chain_match=kind.match,
        filters=[
            connection_limit(kind.config.listener.max_connections),
            protos.listener_components.Filter(
                name="envoy.filters.network.http_connection_manager",
                typed_config=protos.any_of(connection_manager(kind.config, keys)),
            ),
        ],
    )


def connection_limit(most: int, prefix: str = LISTENER) -> protos.listener_components.Filter:
    """Closes each further connection of a client at once.

    The bootstrap's overload manager has a limit too: what an Envoy can bear, which cannot change while it runs.
    """
    limit = protos.connection_limit.ConnectionLimit(stat_prefix=prefix, max_connections=protos.uint64(most))
    return protos.listener_components.Filter(
        name="envoy.filters.network.connection_limit", typed_config=protos.any_of(limit)
    )


def connection_manager(
    config: GatewayConfig, keys: EnvoyKeys = NO_KEYS, chain: Sequence[protos.hcm.HttpFilter] | None = None
) -> protos.hcm.HttpConnectionManager:
    """How the gateway speaks HTTP with clients. `chain` is for other filters than those that clients' requests pass."""
    return Hcm(
        stat_prefix="gateway",
        rds=protos.hcm.Rds(config_source=ads(), route_config_name=ROUTE_CONFIG),
        http_filters=filters.http_filters(config, keys) if chain is None else chain,
        local_reply_config=local_replies.local_replies(__version__),
        access_log=[
            *access_log.access_logs(config.log.requests, may_be_shadowed=not rate_limit_quota.is_used(config)),
            *([forwarded_for.counter()] if forwarded_for.are_proxies_trusted(config.listener) else []),
        ],
        use_remote_address=protos.boolean(not config.listener.trusted_cidrs),
        original_ip_detection_extensions=peers.detection(config.listener),
        xff_num_trusted_hops=config.listener.trusted_hops,
        # Envoy would append its own address for a client on loopback; the filter chain appends the client's.
        skip_xff_append=True,
        # Nobody is internal, whatever their address: an internal client could set Envoy's own x-envoy-* headers.
        internal_address_config=Hcm.InternalAddressConfig(unix_sockets=False, cidr_ranges=[NOBODY]),
        generate_request_id=protos.boolean(True),
        preserve_external_request_id=False,
        request_id_extension=protos.hcm.RequestIDExtension(
            typed_config=protos.any_of(
                protos.uuid_request_id.UuidRequestIdConfig(pack_trace_reason=protos.boolean(False))
            )
        ),
        early_header_mutation_extensions=[
            protos.named(
                "envoy.http.early_header_mutation.header_mutation",
                protos.early_header_mutation.HeaderMutation(mutations=early_headers.mutations(config)),
            )
        ],
        server_header_transformation=Hcm.PASS_THROUGH,
        max_request_headers_kb=protos.uint32(2 * config.listener.max_header_kib),
        request_headers_timeout=protos.duration(config.listener.headers_timeout_seconds),
        request_timeout=_request_timeout(config.listener),
        stream_idle_timeout=protos.duration(STREAM_IDLE_TIMEOUT_SECONDS),
        # Envoy's own 100 would ask for the body before anybody has decided. The upstream's is passed on.
        proxy_100_continue=True,
        common_http_protocol_options=_for_both_protocols(config.listener),
        http_protocol_options=_http1(config.listener),
        http2_protocol_options=_http2(config.listener),
        # A malformed request gets a 400 with a body instead of a closed connection.
        stream_error_on_invalid_http_message=protos.boolean(False),
    )


def _request_timeout(listener: Listener) -> Duration:
    """0 is none (`HttpConnectionManager.request_timeout`)."""
    seconds = listener.request_timeout_seconds
    return protos.duration(0 if seconds == "none" else seconds)


def _for_both_protocols(listener: Listener) -> protos.protocol.HttpProtocolOptions:
    """The codecs let twice the fields pass: the request filter answers what is between. See `early_headers`."""
    return protos.protocol.HttpProtocolOptions(
        idle_timeout=protos.duration(CLIENT_IDLE_TIMEOUT_SECONDS),
        headers_with_underscores_action=early_headers.underscores(listener),
        max_headers_count=protos.uint32(2 * listener.max_headers + OUR_FIELDS),
    )


def _http1(listener: Listener) -> protos.protocol.Http1ProtocolOptions:
    every = protos.string_matcher.StringMatcher(safe_regex=protos.regex_matcher.RegexMatcher(regex=".*"))
    return protos.protocol.Http1ProtocolOptions(
        accept_http_10=listener.http10,
        # Without a Host, HTTP/1.0 is served on the gateway's own paths alone.
        default_host_for_http_10=hosts.NONE if listener.http10 else "",
        # An upgrade is declined by serving the request without it (RFC 9110, section 7.8), not by a 403.
        ignore_http_11_upgrade=[every],
    )


def _http2(listener: Listener) -> protos.protocol.Http2ProtocolOptions:
    return protos.protocol.Http2ProtocolOptions(
        max_concurrent_streams=protos.uint32(listener.http2.max_concurrent_streams),
        initial_stream_window_size=protos.uint32(listener.http2.stream_window_bytes),
        initial_connection_window_size=protos.uint32(listener.http2.connection_window_bytes),
        # A malformed request ends its own stream. Envoy would end the connection, and with it the others' requests.
        override_stream_error_on_invalid_http_message=protos.boolean(True),
        # Envoy's 64 KiB for one field would end the connection before the limit for all is reached.
        max_header_field_size_kb=protos.uint32(2 * listener.max_header_kib),
    )
