"""The filter chain, the listener and the answers that Envoy makes itself."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from controlplane import protos
from controlplane.translate import access_log, filters, listeners, local_replies
from controlplane.translate.headers import REMOVED_BEFORE_UPSTREAM
from tests.support.configs import a_config, a_route, default_config, rich_config


def manager(**changes: Any) -> dict[str, Any]:
    return protos.message_to_dict(listeners.connection_manager(a_config(**changes)))


def chain(**changes: Any) -> dict[str, dict[str, Any]]:
    return {each["name"]: each["typed_config"] for each in manager(**changes)["http_filters"]}


def test_the_order_of_the_chain() -> None:
    """One path and ids first; CORS before any refusal; the body before authz; authz before the limits; router last."""
    names = [name.rpartition(".")[2] for name in chain()]

    assert names[:6] == ["lua", "header_mutation", "cors", "fault", "body_size_limit", "buffer"]
    assert names[6:] == ["ext_authz", "ratelimit", "local_ratelimit", "router"]


def made_unless(found: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """A conditional filter: the header and the value that it is skipped for, and the filter that is made otherwise."""
    (skip,) = found["xds_matcher"]["matcher_list"]["matchers"]
    condition, otherwise = skip["predicate"]["single_predicate"], found["xds_matcher"]["on_no_match"]
    assert skip["on_match"]["action"]["typed_config"]["@type"].endswith(".SkipFilter")
    made = otherwise["action"]["typed_config"]["typed_config"]["typed_config"]
    return condition["input"]["typed_config"]["header_name"], condition["value_match"]["exact"], made


def test_a_known_caller_needs_no_authz_and_a_prepaid_request_no_limiter() -> None:
    """Both filters are made for every request unless the request filter says otherwise in a header; no client can."""
    found = chain()
    conditions = [made_unless(found[name])[:2] for name in (filters.EXT_AUTHZ, filters.RATE_LIMIT)]

    assert conditions == [("x-mgw-identity", "known"), ("x-mgw-prepaid", "1")]
    (remove, *_) = filters.early_mutations()
    pattern = remove.remove_on_match.key_matcher.safe_regex.regex
    assert all(re.fullmatch(pattern, name) for name in REMOVED_BEFORE_UPSTREAM)
    assert {name for name, _ in conditions} <= set(REMOVED_BEFORE_UPSTREAM)


def test_authz_fails_closed_and_the_limiter_open() -> None:
    """Without authz nothing passes and the answer is 503; without the limiter everything does. Both in 250 ms."""
    found = chain()
    (*_, authz), (*_, limiter) = made_unless(found[filters.EXT_AUTHZ]), made_unless(found[filters.RATE_LIMIT])

    assert not authz.get("failure_mode_allow")
    assert authz["status_on_error"] == {"code": "ServiceUnavailable"}
    assert authz["grpc_service"] == {"envoy_grpc": {"cluster_name": "mgw-authz"}, "timeout": "0.200s"}
    assert not limiter.get("failure_mode_deny")
    assert limiter["rate_limit_service"]["grpc_service"]["timeout"] == "0.100s"
    assert limiter["domain"] == "mgw"


def test_authz_sees_credentials_and_nothing_else() -> None:
    """Of the request's headers only those that carry credentials leave Envoy."""
    provider = {"name": "p", "algorithms": ["HS256"], "secret": "${S}"}
    found = chain(auth={"api_key_header": "x-partner-key", "providers": [provider]})
    (*_, allowed) = made_unless(found[filters.EXT_AUTHZ])

    assert allowed["allowed_headers"]["patterns"] == [{"exact": "authorization"}, {"exact": "x-partner-key"}]


@pytest.mark.parametrize(
    ("listener", "routes", "largest", "buffered"),
    [
        ({}, [], 1_048_576, 1_048_576),
        ({"max_request_bytes": 10}, [5], 10, 10),
        ({"max_request_bytes": 10}, [50], 50, 10),
    ],
)
def test_body_limits(listener: dict[str, int], routes: list[int], largest: int, buffered: int) -> None:
    """The first limit is the largest of all, the second the listener's, which routes replace."""
    own = [a_route(f"r{n}", f"/{n}", max_request_bytes=limit) for n, limit in enumerate(routes)]
    found = chain(listener=listener, routes=own)

    assert int(found[filters.BODY_LIMIT]["max_request_bytes"]) == largest
    assert found[filters.BUFFER]["max_request_bytes"] == buffered


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("x-user-id", True),
        ("x_user_id", True),
        ("x-user_tier", True),
        ("x-mgw-bad-request", True),
        ("x_mgw_bad_request", True),
        ("x-gateway-error", True),
        ("x-envoy-upstream-rq-timeout-ms", True),
        ("x-user-identity", False),
        ("x-user", False),
        ("user-id", False),
        ("authorization", False),
        ("x-forwarded-for", False),
    ],
)
def test_reserved_names(name: str, ours: bool) -> None:
    """What only the gateway may say is taken from a client, with `-` or `_`; Envoy has names in lower case."""
    (remove, *_) = filters.early_mutations()
    pattern = remove.remove_on_match.key_matcher.safe_regex.regex

    assert (re.fullmatch(pattern, name) is not None) is ours


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, {"x-content-type-options", "x-frame-options", "referrer-policy"}),
        ({"frame_options": None, "referrer_policy": None}, {"x-content-type-options"}),
        ({"enabled": False}, set()),
    ],
)
def test_security_headers(settings: dict[str, Any], names: set[str]) -> None:
    """They are on by default, can be left out, and never replace what an upstream says."""
    mutations = chain(security_headers=settings)[filters.HEADERS]["mutations"]["response_mutations"]
    appended = {
        each["append"]["header"]["key"]: each["append"]["append_action"] for each in mutations if "append" in each
    }
    cautious = {name: action for name, action in appended.items() if not name.endswith("-id")}

    assert set(cautious) == names
    assert set(cautious.values()) <= {"ADD_IF_ABSENT"}


