"""Conditions of Envoy's loggers and local replies (config.accesslog.v3.AccessLogFilter)."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane import protos

Filter = protos.accesslog.AccessLogFilter
Comparison = protos.accesslog.ComparisonFilter


def compare_status(operator: protos.accesslog.ComparisonFilter.Op.ValueType, status: int) -> Filter:
    """On the response's status. The runtime key is required by the message and never set."""
    value = protos.runtime_uint32(status, "mgw.status")
    comparison = Comparison(op=operator, value=value)
    return Filter(status_code_filter=protos.accesslog.StatusCodeFilter(comparison=comparison))


def flagged(flags: Sequence[str]) -> Filter:
    """Whether the request has one of Envoy's flags."""
    return Filter(response_flag_filter=protos.accesslog.ResponseFlagFilter(flags=flags))


def on_header(header: protos.route_components.HeaderMatcher) -> Filter:
    """On a header of the request."""
    return Filter(header_filter=protos.accesslog.HeaderFilter(header=header))


def all_of(*filters: protos.accesslog.AccessLogFilter) -> Filter:
    """Envoy takes two or more."""
    return Filter(and_filter=protos.accesslog.AndFilter(filters=filters))


def any_of(*filters: protos.accesslog.AccessLogFilter) -> Filter:
    """The same."""
    return Filter(or_filter=protos.accesslog.OrFilter(filters=filters))
