"""Verifies tokens: which provider's, with which key, and what the claims say (RFC 7519 §4.1, §7.2; RFC 8725 §3)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

from authz_service.cache import GenerationCache
from authz_service.compact import Compact, read_compact
from authz_service.errors import KeysUnavailable, Reason, TokenRefused

MAX_SUBJECT_BYTES = 256
# A token without a `kid` is tried against a few keys only, and fewer where a check is dear: it must not cost more than
# 1 ms of CPU. Issuers with several keys name them (OpenID Connect Core §10.1).
MAX_KEYS_TRIED = 4
MAX_DEAR_KEYS_TRIED: Mapping[str, int] = {"ES384": 2, "ES512": 1}
ANONYMOUS = "anonymous"

# Control characters and lone surrogates: the subject becomes a header value and a line in the log.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Key(Protocol):
    """One key; it knows which algorithms it is for, whatever a token says."""

    @property
    def kid(self) -> str | None: ...

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool: ...


class Keys(Protocol):
    """A provider's keys, in memory."""

    def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys that may have signed this; none when no key set is young enough: `good_until` tells."""
        ...

    @property
    def good_until(self) -> float:
        """Unix seconds until which the key set may be used; infinite for keys that the policy itself holds."""
        ...

    @property
    def can_refresh(self) -> bool:
        """Whether asking again now could bring a key that is not here yet."""
        ...

    @property
    def is_stale(self) -> bool:
        """Whether the last attempt to ask failed, so that a missing key proves nothing."""
        ...

    async def refresh(self, kid: str | None) -> None:
        """Ask again, and wait a bounded time for the answer."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """Who may vouch for callers, and how."""

    name: str
    algorithms: frozenset[str]
    keys: Keys
    issuer: str | None = None
    audiences: frozenset[str] = frozenset()
    leeway_seconds: float = 0.0
    subject_claim: str = "sub"
    tier_claim: str = "tier"
    scopes_claim: str = "scope"
    default_tier: str = "free"
    refuses_bad_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Revocations:
    """Tokens that are refused although they verify."""

    ids: frozenset[str] = frozenset()
    subjects: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def revokes(self, provider: str, subject: str, token_id: str | None, issued_at: float | None) -> bool:
        if token_id is not None and token_id in self.ids:
            return True
        before = self.subjects.get((provider, subject))
        # A credential that does not say when it was issued cannot show that it is a later one.
        return before is not None and (issued_at is None or issued_at < before)


@dataclass(eq=False, slots=True)
class Verified:
    """A caller whose credential holds until `until` (Unix seconds). Treat as frozen, `rendered` excepted."""

    provider: str
    subject: str
    tier: str
    until: float
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict)
    epoch: str = ""
    """Of the policy that verified it."""
    # The answer for this caller, kept here by whoever renders it, so that it lives exactly as long as the cache entry.
    rendered: bytes | None = None

    @property
    def caller(self) -> str:
        return f"{self.provider}/{self.subject}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A bad token. `candidates` are the providers that it could have been meant for."""

    reason: Reason
    candidates: Sequence[Provider]


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """The token names a key that `provider` may have published since it was last asked."""

    provider: Provider
    kid: str | None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No usable keys, so nobody can tell."""

    provider: Provider


Verdict = Verified | Refused | KeyWanted | Unavailable


class Verifier:
    """Verifies for one policy; another policy gets another Verifier, and so an empty cache."""

    def __init__(
        self,
        providers: Sequence[Provider],
        tiers: frozenset[str],
        revocations: Revocations | None = None,
        cache: GenerationCache[Verified] | None = None,
        epoch: str = "",
    ) -> None:
        self.providers = tuple(providers)
        self._tiers = tiers
        self._epoch = epoch
        self._revocations = revocations or Revocations()
        self._cache = GenerationCache[Verified]() if cache is None else cache

    def cached(self, token: str, names: frozenset[str] | None, now: float) -> Verified | None:
        """What an earlier `verify` of this very text found, while it holds."""
        key = token if names is None else (token, names)
        verified = self._cache.get(key, len(token))
        return verified if verified is not None and now < verified.until else None

    def verify(self, token: str, names: frozenset[str] | None, now: float) -> Verdict:
        """Decide whose token this is among the providers called `names` (None: all)."""
        providers = self.among(names)
        try:
            compact = read_compact(token)
            providers = candidates(providers, compact.claims.get("iss"))
        except TokenRefused as refusal:
            return Refused(refusal.reason, providers)
        verdict = self._verify_among(compact, providers, now)
        if isinstance(verdict, Verified):
            self._cache.put(token if names is None else (token, names), verdict, len(token))
        return verdict

    def among(self, names: frozenset[str] | None) -> tuple[Provider, ...]:
        if names is None:
            return self.providers
        return tuple(provider for provider in self.providers if provider.name in names)

    def forget(self) -> None:
        """Keys changed: what was verified with the old ones is verified again."""
        self._cache.clear()

    @property
    def cached_tokens(self) -> int:
        return len(self._cache)

    def _verify_among(self, compact: Compact, providers: Sequence[Provider], now: float) -> Verdict:
        """The first provider that vouches wins; else one that could not tell, before one that says no."""
        verdicts: list[Verdict] = []
        for provider in providers:
            verdict = self._verify_with(compact, provider, now)
            if isinstance(verdict, Verified):
                return verdict
            verdicts.append(verdict)
        for kind in (KeyWanted, Unavailable):
            for verdict in verdicts:
                if type(verdict) is kind:
                    return verdict
        refusals = [verdict.reason for verdict in verdicts if isinstance(verdict, Refused)]
        return Refused(refusals[0] if refusals else Reason.UNKNOWN_ISSUER, providers)

    def _verify_with(self, compact: Compact, provider: Provider, now: float) -> Verdict:
        try:
            check_algorithm(compact, provider)
            # Before the keys: what no key could make good is refused without one, also while keys cannot be had.
            verified = self._read_claims(compact.claims, provider, now)
            if now >= provider.keys.good_until:
                return KeyWanted(provider, compact.kid) if provider.keys.can_refresh else Unavailable(provider)
            wanted = check_signature(compact, provider)
            return verified if wanted is None else wanted
        except TokenRefused as refusal:
            return Refused(refusal.reason, (provider,))
        except KeysUnavailable:
            return Unavailable(provider)

    def _read_claims(self, claims: Mapping[str, Any], provider: Provider, now: float) -> Verified:
        until = check_times(claims, provider.leeway_seconds, now)
        check_issuer(claims, provider)
        check_audience(claims, provider)
        subject = read_subject(claims, provider)
        token_id, issued_at = read_id(claims), read_time(claims, "iat")
        if self._revocations.revokes(provider.name, subject, token_id, issued_at):
            raise TokenRefused(Reason.REVOKED)
        return Verified(
            provider=provider.name,
            subject=subject,
            tier=read_tier(claims, provider, self._tiers),
            until=min(until, provider.keys.good_until),
            scopes=read_scopes(claims.get(provider.scopes_claim)),
            claims=claims,
            epoch=self._epoch,
        )


def candidates(providers: Sequence[Provider], issuer: object) -> tuple[Provider, ...]:
    """A provider that names its issuer owns that issuer's tokens alone; the others take what nobody owns."""
    if issuer is not None:
        if type(issuer) is not str:
            raise TokenRefused(Reason.CLAIMS)
        owners = tuple(provider for provider in providers if provider.issuer == issuer)
        if owners:
            return owners
    takers = tuple(provider for provider in providers if provider.issuer is None)
    if not takers:
        raise TokenRefused(Reason.UNKNOWN_ISSUER)
    return takers


