"""Contract 2, the plain cases: who the caller is, and that nobody can say so for themselves."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest

from tests.support.gateway import SECRET, Echo, Gateway, bearer, client_address, token, unique
from tests.support.waiting import eventually

REQUIRED = "/t/required"
OPTIONAL = "/api/v1/genres"
OTHER_SECRET = "another-secret-of-the-same-good-length"
IN_AN_HOUR = int(time.time()) + 3600


def signed(**claims: object) -> str:
    """A signed token of exactly these claims and a good `exp`."""
    return jwt.encode({"exp": IN_AN_HOUR, **claims}, SECRET, algorithm="HS256")


def unsigned(algorithm: str) -> str:
    """A token that claims to need no signature."""
    parts = [{"alg": algorithm, "typ": "JWT"}, {"sub": "eve", "tier": "enterprise", "exp": IN_AN_HOUR}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


def exchanged() -> str:
    """A good token with another one's claims."""
    head, _, signature = token(tier="free").split(".")
    return f"{head}.{token(sub='eve', tier='enterprise', secret=OTHER_SECRET).split('.')[1]}.{signature}"


BAD = {
    "expired": token(ttl=-10),
    "just expired": token(ttl=-1),
    "no exp": token(exp=None),
    "exp as text": token(exp="tomorrow"),
    "not yet good": token(nbf=IN_AN_HOUR),
    "no sub": signed(tier="pro"),
    "empty sub": signed(sub="", tier="pro"),
    "sub of a number": signed(sub=7, tier="pro"),
    "sub of 257 bytes": signed(sub="é" * 128 + "a", tier="pro"),
    "control character in sub": signed(sub="a\nb", tier="pro"),
    "another secret": token(secret=OTHER_SECRET),
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg none and a signature": unsigned("none") + "x",
    "another's claims": exchanged(),
    "no signature": token().rpartition(".")[0] + ".",
    "two parts": token().rpartition(".")[0],
    "four parts": token() + ".x",
    "padded": token() + "=",
    "no token at all": "nonsense",
    "a dot": ".",
    "9 KiB": token(pad="x" * 9000),
    "a comma": f"{token()}, Bearer {token()}",
}
NO_TOKEN = {
    "nothing": [],
    "basic": [("Authorization", "Basic dXNlcjpwYXNz")],
    "digest": [("Authorization", 'Digest username="x"')],
    "empty": [("Authorization", "")],
    "no scheme": [("Authorization", token(tier="pro"))],
    "as a cookie": [("Cookie", f"access_token={token(tier='pro')}")],
    "in another header": [("X-Authorization", f"Bearer {token(tier='pro')}")],
}
TWO = {
    "two good ones": [bearer(token()), bearer(token())],
    "a good one and a bad one": [bearer(token()), bearer("nonsense")],
    "a good one and another scheme": [bearer(token()), ("Authorization", "Basic dXNlcjpwYXNz")],
    "the same twice": [bearer(token(sub="same"))] * 2,
}
Headers = list[tuple[str, str]]


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_token_on_a_required_route_is_401(gateway: Gateway, bad: str) -> None:
    """AUTH_FAILED, told by WWW-Authenticate, and the service hears nothing."""
    before = gateway.hits()

    answer = gateway.ask(REQUIRED, bearer_token=bad)

    assert (answer.status, answer.code) == (401, "AUTH_FAILED")
    assert answer.value("content-type") == "application/json"
    challenge = answer.value("www-authenticate") or ""
    assert challenge.startswith("Bearer")
    assert 'error="invalid_token"' in challenge
    assert gateway.hits() == before


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_token_on_an_optional_route_is_nobody(gateway: Gateway, bad: str) -> None:
    """The caller is anonymous: served, limited as such, and without a name for the service."""
    answer = gateway.ask(OPTIONAL, headers=[("X-Forwarded-For", client_address())], bearer_token=bad)

    echo = Echo.of(answer)
    assert (answer.status, answer.value("x-ratelimit-limit")) == (200, "100")
    assert (echo.value("x-user-id"), echo.value("x-user-tier")) == (None, None)


