"""Verifies tokens: which provider's, with which key, and what the claims say (RFC 7519 §4.1, §7.2; RFC 8725 §3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

from authz_service.cache import GenerationCache
from authz_service.compact import Compact, read_compact
from authz_service.errors import KeysUnavailable, Reason, TokenInvalid
from service_kit.json_pointer import ABSENT, find, steps
from service_kit.jwk import keys_tried

MAX_SUBJECT_BYTES = 256
ANONYMOUS = "anonymous"

# Control characters and lone surrogates: the subject becomes a header value and a line in the log.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Key(Protocol):
    """One key. It knows which algorithms it is for, whatever a token says."""

    @property
    def kid(self) -> str | None:
        """The key's name (RFC 7517 §4.5), where it has one."""
        ...

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether this key made the signature, with an algorithm that it may be used with. Never raises."""
        ...


class Keys(Protocol):
    """A provider's keys, in memory."""

    def find(self, kid: str | None, algorithm: str) -> Sequence[Key]:
        """The keys that may have signed a token with this `kid` and algorithm. They may be used until `good_until`."""
        ...

    @property
    def good_until(self) -> float:
        """Until when the key set may be used, in Unix seconds. Infinite for keys that the policy itself holds."""
        ...

    @property
    def decisions_until(self) -> float:
        """Until when what these keys verify may be kept, in Unix seconds: a key may be withdrawn at its source."""
        ...

    @property
    def can_refresh(self) -> bool:
        """Whether a refresh now could bring a key that is not here yet."""
        ...

    @property
    def is_stale(self) -> bool:
        """Whether the last fetch failed, so that a missing key proves nothing."""
        ...

    async def refresh(self, kid: str | None) -> None:
        """Fetch the keys again, because `kid` is missing, and wait a bounded time for them."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """Whose tokens are accepted, and how they are read.

    A provider with an `issuer` takes that issuer's tokens only. `audiences` are not checked where there are none.
    A claim's name that begins with `/` is an RFC 6901 pointer.
    """

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
    denies_bad_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Revocations:
    """Tokens that are invalid although they verify."""

    ids: frozenset[str] = frozenset()
    """By `jti`."""
    subjects: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """By provider and subject: what was issued before this time, in Unix seconds, is revoked."""

    def revokes(self, provider: str, subject: str, token_id: str | None, issued_at: float | None) -> bool:
        """Whether a credential is revoked. `issued_at` is in Unix seconds."""
        if token_id is not None and token_id in self.ids:
            return True
        before = self.subjects.get((provider, subject))
        # A credential without a time of issue cannot show that it is newer.
        return before is not None and (issued_at is None or issued_at < before)


@dataclass(eq=False, slots=True)
class Verified:
    """A caller whose credential need not be looked at again until `until` (Unix seconds).

    Treat as frozen once it is returned, `rendered` excepted.
    """

    provider: str
    subject: str
    tier: str
    until: float
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict)
    epoch: str = ""
    """Of the policy that verified it."""
    rendered: bytes | None = None
    """The response for this caller. The server stores it here, so that it lives as long as the cache entry."""

    @property
    def caller(self) -> str:
        """The caller's key: what limits are counted by."""
        return f"{self.provider}/{self.subject}"