def check_algorithm(compact: Compact, provider: Provider) -> None:
    """RFC 8725 §3.1: the list is ours; the token may only choose from it."""
    if compact.algorithm not in provider.algorithms:
        raise TokenRefused(Reason.ALGORITHM)


def check_signature(compact: Compact, provider: Provider) -> KeyWanted | None:
    """Answer None when a key of the provider made the signature; KeyWanted when a newer key may have."""
    keys = provider.keys.find(compact.kid, compact.algorithm)
    for key in keys[: MAX_DEAR_KEYS_TRIED.get(compact.algorithm, MAX_KEYS_TRIED)]:
        if key.verify(compact.algorithm, compact.signing_input, compact.signature):
            return None
    # A key set without kids rotates too, so there a failed signature counts as a missing key.
    may_be_newer = not keys or compact.kid is None
    if may_be_newer and provider.keys.can_refresh:
        return KeyWanted(provider, compact.kid)
    if not keys and provider.keys.is_stale:
        raise KeysUnavailable(f"provider {provider.name} cannot be asked for a key it may have published")
    raise TokenRefused(Reason.SIGNATURE if keys else Reason.UNKNOWN_KEY)


def check_times(claims: Mapping[str, Any], leeway: float, now: float) -> float:
    """Answer the end of the token's life (RFC 7519 §4.1.4, §4.1.5). An `iat` in the future is not an error there."""
    expires = read_time(claims, "exp")
    if expires is None:
        raise TokenRefused(Reason.CLAIMS)
    if now >= expires + leeway:
        raise TokenRefused(Reason.EXPIRED)
    not_before = read_time(claims, "nbf")
    if not_before is not None and now < not_before - leeway:
        raise TokenRefused(Reason.NOT_YET_VALID)
    return expires + leeway


