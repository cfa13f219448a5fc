"""Claims inside others, named by JSON pointers: the same through real Envoy, whoever verifies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.identity_cases import BAD, FORBIDDEN, JWT, MODES, claims, compact, document, scheme
from tests.support.gateway import Echo, Gateway, a_route, unique
from tests.support.waiting import eventually
from tests.support.wire import Answer

NAMES = {"subject": "/user/id", "tier": "/app_metadata/plans/0", "scopes": "/realm_access/roles"}
REFUSED = {BAD: (401, "AUTH_FAILED"), FORBIDDEN: (403, "FORBIDDEN")}

ASKED = {
    "/org/ids": "acme",
    "/a~1b/m~0n": True,
    "/list/1/n": 2,
    "https://app.test/region": "eu",
    "dotted.name": "x",
}
"""Claims inside others, and two whose own names look like a way and are none."""

GIVEN: dict[str, Any] = {
    "org": {"ids": ["other", "acme"]},
    "a/b": {"m~n": True},
    "list": [0, {"n": 2}],
    "https://app.test/region": "eu",
    "dotted.name": "x",
}


def wanted(mode: str) -> dict[str, Any]:
    """The shipped provider with names of claims of its own."""
    provider = {"name": "platform", "algorithms": ["HS256"], "secret": "${JWT_SECRET}", "claims": NAMES}
    made = document(mode, [provider])
    made["routes"].append(a_route("inner", "discovery", "required", claims=ASKED))
    return made


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def gateway(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp(mode) / "nested", document=wanted(mode)) as running:
        yield running


def ask(gateway: Gateway, path: str, body: dict[str, Any]) -> Answer:
    return gateway.ask(path, headers=scheme(compact(JWT, body)))


def caller(answer: Answer) -> tuple[str, str]:
    """Whom the upstream was told of."""
    assert answer.status == 200, answer.body
    echo = Echo.of(answer)
    return (echo.value("x-user-id") or "").encode("latin-1").decode(), echo.value("x-user-tier") or ""


def a_token(**more: Any) -> dict[str, Any]:
    """Good claims of a new caller of the tier pro, with other ones where other gateways look."""
    usual = {"user": {"id": unique()}, "app_metadata": {"plans": ["pro", "free"]}, "sub": "outer", "tier": "free"}
    return claims(**usual | more)


@pytest.mark.parametrize(
    ("metadata", "tier"),
    [
        ({"plans": ["pro"]}, "pro"),
        ({"plans": ["ENTERPRISE"]}, "enterprise"),
        ({"plans": ["platinum"]}, "anonymous"),
        ({"plans": [["pro"]]}, "anonymous"),
        ({"plans": [None]}, "anonymous"),
        ({"plans": {"0": "pro"}}, "pro"),
        ({"plans": {"00": "pro"}}, "free"),
        ({"plans": []}, "free"),
        ({"plans": "pro"}, "free"),
        ("plans", "free"),
        (None, "free"),
    ],
)
def test_a_tier_inside_others(gateway: Gateway, metadata: object, tier: str) -> None:
    """What stands at the end of the way; where the way ends before, the default tier."""
    body = a_token(app_metadata=metadata)

    assert caller(ask(gateway, "/t/required", body)) == (body["user"]["id"], tier)


def test_a_literal_name_that_looks_like_the_way(gateway: Gateway) -> None:
    """A claim whose own name is the pointer's text is not what the pointer leads to."""
    body = a_token(**{"/app_metadata/plans/0": "enterprise", "/user/id": "admin"})

    assert caller(ask(gateway, "/t/required", body)) == (body["user"]["id"], "pro")


@pytest.mark.parametrize(
    "user", [None, {}, {"id": None}, {"id": 5}, {"id": ""}, {"id": {"id": "u"}}, ["id"], "id", {"id": "a\nb"}]
)
def test_a_subject_that_is_not_there(gateway: Gateway, user: object) -> None:
    """Without a subject at the end of the way the token is bad, whatever `sub` says."""
    answer = ask(gateway, "/t/required", a_token(user=user))

    assert (answer.status, answer.code) == REFUSED[BAD]


