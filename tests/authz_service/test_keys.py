"""Keys from secrets, PEM and JSON Web Keys."""

from __future__ import annotations

from typing import Any

import pytest

from authz_service.errors import PolicyRejected
from authz_service.keys import pem_key, read_key_set
from service_kit.jwk import ALGORITHMS, RSA_ALGORITHMS

SIGNED = b"header.claims"


def pem_of(private_key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    text: bytes = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def signature(private_key: Any, algorithm: str) -> bytes:
    import jwt

    signed: bytes = jwt.algorithms.get_default_algorithms()[algorithm].sign(SIGNED, private_key)
    return signed


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_every_kind_verifies_from_pem_and_jwk(algorithm: str, private_keys: Any, jwk: Any) -> None:
    """The same key in either form verifies its own signatures and no others."""
    private_key = private_keys[algorithm]
    keys, ignored = read_key_set({"keys": [jwk(private_key, "k1", algorithm)]}, ALGORITHMS)
    (from_jwk,) = keys.find("k1", algorithm)

    assert not ignored
    for key in (from_jwk, pem_key(pem_of(private_key), [algorithm])):
        assert key.verify(algorithm, SIGNED, signature(private_key, algorithm))
        assert not key.verify(algorithm, SIGNED + b"x", signature(private_key, algorithm))
        assert not key.verify(algorithm, SIGNED, b"")
        assert not key.verify(algorithm, SIGNED, b"\0" * 64)
        assert not key.verify("HS256", SIGNED, signature(private_key, algorithm))


def test_ed25519_is_eddsa_by_its_newer_name(private_keys: Any) -> None:
    """RFC 9864 renamed it; an operator lists the name that the issuer uses."""
    key = pem_key(pem_of(private_keys["EdDSA"]), ["Ed25519"])

    assert key.verify("Ed25519", SIGNED, signature(private_keys["EdDSA"], "EdDSA"))
    assert not key.verify("EdDSA", SIGNED, signature(private_keys["EdDSA"], "EdDSA"))


def test_a_certificate_is_a_public_key(private_keys: Any) -> None:
    """Some issuers publish nothing else."""
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    private_key = private_keys["ES256"]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "idp")])
    certificate = (
        x509.CertificateBuilder(name, name, private_key.public_key(), 1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2090, 1, 1, tzinfo=UTC))
        .sign(private_key, hashes.SHA256())
    )

    key = pem_key(certificate.public_bytes(Encoding.PEM).decode(), ["ES256"])
    assert key.verify("ES256", SIGNED, signature(private_key, "ES256"))


def test_bad_pem_is_rejected(private_keys: Any) -> None:
    """Private keys, short keys and nonsense, each by a message that does not quote it."""
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = private_keys["ES256"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    short = pem_of(rsa.generate_private_key(65537, 1024))

    for text, message in ((private, "private"), (short, "1024 bits"), ("nonsense", "cannot be read")):
        with pytest.raises(PolicyRejected, match=message) as rejected:
            pem_key(text, ALGORITHMS)
        assert text not in str(rejected.value)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"use": "enc"}, "not for signatures"),
        ({"key_ops": ["sign"]}, "not for verifying"),
        ({"key_ops": "verify"}, "not for verifying"),
        ({"alg": "RS256"}, "none of the provider's algorithms"),
        ({"alg": 1}, "alg is not text"),
        ({"kty": "XXX"}, "unreadable"),
        ({"kty": ["EC"]}, "unreadable"),
        ({"kty": None}, "unreadable"),
        ({"crv": "P-999"}, "unreadable"),
        ({"crv": "secp256k1"}, "unreadable"),
        ({"x": "AAAA"}, "unreadable"),
        ({"x": None}, "unreadable"),
        ({"y": 5}, "unreadable"),
        ({"d": "AAAA"}, "a private key"),
        ({"kty": "oct", "k": "A" * 64}, "a secret in a public key set"),
    ],
)
def test_unusable_keys_are_ignored_with_a_reason(
    changes: dict[str, Any], why: str, private_keys: Any, jwk: Any
) -> None:
    """RFC 7517 §5: the others in the set are still used."""
    good = jwk(private_keys["ES256"], "good", "ES256")
    bad = jwk(private_keys["ES256"], "bad", "ES256", **changes)

    keys, (ignored,) = read_key_set({"keys": [bad, good]}, ALGORITHMS)
    assert [key.kid for key in keys.keys] == ["good"]
    assert (ignored.kid, why in ignored.why) == ("bad", True), ignored


@pytest.mark.parametrize("members", [[None], [[]], ["key"], [{}], [1]])
def test_members_that_are_no_keys_are_ignored(members: list[Any]) -> None:
    """Whatever is in the list."""
    keys, ignored = read_key_set({"keys": members}, ALGORITHMS)

    assert (len(keys), len(ignored)) == (0, 1)


@pytest.mark.parametrize(
    "document", [b"", b"nonsense", b"[]", b"null", b"{}", b'{"keys":{}}', b'{"keys":null}', b"[" * 100_000]
)
def test_what_is_no_key_set_is_rejected(document: bytes) -> None:
    """An error page is not an empty set."""
    with pytest.raises(PolicyRejected):
        read_key_set(document, ALGORITHMS)


def test_a_short_rsa_key_is_ignored(jwk: Any) -> None:
    """RFC 7518 §3.3: 2048 bits at least."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    keys, (ignored,) = read_key_set({"keys": [jwk(rsa.generate_private_key(65537, 1024), "k", "RS256")]}, ALGORITHMS)
    assert (len(keys), ignored.why) == (0, "RSA with 1024 bits")


def test_a_key_has_its_familys_algorithms_that_the_provider_lists(private_keys: Any, jwk: Any) -> None:
    """Without `alg` all of them, with `alg` that one."""
    plain, named = jwk(private_keys["RS256"], "a", "RS256"), jwk(private_keys["RS256"], "b", "RS256", alg="PS256")
    keys, _ = read_key_set({"keys": [plain, named]}, frozenset({"RS256", "PS256", "ES256"}))

    assert [sorted(key.algorithms) for key in keys.keys] == [["PS256", "RS256"], ["PS256"]]
    assert len(keys.find(None, "PS256")) == 2
    assert all(not keys.find("b", name) for name in {*RSA_ALGORITHMS} - {"PS256"})


def test_an_oct_key_from_a_file_is_a_secret() -> None:
    """With the algorithms that it is long enough for."""
    key = {"kty": "oct", "kid": "k", "k": "A" * 64}
    keys, _ = read_key_set({"keys": [key]}, ALGORITHMS, with_secrets=True)
    assert sorted(keys.keys[0].algorithms) == ["HS256", "HS384"]

    keys, (ignored,) = read_key_set({"keys": [key | {"k": "AAAA"}]}, ALGORITHMS, with_secrets=True)
    assert (len(keys), "3 bytes" in ignored.why) == (0, True)
