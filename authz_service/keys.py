"""Keys in memory: from secrets, PEM text and JSON Web Keys (RFC 7517, RFC 7518 §3, §6)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from authz_service.errors import PolicyRefused
from authz_service.tokens import Key

SECRET_BYTES: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 §3.2
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# One curve each (RFC 7518 §3.4): a key is never used with another one's algorithm.
CURVE_ALGORITHMS: Mapping[str, str] = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
EDWARDS_ALGORITHMS = ("EdDSA", "Ed25519")  # RFC 8037 §3.1, and its name since RFC 9864
ALGORITHMS = frozenset({*SECRET_BYTES, *RSA_ALGORITHMS, *CURVE_ALGORITHMS.values(), *EDWARDS_ALGORITHMS})

MIN_RSA_BITS = 2048  # RFC 7518 §3.3
MAX_RSA_BITS = 8192  # larger ones cost more than a millisecond a check
MAX_KEYS = 200


class Algorithm(Protocol):
    """PyJWT's implementation of one `alg`."""

    def verify(self, msg: bytes, key: Any, sig: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key and the algorithms that it may be used with; a token cannot talk it into another one (RFC 8725 §3.1)."""

    kid: str | None
    material: Any
    algorithms: Mapping[str, Algorithm]

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        implementation = self.algorithms.get(algorithm)
        return implementation is not None and implementation.verify(signing_input, self.material, signature)


class KeySet:
    """Keys by `kid`. A key without one may have signed any token; a token without one may be from any key."""

    good_until = float("inf")
    can_refresh = False
    is_stale = False

    def __init__(self, keys: Iterable[VerifyingKey]) -> None:
        self.keys = tuple(keys)
        self._by_kid: dict[str | None, list[VerifyingKey]] = {}
        for key in self.keys:
            self._by_kid.setdefault(key.kid, []).append(key)

    def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        keys: Sequence[VerifyingKey] = self.keys
        if kid is not None:
            keys = self._by_kid.get(kid) or self._by_kid.get(None) or ()
        return [key for key in keys if algorithm in key.algorithms]

    async def refresh(self, kid: str | None) -> None:
        """There is nobody to ask."""

    def has(self, kid: str | None) -> bool:
        return kid is not None and kid in self._by_kid

    def __len__(self) -> int:
        return len(self.keys)


def secret_key(secret: bytes, kid: str | None, algorithms: Iterable[str], name: str) -> VerifyingKey:
    """`name` is what the operator calls the secret."""
    wanted = [algorithm for algorithm in algorithms if algorithm in SECRET_BYTES]
    for algorithm in wanted:
        if len(secret) < SECRET_BYTES[algorithm]:
            raise PolicyRefused(f"{name} has {len(secret)} bytes; {algorithm} needs at least {SECRET_BYTES[algorithm]}")
    return VerifyingKey(kid, secret, _implementations(wanted))


def pem_key(text: str, algorithms: Iterable[str]) -> VerifyingKey:
    """A public key or a certificate. A private key has no business here, so it is refused rather than used."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if "PRIVATE KEY" in text:
        raise PolicyRefused("pem is a private key; give the public one")
    try:
        if "BEGIN CERTIFICATE" in text:
            material: Any = x509.load_pem_x509_certificate(text.encode()).public_key()
        else:
            material = load_pem_public_key(text.encode())
    except ValueError as error:
        raise PolicyRefused("pem cannot be read as a public key") from error
    usable = _usable_with(material)
    if isinstance(usable, str):
        raise PolicyRefused(f"pem: {usable}")
    return VerifyingKey(None, material, _implementations(_both(usable, algorithms)))


@dataclass(frozen=True, slots=True)
class Ignored:
    """A key of a set that is not used, and why."""

    kid: str
    why: str


def read_key_set(
    document: str | bytes | Mapping[str, Any], algorithms: frozenset[str], *, with_secrets: bool = False
) -> tuple[KeySet, list[Ignored]]:
    """Read a JWK set (RFC 7517 §5); keys that we cannot or must not use are ignored, as §5 asks."""
    members = _members(document)
    keys: list[VerifyingKey] = []
    ignored: list[Ignored] = []
    for jwk in members[:MAX_KEYS]:
        key = _read_key(jwk, algorithms, with_secrets)
        if isinstance(key, str):
            kid = jwk.get("kid", "-") if isinstance(jwk, Mapping) else "-"
            ignored.append(Ignored(str(kid)[:64], key))
        else:
            keys.append(key)
    return KeySet(keys), ignored


def _members(document: str | bytes | Mapping[str, Any]) -> list[Any]:
    try:
        value = document if isinstance(document, Mapping) else json.loads(document)
    except (ValueError, RecursionError) as error:
        raise PolicyRefused("the key set is not JSON") from error
    members = value.get("keys") if isinstance(value, Mapping) else None
    if not isinstance(members, list):
        raise PolicyRefused('the key set is not an object with a list "keys"')
    return members


def _read_key(jwk: Any, algorithms: frozenset[str], with_secrets: bool) -> VerifyingKey | str:
    """The key, or why it is not used; never with the key's own text, which may be a secret."""
    if not isinstance(jwk, Mapping):
        return "not an object"
    why = _refused_by_its_own_words(jwk, with_secrets)
    if why is not None:
        return why
    material = _material(jwk)
    if material is None:
        return "unreadable, or of a kind that is not supported"
    usable = _usable_with(material)
    if isinstance(usable, str):
        return usable
    named = {jwk["alg"]} if isinstance(jwk.get("alg"), str) else algorithms
    fitting = [algorithm for algorithm in _both(usable, algorithms) if algorithm in named]
    kid = jwk.get("kid")
    if not fitting:
        return "for none of the provider's algorithms"
    return VerifyingKey(kid if isinstance(kid, str) and kid else None, material, _implementations(fitting))


def _refused_by_its_own_words(jwk: Mapping[str, Any], with_secrets: bool) -> str | None:
    """RFC 7517 §4.2 to §4.4."""
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


def _usable_with(material: Any) -> Sequence[str] | str:
    """The algorithms for a key, or why there is none."""
    if isinstance(material, bytes):
        fitting = [name for name, least in SECRET_BYTES.items() if len(material) >= least]
        return fitting or f"a secret of {len(material)} bytes, where {SECRET_BYTES['HS256']} are the least"
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(material, rsa.RSAPublicKey):
        fits = MIN_RSA_BITS <= material.key_size <= MAX_RSA_BITS
        return RSA_ALGORITHMS if fits else f"RSA with {material.key_size} bits"
    if isinstance(material, ec.EllipticCurvePublicKey):
        algorithm = CURVE_ALGORITHMS.get(material.curve.name)
        return (algorithm,) if algorithm else f"the curve {material.curve.name}"
    if isinstance(material, ed25519.Ed25519PublicKey):
        return EDWARDS_ALGORITHMS
    return f"a {type(material).__name__}"


def _both(usable: Iterable[str], algorithms: Iterable[str]) -> list[str]:
    wanted = frozenset(algorithms)
    return [algorithm for algorithm in usable if algorithm in wanted]


def warm_up() -> None:
    """Pay for the library's import while there is nothing else to do."""
    _pyjwt()


def _implementations(algorithms: Iterable[str]) -> dict[str, Algorithm]:
    known = _pyjwt()
    return {algorithm: known[algorithm] for algorithm in algorithms}


@cache
def _pyjwt() -> Mapping[str, Algorithm]:
    """Imported late: it costs a quarter of the start, and nothing is verified before there is a policy."""
    from jwt.algorithms import get_default_algorithms

    implementations: dict[str, Any] = dict(get_default_algorithms())
    implementations["Ed25519"] = implementations["EdDSA"]
    return {name: implementations[name] for name in ALGORITHMS}
