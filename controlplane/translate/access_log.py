"""The access log: one JSON line a request on standard output.

A field read from dynamic metadata costs Envoy ten times one read from a header, found or not, and a line has many.
So the usual request has a logger of its own, which reads headers alone. A request with more to tell gets the full one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controlplane import protos
from controlplane.config.model import RequestLines
from controlplane.translate import masking
from controlplane.translate.conditions import all_of, any_of, compare_status, flagged, on_header
from controlplane.translate.formats import first_of
from controlplane.translate.headers import Header as Name
from controlplane.translate.headers import Key, Namespace, ResponseHeader

Comparison = protos.accesslog.ComparisonFilter
Filter = protos.accesslog.AccessLogFilter
Header = protos.route_components.HeaderMatcher


def _answered_or_sent(header: str) -> str:
    """The response's header, which is valid whatever failed; the request's if there is no response."""
    return first_of(("RESP", header), ("REQ", header))


def _of_verified(header: str) -> str:
    """The header of a verified caller, read only if the request was routed: then the header is ours. A request too
    malformed to be routed may still have the client's own reserved headers. In Envoy's expressions (CEL)."""
    return f"has(xds.route_name) && '{header}' in request.headers ? request.headers['{header}'] : 'anonymous'"


def _of_refused(key: str, header: str) -> str:
    """What authz said of a caller whom it knew and did not let pass; else the header of one whom it let pass."""
    return first_of(("DYNAMIC_METADATA", f"{Namespace.AUTHZ}:{key}"), ("CEL", _of_verified(header)))


def _of_verified_alone(header: str) -> str:
    """The same, and nothing for an anonymous caller: an expression that fails, for want of the header, has no value."""
    return f"request.headers[has(xds.route_name) ? '{header}' : '']"


HARMLESS = "^[A-Za-z0-9/._~*-]*$"
TOKEN_LIKE = "[A-Za-z0-9_-]{16}[.][A-Za-z0-9_-]*[.]|eyJ|ZXlK"
_PATH_IF_SEEN = (
    "has(xds.route_name) || "
    f"request.url_path.matches('{HARMLESS}') && !request.url_path.matches('{TOKEN_LIKE}') ? request.url_path : '***'"
)
"""The path if the request filter has seen it. A request that was too malformed for that shows its path only if there
can be nothing in it."""

FIELDS: dict[str, object] = {
    "timestamp": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "request_id": _answered_or_sent("X-REQUEST-ID"),
    "correlation_id": _answered_or_sent("X-CORRELATION-ID"),
    "user_id": _of_refused(Key.SUBJECT, Name.USER_ID),
    "tier": _of_refused(Key.TIER, Name.USER_TIER),
    "provider": first_of(
        ("DYNAMIC_METADATA", f"{Namespace.AUTHZ}:{Key.PROVIDER}"), ("CEL", _of_verified_alone(Name.USER_ISSUER))
    ),
    "method": "%REQ(:METHOD)%",
    "path": first_of(("DYNAMIC_METADATA", f"{Namespace.GATEWAY}:{Key.PATH}"), ("CEL", _PATH_IF_SEEN)),
    "query": f"%DYNAMIC_METADATA({Namespace.GATEWAY}:{Key.QUERY})%",
    "status": "%RESPONSE_CODE%",
    "duration_ms": "%DURATION%",
    "route": "%ROUTE_NAME%",
    "service": f"%METADATA(ROUTE:{Namespace.GATEWAY}:{Key.SERVICE})%",
    "error": f"%RESP({ResponseHeader.ERROR.upper()})%",
    "reason": f"%DYNAMIC_METADATA({Namespace.AUTHZ}:{Key.REASON})%",
    "missing": f"%DYNAMIC_METADATA({Namespace.AUTHZ}:{Key.MISSING})%",
    "ai_agent": True,
    "rule": f"%DYNAMIC_METADATA({Namespace.RATE_LIMIT}:{Key.RULE})%",
    "shadow": f"%DYNAMIC_METADATA({Namespace.RATE_LIMIT}:{Key.SHADOW})%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "upstream": "%UPSTREAM_HOST%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}
"""Null fields are left out; numbers and booleans keep their type."""

LISTENER_METADATA: dict[str, str] = {Key.ANONYMOUS: "anonymous"}
"""Text for a format to fall back on: a format cannot hold text itself."""
_ANONYMOUS = ("METADATA", f"LISTENER:{Namespace.GATEWAY}:{Key.ANONYMOUS}")

_ONLY_OF_REFUSED = ("reason", "missing")
_ONLY_TOLD_IN_FULL = ("query", "ai_agent", "error", "rule", "shadow")

SERVED_FIELDS: dict[str, object] = {
    **{name: value for name, value in FIELDS.items() if name not in _ONLY_OF_REFUSED},
    "user_id": f"%CEL({_of_verified(Name.USER_ID)})%",
    "tier": f"%CEL({_of_verified(Name.USER_TIER)})%",
    "provider": f"%CEL({_of_verified_alone(Name.USER_ISSUER)})%",
}
"""The fields of a request that a service served: its caller is in headers."""

FAILED_FIELDS: dict[str, object] = {**SERVED_FIELDS, "reason": FIELDS["reason"]}
"""The fields of a request that failed otherwise than by 401 to 403, as a caller over limit does all the time."""

_AGENTS = tuple(Header(name=name, present_match=True) for name in ("x-ai-agent", "ai-agent-id"))
_TELLING_PATHS = (
    Header(
        name=":path",
        string_match=protos.string_matcher.StringMatcher(
            safe_regex=protos.regex_matcher.RegexMatcher(regex=masking.SUSPICIOUS_PATH)
        ),
    ),
    Header(name=":path", string_match=protos.string_matcher.StringMatcher(prefix="/health")),
)
"""Requests with a query, with what may be a credential in the path, or of the gateway itself."""

USUAL_FIELDS: dict[str, object] = {
    **{name: value for name, value in SERVED_FIELDS.items() if name not in _ONLY_TOLD_IN_FULL},
    "request_id": "%REQ(X-REQUEST-ID)%",
    "correlation_id": "%REQ(X-CORRELATION-ID)%",
    # Ours by now: a request with a status below 400 has passed the request filter.
    "user_id": first_of(("REQ", "X-USER-ID"), _ANONYMOUS),
    "tier": first_of(("REQ", "X-USER-TIER"), _ANONYMOUS),
    "provider": "%REQ(X-USER-ISSUER)%",
    "path": "%PATH(NQ:PATH)%",
    "service": "%UPSTREAM_CLUSTER_RAW%",
}
"""The fields of a request that a service served and that has no query."""


PROTOCOL_ERROR = "DPE"
"""Envoy's flag for a client that breaks the protocol."""
OTHER_FLAGS = (
    *("LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI", "IH"),
    *("UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO"),
)
"""All others. A request that ends without a response has one: DC or DR if the client has gone."""


