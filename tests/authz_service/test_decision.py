"""The decision: which header is a token, what a route asks, and what the client gets for each outcome."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from authz_service.decision import (
    Allow,
    Deny,
    ErrorCode,
    Policy,
    RouteRules,
    decide,
    has_claim,
    read_bearer,
    read_rules,
)
from authz_service.decision import Request as Asked
from authz_service.errors import Reason
from authz_service.guesses import Guesses
from authz_service.keys import KeySet
from authz_service.tokens import Verified

ANONYMOUS_POLICY = Policy()


def seen(decision: object) -> str:
    """What a client could tell apart."""
    if isinstance(decision, Allow):
        return "anonymous" if decision.verified is None else decision.verified.caller
    assert isinstance(decision, Deny), decision
    return decision.code.value


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, None),
        ("", None),
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("BEARER abc", "abc"),
        ("bEaReR   abc ", "abc"),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Bearer a b", "a b"),
        ("Bearer\tabc", "\tabc"),
        ("Bearerabc", None),
        ("Bearer=abc", None),
        ("Basic dTpw", None),
        ("Token abc", None),
        ("abc", None),
        (" Bearer abc", None),
        ("Bearer abc,Bearer def", "Bearer abc,Bearer def"),
        ("Bearer abc,", "Bearer abc,"),
        ("Basic dTpw,Bearer abc", "Basic dTpw,Bearer abc"),
        (",", ","),
    ],
)
def test_read_bearer(header: str | None, token: str | None) -> None:
    """The scheme in any case; another scheme is no token; a comma means two headers, which is a bad token."""
    assert read_bearer(header) == token


@pytest.mark.parametrize(
    ("header", "on_required", "on_optional"),
    [
        (None, "UNAUTHORIZED", "anonymous"),
        ("", "UNAUTHORIZED", "anonymous"),
        ("Basic dTpw", "UNAUTHORIZED", "anonymous"),
        ("Bearer", "AUTH_FAILED", "anonymous"),
        ("Bearer {good}", "platform/u1", "platform/u1"),
        ("bearer {good}", "platform/u1", "platform/u1"),
        ("BEARER  {good}", "platform/u1", "platform/u1"),
        ("Bearer {good}x", "AUTH_FAILED", "anonymous"),
        ("Bearer {good},Bearer {good}", "AUTH_FAILED", "anonymous"),
        ("Bearer {good},", "AUTH_FAILED", "anonymous"),
        ("Basic dTpw,Bearer {good}", "AUTH_FAILED", "anonymous"),
        ("Bearer {good} {good}", "AUTH_FAILED", "anonymous"),
        ("Bearer\t{good}", "AUTH_FAILED", "anonymous"),
        ("Bearer {expired}", "AUTH_FAILED", "anonymous"),
        ("Bearer " + "A" * 9000, "AUTH_FAILED", "anonymous"),
        ("Basic {good}", "UNAUTHORIZED", "anonymous"),
        ("{good}", "UNAUTHORIZED", "anonymous"),
    ],
)
def test_required_and_optional(
    header: str | None, on_required: str, on_optional: str, ask: Any, mint: Any, now: float
) -> None:
    """No token is UNAUTHORIZED, a bad one AUTH_FAILED; where none is needed both are anonymous."""
    if header is not None:
        header = header.replace("{good}", mint()).replace("{expired}", mint(exp=now))

    assert seen(ask(header)) == on_required
    assert seen(ask(header, auth="optional")) == on_optional


def test_a_provider_can_deny_bad_tokens_on_optional_routes(ask: Any, a_verifier: Any, mint: Any) -> None:
    """Then a bad token is 401 and only a missing one is anonymous."""
    verifier = a_verifier(denies_bad_tokens=True)

    assert seen(ask("Bearer " + mint(key="x" * 32), auth="optional", verifier=verifier)) == "AUTH_FAILED"
    assert seen(ask("Bearer nonsense", auth="optional", verifier=verifier)) == "AUTH_FAILED"
    assert seen(ask(None, auth="optional", verifier=verifier)) == "anonymous"


@pytest.mark.parametrize(
    ("iss", "names", "expected"),
    [
        ("https://strict", None, "AUTH_FAILED"),
        ("https://lax", None, "anonymous"),
        ("https://unknown", None, "AUTH_FAILED"),
        ("https://unknown", {"lax"}, "anonymous"),
    ],
)
def test_whose_bad_token_it_is_decides(
    iss: str, names: Any, expected: str, ask: Any, a_verifier: Any, a_provider: Any, mint: Any
) -> None:
    """The provider that the token names; where it names none, any provider that denies bad tokens."""
    strict = a_provider(name="strict", issuer="https://strict", denies_bad_tokens=True)
    lax = a_provider(name="lax", issuer="https://lax")
    providers = None if names is None else frozenset(names)
    token = mint(key="x" * 32, iss=iss)

    assert (
        seen(ask(f"Bearer {token}", auth="optional", verifier=a_verifier(strict, lax), providers=providers)) == expected
    )


@pytest.mark.parametrize(
    ("rules", "claims", "expected"),
    [
        ({"tiers": {"pro"}}, {"tier": "pro"}, "platform/u1"),
        ({"tiers": {"pro"}}, {"tier": "PRO"}, "platform/u1"),
        ({"tiers": {"pro"}}, {}, "FORBIDDEN"),
        ({"tiers": {"pro"}}, {"tier": "platinum"}, "FORBIDDEN"),
        ({"tiers": {"anonymous"}}, {"tier": "platinum"}, "platform/u1"),
        ({"tiers": set()}, {"tier": "pro"}, "FORBIDDEN"),
        ({"scopes": {"a", "b"}}, {"scope": "b a c"}, "platform/u1"),
        ({"scopes": {"a", "b"}}, {"scope": "a"}, "FORBIDDEN"),
        ({"scopes": {"a"}}, {}, "FORBIDDEN"),
        ({"claims": {"org": "acme"}}, {"org": "acme"}, "platform/u1"),
        ({"claims": {"org": "acme"}}, {"org": ["other", "acme"]}, "platform/u1"),
        ({"claims": {"org": "acme"}}, {"org": "acme2"}, "FORBIDDEN"),
        ({"claims": {"org": "acme"}}, {}, "FORBIDDEN"),
        ({"claims": {"admin": True}}, {"admin": 1}, "FORBIDDEN"),
        ({"claims": {"admin": True}}, {"admin": True}, "platform/u1"),
        ({"claims": {"org": None}}, {}, "FORBIDDEN"),
    ],
)
def test_what_a_route_asks(rules: dict[str, Any], claims: dict[str, Any], expected: str, ask: Any, mint: Any) -> None:
    """A caller who is known but lacks the tier, a scope or a claim is FORBIDDEN."""
    frozen = {name: frozenset(value) if isinstance(value, set) else value for name, value in rules.items()}

    assert seen(ask("Bearer " + mint(**claims), **frozen)) == expected
    assert seen(ask("Bearer " + mint(**claims), auth="optional", **frozen)) == expected


@pytest.mark.parametrize(
    ("rules", "reason", "missing", "scopes"),
    [
        ({"tiers": frozenset({"pro"})}, Reason.TIER_NOT_ALLOWED, (), ()),
        ({"scopes": frozenset({"b", "a", "c"})}, Reason.SCOPE_MISSING, ("b", "c"), ("a", "b", "c")),
        ({"claims": {"org": "acme", "sub": "u1", "x": 1}}, Reason.CLAIM_MISSING, ("org", "x"), ()),
    ],
)
def test_a_denied_caller_is_known(
    rules: Any, reason: Reason, missing: tuple[str, ...], scopes: tuple[str, ...], ask: Any, mint: Any
) -> None:
    """The decision says who it is, why not, and what is missing."""
    denied = ask("Bearer " + mint(scope="a"), **rules)

    assert isinstance(denied, Deny)
    assert denied.verified is not None and denied.verified.caller == "platform/u1"
    assert (denied.reason, denied.missing, denied.scopes) == (reason, missing, scopes)


@pytest.mark.parametrize(
    ("rules", "header", "expected"),
    [
        ({"tiers": frozenset({"pro"})}, None, "UNAUTHORIZED"),
        ({"tiers": frozenset({"pro"})}, "Bearer x", "AUTH_FAILED"),
        ({"tiers": frozenset({"pro", "anonymous"})}, None, "anonymous"),
        ({"scopes": frozenset({"a"})}, None, "UNAUTHORIZED"),
        ({"claims": {"org": "acme"}}, None, "UNAUTHORIZED"),
    ],
)
def test_an_optional_route_that_asks_for_more_than_an_anonymous_caller_has(
    rules: Any, header: str | None, expected: str, ask: Any
) -> None:
    """A token would help, so it is 401 and not 403."""
    assert seen(ask(header, auth="optional", **rules)) == expected


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        ("a", "a", True),
        (1, 1.0, False),
        (True, 1, False),
        ([1], [True], False),
        ([1], True, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        (["a", "b"], ["a", "b"], True),
        ([["a", "b"]], ["a", "b"], True),
        ("ab", "a", False),
    ],
)
def test_has_claim(value: object, wanted: object, expected: bool) -> None:
    """Equality as JSON knows it, or membership in a list."""
    assert has_claim({"c": value}, "c", wanted) is expected


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        ("/realm/roles", "admin", True),
        ("/realm/roles", "a", False),
        ("/realm/roles/1", "admin", True),
        ("/realm/roles/2", "admin", False),
        ("realm.roles", "admin", False),
        ("dotted.name", 1, True),
        ("https://example.com/org", "acme", True),
        ("/https:~1~1example.com~1org", "acme", True),
        ("/realm/nothing", None, True),
        ("/realm/absent", None, False),
    ],
)
def test_a_claim_inside_others(name: str, wanted: object, expected: bool) -> None:
    """A name that begins with / says where the claim is; every other name is the claim's own."""
    realm = {"roles": ["user", "admin"], "nothing": None}
    claims = {"realm": realm, "dotted.name": 1, "https://example.com/org": "acme"}

    assert has_claim(claims, name, wanted) is expected


