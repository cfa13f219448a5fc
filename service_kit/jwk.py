"""Which keys may verify tokens, and for which algorithms: JSON Web Keys (RFC 7517, RFC 7518), PEM text and secrets.

The authz service verifies with them, and the control plane gives them to Envoy. With two sets of rules, a token that
the one accepts the other would deny. cryptography and PyJWT are imported late, since most processes never read a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SECRET_BYTES: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The least bytes of a secret (RFC 7518, section 3.2)."""
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVE_ALGORITHMS: Mapping[str, str] = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
"""One curve each (RFC 7518, section 3.4): a key is never used with another one's algorithm."""
EDWARDS_ALGORITHMS = ("EdDSA", "Ed25519")
"""RFC 8037, section 3.1, and its name since RFC 9864."""
ALGORITHMS = frozenset({*SECRET_BYTES, *RSA_ALGORITHMS, *CURVE_ALGORITHMS.values(), *EDWARDS_ALGORITHMS})

MIN_RSA_BITS = 2048  # RFC 7518, section 3.3
MAX_RSA_BITS = 8192  # larger ones cost more than a millisecond a check
MAX_KEYS = 200


class KeyUnreadable(ValueError):
    """A key, or a set of keys, that cannot be read at all; the message never quotes it."""


@dataclass(frozen=True, slots=True)
class UsableKey:
    """A key and the algorithms, of those that were asked for, that it may be used with."""

    kid: str | None
    material: Any
    algorithms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnusableKey:
    """A key that is not used, and why. Neither holds anything of the key itself."""

    kid: str
    why: str


def members(document: str | bytes | Mapping[str, Any]) -> list[Any]:
    """The members of a key set (RFC 7517, section 5), at most MAX_KEYS of them. Raises KeyUnreadable."""
    try:
        value = document if isinstance(document, Mapping) else json.loads(document)
    except (ValueError, RecursionError) as error:
        raise KeyUnreadable("the key set is not JSON") from error
    found = value.get("keys") if isinstance(value, Mapping) else None
    if not isinstance(found, list):
        raise KeyUnreadable('the key set is not an object with a list "keys"')
    return found[:MAX_KEYS]


def read_jwk(jwk: Any, algorithms: Iterable[str], *, with_secrets: bool = False) -> UsableKey | UnusableKey:
    """One member of a set. Keys that must not be used are unusable, not errors: section 5 asks to ignore them."""
    if not isinstance(jwk, Mapping):
        return UnusableKey("-", "not an object")
    fault = _fault_by_its_own_words(jwk, with_secrets)
    material = None if fault else _material(jwk)
    if fault is None and material is None:
        fault = "unreadable, or of a kind that is not supported"
    if fault is None:
        usable, fault = _usable_with(material)
        named = {jwk["alg"]} if isinstance(jwk.get("alg"), str) else ALGORITHMS
        fitting = tuple(each for each in usable if each in frozenset(algorithms) and each in named)
        if fitting:
            kid = jwk.get("kid")
            return UsableKey(kid if isinstance(kid, str) and kid else None, material, fitting)
    return UnusableKey(str(jwk.get("kid", "-"))[:64], fault or "for none of the provider's algorithms")


def read_pem(pem: str, algorithms: Iterable[str]) -> UsableKey:
    """A public key or a certificate; without algorithms where it fits none of them.

    Raises KeyUnreadable for what is neither, for a private key, and for a key that is too weak to use.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in pem:
        raise KeyUnreadable("it is a private key; give the public one")
    try:
        if "BEGIN CERTIFICATE" in pem:
            material: Any = x509.load_pem_x509_certificate(pem.encode()).public_key()
        else:
            material = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyUnreadable("it cannot be read as a public key") from error
    usable, fault = _usable_with(material)
    if fault:
        raise KeyUnreadable(fault)
    wanted = frozenset(algorithms)
    return UsableKey(None, material, tuple(each for each in usable if each in wanted))


def read_secret(secret: bytes, kid: str | None, algorithms: Iterable[str]) -> UsableKey:
    """A shared secret. Raises KeyUnreadable where it is too short for one of the algorithms."""
    wanted = tuple(each for each in algorithms if each in SECRET_BYTES)
    for algorithm in wanted:
        if len(secret) < SECRET_BYTES[algorithm]:
            raise KeyUnreadable(f"has {len(secret)} bytes; {algorithm} needs at least {SECRET_BYTES[algorithm]}")
    return UsableKey(kid, secret, wanted)


def public_jwk(material: Any) -> dict[str, Any]:
    """A public key as a JSON Web Key."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

    if isinstance(material, rsa.RSAPublicKey):
        text = RSAAlgorithm.to_jwk(material)
    elif isinstance(material, ec.EllipticCurvePublicKey):
        text = ECAlgorithm.to_jwk(material)
    else:
        text = OKPAlgorithm.to_jwk(material)
    jwk: dict[str, Any] = json.loads(text)
    return jwk


def _fault_by_its_own_words(jwk: Mapping[str, Any], with_secrets: bool) -> str | None:
    """RFC 7517, sections 4.2 to 4.4."""
    if jwk.get("use", "sig") != "sig":
        return "not for signatures"
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return "not for verifying"
    if not isinstance(jwk.get("alg", ""), str):
        return "alg is not text"
    if jwk.get("kty") == "oct":
        return None if with_secrets else "a secret in a public key set"
    return "a private key" if "d" in jwk else None


def _material(jwk: Mapping[str, Any]) -> Any:
    """PyJWT's errors quote the key, so they are not kept."""
    from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
    from jwt.exceptions import InvalidKeyError

    readers: Mapping[object, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm, "oct": HMACAlgorithm}
    kind = jwk.get("kty")
    reader = readers.get(kind) if isinstance(kind, str) else None
    if reader is None:
        return None
    try:
        return reader.from_jwk(dict(jwk))
    except (InvalidKeyError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _usable_with(material: Any) -> tuple[Sequence[str], str | None]:
    """The algorithms for a key, or why there is none."""
    if isinstance(material, bytes):
        fitting = [name for name, least in SECRET_BYTES.items() if len(material) >= least]
        least = SECRET_BYTES["HS256"]
        return fitting, None if fitting else f"a secret of {len(material)} bytes, where {least} are the least"
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(material, rsa.RSAPublicKey):
        fits = MIN_RSA_BITS <= material.key_size <= MAX_RSA_BITS
        return (RSA_ALGORITHMS, None) if fits else ((), f"RSA with {material.key_size} bits")
    if isinstance(material, ec.EllipticCurvePublicKey):
        algorithm = CURVE_ALGORITHMS.get(material.curve.name)
        return ((algorithm,), None) if algorithm else ((), f"the curve {material.curve.name}")
    if isinstance(material, ed25519.Ed25519PublicKey):
        return EDWARDS_ALGORITHMS, None
    return (), f"a {type(material).__name__}"
