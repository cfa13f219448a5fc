"""What a decision says to the client: header values and the body of a 429, as text."""

from __future__ import annotations

from functools import lru_cache

from ratelimit_service.limits import BURST, SECOND_US, WINDOW_US, Limit, Verdict

RATE_LIMITED = "RATE_LIMITED"

LIMIT, REMAINING, RESET = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
STATE, POLICY = "RateLimit", "RateLimit-Policy"
RETRY_AFTER, CONTENT_TYPE, ERROR = "Retry-After", "Content-Type", "x-gateway-error"


@lru_cache(maxsize=1024)
def fixed_headers(limit: Limit, kind: str) -> tuple[tuple[str, str], ...]:
    """The headers that depend on the numbers alone. `kind` is the rule that they describe."""
    quota = limit.burst if kind == BURST else limit.rpm
    refill_seconds = max(1, -(-limit.capacity // (limit.refill * SECOND_US)))
    window_seconds = WINDOW_US // SECOND_US
    policy = f'"burst";q={limit.burst};w={refill_seconds}, "minute";q={limit.rpm};w={window_seconds}'
    return (LIMIT, str(quota)), (POLICY, policy)


def moving_headers(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    """The headers of this response alone. Seconds are rounded up: after them the request would pass."""
    reset = -(-verdict.reset_us // SECOND_US)
    until_reset = max(0, -(-(verdict.reset_us - verdict.now_us) // SECOND_US))
    remaining = str(verdict.remaining)
    return (
        (REMAINING, remaining),
        (RESET, str(reset)),
        (STATE, f'"{verdict.kind}";r={remaining};t={until_reset}'),
    )


@lru_cache(maxsize=128)
def over_limit_headers(retry_after: int) -> tuple[tuple[str, str], ...]:
    """The headers that only a 429 has."""
    return (RETRY_AFTER, str(retry_after)), (CONTENT_TYPE, "application/json"), (ERROR, RATE_LIMITED)


@lru_cache(maxsize=128)
def over_limit_body(retry_after: int) -> bytes:
    """The body of a 429."""
    return (
        f'{{"error":{{"code":"{RATE_LIMITED}","message":"Too many requests","retry_after":{retry_after}}}}}'
    ).encode()
