"""The gateway's own responses: one JSON shape for every error that Envoy itself makes, with its status and code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controlplane import protos
from controlplane.translate import client_addresses, hosts, leases, local_rate_limit, rejections
from controlplane.translate.conditions import all_of, compare_status, flagged, on_header
from controlplane.translate.formats import first_of, valid_id
from controlplane.translate.headers import Header, Key, Mark, Namespace, ResponseHeader
from controlplane.translate.mutations import option

Filter = protos.accesslog.AccessLogFilter
Mapper = protos.hcm.ResponseMapper

BREAKER_FLAGS = ("UH", "UO")
"""No healthy upstream, and too many at once: what an open or half-open breaker, or a full queue, looks like."""
TIMEOUT_FLAGS = ("UT", "SI", "DT", "UMSDR")
UPSTREAM_FLAGS = ("UF", "UC", "UR", "LR", "UPE", "NC", "DF")

SERVICE = f"%METADATA(ROUTE:{Namespace.GATEWAY}:{Key.SERVICE})%"
RETRY_AFTER = f"%METADATA(ROUTE:{Namespace.GATEWAY}:{Key.RETRY_AFTER})%"
ALLOW = f"%METADATA(ROUTE:{Namespace.GATEWAY}:{Key.ALLOW})%"


def local_replies(version: str) -> protos.hcm.LocalReplyConfig:
    """The first mapper that matches decides. A response that none matches keeps its body: those of the services."""
    return protos.hcm.LocalReplyConfig(mappers=list(_mappers(version)))


def _mappers(version: str) -> Iterator[protos.hcm.ResponseMapper]:
    yield from _rejected_requests()
    yield from _marked_requests()
    yield _over_limit_again()
    yield from _health_without_control_plane(version)
    # Before the flags: a request that stalls has one of them as well.
    yield _error(_status(408), 408, "REQUEST_TIMEOUT", "The request did not arrive in time")
    # Before the breaker's flags: a failure that the retry budget did not allow to be repeated has UO as well.
    yield _error(flagged(TIMEOUT_FLAGS), 504, "TIMEOUT", f"No answer in time from service: {SERVICE}")
    yield _error(flagged(UPSTREAM_FLAGS), 502, "PROXY_ERROR", f"No answer from service: {SERVICE}")
    yield _error(
        flagged(BREAKER_FLAGS), 503, "CIRCUIT_BREAKER_OPEN", f"Circuit breaker open for service: {SERVICE}", RETRY_AFTER
    )
    yield _over_fallback_limit()
    yield _error(_details(client_addresses.DENIED), 403, "FORBIDDEN", "Not allowed from this address")
    # authz's own 403 keeps its body. Any other 403 is Envoy's, for an https:// URL over plain text.
    yield Mapper(filter=all_of(flagged(("UAEX",)), _status(403)))
    yield _error(_status(403), 400, "BAD_REQUEST", "The request is malformed")
    unreachable = all_of(flagged(("UAEX",)), _status(503))
    yield _error(unreachable, 503, "SERVICE_UNAVAILABLE", "Service temporarily unavailable", "1")
    for status, becomes, code, message in _BY_STATUS:
        retry_after = "1" if becomes == 503 else None
        yield _error(_status(status), becomes, code, message, retry_after)


def _over_limit_again() -> protos.hcm.ResponseMapper:
    """A 429 that leases.lua repeats. It adds the headers that the service sent with the first one."""
    seconds = f"%REQ({Header.OVER_LIMIT})%"
    body = f'{{"error":{{"code":"RATE_LIMITED","message":"Too many requests","retry_after":{seconds}}}}}'
    headers = {ResponseHeader.ERROR: "RATE_LIMITED", "retry-after": seconds}
    return _reply(on_header(rejections.marked(Mark.OVER_LIMIT)), 429, body, headers)


def _over_fallback_limit() -> protos.hcm.ResponseMapper:
    """A 429 as the rate-limit service would send it. Each bucket is refilled every second."""
    body = '{"error":{"code":"RATE_LIMITED","message":"Too many requests","retry_after":1}}'
    headers = {ResponseHeader.ERROR: "RATE_LIMITED", "retry-after": "1", ResponseHeader.REMAINING: "0"}
    return _reply(_status(local_rate_limit.STATUS), 429, body, headers)


def _rejected_requests() -> Iterator[protos.hcm.ResponseMapper]:
    """The errors of `routes.Rejection`: a cluster that does not exist, and the status chosen for that."""
    # Health is served without a host.
    nameless = all_of(on_header(hosts.absent()), flagged(("NC",)))
    for wrong in (on_header(leases.has(Header.BAD_REQUEST)), on_header(hosts.malformed()), nameless):
        yield _error(wrong, 400, "BAD_REQUEST", "The path or host is malformed or hides something")
    yield _error(all_of(flagged(("NC",)), _status(404)), 404, "NOT_FOUND", "No such route")
    not_allowed = _error(all_of(flagged(("NC",)), _status(500)), 405, "METHOD_NOT_ALLOWED", "Method not allowed here")
    not_allowed.headers_to_add.append(option("allow", ALLOW))
    yield not_allowed


def _marked_requests() -> Iterator[protos.hcm.ResponseMapper]:
    """What the request filter rejected on the headers alone. The first is what authz says of the same request."""
    marked = {mark: on_header(rejections.marked(mark)) for mark in (Mark.NO_TOKEN, Mark.BODY, Mark.FIELDS)}
    no_token = _error(marked[Mark.NO_TOKEN], 401, "UNAUTHORIZED", "Authentication required")
    no_token.headers_to_add.append(option("www-authenticate", "Bearer"))
    yield no_token
    yield _error(marked[Mark.BODY], 413, *_TOO_LARGE)
    yield _error(marked[Mark.FIELDS], 431, *_TOO_MANY_FIELDS)


_TOO_LARGE = ("PAYLOAD_TOO_LARGE", "The request body is too large")
_TOO_MANY_FIELDS = ("REQUEST_HEADERS_TOO_LARGE", "The request headers are too many or too large")
_BY_STATUS = (
    (400, 400, "BAD_REQUEST", "The request is malformed"),
    (404, 404, "NOT_FOUND", "No such route"),
    (413, 413, *_TOO_LARGE),
    (426, 426, "BAD_REQUEST", "The protocol version is not supported"),
    (431, 431, *_TOO_MANY_FIELDS),
    (500, 500, "INTERNAL_ERROR", "Internal error"),
    # Envoy's status for a transfer encoding that it does not know: the client's fault, so a 4xx.
    (501, 400, "BAD_REQUEST", "The request is malformed"),
    (502, 502, "PROXY_ERROR", "No answer from the service"),
    (503, 503, "SERVICE_UNAVAILABLE", "Service temporarily unavailable"),
    (504, 504, "TIMEOUT", "No answer in time from the service"),
)


def _health_without_control_plane(version: str) -> Iterator[protos.hcm.ResponseMapper]:
    """The control plane computes health. Without it Envoy still serves, and must not be taken out of rotation."""
    not_ready = '{"ready":false,"services":{},"dependencies":{"authz":false}}'
    yield _reply(all_of(_path("/health/ready"), flagged(("UAEX",))), 503, not_ready, {"retry-after": "1"})
    unreachable = (*BREAKER_FLAGS, *TIMEOUT_FLAGS, *UPSTREAM_FLAGS)
    replies = {
        "/health/ready": '{"ready":true,"services":{},"dependencies":{"authz":true,"controlplane":false}}',
        "/health": f'{{"status":"degraded","version":"{version}","uptime_seconds":0,"checks":{{}},'
        '"dependencies":{"controlplane":"unreachable"}}',
    }
    for path, body in replies.items():
        yield _reply(all_of(_path(path), flagged(unreachable)), 200, body, {})


def error_body(code: str, message: str) -> str:
    """The body of an error. Both texts are ours and need no escaping."""
    return f'{{"error":{{"code":"{code}","message":"{message}"}}}}'


def _error(
    when: Filter, status: int, code: str, message: str, retry_after: str | None = None
) -> protos.hcm.ResponseMapper:
    headers = {ResponseHeader.ERROR: code} | ({"retry-after": retry_after} if retry_after else {})
    result = _reply(when, status, error_body(code, message), headers)
    result.headers_to_add.extend(_ids())
    return result


def _reply(when: Filter, status: int, body: str, headers: Mapping[str, str]) -> protos.hcm.ResponseMapper:
    return Mapper(
        filter=when,
        status_code=protos.uint32(status),
        body_format_override=protos.substitution.SubstitutionFormatString(
            text_format_source=protos.base.DataSource(inline_string=body), content_type="application/json"
        ),
        headers_to_add=[option(name, value) for name, value in headers.items()],
    )


def _ids() -> Iterator[protos.base.HeaderValueOption]:
    """The request's ids if they are valid: one that failed before the request filter may have any as yet.

    The request id goes by way of a header of its own, because a correlation id that is missing has to be the same.
    """
    given = (valid_id(Header.CLIENT_REQUEST_ID), valid_id(Header.REQUEST_ID))
    yield option(ResponseHeader.ERROR_ID, first_of(*given, ("UNIQUE_ID", "")))
    yield option(Header.CORRELATION_ID, first_of(valid_id(Header.CORRELATION_ID)))


def _status(status: int) -> Filter:
    return compare_status(protos.accesslog.ComparisonFilter.EQ, status)


def _details(details: str) -> Filter:
    """A filter on what Envoy says of the response."""
    expression = protos.cel_filter.ExpressionFilter(expression=f"response.code_details == '{details}'")
    named = protos.accesslog.ExtensionFilter(name="cel", typed_config=protos.any_of(expression))
    return Filter(extension_filter=named)


def _path(path: str) -> Filter:
    matcher = protos.route_components.HeaderMatcher(
        name=":path", string_match=protos.string_matcher.StringMatcher(exact=path)
    )
    return on_header(matcher)