def test_the_listener() -> None:
    """The client's address is the connection's, nobody is internal, and Envoy's name stays out of answers."""
    found = manager(listener={"trusted_hops": 2})

    assert found["use_remote_address"] is True
    assert found["xff_num_trusted_hops"] == 2
    assert found["server_header_transformation"] == "PASS_THROUGH"
    assert found["internal_address_config"]["cidr_ranges"] == [{"address_prefix": "255.255.255.255", "prefix_len": 32}]
    assert found["rds"]["route_config_name"] == "gateway"


CODES = {
    "RATE_LIMITED": {429},
    "BAD_REQUEST": {400, 426, 431},
    "NOT_FOUND": {404},
    "METHOD_NOT_ALLOWED": {405},
    "TIMEOUT": {408, 504},
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
    """No code of the table is left without an answer."""
    assert {error["code"] for _, error, _ in errors()} == set(CODES)


def test_errors_name_no_address() -> None:
    """What an error says is fixed text and the service's name."""
    for _, error, _ in errors():
        assert set(re.findall(r"%[^%]*%", error["message"])) <= {local_replies.SERVICE}


def test_health_stands_without_the_control_plane() -> None:
    """Envoy answers for the control plane: degraded, and ready."""
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


LOGGED = (
    "timestamp request_id correlation_id user_id tier method path query status duration_ms route service error ai_agent"
)


def test_the_log_has_the_published_fields_and_no_token() -> None:
    """Every field of the log line is there; nothing of it is a credential."""
    assert set(LOGGED.split()) <= set(access_log.FIELDS)
    assert not re.search(r"(?i)authorization|cookie|api.?key", json.dumps(access_log.FIELDS))


def takes(condition: dict[str, Any], status: int, headers: dict[str, str], shadow: bool) -> bool:
    """Whether an access log filter (accesslog.v3.AccessLogFilter) takes such a request."""
    if "and_filter" in condition:
        return all(takes(each, status, headers, shadow) for each in condition["and_filter"]["filters"])
    if "or_filter" in condition:
        return any(takes(each, status, headers, shadow) for each in condition["or_filter"]["filters"])
    if "header_filter" in condition:
        header = condition["header_filter"]["header"]
        value, wanted = headers.get(header["name"]), header.get("string_match", {})
        found = value is not None and wanted.get("contains", "") in value and value.startswith(wanted.get("prefix", ""))
        return found != header.get("invert_match", False)
    if "metadata_filter" in condition:
        present = condition["metadata_filter"]["matcher"]["value"]["present_match"]
        otherwise = bool(condition["metadata_filter"]["match_if_key_not_found"])
        assert otherwise is not present
        return bool(present) if shadow else otherwise
    comparison = condition["status_code_filter"]["comparison"]
    bound = comparison["value"]["default_value"]
    return {"EQ": status == bound, "GE": status >= bound, "LE": status <= bound}[comparison.get("op", "EQ")]


@pytest.mark.parametrize(("may_be", "shadow"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    "headers",
    [{}, {"x-ai-agent": "a"}, {"ai-agent-id": "a"}, {":path": "/a?b"}, {":path": "/eyJ"}, {":path": "/health"}],
    ids=str,
)
@pytest.mark.parametrize(
    ("status", "level"), [(200, "INFO"), (302, "INFO"), (399, "INFO"), (400, "WARN"), (499, "WARN"), (500, "ERROR")]
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
    in_full = access_log.FIELDS.keys() - (set() if is_agents else {"ai_agent"})
    assert set(taking[0]) == {"level", *(access_log.USUAL_FIELDS if is_usual else in_full)}


@pytest.mark.parametrize("headers", [{}, {"x-ai-agent": "a"}, {":path": "/a?b"}], ids=str)
@pytest.mark.parametrize(("status", "lines"), [(200, 0), (399, 0), (400, 1), (499, 1), (500, 1)])
def test_served_requests_need_not_be_logged(status: int, lines: int, headers: dict[str, str]) -> None:
    """With `log.requests: failed` only what was answered with 400 or more has a line."""
    loggers = map(protos.message_to_dict, access_log.access_logs("failed"))

    assert sum(takes(logger["filter"], status, {":path": "/a", **headers}, False) for logger in loggers) == lines


@pytest.mark.parametrize("config", [default_config(), rich_config()], ids=["default", "rich"])
def test_the_listener_is_where_the_document_says(config: Any) -> None:
    """Host and port are the document's."""
    address = listeners.listener(config).address.socket_address

    assert (address.address, address.port_value) == (config.listener.host, config.listener.port)
