"""Verification: times, issuers, audiences, subjects, tiers, keys, revocation and the cache."""

from __future__ import annotations

from typing import Any

import pytest

from authz_service.errors import Reason
from authz_service.keys import KeySet, secret_key
from authz_service.tokens import InvalidToken, KeyWanted, Revocations, Unavailable, Verified, Verifier

OTHER_SECRET = "another secret of more than thirty-two bytes, too"


def reason(verdict: object) -> Reason:
    assert isinstance(verdict, InvalidToken), verdict
    return verdict.reason


def test_a_good_token_is_a_caller(a_verifier: Any, mint: Any, now: float) -> None:
    """Provider, subject, tier, and until when."""
    verified = a_verifier().verify(mint(tier="pro"), None, now)

    assert isinstance(verified, Verified)
    assert (verified.caller, verified.tier, verified.until) == ("platform/u1", "pro", now + 60)


@pytest.mark.parametrize(
    ("claims", "leeway", "expected"),
    [
        ({"exp": 60}, 0, None),
        ({"exp": 1}, 0, None),
        ({"exp": 0}, 0, Reason.EXPIRED),
        ({"exp": 0.5}, 0, None),
        ({"exp": -1}, 0, Reason.EXPIRED),
        ({"exp": -9}, 10, None),
        ({"exp": -10}, 10, Reason.EXPIRED),
        ({"nbf": 0}, 0, None),
        ({"nbf": -60}, 0, None),
        ({"nbf": 1}, 0, Reason.NOT_YET_VALID),
        ({"nbf": 0.5}, 0, Reason.NOT_YET_VALID),
        ({"nbf": 10}, 10, None),
        ({"nbf": 11}, 10, Reason.NOT_YET_VALID),
        ({"iat": -5}, 0, None),
        ({"iat": 3600}, 0, None),
    ],
)
def test_times(
    claims: dict[str, float], leeway: float, expected: Reason | None, a_verifier: Any, mint: Any, now: float
) -> None:
    """`exp` ends it, `nbf` begins it, with the provider's leeway; an `iat` ahead of us is no fault."""
    token = mint(**{name: now + seconds for name, seconds in claims.items()})
    verdict = a_verifier(leeway_seconds=leeway).verify(token, None, now)

    assert isinstance(verdict, Verified) if expected is None else reason(verdict) is expected


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", ["1900000000", None, True, False, [], {}, [1_900_000_000]])
def test_a_time_is_a_number(name: str, value: object, a_verifier: Any, mint: Any, now: float) -> None:
    """RFC 7519 §2: neither text, nor null, nor a boolean, which Python takes for a number."""
    assert reason(a_verifier().verify(mint(**{name: value}), None, now)) is Reason.CLAIMS


def test_exp_is_mandatory(a_verifier: Any, mint: Any, now: float) -> None:
    """A token that never ends is invalid."""
    assert reason(a_verifier().verify(mint(exp=...), None, now)) is Reason.CLAIMS


@pytest.mark.parametrize(
    "subject", ["u", "u1", "auth0|5f7c", "a b", "é" * 128, "x" * 256, "日本", "a/b", '"', "u\u00a0x"]
)
def test_subjects(subject: str, a_verifier: Any, mint: Any, now: float) -> None:
    """Any text of 1 to 256 bytes that survives as a header value."""
    verdict = a_verifier().verify(mint(sub=subject), None, now)

    assert isinstance(verdict, Verified)
    assert verdict.subject == subject


NO_TEXT: tuple[Any, ...] = (..., None, 1, 0, True, [], ["u1"], {})
UNSAFE_TEXT = ("a\n", "\ra", "a\0b", "a\x1fb", "a\x7fb", "a\x85b", "\ud800", "a\udfff")
LOST_IN_A_HEADER = (" u1", "u1 ", "\u00a0u1", "u1\u3000", " ", "\t")


@pytest.mark.parametrize("subject", [*NO_TEXT, *UNSAFE_TEXT, *LOST_IN_A_HEADER, "", "x" * 257, "é" * 129])
def test_bad_subjects(subject: object, a_verifier: Any, mint: Any, now: float) -> None:
    """Absent, empty, long, not text, with control characters, or with white space at an end that a header loses."""
    assert reason(a_verifier().verify(mint(sub=subject), None, now)) is Reason.SUBJECT


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        (..., "free"),
        ("pro", "pro"),
        ("Pro", "pro"),
        ("ENTERPRISE", "enterprise"),
        ("anonymous", "anonymous"),
        ("platinum", "anonymous"),
        ("", "anonymous"),
        (" pro", "anonymous"),
        ("pro\n", "anonymous"),
        (None, "anonymous"),
        (1, "anonymous"),
        (["pro"], "anonymous"),
        ({"pro": 1}, "anonymous"),
    ],
)
def test_tiers(tier: object, expected: str, a_verifier: Any, mint: Any, now: float) -> None:
    """No claim: the default. Unknown: the numbers of `anonymous`, in the subject's own name."""
    verdict = a_verifier().verify(mint(tier=tier), None, now)

    assert isinstance(verdict, Verified)
    assert (verdict.tier, verdict.caller) == (expected, "platform/u1")


