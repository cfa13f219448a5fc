"""Retries: which requests Envoy sends again, and how many at once."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane import protos
from controlplane.config.model import IDEMPOTENT
from controlplane.translate import retries
from tests.support.configs import a_route, a_service


def policy(route: dict[str, Any] | None, service: dict[str, Any] | None, *methods: str) -> dict[str, Any] | None:
    found = retries.policy(a_route(methods=methods or ("GET",), retries=route), a_service(retries=service))
    return None if found is None else protos.message_to_dict(found)


def methods_of(found: dict[str, Any]) -> list[str]:
    return [header["string_match"]["exact"] for header in found["retriable_request_headers"]]


@pytest.mark.parametrize(
    ("route", "service", "times"),
    [
        (None, None, None),
        (None, {"attempts": 2}, 2),
        ({"attempts": 1}, None, 1),
        ({"attempts": 1}, {"attempts": 2}, 1),
        ({"attempts": 0}, {"attempts": 2}, None),
        (None, {"attempts": 0}, None),
    ],
)
def test_who_decides_on_retries(
    route: dict[str, Any] | None, service: dict[str, Any] | None, times: int | None
) -> None:
    """The route, else its service, else nobody: then Envoy is told nothing and repeats nothing."""
    found = policy(route, service)

    assert (found and found["num_retries"]) == times


@pytest.mark.parametrize(
    ("methods", "repeated"),
    [
        (("GET",), ["GET", "HEAD"]),
        (("GET", "POST"), ["GET", "HEAD"]),
        (("PUT", "PATCH", "DELETE"), ["DELETE", "PUT"]),
        (("OPTIONS", "HEAD"), ["HEAD", "OPTIONS"]),
    ],
)
def test_only_idempotent_methods_are_repeated(methods: tuple[str, ...], repeated: list[str]) -> None:
    """Envoy asks for one of these methods before it repeats; a route of others alone has no policy at all."""
    found = policy({"attempts": 1}, None, *methods)

    assert found is not None
    assert methods_of(found) == repeated
    assert {header["name"] for header in found["retriable_request_headers"]} == {":method"}
    assert policy({"attempts": 1}, None, "POST", "PATCH") is None
    assert {"POST", "PATCH"}.isdisjoint(IDEMPOTENT)


def test_how_it_is_repeated() -> None:
    """On the reasons given, each try in its own time, on an endpoint that was not tried if there is one."""
    found = policy({"attempts": 3, "on": ["reset", "5xx"], "per_try_timeout_seconds": 0.25}, None)

    assert found is not None
    assert (found["retry_on"], found["per_try_timeout"]) == ("5xx,reset", "0.250s")
    assert [predicate["name"] for predicate in found["retry_host_predicate"]] == [
        "envoy.retry_host_predicates.previous_hosts"
    ]
    default = policy({"attempts": 3}, None)
    assert default is not None
    assert default["retry_on"] == "connect-failure,gateway-error,reset"
    assert "per_try_timeout" not in default


def test_other_readers_of_yaml_may_take_on_for_true() -> None:
    """`on: [reset]` has gone through Helm, say, when it arrives as `true: [reset]`."""
    found = policy({"attempts": 1, "true": ["reset"]}, None)

    assert found is not None
    assert found["retry_on"] == "reset"
