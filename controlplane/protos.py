"""The one place of this package that imports Envoy's messages, under the names that Envoy's documentation uses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any as JsonValue

from google.protobuf import any_pb2, duration_pb2, empty_pb2, json_format, struct_pb2, wrappers_pb2
from google.protobuf.internal import api_implementation
from google.protobuf.message import Message

from envoy_api.envoy.config.accesslog.v3 import accesslog_pb2 as accesslog
from envoy_api.envoy.config.bootstrap.v3 import bootstrap_pb2 as bootstrap
from envoy_api.envoy.config.cluster.v3 import circuit_breaker_pb2 as circuit_breaker
from envoy_api.envoy.config.cluster.v3 import cluster_pb2 as cluster
from envoy_api.envoy.config.cluster.v3 import outlier_detection_pb2 as outlier_detection
from envoy_api.envoy.config.common.mutation_rules.v3 import mutation_rules_pb2 as mutation_rules
from envoy_api.envoy.config.core.v3 import address_pb2 as address
from envoy_api.envoy.config.core.v3 import base_pb2 as base
from envoy_api.envoy.config.core.v3 import config_source_pb2 as config_source
from envoy_api.envoy.config.core.v3 import extension_pb2 as extension
from envoy_api.envoy.config.core.v3 import grpc_service_pb2 as grpc_service
from envoy_api.envoy.config.core.v3 import health_check_pb2 as health_check
from envoy_api.envoy.config.core.v3 import protocol_pb2 as protocol
from envoy_api.envoy.config.core.v3 import substitution_format_string_pb2 as substitution
from envoy_api.envoy.config.endpoint.v3 import endpoint_components_pb2 as endpoint_components
from envoy_api.envoy.config.endpoint.v3 import endpoint_pb2 as endpoint
from envoy_api.envoy.config.listener.v3 import listener_components_pb2 as listener_components
from envoy_api.envoy.config.listener.v3 import listener_pb2 as listener
from envoy_api.envoy.config.ratelimit.v3 import rls_pb2 as rls_config
from envoy_api.envoy.config.route.v3 import route_components_pb2 as route_components
from envoy_api.envoy.config.route.v3 import route_pb2 as route
from envoy_api.envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2 as cel_filter
from envoy_api.envoy.extensions.access_loggers.stats.v3 import stats_pb2 as stats_logger
from envoy_api.envoy.extensions.access_loggers.stream.v3 import stream_pb2 as stream_logger
from envoy_api.envoy.extensions.common.matching.v3 import extension_matcher_pb2 as extension_matcher
from envoy_api.envoy.extensions.common.ratelimit.v3 import ratelimit_pb2 as local_ratelimit_descriptor
from envoy_api.envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2 as skip_action
from envoy_api.envoy.extensions.filters.http.body_size_limit.v3 import body_size_limit_pb2 as body_size_limit
from envoy_api.envoy.extensions.filters.http.buffer.v3 import buffer_pb2 as buffer_filter
from envoy_api.envoy.extensions.filters.http.composite.v3 import composite_pb2 as composite_filter
from envoy_api.envoy.extensions.filters.http.cors.v3 import cors_pb2 as cors_filter
from envoy_api.envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2 as ext_authz
from envoy_api.envoy.extensions.filters.http.fault.v3 import fault_pb2 as fault_filter
from envoy_api.envoy.extensions.filters.http.filter_chain.v3 import filter_chain_pb2 as filter_chain
from envoy_api.envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2 as header_mutation
from envoy_api.envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as jwt_authn
from envoy_api.envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2 as local_ratelimit
from envoy_api.envoy.extensions.filters.http.lua.v3 import lua_pb2 as lua_filter
from envoy_api.envoy.extensions.filters.http.rate_limit_quota.v3 import rate_limit_quota_pb2 as rate_limit_quota
from envoy_api.envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2 as ratelimit_filter
from envoy_api.envoy.extensions.filters.http.router.v3 import router_pb2 as router_filter
from envoy_api.envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2 as proxy_protocol
from envoy_api.envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2 as connection_limit
from envoy_api.envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm,
)
from envoy_api.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    header_mutation_pb2 as early_header_mutation,
)
from envoy_api.envoy.extensions.http.original_ip_detection.xff.v3 import xff_pb2 as xff
from envoy_api.envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2 as network_inputs
from envoy_api.envoy.extensions.request_id.uuid.v3 import uuid_pb2 as uuid_request_id
from envoy_api.envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2 as previous_hosts
from envoy_api.envoy.extensions.transport_sockets.tls.v3 import common_pb2 as tls_common
from envoy_api.envoy.extensions.transport_sockets.tls.v3 import tls_pb2 as tls
from envoy_api.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as http_protocol_options
from envoy_api.envoy.service.discovery.v3 import discovery_pb2 as discovery
from envoy_api.envoy.service.load_stats.v3 import lrs_pb2 as load_stats
from envoy_api.envoy.service.metrics.v3 import metrics_service_pb2 as metrics_service
from envoy_api.envoy.service.runtime.v3 import rtds_pb2 as rtds
from envoy_api.envoy.type.matcher.v3 import http_inputs_pb2 as http_inputs
from envoy_api.envoy.type.matcher.v3 import metadata_pb2 as metadata_matcher
from envoy_api.envoy.type.matcher.v3 import regex_pb2 as regex_matcher
from envoy_api.envoy.type.matcher.v3 import string_pb2 as string_matcher
from envoy_api.envoy.type.matcher.v3 import value_pb2 as value_matcher
from envoy_api.envoy.type.metadata.v3 import metadata_pb2 as metadata_key
from envoy_api.envoy.type.v3 import http_status_pb2 as http_status
from envoy_api.envoy.type.v3 import percent_pb2 as percent
from envoy_api.envoy.type.v3 import range_pb2 as ranges
from envoy_api.envoy.type.v3 import ratelimit_strategy_pb2 as ratelimit_strategy
from envoy_api.envoy.type.v3 import scope_pb2 as scope
from envoy_api.envoy.type.v3 import token_bucket_pb2 as token_bucket
from envoy_api.io.prometheus.client import metrics_pb2 as prometheus_metrics
from envoy_api.xds.core.v3 import extension_pb2 as xds_extension
from envoy_api.xds.type.matcher.v3 import matcher_pb2 as xds_matcher
from envoy_api.xds.type.matcher.v3 import regex_pb2 as xds_regex_matcher
from envoy_api.xds.type.matcher.v3 import string_pb2 as xds_string_matcher
from envoy_api.xds.type.v3 import typed_struct_pb2 as typed_struct

__all__ = [
    "accesslog",
    "address",
    "any_of",
    "base",
    "body_size_limit",
    "boolean",
    "bootstrap",
    "buffer_filter",
    "cel_filter",
    "circuit_breaker",
    "cluster",
    "composite_filter",
    "config_source",
    "connection_limit",
    "cors_filter",
    "discovery",
    "duration",
    "early_header_mutation",
    "empty",
    "endpoint",
    "endpoint_components",
    "ext_authz",
    "extension",
    "extension_matcher",
    "fault_filter",
    "filter_chain",
    "grpc_service",
    "hcm",
    "header_mutation",
    "health_check",
    "http_inputs",
    "http_protocol_options",
    "http_status",
    "jwt_authn",
    "listener",
    "listener_components",
    "load_stats",
    "local_ratelimit",
    "local_ratelimit_descriptor",
    "lua_filter",
    "message_to_dict",
    "metadata_key",
    "metadata_matcher",
    "metrics_service",
    "mutation_rules",
    "named",
    "network_inputs",
    "outlier_detection",
    "percent",
    "previous_hosts",
    "prometheus_metrics",
    "protocol",
    "proxy_protocol",
    "ranges",
    "rate_limit_quota",
    "ratelimit_filter",
    "ratelimit_strategy",
    "regex_matcher",
    "require_upb",
    "rls_config",
    "route",
    "route_components",
    "router_filter",
    "rtds",
    "runtime_uint32",
    "scope",
    "skip_action",
    "stats_logger",
    "stream_logger",
    "string_matcher",
    "struct",
    "substitution",
    "tls",
    "tls_common",
    "token_bucket",
    "typed_struct",
    "uint32",
    "uint64",
    "uuid_request_id",
    "value_matcher",
    "xds_extension",
    "xds_matcher",
    "xds_named",
    "xds_regex_matcher",
    "xds_string_matcher",
    "xff",
]

Any = any_pb2.Any


def require_upb() -> None:
    """The pure-Python protobuf runtime is 80 times slower and takes over silently: better not to start."""
    if api_implementation.Type() != "upb":
        raise RuntimeError(f"protobuf runs on {api_implementation.Type()!r}, not on upb: reinstall protobuf")


def any_of(message: Message) -> Any:
    """The message packed, byte-equal for equal messages (map fields sorted)."""
    packed = Any()
    packed.Pack(message, deterministic=True)
    return packed


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as protobuf has them."""
    value = duration_pb2.Duration()
    value.FromTimedelta(timedelta(seconds=seconds))
    return value