def read_time(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 §2): a JSON number, so neither text nor a boolean. Present and null is not absent."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not int and type(value) is not float:
        raise TokenRefused(Reason.CLAIMS)
    return value


def check_issuer(claims: Mapping[str, Any], provider: Provider) -> None:
    issuer = claims.get("iss")
    if "iss" in claims and type(issuer) is not str:
        raise TokenRefused(Reason.CLAIMS)
    if provider.issuer is not None and issuer != provider.issuer:
        raise TokenRefused(Reason.UNKNOWN_ISSUER)


def check_audience(claims: Mapping[str, Any], provider: Provider) -> None:
    """RFC 7519 §4.1.3, where the provider names audiences; where it names none, `aud` is somebody else's business."""
    if not provider.audiences:
        return
    audience = claims.get("aud")
    named = audience if type(audience) is list else [audience]
    if not all(type(name) is str for name in named) or provider.audiences.isdisjoint(named):
        raise TokenRefused(Reason.AUDIENCE)


def read_subject(claims: Mapping[str, Any], provider: Provider) -> str:
    subject = claims.get(provider.subject_claim)
    if not is_subject(subject):
        raise TokenRefused(Reason.SUBJECT)
    return subject


def is_subject(subject: object) -> TypeGuard[str]:
    """Text that survives as a header value: no control characters, and no white space at its ends to be lost."""
    if type(subject) is not str or not subject or len(subject) > MAX_SUBJECT_BYTES:
        return False
    if _UNSAFE.search(subject) or subject != subject.strip():
        return False
    return len(subject.encode("utf-8")) <= MAX_SUBJECT_BYTES


def read_id(claims: Mapping[str, Any]) -> str | None:
    """RFC 7519 §4.1.7. A `jti` that is not text would slip past the list of revoked ones."""
    if "jti" not in claims:
        return None
    token_id = claims["jti"]
    if type(token_id) is not str:
        raise TokenRefused(Reason.CLAIMS)
    return token_id


def read_tier(claims: Mapping[str, Any], provider: Provider, tiers: frozenset[str]) -> str:
    """No claim: the provider's default. A tier that nobody knows: the numbers of `anonymous`, on the caller's own."""
    if provider.tier_claim not in claims:
        return provider.default_tier
    tier = claims[provider.tier_claim]
    if type(tier) is str and tier.lower() in tiers:
        return tier.lower()
    return ANONYMOUS


def read_scopes(value: object) -> frozenset[str]:
    """Text with spaces (RFC 8693 §4.2) or a list of text; anything else grants nothing."""
    if type(value) is str:
        return frozenset(value.split(" ")) - {""}
    if type(value) is list:
        return frozenset(scope for scope in value if type(scope) is str)
    return frozenset()
