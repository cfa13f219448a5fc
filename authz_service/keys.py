"""Keys in memory, each with PyJWT's implementations of the algorithms that it may be used with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from authz_service.errors import PolicyRejected
from authz_service.tokens import Key
from service_kit import jwk
from service_kit.jwk import UnusableKey, UsableKey


class Algorithm(Protocol):
    """PyJWT's implementation of one `alg`."""

    def verify(self, msg: bytes, key: Any, sig: bytes) -> bool:
        """Whether `sig` is `key`'s signature of `msg`."""
        ...


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key and the algorithms that it may be used with. A token cannot choose another one (RFC 8725 §3.1)."""

    kid: str | None
    material: Any
    algorithms: Mapping[str, Algorithm]

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether this key made the signature, with an algorithm that it may be used with."""
        implementation = self.algorithms.get(algorithm)
        return implementation is not None and implementation.verify(signing_input, self.material, signature)


class KeySet:
    """A fixed set of keys: a `tokens.Keys` that never changes.

    A key without a `kid` may have signed any token, and any key may have signed a token without a `kid`.
    """

    good_until = decisions_until = float("inf")
    can_refresh = False
    is_stale = False

    def __init__(self, keys: Iterable[VerifyingKey]) -> None:
        self.keys = tuple(keys)
        self._by_kid: dict[str | None, list[VerifyingKey]] = {}
        for key in self.keys:
            self._by_kid.setdefault(key.kid, []).append(key)

    def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys that may have signed a token with this `kid` and algorithm."""
        keys: Sequence[VerifyingKey] = self.keys
        if kid is not None:
            keys = self._by_kid.get(kid) or self._by_kid.get(None) or ()
        return [key for key in keys if algorithm in key.algorithms]

    async def refresh(self, kid: str | None) -> None:
        """Does nothing: there is no source to fetch from."""

    def has(self, kid: str | None) -> bool:
        """Whether a key has this `kid`."""
        return kid is not None and kid in self._by_kid

    def __len__(self) -> int:
        return len(self.keys)


def secret_key(secret: bytes, kid: str | None, algorithms: Iterable[str], name: str) -> VerifyingKey:
    """A shared secret. Raises PolicyRejected for one that is too short; its message calls the secret `name`."""
    try:
        return _verifying(jwk.read_secret(secret, kid, algorithms))
    except jwk.KeyUnreadable as error:
        raise PolicyRejected(f"{name} {error}") from error


def pem_key(text: str, algorithms: Iterable[str]) -> VerifyingKey:
    """A public key or a certificate. Raises PolicyRejected for anything else."""
    try:
        return _verifying(jwk.read_pem(text, algorithms))
    except jwk.KeyUnreadable as error:
        raise PolicyRejected(f"pem: {error}") from error


def read_key_set(
    document: str | bytes | Mapping[str, Any], algorithms: frozenset[str], *, with_secrets: bool = False
) -> tuple[KeySet, list[UnusableKey]]:
    """The usable keys of a key set (RFC 7517 §5), and its members that are not used. Raises PolicyRejected for no set.

    With `with_secrets`, members of the kind `oct` are usable too.
    """
    try:
        members = jwk.members(document)
    except jwk.KeyUnreadable as error:
        raise PolicyRejected(str(error)) from error
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
    """Import PyJWT now, so that the first policy need not wait for it."""
    _pyjwt()


def _implementations(algorithms: Iterable[str]) -> dict[str, Algorithm]:
    known = _pyjwt()
    return {algorithm: known[algorithm] for algorithm in algorithms}


@cache
def _pyjwt() -> Mapping[str, Algorithm]:
    """Imported late: the import is a quarter of the start, and nothing is verified before there is a policy."""
    from jwt.algorithms import get_default_algorithms

    implementations: dict[str, Any] = dict(get_default_algorithms())
    implementations["Ed25519"] = implementations["EdDSA"]
    return {name: implementations[name] for name in jwk.ALGORITHMS}