@dataclass(frozen=True, slots=True)
class InvalidToken:
    """The token or key is not good. `candidates` are the providers that it could have been meant for."""

    reason: Reason
    candidates: Sequence[Provider]


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """The token names a key that `provider` may have published since the last fetch."""

    provider: Provider
    kid: str | None


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The provider has no usable keys, so we cannot tell whether the token is good."""

    provider: Provider


Verdict = Verified | InvalidToken | KeyWanted | Unavailable


class Verifier:
    """Verifies tokens for one policy. Another policy gets another Verifier, and so an empty cache."""

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
        """What an earlier `verify` of the same text returned, while it holds at `now` (Unix seconds)."""
        key = token if names is None else (token, names)
        verified = self._cache.get(key, len(token))
        return verified if verified is not None and now < verified.until else None

    def verify(self, token: str, names: frozenset[str] | None, now: float) -> Verdict:
        """Whose token this is at `now` (Unix seconds), among the providers called `names` (None: all)."""
        providers = self.among(names)
        try:
            compact = read_compact(token)
            providers = candidates(providers, compact.claims.get("iss"))
        except TokenInvalid as error:
            return InvalidToken(error.reason, providers)
        verdict = self._verify_among(compact, providers, now)
        if isinstance(verdict, Verified):
            self._cache.put(token if names is None else (token, names), verdict, len(token))
        return verdict

    def among(self, names: frozenset[str] | None) -> tuple[Provider, ...]:
        """The providers called `names` (None: all)."""
        if names is None:
            return self.providers
        return tuple(provider for provider in self.providers if provider.name in names)

    def forget(self) -> None:
        """Empty the cache: keys changed, so every token is verified again."""
        self._cache.clear()

    @property
    def cached_tokens(self) -> int:
        """How many verified tokens are in the cache."""
        return len(self._cache)

    def _verify_among(self, compact: Compact, providers: Sequence[Provider], now: float) -> Verdict:
        """The first provider that verifies it wins. Else one that cannot tell is before one that finds it invalid."""
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
        reasons = [verdict.reason for verdict in verdicts if isinstance(verdict, InvalidToken)]
        return InvalidToken(reasons[0] if reasons else Reason.UNKNOWN_ISSUER, providers)

    def _verify_with(self, compact: Compact, provider: Provider, now: float) -> Verdict:
        try:
            check_algorithm(compact, provider)
            # Claims come before keys: a token that no key can make good is invalid even while there are no keys.
            verified = self._read_claims(compact.claims, provider, now)
            if now >= provider.keys.good_until:
                return KeyWanted(provider, compact.kid) if provider.keys.can_refresh else Unavailable(provider)
            wanted = check_signature(compact, provider)
            if wanted is not None:
                return wanted
            verified.until = min(verified.until, provider.keys.decisions_until)
            return verified
        except TokenInvalid as error:
            return InvalidToken(error.reason, (provider,))
        except KeysUnavailable:
            return Unavailable(provider)

    def _read_claims(self, claims: Mapping[str, Any], provider: Provider, now: float) -> Verified:
        until = check_times(claims, provider.leeway_seconds, now)
        check_issuer(claims, provider)
        check_audience(claims, provider)
        subject = read_subject(claims, provider)
        token_id, issued_at = read_id(claims), read_time(claims, "iat")
        if self._revocations.revokes(provider.name, subject, token_id, issued_at):
            raise TokenInvalid(Reason.REVOKED)
        return Verified(
            provider=provider.name,
            subject=subject,
            tier=read_tier(claims, provider, self._tiers),
            until=min(until, provider.keys.good_until),
            scopes=read_scopes(find(claims, steps(provider.scopes_claim))),
            claims=claims,
            epoch=self._epoch,
        )


def candidates(providers: Sequence[Provider], issuer: object) -> tuple[Provider, ...]:
    """The providers that a token with this `iss` may belong to. Raises TokenInvalid where there is none.

    A provider with an issuer takes that issuer's tokens, and no other provider does. The providers without an issuer
    take all other tokens.
    """
    if issuer is not None:
        if type(issuer) is not str:
            raise TokenInvalid(Reason.CLAIMS)
        owners = tuple(provider for provider in providers if provider.issuer == issuer)
        if owners:
            return owners
    takers = tuple(provider for provider in providers if provider.issuer is None)
    if not takers:
        raise TokenInvalid(Reason.UNKNOWN_ISSUER)
    return takers


def check_algorithm(compact: Compact, provider: Provider) -> None:
    """RFC 8725 §3.1: the provider lists the algorithms, and the token may only choose one of them."""
    if compact.algorithm not in provider.algorithms:
        raise TokenInvalid(Reason.ALGORITHM)


def check_signature(compact: Compact, provider: Provider) -> KeyWanted | None:
    """None where a key of the provider made the signature; KeyWanted where a newer key may have made it.

    Raises TokenInvalid where no key made it, KeysUnavailable where the keys could not be fetched.
    """
    keys = provider.keys.find(compact.kid, compact.algorithm)
    for key in keys[: keys_tried(compact.algorithm)]:
        if key.verify(compact.algorithm, compact.signing_input, compact.signature):
            return None
    # Keys without a `kid` rotate too. For them a signature that does not verify counts as a missing key.
    may_be_newer = not keys or compact.kid is None
    if may_be_newer and provider.keys.can_refresh:
        return KeyWanted(provider, compact.kid)
    if not keys and provider.keys.is_stale:
        raise KeysUnavailable(f"provider {provider.name} cannot be asked for a key it may have published")
    raise TokenInvalid(Reason.SIGNATURE if keys else Reason.UNKNOWN_KEY)


def check_times(claims: Mapping[str, Any], leeway: float, now: float) -> float:
    """When the token ends, in Unix seconds, with the leeway in it (RFC 7519 §4.1.4, §4.1.5).

    Raises TokenInvalid before `nbf`, from `exp` on, and without `exp`. An `iat` in the future is no error in the RFC.
    """
    expires = read_time(claims, "exp")
    if expires is None:
        raise TokenInvalid(Reason.CLAIMS)
    if now >= expires + leeway:
        raise TokenInvalid(Reason.EXPIRED)
    not_before = read_time(claims, "nbf")
    if not_before is not None and now < not_before - leeway:
        raise TokenInvalid(Reason.NOT_YET_VALID)
    return expires + leeway


def read_time(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 §2), in Unix seconds; None where the claim is absent.

    Raises TokenInvalid for what is not a JSON number: text, a boolean, null.
    """
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not int and type(value) is not float:
        raise TokenInvalid(Reason.CLAIMS)
    return value


