"""The responses that Envoy makes itself: one shape, and a code that goes with each status."""

from __future__ import annotations

import json
import re
from typing import Any

from controlplane.translate import local_replies

CODES = {
    "RATE_LIMITED": {429},
    "UNAUTHORIZED": {401},
    "BAD_REQUEST": {400, 426},
    "REQUEST_HEADERS_TOO_LARGE": {431},
    "REQUEST_TIMEOUT": {408},
    "NOT_FOUND": {404},
    "METHOD_NOT_ALLOWED": {405},
    "FORBIDDEN": {403},
    "TIMEOUT": {504},
    "PAYLOAD_TOO_LARGE": {413},
    "INTERNAL_ERROR": {500},
    "PROXY_ERROR": {502},
    "SERVICE_UNAVAILABLE": {503},
    "CIRCUIT_BREAKER_OPEN": {503},
}


def with_numbers(body: str) -> str:
    """The body with a number in the place of what Envoy fills in outside of texts."""
    return re.sub(r":%[^%]*%", ":7", body)


def errors() -> list[tuple[int, dict[str, Any], dict[str, str]]]:
    """Every mapper that makes an error: status, body, headers."""
    found = []
    for mapper in local_replies.local_replies("1.2.3").mappers:
        body = with_numbers(mapper.body_format_override.text_format_source.inline_string)
        headers = {option.header.key: option.header.value for option in mapper.headers_to_add}
        if body and "error" in json.loads(body):
            found.append((mapper.status_code.value, json.loads(body)["error"], headers))
    return found


def test_every_error_has_one_shape() -> None:
    """Each error that Envoy makes has a code that goes with its status, a message, and the code as a header."""
    for status, error, headers in errors():
        assert set(error) == {"code", "message"} | ({"retry_after"} if status == 429 else set())
        assert status in CODES[error["code"]], error
        assert headers["x-gateway-error"] == error["code"]
        assert ("retry-after" in headers) == (status in {429, 503}), error


def test_every_code_is_made_somewhere() -> None:
    """No code of the table is unused."""
    assert {error["code"] for _, error, _ in errors()} == set(CODES)


def test_errors_name_no_address() -> None:
    """What an error says is fixed text and the service's name."""
    for _, error, _ in errors():
        assert set(re.findall(r"%[^%]*%", error["message"])) <= {local_replies.SERVICE}


def test_health_stands_without_the_control_plane() -> None:
    """Envoy responds in the control plane's place: degraded, and ready."""
    bodies = [
        (mapper.status_code.value, json.loads(mapper.body_format_override.text_format_source.inline_string))
        for mapper in local_replies.local_replies("1.2.3").mappers
        if "error" not in mapper.body_format_override.text_format_source.inline_string
        and mapper.body_format_override.text_format_source.inline_string
    ]

    assert [(status, body.get("ready"), body.get("status")) for status, body in bodies] == [
        (503, False, None),
        (200, True, None),
        (200, None, "degraded"),
    ]
    assert bodies[-1][1]["version"] == "1.2.3"
