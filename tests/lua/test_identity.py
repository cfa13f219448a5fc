"""identity.lua: which verified token makes a caller known without authz."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.config.model import GatewayConfig
from controlplane.translate import jwt_authn
from tests.lua.support.worker import Worker, python
from tests.support.configs import a_config

NOW = 1_790_000_000.0
PROVIDER = {"name": "idp", "algorithms": ["RS256"], "jwks": {"keys": []}}
HEADER: dict[str, Any] = {"alg": "RS256"}
CLAIMS: dict[str, Any] = {"sub": "u1", "tier": "pro", "exp": NOW + 60}
TIERS = {tier: {"rps": 1, "rpm": 10, "burst": 2} for tier in ("anonymous", "free", "pro")}
KEY = {"kty": "RSA", "e": "AQAB", "n": urlsafe_b64encode(b"\xff" * 256).rstrip(b"=").decode()}


def encoded(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def the_config(**provider: Any) -> GatewayConfig:
    keys = {"keys": [KEY | {"kid": kid, "alg": "RS256"} for kid in provider.pop("kids", ["k1"])]}
    found = PROVIDER | {"jwks": keys} | provider
    return a_config(auth={"verified_by": "envoy", "providers": [found]}, limits={"tiers": TIERS})


def a_worker(**provider: Any) -> Worker:
    constants = jwt_authn.constants(the_config(**provider), jwt_authn.NO_KEYS)
    assert constants["providers"], "Envoy would have no key of this provider"
    return Worker("identity", constants | {"in_quotas": False, "version": "v1"})


WORKER = a_worker()


def identified(
    claims: Any = CLAIMS,
    header: Any = HEADER,
    settings: dict[str, str] | None = None,
    worker: Worker = WORKER,
    verified_by: str = "idp",
    scheme: str = "Bearer ",
    signature: str = "AAAA",
) -> dict[str, Any] | None:
    """The caller whom the script finds in a token that jwt_authn has verified."""
    authorization = f"{scheme}{encoded(header)}.{encoded(claims)}.{signature}"
    metadata = worker.metadata(jwt_authn={verified_by: {"alg": "RS256"}})
    asked = {"auth": "required", "verifier": "v1"} | (settings or {})
    found = worker.identify(worker.table(asked), metadata, authorization, NOW)
    return None if found is None else python(found)


def test_a_verified_token() -> None:
    """The caller is the provider's subject, in the tier that the token names, until the token ends."""
    found = identified()

    assert found is not None
    assert [found[key] for key in ("subject", "tier", "name", "ends")] == ["u1", "pro", "idp/u1", NOW + 60]


@pytest.mark.parametrize(
    ("claims", "tier"), [({"tier": "PRO"}, "pro"), ({"tier": "gold"}, None), ({"tier": 1}, None), ({"tier": ""}, None)]
)
def test_tiers(claims: dict[str, Any], tier: str | None) -> None:
    """In lower case, and one that has limits; any other one is for authz to decide."""
    found = identified(CLAIMS | claims)

    assert (found and found["tier"]) == tier


def test_without_a_tier() -> None:
    """The provider's default."""
    found = identified({"sub": "u1", "exp": NOW + 60}, worker=a_worker(default_tier="pro"))

    assert found is not None
    assert found["tier"] == "pro"


NESTED = {"user": {"id": "u2"}, "plans": [{"n/a": "Free"}, {"~": "pro"}], "sub": "u1", "exp": NOW + 60}


