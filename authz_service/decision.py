"""Decides: may this request pass, and as whom. Nothing is read from outside, and the time is an argument.

What it keeps is in what it is given: verified tokens in the verifier, wrong API keys in the guesses.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from authz_service.errors import Reason
from authz_service.guesses import Guesses, network_of
from authz_service.tokens import ANONYMOUS, InvalidToken, KeyWanted, Unavailable, Verdict, Verified, Verifier
from service_kit.json_pointer import ABSENT, find, steps

API_KEY_PROVIDER = "apikey"
MAX_API_KEY_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Policy:
    """What is enforced beside tokens: API keys, each by its SHA-256, with the caller that it identifies.

    `api_key_header` is in lower case; None where there are no API keys. An address may be wrong `max_failures` times a
    minute.
    """

    api_key_header: str | None = None
    api_keys: Mapping[bytes, Verified] = field(default_factory=dict)
    max_failures: int = 60


@dataclass(frozen=True, slots=True)
class RouteRules:
    """What one route asks of its callers. A set that is None, and scopes or claims that are empty, ask nothing.

    `providers` are the providers whose tokens count. `claims` must each be there with this value.
    """

    is_required: bool
    tiers: frozenset[str] | None = None
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict)
    providers: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a decision needs of a request. `rules` is None where the route's rules could not be read.

    `address` is the client's, after trusted hops.
    """

    rules: RouteRules | None
    authorization: str | None = None
    api_key: str | None = None
    address: str = ""


class ErrorCode(Enum):
    """The codes of the errors that this service returns to clients."""

    UNAUTHORIZED = "UNAUTHORIZED"
    AUTH_FAILED = "AUTH_FAILED"
    FORBIDDEN = "FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may pass. `verified` is None for an anonymous caller."""

    verified: Verified | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Deny:
    """The request may not pass. The client gets `code`; `reason`, and who it was, are for logs and metrics.

    `missing` are the scopes, or the names of the claims, that a verified caller lacks. `scopes` are all that the route
    asks for, where one of them is missing. `retry_after` is in whole seconds, where waiting helps.
    """

    code: ErrorCode
    reason: Reason
    verified: Verified | None = None
    missing: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    retry_after: int | None = None


Decision = Allow | Deny

KEYS_UNAVAILABLE = Deny(ErrorCode.SERVICE_UNAVAILABLE, Reason.KEYS_UNAVAILABLE)
ROUTE_RULES = Deny(ErrorCode.SERVICE_UNAVAILABLE, Reason.ROUTE_RULES)
NO_TOKEN = Deny(ErrorCode.UNAUTHORIZED, Reason.NO_TOKEN)


def decide(request: Request, policy: Policy, verifier: Verifier, guesses: Guesses, now: float) -> Decision | KeyWanted:
    """Decide on one request at `now` (Unix seconds). A token comes before an API key.

    KeyWanted means: refresh that provider's keys and decide again. Where the key is still wanted after that, the keys
    are unavailable.
    """
    rules = request.rules
    if rules is None:
        return ROUTE_RULES
    verdict: Verdict | Deny
    token = read_bearer(request.authorization)
    if token is not None:
        verdict = verifier.cached(token, rules.providers, now) or verify_token(token, rules, verifier, now)
    elif request.api_key is not None:
        verdict = try_api_key(request, rules, policy, guesses, now)
    else:
        return NO_TOKEN if rules.is_required else _anonymous(Reason.NO_TOKEN, rules)
    if isinstance(verdict, Verified):
        return authorize(verdict, rules)
    if isinstance(verdict, KeyWanted | Deny):
        return verdict
    return decide_unverified(verdict, rules)


def read_bearer(authorization: str | None) -> str | None:
    """The token of `Authorization: Bearer TOKEN` (RFC 6750 §2.1); None where there is none.

    Envoy joins repeated headers with a comma, which no token holds. Such a header is returned whole: `verify_token`
    finds it ambiguous.
    """
    if not authorization:
        return None
    if "," in authorization:
        return authorization
    if authorization[:6].lower() != "bearer":
        return None
    rest = authorization[6:]
    return rest.strip(" ") if not rest or rest[0] in " \t" else None


def verify_token(token: str, rules: RouteRules, verifier: Verifier, now: float) -> Verdict:
    """Whose token it is, among the providers that the route names. A repeated Authorization header is invalid."""
    if "," in token:
        return InvalidToken(Reason.HEADER_AMBIGUOUS, verifier.among(rules.providers))
    return verifier.verify(token, rules.providers, now)