@pytest.fixture
def key_policy() -> Policy:
    digest = hashlib.sha256(b"key-1").digest()
    return Policy("x-api-key", {digest: Verified("apikey", "svc", "enterprise", until=float("inf"))})


@pytest.mark.parametrize(
    ("api_key", "header", "rules", "expected"),
    [
        ("key-1", None, {}, "apikey/svc"),
        ("key-2", None, {}, "AUTH_FAILED"),
        ("", None, {}, "AUTH_FAILED"),
        ("key-1,key-1", None, {}, "AUTH_FAILED"),
        ("k" * 5000, None, {}, "AUTH_FAILED"),
        ("kéy\udcff", None, {}, "AUTH_FAILED"),
        ("key-2", None, {"auth": "optional"}, "anonymous"),
        ("key-1", "Basic dTpw", {}, "apikey/svc"),
        ("key-1", "Bearer {good}", {}, "platform/u1"),
        ("key-1", "Bearer bad", {}, "AUTH_FAILED"),
        ("key-1", None, {"providers": frozenset({"platform"})}, "AUTH_FAILED"),
        ("key-1", None, {"providers": frozenset({"apikey"})}, "apikey/svc"),
        ("key-1", None, {"tiers": frozenset({"enterprise"})}, "apikey/svc"),
        ("key-1", None, {"tiers": frozenset({"free"})}, "FORBIDDEN"),
        ("key-1", None, {"scopes": frozenset({"a"})}, "FORBIDDEN"),
    ],
)
def test_api_keys(
    api_key: str, header: str | None, rules: Any, expected: str, ask: Any, mint: Any, key_policy: Policy
) -> None:
    """A key stands for a subject with a tier; a bearer token beside it speaks first; a route may leave keys out."""
    header = header.replace("{good}", mint()) if header is not None else None

    assert seen(ask(header, api_key=api_key, policy=key_policy, **rules)) == expected


