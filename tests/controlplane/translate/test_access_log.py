"""The access log: which fields a request's line has, and that there is one line a request."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from controlplane import protos
from controlplane.translate import access_log

LOGGED = (
    "timestamp request_id correlation_id user_id tier method path query status duration_ms route service error ai_agent"
)


def test_the_log_has_the_published_fields_and_no_token() -> None:
    """Every field of the log line is there; nothing of it is a credential."""
    assert set(LOGGED.split()) <= set(access_log.FIELDS)
    assert not re.search(r"(?i)authorization|cookie|api.?key", json.dumps(access_log.FIELDS))


@pytest.mark.parametrize(
    ("path", "is_shown"),
    [
        ("/", True),
        ("/api/v1/content/a-b_c~d.json", True),
        ("/static/viewport.min.js", True),
        ("/a#b", False),
        ("/a#access_token=abc", False),
        ("/a;access_token=abc", False),
        ("/%61", False),
        ("/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl", False),
        ("/ewogImFsZyI6ICJIUzI1NiIKfQ.eyJzdWIiOiJ1In0.c2lnbmF0dXJl", False),
        ("/ZXlKaGJHY2lPaUpJVXpJMU5pSjk", False),
        ("*", True),
    ],
)
def test_the_path_of_a_request_that_no_script_has_seen(path: str, is_shown: bool) -> None:
    """It is logged only if there can be no credential in it."""
    harmless = re.search(access_log.HARMLESS, path) and not re.search(access_log.TOKEN_LIKE, path)

    assert bool(harmless) is is_shown


def takes(condition: dict[str, Any], status: int, headers: dict[str, str], shadow: bool) -> bool:
    """Whether an access log filter (accesslog.v3.AccessLogFilter) takes such a request."""
    if "and_filter" in condition:
        return all(takes(each, status, headers, shadow) for each in condition["and_filter"]["filters"])
    if "or_filter" in condition:
        return any(takes(each, status, headers, shadow) for each in condition["or_filter"]["filters"])
    if "header_filter" in condition:
        header = condition["header_filter"]["header"]
        value, wanted = headers.get(header["name"]), header.get("string_match", {})
        pattern = wanted.get("safe_regex", {}).get("regex", ".*")
        starts = wanted.get("prefix", "")
        found = value is not None and value.startswith(starts) and re.fullmatch(pattern, value) is not None
        return bool(found != header.get("invert_match", False))
    if "metadata_filter" in condition:
        present = condition["metadata_filter"]["matcher"]["value"]["present_match"]
        otherwise = bool(condition["metadata_filter"]["match_if_key_not_found"])
        assert otherwise is not present
        return bool(present) if shadow else otherwise
    if "response_flag_filter" in condition:
        return "-" in condition["response_flag_filter"]["flags"]
    comparison = condition["status_code_filter"]["comparison"]
    bound = comparison["value"].get("default_value", 0)
    return bool({"EQ": status == bound, "GE": status >= bound, "LE": status <= bound}[comparison.get("op", "EQ")])


def told(status: int) -> dict[str, object]:
    """The fields of a request that is told in full: who was refused is in metadata, which is dear to read."""
    if status < 400:
        return access_log.SERVED_FIELDS
    return access_log.FIELDS if status in range(401, 404) else access_log.FAILED_FIELDS


@pytest.mark.parametrize(("may_be", "shadow"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ai-agent": "a"},
        {"ai-agent-id": "a"},
        {":path": "/a?b"},
        {":path": "/eyJ"},
        {":path": "/%20"},
        {":path": "/health"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("status", "level"),
    [
        *((status, "INFO") for status in (200, 302, 399)),
        *((status, "WARN") for status in (400, 401, 403, 404, 429, 499)),
        *((status, "ERROR") for status in (500, 503)),
    ],
)
def test_one_log_line_a_request(status: int, level: str, headers: dict[str, str], may_be: bool, shadow: bool) -> None:
    """Exactly one logger takes a request: INFO under 400, WARN for 4xx, ERROR from 500 on.

    Whatever has more to tell than the usual request is told in full.
    """
    loggers = access_log.access_logs(may_be_shadowed=may_be)
    taking = [
        logger["typed_config"]["log_format"]["json_format"]
        for logger in map(protos.message_to_dict, loggers)
        if takes(logger["filter"], status, {":path": "/a", **headers}, shadow)
    ]

    assert [fields["level"] for fields in taking] == [level]
    is_usual = status < 400 and not headers and not shadow
    is_agents = bool(headers.keys() & {"x-ai-agent", "ai-agent-id"})
    in_full = set(told(status))
    in_full -= set() if is_agents else {"ai_agent"}
    assert set(taking[0]) == {"level", *(access_log.USUAL_FIELDS if is_usual else in_full)}


@pytest.mark.parametrize("headers", [{}, {"x-ai-agent": "a"}, {":path": "/a?b"}], ids=str)
@pytest.mark.parametrize(("status", "lines"), [(200, 0), (399, 0), (400, 1), (401, 1), (404, 1), (499, 1), (500, 1)])
def test_served_requests_need_not_be_logged(status: int, lines: int, headers: dict[str, str]) -> None:
    """With `log.requests: failed` only what was answered with 400 or more has a line."""
    loggers = map(protos.message_to_dict, access_log.access_logs("failed"))

    assert sum(takes(logger["filter"], status, {":path": "/a", **headers}, False) for logger in loggers) == lines