def empty() -> empty_pb2.Empty:
    """A message that says all by being there."""
    return empty_pb2.Empty()


def uint32(value: int) -> wrappers_pb2.UInt32Value:
    """An optional uint32 that is set."""
    return wrappers_pb2.UInt32Value(value=value)


def uint64(value: int) -> wrappers_pb2.UInt64Value:
    """An optional uint64 that is set."""
    return wrappers_pb2.UInt64Value(value=value)


def boolean(value: bool) -> wrappers_pb2.BoolValue:
    """An optional bool that is set."""
    return wrappers_pb2.BoolValue(value=value)


def named(name: str, message: Message) -> extension.TypedExtensionConfig:
    """A message as an extension under a name."""
    return extension.TypedExtensionConfig(name=name, typed_config=any_of(message))


def xds_named(name: str, message: Message) -> xds_extension.TypedExtensionConfig:
    """The same where xDS's own matchers want it."""
    return xds_extension.TypedExtensionConfig(name=name, typed_config=any_of(message))


def runtime_uint32(default: int, key: str) -> base.RuntimeUInt32:
    """A number that Envoy's runtime may override under `key`."""
    return base.RuntimeUInt32(default_value=default, runtime_key=key)


def struct(values: Mapping[str, object]) -> struct_pb2.Struct:
    """JSON values as a Struct."""
    result = struct_pb2.Struct()
    json_format.ParseDict(dict(values), result)
    return result


def message_to_dict(message: Message) -> dict[str, JsonValue]:
    """A message as JSON values, with the proto's own field names."""
    result: dict[str, JsonValue] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return result