def test_claim_names_are_the_providers(a_verifier: Any, mint: Any, now: float) -> None:
    """Subject, tier and scopes are read where the provider says."""
    verifier = a_verifier(subject_claim="uid", tier_claim="https://example.com/tier", scopes_claim="permissions")
    token = mint(sub=..., uid="u7", **{"https://example.com/tier": "pro", "permissions": ["a", 1, "b"]})
    verdict = verifier.verify(token, None, now)

    assert isinstance(verdict, Verified)
    assert (verdict.subject, verdict.tier, verdict.scopes) == ("u7", "pro", frozenset({"a", "b"}))


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ({"subject_claim": "/user/id"}, ("u7", "free", set())),
        ({"tier_claim": "/app_metadata/plans/0"}, ("u1", "pro", set())),
        ({"tier_claim": "/app_metadata/plans/1"}, ("u1", "free", set())),
        ({"tier_claim": "/app_metadata/plans"}, ("u1", "anonymous", set())),
        ({"tier_claim": "/app_metadata/nothing"}, ("u1", "anonymous", set())),
        ({"tier_claim": "app_metadata.plans.0"}, ("u1", "free", set())),
        ({"scopes_claim": "/realm_access/roles"}, ("u1", "free", {"a", "b"})),
        ({"scopes_claim": "/realm_access/text"}, ("u1", "free", {"c", "d"})),
        ({"scopes_claim": "/realm_access"}, ("u1", "free", set())),
        ({"scopes_claim": "/realm_access/none"}, ("u1", "free", set())),
    ],
)
def test_claims_inside_others(
    names: dict[str, str], seen: tuple[str, str, set[str]], a_verifier: Any, mint: Any, now: float
) -> None:
    """A name that begins with / says where the claim is; lists and text with spaces are both scopes."""
    token = mint(
        user={"id": "u7"},
        app_metadata={"plans": ["Pro"], "nothing": None},
        realm_access={"roles": ["a", "b"], "text": "c d"},
    )
    verdict = a_verifier(**names).verify(token, None, now)

    assert isinstance(verdict, Verified)
    assert (verdict.subject, verdict.tier, set(verdict.scopes)) == seen


@pytest.mark.parametrize("name", ["/user", "/user/0", "/user/name", "user.id"])
def test_a_subject_that_is_not_there(name: str, a_verifier: Any, mint: Any, now: float) -> None:
    """No other claim takes its place."""
    verdict = a_verifier(subject_claim=name).verify(mint(user={"id": "u7"}), None, now)

    assert reason(verdict) is Reason.SUBJECT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("read write", {"read", "write"}),
        ("", set()),
        ("  read ", {"read"}),
        (["a b", "c"], {"a b", "c"}),
        (1, set()),
        (None, set()),
    ],
)
def test_scopes(value: object, expected: set[str], a_verifier: Any, mint: Any, now: float) -> None:
    """Text with spaces or a list of text; anything else grants nothing."""
    assert a_verifier().verify(mint(scope=value), None, now).scopes == expected


@pytest.mark.parametrize(
    ("audiences", "aud", "is_good"),
    [
        ((), ..., True),
        ((), "anyone", True),
        ((), ["a", "b"], True),
        (("api",), "api", True),
        (("api",), ["web", "api"], True),
        (("api", "api2"), "api2", True),
        (("api",), ..., False),
        (("api",), "web", False),
        (("api",), [], False),
        (("api",), None, False),
        (("api",), "API", False),
        (("api",), "api ", False),
        (("api",), ["web"], False),
        (("api",), ["api", 1], False),
        (("api",), {"api": 1}, False),
        (("api",), 1, False),
    ],
)
def test_audiences(
    audiences: tuple[str, ...], aud: object, is_good: bool, a_verifier: Any, mint: Any, now: float
) -> None:
    """Judged only where the provider names audiences; then one of them must be there."""
    verdict = a_verifier(audiences=frozenset(audiences)).verify(mint(aud=aud), None, now)

    assert isinstance(verdict, Verified) if is_good else reason(verdict) is Reason.AUDIENCE


