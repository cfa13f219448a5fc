"""The access log: one JSON line a request on standard output."""

from __future__ import annotations

import json

from controlplane import protos
from controlplane.translate.answers import compare_status

Comparison = protos.accesslog.ComparisonFilter
Filter = protos.accesslog.AccessLogFilter

AUTHZ = "envoy.filters.http.ext_authz"


def _first_of(*operators: tuple[str, str]) -> str:
    """The first of these that has a value."""
    listed = [{"command": command, "param": param} for command, param in operators]
    return f"%COALESCE({json.dumps({'operators': listed})})%"


def _sent_or_answered(header: str) -> str:
    """The request's header; where it was too malformed to have one, its answer's."""
    return _first_of(("REQ", header), ("RESP", header))


FIELDS: dict[str, object] = {
    "timestamp": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "request_id": _sent_or_answered("X-REQUEST-ID"),
    "correlation_id": _sent_or_answered("X-CORRELATION-ID"),
    "user_id": f"%CEL('{AUTHZ}' in metadata.filter_metadata && 'subject' in metadata.filter_metadata['{AUTHZ}']"
    f" ? metadata.filter_metadata['{AUTHZ}']['subject'] : 'anonymous')%",
    "tier": f"%CEL('{AUTHZ}' in metadata.filter_metadata && 'tier' in metadata.filter_metadata['{AUTHZ}']"
    f" ? metadata.filter_metadata['{AUTHZ}']['tier'] : 'anonymous')%",
    "method": "%REQ(:METHOD)%",
    "path": _first_of(("DYNAMIC_METADATA", "mgw:path"), ("PATH", "NQ:PATH")),
    "query": "%DYNAMIC_METADATA(mgw:query)%",
    "status": "%RESPONSE_CODE%",
    "duration_ms": "%DURATION%",
    "route": "%ROUTE_NAME%",
    "service": "%METADATA(ROUTE:mgw:service)%",
    "error": "%RESP(X-GATEWAY-ERROR)%",
    "ai_agent": "%DYNAMIC_METADATA(mgw:ai_agent)%",
    "rule": "%DYNAMIC_METADATA(envoy.filters.http.ratelimit:rule)%",
    "shadow": "%DYNAMIC_METADATA(envoy.filters.http.ratelimit:shadow)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "upstream": "%UPSTREAM_HOST%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}
"""Null fields are left out; numbers and booleans keep their type."""


def access_logs() -> list[protos.accesslog.AccessLog]:
    """One logger a level: a format cannot branch, but a logger has a filter."""
    return [
        _logger("INFO", compare_status(Comparison.LE, 399)),
        _logger("WARN", _between(400, 499)),
        _logger("ERROR", compare_status(Comparison.GE, 500)),
    ]


def _between(low: int, high: int) -> Filter:
    bounds = [compare_status(Comparison.GE, low), compare_status(Comparison.LE, high)]
    return Filter(and_filter=protos.accesslog.AndFilter(filters=bounds))


def _logger(level: str, when: Filter) -> protos.accesslog.AccessLog:
    log = protos.stream_logger.StdoutAccessLog(
        log_format=protos.substitution.SubstitutionFormatString(
            json_format=protos.struct({"level": level, **FIELDS}), omit_empty_values=True
        )
    )
    return protos.accesslog.AccessLog(name="envoy.access_loggers.stdout", filter=when, typed_config=protos.any_of(log))
