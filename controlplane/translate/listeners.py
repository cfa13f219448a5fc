"""The listener: where clients connect, and what happens to HTTP before the filter chain."""

from __future__ import annotations

from controlplane import __version__, protos
from controlplane.config.model import GatewayConfig
from controlplane.topology import Address
from controlplane.translate import access_log, filters, local_replies, rate_limit_quota
from controlplane.translate.clusters import ads
from controlplane.translate.endpoints import socket_address
from controlplane.translate.headers import Namespace
from controlplane.translate.jwt_authn import NO_KEYS, EnvoyKeys
from controlplane.translate.routes import ROUTE_CONFIG

Hcm = protos.hcm.HttpConnectionManager

LISTENER = "gateway"
NOBODY = protos.address.CidrRange(address_prefix="255.255.255.255", prefix_len=protos.uint32(32))
"""An empty list would mean Envoy's own idea of internal addresses."""
MAX_HEADERS_KIB = 60
REQUEST_HEADERS_TIMEOUT_SECONDS = 10
STREAM_IDLE_TIMEOUT_SECONDS = 300
CLIENT_IDLE_TIMEOUT_SECONDS = 600
CONNECTION_BUFFER_BYTES = 1 << 20


def listener(config: GatewayConfig, at: Address | None = None, keys: EnvoyKeys = NO_KEYS) -> protos.listener.Listener:
    """The one listener. `at` is where this Envoy wants it, the document's address if it does not say."""
    address = at or Address(config.listener.host, config.listener.port)
    chain = protos.listener_components.FilterChain(
        filters=[
            _connection_limit(config.listener.max_connections),
            protos.listener_components.Filter(
                name="envoy.filters.network.http_connection_manager",
                typed_config=protos.any_of(connection_manager(config, keys)),
            ),
        ]
    )
    return protos.listener.Listener(
        name=LISTENER,
        address=socket_address(address),
        filter_chains=[chain],
        metadata=protos.base.Metadata(filter_metadata={Namespace.GATEWAY: protos.struct(access_log.LISTENER_METADATA)}),
        per_connection_buffer_limit_bytes=protos.uint32(CONNECTION_BUFFER_BYTES),
    )


def _connection_limit(most: int) -> protos.listener_components.Filter:
    """Closes each further connection of a client at once.

    The bootstrap's overload manager has a limit too: what an Envoy can bear, which cannot change while it runs.
    """
    limit = protos.connection_limit.ConnectionLimit(stat_prefix="gateway", max_connections=protos.uint64(most))
    return protos.listener_components.Filter(
        name="envoy.filters.network.connection_limit", typed_config=protos.any_of(limit)
    )


def connection_manager(config: GatewayConfig, keys: EnvoyKeys = NO_KEYS) -> protos.hcm.HttpConnectionManager:
    """How the gateway speaks HTTP with clients."""
    return Hcm(
        stat_prefix="gateway",
        rds=protos.hcm.Rds(config_source=ads(), route_config_name=ROUTE_CONFIG),
        http_filters=filters.http_filters(config, keys),
        local_reply_config=local_replies.local_replies(__version__),
        access_log=access_log.access_logs(config.log.requests, may_be_shadowed=not rate_limit_quota.is_used(config)),
        use_remote_address=protos.boolean(True),
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
                protos.early_header_mutation.HeaderMutation(mutations=filters.early_mutations()),
            )
        ],
        server_header_transformation=Hcm.PASS_THROUGH,
        max_request_headers_kb=protos.uint32(MAX_HEADERS_KIB),
        request_headers_timeout=protos.duration(REQUEST_HEADERS_TIMEOUT_SECONDS),
        stream_idle_timeout=protos.duration(STREAM_IDLE_TIMEOUT_SECONDS),
        common_http_protocol_options=protos.protocol.HttpProtocolOptions(
            idle_timeout=protos.duration(CLIENT_IDLE_TIMEOUT_SECONDS)
        ),
        http_protocol_options=protos.protocol.Http1ProtocolOptions(
            # An upgrade is declined by serving the request without it (RFC 9110, section 7.8), not by a 403.
            ignore_http_11_upgrade=[
                protos.string_matcher.StringMatcher(safe_regex=protos.regex_matcher.RegexMatcher(regex=".*"))
            ]
        ),
        # A malformed request gets a 400 with a body instead of a closed connection.
        stream_error_on_invalid_http_message=protos.boolean(False),
    )