@pytest.mark.parametrize(
    ("issuer", "iss", "expected"),
    [
        (None, ..., None),
        (None, "https://anyone", None),
        ("https://idp", "https://idp", None),
        ("https://idp", "https://idp/", Reason.UNKNOWN_ISSUER),
        ("https://idp", "https://IDP", Reason.UNKNOWN_ISSUER),
        ("https://idp", ..., Reason.UNKNOWN_ISSUER),
        ("https://idp", ["https://idp"], Reason.CLAIMS),
        (None, 1, Reason.CLAIMS),
        (None, None, Reason.CLAIMS),
        (None, ["https://anyone"], Reason.CLAIMS),
    ],
)
def test_issuers(
    issuer: str | None, iss: object, expected: Reason | None, a_verifier: Any, mint: Any, now: float
) -> None:
    """Equal to the letter where the provider names one; text in any case."""
    verdict = a_verifier(issuer=issuer).verify(mint(iss=iss), None, now)

    assert isinstance(verdict, Verified) if expected is None else reason(verdict) is expected


@pytest.mark.parametrize("jti", [1, None, [], {"a": 1}])
def test_a_jti_is_text(jti: object, a_verifier: Any, mint: Any, now: float) -> None:
    """Else it would slip past the list of revoked ones."""
    assert reason(a_verifier().verify(mint(jti=jti), None, now)) is Reason.CLAIMS


@pytest.fixture
def two(a_provider: Any) -> Verifier:
    """`platform` takes any issuer; `idp` owns one, with a secret of its own."""
    keys = KeySet([secret_key(OTHER_SECRET.encode(), None, ["HS256"], "OTHER")])
    return Verifier((a_provider(), a_provider(name="idp", issuer="https://idp", keys=keys)), frozenset({"free"}))


@pytest.mark.parametrize(
    ("iss", "key", "names", "expected"),
    [
        (..., None, None, "platform/u1"),
        ("https://else", None, None, "platform/u1"),
        ("https://idp", OTHER_SECRET, None, "idp/u1"),
        ("https://idp", None, None, Reason.SIGNATURE),
        (..., OTHER_SECRET, None, Reason.SIGNATURE),
        ("https://idp", OTHER_SECRET, {"idp"}, "idp/u1"),
        (..., None, {"idp"}, Reason.UNKNOWN_ISSUER),
        ("https://idp", OTHER_SECRET, {"platform"}, Reason.SIGNATURE),
        (..., None, {"nobody"}, Reason.UNKNOWN_ISSUER),
        (..., None, set(), Reason.UNKNOWN_ISSUER),
    ],
)
def test_providers_are_told_apart(
    iss: Any, key: str | None, names: Any, expected: object, two: Verifier, mint: Any, now: float
) -> None:
    """By `iss` where a provider names one, which it then owns alone; and only among those that the route accepts."""
    verdict = two.verify(mint(key=key, iss=iss), None if names is None else frozenset(names), now)

    assert (verdict.caller if isinstance(verdict, Verified) else reason(verdict)) == expected


def test_a_cached_token_is_cached_for_the_routes_providers(two: Verifier, mint: Any, now: float) -> None:
    """What one route accepts says nothing about another one's providers."""
    token = mint()
    two.verify(token, None, now)

    assert two.cached(token, None, now) is not None
    assert two.cached(token, frozenset({"idp"}), now) is None


@pytest.mark.parametrize(
    ("keys", "kid", "signed_with", "expected"),
    [
        ({"old": "A", "new": "B"}, "old", "A", True),
        ({"old": "A", "new": "B"}, "new", "B", True),
        ({"old": "A", "new": "B"}, None, "B", True),
        ({"old": "A", "new": "B"}, "old", "B", Reason.SIGNATURE),
        ({"old": "A", "new": "B"}, "else", "A", Reason.UNKNOWN_KEY),
        ({None: "A"}, "anything", "A", True),
        ({None: "A", "new": "B"}, "new", "A", Reason.SIGNATURE),
        ({None: "A", "new": "B"}, "else", "A", True),
    ],
)
def test_secrets_rotate(
    keys: dict[str | None, str],
    kid: str | None,
    signed_with: str,
    expected: object,
    a_verifier: Any,
    mint: Any,
    now: float,
) -> None:
    """Several secrets at once, by `kid`; one without a kid may have signed what no other claims."""
    secrets = {name: (name * 32).encode() for name in "AB"}
    key_set = KeySet([secret_key(secrets[name], key, ["HS256"], "S") for key, name in keys.items()])
    token = mint(key=secrets[signed_with], headers={"kid": kid} if kid is not None else None)
    verdict = a_verifier(keys=key_set).verify(token, None, now)

    assert isinstance(verdict, Verified) if expected is True else reason(verdict) is expected


