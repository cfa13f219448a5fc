"""What a client reads."""

from __future__ import annotations

import json

from ratelimit_service.limits import BURST, MINUTE, Charge, Limit, Rule, Verdict
from ratelimit_service.responses import fixed_headers, moving_headers, over_limit_body, over_limit_headers

LIMIT = Limit(10, 200, 20)
NOW_US = 1_800_000_000_400_000


def a_verdict(allowed: bool, kind: str, remaining: int, wait_us: int) -> Verdict:
    charge = Charge("c" * 22, Rule("tier", LIMIT), 1)
    return Verdict(allowed, charge, kind, remaining, NOW_US + wait_us, 1, NOW_US)


def test_limit_and_policy() -> None:
    """The limit is that of the rule told; the policy names both rules with quota and window."""
    policy = '"burst";q=20;w=2, "minute";q=200;w=60'
    assert fixed_headers(LIMIT, MINUTE) == (("X-RateLimit-Limit", "200"), ("RateLimit-Policy", policy))
    assert fixed_headers(LIMIT, BURST) == (("X-RateLimit-Limit", "20"), ("RateLimit-Policy", policy))


def test_success() -> None:
    """On a 200 the state of the minute rule."""
    assert dict(moving_headers(a_verdict(True, MINUTE, 199, 60_000_000))) == {
        "X-RateLimit-Remaining": "199",
        "X-RateLimit-Reset": "1800000061",
        "RateLimit": '"minute";r=199;t=60',
    }


def test_refusal() -> None:
    """On a 429 the rule that refused, and when the request would pass, rounded up."""
    assert dict(moving_headers(a_verdict(False, BURST, 0, 100_000))) == {
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1800000001",
        "RateLimit": '"burst";r=0;t=1',
    }


def test_refusal_body() -> None:
    """The body says the same seconds as the header."""
    assert json.loads(over_limit_body(7)) == {
        "error": {"code": "RATE_LIMITED", "message": "Too many requests", "retry_after": 7}
    }
    assert dict(over_limit_headers(7)) == {
        "Retry-After": "7",
        "Content-Type": "application/json",
        "x-gateway-error": "RATE_LIMITED",
    }
