"""Who may call what: tokens and roles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api import errors
from controlplane.api.auth import Operators, Role, require
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


TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=12)


@given(st.dictionaries(TEXTS, st.sampled_from(Role)), TEXTS)
def test_a_token_has_the_role_that_it_was_given_and_no_other_text_has_any(tokens: dict[str, Role], text: str) -> None:
    """Neither a part of a token, nor one with something behind it."""
    operators = Operators(tokens)

    assert {token: operators.role(token) for token in tokens} == tokens
    for each in (text, *(token[:-1] for token in tokens), *(f"{token}a" for token in tokens)):
        assert operators.role(each) == tokens.get(each)


def test_any_bytes_may_be_tried() -> None:
    """What a client sends is not always text: it is unknown, and breaks nothing."""
    assert Operators(TOKENS).role("an-admin\udcff") is None


@pytest.fixture
async def asked() -> AsyncIterator[httpx2.AsyncClient]:
    """An application whose calls do nothing but ask for a role, and answer who it is that asks."""
    app = FastAPI()
    app.state.operators = Operators(TOKENS)
    errors.install(app)
    for role in Role:
        dependency = Depends(require(role))

        def who(by: str = dependency) -> str:
            return by

        app.get(f"/{role.name.lower()}")(who)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://api") as client:
        yield client


@pytest.mark.parametrize("needed", Role)
@pytest.mark.parametrize(("token", "held"), TOKENS.items())
async def test_a_role_allows_what_those_before_it_allow(
    asked: httpx2.AsyncClient, needed: Role, token: str, held: Role
) -> None:
    """Viewer, editor, admin: who has too little is told both roles, and who has enough is known by theirs."""
    response = await asked.get(f"/{needed.name.lower()}", headers={"authorization": f"Bearer {token}"})

    if held >= needed:
        assert (response.status_code, response.json()) == (200, held.name.lower())
    else:
        content = is_problem(response, 403)
        assert content["detail"] == f"this needs the role {needed.name.lower()}, the token has {held.name.lower()}"
        assert "www-authenticate" not in response.headers


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
async def test_the_schemes_case_means_nothing(asked: httpx2.AsyncClient, scheme: str) -> None:
    """RFC 9110, section 11.1; that of the token does."""
    good = await asked.get("/viewer", headers={"authorization": f"{scheme} a-viewer"})
    bad = await asked.get("/viewer", headers={"authorization": f"{scheme} A-VIEWER"})

    assert (good.status_code, bad.status_code) == (200, 401)


async def test_who_has_no_token_is_told_what_to_bring(asked: httpx2.AsyncClient) -> None:
    """The challenge names the scheme."""
    response = await asked.get("/viewer")

    assert is_problem(response, 401)["detail"] == "an operator's token is required"
    assert response.headers["www-authenticate"] == "Bearer"