@pytest.mark.parametrize(
    ("revocations", "expected"),
    [
        (Revocations(), True),
        (Revocations(ids=frozenset({"t1"})), False),
        (Revocations(ids=frozenset({"t2"})), True),
        (Revocations(subjects={("platform", "u1"): 100.0}), False),
        (Revocations(subjects={("platform", "u1"): 99.0}), True),
        (Revocations(subjects={("platform", "u2"): 100.0}), True),
        (Revocations(subjects={("idp", "u1"): 100.0}), True),
    ],
)
def test_revocation(revocations: Revocations, expected: bool, a_verifier: Any, mint: Any, now: float) -> None:
    """By `jti`, and by a provider's subject for what was issued before a time."""
    verdict = a_verifier(revocations=revocations).verify(mint(jti="t1", iat=99), None, now)

    assert isinstance(verdict, Verified) if expected else reason(verdict) is Reason.REVOKED


def test_a_token_without_iat_counts_as_issued_before(a_verifier: Any, mint: Any, now: float) -> None:
    """It cannot show that it is a later one."""
    verifier = a_verifier(revocations=Revocations(subjects={("platform", "u1"): 1.0}))

    assert reason(verifier.verify(mint(), None, now)) is Reason.REVOKED


def test_a_cached_token_ends_with_its_exp(a_verifier: Any, mint: Any, now: float) -> None:
    """The cache never outlives the token, leeway included."""
    verifier, token = a_verifier(leeway_seconds=5), mint()
    verifier.verify(token, None, now)

    assert verifier.cached(token, None, now + 64.9) is not None
    assert verifier.cached(token, None, now + 65) is None
    assert verifier.cached(token + "x", None, now) is None


def test_an_invalid_token_is_not_cached(a_verifier: Any, mint: Any, now: float) -> None:
    """A token that is not valid yet is judged anew when it is."""
    verifier, token = a_verifier(), mint(nbf=now + 10)
    verifier.verify(token, None, now)

    assert verifier.cached_tokens == 0
    assert isinstance(verifier.verify(token, None, now + 10), Verified)


class Remote(KeySet):
    """Keys that could be asked for again."""

    can_refresh = True


@pytest.mark.parametrize(
    ("changes", "kid", "expected"),
    [
        ({}, "unknown", KeyWanted),
        ({"can_refresh": False}, "unknown", InvalidToken),
        ({"can_refresh": False, "is_stale": True}, "unknown", Unavailable),
        ({"can_refresh": False, "is_stale": True}, "k1", Verified),
        ({}, "k1", Verified),
        ({"good_until": 0.0}, "k1", KeyWanted),
        ({"good_until": 0.0, "can_refresh": False}, "k1", Unavailable),
    ],
)
def test_keys_that_may_be_elsewhere(
    changes: dict[str, Any], kid: str, expected: type, a_verifier: Any, mint: Any, secret: str, now: float
) -> None:
    """An unknown key is asked for; what cannot be asked is unknown, or cannot be told."""
    keys = Remote([secret_key(secret.encode(), "k1", ["HS256"], "S")])
    for name, value in changes.items():
        setattr(keys, name, value)

    assert type(a_verifier(keys=keys).verify(mint(headers={"kid": kid}), None, now)) is expected


def test_a_set_without_kids_rotates_too(a_verifier: Any, mint: Any, now: float) -> None:
    """There a failed signature may mean a newer key; a named key that fails is a bad token."""
    named = Remote([secret_key(b"x" * 32, "k1", ["HS256"], "S")])
    verifier = a_verifier(keys=named)

    assert isinstance(verifier.verify(mint(), None, now), KeyWanted)
    assert reason(verifier.verify(mint(headers={"kid": "k1"}), None, now)) is Reason.SIGNATURE


def test_a_cached_token_ends_with_its_keys(a_verifier: Any, mint: Any, secret: str, now: float) -> None:
    """When the key set is too old to trust, so is what it verified."""
    keys = Remote([secret_key(secret.encode(), None, ["HS256"], "S")])
    keys.good_until = now + 10
    verifier, token = a_verifier(keys=keys), mint()
    verifier.verify(token, None, now)

    assert verifier.cached(token, None, now + 9) is not None
    assert verifier.cached(token, None, now + 10) is None


def test_only_a_few_keys_are_tried_without_a_kid(a_verifier: Any, mint: Any, now: float) -> None:
    """However many keys there are, a hostile token costs a bounded number of checks."""
    tried: list[str] = []

    class Counting:
        kid = None

        def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
            tried.append(algorithm)
            return False

    keys = KeySet(())
    keys.find = lambda kid, algorithm: [Counting()] * 100  # type: ignore[method-assign]  # a set larger than any
    a_verifier(keys=keys).verify(mint(), None, now)

    assert len(tried) == 4
