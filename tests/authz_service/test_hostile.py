"""Properties over token text: never an exception, never a wrong allow."""

from __future__ import annotations

import json
import string
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz_service.decision import Allow
from authz_service.tokens import InvalidToken, Verified

RELAXED = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
ALPHABET = string.ascii_letters + string.digits + "-_"

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
names = st.sampled_from(
    ["alg", "typ", "kid", "crit", "jku", "exp", "sub", "nbf", "iat", "iss", "aud", "tier", "jti", "scope"]
)
objects = st.dictionaries(names | st.text(max_size=5), values, max_size=6)
segments = st.text(alphabet=ALPHABET + ".=+/, \n\0é", max_size=60) | objects.map(
    lambda value: urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
)


def is_anonymous_or_denied(decision: object) -> bool:
    return not (isinstance(decision, Allow) and decision.verified is not None)


@RELAXED
@given(header=st.text(max_size=200) | st.text(max_size=200).map(lambda text: f"Bearer {text}"))
def test_any_header_text(header: str, ask: Any) -> None:
    """Whatever stands in Authorization, there is a response, and it never has an identity."""
    assert is_anonymous_or_denied(ask(header))
    assert is_anonymous_or_denied(ask(header, auth="optional"))


@RELAXED
@given(parts=st.lists(segments, min_size=1, max_size=5))
def test_any_three_segments(parts: list[str], ask: Any) -> None:
    """Text that looks like a token, with objects of every shape in it, is denied without a signature."""
    assert is_anonymous_or_denied(ask("Bearer " + ".".join(parts)))


@RELAXED
@given(header=objects, claims=objects)
def test_any_signed_claims(
    header: dict[str, Any], claims: dict[str, Any], a_verifier: Any, mint: Any, now: float
) -> None:
    """Truly signed, but with any header and any claims: a caller comes out only with a sound subject and expiry."""
    verdict = a_verifier().verify(mint.raw({"alg": "HS256"} | header, claims), None, now)

    assert isinstance(verdict, (Verified, InvalidToken))
    if isinstance(verdict, Verified):
        assert verdict.subject == claims["sub"]
        assert verdict.subject
        assert verdict.until == claims["exp"] > now


@RELAXED
@given(
    claims=st.dictionaries(st.sampled_from(["nbf", "iat", "aud", "iss", "tier", "jti", "scope"]), values, max_size=5)
)
def test_any_claims_beside_good_ones(claims: dict[str, Any], a_verifier: Any, mint: Any, now: float) -> None:
    """The tier is one of ours whatever the claim holds."""
    verdict = a_verifier().verify(mint(**claims), None, now)

    if isinstance(verdict, Verified):
        assert verdict.tier in {"anonymous", "free", "pro", "enterprise"}


@RELAXED
@given(data=st.data())
def test_a_changed_character_is_denied(data: Any, a_verifier: Any, mint: Any, now: float) -> None:
    """Any one character replaced, put in or taken away, anywhere in a good token."""
    token = mint(tier="pro")
    at = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(ALPHABET + "._-=+/, \n\t\0é"))
    replaced = token[:at] + character + token[at + 1 :]
    for changed in (replaced, token[:at] + character + token[at:], token[:at] + token[at + 1 :]):
        if changed != token:
            assert isinstance(a_verifier().verify(changed, None, now), InvalidToken)


def test_every_replacement_in_the_signature_is_invalid(a_verifier: Any, mint: Any, now: float) -> None:
    """All of them: the last character's spare bits are where altered text hides."""
    token, verifier = mint(), a_verifier()
    start = token.rindex(".") + 1
    for at in range(start, len(token)):
        for character in ALPHABET:
            changed = token[:at] + character + token[at + 1 :]
            if changed != token:
                assert isinstance(verifier.verify(changed, None, now), InvalidToken)


@pytest.mark.parametrize(
    "claims",
    [
        b"[" * 6000,
        b'{"a":' * 1100,
        b'{"exp":' + b"9" * 6000 + b"}",
        b'{"exp":1e' + b"9" * 6000 + b"}",
        b'{"a":"' + b"\\u0000" * 900 + b'"}',
        b'{"a":"' + b"\\" * 6000 + b'"}',
        b"{" + b",".join(b'"%d":0' % n for n in range(700)) + b"}",
        b'{"a":[' + b"0," * 3000 + b"0]}",
        b'{"a":[' + b"{}," * 500 + b"{}]}",
        b'{"a":[' + b"1e5," * 1300 + b"0]}",
        b'"' * 6000,
        b"\xff" * 6000,
        b" " * 6000,
    ],
)
def test_hostile_tokens_are_cheap(claims: bytes, ask: Any, mint: Any) -> None:
    """At most a millisecond of CPU each; the best of a few runs, since others share the machine."""
    import time

    header = "Bearer " + mint.raw({"alg": "HS256"}, claims)
    best = float("inf")
    for _ in range(20):
        began = time.thread_time()
        assert is_anonymous_or_denied(ask(header))
        best = min(best, time.thread_time() - began)

    assert best < 0.001
