"""docs/reference/log.md: the fields of the access log, and the events that the processes log."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from authz_service.errors import Reason
from controlplane.translate.access_log import FIELDS
from controlplane.translate.masking import SECRET_NAMES, SECRET_WORDS
from docs.generate.markdown import page, table

ROOT = Path(__file__).resolve().parents[2]

MEANINGS: Mapping[str, str] = {
    "timestamp": "When the request arrived: RFC 3339, UTC, milliseconds.",
    "level": "`INFO` for a status under 400, `WARN` for 4xx, `ERROR` for 5xx.",
    "request_id": "The client's `X-Request-ID` if it is 1 to 128 characters of `[A-Za-z0-9._-]`, else a UUID.",
    "correlation_id": "The client's `X-Correlation-ID` under the same rule, else the request id.",
    "user_id": "The verified subject, on a 403 too, or `anonymous`.",
    "tier": "The caller's tier, or `anonymous`.",
    "provider": "Who vouches for the verified caller: the provider's name, or `apikey`.",
    "method": "The request's method.",
    "path": "The path as it was routed, without the query. What may be a credential is `***`; see below.",
    "query": "The query, where there is one. What may be a credential is `***`, unless `log.query` says otherwise.",
    "status": "The status that the client got; 0 where it got none.",
    "duration_ms": "From the first byte of the request to the last of the response, in milliseconds.",
    "route": "The route's name. Names that begin with `mgw-` are the gateway's own: not found, method not allowed.",
    "service": "The service that the route leads to.",
    "error": "The code of an error that the gateway itself returned; see [errors](errors.md).",
    "reason": "Why a request was refused with 401 or 403; one of [these](#reasons-of-the-authz-service).",
    "missing": "The scopes, or the names of the claims, that the caller of a 403 lacks, separated by spaces.",
    "ai_agent": "`true` where `X-AI-Agent` or `AI-Agent-ID` was sent; else absent.",
    "rule": "The rule that was over limit.",
    "shadow": "The shadow rules that would have been over limit.",
    "client": "The client's address, after trusted hops.",
    "upstream": "The endpoint that responded.",
    "flags": "Envoy's response flags, such as `UF` (no connection) or `UH` (no healthy endpoint).",
    "details": "Envoy's own words on how the response came about (`response_code_details`).",
    "bytes_received": "Bytes of the request's body.",
    "bytes_sent": "Bytes of the response's body.",
}

INTRODUCTION = """\
Envoy writes one JSON line a request on standard output. A field without a value is left out. No line holds a token, a
key or a whole header. `log: {requests: failed}` leaves out what was served.
"""

MASKED = """\
Each part of a path or query is decoded as often as it is encoded (`%2e`, `%252e`), and then its credentials are `***`.
A part without any is shown as it was sent.

- What looks like a token: signed or encrypted (JWS, JWE), plain or in base64, and what follows `Bearer`.
- The value of a parameter whose name holds one of {words}.
- The value of a parameter whose name is one of {names}, that of `auth.api_key_header`, or one of `log.mask_parameters`.

Case, `-` and `_` of a name do not count. A value has no certain end, so all behind it in the same part is masked too.
This holds for `a;token=b` in a path and for a URL inside a parameter. A request that was too malformed to be routed
shows its path only if nothing of this kind can be in it, and never its query.
"""

EVENTS = """\
The control plane and the two services log one JSON line an event on standard output, with `timestamp`, `level`,
`component` (`controlplane`, `authz`, `ratelimit`) and the fields below. On a terminal the lines are columns.
"""

LEVELS = ("debug", "info", "warning", "error", "exception", "critical")

REASONS = """\
The access log's `reason`, `check.denied` at level `debug`, and the metric `mgw_authz_decisions_total` say why a request
was allowed or denied:
"""


def log() -> str:
    """The page. Raises KeyError for a field that nothing is said of."""
    fields = [(f"`{name}`", MEANINGS[name]) for name in ("timestamp", "level", *FIELDS) if name != "timestamp"]
    fields.insert(0, ("`timestamp`", MEANINGS["timestamp"]))
    events = sorted(_events())
    reasons = ", ".join(f"`{reason.value}`" for reason in Reason)
    return page(
        "Logs",
        [
            "## Access log",
            INTRODUCTION,
            table(("field", "meaning"), fields),
            "## What is masked",
            MASKED.format(words=_listed(SECRET_WORDS), names=_listed(SECRET_NAMES)),
            "## Events",
            EVENTS,
            table(("event", "level", "fields", "written by"), events),
            "## Reasons of the authz service",
            REASONS + "\n" + reasons + ".",
        ],
    )


def _listed(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words))


def _events() -> Iterator[tuple[str, str, str, str]]:
    for package in ("controlplane", "authz_service", "ratelimit_service", "service_kit"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield from _events_of(path)


def _events_of(path: Path) -> Iterator[tuple[str, str, str, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        owner, first = node.func.value, node.args[0]
        if not (isinstance(owner, ast.Name) and owner.id in ("log", "logger") and isinstance(first, ast.Constant)):
            continue
        if node.func.attr not in LEVELS:  # a log may be a file, too
            continue
        fields = ", ".join(f"`{keyword.arg}`" for keyword in node.keywords if keyword.arg and keyword.arg != "exc_info")
        level = "error" if node.func.attr == "exception" else node.func.attr
        yield f"`{first.value!s}`", level, fields, str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
