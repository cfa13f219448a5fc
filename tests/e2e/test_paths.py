"""Contract 1: one path. What hides something is refused; what is merely untidy is tidied up once, for everybody."""

from __future__ import annotations

import pytest

from tests.support.gateway import Echo, Gateway, token

HIDING = [
    "/api/v1/content/a%2fb",
    "/api/v1/content/a%2Fb",
    "/api/v1%2fcontent/1",
    "/api/v1/content/a%5cb",
    "/api/v1/content/a%5Cb",
    "/api/v1/content/a\\b",
    "/api/v1/content/..\\..\\user/profile",
    "/api/v1/content/%00",
    "/api/v1/content/a%00b",
    "/api/v1/content/%2e%2e/user/profile",
    "/api/v1/content/%2E%2E/user/profile",
    "/api/v1/content/.%2e/user/profile",
    "/api/v1/content/%2e./user/profile",
    "/api/v1/content/%2e",
    "/api/v1/content/%2e/1",
    "/api/v1/content/%252e%252e/user/profile",
    "/api/v1/content/%25252e%25252e/x",
    "/api/v1/content/a%252fb",
    "/api/v1/content/a%25252fb",
    "/api/v1/content/a%255cb",
    "/api/v1/content/a%2500b",
    "/api/v1/content/..;/user/profile",
    "/api/v1/content/.;/user/profile",
    "/api/v1/content/%",
    "/api/v1/content/%4",
    "/api/v1/content/%zz",
    "/health/%2e%2e/api/v1/user/profile",
    "/nowhere/%2e%2e/%2e%2e",
    "/api/v1/user%2fprofile",
]


@pytest.mark.parametrize("path", HIDING)
def test_a_path_that_hides_something_is_400(gateway: Gateway, path: str) -> None:
    """Encoded slash, backslash, NUL and dots, at any depth of encoding, are 400 and touch no upstream."""
    before = gateway.hits()

    answer = gateway.ask(path, bearer_token=token(tier="pro"))

    assert (answer.status, answer.code) == (400, "BAD_REQUEST")
    assert answer.value("x-request-id")
    assert gateway.hits() == before


TIDIED = [
    ("/api/v1/./genres", "/api/v1/genres"),
    ("/api/v1/x/../genres", "/api/v1/genres"),
    ("/../api/v1/genres", "/api/v1/genres"),
    ("/api//v1///genres", "/api/v1/genres"),
    ("//api/v1/genres", "/api/v1/genres"),
    ("/api/v1/content/x/../y", "/api/v1/content/y"),
    ("/api/v1/content/%41%7e", "/api/v1/content/A~"),
    ("/api/v1/%67enres", "/api/v1/genres"),
    ("/api/v1//genres?a=//b/../c", "/api/v1/genres?a=//b/../c"),
    ("/api/v1/x/..//genres?", "/api/v1/genres?"),
]


@pytest.mark.parametrize(("sent", "seen"), TIDIED)
def test_an_untidy_path_is_tidied_for_the_service_too(gateway: Gateway, sent: str, seen: str) -> None:
    """Plain dot segments and double slashes are resolved, and the service gets the path that was matched."""
    answer = gateway.ask(sent, bearer_token=token(tier="pro"))

    assert (answer.status, Echo.of(answer).target) == (200, seen)


DETOURS = [
    "/api/v1/content/../user/profile",
    "/api/v1//user//profile",
    "/api/v1/user/./profile",
    "/health/../api/v1/user/profile",
    "/health/live/../../api/v1/user/profile",
    "/api/v1/user/%70rofile",
    "/t/open/../../api/v1/user/profile",
]


@pytest.mark.parametrize("path", DETOURS)
def test_no_detour_leads_around_the_door(gateway: Gateway, path: str) -> None:
    """However a protected path is written, it asks for a token, and nobody without one reaches its service."""
    before = gateway.hits()

    assert gateway.ask(path).status == 401
    assert gateway.hits() == before
    assert Echo.of(gateway.ask(path, bearer_token=token())).target == "/api/v1/user/profile"
