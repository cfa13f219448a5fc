"""One set of rules for keys: what the authz service verifies with is what Envoy is given."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from authz_service.keys import read_key_set
from controlplane.config.jwks import from_pem, pinned
from controlplane.config.model import Provider
from service_kit.jwk import (
    ALGORITHMS,
    MAX_KEYS,
    KeyUnreadable,
    UnusableKey,
    fingerprint,
    members,
    public_jwk,
    read_jwk,
    read_pem,
)

PUBLIC_ALGORITHMS = ("RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA")
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048).public_key(),
    "ES256": ec.generate_private_key(ec.SECP256R1()).public_key(),
    "ES512": ec.generate_private_key(ec.SECP521R1()).public_key(),
    "EdDSA": ed25519.Ed25519PrivateKey.generate().public_key(),
}


def a_provider(**changes: Any) -> Provider:
    given = {"name": "idp", "algorithms": PUBLIC_ALGORITHMS, "jwks_uri": "https://idp.example/keys"}
    return Provider.model_validate(given | changes)


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_key_is_the_same_as_pem_and_as_jwk(algorithm: str) -> None:
    """It may be used with the same algorithms, whichever way it came."""
    material = KEYS[algorithm]
    pem = material.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    from_text, from_key = read_pem(pem, ALGORITHMS), read_jwk(public_jwk(material), ALGORITHMS)
    assert not isinstance(from_key, UnusableKey)
    assert algorithm in from_text.algorithms == from_key.algorithms
    assert from_pem(pem) == {"keys": [public_jwk(material)]}


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize("name", ["alg", "use", "key_ops", "kid", "d", "k", "x5c", "x5t"])
def test_a_member_that_says_nothing_is_as_absent(name: str, nothing: str | None) -> None:
    """Some sources write null for what a key does not have."""
    key = public_jwk(KEYS["RS256"])
    key.pop("key_ops", None)

    assert fingerprint({"keys": [key | {name: nothing}]}) == fingerprint({"keys": [key]})
    assert pinned({"keys": [key | {name: nothing}]}, a_provider()) == pinned({"keys": [key]}, a_provider())
    found = read_jwk(key | {name: nothing}, ALGORITHMS)
    assert not isinstance(found, UnusableKey)
    assert (found.kid, found.algorithms) == (None, read_pem(pem_of("RS256"), ALGORITHMS).algorithms)


def pem_of(algorithm: str) -> str:
    pem: bytes = KEYS[algorithm].public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


@pytest.mark.parametrize(
    "change",
    [{"kid": "b"}, {"use": "enc"}, {"alg": "RS512"}, {"e": "AQAC"}, {"key_ops": ["sign"]}, {"d": "AQ"}],
    ids=str,
)
def test_another_key_has_another_fingerprint(change: dict[str, Any]) -> None:
    """Whatever decides whether and how a key is used; a comment does not."""
    key = public_jwk(KEYS["RS256"]) | {"kid": "a"}

    assert fingerprint({"keys": [key | change]}) != fingerprint({"keys": [key]})
    assert fingerprint({"keys": [key | {"comment": change}]}) == fingerprint({"keys": [key]})


def test_the_order_says_nothing() -> None:
    """Of keys, of their members, and of their operations; a key that is there twice is another set."""
    one, other = (public_jwk(KEYS[name]) | {"key_ops": ["verify", "sign"]} for name in ("RS256", "ES256"))
    turned = [dict(reversed(key.items())) | {"key_ops": ["sign", "verify"]} for key in (other, one)]

    assert fingerprint({"keys": turned}) == fingerprint(json.dumps({"keys": [one, other]}).encode())
    assert fingerprint({"keys": [one, one]}) != fingerprint({"keys": [one]})


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, 1, "", "x", [], {}, "sig", "enc", ["verify"], ["sign"], "RS256", "ES256", "P-256", "EC", "oct"]
)


@given(
    st.sampled_from(sorted(KEYS)),
    st.dictionaries(
        st.sampled_from(["kty", "use", "key_ops", "alg", "kid", "crv", "n", "e", "x", "y", "d", "k"]), JUNK, max_size=3
    ),
)
def test_both_sides_use_the_same_keys(algorithm: str, changes: dict[str, Any]) -> None:
    """Whatever a set holds, Envoy is given the keys that the authz service uses, and no others."""
    key = public_jwk(KEYS[algorithm]) | changes
    document = {"keys": [key]}

    used, unusable = read_key_set(document, frozenset(PUBLIC_ALGORITHMS))
    given_to_envoy = pinned(document, a_provider())["keys"]
    assert len(used) + len(unusable) == 1
    assert {pin["alg"] for pin in given_to_envoy} == {name for each in used.keys for name in each.algorithms}
    assert all("d" not in pin and "k" not in pin for pin in given_to_envoy)


def test_what_is_unusable_says_why_and_nothing_of_the_key() -> None:
    """The reason can be logged."""
    secret = base64.urlsafe_b64encode(b"hush" * 10).decode()
    found = read_jwk({"kty": "oct", "kid": "k", "k": secret}, ALGORITHMS)

    assert isinstance(found, UnusableKey)
    assert (found.kid, found.why) == ("k", "a secret in a public key set")
    assert secret not in repr(found)


def test_a_set_is_bounded() -> None:
    """Of a set with too many keys the first ones count."""
    assert len(members({"keys": [{}] * (MAX_KEYS + 1)})) == MAX_KEYS


@pytest.mark.parametrize("document", ["", "[]", "null", "{}", '{"keys": {}}', "[" * 100_000, json.dumps("keys")])
def test_what_is_no_set_is_unreadable(document: str) -> None:
    """An error page is not an empty set."""
    with pytest.raises(KeyUnreadable):
        members(document)


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----"


@pytest.mark.parametrize("pem", ["", "nonsense", "-----BEGIN PRIVATE KEY-----", CERTIFICATE])
def test_what_is_no_public_key_is_unreadable(pem: str) -> None:
    """A private key has no business here."""
    with pytest.raises(KeyUnreadable):
        read_pem(pem, ALGORITHMS)
