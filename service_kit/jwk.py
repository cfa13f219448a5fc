"""Which keys may verify tokens, and for which algorithms: JSON Web Keys (RFC 7517, RFC 7518), PEM text and secrets.

The authz service verifies with them, and the control plane gives them to Envoy. With two sets of rules, a token that
the one accepts the other would deny. cryptography and PyJWT are imported late, since most processes never read a key.
"""

from __future__ import annotations

import hashlib
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
MAX_KEYS_TRIED = 4
MAX_SLOW_KEYS_TRIED: Mapping[str, int] = {"ES384": 2, "ES512": 1}
READ_MEMBERS = ("kty", "kid", "use", "key_ops", "alg", "n", "e", "crv", "x", "y", "k", "d")
"""The members of a key (RFC 7517, section 4; RFC 7518, section 6) that decide whether and how it is used."""


class KeyUnreadable(ValueError):
    """A key, or a set of keys, that cannot be used. The message says why and never quotes the key."""


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
    """One member of a set. A key that must not be used is no error: RFC 7517, section 5, asks to ignore it."""
    if not isinstance(jwk, Mapping):
        return UnusableKey("-", "not an object")
    jwk = _given(jwk)
    try:
        _check_declarations(jwk, with_secrets)
        material = _material(jwk)
        usable = _algorithms_for(material)
    except KeyUnreadable as error:
        return UnusableKey(_name(jwk), str(error))
    named = {jwk["alg"]} if "alg" in jwk else ALGORITHMS
    fitting = tuple(each for each in usable if each in frozenset(algorithms) and each in named)
    if not fitting:
        return UnusableKey(_name(jwk), "for none of the provider's algorithms")
    kid = jwk.get("kid")
    return UsableKey(kid if isinstance(kid, str) and kid else None, material, fitting)


def fingerprint(document: str | bytes | Mapping[str, Any]) -> str:
    """A name for what a key set says, whatever the order of its members and of theirs. Raises KeyUnreadable."""
    said = sorted(json.dumps(_read_of(member), sort_keys=True) for member in members(document))
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def keys_tried(algorithm: str) -> int:
    """With how many keys a token without a `kid` is tried, so that it costs at most 1 ms of CPU.

    Issuers with several keys name them (OpenID Connect Core, section 10.1).
    """
    return MAX_SLOW_KEYS_TRIED.get(algorithm, MAX_KEYS_TRIED)


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
    wanted = frozenset(algorithms)
    return UsableKey(None, material, tuple(each for each in _algorithms_for(material) if each in wanted))


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


def _given(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """The members that say something: sources write `null` or an empty text for what a key does not have."""
    return {name: value for name, value in jwk.items() if value is not None and value != ""}


def _read_of(member: Any) -> Any:
    """What is read of a key, in one spelling."""
    if not isinstance(member, Mapping):
        return None
    read = {name: value for name, value in _given(member).items() if name in READ_MEMBERS}
    operations = read.get("key_ops")
    return read | {"key_ops": sorted(map(str, operations))} if isinstance(operations, list) else read


def _name(jwk: Mapping[str, Any]) -> str:
    return str(jwk.get("kid", "-"))[:64]


def _check_declarations(jwk: Mapping[str, Any], with_secrets: bool) -> None:
    """What the key says of its own use (RFC 7517, sections 4.2 to 4.4). Raises KeyUnreadable."""
    if jwk.get("use", "sig") != "sig":
        raise KeyUnreadable("not for signatures")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeyUnreadable("not for verifying")
    if not isinstance(jwk.get("alg", ""), str):
        raise KeyUnreadable("alg is not text")
    if jwk.get("kty") == "oct" and not with_secrets:
        raise KeyUnreadable("a secret in a public key set")
    if jwk.get("kty") != "oct" and "d" in jwk:
        raise KeyUnreadable("a private key")


def _material(jwk: Mapping[str, Any]) -> Any:
    """The key itself. Raises KeyUnreadable, without PyJWT's error as its cause: that one quotes the key."""
    from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
    from jwt.exceptions import InvalidKeyError

    readers: Mapping[object, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm, "oct": HMACAlgorithm}
    kind = jwk.get("kty")
    try:
        return readers[kind].from_jwk(dict(jwk))
    except (InvalidKeyError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise KeyUnreadable("unreadable, or of a kind that is not supported") from None


def _algorithms_for(material: Any) -> Sequence[str]:
    """The algorithms that a key may be used with: at least one. Raises KeyUnreadable."""
    if isinstance(material, bytes):
        return _secret_algorithms(material)
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(material, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= material.key_size <= MAX_RSA_BITS:
            raise KeyUnreadable(f"RSA with {material.key_size} bits")
        return RSA_ALGORITHMS
    if isinstance(material, ec.EllipticCurvePublicKey):
        if material.curve.name not in CURVE_ALGORITHMS:
            raise KeyUnreadable(f"the curve {material.curve.name}")
        return (CURVE_ALGORITHMS[material.curve.name],)
    if isinstance(material, ed25519.Ed25519PublicKey):
        return EDWARDS_ALGORITHMS
    raise KeyUnreadable(f"a {type(material).__name__}")


def _secret_algorithms(secret: bytes) -> Sequence[str]:
    fitting = [name for name, least in SECRET_BYTES.items() if len(secret) >= least]
    if not fitting:
        raise KeyUnreadable(f"a secret of {len(secret)} bytes, where {min(SECRET_BYTES.values())} are the least")
    return fitting