@pytest.mark.parametrize("headers", NO_TOKEN.values(), ids=NO_TOKEN)
def test_no_token_is_401_where_one_is_required(gateway: Gateway, headers: Headers) -> None:
    """UNAUTHORIZED with a plain Bearer challenge: any scheme but Bearer, and any place but the header, is no token."""
    before = gateway.hits()

    answer = gateway.ask(f"{REQUIRED}?access_token={token()}", headers=headers)

    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert (answer.value("www-authenticate") or "").startswith("Bearer")
    assert "invalid_token" not in (answer.value("www-authenticate") or "")
    assert gateway.hits() == before


@pytest.mark.parametrize("headers", NO_TOKEN.values(), ids=NO_TOKEN)
def test_no_token_is_nobody_where_one_is_optional(gateway: Gateway, headers: Headers) -> None:
    """Without a token an optional route serves an anonymous caller."""
    answer = gateway.ask(OPTIONAL, headers=[*headers, ("X-Forwarded-For", client_address())])

    assert (answer.status, answer.value("x-ratelimit-limit")) == (200, "100")
    assert Echo.of(answer).value("x-user-id") is None


@pytest.mark.parametrize("headers", TWO.values(), ids=TWO)
def test_two_authorization_headers_are_no_good(gateway: Gateway, headers: Headers) -> None:
    """Two headers are an invalid token, whatever each of them is worth."""
    before = gateway.hits()

    answer = gateway.ask(REQUIRED, headers=headers)

    assert (answer.status, answer.code) == (401, "AUTH_FAILED")
    assert gateway.hits() == before


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
@pytest.mark.parametrize("path", [REQUIRED, OPTIONAL])
def test_a_good_token_names_the_caller(gateway: Gateway, path: str, scheme: str) -> None:
    """The scheme is case-insensitive; the service gets the verified subject and tier."""
    subject = unique("ann")

    answer = gateway.ask(path, headers=[("Authorization", f"{scheme} {token(sub=subject, tier='pro')}")])

    echo = Echo.of(answer)
    assert (answer.status, answer.value("x-ratelimit-limit")) == (200, "1000")
    assert (echo.values("x-user-id"), echo.values("x-user-tier")) == ([subject], ["pro"])


TIERS = [
    ("free", "200", "free"),
    ("pro", "1000", "pro"),
    ("enterprise", "5000", "enterprise"),
    ("PRO", "1000", "pro"),
    (None, "200", "free"),
    ("platinum", "100", None),
    ("", "100", None),
    (7, "100", None),
    (["pro"], "100", None),
]


@pytest.mark.parametrize(("tier", "limit", "seen"), TIERS)
def test_the_tier_comes_from_the_claim(gateway: Gateway, tier: object, limit: str, seen: str | None) -> None:
    """Lower case; `free` without the claim; an unknown value has the numbers of `anonymous`, for the subject alone."""
    claims = {} if tier is None else {"tier": tier}
    caller = signed(sub=unique(), **claims)

    first = gateway.ask(REQUIRED, bearer_token=caller)
    second = gateway.ask(REQUIRED, bearer_token=caller)

    assert (first.status, first.value("x-ratelimit-limit")) == (200, limit)
    assert int(second.value("x-ratelimit-remaining") or 0) == int(limit) - 2
    if seen:
        assert Echo.of(first).value("x-user-tier") == seen


SUBJECTS = ["a", "user@example.com", "auth0|5f7c8ec7", "a/b c", "x" * 256, "00", "-", "anonymous", "a,b", "a:b"]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_reaches_the_service_as_it_is(gateway: Gateway, subject: str) -> None:
    """Any text up to 256 bytes without control characters is a name."""
    echo = Echo.of(gateway.ask("/api/v1/user/profile", bearer_token=token(sub=subject, tier="pro")))

    assert echo.values("x-user-id") == [subject]


