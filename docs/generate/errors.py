"""docs/reference/errors.md: every error that the gateway itself returns."""

from __future__ import annotations

import re
from collections.abc import Mapping

from authz_service.decision import ErrorCode
from controlplane.translate.local_replies import local_replies
from docs.generate.markdown import page, table

INTRODUCTION = """\
Every error that the gateway itself makes has one shape, the request ids, and the CORS headers of its route:

```json
{"error": {"code": "NOT_FOUND", "message": "No such route"}}
```

`RATE_LIMITED` also has `retry_after`, in whole seconds. A service's own errors pass through as they are.
"""

MEANINGS: Mapping[str, tuple[int, str]] = {
    "BAD_REQUEST": (
        400,
        "The request is malformed, or its path hides something: an encoded slash, a hidden dot segment.",
    ),
    "UNAUTHORIZED": (401, "The route requires a token, and there was none. With `WWW-Authenticate: Bearer`."),
    "AUTH_FAILED": (401, 'The token or key is not good. With `WWW-Authenticate: Bearer error="invalid_token"`.'),
    "FORBIDDEN": (
        403,
        "The caller is known, and the route asks for another tier, scope or claim. Where a scope is missing with "
        '`WWW-Authenticate: Bearer error="insufficient_scope", scope="…"`.',
    ),
    "NOT_FOUND": (404, "No route has the path."),
    "METHOD_NOT_ALLOWED": (405, "The path has routes, but not for the method. With `Allow`."),
    "REQUEST_TIMEOUT": (408, "The request's headers or body did not arrive in time."),
    "TIMEOUT": (504, "The service did not respond in time."),
    "PAYLOAD_TOO_LARGE": (413, "The body is larger than `max_request_bytes`."),
    "REQUEST_HEADERS_TOO_LARGE": (
        431,
        "The header fields are more than `max_headers` or larger than `max_header_kib`.",
    ),
    "RATE_LIMITED": (
        429,
        "The caller is over limit. With `Retry-After` and the `X-RateLimit-*` headers. Without the latter where the "
        "client tried too many wrong API keys (`auth.max_failures_per_minute`).",
    ),
    "INTERNAL_ERROR": (500, "A fault of the gateway's own."),
    "PROXY_ERROR": (502, "No connection to the service, or it broke the connection."),
    "CIRCUIT_BREAKER_OPEN": (503, "The service's breaker is open, or its queue is full. With `Retry-After`."),
    "SERVICE_UNAVAILABLE": (
        503,
        "The gateway cannot decide: the authz service, or the keys, are away. With `Retry-After`.",
    ),
}


def errors() -> str:
    """The page. Raises KeyError for a code that nothing is said of."""
    rows = sorted((MEANINGS[code][0], f"`{code}`", MEANINGS[code][1]) for code in codes())
    return page("Errors", [INTRODUCTION, table(("status", "code", "when"), [(str(row[0]), *row[1:]) for row in rows])])


def codes() -> set[str]:
    """The codes that the configuration and the services hold."""
    bodies = [mapper.body_format_override.text_format_source.inline_string for mapper in local_replies("0").mappers]
    return {code for body in bodies for code in re.findall(r'"code":"([A-Z_]+)"', body)} | {
        each.value for each in ErrorCode
    }
