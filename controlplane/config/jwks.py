"""A provider's public keys in the form that Envoy's jwt_authn takes, each pinned to the algorithms that it is for."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controlplane.config.model import Provider

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_KEYS = 200
CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


def references_digest(references: Sequence[tuple[str | None, str | None]]) -> str:
    """A short name for where a provider's secrets are: pairs of kid and `${NAME}`."""
    return hashlib.sha256(json.dumps(references).encode()).hexdigest()[:16]


def from_pem(pem: str) -> Mapping[str, Any]:
    """A public key in PEM as a key set of one. Raises ValueError for what is no public key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

    try:
        key: Any = load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    for algorithm in (RSAAlgorithm, ECAlgorithm, OKPAlgorithm):
        try:
            return {"keys": [json.loads(algorithm.to_jwk(key))]}
        except Exception:  # noqa: BLE001 - each refuses the others' keys in a way of its own
            continue
    raise ValueError("the key is neither RSA nor EC nor Ed25519")


def pinned(keys: Mapping[str, Any], provider: Provider) -> dict[str, Any]:
    """The keys that the provider may sign with, once for each algorithm that it pins: jwt_authn pins by key only."""
    members = keys.get("keys")
    pins = [
        pin
        for key in (members[:MAX_KEYS] if isinstance(members, list) else ())
        for pin in _pins(key, provider.algorithms)
    ]
    # jwt_authn tries keys without a kid for any token; authz does so only where no kid fits.
    return {"keys": [pin for pin in pins if "kid" in pin] or pins}


def _pins(key: Any, algorithms: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What authz would not use (authz_service/keys.py), Envoy does not get."""
    if not isinstance(key, dict) or key.get("use", "sig") != "sig" or "d" in key:
        return
    operations = key.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(key.get("alg", ""), str):
        return
    kept = {name: key[name] for name in ("kty", "kid", "n", "e", "crv", "x", "y") if isinstance(key.get(name), str)}
    if kept.get("kid") == "":
        del kept["kid"]
    for algorithm in algorithms:
        if _fits(kept, algorithm) and key.get("alg", algorithm) == algorithm:
            yield kept | {"alg": algorithm}


def _fits(key: Mapping[str, str], algorithm: str) -> bool:
    match key.get("kty"):
        case "RSA":
            return algorithm[:2] in {"RS", "PS"} and MIN_RSA_BITS <= _bits(key.get("n", "")) <= MAX_RSA_BITS
        case "EC":
            return CURVES.get(key.get("crv", "")) == algorithm
        case "OKP":
            return algorithm == "EdDSA" and key.get("crv") == "Ed25519"
        case _:
            return False


def _bits(number: str) -> int:
    try:
        return int.from_bytes(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4)), "big").bit_length()
    except ValueError:
        return 0
