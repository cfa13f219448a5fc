"""A provider's public keys in the form that Envoy's jwt_authn takes, each pinned to the algorithms that it is for."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.model import Provider

MIN_RSA_BITS = 2048
CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}


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
    return {"keys": [pin for key in keys.get("keys", []) for pin in _pins(key, provider.algorithms)]}


def _pins(key: Any, algorithms: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not isinstance(key, dict) or key.get("use", "sig") != "sig" or "verify" not in key.get("key_ops", ["verify"]):
        return
    for algorithm in algorithms:
        if _fits(key, algorithm) and key.get("alg", algorithm) == algorithm:
            kept = {name: key[name] for name in ("kty", "kid", "n", "e", "crv", "x", "y") if name in key}
            yield kept | {"alg": algorithm}


def _fits(key: Mapping[str, Any], algorithm: str) -> bool:
    match key.get("kty"):
        case "RSA":
            return algorithm[:2] in {"RS", "PS"} and _bits(str(key.get("n", ""))) >= MIN_RSA_BITS
        case "EC":
            return CURVES.get(str(key.get("crv"))) == algorithm
        case "OKP":
            return algorithm == "EdDSA" and key.get("crv") == "Ed25519"
        case _:
            return False


def _bits(number: str) -> int:
    try:
        return int.from_bytes(base64.urlsafe_b64decode(number + "=" * (-len(number) % 4)), "big").bit_length()
    except ValueError:
        return 0