def check_issuer(claims: Mapping[str, Any], provider: Provider) -> None:
    """RFC 7519 §4.1.1. Raises TokenInvalid for an `iss` that is no text or not the provider's."""
    issuer = claims.get("iss")
    if "iss" in claims and type(issuer) is not str:
        raise TokenInvalid(Reason.CLAIMS)
    if provider.issuer is not None and issuer != provider.issuer:
        raise TokenInvalid(Reason.UNKNOWN_ISSUER)


def check_audience(claims: Mapping[str, Any], provider: Provider) -> None:
    """RFC 7519 §4.1.3. Raises TokenInvalid where the provider has audiences and `aud` names none of them."""
    if not provider.audiences:
        return
    audience = claims.get("aud")
    named = audience if type(audience) is list else [audience]
    if not all(type(name) is str for name in named) or provider.audiences.isdisjoint(named):
        raise TokenInvalid(Reason.AUDIENCE)


def read_subject(claims: Mapping[str, Any], provider: Provider) -> str:
    """The subject from the provider's claim for it (RFC 7519 §4.1.2). Raises TokenInvalid where it is none."""
    subject = find(claims, steps(provider.subject_claim))
    if not is_subject(subject):
        raise TokenInvalid(Reason.SUBJECT)
    return subject


def is_subject(subject: object) -> TypeGuard[str]:
    """Whether it can be a header value unchanged: text without control characters, or white space at its ends."""
    if type(subject) is not str or not subject or len(subject) > MAX_SUBJECT_BYTES:
        return False
    if _UNSAFE.search(subject) or subject != subject.strip():
        return False
    return len(subject.encode("utf-8")) <= MAX_SUBJECT_BYTES


def read_id(claims: Mapping[str, Any]) -> str | None:
    """The `jti` (RFC 7519 §4.1.7). Raises TokenInvalid for one that is no text, which could not be revoked by name."""
    if "jti" not in claims:
        return None
    token_id = claims["jti"]
    if type(token_id) is not str:
        raise TokenInvalid(Reason.CLAIMS)
    return token_id


def read_tier(claims: Mapping[str, Any], provider: Provider, tiers: frozenset[str]) -> str:
    """The caller's tier: without the claim the provider's default, and for an unknown tier `anonymous`."""
    tier = find(claims, steps(provider.tier_claim))
    if tier is ABSENT:
        return provider.default_tier
    if type(tier) is str and tier.lower() in tiers:
        return tier.lower()
    return ANONYMOUS


def read_scopes(value: object) -> frozenset[str]:
    """The scopes of text with spaces (RFC 8693 §4.2) or of a list of texts. Anything else grants nothing."""
    if type(value) is str:
        return frozenset(value.split(" ")) - {""}
    if type(value) is list:
        return frozenset(scope for scope in value if type(scope) is str)
    return frozenset()
