"""A provider's public keys in the form that Envoy's jwt_authn takes, each pinned to the algorithms that it is for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service_kit import jwk

if TYPE_CHECKING:
    from controlplane.config.model import Provider

KEPT = ("kty", "kid", "n", "e", "crv", "x", "y")
"""Members of a key that Envoy is told."""


def references_digest(references: Sequence[tuple[str | None, str | None]]) -> str:
    """A short name for where a provider's secrets are: pairs of kid and `${NAME}`."""
    return hashlib.sha256(json.dumps(references).encode()).hexdigest()[:16]


def from_pem(pem: str) -> Mapping[str, Any]:
    """A public key or certificate in PEM as a key set of one. Raises service_kit.jwk.KeyUnreadable."""
    return {"keys": [jwk.public_jwk(jwk.read_pem(pem, jwk.ALGORITHMS).material)]}


def pinned(keys: Mapping[str, Any], provider: Provider) -> dict[str, Any]:
    """The keys that the provider may sign with, once for each algorithm that it pins: jwt_authn pins by key only."""
    try:
        members = jwk.members(keys)
    except jwk.KeyUnreadable:
        members = []
    pins = [pin for member in members for pin in _pins(member, provider.algorithms)]
    pins.sort(key=lambda pin: json.dumps(pin, sort_keys=True))  # a source that changes the order changes nothing
    # jwt_authn tries keys without a kid for any token; authz does so only where no kid fits.
    return {"keys": [pin for pin in pins if "kid" in pin] or pins}


def _pins(member: Any, algorithms: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What authz would not use, Envoy does not get."""
    key = jwk.read_jwk(member, algorithms)
    if isinstance(key, jwk.UnusableKey):
        return
    kept = {name: member[name] for name in KEPT if isinstance(member.get(name), str) and member[name]}
    for algorithm in algorithms:
        if algorithm in key.algorithms:
            yield kept | {"alg": algorithm}
