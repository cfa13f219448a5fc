"""Who may call what: tokens and roles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from controlplane.api.auth import Operators, Role
from tests.support.operator_api import OTHER, TOKENS, YAML, Api, is_problem


def operator_calls() -> Iterator[tuple[str, str]]:
    """Every call under /v1 that the application knows."""
    for route in _leaves(Api().app.routes):
        if route.path.startswith("/v1"):
            path = route.path.replace("{", "").replace("}", "")
            yield from ((method, path) for method in sorted(route.methods or ()))


def _leaves(routes: Any) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        inner = getattr(route, "original_router", None) or getattr(route, "router", None) or getattr(route, "app", None)
        yield from _leaves(getattr(inner, "routes", ()))


CALLS = list(operator_calls())


def test_the_calls_are_known() -> None:
    """The list that the next tests go through is not empty."""
    assert {("GET", "/v1/config"), ("PUT", "/v1/config"), ("POST", "/v1/config/validate"), ("GET", "/v1/nodes")} <= set(
        CALLS
    )


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer nobody",
        "Basic YW46YWRtaW4=",
        "an-admin",
        "Bearer an-admin2",
        "Bearer \xe9",
    ],
)
async def test_no_call_without_a_token(api: Api, method: str, path: str, authorization: str | None) -> None:
    """Every operator call without a valid token is 401, before anything else about it is looked at."""
    headers = {} if authorization is None else {b"authorization": authorization.encode("latin-1")}

    response = await api.client.request(method, path, headers=headers, content=b"\xff")

    is_problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), [call for call in CALLS if call[0] in {"PUT", "DELETE", "PATCH"}])
async def test_a_viewer_changes_nothing(api: Api, method: str, path: str) -> None:
    """A viewer's token does not write."""
    content = is_problem(
        await api.call(method, path, token="a-viewer", content=OTHER, headers={"if-match": '"1"'}), 403
    )

    assert "editor" in content["detail"] or "admin" in content["detail"]
    assert (await api.publisher._store.current()).number == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("token", TOKENS)
async def test_everyone_reads(api: Api, token: str) -> None:
    """Each role reads the document, and may try another."""
    assert (await api.call("GET", "/v1/config", token=token)).status_code == 200
    tried = await api.call("POST", "/v1/config/validate", token=token, content=OTHER, headers=YAML)
    assert (tried.status_code, tried.json()) == (200, {"valid": True})


@pytest.mark.parametrize(
    ("token", "role"),
    [("a-viewer", Role.VIEWER), ("an-editor", Role.EDITOR), ("an-admin", Role.ADMIN), ("", None), ("an-admi", None)],
)
def test_roles(token: str, role: Role | None) -> None:
    """A token is known as a whole or not at all."""
    assert Operators(TOKENS).role(token) is role
