"""Every error of this package: the operator's fault, the caller's fault, and ours, kept apart.

AuthzError
├── PolicyRejected    a policy that cannot be enforced: NACK, and the last good policy stays in force
├── TokenInvalid      the caller's token is not good: 401, or an anonymous caller
└── KeysUnavailable   we cannot tell whether a token is good: 503

A process that cannot start raises service_kit.errors.StartFailed.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a request was allowed or denied. For logs and metrics: a client is told the code of its error."""

    VERIFIED = "verified"
    ANONYMOUS = "anonymous"
    # no credential
    NO_TOKEN = "no_token"
    # an invalid token or key
    HEADER_AMBIGUOUS = "header_ambiguous"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    HEADER_REJECTED = "header_refused"
    ALGORITHM = "algorithm"
    UNKNOWN_ISSUER = "unknown_issuer"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    AUDIENCE = "wrong_audience"
    SUBJECT = "subject"
    REVOKED = "revoked"
    API_KEY = "wrong_api_key"
    API_KEY_NOT_ACCEPTED = "api_key_not_accepted"
    TOO_MANY_FAILURES = "too_many_failures"
    # a verified caller whom the route does not allow
    TIER_NOT_ALLOWED = "tier_not_allowed"
    SCOPE_MISSING = "scope_missing"
    CLAIM_MISSING = "claim_missing"
    # our fault
    KEYS_UNAVAILABLE = "keys_unavailable"
    NO_POLICY = "no_policy"
    ROUTE_RULES = "route_rules"
    INTERNAL = "internal"


class AuthzError(Exception):
    """The root of this package's errors."""


class PolicyRejected(AuthzError):
    """The policy cannot be enforced. The message names the place in the policy and never holds a secret.

    `missing_secret` is the environment variable that should hold a secret and is not set, where that is the reason.
    """

    def __init__(self, message: str, missing_secret: str | None = None) -> None:
        super().__init__(message)
        self.missing_secret = missing_secret


class TokenInvalid(AuthzError):
    """The token is not good. `reason` is all that is ever kept of why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class KeysUnavailable(AuthzError):
    """The provider has no key set that is young enough to trust."""