TOO_MANY = Deny(ErrorCode.RATE_LIMITED, Reason.TOO_MANY_FAILURES, retry_after=60)


@pytest.fixture
def tried(ask: Any, key_policy: Policy, now: float) -> Any:
    """Decides on one API key, with what earlier calls of the same test left."""
    guesses, policy = Guesses(), replace(key_policy, max_failures=3)

    def decided(api_key: str, authorization: str | None = None, at: float = now, **more: Any) -> Any:
        return ask(authorization, api_key=api_key, policy=policy, guesses=guesses, at=at, **more)

    return decided


@pytest.mark.parametrize("auth", ["required", "optional"])
def test_guesses_are_bounded(auth: str, tried: Any) -> None:
    """After so many wrong keys no other is looked at: neither a wrong one, nor a right one that was not seen."""
    outcomes = [seen(tried(f"guess-{number}", auth=auth)) for number in range(3)]

    assert outcomes == ["AUTH_FAILED" if auth == "required" else "anonymous"] * 3
    assert tried("guess-3", auth=auth) == tried("key-1", auth=auth) == tried("", auth=auth) == TOO_MANY
    assert seen(tried("key-1", auth=auth, address="192.0.2.2")) == "apikey/svc"


def test_a_key_that_was_good_goes_on(tried: Any, now: float) -> None:
    """For ten minutes, from whichever address it was good."""
    assert seen(tried("key-1", address="198.51.100.1", at=now - 599)) == "apikey/svc"
    for number in range(4):
        tried(f"guess-{number}", at=now - 30)

    assert seen(tried("key-1")) == "apikey/svc"
    assert tried("key-2").retry_after == 30


