"""The filter chain: its order, and what each filter is told."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.translate import filters, listeners
from controlplane.translate.headers import REMOVED_BEFORE_UPSTREAM
from tests.support.configs import a_config
from tests.support.early import is_removed


def manager(**changes: Any) -> dict[str, Any]:
    return protos.message_to_dict(listeners.connection_manager(a_config(**changes)))


def chain(**changes: Any) -> dict[str, dict[str, Any]]:
    return {each["name"]: each["typed_config"] for each in manager(**changes)["http_filters"]}


def test_the_order_of_the_chain() -> None:
    """Path and ids first; CORS before anything rejects; authz before the limits; the body after both; router last."""
    names = [name.rpartition(".")[2] for name in chain()]

    assert names[:4] == ["lua", "header_mutation", "cors", "fault"]
    assert names[4:] == ["rbac", "ext_authz", "ratelimit", "local_ratelimit", "body", "router"]


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
    assert all(is_removed(a_config(), name) for name in REMOVED_BEFORE_UPSTREAM)
    assert {name for name, _ in conditions} <= set(REMOVED_BEFORE_UPSTREAM)


def test_authz_fails_closed_and_the_limiter_open() -> None:
    """Without authz nothing passes and the status is 503; without the limiter everything does. Both in 250 ms."""
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

    assert allowed["allowed_headers"]["patterns"] == [
        {"exact": name} for name in ("authorization", "x-partner-key", "x-mgw-address")
    ]


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