@pytest.mark.parametrize(
    ("names", "subject", "tier"),
    [
        ({"subject": "/user/id"}, "u2", "free"),
        ({"subject": "/sub", "tier": "/plans/0/n~1a"}, "u1", "free"),
        ({"tier": "/plans/1/~0"}, "u1", "pro"),
        ({"tier": "/plans/2/~0"}, "u1", "free"),
        ({"tier": "user.id"}, "u1", "free"),
        ({"tier": "/plans/0"}, None, None),
        ({"tier": "/user/id"}, None, None),
        ({"subject": "/user/id/0"}, None, None),
        ({"subject": "/user"}, None, None),
        ({"subject": "user.id"}, None, None),
    ],
)
def test_claims_inside_others(names: dict[str, str], subject: str | None, tier: str | None) -> None:
    """A name that begins with / says where a claim is; what leads to nothing is no claim."""
    found = identified(NESTED, worker=a_worker(claims=names))

    assert (found and found["subject"], found and found["tier"]) == (subject, tier)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW},
        {"exp": None},
        {"exp": "never"},
        {"nbf": NOW + 1},
        {"nbf": "x"},
        {"iat": "x"},
        {"sub": ""},
        {"sub": 7},
        {"sub": " u"},
        {"sub": "u "},
        {"sub": "u" * 257},
        {"sub": "\u00e9"},
        {"iss": 1},
        {"jti": 1},
        {"aud": None},
    ],
    ids=str,
)
def test_claims_that_authz_has_to_judge(claims: dict[str, Any]) -> None:
    """A token out of its time, a subject that is none, and claims of a wrong kind."""
    assert identified(CLAIMS | claims) is None


@pytest.mark.parametrize(("leeway", "known"), [(0, False), (5, True)])
@pytest.mark.parametrize("claims", [{"exp": NOW - 4.5}, {"nbf": NOW + 5}], ids=str)
def test_leeway(claims: dict[str, Any], leeway: int, known: bool) -> None:
    """The provider's, exactly: jwt_authn's own cannot be 0."""
    found = identified(CLAIMS | claims, worker=a_worker(leeway_seconds=leeway))

    assert (found is not None) is known


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256"},
        {"alg": None},
        {},
        {"alg": "RS256", "crit": ["exp"]},
        {"alg": "RS256", "crit": []},
        {"alg": "RS256", "b64": False},
        {"alg": "RS256", "b64": 1},
        {"alg": "RS256", "typ": "dpop+jwt"},
        {"alg": "RS256", "typ": "Logout+JWT"},
        {"alg": "RS256", "typ": 1},
        {"alg": "RS256", "cty": 1},
        {"alg": "RS256", "nothing": None},
        {"alg": "RS256", "kid": ""},
        {"alg": "RS256", "kid": 1},
        {"alg": "RS256", "kid": "k" * 257},
    ],
    ids=str,
)
def test_headers_that_authz_has_to_judge(header: dict[str, Any]) -> None:
    """An algorithm that the provider does not have, what changes a signature's meaning, a field of a wrong kind."""
    assert identified(header=header) is None


@pytest.mark.parametrize(
    "more",
    [
        {"cat": "cl_x", "nonce": "n", "ver": "1", "iss": "https://idp", "Crit": []},
        {"jku": "https://keys", "x5u": "https://certificate", "jwk": {"kty": "oct"}, "x5c": ["AAAA"]},
        {"b64": True, "zip": "DEF", "cty": "json", "x5t#S256": "AAAA"},
    ],
    ids=str,
)
def test_header_fields_that_are_ignored(more: dict[str, Any]) -> None:
    """What is not understood and not critical."""
    assert identified(header=HEADER | more) is not None


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "application/at+JWT", "JOSE", "jwt+x", ""])
def test_types_of_tokens(typ: str) -> None:
    """Whatever does not name another kind of token."""
    assert identified(header=HEADER | {"typ": typ, "kid": "k1"}) is not None


@pytest.mark.parametrize(("kid", "known"), [(None, False), ("k1", True)])
def test_of_many_keys_one_has_to_be_named(kid: str | None, known: bool) -> None:
    """authz would not try them all."""
    worker = a_worker(kids=["k1", "k2", "k3", "k4", "k5"])
    header = HEADER | ({"kid": kid} if kid else {})

    assert (identified(header=header, worker=worker) is not None) is known


