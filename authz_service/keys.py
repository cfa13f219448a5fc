"""Keys in memory, ready to verify: each with PyJWT's implementations of the algorithms that it may be used with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from authz_service.errors import PolicyRefused
from authz_service.tokens import Key
from service_kit import jwk
from service_kit.jwk import UnusableKey, UsableKey


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
    """`name` is what the operator calls the secret. Raises PolicyRefused for one that is too short."""
    try:
        return _verifying(jwk.read_secret(secret, kid, algorithms))
    except jwk.KeyUnreadable as error:
        raise PolicyRefused(f"{name} {error}") from error


def pem_key(text: str, algorithms: Iterable[str]) -> VerifyingKey:
    """A public key or a certificate. Raises PolicyRefused for anything else."""
    try:
        return _verifying(jwk.read_pem(text, algorithms))
    except jwk.KeyUnreadable as error:
        raise PolicyRefused(f"pem: {error}") from error


def read_key_set(
    document: str | bytes | Mapping[str, Any], algorithms: frozenset[str], *, with_secrets: bool = False
) -> tuple[KeySet, list[UnusableKey]]:
    """Read a key set (RFC 7517, section 5). Raises PolicyRefused for what is none."""
    try:
        members = jwk.members(document)
    except jwk.KeyUnreadable as error:
        raise PolicyRefused(str(error)) from error
    keys: list[VerifyingKey] = []
    unusable: list[UnusableKey] = []
    for member in members:
        key = jwk.read_jwk(member, algorithms, with_secrets=with_secrets)
        if isinstance(key, UnusableKey):
            unusable.append(key)
        else:
            keys.append(_verifying(key))
    return KeySet(keys), unusable


def _verifying(key: UsableKey) -> VerifyingKey:
    return VerifyingKey(key.kid, key.material, _implementations(key.algorithms))


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
    return {name: implementations[name] for name in jwk.ALGORITHMS}
