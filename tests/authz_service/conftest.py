"""What these tests share: a clock, a secret, tokens made by another library's hand, and small policies."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import jwt
import pytest

from authz_service.decision import Decision, Policy, Request, RouteRules, decide
from authz_service.guesses import Guesses
from authz_service.keys import KeySet, secret_key
from authz_service.tokens import KeyWanted, Provider, Revocations, Verifier
from tests.support.clock import FakeClock
from tests.support.key_source import key_source
from tests.support.services import AUTHZ_POLICY
from tests.support.waiting import until

__all__ = ["key_source"]

NOW = 1_800_000_000

SECRET = "a secret of more than thirty-two bytes, for HS256"
TIERS = frozenset({"anonymous", "enterprise", "free", "pro"})


def encode(data: bytes | dict[str, Any]) -> str:
    """One segment of a compact token."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True)
class Minter:
    """Makes tokens; every claim and header can be replaced, and `...` takes one away."""

    secret: str = SECRET
    now: int = NOW

    def claims(self, **changes: Any) -> dict[str, Any]:
        claims = {"sub": "u1", "exp": self.now + 60, **changes}
        return {name: value for name, value in claims.items() if value is not ...}

    def __call__(
        self, key: Any = None, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any
    ) -> str:
        """Signed by hand around PyJWT's own algorithms, which would not sign most of what is tried here."""
        header = {"alg": algorithm, "typ": "JWT", **(headers or {})}
        return self.sign(encode(header), encode(self.claims(**changes)), key, algorithm)

    def raw(self, header: bytes | dict[str, Any], claims: bytes | dict[str, Any], key: Any = None) -> str:
        return self.sign(encode(header), encode(claims), key, "HS256")

    def sign(self, header: str, claims: str, key: Any = None, algorithm: str = "HS256") -> str:
        signer = jwt.algorithms.get_default_algorithms()[algorithm]
        material = signer.prepare_key(self.secret if key is None else key)
        return f"{header}.{claims}.{encode(signer.sign(f'{header}.{claims}'.encode(), material))}"


@pytest.fixture(scope="session")
def mint() -> Minter:
    return Minter()


@pytest.fixture(scope="session")
def now() -> float:
    return NOW


@pytest.fixture(scope="session")
def segment() -> Callable[[bytes | dict[str, Any]], str]:
    return encode


@pytest.fixture(scope="session")
def secret() -> str:
    return SECRET


@pytest.fixture(scope="session")
def a_provider() -> Callable[..., Provider]:
    def make(**changes: Any) -> Provider:
        algorithms = changes.pop("algorithms", frozenset({"HS256"}))
        given: dict[str, Any] = {"name": "platform", "algorithms": algorithms, **changes}
        given.setdefault("keys", KeySet([secret_key(SECRET.encode(), None, algorithms, "JWT_SECRET")]))
        return Provider(**given)

    return make


@pytest.fixture(scope="session")
def a_verifier(a_provider: Callable[..., Provider]) -> Callable[..., Verifier]:
    def make(*providers: Provider, revocations: Revocations | None = None, **changes: Any) -> Verifier:
        return Verifier(providers or (a_provider(**changes),), TIERS, revocations)

    return make


@pytest.fixture(scope="session")
def ask(a_verifier: Callable[..., Verifier]) -> Callable[..., Decision | KeyWanted]:
    """Decide on one Authorization header."""

    def decided(
        authorization: str | None,
        *,
        auth: str = "required",
        verifier: Verifier | None = None,
        policy: Policy | None = None,
        api_key: str | None = None,
        address: str = "192.0.2.1",
        guesses: Guesses | None = None,
        at: float = NOW,
        **rules: Any,
    ) -> Decision | KeyWanted:
        request = Request(RouteRules(is_required=auth == "required", **rules), authorization, api_key, address)
        return decide(request, policy or Policy(), verifier or a_verifier(), guesses or Guesses(), at)

    return decided


@pytest.fixture(scope="session")
def a_policy() -> Callable[..., dict[str, Any]]:
    """The default policy as the control plane sends it; arguments replace fields of the provider or of the policy."""

    def make(provider: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        given = {**AUTHZ_POLICY["providers"][0], **(provider or {})}
        platform = {name: value for name, value in given.items() if value is not ...}
        return {"tiers": sorted(TIERS), "providers": [platform], **changes}

    return make


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture(scope="session", name="eventually")
def eventually_fixture() -> Callable[..., Awaitable[float]]:
    return until


@pytest.fixture(scope="session")
def private_keys() -> dict[str, Any]:
    """One private key for each family, made once: RSA is slow to make."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    return {
        "RS256": rsa.generate_private_key(65537, 2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }


@pytest.fixture(scope="session")
def jwk() -> Callable[..., dict[str, Any]]:
    """The public JWK of a private key."""

    def make(private_key: Any, kid: str | None, algorithm: str, **changes: Any) -> dict[str, Any]:
        public = jwt.algorithms.get_default_algorithms()[algorithm].to_jwk(private_key.public_key(), as_dict=True)
        public.pop("key_ops", None)
        return {**public, **({"kid": kid} if kid is not None else {}), **changes}

    return make