@pytest.mark.parametrize(
    ("audience", "known"),
    [
        ("gateway", True),
        (["other", "gateway"], True),
        ("https://gateway", False),
        ("gateway/", False),
        ([], False),
        (["other"], False),
        (["gateway", 1], False),
        ({"0": "gateway"}, False),
        ({"a": "gateway"}, False),
        (True, False),
        (None, False),
    ],
)
def test_audiences(audience: Any, known: bool) -> None:
    """One of the provider's, letter by letter: jwt_authn takes some for equal that are not."""
    worker = a_worker(audiences=["gateway"])
    claims = CLAIMS if audience is None else CLAIMS | {"aud": audience}

    assert (identified(claims, worker=worker) is not None) is known


@pytest.mark.parametrize(("issuer", "known"), [("https://idp", True), ("https://idp/", False), (None, False)])
def test_issuers(issuer: str | None, known: bool) -> None:
    """The provider's, letter by letter."""
    claims = CLAIMS | ({"iss": issuer} if issuer else {})

    assert (identified(claims, worker=a_worker(issuer="https://idp")) is not None) is known


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({"ask": "yes"}, False),
        ({"tiers": ",pro,"}, True),
        ({"tiers": ",free,"}, False),
        ({"tiers": ",pro2,"}, False),
        ({"providers": ",idp,"}, True),
        ({"providers": ",idp2,"}, False),
        ({"revoked": ",idp,"}, False),
        ({"revoked": ",other,"}, True),
        ({"revoked_ids": "yes"}, True),
        ({"verifier": "v2"}, False),
        ({"verifier": ""}, False),
    ],
    ids=str,
)
def test_what_the_route_asks(settings: dict[str, str], known: bool) -> None:
    """Scopes and claims, tiers, providers, revocations, other keys: whoever might not pass is for authz to decide."""
    assert (identified(settings=settings) is not None) is known


def test_a_token_with_an_id_where_ids_are_revoked() -> None:
    """authz knows which."""
    claims = CLAIMS | {"jti": "t1"}

    assert identified(claims) is not None
    assert identified(claims, settings={"revoked_ids": "yes"}) is None


@pytest.mark.parametrize("scheme", ["bearer ", "Bearer  ", "", "Basic ", "Bearer a, Bearer "])
def test_other_schemes(scheme: str) -> None:
    """What was verified is what stands behind `Bearer ` and nowhere else."""
    assert identified(scheme=scheme) is None


def test_another_filters_word_is_none() -> None:
    """Nothing is known of a token that no configured provider's key verified."""
    authorization = f"Bearer {encoded(HEADER)}.{encoded(CLAIMS)}.AAAA"

    assert identified(verified_by="other") is None
    assert WORKER.identify(WORKER.table({"verifier": "v1"}), WORKER.metadata(), authorization, NOW) is None


def test_a_long_token() -> None:
    """8 KiB at most, as for authz."""
    assert identified(CLAIMS | {"x": "y" * 6000}) is not None
    assert identified(CLAIMS | {"x": "y" * 6200}) is None


@pytest.mark.parametrize(
    "claims",
    ['{"sub":"u1","exp":1e99}', "{'sub':'u1','exp':9999999999}", '{"sub":"u1","sub":"u2","exp":9999999999}', "x"],
)
def test_text_that_is_not_plain(claims: str) -> None:
    """jwt_authn's reader takes such text, authz's may not."""
    assert identified(claims) is None


@pytest.mark.parametrize("signature", ["AB", "A", ""])
def test_base64url_that_is_not_canonical(signature: str) -> None:
    """Another spelling of the same bytes is another token."""
    assert identified(signature=signature) is None


NAMES = st.sampled_from(["sub", "exp", "nbf", "iat", "iss", "aud", "jti", "tier"])
TEXTS = st.text(max_size=4)
VALUES = st.none() | st.booleans() | st.integers(-5, 2 * 10**9) | TEXTS | st.lists(TEXTS, max_size=2)


@given(st.dictionaries(NAMES, VALUES))
def test_hostile_claims_break_nothing(claims: dict[str, Any]) -> None:
    """Whoever is found has a subject, a tier that has limits, and time left."""
    found = identified(claims)

    if found is not None:
        assert claims["sub"] == found["subject"] != ""
        assert found["tier"] in TIERS
        assert claims["exp"] == found["ends"] > NOW
