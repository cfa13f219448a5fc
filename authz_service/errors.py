"""What can go wrong: the operator's fault, the caller's fault, and ours, kept apart.

AuthzError
├── PolicyRefused       a policy that cannot be enforced: NACK, the last good one stays
├── TokenRefused        the caller's token is bad, for one of a few reasons: 401 or anonymous
└── KeysUnavailable     we cannot tell whether a token is good: 503

A process that cannot start raises service_kit.errors.StartFailed.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a request was answered as it was; for logs and metrics only, never for the client."""

    VERIFIED = "verified"
    ANONYMOUS = "anonymous"
    # no credential
    NO_TOKEN = "no_token"
    # a bad token
    HEADER_AMBIGUOUS = "header_ambiguous"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    HEADER_REFUSED = "header_refused"
    ALGORITHM = "algorithm"
    UNKNOWN_ISSUER = "unknown_issuer"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    AUDIENCE = "audience"
    SUBJECT = "subject"
    REVOKED = "revoked"
    API_KEY = "api_key"
    # a good one that may not
    TIER_NOT_ALLOWED = "tier_not_allowed"
    SCOPE_MISSING = "scope_missing"
    CLAIM_MISSING = "claim_missing"
    # ours
    KEYS_UNAVAILABLE = "keys_unavailable"
    NO_POLICY = "no_policy"
    ROUTE_RULES = "route_rules"
    INTERNAL = "internal"


class AuthzError(Exception):
    """The root of this package's errors."""


class PolicyRefused(AuthzError):
    """The message names the place in the policy and never holds a secret."""


class TokenRefused(AuthzError):
    """A bad token; `reason` is all that is ever kept of why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class KeysUnavailable(AuthzError):
    """No key set that is young enough to trust."""