def test_audience_and_issuer_do_not_matter_unless_named(gateway: Gateway) -> None:
    """The default provider names neither, so tokens that carry them are good."""
    caller = token(aud="somebody", iss="https://issuer.test", nbf=int(time.time()) - 60, jti="1", tier="pro")

    assert gateway.ask(REQUIRED, bearer_token=caller).status == 200


def test_a_tier_that_a_route_does_not_serve_is_403(gateway: Gateway) -> None:
    """A route may be for some tiers only: FORBIDDEN for the others, which never reach the service."""
    before = gateway.hits()

    refused = gateway.ask("/t/pro-only", bearer_token=token(tier="free"))

    assert (refused.status, refused.code) == (403, "FORBIDDEN")
    assert gateway.hits() == before
    assert gateway.ask("/t/pro-only", bearer_token=token(tier="pro")).status == 200


def test_a_token_that_was_good_is_refused_once_it_expires(gateway: Gateway) -> None:
    """However often a token was accepted, its last second is its last."""
    caller = token(ttl=2)
    ends = jwt.decode(caller, options={"verify_signature": False})["exp"]

    before_its_end = [gateway.ask(REQUIRED, bearer_token=caller).status for _ in range(3)]
    assert eventually(lambda: time.time() >= ends)

    assert before_its_end == [200] * 3
    assert gateway.ask(REQUIRED, bearer_token=caller).code == "AUTH_FAILED"


SPOOFED = [
    "X-User-ID",
    "x-user-id",
    "X-USER-ID",
    "X_User_ID",
    "x_user-id",
    "x-user_id",
    "X-User-Tier",
    "x_user_tier",
    "X-User_Tier",
    "X-User-Issuer",
    "x_user_issuer",
    "X-User_ISSUER",
    "X-Gateway-Error",
    "X_Gateway_User",
    "X-Mgw-Bad-Request",
    "x_mgw_bad_request",
    "X-Mgw-Caller",
    "x_mgw_caller",
    "X-Mgw-Counter",
    "X-Mgw-Network",
    "x_mgw_network",
    "X-Mgw-Client-Request-Id",
    "X-Envoy-Upstream-Rq-Timeout-Ms",
    "X-Envoy-Retry-On",
    "X-Envoy-Original-Path",
    "x_envoy_internal",
    "X-Envoy-Decorator-Operation",
]


@pytest.mark.parametrize("name", SPOOFED)
def test_a_reserved_header_of_the_client_goes_nowhere(gateway: Gateway, name: str) -> None:
    """Identity headers and our own, in any case or with `_`, reach no service: with a token, and without."""
    subject = unique("real")
    spoofed = [(name, "spoofed-enterprise"), (name, "spoofed-again")]

    named = gateway.ask(OPTIONAL, headers=spoofed, bearer_token=token(sub=subject, tier="free"))
    nobody = gateway.ask(OPTIONAL, headers=[*spoofed, ("X-Forwarded-For", client_address())])

    assert (named.status, named.value("x-ratelimit-limit")) == (200, "200")
    assert (Echo.of(named).values("x-user-id"), Echo.of(named).values("x-user-tier")) == ([subject], ["free"])
    assert (Echo.of(named).values("x-user-issuer"), Echo.of(nobody).values("x-user-issuer")) == (["platform"], [])
    assert (nobody.status, nobody.value("x-ratelimit-limit")) == (200, "100")
    assert b"spoofed" not in named.body + nobody.body


def test_a_reserved_header_is_gone_where_nobody_is_asked(gateway: Gateway) -> None:
    """A route without authentication strips them too."""
    headers = [
        ("X-User-ID", "spoofed"),
        ("x_user_tier", "spoofed"),
        ("X-User-Issuer", "spoofed"),
        ("X-Forwarded-For", client_address()),
    ]

    answer = gateway.ask("/t/open", headers=headers, bearer_token=token(tier="pro"))

    assert answer.status == 200
    assert b"spoofed" not in answer.body
    assert Echo.of(answer).value("x-user-id") is None