def test_a_subject_outside_ascii(gateway: Gateway) -> None:
    """What Envoy leaves to authz is read in the same way."""
    assert caller(ask(gateway, "/t/required", a_token(user={"id": "jürgen"}))) == ("jürgen", "pro")


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ({"realm_access": {"roles": ["read", "write", "more"]}}, None),
        ({"realm_access": {"roles": "write read"}}, None),
        ({"realm_access": {"roles": ["read"]}}, "write"),
        ({"realm_access": {"roles": ["read write"]}}, "read write"),
        ({"realm_access": {"roles": {"read": True, "write": True}}}, "read write"),
        ({"realm_access": ["read", "write"]}, "read write"),
        ({"scope": "read write"}, "read write"),
    ],
    ids=str,
)
def test_scopes_inside_others(gateway: Gateway, more: dict[str, Any], missing: str | None) -> None:
    """A list of texts, or text with spaces, at the end of the way and nowhere else."""
    mine, body = unique("scoped"), a_token(**more)
    answer = gateway.ask("/t/scoped", headers=[*scheme(compact(JWT, body)), ("X-Request-ID", mine)])

    assert answer.status == (403 if missing else 200)
    assert gateway.log_line(mine).get("missing") == missing


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"org": {"ids": "acme"}},
        {"a/b": {"m~n": [False, True]}},
        {"list": {"1": {"n": 2}}},
    ],
    ids=str,
)
def test_a_route_asks_for_claims_inside_others(gateway: Gateway, more: dict[str, Any]) -> None:
    """The value itself, or a list that holds it."""
    body = a_token(**GIVEN | more)

    assert caller(ask(gateway, "/t/inner", body)) == (body["user"]["id"], "pro")


@pytest.mark.parametrize(
    "more",
    [
        {"org": None},
        {"org": {"ids": ["acme2"]}},
        {"org": {"ids": {"acme": "acme"}}},
        {"org": [{"ids": "acme"}]},
        {"org": None, "/org/ids": "acme"},
        {"a/b": {"m~n": 1}},
        {"a/b": {"m~0n": True}},
        {"a/b": None, "a": {"b": {"m~n": True}}},
        {"list": [{"n": 2}]},
        {"list": {"01": {"n": 2}}},
        {"https://app.test/region": "us"},
        {"dotted.name": None, "dotted": {"name": "x"}},
    ],
    ids=str,
)
def test_a_claim_inside_others_is_missing(gateway: Gateway, more: dict[str, Any]) -> None:
    """Another value, another type, another way."""
    answer = ask(gateway, "/t/inner", a_token(**GIVEN | more))

    assert (answer.status, answer.code) == REFUSED[FORBIDDEN]


def test_envoy_reads_them_too(mode: str, gateway: Gateway) -> None:
    """Where Envoy verifies, a plain token with claims inside others needs no call to authz."""
    token, before = compact(JWT, a_token()), decisions(gateway)

    assert gateway.ask("/t/required", headers=scheme(token)).status == 200
    assert decisions(gateway) == before + (0 if mode == "envoy" else 1)


def decisions(gateway: Gateway) -> float:
    """How many requests authz has decided."""
    lines = re.findall(r"^mgw_authz_decisions_total\{.*\} (\S+)$", gateway.metrics("authz"), re.MULTILINE)
    return sum(map(float, lines))


def test_a_dotted_name_is_a_warning(gateway: Gateway, mode: str) -> None:
    """It is accepted, as one claim's own name; whoever writes it is told what to write instead, and where."""
    made = wanted(mode)
    made["auth"]["providers"][0]["claims"] = NAMES | {"tier": "app_metadata.plan"}
    more = {"app_metadata.plan": "enterprise", "app_metadata": {"plan": "free", "plans": ["pro"]}}
    try:
        answer = gateway.put_config(made)
        assert eventually(lambda: caller(ask(gateway, "/t/required", a_token(**more)))[1] == "enterprise")
    finally:
        gateway.put_config(wanted(mode))
        assert eventually(lambda: caller(ask(gateway, "/t/required", a_token(**more)))[1] == "pro")

    assert answer.status_code == 200
    of_provider, of_route = answer.json()["warnings"]
    assert of_provider["path"] == "auth.providers.0.claims.tier"
    assert "/app_metadata/plan" in of_provider["message"]
    assert of_route["path"] == f"routes.{len(made['routes']) - 1}.claims.dotted.name"


@pytest.mark.parametrize("pointer", ["/a~", "/~2", "/user/~id"])
def test_a_pointer_that_means_nothing_is_a_problem(gateway: Gateway, mode: str, pointer: str) -> None:
    """Refused when it is written, with its place."""
    made = wanted(mode)
    made["auth"]["providers"][0]["claims"] = NAMES | {"subject": pointer}

    answer = gateway.put_config(made)

    assert answer.status_code == 422
    assert "auth.providers.0.claims.subject" in answer.text
