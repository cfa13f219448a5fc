"""The access log: one JSON line a request on standard output.

A field read from dynamic metadata costs Envoy ten times one read from a header, found or not, and a line has many.
So the usual request has a logger of its own, which reads headers alone; whatever has more to tell takes the full one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from controlplane import protos
from controlplane.config.model import RequestLines
from controlplane.translate.local_replies import compare_status

Comparison = protos.accesslog.ComparisonFilter
Filter = protos.accesslog.AccessLogFilter
Header = protos.route_components.HeaderMatcher


def _first_of(*operators: tuple[str, str]) -> str:
    """The first of these that has a value."""
    listed = [{"command": command, "param": param} for command, param in operators]
    return f"%COALESCE({json.dumps({'operators': listed})})%"


def _sent_or_answered(header: str) -> str:
    """The request's header; where it was too malformed to have one, its answer's."""
    return _first_of(("REQ", header), ("RESP", header))


def _of_verified(header: str) -> str:
    """The header of a verified caller. It is ours on a request that was routed: one too malformed for that, whose
    reserved headers may still be the client's own, has no route."""
    return f"%CEL(has(xds.route_name) && '{header}' in request.headers ? request.headers['{header}'] : 'anonymous')%"


FIELDS: dict[str, object] = {
    "timestamp": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "request_id": _sent_or_answered("X-REQUEST-ID"),
    "correlation_id": _sent_or_answered("X-CORRELATION-ID"),
    "user_id": _of_verified("x-user-id"),
    "tier": _of_verified("x-user-tier"),
    "method": "%REQ(:METHOD)%",
    "path": _first_of(("DYNAMIC_METADATA", "mgw:path"), ("PATH", "NQ:PATH")),
    "query": "%DYNAMIC_METADATA(mgw:query)%",
    "status": "%RESPONSE_CODE%",
    "duration_ms": "%DURATION%",
    "route": "%ROUTE_NAME%",
    "service": "%METADATA(ROUTE:mgw:service)%",
    "error": "%RESP(X-GATEWAY-ERROR)%",
    "ai_agent": True,
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

LISTENER_METADATA = {"anonymous": "anonymous"}
"""Text that a format falls back on: it cannot hold any by itself."""

_ONLY_TOLD_IN_FULL = ("query", "ai_agent", "error", "rule", "shadow")
_OF_PEOPLE = {name: value for name, value in FIELDS.items() if name != "ai_agent"}
_AGENTS = tuple(Header(name=name, present_match=True) for name in ("x-ai-agent", "ai-agent-id"))
_TELLING_PATHS = (
    Header(name=":path", string_match=protos.string_matcher.StringMatcher(contains="?")),
    Header(name=":path", string_match=protos.string_matcher.StringMatcher(contains="eyJ")),
    Header(name=":path", string_match=protos.string_matcher.StringMatcher(prefix="/health")),
)
"""Requests with a query, with what may be a token in the path, or of the gateway itself."""

USUAL_FIELDS: dict[str, object] = {
    **{name: value for name, value in FIELDS.items() if name not in _ONLY_TOLD_IN_FULL},
    "request_id": "%REQ(X-REQUEST-ID)%",
    "correlation_id": "%REQ(X-CORRELATION-ID)%",
    # Ours by now: a request that got an answer below 400 has passed the front door.
    "user_id": _first_of(("REQ", "X-USER-ID"), ("METADATA", "LISTENER:mgw:anonymous")),
    "tier": _first_of(("REQ", "X-USER-TIER"), ("METADATA", "LISTENER:mgw:anonymous")),
    "path": "%PATH(NQ:PATH)%",
    "service": "%UPSTREAM_CLUSTER_RAW%",
}
"""The same for a request that was served by a service and has no query."""


def access_logs(which: RequestLines = "all", may_be_shadowed: bool = True) -> list[protos.accesslog.AccessLog]:
    """One logger a level, and one more where an agent asks: a format cannot branch, but a logger has a filter.

    Every request meets every filter, so each asks first what is cheap and mostly false. Whether a shadow rule would
    have refused is dear to ask, and left out where there can be none. What nobody wants to read has no logger.
    """
    failed = [
        *_both_kinds("WARN", [compare_status(Comparison.GE, 400), compare_status(Comparison.LE, 499)]),
        *_both_kinds("ERROR", [compare_status(Comparison.GE, 500)]),
    ]
    return failed if which == "failed" else [*_of_served(may_be_shadowed), *failed]


def _of_served(may_be_shadowed: bool) -> list[protos.accesslog.AccessLog]:
    served = compare_status(Comparison.LE, 399)
    shadow, no_shadow = ([_shadow(True)], [_shadow(False)]) if may_be_shadowed else ([], [])
    usual = [served, *map(_is_not, _TELLING_PATHS), *map(_is_not, _AGENTS), *no_shadow]
    telling = [served, _any_of([*map(_is, _TELLING_PATHS), *shadow]), *map(_is_not, _AGENTS)]
    return [
        _logger("INFO", USUAL_FIELDS, usual),
        _logger("INFO", _OF_PEOPLE, telling),
        _logger("INFO", FIELDS, [_any_of([*map(_is, _AGENTS)]), served]),
    ]


def _both_kinds(level: str, when: list[Filter]) -> Iterator[protos.accesslog.AccessLog]:
    """People's requests and agents'."""
    yield _logger(level, _OF_PEOPLE, [*when, *map(_is_not, _AGENTS)])
    yield _logger(level, FIELDS, [*when, _any_of([*map(_is, _AGENTS)])])


def _is(header: protos.route_components.HeaderMatcher) -> Filter:
    return Filter(header_filter=protos.accesslog.HeaderFilter(header=header))


def _is_not(header: protos.route_components.HeaderMatcher) -> Filter:
    inverted = Header(name=header.name, invert_match=True)
    if header.HasField("string_match"):
        inverted.string_match.CopyFrom(header.string_match)
    else:
        inverted.present_match = header.present_match
    return _is(inverted)


def _shadow(is_there: bool) -> Filter:
    """Whether a shadow rule would have refused."""
    matcher = protos.metadata_matcher.MetadataMatcher(
        filter="envoy.filters.http.ratelimit",
        path=[protos.metadata_matcher.MetadataMatcher.PathSegment(key="shadow")],
        # A log's filter does not look at the matcher's own `invert`.
        value=protos.value_matcher.ValueMatcher(present_match=is_there),
    )
    return Filter(
        metadata_filter=protos.accesslog.MetadataFilter(
            matcher=matcher, match_if_key_not_found=protos.boolean(not is_there)
        )
    )


def _any_of(filters: list[Filter]) -> Filter:
    return Filter(or_filter=protos.accesslog.OrFilter(filters=filters))


def _logger(level: str, fields: dict[str, object], conditions: list[Filter]) -> protos.accesslog.AccessLog:
    """What writes a line where all of these hold. There are two or more: Envoy takes no fewer."""
    log = protos.stream_logger.StdoutAccessLog(
        log_format=protos.substitution.SubstitutionFormatString(
            json_format=protos.struct({"level": level, **fields}), omit_empty_values=True
        )
    )
    when = Filter(and_filter=protos.accesslog.AndFilter(filters=conditions))
    return protos.accesslog.AccessLog(name="envoy.access_loggers.stdout", filter=when, typed_config=protos.any_of(log))