def test_a_key_that_was_good_long_ago_waits(tried: Any, now: float) -> None:
    """Then it is a guess like any other."""
    tried("key-1", at=now - 600)
    for number in range(3):
        tried(f"guess-{number}")

    assert tried("key-1") == TOO_MANY


def test_one_64_is_one_client(tried: Any) -> None:
    """Its addresses share their guesses; so do both spellings of an IPv4 address."""
    for number in range(3):
        tried("guess", address=f"2001:db8:0:1::{number}")
        tried("guess", address="::ffff:192.0.2.7" if number % 2 else "192.0.2.7")

    assert tried("guess", address="2001:db8:0:1:ffff::9") == tried("guess", address="192.0.2.7") == TOO_MANY
    assert seen(tried("guess", address="2001:db8:0:2::")) == seen(tried("guess", address="192.0.2.8")) == "AUTH_FAILED"


def test_what_is_no_guess(tried: Any, mint: Any) -> None:
    """Bad tokens, good keys, keys beside a token, and keys where none are taken: nothing is learnt of a key."""
    only_tokens = frozenset({"platform"})
    for number in range(10):
        assert seen(tried(f"guess-{number}", "Bearer nonsense")) == "AUTH_FAILED"
        assert seen(tried(f"guess-{number}", "Bearer " + mint())) == "platform/u1"
        assert seen(tried(f"guess-{number}", providers=only_tokens)) == "AUTH_FAILED"
        assert seen(tried("key-1")) == "apikey/svc"

    assert seen(tried("guess")) == "AUTH_FAILED"


def test_who_may_not_guess_may_still_have_a_token(tried: Any, mint: Any) -> None:
    """Only keys are not looked at; a bad token is told as ever."""
    for number in range(4):
        tried(f"guess-{number}")

    assert seen(tried("guess", "Bearer " + mint())) == "platform/u1"
    assert seen(tried("guess", "Bearer nonsense")) == "AUTH_FAILED"
    assert seen(tried("guess", providers=frozenset({"platform"}))) == "AUTH_FAILED"


@pytest.mark.parametrize("auth", ["required", "optional"])
def test_without_usable_keys_nobody_can_tell(auth: str, ask: Any, a_verifier: Any, mint: Any) -> None:
    """503 on required and on optional routes: identity is not guessed."""
    keys = KeySet(())
    keys.good_until = 0.0

    decision = ask("Bearer " + mint(), auth=auth, verifier=a_verifier(keys=keys))
    assert decision == Deny(ErrorCode.SERVICE_UNAVAILABLE, Reason.KEYS_UNAVAILABLE)


def test_without_usable_keys_a_bad_token_is_still_a_bad_one(ask: Any, a_verifier: Any, mint: Any, now: float) -> None:
    """A token that no key can make good is invalid even then."""
    keys = KeySet(())
    keys.good_until = 0.0

    for token in ("x.y.z", mint(exp=now), mint(sub=""), mint(algorithm="HS512")):
        assert seen(ask(f"Bearer {token}", verifier=a_verifier(keys=keys))) == "AUTH_FAILED"


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ({"auth": "required"}, RouteRules(is_required=True)),
        ({"auth": "optional", "route": "r"}, RouteRules(is_required=False)),
        ({"auth": "required", "tiers": "pro,free"}, RouteRules(True, tiers=frozenset({"pro", "free"}))),
        ({"auth": "required", "tiers": ""}, RouteRules(True, tiers=frozenset())),
        ({"auth": "required", "scopes": "a b"}, RouteRules(True, scopes=frozenset({"a", "b"}))),
        ({"auth": "required", "scopes": ""}, RouteRules(True)),
        ({"auth": "required", "claims": '{"org":"acme"}'}, RouteRules(True, claims={"org": "acme"})),
        ({"auth": "required", "providers": "a, b"}, RouteRules(True, providers=frozenset({"a", "b"}))),
        ({"auth": "required", "claims": "{"}, None),
        ({"auth": "required", "claims": "[]"}, None),
        ({"auth": "none"}, None),
        ({"auth": ""}, None),
        ({"auth": "Required"}, None),
        ({}, None),
    ],
)
def test_read_rules(extensions: dict[str, str], expected: RouteRules | None) -> None:
    """The route's own policy, or None for one that cannot be read."""
    assert read_rules(extensions) == expected


def test_unreadable_rules_deny(a_verifier: Any, mint: Any, now: float) -> None:
    """With a good token too: the default is deny."""
    asked = Asked(rules=None, authorization="Bearer " + mint())

    assert decide(asked, Policy(), a_verifier(), Guesses(), now) == Deny(
        ErrorCode.SERVICE_UNAVAILABLE, Reason.ROUTE_RULES
    )
