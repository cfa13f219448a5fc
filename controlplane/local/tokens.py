"""Tokens for trying a local gateway."""

from __future__ import annotations

import time


def mint(secret: str, subject: str, tier: str, ttl_seconds: int) -> str:
    """An HS256 token as the default provider wants it. A negative time to live gives one that has expired."""
    import jwt  # late: most verbs need no token

    now = int(time.time())
    return jwt.encode({"sub": subject, "tier": tier, "iat": now, "exp": now + ttl_seconds}, secret, algorithm="HS256")