def try_api_key(
    request: Request, rules: RouteRules, policy: Policy, guesses: Guesses, now: float
) -> Verified | InvalidToken | Deny:
    """Whose API key it is, where the route takes keys; a Deny where the client's network was wrong too often.

    Then no key is looked at but those that were right a moment ago, whoever sends them.
    """
    if rules.providers is not None and API_KEY_PROVIDER not in rules.providers:
        return InvalidToken(Reason.API_KEY_NOT_ACCEPTED, ())
    digest = digest_of(request.api_key or "")
    if not guesses.was_good(digest, now):
        wait = guesses.wait(network_of(request.address), policy.max_failures, now)
        if wait:
            return Deny(ErrorCode.RATE_LIMITED, Reason.TOO_MANY_FAILURES, retry_after=math.ceil(wait))
    verified = policy.api_keys.get(digest)
    if verified is None:
        guesses.wrong(network_of(request.address), policy.max_failures, now)
        return InvalidToken(Reason.API_KEY, ())
    guesses.good(digest, now)
    return verified


def digest_of(api_key: str) -> bytes:
    """What keys are known by, so that the time of a look-up says nothing about a key. Empty for what can be none."""
    if not 0 < len(api_key) <= MAX_API_KEY_CHARACTERS:
        return b""
    return hashlib.sha256(api_key.encode("utf-8", "surrogateescape")).digest()


def authorize(verified: Verified, rules: RouteRules) -> Decision:
    """Whether the route allows a verified caller: its tier, its scopes and its claims."""
    if rules.tiers is not None and verified.tier not in rules.tiers:
        return Deny(ErrorCode.FORBIDDEN, Reason.TIER_NOT_ALLOWED, verified)
    if not rules.scopes <= verified.scopes:
        return _without_scopes(verified, rules.scopes)
    if missing := tuple(name for name, value in rules.claims.items() if not has_claim(verified.claims, name, value)):
        return Deny(ErrorCode.FORBIDDEN, Reason.CLAIM_MISSING, verified, missing)
    return Allow(verified, Reason.VERIFIED)


def _without_scopes(verified: Verified, asked: frozenset[str]) -> Deny:
    missing, scopes = sorted(asked - verified.scopes), sorted(asked)
    return Deny(ErrorCode.FORBIDDEN, Reason.SCOPE_MISSING, verified, tuple(missing), tuple(scopes))


def has_claim(claims: Mapping[str, Any], name: str, wanted: Any) -> bool:
    """The claim is the wanted value, or a list that holds it. A name that begins with `/` is an RFC 6901 pointer."""
    value = find(claims, steps(name))
    if value is ABSENT:
        return False
    return _is_same(value, wanted) or (type(value) is list and any(_is_same(item, wanted) for item in value))


def decide_unverified(verdict: InvalidToken | Unavailable, rules: RouteRules) -> Decision:
    """Deny an invalid token where the route requires one or a provider denies invalid tokens; else: anonymous."""
    if not isinstance(verdict, InvalidToken):
        return KEYS_UNAVAILABLE
    if rules.is_required or any(provider.denies_bad_tokens for provider in verdict.candidates):
        return Deny(ErrorCode.AUTH_FAILED, verdict.reason)
    return _anonymous(verdict.reason, rules)


def read_rules(extensions: Mapping[str, str]) -> RouteRules | None:
    """The route's rules from Envoy's `context_extensions`. None where they cannot be read: the request is denied."""
    auth = extensions.get("auth")
    if auth not in ("required", "optional"):
        return None
    try:
        claims = json.loads(extensions.get("claims", "{}"))
    except ValueError:
        return None
    if type(claims) is not dict:
        return None
    return RouteRules(
        is_required=auth == "required",
        tiers=_names(extensions.get("tiers"), ","),
        scopes=_names(extensions.get("scopes"), " ") or frozenset(),
        claims=claims,
        providers=_names(extensions.get("providers"), ","),
    )


def _names(text: str | None, separator: str) -> frozenset[str] | None:
    if text is None:
        return None
    return frozenset(name.strip() for name in text.split(separator)) - {""}


def _anonymous(reason: Reason, rules: RouteRules) -> Decision:
    """An anonymous caller has the tier `anonymous`, no scope and no claim. Where the route asks for more: 401."""
    is_enough = (rules.tiers is None or ANONYMOUS in rules.tiers) and not rules.scopes and not rules.claims
    if is_enough:
        return Allow(None, reason)
    return Deny(ErrorCode.UNAUTHORIZED if reason is Reason.NO_TOKEN else ErrorCode.AUTH_FAILED, reason)


def _is_same(value: Any, wanted: Any) -> bool:
    """Equal as JSON. For Python 1 equals True, inside lists and objects too."""
    return bool(value == wanted) and json.dumps(value, sort_keys=True) == json.dumps(wanted, sort_keys=True)