def access_logs(which: RequestLines = "all", may_be_shadowed: bool = True) -> list[protos.accesslog.AccessLog]:
    """One logger a level, and one more for agents' requests: a format cannot branch, but a logger has a filter.

    Every request meets every filter, so each first checks what is cheap and mostly false. Whether a shadow rule was
    exceeded is expensive to check, and not checked if there can be none. With `failed`, served requests have no logger.
    """
    failed = [
        *_of_unanswered(which),
        *_both_kinds("WARN", FIELDS, [_between(401, 403)]),
        *_both_kinds("WARN", FAILED_FIELDS, [any_of(_between(404, 499), compare_status(Comparison.EQ, 400))]),
        *_both_kinds("ERROR", FAILED_FIELDS, [compare_status(Comparison.GE, 500)]),
    ]
    return failed if which == "failed" else [*_of_served(may_be_shadowed), *failed]


def _of_served(may_be_shadowed: bool) -> list[protos.accesslog.AccessLog]:
    served = _between(100, 399)
    shadow, no_shadow = ([_shadow(True)], [_shadow(False)]) if may_be_shadowed else ([], [])
    usual = [served, *map(_is_not, _TELLING_PATHS), *map(_is_not, _AGENTS), *no_shadow]
    telling = [served, any_of(*map(on_header, _TELLING_PATHS), *shadow), *map(_is_not, _AGENTS)]
    return [
        _logger("INFO", USUAL_FIELDS, usual),
        _logger("INFO", _of_people(SERVED_FIELDS), telling),
        _logger("INFO", SERVED_FIELDS, [any_of(*map(on_header, _AGENTS)), served]),
    ]


def _of_unanswered(which: RequestLines) -> Iterator[protos.accesslog.AccessLog]:
    """Requests without a response: the client's fault, or the client has gone.

    A malformed HTTP/2 request has not even headers, so no condition on a header holds for it.
    """
    none = compare_status(Comparison.LE, 0)
    yield _logger("WARN", {**_of_people(SERVED_FIELDS), "error": "BAD_REQUEST"}, [none, flagged([PROTOCOL_ERROR])])
    if which == "all":
        yield _logger("INFO", _of_people(SERVED_FIELDS), [none, flagged(OTHER_FLAGS)])


def _of_people(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name != "ai_agent"}


def _both_kinds(level: str, fields: Mapping[str, object], when: list[Filter]) -> Iterator[protos.accesslog.AccessLog]:
    """People's requests and agents'."""
    yield _logger(level, _of_people(fields), [*when, *map(_is_not, _AGENTS)])
    yield _logger(level, fields, [*when, any_of(*map(on_header, _AGENTS))])


def _between(first: int, last: int) -> Filter:
    return all_of(compare_status(Comparison.LE, last), compare_status(Comparison.GE, first))


def _is_not(header: protos.route_components.HeaderMatcher) -> Filter:
    inverted = Header(name=header.name, invert_match=True)
    if header.HasField("string_match"):
        inverted.string_match.CopyFrom(header.string_match)
    else:
        inverted.present_match = header.present_match
    return on_header(inverted)


def _shadow(is_there: bool) -> Filter:
    """Whether a shadow rule was exceeded."""
    matcher = protos.metadata_matcher.MetadataMatcher(
        filter=Namespace.RATE_LIMIT,
        path=[protos.metadata_matcher.MetadataMatcher.PathSegment(key=Key.SHADOW)],
        # A log's filter does not look at the matcher's own `invert`.
        value=protos.value_matcher.ValueMatcher(present_match=is_there),
    )
    return Filter(
        metadata_filter=protos.accesslog.MetadataFilter(
            matcher=matcher, match_if_key_not_found=protos.boolean(not is_there)
        )
    )


def _logger(level: str, fields: Mapping[str, object], conditions: list[Filter]) -> protos.accesslog.AccessLog:
    """Writes a line if all conditions hold. Envoy takes two or more of them."""
    log = protos.stream_logger.StdoutAccessLog(
        log_format=protos.substitution.SubstitutionFormatString(
            json_format=protos.struct({"level": level, **fields}), omit_empty_values=True
        )
    )
    when = all_of(*conditions)
    return protos.accesslog.AccessLog(name="envoy.access_loggers.stdout", filter=when, typed_config=protos.any_of(log))
