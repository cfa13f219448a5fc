"""RFC 8725 (JSON Web Token Best Current Practices), rule by rule: one test each, named by its section."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from authz_service.compact import read_compact
from authz_service.errors import PolicyRejected, Reason, TokenInvalid
from authz_service.keys import KeySet, VerifyingKey, pem_key, read_key_set, secret_key
from authz_service.policy import read_policy
from authz_service.tokens import InvalidToken, Verified
from service_kit.jwk import ALGORITHMS


def reason_of(verdict: object) -> Reason:
    assert isinstance(verdict, InvalidToken), verdict
    return verdict.reason


@pytest.mark.parametrize(
    "alg", ["HS384", "HS512", "RS256", "none", "None", "NONE", "nOnE", "", "hs256", "HS256 ", "A128KW"]
)
def test_3_1_algorithm_verification(alg: str, a_verifier: Any, mint: Any, now: float) -> None:
    """The caller's header chooses nothing that the provider does not list; `none` is never listed."""
    token = mint.raw({"alg": alg}, mint.claims())

    assert reason_of(a_verifier().verify(token, None, now)) is Reason.ALGORITHM
    assert "none" not in {name.lower() for name in ALGORITHMS}


def test_3_1_a_key_is_used_with_its_own_algorithm(private_keys: Any, a_verifier: Any, mint: Any, now: float) -> None:
    """A public key is never an HMAC secret, though the provider were to list both (§2.1)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = private_keys["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    algorithms = frozenset({"RS256", "HS256"})
    verifier = a_verifier(algorithms=algorithms, keys=KeySet([pem_key(pem.decode(), algorithms)]))
    import hmac

    stem = mint(algorithm="HS256").rpartition(".")[0]
    from base64 import urlsafe_b64encode

    for secret in (pem, pem.strip(), pem + b"\n"):
        forged = urlsafe_b64encode(hmac.digest(secret, stem.encode(), "sha256")).rstrip(b"=").decode()
        assert reason_of(verifier.verify(f"{stem}.{forged}", None, now)) is Reason.UNKNOWN_KEY


def test_3_1_a_curve_has_one_algorithm(private_keys: Any, jwk: Any) -> None:
    """ES256 is P-256 and nothing else (RFC 7518 §3.4)."""
    keys, _ = read_key_set({"keys": [jwk(private_keys["ES384"], "k", "ES384")]}, ALGORITHMS)

    assert [len(keys.find("k", name)) for name in ("ES256", "ES384", "ES512")] == [0, 1, 0]


@pytest.mark.parametrize("algorithm", ["none", "RSA1_5", "dir", "HS1", "ES256K", "RS1", ""])
def test_3_2_appropriate_algorithms(algorithm: str, a_policy: Any) -> None:
    """An operator cannot list what is broken, meant for encryption, or unknown."""
    with pytest.raises(PolicyRejected):
        read_policy(a_policy({"algorithms": ["HS256", algorithm]}))


def test_3_3_all_operations_are_validated(a_verifier: Any, mint: Any, now: float) -> None:
    """A nested token is invalid and not half read; a signature that fails makes the whole invalid."""
    nested = mint.raw({"alg": "HS256", "cty": "JWT"}, mint().encode())

    assert reason_of(a_verifier().verify(nested, None, now)) is Reason.MALFORMED
    assert reason_of(a_verifier().verify(mint(key="x" * 40), None, now)) is Reason.SIGNATURE


def test_3_4_cryptographic_inputs_are_validated() -> None:
    """A point that is not on its curve makes no key."""
    off_curve = {"kty": "EC", "crv": "P-256", "kid": "k", "x": "AA" * 21 + "A", "y": "AA" * 21 + "A"}

    keys, ignored = read_key_set({"keys": [off_curve]}, ALGORITHMS)
    assert not keys
    assert [each.kid for each in ignored] == ["k"]


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_3_5_keys_have_enough_entropy(algorithm: str, least: int) -> None:
    """A secret shorter than its hash is rejected (RFC 7518 §3.2)."""
    assert isinstance(secret_key(b"x" * least, None, [algorithm], "S"), VerifyingKey)
    with pytest.raises(PolicyRejected, match=f"S has {least - 1} bytes"):
        secret_key(b"x" * (least - 1), None, [algorithm], "S")


def test_3_6_nothing_is_decompressed(mint: Any, segment: Any) -> None:
    """`zip` is for encrypted tokens: here it means nothing, and compressed claims are no claims."""
    header = {"alg": "HS256", "zip": "DEF"}
    compressed = zlib.compress(json.dumps(mint.claims()).encode())

    assert read_compact(mint.raw(header, mint.claims())).claims == mint.claims()
    with pytest.raises(TokenInvalid):
        read_compact(f"{segment(header)}.{segment(compressed)}.AAAA")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_3_7_utf_8(encoding: str, mint: Any) -> None:
    """JSON in another encoding is rejected."""
    with pytest.raises(TokenInvalid):
        read_compact(mint.raw('{"alg":"HS256"}'.encode(encoding), mint.claims()))


def test_3_8_issuer_and_subject(a_verifier: Any, mint: Any, now: float) -> None:
    """The keys belong to the issuer that the provider names, and a token has a subject."""
    verifier = a_verifier(issuer="https://idp")

    assert isinstance(verifier.verify(mint(iss="https://idp"), None, now), Verified)
    assert reason_of(verifier.verify(mint(iss="https://other"), None, now)) is Reason.UNKNOWN_ISSUER
    assert reason_of(verifier.verify(mint(iss="https://idp", sub=...), None, now)) is Reason.SUBJECT


def test_3_9_audience(a_verifier: Any, mint: Any, now: float) -> None:
    """A token for another audience is invalid where the provider has audiences."""
    verifier = a_verifier(audiences=frozenset({"api"}))

    assert reason_of(verifier.verify(mint(aud="web"), None, now)) is Reason.AUDIENCE
    assert reason_of(verifier.verify(mint(), None, now)) is Reason.AUDIENCE


@pytest.mark.parametrize("kid", ["../../dev/null", "' OR 1=1 --", "k1\0", "https://evil.example/k", "k1\r\nX: y", "💥"])
def test_3_10_a_kid_is_only_looked_up(kid: str, a_verifier: Any, mint: Any, secret: str, now: float) -> None:
    """It is no path, query or address: an odd one is simply not there."""
    keys = KeySet([secret_key(secret.encode(), "k1", ["HS256"], "S")])

    assert reason_of(a_verifier(keys=keys).verify(mint(headers={"kid": kid}), None, now)) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("field", ["jku", "x5u", "jwk", "x5c"])
def test_3_10_keys_that_come_along_are_not_used(
    field: str, private_keys: Any, jwk: Any, a_verifier: Any, mint: Any, now: float
) -> None:
    """Nothing is fetched and no key is taken from a token: what it says of keys is ignored."""
    own = jwk(private_keys["ES256"], "k1", "ES256")
    value = {"jwk": own, "x5c": ["AAAA"]}.get(field, "https://evil.example/keys")
    forged = mint(key=private_keys["ES256"], algorithm="ES256", headers={field: value})
    verifier = a_verifier(algorithms=frozenset({"HS256", "ES256"}))

    assert isinstance(verifier.verify(mint(headers={field: value}), None, now), Verified)
    assert reason_of(verifier.verify(forged, None, now)) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("typ", "is_good"), [("at+jwt", True), ("JWT", True), ("secevent+jwt", False), ("logout+jwt", False)]
)
def test_3_11_explicit_typing(typ: str, is_good: bool, a_verifier: Any, mint: Any, now: float) -> None:
    """A token that says it is another kind of token is not an access token."""
    verdict = a_verifier().verify(mint(headers={"typ": typ}), None, now)

    assert isinstance(verdict, Verified) is is_good


def test_3_12_kinds_of_tokens_exclude_each_other(a_provider: Any, a_verifier: Any, mint: Any, now: float) -> None:
    """Two providers with different keys never take each other's tokens, whatever their claims say."""
    other = KeySet([secret_key(b"o" * 32, None, ["HS256"], "O")])
    verifier = a_verifier(a_provider(name="a", issuer="a"), a_provider(name="b", issuer="b", keys=other))

    assert isinstance(verifier.verify(mint(iss="a"), None, now), Verified)
    assert reason_of(verifier.verify(mint(iss="b"), None, now)) is Reason.SIGNATURE
